//! How a bootstrap lies on the levels of a chain, in either order.

use veilformer_ckks::noise::NoiseModel;
use veilformer_ckks::{Complex, Ops, OpsError, Params, Scale, SecretKind, SlotVector};

use super::circuit::Bootstrap;
use super::dft::{Diagonals, coeff_to_slot, slot_to_coeff};
use super::estimate::{NoiseEstimate, estimate};
use super::eval_mod::{EvalMod, INVERSE_SINE_LEVELS};
use super::factor::Factor;
use super::noise::{BootstrapSpec, InverseSine, Order};
use crate::CircuitError;

pub(super) const NAME: &str = "bootstrap";

/// Most baby steps of a factor of SlotToCoeff where it comes first. A baby step costs a quarter of a
/// giant one there (one digit, more special primes than others), and its key few limbs.
const LOW_BABIES: usize = 16;

/// The same of CoeffToSlot, whose keys have all limbs: eight would take 1.1 GiB less (10 levels,
/// packed) for a tenth more time. A SlotToCoeff that comes last has as many, and shares these keys.
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
    /// A real number in each of the N/2 slots: EvalMod runs once instead of twice where SlotToCoeff
    /// comes first.
    Real,
    /// Real numbers that repeat with this period, a power of two of at most N/4: the transforms
    /// are those of a ring with as many coefficients (twice as many where SlotToCoeff comes last), and
    /// EvalMod runs once.
    Periodic(usize),
    /// Complex numbers, or pairs of real ones, that repeat with this period, a power of two of at most
    /// N/4: the transforms are those of a ring with twice as many coefficients. EvalMod runs once:
    /// all coefficients fit the slots, and where SlotToCoeff comes first, both parts are told apart
    /// by a factor of the inverse sine, which [`BootstrapSpec`] must have then.
    PeriodicComplex(usize),
}

impl Content {
    /// Whether imaginary parts count: one complex number comes out, or two real ones as a pair.
    #[must_use]
    pub fn is_complex(self) -> bool {
        matches!(self, Self::Complex | Self::PeriodicComplex(_))
    }

    /// After how many slots they repeat, if that is less than all.
    #[must_use]
    pub fn period(self) -> Option<usize> {
        match self {
            Self::Complex | Self::Real => None,
            Self::Periodic(period) | Self::PeriodicComplex(period) => Some(period),
        }
    }

    /// Whether bootstraps of one specification with this content and the other have the same plaintexts:
    /// complex and real content differ in EvalMod alone.
    #[must_use]
    pub fn shares_plaintexts(self, other: Self) -> bool {
        self == other || self.period().is_none() && other.period().is_none()
    }
}

/// A bootstrap for one set of parameters, before anything is encoded.
///
/// Levels, from the top: `CoeffToSlot`, `EvalMod`, `SlotToCoeff` if it comes last, then the levels
/// that the bootstrap gives back (from [`BootstrapPlan::output_level`] down to
/// [`BootstrapPlan::input_level`]), then `SlotToCoeff` if it comes first, down to level 0.
#[derive(Clone, Debug)]
pub struct BootstrapPlan {
    params: Params,
    spec: BootstrapSpec,
    content: Content,
    /// Scale of the message at level 0: q0 / 2^r, where SlotToCoeff makes it.
    bottom: Scale,
    /// q0 over it.
    ratio: f64,
    eval_mod: EvalMod,
    /// Rotation of SlotToCoeff's input that the transforms' own rotations undo.
    turn: i64,
    /// The share of it that CoeffToSlot left out: EvalMod's slot `j` holds what slot `j - behind` would.
    behind: i64,
    slot_to_coeff: Vec<Factor>,
    coeff_to_slot: Vec<Factor>,
    /// Rotations whose sums, one after the other, project onto the polynomials of the content's ring.
    trace: Vec<Vec<i64>>,
    input_level: usize,
    /// Where CoeffToSlot starts.
    raised_level: usize,
    /// Where EvalMod ends.
    modular_level: usize,
    output_level: usize,
}

/// Which levels the steps have.
struct Layout {
    input: usize,
    output: usize,
    /// Where EvalMod ends.
    modular: usize,
    /// Factors of full-size transforms.
    slot_to_coeff: usize,
    coeff_to_slot: usize,
}

impl Layout {
    /// With a SlotToCoeff that comes first, the levels below the ordinary ones are its own; one that
    /// comes last shares those above EvalMod's with CoeffToSlot, which has the odd one.
    fn new(params: &Params, order: Order, depth: usize) -> Result<Self, CircuitError> {
        let middle = params.middle();
        let (low, output) = (*middle.start(), *middle.end());
        let above = params.max_level() - output;
        let rest = above.saturating_sub(depth);
        let (slot_to_coeff, coeff_to_slot) = match order {
            Order::SlotToCoeffFirst => (low, rest),
            Order::SlotToCoeffLast => (rest / 2, rest - rest / 2),
        };
        let last = order == Order::SlotToCoeffLast;
        if slot_to_coeff == 0 || coeff_to_slot == 0 || (last && low > 0) {
            let what = format!(
                "{low} levels below and {above} above the ordinary ones; EvalMod takes {depth} \
                 above and CoeffToSlot at least 1, SlotToCoeff all of those below, or at least 1 \
                 above and none below"
            );
            return Err(CircuitError::shape(NAME, what));
        }
        Ok(Self {
            input: low,
            output,
            modular: if last { output + slot_to_coeff } else { output },
            slot_to_coeff,
            coeff_to_slot,
        })
    }
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
        if spec.log_n != params.log_n() {
            return shape(format!(
                "the specification is for a ring of 2^{}, the parameters' is 2^{}",
                spec.log_n,
                params.log_n()
            ));
        }
        let slots = params.slots();
        let first = spec.order == Order::SlotToCoeffFirst;
        if let Some(period) = content.period()
            && !(period.is_power_of_two() && period <= slots / 2)
        {
            return shape(format!(
                "the period is {period}, expected a power of two up to {}",
                slots / 2
            ));
        }
        let parted = first && matches!(content, Content::PeriodicComplex(_));
        if parted && spec.inverse_sine == InverseSine::None {
            return shape(
                "complex content of a period needs the inverse sine where SlotToCoeff comes first"
                    .into(),
            );
        }
        // Complex slots of the transforms, and the period of their coefficients in real slots.
        let (points, packed) = match content {
            Content::Complex | Content::Real => (slots, None),
            Content::Periodic(1) if first => (1, None),
            // A pair of real numbers makes one complex one.
            Content::Periodic(period) if first => (period / 2, Some(period)),
            Content::Periodic(period) | Content::PeriodicComplex(period) => {
                (period, Some(2 * period))
            }
        };
        let eval_mod = EvalMod::new(spec)?;
        let depth = eval_mod.depth();
        let layout = Layout::new(params, spec.order, depth)?;
        let stages = points.trailing_zeros() as usize;
        let full = slots.trailing_zeros() as usize;
        // A smaller transform takes its share of the levels.
        let share = |levels: usize| (levels * stages).div_ceil(full).clamp(1, levels);
        let high = share(layout.coeff_to_slot);
        let mut to_coeff = slot_to_coeff(points, share(layout.slot_to_coeff));
        let mut to_slot = coeff_to_slot(points, high);
        // CoeffToSlot's later factors stay within blocks on which the units are constant: they commute, and
        // only the first one, whose plaintexts are the longest in any case, has to hold them.
        if let (Some(period), Some(begin), Some((widest, later))) =
            (packed, to_coeff.first_mut(), to_slot.split_first_mut())
        {
            if !parted {
                *begin = begin.after(&pairing(period));
            }
            *widest = widest.rows_times(period, |j| if j % period < points { ONE } else { -I });
            for low in later {
                *low = low.within_blocks(period);
            }
        }
        // q0 from which the message is taken, and its share for a slot of 1.
        let q0 = params.product(params.basis_at(0));
        let ratio = f64::from(spec.message_ratio_bits).exp2();
        let bottom = if first {
            Scale::new(q0 / ratio).map_err(OpsError::from)?
        } else {
            params.scale_at(0)
        };
        if (q0 / bottom.value() / ratio).log2().abs() > 0.5 {
            return shape(format!(
                "q0 is 2^{:.1} of the lowest scale, the specification says 2^{}",
                (q0 / bottom.value()).log2(),
                spec.message_ratio_bits
            ));
        }
        let (before, behind) = straighten(&mut to_coeff, &mut to_slot);
        let mut trace = Vec::new();
        // Four copies at a time: three rotations share a decomposition and a ModDown, which two doublings would
        // need twice.
        let mut by = points;
        while by < slots {
            let copies = (slots / by).min(4);
            trace.push((1..copies).map(|k| (k * by) as i64).collect());
            by *= copies;
        }
        let factors = |of: Vec<Diagonals>, babies| {
            let factors = of.into_iter().map(|m| Factor::new(m, babies));
            factors.collect()
        };
        Ok(Self {
            params: params.clone(),
            spec: *spec,
            content,
            bottom,
            ratio: q0 / bottom.value(),
            eval_mod,
            turn: before + behind,
            behind,
            slot_to_coeff: factors(to_coeff, if first { LOW_BABIES } else { HIGH_BABIES }),
            coeff_to_slot: factors(to_slot, HIGH_BABIES),
            trace,
            input_level: layout.input,
            raised_level: layout.modular + depth + high,
            modular_level: layout.modular,
            output_level: layout.output,
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
        let level = self.modular_level + self.eval_mod.depth();
        estimate(&BootstrapSpec {
            key_switch_multiple: (model.relinearization(level) / model.division()).sqrt(),
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
        let mut to_coeff = Vec::with_capacity(self.slot_to_coeff.len());
        let mut level = self.coefficient_level() + self.slot_to_coeff.len();
        for (factor, scale) in self.slot_to_coeff.iter().zip(self.slot_to_coeff_scales()) {
            to_coeff.push(factor.encode(ops, 1.0, (level, scale))?);
            level -= 1;
        }
        let mut scale = self.bottom;
        // What CoeffToSlot multiplies with in all: from the message's scale to multiples of q0, the
        // sum over the trace, the conjugate's addition, and EvalMod's range.
        let count = self.coeff_to_slot.len();
        let copies: f64 = self
            .trace
            .iter()
            .map(|steps| 1.0 + steps.len() as f64)
            .product();
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
        let units = self.encode_units(ops)?;
        Ok(Bootstrap::new(self, to_coeff, to_slot, units))
    }

    /// 1 where EvalMod's slots hold real parts and i where they hold imaginary ones, for a factor of the
    /// inverse sine that would lose a level without a product.
    fn encode_units<O: Ops>(&self, ops: &mut O) -> Result<Option<O::Plain>, CircuitError> {
        let Some(part) = self.part() else {
            return Ok(None);
        };
        let level = self.modular_level + INVERSE_SINE_LEVELS;
        let scale = Scale::new(self.divisor(level)).map_err(OpsError::from)?;
        let (part, period) = (part as i64, 2 * part as i64);
        let real = |j: i64| (j - self.behind).rem_euclid(period) < part;
        let units = (0..period).map(|j| if real(j) { ONE } else { I });
        let units = SlotVector::Periodic(units.collect());
        Ok(Some(ops.plain(&units, level, scale)?))
    }

    /// The scales of SlotToCoeff's plaintexts. Where it comes first, the first factor brings the
    /// message to the bottom's scale and the others keep it. Where it comes last, they descend
    /// together, from EvalMod's to the output's: with the period of its diagonals, each factor's radix
    /// longer than the one before, grows the number of rounded coefficients, so scales grow with its
    /// root and all factors' rounding counts alike.
    fn slot_to_coeff_scales(&self) -> Vec<Scale> {
        let (base, count) = (self.coefficient_level(), self.slot_to_coeff.len());
        if self.spec.order == Order::SlotToCoeffFirst {
            let mut from = self.params.scale_at(self.input_level);
            let scale = |level| {
                let scale = self.factor_scale(from, level, self.bottom);
                from = self.bottom;
                scale
            };
            return (base + 1..=base + count).rev().map(scale).collect();
        }
        let (from, to) = (self.message_scale(), self.params.scale_at(base));
        let steps: f64 = (base + 1..=base + count).map(|l| self.divisor(l)).product();
        let number = count.max(1) as f64;
        let each = (steps * to.value() / from.value()).powf(1.0 / number);
        let radix_bits = f64::from(self.spec.log_n - 1) / number;
        let scale = |i: usize| {
            let place = i as f64 - (number - 1.0) / 2.0;
            Scale::power_of_two(0).multiply(each * (place * radix_bits / 2.0).exp2())
        };
        (0..count).map(scale).collect()
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
                let (spec, content) = (&b.plan().spec, b.plan().content);
                *spec == plan.spec && content.shares_plaintexts(plan.content)
            });
            let entry = match known {
                Some(known) => known.clone().of_plan(plan),
                None => plan.encode(ops)?,
            };
            table.push(entry);
        }
        Ok(table)
    }

    /// The scale of plaintexts that bring a ciphertext from `from` at `level` to `to` one below.
    fn factor_scale(&self, from: Scale, level: usize, to: Scale) -> Scale {
        to.multiply(self.divisor(level)).divide(from.value())
    }

    /// What a rescale at `level` divides by.
    pub(super) fn divisor(&self, level: usize) -> f64 {
        let step = self.params.step_at(level);
        self.params.product(step.drop) / self.params.product(step.add)
    }

    /// Whether SlotToCoeff comes first.
    pub(super) fn starts_in_slots(&self) -> bool {
        self.spec.order == Order::SlotToCoeffFirst
    }

    /// EvalMod.
    pub(super) fn eval_mod(&self) -> &EvalMod {
        &self.eval_mod
    }

    /// Rotation of SlotToCoeff's input.
    pub(super) fn turn(&self) -> i64 {
        self.turn
    }

    /// Rotations whose sums, one after the other, project onto the content's ring.
    pub(super) fn trace(&self) -> &[Vec<i64>] {
        &self.trace
    }

    /// Where CoeffToSlot starts.
    pub(super) fn raised_level(&self) -> usize {
        self.raised_level
    }

    /// Where EvalMod ends.
    pub(super) fn modular_level(&self) -> usize {
        self.modular_level
    }

    /// Where SlotToCoeff ends.
    pub(super) fn coefficient_level(&self) -> usize {
        match self.spec.order {
            Order::SlotToCoeffFirst => 0,
            Order::SlotToCoeffLast => self.output_level,
        }
    }

    /// The scale of the message after EvalMod: the output's; or, if SlotToCoeff follows, such that what
    /// EvalMod computes has the scale of its own levels to the end.
    pub(super) fn message_scale(&self) -> Scale {
        match self.spec.order {
            Order::SlotToCoeffFirst => self.params.scale_at(self.output_level),
            Order::SlotToCoeffLast => {
                let scale = self.params.scale_at(self.modular_level + 1);
                scale.divide(self.gain())
            }
        }
    }

    /// Where EvalMod's slots hold both parts of complex ones, one after the other: how many slots each
    /// takes.
    pub(super) fn part(&self) -> Option<usize> {
        match self.content {
            Content::PeriodicComplex(period) if self.starts_in_slots() => Some(period),
            _ => None,
        }
    }

    /// What EvalMod's result is to be multiplied with to be the message.
    pub(super) fn gain(&self) -> f64 {
        let cubic = match self.eval_mod.inverse_sine() {
            InverseSine::None => 1.0,
            InverseSine::Degree3 => self.eval_mod.arcsine().1,
        };
        // Of the ratio there is, which is nearly the specification's.
        let ratio = self.ratio / f64::from(self.spec.message_ratio_bits).exp2();
        self.eval_mod.gain() * ratio * cubic
    }
}

const ONE: Complex = Complex::new(1.0, 0.0);
const I: Complex = Complex::new(0.0, 1.0);

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
/// alike, so one rotation of the input makes up for all: both, the one before and the one behind.
fn straighten(to_coeff: &mut [Diagonals], to_slot: &mut [Diagonals]) -> (i64, i64) {
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
    (before, behind)
}
