//! The homomorphic encoding as a product of sparse matrices.
//!
//! With `w_k = m_k + i m_(k + n)` for the `2n` coefficients of a polynomial, its slots are
//! `z_j = m(zeta^(5^j)) = sum_k w_k zeta^(5^j k)`: a Fourier transform on the exponents `5^j`
//! that factors into `log2 n` stages of butterflies after a bit reversal (Cheon, Han, Hhan,
//! "Faster homomorphic discrete Fourier transforms and improved FHE bootstrapping", ePrint
//! 2018/1073). The bit reversal is left out: SlotToCoeff then leaves the coefficients in
//! bit-reversed order, CoeffToSlot reads them in that order, and EvalMod between them does not care.
//!
//! The twiddle factors of stage `2h` depend on `j mod h`, so that the product of the first stages
//! has diagonals of a short period: 2^5 after five, 2^10 after ten.

use std::collections::BTreeMap;
use std::f64::consts::PI;

use veilformer_ckks::Complex;

/// A matrix on cyclic vectors of `period` entries, by its diagonals:
/// `out[j] = sum_k d_k[j] in[j + k]`, indices modulo the period.
#[derive(Clone, Debug)]
pub(super) struct Diagonals {
    period: usize,
    by_shift: BTreeMap<usize, Vec<Complex>>,
}

impl Diagonals {
    /// The identity.
    pub(super) fn identity(period: usize) -> Self {
        Self::new(period, [(0, vec![Complex::new(1.0, 0.0); period])])
    }

    /// From diagonals of one entry per place; shifts below the period.
    pub(super) fn new(
        period: usize,
        diagonals: impl IntoIterator<Item = (usize, Vec<Complex>)>,
    ) -> Self {
        let by_shift = diagonals
            .into_iter()
            .filter(|(_, d)| d.iter().any(|z| z.norm_sqr() > 0.0))
            .collect();
        Self { period, by_shift }
    }

    /// Shifts with their diagonals, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &[Complex])> {
        self.by_shift.iter().map(|(shift, d)| (*shift, &d[..]))
    }

    /// `self` after `first`. A smaller period of one of them divides the other's.
    pub(super) fn after(&self, first: &Self) -> Self {
        let period = self.period.max(first.period);
        let mut by_shift: BTreeMap<usize, Vec<Complex>> = BTreeMap::new();
        for (a, outer) in self.iter() {
            for (b, inner) in first.iter() {
                let sum = by_shift
                    .entry((a + b) % period)
                    .or_insert_with(|| vec![Complex::new(0.0, 0.0); period]);
                for (j, sum) in sum.iter_mut().enumerate() {
                    *sum += outer[j % self.period] * inner[(j + a) % first.period];
                }
            }
        }
        Self::new(period, by_shift)
    }

    /// Every entry of row `j` times `factor(j)`; `factor` has a period that `period` divides by or
    /// into.
    pub(super) fn rows_times(&self, period: usize, factor: impl Fn(usize) -> Complex) -> Self {
        let period = period.max(self.period);
        let scaled = self.iter().map(|(shift, d)| {
            let entries = (0..period).map(|j| d[j % self.period] * factor(j));
            (shift, entries.collect())
        });
        Self::new(period, scaled.collect::<Vec<_>>())
    }

    /// The same on vectors of a longer period, of a matrix that stays within blocks of half the period at
    /// most: what goes back by some places goes back by as many.
    pub(super) fn within_blocks(&self, period: usize) -> Self {
        let longer = period.saturating_sub(self.period);
        let moved = self.iter().map(|(shift, d)| {
            let back = if 2 * shift > self.period { longer } else { 0 };
            let entries = d.iter().copied().cycle().take(period);
            (shift + back, entries.collect())
        });
        Self::new(period, moved)
    }

    /// The same matrix between vectors rotated by `by`: `M'` with `M rot_by = rot_by M'`.
    pub(super) fn seen_after_rotation(&self, by: i64) -> Self {
        let turned = self.iter().map(|(shift, d)| {
            let mut d = d.to_vec();
            d.rotate_right(by.rem_euclid(self.period as i64) as usize);
            (shift, d)
        });
        Self::new(self.period, turned.collect::<Vec<_>>())
    }

    /// All shifts moved by `-offset`: `E` with `self = rot_offset E`.
    pub(super) fn without_rotation(&self, offset: usize) -> Self {
        let period = self.period;
        let moved = self.iter().map(|(shift, d)| {
            let mut d = d.to_vec();
            d.rotate_right(offset % period);
            ((shift + period - offset % period) % period, d)
        });
        Self::new(period, moved.collect::<Vec<_>>())
    }

    /// The shift that comes after the widest gap: with it taken out, shifts span the least.
    pub(super) fn window_start(&self) -> usize {
        let shifts: Vec<usize> = self.by_shift.keys().copied().collect();
        let (Some(&first), Some(&last)) = (shifts.first(), shifts.last()) else {
            return 0;
        };
        let around = (first + self.period - last, first);
        let gaps = shifts.windows(2).map(|pair| (pair[1] - pair[0], pair[1]));
        // Of equal gaps the one before the smallest shift: identities keep their place.
        let widest = gaps.filter(|gap| gap.0 > around.0).max();
        widest.unwrap_or(around).1
    }

    /// The product with a vector of any multiple of the period.
    #[cfg(test)]
    pub(super) fn apply(&self, v: &[Complex]) -> Vec<Complex> {
        let n = v.len();
        let row = |j: usize| {
            self.iter()
                .map(|(k, d)| d[j % self.period] * v[(j + k) % n])
                .sum()
        };
        (0..n).map(row).collect()
    }
}

/// `zeta_(8h)^(5^j)` for the butterflies of the stage that joins blocks of `h`.
fn twiddles(half: usize) -> Vec<Complex> {
    let order = 8 * half;
    let mut exponent = 1;
    (0..half)
        .map(|_| {
            let root = Complex::from_polar(1.0, 2.0 * PI * exponent as f64 / order as f64);
            exponent = exponent * 5 % order;
            root
        })
        .collect()
}

/// The stage that joins blocks of `half` entries, on vectors of `n`, or its inverse.
fn stage(n: usize, half: usize, inverse: bool) -> Diagonals {
    let zero = Complex::new(0.0, 0.0);
    let one = Complex::new(1.0, 0.0);
    let period = 2 * half;
    let twiddles = twiddles(half);
    let mut same = vec![zero; period];
    let mut ahead = vec![zero; period];
    let mut behind = vec![zero; period];
    for (j, w) in twiddles.iter().enumerate() {
        if inverse {
            same[j] = one / 2.0;
            ahead[j] = one / 2.0;
            same[half + j] = -w.conj() / 2.0;
            behind[half + j] = w.conj() / 2.0;
        } else {
            same[j] = one;
            ahead[j] = *w;
            same[half + j] = -w;
            behind[half + j] = one;
        }
    }
    if period == n {
        // Ahead and behind are the same place.
        let both = ahead.iter().zip(&behind).map(|(a, b)| a + b).collect();
        return Diagonals::new(period, [(0, same), (half, both)]);
    }
    // Shifts are modulo n: the diagonals are written out on n places where they go back.
    let full = |d: Vec<Complex>| d.iter().copied().cycle().take(n).collect::<Vec<_>>();
    Diagonals::new(
        n,
        [
            (0, full(same)),
            (half, full(ahead)),
            (n - half, full(behind)),
        ],
    )
}

/// SlotToCoeff on `n` complex slots as `factors` matrices, in the order in which they are applied.
pub(super) fn slot_to_coeff(n: usize, factors: usize) -> Vec<Diagonals> {
    groups(n, factors)
        .into_iter()
        .map(|stages| {
            stages.fold(Diagonals::identity(n), |product, bit| {
                stage(n, 1 << bit, false).after(&product)
            })
        })
        .collect()
}

/// CoeffToSlot, the inverse of [`slot_to_coeff`], in the order in which its matrices are applied.
pub(super) fn coeff_to_slot(n: usize, factors: usize) -> Vec<Diagonals> {
    groups(n, factors)
        .into_iter()
        .rev()
        .map(|stages| {
            stages.rev().fold(Diagonals::identity(n), |product, bit| {
                stage(n, 1 << bit, true).after(&product)
            })
        })
        .collect()
}

/// The stages of each factor, as evenly as possible, from the smallest blocks up.
fn groups(n: usize, factors: usize) -> Vec<std::ops::Range<u32>> {
    let stages = n.trailing_zeros();
    let count = factors.max(1) as u32;
    (0..count)
        .map(|f| (stages * f / count)..(stages * (f + 1) / count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::embedding::to_slots;
    use super::*;
    use crate::random::Random;

    fn random(n: usize) -> Vec<Complex> {
        let mut random = Random::new(5);
        (0..n)
            .map(|_| Complex::new(random.uniform(), random.uniform()))
            .collect()
    }

    fn distance(a: &[Complex], b: &[Complex]) -> f64 {
        assert_eq!(a.len(), b.len());
        a.iter()
            .zip(b)
            .map(|(x, y)| (x - y).norm())
            .fold(0.0, f64::max)
    }

    fn reversed(v: &[Complex]) -> Vec<Complex> {
        let bits = v.len().trailing_zeros();
        (0..v.len())
            .map(|i| {
                let back = if bits == 0 {
                    0
                } else {
                    i.reverse_bits() >> (usize::BITS - bits)
                };
                v[back]
            })
            .collect()
    }

    #[test]
    fn slot_to_coeff_is_the_embedding_after_a_bit_reversal() {
        for n in [1usize, 2, 4, 8, 64, 256] {
            let v = random(n);
            let w = reversed(&v);
            let parts = |f: fn(&Complex) -> f64| -> Vec<Complex> {
                w.iter().map(|z| Complex::new(f(z), 0.0)).collect()
            };
            let expected = to_slots(&parts(|z| z.re), &parts(|z| z.im));
            for factors in 1..4 {
                let product = slot_to_coeff(n, factors);
                assert_eq!(product.len(), factors);
                let slots = product.iter().fold(v.clone(), |v, m| m.apply(&v));
                assert!(
                    distance(&slots, &expected) < 1e-12,
                    "n {n}, {factors} factors"
                );
                let back = coeff_to_slot(n, factors);
                let back = back.iter().fold(slots, |v, m| m.apply(&v));
                assert!(distance(&back, &v) < 1e-13);
            }
        }
    }

    #[test]
    fn early_factors_have_few_diagonals_of_short_periods() {
        let [first, second, third] = &slot_to_coeff(1 << 15, 3)[..] else {
            panic!("three factors");
        };
        for (factor, diagonals, period, step) in [
            (first, 63, 1 << 5, 1),
            (second, 63, 1 << 10, 1 << 5),
            (third, 32, 1 << 15, 1 << 10),
        ] {
            assert_eq!(factor.iter().count(), diagonals);
            for (shift, d) in factor.iter() {
                assert_eq!(shift % step, 0);
                assert!((period..d.len()).all(|j| d[j] == d[j - period]));
            }
        }
    }

    #[test]
    fn rotations_move_between_factors() {
        let n = 64;
        let v = random(n);
        let turned = |v: &[Complex], by: i64| {
            let mut v = v.to_vec();
            v.rotate_left(by.rem_euclid(n as i64) as usize);
            v
        };
        for m in slot_to_coeff(n, 2) {
            for by in [-5, 3, 17] {
                let left = m.apply(&turned(&v, by));
                let right = turned(&m.seen_after_rotation(by).apply(&v), by);
                assert!(distance(&left, &right) < 1e-13);
            }
            let start = m.window_start();
            let moved = m.without_rotation(start);
            let right = turned(&moved.apply(&v), start as i64);
            assert!(distance(&m.apply(&v), &right) < 1e-13);
            assert!(moved.iter().all(|(shift, _)| shift < n - 1));
        }
    }
}
