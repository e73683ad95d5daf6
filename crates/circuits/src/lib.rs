//! Circuits on ciphertexts, each written once against `ckks::Ops`.
//!
//! | to ... | open |
//! |---|---|
//! | map features to features in the layout of models | [`transform`] |
//! | multiply matrices, by several methods, counted | [`matrix`] |
//! | attend | [`attention`] |
//! | run the kernels of an encoder: softmax attention, LayerNorm, pooling | [`encoder`] |
//! | carry a state over tokens | [`recurrence`] |
//! | sum slots | [`reduce`] |
//! | evaluate a function on every slot | [`polynomial`] |
//! | know the precision of a bootstrap | [`bootstrap`] |
//! | test a circuit without encryption | [`testing`] |
#![forbid(unsafe_code)]

pub mod attention;
pub mod bootstrap;
pub mod encoder;
mod error;
pub mod matrix;
pub mod polynomial;
mod random;
pub mod recurrence;
pub mod reduce;
pub mod testing;
pub mod transform;

pub use error::CircuitError;
