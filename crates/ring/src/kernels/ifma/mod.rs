//! AVX-512 IFMA kernels: eight residues per vector, 52-bit multiply-add.
//!
//! Shoup products take three multiply-adds; sums of products stay lazy in a (low 52, high 52) pair
//! and are reduced once, à la Montgomery with radix 2^52.

mod ntt;
mod pointwise;

pub(super) use ntt::{forward, forward_low, inverse_low, inverse_top};
pub(super) use pointwise::{
    add, add_const, add_mont, convert_tile, inner_product, mul, mul_acc, mul_const, mul_const_acc,
    mul_mont, mul_mont_acc, neg, permute, permute_acc, quotient, scale, sub, sub_from_scaled,
    sum_products,
};

use std::arch::x86_64::*;

use crate::modulus::{Modulus, ShoupConst};

/// The scattered writes of the coefficient form gain nothing from vectors.
#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(super) fn permute_coefficients(m: &Modulus, out: &mut [u64], x: &[u64], g: u64) {
    super::scalar::permute_coefficients(m, out, x, g);
}

/// Words per vector.
const LANES: usize = 8;

/// Constants of one modulus in vector registers.
#[derive(Clone, Copy)]
struct Lanes {
    q: __m512i,
    q2: __m512i,
    /// `2^52 - q`: adding `hi * (2^52 - q)` modulo 2^52 subtracts `hi * q`.
    minus_q: __m512i,
    mask: __m512i,
    zero: __m512i,
}

impl Lanes {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(m: &Modulus) -> Self {
        let q = m.value() as i64;
        Self {
            q: _mm512_set1_epi64(q),
            q2: _mm512_set1_epi64(2 * q),
            minus_q: _mm512_set1_epi64((1 << 52) - q),
            mask: _mm512_set1_epi64((1 << 52) - 1),
            zero: _mm512_setzero_si512(),
        }
    }

    /// `x * w mod q` in `[0, 2q)` for `x < 2^52`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn shoup_lazy(&self, x: __m512i, w: __m512i, quot: __m512i) -> __m512i {
        let high = _mm512_madd52hi_epu64(self.zero, x, quot);
        let low = _mm512_madd52lo_epu64(self.zero, x, w);
        _mm512_and_si512(_mm512_madd52lo_epu64(low, high, self.minus_q), self.mask)
    }

    /// `x * w mod q`, canonical, for `x < 2^52`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn shoup(&self, x: __m512i, w: __m512i, quot: __m512i) -> __m512i {
        reduce_once(self.shoup_lazy(x, w, quot), self.q)
    }

    /// `a + b mod q`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add(&self, a: __m512i, b: __m512i) -> __m512i {
        reduce_once(_mm512_add_epi64(a, b), self.q)
    }

    /// `a - b mod q`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn sub(&self, a: __m512i, b: __m512i) -> __m512i {
        let d = _mm512_sub_epi64(a, b);
        _mm512_min_epu64(d, _mm512_add_epi64(d, self.q))
    }
}

/// `x - bound` if that is not negative.
#[inline]
#[target_feature(enable = "avx512f")]
fn reduce_once(x: __m512i, bound: __m512i) -> __m512i {
    _mm512_min_epu64(x, _mm512_sub_epi64(x, bound))
}

/// Broadcasts a constant and its quotient.
#[inline]
#[target_feature(enable = "avx512f")]
fn splat(c: ShoupConst) -> (__m512i, __m512i) {
    (
        _mm512_set1_epi64(c.w as i64),
        _mm512_set1_epi64(c.quotient as i64),
    )
}

/// # Safety
/// Eight words at `p` must be readable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(p: *const u64) -> __m512i {
    // SAFETY: the caller's promise; unaligned loads are allowed.
    unsafe { _mm512_loadu_si512(p.cast()) }
}

/// # Safety
/// Eight words at `p` must be writable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store(p: *mut u64, v: __m512i) {
    // SAFETY: the caller's promise; unaligned stores are allowed.
    unsafe { _mm512_storeu_si512(p.cast(), v) }
}
