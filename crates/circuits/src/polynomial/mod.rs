//! Polynomials in the Chebyshev basis: fit, plan, evaluation.
//!
//! A function becomes a [`Chebyshev`] on the interval that bounds its input; an
//! [`EvaluationPlan`] fixes depth and operations.

mod chebyshev;
mod error;
mod plan;

pub use chebyshev::{Chebyshev, MAX_DEGREE, Parity};
pub use error::PolynomialError;
pub use plan::{
    Affine, BasisStep, Counts, EvaluationPlan, InputMap, Node, basis_depth, common_parity,
    optimal_depth,
};
