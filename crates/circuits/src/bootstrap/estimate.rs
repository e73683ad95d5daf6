//! The noise of a bootstrap without sampling: first-order propagation of every rescale's error.

use super::eval_mod::{Arithmetic, EvalMod, Stage};
use super::noise::{BootstrapSpec, Order, slot_to_coeff_last_error};
use super::tail::{gaussian_tail, laplace_tail, uniform_sum_tail};
use crate::CircuitError;

/// Standard deviations at the output, per real part of a slot, by where the error arises; root
/// mean square over the distribution of `I`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageNoise {
    /// Rescales of SlotToCoeff.
    pub slot_to_coeff: f64,
    /// The two key switches of ModRaise.
    pub mod_raise: f64,
    /// The last rescale of CoeffToSlot.
    pub coeff_to_slot: f64,
    /// A conjugation after that rescale.
    pub conjugation: f64,
    /// Rescales of the Chebyshev polynomial.
    pub chebyshev: f64,
    /// Rescales of the angle doublings.
    pub double_angle: f64,
    /// Rescales of the inverse sine.
    pub inverse_sine: f64,
}

/// Predicted error of a bootstrap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseEstimate {
    /// Noise by stage.
    pub stages: StageNoise,
    /// Root mean square of all noise together.
    pub total: f64,
    /// Largest approximation error of the sine on messages in `[-1, 1]`, over all covered `I`
    /// weighted as likely at all (`2^-20` per coefficient or more); in the order that ends with
    /// SlotToCoeff the largest relative error of a coefficient, which those of constant slots (one
    /// large coefficient) and of others (small ones) hand on to slots of 1.
    pub sine_error: f64,
    /// `-log2` of the mean absolute noise (without the sine's error).
    pub mean_bits: f64,
    /// `-log2` of the median of the largest noise among all real parts (likewise).
    pub worst_bits: f64,
}

/// Estimates the noise of one bootstrap of full slots.
///
/// EvalMod's gain differs much between values of `I` (the angle doublings multiply an error by
/// `2^d / |sin(theta_0)|`), so the error of a random slot is a mixture of Laplace distributions (see
/// [`super::noise`]), one per `I`; mean and worst slot come from the mixture. After a final SlotToCoeff all errors are mixed and
/// Gaussian.
///
/// # Errors
/// As [`BootstrapSpec::validate`].
pub fn estimate(spec: &BootstrapSpec) -> Result<NoiseEstimate, CircuitError> {
    spec.validate()?;
    let eval_mod = EvalMod::new(spec)?;
    let before = match spec.order {
        Order::SlotToCoeffFirst => [spec.slot_to_coeff_error(), spec.mod_raise_error()],
        Order::SlotToCoeffLast => [0.0, spec.mod_raise_error()],
    };
    let mut variances = [0.0; 7];
    let mut mixture = Vec::new();
    let mut sine_error: f64 = 0.0;
    for i in -i64::from(spec.covered)..=i64::from(spec.covered) {
        let p = probability(spec, i);
        let mut linear = Linear::default();
        let t = linear.input(i as f64, (-f64::from(spec.message_ratio_bits)).exp2());
        let out = eval_mod.run(&mut linear, &t);
        let by_stage = linear.variances(&out, spec.eval_mod_error(), before);
        for (sum, v) in variances.iter_mut().zip(by_stage) {
            *sum += p * v;
        }
        mixture.push((p, by_stage.iter().sum::<f64>().sqrt()));
        if p > (-20f64).exp2() {
            for m in [-1.0, -0.5, -1.0 / 64.0, 0.0, 1.0 / 64.0, 0.5, 1.0] {
                let t = Noiseless.shifted(i as f64, m, spec);
                let error = (eval_mod.run(&mut Noiseless, &t) - m).abs();
                let relative = match spec.order {
                    Order::SlotToCoeffFirst => error,
                    Order::SlotToCoeffLast => error / f64::max(m.abs(), 1.0 / 64.0),
                };
                sine_error = sine_error.max(relative);
            }
        }
    }
    if spec.order == Order::SlotToCoeffLast {
        // sum_i (a_i + i b_i) zeta^(..) over N/2 terms. Errors that arise after the real part was
        // extracted are complex: a's real and b's imaginary part add up in one part of the sum.
        let real = f64::from(spec.log_n - 1).exp2();
        for (stage, v) in variances.iter_mut().enumerate() {
            *v *= if stage < 3 { real } else { 2.0 * real };
        }
        variances[0] += slot_to_coeff_last_error(spec).powi(2);
        mixture = vec![(1.0, variances.iter().sum::<f64>().sqrt())];
    }
    let total = variances.iter().sum::<f64>().sqrt();
    let deviation = mixture.iter().map(|(p, s)| p * s).sum::<f64>();
    // Mean absolute value and tail, for one standard deviation.
    let (mean, tail, parts): (f64, fn(f64) -> f64, u32) = match spec.order {
        Order::SlotToCoeffFirst => (
            std::f64::consts::FRAC_1_SQRT_2,
            laplace_tail,
            spec.log_n - 1,
        ),
        Order::SlotToCoeffLast => (
            (2.0 / std::f64::consts::PI).sqrt(),
            gaussian_tail,
            spec.log_n,
        ),
    };
    let [
        slot_to_coeff,
        mod_raise,
        coeff_to_slot,
        conjugation,
        chebyshev,
        double_angle,
        inverse_sine,
    ] = variances.map(f64::sqrt);
    Ok(NoiseEstimate {
        stages: StageNoise {
            slot_to_coeff,
            mod_raise,
            coeff_to_slot,
            conjugation,
            chebyshev,
            double_angle,
            inverse_sine,
        },
        total,
        sine_error,
        mean_bits: -(mean * deviation).log2(),
        worst_bits: -median_maximum(&mixture, tail, f64::from(parts).exp2()).log2(),
    })
}

/// `P(round(S) = i)`.
fn probability(spec: &BootstrapSpec, i: i64) -> f64 {
    let terms = spec.ephemeral_weight;
    let distance = i.unsigned_abs() as f64;
    let outer = uniform_sum_tail(terms, distance + 0.5);
    if i == 0 {
        1.0 - outer
    } else {
        (uniform_sum_tail(terms, distance - 0.5) - outer) / 2.0
    }
}

/// The median of the largest of `count` samples: `count P(|X| >= x) = ln 2`.
fn median_maximum(mixture: &[(f64, f64)], tail: fn(f64) -> f64, count: f64) -> f64 {
    let largest = mixture.iter().map(|(_, s)| *s).fold(0.0, f64::max);
    let (mut low, mut high) = (0.0, 40.0 * largest);
    for _ in 0..80 {
        let x = (low + high) / 2.0;
        let expected: f64 = mixture
            .iter()
            .map(|(p, s)| p * tail(x / s.max(f64::MIN_POSITIVE)))
            .sum();
        if expected * count > std::f64::consts::LN_2 {
            low = x;
        } else {
            high = x;
        }
    }
    high
}

/// A value and its derivatives by every error so far: source 0 is the message.
#[derive(Clone)]
struct Derivatives {
    value: f64,
    by_source: Vec<f64>,
}

/// Forward differentiation; `stages[i]` says where source `i + 1` arose.
#[derive(Default)]
struct Linear {
    stages: Vec<Stage>,
}

impl Linear {
    fn input(&mut self, value: f64, by_message: f64) -> Derivatives {
        Derivatives {
            value,
            by_source: vec![by_message],
        }
    }

    fn variances(&self, out: &Derivatives, error: f64, before: [f64; 2]) -> [f64; 7] {
        let mut sums = [0.0; 7];
        let mut sources = out.by_source.iter();
        let message = sources.next().copied().unwrap_or(0.0);
        for (sum, b) in sums.iter_mut().zip(before) {
            *sum = (message * b).powi(2);
        }
        for (d, stage) in sources.zip(&self.stages) {
            let slot = match stage {
                Stage::CoeffToSlot => 2,
                Stage::Conjugation => 3,
                Stage::Chebyshev => 4,
                Stage::DoubleAngle => 5,
                Stage::InverseSine => 6,
            };
            sums[slot] += (d * error).powi(2);
        }
        sums
    }
}

fn add_scaled(sum: &mut Vec<f64>, c: f64, terms: &[f64]) {
    if sum.len() < terms.len() {
        sum.resize(terms.len(), 0.0);
    }
    for (s, t) in sum.iter_mut().zip(terms) {
        *s += c * t;
    }
}

impl Arithmetic for Linear {
    type Number = Derivatives;

    fn combine(&mut self, constant: f64, terms: &[(f64, &Derivatives)]) -> Derivatives {
        let mut out = Derivatives {
            value: constant,
            by_source: Vec::new(),
        };
        for (c, v) in terms {
            out.value += c * v.value;
            add_scaled(&mut out.by_source, *c, &v.by_source);
        }
        out
    }

    fn multiply(&mut self, a: &Derivatives, b: &Derivatives) -> Derivatives {
        let mut by_source = Vec::new();
        add_scaled(&mut by_source, b.value, &a.by_source);
        add_scaled(&mut by_source, a.value, &b.by_source);
        Derivatives {
            value: a.value * b.value,
            by_source,
        }
    }

    fn rescaled(&mut self, mut value: Derivatives, stage: Stage, multiple: f64) -> Derivatives {
        self.stages.push(stage);
        value.by_source.resize(self.stages.len() + 1, 0.0);
        if let Some(last) = value.by_source.last_mut() {
            *last = multiple;
        }
        value
    }
}

/// Exact numbers: what remains is the approximation error.
struct Noiseless;

impl Noiseless {
    fn shifted(&self, i: f64, m: f64, spec: &BootstrapSpec) -> f64 {
        i + m / f64::from(spec.message_ratio_bits).exp2()
    }
}

impl Arithmetic for Noiseless {
    type Number = f64;

    fn combine(&mut self, constant: f64, terms: &[(f64, &f64)]) -> f64 {
        terms.iter().fold(constant, |sum, (c, v)| sum + c * **v)
    }

    fn multiply(&mut self, a: &f64, b: &f64) -> f64 {
        a * b
    }

    fn rescaled(&mut self, value: f64, _: Stage, _: f64) -> f64 {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise::{Input, InverseSine, simulate};
    use super::*;

    #[test]
    fn agrees_with_the_simulation() {
        // So that the noise, not the sine, decides.
        let preset = BootstrapSpec {
            bottom_scale_bits: 42,
            message_ratio_bits: 8,
            ..BootstrapSpec::PRESET
        };
        let last = BootstrapSpec {
            order: Order::SlotToCoeffLast,
            bottom_scale_bits: 40,
            message_ratio_bits: 10,
            range: 16,
            covered: 15,
            inverse_sine: InverseSine::None,
            ..preset
        };
        let late = BootstrapSpec {
            key_switch_multiple: 10.0,
            ..preset
        };
        for spec in [preset, late, last] {
            let e = estimate(&spec).unwrap();
            let s = simulate(&spec, Input::Random, true, 5).unwrap();
            eprintln!("{e:?} {s:?}");
            assert!((e.mean_bits - s.mean_bits).abs() < 0.2, "{e:?} {s:?}");
            assert!((e.worst_bits - s.worst_bits).abs() < 0.6, "{e:?} {s:?}");
        }
    }

    #[test]
    fn sine_error_is_that_of_its_series() {
        let spec = BootstrapSpec {
            inverse_sine: InverseSine::None,
            ..BootstrapSpec::PRESET
        };
        let angle = 2.0 * std::f64::consts::PI / 64.0;
        let cubic = angle * angle / 6.0;
        let e = estimate(&spec).unwrap();
        assert!((e.sine_error / cubic - 1.0).abs() < 0.05, "{e:?}");
        let e = estimate(&BootstrapSpec::PRESET).unwrap();
        let least = angle.powi(4) * 3.0 / 640.0;
        assert!((0.8..1.3).contains(&(e.sine_error / least)), "{e:?}");
    }
}
