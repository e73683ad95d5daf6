//! The error type of this crate.

use crate::{Basis, Form, Isa};

/// What can go wrong in the ring. Each message says what was wrong, what was expected, and
/// what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// A modulus that is not a prime in range.
    #[error("{value} cannot be a modulus: {reason}; use `ntt_primes_near` to find suitable primes")]
    BadModulus {
        /// The refused value.
        value: u64,
        /// Why it was refused.
        reason: &'static str,
    },
    /// The ring degree is out of the supported range.
    #[error("ring degree 2^{log_n} is not supported: log_n must lie in 3..=17")]
    BadDegree {
        /// The refused exponent.
        log_n: u32,
    },
    /// A chain of moduli is malformed.
    #[error("bad modulus chain: {0}")]
    BadChain(String),
    /// The search for primes was not satisfiable.
    #[error(
        "only {found} of {wanted} NTT primes exist near {target} for N = 2^{log_n}; \
         ask for fewer, or choose another target below 2^50"
    )]
    NotEnoughPrimes {
        /// How many were found.
        found: usize,
        /// How many were asked for.
        wanted: usize,
        /// The value they should be near.
        target: f64,
        /// log2 of the ring degree.
        log_n: u32,
    },
    /// Two operands live on different bases.
    #[error("{op}: the operand is on {found}, expected {expected}; restrict or extend it first")]
    BasisMismatch {
        /// The operation.
        op: &'static str,
        /// What it needs.
        expected: Basis,
        /// What it got.
        found: Basis,
    },
    /// A basis argument breaks the rule of an operation.
    #[error("{op}: basis {basis} is not usable here: {reason}")]
    BadBasis {
        /// The operation.
        op: &'static str,
        /// The offending set of primes.
        basis: Basis,
        /// The broken rule.
        reason: &'static str,
    },
    /// An operand is in the wrong form.
    #[error("{op}: the operand is in {found:?} form, expected {expected:?}; transform it first")]
    FormMismatch {
        /// The operation.
        op: &'static str,
        /// What it needs.
        expected: Form,
        /// What it got.
        found: Form,
    },
    /// Operands belong to different chains of moduli.
    #[error(
        "{op}: operands belong to different modulus chains; use polynomials of one parameter set"
    )]
    ChainMismatch {
        /// The operation.
        op: &'static str,
    },
    /// A slice has the wrong length.
    #[error("{op}: got {found} words, expected {expected}")]
    BadLength {
        /// The operation.
        op: &'static str,
        /// Expected number of elements.
        expected: usize,
        /// Found number of elements.
        found: usize,
    },
    /// A residue is not below its prime.
    #[error("residue {value} at limb {limb} is not below its prime {prime}; the data is corrupt")]
    NotCanonical {
        /// Position of the limb.
        limb: usize,
        /// The refused value.
        value: u64,
        /// The prime.
        prime: u64,
    },
    /// An even or out-of-range Galois element.
    #[error("{value} is not a Galois element of N = 2^{log_n}: it must be odd and below 2N")]
    BadGalois {
        /// The refused value.
        value: u64,
        /// log2 of the ring degree.
        log_n: u32,
    },
    /// A switching key is malformed or does not fit.
    #[error("switching key: {0}")]
    BadKey(String),
    /// A plaintext polynomial is malformed.
    #[error("plaintext polynomial: {0}")]
    BadPlain(String),
    /// A linear-transform plan is malformed.
    #[error("transform plan: {0}")]
    BadPlan(String),
    /// An empty list where at least one element is needed.
    #[error("{op}: needs at least one operand")]
    Empty {
        /// The operation.
        op: &'static str,
    },
    /// The requested instruction set is missing on this machine.
    #[error("this processor lacks {requested:?}; available: {available:?}")]
    IsaUnavailable {
        /// What was asked for.
        requested: Isa,
        /// What could be asked for.
        available: Vec<Isa>,
    },
    /// An unknown expander id in stored data.
    #[error("unknown expander id {0}: the data was written by a newer version; upgrade to read it")]
    UnknownExpander(u8),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, RingError>;
