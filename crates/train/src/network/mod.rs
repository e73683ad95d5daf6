//! The models in candle tensors: one forward pass for training (f32, gradients) and for the final
//! evaluation (f64).
//!
//! Shapes: B sentences, T tokens (padded), d features, H heads of width D, F channels of a
//! feed-forward block, M channels of a state, C classes.

mod ranges;
mod state_space;
mod transformer;
mod weights;

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor};
use veilformer_models::Pooling;
use veilformer_models::config::{Family, ModelConfig};

use crate::error::Result;
use crate::family::{FamilyRecipe, StateSpaceLimits, TransformerLimits};
use crate::noise::Noise;

pub use ranges::{Histogram, Ranges};
pub use weights::weights_of;

/// Weights by the names of `model.safetensors`, with two exceptions that suit training better. The
/// activation's `beta` stands alone under `layers.{l}.ffn.beta`; its `alpha` is 1, which loses
/// nothing: any other value is a factor of a column of `ffn.down`, and a constant keeps it away
/// from 0, where completing the square fails. And `layers.{l}.decay_logit` stands for the decay
/// `1 / (1 + exp(-logit))`, which keeps it between 0 and 1.
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

    /// 1 at each sentence's last token and 0 elsewhere, B x T x 1.
    pub fn last(&self, dtype: DType) -> Result<Tensor> {
        let mut values = Vec::with_capacity(self.ids.len());
        for &n in &self.lengths {
            values.extend((0..self.width).map(|t| if t + 1 == n { 1.0f64 } else { 0.0 }));
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

/// What a forward pass is for.
pub enum Mode<'a> {
    /// Statistics of the batch in the normalizations, dropout, range terms.
    Train {
        /// Where dropout masks come from.
        noise: &'a mut Noise,
        /// Dropout of block outputs and of the sentence vector.
        dropout: f64,
        /// The family's limits of the range terms.
        family: &'a FamilyRecipe,
        /// Limit of the logits.
        logits: f64,
    },
    /// Stored statistics, nothing random.
    Eval,
    /// As `Eval`, and the ranges of intermediate values are kept.
    Observe(&'a mut Ranges),
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

/// What the layers of one forward pass share.
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

    /// Logits of a batch whose token vectors (without positions) are `embedded`, B x T x d. Without
    /// a weight `position.weight` nothing is added to them.
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
            x = match &self.config.family {
                Family::Transformer(shape) => self.transformer(shape, &layer, x, &mut pass)?,
                Family::StateSpace(_) => self.state_space(&layer, x, &mut pass)?,
            };
        }
        let pooled = match self.config.pooling() {
            Pooling::Mean => x
                .broadcast_mul(&pass.mask)?
                .sum(1)?
                .broadcast_mul(&pass.inverse_length.squeeze(2)?)?,
            Pooling::Last => x.broadcast_mul(&batch.last(dtype)?)?.sum(1)?,
        };
        let pooled = pass.dropout(pooled)?;
        let logits = self.linear("classifier", &pooled)?;
        if let Mode::Train { logits: limit, .. } = pass.mode {
            let limit = *limit;
            pass.add_range_term((logits.abs()? - limit)?.relu()?.sqr()?.mean_all()?)?;
        }
        if let Mode::Observe(ranges) = pass.mode {
            ranges.add("logits", &logits, None)?;
        }
        Ok(Output {
            logits,
            range_loss: pass.range_loss,
            statistics: pass.statistics,
        })
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

    /// A transformer's limits, in training.
    fn transformer_limits(&self) -> Option<TransformerLimits> {
        match self.mode {
            Mode::Train {
                family: FamilyRecipe::Transformer(recipe),
                ..
            } => Some(recipe.limits),
            _ => None,
        }
    }

    /// A state-space classifier's limits, in training.
    fn state_space_limits(&self) -> Option<StateSpaceLimits> {
        match self.mode {
            Mode::Train {
                family: FamilyRecipe::StateSpace(recipe),
                ..
            } => Some(recipe.limits),
            _ => None,
        }
    }

    fn add_range_term(&mut self, term: Tensor) -> Result<()> {
        self.range_loss = Some(match self.range_loss.take() {
            Some(sum) => (sum + term)?,
            None => term,
        });
        Ok(())
    }

    /// Keeps the range of the values at real tokens.
    fn observe(&mut self, name: &str, values: &Tensor) -> Result<()> {
        if let Mode::Observe(ranges) = self.mode {
            ranges.add(name, values, Some(&self.mask.broadcast_as(values.shape())?))?;
        }
        Ok(())
    }

    /// Adds a range term over the values (B x T x any) at real tokens, if there is a limit.
    fn limit(&mut self, name: &str, values: &Tensor, limit: Option<f64>) -> Result<()> {
        if let Some(limit) = limit {
            let over = (values.abs()? - limit)?
                .relu()?
                .sqr()?
                .broadcast_mul(&self.mask)?;
            let count = self.tokens * values.dim(D::Minus1)? as f64;
            self.add_range_term((over.sum_all()? / count)?)?;
        }
        self.observe(name, values)
    }
}
