//! Normalization of values that the map before has centred already.

use veilformer_circuits::CircuitError;
use veilformer_circuits::polynomial::{Chebyshev, EvaluationPlan, InputMap};
use veilformer_ckks::{Ops, SlotVector};

use super::Layout;
use super::machine::{Machine, Stage};
use super::{magnitude, scaled};
use crate::encoder::NormSubstitution;
use crate::placement::Read;

/// `y / sqrt(variance)` times what is wanted, from `y` that has mean zero: the square's sum, a
/// mask, the polynomial, one product. What is divided out per token class rides on `y` beside.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    /// Places of a token, from its first, that features stand in: a power of two.
    places: usize,
    /// In the first slot of each token, what makes the sum of squares the root's input.
    mask: SlotVector,
    /// Added to it.
    offset: SlotVector,
    /// Divided by its largest value.
    root: EvaluationPlan,
    /// Per block what `y` is multiplied with.
    gains: Vec<SlotVector>,
}

/// What [`Norm`] is made of.
pub(super) struct NormSite<'a> {
    pub substitution: &'a NormSubstitution,
    pub epsilon: f64,
    /// What `y` was divided by.
    pub bound: f64,
    /// What results are divided by.
    pub result: f64,
}

impl Norm {
    /// The largest `|y|` on the range of variances: with `d` features of mean zero one of them is
    /// at most `sqrt((d - 1) variance)` (Samuelson's inequality).
    pub(super) fn bound(substitution: &NormSubstitution, hidden: usize) -> f64 {
        let [first, other] = substitution.scales;
        let spread = hidden.saturating_sub(1).max(1) as f64;
        (first.max(other) * spread).sqrt()
    }

    /// The largest normalized value, an error of the root of a twentieth included.
    pub(super) fn result(hidden: usize) -> f64 {
        1.05 * (hidden.saturating_sub(1).max(1) as f64).sqrt()
    }

    /// `gain(token, feature)` is a factor of the results.
    ///
    /// # Errors
    /// A polynomial that cannot be planned.
    pub(super) fn new(
        layout: &Layout,
        site: &NormSite<'_>,
        gain: impl Fn(usize, usize) -> f64,
    ) -> Result<Self, CircuitError> {
        let (low, high) = site.substitution.root.interval();
        let scale = |t: usize| site.substitution.scales[usize::from(t > 0)];
        let part = 2.0 / (high - low);
        let squares = site.bound * site.bound / layout.hidden as f64;
        let mask = layout.per_slot(|t, at| {
            if at == 0 {
                part * squares / scale(t)
            } else {
                0.0
            }
        });
        let width = layout.heads.width;
        let places = layout.periods(layout.hidden).into_iter().max();
        let places = places.unwrap_or(width);
        // Behind the features there is no sum: the middle of the range.
        let offset = layout.per_slot(|t, at| match at < places {
            true => part * site.epsilon / scale(t) - (low + high) / (high - low),
            false => 0.0,
        });
        let largest = magnitude(&site.substitution.root);
        let factor = site.bound * largest / site.result;
        let gains = (0..layout.blocks(layout.hidden)).map(|block| {
            layout.per_slot(|t, at| {
                let feature = block * width + at;
                if feature < layout.hidden {
                    gain(t, feature) * factor / scale(t).sqrt()
                } else {
                    0.0
                }
            })
        });
        Ok(Self {
            places,
            mask: mask.simplified(),
            offset: offset.simplified(),
            root: plan(&scaled(&site.substitution.root, largest)?)?,
            gains: gains.map(SlotVector::simplified).collect(),
        })
    }

    /// The results' number, from that of `y`.
    pub(super) fn run<O: Ops>(
        &self,
        m: &mut Machine<'_, O>,
        (layer, name): (usize, &'static str),
        y: usize,
    ) -> Result<usize, CircuitError> {
        let read = [Read::first(y)];
        let stage = format!("{name}, variance");
        let variance = m.stage(&Stage::new(&stage, &read, 2), |m, inputs| {
            let y = inputs.concat();
            let pairs: Vec<(&O::Ct, &O::Ct)> = y.iter().map(|ct| (ct, ct)).collect();
            let squares = m.ops.mul_sum(&pairs)?;
            let onwards = doublings(self.places);
            let sum = m.fold(&squares, &onwards)?;
            let sum = m.times((layer, name, 0), &sum, &self.mask)?;
            let backwards: Vec<i64> = onwards.iter().map(|step| -step).collect();
            let sum = m.fold(&sum, &backwards)?;
            Ok(vec![m.plus((layer, name, 1), &sum, &self.offset)?])
        })?;
        let read = [Read::first(variance)];
        let stage = format!("{name}, inverse root");
        let stage = Stage::new(&stage, &read, self.root.depth());
        let root = m.stage(&stage, |m, inputs| {
            let roots = inputs.iter().flatten();
            let roots = roots.map(|input| m.evaluate(input, &self.root));
            roots.collect()
        })?;
        m.take(variance);
        let late = Read {
            value: root,
            late: 1,
        };
        let read = [Read::first(y), late];
        let result = m.stage(&Stage::new(name, &read, 2), |m, inputs| {
            let [y, root] = inputs else {
                return Ok(Vec::new());
            };
            let mut results = Vec::with_capacity(y.len());
            for (block, (y, gain)) in y.iter().zip(&self.gains).enumerate() {
                let y = m.times((layer, name, 2 + block), y, gain)?;
                for root in root {
                    results.push(m.mul(&y, root)?);
                }
            }
            Ok(results)
        })?;
        m.take(y);
        m.take(root);
        Ok(result)
    }
}

/// The plan of one polynomial whose input comes mapped to [-1, 1].
pub(super) fn plan(polynomial: &Chebyshev) -> Result<EvaluationPlan, CircuitError> {
    let polynomials = std::slice::from_ref(polynomial);
    Ok(EvaluationPlan::new(polynomials, InputMap::Absorbed)?)
}

/// The only output.
pub(super) fn one<T>(mut outputs: Vec<T>) -> Result<T, CircuitError> {
    let none = || CircuitError::shape("polynomial of an encoder", "the plan has no output");
    outputs.pop().ok_or_else(none)
}

/// 1, 2, 4 .. below `width`.
pub(super) fn doublings(width: usize) -> Vec<i64> {
    (0..width.max(1).ilog2()).map(|bit| 1i64 << bit).collect()
}
