//! Error coefficients.

use zeroize::Zeroizing;

use super::gaussian_table::CUMULATIVE;
use crate::rng::SecretRng;

/// Standard deviation of the errors, the one that the security tables assume.
pub const SIGMA: f64 = 3.2;

/// The largest magnitude that [`gaussian`] returns.
pub const GAUSSIAN_BOUND: i64 = CUMULATIVE.len() as i64;

/// Coefficients per pass over the table: two vectors of most machines, and the table's
/// entries are then loaded once per pass.
const LANES: usize = 16;

/// Fills `out` with independent samples of the discrete Gaussian over the integers with
/// standard deviation [`SIGMA`], cut at [`GAUSSIAN_BOUND`].
///
/// Inversion of the cumulative table of |x| in constant time: every entry is compared with 63
/// random bits by a subtraction whose borrow is added up; the 64th bit is the sign. The table's
/// rounding puts each sample within 2^-58 (statistical distance) of the ideal distribution.
pub fn gaussian<R: SecretRng + ?Sized>(rng: &mut R, out: &mut [i64]) {
    let mut bytes = Zeroizing::new([0u8; 8 * LANES]);
    for chunk in out.chunks_mut(LANES) {
        rng.fill_bytes(bytes.as_mut_slice());
        let samples = Zeroizing::new(lanes(bytes.as_chunks::<8>().0));
        chunk.copy_from_slice(&samples[..chunk.len()]);
    }
}

fn lanes(words: &[[u8; 8]]) -> [i64; LANES] {
    let mut uniform = Zeroizing::new([0u64; LANES]);
    let mut sign = Zeroizing::new([0u64; LANES]);
    for ((u, s), word) in uniform.iter_mut().zip(sign.iter_mut()).zip(words) {
        let word = u64::from_le_bytes(*word);
        *u = word >> 1;
        *s = (word & 1).wrapping_neg();
    }
    let mut magnitude = Zeroizing::new([0u64; LANES]);
    for entry in CUMULATIVE {
        for (m, u) in magnitude.iter_mut().zip(uniform.iter()) {
            // Both are below 2^63, so the top bit is the borrow: 1 exactly if u >= entry.
            *m += (entry - 1).wrapping_sub(*u) >> 63;
        }
    }
    let mut signed = [0i64; LANES];
    for ((out, m), s) in signed.iter_mut().zip(magnitude.iter()).zip(sign.iter()) {
        *out = ((m ^ s).wrapping_sub(*s)) as i64;
    }
    signed
}
