//! The forward pass: independent of padding and batch, and equal to the shipped golden vectors.
// Helpers of tests stand outside the test functions that clippy lets unwrap.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor};
use common::{recipe, root, shared, state_space_recipe};
use veilformer_models::interpreter::interpret;
use veilformer_models::{
    Checkpoint, DataSet, Layers, LineRange, Linear, ModelFolder, Norm, Pooling, StateSpaceLayer,
    TransformerLayer, random_checkpoint,
};
use veilformer_train::corpus::Item;
use veilformer_train::family::FamilyRecipe;
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
    let values: Vec<f64> = model.embedding.vectors().flatten().collect();
    let shape = (model.config.vocab_size, model.config.hidden_size);
    let table = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    let weights = weights_of(model, DType::F64).unwrap();
    evaluate(&model.config, &weights, &table, items).unwrap()
}

fn apply(map: &Linear, x: &[f64]) -> Vec<f64> {
    map.weight
        .iter_rows()
        .zip(&map.bias)
        .map(|(row, b)| b + row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>())
        .collect()
}

fn normed(norm: &Norm, eps: f64, x: &[f64]) -> Vec<f64> {
    let (gain, offset) = norm.affine(eps);
    x.iter()
        .zip(&gain)
        .zip(&offset)
        .map(|((x, g), o)| x * g + o)
        .collect()
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn transformer_layer(layer: &TransformerLayer, eps: f64, x: &mut [Vec<f64>]) {
    let n = x.len() as f64;
    let (heads, width) = (layer.heads, layer.query.bias.len() / layer.heads);
    let a: Vec<Vec<f64>> = x.iter().map(|x| normed(&layer.norm1, eps, x)).collect();
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
        add(&mut x[t], &apply(&layer.output, &o));
    }
    for x in x {
        let mut u = apply(&layer.up, &normed(&layer.norm2, eps, x));
        for (u, [alpha, beta]) in u.iter_mut().zip(&layer.activation) {
            *u = alpha * *u * *u + beta * *u;
        }
        add(x, &apply(&layer.down, &u));
    }
}

fn state_space_layer(layer: &StateSpaceLayer, eps: f64, x: &mut [Vec<f64>]) {
    let mut state = vec![0.0; layer.decay.len()];
    for x in x {
        let a = normed(&layer.norm, eps, x);
        let (u, g) = (apply(&layer.input, &a), apply(&layer.gate, &a));
        for (i, s) in state.iter_mut().enumerate() {
            let decay = layer.decay[i];
            *s = decay * *s + (1.0 - decay) * u[i] * g[i];
        }
        add(x, &apply(&layer.output, &state));
    }
}

/// The model's formulas written down once more in plain loops, for one sentence.
fn by_hand(model: &Checkpoint, ids: &[u32]) -> Vec<f64> {
    let (eps, mut x) = (model.config.norm_eps, model.rows(ids).unwrap());
    match &model.layers {
        Layers::Transformer(layers) => layers
            .iter()
            .for_each(|l| transformer_layer(l, eps, &mut x)),
        Layers::StateSpace(layers) => layers
            .iter()
            .for_each(|l| state_space_layer(l, eps, &mut x)),
    }
    let pooled: Vec<f64> = match model.config.pooling() {
        Pooling::Last => x.pop().unwrap(),
        Pooling::Mean => (0..x[0].len())
            .map(|i| x.iter().map(|x| x[i]).sum::<f64>() / ids.len() as f64)
            .collect(),
    };
    apply(&model.classifier, &pooled)
}

#[test]
fn the_network_computes_the_formulas_of_the_format() {
    let mut mean = state_space_recipe();
    if let FamilyRecipe::StateSpace(family) = &mut mean.family {
        family.pooling = Pooling::Mean;
    }
    for recipe in [recipe(), state_space_recipe(), mean] {
        let mut config = recipe.config(9);
        config.num_hidden_layers = 2;
        let model = random_checkpoint(&config, 8).unwrap();
        let items = [
            item(&[4]),
            item(&[1, 2, 3, 4, 5, 6]),
            item(&[7, 7, 7]),
            item(&[0, 8]),
        ];
        let program = model.tensor_program("random");
        for (row, item) in logits(&model, &items).iter().zip(&items) {
            let alone = logits(&model, std::slice::from_ref(item));
            let rows = model.rows(&item.ids).unwrap();
            let interpreted = interpret(&program, &rows).unwrap().logits;
            for ((a, b), c) in row.iter().zip(&by_hand(&model, &item.ids)).zip(&alone[0]) {
                assert!((a - b).abs() < 1e-10, "{a} by candle, {b} by hand");
                assert!((a - c).abs() < 1e-12, "{a} in a batch, {c} alone");
            }
            for (a, b) in row.iter().zip(&interpreted) {
                assert!((a - b).abs() < 1e-10, "{a} by candle, {b} interpreted");
            }
        }
    }
}

#[test]
fn the_shipped_golden_vectors_are_those_of_the_shipped_weights() {
    for name in ["sst2-poly", "sst2-ssm", "rt-poly", "rt-ssm", "order"] {
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
            let found = by_hand(&folder.checkpoint, &ids);
            for (found, expected) in found.iter().zip(expected) {
                let expected = expected.as_f64().unwrap();
                assert!(
                    (found - expected).abs() < 1e-9,
                    "{name}: {found}, stored {expected}"
                );
            }
        }
    }
}

/// Accuracy of a shipped model on a data set, and what its golden.json says of it.
fn shipped_accuracy(name: &str, split: &str, data: DataSet) -> (f64, f64) {
    let dir = root().join("models").join(name);
    let folder = ModelFolder::load(&dir).unwrap();
    let size = data.len();
    // A sentence that is too long counts as answered wrongly.
    let items = data.examples.into_iter().filter_map(|e| {
        Some(Item {
            ids: folder.encode(&e.text).ok()?,
            text: e.text,
            label: e.label,
        })
    });
    let items: Vec<Item> = items.collect();
    let found = accuracy(&logits(&folder.checkpoint, &items), &items, size);
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
        let data = DataSet::load(&dir.path().join(format!("order.{split}"))).unwrap();
        let (found, told) = shipped_accuracy("order", split, data);
        assert_eq!(found, told);
        assert!(found >= 0.95, "{split}: {found}");
    }
}

#[test]
fn the_sentiment_models_have_the_accuracies_of_their_cards() {
    for name in ["sst2-poly", "sst2-ssm"] {
        for (split, least) in [("dev", 0.81), ("test", 0.80)] {
            let Some(file) = shared(&format!("sst2/stsa.binary.{split}")) else {
                return;
            };
            let data = DataSet::load(&file).unwrap();
            let (found, told) = shipped_accuracy(name, split, data);
            assert_eq!(found, told);
            assert!(found >= least, "{name}, {split}: {found}");
        }
    }
    for name in ["rt-poly", "rt-ssm"] {
        for (split, lines, least) in [("dev", "4265..4798", 0.765), ("test", "4798..5331", 0.75)] {
            let Some(folder) = shared("rotten_tomatoes") else {
                return;
            };
            let lines: LineRange = lines.parse().unwrap();
            let data = DataSet::load_lines(&folder, Some(lines)).unwrap();
            let (found, told) = shipped_accuracy(name, split, data);
            assert_eq!(found, told);
            assert!(found >= least, "{name}, {split}: {found}");
        }
    }
}
