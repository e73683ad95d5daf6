//! Base conversion: sums of products with constants.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::forward::{Route, Rows, Scratch, forward_top};
use super::sum::Sum;
use super::{LANES, Lanes, MIN_LOG, ROUND, centred, load, load_lazy, store, store_bits};
use crate::kernels::{ConvRow, ConvSource, Converted, Fraction, Layout, TILE_WORDS, Tile, scalar};
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

/// Most source primes whose products are summed before a reduction.
const CHUNK: usize = 32;

/// How many are, of residues below `bound`: products of a residue less half of the bound with a weight of at most
/// `p/2` are at most `bound p / 4`, all of them `7 * 2^48 p`, and with one with a quotient below what a [`Sum`]
/// takes. Their remainders, at most half of `2^bits(p)` each, are with `p` and one more below `6 * 2^50`.
fn chunk_of(m: &Modulus, bound: u64) -> usize {
    let products = (7u64 << 50).checked_div(bound).unwrap_or(0) as usize;
    let remainders = (12 << (50 - m.bits().min(50))) - 3;
    products.min(remainders).clamp(1, CHUNK)
}

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
    /// What is taken from the words.
    half: f64,
    /// What is added to every sum for that: at most `p / 2` in absolute value.
    shift: f64,
    /// Words to fetch into the cache meanwhile.
    ahead: &'a [u64],
}

/// Adds the products of a chunk, which [`chunk_of`] bounds: `out` gets lazy words of less than `p`, or canonical
/// ones. Words of source primes enter less half of their bound, which halves products; `shift` makes up for that.
///
/// # Safety
/// `out.len()` is a multiple of 16; `c.v` has at least that many elements, `c.ys` that many from
/// `c.stride * i` on for every weight `i`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn convert_chunk<const CANONICAL: bool>(m: &Modulus, out: &mut [u64], c: &Chunk<'_>) {
    let l = Lanes::new(m);
    let start = Sum::start(m);
    // Exact: a word as a double is found by adding `round` as an integer, and this takes both away.
    let round_and_half = _mm256_add_pd(l.round, _mm256_set1_pd(c.half));
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
            let mut sums = [Sum::new(start, shift); WIDE];
            for (k, sum) in sums.iter_mut().enumerate() {
                if c.first {
                    let v = c.v.as_ptr().add(j + k * LANES).cast::<i32>();
                    let v = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(v.read_unaligned()));
                    sum.add_product(l.double(v), minus_d);
                } else {
                    sum.add(load_lazy::<false>(&l, p.add(k * LANES)));
                }
            }
            let mut y = c.ys.as_ptr().add(j);
            for &w in c.weights {
                let w = _mm256_set1_pd(w);
                for (k, sum) in sums.iter_mut().enumerate() {
                    let y = load(y.add(k * LANES));
                    let y = _mm256_add_epi64(y, _mm256_castpd_si256(l.round));
                    let y = _mm256_sub_pd(_mm256_castsi256_pd(y), round_and_half);
                    sum.add_product(y, w);
                }
                y = y.wrapping_add(c.stride);
            }
            for (k, sum) in sums.iter().enumerate() {
                let x = sum.reduced(&l, start);
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
    let (stride, half) = (source.v.len(), source.bound / 2);
    let chunk = chunk_of(m, source.bound);
    let last = row.weights.len().div_ceil(chunk).max(1) - 1;
    for number in 0..=last {
        let from = number * chunk;
        let count = row.weights.len().min(from + chunk) - from;
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
            half: half as f64,
            shift: centred(m, m.mul(sum, m.reduce(half))),
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
