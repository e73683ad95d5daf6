//! Bootstrapping. So far its noise model, which had to exist before its code: parameters that
//! the model refuses are not worth implementing.

mod embedding;
mod estimate;
mod eval_mod;
pub mod noise;
pub mod tail;

pub(crate) use embedding::{to_coefficients, to_slots};
pub use estimate::{NoiseEstimate, StageNoise, estimate};
pub use noise::{BootstrapSpec, Input, InverseSine, Order, Precision, simulate};
