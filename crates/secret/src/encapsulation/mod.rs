//! The keys between the client's secret and an ephemeral sparse one (sparse-secret encapsulation:
//! Bossuat, Troncoso-Pastoriza, Hubaux, "Bootstrapping for approximate homomorphic encryption with
//! negligible failure-probability by using sparse-secret encapsulation", ePrint 2022/024).
//!
//! While the modulus is raised, the message is under a secret so sparse that few multiples of q0 come
//! to it. What hides under that secret is only the key that leads to it, at a modulus of a few
//! primes; the key that leads back, at the full modulus, hides under the client's own secret.

use veilformer_ckks::{KeyPurpose, SecretKind, StoredSwitchingKey};
use veilformer_ring::Backend;
use zeroize::Zeroizing;

use crate::keygen::Switch;
use crate::poly::SecretPoly;
use crate::rng::Entropy;
use crate::{KeyGenerator, SecretError, SecretKey, samplers};

impl KeyGenerator {
    /// The keys to and from a fresh ephemeral secret with `weight` non-zero coefficients, for
    /// [`veilformer_ckks::Ops::mod_raise`] to the highest level; program lists take
    /// [`veilformer_ckks::EPHEMERAL_WEIGHT`]. The secret is wiped when the keys are made.
    ///
    /// # Errors
    /// The security bound of either key under its own secret, [`SecretError::Weight`], or another
    /// parameter set than the key's.
    pub fn encapsulation(
        &mut self,
        key: &SecretKey,
        weight: u32,
    ) -> Result<[StoredSwitchingKey; 2], SecretError> {
        self.check(key)?;
        let secret = SecretKind::SparseTernary {
            hamming_weight: weight,
        };
        encapsulation(key, secret, self.params.max_level(), &mut self.rng.fork())
    }
}

/// The keys to an ephemeral secret of a kind, at level 0, and from it, at `level`.
pub(crate) fn encapsulation(
    key: &SecretKey,
    kind: SecretKind,
    level: usize,
    rng: &mut Entropy,
) -> Result<[StoredSwitchingKey; 2], SecretError> {
    let (params, backend) = (key.params(), key.backend());
    let SecretKind::SparseTernary { hamming_weight } = kind else {
        return Err(SecretError::Purpose(KeyPurpose::ToEphemeral));
    };
    let mut coefficients = Zeroizing::new(vec![0i8; params.n()]);
    samplers::fixed_weight(rng, hamming_weight as usize, &mut coefficients)?;
    let basis = KeyPurpose::FromEphemeral.shape(params, level)?.basis;
    let ephemeral = SecretPoly::from_ternary(backend, basis, &coefficients)?;
    let secret = |poly: &SecretPoly, level| -> Result<_, SecretError> {
        Ok(SecretPoly::new(
            backend.restrict(poly, params.covering(level))?,
        ))
    };
    let to = Switch {
        params,
        id: key.id(),
        target: (KeyPurpose::ToEphemeral, 0),
        under: ((backend, &ephemeral), kind),
    };
    let from = Switch {
        target: (KeyPurpose::FromEphemeral, level),
        under: (key.under(), key.kind()),
        ..to
    };
    Ok([
        to.key(secret(key.ntt(), 0)?, rng)?,
        from.key(secret(&ephemeral, level)?, rng)?,
    ])
}

#[cfg(test)]
mod tests;
