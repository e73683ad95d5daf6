//! The substitution pass: from an encoder's non-linear functions, and the [`Ranges`] that
//! calibration saw, to polynomials of the least depth that an error budget allows.
//!
//! It takes ranges and gives a [`Substitution`]; the model's weights stay as they are. What is
//! made can be run in floating point by any execution that takes a
//! [`Functions`](veilformer_ir::encoder::Functions): [`Polynomials`] is one.
//!
//! * Softmax of a head, from its scores less a public constant: [`Exponential`], a polynomial that
//!   is squared some times; the sum's inverse by [`Inverse`]; one product. Power-softmax has no
//!   exponential: powers of scores over a public constant ([`Weights`]).
//! * `1/sqrt(variance)`: one weighted minimax polynomial per normalization, on variances that are
//!   divided by a constant per class of tokens.
//! * GELU and tanh: one minimax polynomial per layer. A quadratic activation is one square.
//!
//! How small errors have to be follows from the answer: [`substitute_within`] halves them until it is
//! near enough. [`circuit`] runs what comes of it on ciphertexts.
//!
//! [`Ranges`]: veilformer_ir::encoder::Ranges

mod activation;
pub mod circuit;
mod compile;
mod exponential;
mod functions;
mod inverse;
mod minimax;
mod report;
mod substitute;
mod target;
mod weights;

pub use activation::ActivationSubstitution;
pub use compile::{CompiledEncoder, compile};
pub use exponential::Exponential;
pub use functions::{Polynomials, Violation};
pub use inverse::Inverse;
pub use minimax::minimax;
pub use report::SiteReport;
pub use substitute::{Budget, LayerSubstitution, NormSubstitution, Substitution, substitute};
pub use target::{answer_error, answer_tolerance, substitute_within};
pub use weights::Weights;
