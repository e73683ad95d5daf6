//! Expansion of seeds into uniformly random polynomials: a wire format, since both ends of the
//! wire must get the same polynomial.

use veilformer_ring::{Basis, Expander, ExpanderId, RnsPoly, Stream as RingStream};

use crate::{CkksError, Params};

/// The expander of everything that this version makes.
pub const EXPANDER: ExpanderId = ExpanderId::Blake3;

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
    let (digit, part) = match stream {
        Stream::Ciphertext => (0, 0),
        Stream::PublicKey => (0, 1),
        Stream::Key { digit } => (digit as u32, 2),
    };
    let expander = Expander::new(expander, *seed);
    Ok(expander.poly(params.chain(), basis, RingStream { digit, part })?)
}
