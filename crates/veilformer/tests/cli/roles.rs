//! Five processes in two folders.

use serde_json::Value;
use tempfile::TempDir;

use crate::setup::{SENTENCE, succeed};

#[test]
fn five_processes_in_two_folders_say_what_the_demo_says() {
    let (client, server) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (c, s) = (client.path(), server.path());
    let bring = |name: &str| std::fs::rename(c.join(name), s.join(name)).unwrap();
    let sentences = [SENTENCE.0, "red walks while blue sleeps"];

    succeed(c, &["compile", "order", "-o", "."]);
    bring("server.veil");
    succeed(c, &["keygen"]);
    bring("keys.veil");
    succeed(c, &["encrypt", sentences[0], sentences[1]]);
    bring("input.veil");
    succeed(s, &["run"]);
    std::fs::rename(s.join("answer.veil"), c.join("answer.veil")).unwrap();
    let answers: Value = serde_json::from_str(&succeed(c, &["decrypt", "--json"])).unwrap();

    for entry in std::fs::read_dir(s).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(["server.veil", "keys.veil", "input.veil"].contains(&name.to_str().unwrap()));
    }
    let args = [&["demo", "--model", "order", "--json"], &sentences[..]].concat();
    let demo: Value = serde_json::from_str(&succeed(c, &args)).unwrap();
    for (i, label) in [SENTENCE.1, "red first"].iter().enumerate() {
        let answer = &answers["answers"][i];
        let shown = &demo["sentences"][i];
        assert_eq!(answer["label"], *label);
        assert_eq!(shown["encrypted"]["label"], *label);
        assert_eq!(shown["plaintext"]["label"], *label);
        let logit = |v: &Value| v["logits"][0].as_f64().unwrap();
        assert!((logit(answer) - logit(&shown["plaintext"])).abs() < 1e-3);
        assert!(shown["max_logit_error"].as_f64().unwrap() < 1e-3);
    }
}

/// More sentences than a batch, and not a multiple of it: every one has its own answer, whatever the
/// batch, and every instruction set and number of threads gives the same file.
#[test]
fn batches_answer_every_sentence_and_every_machine_gives_the_same_bytes() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    let sentences = [
        "A warm, clever film.",
        "Dull.",
        "It is not a good film, and it is far too long for what it has to say.",
        "Wonderful!",
        "I want those two hours back.",
    ];
    let mut logits = Vec::new();
    for batch in ["1", "4", "full"] {
        let dir = format!("b{batch}");
        std::fs::create_dir(at.join(&dir)).unwrap();
        let at = &at.join(dir);
        succeed(
            at,
            &[
                "compile", "--model", "sst2-ssm", "--batch", batch, "-o", ".",
            ],
        );
        succeed(at, &["keygen"]);
        succeed(at, &[&["encrypt"], &sentences[..]].concat());
        let mut answers = Vec::new();
        for isa in veilformer::ring::Isa::available() {
            let isa = format!("{isa:?}").to_lowercase();
            for threads in ["1", "2"] {
                let run = ["run", "--force", "--isa", &isa, "--threads", threads];
                succeed(at, &run);
                answers.push(std::fs::read(at.join("answer.veil")).unwrap());
            }
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{batch}");
        let decrypted: Value = serde_json::from_str(&succeed(at, &["decrypt", "--json"])).unwrap();
        let answers = decrypted["answers"].as_array().unwrap();
        assert_eq!(answers.len(), sentences.len());
        let of = |a: &Value| {
            a["logits"]
                .as_array()
                .unwrap()
                .iter()
                .map(|l| l.as_f64().unwrap())
                .collect::<Vec<_>>()
        };
        logits.push(answers.iter().flat_map(of).collect::<Vec<f64>>());
    }
    for other in &logits[1..] {
        assert!(
            logits[0]
                .iter()
                .zip(other)
                .all(|(a, b)| (a - b).abs() < 1e-3)
        );
    }
}
