//! The forward pass: independent of padding and batch, and equal to the shipped golden vectors.
// Helpers of tests stand outside the test functions that clippy lets unwrap.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor};
use common::{recipe, root, shared};
use veilformer_models::{Checkpoint, DataSet, ModelFolder, random_checkpoint};
use veilformer_train::corpus::Item;
use veilformer_train::network::weights_of;
use veilformer_train::order;
use veilformer_train::trainer::{accuracy, evaluate};

fn item(ids: &[u32]) -> Item {
    Item {
        text: String::new(),
        ids: ids.to_vec(),
        label: 0,
    }
}

fn logits(model: &Checkpoint, items: &[Item]) -> Vec<Vec<f64>> {
    let table = &model.embedding;
    let values: Vec<f64> = (0..table.vocab_size)
        .flat_map(|id| table.row(id as u32).unwrap())
        .collect();
    let shape = (table.vocab_size, table.hidden_size);
    let table = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    let weights = weights_of(model, DType::F64).unwrap();
    evaluate(&model.config, &weights, &table, items).unwrap()
}

/// The model's formulas written down once more in plain loops, for one sentence.
fn by_hand(model: &Checkpoint, ids: &[u32]) -> Vec<f64> {
    use veilformer_models::{Linear, Norm};
    let apply = |map: &Linear, x: &[f64]| -> Vec<f64> {
        map.weight
            .iter_rows()
            .zip(&map.bias)
            .map(|(row, b)| b + row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>())
            .collect()
    };
    let eps = model.config.norm_eps;
    let normed = |norm: &Norm, x: &[f64]| -> Vec<f64> {
        let (gain, offset) = norm.affine(eps);
        x.iter()
            .zip(&gain)
            .zip(&offset)
            .map(|((x, g), o)| x * g + o)
            .collect()
    };
    let (heads, width) = (model.config.num_attention_heads, model.config.head_dim);
    let n = ids.len() as f64;
    let x = model.embedding.lookup(ids, &model.position).unwrap();
    let mut x: Vec<Vec<f64>> = x.iter_rows().map(<[f64]>::to_vec).collect();
    for layer in &model.layers {
        let a: Vec<Vec<f64>> = x.iter().map(|x| normed(&layer.norm1, x)).collect();
        let project = |map: &Linear| a.iter().map(|a| apply(map, a)).collect::<Vec<_>>();
        let (q, k, v) = (
            project(&layer.query),
            project(&layer.key),
            project(&layer.value),
        );
        for t in 0..x.len() {
            let mut o = vec![0.0; heads * width];
            for u in 0..x.len() {
                for h in 0..heads {
                    let head = h * width..(h + 1) * width;
                    let dot: f64 = head.clone().map(|i| q[t][i] * k[u][i]).sum();
                    let score = dot / (width as f64).sqrt();
                    for i in head {
                        o[i] += score * score / n * v[u][i];
                    }
                }
            }
            for (x, y) in x[t].iter_mut().zip(apply(&layer.output, &o)) {
                *x += y;
            }
        }
        for x in &mut x {
            let mut u = apply(&layer.up, &normed(&layer.norm2, x));
            for (u, [alpha, beta]) in u.iter_mut().zip(&layer.activation) {
                *u = alpha * *u * *u + beta * *u;
            }
            for (x, y) in x.iter_mut().zip(apply(&layer.down, &u)) {
                *x += y;
            }
        }
    }
    let mean: Vec<f64> = (0..x[0].len())
        .map(|i| x.iter().map(|x| x[i]).sum::<f64>() / n)
        .collect();
    apply(&model.classifier, &mean)
}

#[test]
fn the_network_computes_the_formulas_of_the_format() {
    let mut config = recipe().config(9);
    config.num_hidden_layers = 2;
    let model = random_checkpoint(&config, 8).unwrap();
    let items = [
        item(&[4]),
        item(&[1, 2, 3, 4, 5, 6]),
        item(&[7, 7, 7]),
        item(&[0, 8]),
    ];
    for (row, item) in logits(&model, &items).iter().zip(&items) {
        let alone = logits(&model, std::slice::from_ref(item));
        for ((a, b), c) in row.iter().zip(&by_hand(&model, &item.ids)).zip(&alone[0]) {
            assert!((a - b).abs() < 1e-10, "{a} by candle, {b} by hand");
            assert!((a - c).abs() < 1e-12, "{a} in a batch, {c} alone");
        }
    }
}

#[test]
fn the_shipped_golden_vectors_are_those_of_the_shipped_weights() {
    for name in ["sst2-poly", "order"] {
        let dir = root().join("models").join(name);
        let folder = ModelFolder::load(&dir).unwrap();
        let text = std::fs::read(dir.join("golden.json")).unwrap();
        let golden: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let sentences = golden["sentences"].as_array().unwrap();
        assert!(sentences.len() >= 20);
        for sentence in sentences {
            let ids = folder.encode(sentence["text"].as_str().unwrap()).unwrap();
            assert_eq!(serde_json::json!(ids), sentence["ids"]);
            let expected = sentence["logits"].as_array().unwrap();
            for (found, expected) in by_hand(&folder.checkpoint, &ids).iter().zip(expected) {
                let expected = expected.as_f64().unwrap();
                assert!(
                    (found - expected).abs() < 1e-9,
                    "{name}: {found}, stored {expected}"
                );
            }
        }
    }
}

/// Accuracy of a shipped model on a data file, and what its golden.json says of it.
fn shipped_accuracy(name: &str, split: &str, file: &std::path::Path) -> (f64, f64) {
    let dir = root().join("models").join(name);
    let folder = ModelFolder::load(&dir).unwrap();
    let items: Vec<Item> = DataSet::load(file)
        .unwrap()
        .examples
        .into_iter()
        .map(|e| Item {
            ids: folder.encode(&e.text).unwrap(),
            text: e.text,
            label: e.label,
        })
        .collect();
    let found = accuracy(&logits(&folder.checkpoint, &items), &items);
    let text = std::fs::read(dir.join("golden.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&text).unwrap();
    (
        found,
        golden["figures"][format!("{split}_accuracy")]
            .as_f64()
            .unwrap(),
    )
}

#[test]
fn the_order_model_tells_the_order() {
    let dir = tempfile::tempdir().unwrap();
    order::write(dir.path(), 1, [6000, 1000, 1000]).unwrap();
    for split in ["dev", "test"] {
        let file = dir.path().join(format!("order.{split}"));
        let (found, told) = shipped_accuracy("order", split, &file);
        assert_eq!(found, told);
        assert!(found >= 0.95, "{split}: {found}");
    }
}

#[test]
fn the_sentiment_model_has_the_accuracies_of_its_card() {
    for (split, least) in [("dev", 0.81), ("test", 0.80)] {
        let Some(file) = shared(&format!("sst2/stsa.binary.{split}")) else {
            return;
        };
        let (found, told) = shipped_accuracy("sst2-poly", split, &file);
        assert_eq!(found, told);
        assert!(found >= least, "{split}: {found}");
    }
}
