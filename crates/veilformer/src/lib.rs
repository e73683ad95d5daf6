//! Inference of transformers on fully encrypted data.
//!
//! This crate is the facade: it re-exports the crates of the house, and holds what the command
//! line is made of beside them: the models that ship ([`model`]) and how a model becomes a pair
//! of bundles ([`build`](mod@build)).
#![forbid(unsafe_code)]

pub use veilformer_circuits as circuits;
pub use veilformer_ckks as ckks;
pub use veilformer_client as client;
pub use veilformer_compiler as compiler;
pub use veilformer_ir as ir;
pub use veilformer_models as models;
pub use veilformer_ring as ring;
pub use veilformer_runtime as runtime;
pub use veilformer_secret as secret;

pub mod build;
pub mod model;
