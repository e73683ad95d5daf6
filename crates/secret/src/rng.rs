//! Where secret randomness comes from.
//!
//! Everything secret is drawn through [`SecretRng`], a sealed trait. Outside this crate the one
//! type that satisfies it is [`SecureRng`]: ChaCha20 keyed by the operating system. A generator
//! with a fixed seed cannot be passed by accident, because no seedable type implements the
//! trait. Tests that need reproducible keys go through constructors whose names say so
//! (`insecure_deterministic_for_tests`) and which refuse every secure parameter set.

use chacha20::ChaCha20Rng;
use rand_core::{CryptoRng, Infallible, Rng, SeedableRng, TryCryptoRng, TryRng};
use veilformer_ckks::Params;
use zeroize::Zeroizing;

use crate::SecretError;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::SecureRng {}
    impl Sealed for super::Entropy {}
}

/// A generator from which secrets may be drawn. Sealed: outside this crate only
/// [`SecureRng`] satisfies it.
///
/// A deterministic generator does not satisfy it:
///
/// ```compile_fail,E0277
/// use chacha20::ChaCha20Rng;
/// use rand_core::SeedableRng;
/// let mut rng = ChaCha20Rng::from_seed([0; 32]);
/// let mut secret = [0i8; 1024];
/// veilformer_secret::samplers::ternary(&mut rng, &mut secret);
/// ```
pub trait SecretRng: CryptoRng + sealed::Sealed {}

impl SecretRng for SecureRng {}
impl SecretRng for Entropy {}

/// ChaCha20 with a 256-bit key from the operating system; its state is wiped when dropped.
///
/// 2^70 bytes can be drawn from one instance, so it is never reseeded.
pub struct SecureRng(ChaCha20Rng);

impl SecureRng {
    /// Takes a fresh 256-bit key from the operating system.
    ///
    /// # Errors
    /// [`SecretError::NoEntropy`] if the system's source of randomness fails.
    pub fn from_os() -> Result<Self, SecretError> {
        let mut seed = Zeroizing::new([0u8; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|e| SecretError::NoEntropy {
            reason: e.to_string(),
        })?;
        Ok(Self(ChaCha20Rng::from_seed(*seed)))
    }
}

impl TryRng for SecureRng {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(bytes)
    }
}

impl TryCryptoRng for SecureRng {}

/// What the generators and encryptors of this crate hold: a [`SecureRng`], or a stream with a
/// fixed seed, which only constructors that check for insecure parameters make.
pub(crate) struct Entropy(ChaCha20Rng);

impl Entropy {
    pub(crate) fn secure(rng: SecureRng) -> Self {
        Self(rng.0)
    }

    /// A stream with a fixed seed, for parameters that protect nothing.
    pub(crate) fn insecure(params: &Params, seed: u64) -> Result<Self, SecretError> {
        if params.is_insecure() {
            Ok(Self::deterministic(seed))
        } else {
            Err(SecretError::DeterministicForSecureParams)
        }
    }

    fn deterministic(seed: u64) -> Self {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        Self(ChaCha20Rng::from_seed(key))
    }

    #[cfg(test)]
    pub(crate) fn for_sampler_tests(seed: u64) -> Self {
        Self::deterministic(seed)
    }

    /// An independent stream keyed by 256 bits of this one: one per key, so that keys can be
    /// made in parallel and do not depend on the number of threads.
    pub(crate) fn fork(&mut self) -> Self {
        Self(ChaCha20Rng::from_seed(*Zeroizing::new(self.bytes::<32>())))
    }

    /// The next bytes, for public seeds and identifiers.
    pub(crate) fn bytes<const LEN: usize>(&mut self) -> [u8; LEN] {
        let mut bytes = [0u8; LEN];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

impl TryRng for Entropy {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(bytes)
    }
}

impl TryCryptoRng for Entropy {}
