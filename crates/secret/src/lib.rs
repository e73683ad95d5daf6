//! The private half of the scheme: secret keys, key generation, encryption under them and
//! decryption.
//!
//! No server-side crate depends on this one: what a server is built from cannot hold a secret
//! key.
#![forbid(unsafe_code)]

mod error;
mod rng;
pub mod samplers;

pub use error::SecretError;
pub use rng::{SecretRng, SecureRng};
