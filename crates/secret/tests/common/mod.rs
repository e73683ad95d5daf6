//! What the tests share: toy parameters, keys from fixed seeds, encrypt and decrypt in one call.
#![allow(dead_code, clippy::unwrap_used)] // every test binary uses its own part

use std::ops::ControlFlow;

use veilformer_ckks::{
    Complex, EvaluationKeys, Evaluator, KeyList, KeyPurpose, Params, ParamsSpec, Scale,
    SecurityLevel, SharedCiphertext, SlotVector,
};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator, SecretKey, SecureRng};

/// Six levels of 36 bits in two-prime digits; N = 2^log_n is far too small to protect anything.
pub fn toy_spec(log_n: u32) -> ParamsSpec {
    ParamsSpec {
        log_n,
        first_bits: 45,
        scale_bits: 36,
        levels: 5,
        special_bits: 45,
        special_count: 2,
        digit_limbs: 2,
        security: SecurityLevel::Bits128,
    }
}

pub fn toy(log_n: u32) -> Params {
    toy_spec(log_n).validate_insecure_for_tests().unwrap()
}

/// The ring of the first demo: 128 bits at N = 2^14, log2(QP) = 420.
pub fn demo() -> Params {
    let spec = ParamsSpec {
        log_n: 14,
        first_bits: 45,
        scale_bits: 36,
        levels: 7,
        special_bits: 41,
        special_count: 3,
        digit_limbs: 3,
        security: SecurityLevel::Bits128,
    };
    spec.validate().unwrap()
}

pub fn cpu(params: &Params) -> Cpu {
    let config = CpuConfig { isa: Isa::detect() };
    Cpu::new(params.chain().clone(), config).unwrap()
}

/// A secret key, a backend, and evaluation keys at the highest level.
pub struct Kit {
    pub params: Params,
    pub secret: SecretKey,
    pub backend: Cpu,
    pub keys: EvaluationKeys<Cpu>,
}

impl Kit {
    /// Reproducible for insecure parameters, fresh for secure ones.
    pub fn new(params: &Params, seed: u64, rotations: &[i64]) -> Self {
        let mut generator = if params.is_insecure() {
            KeyGenerator::insecure_deterministic_for_tests(params, seed).unwrap()
        } else {
            KeyGenerator::new(params, SecureRng::from_os().unwrap())
        };
        let secret = generator.secret_key().unwrap();
        let top = params.max_level();
        let mut list = KeyList::default();
        list.need(KeyPurpose::Relinearization, top, params);
        list.need(KeyPurpose::Conjugation, top, params);
        for &by in rotations {
            list.need(KeyPurpose::Rotation(by), top, params);
        }
        let stored = generator
            .evaluation_keys(&secret, &list, [0; 32], &mut |_, _| {
                ControlFlow::Continue(())
            })
            .unwrap();
        let backend = cpu(params);
        let keys = EvaluationKeys::prepare(params, &backend, &stored).unwrap();
        Self {
            params: params.clone(),
            secret,
            backend,
            keys,
        }
    }

    pub fn evaluator(&self) -> Evaluator<'_, Cpu> {
        Evaluator::new(&self.params, &self.backend, &self.keys).unwrap()
    }

    pub fn encryptor(&self, seed: u64) -> Encryptor<'_> {
        if self.params.is_insecure() {
            Encryptor::insecure_deterministic_for_tests(&self.secret, seed).unwrap()
        } else {
            Encryptor::new(&self.secret, SecureRng::from_os().unwrap()).unwrap()
        }
    }

    /// Encrypts at a level's canonical scale and hands the result to the evaluator.
    pub fn encrypt(&self, seed: u64, slots: &[Complex], level: usize) -> SharedCiphertext<Cpu> {
        self.encrypt_at(seed, slots, level, self.params.scale_at(level))
    }

    pub fn encrypt_at(
        &self,
        seed: u64,
        slots: &[Complex],
        level: usize,
        scale: Scale,
    ) -> SharedCiphertext<Cpu> {
        let slots = SlotVector::Dense(slots.to_vec());
        let stored = self
            .encryptor(seed)
            .encrypt_at(&slots, level, scale)
            .unwrap();
        let ciphertext = stored.expand(&self.params).unwrap();
        self.evaluator().import(ciphertext).unwrap()
    }

    pub fn decrypt(&self, ciphertext: &SharedCiphertext<Cpu>) -> Vec<Complex> {
        let host = ciphertext.export(&self.backend).unwrap();
        let decryptor = Decryptor::new(&self.secret).unwrap();
        decryptor.decrypt(&host).unwrap().reveal_to_owner().unwrap()
    }
}

/// Complex numbers with parts in [-1, 1) from a fixed seed (a 64-bit mixer, not a good generator).
pub fn slots(seed: u64, count: usize) -> Vec<Complex> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / 2f64.powi(52) - 1.0
    };
    (0..count).map(|_| Complex::new(next(), next())).collect()
}

pub fn max_error(found: &[Complex], expected: &[Complex]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let errors = found.iter().zip(expected).map(|(a, b)| (a - b).norm());
    errors.fold(0.0, f64::max)
}

pub fn zip(a: &[Complex], b: &[Complex], f: impl Fn(Complex, Complex) -> Complex) -> Vec<Complex> {
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}

pub fn rotate(a: &[Complex], by: i64) -> Vec<Complex> {
    let mut out = a.to_vec();
    out.rotate_left(by.rem_euclid(a.len() as i64) as usize);
    out
}
