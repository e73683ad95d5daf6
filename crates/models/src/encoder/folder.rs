//! A Hugging Face folder of an encoder.

use std::path::Path;

use veilformer_ir::encoder::Encoder;

use super::case;
use super::config::EncoderConfig;
use super::tokens::EncoderTokenizer;
use super::weights::encoder_from_bytes;
use crate::error::{ModelError, Result};

/// An encoder and the tokenizer that belongs to it.
#[derive(Clone, Debug)]
pub struct EncoderFolder {
    /// The model.
    pub encoder: Encoder,
    /// Its tokenizer, which refuses what is too long for the model.
    pub tokenizer: EncoderTokenizer,
}

impl EncoderFolder {
    /// Reads the folder `dir` for sentences of at most `max_tokens` tokens: `config.json`,
    /// `model.safetensors`, `tokenizer.json`; of a sentence-transformers folder `modules.json` and
    /// what it names; and `vocab.txt`, `tokenizer_config.json` and `sentence_bert_config.json`, if
    /// there are any, to compare.
    ///
    /// # Errors
    /// When a file cannot be read, is not supported, or does not fit the others.
    pub fn load(dir: &Path, max_tokens: usize) -> Result<Self> {
        let mut config = EncoderConfig::from_json(&read(dir, "config.json")?)?;
        if dir.join("modules.json").is_file() {
            config.set_pooling(&read(dir, "modules.json")?, |name| read(dir, name))?;
        }
        let json = read(dir, "tokenizer.json")?;
        let tokenizer = EncoderTokenizer::from_bytes(&json, config.vocab_size, max_tokens)?;
        if dir.join("tokenizer_config.json").is_file() {
            case::check_settings(&json, &read(dir, "tokenizer_config.json")?)?;
        }
        if dir.join("sentence_bert_config.json").is_file() {
            case::check_sentences(&json, &read(dir, "sentence_bert_config.json")?)?;
        }
        if dir.join("vocab.txt").is_file() {
            let text = read(dir, "vocab.txt")?;
            tokenizer.check_vocabulary_file(&String::from_utf8_lossy(&text))?;
        }
        let encoder = encoder_from_bytes(&config, &read(dir, "model.safetensors")?, max_tokens)?;
        Ok(Self { encoder, tokenizer })
    }
}

/// Files that other programs keep weights or tokens in, instead of which, and the way from one to
/// the other. Whatever loads a model by the class that it was saved as keeps its head.
const OTHERS: [(&str, &str, &str); 6] = [
    ("pytorch_model.bin", "model.safetensors", SAVE),
    ("pytorch_model.bin.index.json", "model.safetensors", SAVE),
    ("model.safetensors.index.json", "model.safetensors", SAVE),
    ("tf_model.h5", "model.safetensors", SAVE_FROM_TF),
    ("flax_model.msgpack", "model.safetensors", SAVE_FROM_FLAX),
    (
        "vocab.txt",
        "tokenizer.json",
        "BertTokenizerFast.from_pretrained(FOLDER).save_pretrained(FOLDER)",
    ),
];
const SAVE: &str = "CLASS.from_pretrained(FOLDER).save_pretrained(FOLDER, max_shard_size=\"100GB\") \
                    with the CLASS that architectures names";
const SAVE_FROM_TF: &str = "CLASS.from_pretrained(FOLDER, from_tf=True).save_pretrained(FOLDER) \
                            with the CLASS that architectures names";
const SAVE_FROM_FLAX: &str = "CLASS.from_pretrained(FOLDER, from_flax=True).save_pretrained(FOLDER) \
                              with the CLASS that architectures names";

fn read(dir: &Path, file: &str) -> Result<Vec<u8>> {
    let path = dir.join(file);
    std::fs::read(&path).map_err(|source| {
        let absent = source.kind() == std::io::ErrorKind::NotFound;
        let is_there = |(other, instead, _): &&(&'static str, &str, &str)| {
            *instead == file && dir.join(other).is_file()
        };
        match OTHERS.iter().find(is_there).filter(|_| absent) {
            Some((found, _, how)) => ModelError::OtherFormat { path, found, how },
            None => ModelError::Read { path, source },
        }
    })
}
