//! Training of polynomial transformers on the CPU, from a recipe file.
#![forbid(unsafe_code)]

pub mod corpus;
pub mod error;
pub mod features;
pub mod network;
pub mod noise;
pub mod params;
pub mod recipe;
pub mod trainer;
