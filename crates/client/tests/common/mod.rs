//! Small client bundles by hand.
#![allow(dead_code)]

use veilformer_ckks::{KeyList, Params};
use veilformer_client::{BundleParts, TokenVectors};
use veilformer_ir::{InputKind, InputSpec, Signature};
use veilformer_models::{Embedding, EmbeddingTable, Matrix};

pub const WORDS: [&str; 5] = ["[UNK]", "good", "bad", "film", "not"];

/// Without a normalizer: its patterns would take most of the time of a parse.
pub fn tokenizer() -> Vec<u8> {
    let vocab: serde_json::Map<String, serde_json::Value> = WORDS
        .iter()
        .zip(0u32..)
        .map(|(w, i)| ((*w).to_owned(), i.into()))
        .collect();
    serde_json::to_vec(&serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": null, "decoder": null,
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab
        }
    }))
    .unwrap()
}

/// Two features, sentences of up to `run` tokens, three labels; the inputs are at different
/// levels, so that their order is tested as well.
pub fn parts(params: &Params, run: usize) -> BundleParts {
    let chunks = params.slots() / run;
    let tokens = |shift: usize| InputKind::Tokens {
        chunks: (0..chunks)
            .map(|c| ((c + shift) % 3 < 2).then_some(((c + shift) % 2) as u32))
            .collect(),
    };
    let input = |kind, power, level| InputSpec { kind, power, level };
    let table: Vec<f64> = (0..2 * WORDS.len()).map(|i| (i as f64).sin()).collect();
    let table = Matrix::from_rows(WORDS.len(), 2, table).unwrap();
    let positions = (0..2 * run).map(|i| 0.01 * i as f64).collect();
    BundleParts {
        model_name: "toy".into(),
        signature: Signature {
            encoder: None,
            answer_bound: 100.0,
            max_tokens: run,
            run,
            batch: 1,
            features: 2,
            inputs: vec![
                input(tokens(0), 0.0, 3),
                input(InputKind::Mask, 1.0, 2),
                input(tokens(1), 0.25, 3),
            ],
            labels: ["a", "b", "c"].map(str::to_owned).to_vec(),
        },
        keys: KeyList {
            relinearization: vec![3],
            rotations: vec![(1, 2), (2, 3)],
            conjugation: vec![1],
            encapsulation: None,
        },
        tokenizer: tokenizer(),
        embedding: TokenVectors::Table(Embedding {
            table: EmbeddingTable::quantize(&table).unwrap(),
            projection: None,
            position: Some(Matrix::from_rows(run, 2, positions).unwrap()),
        }),
        server_content: [7; 32],
    }
}

/// As [`parts`], with a token table of three columns of 3, 8 and 2 bits, a projection, and no
/// position table.
pub fn projected(params: &Params, run: usize) -> BundleParts {
    let table: Vec<f64> = (0..3 * WORDS.len()).map(|i| (i as f64).cos()).collect();
    let table = Matrix::from_rows(WORDS.len(), 3, table).unwrap();
    let projection = (0..6).map(|i| 0.5 - 0.3 * i as f64).collect();
    let mut parts = parts(params, run);
    parts.embedding = TokenVectors::Table(Embedding {
        table: EmbeddingTable::quantize_to(&table, &[3, 8, 2]).unwrap(),
        projection: Some(Matrix::from_rows(2, 3, projection).unwrap()),
        position: None,
    });
    parts
}

/// The tables of such parts.
pub fn tables(parts: &mut BundleParts) -> &mut Embedding {
    match &mut parts.embedding {
        TokenVectors::Table(embedding) => embedding,
        TokenVectors::Encoder(_) => panic!("no encoder's"),
    }
}
