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
