//! A toy client: secret key, key generation, encryption and decryption in the open, straight from
//! the equations, for tests of the public half alone. The real ones are in the secret crate.
#![allow(dead_code)] // each test binary uses a part of it

use veilformer_ckks::testing::TestRng;
use veilformer_ckks::uniform::{self, Stream};
use veilformer_ckks::*;
use veilformer_ring::{Backend, Basis, Cpu, CpuConfig, ExpanderId, GaloisElement, RnsPoly};

pub struct ToyClient {
    pub params: Params,
    pub backend: Cpu,
    pub encoder: Encoder,
    pub key_id: KeyId,
    pub secret: Vec<i64>,
    pub ephemeral: Vec<i64>,
    pub rng: TestRng,
    pub key_expander: ExpanderId,
}

impl ToyClient {
    pub fn new(params: &Params, seed: u64) -> Self {
        let mut rng = TestRng::new(seed);
        let secret = (0..params.n()).map(|_| rng.below(3) as i64 - 1).collect();
        // As many signs in a row as the keys say: of no use but for tests.
        let main = SecretKind::DenseTernary;
        let kind = KeyPurpose::ToEphemeral.secret(params, main);
        let SecretKind::SparseTernary { hamming_weight } = kind else {
            unreachable!()
        };
        let sign = |i| {
            if i < hamming_weight as usize {
                1 - 2 * (i as i64 % 2)
            } else {
                0
            }
        };
        let ephemeral = (0..params.n()).map(sign).collect();
        Self {
            params: params.clone(),
            backend: Cpu::new(params.chain().clone(), CpuConfig::default()).unwrap(),
            encoder: Encoder::new(params).unwrap(),
            key_id: KeyId::from_bytes([seed as u8; 16]),
            secret,
            ephemeral,
            rng,
            key_expander: uniform::KEY_EXPANDER,
        }
    }

    /// The same client with uniform halves of keys by another function.
    #[must_use]
    pub fn with_key_expander(mut self, expander: ExpanderId) -> Self {
        self.key_expander = expander;
        self
    }

    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        seed.fill_with(|| self.rng.next_u64() as u8);
        seed
    }

    pub fn ntt(&self, basis: Basis, coefficients: &[i64]) -> RnsPoly {
        let mut poly = RnsPoly::from_signed(self.params.chain(), basis, coefficients).unwrap();
        self.backend.forward_ntt(&mut poly).unwrap();
        poly
    }

    pub fn error(&mut self, basis: Basis) -> RnsPoly {
        let e: Vec<i64> = (0..self.params.n())
            .map(|_| (self.rng.normal() * noise::SIGMA).round() as i64)
            .collect();
        self.ntt(basis, &e)
    }

    /// -a s + e
    fn mask(&mut self, a: &RnsPoly) -> RnsPoly {
        self.mask_under(&self.secret.clone(), a)
    }

    fn mask_under(&mut self, secret: &[i64], a: &RnsPoly) -> RnsPoly {
        let s = self.ntt(a.basis(), secret);
        let mut b = self.backend.mul(a, &s).unwrap();
        self.backend.neg_assign(&mut b).unwrap();
        let e = self.error(a.basis());
        self.backend.add_assign(&mut b, &e).unwrap();
        b
    }

    pub fn encrypt(&mut self, slots: &SlotVector, level: usize) -> StoredCiphertext {
        let basis = self.params.basis_at(level);
        let scale = self.params.scale_at(level);
        let seed = self.seed();
        let a = uniform::expand(
            &self.params,
            uniform::EXPANDER,
            &seed,
            Stream::Ciphertext,
            basis,
        )
        .unwrap();
        let mut body = self.mask(&a);
        let m = self.encoder.encode(slots, basis, scale).unwrap();
        self.backend.add_assign(&mut body, &m).unwrap();
        StoredCiphertext {
            body,
            uniform: Uniform::Seed(seed),
            info: CiphertextInfo {
                level,
                scale,
                key_id: self.key_id,
            },
            expander: uniform::EXPANDER,
        }
    }

    pub fn phase(&self, ct: &Ciphertext) -> RnsPoly {
        let s = self.ntt(ct.c0().basis(), &self.secret);
        let mut m = self.backend.mul(ct.c1(), &s).unwrap();
        self.backend.add_assign(&mut m, ct.c0()).unwrap();
        m
    }

    pub fn decrypt(&self, ct: &Ciphertext) -> Vec<Complex> {
        self.encoder.decode(&self.phase(ct), ct.scale()).unwrap()
    }

    pub fn key(&mut self, purpose: KeyPurpose, level: usize) -> StoredSwitchingKey {
        let params = self.params.clone();
        let shape = purpose.shape(&params, level).unwrap();
        let basis = shape.basis;
        let s = self.ntt(basis, &self.secret.clone());
        let under = match purpose {
            KeyPurpose::ToEphemeral => self.ephemeral.clone(),
            _ => self.secret.clone(),
        };
        let from = match purpose {
            KeyPurpose::Relinearization => self.backend.mul(&s, &s).unwrap(),
            KeyPurpose::Conjugation => self.turned(&s, GaloisElement::conjugation(params.log_n())),
            KeyPurpose::Rotation(by) => {
                self.turned(&s, GaloisElement::rotation(by, params.log_n()))
            }
            KeyPurpose::ToEphemeral => s,
            KeyPurpose::FromEphemeral => self.ntt(basis, &self.ephemeral),
            _ => unreachable!(),
        };
        let seed = self.seed();
        let b = shape
            .digits
            .into_iter()
            .enumerate()
            .map(|(digit, primes)| {
                let stream = Stream::Key { digit };
                let expander = self.key_expander;
                let a = uniform::expand(&params, expander, &seed, stream, basis).unwrap();
                let mut b = self.mask_under(&under, &a);
                // P g_d: P modulo the digit's primes, 0 modulo all others.
                let factors: Vec<u64> = basis
                    .iter()
                    .map(|i| {
                        if primes.contains(i) {
                            params.chain().product_mod(shape.special, i)
                        } else {
                            0
                        }
                    })
                    .collect();
                let mut term = from.clone();
                self.backend.mul_scalar_assign(&mut term, &factors).unwrap();
                self.backend.add_assign(&mut b, &term).unwrap();
                b
            })
            .collect();
        StoredSwitchingKey {
            purpose,
            secret: purpose.secret(&params, SecretKind::DenseTernary),
            level,
            key_id: self.key_id,
            b,
            a: UniformParts::Seed(seed),
            expander: self.key_expander,
        }
    }

    fn turned(&self, s: &RnsPoly, galois: GaloisElement) -> RnsPoly {
        self.backend.automorphism(s, galois).unwrap()
    }

    pub fn public_key(&mut self, level: usize) -> StoredPublicKey {
        let basis = self.params.basis_at(level);
        let seed = self.seed();
        let a = uniform::expand(
            &self.params,
            uniform::EXPANDER,
            &seed,
            Stream::PublicKey,
            basis,
        )
        .unwrap();
        StoredPublicKey {
            b: self.mask(&a),
            a: Uniform::Seed(seed),
            level,
            secret: SecretKind::DenseTernary,
            key_id: self.key_id,
            expander: uniform::EXPANDER,
        }
    }

    pub fn keys(&mut self, list: &KeyList) -> StoredEvaluationKeys {
        let wanted: Vec<_> = list.iter().collect();
        StoredEvaluationKeys {
            params: self.params.digest(),
            key_id: self.key_id,
            program: [7; 32],
            keys: wanted
                .into_iter()
                .map(|(purpose, level)| self.key(purpose, level))
                .collect(),
        }
    }

    pub fn random_slots(&mut self) -> Vec<Complex> {
        (0..self.params.slots())
            .map(|_| Complex::new(self.rng.symmetric(), self.rng.symmetric()))
            .collect()
    }
}

pub fn assert_close(found: &[Complex], expected: &[Complex], bound: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    let worst = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).norm())
        .fold(0.0, f64::max);
    assert!(worst < bound, "{what}: error {worst:e}, bound {bound:e}");
}
