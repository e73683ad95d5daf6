//! Normalization of values that the map before has centred already.

use veilformer_circuits::CircuitError;
use veilformer_circuits::encoder::fold;
use veilformer_circuits::polynomial::{Chebyshev, EvaluationPlan, InputMap};
use veilformer_ckks::{Ops, SlotVector};

use super::Layout;
use super::machine::{Machine, Stage};
use super::{magnitude, scaled};
use crate::encoder::NormSubstitution;
use crate::placement::Read;

/// `y / sqrt(variance)` times what is wanted, from `y` that has mean zero: the square's sum in all
/// places of a token, the polynomial, one product. What is divided out per token class rides on `y`
/// beside.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    /// Places of a token, from its first, that features stand in: a power of two.
    places: usize,
    sum: Sum,
    /// Added to the sums, in the root's input.
    offset: SlotVector,
    /// Divided by its largest value.
    root: EvaluationPlan,
    /// Per block what `y` is multiplied with.
    gains: Vec<SlotVector>,
}

/// How the sum of a token's squares comes to all of its places.
#[derive(Clone, Debug)]
enum Sum {
    /// To the first place; from there, multiplied with this vector, to all: a level, and twice as many
    /// rotations as the logarithm of the places.
    Broadcast(SlotVector),
    /// With a copy behind the squares ([`Layout::has_room`]) each place's sum is that of as many slots from
    /// it on: one rotation besides the logarithm, and no level. Further on stand sums of some of the
    /// squares, so that the polynomial's interval begins at zero; factors are all in the bound of `y`.
    Windows,
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
    /// at most `sqrt((d - 1) variance)` (Samuelson's inequality). Where sums are [`Sum::Windows`],
    /// `sqrt(d variance)`, which makes twice the squares' sum two at the largest variance.
    pub(super) fn bound(layout: &Layout, substitution: &NormSubstitution) -> f64 {
        let [first, other] = substitution.scales;
        let spread = match is_windowed(layout, substitution) {
            true => layout.hidden,
            false => layout.hidden.saturating_sub(1),
        };
        (first.max(other) * spread.max(1) as f64).sqrt()
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
        let (width, places) = (layout.heads.width, layout.places());
        let scale = |t: usize| site.substitution.scales[usize::from(t > 0)];
        let (sum, offset, root) = if is_windowed(layout, site.substitution) {
            let offset = SlotVector::real_constant(2.0 * site.epsilon / scale(0) - 1.0);
            let root = &site.substitution.root;
            let root = Chebyshev::fit(|x| root.evaluate(x), root.degree(), (0.0, 1.0))?;
            (Sum::Windows, offset, root)
        } else {
            let (low, high) = site.substitution.root.interval();
            let part = 2.0 / (high - low);
            let squares = site.bound * site.bound / layout.hidden as f64;
            let mask = layout.per_slot(|t, at| match at {
                0 => part * squares / scale(t),
                _ => 0.0,
            });
            // Behind the features there is no sum: the middle of the range.
            let offset = layout.per_slot(|t, at| match at < places {
                true => part * site.epsilon / scale(t) - (low + high) / (high - low),
                false => 0.0,
            });
            let sum = Sum::Broadcast(mask.simplified());
            (sum, offset.simplified(), site.substitution.root.clone())
        };
        let largest = magnitude(&root);
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
            sum,
            offset,
            root: plan(&scaled(&root, largest)?)?,
            gains: gains.map(SlotVector::simplified).collect(),
        })
    }

    /// The sum of the squares of `y`, in all places of each token, as the root wants it.
    fn variance<O: Ops>(
        &self,
        m: &mut Machine<'_, O>,
        (layer, name): (usize, &'static str),
        y: &[O::Ct],
    ) -> Result<O::Ct, CircuitError> {
        let onwards = doublings(self.places);
        let sum = match &self.sum {
            Sum::Broadcast(mask) => {
                let pairs: Vec<(&O::Ct, &O::Ct)> = y.iter().map(|ct| (ct, ct)).collect();
                let squares = m.ops.mul_sum(&pairs)?;
                let sum = fold(m.ops, &squares, &onwards)?;
                let sum = m.times((layer, name, 0), &sum, mask)?;
                let backwards: Vec<i64> = onwards.iter().map(|step| -step).collect();
                fold(m.ops, &sum, &backwards)?
            }
            Sum::Windows => {
                let twice = y.iter().map(|ct| m.ops.add(ct, ct));
                let twice = twice.collect::<Result<Vec<_>, _>>()?;
                let pairs: Vec<(&O::Ct, &O::Ct)> = y.iter().zip(&twice).collect();
                let squares = m.ops.mul_sum(&pairs)?;
                let copied = [-(self.places as i64)].into_iter();
                let steps: Vec<i64> = copied.chain(onwards).collect();
                fold(m.ops, &squares, &steps)?
            }
        };
        m.plus((layer, name, 1), &sum, &self.offset)
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
        let depth = match self.sum {
            Sum::Broadcast(_) => 2,
            Sum::Windows => 1,
        };
        let variance = m.stage(&Stage::new(&stage, &read, depth), |m, inputs| {
            Ok(vec![self.variance(m, (layer, name), &inputs.concat())?])
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

/// Whether sums are [`Sum::Windows`].
fn is_windowed(layout: &Layout, substitution: &NormSubstitution) -> bool {
    let [first, other] = substitution.scales;
    layout.has_room() && first == other
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
