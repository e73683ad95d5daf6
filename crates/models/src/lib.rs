//! Model folders (configuration, weights, tokenizer) and data sets of polynomial transformers.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod config;
pub mod data;
pub mod error;
pub mod interpreter;
mod program;
pub mod random;
pub mod tokenizer;

pub use checkpoint::{Checkpoint, EmbeddingTable, LayerWeights, Linear, ModelFolder, Norm, matrix};
pub use config::ModelConfig;
pub use data::{DataSet, Example};
pub use error::{ModelError, Result};
pub use random::random_checkpoint;
pub use tokenizer::Tokenizer;
pub use veilformer_ir::Matrix;
