//! Exact sums of products, reduced once.

use std::arch::x86_64::*;

use super::Lanes;
use crate::modulus::Modulus;

/// A sum of products of integers, without any error: four operations for a product, and five at the end.
///
/// `high` stays in `[2^e, 2^(e+1))` with `e = bits(p) + 52`, where doubles are the multiples of
/// `2^bits(p)`: it begins at `1.5 * 2^e`, and products add up to less than `2^(e-1)` either way. So the
/// difference of `high` before and after is exact, and what it lacks of the product is an integer of at
/// most half of `2^bits(p)`, so at most `p`, which a multiply-add gives exactly; these remainders are summed in `low`.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    high: __m256d,
    low: __m256d,
}

impl Sum {
    /// Where the high parts of sums modulo `m` begin.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn start(m: &Modulus) -> __m256d {
        _mm256_set1_pd(1.5 * 2f64.powi(m.bits() as i32 + 52))
    }

    /// How many products of at most `factor p^2` one sum takes: all together at most `7/8 * 2^51 p`, so that
    /// [`Lanes::reduce_pair`] takes them. Their remainders are then at most `7/8 * 2^51`, since `p` is at least half of
    /// `2^bits(p)`.
    pub(super) fn most(m: &Modulus, factor: u64) -> usize {
        (7 * (1 << 48) / factor / m.value()) as usize
    }

    /// A sum of `low` alone.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn new(start: __m256d, low: __m256d) -> Self {
        Self { high: start, low }
    }

    /// Adds a small integer.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn add(&mut self, x: __m256d) {
        self.low = _mm256_add_pd(self.low, x);
    }

    /// Adds a product.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn add_product(&mut self, x: __m256d, y: __m256d) {
        let before = self.high;
        self.high = _mm256_fmadd_pd(x, y, before);
        let added = _mm256_sub_pd(self.high, before);
        self.low = _mm256_add_pd(self.low, _mm256_fmsub_pd(x, y, added));
    }

    /// The sum modulo the prime, below it in absolute value.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn reduced(&self, l: &Lanes, start: __m256d) -> __m256d {
        l.reduce_pair(_mm256_sub_pd(self.high, start), self.low)
    }
}
