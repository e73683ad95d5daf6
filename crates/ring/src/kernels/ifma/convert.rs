//! Base conversion.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::forward::{Target, first_passes};
use super::{LANES, Lanes, MIN_LOG, fetch_to_write, load, montgomery, reduce_steps, store};
use crate::kernels::scalar::{self, steps_for};
use crate::kernels::{ConvRow, ConvSource, Fraction, LOW_LOG, TILE_WORDS, Tile};
use crate::modulus::Modulus;
use crate::ntt::NttTable;

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
/// `2^LAZY q` (0: canonical). Meanwhile the words that `soon` names for those of this call are
/// fetched to be written.
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
    (first, soon): (usize, Target),
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
            // Columns are a multiple of the step: its words go to one row.
            let to_write = soon.at(j);
            for k in 0..WIDE {
                fetch_to_write(to_write.wrapping_add(k * LANES));
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
            let soon = Target {
                words: part.as_mut_ptr(),
                row: columns,
                columns,
            };
            // SAFETY: the lengths were checked above.
            unsafe {
                if top {
                    convert_from::<2>(&t.modulus, part, source, row, (r * columns, soon));
                } else {
                    convert_from::<0>(&t.modulus, part, source, row, (r * columns, soon));
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
        let to = Target {
            words: out.as_mut_ptr().add(tile.start),
            row: width,
            columns,
        };
        convert_from::<2>(&t.modulus, words, source, row, (0, to));
        first_passes(t, words, to);
    }
}

#[repr(align(64))]
struct Scratch(MaybeUninit<[u64; TILE_WORDS]>);
