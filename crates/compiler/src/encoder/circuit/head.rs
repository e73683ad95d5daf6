//! From the last layer's tokens to the answer.

use veilformer_circuits::CircuitError;
use veilformer_circuits::polynomial::{EvaluationPlan, evaluate};
use veilformer_ckks::{Complex, Ops, SlotVector};
use veilformer_ir::encoder::{Head, Pooling};

use super::machine::{Machine, Stage};
use super::maps::{Affine, Map};
use super::norm::{doublings, one, plan};
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
}

/// How an answer is read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reading {
    pub features: usize,
    /// What slots were divided by.
    pub bound: f64,
    /// Whether it is a sum over the tokens.
    pub mean: bool,
}

impl Answer {
    /// Of tokens that stand for `input`, the last normalization's results. `bound` is that of the
    /// answer.
    pub(super) fn new(
        layout: &Layout,
        (head, substitution): (&Head, &Substitution),
        input: &Affine,
        bound: f64,
    ) -> Result<(Self, Reading), CircuitError> {
        let read = |features, mean| Reading {
            features,
            bound,
            mean,
        };
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
                Ok((Self::Embedding { sum, bias }, read(layout.hidden, mean)))
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
                let mut pooler = Map::dense(layout, pooler, input, map)?;
                for bias in &mut pooler.bias {
                    *bias = first_token(layout, bias);
                }
                let pooled = Affine::bounded(layout.hidden, 1.0);
                let scale = (1.0 / bound, 0.0);
                let mut classifier = Map::dense(layout, classifier, &pooled, scale)?;
                for bias in &mut classifier.bias {
                    *bias = first_token(layout, bias);
                }
                let head = Classifier {
                    pooler,
                    tanh: plan(tanh)?,
                    classifier,
                };
                let head = Self::Classifier(Box::new(head));
                Ok((head, read(labels.len(), false)))
            }
        }
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
            Self::Embedding { sum, bias } => {
                let stage = Stage {
                    spare,
                    bound: f64::INFINITY,
                    ..Stage::new("embedding", &read, usize::from(!sum.is_empty()))
                };
                m.stage(&stage, |m, inputs| {
                    let mut out = Vec::with_capacity(bias.len());
                    for (block, (x, bias)) in inputs.iter().flatten().zip(bias).enumerate() {
                        let mut y = m.plus((layer, "answer", block), x, bias)?;
                        if !sum.is_empty() {
                            y = m.mul(&y, &masks.tokens)?;
                            y = m.fold(&y, sum)?;
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
                } = head.as_ref();
                let pooled = m.stage(&Stage::new("pooler", &read, 1), |m, inputs| {
                    let map = (&pooler.product, &pooler.bias[..]);
                    m.product((layer, "pooler", 0), map, &inputs.concat())
                })?;
                let read = [Read::first(pooled)];
                let stage = Stage {
                    spare: spare.saturating_sub(1).min(tanh.depth()),
                    bound: f64::INFINITY,
                    ..Stage::new("tanh", &read, tanh.depth())
                };
                let active = m.stage(&stage, |m, inputs| {
                    let blocks = inputs.iter().flatten();
                    let blocks = blocks.map(|block| one(evaluate(m.ops, block, tanh)?));
                    blocks.collect()
                })?;
                let read = [Read::first(active)];
                let stage = Stage {
                    spare,
                    bound: f64::INFINITY,
                    ..Stage::new("classifier", &read, 1)
                };
                m.stage(&stage, |m, inputs| {
                    let map = (&classifier.product, &classifier.bias[..]);
                    m.product((layer, "classifier", 0), map, &inputs.concat())
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

impl Reading {
    /// The answer in the slots of the results, for a sentence of so many tokens.
    pub(super) fn read(&self, width: usize, slots: &[Vec<Complex>], tokens: usize) -> Vec<f64> {
        let factor = if self.mean {
            self.bound / tokens.max(1) as f64
        } else {
            self.bound
        };
        let at = |feature: usize| {
            let block = slots.get(feature / width.max(1));
            block.and_then(|block| block.get(feature % width.max(1)))
        };
        let features = 0..self.features;
        features
            .map(|feature| at(feature).map_or(0.0, |z| z.re * factor))
            .collect()
    }
}
