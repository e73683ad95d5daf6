//! Circuits on ciphertexts, each written once against `ckks::Ops`.
//!
//! * [`polynomial`]: Chebyshev polynomials at optimal depth.
#![forbid(unsafe_code)]

pub mod polynomial;

pub mod attention;
pub mod reduce;
pub mod transform;
