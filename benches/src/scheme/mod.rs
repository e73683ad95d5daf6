//! Our side of a comparison: parameters, keys and ciphertexts, and the operations on them.

pub mod floors;
mod ops;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use veilformer_ckks::{
    EvaluationKeys, Evaluator, KeyPurpose, OpsError, Params, ParamsSpec, SecurityLevel,
    SharedCiphertext, SharedPlain, SlotVector, Transform,
};
use veilformer_ckks::{Giant, Term};
use veilformer_ring::{Cpu, CpuConfig, CpuKey, Isa};
use veilformer_secret::{Encryptor, KeyGenerator, SecretKey, SecureRng};

use crate::error::{BenchError, Result};
use floors::Shape;
pub use ops::Op;
pub(crate) use ops::transform_case;

/// Baby and giant steps of the measured linear transform: 128 diagonals.
pub const BABIES_GIANTS: (i64, i64) = (16, 8);

/// Rotations that are hoisted together.
pub const HOISTED: i64 = 8;

/// The parameters of a run, as they are asked for and as they are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sizes {
    /// log2 of the ring dimension.
    pub log_n: u32,
    /// Primes of Q.
    pub limbs: usize,
    /// Special primes.
    pub special: usize,
    /// Key-switching digits.
    pub dnum: usize,
    /// Bits of the scale and of the primes of Q.
    pub scale_bits: u32,
    /// log2 of the product of all primes.
    pub log_qp: f64,
    /// Bits of security of the keys by table; 0 if below 128.
    pub security_bits: u32,
}

impl Sizes {
    /// Parameters with as many special primes as a digit has limbs, one bit larger than the scale.
    ///
    /// # Errors
    /// [`BenchError::Usage`] for no limbs or no digits; the scheme's for what does not exist.
    pub fn params(log_n: u32, limbs: usize, dnum: usize, scale: u32) -> Result<Params> {
        if dnum == 0 || limbs < 2 || dnum > limbs {
            return Err(BenchError::Usage(format!(
                "{limbs} limbs in {dnum} digits; at least 2 limbs and 1 to that many digits are needed"
            )));
        }
        let digit_limbs = limbs.div_ceil(dnum);
        let spec = ParamsSpec {
            log_n,
            first_bits: scale,
            scale_bits: scale,
            levels: limbs - 1,
            special_bits: scale + 1,
            special_count: digit_limbs,
            digit_limbs,
            security: SecurityLevel::Bits128,
        };
        // Small rings measure locality, not secrets: their rows then say 0 bits.
        Ok(spec
            .clone()
            .validate()
            .or_else(|_| spec.validate_insecure_for_tests())?)
    }

    /// What parameters come to.
    #[must_use]
    pub fn of(params: &Params) -> Self {
        let spec = params.spec();
        Self {
            log_n: spec.log_n,
            limbs: spec.levels + 1,
            special: spec.special_count,
            dnum: params.digits().len(),
            scale_bits: spec.scale_bits,
            log_qp: params.log_qp(),
            security_bits: params.security().bits(),
        }
    }
}

/// What counts depend on, with kernels of an instruction set.
#[must_use]
pub fn shape(params: &Params, isa: Isa) -> Shape {
    let spec = params.spec();
    Shape {
        log_n: spec.log_n,
        limbs: spec.levels + 1,
        special: spec.special_count,
        digit_limbs: spec.digit_limbs,
        bits: spec.scale_bits,
        halves: CpuKey::stored_halves(params.chain(), isa) as u32,
    }
}

/// A scheme with keys and operands for some operations.
pub struct Setting {
    /// The parameters.
    pub params: Params,
    /// The backend.
    pub cpu: Cpu,
    secret: SecretKey,
    keys: EvaluationKeys<Cpu>,
}

/// Operands, which borrow the setting's keys.
pub struct Operands<'s> {
    setting: &'s Setting,
    evaluator: Evaluator<'s, Cpu>,
    slots: SlotVector,
    a: SharedCiphertext<Cpu>,
    b: SharedCiphertext<Cpu>,
    plain: SharedPlain<Cpu>,
    transform: Option<Transform<SharedPlain<Cpu>>>,
}

impl Setting {
    /// Makes the keys that the operations need.
    ///
    /// # Errors
    /// The scheme's.
    pub fn new(params: &Params, isa: Isa, ops: &[Op]) -> Result<Self> {
        let cpu = Cpu::new(params.chain().clone(), CpuConfig { isa })?;
        let mut generator = KeyGenerator::new(params, SecureRng::from_os()?);
        let secret = generator.secret_key()?;
        let mut keys = EvaluationKeys::empty(params, secret.id());
        let wanted: BTreeSet<KeyPurpose> = ops.iter().flat_map(|op| op.keys()).collect();
        for purpose in wanted {
            let key = generator.switching_key(&secret, purpose, params.max_level())?;
            keys.insert(params, &cpu, &key)?;
        }
        Ok(Self {
            params: params.clone(),
            cpu,
            secret,
            keys,
        })
    }

    /// Makes the operands that the operations need.
    ///
    /// # Errors
    /// The scheme's.
    pub fn operands(&self, ops: &[Op]) -> Result<Operands<'_>> {
        let evaluator = Evaluator::new(&self.params, &self.cpu, &self.keys)?;
        let level = self.params.max_level();
        let scale = self.params.scale_at(level);
        let slots = vector(&self.params, 0);
        let mut encryptor = Encryptor::new(&self.secret, SecureRng::from_os()?)?;
        let mut fresh = |number| -> Result<SharedCiphertext<Cpu>> {
            let stored = encryptor.encrypt(&vector(&self.params, number), level)?;
            Ok(evaluator.import(stored.expand(&self.params)?)?)
        };
        let (a, b) = (fresh(1)?, fresh(2)?);
        let plain = evaluator.encode(&slots, level, scale)?;
        let transform = ops.contains(&Op::LinearTransform128);
        let transform = transform.then(|| self.transform(&evaluator)).transpose()?;
        Ok(Operands {
            setting: self,
            evaluator,
            slots,
            a,
            b,
            plain,
            transform,
        })
    }

    /// 128 dense diagonals.
    fn transform(
        &self,
        evaluator: &Evaluator<'_, Cpu>,
    ) -> std::result::Result<Transform<SharedPlain<Cpu>>, OpsError> {
        let (babies, giants) = BABIES_GIANTS;
        let level = self.params.max_level();
        let scale = self.params.scale_at(level);
        let term = |giant: i64, baby: i64| {
            let slots = vector(&self.params, 3 + giant * babies + baby);
            let plain = if baby == 0 {
                evaluator.encode(&slots, level, scale)?
            } else {
                evaluator.encode_extended(&slots, level, scale)?
            };
            let input = 0;
            Ok(Term { input, baby, plain })
        };
        let giant = |giant: i64| {
            Ok(Giant {
                rotation: giant * babies,
                terms: (0..babies)
                    .map(|b| term(giant, b))
                    .collect::<std::result::Result<_, OpsError>>()?,
            })
        };
        let giants = (0..giants).map(giant);
        Ok(Transform {
            giants: giants.collect::<std::result::Result<_, OpsError>>()?,
        })
    }
}

/// Slots that no shorter vector repeats; small, so that sums of 128 products stay small.
fn vector(params: &Params, number: i64) -> SlotVector {
    let mut random = crate::interleave::Shuffler::new(number as u64);
    let value = |_| random.below(1 << 30) as f64 / f64::from(1 << 30) / 128.0;
    let values: Vec<f64> = (0..params.slots()).map(value).collect();
    SlotVector::real(&values)
}
