//! The interpreter of the tensor program against the logits that the trainer stored: two
//! programs (candle there, plain loops here) that share no arithmetic.
#![allow(clippy::unwrap_used)] // a test's way to fail

use std::path::{Path, PathBuf};
use veilformer_models::ModelFolder;
use veilformer_models::interpreter::interpret;

fn shipped() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("golden.json").exists())
        .collect();
    found.sort();
    found
}

#[test]
fn the_interpreter_gives_the_trainers_logits() {
    let models = shipped();
    assert!(models.len() >= 5, "the shipped models carry golden vectors");
    for dir in models {
        let folder = ModelFolder::load(&dir).unwrap();
        let program = folder.checkpoint.tensor_program("golden");
        let golden = std::fs::read_to_string(dir.join("golden.json")).unwrap();
        let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
        let cases = golden
            .get("sentences")
            .or(Some(&golden))
            .and_then(|v| v.as_array())
            .unwrap();
        assert!(cases.len() >= 20);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let ids = folder.encode(text).unwrap();
            let stored: Vec<u32> = case["ids"]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_u64().unwrap() as u32)
                .collect();
            assert_eq!(ids, stored, "{text}");
            let rows = folder.checkpoint.rows(&ids).unwrap();
            let run = interpret(&program, &rows).unwrap();
            for (got, want) in run.logits.iter().zip(case["logits"].as_array().unwrap()) {
                let want = want.as_f64().unwrap();
                assert!((got - want).abs() < 1e-5, "{text}: {got} against {want}");
            }
            // The input bound covers what the client can send.
            let veilformer_ir::tensor::TensorOp::Input { bound, .. } = &program.ops[0] else {
                panic!()
            };
            assert!(
                rows.iter()
                    .all(|r| r.iter().zip(bound).all(|(v, b)| v.abs() <= b + 1e-12))
            );
        }
    }
}
