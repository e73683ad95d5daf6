//! The bundle's file: round trip, what is refused, mutations.
#![allow(clippy::unwrap_used)]

mod common;

use common::{WORDS, parts, projected, tables};
use veilformer_ckks::testing::{mutate, tiny_params, toy_params};
use veilformer_client::{BundleParts, ClientBundle};
use veilformer_models::{EmbeddingTable, Matrix};

#[test]
fn a_file_gives_the_bundle_back() {
    let bundle = ClientBundle::new(&toy_params(), parts(&toy_params(), 8)).unwrap();
    let bytes = bundle.to_bytes().unwrap();
    let again = ClientBundle::from_bytes(&bytes).unwrap();
    assert_eq!(again.to_bytes().unwrap(), bytes);
    assert_eq!(again.signature(), bundle.signature());
    assert_eq!(again.keys(), bundle.keys());
    assert_eq!(again.labels(), ["a", "b", "c"]);
    assert_eq!(
        (again.model_name(), again.server_content()),
        ("toy", [7; 32])
    );
    let ids = again.tokenize("good film bad").unwrap();
    assert_eq!(ids, [1, 3, 2]);
    assert_eq!(again.embed(&ids).unwrap(), bundle.embed(&ids).unwrap());
}

#[test]
fn a_projected_table_without_positions_comes_back_and_is_applied() {
    let params = toy_params();
    let mut parts = projected(&params, 8);
    let embedding = tables(&mut parts).clone();
    let bytes = ClientBundle::new(&params, parts)
        .unwrap()
        .to_bytes()
        .unwrap();
    let bundle = ClientBundle::from_bytes(&bytes).unwrap();
    assert_eq!(bundle.to_bytes().unwrap(), bytes);
    let projection = embedding.projection.unwrap();
    let rows = bundle.embed(&[3, 3, 1]).unwrap();
    assert_eq!(rows[0], rows[1]);
    for (row, id) in rows.iter().zip([3, 3, 1]) {
        let expected = projection.apply(&embedding.table.row(id).unwrap());
        for (found, expected) in row.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-12);
        }
    }
    let long = bundle.embed(&[1; 9]).unwrap_err().to_string();
    assert!(
        long.contains("9 tokens and the model's limit is 8"),
        "{long}"
    );
}

#[test]
fn the_content_digest_is_of_all_but_the_server() {
    let params = toy_params();
    let bundle = ClientBundle::new(&params, parts(&params, 8)).unwrap();
    let digest = bundle.content_digest().unwrap();
    let other = bundle.clone().with_server_content([9; 32]);
    assert_eq!(other.content_digest().unwrap(), digest);
    assert_ne!(other.to_bytes().unwrap(), bundle.to_bytes().unwrap());
    let mut changed = parts(&params, 8);
    let positions = tables(&mut changed).position.as_mut().unwrap();
    positions.set(1, 1, positions.get(1, 1) + 1.0);
    let changed = ClientBundle::new(&params, changed).unwrap();
    assert_ne!(changed.content_digest().unwrap(), digest);
}

/// A token table of signed bytes, all of them 1.
fn table(rows: usize, columns: usize, scale: f64) -> EmbeddingTable {
    let values = vec![1; rows * columns];
    EmbeddingTable::new(rows, vec![8; columns], vec![scale; columns], values).unwrap()
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    type Change = fn(&mut BundleParts);
    let cases: [(&str, Change); 21] = [
        ("name", |p| p.model_name.clear()),
        ("name", |p| p.model_name = "a\nb".into()),
        ("2 features wide", |p| {
            tables(p).position = Some(Matrix::zeros(8, 3))
        }),
        ("2 features wide", |p| tables(p).table = table(5, 3, 1.0)),
        ("2 features wide", |p| {
            tables(p).projection = Some(Matrix::zeros(2, 3))
        }),
        ("2 features wide", |p| {
            tables(p).projection = Some(Matrix::zeros(3, 2))
        }),
        ("the token table has 4 rows", |p| {
            tables(p).table = table(4, 2, 1.0)
        }),
        ("1e12", |p| {
            tables(p).position.as_mut().unwrap().set(0, 0, f64::NAN)
        }),
        ("1e12", |p| tables(p).table = table(5, 2, 1e300)),
        ("1e12", |p| {
            tables(p).projection = Some(Matrix::from_rows(2, 2, vec![1e13; 4]).unwrap())
        }),
        ("position table", |p| {
            tables(p).position = Some(Matrix::zeros(4, 2))
        }),
        ("tokens", |p| p.signature.max_tokens = 0),
        ("tokens", |p| p.signature.run = 4),
        ("input ciphertexts", |p| p.signature.inputs.clear()),
        ("level 9", |p| p.signature.inputs[1].level = 9),
        ("power", |p| p.signature.inputs[0].power = f64::NAN),
        ("chunks", |p| {
            p.signature.inputs[0].kind = parts(&toy_params(), 4).signature.inputs[0].kind.clone()
        }),
        ("labels", |p| p.signature.labels.clear()),
        ("a label", |p| p.signature.labels[0] = "\u{1b}[2J".into()),
        ("ascending", |p| p.keys.rotations = vec![(0, 1)]),
        ("tokenizer.json", |p| p.tokenizer.truncate(40)),
    ];
    let params = toy_params();
    for (number, (phrase, change)) in cases.into_iter().enumerate() {
        let mut changed = parts(&params, 8);
        change(&mut changed);
        let message = match ClientBundle::new(&params, changed) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("row {number} was not refused"),
        };
        assert!(message.contains(phrase), "row {number}: {message}");
    }
}

#[test]
fn what_parses_can_be_used() {
    let params = tiny_params();
    let files = [parts(&params, 2), projected(&params, 2)].map(|parts| {
        ClientBundle::new(&params, parts)
            .unwrap()
            .to_bytes()
            .unwrap()
    });
    let mut parsed = 0;
    for seed in 0..100_000 {
        let bytes = &files[seed as usize % 2];
        let Ok(bundle) = ClientBundle::from_bytes(&mutate(bytes, seed)) else {
            continue;
        };
        parsed += 1;
        let Ok(ids) = bundle.tokenize(WORDS[seed as usize % WORDS.len()]) else {
            continue;
        };
        let rows = bundle.embed(&ids).unwrap();
        for input in &bundle.signature().inputs {
            let slots = bundle.signature().pack(input, &[&rows], 4);
            assert!(slots.iter().all(|s| s.is_finite()));
        }
    }
    assert!(
        parsed > 1000,
        "only {parsed} mutations reach the end of the parser"
    );
}
