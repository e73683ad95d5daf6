//! Inner products and sums of products: lazy sums, reduced once.

use std::arch::x86_64::*;

use super::packed::Unpack;
use super::{LANES, Lanes, canonical, load, montgomery, splat, steps_of, store};
use crate::kernels::scalar;
use crate::kernels::{Extra, KEY_AHEAD, KeyRows, MOST_PRODUCTS, Product, key_width, whole};
use crate::modulus::Modulus;

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma,avx512vbmi")]
pub(in crate::kernels) fn inner_product(
    m: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    key: &KeyRows<'_>,
    extra: &Extra<'_>,
) {
    let n = out0.len();
    let fits = whole(m, key, n) && extra.tensors.len() <= MOST_PRODUCTS && extra.covers(n);
    if !n.is_multiple_of(LANES) || out1.len() != n || !fits {
        return scalar::inner_product(m, out0, out1, key, extra);
    }
    // Digits of at most 47 bits are below 10q, others below 4q, in any case below 2^52; keys, what is
    // added and its factor below q. A factor of a tensor product is lazy: below 2q, in two products.
    let digit = if m.bits() <= 47 { 10 } else { 4 };
    let steps = steps_of(m, digit * key.digits.len() + 1 + 4 * extra.tensors.len());
    // SAFETY: the lengths were checked.
    unsafe {
        let outs = (out0, out1);
        match (key_width(m).is_multiple_of(8), steps) {
            (true, ..=1) => products_of::<false, true>(m, outs, key, extra, 1),
            (true, _) => products_of::<false, false>(m, outs, key, extra, steps),
            (false, ..=1) => products_of::<true, true>(m, outs, key, extra, 1),
            (false, _) => products_of::<true, false>(m, outs, key, extra, steps),
        }
    }
}

/// How many words before its use a digit is fetched: the last jobs of a call find it in the last level
/// of cache only.
const DIGITS_AHEAD: usize = 128;

/// The inner product; `HALF` as for [`Unpack::at`], `ONE` as for [`canonical`].
///
/// # Safety
/// The key is `whole` for the outputs' length, a multiple of eight, and the extras cover it.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vbmi")]
unsafe fn products_of<const HALF: bool, const ONE: bool>(
    m: &Modulus,
    (out0, out1): (&mut [u64], &mut [u64]),
    key: &KeyRows<'_>,
    extra: &Extra<'_>,
    steps: u32,
) {
    let n = out0.len();
    let l = Lanes::new(m);
    let inv = _mm512_set1_epi64(m.inv52() as i64);
    let factor = _mm512_set1_epi64(extra.factor as i64);
    let (w, quot) = splat(m.shoup(extra.factor));
    let unpack = Unpack::new(key_width(m));
    // Bytes of eight columns.
    let step = key.rows * unpack.width;
    let mut columns = key.words.as_ptr().cast::<u8>();
    let mut j = 0;
    while j < n {
        let (mut lo0, mut hi0, mut lo1, mut hi1) = (l.zero, l.zero, l.zero, l.zero);
        // SAFETY: j + LANES <= n; digits, extras and outputs are as long, and an order has an entry for
        // every eight words. Of the key's rows there are `step` bytes for each eight columns, and behind
        // them what `at` reads beyond a row.
        unsafe {
            if let Some(x) = extra.x[0] {
                let later = x.as_ptr().wrapping_add(j + DIGITS_AHEAD);
                _mm_prefetch::<_MM_HINT_T0>(later.cast());
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
            // Keys come from memory.
            let later = key.later(j / LANES * step + KEY_AHEAD, n / LANES * step);
            for line in (0..step).step_by(64) {
                _mm_prefetch::<_MM_HINT_T0>(later.wrapping_add(line).cast());
            }
            for (digit, &first) in key.digits.iter().zip(key.first) {
                let later = digit.as_ptr().wrapping_add(j + DIGITS_AHEAD);
                _mm_prefetch::<_MM_HINT_T0>(later.cast());
                let x = load(digit.as_ptr().add(j));
                let k0 = unpack.at::<HALF>(columns.add(first * unpack.width));
                let k1 = unpack.at::<HALF>(columns.add((first + 1) * unpack.width));
                lo0 = _mm512_madd52lo_epu64(lo0, x, k0);
                hi0 = _mm512_madd52hi_epu64(hi0, x, k0);
                lo1 = _mm512_madd52lo_epu64(lo1, x, k1);
                hi1 = _mm512_madd52hi_epu64(hi1, x, k1);
            }
            let r0 = canonical::<ONE>(&l, montgomery(&l, inv, lo0, hi0), m.value(), steps);
            let r1 = canonical::<ONE>(&l, montgomery(&l, inv, lo1, hi1), m.value(), steps);
            let (to, r0, r1) = match key.order {
                None => (j, r0, r1),
                Some(order) => {
                    // The mask keeps the block inside the outputs, whose blocks are a power of two.
                    let b = *order.blocks.get_unchecked(j / LANES);
                    let to = ((b >> 3) as usize).wrapping_sub(order.base) & (n / LANES - 1);
                    let lanes = load(order.lanes[(b & 7) as usize].as_ptr());
                    let [r0, r1] = [r0, r1].map(|r| _mm512_permutexvar_epi64(lanes, r));
                    (to * LANES, r0, r1)
                }
            };
            store(out0.as_mut_ptr().add(to), r0);
            store(out1.as_mut_ptr().add(to), r1);
            columns = columns.add(step);
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
    // Both factors are canonical.
    let steps = steps_of(m, products.len());
    // SAFETY: the lengths were checked.
    unsafe {
        match steps {
            ..=1 => sums_of::<true>(m, (out0, out1), products, fresh, 1),
            _ => sums_of::<false>(m, (out0, out1), products, fresh, steps),
        }
    }
}

/// The sums of products; `ONE` as for [`canonical`].
///
/// # Safety
/// The outputs have the same length, a multiple of `PAIR * LANES`; every x has as many words, and
/// every y as many or one for each run of equal length, a power of two and a multiple of LANES.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn sums_of<const ONE: bool>(
    m: &Modulus,
    (out0, out1): (&mut [u64], &mut [u64]),
    products: &[Product<'_>],
    fresh: bool,
    steps: u32,
) {
    let n = out0.len();
    let l = Lanes::new(m);
    let inv = _mm512_set1_epi64(m.inv52() as i64);
    let mut j = 0;
    while j < n {
        let zero = [[l.zero; PAIR]; 2];
        let (mut lo, mut hi) = (zero, zero);
        for p in products {
            // SAFETY: j + PAIR * LANES <= n, and the caller's promise.
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
                let sum = canonical::<ONE>(&l, sum, m.value(), steps);
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
