//! The programs that a model becomes.
//!
//! * [`encoder`]: what a trained encoder computes, its non-linear functions given from outside;
//! * [`tensor`]: what a polynomial model computes, on tokens and features;
//! * [`ciphertext`]: the same as operations on ciphertexts, each value with its level, scale and
//!   bound;
//! * [`device`]: the instruction stream of one device, with its buffers given out in advance.
//!
//! Each has a verifier (`verify`) and a printer (`print`). A ciphertext program is made by
//! running a circuit on a [`ciphertext::Recorder`], an implementer of [`veilformer_ckks::Ops`].
#![forbid(unsafe_code)]

pub mod ciphertext;
pub mod device;
pub mod encoder;
mod error;
mod matrix;
pub mod signature;
pub mod tensor;

pub use error::IrError;
pub use matrix::Matrix;
pub use signature::{InputKind, InputSpec, Signature};
