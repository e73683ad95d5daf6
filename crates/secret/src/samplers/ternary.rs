//! Uniform ternary coefficients.

use zeroize::Zeroizing;

use crate::rng::SecretRng;

/// Coefficients that share one 128-bit word of randomness.
const SHARED: usize = 16;

/// Words per draw of randomness: 1 KiB of stream at a time.
const WORDS: usize = 64;

/// Fills `out` with independent uniform coefficients of {-1, 0, 1}.
///
/// A 128-bit word u, seen as the fraction u / 2^128, gives its first 16 digits to the base three:
/// three times the fraction has a digit before the point, and what remains after the point gives
/// the next. No rejection, hence no loop whose length depends on the stream. Each of the 3^16
/// outcomes has a probability within 2^-128 of 3^-16: a distance below 2^-103 for 16 coefficients.
pub fn ternary<R: SecretRng + ?Sized>(rng: &mut R, out: &mut [i8]) {
    let mut words = Zeroizing::new([0u8; 16 * WORDS]);
    for chunk in out.chunks_mut(SHARED * WORDS) {
        let bytes = &mut words[..16 * chunk.len().div_ceil(SHARED)];
        rng.fill_bytes(bytes);
        for (values, word) in chunk.chunks_mut(SHARED).zip(bytes.as_chunks::<16>().0) {
            let mut fraction = u128::from_le_bytes(*word);
            for value in values {
                let (high, low) = (fraction >> 64, fraction & u128::from(u64::MAX));
                let (low, high) = (3 * low, 3 * high);
                let high = high + (low >> 64);
                *value = (high >> 64) as i8 - 1;
                fraction = (high << 64) | (low & u128::from(u64::MAX));
            }
        }
    }
}
