//! Element-wise kernels, base conversion and inner products.

use std::arch::x86_64::*;

use super::{LANES, Lanes, load, reduce_once, splat, store};
use crate::galois::Permutation;
use crate::kernels::{ConvRow, Fraction, KeyRows, scalar};
use crate::modulus::{Modulus, ShoupConst};

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

/// Brings a value below `2^steps q` to canonical form.
#[inline]
#[target_feature(enable = "avx512f")]
fn reduce_steps(mut x: __m512i, q: u64, steps: u32) -> __m512i {
    for s in (0..steps).rev() {
        x = reduce_once(x, _mm512_set1_epi64((q << s) as i64));
    }
    x
}

/// `ceil(log2(terms + 1))`: steps after a sum whose Montgomery reduction is at most
/// `(terms + 1) q`.
fn steps_for(terms: usize) -> u32 {
    (terms + 2).next_power_of_two().trailing_zeros()
}

/// Defines an element-wise kernel: `out` and other slices of equal length, a vector body, and the
/// scalar kernel for the rest.
macro_rules! elementwise {
    ($name:ident ($($arg:ident: $ty:ty),*) ($($src:ident),*) |$m:ident, $l:ident, $o:ident $(, $v:ident)*| $setup:stmt; $body:expr) => {
        #[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
        pub(in crate::kernels) fn $name($m: &Modulus, out: &mut [u64] $(, $src: &[u64])* $(, $arg: $ty)*) {
            let n = out.len() $(.min($src.len()))*;
            let whole = n - n % LANES;
            let $l = Lanes::new($m);
            $setup
            let mut j = 0;
            while j < whole {
                // SAFETY: j + LANES <= whole, which is at most the length of every slice.
                unsafe {
                    let p = out.as_mut_ptr().add(j);
                    let $o = load(p);
                    $(let $v = load($src.as_ptr().add(j));)*
                    store(p, $body);
                }
                j += LANES;
            }
            if whole < n {
                scalar::$name($m, &mut out[whole..n] $(, &$src[whole..n])* $(, $arg)*);
            }
        }
    };
}

elementwise!(add () (y) |m, l, o, a| (); l.add(o, a));
elementwise!(sub () (y) |m, l, o, a| (); l.sub(o, a));
elementwise!(neg () () |m, l, o| (); l.sub(l.zero, o));
elementwise!(mul_const (c: ShoupConst) (x) |m, l, _o, a| let (w, quot) = splat(c); l.shoup(a, w, quot));
elementwise!(mul_const_acc (c: ShoupConst) (x) |m, l, o, a| let (w, quot) = splat(c);
    l.add(o, l.shoup(a, w, quot)));
elementwise!(scale (c: ShoupConst) () |m, l, o| let (w, quot) = splat(c); l.shoup(o, w, quot));
elementwise!(add_const (c: u64) () |m, l, o| let w = _mm512_set1_epi64(c as i64); l.add(o, w));
elementwise!(sub_from_scaled (c: ShoupConst) (x) |m, l, o, a| let (w, quot) = splat(c);
    // Any value below 2^52 may enter the product: x + q - out needs no reduction.
    l.shoup(_mm512_sub_epi64(_mm512_add_epi64(a, l.q), o), w, quot));
elementwise!(mul_mont () (x, y) |m, l, _o, a, b| let inv = _mm512_set1_epi64(m.inv52() as i64);
    mont_product(&l, inv, a, b));
elementwise!(mul_mont_acc () (x, y) |m, l, o, a, b| let inv = _mm512_set1_epi64(m.inv52() as i64);
    l.add(o, mont_product(&l, inv, a, b)));
elementwise!(add_mont () (y) |m, l, o, a| let inv = _mm512_set1_epi64(m.inv52() as i64);
    l.add(o, reduce_once(montgomery(&l, inv, a, l.zero), l.q)));
elementwise!(mul () (x, y) |m, l, _o, a, b|
    let (inv, r1) = (_mm512_set1_epi64(m.inv52() as i64), splat(m.mont_one()));
    mont_product(&l, inv, l.shoup_lazy(a, r1.0, r1.1), b));
elementwise!(mul_acc () (x, y) |m, l, o, a, b|
    let (inv, r1) = (_mm512_set1_epi64(m.inv52() as i64), splat(m.mont_one()));
    l.add(o, mont_product(&l, inv, l.shoup_lazy(a, r1.0, r1.1), b)));

/// `a * b * 2^-52`, canonical, for `a < 2q` and canonical `b`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn mont_product(l: &Lanes, inv: __m512i, a: __m512i, b: __m512i) -> __m512i {
    let lo = _mm512_madd52lo_epu64(l.zero, a, b);
    let hi = _mm512_madd52hi_epu64(l.zero, a, b);
    // a b < 2 q^2 < 2^51 q: the reduced value is below 2q.
    reduce_once(montgomery(l, inv, lo, hi), l.q)
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn quotient(v: &mut [u8], ys: &[&[u64]], fractions: &[Fraction]) {
    let n = v.len();
    if ys.len() < 2 || n % LANES != 0 || ys.iter().any(|y| y.len() < n) {
        return scalar::quotient(v, ys, fractions);
    }
    let bias = _mm512_set1_epi64((1 << 50) + ys.len() as i64);
    for (block, out) in v.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let mut sum = bias;
        for (y, f) in ys.iter().zip(fractions) {
            // SAFETY: every y has at least n words.
            let y = unsafe { load(y.as_ptr().add(block * LANES)) };
            let y = _mm512_sll_epi64(y, _mm_cvtsi64_si128(i64::from(f.shift)));
            sum = _mm512_madd52hi_epu64(sum, y, _mm512_set1_epi64(f.inverse as i64));
        }
        let bytes = _mm512_cvtepi64_epi8(_mm512_srli_epi64::<51>(sum));
        *out = (_mm_cvtsi128_si64(bytes) as u64).to_le_bytes();
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn convert(
    m: &Modulus,
    out: &mut [u64],
    ys: &[&[u64]],
    v: &[u8],
    row: &ConvRow,
) {
    let n = out.len();
    if n % (2 * LANES) != 0 || v.len() < n || ys.iter().any(|y| y.len() < n) {
        return scalar::convert(m, out, ys, v, row);
    }
    let l = Lanes::new(m);
    let inv = _mm512_set1_epi64(m.inv52() as i64);
    let minus_d = _mm512_set1_epi64(row.minus_d as i64);
    // Each product is below 2^50 q, so the sum is below (terms / 4) 2^52 q.
    let steps = steps_for(ys.len() / 4 + 1);
    let mut j = 0;
    while j < n {
        // SAFETY: n is a multiple of 16 and v and every y have at least n elements.
        unsafe {
            let quotients = _mm_loadu_si128(v.as_ptr().add(j).cast());
            let v0 = _mm512_cvtepu8_epi64(quotients);
            let v1 = _mm512_cvtepu8_epi64(_mm_srli_si128::<8>(quotients));
            let mut lo0 = _mm512_madd52lo_epu64(l.zero, v0, minus_d);
            let mut hi0 = _mm512_madd52hi_epu64(l.zero, v0, minus_d);
            let mut lo1 = _mm512_madd52lo_epu64(l.zero, v1, minus_d);
            let mut hi1 = _mm512_madd52hi_epu64(l.zero, v1, minus_d);
            for (y, &w) in ys.iter().zip(&row.weights) {
                let w = _mm512_set1_epi64(w as i64);
                let y0 = load(y.as_ptr().add(j));
                let y1 = load(y.as_ptr().add(j + LANES));
                lo0 = _mm512_madd52lo_epu64(lo0, y0, w);
                hi0 = _mm512_madd52hi_epu64(hi0, y0, w);
                lo1 = _mm512_madd52lo_epu64(lo1, y1, w);
                hi1 = _mm512_madd52hi_epu64(hi1, y1, w);
            }
            let p = out.as_mut_ptr().add(j);
            store(
                p,
                reduce_steps(montgomery(&l, inv, lo0, hi0), m.value(), steps),
            );
            store(
                p.add(LANES),
                reduce_steps(montgomery(&l, inv, lo1, hi1), m.value(), steps),
            );
        }
        j += 2 * LANES;
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn inner_product(
    m: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    digits: &[&[u64]],
    key: &KeyRows<'_>,
) {
    let n = out0.len();
    let short = digits.len() > key.offsets.len()
        || digits.iter().any(|d| d.len() < n)
        || key
            .offsets
            .iter()
            .any(|o| o + key.stride + n > key.words.len());
    if n % LANES != 0 || out1.len() != n || short {
        return scalar::inner_product(m, out0, out1, digits, key);
    }
    let l = Lanes::new(m);
    let inv = _mm512_set1_epi64(m.inv52() as i64);
    // Digits may be below 4q < 2^52, so each product is below 2^52 q.
    let steps = steps_for(digits.len());
    let words = key.words.as_ptr();
    let mut j = 0;
    while j < n {
        let (mut lo0, mut hi0, mut lo1, mut hi1) = (l.zero, l.zero, l.zero, l.zero);
        // SAFETY: j + LANES <= n; the lengths of digits, rows and outputs were checked above.
        unsafe {
            for (digit, &offset) in digits.iter().zip(key.offsets) {
                let x = load(digit.as_ptr().add(j));
                let k0 = load(words.add(offset + j));
                let k1 = load(words.add(offset + key.stride + j));
                lo0 = _mm512_madd52lo_epu64(lo0, x, k0);
                hi0 = _mm512_madd52hi_epu64(hi0, x, k0);
                lo1 = _mm512_madd52lo_epu64(lo1, x, k1);
                hi1 = _mm512_madd52hi_epu64(hi1, x, k1);
            }
            let r0 = reduce_steps(montgomery(&l, inv, lo0, hi0), m.value(), steps);
            let r1 = reduce_steps(montgomery(&l, inv, lo1, hi1), m.value(), steps);
            store(out0.as_mut_ptr().add(j), r0);
            store(out1.as_mut_ptr().add(j), r1);
        }
        j += LANES;
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn permute(out: &mut [u64], x: &[u64], p: &Permutation) {
    let orders = lane_orders(p);
    for (o, &b) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(&p.blocks) {
        let Some(src) = x.as_chunks::<LANES>().0.get((b >> 3) as usize) else {
            return;
        };
        // SAFETY: a chunk has eight words.
        unsafe {
            let v = load(src.as_ptr());
            store(
                o.as_mut_ptr(),
                _mm512_permutexvar_epi64(orders[(b & 7) as usize], v),
            );
        }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn permute_acc(m: &Modulus, out: &mut [u64], x: &[u64], p: &Permutation) {
    let orders = lane_orders(p);
    let l = Lanes::new(m);
    for (o, &b) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(&p.blocks) {
        let Some(src) = x.as_chunks::<LANES>().0.get((b >> 3) as usize) else {
            return;
        };
        // SAFETY: a chunk has eight words.
        unsafe {
            let v = _mm512_permutexvar_epi64(orders[(b & 7) as usize], load(src.as_ptr()));
            store(o.as_mut_ptr(), l.add(load(o.as_ptr()), v));
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn lane_orders(p: &Permutation) -> [__m512i; 8] {
    let mut orders = [_mm512_setzero_si512(); 8];
    for (o, lanes) in orders.iter_mut().zip(&p.lanes) {
        // SAFETY: eight words.
        *o = unsafe { load(lanes.as_ptr()) };
    }
    orders
}
