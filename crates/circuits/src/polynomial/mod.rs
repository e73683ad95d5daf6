//! Polynomials in the Chebyshev basis: fit, plan, evaluation on ciphertexts.
//!
//! A function becomes a [`Chebyshev`] on the interval that bounds its input; an
//! [`EvaluationPlan`] fixes depth and operations; [`evaluate`] runs the plan on any
//! implementation of `ckks::Ops`.

mod chebyshev;
mod error;
mod evaluate;
mod plan;

pub use chebyshev::{Chebyshev, MAX_DEGREE, Parity};
pub use error::PolynomialError;
pub use evaluate::{evaluate, evaluate_one};
pub use plan::{
    Affine, BasisStep, Counts, EvaluationPlan, InputMap, Node, basis_depth, common_parity,
    optimal_depth,
};
