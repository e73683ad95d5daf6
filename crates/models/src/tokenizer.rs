//! Text to tokens: WordPiece behind a normalizer under which raw text and the spaced form of
//! treebank corpora ("wasn't" / "was n't") give the same tokens.

use std::path::Path;

use crate::error::{ModelError, Result};
use crate::tokenizer_file::{self, short};

/// A tokenizer in the Hugging Face format, without padding, cutting or special tokens.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    vocab_size: usize,
}

impl Tokenizer {
    /// Reads the file `path` (a `tokenizer.json`).
    ///
    /// # Errors
    /// When the file cannot be read or is no tokenizer, or has no token.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| ModelError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::from_bytes(&bytes)
    }

    /// Reads the bytes of a `tokenizer.json`.
    ///
    /// Padding, cutting, post-processing and decoding entries are left out: the model must see
    /// every token of the text and no others.
    ///
    /// # Errors
    /// When the bytes are no WordPiece tokenizer, it normalizes or splits in a way that is not
    /// supported, it has tokens outside the vocabulary, its unknown token is not in it, or its ids
    /// are not the numbers below their count.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let file = tokenizer_file::parse(bytes)?;
        let vocab_size = checked_vocabulary(&file)?;
        let unused = ["truncation", "padding", "post_processor", "decoder"];
        let inner = tokenizer_file::build(file, &unused)?;
        Ok(Self { inner, vocab_size })
    }

    /// Number of tokens that it knows; every id is below.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of the token `token`, if it stands in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The tokens of `text`, none added. A word that the vocabulary cannot spell is the unknown
    /// token.
    ///
    /// # Errors
    /// When no token is left of the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| ModelError::Tokenizer(format!("the sentence cannot be encoded: {e}")))?;
        match encoding.get_ids() {
            [] => Err(ModelError::EmptySentence),
            ids => Ok(ids.to_vec()),
        }
    }

    /// The words of `text` as they are looked up in the vocabulary: normalized, split at spaces and
    /// punctuation, and whole, whether or not the vocabulary knows them.
    ///
    /// # Errors
    /// When the text cannot be normalized or split.
    pub fn words(&self, text: &str) -> Result<Vec<String>> {
        use tokenizers::{
            Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
        };
        let fail = |e: tokenizers::Error| {
            ModelError::Tokenizer(format!("the sentence cannot be split into words: {e}"))
        };
        let mut normalized = tokenizers::NormalizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            normalizer.normalize(&mut normalized).map_err(fail)?;
        }
        let mut pieces = PreTokenizedString::from(normalized);
        if let Some(splitter) = self.inner.get_pre_tokenizer() {
            splitter.pre_tokenize(&mut pieces).map_err(fail)?;
        }
        let splits = pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        Ok(splits
            .into_iter()
            .map(|(word, _, _)| word.to_owned())
            .collect())
    }

    /// As [`Tokenizer::encode`], with at most `limit` tokens; a longer text is refused, never cut.
    ///
    /// # Errors
    /// When no token is left of the text, or more than `limit`.
    pub fn encode_within(&self, text: &str, limit: usize) -> Result<Vec<u32>> {
        let ids = self.encode(text)?;
        if ids.len() > limit {
            return Err(ModelError::TooLong {
                count: ids.len(),
                limit,
            });
        }
        Ok(ids)
    }
}

/// Number of tokens of a tokenizer file, after checks that every id the tokenizer can give is
/// below it.
fn checked_vocabulary(file: &serde_json::Value) -> Result<usize> {
    let refuse = |what: String| Err(ModelError::Tokenizer(what));
    let kind = file
        .pointer("/model/type")
        .and_then(|v| v.as_str())
        .unwrap_or("absent");
    if kind != "WordPiece" {
        return refuse(format!(
            "not a tokenizer in the Hugging Face format, or of another kind: model.type is \
             `{}`, expected `WordPiece`",
            short(kind)
        ));
    }
    if file
        .get("added_tokens")
        .and_then(|v| v.as_array())
        .is_some_and(|a| !a.is_empty())
    {
        return refuse("it has added tokens, expected none: no text may name a token".into());
    }
    let vocab = file.pointer("/model/vocab").and_then(|v| v.as_object());
    let Some(vocab) = vocab.filter(|v| !v.is_empty()) else {
        return refuse("it knows no token; expected at least one in model.vocab".into());
    };
    let mut seen = vec![false; vocab.len()];
    for (token, id) in vocab {
        match id
            .as_u64()
            .and_then(|i| seen.get_mut(usize::try_from(i).ok()?))
        {
            Some(slot) if !*slot => *slot = true,
            _ => {
                return refuse(format!(
                    "token `{}` has id {id}; expected the ids 0 to {}, each once",
                    short(token),
                    vocab.len() - 1
                ));
            }
        }
    }
    Ok(vocab.len())
}

/// The `tokenizer.json` of a WordPiece vocabulary: token `i` of `tokens` has id `i`. One of them
/// has to be `[UNK]`.
///
/// The normalizer lowercases, strips accents, writes the contractions of English the same way
/// whether or not the text is spaced as in the Penn Treebank (its tokenization script splits
/// "can't" into "ca n't", "gonna" into "gon na", "'tis" into "'t is"), and turns all punctuation
/// but `!` and `?` into spaces. There are no special tokens, so that no text can name one.
///
/// # Errors
/// When `[UNK]` is not among the tokens or a token stands there twice.
pub fn wordpiece_json<S: AsRef<str>>(tokens: &[S]) -> Result<String> {
    let mut vocab = serde_json::Map::new();
    for (id, token) in tokens.iter().enumerate() {
        if vocab.insert(token.as_ref().to_owned(), id.into()).is_some() {
            return Err(ModelError::Tokenizer(format!(
                "token `{}` stands in the vocabulary twice; expected each once",
                token.as_ref()
            )));
        }
    }
    if !vocab.contains_key("[UNK]") {
        return Err(ModelError::Tokenizer(
            "the vocabulary has no token `[UNK]`; add it".into(),
        ));
    }
    let mut normalizers = vec![serde_json::json!({
        "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
        "strip_accents": true, "lowercase": true
    })];
    normalizers.extend(REPLACEMENTS.iter().map(|(pattern, content)| {
        serde_json::json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": content})
    }));
    let file = serde_json::json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab
        }
    });
    serde_json::to_string(&file).map_err(|e| ModelError::Tokenizer(e.to_string()))
}

/// Patterns and what replaces each, in order. The order matters: apostrophes are made alike first,
/// and the negations have to be found before punctuation goes.
const REPLACEMENTS: &[(&str, &str)] = &[
    ("[\u{2018}\u{2019}\u{201B}\u{02BC}\u{00B4}\u{FF07}`]", "'"),
    (r"-(?:lrb|rrb|lsb|rsb|lcb|rcb)-", " "),
    (r"(?<!\w)'t ?(?=is\b|was\b)", "it "),
    (r"\bca(?= ?n't\b)", "can"),
    (r"\bwo(?= ?n't\b)", "will"),
    (r"\bsha(?= ?n't\b)", "shall"),
    (r"n't\b", " not"),
    (r"\bcannot\b", "can not"),
    (r"\bgon ?na\b", "going to"),
    (r"\bgot ?ta\b", "got to"),
    (r"\bwan ?na\b", "want to"),
    (r"\bgim ?me\b", "give me"),
    (r"\blem ?me\b", "let me"),
    (r"[^\p{L}\p{N}\p{M}!?\s]+", " "),
];
