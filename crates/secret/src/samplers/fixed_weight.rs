//! Ternary vectors with a fixed number of non-zeros.

use subtle::{ConditionallySelectable, ConstantTimeGreater};
use zeroize::Zeroizing;

use crate::SecretError;
use crate::rng::SecretRng;

/// Fills `out` with a uniform choice among the ternary vectors with exactly `weight` non-zero
/// coefficients.
///
/// A constant-time shuffle: the first `weight` places get a random sign, every place a random
/// 126-bit key, and a bitonic sorting network, whose comparisons and moves do not depend on the
/// data, orders the places by key. Equal keys would bias the result; at N = 2^17 they occur
/// with probability below 2^-93.
///
/// # Errors
/// [`SecretError::Weight`] unless the length of `out` is a power of two (as every ring degree
/// is) and at least `weight`.
pub fn fixed_weight<R: SecretRng + ?Sized>(
    rng: &mut R,
    weight: usize,
    out: &mut [i8],
) -> Result<(), SecretError> {
    if weight > out.len() || !out.len().is_power_of_two() {
        return Err(SecretError::Weight {
            weight,
            length: out.len(),
        });
    }
    // Low two bits of a place: the coefficient plus one.
    let mut places = Zeroizing::new(vec![0u128; out.len()]);
    let mut bytes = Zeroizing::new([0u8; 16]);
    for (index, place) in places.iter_mut().enumerate() {
        rng.fill_bytes(bytes.as_mut_slice());
        let word = u128::from_le_bytes(*bytes);
        let sign = (word & 1) << 1;
        let payload = if index < weight { sign } else { 1 };
        // 126 bits of key above two bits of payload; the sign bit is not part of the key.
        *place = (word & !3) | payload;
    }
    sort(&mut places);
    for (value, place) in out.iter_mut().zip(places.iter()) {
        *value = (place & 3) as i8 - 1;
    }
    Ok(())
}

/// Batcher's bitonic network for a power-of-two length, ascending.
fn sort(values: &mut [u128]) {
    let mut block = 2;
    while block <= values.len() {
        let mut stride = block / 2;
        while stride > 0 {
            for (index, run) in values.chunks_exact_mut(2 * stride).enumerate() {
                let descending = (index * 2 * stride) & block != 0;
                let (low, high) = run.split_at_mut(stride);
                for (a, b) in low.iter_mut().zip(high) {
                    let (a, b) = if descending { (b, a) } else { (a, b) };
                    let exchange = a.ct_gt(b);
                    u128::conditional_swap(a, b, exchange);
                }
            }
            stride /= 2;
        }
        block *= 2;
    }
}
