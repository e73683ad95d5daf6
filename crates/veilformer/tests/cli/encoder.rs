//! Hugging Face folders that cannot be compiled: a sentence, exit code 2, and no bundle.

use std::path::Path;

use serde_json::Value;
use veilformer::ir::encoder::AttentionFunction;
use veilformer::models::encoder::{RandomEncoder, write_random_folder};

use crate::setup::veilformer;

/// A folder of its own per case, so that what is broken is one thing.
fn folder(at: &Path, name: &str) {
    let shape = RandomEncoder {
        layers: 1,
        hidden: 16,
        heads: 2,
        intermediate: 32,
        activation: "gelu".into(),
        attention: AttentionFunction::Softmax,
        positions: 16,
        vocabulary: 120,
        labels: 2,
        ranges: vec![(4.0, 4.0)],
    };
    write_random_folder(&at.join(name), &shape, 3).unwrap();
}

fn replace(at: &Path, file: &str, from: &str, to: &str) {
    let path = at.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

/// The first weight of the last layer's first map becomes not a number.
fn spoil(at: &Path) {
    let path = at.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let head: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let tensor = &head["bert.encoder.layer.0.output.dense.weight"];
    let start = tensor["data_offsets"][0].as_u64().unwrap() as usize;
    let first = 8 + header + start;
    bytes[first..first + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

/// Power-softmax in place of softmax.
fn power(at: &Path, power: u32, epsilon: f64) {
    let fields = format!(
        "{{\"attention_function\":\"power_softmax\",\"power_softmax_power\":{power},\
         \"power_softmax_epsilon\":{epsilon},\"arch"
    );
    replace(at, "config.json", "{\"arch", &fields);
}

/// A folder's name, what is done to it, the arguments beside, and what the message must say.
type Row = (
    &'static str,
    fn(&Path),
    &'static str,
    &'static [&'static str],
);

const ROWS: [Row; 21] = [
    (
        "long_sentences",
        |_| {},
        "--calibrate ../words.txt --tokens 4",
        &["none of 4 sentences", "up to 4 tokens"],
    ),
    (
        "labels_among_sentences",
        |_| {},
        "--calibrate ../labelled.txt",
        &["line 41"],
    ),
    (
        "no weights",
        |at| std::fs::remove_file(at.join("model.safetensors")).unwrap(),
        "--calibrate ../words.txt",
        &["cannot read", "model.safetensors"],
    ),
    (
        "no tokenizer",
        |at| std::fs::remove_file(at.join("tokenizer.json")).unwrap(),
        "--calibrate ../words.txt",
        &["tokenizer.json is not there, but vocab.txt is"],
    ),
    (
        "architecture",
        |at| replace(at, "config.json", r#""bert""#, r#""gpt2""#),
        // What is missing beside does not matter then.
        "",
        &["model_type is `gpt2`", "only `bert` is supported"],
    ),
    (
        "activation",
        |at| replace(at, "config.json", r#""gelu""#, r#""swish""#),
        "--calibrate ../words.txt",
        &["hidden_act is `swish`", "supported are gelu"],
    ),
    (
        "attention",
        |at| {
            replace(
                at,
                "config.json",
                "{\"arch",
                "{\"attention_function\":\"relu\",\"arch",
            )
        },
        "--calibrate ../words.txt",
        &[
            "attention_function is `relu`",
            "supported are softmax and power_softmax",
        ],
    ),
    (
        "power",
        |at| power(at, 3, 0.5),
        "--calibrate ../words.txt",
        &["power_softmax_power is 3", "an even power from 2 to 8"],
    ),
    (
        "epsilon",
        |at| power(at, 4, 0.0),
        "--calibrate ../words.txt",
        &["power_softmax_epsilon 0", "a number above 0"],
    ),
    (
        "missing",
        |at| {
            replace(
                at,
                "config.json",
                r#""num_hidden_layers":1"#,
                r#""num_hidden_layers":2"#,
            );
        },
        "--calibrate ../words.txt",
        &["has no tensor", "layer.1"],
    ),
    (
        "misshapen",
        |at| {
            replace(
                at,
                "config.json",
                r#""intermediate_size":32"#,
                r#""intermediate_size":48"#,
            );
        },
        "--calibrate ../words.txt",
        &["has shape", "[48, 16]"],
    ),
    (
        "nan",
        spoil,
        "--calibrate ../words.txt",
        &["output.dense.weight", "NaN", "expected a finite number"],
    ),
    (
        "vocabulary",
        |at| replace(at, "tokenizer.json", "[MASK]", "[MISK]"),
        "--calibrate ../words.txt",
        &["vocab.txt", "do not belong together"],
    ),
    (
        "long",
        |_| {},
        "--calibrate ../words.txt --tokens 99",
        &["up to 99 tokens", "ask for 1 to 16"],
    ),
    (
        "empty",
        |_| {},
        "--calibrate ../empty.txt",
        &["empty.txt", "no sentence in it"],
    ),
    (
        "beyond",
        |_| {},
        "--calibrate ../words.txt --tokens 2",
        &["none of 4 sentences to calibrate with"],
    ),
    (
        "none",
        |_| {},
        "",
        &["--calibrate", "sentences like those that it will see"],
    ),
    (
        "batch",
        |_| {},
        "--calibrate ../words.txt --batch 2",
        &["one sentence a run", "leave --batch out"],
    ),
    (
        "security",
        |_| {},
        "--calibrate ../words.txt --security 192",
        &["128 bits", "leave --security out"],
    ),
    (
        "preset",
        |_| {},
        // Before there is anything to calibrate on.
        "--calibrate ../empty.txt --preset best",
        &["best", "11-levels"],
    ),
    (
        "budget",
        |_| {},
        "--calibrate ../words.txt --budget 0",
        &["--budget", "above 0"],
    ),
];

#[test]
fn what_is_wrong_with_a_folder_is_said() {
    let all = tempfile::TempDir::new().unwrap();
    std::fs::write(
        all.path().join("words.txt"),
        "a b c\nd e f\nb a d\nf a c e\n",
    )
    .unwrap();
    std::fs::write(all.path().join("empty.txt"), "").unwrap();
    std::fs::write(all.path().join("data"), "0 a b c\n").unwrap();
    let labelled = "1 a b c\n0 d e f\n".repeat(20) + "1\n";
    std::fs::write(all.path().join("labelled.txt"), labelled).unwrap();
    for (name, change, arguments, phrases) in ROWS {
        folder(all.path(), name);
        let at = all.path().join(name);
        change(&at);
        let arguments = arguments.split(' ').filter(|a| !a.is_empty());
        let line: Vec<&str> = ["compile", ".", "-o", "out"]
            .into_iter()
            .chain(arguments)
            .collect();
        let output = veilformer(&at, &line);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {error}");
        for phrase in phrases {
            assert!(error.contains(phrase), "{name}: {phrase} in {error}");
        }
        assert!(!at.join("out/server.veil").exists(), "{name}");
    }
    // What is for encoders is refused elsewhere, and an encoder where only small models are shown.
    folder(all.path(), "right");
    for (line, phrase) in [
        (
            "compile order -o x --calibrate words.txt",
            "are for encoders",
        ),
        // The demo shows none, and has no flags for them.
        (
            "demo --model order --calibrate words.txt",
            "unexpected argument",
        ),
        ("demo --model right", "use compile, keygen"),
        (
            "eval data --model left --calibrate words.txt",
            "unknown model",
        ),
        // Before any work.
        (
            "compile right -o x --calibrate words.txt --preset most",
            "possible values: 10-levels",
        ),
    ] {
        let line: Vec<&str> = line.split(' ').collect();
        let output = veilformer(all.path(), &line);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line:?}: {error}");
        assert!(error.contains(phrase), "{line:?}: {phrase} in {error}");
    }
}

#[test]
fn steps_of_calibration_are_told_one_after_the_other() {
    let all = tempfile::TempDir::new().unwrap();
    let at = all.path();
    folder(at, "model");
    std::fs::write(at.join("words.txt"), "a b c\nd e f\nb a d\nf a c e\n").unwrap();
    let line = [
        "explain",
        "model",
        "--calibrate",
        "words.txt",
        "--budget",
        "1",
        "--progress",
        "json",
    ];
    // Whether a model of random weights compiles in the end is not the question.
    let output = veilformer(at, &line);
    let lines = String::from_utf8(output.stderr).unwrap();
    let lines = lines
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let told: Vec<(String, bool)> = lines
        .map(|l| {
            (
                l["stage"].as_str().unwrap().to_owned(),
                l["finished"].as_bool().unwrap(),
            )
        })
        .collect();
    let steps = [
        "loading the encoder",
        "collecting queries",
        "centring keys",
        "calibrating",
    ];
    let expected: Vec<(String, bool)> = steps
        .iter()
        .flat_map(|s| [(s.to_string(), false), (s.to_string(), true)])
        .collect();
    assert_eq!(told[..8], expected);
}
