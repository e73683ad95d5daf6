//! Weights of the layers of both families.

use crate::config::{Family, StateSpaceConfig, TransformerConfig};
use crate::error::{ModelError, Result};
use crate::tensors::{Reader, Writer, bad_value};
use veilformer_ir::Matrix;

/// An affine map `y = W x + b`.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// outputs x inputs.
    pub weight: Matrix,
    /// One value per output.
    pub bias: Vec<f64>,
}

/// Batch normalization with stored statistics, one value per feature each:
/// `y = (x - running_mean) / sqrt(running_var + eps) * weight + bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// Gain.
    pub weight: Vec<f64>,
    /// Offset.
    pub bias: Vec<f64>,
    /// Mean over the training tokens.
    pub running_mean: Vec<f64>,
    /// Variance over the training tokens, not negative.
    pub running_var: Vec<f64>,
}

impl Norm {
    /// The same map as `y = gain x + offset`, one pair of values per feature.
    pub fn affine(&self, eps: f64) -> (Vec<f64>, Vec<f64>) {
        let gain: Vec<f64> = self
            .weight
            .iter()
            .zip(&self.running_var)
            .map(|(w, v)| w / (v + eps).sqrt())
            .collect();
        let offset = self
            .bias
            .iter()
            .zip(&self.running_mean)
            .zip(&gain)
            .map(|((b, m), g)| b - m * g)
            .collect();
        (gain, offset)
    }
}

/// Weights of a transformer's layer; `a` is the attention width (heads times head width), a head's
/// features stand together (feature = head * head_dim + i).
#[derive(Debug, Clone, PartialEq)]
pub struct TransformerLayer {
    /// Attention heads.
    pub heads: usize,
    /// Before attention.
    pub norm1: Norm,
    /// a x d.
    pub query: Linear,
    /// a x d.
    pub key: Linear,
    /// a x d.
    pub value: Linear,
    /// d x a.
    pub output: Linear,
    /// Before the feed-forward block.
    pub norm2: Norm,
    /// intermediate x d.
    pub up: Linear,
    /// `(alpha, beta)` per channel: the activation is `alpha u^2 + beta u`.
    pub activation: Vec<[f64; 2]>,
    /// d x intermediate.
    pub down: Linear,
}

/// Weights of a state-space layer with `m` state channels:
/// `a = norm(x)`, `w = (1 - decay) . input(a) . gate(a)`, `s_t = decay . s_(t-1) + w_t`,
/// `y = x + output(s)`.
#[derive(Debug, Clone, PartialEq)]
pub struct StateSpaceLayer {
    /// Before the two factors of what is written into the state.
    pub norm: Norm,
    /// m x d: one factor, `u`.
    pub input: Linear,
    /// m x d: the other factor, `g`.
    pub gate: Linear,
    /// Per channel the part of the state that a token leaves, above 0 and below 1.
    pub decay: Vec<f64>,
    /// d x m.
    pub output: Linear,
}

/// The layers of a model, first to last.
#[derive(Debug, Clone, PartialEq)]
pub enum Layers {
    /// Of a polynomial transformer.
    Transformer(Vec<TransformerLayer>),
    /// Of a state-space classifier.
    StateSpace(Vec<StateSpaceLayer>),
}

impl Layers {
    /// Number of layers.
    pub fn len(&self) -> usize {
        match self {
            Self::Transformer(layers) => layers.len(),
            Self::StateSpace(layers) => layers.len(),
        }
    }

    /// Whether there is no layer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads `count` layers of width `d`.
    pub(crate) fn read(
        reader: &mut Reader<'_>,
        family: &Family,
        count: usize,
        d: usize,
    ) -> Result<Self> {
        let prefixes = (0..count).map(|l| format!("layers.{l}"));
        match family {
            Family::Transformer(config) => prefixes
                .map(|p| TransformerLayer::read(reader, config, &p, d))
                .collect::<Result<_>>()
                .map(Self::Transformer),
            Family::StateSpace(config) => prefixes
                .map(|p| StateSpaceLayer::read(reader, config, &p, d))
                .collect::<Result<_>>()
                .map(Self::StateSpace),
        }
    }

    /// Writes them as layers of `family` of width `d`.
    pub(crate) fn write(&self, writer: &mut Writer, family: &Family, d: usize) -> Result<()> {
        match (self, family) {
            (Self::Transformer(layers), Family::Transformer(config)) => layers
                .iter()
                .enumerate()
                .try_for_each(|(l, layer)| layer.write(writer, config, &format!("layers.{l}"), d)),
            (Self::StateSpace(layers), Family::StateSpace(config)) => layers
                .iter()
                .enumerate()
                .try_for_each(|(l, layer)| layer.write(writer, config, &format!("layers.{l}"), d)),
            (_, family) => Err(ModelError::Config(format!(
                "the layers are not of the family `{}`",
                family.model_type()
            ))),
        }
    }
}

impl TransformerLayer {
    fn read(
        reader: &mut Reader<'_>,
        config: &TransformerConfig,
        prefix: &str,
        d: usize,
    ) -> Result<Self> {
        let (a, f) = (config.attention_width(), config.intermediate_size);
        let p = |name: &str| format!("{prefix}.{name}");
        let pairs = |values: Vec<f64>| {
            let (pairs, _) = values.as_chunks::<2>();
            pairs.to_vec()
        };
        Ok(Self {
            heads: config.num_attention_heads,
            norm1: reader.norm(&p("norm1"), d)?,
            query: reader.linear(&p("attention.query"), a, d)?,
            key: reader.linear(&p("attention.key"), a, d)?,
            value: reader.linear(&p("attention.value"), a, d)?,
            output: reader.linear(&p("attention.output"), d, a)?,
            norm2: reader.norm(&p("norm2"), d)?,
            up: reader.linear(&p("ffn.up"), f, d)?,
            activation: pairs(reader.floats(&p("ffn.activation"), &[f, 2])?),
            down: reader.linear(&p("ffn.down"), d, f)?,
        })
    }

    fn write(&self, w: &mut Writer, c: &TransformerConfig, prefix: &str, d: usize) -> Result<()> {
        let (a, f) = (c.attention_width(), c.intermediate_size);
        if self.heads != c.num_attention_heads {
            return Err(ModelError::Dimension {
                what: "number of heads of a layer",
                found: self.heads,
                expected: c.num_attention_heads,
            });
        }
        let p = |name: &str| format!("{prefix}.{name}");
        w.norm(&p("norm1"), d, &self.norm1)?;
        w.linear(&p("attention.query"), a, d, &self.query)?;
        w.linear(&p("attention.key"), a, d, &self.key)?;
        w.linear(&p("attention.value"), a, d, &self.value)?;
        w.linear(&p("attention.output"), d, a, &self.output)?;
        w.norm(&p("norm2"), d, &self.norm2)?;
        w.linear(&p("ffn.up"), f, d, &self.up)?;
        w.floats(
            &p("ffn.activation"),
            &[f, 2],
            self.activation.as_flattened(),
        )?;
        w.linear(&p("ffn.down"), d, f, &self.down)
    }
}

impl StateSpaceLayer {
    fn read(
        reader: &mut Reader<'_>,
        config: &StateSpaceConfig,
        prefix: &str,
        d: usize,
    ) -> Result<Self> {
        let m = config.state_size;
        let p = |name: &str| format!("{prefix}.{name}");
        let layer = Self {
            norm: reader.norm(&p("norm"), d)?,
            input: reader.linear(&p("input"), m, d)?,
            gate: reader.linear(&p("gate"), m, d)?,
            decay: reader.floats(&p("decay"), &[m])?,
            output: reader.linear(&p("output"), d, m)?,
        };
        check_decay(&p("decay"), &layer.decay)?;
        Ok(layer)
    }

    fn write(&self, w: &mut Writer, c: &StateSpaceConfig, prefix: &str, d: usize) -> Result<()> {
        let m = c.state_size;
        let p = |name: &str| format!("{prefix}.{name}");
        // What is written is rounded to f32, where a number just below 1 is 1.
        let rounded: Vec<f64> = self.decay.iter().map(|&a| f64::from(a as f32)).collect();
        check_decay(&p("decay"), &rounded)?;
        w.norm(&p("norm"), d, &self.norm)?;
        w.linear(&p("input"), m, d, &self.input)?;
        w.linear(&p("gate"), m, d, &self.gate)?;
        w.floats(&p("decay"), &[m], &self.decay)?;
        w.linear(&p("output"), d, m, &self.output)
    }
}

fn check_decay(name: &str, decay: &[f64]) -> Result<()> {
    let outside = |a: &f64| !(*a > 0.0 && *a < 1.0);
    match decay.iter().enumerate().find(|(_, a)| outside(a)) {
        Some((index, &a)) => Err(bad_value(name, index, a, "a number above 0 and below 1")),
        None => Ok(()),
    }
}
