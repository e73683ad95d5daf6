//! Base conversion and inner products: sums of products.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::forward::{Route, Rows, Scratch, forward_top};
use super::packed::Unpack;
use super::pointwise::{leave, splat};
use super::{LANES, Lanes, MIN_LOG, ROUND, centred, load, load_lazy, store, store_bits};
use crate::kernels::{
    ConvRow, ConvSource, Converted, Extra, Fraction, KEY_AHEAD, KeyRows, Layout, ProductSum,
    TILE_WORDS, Tile, Values, packed_stride, scalar, whole,
};
use crate::modulus::Modulus;

/// The quotients need `floor(a b / 2^52)` for `a = y 2^shift` and `b`, both below 2^52. The product
/// `y * (b 2^(shift - 52))` is rounded to an integer by adding 2^52, and the sign of what was
/// rounded away, which a multiply-add gives, tells whether that is one too many.
#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn quotient(v: &mut [u8], ys: &[u64], fractions: &[Fraction]) {
    let n = v.len();
    if fractions.len() < 2 || !n.is_multiple_of(LANES) || ys.len() < n * fractions.len() {
        return scalar::quotient(v, ys, fractions);
    }
    let (round, unit) = (_mm256_set1_pd(ROUND), _mm256_set1_pd((1u64 << 52) as f64));
    let (round_bits, unit_bits) = (_mm256_castpd_si256(round), _mm256_castpd_si256(unit));
    let bias = _mm256_set1_epi64x((1 << 50) + fractions.len() as i64);
    for (block, out) in v.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let mut sum = bias;
        for (i, f) in fractions.iter().enumerate() {
            // SAFETY: ys has n words for each fraction.
            let y = unsafe { load(ys.as_ptr().add(i * n + block * LANES)) };
            let y = _mm256_castsi256_pd(_mm256_add_epi64(y, round_bits));
            let y = _mm256_sub_pd(y, round);
            // Exact: `inverse` has at most 52 bits, and the rest is a power of two.
            let inverse = f.inverse as f64 / (1u64 << (52 - f.shift)) as f64;
            let inverse = _mm256_set1_pd(inverse);
            let near = _mm256_fmadd_pd(y, inverse, unit);
            let rest = _mm256_fmsub_pd(y, inverse, _mm256_sub_pd(near, unit));
            let above = _mm256_srli_epi64::<63>(_mm256_castpd_si256(rest));
            let near = _mm256_sub_epi64(_mm256_castpd_si256(near), unit_bits);
            sum = _mm256_add_epi64(sum, _mm256_sub_epi64(near, above));
        }
        let mut words = [0; LANES];
        // SAFETY: four words.
        unsafe { store(words.as_mut_ptr(), _mm256_srli_epi64::<51>(sum)) };
        *out = words.map(|w| w as u8);
    }
}

/// Source primes whose products are summed before a reduction.
const CHUNK: usize = 7;

/// Vectors that a conversion works on at a time: independent sums fill the latency of a
/// multiply-add.
const WIDE: usize = 4;

/// The products of one chunk of source primes.
struct Chunk<'a> {
    /// Words of the tile, per source prime of the chunk.
    ys: &'a [u64],
    /// Words from one source prime to the next.
    stride: usize,
    weights: &'a [f64],
    /// Whether sums begin here (with the quotients' part) or go on from what is in `out`.
    first: bool,
    /// Quotients, and what they are multiplied by.
    v: &'a [u8],
    minus_d: f64,
    /// Added to every sum, at most `p / 2` in absolute value.
    shift: f64,
    /// Words to fetch into the cache meanwhile.
    ahead: &'a [u64],
}

/// Adds the products of a chunk: `out` gets lazy words of less than `p`, or canonical ones.
///
/// Words `y` of source primes enter as `y - 2^49`, which halves them; `shift` makes up for that.
/// With `|w| <= p/2` a product is at most `2^48 p`. The products are summed by multiply-adds into
/// `sum`, which stays in `[2^e, 2^(e+1))` with `e = bits(p) + 52`: seven products and one with a
/// quotient are less than `2^51 p < 2^(e-1)`, and `sum` begins at `1.5 * 2^e`. There doubles are
/// the multiples of `2^bits(p)`, so the difference of `sum` before and after is exact, and what it
/// lacks of the product is an integer of at most half of that, which a multiply-add gives exactly.
/// These remainders are summed in `rest`: eight of them and `shift`, or seven, `shift` and what is
/// in `out`, are at most `9 p` and below `5 * 2^50`. [`Lanes::reduce_pair`] takes both: what `sum`
/// grew by is at most `(7 * 2^48 + 2^8) p`, less than `7/8 * 2^51 p` and a little.
///
/// # Safety
/// `out.len()` is a multiple of 16; `c.v` has at least that many elements, `c.ys` that many from
/// `c.stride * i` on for every weight `i`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn convert_chunk<const CANONICAL: bool>(m: &Modulus, out: &mut [u64], c: &Chunk<'_>) {
    let l = Lanes::new(m);
    let start = _mm256_set1_pd(1.5 * 2f64.powi(m.bits() as i32 + 52));
    let half = _mm256_set1_epi64x(1 << 49);
    let minus_d = _mm256_set1_pd(c.minus_d);
    let shift = _mm256_set1_pd(c.shift);
    // Lines of `ahead` per step, so that the steps of this call cover it.
    let steps = (out.len() / (WIDE * LANES)).max(1);
    let lines = c.ahead.len().div_ceil(8).div_ceil(steps);
    let mut ahead = c.ahead.as_ptr();
    for j in (0..out.len()).step_by(WIDE * LANES) {
        // SAFETY: the caller's promise.
        unsafe {
            let p = out.as_mut_ptr().add(j);
            for _ in 0..lines {
                _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                ahead = ahead.wrapping_add(8);
            }
            let (mut sum, mut rest) = ([start; WIDE], [shift; WIDE]);
            if !c.first {
                for (k, rest) in rest.iter_mut().enumerate() {
                    *rest = _mm256_add_pd(*rest, load_lazy::<false>(&l, p.add(k * LANES)));
                }
            }
            let mut add = |k: usize, y: __m256d, w: __m256d| {
                let before = sum[k];
                sum[k] = _mm256_fmadd_pd(y, w, before);
                let added = _mm256_sub_pd(sum[k], before);
                rest[k] = _mm256_add_pd(rest[k], _mm256_fmsub_pd(y, w, added));
            };
            if c.first {
                for k in 0..WIDE {
                    let v = c.v.as_ptr().add(j + k * LANES).cast::<i32>();
                    let v = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(v.read_unaligned()));
                    add(k, l.double(v), minus_d);
                }
            }
            let mut y = c.ys.as_ptr().add(j);
            for &w in c.weights {
                let w = _mm256_set1_pd(w);
                for k in 0..WIDE {
                    let y = _mm256_sub_epi64(load(y.add(k * LANES)), half);
                    add(k, l.double(y), w);
                }
                y = y.wrapping_add(c.stride);
            }
            for k in 0..WIDE {
                let x = l.reduce_pair(_mm256_sub_pd(sum[k], start), rest[k]);
                if CANONICAL {
                    store(p.add(k * LANES), l.canonical(x));
                } else {
                    store_bits(p.add(k * LANES), x);
                }
            }
        }
    }
}

/// The conversion of `out.len()` consecutive words of a tile from `first` on.
///
/// # Safety
/// `out.len()` is a multiple of 16; `source.v` has at least `first + out.len()` elements and
/// `source.ys` that of `source.v` for each weight.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn convert_from<const CANONICAL: bool>(
    m: &Modulus,
    out: &mut [u64],
    source: &ConvSource<'_>,
    (row, ahead): (&ConvRow, &[u64]),
    first: usize,
) {
    let stride = source.v.len();
    let last = row.weights.len().div_ceil(CHUNK).max(1) - 1;
    for number in 0..=last {
        let from = number * CHUNK;
        let count = row.weights.len().min(from + CHUNK) - from;
        let mut weights = [0.0; CHUNK];
        let mut sum = 0;
        for (out, &w) in weights.iter_mut().zip(&row.weights[from..from + count]) {
            let w = m.leave_mont(w);
            sum = m.add(sum, w);
            *out = centred(m, w);
        }
        let c = Chunk {
            ys: source.ys.get(from * stride + first..).unwrap_or(&[]),
            stride,
            weights: &weights[..count],
            first: number == 0,
            v: &source.v[first..],
            minus_d: centred(m, m.leave_mont(row.minus_d())),
            shift: centred(m, m.mul(sum, m.reduce(1 << 49))),
            ahead: if number == 0 { ahead } else { &[] },
        };
        // SAFETY: the caller's promise.
        unsafe {
            if CANONICAL && number == last {
                convert_chunk::<true>(m, out, &c);
            } else {
                convert_chunk::<false>(m, out, &c);
            }
        }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn convert(targets: &mut [Converted<'_>], source: &ConvSource<'_>) {
    let n = source.v.len();
    let long = targets
        .iter()
        .all(|t| t.out.len() == n && source.ys.len() >= n * t.row.weights.len());
    if !long || !n.is_multiple_of(WIDE * LANES) {
        return scalar::convert(targets, source);
    }
    for t in targets {
        let row = (t.row, t.ahead);
        // SAFETY: the lengths were checked above.
        unsafe { convert_from::<true>(&t.table.modulus, t.out, source, row, 0) };
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn convert_tile(
    targets: &mut [Converted<'_>],
    source: &ConvSource<'_>,
    place: &Tile,
) {
    for target in targets {
        convert_one(target, source, place);
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
fn convert_one(target: &mut Converted<'_>, source: &ConvSource<'_>, place: &Tile) {
    let (t, row) = (target.table, target.row);
    let (tile, top) = (&place.columns, place.top);
    let layout = Layout::of(1 << t.log_n, target.out.len());
    let Some(Layout { rows, width, pitch }) = layout else {
        return scalar::convert_tile(std::slice::from_mut(target), source, place);
    };
    let columns = tile.len();
    let inside = tile.start <= tile.end && tile.end <= width;
    let long =
        source.v.len() == rows * columns && source.ys.len() >= source.v.len() * row.weights.len();
    let fits = columns.is_multiple_of(WIDE * LANES) && rows * columns <= TILE_WORDS;
    let vectors = inside && long && fits;
    debug_assert!(t.log_n < MIN_LOG || vectors, "tile {tile:?} of {layout:?}");
    if t.log_n < MIN_LOG || !vectors {
        return scalar::convert_tile(std::slice::from_mut(target), source, place);
    }
    let row = (row, target.ahead);
    let out = &mut *target.out;
    if rows == 1 || !top {
        for r in 0..rows {
            let part = &mut out[r * pitch + tile.start..r * pitch + tile.end];
            // SAFETY: the lengths were checked above.
            unsafe {
                if top {
                    convert_from::<false>(&t.modulus, part, source, row, r * columns);
                } else {
                    convert_from::<true>(&t.modulus, part, source, row, r * columns);
                }
            }
        }
        return;
    }
    // A compact copy of the tile: dense rows of `out` are 32 KiB apart and would share cache sets.
    let mut scratch = Scratch(MaybeUninit::uninit());
    // SAFETY: words have no invalid values and every one is written by `convert_from` before it is
    // read; rows * columns <= TILE_WORDS was checked, as were the lengths of the source. The last
    // pass writes rows of `columns` words into the rows of `out`, inside it since
    // tile.end <= width and rows * pitch its words.
    unsafe {
        let words =
            std::slice::from_raw_parts_mut(scratch.0.as_mut_ptr().cast::<u64>(), rows * columns);
        convert_from::<false>(&t.modulus, words, source, row, 0);
        let via = Rows {
            words: words.as_mut_ptr(),
            pitch: columns,
        };
        let to = Rows {
            words: out.as_mut_ptr().add(tile.start),
            pitch,
        };
        let route = Route {
            from: via,
            via,
            to,
            columns,
        };
        forward_top::<false>(t, route);
    }
}

/// Products that are summed before a reduction: each is at most `q` (a digit is at most `2q` and
/// a key word `q`, so `1/2 + 2/4`), and with what was there, at most `3/4`, below `8 q <= 2^53`.
const SUM: usize = 6;

/// Tensor products whose first two parts are summed before a reduction: two products each.
const TENSORS: usize = SUM / 2;

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
    let l = Lanes::new(m);
    let leave = leave(m, &l);
    let factor = splat(m, &l, extra.factor);
    let outs = [out0.as_mut_ptr(), out1.as_mut_ptr()];
    let unpack = Unpack::new(m);
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
        // SAFETY: j + 8 <= n; the lengths of digits, rows, extras and outputs were checked, and that
        // words follow the rows which a last load may touch.
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
            for (digits, firsts) in key.digits.chunks(SUM).zip(key.first.chunks(SUM)) {
                for (digit, &first) in digits.iter().zip(firsts) {
                    for k in 0..2 {
                        let x = load_lazy::<true>(&l, digit.as_ptr().add(j + k * LANES));
                        for (part, sum) in sum.iter_mut().enumerate() {
                            let half = (first + part) * unpack.width + k * unpack.width / 2;
                            let product = l.mul(x, l.double(unpack.at(columns.add(half))));
                            sum[k] = _mm256_add_pd(sum[k], product);
                        }
                    }
                }
                for sum in sum.iter_mut().flatten() {
                    *sum = l.reduce(*sum);
                }
            }
            for (sum, out) in sum.iter().zip(outs) {
                let mut words = [0; 8];
                for (k, &sum) in sum.iter().enumerate() {
                    let to = match key.order {
                        None => out.add(j),
                        Some(_) => words.as_mut_ptr(),
                    };
                    store(to.add(k * LANES), l.canonical(l.times(sum, leave)));
                }
                if let Some(order) = key.order {
                    // The mask keeps the block inside the outputs, whose blocks are a power of two.
                    let b = order.blocks[j / 8];
                    let to = ((b >> 3) as usize).wrapping_sub(order.base) & (n / 8 - 1);
                    for (lane, from) in order.lanes[(b & 7) as usize].iter().enumerate() {
                        out.add(8 * to + lane).write(words[(from & 7) as usize]);
                    }
                }
            }
        }
    }
}

/// Each product is of two canonical words, so at most `3/4`: less than the digits' that [`SUM`] is
/// for.
#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn sum_products(
    m: &Modulus,
    sums: &mut [ProductSum<'_>],
    x: &[[&[u64]; 2]],
) {
    let n = sums.first().map_or(0, |s| s.out[0].len());
    let short = x.iter().flatten().any(|x| x.len() < n)
        || sums.iter().any(|s| !s.fits(m, (n, x.len()), LANES));
    if !n.is_multiple_of(8) || short {
        return scalar::sum_products(m, sums, x);
    }
    for sum in sums {
        // SAFETY: the lengths were checked.
        unsafe { sum_of_products(m, sum, x) };
    }
}

/// One of the sums.
///
/// # Safety
/// It `fits` the number of x, of which each has as many words as the outputs, a multiple of eight.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
unsafe fn sum_of_products(m: &Modulus, sum: &mut ProductSum<'_>, x: &[[&[u64]; 2]]) {
    let n = sum.out[0].len();
    let (l, unpack) = (Lanes::new(m), Unpack::new(m));
    let leave = leave(m, &l);
    let outs = sum.out.each_mut().map(|out| out.as_mut_ptr());
    for j in (0..n).step_by(LANES) {
        let mut sums = [_mm256_setzero_pd(); 2];
        // SAFETY: j + 4 <= n, and the caller's promise: a y with runs has n words, or one for each run of a power
        // of two of at least four.
        unsafe {
            for (x, factors) in x.chunks(SUM).zip(sum.factors.chunks(SUM)) {
                for (x, factor) in x.iter().zip(factors) {
                    if j.is_multiple_of(8) {
                        unpack.fetch(factor.ahead, j);
                    }
                    let y = match factor.y {
                        Values::Zero => continue,
                        Values::Packed(y) => unpack.columns(y, j),
                        Values::Runs(y) if y.len() < n => {
                            let run = n.trailing_zeros() - y.len().trailing_zeros();
                            _mm256_set1_epi64x((*y.as_ptr().add(j >> run)).cast_signed())
                        }
                        Values::Runs(y) => load(y.as_ptr().add(j)),
                    };
                    let y = l.double(y);
                    for (sum, x) in sums.iter_mut().zip(x) {
                        let x = l.double(load(x.as_ptr().add(j)));
                        *sum = _mm256_add_pd(*sum, l.mul(x, y));
                    }
                }
                for sum in &mut sums {
                    *sum = l.reduce(*sum);
                }
            }
            for ((value, out), fresh) in sums.into_iter().zip(outs).zip(sum.fresh) {
                let value = l.canonical(l.times(value, leave));
                let at = out.add(j);
                store(at, if fresh { value } else { l.add(load(at), value) });
            }
        }
    }
}
