//! The binary: exit codes and messages.
// Helpers of tests stand outside the test functions that clippy lets unwrap.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{ENCODER_RECIPE, RECIPE, write_data, write_encoder, write_features};

fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_veilformer-train"))
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap()
}

const TRAIN: [&str; 8] = [
    "train",
    "recipe.toml",
    "--data",
    ".",
    "--features",
    ".",
    "--out",
    "out",
];

#[test]
fn a_model_is_trained_and_wrong_input_is_an_error_of_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |expected: &str| {
        let output = run(dir.path(), &TRAIN);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        // Lines of progress may stand before it.
        let last = text.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("error: ") && last.contains(expected),
            "{text}"
        );
        assert!(!dir.path().join("out").exists());
    };
    refused("recipe.toml");
    std::fs::write(dir.path().join("recipe.toml"), RECIPE).unwrap();
    refused("model.safetensors");
    write_features(dir.path());
    refused("cannot read ./dev");
    write_data(dir.path());
    // A golden sentence that is too long is found before training.
    let long = RECIPE.replace("\"bad\"]", "\"a a a a a a a\"]");
    std::fs::write(dir.path().join("recipe.toml"), long).unwrap();
    refused("7 tokens and the model's limit is 6");

    std::fs::write(dir.path().join("recipe.toml"), RECIPE).unwrap();
    let output = run(dir.path(), &TRAIN);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "{text}"
    );
    assert!(
        text.contains("epoch   4/4") && text.contains("done: dev"),
        "{text}"
    );
    assert!(dir.path().join("out/model.safetensors").is_file());
    let again = run(dir.path(), &TRAIN);
    assert_eq!(again.status.code(), Some(2));
}

#[test]
fn an_encoder_is_trained_and_a_folder_without_one_is_an_error_of_one_line() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path());
    std::fs::write(dir.path().join("recipe.toml"), ENCODER_RECIPE).unwrap();
    let arguments = [
        "encoder",
        "recipe.toml",
        "--data",
        ".",
        "--model",
        "model",
        "--out",
        "out",
    ];
    let output = run(dir.path(), &arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.starts_with("error: model/config.json") && text.lines().count() == 1,
        "{text}"
    );
    assert!(!dir.path().join("out").exists());
    write_encoder(&dir.path().join("model"), 0, "gelu");
    let output = run(dir.path(), &arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "{text}"
    );
    assert!(
        text.contains("step 2/") && text.contains("epoch 3/3") && text.contains("done: dev"),
        "{text}"
    );
    assert!(dir.path().join("out/model.safetensors").is_file());
}

#[test]
fn the_order_task_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = [
        "order-task",
        "--out",
        "o",
        "--seed",
        "3",
        "--train",
        "20",
        "--held-out",
        "6",
    ];
    assert!(run(dir.path(), &arguments).status.success());
    for (split, size) in [("train", 20), ("dev", 6), ("test", 6)] {
        let text = std::fs::read_to_string(dir.path().join(format!("o/order.{split}"))).unwrap();
        assert_eq!(text.lines().count(), size);
    }
}
