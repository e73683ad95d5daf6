//! A Hugging Face folder of an encoder.

use std::path::Path;

use veilformer_ir::encoder::Encoder;

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
    /// what it names; and `vocab.txt`, if there is one, to compare.
    ///
    /// # Errors
    /// When a file cannot be read, is not supported, or does not fit the others.
    pub fn load(dir: &Path, max_tokens: usize) -> Result<Self> {
        let mut config = EncoderConfig::from_json(&read(dir, "config.json")?)?;
        if dir.join("modules.json").is_file() {
            config.set_pooling(&read(dir, "modules.json")?, |name| read(dir, name))?;
        }
        let tokenizer = read(dir, "tokenizer.json")?;
        let tokenizer = EncoderTokenizer::from_bytes(&tokenizer, config.vocab_size, max_tokens)?;
        if dir.join("vocab.txt").is_file() {
            let text = read(dir, "vocab.txt")?;
            tokenizer.check_vocabulary_file(&String::from_utf8_lossy(&text))?;
        }
        let encoder = encoder_from_bytes(&config, &read(dir, "model.safetensors")?, max_tokens)?;
        Ok(Self { encoder, tokenizer })
    }
}

fn read(dir: &Path, file: &str) -> Result<Vec<u8>> {
    let path = dir.join(file);
    std::fs::read(&path).map_err(|source| ModelError::Read { path, source })
}
