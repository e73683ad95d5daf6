//! Model folders (configuration, weights, tokenizer) and data sets of models that are polynomial
//! throughout: transformers and state-space classifiers.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod config;
pub mod data;
pub mod digest;
pub mod embedding;
pub mod encoder;
pub mod error;
pub mod folder;
pub mod interpreter;
pub mod layers;
mod program;
pub mod random;
mod tensors;
pub mod tokenizer;
mod tokenizer_file;

pub use checkpoint::Checkpoint;
pub use config::{Family, ModelConfig, Pooling};
pub use data::{DataSet, Example, LineRange, read_text};
pub use embedding::{Embedding, EmbeddingTable};
pub use error::{ModelError, Result};
pub use folder::{FolderFiles, ModelFolder, TokenFiles, TokenTableFiles};
pub use layers::{Layers, Linear, Norm, StateSpaceLayer, TransformerLayer};
pub use random::random_checkpoint;
pub use tensors::matrix;
pub use tokenizer::Tokenizer;
pub use veilformer_ir::Matrix;
