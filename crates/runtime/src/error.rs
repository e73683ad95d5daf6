//! What can go wrong while a program runs or is loaded.

use thiserror::Error;
use veilformer_circuits::CircuitError;
use veilformer_ckks::{CkksError, KeyId, KeyPurpose, OpsError};
use veilformer_ir::IrError;

/// A run, a plan or a bundle that failed.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// A simulated value that would run over its modulus.
    #[error("the input is outside the range that the program was compiled for; {0}")]
    Range(String),
    /// A number of sentences that the ciphertexts do not hold.
    #[error("{0}")]
    Items(String),
    /// Too few or too many input ciphertexts.
    #[error(
        "{found} input ciphertexts were given and the program takes {expected} (for each of the \
         sentences); encrypt with the client bundle of this program"
    )]
    InputCount {
        /// Number given.
        found: usize,
        /// Number expected.
        expected: usize,
    },
    /// More sentences than one file can hold the answers of.
    #[error("{found} sentences in one file, the answers of at most {limit} fit one; send several")]
    TooManyItems {
        /// Number of sentences.
        found: usize,
        /// Most whose answers fit a file.
        limit: usize,
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
    /// The system gives no thread for a measurement.
    #[error("cannot start a thread to measure this machine: {0}")]
    Threads(String),
    /// The caller stopped the measurement of a machine.
    #[error("stopped after {done} of {total} measurements")]
    MeasureStopped {
        /// Measurements done.
        done: usize,
        /// Measurements in all.
        total: usize,
    },
    /// The caller stopped the loading of keys.
    #[error("stopped after {done} of {total} evaluation keys")]
    KeysStopped {
        /// Keys done.
        done: usize,
        /// Keys in all.
        total: usize,
    },
    /// A secret key was given to the server.
    #[error(
        "the file is a secret key, which a server must never see; give it the evaluation keys \
         that keygen wrote beside it, and keep the secret key with the client"
    )]
    SecretKey,
    /// A run before keys were loaded.
    #[error("no evaluation keys are loaded; load those of the client first")]
    NoKeys,
    /// A key that the program needs is not in the file.
    #[error(
        "the evaluation keys lack the {purpose} key that covers level {level}; run keygen with \
         the client bundle of this program"
    )]
    MissingKey {
        /// Which key.
        purpose: KeyPurpose,
        /// Highest level of its use.
        level: usize,
    },
    /// Keys or ciphertexts of another program.
    #[error(
        "{object} belong to another program (digest {found}, expected {expected}); make them with \
         the client bundle that was compiled together with this server bundle"
    )]
    OtherProgram {
        /// Which file.
        object: &'static str,
        /// Start of the digest found.
        found: String,
        /// Start of the digest expected.
        expected: String,
    },
    /// Ciphertexts under another secret key than the evaluation keys.
    #[error(
        "the inputs are encrypted under secret key {found} and the evaluation keys belong to \
         {expected}; give the evaluation keys that were made with the secret key of the inputs"
    )]
    OtherKey {
        /// Key id of the inputs.
        found: KeyId,
        /// Key id of the evaluation keys.
        expected: KeyId,
    },
    /// A bundle whose parts do not belong together.
    #[error("{0}")]
    Bundle(String),
    /// An operation.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// A circuit.
    #[error(transparent)]
    Circuit(#[from] CircuitError),
    /// A program.
    #[error(transparent)]
    Ir(#[from] IrError),
    /// Parameters, keys, ciphertexts, files.
    #[error(transparent)]
    Ckks(#[from] CkksError),
}

/// The first eight bytes of a digest in hexadecimal, for messages.
pub(crate) fn short_hex(digest: &[u8]) -> String {
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}
