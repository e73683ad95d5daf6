//! Tokenizers of encoders: what the tokenizers crate would panic on is refused before.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use veilformer_models::encoder::EncoderTokenizer;

fn file() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "decoder": null,
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]}}},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "film": 4, "A": 5}}
    })
}

fn changed(pointer: &str, value: Value) -> Result<EncoderTokenizer, String> {
    let mut file = file();
    *file.pointer_mut(pointer).unwrap() = value;
    let bytes = serde_json::to_vec(&file).unwrap();
    EncoderTokenizer::from_bytes(&bytes, 6, 8).map_err(|e| e.to_string())
}

#[test]
fn a_file_that_panics_or_means_something_else_is_refused() {
    let precompiled = |map: &str| json!({"type": "Precompiled", "precompiled_charsmap": map});
    let sequence = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
    let cls = json!({"SpecialToken": {"id": "[CLS]", "type_id": 0}});
    let single = "/post_processor/single";
    for (pointer, value, words) in [
        (
            "/normalizer",
            precompiled(""),
            "the type of normalizer is `Precompiled`; supported are BertNormalizer",
        ),
        (
            "/normalizer",
            json!({"type": "Sequence", "normalizers": [
                {"type": "Sequence", "normalizers": [{"type": "NFC"}, precompiled("AAAA")]}]}),
            "`Precompiled`",
        ),
        (
            "/normalizer",
            json!({"precompiled_charsmap": "AAAA"}),
            "the type of normalizer is `absent`",
        ),
        (
            "/normalizer",
            json!({"type": "Sequence"}),
            "a Sequence without normalizers",
        ),
        (
            "/pre_tokenizer",
            json!({"type": "FixedLength", "length": 0}),
            "the type of pre_tokenizer is `FixedLength`; supported are BertPreTokenizer",
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": 0}]}),
            "`FixedLength`",
        ),
        (
            "/post_processor",
            json!({"type": "ByteLevel"}),
            "the type of post_processor is `ByteLevel`; supported are BertProcessing",
        ),
        (
            "/post_processor",
            json!({"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 6]}),
            "id 6 and config.json says vocab_size 6",
        ),
        (
            "/post_processor/special_tokens",
            json!({}),
            "names the token `[CLS]`, which special_tokens beside it does not define",
        ),
        (single, json!("[CLS] $A"), "single is no list"),
        (
            single,
            json!([cls, sequence("B", 0)]),
            "names the sequence `B`",
        ),
        (
            single,
            json!([cls, sequence("A", 1)]),
            "gives `A` the type_id 1; only 0 is supported",
        ),
        (
            single,
            json!([{"SpecialToken": {"id": "[CLS]", "type_id": 1}}, sequence("A", 0)]),
            "gives `[CLS]` the type_id 1",
        ),
        (single, json!([cls]), "the sentence 0 times, expected once"),
        (
            single,
            json!([cls, sequence("A", 0), sequence("A", 0)]),
            "the sentence 2 times",
        ),
        (single, json!([cls, {}]), "neither a Sequence nor"),
        (
            "/model/unk_token",
            json!("[NOPE]"),
            "model.unk_token is `[NOPE]`, which is not in model.vocab",
        ),
    ] {
        let message = changed(pointer, value).unwrap_err();
        assert!(message.starts_with("tokenizer.json: "), "{message}");
        assert!(
            message.contains(words),
            "`{message}` does not say `{words}`"
        );
    }
}

#[test]
fn every_supported_kind_gives_the_same_tokens() {
    let sequence = json!({"type": "Sequence", "normalizers": [
        {"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"},
        {"type": "Strip", "strip_left": true, "strip_right": true},
        {"type": "Replace", "pattern": {"String": "_"}, "content": " "}]});
    let bert = json!({"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]});
    let words = json!({"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "Digits", "individual_digits": true}]});
    for (pointer, value) in [
        ("/version", json!("1.0")),
        ("/normalizer", sequence),
        ("/pre_tokenizer", words),
        ("/pre_tokenizer", json!({"type": "Whitespace"})),
        ("/post_processor", bert),
    ] {
        let tokenizer = changed(pointer, value).unwrap();
        assert_eq!(
            tokenizer.encode("\u{c1} film ? a").unwrap(),
            [1, 3, 4, 0, 3, 2]
        );
    }
    let tokenizer = changed("/normalizer", Value::Null).unwrap();
    assert_eq!(tokenizer.encode("A film").unwrap(), [1, 5, 4, 2]);
}
