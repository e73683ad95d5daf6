//! Key generation.

use std::io::Write;
use std::ops::ControlFlow;

use rayon::prelude::*;
use veilformer_ckks::container::{EvaluationKeysHeader, EvaluationKeysWriter};
use veilformer_ckks::uniform::{EXPANDER, KEY_EXPANDER, Stream};
use veilformer_ckks::{
    KeyId, KeyList, KeyPurpose, Params, SecretKind, StoredEvaluationKeys, StoredPublicKey,
    StoredSwitchingKey, Uniform, UniformParts,
};
use veilformer_ring::{Backend, Cpu};
use zeroize::Zeroizing;

use crate::encapsulation::encapsulation;
use crate::poly::{Hidden, SecretPoly, Seeded, rlwe};
use crate::rng::{Entropy, SecureRng};
use crate::{SecretError, SecretKey, samplers};

/// What is told after each key: keys made, keys asked for. `Break` stops the generation.
pub type Progress<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// Makes secret keys and everything that is published about them.
///
/// Every key is checked against the security bound of its own moduli and of the secret that it
/// hides under before it is made; [`StoredSwitchingKey::conform`] checks again when it is loaded.
pub struct KeyGenerator {
    pub(crate) params: Params,
    pub(crate) rng: Entropy,
}

impl KeyGenerator {
    /// A generator on randomness of the operating system.
    #[must_use]
    pub fn new(params: &Params, rng: SecureRng) -> Self {
        Self {
            params: params.clone(),
            rng: Entropy::secure(rng),
        }
    }

    /// A generator whose keys follow from `seed`: for tests, with parameters that protect
    /// nothing.
    ///
    /// # Errors
    /// [`SecretError::DeterministicForSecureParams`] unless [`Params::is_insecure`].
    pub fn insecure_deterministic_for_tests(
        params: &Params,
        seed: u64,
    ) -> Result<Self, SecretError> {
        Ok(Self {
            params: params.clone(),
            rng: Entropy::insecure(params, seed)?,
        })
    }

    /// A fresh secret key, uniform on the ternary polynomials.
    ///
    /// # Errors
    /// The ring's.
    pub fn secret_key(&mut self) -> Result<SecretKey, SecretError> {
        let mut coefficients = Zeroizing::new(vec![0i8; self.params.n()]);
        samplers::ternary(&mut self.rng, &mut coefficients);
        let id = KeyId::from_bytes(self.rng.bytes());
        SecretKey::assemble(&self.params, SecretKind::DenseTernary, id, coefficients)
    }

    /// A fresh secret key with exactly `hamming_weight` non-zero coefficients. What is made with
    /// it is held to the much lower bounds of sparse secrets.
    ///
    /// # Errors
    /// [`SecretError::Weight`], or the ring's.
    pub fn sparse_secret_key(&mut self, hamming_weight: u32) -> Result<SecretKey, SecretError> {
        let mut coefficients = Zeroizing::new(vec![0i8; self.params.n()]);
        samplers::fixed_weight(&mut self.rng, hamming_weight as usize, &mut coefficients)?;
        let id = KeyId::from_bytes(self.rng.bytes());
        let kind = SecretKind::SparseTernary { hamming_weight };
        SecretKey::assemble(&self.params, kind, id, coefficients)
    }

    /// A public key for encryption at `level` and below: an encryption of zero,
    /// (b, a) with b = -(a s + e).
    ///
    /// # Errors
    /// The level, the security bound, or another parameter set than the key's.
    pub fn public_key(
        &mut self,
        key: &SecretKey,
        level: usize,
    ) -> Result<StoredPublicKey, SecretError> {
        self.check(key)?;
        self.params.check_level(level)?;
        let basis = self.params.covering(level);
        self.params.check_key("public key", basis, key.kind())?;
        let seed = self.rng.bytes();
        let half = Seeded {
            seed,
            stream: Stream::PublicKey,
            basis,
        };
        let error = Hidden::error(self.params.n(), &mut self.rng);
        Ok(StoredPublicKey {
            b: rlwe(key.under(), &half, &error, |_, _| ())?,
            a: Uniform::Seed(seed),
            level,
            secret: key.kind(),
            key_id: key.id(),
            expander: EXPANDER,
        })
    }

    /// The key for products of ciphertexts, used at `level` and below.
    ///
    /// # Errors
    /// As [`KeyGenerator::switching_key`].
    pub fn relinearization(
        &mut self,
        key: &SecretKey,
        level: usize,
    ) -> Result<StoredSwitchingKey, SecretError> {
        self.switching_key(key, KeyPurpose::Relinearization, level)
    }

    /// The key for rotations by `by` slots, used at `level` and below.
    ///
    /// # Errors
    /// As [`KeyGenerator::switching_key`].
    pub fn rotation(
        &mut self,
        key: &SecretKey,
        by: i64,
        level: usize,
    ) -> Result<StoredSwitchingKey, SecretError> {
        self.switching_key(key, KeyPurpose::Rotation(by), level)
    }

    /// The key for conjugation, used at `level` and below.
    ///
    /// # Errors
    /// As [`KeyGenerator::switching_key`].
    pub fn conjugation(
        &mut self,
        key: &SecretKey,
        level: usize,
    ) -> Result<StoredSwitchingKey, SecretError> {
        self.switching_key(key, KeyPurpose::Conjugation, level)
    }

    /// A switching key on the primes of `level` and P: per digit d, with P g_d as in
    /// [`StoredSwitchingKey`], b_d = -(a_d s + e_d) + P g_d s'.
    ///
    /// # Errors
    /// The level, the security bound, a purpose that is not known, or another parameter set than
    /// the key's.
    pub fn switching_key(
        &mut self,
        key: &SecretKey,
        purpose: KeyPurpose,
        level: usize,
    ) -> Result<StoredSwitchingKey, SecretError> {
        self.check(key)?;
        let mut rng = self.rng.fork();
        switching_key(key, purpose, level, &mut rng)
    }

    /// All keys of a program's list, made on all threads of the current pool. `progress` is
    /// called on this thread, first with zero keys made.
    ///
    /// # Errors
    /// As [`KeyGenerator::switching_key`], or [`SecretError::Stopped`].
    pub fn evaluation_keys(
        &mut self,
        key: &SecretKey,
        list: &KeyList,
        program: [u8; 32],
        progress: &mut Progress<'_>,
    ) -> Result<StoredEvaluationKeys, SecretError> {
        let mut keys = Vec::with_capacity(list.len());
        self.each_evaluation_key(key, list, progress, &mut |switching_key| {
            keys.push(switching_key);
            Ok(())
        })?;
        Ok(StoredEvaluationKeys {
            params: self.params.digest(),
            key_id: key.id(),
            program,
            keys,
        })
    }

    /// As [`KeyGenerator::evaluation_keys`], handing each key to `sink` in the order of the list:
    /// no more keys are in memory at once than there are threads.
    ///
    /// # Errors
    /// As [`KeyGenerator::evaluation_keys`], or the sink's.
    pub fn each_evaluation_key(
        &mut self,
        key: &SecretKey,
        list: &KeyList,
        progress: &mut Progress<'_>,
        sink: &mut dyn FnMut(StoredSwitchingKey) -> Result<(), SecretError>,
    ) -> Result<(), SecretError> {
        let jobs = list.iter().filter_map(Job::of).collect();
        self.each_job(key, jobs, ((0, list.len()), progress), sink)
    }

    /// Works off jobs; `count` are the keys that are there already and those that are there at the
    /// end, as `progress` hears them.
    pub(crate) fn each_job(
        &mut self,
        key: &SecretKey,
        jobs: Vec<Job>,
        (count, progress): ((usize, usize), &mut Progress<'_>),
        sink: &mut dyn FnMut(StoredSwitchingKey) -> Result<(), SecretError>,
    ) -> Result<(), SecretError> {
        self.check(key)?;
        let (mut done, total) = count;
        let mut tell = |done| match progress(done, total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(SecretError::Stopped { done, total }),
        };
        tell(done)?;
        for batch in jobs.chunks(rayon::current_num_threads().max(1)) {
            // One stream per key, taken in order: the keys do not depend on the threads.
            let mut jobs: Vec<_> = batch.iter().map(|&job| (job, self.rng.fork())).collect();
            let made = jobs
                .par_iter_mut()
                .map(|(job, rng)| job.run(key, rng))
                .collect::<Result<Vec<_>, _>>()?;
            for switching_key in made.into_iter().flatten() {
                sink(switching_key)?;
                done += 1;
                tell(done)?;
            }
        }
        Ok(())
    }

    /// As [`KeyGenerator::evaluation_keys`], written to `out` as a file of evaluation keys while
    /// they are made. Returns the file's length in bytes.
    ///
    /// # Errors
    /// As [`KeyGenerator::evaluation_keys`], or the stream's.
    pub fn write_evaluation_keys<W: Write>(
        &mut self,
        key: &SecretKey,
        list: &KeyList,
        program: [u8; 32],
        out: W,
        progress: &mut Progress<'_>,
    ) -> Result<u64, SecretError> {
        let client_key = (key.id(), key.kind());
        let header = EvaluationKeysHeader::of_list(&self.params, list, client_key, program);
        let mut writer = EvaluationKeysWriter::begin(out, &self.params, &header)?;
        self.each_evaluation_key(key, list, progress, &mut |key| Ok(writer.write(&key)?))?;
        Ok(writer.finish()?.1)
    }

    pub(crate) fn check(&self, key: &SecretKey) -> Result<(), SecretError> {
        if key.params() == &self.params {
            Ok(())
        } else {
            Err(SecretError::WrongParams {
                object: "the key generator",
            })
        }
    }
}

/// What is made at one go.
#[derive(Clone, Copy)]
pub(crate) enum Job {
    Key(KeyPurpose, usize),
    /// The keys to and from an ephemeral secret, which comes into being and vanishes with the job.
    Encapsulation(usize),
}

impl Job {
    /// The job that makes a key of a list, or none if that of another key does.
    pub(crate) fn of((purpose, level): (KeyPurpose, usize)) -> Option<Self> {
        match purpose {
            KeyPurpose::ToEphemeral => None,
            KeyPurpose::FromEphemeral => Some(Self::Encapsulation(level)),
            other => Some(Self::Key(other, level)),
        }
    }

    fn run(
        self,
        key: &SecretKey,
        rng: &mut Entropy,
    ) -> Result<Vec<StoredSwitchingKey>, SecretError> {
        match self {
            Self::Key(purpose, level) => Ok(vec![switching_key(key, purpose, level, rng)?]),
            Self::Encapsulation(level) => {
                let secret = KeyPurpose::ToEphemeral.secret(key.params(), key.kind());
                Ok(encapsulation(key, secret, level, rng)?.into())
            }
        }
    }
}

fn switching_key(
    key: &SecretKey,
    purpose: KeyPurpose,
    level: usize,
    rng: &mut Entropy,
) -> Result<StoredSwitchingKey, SecretError> {
    let params = key.params();
    let (backend, basis) = (key.backend(), params.covering(level));
    let secret = SecretPoly::new(backend.restrict(key.ntt(), basis)?);
    let source = SecretPoly::new(match purpose {
        KeyPurpose::Relinearization => backend.mul(&secret, &secret)?,
        KeyPurpose::Rotation(_) | KeyPurpose::Conjugation => {
            backend.automorphism(&secret, purpose.galois(params.log_n()))?
        }
        other => return Err(SecretError::Purpose(other)),
    });
    let made = Switch {
        params,
        id: key.id(),
        target: (purpose, level),
        under: (key.under(), key.kind()),
    };
    made.key(source, rng)
}

/// A switching key to be made.
pub(crate) struct Switch<'a> {
    pub(crate) params: &'a Params,
    /// The client's key.
    pub(crate) id: KeyId,
    pub(crate) target: (KeyPurpose, usize),
    /// The secret that is switched to, and its kind.
    pub(crate) under: ((&'a Cpu, &'a SecretPoly), SecretKind),
}

impl Switch<'_> {
    /// The key that switches from `source`, which is on the ciphertext primes of the key's level:
    /// b_d = -(a_d s + e_d) + P g_d s', checked before it is made.
    pub(crate) fn key(
        &self,
        mut source: SecretPoly,
        rng: &mut Entropy,
    ) -> Result<StoredSwitchingKey, SecretError> {
        let (params, (purpose, level)) = (self.params, self.target);
        let (under, secret) = self.under;
        let shape = purpose.shape(params, level)?;
        params.check_key(&purpose.to_string(), shape.basis, secret)?;
        let chain = params.chain();
        let factors = source.basis().iter();
        let factors: Vec<u64> = factors
            .map(|i| chain.product_mod(shape.special, i))
            .collect();
        under.0.mul_scalar_assign(&mut source, &factors)?;
        let seed = rng.bytes();
        let mut parts = Vec::with_capacity(shape.digits.len());
        for (digit, primes) in shape.digits.iter().enumerate() {
            let half = Seeded {
                seed,
                stream: Stream::Key { digit },
                basis: shape.basis,
            };
            let error = Hidden::error(params.n(), rng);
            // g_d vanishes modulo the primes of the other digits, and P modulo its own.
            parts.push(rlwe(under, &half, &error, |prime, limb| {
                let term = source.limb_of(prime).filter(|_| primes.contains(prime));
                let modulus = chain.modulus(prime);
                for (word, &term) in limb.iter_mut().zip(term.unwrap_or_default()) {
                    *word = modulus.add(*word, term);
                }
            })?);
        }
        Ok(StoredSwitchingKey {
            purpose,
            secret,
            level,
            key_id: self.id,
            b: parts,
            a: UniformParts::Seed(seed),
            expander: KEY_EXPANDER,
        })
    }
}
