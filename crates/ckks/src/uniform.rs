//! Expansion of seeds into uniformly random polynomials: a wire format, since both ends of the
//! wire must get the same polynomial.

use veilformer_ring::{Basis, Cpu, Expander, ExpanderId, RnsPoly, Stream as RingStream};

use crate::{CkksError, Params};

/// The expander of the ciphertexts and public keys that this version makes: they are expanded once.
pub const EXPANDER: ExpanderId = ExpanderId::Blake3;

/// The expander of the switching keys that this version makes, whose words backends make as they need
/// them.
pub const KEY_EXPANDER: ExpanderId = ExpanderId::Aes128;

/// Which polynomial of a seed is meant. Seeds are never shared between objects; the streams are
/// distinct all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// c1 of a ciphertext.
    Ciphertext,
    /// The part a of a public key.
    PublicKey,
    /// The part a_d of a switching key.
    Key {
        /// The digit d.
        digit: usize,
    },
}

impl Stream {
    /// The expander of what this version makes of it.
    #[must_use]
    pub fn expander(self) -> ExpanderId {
        match self {
            Self::Ciphertext | Self::PublicKey => EXPANDER,
            Self::Key { .. } => KEY_EXPANDER,
        }
    }

    pub(crate) fn of_ring(self) -> RingStream {
        let (digit, part) = match self {
            Self::Ciphertext => (0, 0),
            Self::PublicKey => (0, 1),
            Self::Key { digit } => (digit as u32, 2),
        };
        RingStream { digit, part }
    }
}

/// The uniform polynomial of a seed: NTT values on `basis`, each limb depending on its prime
/// only, so that any sub-basis of a polynomial can be expanded alone.
///
/// # Errors
/// If the expander is unknown or the basis exceeds the chain.
pub fn expand(
    params: &Params,
    expander: ExpanderId,
    seed: &[u8; 32],
    stream: Stream,
    basis: Basis,
) -> Result<RnsPoly, CkksError> {
    let expander = Expander::new(expander, *seed);
    Ok(expander.poly(params.chain(), basis, stream.of_ring())?)
}

/// The limb of that polynomial modulo prime number `prime`, by the kernels of `cpu`.
///
/// # Errors
/// The ring's, for a prime outside the chain or a limb of other than N words.
pub fn expand_limb(
    cpu: &Cpu,
    (expander, stream): (&Expander, Stream),
    prime: usize,
    limb: &mut [u64],
) -> Result<(), CkksError> {
    Ok(cpu.uniform_limb(prime, (expander, stream.of_ring()), limb)?)
}
