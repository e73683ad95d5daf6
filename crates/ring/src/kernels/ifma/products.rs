//! Inner products and sums of products: lazy sums, reduced once.

use std::arch::x86_64::*;

use super::{LANES, Lanes, load, montgomery, reduce_steps, splat, store};
use crate::kernels::scalar::{self, steps_for};
use crate::kernels::{COLUMNS_AHEAD, Extra, KeyRows, MOST_PRODUCTS, Product};
use crate::modulus::Modulus;

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
        || extra.tensors.len() > MOST_PRODUCTS
        || !extra.covers(n);
    if !n.is_multiple_of(LANES) || out1.len() != n || short {
        return scalar::inner_product(m, out0, out1, key, extra);
    }
    let l = Lanes::new(m);
    let inv = _mm512_set1_epi64(m.inv52() as i64);
    let factor = _mm512_set1_epi64(extra.factor as i64);
    // Digits may be below 4q < 2^52, so each product is below 2^52 q. A factor of a tensor product is
    // lazy: with the constant below 2q, two products together are below 4 q^2 < 2^52 q.
    let steps = steps_for(key.digits.len() + 1 + extra.tensors.len());
    let (w, quot) = splat(m.shoup(extra.factor));
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
            for t in extra.tensors {
                let [a0, a1] = t.a.map(|a| l.shoup_lazy(load(a.as_ptr().add(j)), w, quot));
                let [b0, b1] = t.b.map(|b| load(b.as_ptr().add(j)));
                lo0 = _mm512_madd52lo_epu64(lo0, a0, b0);
                hi0 = _mm512_madd52hi_epu64(hi0, a0, b0);
                lo1 = _mm512_madd52lo_epu64(lo1, a0, b1);
                hi1 = _mm512_madd52hi_epu64(hi1, a0, b1);
                lo1 = _mm512_madd52lo_epu64(lo1, a1, b0);
                hi1 = _mm512_madd52hi_epu64(hi1, a1, b0);
            }
            let columns = words.add(j * key.rows);
            // Keys come from memory; blocks follow each other there, so the next one's begin too.
            for row in 0..key.rows {
                let later = columns.wrapping_add((COLUMNS_AHEAD * key.rows + row) * LANES);
                _mm_prefetch::<_MM_HINT_T0>(later.cast());
            }
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
