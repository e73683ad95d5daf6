//! EvalMod in an abstract arithmetic: the same steps for samples and for error propagation.
//!
//! `u = cos(2 pi (t - 1/4)) = sin(2 pi t)` for `t = I + m/2^r`, so `2^r u / (2 pi)` is the message
//! `m` up to a cubic error. The cosine is computed at `1/2^d` of the angle by a Chebyshev
//! polynomial and doubled `d` times (Han and Ki, ePrint 2019/688); `u (c1 + c3 u^2)`, close to
//! `u (1 + u^2/6)`, removes the cubic term of the sine.

use std::f64::consts::PI;

use super::noise::{BootstrapSpec, InverseSine, Order};
use crate::CircuitError;
use crate::polynomial::{Chebyshev, EvaluationPlan, InputMap, Node};

/// Levels of [`InverseSine::Degree3`]: a square and a product.
pub(super) const INVERSE_SINE_LEVELS: usize = 2;

/// Where a rescale happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Real: the imaginary part cancels when the conjugate is added.
    CoeffToSlot,
    Conjugation,
    Chebyshev,
    DoubleAngle,
    InverseSine,
}

/// Numbers that rescale noise can be put on.
pub(super) trait Arithmetic {
    type Number: Clone;
    /// `constant + sum c v`.
    fn combine(&mut self, constant: f64, terms: &[(f64, &Self::Number)]) -> Self::Number;
    fn multiply(&mut self, a: &Self::Number, b: &Self::Number) -> Self::Number;
    /// Adds independent noise of `multiple` rescales' standard deviation to each part.
    fn rescaled(&mut self, value: Self::Number, stage: Stage, multiple: f64) -> Self::Number;
}

/// The circuit for one specification.
#[derive(Clone, Debug)]
pub(super) struct EvalMod {
    plan: EvaluationPlan,
    range: f64,
    double_angles: u32,
    inverse_sine: InverseSine,
    /// `c1` and `c3`.
    arcsine: (f64, f64),
    /// Output factor `2^r / (2 pi)`.
    gain: f64,
    key_switch_multiple: f64,
}

impl EvalMod {
    pub(super) fn new(spec: &BootstrapSpec) -> Result<Self, CircuitError> {
        let range = f64::from(spec.range);
        let shrink = f64::from(1u32 << spec.double_angles);
        let covered = i64::from(spec.covered);
        // Exact where the messages are: at the integers, or at a few points around them.
        let width = (-f64::from(spec.message_ratio_bits)).exp2();
        let offset = |j: u32| {
            let angle = PI * (f64::from(j) + 0.5) / f64::from(spec.nodes);
            if 2 * j + 1 == spec.nodes {
                0.0
            } else {
                width * angle.cos()
            }
        };
        let nodes: Vec<f64> = (-covered..=covered)
            .flat_map(|i| (0..spec.nodes).map(move |j| (i as f64, j)))
            .map(|(i, j)| (i + offset(j)) / range)
            .collect();
        let values: Vec<f64> = nodes
            .iter()
            .map(|x| (2.0 * PI * (range * x - 0.25) / shrink).cos())
            .collect();
        let cosine = Chebyshev::interpolate(&nodes, &values, (-1.0, 1.0))?;
        Ok(Self {
            plan: EvaluationPlan::new(&[cosine], InputMap::Absorbed)?,
            range,
            double_angles: spec.double_angles,
            inverse_sine: spec.inverse_sine,
            arcsine: arcsine((2.0 * PI * width).sin(), spec.order),
            gain: f64::from(spec.message_ratio_bits).exp2() / (2.0 * PI),
            key_switch_multiple: spec.key_switch_multiple,
        })
    }

    /// Levels that EvalMod consumes.
    pub(super) fn depth(&self) -> usize {
        self.plan.depth()
            + self.double_angles as usize
            + match self.inverse_sine {
                InverseSine::None => 0,
                InverseSine::Degree3 => INVERSE_SINE_LEVELS,
            }
    }

    /// The cosine at `1/2^d` of the angle.
    pub(super) fn plan(&self) -> &EvaluationPlan {
        &self.plan
    }

    /// `K`.
    pub(super) fn range(&self) -> f64 {
        self.range
    }

    pub(super) fn double_angles(&self) -> u32 {
        self.double_angles
    }

    pub(super) fn inverse_sine(&self) -> InverseSine {
        self.inverse_sine
    }

    /// `(c1, c3)` of the corrected sine `u (c1 + c3 u^2)`.
    pub(super) fn arcsine(&self) -> (f64, f64) {
        self.arcsine
    }

    /// `2^r / (2 pi)`: what the (corrected) sine is multiplied with.
    pub(super) fn gain(&self) -> f64 {
        self.gain
    }

    /// From `t` before the last rescale of CoeffToSlot to the message.
    pub(super) fn run<A: Arithmetic>(&self, a: &mut A, t: &A::Number) -> A::Number {
        // The real part is extracted by adding the conjugate: twice the noise of one real part.
        let x = a.combine(0.0, &[(1.0 / self.range, t)]);
        let mut x = a.rescaled(x, Stage::CoeffToSlot, 2.0);
        if self.key_switch_multiple > 0.0 {
            let multiple = std::f64::consts::SQRT_2 * self.key_switch_multiple;
            x = a.rescaled(x, Stage::Conjugation, multiple);
        }
        let one = a.combine(1.0, &[]);
        let mut basis = vec![one.clone(), x];
        for step in self.plan.basis() {
            // Doubled before the product, as the run does it: the rescale's noise is not.
            let twice = a.combine(0.0, &[(2.0, &basis[step.right])]);
            let product = a.multiply(&basis[step.left], &twice);
            let product = a.rescaled(product, Stage::Chebyshev, 1.0);
            let mut other = basis[step.subtrahend()].clone();
            if step.subtrahend() > 0 {
                other = a.rescaled(other, Stage::Chebyshev, 1.0);
            }
            let value = a.combine(0.0, &[(1.0, &product), (-1.0, &other)]);
            basis.resize(step.index + 1, one.clone());
            basis[step.index] = value;
        }
        let mut u = match self.plan.outputs() {
            [output, ..] => node(a, output, &basis),
            [] => one,
        };
        for _ in 0..self.double_angles {
            let twice = a.combine(0.0, &[(2.0, &u)]);
            let square = a.multiply(&u, &twice);
            let square = a.rescaled(square, Stage::DoubleAngle, 1.0);
            u = a.combine(-1.0, &[(1.0, &square)]);
        }
        if self.inverse_sine == InverseSine::Degree3 {
            let square = a.multiply(&u, &u);
            let square = a.rescaled(square, Stage::InverseSine, 1.0);
            let (c1, c3) = self.arcsine;
            let factor = a.combine(c1, &[(c3, &square)]);
            let product = a.multiply(&u, &factor);
            u = a.rescaled(product, Stage::InverseSine, 1.0);
        }
        a.combine(0.0, &[(self.gain, &u)])
    }
}

/// `(c1, c3)` such that `c1 u + c3 u^3` is nearest to `arcsin u = u + u^3/6 + 3 u^5/40 + ..` on
/// `[-bound, bound]`, up to terms of seventh order.
///
/// Slots as they are: with `x = u/bound`, the best approximation of `x^5` by lower odd powers is
/// `x^5 - T_5(x)/16 = (20 x^3 - 5 x)/16`. That leaves one sixteenth of the error of `u + u^3/6`.
///
/// Coefficients: nearly all are small and make slots of about 1 together, so that their relative
/// error counts. With `y = x^2`, the best approximation of `y^2` by `y` and a constant on [0, 1] is
/// `y^2 - T_2(2 y - 1)/8 = y - 1/8`. That leaves an eighth.
fn arcsine(bound: f64, order: Order) -> (f64, f64) {
    let fifth = 3.0 / 40.0;
    let (linear, cubic) = match order {
        Order::SlotToCoeffFirst => (5.0 / 16.0, 20.0 / 16.0),
        Order::SlotToCoeffLast => (1.0 / 8.0, 1.0),
    };
    (
        1.0 - fifth * bound.powi(4) * linear,
        1.0 / 6.0 + fifth * bound.powi(2) * cubic,
    )
}

fn node<A: Arithmetic>(a: &mut A, n: &Node, basis: &[A::Number]) -> A::Number {
    let terms: Vec<_> = n.linear.iter().map(|(k, c)| (*c, &basis[*k])).collect();
    let mut sum = a.combine(n.constant, &terms);
    if !terms.is_empty() {
        sum = a.rescaled(sum, Stage::Chebyshev, 1.0);
    }
    if !n.products.is_empty() {
        for (quotient, g) in &n.products {
            let q = node(a, quotient, basis);
            let product = a.multiply(&q, &basis[*g]);
            sum = a.combine(0.0, &[(1.0, &sum), (1.0, &product)]);
        }
        sum = a.rescaled(sum, Stage::Chebyshev, 1.0);
    }
    sum
}
