//! Errors of the private half.

use veilformer_ckks::{CkksError, KeyId, KeyPurpose};
use veilformer_ring::RingError;

/// What can go wrong with secret keys, key generation, encryption and decryption.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The operating system gave no randomness.
    #[error(
        "the operating system's source of randomness failed ({reason}); \
         no key or ciphertext was made, try again when it works"
    )]
    NoEntropy {
        /// The system's own words.
        reason: String,
    },
    /// A fixed-weight vector of impossible weight or length was asked for.
    #[error(
        "cannot draw {weight} non-zero coefficients among {length}: \
         the length must be a power of two and at least the weight"
    )]
    Weight {
        /// Non-zeros asked for.
        weight: usize,
        /// Coefficients available.
        length: usize,
    },
    /// A fixed seed was asked for together with parameters that protect something.
    #[error(
        "a deterministic generator was asked for with secure parameters; it is for tests only: \
         take SecureRng::from_os, or parameters made by validate_insecure_for_tests"
    )]
    DeterministicForSecureParams,
    /// Two objects were made under different parameters.
    #[error(
        "{object} was made under other parameters than the secret key; \
         use the bundle and the key that belong together"
    )]
    WrongParams {
        /// Which object.
        object: &'static str,
    },
    /// A ciphertext of another secret key.
    #[error(
        "the ciphertext belongs to secret key {found}, this one is {expected}; \
         decrypt with the key that encrypted it"
    )]
    WrongKey {
        /// Key id of the ciphertext.
        found: KeyId,
        /// Key id of the secret key.
        expected: KeyId,
    },
    /// A purpose that no key is made for by itself.
    #[error(
        "no switching key is made for the purpose \"{0}\" by itself; \
         KeyGenerator::encapsulation makes those of an ephemeral sparse secret together"
    )]
    Purpose(KeyPurpose),
    /// The caller's progress callback asked to stop.
    #[error("key generation was stopped after {done} of {total} keys")]
    Stopped {
        /// Keys made.
        done: usize,
        /// Keys asked for.
        total: usize,
    },
    /// A secret-key file whose content is not a secret key.
    #[error("secret key file: {what}; restore it from a backup or make new keys")]
    MalformedKey {
        /// What was wrong and what was expected.
        what: String,
    },
    /// A disclosure was chosen that refuses.
    #[error("disclosure was refused: this decryption stays with its owner")]
    Refused,
    /// A disclosure that this plaintext cannot have.
    #[error("cannot disclose: {what}")]
    Disclosure {
        /// What was wrong and what to do.
        what: String,
    },
    /// Parameters, encoding, files.
    #[error(transparent)]
    Ckks(#[from] CkksError),
    /// The ring.
    #[error(transparent)]
    Ring(#[from] RingError),
}
