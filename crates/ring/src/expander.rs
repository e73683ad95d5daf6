//! Expansion of a seed into uniform residues: the public halves of keys and of fresh ciphertexts.
//!
//! Two functions: [`ExpanderId::Blake3`], below, whose words follow one another, and
//! [`ExpanderId::Aes128`] (`keystream.rs`), of which backends make any word when they need it.
//!
//! # Wire format of BLAKE3
//! A limb is the stream of BLAKE3's extendable output for the keyed hash with the 32-byte seed as
//! key and the 24-byte message `"veil-exp" || digit (u32 LE) || part (u32 LE) || q (u64 LE)`. Its
//! bytes are read as little-endian 64-bit words `x`, one per residue; the residue is
//! `floor(x q / 2^64)`, and a word is skipped if `x q mod 2^64 < 2^64 mod q` (Lemire's unbiased
//! multiply-shift, arXiv 1805.10941, section 4), with probability below 2^-14. Limbs can be
//! expanded independently and in any order.
//!
//! # Why BLAKE3
//! Measured by `examples/expander_speed.rs` (Zen 5, one thread, per residue with the conversion,
//! which alone takes 0.5 ns): BLAKE3 1.24 ns, AES-256-CTR 1.98 ns, ChaCha20 5.5 ns. BLAKE3 is a
//! dependency already (digests of the container), has portable code for WebAssembly and NEON, and
//! domain-separates by its message instead of by a nonce convention.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::basis::Basis;
use crate::chain::Chain;
use crate::error::{Result, RingError};
use crate::keystream::{Keystream, limb_key};
use crate::modulus::Modulus;
use crate::poly::{Form, RnsPoly};

/// Which function expands seeds: a byte in stored data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum ExpanderId {
    /// Keyed BLAKE3 in extendable-output mode, format 1.
    Blake3 = 1,
    /// AES-128 in counter mode, format 1: switching keys.
    Aes128 = 2,
}

impl TryFrom<u8> for ExpanderId {
    type Error = RingError;
    fn try_from(id: u8) -> Result<Self> {
        match id {
            1 => Ok(Self::Blake3),
            2 => Ok(Self::Aes128),
            other => Err(RingError::UnknownExpander(other)),
        }
    }
}

impl From<ExpanderId> for u8 {
    fn from(id: ExpanderId) -> Self {
        id as u8
    }
}

/// Which polynomial of an object a stream belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Stream {
    /// The digit of a key, or a running number.
    pub digit: u32,
    /// The component within it.
    pub part: u32,
}

impl Stream {
    /// What is hashed for one limb.
    pub(crate) fn message(self, name: [u8; 8], m: &Modulus) -> [u8; 24] {
        let mut message = [0u8; 24];
        message[..8].copy_from_slice(&name);
        message[8..12].copy_from_slice(&self.digit.to_le_bytes());
        message[12..16].copy_from_slice(&self.part.to_le_bytes());
        message[16..].copy_from_slice(&m.value().to_le_bytes());
        message
    }
}

/// Words that are converted at once.
const GROUP: usize = 8;

/// Expands one public seed. Never use it for secrets.
#[derive(Clone)]
pub struct Expander {
    seed: [u8; 32],
    id: ExpanderId,
}

impl Expander {
    /// An expander of a public seed.
    pub fn new(id: ExpanderId, seed: [u8; 32]) -> Self {
        Self { seed, id }
    }

    /// Which function this is.
    pub fn id(&self) -> ExpanderId {
        self.id
    }

    /// The public seed.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// Fills `out` with uniform residues of `modulus`.
    pub fn fill(&self, stream: Stream, modulus: &Modulus, out: &mut [u64]) {
        match self.id {
            ExpanderId::Blake3 => self.fill_by_blake3(stream, modulus, out),
            ExpanderId::Aes128 => {
                let key = limb_key(&self.seed, stream, modulus);
                Keystream::new(key, modulus).residues(modulus, out);
            }
        }
    }

    fn fill_by_blake3(&self, stream: Stream, modulus: &Modulus, out: &mut [u64]) {
        let mut reader = blake3::Hasher::new_keyed(&self.seed)
            .update(&stream.message(*b"veil-exp", modulus))
            .finalize_xof();
        let q = modulus.value();
        let threshold = q.wrapping_neg() % q;
        let take = |words: &[[u8; 8]], out: &mut [u64], filled: &mut usize| {
            for word in words {
                let product = u128::from(u64::from_le_bytes(*word)) * u128::from(q);
                if product as u64 >= threshold {
                    out[*filled] = (product >> 64) as u64;
                    *filled += 1;
                }
            }
        };
        let mut block = [0u8; 8192];
        let mut filled = 0;
        while filled < out.len() {
            let bytes = block.len().min((out.len() - filled) * 8);
            reader.fill(&mut block[..bytes]);
            let words = block[..bytes].as_chunks::<8>().0;
            let (groups, rest) = words.as_chunks::<GROUP>();
            for group in groups {
                let product =
                    |word: &[u8; 8]| u128::from(u64::from_le_bytes(*word)) * u128::from(q);
                let products = group.each_ref().map(product);
                // Nearly always all are taken: one branch for all of them.
                if products
                    .iter()
                    .fold(true, |all, &p| all & (p as u64 >= threshold))
                {
                    for (to, p) in out[filled..filled + GROUP].iter_mut().zip(products) {
                        *to = (p >> 64) as u64;
                    }
                    filled += GROUP;
                } else {
                    take(group, out, &mut filled);
                }
            }
            take(rest, out, &mut filled);
        }
    }

    /// A uniform polynomial in NTT form.
    ///
    /// # Errors
    /// [`RingError::BadBasis`].
    pub fn poly(&self, chain: &Arc<Chain>, basis: Basis, stream: Stream) -> Result<RnsPoly> {
        chain.check_basis("expand", basis)?;
        let mut p = RnsPoly::dirty(chain, basis, Form::Ntt);
        for (i, limb) in p.limbs_mut() {
            self.fill(stream, chain.modulus(i), limb);
        }
        Ok(p)
    }
}
