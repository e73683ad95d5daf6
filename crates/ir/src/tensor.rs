//! The tensor program: what a model computes, on named axes, polynomial throughout.
//!
//! Every value is a table `tokens x features` (one row per token of the sentence, `n` rows of
//! at most [`TensorProgram::max_tokens`]) or, after pooling, one row of features. All the
//! operations act on real tokens only; how a padded execution keeps padding out is the
//! compiler's business, not the model's.

use crate::{IrError, Matrix};
use std::fmt::Write as _;

/// A value of a tensor program: the index of the operation that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorId(pub usize);

/// One operation. Features are counted per token.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorOp {
    /// The client's token features, `n x features`, each bounded by `bound` in absolute value.
    Input {
        /// Features per token.
        features: usize,
        /// Per feature: the largest absolute value that any token at any position can have.
        bound: Vec<f64>,
    },
    /// `W x + b` for every token; `W` is `out x in`.
    Linear {
        /// The operand.
        x: TensorId,
        /// `out x in`.
        weight: Matrix,
        /// `out` entries.
        bias: Vec<f64>,
    },
    /// `scale . x + shift` feature by feature: a normalization at inference.
    Affine {
        /// The operand.
        x: TensorId,
        /// Per feature.
        scale: Vec<f64>,
        /// Per feature.
        shift: Vec<f64>,
    },
    /// `x + y`.
    Add {
        /// One operand.
        x: TensorId,
        /// The other, of the same shape.
        y: TensorId,
    },
    /// Power attention with length scaling (Zimerman et al., arXiv 2311.08610, section 3, with
    /// the pointwise activation `s^2`): per head `o_t = sum_u (q_t.k_u * score_scale)^2 v_u / n`
    /// over all the `n` tokens `u`. Features are ordered `head * head_dim + i`.
    PowerAttention {
        /// Queries, `heads * head_dim` features.
        query: TensorId,
        /// Keys, likewise.
        key: TensorId,
        /// Values, likewise.
        value: TensorId,
        /// Number of heads.
        heads: usize,
        /// Factor on `q.k` before the power, usually `1/sqrt(head_dim)`.
        score_scale: f64,
    },
    /// Channel by channel `c[0] + c[1] x + c[2] x^2`.
    Quadratic {
        /// The operand.
        x: TensorId,
        /// Per feature the coefficients of `1, x, x^2`.
        coefficients: Vec<[f64; 3]>,
    },
    /// `x . y`, feature by feature.
    Product {
        /// One factor.
        x: TensorId,
        /// The other, of the same shape.
        y: TensorId,
    },
    /// `s_t = decay . s_(t-1) + x_t` over the tokens in their order, feature by feature, from
    /// `s_(-1) = 0`. The decay is public and the same at every token, so that this is a linear
    /// map (public-decay state-space models, arXiv 2605.16647).
    Recurrence {
        /// What is written into the state.
        x: TensorId,
        /// Per feature the part of the state that a token leaves, in `[0, 1]`.
        decay: Vec<f64>,
    },
    /// Mean over the sentence's tokens: one row.
    MeanPool {
        /// The operand.
        x: TensorId,
    },
    /// The sentence's last token: one row.
    LastToken {
        /// The operand.
        x: TensorId,
    },
}

/// Shape of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// True for one row per token, false for a pooled row.
    pub per_token: bool,
    /// Features per row.
    pub features: usize,
}

/// A model as a straight-line program; the last value is the answer (one logit per label).
#[derive(Clone, Debug, PartialEq)]
pub struct TensorProgram {
    /// What the model calls itself.
    pub name: String,
    /// Longest sentence, in tokens.
    pub max_tokens: usize,
    /// The operations; an operand precedes its use.
    pub ops: Vec<TensorOp>,
    /// Label names, in the order of the logits.
    pub labels: Vec<String>,
}

impl TensorProgram {
    /// Appends an operation and returns its value.
    pub fn push(&mut self, op: TensorOp) -> TensorId {
        self.ops.push(op);
        TensorId(self.ops.len() - 1)
    }

    /// Checks every operand, shape and weight, and returns the shape of each value.
    ///
    /// # Errors
    /// [`IrError::Tensor`] names the first operation that does not fit and why.
    pub fn verify(&self) -> Result<Vec<Shape>, IrError> {
        let mut shapes: Vec<Shape> = Vec::with_capacity(self.ops.len());
        for (i, op) in self.ops.iter().enumerate() {
            let shape = check(op, &shapes).map_err(|why| IrError::Tensor { index: i, why })?;
            if matches!(op, TensorOp::Input { .. }) && i != 0 {
                let why = "the input must be the first operation, and the only input".into();
                return Err(IrError::Tensor { index: i, why });
            }
            shapes.push(shape);
        }
        let last = self.ops.len().saturating_sub(1);
        match shapes.last() {
            Some(s) if !s.per_token && s.features == self.labels.len() => {}
            Some(s) => {
                let why = format!(
                    "the answer must be one pooled row with a logit per label ({} labels), found {} features{}",
                    self.labels.len(),
                    s.features,
                    if s.per_token { " per token" } else { "" }
                );
                return Err(IrError::Tensor { index: last, why });
            }
            None => {
                return Err(IrError::Tensor {
                    index: 0,
                    why: "the program is empty".into(),
                });
            }
        }
        if self.max_tokens == 0 {
            let why = "max_tokens is 0: a sentence has at least one token".into();
            return Err(IrError::Tensor { index: 0, why });
        }
        Ok(shapes)
    }

    /// The program as text, one line per operation.
    pub fn print(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "tensor program \"{}\", at most {} tokens",
            self.name, self.max_tokens
        );
        let shapes = self.verify().unwrap_or_default();
        for (i, op) in self.ops.iter().enumerate() {
            let shape = shapes.get(i).map_or(String::new(), |s| {
                format!(
                    "{}{}",
                    if s.per_token { "token x " } else { "" },
                    s.features
                )
            });
            let text = match op {
                TensorOp::Input { bound, .. } => {
                    format!(
                        "input, |x| <= {:.3}",
                        bound.iter().fold(0.0, |a: f64, b| a.max(*b))
                    )
                }
                TensorOp::Linear { x, weight, .. } => {
                    format!("linear %{} by {}x{}", x.0, weight.rows(), weight.cols())
                }
                TensorOp::Affine { x, .. } => format!("affine %{} (normalization)", x.0),
                TensorOp::Add { x, y } => format!("add %{} %{}", x.0, y.0),
                TensorOp::PowerAttention {
                    query,
                    key,
                    value,
                    heads,
                    ..
                } => format!(
                    "power attention q=%{} k=%{} v=%{}, {heads} heads, (q.k)^2 / n",
                    query.0, key.0, value.0
                ),
                TensorOp::Quadratic { x, .. } => format!("quadratic activation %{}", x.0),
                TensorOp::Product { x, y } => format!("product %{} %{}", x.0, y.0),
                TensorOp::Recurrence { x, decay } => format!(
                    "recurrence %{}, public decay {:.3} to {:.3}",
                    x.0,
                    decay.iter().copied().fold(f64::INFINITY, f64::min),
                    decay.iter().copied().fold(0.0, f64::max)
                ),
                TensorOp::MeanPool { x } => format!("mean over tokens %{}", x.0),
                TensorOp::LastToken { x } => format!("last token %{}", x.0),
            };
            let _ = writeln!(out, "  %{i}: {shape} = {text}");
        }
        let _ = writeln!(out, "  answer: {}", self.labels.join(", "));
        out
    }
}

fn check(op: &TensorOp, shapes: &[Shape]) -> Result<Shape, String> {
    let shape = |id: &TensorId| {
        shapes
            .get(id.0)
            .copied()
            .ok_or_else(|| format!("operand %{} is not made before its use", id.0))
    };
    let token = |id: &TensorId| {
        let s = shape(id)?;
        if s.per_token {
            Ok(s)
        } else {
            Err(format!(
                "operand %{} is pooled, a value per token is expected",
                id.0
            ))
        }
    };
    let finite = |what: &str, xs: &[f64]| {
        if xs.iter().all(|x| x.is_finite()) {
            Ok(())
        } else {
            Err(format!("{what} holds a value that is not finite"))
        }
    };
    match op {
        TensorOp::Input { features, bound } => {
            if bound.len() != *features || *features == 0 {
                return Err(format!("{features} features with {} bounds", bound.len()));
            }
            finite("the bound", bound)?;
            Ok(Shape {
                per_token: true,
                features: *features,
            })
        }
        TensorOp::Linear { x, weight, bias } => {
            let s = shape(x)?;
            if weight.cols() != s.features || weight.rows() != bias.len() || bias.is_empty() {
                return Err(format!(
                    "a weight of {}x{} and {} biases on {} features",
                    weight.rows(),
                    weight.cols(),
                    bias.len(),
                    s.features
                ));
            }
            finite("the weight", weight.data())?;
            finite("the bias", bias)?;
            Ok(Shape {
                per_token: s.per_token,
                features: weight.rows(),
            })
        }
        TensorOp::Affine { x, scale, shift } => {
            let s = shape(x)?;
            if scale.len() != s.features || shift.len() != s.features {
                return Err(format!(
                    "{} scales, {} shifts on {} features",
                    scale.len(),
                    shift.len(),
                    s.features
                ));
            }
            finite("the scale", scale)?;
            finite("the shift", shift)?;
            Ok(s)
        }
        TensorOp::Add { x, y } => {
            let (a, b) = (shape(x)?, shape(y)?);
            if a == b {
                Ok(a)
            } else {
                Err("operands of different shapes".into())
            }
        }
        TensorOp::PowerAttention {
            query,
            key,
            value,
            heads,
            score_scale,
        } => {
            let (q, k, v) = (token(query)?, token(key)?, token(value)?);
            if q != k || q != v || *heads == 0 || q.features % heads != 0 {
                return Err(format!(
                    "queries, keys, values of {}, {}, {} features for {heads} heads",
                    q.features, k.features, v.features
                ));
            }
            finite("the score scale", &[*score_scale])?;
            Ok(q)
        }
        TensorOp::Quadratic { x, coefficients } => {
            let s = token(x)?;
            if coefficients.len() != s.features {
                return Err(format!(
                    "{} coefficient rows on {} features",
                    coefficients.len(),
                    s.features
                ));
            }
            finite("a coefficient", &coefficients.concat())?;
            Ok(s)
        }
        TensorOp::Product { x, y } => {
            let (a, b) = (token(x)?, token(y)?);
            if a == b {
                Ok(a)
            } else {
                Err(format!(
                    "factors of {} and {} features",
                    a.features, b.features
                ))
            }
        }
        TensorOp::Recurrence { x, decay } => {
            let s = token(x)?;
            if decay.len() != s.features {
                return Err(format!("{} decays on {} features", decay.len(), s.features));
            }
            match decay.iter().find(|a| !(0.0..=1.0).contains(*a)) {
                Some(a) => Err(format!("a decay of {a}, between 0 and 1 is expected")),
                None => Ok(s),
            }
        }
        TensorOp::MeanPool { x } | TensorOp::LastToken { x } => Ok(Shape {
            per_token: false,
            features: token(x)?.features,
        }),
    }
}
