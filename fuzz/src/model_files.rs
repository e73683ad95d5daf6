//! Parsers of what comes from elsewhere: model folders and data sets.

use std::path::Path;

use veilformer_models::encoder::{EncoderConfig, EncoderTokenizer, Execution, encoder_from_bytes};
use veilformer_models::interpreter::interpret;
use veilformer_models::{Checkpoint, DataSet, EmbeddingTable, ModelConfig, Tokenizer};

use crate::seeds::{self, CONFIG, ENCODER, STATE_SPACE};

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

/// `config.json` of an encoder of the BERT family, with `modules.json` and the pooling's file.
pub fn encoder_config(data: &[u8]) {
    if let Ok(mut config) = EncoderConfig::from_json(data) {
        assert!(
            config
                .hidden_size
                .is_multiple_of(config.num_attention_heads)
        );
        let _ = config.set_pooling(data, |_| Ok(data.to_vec()));
    }
    let mut config = EncoderConfig::from_json(ENCODER.as_bytes()).expect("it is valid");
    let modules = br#"[{"path":"p","type":"m.Pooling"}]"#;
    let _ = config.set_pooling(modules, |_| Ok(data.to_vec()));
    let _ = config.set_pooling(data, |_| Ok(Vec::new()));
}

/// `model.safetensors` of an encoder: the model that comes out is run.
pub fn encoder_weights(data: &[u8]) {
    let config = EncoderConfig::from_json(ENCODER.as_bytes()).expect("it is valid");
    if let Ok(encoder) = encoder_from_bytes(&config, data, 4) {
        let execution = Execution::new(&encoder).expect("import checks the model");
        let answers = execution.answers(&[vec![2, 4, 3]]).expect("three tokens");
        assert_eq!(answers[0].len(), encoder.outputs());
    }
}

/// `tokenizer.json` of an encoder.
pub fn encoder_tokenizer(data: &[u8]) {
    if let Ok(tokenizer) = EncoderTokenizer::from_bytes(data, 96, 32) {
        for text in ["", "It's [MASK] 2 FILMS!", "\u{301}\u{0}\u{fffd} \u{1f600}"] {
            for id in tokenizer.encode(text).unwrap_or_default() {
                assert!(id < 96);
            }
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
