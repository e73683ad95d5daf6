//! The run of an [`EvaluationPlan`] on ciphertexts.

use veilformer_ckks::{Complex, Ops, Scale, SlotVector};

use super::{BasisStep, Chebyshev, EvaluationPlan, InputMap, Node};
use crate::CircuitError;

const NAME: &str = "polynomial evaluation";

/// Evaluates all polynomials of `plan` on every slot of `x`.
///
/// Slots must lie in the polynomials' interval (in `[-1, 1]` if the map was absorbed), junk and
/// padding included: outside it a Chebyshev polynomial grows like `(2 t)^degree`. `x` may have any
/// scale; the results have the canonical scale of `level(x) - plan.depth()`. Scales go from the
/// result down: each constant is encoded at the scale that makes its sum exact, so that no value
/// is rescaled for the sake of its scale alone, except what is subtracted in the power basis.
///
/// # Errors
/// Fewer levels than `plan.depth()`, or what the operations refuse.
pub fn evaluate<O: Ops>(
    ops: &mut O,
    x: &O::Ct,
    plan: &EvaluationPlan,
) -> Result<Vec<O::Ct>, CircuitError> {
    run(ops, x, plan, None)
}

/// As [`evaluate`] for a plan of one polynomial, with a result of this scale.
///
/// # Errors
/// As [`evaluate`]; a plan of several polynomials, or of a constant, whose scale is the input's.
pub fn evaluate_to<O: Ops>(
    ops: &mut O,
    x: &O::Ct,
    plan: &EvaluationPlan,
    scale: Scale,
) -> Result<O::Ct, CircuitError> {
    match plan.outputs() {
        [output] if output.depth > 0 => {}
        outputs => {
            let what = format!(
                "{} polynomials at depth {}; expected one, and not a constant",
                outputs.len(),
                plan.depth()
            );
            return Err(CircuitError::shape(NAME, what));
        }
    }
    run(ops, x, plan, Some(scale))?
        .pop()
        .ok_or_else(|| CircuitError::shape(NAME, "the plan has no output"))
}

/// All outputs at `scale`, or each at its level's canonical one.
fn run<O: Ops>(
    ops: &mut O,
    x: &O::Ct,
    plan: &EvaluationPlan,
    scale: Option<Scale>,
) -> Result<Vec<O::Ct>, CircuitError> {
    let level = ops.level(x);
    if level < plan.depth() {
        return Err(CircuitError::Levels {
            circuit: NAME,
            level,
            needed: plan.depth(),
        });
    }
    let mut input = x.clone();
    if let Some(map) = plan.affine() {
        let target = ops.params().scale_at(level - 1);
        let scaled = times_constant(ops, x, map.factor, (level, target))?;
        input = ops.rescale(&scaled)?;
        if map.offset != 0.0 {
            input = plus_constant(ops, &input, map.offset)?;
        }
    }
    let mut run = Run {
        level: ops.level(&input),
        basis: vec![None, Some(input)],
        ops,
    };
    for step in plan.basis() {
        run.extend(*step)?;
    }
    let outputs = plan.outputs().iter();
    outputs.map(|node| run.output(node, scale)).collect()
}

/// One polynomial at the least depth: plan and run in one call.
///
/// # Errors
/// As [`EvaluationPlan::new`] and [`evaluate`].
pub fn evaluate_one<O: Ops>(
    ops: &mut O,
    x: &O::Ct,
    polynomial: &Chebyshev,
    input: InputMap,
) -> Result<O::Ct, CircuitError> {
    let plan = EvaluationPlan::new(std::slice::from_ref(polynomial), input)?;
    evaluate(ops, x, &plan)?
        .pop()
        .ok_or_else(|| CircuitError::shape(NAME, "the plan has no output"))
}

struct Run<'a, O: Ops> {
    ops: &'a mut O,
    /// Level of the normalized input.
    level: usize,
    /// `T_k` at index `k`; index 0 stays empty, it is the constant 1.
    basis: Vec<Option<O::Ct>>,
}

impl<O: Ops> Run<'_, O> {
    fn chebyshev(&self, k: usize) -> Result<O::Ct, CircuitError> {
        self.basis.get(k).cloned().flatten().ok_or_else(|| {
            CircuitError::shape(NAME, format!("the plan uses T_{k} before it is made"))
        })
    }

    fn extend(&mut self, step: BasisStep) -> Result<(), CircuitError> {
        let (left, right) = (self.chebyshev(step.left)?, self.chebyshev(step.right)?);
        let level = self.ops.level(&left).min(self.ops.level(&right));
        let left = self.ops.drop_to(&left, level)?;
        let right = self.ops.drop_to(&right, level)?;
        // Doubled before the product, not after it: so the rescale's noise is not doubled.
        let twice = self.ops.add(&right, &right)?;
        let doubled = self.ops.mul(&left, &twice)?;
        let value = match step.subtrahend() {
            0 => plus_constant(self.ops, &doubled, -1.0)?,
            k => {
                let goal = (self.ops.level(&doubled), self.ops.scale(&doubled));
                let other = self.chebyshev(k)?;
                let other = bring_to(self.ops, &other, goal)?;
                self.ops.sub(&doubled, &other)?
            }
        };
        self.ops.promise(&value, 1.0);
        if self.basis.len() <= step.index {
            self.basis.resize(step.index + 1, None);
        }
        if let Some(slot) = self.basis.get_mut(step.index) {
            *slot = Some(value);
        }
        Ok(())
    }

    fn output(&mut self, node: &Node, scale: Option<Scale>) -> Result<O::Ct, CircuitError> {
        let scale = match (node.depth, scale) {
            (0, _) => self.ops.scale(&self.chebyshev(1)?),
            (_, Some(scale)) => scale,
            (depth, None) => self.ops.params().scale_at(self.level_at(depth)),
        };
        self.node(node, scale)
    }

    fn level_at(&self, depth: usize) -> usize {
        self.level.saturating_sub(depth)
    }

    /// The value of `node` at exactly `scale` (before the step that `scale` is reached by).
    fn node(&mut self, node: &Node, scale: Scale) -> Result<O::Ct, CircuitError> {
        let goal = (self.level_at(node.depth), scale);
        let linear = self.linear(node, goal)?;
        let products = self.products(node, goal)?;
        let sum = match (products, linear) {
            (Some(a), Some(b)) => self.ops.add(&a, &b)?,
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => {
                // A constant polynomial: an encryption of zero to add it to.
                let x = self.chebyshev(1)?;
                let zero = self.ops.sub(&x, &x)?;
                bring_to(self.ops, &zero, goal)?
            }
        };
        if node.constant == 0.0 {
            return Ok(sum);
        }
        plus_constant(self.ops, &sum, node.constant)
    }

    fn linear(&mut self, node: &Node, goal: (usize, Scale)) -> Result<Option<O::Ct>, CircuitError> {
        let mut terms = Vec::with_capacity(node.linear.len());
        for &(k, c) in &node.linear {
            let t = self.chebyshev(k)?;
            terms.push(scaled(self.ops, &t, c, (goal.0 + 1, goal.1))?);
        }
        if terms.is_empty() {
            return Ok(None);
        }
        let terms: Vec<_> = terms.iter().map(|(t, c)| (t, c)).collect();
        let sum = self.ops.mul_plain_sum(&terms)?;
        Ok(Some(self.ops.rescale(&sum)?))
    }

    fn products(
        &mut self,
        node: &Node,
        (level, scale): (usize, Scale),
    ) -> Result<Option<O::Ct>, CircuitError> {
        let mut factors = Vec::with_capacity(node.products.len());
        for (quotient, g) in &node.products {
            let t = self.chebyshev(*g)?;
            let t = self.ops.drop_to(&t, level + 1)?;
            let wanted =
                before_rescale(self.ops, level + 1, scale).divide(self.ops.scale(&t).value());
            factors.push((self.node(quotient, wanted)?, t));
        }
        if factors.is_empty() {
            return Ok(None);
        }
        let pairs: Vec<_> = factors.iter().map(|(q, t)| (q, t)).collect();
        Ok(Some(self.ops.mul_sum(&pairs)?))
    }
}

/// The scale at `level` that the rescale to `level - 1` turns into `scale`.
fn before_rescale<O: Ops>(ops: &O, level: usize, scale: Scale) -> Scale {
    let params = ops.params();
    let step = params.step_at(level);
    scale
        .multiply(params.product(step.drop))
        .divide(params.product(step.add))
}

/// `ct` at `level`, and `constant` to multiply it with such that the rescale gives exactly `scale`.
fn scaled<O: Ops>(
    ops: &mut O,
    ct: &O::Ct,
    constant: f64,
    (level, scale): (usize, Scale),
) -> Result<(O::Ct, O::Plain), CircuitError> {
    let dropped = ops.drop_to(ct, level)?;
    let factor = before_rescale(ops, level, scale).divide(ops.scale(&dropped).value());
    let plain = ops.plain(&real(constant), level, factor)?;
    Ok((dropped, plain))
}

/// `constant * ct` at `level`, not rescaled, such that the rescale gives exactly `scale`.
fn times_constant<O: Ops>(
    ops: &mut O,
    ct: &O::Ct,
    constant: f64,
    goal: (usize, Scale),
) -> Result<O::Ct, CircuitError> {
    let (dropped, plain) = scaled(ops, ct, constant, goal)?;
    Ok(ops.mul_plain(&dropped, &plain)?)
}

fn plus_constant<O: Ops>(ops: &mut O, ct: &O::Ct, constant: f64) -> Result<O::Ct, CircuitError> {
    let (level, scale) = (ops.level(ct), ops.scale(ct));
    let plain = ops.plain(&real(constant), level, scale)?;
    Ok(ops.add_plain(ct, &plain)?)
}

/// The same value at exactly this level and scale; the identity if it is there already.
fn bring_to<O: Ops>(
    ops: &mut O,
    ct: &O::Ct,
    (level, scale): (usize, Scale),
) -> Result<O::Ct, CircuitError> {
    if ops.level(ct) == level && ops.scale(ct).matches(scale) {
        return Ok(ct.clone());
    }
    let scaled = times_constant(ops, ct, 1.0, (level + 1, scale))?;
    Ok(ops.rescale(&scaled)?)
}

fn real(constant: f64) -> SlotVector {
    SlotVector::Constant(Complex::new(constant, 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ClearCounts, ClearOps, toy_params};
    use proptest::prelude::*;
    use veilformer_ckks::Params;

    /// Runs a plan in the clear; checks levels, scales, counts; returns the largest error.
    fn check(
        params: &Params,
        polynomials: &[Chebyshev],
        plan: &EvaluationPlan,
        map: InputMap,
    ) -> f64 {
        let mut ops = ClearOps::new(params);
        let level = params.max_level();
        let (a, b) = polynomials[0].interval();
        let n = params.slots();
        let xs: Vec<f64> = (0..n)
            .map(|i| a + (b - a) * i as f64 / (n - 1) as f64)
            .collect();
        let fed: Vec<f64> = match map {
            InputMap::Affine => xs.clone(),
            InputMap::Absorbed => xs.iter().map(|x| (2.0 * x - a - b) / (b - a)).collect(),
        };
        let x = ops.encrypt(&SlotVector::real(&fed), level).unwrap();
        let outputs = evaluate(&mut ops, &x, plan).unwrap();
        let c = plan.counts();
        let expected = ClearCounts {
            relinearizations: c.relinearizations,
            products: c.products,
            plain_products: c.plain_products,
            rescales: c.rescales,
            ..ClearCounts::default()
        };
        assert_eq!(ops.counts(), expected);
        let mut worst: f64 = 0.0;
        for (y, p) in outputs.iter().zip(polynomials) {
            assert_eq!(ops.level(y), level - plan.depth());
            assert!(ops.scale(y).matches(params.scale_at(level - plan.depth())));
            for (x, z) in xs.iter().zip(ops.decrypt(y)) {
                worst = worst.max(
                    (z.re - p.evaluate(*x)).abs().max(z.im.abs()) / p.magnitude_bound().max(1.0),
                );
            }
        }
        worst
    }

    fn irregular(k: usize) -> f64 {
        ((k + 1) as f64).sqrt().fract() - 0.45
    }

    #[test]
    fn every_degree_up_to_63_at_optimal_depth() {
        let params = toy_params(7);
        for degree in 0..=63usize {
            for interval in [(-1.0, 1.0), (-3.0, 5.0)] {
                let p = Chebyshev::new((0..=degree).map(irregular).collect(), interval).unwrap();
                let plan = EvaluationPlan::new(std::slice::from_ref(&p), InputMap::Affine).unwrap();
                let map = usize::from(interval.0 != -1.0 && degree > 0);
                assert_eq!(
                    plan.depth(),
                    (degree as f64 + 1.0).log2().ceil() as usize + map
                );
                let error = check(&params, &[p], &plan, InputMap::Affine);
                assert!(error < 1e-7, "degree {degree}: {error:e}");
            }
        }
    }

    #[test]
    fn several_polynomials_odd_even_constant_and_slack() {
        let params = toy_params(8);
        let interval = (-2.0, 2.0);
        let odd = Chebyshev::fit(f64::tanh, 23, interval).unwrap();
        let even = Chebyshev::fit(f64::cosh, 16, interval).unwrap();
        let mixed = Chebyshev::fit(f64::exp, 27, interval).unwrap();
        let constant = Chebyshev::new(vec![0.75], interval).unwrap();
        let all = [odd, even, mixed, constant];
        for depth in [None, Some(7), Some(8)] {
            let plan = EvaluationPlan::with_depth(&all, InputMap::Affine, depth).unwrap();
            let error = check(&params, &all, &plan, InputMap::Affine);
            assert!(error < 1e-7, "{error:e}");
        }
        let plan = EvaluationPlan::new(&all, InputMap::Absorbed).unwrap();
        assert_eq!(plan.depth(), 5);
        assert!(check(&params, &all, &plan, InputMap::Absorbed) < 1e-7);
    }

    #[test]
    fn any_scale_goes_in_and_the_canonical_one_comes_out() {
        let params = toy_params(5);
        let mut ops = ClearOps::new(&params);
        let p = Chebyshev::fit(f64::sin, 13, (-1.0, 1.0)).unwrap();
        let slots = SlotVector::real_constant(0.6);
        let x = ops
            .encrypt_at(&slots, 5, params.scale_at(5).multiply(1.37))
            .unwrap();
        let y = evaluate_one(&mut ops, &x, &p, InputMap::Affine).unwrap();
        assert_eq!(ops.level(&y), 1);
        assert!(ops.scale(&y).matches(params.scale_at(1)));
        assert!((ops.decrypt(&y)[0].re - 0.6f64.sin()).abs() < 1e-8);
    }

    #[test]
    fn a_chosen_scale_comes_out() {
        let params = toy_params(5);
        let mut ops = ClearOps::new(&params);
        let x = ops.encrypt(&SlotVector::real_constant(0.6), 5).unwrap();
        let plan = |c: Vec<f64>| {
            let p = Chebyshev::new(c, (-1.0, 1.0)).unwrap();
            EvaluationPlan::new(&[p], InputMap::Affine).unwrap()
        };
        let scale = params.scale_at(3).multiply(0.71);
        let y = evaluate_to(&mut ops, &x, &plan(vec![0.0, 0.0, 1.0, 0.5]), scale).unwrap();
        assert!(ops.level(&y) == 3 && ops.scale(&y).matches(scale));
        // T_2 + T_3/2 at 0.6.
        assert!((ops.decrypt(&y)[0].re + 0.748).abs() < 1e-8);
        assert!(evaluate_to(&mut ops, &x, &plan(vec![0.3]), scale).is_err());
    }

    #[test]
    fn too_few_levels_are_refused() {
        let params = toy_params(3);
        let mut ops = ClearOps::new(&params);
        let p = Chebyshev::fit(f64::exp, 8, (-1.0, 1.0)).unwrap();
        let x = ops.encrypt(&SlotVector::real_constant(0.1), 3).unwrap();
        let e = evaluate_one(&mut ops, &x, &p, InputMap::Affine);
        assert!(matches!(
            e,
            Err(CircuitError::Levels {
                level: 3,
                needed: 4,
                ..
            })
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn random_polynomials(
            c in prop::collection::vec(prop_oneof![3 => -1.0..1.0f64, 1 => Just(0.0)], 1..40),
            d in prop::collection::vec(-1.0..1.0f64, 1..40),
            a in -4.0..4.0f64, w in 0.5..8.0f64, spare in 0usize..2,
        ) {
            let params = toy_params(8);
            let all = [Chebyshev::new(c, (a, a + w)).unwrap(), Chebyshev::new(d, (a, a + w)).unwrap()];
            let least = EvaluationPlan::new(&all, InputMap::Affine).unwrap().depth();
            let plan = EvaluationPlan::with_depth(&all, InputMap::Affine, Some(least + spare)).unwrap();
            let error = check(&params, &all, &plan, InputMap::Affine);
            prop_assert!(error < 1e-6, "{error:e}");
        }
    }
}
