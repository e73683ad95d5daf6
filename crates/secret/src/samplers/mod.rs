//! Samplers of secrets and errors, without branches or memory addresses that depend on what
//! they draw.
//!
//! | Sampler | Distribution | Distance from the ideal |
//! |---|---|---|
//! | [`ternary`] | uniform on {-1, 0, 1} | below 2^-103 per 16 coefficients |
//! | [`fixed_weight`] | uniform among the ternary vectors with h non-zeros | below 2^-93 per vector at N = 2^17 |
//! | [`gaussian`] | discrete Gaussian over the integers, sigma = 3.2 | below 2^-58 per coefficient |
//!
//! The running time is a function of the lengths only. All of them take a
//! [`SecretRng`](crate::SecretRng), which no seedable generator satisfies.

mod fixed_weight;
mod gaussian;
mod gaussian_table;
mod ternary;

pub use fixed_weight::fixed_weight;
pub use gaussian::{GAUSSIAN_BOUND, SIGMA, gaussian};
pub use ternary::ternary;

#[cfg(test)]
mod tests;
