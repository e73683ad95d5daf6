//! The bootstrap as a circuit on [`Ops`]: SlotToCoeff, ModRaise, CoeffToSlot, EvalMod.

use std::ops::ControlFlow;

use veilformer_ckks::{
    Complex, Ops, OpsError, Params, Scale, SlotVector, Transform, pairing::join,
};

use super::dft::{Diagonals, coeff_to_slot, slot_to_coeff};
use super::eval_mod::EvalMod;
use super::factor::Factor;
use super::noise::{BootstrapSpec, InverseSine, Order};
use crate::CircuitError;
use crate::polynomial::evaluate_to;

const NAME: &str = "bootstrap";

/// What the slots hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// A complex number in each of the N/2 slots, both parts within [-1, 1].
    Complex,
    /// A real number in each of the N/2 slots: EvalMod runs once instead of twice.
    Real,
    /// Real numbers that repeat with this period, a power of two of at most N/4: the transforms
    /// are those of a ring with as many coefficients, and EvalMod runs once.
    Periodic(usize),
}

/// The steps of a bootstrap, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Slots become coefficients.
    SlotToCoeff,
    /// Multiples of q0 come in.
    ModRaise,
    /// The projection onto the content's ring.
    Trace,
    /// Coefficients become slots, real and imaginary parts apart.
    CoeffToSlot,
    /// Multiples of q0 go.
    EvalMod,
}

/// A bootstrap for one set of parameters, before anything is encoded.
///
/// Levels, from the top: `CoeffToSlot`, `EvalMod`, then the levels that the bootstrap gives back
/// (down from [`Bootstrap::output_level`]), then `SlotToCoeff` (down from
/// [`Bootstrap::input_level`] to 0).
#[derive(Clone, Debug)]
pub struct BootstrapPlan {
    params: Params,
    spec: BootstrapSpec,
    content: Content,
    /// Scale of the message at level 0: q0 / 2^r.
    bottom: Scale,
    /// q0 over it.
    ratio: f64,
    eval_mod: EvalMod,
    /// Rotation of the input that the transforms' own rotations undo.
    turn: i64,
    slot_to_coeff: Vec<Factor>,
    coeff_to_slot: Vec<Factor>,
    /// Rotations whose sum projects onto the polynomials of the content's ring.
    trace: Vec<i64>,
    input_level: usize,
    /// Where CoeffToSlot starts.
    raised_level: usize,
    output_level: usize,
}

/// A bootstrap with its plaintexts.
#[derive(Clone, Debug)]
pub struct Bootstrap<Pl> {
    plan: BootstrapPlan,
    slot_to_coeff: Vec<Transform<Pl>>,
    coeff_to_slot: Vec<Transform<Pl>>,
}

impl BootstrapPlan {
    /// Lays a bootstrap out on the levels of `params` (see [`veilformer_ckks::Ladder`]).
    ///
    /// # Errors
    /// Levels that the steps do not fit, a period that does not fit the slots, or what
    /// [`BootstrapSpec::validate`] says.
    pub fn new(
        params: &Params,
        spec: &BootstrapSpec,
        content: Content,
    ) -> Result<Self, CircuitError> {
        spec.validate()?;
        let shape = |what: String| Err(CircuitError::shape(NAME, what));
        if spec.order != Order::SlotToCoeffFirst {
            return shape("only the order that starts with SlotToCoeff has a circuit".to_owned());
        }
        if spec.log_n != params.log_n() {
            return shape(format!(
                "the specification is for a ring of 2^{}, the parameters' is 2^{}",
                spec.log_n,
                params.log_n()
            ));
        }
        let slots = params.slots();
        let points = match content {
            Content::Complex | Content::Real => slots,
            Content::Periodic(period) if period.is_power_of_two() && period <= slots / 2 => {
                // A pair of real numbers makes one complex one.
                (period / 2).max(1)
            }
            Content::Periodic(period) => {
                return shape(format!(
                    "the period is {period}, expected a power of two up to {}",
                    slots / 2
                ));
            }
        };
        let eval_mod = EvalMod::new(spec)?;
        let middle = params.middle();
        let (input_level, output_level) = (*middle.start(), *middle.end());
        let depth = eval_mod.depth();
        let above = params.max_level() - output_level;
        if input_level == 0 || above <= depth {
            return shape(format!(
                "{input_level} levels below and {above} above the ordinary ones; SlotToCoeff needs \
                 at least 1 below, CoeffToSlot and EvalMod at least {} above",
                depth + 1
            ));
        }
        let stages = points.trailing_zeros() as usize;
        let full = slots.trailing_zeros() as usize;
        // A smaller transform takes its share of the levels.
        let share = |levels: usize| (levels * stages).div_ceil(full).clamp(1, levels);
        let (low, high) = (share(input_level), share(above - depth));
        let mut to_coeff = slot_to_coeff(points, low);
        let mut to_slot = coeff_to_slot(points, high);
        if let (Content::Periodic(period @ 2..), Some(first), Some(last)) =
            (content, to_coeff.first_mut(), to_slot.last_mut())
        {
            *first = first.after(&pairing(period));
            *last = last.rows_times(period, |j| if j % period < points { ONE } else { -I });
        }
        // q0 from which the message is taken, and its share for a slot of 1.
        let q0 = params.product(params.basis_at(0));
        let bottom =
            Scale::new(q0 / f64::from(spec.message_ratio_bits).exp2()).map_err(OpsError::from)?;
        let turn = straighten(&mut to_coeff, &mut to_slot);
        let mut trace = Vec::new();
        let mut by = points;
        while by < slots {
            trace.push(by as i64);
            by *= 2;
        }
        Ok(Self {
            params: params.clone(),
            spec: *spec,
            content,
            bottom,
            ratio: f64::from(spec.message_ratio_bits).exp2(),
            eval_mod,
            turn,
            slot_to_coeff: to_coeff.into_iter().map(Factor::new).collect(),
            coeff_to_slot: to_slot.into_iter().map(Factor::new).collect(),
            trace,
            input_level,
            raised_level: output_level + depth + high,
            output_level,
        })
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// What decides the noise.
    #[must_use]
    pub fn spec(&self) -> &BootstrapSpec {
        &self.spec
    }

    /// What the slots hold.
    #[must_use]
    pub fn content(&self) -> Content {
        self.content
    }

    /// The lowest level of an input.
    #[must_use]
    pub fn input_level(&self) -> usize {
        self.input_level
    }

    /// The level of the output.
    #[must_use]
    pub fn output_level(&self) -> usize {
        self.output_level
    }

    /// Levels that a bootstrap gives: from [`BootstrapPlan::output_level`] down to
    /// [`BootstrapPlan::input_level`].
    #[must_use]
    pub fn useful_levels(&self) -> usize {
        self.output_level - self.input_level
    }

    /// Encodes the matrices.
    ///
    /// # Errors
    /// What [`Ops::plain`] refuses.
    pub fn encode<O: Ops>(&self, ops: &mut O) -> Result<Bootstrap<O::Plain>, CircuitError> {
        let mut scale = self.params.scale_at(self.input_level);
        let mut to_coeff = Vec::with_capacity(self.slot_to_coeff.len());
        let mut level = self.slot_to_coeff.len();
        for factor in &self.slot_to_coeff {
            let goal = (level, self.factor_scale(scale, level, self.bottom));
            to_coeff.push(factor.encode(ops, 1.0, goal)?);
            scale = self.bottom;
            level -= 1;
        }
        // What CoeffToSlot multiplies with in all: from the message's scale to multiples of q0, the
        // sum over the trace, the conjugate's addition, and EvalMod's range.
        let count = self.coeff_to_slot.len();
        let copies = (1usize << self.trace.len()) as f64;
        let all = 1.0 / (self.ratio * copies * 2.0 * self.eval_mod.range());
        let each = all.powf(1.0 / count.max(1) as f64);
        let mut to_slot = Vec::with_capacity(count);
        level = self.raised_level;
        for factor in &self.coeff_to_slot {
            let target = self.params.scale_at(level - 1);
            let goal = (level, self.factor_scale(scale, level, target));
            to_slot.push(factor.encode(ops, each, goal)?);
            scale = target;
            level -= 1;
        }
        Ok(Bootstrap {
            plan: self.clone(),
            slot_to_coeff: to_coeff,
            coeff_to_slot: to_slot,
        })
    }

    /// The scale of plaintexts that bring a ciphertext from `from` at `level` to `to` one below.
    fn factor_scale(&self, from: Scale, level: usize, to: Scale) -> Scale {
        let step = self.params.step_at(level);
        to.multiply(self.params.product(step.drop))
            .divide(self.params.product(step.add))
            .divide(from.value())
    }
}

impl<Pl: Clone> Bootstrap<Pl> {
    /// The layout.
    #[must_use]
    pub fn plan(&self) -> &BootstrapPlan {
        &self.plan
    }

    /// The same values at [`BootstrapPlan::output_level`] and its canonical scale.
    ///
    /// All slots must lie in [-1, 1] (both parts, for complex content), junk and padding included: a
    /// value outside comes out wrong without notice, and one whose coefficients leave the range that
    /// EvalMod covers spoils all slots.
    ///
    /// # Errors
    /// A level below [`BootstrapPlan::input_level`], missing keys, or what the operations refuse.
    pub fn run<O: Ops<Plain = Pl>>(&self, ops: &mut O, ct: &O::Ct) -> Result<O::Ct, CircuitError> {
        self.run_observed(ops, ct, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`Bootstrap::run`]; `observer` is told of each step before it begins, and stops the run
    /// with `Break`.
    ///
    /// # Errors
    /// As [`Bootstrap::run`], or [`CircuitError::Stopped`].
    pub fn run_observed<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        ct: &O::Ct,
        observer: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<O::Ct, CircuitError> {
        let complex = self.plan.content == Content::Complex;
        let (re, im) = self.parts(ops, ct, complex, observer)?;
        let re = self.relabelled(ops, &re, ONE)?;
        let Some(im) = im else { return Ok(re) };
        let im = self.relabelled(ops, &im, I)?;
        Ok(ops.add(&re, &im)?)
    }

    /// The bootstrap of `re + i im` for two real ciphertexts, as two ciphertexts: its parts are there
    /// one by one before they are joined. With content other than complex the second one is
    /// bootstrapped after the first.
    ///
    /// # Errors
    /// As [`Bootstrap::run`]; operands of different levels or scales.
    pub fn run_pair<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        [re, im]: [&O::Ct; 2],
    ) -> Result<[O::Ct; 2], CircuitError> {
        if self.plan.content != Content::Complex {
            return Ok([self.run_real(ops, re)?, self.run_real(ops, im)?]);
        }
        let joined = join(ops, re, im)?;
        let go = &mut |_| ControlFlow::Continue(());
        let (re, im) = self.parts(ops, &joined, true, go)?;
        let missing = || CircuitError::shape(NAME, "no imaginary part");
        let im = im.ok_or_else(missing)?;
        Ok([
            self.relabelled(ops, &re, ONE)?,
            self.relabelled(ops, &im, ONE)?,
        ])
    }

    /// The real part alone: EvalMod runs once, whatever the content is.
    ///
    /// # Errors
    /// As [`Bootstrap::run`].
    pub fn run_real<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        ct: &O::Ct,
    ) -> Result<O::Ct, CircuitError> {
        let go = &mut |_| ControlFlow::Continue(());
        let (re, _) = self.parts(ops, ct, false, go)?;
        self.relabelled(ops, &re, ONE)
    }

    /// Real and, if `complex`, imaginary part, to be read at the output's scale.
    fn parts<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        ct: &O::Ct,
        complex: bool,
        observer: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<(O::Ct, Option<O::Ct>), CircuitError> {
        let mut begin = |stage| match observer(stage) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(CircuitError::Stopped { circuit: NAME }),
        };
        let plan = &self.plan;
        begin(Stage::SlotToCoeff)?;
        let mut x = self.slots_to_coefficients(ops, ct)?;
        begin(Stage::ModRaise)?;
        x = ops.mod_raise(&x)?;
        x = ops.drop_to(&x, plan.raised_level)?;
        begin(Stage::Trace)?;
        for &by in &plan.trace {
            let turned = ops.rotate(&x, by)?;
            x = ops.add(&x, &turned)?;
        }
        begin(Stage::CoeffToSlot)?;
        for factor in &self.coeff_to_slot {
            x = ops.nested_transform(&[&x], factor)?;
        }
        let conjugate = ops.conjugate(&x)?;
        let re = ops.add(&x, &conjugate)?;
        begin(Stage::EvalMod)?;
        let re = self.eval_mod(ops, &re)?;
        if !complex {
            return Ok((re, None));
        }
        begin(Stage::EvalMod)?;
        let im = ops.sub(&x, &conjugate)?;
        let im = unit(ops, &im, -I)?;
        Ok((re, Some(self.eval_mod(ops, &im)?)))
    }

    fn slots_to_coefficients<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        ct: &O::Ct,
    ) -> Result<O::Ct, CircuitError> {
        let plan = &self.plan;
        let level = ops.level(ct);
        if level < plan.input_level {
            return Err(CircuitError::Levels {
                circuit: NAME,
                level,
                needed: plan.input_level,
            });
        }
        let lowered = ops.adjust(ct, plan.input_level)?;
        let lowered = ops.drop_to(&lowered, self.slot_to_coeff.len())?;
        let mut x = ops.rotate(&lowered, plan.turn)?;
        for factor in &self.slot_to_coeff {
            x = ops.nested_transform(&[&x], factor)?;
        }
        Ok(x)
    }

    /// EvalMod up to its output factor, at the scale that makes the output's come out.
    fn eval_mod<O: Ops<Plain = Pl>>(&self, ops: &mut O, x: &O::Ct) -> Result<O::Ct, CircuitError> {
        let plan = &self.plan;
        let e = &plan.eval_mod;
        let params = ops.params().clone();
        let divisor = |level: usize| {
            let step = params.step_at(level);
            params.product(step.drop) / params.product(step.add)
        };
        // From the output up: what each product's operands must be scaled by.
        let mut level = plan.output_level;
        let mut scale = plan.output_scale().value();
        if e.inverse_sine() == InverseSine::Degree3 {
            scale = (scale * divisor(level + 1) * divisor(level + 2)).cbrt();
            level += 2;
        }
        for _ in 0..e.double_angles() {
            level += 1;
            scale = (scale * divisor(level)).sqrt();
        }
        let scale = Scale::new(scale).map_err(OpsError::from)?;
        let mut u = evaluate_to(ops, x, e.plan(), scale)?;
        for _ in 0..e.double_angles() {
            let twice = ops.add(&u, &u)?;
            let square = ops.mul(&u, &twice)?;
            u = plus(ops, &square, -1.0)?;
        }
        if e.inverse_sine() == InverseSine::Degree3 {
            // u (c1/c3 + u^2): 1/c3 times what removes the cubic term.
            let (c1, c3) = e.arcsine();
            let square = ops.square(&u)?;
            let factor = plus(ops, &square, c1 / c3)?;
            let low = ops.drop_to(&u, ops.level(&factor))?;
            u = ops.mul(&low, &factor)?;
        }
        Ok(u)
    }

    /// The product with a power of i, read at the output's canonical scale: exact, no level.
    fn relabelled<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        ct: &O::Ct,
        unit: Complex,
    ) -> Result<O::Ct, CircuitError> {
        let gain = self.plan.gain();
        let scale = Scale::new(1.0 / gain).map_err(OpsError::from)?;
        let plain = ops.plain(&SlotVector::Constant(unit * gain), ops.level(ct), scale)?;
        Ok(ops.mul_plain(ct, &plain)?)
    }
}

impl BootstrapPlan {
    /// What EvalMod's result is to be multiplied with to be the message.
    fn gain(&self) -> f64 {
        let cubic = match self.eval_mod.inverse_sine() {
            InverseSine::None => 1.0,
            InverseSine::Degree3 => self.eval_mod.arcsine().1,
        };
        self.eval_mod.gain() * cubic
    }

    /// The scale of EvalMod's result such that the message's is the canonical one.
    fn output_scale(&self) -> Scale {
        self.params
            .scale_at(self.output_level)
            .multiply(self.gain())
    }
}

const ONE: Complex = Complex::new(1.0, 0.0);
const I: Complex = Complex::new(0.0, 1.0);

/// The product with a power of i: exact.
fn unit<O: Ops>(ops: &mut O, ct: &O::Ct, unit: Complex) -> Result<O::Ct, CircuitError> {
    let level = ops.level(ct);
    let plain = ops.plain(&SlotVector::Constant(unit), level, Scale::power_of_two(0))?;
    Ok(ops.mul_plain(ct, &plain)?)
}

fn plus<O: Ops>(ops: &mut O, ct: &O::Ct, constant: f64) -> Result<O::Ct, CircuitError> {
    let (level, scale) = (ops.level(ct), ops.scale(ct));
    let plain = ops.plain(&SlotVector::real_constant(constant), level, scale)?;
    Ok(ops.add_plain(ct, &plain)?)
}

/// Of a real vector of this period, the complex one `v_j + i v_(j + period/2)` of half the period.
fn pairing(period: usize) -> Diagonals {
    let half = period / 2;
    let entries = |low: Complex, high: Complex| {
        (0..period)
            .map(|j| if j < half { low } else { high })
            .collect()
    };
    Diagonals::new(period, [(0, entries(ONE, I)), (half, entries(I, ONE))])
}

/// Takes the rotations out of the factors, so that shifts start at 0: those of CoeffToSlot go
/// behind its last factor and those of SlotToCoeff before its first one. EvalMod acts on every slot
/// alike, so one rotation of the input makes up for all.
fn straighten(to_coeff: &mut [Diagonals], to_slot: &mut [Diagonals]) -> i64 {
    let mut behind = 0;
    for factor in to_slot {
        let seen = factor.seen_after_rotation(behind);
        let start = seen.window_start();
        *factor = seen.without_rotation(start);
        behind += start as i64;
    }
    let mut before = 0;
    for factor in to_coeff.iter_mut().rev() {
        // rot_a M = M' rot_a: seen from the other side.
        let seen = factor.seen_after_rotation(-before);
        let start = seen.window_start();
        let moved = seen.without_rotation(start);
        *factor = moved.seen_after_rotation(-(start as i64));
        before += start as i64;
    }
    before + behind
}
