//! [`ClearOps`]: the operations on unencrypted slots, for tests of circuits and for simulation.
//!
//! Simulation adds to each result what the scheme's variance formulas ([`NoiseModel`]) say that the
//! operation leaves behind: independent Gaussians in the coefficients, which in slots are
//! independent complex Gaussians of N times the variance.

mod boot;
mod counting;
mod levels;
mod raise;
mod transforms;

use std::sync::Arc;

use crate::bootstrap::{BootstrapSpec, to_coefficients};
use crate::random::Random;
use veilformer_ckks::noise::NoiseModel;
use veilformer_ckks::{
    CkksError, Complex, KeyList, KeyPurpose, Ops, OpsError, Params, Scale, SecretKind, SlotVector,
    Transform, adjust_constant, lowering, moves,
};

pub use boot::IdealBootstrap;
pub use counting::{CountedPlain, Counting};
pub use levels::{AtLevel, LevelOps};

type Result<T> = std::result::Result<T, OpsError>;

/// A "ciphertext" in the clear. Slots are kept as the *encoded* numbers (value times scale), as a
/// ciphertext keeps them: a circuit that gets a scale wrong gets wrong values, not just a wrong
/// label.
#[derive(Clone, Debug)]
pub struct ClearCiphertext {
    raw: Arc<Vec<Complex>>,
    level: usize,
    scale: Scale,
}

/// A plaintext in the clear, likewise encoded. Constants are rounded to integers as the encoder
/// does it; other vectors stay exact, or with noise get that of their rounding.
#[derive(Clone, Debug)]
pub struct ClearPlain {
    /// One period: weights of an encoder would not fit the memory slot by slot.
    raw: Arc<Vec<Complex>>,
    level: usize,
    scale: Scale,
    /// Whether it may meet rotated inputs in a transform, as the evaluator's has to say.
    extended: bool,
}

/// How often each operation ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClearCounts {
    /// Relinearizations.
    pub relinearizations: usize,
    /// Products of two ciphertexts.
    pub products: usize,
    /// Products with a plaintext, those of `adjust` and of transforms included.
    pub plain_products: usize,
    /// Rescales that are not fused into a product or transform.
    pub rescales: usize,
    /// Rotations by something else than 0, those of transforms included (each distinct baby step
    /// per input once), and conjugations.
    pub rotations: usize,
    /// Linear transforms.
    pub transforms: usize,
    /// Raised moduli.
    pub raises: usize,
}

/// [`Ops`] on plain slots, with the level, scale and range rules of the evaluator, and none of its
/// noise or a sample of it. Also notes which keys the circuit needed.
pub struct ClearOps {
    params: Params,
    keys: KeyList,
    counts: ClearCounts,
    noise: Option<Noise>,
    /// Where the multiples of q0 come from that ModRaise adds, with noise or without.
    overflows: Random,
    bootstraps: Arc<boot::Table>,
}

/// Where samples of the noise come from.
struct Noise {
    model: NoiseModel,
    random: Random,
    /// Absolute values of the secret's slots over their root mean square.
    secret: Vec<f64>,
}

impl Noise {
    fn new(model: NoiseModel, slots: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        // A slot of a secret is a sum of very many terms: a complex Gaussian.
        let secret = (0..slots).map(|_| {
            let (re, im) = (random.gaussian(), random.gaussian());
            ((re * re + im * im) / 2.0).sqrt()
        });
        Self {
            secret: secret.collect(),
            model,
            random,
        }
    }
}

impl ClearOps {
    /// Operations under these parameters.
    #[must_use]
    pub fn new(params: &Params) -> Self {
        Self {
            params: params.clone(),
            keys: KeyList::default(),
            counts: ClearCounts::default(),
            noise: None,
            overflows: Random::new(0),
            bootstraps: Arc::default(),
        }
    }

    /// Operations with samples of the noise that ciphertexts under a secret of this kind have.
    /// The same seed gives the same samples.
    #[must_use]
    pub fn with_noise(params: &Params, secret: SecretKind, seed: u64) -> Self {
        Self {
            noise: Some(Noise::new(
                NoiseModel::new(params, secret),
                params.slots(),
                seed,
            )),
            overflows: Random::new(!seed),
            ..Self::new(params)
        }
    }

    /// Starts the samples of the noise, and of what [`Ops::mod_raise`] adds, anew.
    pub fn reseed(&mut self, seed: u64) {
        self.overflows = Random::new(!seed);
        if let Some(noise) = &mut self.noise {
            let slots = self.params.slots();
            *noise = Noise::new(noise.model.clone(), slots, seed);
        }
    }

    /// Adds noise whose variance per coefficient is what `variance` says, alike in all slots.
    fn disturb(&mut self, raw: &mut [Complex], variance: impl FnOnce(&NoiseModel) -> f64) {
        let Some(noise) = &mut self.noise else { return };
        let n = self.params.n() as f64;
        let deviation = (variance(&noise.model) * n / 2.0).sqrt();
        for z in raw {
            let sample = Complex::new(noise.random.gaussian(), noise.random.gaussian());
            *z += sample * deviation;
        }
    }

    /// The same where a rounding of c1 is part of the noise: in slot j it meets the secret's slot,
    /// whose size is the same in every operation. Errors then are not Gaussian over the slots: some
    /// slots are worse throughout (see [`NoiseModel::rounding_of_c1`]).
    fn disturb_by_rounding(
        &mut self,
        raw: &mut [Complex],
        variance: impl FnOnce(&NoiseModel) -> f64,
    ) {
        let Some(noise) = &mut self.noise else { return };
        let n = self.params.n() as f64;
        let through_secret = noise.model.rounding_of_c1();
        let alike = (variance(&noise.model) - through_secret).max(0.0);
        for (z, secret) in raw.iter_mut().zip(&noise.secret) {
            let deviation = ((alike + through_secret * secret * secret) * n / 2.0).sqrt();
            let sample = Complex::new(noise.random.gaussian(), noise.random.gaussian());
            *z += sample * deviation;
        }
    }

    /// A ciphertext after [`ClearOps::disturb_by_rounding`].
    fn disturbed(
        &mut self,
        mut ct: ClearCiphertext,
        variance: impl FnOnce(&NoiseModel) -> f64,
    ) -> ClearCiphertext {
        if self.noise.is_some() {
            self.disturb_by_rounding(&mut Arc::make_mut(&mut ct.raw)[..], variance);
        }
        ct
    }

    /// A value at the canonical scale of `level`.
    ///
    /// # Errors
    /// As [`Ops::plain`].
    pub fn encrypt(&mut self, slots: &SlotVector, level: usize) -> Result<ClearCiphertext> {
        self.encrypt_at(slots, level, self.params.scale_at(level))
    }

    /// A value at any scale.
    ///
    /// # Errors
    /// As [`Ops::plain`].
    pub fn encrypt_at(
        &mut self,
        slots: &SlotVector,
        level: usize,
        scale: Scale,
    ) -> Result<ClearCiphertext> {
        let period = self.plain(slots, level, scale)?.raw;
        let mut raw = period.repeat(self.params.slots() / period.len().max(1));
        self.disturb(&mut raw, NoiseModel::fresh_secret_key);
        Ok(ClearCiphertext {
            raw: Arc::new(raw),
            level,
            scale,
        })
    }

    /// The slots' values.
    #[must_use]
    pub fn decrypt(&self, ct: &ClearCiphertext) -> Vec<Complex> {
        ct.raw.iter().map(|z| z / ct.scale.value()).collect()
    }

    /// Keys needed so far, with their levels.
    #[must_use]
    pub fn keys(&self) -> &KeyList {
        &self.keys
    }

    /// Operations performed so far.
    #[must_use]
    pub fn counts(&self) -> ClearCounts {
        self.counts
    }

    fn need(&mut self, purpose: KeyPurpose, level: usize) {
        self.keys.need(purpose, level, &self.params);
    }

    /// Checks that the encoded numbers still fit the modulus; on real ciphertexts they would
    /// wrap around without notice.
    fn fitting(
        &self,
        op: &'static str,
        raw: Vec<Complex>,
        level: usize,
        scale: Scale,
    ) -> Result<ClearCiphertext> {
        // A maximum would pass over values that are not numbers.
        let broken = raw.iter().any(|z| !z.is_finite());
        let mut largest = raw.iter().map(|z| z.norm()).fold(0.0, f64::max);
        let modulus = self.params.log_q(level);
        if !broken && largest.log2() + 1.0 > modulus {
            // It is the coefficients that must fit. No slot's bound is below theirs, and rarely is
            // it so far above that they have to be had.
            let coefficients = to_coefficients(&raw);
            largest = coefficients.iter().fold(0.0, |m, c| m.max(c.abs()));
        }
        if broken || largest.log2() + 1.0 > modulus {
            return Err(OpsError::Invalid {
                op,
                what: format!(
                    "values of 2^{:.1} at level {level} do not fit the modulus of 2^{modulus:.1}; bound the slots or keep a level more",
                    largest.log2(),
                ),
            });
        }
        Ok(ClearCiphertext {
            raw: Arc::new(raw),
            level,
            scale,
        })
    }

    fn zip(
        &self,
        op: &'static str,
        a: &ClearCiphertext,
        b: &[Complex],
        f: impl Fn(Complex, Complex) -> Complex,
    ) -> Result<ClearCiphertext> {
        let raw = a.raw.iter().zip(b).map(|(x, y)| f(*x, *y)).collect();
        self.fitting(op, raw, a.level, a.scale)
    }

    fn divided(&self, op: &'static str, a: &ClearCiphertext) -> Result<ClearCiphertext> {
        if a.level == 0 {
            return Err(OpsError::OutOfLevels {
                op,
                level: 0,
                needed: 1,
            });
        }
        let step = self.params.step_at(a.level);
        let factor = self.params.product(step.drop) / self.params.product(step.add);
        let raw = a.raw.iter().map(|z| z / factor).collect();
        self.fitting(op, raw, a.level - 1, a.scale.divide(factor))
    }
}

fn empty(op: &'static str) -> OpsError {
    OpsError::Invalid {
        op,
        what: "nothing was given; give at least one operand".to_owned(),
    }
}

/// `f` of each slot and the entry of a period that it meets.
fn with_period(
    raw: &[Complex],
    period: &[Complex],
    f: impl Fn(Complex, Complex) -> Complex,
) -> Vec<Complex> {
    let chunks = raw.chunks(period.len().max(1));
    let pairs = chunks.flat_map(|chunk| chunk.iter().zip(period));
    pairs.map(|(x, y)| f(*x, *y)).collect()
}

fn turned(raw: &[Complex], by: i64) -> Vec<Complex> {
    let mut out = raw.to_vec();
    if !out.is_empty() {
        out.rotate_left(by.rem_euclid(raw.len() as i64) as usize);
    }
    out
}

impl Ops for ClearOps {
    type Ct = ClearCiphertext;
    type Plain = ClearPlain;

    fn params(&self) -> &Params {
        &self.params
    }

    fn level(&self, ct: &ClearCiphertext) -> usize {
        ct.level
    }

    fn scale(&self, ct: &ClearCiphertext) -> Scale {
        ct.scale
    }

    fn plain(&mut self, slots: &SlotVector, level: usize, scale: Scale) -> Result<ClearPlain> {
        self.params.check_level(level)?;
        let needed = (slots.max_abs() * scale.value()).log2() + 1.0;
        let available = self.params.log_q(level);
        if needed > available {
            return Err(CkksError::TooLarge { needed, available }.into());
        }
        let rounded = match slots {
            SlotVector::Constant(_) => 0,
            SlotVector::Periodic(period) => 2 * period.len(),
            SlotVector::Dense(_) => self.params.n(),
        };
        let encoded = |z: &Complex| {
            let z = z * scale.value();
            match rounded {
                0 => Complex::new(z.re.round(), z.im.round()),
                _ => z,
            }
        };
        slots.check(self.params.slots())?;
        let mut raw: Vec<Complex> = slots.entries().iter().map(encoded).collect();
        if rounded > 0 {
            self.disturb(&mut raw, |model| model.encoding(rounded));
        }
        Ok(ClearPlain {
            raw: Arc::new(raw),
            level,
            scale,
            extended: false,
        })
    }

    fn extended_plain(
        &mut self,
        slots: &SlotVector,
        level: usize,
        scale: Scale,
    ) -> Result<ClearPlain> {
        let plain = self.plain(slots, level, scale)?;
        Ok(ClearPlain {
            extended: true,
            ..plain
        })
    }

    fn add(&mut self, a: &ClearCiphertext, b: &ClearCiphertext) -> Result<ClearCiphertext> {
        OpsError::expect_level("add", b.level, a.level)?;
        OpsError::expect_scale("add", b.scale, a.scale)?;
        self.zip("add", a, &b.raw, |x, y| x + y)
    }

    fn sub(&mut self, a: &ClearCiphertext, b: &ClearCiphertext) -> Result<ClearCiphertext> {
        OpsError::expect_level("sub", b.level, a.level)?;
        OpsError::expect_scale("sub", b.scale, a.scale)?;
        self.zip("sub", a, &b.raw, |x, y| x - y)
    }

    fn negate(&mut self, a: &ClearCiphertext) -> Result<ClearCiphertext> {
        self.zip("negate", a, &a.raw, |x, _| -x)
    }

    fn add_plain(&mut self, a: &ClearCiphertext, p: &ClearPlain) -> Result<ClearCiphertext> {
        OpsError::expect_plain_level("add_plain", p.level, a.level)?;
        OpsError::expect_scale("add_plain", p.scale, a.scale)?;
        let raw = with_period(&a.raw, &p.raw, |x, y| x + y);
        self.fitting("add_plain", raw, a.level, a.scale)
    }

    fn mul_plain(&mut self, a: &ClearCiphertext, p: &ClearPlain) -> Result<ClearCiphertext> {
        OpsError::expect_plain_level("mul_plain", p.level, a.level)?;
        self.counts.plain_products += 1;
        let raw = with_period(&a.raw, &p.raw, |x, y| x * y);
        self.fitting("mul_plain", raw, a.level, a.scale.product(p.scale))
    }

    fn rescale(&mut self, a: &ClearCiphertext) -> Result<ClearCiphertext> {
        let out = self.divided("rescale", a)?;
        self.counts.rescales += 1;
        Ok(self.disturbed(out, NoiseModel::division))
    }

    fn mul_sum(
        &mut self,
        pairs: &[(&ClearCiphertext, &ClearCiphertext)],
    ) -> Result<ClearCiphertext> {
        const OP: &str = "mul_sum";
        let (first, other) = pairs.first().ok_or_else(|| empty(OP))?;
        let scale = first.scale.product(other.scale);
        let mut raw = vec![Complex::new(0.0, 0.0); self.params.slots()];
        for (a, b) in pairs {
            OpsError::expect_level(OP, a.level, first.level)?;
            OpsError::expect_level(OP, b.level, first.level)?;
            OpsError::expect_scale(OP, a.scale.product(b.scale), scale)?;
            for ((sum, x), y) in raw.iter_mut().zip(a.raw.iter()).zip(b.raw.iter()) {
                *sum += x * y;
            }
        }
        let sum = self.fitting(OP, raw, first.level, scale)?;
        let out = self.divided(OP, &sum)?;
        self.need(KeyPurpose::Relinearization, first.level);
        self.counts.products += pairs.len();
        self.counts.relinearizations += 1;
        let level = first.level;
        Ok(self.disturbed(out, |model| model.relinearize_rescale(0.0, level)))
    }

    fn rotate_many(&mut self, a: &ClearCiphertext, by: &[i64]) -> Result<Vec<ClearCiphertext>> {
        let slots = self.params.slots() as i64;
        by.iter()
            .map(|&by| {
                self.need(KeyPurpose::Rotation(by), a.level);
                let out = self.fitting("rotate_many", turned(&a.raw, by), a.level, a.scale)?;
                if by.rem_euclid(slots) == 0 {
                    return Ok(out);
                }
                self.counts.rotations += 1;
                Ok(self.disturbed(out, |model| model.key_switch(a.level)))
            })
            .collect()
    }

    fn rotate_sum(&mut self, a: &ClearCiphertext, by: &[i64]) -> Result<ClearCiphertext> {
        let mut raw = a.raw.to_vec();
        for &step in by {
            self.need(KeyPurpose::Rotation(step), a.level);
            let turned = turned(&a.raw, step);
            raw.iter_mut().zip(turned).for_each(|(z, t)| *z += t);
        }
        let out = self.fitting("rotate_sum", raw, a.level, a.scale)?;
        let slots = self.params.slots();
        match by.iter().filter(|by| moves(**by, slots)).count() {
            0 => Ok(out),
            moved => {
                self.counts.rotations += moved;
                Ok(self.disturbed(out, |model| model.rotation_sum(a.level, moved)))
            }
        }
    }

    fn conjugate(&mut self, a: &ClearCiphertext) -> Result<ClearCiphertext> {
        self.need(KeyPurpose::Conjugation, a.level);
        self.counts.rotations += 1;
        let out = self.zip("conjugate", a, &a.raw, |x, _| x.conj())?;
        Ok(self.disturbed(out, |model| model.key_switch(a.level)))
    }

    fn drop_to(&mut self, a: &ClearCiphertext, level: usize) -> Result<ClearCiphertext> {
        if level > a.level {
            return Err(OpsError::OutOfLevels {
                op: "drop_to",
                level: a.level,
                needed: level,
            });
        }
        let out = self.fitting("drop_to", a.raw.to_vec(), level, a.scale)?;
        let way = lowering(&self.params, a.level, level)?;
        if way.step.add.is_empty() {
            return Ok(out);
        }
        Ok(self.disturbed(out, NoiseModel::division))
    }

    fn adjust(&mut self, a: &ClearCiphertext, level: usize) -> Result<ClearCiphertext> {
        const OP: &str = "adjust";
        if level == a.level {
            OpsError::expect_scale(OP, a.scale, self.params.scale_at(level))?;
            return Ok(a.clone());
        }
        if level > a.level {
            return Err(OpsError::OutOfLevels {
                op: OP,
                level: a.level,
                needed: level,
            });
        }
        let constant = adjust_constant(&self.params, a.scale, level)? as f64;
        let above = self.drop_to(a, level + 1)?;
        let scaled = above.raw.iter().map(|z| z * constant).collect();
        let scaled = self.fitting(OP, scaled, level + 1, above.scale)?;
        self.counts.plain_products += 1;
        let lowered = self.rescale(&scaled)?;
        Ok(ClearCiphertext {
            scale: self.params.scale_at(level),
            ..lowered
        })
    }

    fn linear_transforms(
        &mut self,
        inputs: &[&ClearCiphertext],
        transforms: &[&Transform<ClearPlain>],
    ) -> Result<Vec<ClearCiphertext>> {
        self.transforms(inputs, transforms)
    }

    fn nested_transform(
        &mut self,
        inputs: &[&ClearCiphertext],
        transform: &Transform<ClearPlain>,
    ) -> Result<ClearCiphertext> {
        self.nested(inputs, transform)
    }

    fn mod_raise(&mut self, a: &ClearCiphertext) -> Result<ClearCiphertext> {
        self.raise(a)
    }

    fn bootstraps(
        &mut self,
        inputs: &[&ClearCiphertext],
        which: usize,
    ) -> Result<Vec<ClearCiphertext>> {
        self.bootstrapped(inputs, which)
    }
}

/// Small parameters without security, for tests: N = 2^8, `levels` levels of 36 bits.
///
/// # Panics
/// If no such parameters exist, which no number of levels up to 20 causes.
#[doc(hidden)]
#[must_use]
#[allow(clippy::expect_used)]
pub fn toy_params(levels: usize) -> Params {
    veilformer_ckks::ParamsSpec {
        log_n: 8,
        first_bits: 45,
        scale_bits: 36,
        levels,
        special_bits: 45,
        special_count: 2,
        digit_limbs: 2,
        security: veilformer_ckks::SecurityLevel::Bits128,
    }
    .validate_insecure_for_tests()
    .expect("toy parameters exist")
}

/// Parameters without security, for tests of programs with bootstraps: N = 2^`log_n`, three levels
/// of 2^40 between two of SlotToCoeff and twelve of CoeffToSlot and EvalMod; with what decides the
/// noise.
///
/// # Panics
/// If no such parameters exist, which no ring of 2^9 to 2^12 causes.
#[doc(hidden)]
#[must_use]
pub fn toy_bootstrap(log_n: u32) -> (Params, BootstrapSpec) {
    toy_bootstrap_of(log_n, 3)
}

/// The same with another number of levels.
///
/// # Panics
/// If no such parameters exist, which no ring of 2^9 to 2^12 causes.
#[doc(hidden)]
#[must_use]
#[allow(clippy::expect_used)]
pub fn toy_bootstrap_of(log_n: u32, levels: usize) -> (Params, BootstrapSpec) {
    let above = 12;
    let ladder = veilformer_ckks::Ladder {
        below: vec![44; 2],
        above: vec![50; above],
    };
    let params = veilformer_ckks::ParamsSpec {
        log_n,
        first_bits: 50,
        scale_bits: 40,
        levels: 2 + levels + above,
        special_bits: 50,
        special_count: 4,
        digit_limbs: 4,
        security: veilformer_ckks::SecurityLevel::Bits128,
    }
    .validate_ladder_insecure_for_tests(&ladder)
    .expect("toy parameters exist");
    let spec = BootstrapSpec {
        log_n,
        secret_weight: (2 << log_n) / 3,
        ..BootstrapSpec::PRESET
    };
    (params, spec)
}

/// Parameters with a bootstrap that ends with SlotToCoeff, from level 0 to level 3: two factors each
/// way, EvalMod at 2^60 on levels of two primes.
///
/// # Panics
/// As [`toy_modraise_first_of`].
#[doc(hidden)]
#[must_use]
pub fn toy_modraise_first(log_n: u32) -> (Params, BootstrapSpec) {
    let spec = BootstrapSpec::MODRAISE_FIRST;
    toy_modraise_first_of(log_n, spec.eval_mod_scale_bits, spec.message_ratio_bits)
}

/// The same with another scale of EvalMod, and a message of another part of the modulus.
///
/// # Panics
/// If no such parameters exist, which no ring of 2^9 to 2^12 causes.
#[doc(hidden)]
#[must_use]
#[allow(clippy::expect_used)]
pub fn toy_modraise_first_of(
    log_n: u32,
    eval_mod_scale_bits: u32,
    message_ratio_bits: u32,
) -> (Params, BootstrapSpec) {
    let mut above = vec![44; 2];
    above.extend([eval_mod_scale_bits; 11]);
    above.push(50);
    let spec = BootstrapSpec {
        log_n,
        eval_mod_scale_bits,
        message_ratio_bits,
        secret_weight: (2 << log_n) / 3,
        ..BootstrapSpec::MODRAISE_FIRST
    };
    let params = veilformer_ckks::ParamsSpec {
        log_n,
        first_bits: spec.bottom_scale_bits + spec.message_ratio_bits,
        scale_bits: spec.bottom_scale_bits,
        levels: 3 + above.len(),
        special_bits: 50,
        special_count: 4,
        digit_limbs: 4,
        security: veilformer_ckks::SecurityLevel::Bits128,
    }
    .validate_ladder_insecure_for_tests(&veilformer_ckks::Ladder {
        below: Vec::new(),
        above,
    })
    .expect("toy parameters exist");
    (params, spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::toy_params;
    use veilformer_ckks::{Giant, Term};

    fn ramp(n: usize) -> SlotVector {
        SlotVector::real(&(0..n).map(|i| i as f64 / n as f64).collect::<Vec<_>>())
    }

    #[test]
    fn rules_are_enforced() {
        let params = toy_params(3);
        let mut ops = ClearOps::new(&params);
        let x = ops.encrypt(&ramp(params.slots()), 3).unwrap();
        let low = ops.drop_to(&x, 1).unwrap();
        assert!(matches!(
            ops.add(&x, &low),
            Err(OpsError::LevelMismatch { .. })
        ));
        let unscaled = {
            let p = ops
                .plain(&SlotVector::real_constant(0.5), 3, params.scale_at(3))
                .unwrap();
            ops.mul_plain(&x, &p).unwrap()
        };
        assert!(matches!(
            ops.add(&x, &unscaled),
            Err(OpsError::ScaleMismatch { .. })
        ));
        let zero = ops.drop_to(&x, 0).unwrap();
        assert!(matches!(
            ops.mul(&zero, &zero),
            Err(OpsError::OutOfLevels { .. }) | Err(OpsError::Invalid { .. })
        ));
        assert!(matches!(
            ops.drop_to(&zero, 1),
            Err(OpsError::OutOfLevels { .. })
        ));
        assert!(ops.mul_sum(&[]).is_err());
        // Values beyond the modulus are found.
        let big = ops
            .plain(&SlotVector::real_constant(1e12), 3, params.scale_at(3))
            .unwrap();
        let huge = ops.mul_plain(&x, &big).unwrap();
        assert!(matches!(
            ops.drop_to(&huge, 0),
            Err(OpsError::Invalid { .. })
        ));
    }

    #[test]
    fn values_follow_the_operations() {
        let params = toy_params(3);
        let n = params.slots();
        let mut ops = ClearOps::new(&params);
        let x = ops.encrypt(&ramp(n), 3).unwrap();
        let square = ops.square(&x).unwrap();
        assert_eq!(ops.level(&square), 2);
        assert!(ops.scale(&square).matches(params.scale_at(2)));
        let low = ops.adjust(&x, 1).unwrap();
        let diff = ops.adjust(&square, 1).unwrap();
        let diff = ops.sub(&low, &diff).unwrap();
        let turned = ops.rotate(&diff, 3).unwrap();
        let got = ops.decrypt(&turned);
        for (i, z) in got.iter().enumerate() {
            let v = ((i + 3) % n) as f64 / n as f64;
            assert!((z.re - (v - v * v)).abs() < 1e-9 && z.im.abs() < 1e-9);
        }
        assert_eq!(ops.keys().rotations, vec![(3, 1)]);
        assert_eq!(ops.keys().relinearization, [3]);
    }

    #[test]
    fn transforms_follow_their_formula() {
        let params = toy_params(2);
        let n = params.slots();
        let mut ops = ClearOps::new(&params);
        let x = ops.encrypt(&ramp(n), 2).unwrap();
        let plain = ops.extended_plain(&ramp(n), 2, params.scale_at(2)).unwrap();
        let t = Transform {
            giants: vec![Giant {
                rotation: 2,
                terms: vec![Term {
                    input: 0,
                    baby: 1,
                    plain,
                }],
            }],
        };
        let y = ops.linear_transform(&[&x], &t).unwrap();
        let got = ops.decrypt(&y);
        let v = |i: usize| (i % n) as f64 / n as f64;
        for (i, z) in got.iter().enumerate() {
            assert!((z.re - v(i + 2) * v(i + 3)).abs() < 1e-9);
        }
        assert_eq!(ops.counts().rotations, 2);
    }

    /// What an operation adds to its result has the variance that the model says, operand by
    /// operand: this is what makes a simulation a prediction.
    #[test]
    fn noise_has_the_variance_of_the_model() {
        type Op = fn(&mut ClearOps, &ClearCiphertext) -> ClearCiphertext;
        type Predicted = fn(&NoiseModel) -> f64;
        let params = toy_params(3);
        let n = params.slots();
        let table: [(&str, Op, Predicted); 6] = [
            (
                "encryption",
                |o, _| o.encrypt(&SlotVector::real_constant(0.0), 3).unwrap(),
                |m| m.fresh_secret_key(),
            ),
            (
                "rotation",
                |o, x| o.rotate(x, 3).unwrap(),
                |m| m.key_switch(3),
            ),
            (
                "conjugation",
                |o, x| o.conjugate(x).unwrap(),
                |m| m.key_switch(3),
            ),
            (
                "rescale",
                |o, x| o.rescale(x).unwrap(),
                NoiseModel::division,
            ),
            (
                "square",
                |o, x| o.square(x).unwrap(),
                |m| m.relinearize_rescale(0.0, 3),
            ),
            ("addition", |o, x| o.add(x, x).unwrap(), |_| 0.0),
        ];
        let model = NoiseModel::new(&params, SecretKind::DenseTernary);
        let mut clean = ClearOps::new(&params);
        let x = clean.encrypt(&ramp(n), 3).unwrap();
        for (name, op, predicted) in table {
            let mut square = 0.0;
            for seed in 0..64 {
                let mut noisy = ClearOps::with_noise(&params, SecretKind::DenseTernary, seed);
                let (with, without) = (op(&mut noisy, &x), op(&mut clean, &x));
                let pairs = with.raw.iter().zip(without.raw.iter());
                square += pairs.map(|(a, b)| (a - b).norm_sqr()).sum::<f64>();
            }
            // A slot's mean square is N times the variance of a coefficient.
            let variance = square / (64.0 * n as f64 * params.n() as f64);
            let predicted = predicted(&model);
            let ratio = if predicted == 0.0 {
                variance + 1.0
            } else {
                variance / predicted
            };
            assert!((0.92..1.09).contains(&ratio), "{name}: {ratio}");
        }
        // The same seed gives the same sample, another one another.
        let sample = |seed| {
            let mut ops = ClearOps::with_noise(&params, SecretKind::DenseTernary, 0);
            ops.reseed(seed);
            let turned = ops.rotate(&x, 1).unwrap();
            ops.decrypt(&turned)
        };
        assert_eq!(sample(5), sample(5));
        assert_ne!(sample(5), sample(6));
    }
}
