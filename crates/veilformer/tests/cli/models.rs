//! Models of both families: those that ship, folders that share a token table, and `eval` on parts
//! of a data set.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use veilformer::model::{ModelFiles, shipped};
use veilformer::models::ModelConfig;

use crate::setup::{say, veilformer};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A copy of a shipped model's folder, without what lies beside it.
fn copy_of(name: &str) -> TempDir {
    let copy = TempDir::new().unwrap();
    std::fs::create_dir(copy.path().join("copy")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        let from = root().join("models").join(name).join(file);
        std::fs::copy(from, copy.path().join("copy").join(file)).unwrap();
    }
    copy
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn every_model_that_ships_is_listed_loads_and_answers() {
    let names = ["sst2-poly", "sst2-ssm", "rt-poly", "rt-ssm", "order"];
    let found: Vec<String> = shipped().unwrap().into_iter().map(|m| m.name).collect();
    assert_eq!(found, names);
    for name in names {
        let model = ModelFiles::find(name).unwrap().load().unwrap();
        let sentence = model.sentences.first().unwrap();
        let logits = model.poly(sentence).unwrap();
        assert!(logits.len() == 2 && logits.iter().all(|l| l.is_finite()));
    }
    let listed = say(Path::new("."), "models");
    let lines: Vec<&str> = listed.lines().map(str::trim).collect();
    assert_eq!(lines.len(), names.len());
    for (line, name) in lines.iter().zip(names) {
        assert!(line.starts_with(name), "{line}");
    }
    let card = say(Path::new("."), "models sst2-ssm");
    assert!(
        card.contains("public-decay state-space classifier"),
        "{card}"
    );
}

#[test]
fn a_folder_takes_the_shared_table_from_the_program_and_refuses_another() {
    let folder = copy_of("sst2-ssm");
    let at = folder.path();
    let same = |name: &str| {
        let model = ModelFiles::find(name).unwrap().load().unwrap();
        model.poly("a fine film").unwrap()
    };
    let copy = at.join("copy");
    assert_eq!(same(copy.to_str().unwrap()), same("sst2-ssm"));

    let table = at.join("minilm-tokens");
    std::fs::create_dir(&table).unwrap();
    std::fs::write(table.join("token_table.safetensors"), "no table").unwrap();
    std::fs::write(table.join("tokenizer.json"), "{}").unwrap();
    let refused = |phrase: &str| {
        let output = veilformer(at, &["compile", "copy", "-o", "out"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(phrase), "{text}");
    };
    refused("the digest of token_table.safetensors begins with");

    let path = copy.join("config.json");
    let mut config = ModelConfig::load(&copy).unwrap();
    let named = config.token_table.as_mut().unwrap();
    named.name = "unheard-of".to_owned();
    std::fs::write(path, config.to_json().unwrap()).unwrap();
    refused("copy the folder unheard-of beside the model's");
}

#[test]
fn a_part_of_a_data_set_is_evaluated_and_long_sentences_count_as_told() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    let long = "red ".repeat(40);
    std::fs::write(
        at.join("x.pos"),
        format!("blue red\nblue old red\n{long}\n"),
    )
    .unwrap();
    std::fs::write(at.join("x.neg"), "red blue\nblue red\nred old blue\n").unwrap();
    let eval = |flags: &str| {
        json(&say(
            at,
            &format!("--json eval x.pos --model order {flags}"),
        ))
    };
    let first = eval("--lines 0..1");
    assert_eq!(
        (&first["items"], &first["too_long"]),
        (&2.into(), &0.into())
    );
    assert_eq!(first["accuracy"], 1.0);
    let second = eval("--lines 1..2");
    assert_eq!(second["accuracy"], 0.5);
    let all = eval("--long-as-wrong");
    assert_eq!((&all["items"], &all["too_long"]), (&6.into(), &1.into()));
    assert_eq!(all["accuracy"], 4.0 / 6.0);
    let output = veilformer(at, &["eval", "x.pos", "--model", "order"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text.contains("40 tokens and the model's limit is 32"),
        "{text}"
    );
}
