//! The bodies of the fuzz targets, one per parser. The invariant is the same everywhere: a parser
//! refuses or accepts, and what it accepts goes through everything that the program would do with
//! it. A panic is a bug, whatever the bytes were.
//!
//! Containers end in a digest, which no fuzzer guesses: each is tried as it came, and once more
//! with its length and digest made right.
#![forbid(unsafe_code)]

mod containers;
mod model_files;
pub mod seeds;
mod toy;

pub use containers::{
    ciphertexts, client_bundle, container, cost_table, evaluation_keys, params, public_key,
    secret_key, server_bundle,
};
pub use model_files::{
    checkpoint, data_set, encoder_config, encoder_tokenizer, encoder_weights, model_config,
    token_table, tokenizer,
};
