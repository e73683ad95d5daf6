//! From the scores of a head to attention weights, before these are divided by their sum.

use serde::{Deserialize, Serialize};
use veilformer_circuits::polynomial::PolynomialError;
use veilformer_ir::encoder::{AttentionFunction, Histogram, LayerRanges, Range};

use super::{Budget, Exponential, Inverse};

/// Added to the upper end of the logarithms of sums, beside their margin: a range may be narrow
/// because calibration saw little.
const SUM_HEADROOM: f64 = 0.25;

/// Weights of scores, such that no head's sum exceeds 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Weights {
    /// `e^(s - shift)`, nearly.
    Exponential {
        /// Taken from each head's scores.
        shifts: Vec<f64>,
        /// For all heads.
        exponential: Exponential,
    },
    /// `(s / scale)^power`, exactly, with `epsilon / scale^power` added to their sum.
    Power {
        /// 2, 4, 6 or 8.
        power: u32,
        /// Above 0.
        epsilon: f64,
        /// What each head's scores are divided by: no score exceeds it.
        scales: Vec<f64>,
    },
}

/// What takes the place of a layer's attention function.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attention {
    pub weights: Weights,
    /// Of each head's sums, all of one depth.
    pub inverses: Vec<Inverse>,
    /// Root of the mean square of their relative errors.
    pub inverse_error: f64,
}

impl Weights {
    /// Levels from the score, mapped to `[-1, 1]` by what came before.
    pub fn depth(&self) -> usize {
        match self {
            Self::Exponential { exponential, .. } => exponential.depth(),
            Self::Power { power, .. } => power.next_power_of_two().ilog2() as usize,
        }
    }

    /// What a weight is a function of, from a score, before it is mapped to `[-1, 1]`: the score less
    /// its shift, or in units of its scale.
    pub fn input(&self, head: usize, score: f64) -> f64 {
        match self {
            Self::Exponential { shifts, .. } => score - shifts.get(head).unwrap_or(&0.0),
            Self::Power { scales, .. } => score / scales.get(head).unwrap_or(&1.0),
        }
    }

    /// The range of [`Weights::input`].
    pub fn interval(&self) -> (f64, f64) {
        match self {
            Self::Exponential { exponential, .. } => exponential.polynomial().interval(),
            Self::Power { .. } => (-1.0, 1.0),
        }
    }

    /// The weight of an input.
    pub fn evaluate(&self, input: f64) -> f64 {
        match self {
            Self::Exponential { exponential, .. } => exponential.evaluate(input),
            Self::Power { power, .. } => input.powi(*power as i32),
        }
    }

    /// What is added to a head's sum.
    pub fn epsilon(&self, head: usize) -> f64 {
        match self {
            Self::Exponential { .. } => 0.0,
            Self::Power {
                power,
                epsilon,
                scales,
            } => epsilon / scales.get(head).unwrap_or(&1.0).powi(*power as i32),
        }
    }
}

impl Attention {
    /// The weights and the inverses of least depth for a layer of these ranges.
    ///
    /// # Errors
    /// Ranges that are empty or not finite; a budget that no polynomial meets within its depth.
    pub(super) fn fit(
        layer: &LayerRanges,
        function: AttentionFunction,
        budget: &Budget,
    ) -> Result<Self, PolynomialError> {
        let tops: Vec<f64> = match function {
            AttentionFunction::Softmax => {
                let wide = |r: &Range| r.widened(budget.sum_margin).high;
                layer.log_sums.iter().map(wide).collect()
            }
            // The margin of scores: sums grow with their power. What calibration saw reaches far, for
            // sums of powers have a few large terms.
            AttentionFunction::PowerSoftmax { power, .. } => {
                let margin = f64::from(power) * budget.margin.ln_1p();
                layer.log_sums.iter().map(|r| r.high + margin).collect()
            }
        };
        let shifts: Vec<f64> = tops.iter().map(|top| top + SUM_HEADROOM).collect();
        for (scores, shift) in layer.scores.iter().zip(&shifts) {
            if scores.is_empty() || !shift.is_finite() || !scores.magnitude().is_finite() {
                return Err(bad_range(*scores));
            }
        }
        let weights = match function {
            AttentionFunction::Softmax => exponential(layer, &shifts, budget)?,
            AttentionFunction::PowerSoftmax { power, epsilon } => Weights::Power {
                power,
                epsilon,
                scales: (shifts.iter())
                    .map(|shift| (shift / f64::from(power)).exp())
                    .collect(),
            },
        };
        // Sums as the inverse meets them, and how often.
        let sums = layer.log_sum_counts.iter().zip(&shifts).enumerate();
        let heads: Vec<Sums> = sums
            .map(|(head, (counts, shift))| Sums {
                epsilon: weights.epsilon(head),
                shares: counts
                    .shares()
                    .map(|(s, share)| ((s - shift).exp(), share))
                    .collect(),
            })
            .collect();
        let mut reached = f64::INFINITY;
        for steps in 1..=budget.max_depth {
            let best: Option<Vec<(f64, Inverse)>> = heads.iter().map(|h| h.best(steps)).collect();
            let best = best.unwrap_or_default();
            let squares: f64 = best.iter().map(|(square, _)| square).sum();
            let error = (squares / best.len() as f64).sqrt();
            reached = reached.min(error);
            if error <= budget.inverse {
                return Ok(Self {
                    weights,
                    inverses: best.into_iter().map(|(_, inverse)| inverse).collect(),
                    inverse_error: error,
                });
            }
        }
        Err(PolynomialError::Accuracy {
            wanted: budget.inverse,
            reached,
            max_degree: (1 << budget.max_depth.min(20)) - 1,
        })
    }
}

fn exponential(
    layer: &LayerRanges,
    shifts: &[f64],
    budget: &Budget,
) -> Result<Weights, PolynomialError> {
    let lows = layer.scores.iter().zip(shifts);
    let widths = lows.map(|(scores, shift)| shift - scores.widened(budget.margin).low);
    let width = widths.fold(0.0, f64::max);
    // Sums less the shifts, each head's: what the exponential's error is held against.
    let small = layer.log_sum_counts.iter().zip(shifts);
    let small = small.map(|(counts, shift)| (quantile(counts, 0.01) - shift).exp());
    let small = small.fold(1.0, f64::min);
    Ok(Weights::Exponential {
        shifts: shifts.to_vec(),
        exponential: Exponential::fit(width, budget.exponential * small, budget.max_depth)?,
    })
}

/// A head's sums.
struct Sums {
    /// Part of all of them: none is below it.
    epsilon: f64,
    /// Sums, and how many of all these are.
    shares: Vec<(f64, f64)>,
}

impl Sums {
    /// The inverse of least mean square error for the sums that occur, and that error. Its lower end
    /// is not their least one: rare small ones may fall below it. What an error does is in proportion
    /// to the sum without its epsilon.
    fn best(&self, steps: usize) -> Option<(f64, Inverse)> {
        let error = |inverse: &Inverse| {
            let square = |(s, share): &(f64, f64)| {
                let part = (1.0 - self.epsilon / s).clamp(0.0, 1.0);
                share * (part * (1.0 - s * inverse.evaluate(*s))).powi(2)
            };
            self.shares.iter().map(square).sum::<f64>()
        };
        let ends = (1..120).map(|i| (-0.25 * f64::from(i)).exp().max(self.epsilon));
        ends.filter_map(|low| Inverse::new(low, 1.0, steps))
            .map(|inverse| (error(&inverse), inverse))
            .min_by(|a, b| a.0.total_cmp(&b.0))
    }
}

fn quantile(counts: &Histogram, share: f64) -> f64 {
    let mut below = 0.0;
    let mut last = 0.0;
    for (value, part) in counts.shares() {
        below += part;
        last = value;
        if below >= share {
            break;
        }
    }
    last
}

pub(super) fn bad_range(range: Range) -> PolynomialError {
    PolynomialError::Interval {
        low: range.low,
        high: range.high,
    }
}
