//! What can go wrong while a program runs or is loaded.

use thiserror::Error;
use veilformer_ckks::{CkksError, OpsError};
use veilformer_ir::IrError;

/// A run, a plan or a bundle that failed.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// Too few or too many input ciphertexts.
    #[error(
        "{found} input ciphertexts were given and the program takes {expected}; encrypt with the client bundle of this program"
    )]
    InputCount {
        /// Number given.
        found: usize,
        /// Number expected.
        expected: usize,
    },
    /// An input of the wrong level or scale.
    #[error(
        "input ciphertext {index} is at level {found_level} (or of another scale) and level \
         {expected_level} is expected; encrypt with the client bundle of this program"
    )]
    Input {
        /// Which input.
        index: usize,
        /// Level found.
        found_level: usize,
        /// Level expected.
        expected_level: usize,
    },
    /// The caller stopped the run.
    #[error("stopped after {done} of {total} instructions")]
    Stopped {
        /// Instructions done.
        done: usize,
        /// Instructions in all.
        total: usize,
    },
    /// An output that no instruction made.
    #[error(
        "the program ended without its answer c{value}; its file does not belong to this version"
    )]
    NoResult {
        /// Which value.
        value: u32,
    },
    /// A bundle whose parts do not belong together.
    #[error("{0}")]
    Bundle(String),
    /// An operation.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// A program.
    #[error(transparent)]
    Ir(#[from] IrError),
    /// Parameters, keys, ciphertexts, files.
    #[error(transparent)]
    Ckks(#[from] CkksError),
}
