//! Inner products and sums of products: lazy sums, reduced once.

use std::arch::x86_64::*;

use super::packed::Unpack;
use super::uniform::Halves;
use super::{LANES, Lanes, canonical, load, montgomery, splat, steps_beside, steps_of, store};
use crate::kernels::scalar;
use crate::kernels::{
    ABREAST, Extra, Factor, KEY_AHEAD, KeyRows, MOST_PRODUCTS, ProductSum, key_stride, key_width,
    whole,
};
use crate::modulus::Modulus;

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma,avx512vbmi,vaes")]
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
    let others = 1 + 4 * extra.tensors.len();
    let digits = digit * key.digits.len();
    let steps = steps_of(m, digits + others);
    let outs = (out0, out1);
    // SAFETY: the lengths were checked.
    unsafe {
        match (key_width(m).is_multiple_of(8), &key.uniform, steps) {
            (true, None, ..=1) => products_of::<false, true, false>(m, outs, key, extra, [1; 2]),
            (true, None, _) => products_of::<false, false, false>(m, outs, key, extra, [steps; 2]),
            (false, None, ..=1) => products_of::<true, true, false>(m, outs, key, extra, [1; 2]),
            (false, None, _) => products_of::<true, false, false>(m, outs, key, extra, [steps; 2]),
            (whole, Some(_), _) => {
                // Their words are below 2^52.
                let steps = [steps, steps_beside(m, others, digits)];
                match whole {
                    true => products_of::<false, false, true>(m, outs, key, extra, steps),
                    false => products_of::<true, false, true>(m, outs, key, extra, steps),
                }
            }
        }
    }
}

/// How many words before its use a digit is fetched: the last jobs of a call find it in the last level
/// of cache only.
const DIGITS_AHEAD: usize = 128;

/// The inner product; `HALF` as for [`Unpack::at`], `ONE` as for [`canonical`], `MADE` where the uniform
/// halves are made here. `steps` are those of both outputs.
///
/// # Safety
/// The key is `whole` for the outputs' length, a multiple of eight, and the extras cover it.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vbmi,vaes")]
unsafe fn products_of<const HALF: bool, const ONE: bool, const MADE: bool>(
    m: &Modulus,
    (out0, out1): (&mut [u64], &mut [u64]),
    key: &KeyRows<'_>,
    extra: &Extra<'_>,
    steps: [u32; 2],
) {
    let n = out0.len();
    let l = Lanes::new(m);
    let inv = _mm512_set1_epi64(m.inv52() as i64);
    let factor = _mm512_set1_epi64(extra.factor as i64);
    let (w, quot) = splat(m.shoup(extra.factor));
    let unpack = Unpack::new(key_width(m));
    // Bytes of eight columns.
    let step = 8 * key_stride(m, key.rows);
    let halves = Halves::new(m, key.uniform.unwrap_or_default());
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
            let group = halves.group(if MADE { j / LANES } else { 0 });
            for (digit, &first) in key.digits.iter().zip(key.first) {
                let later = digit.as_ptr().wrapping_add(j + DIGITS_AHEAD);
                _mm_prefetch::<_MM_HINT_T0>(later.cast());
                let x = load(digit.as_ptr().add(j));
                let row = if MADE { first / 2 } else { first };
                let k0 = unpack.at::<HALF>(columns.add(row * unpack.width));
                let k1 = if MADE {
                    halves.words(row, group)
                } else {
                    unpack.at::<HALF>(columns.add((row + 1) * unpack.width))
                };
                lo0 = _mm512_madd52lo_epu64(lo0, x, k0);
                hi0 = _mm512_madd52hi_epu64(hi0, x, k0);
                lo1 = _mm512_madd52lo_epu64(lo1, x, k1);
                hi1 = _mm512_madd52hi_epu64(hi1, x, k1);
            }
            let r0 = canonical::<ONE>(&l, montgomery(&l, inv, lo0, hi0), m.value(), steps[0]);
            let r1 = canonical::<ONE>(&l, montgomery(&l, inv, lo1, hi1), m.value(), steps[1]);
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

/// How many words before its use a result's line is fetched: results are more than any cache holds.
const OUTPUTS_AHEAD: usize = 128;

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn sum_products(
    m: &Modulus,
    sums: &mut [ProductSum<'_>],
    x: &[[&[u64]; 2]],
) {
    let n = sums.first().map_or(0, |s| s.out[0].len());
    // Two vectors at a time where sums are few.
    let fits = n.is_multiple_of(2 * LANES)
        && x.len() <= MOST_PRODUCTS
        && x.iter().flatten().all(|x| x.len() >= n)
        && sums.iter().all(|s| s.fits((n, x.len()), LANES));
    if !fits {
        return scalar::sum_products(m, sums, x);
    }
    // Both factors are canonical.
    let steps = steps_of(m, x.len());
    for sums in sums.chunks_mut(ABREAST) {
        // SAFETY: the lengths were checked.
        unsafe {
            match sums {
                [a] => sums_of::<1, 2>(m, [a], x, steps),
                [a, b] => sums_of::<2, 2>(m, [a, b], x, steps),
                [a, b, c] => sums_of::<3, 1>(m, [a, b, c], x, steps),
                [a, b, c, d] => sums_of::<4, 1>(m, [a, b, c, d], x, steps),
                _ => {}
            }
        }
    }
}

/// `SUMS` sums of products, `COLUMNS` vectors of them at a time.
///
/// # Safety
/// The sums `fit` the length of their outputs, a multiple of `COLUMNS * LANES`, and the number of x,
/// of which each has as many words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn sums_of<const SUMS: usize, const COLUMNS: usize>(
    m: &Modulus,
    sums: [&mut ProductSum<'_>; SUMS],
    x: &[[&[u64]; 2]],
    steps: u32,
) {
    let n = sums[0].out[0].len();
    // Of all factors the length, if it is the same.
    let mut lengths = sums
        .iter()
        .flat_map(|s| s.factors)
        .map(|f| f.y.len().min(n));
    let first = lengths.next().unwrap_or(n);
    let alike = first > 0 && lengths.all(|length| length == first);
    let run = n / first.max(1);
    let alike = alike && run >= COLUMNS * LANES;
    // SAFETY: the caller's promise.
    unsafe {
        if alike && SUMS == ABREAST && run >= LONG_RUN && x.len() <= TABLED {
            match steps {
                ..=1 => tabled::<SUMS, true>(m, sums, x, (first, 1)),
                _ => tabled::<SUMS, false>(m, sums, x, (first, steps)),
            }
            return;
        }
        match (alike, steps) {
            (true, ..=1) => columns_of::<SUMS, COLUMNS, true, true>(m, sums, x, (first, 1)),
            (true, _) => columns_of::<SUMS, COLUMNS, true, false>(m, sums, x, (first, steps)),
            (false, ..=1) => columns_of::<SUMS, COLUMNS, false, true>(m, sums, x, (n, 1)),
            (false, _) => columns_of::<SUMS, COLUMNS, false, false>(m, sums, x, (n, steps)),
        }
    }
}

/// Words of a run from which on it pays to put the factors of all sums beside one another first.
const LONG_RUN: usize = 64;

/// Factors of each sum that have room there.
const TABLED: usize = 64;

/// The sums where all factors have so many `values`, each for at least `LONG_RUN` words; `ONE` as for
/// [`canonical`]. Between two loads of words there is nothing but products: no pointers, and no branches.
///
/// # Safety
/// As for [`sums_of`], with one or more values and at most `TABLED` x.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn tabled<const SUMS: usize, const ONE: bool>(
    m: &Modulus,
    mut sums: [&mut ProductSum<'_>; SUMS],
    x: &[[&[u64]; 2]],
    (values, steps): (usize, u32),
) {
    let n = sums[0].out[0].len();
    let l = Lanes::new(m);
    let inv = _mm512_set1_epi64(m.inv52() as i64);
    let mut table = [[0u64; SUMS]; TABLED];
    for (value, start) in (0..n).step_by(n / values).enumerate() {
        for (s, sum) in sums.iter().enumerate() {
            for (i, (row, f)) in table.iter_mut().zip(sum.factors).enumerate() {
                row[s] = f.y.get(value).copied().unwrap_or(0);
                // A share of what comes next with each value.
                if i % values == value {
                    for line in f.ahead.chunks(LANES) {
                        _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
                    }
                }
            }
        }
        for j in (start..start + n / values).step_by(LANES) {
            for sum in &sums {
                fetch_outputs::<1>(sum, j);
            }
            let (mut lo, mut hi) = ([[l.zero; 2]; SUMS], [[l.zero; 2]; SUMS]);
            for (x, row) in x.iter().zip(&table) {
                // SAFETY: j + LANES <= n, and the caller's promise.
                let words = x.map(|x| unsafe { load(x.as_ptr().add(j)) });
                for s in 0..SUMS {
                    let y = _mm512_set1_epi64(row[s] as i64);
                    for part in 0..2 {
                        lo[s][part] = _mm512_madd52lo_epu64(lo[s][part], words[part], y);
                        hi[s][part] = _mm512_madd52hi_epu64(hi[s][part], words[part], y);
                    }
                }
            }
            for (s, sum) in sums.iter_mut().enumerate() {
                for part in 0..2 {
                    let value = montgomery(&l, inv, lo[s][part], hi[s][part]);
                    let value = canonical::<ONE>(&l, value, m.value(), steps);
                    let fresh = sum.fresh[part];
                    // SAFETY: j + LANES <= n, the length of all outputs.
                    unsafe {
                        let to = sum.out[part].as_mut_ptr().add(j);
                        store(to, if fresh { value } else { l.add(load(to), value) });
                    }
                }
            }
        }
    }
}

/// Fetches what is read and written soon, from word `j` on, for so many vectors.
#[inline]
fn fetch_outputs<const COLUMNS: usize>(sum: &ProductSum<'_>, j: usize) {
    let outs = sum.out.each_ref();
    let [out0, out1] = outs.map(|out| out.as_ptr().wrapping_add(OUTPUTS_AHEAD));
    let first = sum.next.map_or(out0, <[u64]>::as_ptr);
    for later in [first, out1] {
        for k in 0..COLUMNS {
            // SAFETY: a prefetch reads nothing, and faults at no address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(later.wrapping_add(j + k * LANES).cast()) };
        }
    }
}

/// The sums; `RUNS` if all factors that there are have so many `values`, each for at least `COLUMNS * LANES`
/// words; `ONE` as for [`canonical`].
///
/// # Safety
/// As for [`sums_of`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn columns_of<const SUMS: usize, const COLUMNS: usize, const RUNS: bool, const ONE: bool>(
    m: &Modulus,
    mut sums: [&mut ProductSum<'_>; SUMS],
    x: &[[&[u64]; 2]],
    (values, steps): (usize, u32),
) {
    let n = sums[0].out[0].len();
    let l = Lanes::new(m);
    let inv = _mm512_set1_epi64(m.inv52() as i64);
    let factors: [&[Factor<'_>]; SUMS] = sums.each_ref().map(|s| s.factors);
    let run = n.trailing_zeros() - values.trailing_zeros();
    for j in (0..n).step_by(COLUMNS * LANES) {
        if RUNS && j.is_multiple_of(1 << run) {
            // A share of what comes next with each value.
            for i in (j >> run..x.len()).step_by(values) {
                for f in factors.iter().filter_map(|f| f.get(i)) {
                    for line in f.ahead.chunks(LANES) {
                        _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
                    }
                }
            }
        }
        for sum in &sums {
            fetch_outputs::<COLUMNS>(sum, j);
        }
        let zero = [[[l.zero; COLUMNS]; 2]; SUMS];
        let (mut lo, mut hi) = (zero, zero);
        for (i, x) in x.iter().enumerate() {
            // SAFETY: j + COLUMNS * LANES <= n, and the caller's promise.
            unsafe {
                let words = x.map(|x| {
                    let at = x.as_ptr().add(j);
                    std::array::from_fn::<_, COLUMNS, _>(|k| load(at.add(k * LANES)))
                });
                const { assert!(SUMS <= ABREAST && ABREAST == 4) };
                // Written out, since a loop with a branch in it is not unrolled, and its sums leave registers.
                macro_rules! add {
                    ($($s:literal)*) => { $(
                        if $s < SUMS {
                            let f = factors[$s].get_unchecked(i);
                            if !f.y.is_empty() {
                                let y = if RUNS {
                                    [_mm512_set1_epi64(*f.y.as_ptr().add(j >> run) as i64); COLUMNS]
                                } else {
                                    factor_at(f, (j, n))
                                };
                                for part in 0..2 {
                                    for k in 0..COLUMNS {
                                        let (x, y) = (words[part][k], y[k]);
                                        lo[$s][part][k] = _mm512_madd52lo_epu64(lo[$s][part][k], x, y);
                                        hi[$s][part][k] = _mm512_madd52hi_epu64(hi[$s][part][k], x, y);
                                    }
                                }
                            }
                        }
                    )* };
                }
                add!(0 1 2 3);
            }
        }
        for (s, sum) in sums.iter_mut().enumerate() {
            for part in 0..2 {
                let (to, fresh) = (sum.out[part].as_mut_ptr(), sum.fresh[part]);
                for k in 0..COLUMNS {
                    let value = montgomery(&l, inv, lo[s][part][k], hi[s][part][k]);
                    let value = canonical::<ONE>(&l, value, m.value(), steps);
                    // SAFETY: j + COLUMNS * LANES <= n, the length of all outputs.
                    unsafe {
                        let to = to.add(j + k * LANES);
                        store(to, if fresh { value } else { l.add(load(to), value) });
                    }
                }
            }
        }
    }
}

/// The values of a factor for the vectors from word `j` of `n` on, of what comes next as many fetched.
///
/// # Safety
/// `j + COLUMNS * LANES <= n`; the factor has n values, or one for each run of equal length, a power of
/// two and a multiple of LANES.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn factor_at<const COLUMNS: usize>(
    f: &Factor<'_>,
    (j, n): (usize, usize),
) -> [__m512i; COLUMNS] {
    std::array::from_fn(|k| {
        let at = j + k * LANES;
        if at < f.ahead.len() {
            _mm_prefetch::<_MM_HINT_T1>(f.ahead.as_ptr().wrapping_add(at).cast());
        }
        // SAFETY: the caller's promise.
        unsafe {
            if f.y.len() < n {
                let run = n.trailing_zeros() - f.y.len().trailing_zeros();
                _mm512_set1_epi64(*f.y.as_ptr().add(at >> run) as i64)
            } else {
                load(f.y.as_ptr().add(at))
            }
        }
    })
}
