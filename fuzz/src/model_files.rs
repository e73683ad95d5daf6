//! Parsers of what comes from elsewhere: model folders and data sets.

use std::path::Path;

use veilformer_models::interpreter::interpret;
use veilformer_models::{Checkpoint, DataSet, ModelConfig, Tokenizer};

use crate::seeds::CONFIG;

/// `config.json`.
pub fn model_config(data: &[u8]) {
    if let Ok(config) = ModelConfig::from_json(data) {
        let json = config.to_json().expect("what was read can be written");
        assert!(ModelConfig::from_json(json.as_bytes()).is_ok());
    }
}

/// `model.safetensors`, for a small configuration: the model that comes out is run.
pub fn checkpoint(data: &[u8]) {
    let config = ModelConfig::from_json(CONFIG.as_bytes()).expect("the configuration is valid");
    let Ok(checkpoint) = Checkpoint::from_bytes(config, data, None) else {
        return;
    };
    checkpoint.to_bytes().expect("what was read can be written");
    let program = checkpoint.tensor_program("fuzzed");
    if let Ok(rows) = checkpoint.rows(&[0, 1, 1]) {
        let _ = interpret(&program, &rows);
    }
}

/// `tokenizer.json`.
pub fn tokenizer(data: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_bytes(data) {
        for text in [
            "",
            "It wasn't a GOOD film!",
            "\u{301}\u{0}\u{fffd} \u{1f600}",
        ] {
            for id in tokenizer.encode(text).unwrap_or_default() {
                assert!((id as usize) < tokenizer.vocab_size());
            }
        }
    }
}

/// A data set in one file.
pub fn data_set(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(set) = DataSet::parse(Path::new("fuzzed"), text) {
        assert!(set.sample(3, 1).len() <= 3);
    }
}
