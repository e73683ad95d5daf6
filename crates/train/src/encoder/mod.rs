//! Encoders of the BERT family: fine-tuned to classifiers, and distilled into students whose
//! attention and activation are cheap on ciphertexts.
//!
//! What to open first: [`run`] is a whole run, [`trainer`] its steps and losses, [`network`] the
//! forward pass, [`recipe`] every hyperparameter.

mod card;
pub mod corpus;
pub mod folder;
pub mod network;
pub mod ops;
pub mod optimizer;
pub mod ranges;
pub mod recipe;
pub mod run;
pub mod state;
pub mod trainer;

pub use run::{EncoderPaths, Metrics, train_encoder};
