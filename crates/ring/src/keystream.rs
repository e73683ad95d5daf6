//! Uniform residues from AES-128 in counter mode: a stream of which any word can be made alone, fast
//! enough to be made each time that a key is used instead of being read from memory.
//!
//! # Wire format
//! The AES key of a limb is the first 16 bytes of the keyed BLAKE3 hash with the 32-byte seed as key and
//! the 24-byte message `"veil-aes" || digit (u32 LE) || part (u32 LE) || q (u64 LE)`. Attempt `t` at
//! word `j` is, of block `j / 2 (u64 LE) || t (u64 LE)` encrypted, the half `j mod 2` (u64 LE); `r` is its
//! low 52 bits. The first attempt below `floor(2^52 / q) q` is taken, and the residue at index `j` is
//! `r 2^-52 mod q`: uniform as `r` is, and `r` the residue's Montgomery form but for multiples of `q`,
//! which is what inner products multiply by.
//!
//! # Why a public stream cipher key is enough
//! The half `a` of an RLWE sample is public; what is asked of the function is that nobody could have
//! chosen seeds whose streams are special. AES-128 under a public key expands the matrix of FrodoKEM
//! (Frodo.Gen with AES128) under the same assumption.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};

use crate::expander::Stream;
use crate::modulus::Modulus;

/// The bits of an attempt.
const MASK: u64 = (1 << 52) - 1;

/// Below it attempts are taken: the largest multiple of q of at most `2^52`.
pub(crate) fn limit(m: &Modulus) -> u64 {
    (MASK + 1) / m.value() * m.value()
}

/// Whether of 32 attempts at most one is refused: a prepared key has a list of the words that are, for inner
/// products to mend.
pub(crate) fn seldom_refused(m: &Modulus) -> bool {
    MASK + 1 - limit(m) <= (MASK + 1) / 32
}

/// How many of the first attempts for so many words are refused on average.
pub(crate) fn refused_on_average(m: &Modulus, words: usize) -> usize {
    let refused = u128::from(MASK + 1 - limit(m)) * words as u128;
    (refused / (u128::from(MASK) + 1)) as usize
}

/// The AES key of a limb.
pub(crate) fn limb_key(seed: &[u8; 32], stream: Stream, m: &Modulus) -> [u8; 16] {
    let hash = blake3::keyed_hash(seed, &stream.message(*b"veil-aes", m));
    let mut key = [0; 16];
    key.copy_from_slice(&hash.as_bytes()[..16]);
    key
}

/// Blocks that are encrypted in one call.
const BLOCKS: usize = 512;

/// The stream of one limb: portable code, fast where the processor has instructions for AES.
pub(crate) struct Keystream {
    cipher: Aes128,
    limit: u64,
}

impl Keystream {
    pub(crate) fn new(key: [u8; 16], m: &Modulus) -> Self {
        Self {
            cipher: Aes128::new(&Array::from(key)),
            limit: limit(m),
        }
    }

    fn block(index: u64, attempt: u64) -> Array<u8, aes::cipher::consts::U16> {
        Array::from((u128::from(attempt) << 64 | u128::from(index)).to_le_bytes())
    }

    /// The attempt that is taken at word `j`, given the first one.
    fn taken(&self, j: u64, first: u64) -> u64 {
        let mut word = first;
        let mut attempt = 0;
        while word >= self.limit {
            attempt += 1;
            let mut block = Self::block(j / 2, attempt);
            self.cipher.encrypt_block(&mut block);
            let both = u128::from_le_bytes(block.into());
            word = (both >> (64 * (j % 2))) as u64 & MASK;
        }
        word
    }

    /// The first attempts, of 52 bits each, at the words from word `first` (an even number) on.
    pub(crate) fn first_attempts(&self, first: u64, out: &mut [u64]) {
        let mut blocks = [Array::from([0u8; 16]); BLOCKS];
        for (run, out) in out.chunks_mut(2 * BLOCKS).enumerate() {
            let start = first + (2 * BLOCKS * run) as u64;
            let blocks = &mut blocks[..out.len().div_ceil(2)];
            for (block, index) in blocks.iter_mut().zip(start / 2..) {
                *block = Self::block(index, 0);
            }
            self.cipher.encrypt_blocks(blocks);
            for (out, block) in out.chunks_mut(2).zip(&*blocks) {
                let both = u128::from_le_bytes((*block).into());
                let halves = [both as u64, (both >> 64) as u64];
                for (out, word) in out.iter_mut().zip(halves) {
                    *out = word & MASK;
                }
            }
        }
    }

    /// The words that are taken, of 52 bits each, from word `first` (an even number) on.
    pub(crate) fn words(&self, first: u64, out: &mut [u64]) {
        self.first_attempts(first, out);
        for (word, j) in out.iter_mut().zip(first..) {
            *word = self.taken(j, *word);
        }
    }

    /// The residues.
    pub(crate) fn residues(&self, m: &Modulus, out: &mut [u64]) {
        self.words(0, out);
        for x in out {
            *x = m.leave_mont(*x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modulus::ntt_primes_near;

    /// Any word alone is what the whole stream has, also where of eight one is refused.
    #[test]
    fn any_word_can_be_made_alone() {
        let above = ntt_primes_near(2f64.powi(49) + 2f64.powi(10), 4, &[], 1).unwrap()[0];
        for q in [above, (1 << 50) - 27, 97] {
            let m = Modulus::new(q).unwrap();
            let stream = Keystream::new([7; 16], &m);
            let mut all = vec![0; 3000];
            stream.words(0, &mut all);
            assert!(all.iter().all(|&word| word < limit(&m)));
            for first in [0, 2, 1022, 1024, 2998] {
                let mut two = [0; 2];
                stream.words(first, &mut two);
                assert_eq!(two[..], all[first as usize..first as usize + 2]);
            }
            assert_eq!(seldom_refused(&m), q != above);
        }
    }
}
