//! Training of polynomial transformers on the CPU, from a recipe file.
//!
//! What to open first: [`run`] is a whole run, [`network`] the model's forward pass, [`recipe`]
//! every hyperparameter.
#![forbid(unsafe_code)]

pub mod card;
pub mod corpus;
pub mod error;
pub mod export;
pub mod features;
pub mod network;
pub mod noise;
pub mod order;
pub mod params;
pub mod recipe;
pub mod run;
pub mod state;
pub mod trainer;
