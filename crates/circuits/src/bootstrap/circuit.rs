//! The bootstrap as a circuit on [`Ops`]: SlotToCoeff, ModRaise, CoeffToSlot, EvalMod, or the first
//! of them as the last.

use std::ops::ControlFlow;

use veilformer_ckks::{Complex, Ops, OpsError, Scale, SlotVector, Transform};

use super::eval_mod::INVERSE_SINE_LEVELS;
use super::noise::InverseSine;
use super::plan::{BootstrapPlan, Content, NAME};
use crate::CircuitError;
use crate::polynomial::evaluate_to;

/// The steps of a bootstrap, in their order where SlotToCoeff comes first.
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

/// A bootstrap with its plaintexts.
#[derive(Clone, Debug)]
pub struct Bootstrap<Pl> {
    plan: BootstrapPlan,
    slot_to_coeff: Vec<Transform<Pl>>,
    coeff_to_slot: Vec<Transform<Pl>>,
    /// Where EvalMod's slots hold both parts of complex ones: 1 at the real and i at the imaginary.
    units: Option<Pl>,
}

/// Which parts of the slots come out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Complex numbers.
    Whole,
    /// Their real parts.
    Real,
    /// Both parts, each by itself.
    Both,
}

impl<Pl: Clone> Bootstrap<Pl> {
    pub(super) fn new(
        plan: &BootstrapPlan,
        slot_to_coeff: Vec<Transform<Pl>>,
        coeff_to_slot: Vec<Transform<Pl>>,
        units: Option<Pl>,
    ) -> Self {
        Self {
            plan: plan.clone(),
            slot_to_coeff,
            coeff_to_slot,
            units,
        }
    }

    /// With the same plaintexts.
    pub(super) fn of_plan(self, plan: &BootstrapPlan) -> Self {
        Self {
            plan: plan.clone(),
            ..self
        }
    }

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
        let x = self.at_input_level(ops, ct)?;
        let wanted = match self.plan.content() {
            Content::Complex | Content::PeriodicComplex(_) => Wanted::Whole,
            Content::Real | Content::Periodic(_) => Wanted::Real,
        };
        let gain = self.plan.gain() / divisor;
        one_of(self.results(ops, &x, (gain, wanted), observer)?)
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
            [a, b] if self.plan.content().is_complex() => (a, b),
            _ => {
                let what = format!(
                    "{} values for content {:?}; expected one, or two where it is complex",
                    inputs.len(),
                    self.plan.content()
                );
                return Err(CircuitError::shape(NAME, what));
            }
        };
        let (a, b) = (self.at_input_level(ops, a)?, self.at_input_level(ops, b)?);
        let b = times_integer(ops, &b, I)?;
        let x = ops.add(&a, &b)?;
        let go = &mut |_| ControlFlow::Continue(());
        self.results(ops, &x, (self.plan.gain(), Wanted::Both), go)
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
        if !self.plan.content().is_complex() {
            return Ok([self.run(ops, pair[0])?, self.run(ops, pair[1])?]);
        }
        let both = self.run_many(ops, &pair)?;
        both.try_into()
            .map_err(|_| CircuitError::shape(NAME, "a pair without a second part"))
    }

    /// The real part alone: EvalMod runs once, whatever the content is, if SlotToCoeff comes first.
    ///
    /// # Errors
    /// As [`Bootstrap::run`].
    pub fn run_real<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        ct: &O::Ct,
    ) -> Result<O::Ct, CircuitError> {
        let x = self.at_input_level(ops, ct)?;
        let go = &mut |_| ControlFlow::Continue(());
        one_of(self.results(ops, &x, (self.plan.gain(), Wanted::Real), go)?)
    }

    /// The wanted parts, with `gain` as EvalMod's output factor.
    fn results<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        x: &O::Ct,
        (gain, wanted): (f64, Wanted),
        observer: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let begin = &mut |stage| match observer(stage) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(CircuitError::Stopped { circuit: NAME }),
        };
        let first = self.plan.starts_in_slots();
        let lowered = match first {
            true => {
                begin(Stage::SlotToCoeff)?;
                Some(self.slots_to_coefficients(ops, x)?)
            }
            false => None,
        };
        if let (Some(x), None) = (&lowered, &self.units) {
            // Coefficients are slots now, their parts what was asked for.
            let (re, im) = self.refreshed(ops, x, (gain, wanted != Wanted::Real), begin)?;
            let re = relabelled(ops, &re, ONE, gain)?;
            let Some(im) = im else { return Ok(vec![re]) };
            if wanted == Wanted::Both {
                return Ok(vec![re, relabelled(ops, &im, ONE, gain)?]);
            }
            let im = relabelled(ops, &im, I, gain)?;
            return Ok(vec![ops.add(&re, &im)?]);
        }
        // A part is half of the sum or difference with the conjugate.
        let gain = match wanted {
            Wanted::Whole => gain,
            Wanted::Real | Wanted::Both => gain / 2.0,
        };
        let full = self.plan.content().period().is_none();
        let x = lowered.as_ref().unwrap_or(x);
        let (re, im) = self.refreshed(ops, x, (gain, full), begin)?;
        let mut z = relabelled(ops, &re, ONE, gain)?;
        if let Some(im) = im {
            let im = relabelled(ops, &im, I, gain)?;
            z = ops.add(&z, &im)?;
        }
        if !first {
            begin(Stage::SlotToCoeff)?;
            z = self.slots_to_coefficients(ops, &z)?;
        }
        if wanted == Wanted::Whole {
            return Ok(vec![z]);
        }
        let conjugate = ops.conjugate(&z)?;
        let re = ops.add(&z, &conjugate)?;
        if wanted == Wanted::Real {
            return Ok(vec![re]);
        }
        let im = ops.sub(&z, &conjugate)?;
        Ok(vec![re, times_integer(ops, &im, -I)?])
    }

    /// Of a message in coefficients at level 0, these coefficients in slots after EvalMod, before its
    /// output factor `gain`: those of the lower half and, if `both`, those of the upper half.
    fn refreshed<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        x: &O::Ct,
        (gain, both): (f64, bool),
        begin: &mut dyn FnMut(Stage) -> Result<(), CircuitError>,
    ) -> Result<(O::Ct, Option<O::Ct>), CircuitError> {
        let plan = &self.plan;
        begin(Stage::ModRaise)?;
        let mut x = ops.mod_raise(x)?;
        x = ops.drop_to(&x, plan.raised_level())?;
        begin(Stage::Trace)?;
        for steps in plan.trace() {
            x = ops.rotate_sum(&x, steps)?;
        }
        begin(Stage::CoeffToSlot)?;
        for factor in &self.coeff_to_slot {
            x = ops.nested_transform(&[&x], factor)?;
        }
        let conjugate = ops.conjugate(&x)?;
        let re = ops.add(&x, &conjugate)?;
        begin(Stage::EvalMod)?;
        let re = self.eval_mod(ops, &re, gain)?;
        if !both {
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
        let (level, needed) = (ops.level(ct), self.plan.input_level());
        if level < needed {
            return Err(CircuitError::Levels {
                circuit: NAME,
                level,
                needed,
            });
        }
        Ok(ops.adjust(ct, needed)?)
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
        let level = self.plan.input_level();
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
        let level = self.plan.coefficient_level() + self.slot_to_coeff.len();
        let lowered = ops.drop_to(ct, level)?;
        let mut x = ops.rotate(&lowered, self.plan.turn())?;
        for factor in &self.slot_to_coeff {
            x = ops.nested_transform(&[&x], factor)?;
        }
        Ok(x)
    }

    /// EvalMod up to its output factor `gain`, at the scale that makes the output's come out. Of slots that
    /// hold real parts in one half of their period and imaginary ones in the other, complex numbers come
    /// out: in the last product `u` is a level above the other factor, which pays for the units.
    fn eval_mod<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        x: &O::Ct,
        gain: f64,
    ) -> Result<O::Ct, CircuitError> {
        let e = self.plan.eval_mod();
        let u = self.sine(ops, x, gain)?;
        if e.inverse_sine() == InverseSine::None {
            return Ok(u);
        }
        // u (c1/c3 + u^2): 1/c3 times what removes the cubic term.
        let (c1, c3) = e.arcsine();
        let square = ops.square(&u)?;
        let factor = plus(ops, &square, c1 / c3)?;
        let Some((units, part)) = self.units.as_ref().zip(self.plan.part()) else {
            let low = ops.drop_to(&u, ops.level(&factor))?;
            return Ok(ops.mul(&low, &factor)?);
        };
        let apart = ops.mul_plain(&u, units)?;
        let apart = ops.rescale(&apart)?;
        let apart = ops.mul(&apart, &factor)?;
        let others = ops.rotate(&apart, part as i64)?;
        Ok(ops.add(&apart, &others)?)
    }

    /// EvalMod without the inverse sine, at the scale that makes the output's come out behind it.
    fn sine<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        x: &O::Ct,
        gain: f64,
    ) -> Result<O::Ct, CircuitError> {
        let plan = &self.plan;
        let e = plan.eval_mod();
        let divisor = |level| plan.divisor(level);
        // From the output up: what each product's operands must be scaled by.
        let mut level = plan.modular_level();
        let mut scale = plan.message_scale().value() * gain;
        if e.inverse_sine() == InverseSine::Degree3 {
            scale = (scale * divisor(level + 1) * divisor(level + 2)).cbrt();
            level += INVERSE_SINE_LEVELS;
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
        Ok(u)
    }
}

const ONE: Complex = Complex::new(1.0, 0.0);
const I: Complex = Complex::new(0.0, 1.0);

fn one_of<T>(results: Vec<T>) -> Result<T, CircuitError> {
    let mut results = results.into_iter();
    let none = || CircuitError::shape(NAME, "a bootstrap without a result");
    results.next().ok_or_else(none)
}

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
