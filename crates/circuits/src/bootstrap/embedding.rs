//! The canonical embedding in plain numbers: for the order that ends with SlotToCoeff, where the
//! message sits in the coefficients while EvalMod works and errors return through the embedding, and
//! for ModRaise in the clear, which adds to coefficients.

use std::f64::consts::PI;

use veilformer_ckks::Complex;

/// In-place transform `x_k <- sum_i x_i exp(sign 2 pi i k / len)`; the length is a power of two.
fn fourier(values: &mut [Complex], sign: f64) {
    let n = values.len();
    let bits = n.trailing_zeros();
    for i in 0..n {
        let j = if bits == 0 {
            0
        } else {
            i.reverse_bits() >> (usize::BITS - bits)
        };
        if i < j {
            values.swap(i, j);
        }
    }
    let roots: Vec<Complex> = (0..n / 2)
        .map(|k| Complex::from_polar(1.0, sign * 2.0 * PI * k as f64 / n as f64))
        .collect();
    let mut half = 1;
    while half < n {
        let stride = n / (2 * half);
        for block in values.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for ((a, b), w) in low.iter_mut().zip(high).zip(roots.iter().step_by(stride)) {
                let t = *b * w;
                (*a, *b) = (*a + t, *a - t);
            }
        }
        half *= 2;
    }
}

/// `5^j mod 2N` for the slots `j`.
fn exponents(n: usize) -> Vec<usize> {
    let mut e = 1;
    (0..n / 2)
        .map(|_| {
            let now = e;
            e = e * 5 % (2 * n);
            now
        })
        .collect()
}

/// The `N` real coefficients of the polynomial with slots `z` (`N/2` of them).
pub(crate) fn to_coefficients(z: &[Complex]) -> Vec<f64> {
    let n = 2 * z.len();
    let mut full = vec![Complex::new(0.0, 0.0); n];
    for (e, value) in exponents(n).into_iter().zip(z) {
        full[(e - 1) / 2] = *value;
        full[(2 * n - e - 1) / 2] = value.conj();
    }
    fourier(&mut full, -1.0);
    full.iter()
        .enumerate()
        .map(|(i, v)| (v * Complex::from_polar(1.0, -PI * i as f64 / n as f64)).re / n as f64)
        .collect()
}

/// The multiples of q0 that ModRaise left in the `N` coefficients, lowest degree first.
///
/// `raised` are the `N/2` slots of a raised ciphertext, decrypted at its scale `q0 / 2^r` with `r`
/// the `message_ratio_bits`: coefficient k is `m_k + 2^r I_k`, with |m_k| below `2^(r-1)`.
#[must_use]
pub fn multiples_of_q0(raised: &[Complex], message_ratio_bits: u32) -> Vec<i64> {
    let ratio = f64::from(message_ratio_bits).exp2();
    let coefficients = to_coefficients(raised);
    coefficients
        .iter()
        .map(|c| (c / ratio).round() as i64)
        .collect()
}

/// The slots `sum_i (a_i + i b_i) zeta^(5^j i)` of the polynomial with the `N/2` lower
/// coefficients `a` and upper ones `b` (`zeta^(5^j N/2) = i`); complex, where errors are.
pub(crate) fn to_slots(lower: &[Complex], upper: &[Complex]) -> Vec<Complex> {
    let n = 2 * lower.len();
    let mut full: Vec<Complex> = lower
        .iter()
        .zip(upper)
        .enumerate()
        .map(|(i, (a, b))| {
            (a + Complex::i() * b) * Complex::from_polar(1.0, PI * i as f64 / n as f64)
        })
        .collect();
    full.resize(n, Complex::new(0.0, 0.0));
    fourier(&mut full, 1.0);
    exponents(n)
        .into_iter()
        .map(|e| full[(e - 1) / 2])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let mut rng = crate::random::Random::new(3);
        let z: Vec<Complex> = (0..64)
            .map(|_| Complex::new(rng.uniform(), rng.uniform()))
            .collect();
        let m = to_coefficients(&z);
        let complex: Vec<Complex> = m.iter().map(|&c| c.into()).collect();
        let back = to_slots(&complex[..64], &complex[64..]);
        let error = z
            .iter()
            .zip(&back)
            .map(|(a, b)| (a - b).norm())
            .fold(0.0, f64::max);
        assert!(error < 1e-13, "{error}");
        // A constant is the constant polynomial.
        let one = to_coefficients(&vec![Complex::new(1.0, 0.0); 64]);
        assert!((one[0] - 1.0).abs() < 1e-14 && one[1..].iter().all(|c| c.abs() < 1e-14));
    }
}
