//! Bootstrapping: its circuit, and the noise model that chose its parameters.

mod bootstrapping;
mod circuit;
mod dft;
mod embedding;
mod estimate;
mod eval_mod;
mod factor;
pub mod noise;
mod plan;
mod preset;
pub mod tail;

pub use bootstrapping::Bootstrapping;
pub(crate) use bootstrapping::{entry, refused};
pub use circuit::{Bootstrap, Stage};
pub use embedding::multiples_of_q0;
pub(crate) use embedding::{to_coefficients, to_slots};
pub use estimate::{NoiseEstimate, StageNoise, estimate};
pub use noise::{BootstrapSpec, Input, InverseSine, Order, Precision, simulate};
pub use plan::{BootstrapPlan, Content, RANGE_MARGIN};
pub use preset::{FAILURE_LOG2, LEAST_BITS, Predicted, Preset};
