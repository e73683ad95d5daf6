//! What a `tokenizer.json` may say. The tokenizers crate panics on some files, some while it reads
//! them and some at the first sentence, so that a file is checked before the crate sees it.

use serde_json::Value;

use crate::error::{ModelError, Result};

/// What changes characters. The others need tables of their own, which the crate does not check.
const NORMALIZERS: &[&str] = &[
    "BertNormalizer",
    "Lowercase",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Replace",
    "Strip",
    "StripAccents",
];
/// What splits a text into words.
const PRE_TOKENIZERS: &[&str] = &[
    "BertPreTokenizer",
    "Digits",
    "Punctuation",
    "Whitespace",
    "WhitespaceSplit",
];
/// What adds special tokens.
const POST_PROCESSORS: &[&str] = &["BertProcessing", "RobertaProcessing", "TemplateProcessing"];

fn refuse<T>(what: String) -> Result<T> {
    Err(ModelError::Tokenizer(what))
}

/// At most 40 characters of what a file says, for messages.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

/// A file that is not what it is called.
pub(crate) fn malformed(e: impl std::fmt::Display) -> ModelError {
    ModelError::Tokenizer(format!(
        "not a tokenizer in the Hugging Face format ({e}); copy the model folder again"
    ))
}

/// Reads the bytes of a `tokenizer.json` as far as JSON goes.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(malformed)
}

/// The tokenizer of a file whose normalizer, splitter and unknown token were checked. The entries
/// `unused` are left out.
pub(crate) fn build(mut file: Value, unused: &[&str]) -> Result<tokenizers::Tokenizer> {
    known(
        file.get("normalizer"),
        "normalizer",
        "normalizers",
        NORMALIZERS,
    )?;
    known(
        file.get("pre_tokenizer"),
        "pre_tokenizer",
        "pretokenizers",
        PRE_TOKENIZERS,
    )?;
    check_unknown_token(&file)?;
    let fields = file
        .as_object_mut()
        .ok_or_else(|| malformed("not an object"))?;
    for entry in unused {
        fields.insert((*entry).to_owned(), Value::Null);
    }
    let text = serde_json::to_vec(&file).map_err(malformed)?;
    tokenizers::Tokenizer::from_bytes(text).map_err(malformed)
}

/// Checks that the type of `part`, or of each part of a `Sequence`, is one of `types`. The crate
/// guesses the type of an entry without one, so that it has to be there.
fn known(part: Option<&Value>, what: &str, list: &str, types: &[&str]) -> Result<()> {
    let Some(part) = part.filter(|part| !part.is_null()) else {
        return Ok(());
    };
    let kind = part.get("type").and_then(Value::as_str).unwrap_or("absent");
    if kind == "Sequence" {
        let parts = part.get(list).and_then(Value::as_array);
        let Some(parts) = parts else {
            return refuse(format!(
                "{what} is a Sequence without {list}, expected a list"
            ));
        };
        return parts
            .iter()
            .try_for_each(|part| known(Some(part), what, list, types));
    }
    if types.contains(&kind) {
        return Ok(());
    }
    refuse(format!(
        "the type of {what} is `{}`; supported are {} and a Sequence of them",
        short(kind),
        types.join(", ")
    ))
}

/// The crate misses the unknown token at the first word that it needs it for, which is a client's.
fn check_unknown_token(file: &Value) -> Result<()> {
    let token = file.pointer("/model/unk_token").and_then(Value::as_str);
    let vocab = file.pointer("/model/vocab").and_then(Value::as_object);
    match (token, vocab) {
        (Some(token), Some(vocab)) if !vocab.contains_key(token) => refuse(format!(
            "model.unk_token is `{}`, which is not in model.vocab, expected one of its tokens; \
             save the tokenizer again",
            short(token)
        )),
        _ => Ok(()),
    }
}

/// Checks what adds special tokens to a sentence, if there is anything.
pub(crate) fn check_post_processor(file: &Value) -> Result<()> {
    let Some(part) = file.get("post_processor").filter(|part| !part.is_null()) else {
        return Ok(());
    };
    let kind = part.get("type").and_then(Value::as_str).unwrap_or("absent");
    if !POST_PROCESSORS.contains(&kind) {
        return refuse(format!(
            "the type of post_processor is `{}`; supported are {}",
            short(kind),
            POST_PROCESSORS.join(", ")
        ));
    }
    if kind == "TemplateProcessing" {
        return check_template(part);
    }
    Ok(())
}

/// Checks the template of one sentence; that of pairs is never used.
fn check_template(part: &Value) -> Result<()> {
    let pieces = part.get("single").and_then(Value::as_array);
    let Some(pieces) = pieces else {
        return Err(malformed("post_processor.single is no list"));
    };
    let mut sentences = 0;
    for piece in pieces {
        let field = |name: &str| {
            piece
                .get(name)
                .filter(|_| piece.as_object().is_some_and(|p| p.len() == 1))
        };
        let (piece, id) = match (field("Sequence"), field("SpecialToken")) {
            (Some(piece), None) => {
                let id = piece.get("id").and_then(Value::as_str).unwrap_or("absent");
                if id != "A" {
                    return refuse(format!(
                        "post_processor.single names the sequence `{}`, expected `A`, the only one \
                         that a template of one sentence has; save the tokenizer again",
                        short(id)
                    ));
                }
                sentences += 1;
                (piece, id)
            }
            (None, Some(piece)) => {
                let id = piece.get("id").and_then(Value::as_str).unwrap_or("absent");
                let tokens = part.get("special_tokens");
                if tokens.and_then(|tokens| tokens.get(id)).is_none() {
                    return refuse(format!(
                        "post_processor.single names the token `{}`, which special_tokens beside \
                         it does not define; add it there",
                        short(id)
                    ));
                }
                (piece, id)
            }
            _ => {
                return Err(malformed(
                    "a piece of post_processor.single is neither a Sequence nor a SpecialToken",
                ));
            }
        };
        // The position table that a program gets has the vector of the first type added.
        let kind = piece.get("type_id").unwrap_or(&Value::Null);
        if kind.as_u64() != Some(0) {
            return refuse(format!(
                "post_processor.single gives `{}` the type_id {}; only 0 is supported for the \
                 tokens of one sentence",
                short(id),
                short(&kind.to_string())
            ));
        }
    }
    if sentences != 1 {
        return refuse(format!(
            "post_processor.single has the sentence {sentences} times, expected once"
        ));
    }
    Ok(())
}
