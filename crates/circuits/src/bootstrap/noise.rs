//! Noise of a bootstrap as a statistical model over slots, before any bootstrap exists.
//!
//! Two orders. **SlotToCoeff first**: slots become coefficients at the lowest levels, ModRaise
//! (under an ephemeral sparse secret) adds multiples of `q0`, CoeffToSlot brings the
//! coefficients back into slots, EvalMod removes the multiples. **SlotToCoeff last**: ModRaise,
//! CoeffToSlot, EvalMod, SlotToCoeff; then all of EvalMod's error passes through the embedding,
//! which multiplies its standard deviation by `sqrt(N)`.
//!
//! Model: a rescale under a secret of weight `h` leaves a uniform error in `[-1/2, 1/2)` on each
//! coefficient of both halves, hence `sqrt((1 + h)/12) sqrt(N)` per complex slot and `1/sqrt 2` of
//! it per real part; fused key switches add little to it. What comes from `c1` is multiplied by the
//! secret, in slots by the secret's slot: complex Gaussian over the slots, and the same for every
//! rescale. So the error of one slot is Gaussian with a variance that is exponential over the
//! slots, together a Laplace distribution: its mean is less and its worst slot a bit worse than
//! those of a Gaussian of the same variance. Left out are the errors of the earlier
//! factors of CoeffToSlot: later factors shrink them by the square root of their radix.

use veilformer_ckks::Complex;

use super::embedding::{to_coefficients, to_slots};
use super::eval_mod::{Arithmetic, EvalMod, Stage};
use super::tail::uniform_sum_tail;
use crate::CircuitError;
use crate::random::Random;

/// Radix bits of one factor of CoeffToSlot and SlotToCoeff: three factors of 2^5 at N=2^16.
const FACTOR_BITS: f64 = 5.0;

/// Which half of the homomorphic encoding comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Order {
    /// SlotToCoeff, ModRaise, CoeffToSlot, EvalMod: the default.
    SlotToCoeffFirst,
    /// ModRaise, CoeffToSlot, EvalMod, SlotToCoeff.
    SlotToCoeffLast,
}

/// Whether the cubic term of the sine is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum InverseSine {
    /// It stays: relative error `(2 pi m / 2^r)^2 / 6`.
    None,
    /// `u (c1 + c3 u^2)`, two levels: relative error of fourth order, `3/640 (2 pi / 2^r)^4` at most.
    Degree3,
}

/// What decides the noise of a bootstrap.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BootstrapSpec {
    /// log2 of the ring dimension.
    pub log_n: u32,
    /// Order of the steps.
    pub order: Order,
    /// Scale of CoeffToSlot and EvalMod, bits.
    pub eval_mod_scale_bits: u32,
    /// Scale of the message at the lowest level (before ModRaise), bits; in the order that ends
    /// with SlotToCoeff also the scale of its last factor.
    pub bottom_scale_bits: u32,
    /// `r = log2(q0 / bottom scale)`: a slot of 1 is `2^-r` of the modulus.
    pub message_ratio_bits: u32,
    /// `K`: EvalMod's input is divided by it to lie in `[-1, 1]`.
    pub range: u32,
    /// Largest `|I|` at which the polynomial is exact. Up to `K`.
    pub covered: u32,
    /// Points at each such `I` at which the polynomial is exact: the Chebyshev nodes of
    /// `I + [-2^-r, 2^-r]`, where the messages are. Its degree is one less than all of them.
    pub nodes: u32,
    /// Number of angle doublings after the polynomial.
    pub double_angles: u32,
    /// Correction of the sine.
    pub inverse_sine: InverseSine,
    /// Hamming weight of the persistent secret; `2N/3` for a dense ternary one.
    pub secret_weight: u32,
    /// Hamming weight of the ephemeral secret of ModRaise.
    pub ephemeral_weight: u32,
    /// Error of a conjugation after CoeffToSlot's last rescale, in rescale errors; 0 if the
    /// conjugation comes before that rescale, which is the reason to do so.
    pub key_switch_multiple: f64,
}

impl BootstrapSpec {
    /// The preset at N=2^16: EvalMod at 2^50 in ten levels, bottom scale 2^44, `q0` of 50 bits,
    /// K = 12 with an exact node at every integer up to K, dense secret. A message of `2^-6` of the
    /// modulus weighs the noise (proportional to `2^r`) against what the inverse sine leaves (to
    /// `2^(-4 r)`).
    pub const PRESET: Self = Self {
        log_n: 16,
        order: Order::SlotToCoeffFirst,
        eval_mod_scale_bits: 50,
        bottom_scale_bits: 44,
        message_ratio_bits: 6,
        range: 12,
        covered: 12,
        nodes: 1,
        double_angles: 3,
        inverse_sine: InverseSine::Degree3,
        secret_weight: (1 << 17) / 3,
        ephemeral_weight: 32,
        key_switch_multiple: 0.0,
    };

    /// The preset that begins with ModRaise: EvalMod at 2^60, a message at the program's 2^40 of 2^-7
    /// of the modulus. All errors of EvalMod pass through the embedding, sqrt(N) of them; at this
    /// scale and ratio they and what the inverse sine leaves are alike.
    pub const MODRAISE_FIRST: Self = Self {
        order: Order::SlotToCoeffLast,
        eval_mod_scale_bits: 60,
        bottom_scale_bits: 40,
        message_ratio_bits: 7,
        ..Self::PRESET
    };

    /// # Errors
    /// A field outside of what the model (or any bootstrap) makes sense for.
    pub fn validate(&self) -> Result<(), CircuitError> {
        let checks = [
            ("log_n", self.log_n, 6, 17),
            ("eval_mod_scale_bits", self.eval_mod_scale_bits, 20, 100),
            ("bottom_scale_bits", self.bottom_scale_bits, 20, 100),
            ("message_ratio_bits", self.message_ratio_bits, 1, 30),
            ("range", self.range, 2, 64),
            ("covered", self.covered, 1, self.range),
            ("nodes", self.nodes, 1, 5),
            ("double_angles", self.double_angles, 0, 8),
            (
                "secret_weight",
                self.secret_weight,
                1,
                1 << self.log_n.min(17),
            ),
            (
                "ephemeral_weight",
                self.ephemeral_weight,
                1,
                1 << self.log_n.min(17),
            ),
        ];
        for (name, value, low, high) in checks {
            if !(low..=high).contains(&value) {
                return Err(CircuitError::shape(
                    "bootstrap",
                    format!("{name} is {value}, expected {low} to {high}"),
                ));
            }
        }
        if !(0.0..1e6).contains(&self.key_switch_multiple) {
            return Err(CircuitError::shape(
                "bootstrap",
                "key_switch_multiple must be a number of rescale errors, 0 to 10^6",
            ));
        }
        Ok(())
    }

    /// Levels that EvalMod consumes.
    ///
    /// # Errors
    /// As [`BootstrapSpec::validate`].
    pub fn eval_mod_depth(&self) -> Result<usize, CircuitError> {
        self.validate()?;
        Ok(EvalMod::new(self)?.depth())
    }

    /// log2 of (a bound on) the probability that in one bootstrap some coefficient's `|I|`
    /// exceeds `covered`. Beyond it the result is wrong without notice. Negative infinity if it
    /// cannot happen.
    ///
    /// With `q0 I = c0 + c1 s' - m` and `c0 = m - c1 s'` modulo q0, centred, `I` is the integer
    /// nearest to `S - m/q0`: `S`, the coefficient of `c1 s'` over q0, is a sum of h uniforms on
    /// `[-1/2, 1/2]`, and `c0` is what rounds it. Hence `N P(|S| >= covered + 1/2 - 2^-r)`.
    #[must_use]
    pub fn range_failure_log2(&self) -> f64 {
        let message = (-f64::from(self.message_ratio_bits)).exp2();
        self.overflow_log2(f64::from(self.covered) + 0.5 - message)
    }

    /// log2 of the union bound `N P(|S| >= limit)`.
    fn overflow_log2(&self, limit: f64) -> f64 {
        uniform_sum_tail(self.ephemeral_weight, limit).log2() + f64::from(self.log_n)
    }

    /// Standard deviation of a rescale's error per real part of a slot, in units of the last bit.
    pub(super) fn rescale_error(&self) -> f64 {
        self.coefficient_error() * f64::from(self.log_n).exp2().sqrt() / std::f64::consts::SQRT_2
    }

    /// Standard deviation of a rescale's error per coefficient, in units of the last bit.
    pub(super) fn coefficient_error(&self) -> f64 {
        ((1.0 + f64::from(self.secret_weight)) / 12.0).sqrt()
    }

    /// The error of EvalMod's rescales on a value of scale `2^eval_mod_scale_bits`.
    pub(super) fn eval_mod_error(&self) -> f64 {
        self.rescale_error() / f64::from(self.eval_mod_scale_bits).exp2()
    }

    /// Error of SlotToCoeff at the bottom scale, per message coefficient: the first of three
    /// factors adds slot noise that the inverse of what follows shrinks by `sqrt` of its radix,
    /// and so on; the last one adds coefficient noise.
    pub(super) fn slot_to_coeff_error(&self) -> f64 {
        let slot = self.rescale_error();
        let first = slot / FACTOR_BITS.exp2().sqrt();
        let second = slot / FACTOR_BITS.exp2();
        let last = self.coefficient_error();
        (first * first + second * second + last * last).sqrt()
            / f64::from(self.bottom_scale_bits).exp2()
    }

    /// Error of ModRaise per message coefficient: two key switches (into the ephemeral secret at
    /// `q0`, back at the top), each with a ModDown error like a rescale's, in coefficients.
    pub(super) fn mod_raise_error(&self) -> f64 {
        let into = (1.0 + f64::from(self.ephemeral_weight)) / 12.0;
        let back = self.coefficient_error().powi(2);
        (into + back).sqrt() / f64::from(self.bottom_scale_bits).exp2()
    }
}

/// What the slots hold before the bootstrap, magnitudes up to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Independent uniform values.
    Random,
    /// 1 everywhere.
    Constant,
    /// Random signs.
    Signs,
    /// A block of random values, repeated with this period.
    Replicated(u32),
}

/// Error of a bootstrap over all slots, as `-log2`: more is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Precision {
    /// Of the mean absolute error.
    pub mean_bits: f64,
    /// Of the largest absolute error.
    pub worst_bits: f64,
}

impl Precision {
    fn of(errors: &[f64]) -> Self {
        let mean = errors.iter().map(|e| e.abs()).sum::<f64>() / errors.len().max(1) as f64;
        let worst = errors.iter().map(|e| e.abs()).fold(0.0, f64::max);
        Self {
            mean_bits: -mean.log2(),
            worst_bits: -worst.log2(),
        }
    }
}

/// Simulates one bootstrap of full slots and measures the error.
///
/// `with_noise = false` leaves the approximation error of the sine alone.
///
/// # Errors
/// As [`BootstrapSpec::validate`]; a period that is no power of two or exceeds the slots.
pub fn simulate(
    spec: &BootstrapSpec,
    input: Input,
    with_noise: bool,
    seed: u64,
) -> Result<Precision, CircuitError> {
    spec.validate()?;
    let eval_mod = EvalMod::new(spec)?;
    let slots = 1usize << (spec.log_n - 1);
    let mut samples = Samples {
        random: Random::new(seed),
        secret: 1.0,
        error: if with_noise {
            spec.eval_mod_error()
        } else {
            0.0
        },
    };
    let switch = if with_noise { 1.0 } else { 0.0 };
    let errors = match spec.order {
        Order::SlotToCoeffFirst => {
            let before = switch * spec.slot_to_coeff_error().hypot(spec.mod_raise_error());
            let z = real_slots(input, slots, &mut samples.random)?;
            z.iter()
                .map(|&z| {
                    let m = z + before * samples.random.gaussian();
                    samples.bootstrap(spec, &eval_mod, m).re - z
                })
                .collect()
        }
        Order::SlotToCoeffLast => {
            let z = complex_slots(input, slots, &mut samples.random)?;
            let m = to_coefficients(&z);
            let before = switch * spec.mod_raise_error();
            let errors: Vec<Complex> = m
                .iter()
                .map(|&m| {
                    let raised = m + before * samples.random.gaussian();
                    samples.bootstrap(spec, &eval_mod, raised) - m
                })
                .collect();
            let (lower, upper) = errors.split_at(slots);
            let after = switch * slot_to_coeff_last_error(spec);
            to_slots(lower, upper)
                .iter()
                .flat_map(|e| [e.re, e.im])
                .map(|e| e + after * samples.random.gaussian())
                .collect::<Vec<f64>>()
        }
    };
    Ok(Precision::of(&errors))
}

/// SlotToCoeff at the end descends from EvalMod's scale to the bottom scale in its last factor.
pub(super) fn slot_to_coeff_last_error(spec: &BootstrapSpec) -> f64 {
    let high = (f64::from(spec.eval_mod_scale_bits) - f64::from(spec.message_ratio_bits)).min(60.0);
    let scale = high.exp2();
    let first = FACTOR_BITS.exp2() / scale;
    let second = (FACTOR_BITS / 2.0).exp2() / scale;
    let last = 1.0 / f64::from(spec.bottom_scale_bits).exp2();
    spec.rescale_error() * (first * first + second * second + last * last).sqrt()
}

fn period(input: Input, slots: usize) -> Result<usize, CircuitError> {
    match input {
        Input::Replicated(period) => {
            let period = period as usize;
            if period.is_power_of_two() && period <= slots {
                Ok(period)
            } else {
                Err(CircuitError::shape(
                    "bootstrap",
                    format!("period {period}, expected a power of two up to {slots}"),
                ))
            }
        }
        _ => Ok(slots),
    }
}

fn real_slots(input: Input, slots: usize, rng: &mut Random) -> Result<Vec<f64>, CircuitError> {
    let period = period(input, slots)?;
    let block: Vec<f64> = (0..period)
        .map(|_| match input {
            Input::Constant => 1.0,
            Input::Signs => rng.uniform().signum(),
            Input::Random | Input::Replicated(_) => 2.0 * rng.uniform(),
        })
        .collect();
    Ok(block.iter().copied().cycle().take(slots).collect())
}

fn complex_slots(
    input: Input,
    slots: usize,
    rng: &mut Random,
) -> Result<Vec<Complex>, CircuitError> {
    if input == Input::Constant {
        return Ok(vec![Complex::new(1.0, 0.0); slots]);
    }
    let re = real_slots(input, slots, rng)?;
    let im = real_slots(input, slots, rng)?;
    let half = std::f64::consts::FRAC_1_SQRT_2;
    Ok(re
        .iter()
        .zip(&im)
        .map(|(re, im)| Complex::new(re * half, im * half))
        .collect())
}

/// One slot after the other, with sampled errors.
struct Samples {
    random: Random,
    /// Absolute value of the secret's slot over its root mean square.
    secret: f64,
    /// Standard deviation of one rescale's error in EvalMod.
    error: f64,
}

impl Samples {
    fn bootstrap(&mut self, spec: &BootstrapSpec, eval_mod: &EvalMod, m: f64) -> Complex {
        let (re, im) = (self.random.gaussian(), self.random.gaussian());
        self.secret = ((re * re + im * im) / 2.0).sqrt();
        let overflow = self.random.rounded_uniform_sum(spec.ephemeral_weight);
        let t = overflow + m / f64::from(spec.message_ratio_bits).exp2();
        eval_mod.run(self, &Complex::new(t, 0.0))
    }
}

impl Arithmetic for Samples {
    type Number = Complex;

    fn combine(&mut self, constant: f64, terms: &[(f64, &Complex)]) -> Complex {
        let constant = Complex::new(constant, 0.0);
        terms.iter().fold(constant, |sum, (c, v)| sum + *v * *c)
    }

    fn multiply(&mut self, a: &Complex, b: &Complex) -> Complex {
        a * b
    }

    fn rescaled(&mut self, value: Complex, stage: Stage, multiple: f64) -> Complex {
        let re = self.random.gaussian();
        let im = match stage {
            Stage::CoeffToSlot => 0.0,
            _ => self.random.gaussian(),
        };
        value + Complex::new(re, im) * (multiple * self.error * self.secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(spec: &BootstrapSpec, input: Input, noise: bool) -> Precision {
        let p = simulate(spec, input, noise, 2).unwrap();
        eprintln!(
            "{input:?} noise {noise}: mean {:.2} worst {:.2}",
            p.mean_bits, p.worst_bits
        );
        p
    }

    const INPUTS: [Input; 4] = [
        Input::Random,
        Input::Constant,
        Input::Signs,
        Input::Replicated(128),
    ];

    const LAST: BootstrapSpec = BootstrapSpec {
        order: Order::SlotToCoeffLast,
        bottom_scale_bits: 40,
        message_ratio_bits: 10,
        range: 16,
        covered: 15,
        inverse_sine: InverseSine::None,
        ..BootstrapSpec::PRESET
    };

    /// Messages of less of the modulus: the noise, not the sine, decides.
    const NOISY: BootstrapSpec = BootstrapSpec {
        bottom_scale_bits: 42,
        message_ratio_bits: 8,
        ..BootstrapSpec::PRESET
    };

    #[test]
    fn preset_reaches_its_precision_on_every_kind_of_input() {
        assert_eq!(BootstrapSpec::PRESET.eval_mod_depth().unwrap(), 10);
        for (input, mean) in INPUTS.into_iter().zip([21.8, 21.0, 21.0, 21.8]) {
            let p = run(&BootstrapSpec::PRESET, input, true);
            assert!((p.worst_bits - 19.9).abs() < 0.6, "{input:?} {p:?}");
            assert!((p.mean_bits - mean).abs() < 0.2, "{input:?} {p:?}");
            let p = run(&NOISY, input, true);
            assert!((p.worst_bits - 18.6).abs() < 0.8, "{input:?} {p:?}");
            assert!((p.mean_bits - 23.1).abs() < 0.2, "{input:?} {p:?}");
        }
    }

    #[test]
    fn without_inverse_sine_large_slots_lose_most() {
        let spec = BootstrapSpec {
            inverse_sine: InverseSine::None,
            ..NOISY
        };
        // (2 pi / 2^8)^2 / 6 = 2^-13.3
        for input in [Input::Constant, Input::Signs] {
            let p = run(&spec, input, true);
            assert!((p.mean_bits - 13.3).abs() < 0.1, "{p:?}");
        }
        let random = run(&spec, Input::Random, true);
        assert!((random.mean_bits - 15.3).abs() < 0.1, "{random:?}");
    }

    #[test]
    fn slot_to_coeff_last_amplifies() {
        let p = run(&LAST, Input::Random, true);
        assert!((p.mean_bits - 11.8).abs() < 0.1, "{p:?}");
        assert!((p.worst_bits - 9.3).abs() < 0.4, "{p:?}");
    }

    #[test]
    fn slot_to_coeff_last_at_scale_60() {
        let spec = BootstrapSpec {
            eval_mod_scale_bits: 60,
            ..LAST
        };
        let random = run(&spec, Input::Random, true);
        let constant = run(&spec, Input::Constant, true);
        assert!((random.worst_bits - 19.2).abs() < 0.5, "{random:?}");
        assert!((constant.worst_bits - 17.0).abs() < 0.4, "{constant:?}");
    }

    #[test]
    fn random_slots_hide_the_cubic_error_of_the_sine() {
        let random = run(&LAST, Input::Random, false);
        let constant = run(&LAST, Input::Constant, false);
        assert!((random.mean_bits - 30.4).abs() < 0.3, "{random:?}");
        assert!((constant.mean_bits - 18.3).abs() < 0.1, "{constant:?}");
    }

    #[test]
    fn a_late_conjugation_costs_a_bit() {
        let spec = BootstrapSpec {
            key_switch_multiple: 10.0,
            ..NOISY
        };
        let (late, early) = (
            run(&spec, Input::Random, true),
            run(&NOISY, Input::Random, true),
        );
        assert!(early.mean_bits - late.mean_bits > 1.0);
    }

    #[test]
    fn range_failures() {
        let spec = BootstrapSpec::PRESET;
        // Of 32 uniforms in exact fractions: at 12.5, and with the message's 2^-6 in the way.
        assert!((spec.overflow_log2(12.5) + 42.829).abs() < 0.001);
        assert!((spec.range_failure_log2() + 42.623).abs() < 0.001);
        // With nodes up to +-11, |I| >= 12 fails.
        let short = BootstrapSpec {
            covered: 11,
            ..spec
        };
        assert!((short.range_failure_log2() + 31.081).abs() < 0.001);
        assert!(LAST.range_failure_log2() < -100.0);
    }

    /// Ciphertexts of one coefficient in integers: `I` follows `h` uniforms, not one more.
    #[test]
    fn multiples_of_q0_in_integers() {
        const COUNT: usize = 1 << 18;
        let q = 1_099_511_480_321_i64;
        let spec = BootstrapSpec::PRESET;
        let mut rng = Random::new(7);
        let mut counts = [0.0f64; 16];
        for _ in 0..COUNT {
            let m = q >> spec.message_ratio_bits;
            let product: i64 = (0..spec.ephemeral_weight)
                .map(|_| (rng.uniform() * q as f64).round() as i64)
                .sum();
            let rest = (m - product).rem_euclid(q);
            let c0 = if 2 * rest > q { rest - q } else { rest };
            let multiple = (c0 + product - m) / q;
            assert_eq!(multiple * q, c0 + product - m);
            for count in &mut counts[..=multiple.unsigned_abs() as usize] {
                *count += 1.0;
            }
        }
        let shift = (-f64::from(spec.message_ratio_bits)).exp2();
        let tail = |terms: u32, k: usize| {
            let k = k as f64 - 0.5;
            let sides = [k - shift, k + shift].map(|t| uniform_sum_tail(terms, t));
            COUNT as f64 * (sides[0] + sides[1]) / 2.0
        };
        for (k, &count) in counts.iter().enumerate().take(7).skip(1) {
            let expected = tail(32, k);
            let deviations = (count - expected) / expected.sqrt();
            let other = (count - tail(33, k)) / tail(33, k).sqrt();
            eprintln!(
                "|I| >= {k}: {count}, {deviations:.1} deviations from 32, {other:.1} from 33"
            );
            assert!(deviations.abs() < 4.0, "{k}: {deviations}");
            assert!(!(2..5).contains(&k) || other < -3.0, "{k}: {other}");
        }
    }

    #[test]
    fn bad_specifications_are_refused() {
        let p = BootstrapSpec::PRESET;
        for bad in [
            BootstrapSpec { log_n: 30, ..p },
            BootstrapSpec { covered: 13, ..p },
            BootstrapSpec {
                range: 0,
                covered: 0,
                ..p
            },
            BootstrapSpec {
                double_angles: 40,
                ..p
            },
            BootstrapSpec {
                key_switch_multiple: f64::NAN,
                ..p
            },
        ] {
            assert!(simulate(&bad, Input::Random, true, 1).is_err(), "{bad:?}");
            assert!(bad.eval_mod_depth().is_err());
        }
        assert!(simulate(&p, Input::Replicated(3), true, 1).is_err());
    }
}
