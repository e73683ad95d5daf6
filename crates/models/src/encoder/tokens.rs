//! Text to tokens as the encoder's authors do it: their `tokenizer.json` with its special tokens,
//! without its padding and cutting.

use std::collections::HashMap;

use crate::error::{ModelError, Result};
use crate::tokenizer_file::{self, short};

/// Rows that a token table may have beyond the vocabulary: tables are padded to round sizes.
const PADDING_ROWS: usize = 127;

/// A WordPiece tokenizer in the Hugging Face format, with special tokens.
#[derive(Clone, Debug)]
pub struct EncoderTokenizer {
    inner: tokenizers::Tokenizer,
    limit: usize,
}

impl EncoderTokenizer {
    /// Reads the bytes of a `tokenizer.json` for a model with `vocab_size` token vectors, to be
    /// used for at most `limit` tokens. What the file says of padding and cutting is left out: a
    /// sentence has as many tokens as it has, and one that has too many is refused.
    ///
    /// As in the model's own library, a text that spells a special token names it.
    ///
    /// # Errors
    /// When the bytes are no WordPiece tokenizer, it normalizes or splits in a way that is not
    /// supported, it adds no special tokens or adds them to more than one sentence, or its
    /// vocabulary is not that of the model.
    pub fn from_bytes(bytes: &[u8], vocab_size: usize, limit: usize) -> Result<Self> {
        let file = tokenizer_file::parse(bytes)?;
        let kind = file.pointer("/model/type").and_then(|v| v.as_str());
        if kind != Some("WordPiece") {
            return Err(ModelError::Tokenizer(format!(
                "model.type is `{}`, only `WordPiece` is supported",
                short(kind.unwrap_or("absent"))
            )));
        }
        tokenizer_file::check_post_processor(&file)?;
        let inner = tokenizer_file::build(file, &["truncation", "padding", "decoder"])?;
        let this = Self { inner, limit };
        this.check_vocabulary(vocab_size)?;
        let special = this.ids("")?;
        if special.is_empty() {
            return Err(ModelError::Tokenizer(
                "it adds no special tokens to a sentence, and an encoder was trained with them; \
                 the entry post_processor is missing"
                    .into(),
            ));
        }
        if let Some(id) = special.iter().find(|id| **id as usize >= vocab_size) {
            return Err(ModelError::Tokenizer(format!(
                "post_processor adds a token of id {id} and config.json says vocab_size \
                 {vocab_size}; the folder's files do not belong together"
            )));
        }
        Ok(this)
    }

    fn check_vocabulary(&self, vocab_size: usize) -> Result<()> {
        let vocabulary = self.inner.get_vocab(true);
        let disagree = |what: String| {
            Err(ModelError::Tokenizer(format!(
                "{what} and config.json says vocab_size {vocab_size}; \
                 the folder's files do not belong together"
            )))
        };
        let beyond = vocabulary
            .iter()
            .filter(|(_, id)| **id as usize >= vocab_size)
            .min_by_key(|(_, id)| **id);
        if let Some((token, id)) = beyond {
            let token = short(token);
            return disagree(format!("its token `{token}` has id {id}"));
        }
        if vocabulary.len() + PADDING_ROWS < vocab_size {
            return disagree(format!("it knows {} tokens", vocabulary.len()));
        }
        Ok(())
    }

    /// Checks that the lines of a `vocab.txt` name the tokens of the same ids.
    ///
    /// # Errors
    /// Names the first line that does not.
    pub fn check_vocabulary_file(&self, text: &str) -> Result<()> {
        let vocabulary: HashMap<String, u32> = self.inner.get_vocab(true);
        for (line, token) in text.lines().enumerate() {
            let id = vocabulary.get(token).map(|id| *id as usize);
            if id != Some(line) {
                return Err(ModelError::Tokenizer(format!(
                    "line {} of vocab.txt is `{}`, which has {} here; \
                     the folder's files do not belong together",
                    line + 1,
                    short(token),
                    id.map_or("no id".to_owned(), |id| format!("id {id}"))
                )));
            }
        }
        Ok(())
    }

    /// Most tokens of a sentence, special ones included.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The tokens of `text` with the special ones.
    ///
    /// # Errors
    /// When nothing is left of the text beside special tokens, or there are more than
    /// [`EncoderTokenizer::limit`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.ids(text)?;
        // Special tokens are there without any text too.
        if ids.len() <= self.ids("")?.len() {
            return Err(ModelError::EmptySentence);
        }
        if ids.len() > self.limit {
            return Err(ModelError::TooLong {
                count: ids.len(),
                limit: self.limit,
            });
        }
        Ok(ids)
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, true)
            .map_err(|e| ModelError::Tokenizer(format!("the sentence cannot be encoded: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }
}
