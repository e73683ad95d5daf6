//! From the last layer's tokens to the answer.

use veilformer_circuits::CircuitError;
use veilformer_circuits::encoder::fold;
use veilformer_circuits::polynomial::EvaluationPlan;
use veilformer_ckks::{Ops, SlotVector};
use veilformer_ir::encoder::{Head, Pooling};

use super::machine::{Machine, Stage};
use super::maps::{Affine, Map};
use super::norm::{doublings, plan};
use super::{Inputs, Layout};
use crate::encoder::Substitution;
use crate::placement::Read;

const NAME: &str = "head of an encoder";

/// What is made of the tokens.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// The sum over all tokens, or the first token, of features.
    Embedding {
        /// Rotations that add up the tokens; none for the first one.
        sum: Vec<i64>,
        bias: Vec<SlotVector>,
        /// Whether it is the mean of all.
        mean: bool,
    },
    /// `classifier(tanh(pooler))` of the first token.
    Classifier(Box<Classifier>),
}

/// The maps of a classifier, and what is between them.
#[derive(Clone, Debug)]
pub(super) struct Classifier {
    pooler: Map,
    tanh: EvaluationPlan,
    classifier: Map,
    /// One where a logit stands: what is in other slots does not go back.
    mask: Vec<SlotVector>,
}

impl Answer {
    /// Of tokens that stand for `input`, the last normalization's results. `bound` is that of the
    /// answer.
    pub(super) fn new(
        layout: &Layout,
        (head, substitution): (&Head, &Substitution),
        input: &Affine,
        bound: f64,
    ) -> Result<Self, CircuitError> {
        match head {
            Head::Embedding { pooling, .. } => {
                let mean = *pooling == Pooling::Mean;
                let bias = input.bias.iter().map(|b| b / bound);
                let bias: Vec<f64> = bias.collect();
                let width = layout.heads.width;
                let bias = (0..layout.blocks(layout.hidden)).map(|block| {
                    let value = |t: usize, at: usize| {
                        let b = bias.get(block * width + at).copied().unwrap_or(0.0);
                        if mean || t == 0 { b } else { 0.0 }
                    };
                    layout.per_slot(value).simplified()
                });
                let bias = bias.collect();
                let tokens = if mean { layout.heads.tokens } else { 1 };
                let sum = doublings(tokens).into_iter().map(|t| t * width as i64);
                let sum = sum.collect();
                Ok(Self::Embedding { sum, bias, mean })
            }
            Head::Classifier {
                pooler,
                classifier,
                labels,
            } => {
                let none = || CircuitError::shape(NAME, "no polynomial in place of tanh");
                let tanh = substitution.tanh.as_ref().ok_or_else(none)?;
                let (low, high) = tanh.interval();
                let map = (2.0 / (high - low), -(low + high) / (high - low));
                let periods = layout.periods(layout.hidden);
                let mut pooler = Map::dense(layout, (pooler, &periods), input, map)?;
                for bias in &mut pooler.bias {
                    *bias = first_token(layout, bias);
                }
                let pooled = Affine::bounded(layout.hidden, 1.0);
                let scale = (1.0 / bound, 0.0);
                // Behind the features stands what the polynomial makes of 0.
                let full = vec![layout.heads.width; periods.len()];
                let mut classifier = Map::dense(layout, (classifier, &full), &pooled, scale)?;
                for bias in &mut classifier.bias {
                    *bias = first_token(layout, bias);
                }
                let width = layout.heads.width;
                let mask = (0..layout.blocks(labels.len())).map(|block| {
                    let stands = |t, at| t == 0 && block * width + at < labels.len();
                    layout.per_slot(|t, at| f64::from(u8::from(stands(t, at))))
                });
                let head = Classifier {
                    pooler,
                    tanh: plan(tanh)?,
                    classifier,
                    mask: mask.collect(),
                };
                Ok(Self::Classifier(Box::new(head)))
            }
        }
    }

    /// Whether it is the mean of all tokens.
    pub(super) fn is_mean(&self) -> bool {
        matches!(self, Self::Embedding { mean: true, .. })
    }

    /// The number of the results, from value 0 of a block. `spare` levels may lie below what a
    /// bootstrap takes, since none comes after it.
    pub(super) fn run<O: Ops>(
        &self,
        m: &mut Machine<'_, O>,
        (layer, spare): (usize, usize),
        masks: &Inputs<O::Ct>,
    ) -> Result<usize, CircuitError> {
        let read = [Read::first(0)];
        match self {
            Self::Embedding { sum, bias, mean } => {
                let stage = Stage {
                    spare,
                    ..Stage::new("embedding", &read, usize::from(*mean))
                };
                m.stage(&stage, |m, inputs| {
                    let mut out = Vec::with_capacity(bias.len());
                    for (block, (x, bias)) in inputs.iter().flatten().zip(bias).enumerate() {
                        let mut y = m.plus((layer, "answer", block), x, bias)?;
                        if let (true, Some(weights)) = (*mean, &masks.mean) {
                            y = m.mul(&y, weights)?;
                            y = fold(m.ops, &y, sum)?;
                        }
                        out.push(y);
                    }
                    Ok(out)
                })
            }
            Self::Classifier(head) => {
                let Classifier {
                    pooler,
                    tanh,
                    classifier,
                    mask,
                } = head.as_ref();
                let pooled = m.stage(&Stage::new("pooler", &read, 1), |m, inputs| {
                    m.product((layer, "pooler", 0), pooler, &inputs.concat())
                })?;
                let read = [Read::first(pooled)];
                let stage = Stage {
                    spare: spare.saturating_sub(2).min(tanh.depth()),
                    bound: f64::INFINITY,
                    ..Stage::new("tanh", &read, tanh.depth())
                };
                let active = m.stage(&stage, |m, inputs| {
                    let blocks = inputs.iter().flatten();
                    let blocks = blocks.map(|block| m.evaluate(block, tanh));
                    blocks.collect()
                })?;
                let read = [Read::first(active)];
                let stage = Stage {
                    spare,
                    ..Stage::new("classifier", &read, 2)
                };
                m.stage(&stage, |m, inputs| {
                    let site = (layer, "classifier", 0);
                    let logits = m.product(site, classifier, &inputs.concat())?;
                    let masked = logits.iter().zip(mask).enumerate();
                    let masked = masked.map(|(block, (ct, mask))| {
                        m.times((layer, "mask of logits", block), ct, mask)
                    });
                    masked.collect()
                })
            }
        }
    }
}

/// The vector in the slots of the first token, zero in the others.
fn first_token(layout: &Layout, slots: &SlotVector) -> SlotVector {
    layout
        .per_slot(|t, at| if t == 0 { slots.at(at).re } else { 0.0 })
        .simplified()
}
