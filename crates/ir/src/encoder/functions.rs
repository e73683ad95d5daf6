//! The non-linear functions of an encoder, and where each stands.

use serde::{Deserialize, Serialize};

/// Between the two maps of a feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x Phi(x)`, `Phi` the normal distribution (Hendrycks & Gimpel, arXiv 1606.08415).
    Gelu,
    /// The same paper's approximation, `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// The function's value.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Self::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Self::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }
            Self::Relu => x.max(0.0),
        }
    }
}

/// Which of the two normalizations of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SublayerNorm {
    /// After attention.
    Attention,
    /// After the feed-forward part.
    Output,
}

/// Whether a token is the sentence's first.
///
/// The first one is the special token `[CLS]`: its position is public, and its values are often of
/// another size than all others' (so in all-MiniLM-L6-v2, where its variance is up to 300 times
/// theirs), so that it has ranges and constants of its own at no cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenClass {
    /// Position 0.
    First,
    /// Every other position.
    Other,
}

impl TokenClass {
    /// The class of the token at `position`.
    pub fn of(position: usize) -> Self {
        if position == 0 {
            Self::First
        } else {
            Self::Other
        }
    }
}

/// A normalization of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormSite {
    /// The layer.
    pub layer: usize,
    /// Which of its two.
    pub norm: SublayerNorm,
    /// Which token.
    pub token: TokenClass,
}

/// A softmax of one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadSite {
    /// The layer.
    pub layer: usize,
    /// The head.
    pub head: usize,
    /// Position of the token that asks.
    pub position: usize,
}

/// A value with one row of features per token that no function of [`Functions`] sees as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueSite {
    /// The input of the first layer.
    Input,
    /// Queries of a layer, without the scores' factor.
    Query(usize),
    /// Keys of a layer.
    Key(usize),
    /// Values of a layer.
    Value(usize),
    /// What a layer's heads give, before the output map.
    Context(usize),
    /// Attention and the layer's input, summed.
    AttentionSum(usize),
    /// That, normalized.
    AttentionOutput(usize),
    /// The feed-forward part and its input, summed.
    FeedForwardSum(usize),
    /// That, normalized: the layer's output.
    Output(usize),
    /// The answer: logits, or the embedding before it is normalized (one row).
    Answer,
}

/// The non-linear functions of an encoder, as an execution calls them.
///
/// They are exact, or recorded, or polynomials. One value of the type goes through one sentence.
pub trait Functions {
    /// Attention weights of one query from its (centred) scores, in place:
    /// `e^(s_j) / sum_k e^(s_k)`.
    fn softmax(&mut self, at: HeadSite, scores: &mut [f64]);
    /// `1 / sqrt(x)` for the sum `x` of variance and eps.
    fn inverse_root(&mut self, at: NormSite, x: f64) -> f64;
    /// The activation of a layer, in place, on one token's features.
    fn activation(&mut self, layer: usize, token: TokenClass, features: &mut [f64]);
    /// The pooler's hyperbolic tangent, in place.
    fn tanh(&mut self, features: &mut [f64]);
    /// Sees a value that passes; nothing by default.
    fn observe(&mut self, site: ValueSite, token: TokenClass, features: &[f64]) {
        let _ = (site, token, features);
    }
}
