//! The bootstrap as a circuit on [`Ops`]: SlotToCoeff, ModRaise, CoeffToSlot, EvalMod.

use std::ops::ControlFlow;

use veilformer_ckks::noise::NoiseModel;
use veilformer_ckks::{Complex, Ops, OpsError, Params, Scale, SecretKind, SlotVector, Transform};

use super::dft::{Diagonals, coeff_to_slot, slot_to_coeff};
use super::estimate::{NoiseEstimate, estimate};
use super::eval_mod::EvalMod;
use super::factor::Factor;
use super::noise::{BootstrapSpec, InverseSine, Order};
use crate::CircuitError;
use crate::polynomial::evaluate_to;

const NAME: &str = "bootstrap";

/// Most baby steps of a factor of SlotToCoeff. A baby step costs a quarter of a giant one there
/// (one digit, more special primes than others), and its key few limbs.
const LOW_BABIES: usize = 16;

/// The same of CoeffToSlot, whose keys have all limbs: eight would take 1.1 GiB less (10 levels,
/// packed) for a tenth more time.
const HIGH_BABIES: usize = 16;

/// By how much a slot may exceed 1: what noise and rounding add to values that are meant to be at
/// most 1. Beyond 1 nothing breaks at once; the error of the sine grows with a power of the slot.
pub const RANGE_MARGIN: f64 = 1.0 / 1024.0;

/// What the slots hold.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Content {
    /// A complex number in each of the N/2 slots, both parts within [-1, 1].
    Complex,
    /// A real number in each of the N/2 slots: EvalMod runs once instead of twice.
    Real,
    /// Real numbers that repeat with this period, a power of two of at most N/4: the transforms
    /// are those of a ring with as many coefficients, and EvalMod runs once.
    Periodic(usize),
}

impl Content {
    /// Whether bootstraps of one specification with this content and the other have the same plaintexts:
    /// complex and real content differ in EvalMod alone.
    #[must_use]
    pub fn shares_plaintexts(self, other: Self) -> bool {
        let full = |content| !matches!(content, Self::Periodic(_));
        self == other || full(self) && full(other)
    }
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
/// (down from [`BootstrapPlan::output_level`]), then `SlotToCoeff` (down from
/// [`BootstrapPlan::input_level`] to 0).
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
            slot_to_coeff: to_coeff
                .into_iter()
                .map(|m| Factor::new(m, LOW_BABIES))
                .collect(),
            coeff_to_slot: to_slot
                .into_iter()
                .map(|m| Factor::new(m, HIGH_BABIES))
                .collect(),
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

    /// The noise that is predicted, that of the chain's key switches included.
    ///
    /// # Errors
    /// None of a plan that exists: as [`BootstrapSpec::validate`].
    pub fn noise(&self) -> Result<NoiseEstimate, CircuitError> {
        let model = NoiseModel::new(&self.params, SecretKind::DenseTernary);
        let level = self.output_level + self.eval_mod.depth();
        estimate(&BootstrapSpec {
            key_switch_multiple: (model.key_switch(level) / model.division()).sqrt(),
            ..self.spec
        })
    }

    /// The largest error that is predicted of any slot's part: noise in the median of its largest
    /// values over all slots, and what is left of the sine.
    ///
    /// # Errors
    /// As [`BootstrapPlan::noise`].
    pub fn error(&self) -> Result<f64, CircuitError> {
        let noise = self.noise()?;
        Ok((-noise.worst_bits).exp2() + noise.sine_error)
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

    /// The bootstraps of a table of plans; entries of one specification share what they can
    /// ([`Content::shares_plaintexts`]).
    ///
    /// # Errors
    /// As [`BootstrapPlan::encode`].
    pub fn encode_table<O: Ops>(
        plans: &[Self],
        ops: &mut O,
    ) -> Result<Vec<Bootstrap<O::Plain>>, CircuitError> {
        let mut table: Vec<Bootstrap<O::Plain>> = Vec::with_capacity(plans.len());
        for plan in plans {
            let known = table.iter().find(|b| {
                b.plan.spec == plan.spec && b.plan.content.shares_plaintexts(plan.content)
            });
            let entry = match known {
                Some(known) => Bootstrap {
                    plan: plan.clone(),
                    ..known.clone()
                },
                None => plan.encode(ops)?,
            };
            table.push(entry);
        }
        Ok(table)
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
        self.run_divided(ops, ct, 1.0, observer)
    }

    /// The values over `divisor`.
    fn run_divided<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        ct: &O::Ct,
        divisor: f64,
        observer: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<O::Ct, CircuitError> {
        let gain = self.plan.gain() / divisor;
        let x = self.at_input_level(ops, ct)?;
        let complex = self.plan.content == Content::Complex;
        let (re, im) = self.parts(ops, &x, (gain, complex), observer)?;
        let re = relabelled(ops, &re, ONE, gain)?;
        let Some(im) = im else { return Ok(re) };
        let im = relabelled(ops, &im, I, gain)?;
        Ok(ops.add(&re, &im)?)
    }

    /// One value as [`Bootstrap::run`], or two real ones as the parts of a complex one: results in
    /// the order of the inputs. EvalMod has the parts apart in any case, so that a pair costs no
    /// more than a complex value.
    ///
    /// # Errors
    /// As [`Bootstrap::run`]; another number of inputs, or a pair where the content is not complex.
    pub fn run_many<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        inputs: &[&O::Ct],
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let (a, b) = match inputs {
            [one] => return Ok(vec![self.run(ops, one)?]),
            [a, b] if self.plan.content == Content::Complex => (a, b),
            _ => {
                let what = format!(
                    "{} values for content {:?}; expected one, or two where it is complex",
                    inputs.len(),
                    self.plan.content
                );
                return Err(CircuitError::shape(NAME, what));
            }
        };
        let (a, b) = (self.at_input_level(ops, a)?, self.at_input_level(ops, b)?);
        let b = times_integer(ops, &b, I)?;
        let x = ops.add(&a, &b)?;
        let gain = self.plan.gain();
        let go = &mut |_| ControlFlow::Continue(());
        let (re, im) = self.parts(ops, &x, (gain, true), go)?;
        let im = im.ok_or_else(|| CircuitError::shape(NAME, "a pair without a second part"))?;
        Ok(vec![
            relabelled(ops, &re, ONE, gain)?,
            relabelled(ops, &im, ONE, gain)?,
        ])
    }

    /// The bootstrap of two real values as [`Bootstrap::run_many`] does it; with content other than
    /// complex one after the other.
    ///
    /// # Errors
    /// As [`Bootstrap::run`]; operands of different levels or scales.
    pub fn run_pair<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        pair: [&O::Ct; 2],
    ) -> Result<[O::Ct; 2], CircuitError> {
        if self.plan.content != Content::Complex {
            return Ok([self.run(ops, pair[0])?, self.run(ops, pair[1])?]);
        }
        let both = self.run_many(ops, &pair)?;
        both.try_into()
            .map_err(|_| CircuitError::shape(NAME, "a pair without a second part"))
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
        let gain = self.plan.gain();
        let x = self.at_input_level(ops, ct)?;
        let go = &mut |_| ControlFlow::Continue(());
        let (re, _) = self.parts(ops, &x, (gain, false), go)?;
        relabelled(ops, &re, ONE, gain)
    }

    /// The real and, if `complex`, the imaginary part, before their output factor `gain`.
    fn parts<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        x: &O::Ct,
        (gain, complex): (f64, bool),
        observer: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<(O::Ct, Option<O::Ct>), CircuitError> {
        let mut begin = |stage| match observer(stage) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(CircuitError::Stopped { circuit: NAME }),
        };
        let plan = &self.plan;
        begin(Stage::SlotToCoeff)?;
        let mut x = self.slots_to_coefficients(ops, x)?;
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
        let re = self.eval_mod(ops, &re, gain)?;
        if !complex {
            return Ok((re, None));
        }
        begin(Stage::EvalMod)?;
        let im = ops.sub(&x, &conjugate)?;
        let im = times_integer(ops, &im, -I)?;
        let im = self.eval_mod(ops, &im, gain)?;
        Ok((re, Some(im)))
    }

    fn at_input_level<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        ct: &O::Ct,
    ) -> Result<O::Ct, CircuitError> {
        let level = ops.level(ct);
        if level < self.plan.input_level {
            return Err(CircuitError::Levels {
                circuit: NAME,
                level,
                needed: self.plan.input_level,
            });
        }
        Ok(ops.adjust(ct, self.plan.input_level)?)
    }

    /// Two bootstraps, the second of what the first one is wrong by, enlarged by `2^bits`
    /// (Bae, Cheon, Cho, Kim, Kim, "META-BTS", ePrint 2022/1167): the error of a bootstrap becomes
    /// `2^-bits` of it, down to what is lost by the rescales at the ordinary scale. `bits` less than
    /// the bits of the worst slot.
    ///
    /// # Errors
    /// As [`Bootstrap::run_observed`].
    pub fn run_twice<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        ct: &O::Ct,
        bits: u32,
        observer: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<O::Ct, CircuitError> {
        let first = self.run_observed(ops, ct, observer)?;
        let level = self.plan.input_level;
        let (wanted, had) = (ops.adjust(ct, level)?, ops.adjust(&first, level)?);
        let rest = ops.sub(&wanted, &had)?;
        let enlarged = f64::from(bits).exp2();
        let large = times_integer(ops, &rest, Complex::new(enlarged, 0.0))?;
        let second = self.run_divided(ops, &large, enlarged, observer)?;
        Ok(ops.add(&first, &second)?)
    }

    fn slots_to_coefficients<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        ct: &O::Ct,
    ) -> Result<O::Ct, CircuitError> {
        let plan = &self.plan;
        let lowered = ops.drop_to(ct, self.slot_to_coeff.len())?;
        let mut x = ops.rotate(&lowered, plan.turn)?;
        for factor in &self.slot_to_coeff {
            x = ops.nested_transform(&[&x], factor)?;
        }
        Ok(x)
    }

    /// EvalMod up to its output factor `gain`, at the scale that makes the output's come out.
    fn eval_mod<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        x: &O::Ct,
        gain: f64,
    ) -> Result<O::Ct, CircuitError> {
        let plan = &self.plan;
        let e = &plan.eval_mod;
        let params = ops.params().clone();
        let divisor = |level: usize| {
            let step = params.step_at(level);
            params.product(step.drop) / params.product(step.add)
        };
        // From the output up: what each product's operands must be scaled by.
        let mut level = plan.output_level;
        let mut scale = params.scale_at(plan.output_level).value() * gain;
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
}

const ONE: Complex = Complex::new(1.0, 0.0);
const I: Complex = Complex::new(0.0, 1.0);

/// The product with an integer or i times one: exact, no level.
fn times_integer<O: Ops>(ops: &mut O, ct: &O::Ct, factor: Complex) -> Result<O::Ct, CircuitError> {
    let level = ops.level(ct);
    let plain = ops.plain(&SlotVector::Constant(factor), level, Scale::power_of_two(0))?;
    Ok(ops.mul_plain(ct, &plain)?)
}

/// `gain` times a power of i times the value, by reading it at a scale that is smaller by as much:
/// exact, no level.
fn relabelled<O: Ops>(
    ops: &mut O,
    ct: &O::Ct,
    unit: Complex,
    gain: f64,
) -> Result<O::Ct, CircuitError> {
    let scale = Scale::new(1.0 / gain).map_err(OpsError::from)?;
    let plain = ops.plain(&SlotVector::Constant(unit * gain), ops.level(ct), scale)?;
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
