//! What a recipe says of one family of models only.

use serde::{Deserialize, Serialize};
use veilformer_models::Pooling;
use veilformer_models::config::{Family, StateSpaceConfig, TransformerConfig};

/// The family of a model: the table `[family.transformer]` or `[family.state-space]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FamilyRecipe {
    /// A polynomial transformer.
    Transformer(TransformerRecipe),
    /// A public-decay state-space classifier.
    StateSpace(StateSpaceRecipe),
}

/// A polynomial transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerRecipe {
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Channels of the feed-forward block.
    pub intermediate_size: usize,
    /// Initial values.
    pub init: TransformerInit,
    /// Limits of the range terms.
    pub limits: TransformerLimits,
}

/// Initial values of a transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerInit {
    /// Standard deviation of the position table's random part.
    pub position: f64,
    /// Amplitude of a sinusoidal part of the position table (Vaswani et al. 2017, section 3.5).
    pub sinusoid: f64,
    /// Standard deviation of q and k around their constant part.
    pub score: f64,
    /// Standard deviation of the attention block's output.
    pub attention_output: f64,
    /// Gain of the feed-forward block's second matrix.
    pub ffn_output: f64,
}

/// Limits of a transformer's range terms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerLimits {
    /// Limit of the scores S, around their middle.
    pub scores: f64,
    /// Middle of the scores S.
    pub scores_middle: f64,
    /// Limit of q, k and v.
    pub projections: f64,
    /// Limit of the attention output o.
    pub attention: f64,
    /// Limit of the activation's inputs u.
    pub activation: f64,
}

/// A public-decay state-space classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSpaceRecipe {
    /// Channels of the state.
    pub state_size: usize,
    /// How token vectors become one sentence vector.
    pub pooling: Pooling,
    /// Initial values.
    pub init: StateSpaceInit,
    /// Limits of the range terms.
    pub limits: StateSpaceLimits,
}

/// Initial values of a state-space classifier. The time constant of a decay `a` is
/// `-1 / ln(a)`: the number of tokens after which `1 / e` of what was written is left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSpaceInit {
    /// Standard deviation of the gates g around 1.
    pub gate: f64,
    /// Gain of the output matrix C.
    pub output: f64,
    /// Shortest time constant, in tokens.
    pub shortest: f64,
    /// Longest time constant, in tokens; those between are spread evenly in their logarithm.
    pub longest: f64,
}

/// Limits of a state-space classifier's range terms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSpaceLimits {
    /// Limit of the two factors u and g.
    pub factors: f64,
    /// Limit of the state s.
    pub state: f64,
}

impl FamilyRecipe {
    /// The family in a model's configuration.
    pub fn config(&self) -> Family {
        match self {
            Self::Transformer(t) => Family::Transformer(TransformerConfig {
                num_attention_heads: t.num_attention_heads,
                head_dim: t.head_dim,
                intermediate_size: t.intermediate_size,
            }),
            Self::StateSpace(s) => Family::StateSpace(StateSpaceConfig {
                state_size: s.state_size,
                pooling: s.pooling,
            }),
        }
    }

    /// All values that are sizes of something, with their names.
    pub(crate) fn sizes(&self) -> Vec<(&'static str, f64)> {
        match self {
            Self::Transformer(t) => {
                let (init, limits) = (&t.init, &t.limits);
                vec![
                    ("family.transformer.init.position", init.position),
                    ("family.transformer.init.sinusoid", init.sinusoid),
                    ("family.transformer.init.score", init.score),
                    (
                        "family.transformer.init.attention_output",
                        init.attention_output,
                    ),
                    ("family.transformer.init.ffn_output", init.ffn_output),
                    ("family.transformer.limits.scores", limits.scores),
                    (
                        "family.transformer.limits.scores_middle",
                        limits.scores_middle,
                    ),
                    ("family.transformer.limits.projections", limits.projections),
                    ("family.transformer.limits.attention", limits.attention),
                    ("family.transformer.limits.activation", limits.activation),
                ]
            }
            Self::StateSpace(s) => vec![
                ("family.state-space.init.gate", s.init.gate),
                ("family.state-space.init.output", s.init.output),
                ("family.state-space.init.shortest", s.init.shortest),
                ("family.state-space.init.longest", s.init.longest),
                ("family.state-space.limits.factors", s.limits.factors),
                ("family.state-space.limits.state", s.limits.state),
            ],
        }
    }

    /// Checks what [`FamilyRecipe::sizes`] leaves open; the error is a sentence.
    pub(crate) fn validate(&self) -> std::result::Result<(), String> {
        match self {
            Self::Transformer(_) => Ok(()),
            Self::StateSpace(s) if s.init.shortest >= 0.1 && s.init.longest >= s.init.shortest => {
                Ok(())
            }
            Self::StateSpace(s) => Err(format!(
                "time constants from {} to {} tokens, expected a shortest of at least 0.1 and a \
                 longest that is not below it",
                s.init.shortest, s.init.longest
            )),
        }
    }
}
