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
    /// `x^2/8 + x/4 + 1/2` (Li et al., arXiv 2211.01452, section 4.1): a polynomial already.
    Quadratic,
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
            Self::Quadratic => {
                let [a, b, c] = Self::QUADRATIC;
                (a * x + b) * x + c
            }
        }
    }

    /// The coefficients of [`Activation::Quadratic`], that of the square first.
    pub const QUADRATIC: [f64; 3] = [0.125, 0.25, 0.5];
}

/// From the scores of a query to its attention weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionFunction {
    /// `e^(s_j) / sum_k e^(s_k)`.
    Softmax,
    /// `s_j^p / (epsilon + sum_k s_k^p)`: power-softmax with a Lipschitz division (Zimerman et al.,
    /// arXiv 2410.09457). Unlike softmax it changes when a number is added to all scores.
    PowerSoftmax {
        /// `p`: 2, 4, 6 or 8.
        power: u32,
        /// Above 0.
        epsilon: f64,
    },
}

impl AttentionFunction {
    /// Whether its parameters are within what they have to be.
    pub fn is_valid(self) -> bool {
        match self {
            Self::Softmax => true,
            Self::PowerSoftmax { power, epsilon } => {
                power.is_multiple_of(2)
                    && (2..=8).contains(&power)
                    && epsilon > 0.0
                    && epsilon.is_finite()
            }
        }
    }

    /// Scores to weights, in place.
    pub fn apply(self, scores: &mut [f64]) {
        let mut sum = 0.0;
        match self {
            Self::Softmax => {
                let top = largest(scores);
                for s in scores.iter_mut() {
                    *s = (*s - top).exp();
                    sum += *s;
                }
            }
            Self::PowerSoftmax { power, epsilon } => {
                for s in scores.iter_mut() {
                    *s = s.powi(power as i32);
                    sum += *s;
                }
                sum += epsilon;
            }
        }
        scores.iter_mut().for_each(|s| *s /= sum);
    }

    /// The logarithm of what the weights' numerators are divided by.
    pub fn log_sum(self, scores: &[f64]) -> f64 {
        match self {
            Self::Softmax => {
                let top = largest(scores);
                top + scores.iter().map(|s| (s - top).exp()).sum::<f64>().ln()
            }
            Self::PowerSoftmax { power, epsilon } => {
                let powers = scores.iter().map(|s| s.powi(power as i32));
                (epsilon + powers.sum::<f64>()).ln()
            }
        }
    }
}

fn largest(scores: &[f64]) -> f64 {
    scores.iter().copied().fold(f64::NEG_INFINITY, f64::max)
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
    /// Attention weights of one query from its (centred) scores, in place: the model's
    /// [`AttentionFunction`].
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
