//! Training of polynomial transformers and state-space classifiers on the CPU, from a recipe file.
//!
//! What to open first: [`run`] is a whole run, [`network`] the model's forward pass, [`recipe`]
//! every hyperparameter.
#![forbid(unsafe_code)]

pub mod card;
pub mod corpus;
pub mod encoder;
pub mod error;
pub mod export;
pub mod family;
pub mod features;
mod init;
pub mod network;
pub mod noise;
pub mod order;
pub mod params;
pub mod plots;
pub mod recipe;
pub mod run;
pub mod source;
pub mod state;
pub mod table;
pub mod trainer;
