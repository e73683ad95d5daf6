//! Files of encoders' folders: what others write is read, and what is not supported is refused
//! with a sentence that says so.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use veilformer_ir::encoder::{AttentionFunction, Head, Pooling};
use veilformer_models::encoder::{EncoderFolder, RandomEncoder, write_random_folder};
use veilformer_models::{FolderFiles, ModelError};

fn folder(labels: usize) -> tempfile::TempDir {
    let shape = RandomEncoder {
        layers: 2,
        hidden: 6,
        heads: 2,
        intermediate: 7,
        activation: "gelu".into(),
        attention: AttentionFunction::Softmax,
        positions: 5,
        vocabulary: 96,
        labels,
        ranges: vec![],
    };
    let dir = tempfile::tempdir().unwrap();
    write_random_folder(dir.path(), &shape, 7).unwrap();
    dir
}

fn refused(result: Result<EncoderFolder, ModelError>, words: &[&str]) {
    let message = result.expect_err("it has to be refused").to_string();
    for word in words {
        assert!(message.contains(word), "`{message}` does not say `{word}`");
    }
}

/// A folder of `labels` labels whose config.json has other values of `fields`; null takes one out.
fn configured(labels: usize, fields: &Value) -> Result<EncoderFolder, ModelError> {
    let dir = folder(labels);
    let path = dir.path().join("config.json");
    let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (name, value) in fields.as_object().unwrap() {
        match value {
            Value::Null => {
                file.as_object_mut().unwrap().remove(name);
            }
            value => file[name] = value.clone(),
        }
    }
    std::fs::write(&path, file.to_string()).unwrap();
    EncoderFolder::load(dir.path(), 5)
}

#[test]
fn poolings_are_read_as_old_and_new_folders_have_them() {
    let dir = folder(0);
    let load = |text: &str| {
        std::fs::write(dir.path().join("1_Pooling/config.json"), text).unwrap();
        EncoderFolder::load(dir.path(), 5)
    };
    let new = |mode: &str| {
        format!(r#"{{"embedding_dimension":6,"pooling_mode":{mode},"include_prompt":true}}"#)
    };
    for (text, expected) in [
        (new(r#""mean""#), Pooling::Mean),
        (new(r#"["mean"]"#), Pooling::Mean),
        (new(r#""cls""#), Pooling::First),
        (r#"{"pooling_mode_cls_token":true}"#.into(), Pooling::First),
        (
            r#"{"pooling_mode":"cls","pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false}"#
                .into(),
            Pooling::First,
        ),
    ] {
        match load(&text).unwrap().encoder.head {
            Head::Embedding { pooling, .. } => assert_eq!(pooling, expected, "{text}"),
            Head::Classifier { .. } => panic!("{text}"),
        }
    }
    for (text, words) in [
        (new(r#""max""#), ["1_Pooling", "the pooling `max`"]),
        (new(r#"["mean","cls"]"#), ["1_Pooling", "`mean, cls`"]),
        (new("[]"), ["expected the mean", "no other"]),
        ("{}".into(), ["expected the mean", "no other"]),
        (new("5"), ["1_Pooling", "malformed"]),
        (
            r#"{"pooling_mode":"mean","pooling_mode_cls_token":true}"#.into(),
            ["pooling_mode", "something else"],
        ),
    ] {
        refused(load(&text), &words);
    }
}

#[test]
fn another_architecture_is_named_before_its_fields_are_missed() {
    let gpt2 = json!({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 6,
        "hidden_size": null, "num_hidden_layers": null, "hidden_act": null});
    let words = "model_type is `gpt2`, only `bert` is supported";
    refused(configured(2, &gpt2), &[words]);
    let vit = json!({"model_type": null, "architectures": ["ViTModel"], "vocab_size": null});
    refused(configured(2, &vit), &["architectures names `ViTModel`"]);
    let two = json!({"architectures": "BertModel"});
    refused(
        configured(2, &two),
        &["architectures is \"BertModel\", expected a list"],
    );
}

#[test]
fn a_field_of_another_type_is_named_with_what_is_expected() {
    for name in ["hidden_size", "vocab_size", "type_vocab_size"] {
        for (value, shown) in [
            (json!("32"), "\"32\""),
            (json!(-1), "-1"),
            (json!(1.5), "1.5"),
            (json!([]), "[]"),
        ] {
            let words = format!("config.json: {name} is {shown}, expected a whole number above 0");
            refused(configured(2, &json!({ name: value })), &[&words]);
        }
    }
    let pruned = json!({"pruned_heads": {"0": [1]}});
    refused(configured(2, &pruned), &["pruned_heads is not empty"]);
    assert!(configured(2, &json!({"pruned_heads": []})).is_ok());
    let text = |change: &str| {
        let dir = folder(2);
        let path = dir.path().join("config.json");
        let file = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, file.replacen("\"hidden_size\":6", change, 1)).unwrap();
        EncoderFolder::load(dir.path(), 5)
    };
    refused(text("\"hidden_size\":null"), &["hidden_size is null"]);
    refused(text("\"x\":1"), &["hidden_size is missing"]);
    refused(text("x"), &["config.json: not valid JSON"]);
    for (field, words) in [
        (
            json!({"layer_norm_eps": "1e-12"}),
            "layer_norm_eps is \"1e-12\"",
        ),
        (json!({"hidden_act": {"a": 1}}), "hidden_act is {\"a\":1}"),
        (json!({"hidden_act": null}), "hidden_act is missing"),
        (
            json!({"num_labels": -1}),
            "num_labels is -1, expected a whole number",
        ),
        (
            json!({"is_decoder": 1}),
            "is_decoder is 1, expected true or false",
        ),
        (
            json!({"id2label": ["a", "b"]}),
            "expected names of labels under",
        ),
        (
            json!({"id2label": {"0": 0, "1": 1}}),
            "expected names of labels under",
        ),
    ] {
        refused(configured(2, &field), &[words]);
    }
}

#[test]
fn answers_that_are_no_choice_of_one_label_are_refused() {
    let load =
        |labels: usize, problem: &str| configured(labels, &json!({ "problem_type": problem }));
    assert!(load(3, "single_label_classification").is_ok());
    assert!(load(1, "regression").is_ok());
    for (labels, problem) in [
        (3, "multi_label_classification"),
        (2, "regression"),
        (2, "other"),
    ] {
        let words = format!("problem_type is `{problem}`");
        refused(load(labels, problem), &[&words, "supported are"]);
    }
}

#[test]
fn a_classifier_has_to_be_named() {
    for unnamed in [json!([]), Value::Null] {
        let unnamed = json!({ "architectures": unnamed });
        refused(
            configured(2, &unnamed),
            &["no architectures", "[\"BertForSequenceClassification\"]"],
        );
        assert!(configured(0, &unnamed).is_ok());
    }
    assert!(configured(2, &json!({"architectures": ["BertModel"]})).is_ok());
}

/// A folder of two labels with a BertNormalizer that has `normalizer`, and another file.
fn beside(normalizer: &Value, name: &str, text: &str) -> Result<EncoderFolder, ModelError> {
    let dir = folder(2);
    let path = dir.path().join("tokenizer.json");
    let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (field, value) in normalizer.as_object().unwrap() {
        file["normalizer"][field] = value.clone();
    }
    std::fs::write(&path, file.to_string()).unwrap();
    std::fs::write(dir.path().join(name), text).unwrap();
    EncoderFolder::load(dir.path(), 5)
}

#[test]
fn files_that_disagree_about_letters_are_refused() {
    let config = "tokenizer_config.json";
    let cased = json!({"lowercase": false});
    for (normalizer, text) in [
        (json!({}), r#"{"do_lower_case":true,"strip_accents":null}"#),
        (
            json!({}),
            r#"{"tokenize_chinese_chars":true,"cls_token":"[CLS]"}"#,
        ),
        (json!({"strip_accents": true}), r#"{"strip_accents":null}"#),
        (
            cased.clone(),
            r#"{"do_lower_case":false,"strip_accents":false}"#,
        ),
        (
            cased.clone(),
            r#"{"do_lower_case":true,"tokenizer_class":"PreTrainedTokenizerFast"}"#,
        ),
        (json!({"type": "Lowercase"}), r#"{"do_lower_case":false}"#),
    ] {
        assert!(beside(&normalizer, config, text).is_ok(), "{text}");
    }
    for (normalizer, text, field) in [
        (
            json!({}),
            r#"{"do_lower_case":false}"#,
            "lowercase is true and do_lower_case",
        ),
        (
            cased.clone(),
            r#"{"do_lower_case":true}"#,
            "lowercase is false and do_lower_case",
        ),
        (
            json!({}),
            r#"{"strip_accents":false}"#,
            "strip_accents is null and strip_accents",
        ),
        (
            json!({}),
            r#"{"tokenize_chinese_chars":false}"#,
            "handle_chinese_chars is true and tokenize_chinese_chars",
        ),
    ] {
        let words = [
            "tokenizer.json: normalizer.",
            field,
            "in tokenizer_config.json is",
        ];
        refused(beside(&normalizer, config, text), &words);
    }
    refused(beside(&json!({}), config, "{"), &[config, "malformed"]);

    let config = "sentence_bert_config.json";
    let lower = r#"{"max_seq_length":8,"do_lower_case":true}"#;
    let inner = json!({"type": "Sequence", "normalizers": [{"type": "Lowercase"}]});
    assert!(beside(&json!({}), config, lower).is_ok());
    assert!(beside(&inner, config, lower).is_ok());
    assert!(beside(&cased, config, r#"{"do_lower_case":false}"#).is_ok());
    refused(
        beside(&cased, config, lower),
        &[
            "tokenizer.json: its normalizer keeps capital letters",
            config,
        ],
    );
}

#[test]
fn files_of_other_formats_are_named_with_the_way_to_ours() {
    for (file, other, how) in [
        (
            "model.safetensors",
            "pytorch_model.bin",
            "CLASS.from_pretrained(FOLDER)",
        ),
        (
            "model.safetensors",
            "model.safetensors.index.json",
            "max_shard_size",
        ),
        ("model.safetensors", "tf_model.h5", "from_tf=True"),
        ("tokenizer.json", "vocab.txt", "BertTokenizerFast"),
    ] {
        let dir = folder(2);
        std::fs::remove_file(dir.path().join(file)).unwrap();
        std::fs::write(dir.path().join(other), "").unwrap();
        let words = format!("{file} is not there, but {other} is");
        refused(EncoderFolder::load(dir.path(), 5), &[&words, how]);
    }
    let dir = folder(2);
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    refused(EncoderFolder::load(dir.path(), 5), &["cannot read"]);
}

#[test]
fn a_configuration_that_is_no_json_is_named_with_its_folder() {
    let dir = folder(2);
    std::fs::write(dir.path().join("config.json"), "{").unwrap();
    let message = FolderFiles::read(dir.path(), &[]).unwrap_err().to_string();
    let words = format!("{}: config.json: not valid JSON", dir.path().display());
    assert!(message.contains(&words), "{message}");
}
