//! Encryption.

use rayon::prelude::*;
use veilformer_ckks::uniform::{EXPANDER, Stream};
use veilformer_ckks::{
    CiphertextInfo, CkksError, Encoder, KeyId, Params, Scale, SlotVector, StoredCiphertext,
    StoredPublicKey, Uniform,
};
use veilformer_ring::{Basis, Cpu, RnsPoly};
use zeroize::Zeroizing;

use crate::poly::{Hidden, SecretPoly, Seeded, host, rlwe};
use crate::rng::{Entropy, SecureRng};
use crate::{SecretError, SecretKey, samplers};

/// Encryption under the secret key, the default of clients: half the bytes of public-key
/// encryption, since the uniform half travels as its 32-byte seed, and less noise.
///
/// c1 is expanded from a fresh seed, c0 = m - (c1 s + e).
pub struct Encryptor<'k> {
    key: &'k SecretKey,
    encoder: Encoder,
    rng: Entropy,
}

impl<'k> Encryptor<'k> {
    /// An encryptor on randomness of the operating system.
    ///
    /// # Errors
    /// The ring's.
    pub fn new(key: &'k SecretKey, rng: SecureRng) -> Result<Self, SecretError> {
        Ok(Self {
            key,
            encoder: Encoder::new(key.params())?,
            rng: Entropy::secure(rng),
        })
    }

    /// An encryptor whose ciphertexts follow from `seed`: for tests, with parameters that
    /// protect nothing.
    ///
    /// # Errors
    /// [`SecretError::DeterministicForSecureParams`] unless [`Params::is_insecure`].
    pub fn insecure_deterministic_for_tests(
        key: &'k SecretKey,
        seed: u64,
    ) -> Result<Self, SecretError> {
        Ok(Self {
            key,
            encoder: Encoder::new(key.params())?,
            rng: Entropy::insecure(key.params(), seed)?,
        })
    }

    /// Encrypts at `level` and its canonical scale. Send inputs at the lowest level that the
    /// program takes.
    ///
    /// # Errors
    /// As [`Encryptor::encrypt_at`].
    pub fn encrypt(
        &mut self,
        slots: &SlotVector,
        level: usize,
    ) -> Result<StoredCiphertext, SecretError> {
        self.encrypt_at(slots, level, self.key.params().scale_at(level))
    }

    /// Encrypts at `level` and a scale of the caller's choice.
    ///
    /// # Errors
    /// A level that does not exist, slots that do not fit, or the security bound of a sparse
    /// secret.
    pub fn encrypt_at(
        &mut self,
        slots: &SlotVector,
        level: usize,
        scale: Scale,
    ) -> Result<StoredCiphertext, SecretError> {
        encrypt(
            self.key,
            &self.encoder,
            &mut self.rng,
            slots,
            (level, scale),
        )
    }

    /// Encrypts several vectors at `level`, on all threads of the current pool.
    ///
    /// # Errors
    /// As [`Encryptor::encrypt_at`].
    pub fn encrypt_many(
        &mut self,
        vectors: &[SlotVector],
        level: usize,
    ) -> Result<Vec<StoredCiphertext>, SecretError> {
        let target = (level, self.key.params().scale_at(level));
        let mut jobs: Vec<_> = vectors.iter().map(|v| (v, self.rng.fork())).collect();
        jobs.par_iter_mut()
            .map(|(slots, rng)| encrypt(self.key, &self.encoder, rng, slots, target))
            .collect()
    }
}

fn encrypt(
    key: &SecretKey,
    encoder: &Encoder,
    rng: &mut Entropy,
    slots: &SlotVector,
    (level, scale): (usize, Scale),
) -> Result<StoredCiphertext, SecretError> {
    let params = key.params();
    params.check_level(level)?;
    let basis = params.basis_at(level);
    params.check_key("ciphertext", basis, key.kind())?;
    let message = encoder.coefficients_for(slots, basis, scale)?;
    let seed = rng.bytes();
    let hidden = Hidden::message(message, params.n(), rng);
    let half = Seeded {
        seed,
        stream: Stream::Ciphertext,
        basis,
    };
    Ok(StoredCiphertext {
        body: rlwe(key.under(), &half, &hidden, |_, _| ())?,
        uniform: Uniform::Seed(seed),
        info: CiphertextInfo {
            level,
            scale,
            key_id: key.id(),
        },
        expander: EXPANDER,
    })
}

/// Encryption under a public key: (c0, c1) = (b v - e0 + m, a v - e1) with a fresh ternary v.
pub struct PublicEncryptor {
    params: Params,
    backend: Cpu,
    encoder: Encoder,
    key: (RnsPoly, RnsPoly),
    info: (usize, KeyId),
    rng: Entropy,
}

impl PublicEncryptor {
    /// Checks the public key, its security bound included, and expands it.
    ///
    /// # Errors
    /// As [`StoredPublicKey::conform`].
    pub fn new(
        params: &Params,
        key: &StoredPublicKey,
        rng: SecureRng,
    ) -> Result<Self, SecretError> {
        Self::with(params, key, Entropy::secure(rng))
    }

    /// An encryptor whose ciphertexts follow from `seed`: for tests, with parameters that
    /// protect nothing.
    ///
    /// # Errors
    /// [`SecretError::DeterministicForSecureParams`] unless [`Params::is_insecure`], or as
    /// [`PublicEncryptor::new`].
    pub fn insecure_deterministic_for_tests(
        params: &Params,
        key: &StoredPublicKey,
        seed: u64,
    ) -> Result<Self, SecretError> {
        Self::with(params, key, Entropy::insecure(params, seed)?)
    }

    fn with(params: &Params, key: &StoredPublicKey, rng: Entropy) -> Result<Self, SecretError> {
        Ok(Self {
            params: params.clone(),
            backend: host(params)?,
            encoder: Encoder::new(params)?,
            key: key.expand(params)?,
            info: (key.level, key.key_id),
            rng,
        })
    }

    /// Encrypts at `level`, at most the public key's, and its canonical scale.
    ///
    /// # Errors
    /// A level that the key does not cover, or slots that do not fit.
    pub fn encrypt(
        &mut self,
        slots: &SlotVector,
        level: usize,
    ) -> Result<StoredCiphertext, SecretError> {
        let (max, key_id) = self.info;
        if level > max {
            return Err(CkksError::Level { level, max }.into());
        }
        let basis = self.params.basis_at(level);
        let scale = self.params.scale_at(level);
        let (backend, n) = (&self.backend, self.params.n());
        let message = self.encoder.coefficients_for(slots, basis, scale)?;
        let mut mask = Zeroizing::new(vec![0i8; n]);
        samplers::ternary(&mut self.rng, &mut mask);
        let mask = Hidden::ternary(&mask);
        // An error and its negative have the same distribution.
        let hidden = Hidden::message(message, n, &mut self.rng);
        let error = Hidden::error(n, &mut self.rng);
        let mut c0 = SecretPoly::unwritten(backend, basis)?;
        let mut c1 = SecretPoly::unwritten(backend, basis)?;
        let mut v = SecretPoly::unwritten(backend, Basis::first(1))?;
        let v = v.limb_mut(0);
        for (position, prime) in basis.iter().enumerate() {
            // Each limb is finished before the next is begun.
            mask.limb(backend, prime, v)?;
            let halves = [
                (&mut c0, &hidden, &self.key.0),
                (&mut c1, &error, &self.key.1),
            ];
            for (out, small, key) in halves {
                let limb = out.limb_mut(position);
                small.limb(backend, prime, limb)?;
                let key = key.limb_of(prime).unwrap_or_default();
                backend.mul_acc_limb(prime, limb, key, v)?;
            }
        }
        Ok(StoredCiphertext {
            body: c0.publish()?,
            uniform: Uniform::Poly(c1.publish()?),
            info: CiphertextInfo {
                level,
                scale,
                key_id,
            },
            expander: EXPANDER,
        })
    }
}
