//! AVX-512 IFMA kernels: eight residues per vector, 52-bit multiply-add.
//!
//! Shoup products take three multiply-adds; sums of products stay lazy in a (low 52, high 52) pair
//! and are reduced once, à la Montgomery with radix 2^52.

mod convert;
mod divide;
mod forward;
mod inverse;
mod packed;
mod pointwise;
mod products;
mod uniform;

pub(super) use convert::{convert, convert_tile, quotient};
pub(super) use divide::{divide_converted, divide_rest};
pub(super) use forward::{divide_low, forward, forward_digits, forward_low};
pub(super) use inverse::{inverse, inverse_low, inverse_top};
pub(super) use packed::pack_row;
pub(super) use pointwise::{
    add, add_const, copy, difference, mul, mul_acc, mul_const, mul_const_acc, mul_mont, neg,
    permute, permute_acc, scale, spread, sub, sub_from_scaled, sum, sum_const, sum_mont,
};
pub(super) use products::{inner_product, sum_products};
pub(super) use uniform::{refused, round_keys, uniform};

use std::arch::x86_64::*;

use crate::modulus::{Modulus, ShoupConst, TOP_BITS};
use crate::ntt::{Constant, Constants, WordTwiddles};

/// The scattered writes of the coefficient form gain nothing from vectors.
#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(super) fn permute_coefficients(m: &Modulus, out: &mut [u64], x: &[u64], g: u64) {
    super::scalar::permute_coefficients(m, out, x, g);
}

/// Words per vector.
const LANES: usize = 8;

/// The last stages of a forward transform, the first of an inverse one, are done on runs of as many words (their
/// logarithm), which fill 16 registers.
const RUN_LOG: u32 = 7;

/// Those words.
const RUN: usize = 1 << RUN_LOG;

/// Below this degree the scalar code runs.
const MIN_LOG: u32 = RUN_LOG + 1;

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
        _mm512_and_si512(self.shoup_onto(self.zero, x, (w, quot)), self.mask)
    }

    /// `x * w mod q`, canonical, for `x < 2^52`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn shoup(&self, x: __m512i, w: __m512i, quot: __m512i) -> __m512i {
        reduce_once(self.shoup_lazy(x, w, quot), self.q)
    }

    /// `onto + x w`, modulo 2^52 only, with `x w` brought below `q (1 + x / 2^52)`: for a constant with
    /// its quotient, and of `x` the low 52 bits.
    ///
    /// Harvey, "Faster arithmetic for number-theoretic transforms", 2014, theorem 1 with `beta = 2^52`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn shoup_onto(&self, onto: __m512i, x: __m512i, (w, quot): Factor) -> __m512i {
        let high = _mm512_madd52hi_epu64(self.zero, x, quot);
        let low = _mm512_madd52lo_epu64(onto, x, w);
        _mm512_madd52lo_epu64(low, high, self.minus_q)
    }

    /// `x w 2^-52 mod q + offset` with the first term in `(-q, q)`, for `x < 2^52` and `w < q`
    /// together with `w q^-1 mod 2^52`; `minus` is `-offset`.
    ///
    /// `x w` and `m q` have the same low 52 bits, so the difference of their high parts is exact.
    /// Both are below q. `vpmullq` would need no zero to add to, but is three multiplications on
    /// Intel's ports, and a zeroed register is none on any.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn mont(&self, x: __m512i, (w, wq): Factor, minus: __m512i) -> __m512i {
        let m = _mm512_madd52lo_epu64(self.zero, x, wq);
        let high = _mm512_madd52hi_epu64(self.zero, x, w);
        _mm512_sub_epi64(high, _mm512_madd52hi_epu64(minus, m, self.q))
    }

    /// `x - times q`, if that is in `[0, 2^52)`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn less(&self, x: __m512i, times: __m512i) -> __m512i {
        _mm512_and_si512(_mm512_madd52lo_epu64(x, times, self.minus_q), self.mask)
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

/// A constant in the form of its modulus, see `ntt::words`.
type Factor = (__m512i, __m512i);

/// One constant in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(c: &Constant) -> Factor {
    (_mm512_set1_epi64(c.a as i64), _mm512_set1_epi64(c.b as i64))
}

/// A constant per lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn factors(c: &Constants) -> Factor {
    // SAFETY: both lines have eight words.
    unsafe { (load(c.a.0.as_ptr()), load(c.b.0.as_ptr())) }
}

/// How often the stages of a transform reduce: as the room between `q` and 2^52 demands.
type Room = u8;
/// Once in a transform, apart from the twists: constants have their quotients.
const WIDE: Room = 0;
/// Once in a pass: constants are in Montgomery form.
const SOME: Room = 1;
/// At each stage: the same.
const TIGHT: Room = 2;

/// How `stages` stages are cut into passes: of at most three if `narrow`, otherwise of at most four,
/// which fill 16 registers. There are at most five: before blocks of `2^LOW_LOG` words in a limb of 2^17, and in
/// such a block before the runs of `2^RUN_LOG`.
fn passes(narrow: bool, stages: u32) -> &'static [u32] {
    match (stages, narrow) {
        (0, _) => &[],
        (1, _) => &[1],
        (2, _) => &[2],
        (3, _) => &[3],
        (4, true) => &[2, 2],
        (4, false) => &[4],
        _ => &[2, 3],
    }
}

/// The twiddles of `R` stages of the block with that index (blocks so far, plus its number): per
/// stage those of its blocks.
#[inline]
fn twiddles<const R: usize>(tw: &WordTwiddles, index: usize) -> [&[Constant]; R] {
    std::array::from_fn(|layer| &tw.front[index << layer..(index + 1) << layer])
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

/// Fetches a line into the cache for writing; any address will do.
#[inline]
fn fetch_to_write(p: *const u64) {
    // SAFETY: a prefetch reads and writes nothing, and faults at no address; every processor with
    // AVX-512 has the instruction.
    unsafe {
        std::arch::asm!("prefetchw byte ptr [{}]", in(reg) p, options(nostack, preserves_flags));
    }
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

/// As `store`, or past the caches.
///
/// # Safety
/// Eight words at `p` must be writable, and `p` aligned to 64 bytes if `past`; `order_past` has to follow before
/// other threads are told of them.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store_to(p: *mut u64, v: __m512i, past: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        match past {
            true => _mm512_stream_si512(p.cast(), v),
            false => store(p, v),
        }
    }
}

/// Montgomery reduction of lazy pairs: from `lo + 2^52 hi` to a value in `(0, (hi + 1) + q]`
/// congruent to the sum times `2^-52`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn montgomery(l: &Lanes, inv: __m512i, lo: __m512i, hi: __m512i) -> __m512i {
    let m = _mm512_madd52lo_epu64(l.zero, lo, inv);
    let high = _mm512_madd52hi_epu64(l.zero, m, l.q);
    let sum = _mm512_add_epi64(hi, _mm512_srli_epi64::<52>(lo));
    _mm512_sub_epi64(_mm512_add_epi64(sum, l.q), high)
}

/// How many conditional subtractions `montgomery` leaves of a sum below `times q^2`: the least `s` with
/// a result below `2^s q`.
#[inline]
fn steps_of(m: &Modulus, times: usize) -> u32 {
    let q = u128::from(m.value());
    let most = ((times as u128 * q * q) >> 52) + 1 + q;
    (0..).find(|s| most < q << s).unwrap_or(0)
}

/// Brings sums that many steps would be needed for below q, by their quotients instead.
#[derive(Clone, Copy)]
struct Quotients {
    /// `b - TOP_BITS` for a prime of b bits.
    shift: __m512i,
    /// `floor(2^(52 + b - TOP_BITS) / q)`, below 2^44.
    inverse: __m512i,
}

impl Quotients {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(m: &Modulus) -> Self {
        Self {
            shift: _mm512_set1_epi64(i64::from(m.bits().saturating_sub(TOP_BITS))),
            inverse: _mm512_set1_epi64(m.top_quotient() as i64),
        }
    }

    /// `x mod q` for `x < 2^40 q`; `ONE` if it is below 2q.
    ///
    /// With `x' = floor(x / 2^(b - 9))`, which is below 2^50, `x' inverse / 2^52` is at most `x / q` and above
    /// `x / q - 2^-8 - 2^-2`: its floor is the quotient or one less.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn canonical<const ONE: bool>(&self, l: &Lanes, x: __m512i) -> __m512i {
        if ONE {
            return reduce_once(x, l.q);
        }
        let top = _mm512_srlv_epi64(x, self.shift);
        let times = _mm512_madd52hi_epu64(l.zero, top, self.inverse);
        reduce_once(l.less(x, times), l.q)
    }
}

/// Brings a value below `2^steps q` below `2^LAZY q`.
#[inline]
#[target_feature(enable = "avx512f")]
fn reduce_steps<const LAZY: u32>(mut x: __m512i, q: u64, steps: u32) -> __m512i {
    for s in (LAZY..steps).rev() {
        x = reduce_once(x, _mm512_set1_epi64((q << s) as i64));
    }
    x
}
