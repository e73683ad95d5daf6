//! Circuits on ciphertexts, each written once against `ckks::Ops`.
//!
//! | to ... | open |
//! |---|---|
//! | evaluate a function on every slot | [`polynomial`] |
//! | know the precision of a bootstrap | [`bootstrap`] |
//! | test a circuit without encryption | [`testing`] |
#![forbid(unsafe_code)]

pub mod bootstrap;
mod error;
pub mod polynomial;
pub mod testing;

pub use error::CircuitError;
