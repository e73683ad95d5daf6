//! The canonical embedding in double precision.
//!
//! With m = N/2 slots (or a period m) and w = exp(2 pi i / 4m), slot j of a real polynomial c of
//! degree below 2m is its value at w^(5^j). Since w^(m 5^j) = i for every j, folding
//! u_k = c_k + i c_(k+m) gives slot_j = sum_(k<m) u_k w^(k 5^j), and 5^j = 1 + 4 t_j modulo 4m
//! turns that into an ordinary Fourier transform of u_k w^k, read at position t_j
//! (Cheon, Kim, Kim, Song, ePrint 2016/421, section 3; Cheon, Han, Kim, Kim, Song, ePrint
//! 2018/153, section 5, for the folding).

use std::f64::consts::TAU;

use crate::Complex;

/// Roots of unity up to the order 2N of a ring.
pub(crate) struct Embedding {
    /// exp(2 pi i k / order), k < order.
    roots: Vec<Complex>,
}

impl Embedding {
    /// For rings up to dimension `n` (a power of two, at least 2).
    pub(crate) fn new(n: usize) -> Self {
        let order = 2 * n;
        let roots = (0..order)
            .map(|k| {
                // Reducing to the first octant keeps the exact zeros and ones exact.
                let (sin, cos) = octant(k, order);
                Complex::new(cos, sin)
            })
            .collect();
        Self { roots }
    }

    /// Slots to coefficients: `slots.len()` is m, a power of two up to N/2; the result has 2m real
    /// coefficients, not scaled.
    pub(crate) fn inverse(&self, slots: &[Complex]) -> Vec<f64> {
        let m = slots.len();
        let mut values = vec![Complex::default(); m];
        for (position, &slot) in galois_positions(m).zip(slots) {
            // conj(DFT(conj(x))) is the inverse transform.
            values[position] = slot.conj();
        }
        self.transform(&mut values);
        let stride = self.roots.len() / (4 * m);
        let factor = 1.0 / m as f64;
        let mut out = vec![0.0; 2 * m];
        let (low, high) = out.split_at_mut(m);
        for (k, value) in values.iter().enumerate() {
            let folded = (value * self.roots[k * stride]).conj() * factor;
            low[k] = folded.re;
            high[k] = folded.im;
        }
        out
    }

    /// Coefficients to slots: 2m real coefficients give m slots.
    pub(crate) fn forward(&self, coefficients: &[f64]) -> Vec<Complex> {
        let m = coefficients.len() / 2;
        let (low, high) = coefficients.split_at(m);
        let stride = self.roots.len() / (4 * m);
        let mut values: Vec<Complex> = low
            .iter()
            .zip(high)
            .enumerate()
            .map(|(k, (&re, &im))| Complex::new(re, im) * self.roots[k * stride])
            .collect();
        self.transform(&mut values);
        galois_positions(m)
            .map(|position| values[position])
            .collect()
    }

    /// In place, out_t = sum_k in_k exp(2 pi i k t / m).
    fn transform(&self, values: &mut [Complex]) {
        let m = values.len();
        if m < 2 {
            return;
        }
        let shift = usize::BITS - m.trailing_zeros();
        for i in 0..m {
            let j = i.reverse_bits() >> shift;
            if i < j {
                values.swap(i, j);
            }
        }
        let mut half = 1;
        while half < m {
            let stride = self.roots.len() / (2 * half);
            for block in values.chunks_exact_mut(2 * half) {
                let (low, high) = block.split_at_mut(half);
                for (k, (a, b)) in low.iter_mut().zip(high).enumerate() {
                    let turned = *b * self.roots[k * stride];
                    *b = *a - turned;
                    *a += turned;
                }
            }
            half *= 2;
        }
    }
}

/// (5^j - 1) / 4 modulo m, for j < m.
fn galois_positions(m: usize) -> impl Iterator<Item = usize> {
    let mut power = 1usize;
    (0..m).map(move |_| {
        let position = (power - 1) / 4;
        power = (power * 5) % (4 * m);
        position
    })
}

/// (sin, cos) of 2 pi k / order, with the argument reduced to [0, pi/4].
fn octant(k: usize, order: usize) -> (f64, f64) {
    let eighths = 8 * k;
    let (octant, rest) = (eighths / order % 8, eighths % order);
    let angle = |eighths: usize| (TAU / 8.0 * (eighths as f64 / order as f64)).sin_cos();
    // Odd octants run backwards from the next axis or diagonal.
    let (sin, cos) = if octant % 2 == 0 {
        angle(rest)
    } else {
        let (sin, cos) = angle(order - rest);
        (cos, sin)
    };
    match octant / 2 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_the_roots() {
        let embedding = Embedding::new(64);
        for (k, root) in embedding.roots.iter().enumerate() {
            let (sin, cos) = (TAU * k as f64 / 128.0).sin_cos();
            assert!((root - Complex::new(cos, sin)).norm() < 1e-15, "root {k}");
        }
        assert_eq!(embedding.roots[32], Complex::new(0.0, 1.0));
    }

    #[test]
    fn matches_the_definition() {
        let n = 16;
        let embedding = Embedding::new(n);
        let coefficients: Vec<f64> = (0..n).map(|k| (k * k % 7) as f64 - 2.5).collect();
        let slots = embedding.forward(&coefficients);
        let mut power = 1usize;
        for slot in &slots {
            let expected: Complex = coefficients
                .iter()
                .enumerate()
                .map(|(k, c)| embedding.roots[k * power % (2 * n)] * *c)
                .sum();
            assert!((slot - expected).norm() < 1e-12);
            power = power * 5 % (2 * n);
        }
        let back = embedding.inverse(&slots);
        for (a, b) in coefficients.iter().zip(&back) {
            assert!((a - b).abs() < 1e-13);
        }
    }
}
