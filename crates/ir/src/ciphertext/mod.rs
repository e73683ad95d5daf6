//! The ciphertext program: a straight line of operations on ciphertexts (SSA).
//!
//! What is recorded here is what runs: [`crate::ciphertext::Recorder`] records it from a circuit,
//! the compiler's verifier checks it, `plan` folds over it and the runtime replays it.

mod bootstrap;
mod print;
mod program;
mod recorder;
mod replay;
mod verify;

pub use bootstrap::{BootstrapInfo, MAX_BOOTSTRAPS};
pub use program::{
    CiphertextProgram, Instruction, Operation, PlainId, PlainPattern, PlainSpec, ValueId, ValueInfo,
};
pub use recorder::Recorder;
pub use replay::replay;
