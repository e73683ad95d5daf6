//! Uniform ternary coefficients.

use zeroize::Zeroizing;

use crate::rng::SecretRng;

/// Coefficients per draw of randomness: 4 KiB of stream at a time.
const CHUNK: usize = 256;

/// Fills `out` with independent uniform coefficients of {-1, 0, 1}.
///
/// Each takes a 128-bit word u and is floor(3 u / 2^128) - 1: no rejection, hence no loop whose
/// length depends on the stream, and each value's probability is within 2^-128 of 1/3.
pub fn ternary<R: SecretRng + ?Sized>(rng: &mut R, out: &mut [i8]) {
    let mut words = Zeroizing::new([0u8; 16 * CHUNK]);
    for chunk in out.chunks_mut(CHUNK) {
        let bytes = &mut words[..16 * chunk.len()];
        rng.fill_bytes(bytes);
        for (value, word) in chunk.iter_mut().zip(bytes.as_chunks::<16>().0) {
            let word = u128::from_le_bytes(*word);
            let (high, low) = (word >> 64, word & u128::from(u64::MAX));
            let thirds = (3 * high + ((3 * low) >> 64)) >> 64;
            *value = thirds as i8 - 1;
        }
    }
}
