//! From scores to attention weights.

use veilformer_circuits::CircuitError;
use veilformer_circuits::encoder::power;
use veilformer_circuits::polynomial::EvaluationPlan;
use veilformer_ckks::Ops;

use super::machine::Machine;
use super::norm::plan;
use crate::encoder::Weights;

/// What is computed of scores that come mapped to [-1, 1].
#[derive(Clone, Debug)]
pub(super) enum Weighing {
    /// A polynomial, squared some times.
    Exponential(EvaluationPlan, usize),
    /// This power.
    Power(u32),
}

/// How scores of one layer are mapped to [-1, 1].
#[derive(Clone, Debug)]
pub(super) struct ScoreMap {
    /// What the queries of each head are divided by.
    pub queries: Vec<f64>,
    /// What all products of queries and keys are multiplied with.
    pub scale: f64,
    /// Added to the scores of each head then.
    pub offsets: Vec<f64>,
}

impl ScoreMap {
    /// For queries of which no head's exceeds its bound, and keys that were divided by theirs;
    /// `factor` is that of the scores.
    pub(super) fn new(weights: &Weights, (queries, keys): (&[f64], f64), factor: f64) -> Self {
        let largest = |all: &mut dyn Iterator<Item = f64>| all.fold(f64::MIN_POSITIVE, f64::max);
        match weights {
            Weights::Exponential { shifts, .. } => {
                let (low, high) = weights.interval();
                let bound = largest(&mut queries.iter().copied());
                let offset = |shift: &f64| (-2.0 * shift - low - high) / (high - low);
                Self {
                    queries: vec![bound; queries.len()],
                    scale: factor * bound * keys * 2.0 / (high - low),
                    offsets: shifts.iter().map(offset).collect(),
                }
            }
            // Another factor for each head: in its queries, of which none exceeds 1 then.
            Weights::Power { scales, .. } => {
                let products = queries.iter().zip(scales);
                let scale = largest(&mut products.map(|(q, scale)| factor * q * keys / scale));
                let divisor = |own: &f64| scale * own / (factor * keys);
                Self {
                    queries: scales.iter().map(divisor).collect(),
                    scale,
                    offsets: vec![0.0; scales.len()],
                }
            }
        }
    }
}

impl Weighing {
    /// # Errors
    /// A polynomial that cannot be planned.
    pub(super) fn new(weights: &Weights) -> Result<Self, CircuitError> {
        Ok(match weights {
            Weights::Exponential { exponential, .. } => {
                Self::Exponential(plan(exponential.polynomial())?, exponential.squarings())
            }
            Weights::Power { power, .. } => Self::Power(*power),
        })
    }

    /// The name of its stage.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Exponential(..) => "exponential",
            Self::Power(_) => "power",
        }
    }

    /// Of real scores.
    pub(super) fn apply<O: Ops>(
        &self,
        m: &mut Machine<'_, O>,
        x: &O::Ct,
    ) -> Result<O::Ct, CircuitError> {
        match self {
            Self::Exponential(polynomial, squarings) => {
                let mut value = m.evaluate(x, polynomial)?;
                for _ in 0..*squarings {
                    value = m.ops.square(&value)?;
                }
                Ok(value)
            }
            Self::Power(exponent) => {
                m.promise(x, 1.0);
                power(m.ops, x, *exponent)
            }
        }
    }
}
