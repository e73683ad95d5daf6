//! An encoder of the BERT family with a classifier (Devlin et al., arXiv 1810.04805), forward; the
//! gradients are those of the tensors.
//!
//! Shapes: N tokens of all B sentences together, d features, F channels of a feed-forward part, H
//! heads, C labels.

use candle_core::{DType, Device, Tensor};
use veilformer_ir::encoder::{Activation, AttentionFunction};

use super::ops::{Attention, activate, add_bias, attend, excess, layer_norm, log_variance};
use super::ranges::{RangeLimits, Seen, Site};
use crate::error::Result;
use crate::network::Weights;
use crate::noise::Noise;

/// What the weights do not say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Number of layers.
    pub layers: usize,
    /// Heads per layer.
    pub heads: usize,
    /// Added to every variance.
    pub layer_norm_eps: f64,
    /// Between the two maps of the feed-forward part.
    pub activation: Activation,
    /// How scores become weights.
    pub attention: AttentionFunction,
}

/// Sentences of any lengths, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Token ids, N values.
    pub ids: Vec<u32>,
    /// Tokens of each sentence.
    pub lengths: Vec<usize>,
}

impl Batch {
    /// The batch of `sentences`.
    pub fn new(sentences: &[&[u32]]) -> Self {
        Self {
            ids: sentences.concat(),
            lengths: sentences.iter().map(|s| s.len()).collect(),
        }
    }

    /// The place of every token in its sentence.
    fn positions(&self) -> Vec<u32> {
        self.lengths.iter().flat_map(|&n| 0..n as u32).collect()
    }

    /// The rows of first tokens and of all others.
    fn classes(&self) -> [Vec<u32>; 2] {
        let mut rows = [Vec::new(), Vec::new()];
        for (row, position) in self.positions().into_iter().enumerate() {
            rows[usize::from(position > 0)].push(row as u32);
        }
        rows
    }
}

/// What a forward pass is for.
pub enum Purpose<'a> {
    /// Answers.
    Answer,
    /// Answers, and the ranges of what polynomials will stand for.
    Observe(&'a mut Seen),
    /// Training.
    Train {
        /// Where dropout masks come from.
        noise: &'a mut Noise,
        /// Part of values set to zero: of token vectors, of what is added to a residual and of the
        /// sentence vector.
        dropout: f64,
        /// The limits of ranges, if there are any.
        limits: Option<&'a RangeLimits>,
    },
}

/// Result of a forward pass.
pub struct Output {
    /// B x C.
    pub logits: Tensor,
    /// Token vectors after their normalization and after each layer, N x d each.
    pub hidden: Vec<Tensor>,
    /// The range terms, in training with limits; see [`RangeLimits`].
    pub ranges: Option<Tensor>,
}

/// Shape and weights. The weights have the names of the transformers library, with these
/// exceptions that suit training: a dense map's weight is inputs x outputs, and the vectors of the
/// first token type are part of those of positions.
pub struct Network<'a> {
    shape: Shape,
    weights: &'a Weights,
}

struct Pass<'p, 'a> {
    purpose: &'p mut Purpose<'a>,
    classes: [Tensor; 2],
    sentences: f64,
    ranges: Option<Tensor>,
}

impl<'a> Network<'a> {
    /// A network over f32 weights.
    pub fn new(shape: Shape, weights: &'a Weights) -> Self {
        Self { shape, weights }
    }

    fn weight(&self, name: &str) -> Result<&Tensor> {
        self.weights
            .get(name)
            .ok_or_else(|| candle_core::Error::Msg(format!("no weight `{name}`")).into())
    }

    fn dense(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(self.weight(&format!("{name}.weight"))?)?;
        Ok(add_bias(&y, self.weight(&format!("{name}.bias"))?)?)
    }

    fn norm(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let weight = self.weight(&format!("{name}.LayerNorm.weight"))?;
        let bias = self.weight(&format!("{name}.LayerNorm.bias"))?;
        Ok(layer_norm(
            x,
            weight,
            bias,
            self.shape.layer_norm_eps as f32,
        )?)
    }

    /// Runs the network.
    ///
    /// # Errors
    /// When a weight is absent, a shape does not fit or a token lies outside the table.
    pub fn forward(&self, batch: &Batch, mut purpose: Purpose<'_>) -> Result<Output> {
        let rows = |rows: Vec<u32>| {
            let n = rows.len();
            Tensor::from_vec(rows, n, &Device::Cpu)
        };
        let [first, others] = batch.classes();
        let mut pass = Pass {
            purpose: &mut purpose,
            classes: [rows(first)?, rows(others)?],
            sentences: batch.lengths.len().max(1) as f64,
            ranges: None,
        };
        let tokens = self.weight("bert.embeddings.word_embeddings.weight")?;
        let positions = self.weight("bert.embeddings.position_embeddings.weight")?;
        let tokens = tokens.index_select(&rows(batch.ids.clone())?, 0)?;
        let positions = positions.index_select(&rows(batch.positions())?, 0)?;
        let x = self.norm("bert.embeddings", &(tokens + positions)?)?;
        let mut hidden = vec![pass.dropout(&x)?];
        for layer in 0..self.shape.layers {
            let x = hidden.last().unwrap_or(&x).clone();
            hidden.push(self.layer(layer, &x, batch, &mut pass)?);
        }
        let x = hidden.last().unwrap_or(&x);
        let sentence = x.index_select(&pass.classes[0], 0)?;
        let sentence = self.dense("bert.pooler.dense", &sentence)?.tanh()?;
        let logits = self.dense("classifier", &pass.dropout(&sentence)?)?;
        Ok(Output {
            logits,
            ranges: pass.ranges,
            hidden,
        })
    }

    fn layer(
        &self,
        index: usize,
        x: &Tensor,
        batch: &Batch,
        pass: &mut Pass<'_, '_>,
    ) -> Result<Tensor> {
        let name = |part: &str| format!("bert.encoder.layer.{index}.{part}");
        let [q, k, v] =
            ["query", "key", "value"].map(|p| self.dense(&name(&format!("attention.self.{p}")), x));
        let shape = Attention {
            lengths: batch.lengths.clone(),
            heads: self.shape.heads,
            function: self.shape.attention,
            sums: pass.watches(),
        };
        let attended = attend(&q?, &k?, &v?, shape)?;
        if let Some(log_sums) = &attended.log_sums {
            pass.log_sums(index, log_sums)?;
        }
        let y = self.dense(&name("attention.output.dense"), &attended.context)?;
        let sum = (pass.dropout(&y)? + x)?;
        pass.variance((index, 0), &sum, self.shape.layer_norm_eps)?;
        let h = self.norm(&name("attention.output"), &sum)?;
        let up = self.dense(&name("intermediate.dense"), &h)?;
        pass.activation(index, &up)?;
        let active = activate(&up, self.shape.activation)?;
        let y = self.dense(&name("output.dense"), &active)?;
        let sum = (pass.dropout(&y)? + h)?;
        pass.variance((index, 1), &sum, self.shape.layer_norm_eps)?;
        self.norm(&name("output"), &sum)
    }

    /// The logarithms of the sums that a layer's attention has on the token vectors `x`, N x H.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn log_sums(&self, index: usize, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        let part =
            |p: &str| self.dense(&format!("bert.encoder.layer.{index}.attention.self.{p}"), x);
        let (q, k) = (part("query")?, part("key")?);
        let shape = Attention {
            lengths: batch.lengths.clone(),
            heads: self.shape.heads,
            function: self.shape.attention,
            sums: true,
        };
        let attended = attend(&q, &k, &k, shape)?;
        let sums = attended.log_sums;
        Ok(sums.ok_or_else(|| candle_core::Error::Msg("no sums".into()))?)
    }
}

impl Pass<'_, '_> {
    fn dropout(&mut self, x: &Tensor) -> Result<Tensor> {
        match self.purpose {
            Purpose::Train { noise, dropout, .. } => noise.drop(x, *dropout),
            _ => Ok(x.clone()),
        }
    }

    /// Whether anything is made of ranges.
    fn watches(&self) -> bool {
        match &*self.purpose {
            Purpose::Answer => false,
            Purpose::Observe(_) => true,
            Purpose::Train { limits, .. } => limits.is_some(),
        }
    }

    fn limits(&self) -> Option<RangeLimits> {
        match &*self.purpose {
            Purpose::Train { limits, .. } => limits.copied(),
            _ => None,
        }
    }

    /// The sum of squares beyond the limits, per sentence, becomes a range term.
    fn limit(&mut self, values: &Tensor, [low, high]: [f64; 2], weight: f64) -> Result<()> {
        let factor = weight / self.sentences;
        let term = (excess(values, low as f32, high as f32)? * factor)?;
        self.ranges = Some(match self.ranges.take() {
            Some(sum) => (sum + term)?,
            None => term,
        });
        Ok(())
    }

    fn log_sums(&mut self, layer: usize, sums: &Tensor) -> Result<()> {
        if let Purpose::Observe(seen) = self.purpose {
            for (head, column) in sums.t()?.to_vec2::<f32>()?.iter().enumerate() {
                seen.include(Site::LogSum { layer, head }, column);
            }
        }
        match self.limits() {
            Some(l) => self.limit(sums, [f64::from(f32::MIN), l.sum.ln()], l.sums),
            None => Ok(()),
        }
    }

    fn variance(&mut self, (layer, norm): (usize, usize), x: &Tensor, eps: f64) -> Result<()> {
        if !self.watches() {
            return Ok(());
        }
        let logs = log_variance(x, eps as f32)?;
        for (class, rows) in self.classes.clone().iter().enumerate() {
            if rows.elem_count() == 0 {
                continue;
            }
            let logs = logs.index_select(rows, 0)?;
            if let Purpose::Observe(seen) = self.purpose {
                let site = Site::LogVariance { layer, norm, class };
                seen.include(site, &logs.to_vec1::<f32>()?);
            }
            if let Some(l) = self.limits() {
                let mean = logs.detach().to_dtype(DType::F64)?.mean_all()?;
                let mean = mean.to_scalar::<f64>()?;
                let half = l.variance_ratio.ln() / 2.0;
                self.limit(&logs, [mean - half, mean + half], l.variances)?;
            }
        }
        Ok(())
    }

    fn activation(&mut self, layer: usize, x: &Tensor) -> Result<()> {
        if let Purpose::Observe(seen) = self.purpose {
            seen.include(
                Site::Activation { layer },
                &x.flatten_all()?.to_vec1::<f32>()?,
            );
        }
        match self.limits() {
            Some(l) => self.limit(x, [-l.activation, l.activation], l.activations),
            None => Ok(()),
        }
    }
}
