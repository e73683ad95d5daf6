//! Which polynomial takes the place of which function.

use serde::{Deserialize, Serialize};
use veilformer_circuits::polynomial::{Chebyshev, PolynomialError, optimal_depth};
use veilformer_ir::encoder::{Activation, Encoder, NormRanges, Range, Ranges};

use super::weights::{Attention, bad_range};
use super::{ActivationSubstitution, Inverse, Weights, minimax};
use crate::CompileError;

/// How large errors may be, and how much wider than calibration's the ranges are made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Of each exponential, relative to sums that are small for their head (their 1% quantile).
    pub exponential: f64,
    /// Relative error of the inverses of sums: the root of the mean square over the sums of all
    /// heads that calibration saw.
    pub inverse: f64,
    /// Largest relative error of `1/sqrt(variance)`.
    pub inverse_root: f64,
    /// Largest error of an activation.
    pub activation: f64,
    /// Largest error of the pooler's tanh.
    pub tanh: f64,
    /// Part of a range's width (of its ratio, for variances) by which it is widened at each end.
    pub margin: f64,
    /// The same for the upper end of the sums in softmax, of their logarithm: beyond it, an inverse
    /// grows without bound.
    pub sum_margin: f64,
    /// Most levels of one function.
    pub max_depth: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            exponential: 1e-2,
            inverse: 5e-2,
            inverse_root: 2e-2,
            activation: 2e-2,
            tanh: 2e-2,
            margin: 0.1,
            sum_margin: 0.3,
            max_depth: 10,
        }
    }
}

impl Budget {
    /// With all errors times `factor`; margins and depth stay.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        Self {
            exponential: self.exponential * factor,
            inverse: self.inverse * factor,
            inverse_root: self.inverse_root * factor,
            activation: self.activation * factor,
            tanh: self.tanh * factor,
            ..*self
        }
    }
}

/// One normalization.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NormSubstitution {
    /// Variances are divided by these, of first tokens and of others, before the polynomial; its
    /// value is divided by their square roots.
    pub scales: [f64; 2],
    /// Near `1/sqrt(u)`, on the quotients.
    pub root: Chebyshev,
}

impl NormSubstitution {
    /// Levels from the quotient, mapped to `[-1, 1]` by what came before.
    pub fn depth(&self) -> usize {
        optimal_depth(self.root.degree())
    }
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerSubstitution {
    /// Of scores, before they are divided by their sums.
    pub weights: Weights,
    /// Of each head's sums, all of one depth.
    pub inverses: Vec<Inverse>,
    /// Root of the mean square of their relative errors.
    pub inverse_error: f64,
    /// After attention.
    pub attention_norm: NormSubstitution,
    /// In place of the activation.
    pub activation: ActivationSubstitution,
    /// After the feed-forward part.
    pub output_norm: NormSubstitution,
}

/// Polynomials in place of all functions of an encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Substitution {
    /// The activation that was replaced.
    pub function: Activation,
    /// Per layer.
    pub layers: Vec<LayerSubstitution>,
    /// In place of the pooler's tanh, if there is one.
    pub tanh: Option<Chebyshev>,
}

impl LayerSubstitution {
    /// Levels of the inverses of sums.
    pub fn inverse_depth(&self) -> usize {
        self.inverses.iter().map(Inverse::depth).max().unwrap_or(0)
    }
}

impl Substitution {
    /// Levels of all functions one after the other, with the products that belong to them: in
    /// attention one by the inverse, in a normalization the square and the product by the root.
    pub fn depth(&self) -> usize {
        let layer = |l: &LayerSubstitution| {
            l.weights.depth()
                + l.inverse_depth()
                + 1
                + l.attention_norm.depth()
                + 2
                + l.activation.depth()
                + l.output_norm.depth()
                + 2
        };
        let tanh = self.tanh.as_ref().map_or(0, |p| optimal_depth(p.degree()));
        self.layers.iter().map(layer).sum::<usize>() + tanh
    }
}

/// Chooses polynomials of the least depth for the functions of the `model` that `ranges` are of.
/// Functions that are polynomials stay what they are.
///
/// # Errors
/// When ranges are empty or not finite, or no polynomial meets the budget within its depth.
pub fn substitute(
    ranges: &Ranges,
    model: &Encoder,
    budget: &Budget,
) -> Result<Substitution, CompileError> {
    if ranges.sentences == 0 {
        return Err(CompileError::Ranges("of no sentence".into()));
    }
    let layers = ranges.layers.iter().enumerate();
    let layers = layers
        .map(|(index, layer)| {
            let at = |site: &str| format!("layer {index}, {site}");
            let attention = Attention::fit(layer, model.attention, budget);
            let Attention {
                weights,
                inverses,
                inverse_error,
            } = attention.map_err(refused(at("softmax")))?;
            let norm = |norm: &NormRanges, site: &str| {
                normalization(norm, budget).map_err(refused(at(site)))
            };
            Ok(LayerSubstitution {
                weights,
                inverses,
                inverse_error,
                attention_norm: norm(&layer.attention_norm, "normalization after attention")?,
                activation: activation(model.activation, &layer.activation, budget)
                    .map_err(refused(at("activation")))?,
                output_norm: norm(&layer.output_norm, "last normalization")?,
            })
        })
        .collect::<Result<_, CompileError>>()?;
    let tanh = if ranges.tanh.is_empty() {
        None
    } else {
        let fitted = elementwise(f64::tanh, &ranges.tanh, (budget.tanh, budget));
        Some(fitted.map_err(refused("tanh of the pooler".into()))?)
    };
    Ok(Substitution {
        function: model.activation,
        layers,
        tanh,
    })
}

fn refused(site: String) -> impl FnOnce(PolynomialError) -> CompileError {
    move |source| CompileError::Substitution { site, source }
}

fn normalization(
    ranges: &NormRanges,
    budget: &Budget,
) -> Result<NormSubstitution, PolynomialError> {
    // Widened as ratios: the logarithm of each end.
    let widen = |range: Range| {
        if range.is_empty() {
            return Some((1.0, 1.0));
        }
        let logarithm = Range {
            low: range.low.ln(),
            high: range.high.ln(),
        };
        let wide = Range {
            low: logarithm.low.min(logarithm.high - 0.5),
            high: logarithm.high,
        }
        .widened(budget.margin);
        (range.low > 0.0 && wide.high.is_finite()).then(|| (wide.low.exp(), wide.high.exp()))
    };
    let [first, other] = ranges.variance;
    let (Some(one), Some(two)) = (widen(first), widen(other)) else {
        return Err(bad_range(first.union(other)));
    };
    // One scale for all tokens wherever that wants no larger degree: then their squares' sums need no
    // factor of their own.
    let high = one.1.max(two.1);
    let together = ([high; 2], one.0.min(two.0) / high);
    let apart = ([one.1, two.1], (one.0 / one.1).min(two.0 / two.1));
    let ways = match together == apart {
        true => &[together][..],
        false => &[together, apart],
    };
    let mut reached = f64::INFINITY;
    let mut degree = 1;
    for _ in 1..=budget.max_depth.min(8) {
        for &(scales, low) in ways {
            let f = |x: f64| x.sqrt().recip();
            let root = minimax(f, f64::sqrt, degree, (low.min(0.5), 1.0))?;
            let error = relative_error(&root);
            reached = reached.min(error);
            if error <= budget.inverse_root {
                return Ok(NormSubstitution { scales, root });
            }
        }
        degree = 2 * degree + 1;
    }
    Err(PolynomialError::Accuracy {
        wanted: budget.inverse_root,
        reached,
        max_degree: (degree - 1) / 2,
    })
}

/// Largest `|sqrt(x) p(x) - 1|`, on a grid that is denser where the root is steep.
pub(super) fn relative_error(root: &Chebyshev) -> f64 {
    let (low, high) = root.interval();
    let points = 32 * (root.degree() + 2);
    (0..=points).fold(0.0, |m, i| {
        let angle = std::f64::consts::PI * i as f64 / points as f64;
        let x = low + (high - low) * 0.5 * (1.0 - angle.cos());
        m.max((x.sqrt() * root.evaluate(x) - 1.0).abs())
    })
}

/// The range of all channels, widened.
fn widened(channels: &[Range], budget: &Budget) -> Result<Range, PolynomialError> {
    let all = channels.iter().fold(Range::EMPTY, |all, r| all.union(*r));
    if all.is_empty() || !all.magnitude().is_finite() {
        return Err(bad_range(all));
    }
    Ok(all.widened(budget.margin))
}

fn activation(
    function: Activation,
    channels: &[Range],
    budget: &Budget,
) -> Result<ActivationSubstitution, PolynomialError> {
    if function == Activation::Quadratic {
        let wide = widened(channels, budget)?;
        let interval = (wide.low, wide.high);
        return Ok(ActivationSubstitution::square(
            Activation::QUADRATIC,
            interval,
        ));
    }
    let errors = (budget.activation, budget);
    let polynomial = elementwise(|x| function.apply(x), channels, errors)?;
    Ok(ActivationSubstitution::Polynomial(polynomial))
}

/// A function of one number on all channels of a layer: the better of the interval that occurs and
/// the one around 0, on which half of the coefficients of an odd function, or of an even one and a
/// line, are zero.
fn elementwise(
    f: impl Fn(f64) -> f64,
    channels: &[Range],
    (max_error, budget): (f64, &Budget),
) -> Result<Chebyshev, PolynomialError> {
    let wide = widened(channels, budget)?;
    let around = (-wide.magnitude(), wide.magnitude());
    let mut reached = f64::INFINITY;
    let mut degree = 1;
    for _ in 1..=budget.max_depth.min(8) {
        for interval in [around, (wide.low, wide.high)] {
            let fitted = minimax(&f, |_| 1.0, degree, interval)?;
            let error = fitted.max_error(&f, 16 * (degree + 2));
            reached = reached.min(error);
            if error <= max_error {
                return Ok(fitted);
            }
        }
        degree = 2 * degree + 1;
    }
    Err(PolynomialError::Accuracy {
        wanted: max_error,
        reached,
        max_degree: (degree - 1) / 2,
    })
}
