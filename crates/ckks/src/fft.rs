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

/// Roots of unity up to the order 2N of a ring, real and imaginary parts apart: the compiler then
/// computes several butterflies at once.
pub(crate) struct Embedding {
    /// exp(2 pi i k / 2N), k < N/2: w^k of the definition.
    twist: Table,
    /// Per stage of the transform, for half = 1, 2, 4, .. up to N/4, exp(pi i k / half), k < half,
    /// at index half + k: every stage reads one run of memory.
    stages: Table,
    /// Half of the order: N.
    n: usize,
}

struct Table {
    re: Vec<f64>,
    im: Vec<f64>,
}

impl FromIterator<(f64, f64)> for Table {
    fn from_iter<T: IntoIterator<Item = (f64, f64)>>(roots: T) -> Self {
        let (re, im) = roots.into_iter().unzip();
        Self { re, im }
    }
}

impl Embedding {
    /// For rings of dimension `n` (a power of two, at least 2).
    pub(crate) fn new(n: usize) -> Self {
        // Reducing to the first octant keeps the exact zeros and ones exact.
        let root = |k, order| {
            let (sin, cos) = octant(k, order);
            (cos, sin)
        };
        let halves = (0..).map(|s| 1usize << s).take_while(|&half| 4 * half <= n);
        let stages = halves.flat_map(|half| (0..half).map(move |k| root(k, 2 * half)));
        Self {
            twist: (0..n / 2).map(|k| root(k, 2 * n)).collect(),
            stages: std::iter::once((1.0, 0.0)).chain(stages).collect(),
            n,
        }
    }

    /// Slots to coefficients: `slots.len()` is m, a power of two up to N/2; the result has 2m real
    /// coefficients, not scaled.
    pub(crate) fn inverse(&self, slots: &[Complex]) -> Vec<f64> {
        let m = slots.len();
        let mut out = vec![0.0; 2 * m];
        let (re, im) = out.split_at_mut(m);
        for (position, slot) in galois_positions(m).zip(slots) {
            // conj(DFT(conj(x))) is the inverse transform.
            re[position] = slot.re;
            im[position] = -slot.im;
        }
        self.transform(re, im);
        let factor = 1.0 / m as f64;
        let twists = self.twists(m);
        for ((re, im), (cos, sin)) in re.iter_mut().zip(im).zip(twists) {
            let (x, y) = (*re, *im);
            *re = (x * cos - y * sin) * factor;
            *im = -(x * sin + y * cos) * factor;
        }
        out
    }

    /// Coefficients to slots: 2m real coefficients, which are overwritten, give m slots.
    pub(crate) fn forward(&self, coefficients: &mut [f64]) -> Vec<Complex> {
        let m = coefficients.len() / 2;
        let (re, im) = coefficients.split_at_mut(m);
        for ((re, im), (cos, sin)) in re.iter_mut().zip(im.iter_mut()).zip(self.twists(m)) {
            let (x, y) = (*re, *im);
            *re = x * cos - y * sin;
            *im = x * sin + y * cos;
        }
        self.transform_to_reversed(re, im);
        galois_positions(m)
            .map(|position| Complex::new(re[position], im[position]))
            .collect()
    }

    /// w^k for a vector of m slots, k < m.
    fn twists(&self, m: usize) -> impl Iterator<Item = (f64, f64)> + '_ {
        let stride = (self.n / (2 * m).max(1)).max(1);
        let re = self.twist.re.iter().step_by(stride);
        re.zip(self.twist.im.iter().step_by(stride))
            .map(|(&re, &im)| (re, im))
    }

    fn stage(&self, half: usize) -> (&[f64], &[f64]) {
        let run = half..2 * half;
        (&self.stages.re[run.clone()], &self.stages.im[run])
    }

    /// In place, out_t = sum_k in_k exp(2 pi i k t / m), where in_k stands at the reversal of k.
    fn transform(&self, re: &mut [f64], im: &mut [f64]) {
        let mut half = 1;
        while half < re.len() {
            let (cos, sin) = self.stage(half);
            let blocks = re.chunks_exact_mut(2 * half);
            for (re, im) in blocks.zip(im.chunks_exact_mut(2 * half)) {
                let (a_re, b_re) = re.split_at_mut(half);
                let (a_im, b_im) = im.split_at_mut(half);
                let a = a_re.iter_mut().zip(a_im);
                let b = b_re.iter_mut().zip(b_im);
                for (((a_re, a_im), (b_re, b_im)), (cos, sin)) in a.zip(b).zip(cos.iter().zip(sin))
                {
                    let (x, y) = (*b_re * cos - *b_im * sin, *b_re * sin + *b_im * cos);
                    (*b_re, *b_im) = (*a_re - x, *a_im - y);
                    *a_re += x;
                    *a_im += y;
                }
            }
            half *= 2;
        }
    }

    /// The same from the natural order to the reversed one: the other way to cut the sum.
    fn transform_to_reversed(&self, re: &mut [f64], im: &mut [f64]) {
        let mut half = re.len() / 2;
        while half > 0 {
            let (cos, sin) = self.stage(half);
            let blocks = re.chunks_exact_mut(2 * half);
            for (re, im) in blocks.zip(im.chunks_exact_mut(2 * half)) {
                let (a_re, b_re) = re.split_at_mut(half);
                let (a_im, b_im) = im.split_at_mut(half);
                let a = a_re.iter_mut().zip(a_im);
                let b = b_re.iter_mut().zip(b_im);
                for (((a_re, a_im), (b_re, b_im)), (cos, sin)) in a.zip(b).zip(cos.iter().zip(sin))
                {
                    let (x, y) = (*a_re - *b_re, *a_im - *b_im);
                    *a_re += *b_re;
                    *a_im += *b_im;
                    (*b_re, *b_im) = (x * cos - y * sin, x * sin + y * cos);
                }
            }
            half /= 2;
        }
    }
}

/// (5^j - 1) / 4 modulo m with its log2(m) bits reversed, for j < m: where slot j stands in the
/// reversed order. `m` is a power of two.
fn galois_positions(m: usize) -> impl Iterator<Item = usize> {
    let bits = m.trailing_zeros();
    let mut position = 0usize;
    (0..m).map(move |_| {
        // Shifting out all 64 bits is what one slot needs.
        let reversed = position.reverse_bits().unbounded_shr(usize::BITS - bits);
        // 1 + 4 t to 5 (1 + 4 t) is t to 5 t + 1.
        position = (5 * position + 1) & (m - 1);
        reversed
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

    fn root(k: usize, order: usize) -> Complex {
        Complex::from_polar(1.0, TAU * k as f64 / order as f64)
    }

    #[test]
    fn roots_are_the_roots() {
        let embedding = Embedding::new(64);
        let check = |table: &Table, at: usize, expected: Complex| {
            let found = Complex::new(table.re[at], table.im[at]);
            assert!((found - expected).norm() < 1e-15, "{at}");
        };
        for k in 0..32 {
            check(&embedding.twist, k, root(k, 128));
        }
        for half in [1, 2, 4, 8, 16] {
            for k in 0..half {
                check(&embedding.stages, half + k, root(k, 2 * half));
            }
        }
        assert_eq!((embedding.stages.re[3], embedding.stages.im[3]), (0.0, 1.0));
    }

    #[test]
    fn matches_the_definition() {
        let n = 16;
        let embedding = Embedding::new(n);
        let coefficients: Vec<f64> = (0..n).map(|k| (k * k % 7) as f64 - 2.5).collect();
        let slots = embedding.forward(&mut coefficients.clone());
        let mut power = 1usize;
        for slot in &slots {
            let expected: Complex = coefficients
                .iter()
                .enumerate()
                .map(|(k, c)| root(k * power % (2 * n), 2 * n) * *c)
                .sum();
            assert!((slot - expected).norm() < 1e-12);
            power = power * 5 % (2 * n);
        }
        let back = embedding.inverse(&slots);
        for (a, b) in coefficients.iter().zip(&back) {
            assert!((a - b).abs() < 1e-13);
        }
    }

    #[test]
    fn short_vectors_are_periods() {
        let embedding = Embedding::new(64);
        for m in [1, 2, 4, 16] {
            let slots: Vec<Complex> = (0..m)
                .map(|j| root(3 * j + 1, 50) * (j + 1) as f64)
                .collect();
            let long: Vec<Complex> = (0..32).map(|j| slots[j % m]).collect();
            let (short, long) = (embedding.inverse(&slots), embedding.inverse(&long));
            for (k, coefficient) in long.iter().enumerate() {
                let (at, rest) = (k * 2 * m / 64, k * 2 * m % 64);
                let expected = if rest == 0 { short[at] } else { 0.0 };
                assert!((coefficient - expected).abs() < 1e-13);
            }
        }
    }
}
