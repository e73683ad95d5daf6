//! What can go wrong.

use veilformer_circuits::CircuitError;
use veilformer_ckks::{CkksError, OpsError};
use veilformer_plot::PlotError;
use veilformer_ring::RingError;
use veilformer_secret::SecretError;

/// Why a measurement was not made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An argument that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A file or a process.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file or a line that is no JSON of the expected shape.
    #[error("{what}: {source}")]
    Json {
        /// What was read.
        what: String,
        /// Why it was refused.
        source: serde_json::Error,
    },
    /// Another library's driver.
    #[error("{peer}: {what}")]
    Peer {
        /// The library.
        peer: String,
        /// What it answered or did not.
        what: String,
    },
    /// The ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The scheme.
    #[error(transparent)]
    Ckks(#[from] CkksError),
    /// Operations.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// Circuits.
    #[error(transparent)]
    Circuits(#[from] CircuitError),
    /// The client's half.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A picture.
    #[error(transparent)]
    Plot(#[from] PlotError),
}

impl BenchError {
    /// An [`BenchError::Io`] for `map_err`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// A [`BenchError::Json`] for `map_err`.
    pub fn json(what: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Self {
        let what = what.into();
        move |source| Self::Json { what, source }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, BenchError>;
