//! Runs compiled programs and predicts what a run takes.
//!
//! | to ... | open |
//! |---|---|
//! | store the server's half of a compiled model | [`ServerBundle`] |
//! | answer encrypted inputs from files | [`Server`] |
//! | run a program on ciphertexts | [`run`] |
//! | see what a run did | [`RunStats`] |
//!
//! No type of this crate, nor of any crate below it, can hold a secret key.
#![forbid(unsafe_code)]

mod bundle;
mod error;
mod executor;
mod server;
mod stats;

pub use bundle::{PROGRAM_DIGEST, ServerBundle};
pub use error::RuntimeError;
pub use executor::{Prepared, Progress, run, run_with_stats};
pub use server::{Server, ServerRun};
pub use stats::{
    KindStats, OpKind, RunStats, SectionStats, ciphertext_memory, key_switches, multiplications,
};
