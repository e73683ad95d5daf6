//! The polynomial transformer in candle tensors: one forward pass for training (f32, gradients)
//! and for the final evaluation (f64).
//!
//! Shapes: B sentences, T tokens (padded), d features, H heads of width D, F channels, C classes.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor};
use veilformer_models::{Checkpoint, Linear, ModelConfig};

use crate::error::Result;
use crate::noise::Noise;

/// Weights by the names of `model.safetensors`. The activation's `beta` stands alone under
/// `layers.{l}.ffn.beta`; its `alpha` is 1, which loses nothing: any other value is a factor of a
/// column of `ffn.down`, and a constant keeps it away from 0, where completing the square fails.
pub type Weights = HashMap<String, Tensor>;

/// A batch of sentences padded to the same number of tokens.
#[derive(Debug)]
pub struct Batch {
    /// Token ids, B * T values; padding is token 0.
    pub ids: Vec<u32>,
    /// Lengths of the sentences, B values of at least 1.
    pub lengths: Vec<usize>,
    /// Longest length T.
    pub width: usize,
}

impl Batch {
    /// Pads `sentences` to the longest of them.
    pub fn new(sentences: &[&[u32]]) -> Self {
        let width = sentences.iter().map(|s| s.len()).max().unwrap_or(1).max(1);
        let mut ids = vec![0; sentences.len() * width];
        for (row, sentence) in ids.chunks_exact_mut(width).zip(sentences) {
            for (slot, &id) in row.iter_mut().zip(*sentence) {
                *slot = id;
            }
        }
        Self {
            ids,
            lengths: sentences.iter().map(|s| s.len()).collect(),
            width,
        }
    }

    /// 1 at real tokens and 0 at padding, B x T x 1.
    pub fn mask(&self, dtype: DType) -> Result<Tensor> {
        let mut values = Vec::with_capacity(self.ids.len());
        for &n in &self.lengths {
            values.extend((0..self.width).map(|t| if t < n { 1.0f64 } else { 0.0 }));
        }
        let shape = (self.lengths.len(), self.width, 1);
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?)
    }

    /// One over the length, B x 1 x 1.
    pub fn inverse_length(&self, dtype: DType) -> Result<Tensor> {
        let values: Vec<f64> = self
            .lengths
            .iter()
            .map(|&n| 1.0 / n.max(1) as f64)
            .collect();
        Ok(Tensor::from_vec(values, (self.lengths.len(), 1, 1), &Device::Cpu)?.to_dtype(dtype)?)
    }
}

/// Limits of the range-minimization terms; see the recipe.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of the scores, around their middle.
    pub scores: f64,
    /// Middle of the scores.
    pub scores_middle: f64,
    /// Of q, k and v.
    pub projections: f64,
    /// Of the attention output.
    pub attention: f64,
    /// Of the activation's inputs.
    pub activation: f64,
    /// Of the logits.
    pub logits: f64,
}

/// What a forward pass is for.
pub enum Mode<'a> {
    /// Statistics of the batch in the normalizations, dropout, range terms.
    Train {
        /// Where dropout masks come from.
        noise: &'a mut Noise,
        /// Dropout of block outputs and of the sentence vector.
        dropout: f64,
        /// Limits of the range terms.
        limits: Limits,
    },
    /// Stored statistics, nothing random.
    Eval,
    /// As `Eval`, and the ranges of intermediate values are kept.
    Observe(&'a mut Ranges),
}

/// Smallest and largest value of each kind of intermediate over real tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranges {
    /// `(name, smallest, largest)` in the order in which the network computes them.
    pub entries: Vec<(String, f64, f64)>,
}

impl Ranges {
    fn add(&mut self, name: &str, values: &Tensor) -> Result<()> {
        let flat = values.flatten_all()?.to_dtype(DType::F64)?;
        let (low, high) = (
            flat.min(0)?.to_scalar::<f64>()?,
            flat.max(0)?.to_scalar::<f64>()?,
        );
        match self.entries.iter_mut().find(|(n, _, _)| n == name) {
            Some((_, l, h)) => (*l, *h) = (l.min(low), h.max(high)),
            None => self.entries.push((name.to_owned(), low, high)),
        }
        Ok(())
    }
}

/// Result of a forward pass.
pub struct Output {
    /// B x C.
    pub logits: Tensor,
    /// Sum of the range terms (a scalar), in training.
    pub range_loss: Option<Tensor>,
    /// Statistics of the batch per normalization: name, mean and variance (d values each).
    pub statistics: Vec<(String, Tensor, Tensor)>,
}

/// The network: configuration and weights.
pub struct Network<'a> {
    config: &'a ModelConfig,
    weights: &'a Weights,
}

struct Pass<'p, 'm> {
    mask: Tensor,
    inverse_length: Tensor,
    tokens: f64,
    mode: &'p mut Mode<'m>,
    range_loss: Option<Tensor>,
    statistics: Vec<(String, Tensor, Tensor)>,
}

impl<'a> Network<'a> {
    /// A network over weights of any floating type.
    pub fn new(config: &'a ModelConfig, weights: &'a Weights) -> Self {
        Self { config, weights }
    }

    fn weight(&self, name: &str) -> Result<&Tensor> {
        self.weights
            .get(name)
            .ok_or_else(|| candle_core::Error::Msg(format!("no weight `{name}`")).into())
    }

    /// `x W^T + b` on the last axis of a B x T x d or B x d tensor.
    fn linear(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let weight = self.weight(&format!("{name}.weight"))?;
        let bias = self.weight(&format!("{name}.bias"))?;
        let mut shape = x.dims().to_vec();
        let width = shape.pop().unwrap_or(1);
        shape.push(weight.dim(0)?);
        let flat = x.reshape(((), width))?;
        Ok(flat
            .matmul(&weight.t()?)?
            .broadcast_add(bias)?
            .reshape(shape)?)
    }

    /// Logits of a batch whose token vectors (without positions) are `embedded`, B x T x d. A
    /// network without a position table is a bag of words.
    ///
    /// # Errors
    /// When a weight is absent or a shape does not fit.
    pub fn forward(&self, embedded: &Tensor, batch: &Batch, mode: &mut Mode<'_>) -> Result<Output> {
        let dtype = embedded.dtype();
        let mut x = match self.weights.get("position.weight") {
            Some(p) => embedded.broadcast_add(&p.narrow(0, 0, batch.width)?.unsqueeze(0)?)?,
            None => embedded.clone(),
        };
        let mut pass = Pass {
            mask: batch.mask(dtype)?,
            inverse_length: batch.inverse_length(dtype)?,
            tokens: batch.lengths.iter().sum::<usize>() as f64,
            mode,
            range_loss: None,
            statistics: Vec::new(),
        };
        pass.observe("x", &x)?;
        for l in 0..self.config.num_hidden_layers {
            let layer = format!("layers.{l}");
            let attended = self.attention(&layer, &x, &mut pass)?;
            x = (x + pass.dropout(attended)?)?;
            pass.observe("y", &x)?;
            let fed = self.feed_forward(&layer, &x, &mut pass)?;
            x = (x + pass.dropout(fed)?)?;
        }
        let pooled = x
            .broadcast_mul(&pass.mask)?
            .sum(1)?
            .broadcast_mul(&pass.inverse_length.squeeze(2)?)?;
        let pooled = pass.dropout(pooled)?;
        let logits = self.linear("classifier", &pooled)?;
        if let Mode::Train { limits, .. } = pass.mode {
            let limit = limits.logits;
            pass.add_range_term((logits.abs()? - limit)?.relu()?.sqr()?.mean_all()?)?;
        }
        if let Mode::Observe(ranges) = pass.mode {
            ranges.add("logits", &logits)?;
        }
        Ok(Output {
            logits,
            range_loss: pass.range_loss,
            statistics: pass.statistics,
        })
    }

    fn attention(&self, layer: &str, x: &Tensor, pass: &mut Pass<'_, '_>) -> Result<Tensor> {
        let (heads, width) = (self.config.num_attention_heads, self.config.head_dim);
        let (b, t, _) = x.dims3()?;
        let a = self.norm(&format!("{layer}.norm1"), x, pass)?;
        let project = |name: &str| self.linear(&format!("{layer}.attention.{name}"), &a);
        let (q, k, v) = (project("query")?, project("key")?, project("value")?);
        for (name, value) in [("q", &q), ("k", &k), ("v", &v)] {
            pass.limit(name, value)?;
        }
        let split = |z: &Tensor| -> Result<Tensor> {
            Ok(z.reshape((b, t, heads, width))?
                .transpose(1, 2)?
                .contiguous()?)
        };
        // Padding is taken out on the value's side, where the length's inverse goes too: what a
        // padded position scores does not matter then.
        let v = split(
            &v.broadcast_mul(&pass.mask)?
                .broadcast_mul(&pass.inverse_length)?,
        )?;
        let scores = split(&q)?.matmul(&split(&k)?.t()?)?;
        let scores = (scores / (width as f64).sqrt())?;
        pass.limit_scores(&scores)?;
        let o = scores.sqr()?.matmul(&v)?;
        let o = o
            .transpose(1, 2)?
            .contiguous()?
            .reshape((b, t, heads * width))?;
        pass.limit("o", &o)?;
        self.linear(&format!("{layer}.attention.output"), &o)
    }

    fn feed_forward(&self, layer: &str, x: &Tensor, pass: &mut Pass<'_, '_>) -> Result<Tensor> {
        let normed = self.norm(&format!("{layer}.norm2"), x, pass)?;
        let u = self.linear(&format!("{layer}.ffn.up"), &normed)?;
        pass.limit("u", &u)?;
        let beta = self.weight(&format!("{layer}.ffn.beta"))?;
        let act = (u.sqr()? + u.broadcast_mul(beta)?)?;
        let act = pass.dropout(act)?;
        self.linear(&format!("{layer}.ffn.down"), &act)
    }

    fn norm(&self, name: &str, x: &Tensor, pass: &mut Pass<'_, '_>) -> Result<Tensor> {
        let gain = self.weight(&format!("{name}.weight"))?;
        let bias = self.weight(&format!("{name}.bias"))?;
        let (mean, variance) = if matches!(pass.mode, Mode::Train { .. }) {
            let scale = 1.0 / pass.tokens;
            let mean = (x.broadcast_mul(&pass.mask)?.sum((0, 1))? * scale)?;
            let centered = x.broadcast_sub(&mean)?.broadcast_mul(&pass.mask)?;
            let variance = (centered.sqr()?.sum((0, 1))? * scale)?;
            pass.statistics
                .push((name.to_owned(), mean.detach(), variance.detach()));
            (mean, variance)
        } else {
            let get = |part: &str| self.weight(&format!("{name}.{part}")).cloned();
            (get("running_mean")?, get("running_var")?)
        };
        let root = (variance + self.config.norm_eps)?.sqrt()?;
        Ok(x.broadcast_sub(&mean)?
            .broadcast_mul(&(gain / root)?)?
            .broadcast_add(bias)?)
    }
}

impl Pass<'_, '_> {
    fn dropout(&mut self, x: Tensor) -> Result<Tensor> {
        match self.mode {
            Mode::Train { noise, dropout, .. } => noise.drop(&x, *dropout),
            Mode::Eval | Mode::Observe(_) => Ok(x),
        }
    }

    fn add_range_term(&mut self, term: Tensor) -> Result<()> {
        self.range_loss = Some(match self.range_loss.take() {
            Some(sum) => (sum + term)?,
            None => term,
        });
        Ok(())
    }

    fn observe(&mut self, name: &str, values: &Tensor) -> Result<()> {
        if let Mode::Observe(ranges) = self.mode {
            ranges.add(name, &values.broadcast_mul(&self.mask)?)?;
        }
        Ok(())
    }

    fn limit(&mut self, name: &str, values: &Tensor) -> Result<()> {
        if let Mode::Train { limits, .. } = self.mode {
            let limit = match name {
                "o" => limits.attention,
                "u" => limits.activation,
                _ => limits.projections,
            };
            let over = (values.abs()? - limit)?
                .relu()?
                .sqr()?
                .broadcast_mul(&self.mask)?;
            let count = self.tokens * values.dim(D::Minus1)? as f64;
            self.add_range_term((over.sum_all()? / count)?)?;
        }
        self.observe(name, values)
    }

    /// The scores' term runs over all pairs of real tokens of a sentence.
    fn limit_scores(&mut self, scores: &Tensor) -> Result<()> {
        if matches!(self.mode, Mode::Eval) {
            return Ok(());
        }
        let rows = self.mask.unsqueeze(1)?;
        let columns = rows.transpose(2, 3)?;
        match self.mode {
            Mode::Train { limits, .. } => {
                let over = ((scores - limits.scores_middle)?.abs()? - limits.scores)?.relu()?;
                // The sum over tokens u of a sentence is divided by its length, so that a long
                // sentence counts by its tokens and not by their square.
                let over = over
                    .sqr()?
                    .broadcast_mul(&rows)?
                    .broadcast_mul(&columns)?
                    .sum((1, 2, 3))?
                    .mul(&self.inverse_length.flatten_all()?)?;
                let heads = scores.dim(1)? as f64;
                self.add_range_term((over.sum_all()? / (self.tokens * heads))?)
            }
            Mode::Observe(ranges) => {
                ranges.add("S", &scores.broadcast_mul(&rows)?.broadcast_mul(&columns)?)
            }
            Mode::Eval => Ok(()),
        }
    }
}

/// The weights of `checkpoint` as tensors of type `dtype` (the token table is left out).
///
/// # Errors
/// When a shape does not fit.
pub fn weights_of(checkpoint: &Checkpoint, dtype: DType) -> Result<Weights> {
    let mut weights = Weights::new();
    let mut put = |name: String, values: &[f64], shape: &[usize]| -> Result<()> {
        let tensor = Tensor::from_slice(values, shape, &Device::Cpu)?.to_dtype(dtype)?;
        weights.insert(name, tensor);
        Ok(())
    };
    let p = &checkpoint.position;
    put("position.weight".into(), p.data(), &[p.rows(), p.cols()])?;
    let mut linears: Vec<(String, &Linear)> = vec![("classifier".into(), &checkpoint.classifier)];
    for (l, layer) in checkpoint.layers.iter().enumerate() {
        for (part, linear) in [
            ("attention.query", &layer.query),
            ("attention.key", &layer.key),
            ("attention.value", &layer.value),
            ("attention.output", &layer.output),
            ("ffn.up", &layer.up),
            ("ffn.down", &layer.down),
        ] {
            linears.push((format!("layers.{l}.{part}"), linear));
        }
        for (part, norm) in [("norm1", &layer.norm1), ("norm2", &layer.norm2)] {
            for (field, values) in [
                ("weight", &norm.weight),
                ("bias", &norm.bias),
                ("running_mean", &norm.running_mean),
                ("running_var", &norm.running_var),
            ] {
                put(
                    format!("layers.{l}.{part}.{field}"),
                    values,
                    &[values.len()],
                )?;
            }
        }
        let beta: Vec<f64> = layer.activation.iter().map(|[_, beta]| *beta).collect();
        put(format!("layers.{l}.ffn.beta"), &beta, &[beta.len()])?;
    }
    for (name, linear) in linears {
        let (rows, cols) = (linear.weight.rows(), linear.weight.cols());
        put(
            format!("{name}.weight"),
            linear.weight.data(),
            &[rows, cols],
        )?;
        put(format!("{name}.bias"), &linear.bias, &[linear.bias.len()])?;
    }
    Ok(weights)
}
