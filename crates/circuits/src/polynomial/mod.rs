//! Polynomials in the Chebyshev basis: fit, plan, evaluation on ciphertexts.
//!
//! A function becomes a [`Chebyshev`] on the interval that bounds its input; an
//! [`EvaluationPlan`] fixes depth and operations; [`evaluate`] runs the plan on any
//! implementation of `ckks::Ops`.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use veilformer_ckks::{Ops, ParamsSpec, SecurityLevel, SlotVector};
//! use veilformer_circuits::polynomial::{Chebyshev, EvaluationPlan, InputMap, evaluate};
//! use veilformer_circuits::testing::ClearOps;
//!
//! let tanh = Chebyshev::fit_to_error(f64::tanh, 1e-4, 31, (-4.0, 4.0))?;
//! let plan = EvaluationPlan::new(&[tanh], InputMap::Affine)?;
//! println!("{} levels, {:?}", plan.depth(), plan.counts());
//!
//! # let security = SecurityLevel::Bits128;
//! let params = ParamsSpec { log_n: 14, first_bits: 45, scale_bits: 36, levels: 7,
//!     special_bits: 41, special_count: 3, digit_limbs: 3, security }.validate()?;
//! let mut ops = ClearOps::new(&params); // or an Evaluator, with keys
//! let x = ops.encrypt(&SlotVector::real_constant(0.5), params.max_level())?;
//! let y = evaluate(&mut ops, &x, &plan)?.remove(0);
//! assert_eq!(ops.level(&y), params.max_level() - plan.depth());
//! assert!((ops.decrypt(&y)[0].re - 0.5f64.tanh()).abs() < 2e-4);
//! # Ok(())
//! # }
//! ```

mod chebyshev;
mod error;
mod evaluate;
mod plan;

pub use chebyshev::{Chebyshev, MAX_DEGREE, Parity};
pub use error::PolynomialError;
pub use evaluate::{evaluate, evaluate_one, evaluate_to};
pub use plan::{
    Affine, BasisStep, Counts, EvaluationPlan, InputMap, Node, basis_depth, optimal_depth,
};
