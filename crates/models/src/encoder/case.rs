//! What files beside `tokenizer.json` say of letters. The model's own libraries follow those files;
//! a client has `tokenizer.json` alone, so that the two have to agree.

use serde_json::Value;

use crate::error::{ModelError, Result};

/// The settings of the transformers library, and what the normalizer calls them.
const SETTINGS: [(&str, &str); 3] = [
    ("do_lower_case", "lowercase"),
    ("strip_accents", "strip_accents"),
    ("tokenize_chinese_chars", "handle_chinese_chars"),
];

fn parse(file: &str, bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|e| {
        ModelError::Tokenizer(format!(
            "beside it, {file} is malformed: {e}; copy the model folder again"
        ))
    })
}

/// Checks that a `tokenizer_config.json` does not set the normalizer of `tokenizer` (the bytes of a
/// `tokenizer.json`) otherwise. As in the transformers library, it sets a `BertNormalizer` only.
pub(super) fn check_settings(tokenizer: &[u8], settings: &[u8]) -> Result<()> {
    let (file, settings) = (
        parse("tokenizer.json", tokenizer)?,
        parse("tokenizer_config.json", settings)?,
    );
    let class = settings.get("tokenizer_class").and_then(Value::as_str);
    let normalizer = file.get("normalizer").unwrap_or(&Value::Null);
    if kind(normalizer) != "BertNormalizer" || class == Some("PreTrainedTokenizerFast") {
        return Ok(());
    }
    let lowercase = normalizer.get("lowercase").and_then(Value::as_bool);
    for (name, ours) in SETTINGS {
        let Some(stated) = settings.get(name) else {
            continue;
        };
        let found = normalizer.get(ours).unwrap_or(&Value::Null);
        // Accents are stripped with the case unless it is said.
        let meant = |value: &Value| match (name, value) {
            ("strip_accents", Value::Null) => lowercase,
            (_, value) => value.as_bool(),
        };
        if meant(stated) != meant(found) {
            return Err(ModelError::Tokenizer(format!(
                "normalizer.{ours} is {found} and {name} in tokenizer_config.json is {stated}; the \
                 two have to agree, set the one to what the model was trained with"
            )));
        }
    }
    Ok(())
}

/// Checks that a `sentence_bert_config.json` does not write sentences in small letters for a
/// tokenizer that tells them apart.
pub(super) fn check_sentences(tokenizer: &[u8], settings: &[u8]) -> Result<()> {
    let (file, settings) = (
        parse("tokenizer.json", tokenizer)?,
        parse("sentence_bert_config.json", settings)?,
    );
    let lower = settings.get("do_lower_case") == Some(&Value::Bool(true));
    if lower && !lowercases(file.get("normalizer").unwrap_or(&Value::Null)) {
        return Err(ModelError::Tokenizer(
            "its normalizer keeps capital letters and do_lower_case in sentence_bert_config.json \
             is true; set normalizer.lowercase to true too, or the other to false, as the model \
             was trained"
                .into(),
        ));
    }
    Ok(())
}

fn kind(normalizer: &Value) -> &str {
    let kind = normalizer.get("type").and_then(Value::as_str);
    kind.unwrap_or_default()
}

fn lowercases(normalizer: &Value) -> bool {
    match kind(normalizer) {
        "Lowercase" => true,
        "BertNormalizer" => normalizer.get("lowercase") == Some(&Value::Bool(true)),
        "Sequence" => {
            let parts = normalizer.get("normalizers").and_then(Value::as_array);
            parts.is_some_and(|parts| parts.iter().any(lowercases))
        }
        _ => false,
    }
}
