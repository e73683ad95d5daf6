//! Shapes and weights of an encoder.

use serde::{Deserialize, Serialize};

use super::{Activation, AttentionFunction};
use crate::{IrError, Matrix};

/// An affine map `y = W x + b`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    /// outputs x inputs.
    pub weight: Matrix,
    /// One value per output.
    pub bias: Vec<f64>,
}

/// `y = (x - mean) / sqrt(variance + eps) * weight + bias` over the features of a token (Ba et
/// al., arXiv 1607.06450, equation 4; the variance divides by the number of features).
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    /// Gain, one value per feature.
    pub weight: Vec<f64>,
    /// Offset, one value per feature.
    pub bias: Vec<f64>,
}

/// From tokens to vectors, which is the client's part: `norm(token + position)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// `vocab_size * hidden` values, row after row, as 32-bit numbers: it is the largest tensor.
    pub tokens: Vec<f32>,
    /// `positions x hidden`; the first token type's row is added to every one of them.
    pub positions: Matrix,
    /// Applied to the sum.
    pub norm: LayerNorm,
}

/// What is taken from all scores of a query, in one head: softmax does not change by it, and its
/// sums of exponentials come to lie closer together.
///
/// `c_i = q_i.key + previous s_(i,i-1) + own s_(i,i) + next s_(i,i+1)`, where `s_(i,j)` are the
/// scores and a neighbour beyond an end of the sentence has the key of an input of zeros.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Centering {
    /// head_dim values, without the scores' factor: with no other part than this it is the same as
    /// a change of the keys' bias.
    pub key: Vec<f64>,
    /// Multiple of the score with the previous token; only in the first layer, where the key beyond
    /// an end is known.
    pub previous: f64,
    /// Multiple of the score with the token itself.
    pub own: f64,
    /// Multiple of the score with the next token; only in the first layer.
    pub next: f64,
}

/// One layer; a head's features stand together (feature = head * head_dim + i).
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderLayer {
    /// hidden x hidden.
    pub query: Dense,
    /// hidden x hidden.
    pub key: Dense,
    /// hidden x hidden.
    pub value: Dense,
    /// Per head; none in a model as it was trained, and none with another function than softmax.
    pub centering: Option<Vec<Centering>>,
    /// hidden x hidden, from the heads' results.
    pub output: Dense,
    /// After the sum of attention and the layer's input.
    pub attention_norm: LayerNorm,
    /// intermediate x hidden.
    pub up: Dense,
    /// hidden x intermediate.
    pub down: Dense,
    /// After the sum of the feed-forward part and its input.
    pub output_norm: LayerNorm,
}

/// Which tokens an embedding comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean of all tokens, the special ones included.
    Mean,
    /// The first token.
    First,
}

/// What is made of the last layer's tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// A sentence embedding. Normalization to length 1 is the client's part: it divides by what it
    /// decrypts.
    Embedding {
        /// Which tokens.
        pooling: Pooling,
        /// Whether the client divides by the length of the vector.
        normalize: bool,
    },
    /// `classifier(tanh(pooler(first token)))`.
    Classifier {
        /// hidden x hidden.
        pooler: Dense,
        /// labels x hidden.
        classifier: Dense,
        /// Name of each label.
        labels: Vec<String>,
    },
}

/// An encoder as it was trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoder {
    /// Attention heads of every layer.
    pub heads: usize,
    /// From scores to attention weights.
    pub attention: AttentionFunction,
    /// Between the two maps of the feed-forward part.
    pub activation: Activation,
    /// Added to every variance.
    pub layer_norm_eps: f64,
    /// The client's part.
    pub embeddings: Embeddings,
    /// The layers.
    pub layers: Vec<EncoderLayer>,
    /// What is made of the last layer's tokens.
    pub head: Head,
}

impl Encoder {
    /// Features of a token.
    pub fn hidden(&self) -> usize {
        self.embeddings.norm.weight.len()
    }

    /// Features of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden().checked_div(self.heads).unwrap_or(0)
    }

    /// Features between the two maps of the feed-forward part.
    pub fn intermediate(&self) -> usize {
        self.layers
            .first()
            .map_or(0, |layer| layer.up.weight.rows())
    }

    /// Most tokens of a sentence.
    pub fn max_tokens(&self) -> usize {
        self.embeddings.positions.rows()
    }

    /// Values of the answer: labels, or features of the embedding.
    pub fn outputs(&self) -> usize {
        match &self.head {
            Head::Embedding { .. } => self.hidden(),
            Head::Classifier { classifier, .. } => classifier.weight.rows(),
        }
    }

    /// Checks that all shapes fit each other and all weights are finite: what passes can be run.
    ///
    /// # Errors
    /// Names the first part that does not fit.
    pub fn verify(&self) -> Result<(), IrError> {
        let wrong = |part: String| Err(IrError::Encoder(part));
        let (d, f) = (self.hidden(), self.intermediate());
        let finite = |values: &[f64]| values.iter().all(|v| v.is_finite());
        if d == 0 || f == 0 || self.heads == 0 || !d.is_multiple_of(self.heads) {
            return wrong(format!(
                "{} heads of {d} features with {f} between the feed-forward maps; \
                 expected at least one of each, and heads that divide the features",
                self.heads
            ));
        }
        if !(self.layer_norm_eps >= 0.0 && self.layer_norm_eps <= 1.0) {
            return wrong(format!(
                "layer_norm_eps is {}, expected 0 to 1",
                self.layer_norm_eps
            ));
        }
        if !self.attention.is_valid() {
            return wrong(format!(
                "{:?}; an even power from 2 to 8 and an epsilon above 0 are expected",
                self.attention
            ));
        }
        let e = &self.embeddings;
        if e.vocab_size.checked_mul(d) != Some(e.tokens.len())
            || e.tokens.is_empty()
            || !e.tokens.iter().all(|v| v.is_finite())
        {
            return wrong("the token table is empty, misshapen or not finite".into());
        }
        if e.positions.rows() == 0 || e.positions.cols() != d || !e.positions.is_finite() {
            return wrong("the position table is empty, misshapen or not finite".into());
        }
        let mut norms = vec![("embeddings".to_owned(), &e.norm)];
        let mut maps = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            if let Some(centering) = &layer.centering {
                let fits = |c: &Centering| {
                    let neighbours = c.previous != 0.0 || c.next != 0.0;
                    c.key.len() == d / self.heads
                        && finite(&c.key)
                        && finite(&[c.previous, c.own, c.next])
                        && !(neighbours && i > 0)
                };
                let softmax = self.attention == AttentionFunction::Softmax;
                if !softmax || centering.len() != self.heads || !centering.iter().all(fits) {
                    return wrong(format!(
                        "layer {i}: a centering that does not fit its heads, or no softmax"
                    ));
                }
            }
            norms.push((format!("layer {i}, after attention"), &layer.attention_norm));
            norms.push((format!("layer {i}, last"), &layer.output_norm));
            for (part, map, rows, cols) in [
                ("query", &layer.query, d, d),
                ("key", &layer.key, d, d),
                ("value", &layer.value, d, d),
                ("output", &layer.output, d, d),
                ("up", &layer.up, f, d),
                ("down", &layer.down, d, f),
            ] {
                maps.push((format!("layer {i}, {part}"), map, rows, cols));
            }
        }
        if let Head::Classifier {
            pooler,
            classifier,
            labels,
        } = &self.head
        {
            if labels.is_empty() {
                return wrong("a classifier without labels".into());
            }
            maps.push(("pooler".into(), pooler, d, d));
            maps.push(("classifier".into(), classifier, labels.len(), d));
        }
        for (name, norm) in norms {
            if norm.weight.len() != d || norm.bias.len() != d {
                return wrong(format!("normalization of {name}: expected {d} features"));
            }
            if !finite(&norm.weight) || !finite(&norm.bias) {
                return wrong(format!("normalization of {name}: a weight is not finite"));
            }
        }
        for (name, map, rows, cols) in maps {
            let found = (map.weight.rows(), map.weight.cols(), map.bias.len());
            if found != (rows, cols, rows) {
                return wrong(format!(
                    "{name}: a map of {found:?} (outputs, inputs, biases), \
                     expected {rows}, {cols}, {rows}"
                ));
            }
            if !map.weight.is_finite() || !finite(&map.bias) {
                return wrong(format!("{name}: a weight is not finite"));
            }
        }
        Ok(())
    }
}
