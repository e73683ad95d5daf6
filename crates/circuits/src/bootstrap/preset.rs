//! Parameters and bootstraps that belong together, chosen and checked.
//!
//! `presets.json` is generated (`cargo run --release -p veilformer-circuits --example presets`); a
//! test compares it with what the generator makes. The precision, the failure probability and the
//! security rows in it are predictions, made without a ciphertext; what was measured stands in
//! the cards (book, "Bootstraps").

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use veilformer_ckks::{
    CkksError, KeyList, KeyPurpose, Ladder, OpsError, Params, ParamsSpec, SecurityLevel,
    SecurityReport,
};

use super::noise::{BootstrapSpec, Order};
use super::plan::{BootstrapPlan, Content};
use crate::CircuitError;
use crate::testing::{ClearOps, Counting};

const NAME: &str = "bootstrap preset";

/// log2 of the largest accepted probability that one bootstrap leaves the range of EvalMod.
pub const FAILURE_LOG2: f64 = -32.0;

/// Bits of the worst slot that a preset must reach by prediction.
pub const LEAST_BITS: f64 = 18.0;

/// Parameters with a bootstrap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preset {
    /// A name: the number of levels that a bootstrap gives, or its order if it is not the default.
    pub name: String,
    /// The chain; its `levels` are all levels.
    pub params: ParamsSpec,
    /// Bits of the levels below a program's, from level 1 up: SlotToCoeff's where it comes first.
    pub below: Vec<u32>,
    /// Bits of the levels above, upwards: SlotToCoeff's where it comes last, EvalMod's, CoeffToSlot's.
    pub above: Vec<u32>,
    /// What decides the noise.
    pub bootstrap: BootstrapSpec,
    /// What is predicted of it.
    pub predicted: Predicted,
}

/// What is known of a preset before anything runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// Levels that a bootstrap gives.
    pub levels: usize,
    /// log2 of the product of all primes.
    pub log_qp: f64,
    /// Key-switching digits at the highest level.
    pub digits: usize,
    /// `-log2` of the mean absolute error of a slot's part, for messages of absolute value 1.
    pub mean_bits: f64,
    /// `-log2` of the median of the largest error of all slots' parts, for such messages.
    pub worst_bits: f64,
    /// `-log2` of the part of both that is not noise: the error of the sine.
    pub sine_bits: f64,
    /// log2 of the probability that some coefficient leaves the range in one bootstrap.
    pub failure_log2: f64,
    /// Evaluation keys that a bootstrap of complex slots needs.
    pub keys: usize,
    /// Bytes of these keys in memory, both halves.
    pub key_bytes: u64,
    /// One row per kind of key, each under its own secret.
    pub security: SecurityReport,
}

impl Preset {
    /// All shipped presets.
    ///
    /// # Errors
    /// None in practice: the file is part of the program, and tested.
    pub fn all() -> Result<&'static [Self], CircuitError> {
        static PRESETS: OnceLock<Option<Vec<Preset>>> = OnceLock::new();
        PRESETS
            .get_or_init(|| serde_json::from_str(include_str!("presets.json")).ok())
            .as_deref()
            .ok_or_else(|| CircuitError::shape(NAME, "the presets of this build are unreadable"))
    }

    /// The preset of this name.
    ///
    /// # Errors
    /// A name that no preset has.
    pub fn named(name: &str) -> Result<&'static Self, CircuitError> {
        let all = Self::all()?;
        all.iter().find(|p| p.name == name).ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|p| p.name.as_str()).collect();
            let what = format!("there is no preset {name}; known are {}", names.join(", "));
            CircuitError::shape(NAME, what)
        })
    }

    /// The cheapest preset of this order with so many levels of 2^40 at N = 2^16 and 128 bits: of all
    /// numbers of special primes the one with the fewest NTTs in a key switch at the highest level.
    ///
    /// # Errors
    /// If no chain with so many levels is secure, or what the checks of a preset refuse.
    pub fn generate(order: Order, levels: usize) -> Result<Self, CircuitError> {
        let (bootstrap, name) = match order {
            Order::SlotToCoeffFirst => (BootstrapSpec::PRESET, format!("{levels}-levels")),
            Order::SlotToCoeffLast => (BootstrapSpec::MODRAISE_FIRST, "modraise-first".to_owned()),
        };
        let ladder = ladder(&bootstrap)?;
        let mut best: Option<(usize, ParamsSpec, Params)> = None;
        for special in 2..=16 {
            let Some((spec, params)) = secure(&bootstrap, &ladder, (levels, special)) else {
                continue;
            };
            let cost = transforms_of_a_key_switch(&params);
            if best.as_ref().is_none_or(|b| cost < b.0) {
                best = Some((cost, spec, params));
            }
        }
        let (_, spec, params) = best.ok_or_else(|| {
            CircuitError::shape(NAME, format!("no secure chain has {levels} levels to give"))
        })?;
        let predicted = Predicted::of(&params, &bootstrap)?;
        let preset = Self {
            name,
            params: spec,
            below: ladder.below,
            above: ladder.above,
            bootstrap,
            predicted,
        };
        preset.check()?;
        Ok(preset)
    }

    /// The parameters, validated.
    ///
    /// # Errors
    /// As [`ParamsSpec::validate_ladder`].
    pub fn validate(&self) -> Result<Params, CkksError> {
        self.params.clone().validate_ladder(&Ladder {
            below: self.below.clone(),
            above: self.above.clone(),
        })
    }

    /// The bootstrap of this preset on slots of this content.
    ///
    /// # Errors
    /// A period that does not fit the slots.
    pub fn plan(&self, params: &Params, content: Content) -> Result<BootstrapPlan, CircuitError> {
        BootstrapPlan::new(params, &self.bootstrap, content)
    }

    /// What a preset must be: precise, safe against leaving the range, and secure key by key.
    ///
    /// # Errors
    /// What it is not.
    pub fn check(&self) -> Result<(), CircuitError> {
        let p = &self.predicted;
        let fail = |what: String| Err(CircuitError::shape(NAME, format!("{}: {what}", self.name)));
        let bits = p.worst_bits.min(p.sine_bits);
        if bits < LEAST_BITS {
            return fail(format!(
                "the worst slot has {bits:.1} bits, not {LEAST_BITS}"
            ));
        }
        if p.failure_log2 > FAILURE_LOG2 {
            return fail(format!(
                "it fails with probability 2^{:.1}, more than 2^{FAILURE_LOG2}",
                p.failure_log2
            ));
        }
        if p.security.bits() < self.params.security.bits() {
            return fail(format!("its weakest key has {} bits", p.security.bits()));
        }
        Ok(())
    }
}

/// Levels of each transform: three factors at N = 2^16.
const TRANSFORM_LEVELS: usize = 3;

/// The outer levels of a preset.
///
/// SlotToCoeff first: its levels below at the bottom's scale, EvalMod and CoeffToSlot above.
///
/// SlotToCoeff last: nothing below. Its own levels descend from EvalMod's scale over what EvalMod's
/// output is multiplied with, 18 bits, and leave its plaintexts 32 each: their rounding is below that of
/// the last rescale, at 2^40. The first two factors of CoeffToSlot end at 2^50 and need no more than
/// primes of that size; what they leave of the plaintexts' scales, 60 bits each, keeps their rounding
/// below the rescales' at 2^60.
fn ladder(bootstrap: &BootstrapSpec) -> Result<Ladder, CircuitError> {
    let depth = bootstrap.eval_mod_depth()?;
    let scale = bootstrap.eval_mod_scale_bits;
    Ok(match bootstrap.order {
        Order::SlotToCoeffFirst => Ladder {
            below: vec![bootstrap.bottom_scale_bits; TRANSFORM_LEVELS],
            above: [
                vec![scale; depth],
                vec![FIRST_TRANSFORM_BITS; TRANSFORM_LEVELS],
            ]
            .concat(),
        },
        Order::SlotToCoeffLast => {
            let mut above = vec![38; TRANSFORM_LEVELS];
            above.extend(std::iter::repeat_n(scale, depth + 1));
            above.extend([50, 50]);
            Ladder {
                below: Vec::new(),
                above,
            }
        }
    })
}

/// The chain with so many levels to give and special primes: the largest ones that are secure.
fn secure(
    bootstrap: &BootstrapSpec,
    ladder: &Ladder,
    (levels, special_count): (usize, usize),
) -> Option<(ParamsSpec, Params)> {
    let chain = |special_bits| {
        let spec = ParamsSpec {
            log_n: bootstrap.log_n,
            first_bits: bootstrap.bottom_scale_bits + bootstrap.message_ratio_bits,
            scale_bits: 40,
            levels: ladder.below.len() + levels + ladder.above.len(),
            special_bits,
            special_count,
            digit_limbs: special_count,
            security: SecurityLevel::Bits128,
        };
        let params = spec.clone().validate_ladder(ladder).ok()?;
        Some((spec, params))
    };
    (LEAST_SPECIAL_BITS..=50).rev().find_map(chain)
}

/// Bits of the levels of a CoeffToSlot that no SlotToCoeff follows: those of its plaintexts, whose rounding
/// stays far below the noise that key switches leave at the scale of EvalMod.
const FIRST_TRANSFORM_BITS: u32 = 46;

/// Below it a special prime more would be as good.
const LEAST_SPECIAL_BITS: u32 = 45;

/// NTTs of one limb in a key switch at the highest level.
fn transforms_of_a_key_switch(params: &Params) -> usize {
    let top = params.basis_at(params.max_level());
    let (limbs, special) = (top.len(), params.special().len());
    let digits = params.digits().len();
    // Into coefficients, the digits into all other primes, and ModDown of two polynomials.
    limbs + digits * (limbs + special) - limbs + 2 * (special + limbs)
}

impl Predicted {
    /// Predicts, without running anything on ciphertexts.
    ///
    /// # Errors
    /// A specification that does not fit the parameters, or an insecure key.
    pub fn of(params: &Params, spec: &BootstrapSpec) -> Result<Self, CircuitError> {
        let plan = BootstrapPlan::new(params, spec, Content::Complex)?;
        let noise = plan.noise()?;
        let worst = plan.error()?;
        let list = plan.keys()?;
        let security = list.security(params).map_err(OpsError::from)?;
        let bytes = list
            .iter()
            .map(|(purpose, level)| key_bytes(params, purpose, level));
        let key_bytes = bytes.sum::<Result<u64, _>>().map_err(OpsError::from)?;
        Ok(Self {
            levels: plan.useful_levels(),
            log_qp: rounded(params.log_qp()),
            digits: params.digits().len(),
            // Noise on both sides of what the sine leaves cancels on average.
            mean_bits: rounded(noise.mean_bits.min(-noise.sine_error.log2())),
            worst_bits: rounded(-worst.log2()),
            sine_bits: rounded(-noise.sine_error.log2()),
            failure_log2: rounded(spec.range_failure_log2()),
            keys: list.len(),
            key_bytes,
            security,
        })
    }
}

/// To two digits: what a file of generated data shows.
fn rounded(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

impl BootstrapPlan {
    /// The keys that it needs, with their levels.
    ///
    /// # Errors
    /// What the operations refuse.
    pub fn keys(&self) -> Result<KeyList, CircuitError> {
        let mut ops = Counting::new(ClearOps::new(self.params()));
        let zero = veilformer_ckks::SlotVector::real_constant(0.0);
        let x = ops.inner().encrypt(&zero, self.output_level())?;
        self.encode(&mut ops)?.run(&mut ops, &x)?;
        Ok(ops.keys().clone())
    }
}

/// Bytes of one key, both halves, as words of 64 bits; prepared keys may be packed to fewer.
fn key_bytes(params: &Params, purpose: KeyPurpose, level: usize) -> Result<u64, CkksError> {
    let shape = purpose.shape(params, level)?;
    Ok(2 * 8 * (params.n() * shape.basis.len() * shape.digits.len()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilformer_ckks::SecretKind;

    #[test]
    fn presets_are_what_the_generator_makes() {
        for preset in Preset::all().unwrap() {
            let (order, levels) = (preset.bootstrap.order, preset.predicted.levels);
            let made = Preset::generate(order, levels).unwrap();
            // As it comes out of a file: the last bit of a number may be read otherwise than written.
            let text = serde_json::to_string(&made).unwrap();
            assert_eq!(&serde_json::from_str::<Preset>(&text).unwrap(), preset);
        }
        assert!(Preset::named("10-levels").is_ok() && Preset::named("14-levels").is_ok());
        assert!(
            Preset::named("11")
                .unwrap_err()
                .to_string()
                .contains("10-levels, 11-levels, 14-levels, modraise-first")
        );
    }

    #[test]
    fn every_key_has_a_row_of_its_own_secret() {
        for preset in Preset::all().unwrap() {
            let rows = &preset.predicted.security.rows;
            assert_eq!(rows.len(), preset.predicted.keys);
            let sparse = rows
                .iter()
                .filter(|row| row.secret != SecretKind::DenseTernary);
            let [to] = &sparse.collect::<Vec<_>>()[..] else {
                panic!("one key under the ephemeral secret");
            };
            assert!(to.log_qp < 340.0 && to.bits >= 128, "{to:?}");
        }
    }

    #[test]
    fn the_checker_refuses() {
        let good = Preset::named("10-levels").unwrap();
        let imprecise = |p: &mut Predicted| p.worst_bits = 17.9;
        let failing = |p: &mut Predicted| p.failure_log2 = -31.0;
        let insecure = |p: &mut Predicted| p.security.rows[3].bits = 127;
        let changes: [&dyn Fn(&mut Predicted); 3] = [&imprecise, &failing, &insecure];
        for change in changes {
            let mut bad = good.clone();
            change(&mut bad.predicted);
            assert!(bad.check().is_err());
        }
        // No secure chain has so many levels, and no ring of another size this specification.
        assert!(Preset::generate(Order::SlotToCoeffFirst, 40).is_err());
        assert!(
            BootstrapPlan::new(
                &crate::testing::toy_params(3),
                &good.bootstrap,
                Content::Real
            )
            .is_err()
        );
    }
}
