//! Element-wise kernels, base conversion and inner products.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::ntt::{MIN_LOG, Target, forward_passes_to};
use super::{LANES, Lanes, load, reduce_once, splat, store};
use crate::kernels::MOST_PRODUCTS;
use crate::kernels::scalar::{self, steps_for};
use crate::kernels::{
    ConvRow, ConvSource, Extra, Fraction, KeyRows, LOW_LOG, PermutationPiece, Product, TILE_WORDS,
    Tile,
};
use crate::modulus::{Modulus, ShoupConst};
use crate::ntt::NttTable;

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

/// Brings a value below `2^steps q` below `2^LAZY q`.
#[inline]
#[target_feature(enable = "avx512f")]
fn reduce_steps<const LAZY: u32>(mut x: __m512i, q: u64, steps: u32) -> __m512i {
    for s in (LAZY..steps).rev() {
        x = reduce_once(x, _mm512_set1_epi64((q << s) as i64));
    }
    x
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
pub(in crate::kernels) fn quotient(v: &mut [u8], ys: &[u64], fractions: &[Fraction]) {
    let n = v.len();
    if fractions.len() < 2 || !n.is_multiple_of(LANES) || ys.len() < n * fractions.len() {
        return scalar::quotient(v, ys, fractions);
    }
    let bias = _mm512_set1_epi64((1 << 50) + fractions.len() as i64);
    for (block, out) in v.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let mut sum = bias;
        for (i, f) in fractions.iter().enumerate() {
            // SAFETY: ys has n words for each fraction.
            let y = unsafe { load(ys.as_ptr().add(i * n + block * LANES)) };
            let y = _mm512_sll_epi64(y, _mm_cvtsi64_si128(i64::from(f.shift)));
            sum = _mm512_madd52hi_epu64(sum, y, _mm512_set1_epi64(f.inverse as i64));
        }
        let bytes = _mm512_cvtepi64_epi8(_mm512_srli_epi64::<51>(sum));
        *out = (_mm_cvtsi128_si64(bytes) as u64).to_le_bytes();
    }
}

/// The conversion of `out.len()` consecutive words of a tile from `first` on, to values below
/// `2^LAZY q` (0: canonical).
///
/// # Safety
/// `out.len()` is a multiple of 32; `source.v` has at least `first + out.len()` elements and
/// `source.ys` that of `source.v` for each weight.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn convert_from<const LAZY: u32>(
    m: &Modulus,
    out: &mut [u64],
    source: ConvSource<'_>,
    row: &ConvRow,
    first: usize,
) {
    let l = Lanes::new(m);
    let inv = _mm512_set1_epi64(m.inv52() as i64);
    let minus_d = _mm512_set1_epi64(row.minus_d as i64);
    // Each product is below 2^50 q, so the sum of `terms` is below (terms / 4) 2^52 q, and with
    // the reduction's own q at most (terms / 4 + 1) q.
    let terms = row.weights.len();
    let steps = if LAZY == 2 && terms <= 12 {
        2
    } else {
        steps_for(terms / 4 + 1)
    };
    let stride = source.v.len();
    // Lines of `ahead` per step, so that the steps of this call cover it.
    let lines = source
        .ahead
        .len()
        .div_ceil(LANES)
        .div_ceil((out.len() / (WIDE * LANES)).max(1));
    let mut ahead = source.ahead.as_ptr();
    let mut j = 0;
    while j < out.len() {
        // SAFETY: the caller's promise.
        unsafe {
            for _ in 0..lines {
                _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                ahead = ahead.wrapping_add(LANES);
            }
            let (mut lo, mut hi) = ([l.zero; WIDE], [l.zero; WIDE]);
            for k in 0..WIDE {
                let v = _mm_loadl_epi64(source.v.as_ptr().add(first + j + k * LANES).cast());
                let v = _mm512_cvtepu8_epi64(v);
                lo[k] = _mm512_madd52lo_epu64(l.zero, v, minus_d);
                hi[k] = _mm512_madd52hi_epu64(l.zero, v, minus_d);
            }
            let mut y = source.ys.as_ptr().add(first + j);
            for &w in &row.weights {
                let w = _mm512_set1_epi64(w as i64);
                for k in 0..WIDE {
                    let y = load(y.add(k * LANES));
                    lo[k] = _mm512_madd52lo_epu64(lo[k], y, w);
                    hi[k] = _mm512_madd52hi_epu64(hi[k], y, w);
                }
                y = y.wrapping_add(stride);
            }
            for k in 0..WIDE {
                let x = montgomery(&l, inv, lo[k], hi[k]);
                store(
                    out.as_mut_ptr().add(j + k * LANES),
                    reduce_steps::<LAZY>(x, m.value(), steps),
                );
            }
        }
        j += WIDE * LANES;
    }
}

/// Vectors that a conversion works on at a time: enough independent sums to fill the latency of a
/// multiply-add.
const WIDE: usize = 4;

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn convert_tile(
    t: &NttTable,
    out: &mut [u64],
    source: ConvSource<'_>,
    row: &ConvRow,
    place: &Tile,
) {
    let (tile, top) = (&place.columns, place.top);
    let (n, width) = (out.len(), 1usize << LOW_LOG.min(t.log_n));
    let columns = tile.len();
    let inside = tile.start <= tile.end && tile.end <= width && n == 1 << t.log_n;
    let rows = n / width;
    let long =
        source.v.len() == rows * columns && source.ys.len() >= source.v.len() * row.weights.len();
    let fits = columns.is_multiple_of(WIDE * LANES) && rows * columns <= TILE_WORDS;
    if t.log_n < MIN_LOG || !(inside && long && fits) {
        return scalar::convert_tile(t, out, source, row, place);
    }
    if rows == 1 || !top {
        for r in 0..rows {
            let part = &mut out[r * width + tile.start..r * width + tile.end];
            // SAFETY: the lengths were checked above.
            unsafe {
                if top {
                    convert_from::<2>(&t.modulus, part, source, row, r * columns);
                } else {
                    convert_from::<0>(&t.modulus, part, source, row, r * columns);
                }
            }
        }
        return;
    }
    // A compact copy of the tile: rows of `out` are 32 KiB apart and would share cache sets.
    let mut scratch = Scratch(MaybeUninit::uninit());
    // SAFETY: words have no invalid values and every one is written by `convert_from` before it is
    // read; rows * columns <= TILE_WORDS was checked, as were the lengths of the source. The last
    // pass leaves rows of `columns` words and writes them into the rows of `out`, inside it since
    // tile.end <= width and rows * width = n.
    unsafe {
        let words =
            std::slice::from_raw_parts_mut(scratch.0.as_mut_ptr().cast::<u64>(), rows * columns);
        convert_from::<2>(&t.modulus, words, source, row, 0);
        let to = Target {
            words: out.as_mut_ptr().add(tile.start),
            row: width,
            columns,
        };
        forward_passes_to(t, words, t.log_n - LOW_LOG, 1, to);
    }
}

#[repr(align(64))]
struct Scratch(MaybeUninit<[u64; TILE_WORDS]>);

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn inner_product(
    m: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    key: &KeyRows<'_>,
    extra: &Extra<'_>,
) {
    let n = out0.len();
    let short = key.digits.len() > key.first.len()
        || key.digits.iter().any(|d| d.len() < n)
        || key.first.iter().any(|first| first + 2 > key.rows)
        || key.words.len() < n * key.rows
        || extra.x.iter().flatten().any(|x| x.len() < n);
    if !n.is_multiple_of(LANES) || out1.len() != n || short {
        return scalar::inner_product(m, out0, out1, key, extra);
    }
    let l = Lanes::new(m);
    let inv = _mm512_set1_epi64(m.inv52() as i64);
    let factor = _mm512_set1_epi64(extra.factor as i64);
    // Digits may be below 4q < 2^52, so each product is below 2^52 q.
    let steps = steps_for(key.digits.len() + 1);
    let words = key.words.as_ptr();
    let mut j = 0;
    while j < n {
        let (mut lo0, mut hi0, mut lo1, mut hi1) = (l.zero, l.zero, l.zero, l.zero);
        if let Some(next) = key.ahead.get(j * key.rows..(j + LANES) * key.rows) {
            for line in next.as_chunks::<LANES>().0 {
                _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
            }
        }
        // SAFETY: j + LANES <= n; the lengths of digits, rows, extras and outputs were checked.
        unsafe {
            if let Some(x) = extra.x[0] {
                let x = load(x.as_ptr().add(j));
                lo0 = _mm512_madd52lo_epu64(lo0, x, factor);
                hi0 = _mm512_madd52hi_epu64(hi0, x, factor);
            }
            if let Some(x) = extra.x[1] {
                let x = load(x.as_ptr().add(j));
                lo1 = _mm512_madd52lo_epu64(lo1, x, factor);
                hi1 = _mm512_madd52hi_epu64(hi1, x, factor);
            }
            let columns = words.add(j * key.rows);
            for (digit, &first) in key.digits.iter().zip(key.first) {
                let x = load(digit.as_ptr().add(j));
                let k0 = load(columns.add(first * LANES));
                let k1 = load(columns.add((first + 1) * LANES));
                lo0 = _mm512_madd52lo_epu64(lo0, x, k0);
                hi0 = _mm512_madd52hi_epu64(hi0, x, k0);
                lo1 = _mm512_madd52lo_epu64(lo1, x, k1);
                hi1 = _mm512_madd52hi_epu64(hi1, x, k1);
            }
            let r0 = reduce_steps::<0>(montgomery(&l, inv, lo0, hi0), m.value(), steps);
            let r1 = reduce_steps::<0>(montgomery(&l, inv, lo1, hi1), m.value(), steps);
            store(out0.as_mut_ptr().add(j), r0);
            store(out1.as_mut_ptr().add(j), r1);
        }
        j += LANES;
    }
}

/// Vectors that a sum of products works on at a time: with two outputs enough independent sums.
const PAIR: usize = 2;

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn sum_products(
    m: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    products: &[Product<'_>],
    fresh: bool,
) {
    let n = out0.len();
    let short = |p: &Product<'_>| p.x.iter().any(|x| x.len() < n) || !p.has_runs(n, LANES);
    if !n.is_multiple_of(PAIR * LANES)
        || out1.len() != n
        || products.len() > MOST_PRODUCTS
        || products.iter().any(short)
    {
        return scalar::sum_products(m, out0, out1, products, fresh);
    }
    let l = Lanes::new(m);
    let inv = _mm512_set1_epi64(m.inv52() as i64);
    // Both factors are canonical: each product is below 2^50 q.
    let steps = steps_for(products.len() / 4 + 1);
    let mut j = 0;
    while j < n {
        let zero = [[l.zero; PAIR]; 2];
        let (mut lo, mut hi) = (zero, zero);
        for p in products {
            // SAFETY: j + PAIR * LANES <= n; every x has n words, and y as many or one for each run
            // of equal length, a power of two and a multiple of LANES, as checked above.
            unsafe {
                for k in 0..PAIR {
                    let at = j + k * LANES;
                    if at < p.ahead.len() {
                        _mm_prefetch::<_MM_HINT_T1>(p.ahead.as_ptr().add(at).cast());
                    }
                    let y = if p.y.len() < n {
                        let run = n.trailing_zeros() - p.y.len().trailing_zeros();
                        _mm512_set1_epi64(*p.y.as_ptr().add(at >> run) as i64)
                    } else {
                        load(p.y.as_ptr().add(at))
                    };
                    for part in 0..2 {
                        let x = load(p.x[part].as_ptr().add(at));
                        lo[part][k] = _mm512_madd52lo_epu64(lo[part][k], x, y);
                        hi[part][k] = _mm512_madd52hi_epu64(hi[part][k], x, y);
                    }
                }
            }
        }
        for (part, out) in [&mut *out0, &mut *out1].into_iter().enumerate() {
            for k in 0..PAIR {
                let sum = montgomery(&l, inv, lo[part][k], hi[part][k]);
                let sum = reduce_steps::<0>(sum, m.value(), steps);
                // SAFETY: j + PAIR * LANES <= n, the length of both outputs.
                unsafe {
                    let to = out.as_mut_ptr().add(j + k * LANES);
                    store(to, if fresh { sum } else { l.add(load(to), sum) });
                }
            }
        }
        j += PAIR * LANES;
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn permute(out: &mut [u64], x: &[u64], p: &PermutationPiece<'_>) {
    let orders = lane_orders(p);
    for (o, &b) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(p.blocks) {
        let source = ((b >> 3) as usize).wrapping_sub(p.base);
        let Some(src) = x.as_chunks::<LANES>().0.get(source) else {
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
pub(in crate::kernels) fn permute_acc(
    m: &Modulus,
    out: &mut [u64],
    x: &[u64],
    p: &PermutationPiece<'_>,
) {
    let orders = lane_orders(p);
    let l = Lanes::new(m);
    for (o, &b) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(p.blocks) {
        let source = ((b >> 3) as usize).wrapping_sub(p.base);
        let Some(src) = x.as_chunks::<LANES>().0.get(source) else {
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
fn lane_orders(p: &PermutationPiece<'_>) -> [__m512i; 8] {
    let mut orders = [_mm512_setzero_si512(); 8];
    for (o, lanes) in orders.iter_mut().zip(p.lanes) {
        // SAFETY: eight words.
        *o = unsafe { load(lanes.as_ptr()) };
    }
    orders
}
