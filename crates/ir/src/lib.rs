//! The programs that a model becomes.
//!
//! * [`tensor`]: what the model computes, on tokens and features;
//! * [`ciphertext`]: the same as operations on ciphertexts, each value with its level, scale and
//!   bound.
//!
//! Each has a verifier (`verify`) and a printer (`print`). A ciphertext program is made by
//! running a circuit on a [`ciphertext::Recorder`], an implementer of [`veilformer_ckks::Ops`].
#![forbid(unsafe_code)]

pub mod ciphertext;
mod error;
mod matrix;
pub mod signature;
pub mod tensor;

pub use error::IrError;
pub use matrix::Matrix;
pub use signature::{InputKind, InputSpec, Signature};
