//! Errors of the private half.

/// What can go wrong with secret keys, key generation, encryption and decryption.
#[derive(Debug, thiserror::Error)]
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
}
