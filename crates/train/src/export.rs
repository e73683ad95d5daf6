//! From trained parameters to a model folder, and the figures that are measured on it.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::Serialize;
use veilformer_models::config::TransformerConfig;
use veilformer_models::{
    Checkpoint, Embedding, EmbeddingTable, Family, FolderFiles, Layers, Linear, Matrix, Norm,
    StateSpaceLayer, TransformerLayer,
};

use crate::corpus::{Corpus, Item, TokenSource};
use crate::error::{Result, TrainError, at};
use crate::features::SharedTable;
use crate::network::{Mode, Ranges, Weights, weights_of};
use crate::trainer::{Trainer, accuracy, evaluate, evaluate_with};

/// The model of a trainer's `weights` (f32). With a shared token table the model keeps the
/// projection; otherwise it gets a table of its own, the token vectors rounded to bytes.
///
/// # Errors
/// When a weight is absent or not finite.
pub fn to_checkpoint(trainer: &Trainer<'_>, weights: &Weights) -> Result<Checkpoint> {
    let named = Named(weights);
    let mut config = trainer.config.clone();
    let shared = match &trainer.corpus.source {
        TokenSource::Frozen(features) => features.shared.as_ref(),
        TokenSource::Learned { .. } => None,
    };
    let (table, projection) = match shared {
        Some(shared) => {
            config.token_table = Some(shared.files.reference());
            let learned = named.matrix("projection")?;
            (shared.table.clone(), Some(folded(&learned, shared)))
        }
        None => {
            let vectors = to_matrix(&trainer.token_table(weights)?)?;
            (EmbeddingTable::quantize(&vectors)?, None)
        }
    };
    let layers = (0..config.num_hidden_layers).map(|l| format!("layers.{l}"));
    let (position, layers) = match &config.family {
        Family::Transformer(shape) => {
            let layers = layers.map(|p| named.transformer(shape, &p));
            let layers = layers.collect::<Result<_>>()?;
            (
                Some(named.matrix("position.weight")?),
                Layers::Transformer(layers),
            )
        }
        Family::StateSpace(_) => {
            let layers = layers.map(|p| named.state_space(&p));
            (None, Layers::StateSpace(layers.collect::<Result<_>>()?))
        }
    };
    Ok(Checkpoint {
        config,
        embedding: Embedding {
            table,
            projection,
            position,
        },
        layers,
        classifier: named.linear("classifier")?,
    })
}

/// The projection d x components of a learned one features x d: a feature is its component times a
/// factor.
fn folded(learned: &Matrix, shared: &SharedTable) -> Matrix {
    let mut projection = Matrix::zeros(learned.cols(), learned.rows());
    for (k, (row, factor)) in learned.iter_rows().zip(&shared.factors).enumerate() {
        for (i, value) in row.iter().enumerate() {
            projection.set(i, k, f64::from((value * factor) as f32));
        }
    }
    projection
}

/// Weights as the parts of a checkpoint.
struct Named<'a>(&'a Weights);

impl Named<'_> {
    fn matrix(&self, name: &str) -> Result<Matrix> {
        let tensor = self
            .0
            .get(name)
            .ok_or_else(|| candle_core::Error::Msg(format!("no weight `{name}`")))?;
        to_matrix(tensor)
    }

    fn vector(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.matrix(name)?.data().to_vec())
    }

    fn linear(&self, name: &str) -> Result<Linear> {
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"))?,
            bias: self.vector(&format!("{name}.bias"))?,
        })
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        Ok(Norm {
            weight: self.vector(&format!("{name}.weight"))?,
            bias: self.vector(&format!("{name}.bias"))?,
            running_mean: self.vector(&format!("{name}.running_mean"))?,
            running_var: self.vector(&format!("{name}.running_var"))?,
        })
    }

    fn transformer(&self, shape: &TransformerConfig, prefix: &str) -> Result<TransformerLayer> {
        let p = |name: &str| format!("{prefix}.{name}");
        let beta = self.vector(&p("ffn.beta"))?;
        Ok(TransformerLayer {
            heads: shape.num_attention_heads,
            norm1: self.norm(&p("norm1"))?,
            query: self.linear(&p("attention.query"))?,
            key: self.linear(&p("attention.key"))?,
            value: self.linear(&p("attention.value"))?,
            output: self.linear(&p("attention.output"))?,
            norm2: self.norm(&p("norm2"))?,
            up: self.linear(&p("ffn.up"))?,
            activation: beta.into_iter().map(|beta| [1.0, beta]).collect(),
            down: self.linear(&p("ffn.down"))?,
        })
    }

    fn state_space(&self, prefix: &str) -> Result<StateSpaceLayer> {
        let p = |name: &str| format!("{prefix}.{name}");
        let decay = self.vector(&p("decay_logit"))?.into_iter().map(|logit| {
            let decay = (1.0 / (1.0 + (-logit).exp())) as f32;
            f64::from(decay.clamp(f32::EPSILON, 1.0 - f32::EPSILON))
        });
        Ok(StateSpaceLayer {
            norm: self.norm(&p("norm"))?,
            input: self.linear(&p("input"))?,
            gate: self.linear(&p("gate"))?,
            decay: decay.collect(),
            output: self.linear(&p("output"))?,
        })
    }
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
    /// Dev and test accuracy of the same weights with what tokens tell each other set to zero: the
    /// attention's output, or what is read from the state.
    pub without_mixing: [f64; 2],
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

/// Evaluates the folder `dir` as it stands on disk, in f64 tensors, and gives the ranges of all
/// intermediate values beside the figures.
///
/// # Errors
/// When the folder is not usable or a golden sentence gives no token or too many.
pub fn measure(dir: &Path, corpus: &Corpus, sentences: &[String]) -> Result<(Golden, Ranges)> {
    let known = match &corpus.source {
        TokenSource::Frozen(features) => features.shared.as_ref(),
        TokenSource::Learned { .. } => None,
    };
    let known: Vec<_> = known
        .map(|shared| shared.files.clone())
        .into_iter()
        .collect();
    let folder = FolderFiles::read(dir, &known)?.load()?;
    let config = &folder.checkpoint.config;
    let weights = weights_of(&folder.checkpoint, DType::F64)?;
    let values: Vec<f64> = folder.checkpoint.embedding.vectors().flatten().collect();
    let mut ranges = Ranges::default();
    ranges.extend("E", values.iter().copied());
    let shape = (config.vocab_size, config.hidden_size);
    let table = Tensor::from_vec(values, shape, &Device::Cpu)?;

    let mut logits_of = |items: &[Item]| -> Result<Vec<Vec<f64>>> {
        let mut mode = Mode::Observe(&mut ranges);
        evaluate_with(config, &weights, &table, items, &mut mode)
    };
    let dev = logits_of(&corpus.dev)?;
    let test = logits_of(&corpus.test)?;
    logits_of(&corpus.train)?;

    let silent = weights_of(&silenced(&folder.checkpoint), DType::F64)?;
    let ablated = |items: &[Item], size: usize| -> Result<f64> {
        let logits = evaluate(config, &silent, &table, items)?;
        Ok(accuracy(&logits, items, size))
    };
    let (dev_size, test_size) = (corpus.dev_size(), corpus.test_size());
    let figures = Figures {
        dev_accuracy: accuracy(&dev, &corpus.dev, dev_size),
        test_accuracy: accuracy(&test, &corpus.test, test_size),
        dev_size,
        test_size,
        test_logit_std: deviations(&test, config.num_classes()),
        without_mixing: [
            ablated(&corpus.dev, dev_size)?,
            ablated(&corpus.test, test_size)?,
        ],
        ranges: ranges
            .entries
            .iter()
            .map(|r| (r.name.clone(), r.smallest, r.largest))
            .collect(),
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
    let golden = Golden {
        format_version: 1,
        figures,
        sentences,
    };
    Ok((golden, ranges))
}

/// The same model, but no token learns of another: the attention's output, or what is read from the
/// state, is zero.
fn silenced(checkpoint: &Checkpoint) -> Checkpoint {
    let zero = |linear: &mut Linear| {
        linear.weight = Matrix::zeros(linear.weight.rows(), linear.weight.cols());
        linear.bias.fill(0.0);
    };
    let mut silent = checkpoint.clone();
    match &mut silent.layers {
        Layers::Transformer(layers) => layers.iter_mut().for_each(|l| zero(&mut l.output)),
        Layers::StateSpace(layers) => layers.iter_mut().for_each(|l| zero(&mut l.output)),
    }
    silent
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
