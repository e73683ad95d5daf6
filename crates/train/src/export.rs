//! From trained parameters to a model folder, and the figures that are measured on it.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::Serialize;
use veilformer_models::checkpoint::{EmbeddingTable, LayerWeights, Linear, Norm};
use veilformer_models::{Checkpoint, Matrix, ModelConfig, ModelFolder};

use crate::corpus::{Corpus, Item};
use crate::error::{Result, TrainError, at};
use crate::network::{Mode, Ranges, Weights, weights_of};
use crate::trainer::{accuracy, evaluate, evaluate_with};

/// The model of `weights` (f32), with the token vectors `table` (V x d) rounded to bytes.
///
/// # Errors
/// When a weight is absent or not finite.
pub fn to_checkpoint(
    config: &ModelConfig,
    weights: &Weights,
    table: &Tensor,
) -> Result<Checkpoint> {
    let get = |name: &str| -> Result<Matrix> {
        let tensor = weights
            .get(name)
            .ok_or_else(|| candle_core::Error::Msg(format!("no weight `{name}`")))?;
        to_matrix(tensor)
    };
    let linear = |name: &str| -> Result<Linear> {
        Ok(Linear {
            weight: get(&format!("{name}.weight"))?,
            bias: get(&format!("{name}.bias"))?.data().to_vec(),
        })
    };
    let norm = |name: &str| -> Result<Norm> {
        Ok(Norm {
            weight: get(&format!("{name}.weight"))?.data().to_vec(),
            bias: get(&format!("{name}.bias"))?.data().to_vec(),
            running_mean: get(&format!("{name}.running_mean"))?.data().to_vec(),
            running_var: get(&format!("{name}.running_var"))?.data().to_vec(),
        })
    };
    let mut layers = Vec::with_capacity(config.num_hidden_layers);
    for l in 0..config.num_hidden_layers {
        let p = |name: &str| format!("layers.{l}.{name}");
        layers.push(LayerWeights {
            norm1: norm(&p("norm1"))?,
            query: linear(&p("attention.query"))?,
            key: linear(&p("attention.key"))?,
            value: linear(&p("attention.value"))?,
            output: linear(&p("attention.output"))?,
            norm2: norm(&p("norm2"))?,
            up: linear(&p("ffn.up"))?,
            activation: get(&p("ffn.beta"))?
                .data()
                .iter()
                .map(|beta| [1.0, *beta])
                .collect(),
            down: linear(&p("ffn.down"))?,
        });
    }
    Ok(Checkpoint {
        config: config.clone(),
        embedding: EmbeddingTable::quantize(&to_matrix(table)?)?,
        position: get("position.weight")?,
        layers,
        classifier: linear("classifier")?,
    })
}

fn to_matrix(tensor: &Tensor) -> Result<Matrix> {
    let cols = tensor.dims().last().copied().unwrap_or(1);
    let data = tensor
        .flatten_all()?
        .to_dtype(DType::F64)?
        .to_vec1::<f64>()?;
    Ok(veilformer_models::matrix(
        data.len() / cols.max(1),
        cols,
        data,
    )?)
}

/// Figures of the shipped model, all with the rounded token table and in f64.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Part of the dev split that is answered right.
    pub dev_accuracy: f64,
    /// Part of the test split that is answered right.
    pub test_accuracy: f64,
    /// Sentences of dev and test.
    pub dev_size: usize,
    /// Sentences of test.
    pub test_size: usize,
    /// Standard deviation of each logit over the test split.
    pub test_logit_std: Vec<f64>,
    /// Dev and test accuracy of the same weights with the attention's output set to zero.
    pub without_attention: [f64; 2],
    /// `(name, smallest, largest)` of intermediate values over all three splits.
    pub ranges: Vec<(String, f64, f64)>,
}

/// A sentence with the logits that the trainer computes in f64.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GoldenSentence {
    /// The text.
    pub text: String,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Its logits.
    pub logits: Vec<f64>,
}

/// What `golden.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Golden {
    /// Version of this form, 1.
    pub format_version: u32,
    /// Figures of the model.
    pub figures: Figures,
    /// Golden vectors.
    pub sentences: Vec<GoldenSentence>,
}

/// Evaluates the folder `dir` as it stands on disk, in f64 tensors.
///
/// # Errors
/// When the folder is not usable or a golden sentence gives no token or too many.
pub fn measure(dir: &Path, corpus: &Corpus, sentences: &[String]) -> Result<Golden> {
    let folder = ModelFolder::load(dir)?;
    let config = &folder.checkpoint.config;
    let weights = weights_of(&folder.checkpoint, DType::F64)?;
    let embedding = &folder.checkpoint.embedding;
    let mut values = Vec::with_capacity(embedding.values.len());
    for id in 0..embedding.vocab_size {
        values.extend(embedding.row(id as u32)?);
    }
    let mut ranges = Ranges::default();
    let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    ranges.entries.push(("E".to_owned(), smallest, largest));
    let shape = (embedding.vocab_size, embedding.hidden_size);
    let table = Tensor::from_vec(values, shape, &Device::Cpu)?;

    let mut logits_of = |items: &[Item]| -> Result<Vec<Vec<f64>>> {
        let mut mode = Mode::Observe(&mut ranges);
        evaluate_with(config, &weights, &table, items, &mut mode)
    };
    let dev = logits_of(&corpus.dev)?;
    let test = logits_of(&corpus.test)?;
    logits_of(&corpus.train)?;

    let mut silent = weights.clone();
    for (name, tensor) in &mut silent {
        if name.contains("attention.output") {
            *tensor = tensor.zeros_like()?;
        }
    }
    let ablated = |items: &[Item]| -> Result<f64> {
        Ok(accuracy(&evaluate(config, &silent, &table, items)?, items))
    };
    let figures = Figures {
        dev_accuracy: accuracy(&dev, &corpus.dev),
        test_accuracy: accuracy(&test, &corpus.test),
        dev_size: corpus.dev.len(),
        test_size: corpus.test.len(),
        test_logit_std: deviations(&test, config.num_classes()),
        without_attention: [ablated(&corpus.dev)?, ablated(&corpus.test)?],
        ranges: ranges.entries,
    };
    let mut items = Vec::with_capacity(sentences.len());
    for text in sentences {
        items.push(Item {
            text: text.clone(),
            ids: folder.encode(text)?,
            label: 0,
        });
    }
    let logits = evaluate(config, &weights, &table, &items)?;
    let sentences = items
        .into_iter()
        .zip(logits)
        .map(|(item, logits)| GoldenSentence {
            text: item.text,
            ids: item.ids,
            logits,
        })
        .collect();
    Ok(Golden {
        format_version: 1,
        figures,
        sentences,
    })
}

fn deviations(logits: &[Vec<f64>], classes: usize) -> Vec<f64> {
    let n = logits.len().max(1) as f64;
    (0..classes)
        .map(|c| {
            let column = || logits.iter().filter_map(|row| row.get(c));
            let mean = column().sum::<f64>() / n;
            (column().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt()
        })
        .collect()
}

/// Writes `bytes` to `path` under another name first, so that no partial file is ever seen.
///
/// # Errors
/// When the file cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    std::fs::write(&part, bytes).map_err(at(&part))?;
    std::fs::rename(&part, path).map_err(|source| TrainError::File {
        path: path.into(),
        source,
    })
}
