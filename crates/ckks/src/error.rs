//! The crate's error: what was wrong, what was expected, what to do.

use veilformer_ring::RingError;

use crate::container::ContainerError;

/// Everything that can go wrong in this crate outside of [`crate::OpsError`], which is what
/// ciphertext operations return.
#[derive(Debug, thiserror::Error)]
pub enum CkksError {
    /// A parameter specification is not usable.
    #[error("parameters: {what}; {todo}")]
    Params {
        /// What was wrong and what was expected.
        what: String,
        /// What to do about it.
        todo: &'static str,
    },
    /// A key or a parameter set lies above the security bound.
    #[error(
        "{key}: log2 of the modulus is {log_qp:.1}, the bound for {secret} at N=2^{log_n} and \
         {required} bits is {bound:.0}; use fewer or smaller primes or a larger ring"
    )]
    Insecure {
        /// Which key (or "parameters").
        key: String,
        /// log2 of the ring dimension.
        log_n: u32,
        /// log2 of the product of the key's moduli.
        log_qp: f64,
        /// Distribution of the secret, in words.
        secret: String,
        /// Required security in bits.
        required: u32,
        /// Largest permitted `log_qp`; 0 where the table has no row.
        bound: f64,
    },
    /// A level above the parameters' highest, or one that the operation cannot use.
    #[error("level {level} was asked for, the parameters have levels 0..={max}")]
    Level {
        /// The level that was asked for.
        level: usize,
        /// The highest level there is.
        max: usize,
    },
    /// Two scales differ that must be equal.
    #[error("scales differ: found {found:e}, expected {expected:e}; adjust one operand first")]
    Scale {
        /// The scale found.
        found: f64,
        /// The scale expected.
        expected: f64,
    },
    /// A scale that is zero, negative, infinite or not a number.
    #[error("{0:e} is not a scale; a scale is finite and positive")]
    BadScale(f64),
    /// A slot vector that does not fit the parameters.
    #[error("slot vector: {0}")]
    Slots(String),
    /// A coefficient would not fit the modulus (or 120 bits).
    #[error(
        "encoding needs coefficients of {needed:.1} bits and the modulus holds {available:.1}; \
         use smaller values, a smaller scale or a higher level"
    )]
    TooLarge {
        /// Bits that the largest coefficient needs, sign included.
        needed: f64,
        /// Bits that there are.
        available: f64,
    },
    /// A polynomial, ciphertext or key does not have the form that it must have.
    #[error("{object}: {what}")]
    Malformed {
        /// Which object.
        object: &'static str,
        /// What is wrong with it and what was expected.
        what: String,
    },
    /// Objects made under different secret keys met.
    #[error(
        "{object} belongs to the secret key {found}, expected {expected}; use the files of one client"
    )]
    WrongKey {
        /// Which object.
        object: &'static str,
        /// Key id found.
        found: crate::KeyId,
        /// Key id expected.
        expected: crate::KeyId,
    },
    /// Objects made under different parameters met.
    #[error(
        "{object} was made under other parameters (digest {found}, expected {expected}); \
         use the bundle that it was made with"
    )]
    WrongParams {
        /// Which object.
        object: &'static str,
        /// Hexadecimal start of the digest found.
        found: String,
        /// Hexadecimal start of the digest expected.
        expected: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The ring refused.
    #[error(transparent)]
    Ring(#[from] RingError),
}

impl CkksError {
    pub(crate) fn malformed(object: &'static str, what: impl Into<String>) -> Self {
        Self::Malformed {
            object,
            what: what.into(),
        }
    }

    pub(crate) fn params(what: impl Into<String>, todo: &'static str) -> Self {
        Self::Params {
            what: what.into(),
            todo,
        }
    }
}

/// The first eight bytes of a digest in hexadecimal, for messages.
pub(crate) fn short_hex(digest: &[u8]) -> String {
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}
