//! Runs compiled programs and predicts what a run takes.
//!
//! No type of this crate, nor of any crate below it, can hold a secret key.
#![forbid(unsafe_code)]

mod error;
mod executor;

pub use error::RuntimeError;
pub use executor::{Prepared, Progress, run};
