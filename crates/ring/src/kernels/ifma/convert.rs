//! Base conversion.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::forward::{Target, first_passes};
use super::{
    LANES, Lanes, MIN_LOG, fetch_to_write, load, montgomery, reduce_once, reduce_steps, store,
};
use crate::kernels::scalar;
use crate::kernels::{
    ConvRow, ConvSource, Converted, Fraction, Layout, MULTIPLES, TILE_WORDS, Tile,
};
use crate::modulus::Modulus;

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

/// How many conditional subtractions the reduction of a converted value leaves: its sum is below
/// `(terms bound + 2^8) q`, quotients being bytes.
fn steps_after(m: &Modulus, terms: usize, bound: u64) -> u32 {
    let q = u128::from(m.value());
    let sum = (terms as u128 * u128::from(bound) + 256) * q;
    let most = (sum >> 52) + 1 + q;
    (0..).find(|s| most < q << s).unwrap_or(0)
}

/// Vectors that a conversion works on at a time: enough independent sums to fill the latency of a
/// multiply-add.
const WIDE: usize = 4;

/// Targets that share what is loaded of a source: their sums fill 16 registers.
const SIDE: usize = 2;

/// Some words of a target. Passed by reference: a copy of what was written just before, in wider
/// words, would wait until all stores before it are in the cache.
struct Onto<'a> {
    m: &'a Modulus,
    row: &'a ConvRow,
    words: *mut u64,
    /// The words to be written next, which are fetched meanwhile.
    soon: Target,
    /// Words to be read next.
    ahead: &'a [u64],
}

/// Consecutive words of a source.
struct Words<'a> {
    source: &'a ConvSource<'a>,
    first: usize,
    len: usize,
}

/// What a target's sums are reduced with.
#[derive(Clone, Copy)]
struct Reduction {
    l: Lanes,
    inv: __m512i,
    /// The multiples of `-D`.
    multiples: [__m512i; 2],
}

/// Steps that only a loop can do, or more source primes than there are multiples of `-D` at hand.
const MANY: u32 = 3;

/// The conversion of some words to one target or two, to values below `2^LAZY q` (0: canonical).
///
/// # Safety
/// `from.len` is a multiple of 32; `source.v` has at least `first + len` elements, and `source.ys`
/// that of `source.v` for each weight. All targets have as many weights, and `len` words.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn convert_from<const LAZY: u32, const T: usize>(onto: [&Onto<'_>; T], from: &Words<'_>) {
    let steps = onto.map(|o| steps_after(o.m, o.row.weights.len(), from.source.bound));
    let most = steps.into_iter().max().unwrap_or(0);
    let few = from.source.ys.len() < MULTIPLES * from.source.v.len();
    // SAFETY: the caller's promise.
    unsafe {
        match most {
            _ if !few => sums::<LAZY, MANY, T>(onto, from, most),
            most if most <= LAZY => sums::<LAZY, LAZY, T>(onto, from, most),
            1 => sums::<LAZY, 1, T>(onto, from, most),
            2 => sums::<LAZY, 2, T>(onto, from, most),
            _ => sums::<LAZY, MANY, T>(onto, from, most),
        }
    }
}

/// As `convert_from`, with the number of steps known unless it is `MANY`: a condition in the loop
/// would leave the sums in memory.
///
/// # Safety
/// As for `convert_from`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn sums<const LAZY: u32, const STEPS: u32, const T: usize>(
    onto: [&Onto<'_>; T],
    from: &Words<'_>,
    steps: u32,
) {
    let (source, first, len) = (from.source, from.first, from.len);
    let zero = _mm512_setzero_si512();
    let reductions: [Reduction; T] = onto.map(|o| Reduction {
        l: Lanes::new(o.m),
        inv: _mm512_set1_epi64(o.m.inv52() as i64),
        // SAFETY: 16 words.
        multiples: [0, LANES].map(|i| unsafe { load(o.row.multiples[i..].as_ptr()) }),
    });
    let terms = onto.first().map_or(0, |o| o.row.weights.len());
    let columns = onto.first().map_or(0, |o| o.soon.columns);
    let stride = source.v.len();
    // Words to fetch in each step.
    let share = onto.map(|o| o.ahead.len() / (len / (WIDE * LANES)).max(1));
    let mut ahead = onto.map(|o| o.ahead.as_ptr());
    let (mut soon, mut column) = (onto.map(|o| o.soon.words), 0);
    let mut j = 0;
    while j < len {
        // SAFETY: the caller's promise.
        unsafe {
            for t in 0..T {
                for word in (0..share[t]).step_by(LANES) {
                    _mm_prefetch::<_MM_HINT_T1>(ahead[t].wrapping_add(word).cast());
                }
                ahead[t] = ahead[t].wrapping_add(share[t]);
                // Columns are a multiple of the step: its words go to one row.
                if !onto[t].soon.past {
                    for k in 0..WIDE {
                        fetch_to_write(soon[t].wrapping_add(column + k * LANES));
                    }
                }
            }
            column += WIDE * LANES;
            if column >= columns {
                column = 0;
                for t in 0..T {
                    soon[t] = soon[t].wrapping_add(onto[t].soon.row);
                }
            }
            let (mut lo, mut hi) = ([[zero; WIDE]; T], [[zero; WIDE]; T]);
            for k in 0..WIDE {
                let v = _mm_loadl_epi64(source.v.as_ptr().add(first + j + k * LANES).cast());
                let v = _mm512_cvtepu8_epi64(v);
                for t in 0..T {
                    if STEPS == MANY {
                        let d = _mm512_set1_epi64(onto[t].row.minus_d() as i64);
                        lo[t][k] = _mm512_madd52lo_epu64(zero, v, d);
                        hi[t][k] = _mm512_madd52hi_epu64(zero, v, d);
                    } else {
                        let [a, b] = reductions[t].multiples;
                        lo[t][k] = _mm512_permutex2var_epi64(a, v, b);
                    }
                }
            }
            let mut y = source.ys.as_ptr().add(first + j);
            for i in 0..terms {
                let w = onto.map(|o| _mm512_set1_epi64(*o.row.weights.as_ptr().add(i) as i64));
                for k in 0..WIDE {
                    let y = load(y.add(k * LANES));
                    for t in 0..T {
                        lo[t][k] = _mm512_madd52lo_epu64(lo[t][k], y, w[t]);
                        hi[t][k] = _mm512_madd52hi_epu64(hi[t][k], y, w[t]);
                    }
                }
                y = y.wrapping_add(stride);
            }
            for t in 0..T {
                let r = &reductions[t];
                for k in 0..WIDE {
                    let mut x = montgomery(&r.l, r.inv, lo[t][k], hi[t][k]);
                    if STEPS == MANY {
                        x = reduce_steps::<LAZY>(x, onto[t].m.value(), steps);
                    } else {
                        if STEPS == 2 && LAZY < 2 {
                            x = reduce_once(x, r.l.q2);
                        }
                        if LAZY == 0 {
                            x = reduce_once(x, r.l.q);
                        }
                    }
                    store(onto[t].words.add(j + k * LANES), x);
                }
            }
        }
        j += WIDE * LANES;
    }
}

/// The conversion from one prime: its residue, less the prime where that is the nearer
/// representative. It needs neither a product nor a reduction if the prime is at most `3 q`: the
/// value is below 4q then.
///
/// # Safety
/// As for `convert_from`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn centre<const LAZY: u32>(onto: &Onto<'_>, from: &Words<'_>) {
    let (source, first, len) = (from.source, from.first, from.len);
    let l = Lanes::new(onto.m);
    let minus_d = _mm512_set1_epi64(onto.m.leave_mont(onto.row.minus_d()) as i64);
    for j in (0..len).step_by(LANES) {
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(next) = onto.ahead.get(j..) {
                _mm_prefetch::<_MM_HINT_T1>(next.as_ptr().cast());
            }
            if !onto.soon.past {
                fetch_to_write(onto.soon.at(j));
            }
            let v = _mm_loadl_epi64(source.v.as_ptr().add(first + j).cast());
            let y = load(source.ys.as_ptr().add(first + j));
            let mut x = _mm512_madd52lo_epu64(y, _mm512_cvtepu8_epi64(v), minus_d);
            if LAZY == 0 {
                x = reduce_once(reduce_once(x, l.q2), l.q);
            }
            store(onto.words.add(j), x);
        }
    }
}

/// The same for as many targets as there are: of `onto`, which may be one.
///
/// # Safety
/// As for `convert_from`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn convert_words<const LAZY: u32>(onto: &[Option<Onto<'_>>; SIDE], from: &Words<'_>) {
    let small =
        |o: &Onto<'_>| from.source.bound <= 3 * o.m.value() && o.row.weights == [o.m.to_mont(1)];
    // SAFETY: the caller's promise.
    unsafe {
        match onto {
            [Some(a), Some(b)] if !small(a) => convert_from::<LAZY, 2>([a, b], from),
            _ => {
                for o in onto.iter().flatten() {
                    match small(o) {
                        true => centre::<LAZY>(o, from),
                        false => convert_from::<LAZY, 1>([o], from),
                    }
                }
            }
        }
    }
}

/// Whether all targets have as many weights, and the source has words for them.
fn alike(targets: &[Converted<'_>], source: &ConvSource<'_>) -> bool {
    let words = source.ys.len() / source.v.len().max(1);
    let mut weights = targets.iter().map(|t| t.row.weights.len());
    let first = weights.next().unwrap_or(0);
    first <= words && weights.all(|w| w == first)
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn convert(targets: &mut [Converted<'_>], source: &ConvSource<'_>) {
    let len = source.v.len();
    let long = targets.iter().all(|t| t.out.len() == len);
    if !long || !alike(targets, source) || !len.is_multiple_of(WIDE * LANES) {
        return scalar::convert(targets, source);
    }
    let from = Words {
        source,
        first: 0,
        len,
    };
    let mut left = targets;
    while !left.is_empty() {
        let (now, rest) = left.split_at_mut(SIDE.min(left.len()));
        let onto = std::array::from_fn(|i| {
            let soon = rest
                .get_mut(i)
                .map_or(std::ptr::null_mut(), |t| t.out.as_mut_ptr());
            now.get_mut(i).map(|t| Onto {
                m: &t.table.modulus,
                row: t.row,
                words: t.out.as_mut_ptr(),
                soon: Target {
                    words: soon,
                    row: len,
                    columns: len,
                    past: false,
                },
                ahead: t.ahead,
            })
        });
        // SAFETY: the lengths were checked above.
        unsafe { convert_words::<0>(&onto, &from) };
        left = rest;
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn convert_tile(
    targets: &mut [Converted<'_>],
    source: &ConvSource<'_>,
    place: &Tile,
) {
    let Some(log_n) = targets.first().map(|t| t.table.log_n) else {
        return;
    };
    let (tile, top) = (&place.columns, place.top);
    let words = targets.first().map_or(0, |t| t.out.len());
    let Some(Layout { rows, width, pitch }) = Layout::of(1 << log_n, words) else {
        return scalar::convert_tile(targets, source, place);
    };
    let columns = tile.len();
    let whole = |t: &Converted<'_>| t.out.len() == words && t.table.log_n == log_n;
    let inside = tile.start <= tile.end && tile.end <= width && targets.iter().all(whole);
    let long = source.v.len() == rows * columns && alike(targets, source);
    let fits = columns.is_multiple_of(WIDE * LANES) && rows * columns <= TILE_WORDS;
    if log_n < MIN_LOG || !(inside && long && fits) {
        return scalar::convert_tile(targets, source, place);
    }
    for targets in targets.chunks_mut(SIDE) {
        // Where the columns of a target are.
        let place = |t: &mut Converted<'_>, row: usize| {
            let words = t.out.as_mut_ptr().wrapping_add(row * pitch + tile.start);
            // Rows are whole lines from each other.
            let lines = words.addr().is_multiple_of(64) && pitch.is_multiple_of(LANES);
            Target {
                words,
                row: pitch,
                columns,
                past: rows > 1 && top && t.past && lines,
            }
        };
        if rows == 1 || !top {
            for r in 0..rows {
                let onto = std::array::from_fn(|i| {
                    let t = targets.get_mut(i)?;
                    let soon = place(t, r);
                    Some(Onto {
                        m: &t.table.modulus,
                        row: t.row,
                        words: soon.words,
                        soon,
                        ahead: if r == 0 { t.ahead } else { &[] },
                    })
                });
                let from = Words {
                    source,
                    first: r * columns,
                    len: columns,
                };
                // SAFETY: the lengths were checked above.
                unsafe {
                    if top {
                        convert_words::<2>(&onto, &from);
                    } else {
                        convert_words::<0>(&onto, &from);
                    }
                }
            }
            continue;
        }
        // Compact copies of the tile: dense rows of `out` are 32 KiB apart and would share cache sets.
        let mut scratch = [const { Scratch(MaybeUninit::uninit()) }; SIDE];
        let words: [*mut u64; SIDE] = std::array::from_fn(|i| scratch[i].0.as_mut_ptr().cast());
        let onto = std::array::from_fn(|i| {
            let t = targets.get_mut(i)?;
            let soon = place(t, 0);
            Some(Onto {
                m: &t.table.modulus,
                row: t.row,
                words: words[i],
                soon,
                ahead: t.ahead,
            })
        });
        let len = rows * columns;
        let from = Words {
            source,
            first: 0,
            len,
        };
        // SAFETY: words have no invalid values and every one is written by `convert_words` before it
        // is read; rows * columns <= TILE_WORDS was checked, as were the lengths of the source. The
        // last pass leaves rows of `columns` words and writes them into the rows of `out`, inside it
        // since tile.end <= width and rows * pitch its words.
        unsafe {
            convert_words::<2>(&onto, &from);
            for (words, t) in words.into_iter().zip(targets) {
                let to = place(t, 0);
                first_passes(t.table, std::slice::from_raw_parts_mut(words, len), to);
            }
        }
    }
}

#[repr(align(64))]
struct Scratch(MaybeUninit<[u64; TILE_WORDS]>);
