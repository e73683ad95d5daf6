//! AVX2 kernels: four residues per vector, products in double precision with fused multiply-add.
//!
//! AVX2 has no 64-bit multiplier, but its doubles have 53 bits and a fused multiply-add, which
//! gives a product of two of them exactly, as a sum `h + l`. Residues are therefore *signed
//! integers in doubles* between the first and the last step of a kernel. All of them stay below
//! 2^53, so every addition is exact, and the only thing to keep track of is how large they get;
//! bounds are in units of `q`. The technique is that of FLINT's `fft_small`.
//!
//! **Products.** Let `x`, `y` be integers with `|x y| <= 2 q^2`. [`Lanes::mul`] computes
//!
//! * `h = x y (1 + e)`, `|e| <= 2^-53`, an integer, and `l = x y - h` exactly (the error of a
//!   product is a double), `|l| <= 2^-53 |x y| < q / 2`;
//! * `k`, the integer nearest to `h * qinv`, where `qinv = (1 + e') / q`, `|e'| <= 2^-53`. It is
//!   read off `h * qinv + 1.5 * 2^52`, rounded once: `|h * qinv| <= 2^51`, so this lies where
//!   doubles are the integers. Hence `|k - x y / q| <= 1/2 + 2^-52 (1 + 2^-54) |x y| / q`;
//! * `r = (h - k q) + l`. Both sums are integers below 2 q in absolute value, so both are exact
//!   and `r = x y - k q`.
//!
//! With `|x y| = B q^2` thus `|r| <= (1/2 + B/4 * q/2^50) q`, the factor `1 + 2^-54` being covered
//! by `q < 2^50 - 1`: below `q` for every allowed `B`. With a constant `|y| <= q/2` and
//! `|x| = B q`, `B <= 4`, it is `|r| <= (1/2 + B/8 * q/2^50) q`. For smaller primes the last term
//! vanishes and `B` may be larger: what is needed is `|x y| <= 2^51 q`.
//!
//! **Reductions.** [`Lanes::reduce`] gives `x - k q` with `k` the integer nearest to `x * qinv`:
//! for `|x| <= 2^4 q` at most `(1/2 + 2^-49) q`, written as `1/2+` below.

mod convert;
mod forward;
mod inverse;
mod packed;
mod pointwise;
mod products;
mod sum;

pub(super) use convert::{convert, convert_tile, quotient};
pub(super) use forward::forward_low as forward_digits;
pub(super) use forward::{divide_converted, divide_low, divide_rest, forward, forward_low};
pub(super) use inverse::{inverse, inverse_low, inverse_top};
pub(super) use packed::pack_row;
pub(super) use pointwise::{
    add, add_const, copy, difference, mul, mul_acc, mul_const, mul_const_acc, mul_mont, neg,
    permute, permute_acc, scale, sub, sub_from_scaled, sum, sum_const, sum_mont,
};
pub(super) use products::{inner_product, sum_products};

use std::arch::x86_64::*;

use crate::modulus::Modulus;
use crate::ntt::NttTable;

/// Scalar code until somebody measures that it matters: a pass of stores, beside products of as many words.
#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(super) fn spread(out: &mut [u64], x: &[u64]) {
    super::scalar::spread(out, x);
}

/// The scattered writes of the coefficient form gain nothing from vectors.
#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(super) fn permute_coefficients(m: &Modulus, out: &mut [u64], x: &[u64], g: u64) {
    super::scalar::permute_coefficients(m, out, x, g);
}

/// Nothing is made from them here.
#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(super) fn round_keys(key: &[u8; 16], out: &mut [u64]) {
    super::scalar::round_keys(key, out);
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(super) fn refused(m: &Modulus, round_keys: &[u64], words: usize, out: &mut Vec<(u32, u64)>) {
    super::scalar::refused(m, round_keys, words, out);
}

/// The instructions for AES that there may be are the cipher's affair.
#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(super) fn uniform(m: &Modulus, round_keys: &[u64], out: &mut [u64]) {
    super::scalar::uniform(m, round_keys, out);
}

/// Words per vector.
const LANES: usize = 4;

/// Below this degree the scalar code runs, and lazy words are integers.
const MIN_LOG: u32 = 5;

/// `1.5 * 2^52`: a double to which integers below 2^51 in absolute value can be added exactly, and
/// which rounds anything else to an integer. Its bits plus an integer are the bits of the sum.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// Whether values may grow through a whole transform without reductions between the stages.
fn small(t: &NttTable) -> bool {
    t.modulus.bits() <= 48
}

/// A factor `y` and `y * qinv`, rounded: with `1/q` rounded too it is off by at most the
/// `2^-52 (1 + 2^-54)` that [`Lanes::mul`] allows.
#[derive(Clone, Copy)]
struct Factor {
    y: __m256d,
    by_q: __m256d,
}

/// Constants of one modulus in vector registers.
#[derive(Clone, Copy)]
struct Lanes {
    q: __m256d,
    qinv: __m256d,
    round: __m256d,
    q_int: __m256i,
}

impl Lanes {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(m: &Modulus) -> Self {
        let q = m.value() as f64;
        Self {
            q: _mm256_set1_pd(q),
            qinv: _mm256_set1_pd(q.recip()),
            round: _mm256_set1_pd(ROUND),
            q_int: _mm256_set1_epi64x(m.value() as i64),
        }
    }

    /// `x y` modulo `q`; see the module's documentation for bounds.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn mul(&self, x: __m256d, y: __m256d) -> __m256d {
        let h = _mm256_mul_pd(x, y);
        let l = _mm256_fmsub_pd(x, y, h);
        let k = _mm256_sub_pd(_mm256_fmadd_pd(h, self.qinv, self.round), self.round);
        _mm256_add_pd(_mm256_fnmadd_pd(k, self.q, h), l)
    }

    /// A factor for [`Lanes::times`].
    #[inline]
    #[target_feature(enable = "avx2")]
    fn factor(&self, y: __m256d) -> Factor {
        Factor {
            y,
            by_q: _mm256_mul_pd(y, self.qinv),
        }
    }

    /// As [`Lanes::mul`], with the same bounds, for a factor that is known earlier than `x`: a
    /// shorter chain of dependent operations.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn times(&self, x: __m256d, f: Factor) -> __m256d {
        let h = _mm256_mul_pd(x, f.y);
        let l = _mm256_fmsub_pd(x, f.y, h);
        let k = _mm256_sub_pd(_mm256_fmadd_pd(x, f.by_q, self.round), self.round);
        _mm256_add_pd(_mm256_fnmadd_pd(k, self.q, h), l)
    }

    /// `x` modulo `q`, at most `1/2+`.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn reduce(&self, x: __m256d) -> __m256d {
        let k = _mm256_sub_pd(_mm256_fmadd_pd(x, self.qinv, self.round), self.round);
        _mm256_fnmadd_pd(k, self.q, x)
    }

    /// `high + low` modulo `q`, below `q`, for `|high| <= 0.9 * 2^51 q` with at most 53 bits from
    /// the lowest to the highest, and `|low| < 7 * 2^50`, which with another `q` is below `2^53`.
    ///
    /// The sum as a double is off by at most its part 2^-53, as is `qinv`, so that the quotient `k`
    /// is at most `1/2 + 2 * 0.9 * 2^51 * 2^-53 < 0.96` from the real one, if `low` is far below
    /// `high`'s bound or `q > 2^8`. Of `high + low - k q`
    /// each partial sum is an integer below 2^53.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn reduce_pair(&self, high: __m256d, low: __m256d) -> __m256d {
        let sum = _mm256_add_pd(high, low);
        let k = _mm256_sub_pd(_mm256_fmadd_pd(sum, self.qinv, self.round), self.round);
        _mm256_add_pd(_mm256_fnmadd_pd(k, self.q, high), low)
    }

    /// Doubles from signed words of absolute value below 2^51.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn double(&self, x: __m256i) -> __m256d {
        let sum = _mm256_add_epi64(x, _mm256_castpd_si256(self.round));
        _mm256_sub_pd(_mm256_castsi256_pd(sum), self.round)
    }

    /// The canonical word of a double in `(-q, q)`, not -0: no sum of integers is that, unless both
    /// parts are, and `l` in a product is not.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn canonical(&self, x: __m256d) -> __m256i {
        // One of x and x + q is wanted: the sign of x says which.
        let low = _mm256_add_pd(x, self.round);
        let high = _mm256_add_pd(x, _mm256_add_pd(self.q, self.round));
        let bits = _mm256_castpd_si256(_mm256_blendv_pd(low, high, x));
        _mm256_sub_epi64(bits, _mm256_castpd_si256(self.round))
    }

    /// `a + b mod q` of canonical words.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(&self, a: __m256i, b: __m256i) -> __m256i {
        let sum = _mm256_add_epi64(a, b);
        let less = _mm256_sub_epi64(sum, self.q_int);
        select_negative(less, sum, less)
    }

    /// `a - b mod q` of canonical words.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn sub(&self, a: __m256i, b: __m256i) -> __m256i {
        let difference = _mm256_sub_epi64(a, b);
        let more = _mm256_add_epi64(difference, self.q_int);
        select_negative(difference, more, difference)
    }
}

/// Where `sign` is negative `yes`, elsewhere `no`.
#[inline]
#[target_feature(enable = "avx2")]
fn select_negative(sign: __m256i, yes: __m256i, no: __m256i) -> __m256i {
    _mm256_castpd_si256(_mm256_blendv_pd(
        _mm256_castsi256_pd(no),
        _mm256_castsi256_pd(yes),
        _mm256_castsi256_pd(sign),
    ))
}

/// The residue of least absolute value as a double.
fn centred(m: &Modulus, a: u64) -> f64 {
    m.center(a) as f64
}

/// # Safety
/// Four words at `p` must be readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(p: *const u64) -> __m256i {
    // SAFETY: the caller's promise; unaligned loads are allowed.
    unsafe { _mm256_loadu_si256(p.cast()) }
}

/// # Safety
/// Four words at `p` must be writable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store(p: *mut u64, v: __m256i) {
    // SAFETY: the caller's promise; unaligned stores are allowed.
    unsafe { _mm256_storeu_si256(p.cast(), v) }
}

/// As `store`, or past the caches.
///
/// # Safety
/// Four words at `p` must be writable, and `p` aligned to 32 bytes if `past`; `order_past` has to follow before
/// other threads are told of them.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store_to(p: *mut u64, v: __m256i, past: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        match past {
            true => _mm256_stream_si256(p.cast(), v),
            false => store(p, v),
        }
    }
}

/// A double from each of four words: their bits, or with `INT` integers below `4q`, brought into
/// `[-2q, 2q)`.
///
/// # Safety
/// Four words at `p` must be readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_lazy<const INT: bool>(l: &Lanes, p: *const u64) -> __m256d {
    // SAFETY: the caller's promise.
    let words = unsafe { load(p) };
    if INT {
        let twice = _mm256_add_epi64(l.q_int, l.q_int);
        l.double(_mm256_sub_epi64(words, twice))
    } else {
        _mm256_castsi256_pd(words)
    }
}

/// # Safety
/// Four words at `p` must be writable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store_bits(p: *mut u64, v: __m256d) {
    // SAFETY: the caller's promise.
    unsafe { store(p, _mm256_castpd_si256(v)) }
}

/// The transpose of a 4x4 block.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(v: &[__m256d; 4]) -> [__m256d; 4] {
    let even0 = _mm256_unpacklo_pd(v[0], v[1]);
    let odd0 = _mm256_unpackhi_pd(v[0], v[1]);
    let even1 = _mm256_unpacklo_pd(v[2], v[3]);
    let odd1 = _mm256_unpackhi_pd(v[2], v[3]);
    [
        _mm256_permute2f128_pd::<0x20>(even0, even1),
        _mm256_permute2f128_pd::<0x20>(odd0, odd1),
        _mm256_permute2f128_pd::<0x31>(even0, even1),
        _mm256_permute2f128_pd::<0x31>(odd0, odd1),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_group(x: &[u64; 16]) -> [__m256d; 4] {
    // SAFETY: 16 words.
    [0, 4, 8, 12].map(|at| _mm256_castsi256_pd(unsafe { load(x.as_ptr().add(at)) }))
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_group(x: &mut [u64; 16], v: &[__m256i; 4]) {
    for (words, &v) in x.as_chunks_mut::<LANES>().0.iter_mut().zip(v) {
        // SAFETY: a chunk has four words.
        unsafe { store(words.as_mut_ptr(), v) };
    }
}
