//! Parsers of what comes from elsewhere: model folders and data sets.

use std::path::Path;

use veilformer_models::interpreter::interpret;
use veilformer_models::{Checkpoint, DataSet, EmbeddingTable, ModelConfig, Tokenizer};

use crate::seeds::{self, CONFIG, STATE_SPACE};

/// `config.json`.
pub fn model_config(data: &[u8]) {
    if let Ok(config) = ModelConfig::from_json(data) {
        let json = config.to_json().expect("what was read can be written");
        assert!(ModelConfig::from_json(json.as_bytes()).is_ok());
    }
}

/// `model.safetensors`, for a small configuration of either family: the model that comes out is
/// run.
pub fn checkpoint(data: &[u8]) {
    for (config, shared) in [(CONFIG, None), (STATE_SPACE, Some(seeds::table()))] {
        let config = ModelConfig::from_json(config.as_bytes()).expect("the configuration is valid");
        if let Ok(checkpoint) = Checkpoint::from_bytes(config, data, shared) {
            run(&checkpoint);
        }
    }
}

/// `token_table.safetensors`: every row that comes out is finite, and it can be written.
pub fn token_table(data: &[u8]) {
    let Ok(table) = EmbeddingTable::from_bytes(data) else {
        return;
    };
    table.to_bytes().expect("what was read can be written");
    assert_eq!(table.rows().count(), table.vocab_size());
    for row in table.rows() {
        assert!(row.len() == table.width() && row.iter().all(|v| v.is_finite()));
    }
    assert!(table.row(table.vocab_size() as u32).is_err());
}

fn run(checkpoint: &Checkpoint) {
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
