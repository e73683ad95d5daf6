//! Inner products and sums of products: lazy sums, reduced once.
//!
//! Primes whose packed words have whole bytes, of at most 48 bits (`NARROW`), leave enough bits free for exact sums: of
//! seven products of canonical words and more, of three with digits. Modulo others each product is reduced, and the
//! products are summed.

use std::arch::x86_64::*;

use super::packed::Unpack;
use super::pointwise::{Order, leave, splat};
use super::sum::Sum;
use super::{LANES, Lanes, load, load_lazy, store};
use crate::kernels::{
    Extra, KEY_AHEAD, KeyRows, ProductSum, Values, packed_stride, packed_width, scalar, whole,
};
use crate::modulus::Modulus;

/// Reduced products that are summed before a reduction: each is at most `q` (a digit is at most `2q` and
/// a key word `q`, so `1/2 + 2/4`), and with what was there, at most `3/4`, below what [`Lanes::reduce_pair`] takes.
const REDUCED: usize = 6;

/// Tensor products whose first two parts are summed before a reduction: two products each.
const TENSORS: usize = REDUCED / 2;

/// Whether products modulo a prime are `NARROW`.
fn is_narrow(m: &Modulus) -> bool {
    packed_width(m).is_multiple_of(8)
}

/// Adds a product to a sum.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_product<const NARROW: bool>(l: &Lanes, sum: &mut Sum, x: __m256d, y: __m256d) {
    match NARROW {
        true => sum.add_product(x, y),
        false => sum.add(l.mul(x, y)),
    }
}

/// The first ones of both, at most so many: `chunks` would divide for it, in every column.
#[inline]
fn take<'a, A, B>(left: &mut (&'a [A], &'a [B]), most: usize) -> (&'a [A], &'a [B]) {
    let (a, b) = *left;
    let (a, a_left) = a.split_at(most.min(a.len()));
    let (b, b_left) = b.split_at(most.min(b.len()));
    *left = (a_left, b_left);
    (a, b)
}

/// The sums, reduced. A loop: closures over arrays of vectors are calls, which pass them through memory.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn reduced(l: &Lanes, start: __m256d, sums: &[[Sum; 2]; 2], values: &mut [[__m256d; 2]; 2]) {
    for (values, sums) in values.iter_mut().zip(sums) {
        for (value, sum) in values.iter_mut().zip(sums) {
            *value = sum.reduced(l, start);
        }
    }
}

/// Sums that begin with these values.
#[inline]
#[target_feature(enable = "avx2")]
fn four(start: __m256d, values: &[[__m256d; 2]; 2]) -> [[Sum; 2]; 2] {
    let [[a, b], [c, d]] = *values;
    [
        [Sum::new(start, a), Sum::new(start, b)],
        [Sum::new(start, c), Sum::new(start, d)],
    ]
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn inner_product(
    m: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    key: &KeyRows<'_>,
    extra: &Extra<'_>,
) {
    let n = out0.len();
    // Blocks of AES one by one are slower than memory: keys are prepared with all rows here.
    let fits = whole(m, key, n) && extra.covers(n) && key.uniform.is_none();
    if !n.is_multiple_of(8) || out1.len() != n || !fits {
        return scalar::inner_product(m, out0, out1, key, extra);
    }
    let outs = [out0.as_mut_ptr(), out1.as_mut_ptr()];
    // SAFETY: the lengths were checked.
    unsafe {
        match is_narrow(m) {
            true => inner_products::<true>(m, (outs, n), key, extra),
            false => inner_products::<false>(m, (outs, n), key, extra),
        }
    }
}

/// The inner product.
///
/// # Safety
/// The key is `whole` for the outputs' n words, a multiple of eight, has no uniform half to make, and the extras
/// cover them.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
unsafe fn inner_products<const NARROW: bool>(
    m: &Modulus,
    (outs, n): ([*mut u64; 2], usize),
    key: &KeyRows<'_>,
    extra: &Extra<'_>,
) {
    let (l, unpack, start) = (Lanes::new(m), Unpack::new(m), Sum::start(m));
    let leave = leave(m, &l);
    let factor = splat(m, &l, extra.factor);
    // Digits are at most 2q in absolute value, key words below q.
    let chunk = match NARROW {
        true => Sum::most(m, 2),
        false => REDUCED,
    };
    let order = key.order.map(|order| (order, Order::all(order)));
    let begins = extra.x.iter().any(Option::is_some) || !extra.tensors.is_empty();
    // Bytes of eight columns.
    let step = 8 * packed_stride(m, key.rows);
    for j in (0..n).step_by(8) {
        let columns = key.words.as_ptr().cast::<u8>().wrapping_add(j / 8 * step);
        // Keys come from memory.
        let later = key.later(j / 8 * step + KEY_AHEAD, n / 8 * step);
        for line in (0..step).step_by(64) {
            _mm_prefetch::<_MM_HINT_T0>(later.wrapping_add(line).cast());
        }
        // Per output two vectors.
        let mut sum = [[_mm256_setzero_pd(); 2]; 2];
        // SAFETY: j + 8 <= n, and the caller's promise.
        unsafe {
            if begins {
                begin(&l, factor, (j, extra), &mut sum);
            }
            let mut left = (key.digits, key.first);
            while !left.0.is_empty() {
                let (digits, firsts) = take(&mut left, chunk);
                let mut sums = four(start, &sum);
                for (digit, &first) in digits.iter().zip(firsts) {
                    let rows = columns.add(first * unpack.width);
                    let key = [rows, rows.add(unpack.width)];
                    // Written out: with an index that is no constant the sums leave registers.
                    macro_rules! add {
                        ($($k:literal)*) => { $(
                            let x = load_lazy::<true>(&l, digit.as_ptr().add(j + $k * LANES));
                            for part in 0..2 {
                                let y = unpack.at::<NARROW>(key[part].add($k * unpack.width / 2));
                                add_product::<NARROW>(&l, &mut sums[part][$k], x, l.double(y));
                            }
                        )* };
                    }
                    add!(0 1);
                }
                reduced(&l, start, &sums, &mut sum);
            }
            // Where the columns go, and in which order.
            let (to, order) = match &order {
                Some((order, lanes)) => {
                    // The mask keeps the block inside the outputs, whose blocks are a power of two.
                    let b = order.blocks[j / 8];
                    let to = ((b >> 3) as usize).wrapping_sub(order.base) & (n / 8 - 1);
                    (8 * to, Some(&lanes[(b & 7) as usize]))
                }
                None => (j, None),
            };
            for (sum, out) in sum.iter().zip(outs) {
                let mut words = [
                    l.canonical(l.times(sum[0], leave)),
                    l.canonical(l.times(sum[1], leave)),
                ];
                if let Some(order) = order {
                    words = order.apply(words);
                }
                store(out.add(to), words[0]);
                store(out.add(to + LANES), words[1]);
            }
        }
    }
}

/// What there is besides the products, in the columns from `j` on: at most `3/4` of q.
///
/// # Safety
/// The extras cover `j + 8` words.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn begin(
    l: &Lanes,
    factor: super::Factor,
    (j, extra): (usize, &Extra<'_>),
    sum: &mut [[__m256d; 2]; 2],
) {
    // SAFETY: the caller's promise.
    unsafe {
        for (sum, x) in sum.iter_mut().zip(extra.x) {
            if let Some(x) = x {
                for (k, sum) in sum.iter_mut().enumerate() {
                    *sum = l.times(l.double(load(x.as_ptr().add(j + k * LANES))), factor);
                }
            }
        }
        for tensors in extra.tensors.chunks(TENSORS) {
            for t in tensors {
                #[allow(clippy::needless_range_loop)] // Two sums are indexed by it.
                for k in 0..2 {
                    let at = j + k * LANES;
                    let word = |x: &[u64]| l.double(load(x.as_ptr().add(at)));
                    let [a0, a1] = t.a.map(|a| l.times(word(a), factor));
                    let [b0, b1] = t.b.map(word);
                    sum[0][k] = _mm256_add_pd(sum[0][k], l.mul(a0, b0));
                    let both = _mm256_add_pd(l.mul(a0, b1), l.mul(a1, b0));
                    sum[1][k] = _mm256_add_pd(sum[1][k], both);
                }
            }
            for sum in sum.iter_mut().flatten() {
                *sum = l.reduce(*sum);
            }
        }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn sum_products(
    m: &Modulus,
    sums: &mut [ProductSum<'_>],
    x: &[[&[u64]; 2]],
) {
    let n = sums.first().map_or(0, |s| s.out[0].len());
    let short =
        x.iter().flatten().any(|x| x.len() < n) || sums.iter().any(|s| !s.fits(m, (n, x.len()), 8));
    if !n.is_multiple_of(8) || short {
        return scalar::sum_products(m, sums, x);
    }
    for sum in sums {
        // SAFETY: the lengths were checked.
        unsafe {
            match is_narrow(m) {
                true => sum_of_products::<true>(m, sum, x),
                false => sum_of_products::<false>(m, sum, x),
            }
        }
    }
}

/// One of the sums.
///
/// # Safety
/// It `fits` the number of x, of which each has as many words as the outputs, a multiple of eight.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
unsafe fn sum_of_products<const NARROW: bool>(
    m: &Modulus,
    sum: &mut ProductSum<'_>,
    x: &[[&[u64]; 2]],
) {
    let n = sum.out[0].len();
    let (l, unpack, start) = (Lanes::new(m), Unpack::new(m), Sum::start(m));
    let (leave, zero) = (leave(m, &l), _mm256_setzero_pd());
    let outs = sum.out.each_mut().map(|out| out.as_mut_ptr());
    // Both factors are canonical; reduced products are then at most 3/4 of q.
    let chunk = match NARROW {
        true => Sum::most(m, 1),
        false => REDUCED,
    };
    for j in (0..n).step_by(8) {
        let mut values = [[zero; 2]; 2];
        // SAFETY: j + 8 <= n, and the caller's promise: a y with runs has n words, or one for each run of a power
        // of two of at least eight.
        unsafe {
            let mut left = (x, sum.factors);
            while !left.0.is_empty() {
                let (x, factors) = take(&mut left, chunk);
                let mut sums = four(start, &values);
                for (x, factor) in x.iter().zip(factors) {
                    unpack.fetch(factor.ahead, j);
                    let values_of = match factor.y {
                        Values::Zero => continue,
                        Values::Packed(y) => unpack.eight::<NARROW>(y, j),
                        Values::Runs(y) if y.len() < n => {
                            let run = n.trailing_zeros() - y.len().trailing_zeros();
                            let y = (*y.as_ptr().add(j >> run)).cast_signed();
                            [_mm256_set1_epi64x(y); 2]
                        }
                        Values::Runs(y) => {
                            [load(y.as_ptr().add(j)), load(y.as_ptr().add(j + LANES))]
                        }
                    };
                    // Written out: with an index that is no constant the sums leave registers.
                    macro_rules! add {
                        ($($k:literal)*) => { $(
                            let y = l.double(values_of[$k]);
                            for part in 0..2 {
                                let x = l.double(load(x[part].as_ptr().add(j + $k * LANES)));
                                add_product::<NARROW>(&l, &mut sums[part][$k], x, y);
                            }
                        )* };
                    }
                    add!(0 1);
                }
                reduced(&l, start, &sums, &mut values);
            }
            for ((values, out), fresh) in values.into_iter().zip(outs).zip(sum.fresh) {
                for (k, value) in values.into_iter().enumerate() {
                    let value = l.canonical(l.times(value, leave));
                    let at = out.add(j + k * LANES);
                    store(at, if fresh { value } else { l.add(load(at), value) });
                }
            }
        }
    }
}
