//! Reading and writing of configurations and weights, and what a wrong file is answered.
// Helpers of tests stand outside the test functions that clippy lets unwrap.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;

use common::{TINY, TINY_SSM, Xorshift, root, tiny, tiny_ssm};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use veilformer_models::{
    Checkpoint, EmbeddingTable, Matrix, ModelConfig, ModelFolder, random_checkpoint,
};

type Tensors = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

fn tensors(bytes: &[u8]) -> Tensors {
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    file.iter()
        .map(|(n, v)| {
            (
                n.to_owned(),
                v.dtype(),
                v.shape().to_vec(),
                v.data().to_vec(),
            )
        })
        .collect()
}

fn pack(tensors: &Tensors) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(n, d, s, b)| (n.as_str(), TensorView::new(*d, s.clone(), b).unwrap()));
    safetensors::serialize(views, None::<HashMap<String, String>>).unwrap()
}

#[test]
fn a_saved_model_loads_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let model = random_checkpoint(&tiny(), 3).unwrap();
    model.save(dir.path()).unwrap();
    // Not assert_eq: a failure would print the whole model.
    assert!(Checkpoint::load(dir.path()).unwrap() == model);
    assert!(random_checkpoint(&tiny(), 3).unwrap() == model);
    assert!(random_checkpoint(&tiny(), 4).unwrap() != model);

    let model = random_checkpoint(&tiny_ssm(), 3).unwrap();
    let table = model.embedding.table.clone();
    let bytes = model.to_bytes().unwrap();
    let again = Checkpoint::from_bytes(tiny_ssm(), &bytes, Some(table)).unwrap();
    assert!(again == model);
}

#[test]
fn a_wrong_state_space_file_is_refused_with_its_reason() {
    let model = random_checkpoint(&tiny_ssm(), 1).unwrap();
    let good = model.to_bytes().unwrap();
    let read = |bytes: &[u8], table: Option<EmbeddingTable>| {
        Checkpoint::from_bytes(tiny_ssm(), bytes, table)
            .unwrap_err()
            .to_string()
    };
    let table = || Some(model.embedding.table.clone());
    type Change = fn(&mut (String, Dtype, Vec<usize>, Vec<u8>));
    let cases: [(&str, &str, Change); 5] = [
        (
            "layers.1.decay",
            "holds 1 at index 0, expected a number above 0 and below 1",
            |t| {
                t.3[..4].copy_from_slice(&1f32.to_le_bytes());
            },
        ),
        ("layers.0.decay", "holds 0 at index 1", |t| {
            t.3[4..8].copy_from_slice(&0f32.to_le_bytes());
        }),
        (
            "layers.0.gate.weight",
            "has shape [6, 4], expected [4, 6]",
            |t| {
                t.2 = vec![6, 4];
            },
        ),
        (
            "embedding.projection",
            "has shape [5, 6], expected [6, 5]",
            |t| {
                t.2 = vec![5, 6];
            },
        ),
        ("classifier.weight", "no tensor `classifier.weight`", |t| {
            t.0 = "x".into()
        }),
    ];
    for (name, expected, change) in cases {
        let mut t = tensors(&good);
        change(t.iter_mut().find(|x| x.0 == name).unwrap());
        let message = read(&pack(&t), table());
        assert!(message.contains(expected), "{message}\nlacks: {expected}");
    }
    let message = read(&good, None);
    assert!(
        message.contains("`tiny-tokens`: it is neither in"),
        "{message}"
    );
    let small = EmbeddingTable::new(6, vec![8; 5], vec![1.0; 5], vec![0; 30]).unwrap();
    let message = read(&good, Some(small));
    assert!(message.contains("found 6, expected 7"), "{message}");
    // The weights of one family are not the other's.
    let other = random_checkpoint(&tiny(), 1).unwrap().to_bytes().unwrap();
    assert!(read(&other, table()).contains("no tensor"));
}

#[test]
fn a_wrong_weights_file_is_refused_with_its_reason() {
    let good = random_checkpoint(&tiny(), 1).unwrap().to_bytes().unwrap();
    let named = |t: &mut Tensors, name: &str| t.iter().position(|x| x.0 == name).unwrap();
    type Change<'a> = Box<dyn Fn(&mut Tensors) + 'a>;
    let cases: Vec<(&str, Change<'_>)> = vec![
        (
            "no tensor `layers.1.ffn.up.weight`",
            Box::new(|t| {
                let i = named(t, "layers.1.ffn.up.weight");
                t.remove(i);
            }),
        ),
        (
            "tensor `position.weight` has shape [6, 5], expected [5, 6]",
            Box::new(|t| {
                let i = named(t, "position.weight");
                t[i].2 = vec![6, 5];
            }),
        ),
        (
            "tensor `classifier.bias` has element type I32, expected F32",
            Box::new(|t| {
                let i = named(t, "classifier.bias");
                t[i].1 = Dtype::I32;
            }),
        ),
        (
            "tensor `embedding.weight` has element type U8, expected I8",
            Box::new(|t| {
                let i = named(t, "embedding.weight");
                t[i].1 = Dtype::U8;
            }),
        ),
        (
            "tensor `layers.0.attention.key.bias` holds NaN at index 2",
            Box::new(|t| {
                let i = named(t, "layers.0.attention.key.bias");
                t[i].3[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
            }),
        ),
        (
            "tensor `layers.0.norm2.running_var` holds -1 at index 0",
            Box::new(|t| {
                let i = named(t, "layers.0.norm2.running_var");
                t[i].3[..4].copy_from_slice(&(-1f32).to_le_bytes());
            }),
        ),
        (
            "a tensor `layers.2.extra` that config.json does not call for",
            Box::new(|t| t.push(("layers.2.extra".into(), Dtype::F32, vec![1], vec![0; 4]))),
        ),
    ];
    for (expected, change) in cases {
        let mut t = tensors(&good);
        change(&mut t);
        let message = Checkpoint::from_bytes(tiny(), &pack(&t), None)
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}\nlacks: {expected}");
    }
    for cut in [0, 4, 100, good.len() - 1] {
        let message = Checkpoint::from_bytes(tiny(), &good[..cut], None)
            .unwrap_err()
            .to_string();
        assert!(message.contains("malformed"), "{message}");
    }
}

#[test]
fn a_wrong_configuration_is_refused_with_its_reason() {
    let cases = [
        (
            r#""format_version":1"#,
            r#""format_version":2"#,
            "format_version is 2, this program",
        ),
        (
            "veilformer-poly",
            "bert",
            "model_type is `bert`, expected `veilformer-poly` or `veilformer-ssm`",
        ),
        (
            r#""hidden_size":6"#,
            r#""hidden_size":0"#,
            "hidden_size is 0, expected 1 to 4096",
        ),
        (
            r#""vocab_size":7"#,
            r#""vocab_size":99999999"#,
            "vocab_size is 99999999",
        ),
        (
            r#""vocab_size":7"#,
            r#""vocab_size":-7"#,
            "invalid value: integer `-7`",
        ),
        (
            r#""power":2"#,
            r#""power":4"#,
            "attention.power is 4, only 2",
        ),
        (
            r#""kind":"power""#,
            r#""kind":"softmax""#,
            "unknown variant `softmax`",
        ),
        (
            r#""degree":2"#,
            r#""degree":3"#,
            "activation.degree is 3, only 2",
        ),
        (
            r#""normalization":"batch""#,
            r#""normalization":"layer""#,
            "unknown variant `layer`",
        ),
        ("1e-5", "0", "norm_eps is 0"),
        (r#""pooling":"mean","#, "", "missing field `pooling`"),
        (
            r#""pooling":"mean","#,
            r#""pooling":"mean","dropout":1,"#,
            "unknown field `dropout`",
        ),
        (
            r#""1":"positive""#,
            r#""5":"positive""#,
            "id2label has no entry \"1\"",
        ),
        ("{", "", "not valid JSON"),
    ];
    for (from, to, expected) in cases {
        let text = TINY.replacen(from, to, 1);
        let message = ModelConfig::from_json(text.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}\nlacks: {expected}");
    }
    let cases = [
        (
            r#""state_size":4"#,
            r#""state_size":0"#,
            "state_size is 0, expected 1 to 65536",
        ),
        (r#""state_size":4,"#, "", "missing field `state_size`"),
        (
            r#""state_size":4"#,
            r#""state_size":4,"head_dim":2"#,
            "unknown field `head_dim`",
        ),
        (r#""last""#, r#""first""#, "unknown variant `first`"),
        (
            "tiny-tokens",
            "../tokens",
            "token_table.name is `../tokens`, expected 1 to 64",
        ),
        ("tiny-tokens", "", "token_table.name is ``"),
        (
            "0123456789abcdef\"",
            "0123456789abcde\"",
            "64 hexadecimal digits",
        ),
        (
            r#""name":"tiny-tokens","#,
            r#""name":"tiny-tokens","size":1,"#,
            "unknown field `size`",
        ),
        ("ssm", "poly", "unknown field `state_size`"),
    ];
    for (from, to, expected) in cases {
        let text = TINY_SSM.replacen(from, to, 1);
        assert_ne!(text, TINY_SSM, "{from}");
        let message = ModelConfig::from_json(text.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}\nlacks: {expected}");
    }
    let last = TINY.replacen(r#""mean""#, r#""last""#, 1);
    let message = ModelConfig::from_json(last.as_bytes())
        .unwrap_err()
        .to_string();
    assert!(message.contains("a transformer's is `mean`"), "{message}");
    for config in [tiny(), tiny_ssm()] {
        let json = config.to_json().unwrap();
        assert_eq!(ModelConfig::from_json(json.as_bytes()).unwrap(), config);
    }
}

#[test]
fn a_missing_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let message = ModelFolder::load(dir.path()).unwrap_err().to_string();
    assert!(message.contains("config.json"), "{message}");
    std::fs::write(dir.path().join("config.json"), TINY).unwrap();
    let message = ModelFolder::load(dir.path()).unwrap_err().to_string();
    assert!(message.contains("model.safetensors"), "{message}");
}

#[test]
fn lookup_adds_positions_and_refuses_what_lies_outside() {
    let model = random_checkpoint(&tiny(), 5).unwrap();
    let (table, position) = (
        &model.embedding.table,
        model.embedding.position.as_ref().unwrap(),
    );
    let x = model.embedding.lookup(&[3, 0]).unwrap();
    assert_eq!((x.rows(), x.cols()), (2, 6));
    let byte = table.packed()[3 * 6 + 2].cast_signed();
    let expected = f64::from(byte) * table.scale()[2] + position.get(0, 2);
    assert_eq!(x.get(0, 2), expected);
    let refusal = |ids: &[u32]| model.rows(ids).unwrap_err().to_string();
    assert!(refusal(&[]).contains("empty"));
    assert!(refusal(&[0; 6]).contains("6 tokens and the model's limit is 5"));
    assert!(refusal(&[7]).contains("token 7 lies outside the table of 7 rows"));
}

#[test]
fn a_projection_maps_the_tables_rows_and_the_bound_holds_for_every_token() {
    let model = random_checkpoint(&tiny_ssm(), 5).unwrap();
    let embedding = &model.embedding;
    let projection = embedding.projection.as_ref().unwrap();
    assert_eq!((projection.rows(), projection.cols()), (6, 5));
    let bound = embedding.bound();
    let mut largest = vec![0.0f64; 6];
    let mut all = embedding.vectors();
    for id in 0..7 {
        let expected = projection.apply(&embedding.table.row(id).unwrap());
        assert_eq!(all.next().unwrap(), embedding.lookup(&[id]).unwrap().data());
        for ((e, v), l) in expected
            .iter()
            .zip(model.rows(&[id]).unwrap()[0].iter())
            .zip(&mut largest)
        {
            assert!((e - v).abs() < 1e-12);
            *l = l.max(v.abs());
        }
    }
    assert_eq!(bound, largest);
    let refusal = |ids: &[u32]| model.rows(ids).unwrap_err().to_string();
    assert!(refusal(&[0; 9]).contains("9 tokens and the model's limit is 8"));
    assert!(refusal(&[7]).contains("token 7 lies outside the table of 7 rows"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn rounding_to_bytes_is_off_by_half_a_scale_at_most(
        values in prop::collection::vec(-1e3f64..1e3, 12),
        shrink in 1e-6f64..1.0,
    ) {
        let data: Vec<f64> =
            values.iter().enumerate().map(|(i, v)| if i % 3 == 0 { v * shrink } else { *v }).collect();
        let table = Matrix::from_rows(4, 3, data).unwrap();
        let rounded = EmbeddingTable::quantize(&table).unwrap();
        for id in 0..4 {
            let row = rounded.row(id as u32).unwrap();
            for ((r, v), s) in row.iter().zip(table.row(id)).zip(rounded.scale()) {
                prop_assert!((r - v).abs() <= 0.5001 * s, "{r} {v} {s}");
            }
        }
    }
}

#[test]
fn a_table_with_a_value_that_is_no_number_is_not_rounded() {
    let table = Matrix::from_rows(1, 2, vec![0.0, f64::INFINITY]).unwrap();
    assert!(EmbeddingTable::quantize(&table).is_err());
    assert!(EmbeddingTable::quantize_to(&table, &[3, 3]).is_err());
}

#[test]
fn columns_of_few_bits_are_packed_and_unpacked() {
    // 44 bits of values a row, so 6 bytes of which 4 bits are unused.
    let bits = [1u8, 8, 3, 5, 2, 7, 4, 6, 8];
    let scale: Vec<f64> = (1..=9).map(f64::from).collect();
    let mut rng = Xorshift(5);
    let packed: Vec<u8> = (0..20 * 6).map(|_| rng.below(256) as u8).collect();
    let table = EmbeddingTable::new(20, bits.to_vec(), scale, packed.clone()).unwrap();
    assert_eq!(table.row_bytes(), 6);
    for ((bytes, row), id) in packed.chunks_exact(6).zip(table.rows()).zip(0..) {
        assert_eq!(table.row(id).unwrap(), row);
        let mut word = bytes.iter().rev().fold(0u64, |w, b| w << 8 | u64::from(*b));
        for (c, (&b, value)) in bits.iter().zip(row).enumerate() {
            let code = word & ((1 << b) - 1);
            word >>= b;
            let level = match b {
                8 => f64::from((code as u8).cast_signed()),
                b => 2.0 * code as f64 + 1.0 - f64::from(1 << b),
            };
            assert_eq!(value, level * (c + 1) as f64);
        }
    }
    let normal: Vec<f64> = (0..4000).map(|i| (f64::from(i) * 0.37).sin()).collect();
    let normal = Matrix::from_rows(4000, 1, normal).unwrap();
    let mut last = f64::INFINITY;
    for b in 1..=8 {
        let table = EmbeddingTable::quantize_to(&normal, &[b]).unwrap();
        let pairs = table.rows().zip(normal.iter_rows());
        let error: f64 = pairs.map(|(r, v)| (r[0] - v[0]).powi(2)).sum();
        assert!(error < 0.35 * last, "{b} bits: {error} after {last}");
        last = error;
    }
}

#[test]
fn parts_of_a_table_that_do_not_fit_are_refused() {
    let new = |rows, bits: &[u8], scale: &[f64], bytes: usize| {
        EmbeddingTable::new(rows, bits.to_vec(), scale.to_vec(), vec![0; bytes]).map(|_| ())
    };
    assert_eq!(new(2, &[4, 8], &[1.0; 2], 4), Ok(()));
    for (result, expected) in [
        (new(0, &[4, 8], &[1.0; 2], 0), "0 rows and 2 columns"),
        (new(2, &[], &[], 0), "2 rows and 0 columns"),
        (new(usize::MAX, &[8], &[1.0], 0), "rows and 1 columns"),
        (new(2, &[0, 8], &[1.0; 2], 2), "a column of 0 bits"),
        (new(2, &[9, 8], &[1.0; 2], 6), "a column of 9 bits"),
        (new(2, &[4, 8], &[1.0], 4), "1 scales for 2 columns"),
        (new(2, &[4, 8], &[1.0, f64::NAN], 4), "not a finite number"),
        (
            new(2, &[4, 8], &[1.0; 2], 5),
            "5 bytes of values, expected 4",
        ),
    ] {
        let message = result.unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_hundred_thousand_mutations_of_each_file_never_panic() {
    let weights = random_checkpoint(&tiny(), 1).unwrap().to_bytes().unwrap();
    let mut rng = Xorshift(1);
    let model = random_checkpoint(&tiny_ssm(), 1).unwrap();
    let (ssm, table) = (model.to_bytes().unwrap(), model.embedding.table);
    let table_file = table.to_bytes().unwrap();
    let mut accepted = [0; 5];
    for _ in 0..100_000 {
        let mut bytes = TINY.as_bytes().to_vec();
        rng.mutate(&mut bytes);
        accepted[0] += usize::from(ModelConfig::from_json(&bytes).is_ok());
        let mut bytes = weights.clone();
        rng.mutate(&mut bytes);
        accepted[1] += usize::from(Checkpoint::from_bytes(tiny(), &bytes, None).is_ok());
        let mut bytes = TINY_SSM.as_bytes().to_vec();
        rng.mutate(&mut bytes);
        accepted[2] += usize::from(ModelConfig::from_json(&bytes).is_ok());
        let mut bytes = ssm.clone();
        rng.mutate(&mut bytes);
        let shared = Some(table.clone());
        accepted[3] += usize::from(Checkpoint::from_bytes(tiny_ssm(), &bytes, shared).is_ok());
        let mut bytes = table_file.clone();
        rng.mutate(&mut bytes);
        accepted[4] += usize::from(EmbeddingTable::from_bytes(&bytes).is_ok());
    }
    // Changes of a weight or a label are no errors; most others are.
    assert!(
        accepted.iter().all(|&n| n > 0 && n < 90_000),
        "{accepted:?}"
    );
}

const SHIPPED: [&str; 5] = ["sst2-poly", "sst2-ssm", "rt-poly", "rt-ssm", "order"];

#[test]
fn the_shipped_models_load_and_are_small() {
    let size = |name: &str| -> u64 {
        let entries = std::fs::read_dir(root().join("models").join(name)).unwrap();
        entries.map(|e| e.unwrap().metadata().unwrap().len()).sum()
    };
    for name in SHIPPED {
        let dir = root().join("models").join(name);
        let folder = ModelFolder::load(&dir).unwrap();
        assert!(!folder.encode("the red house").unwrap().is_empty());
        for file in ["README.md", "recipe.toml", "golden.json"] {
            assert!(dir.join(file).is_file(), "{name} has no {file}");
        }
        // What somebody has to copy: a shared token table counts.
        let shared = folder.checkpoint.config.token_table;
        let whole = size(name) + shared.map_or(0, |table| size(&table.name));
        assert!(whole < 5_000_000, "{name} has {whole} bytes");
    }
}
