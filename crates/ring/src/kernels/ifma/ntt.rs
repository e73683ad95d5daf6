//! Forward and inverse NTT.
//!
//! Stages are done two or three at a time in registers. A polynomial longer than 4096 words first
//! goes through *top* passes over all of it; then each block of 4096 words finishes in L1 (*low*).
//! The last six stages work on 64 words in eight registers, transposed for the last three.

use std::arch::x86_64::*;

use super::{LANES, Lanes, load, reduce_once, splat, store};
use crate::kernels::{LOW_LOG, scalar};
use crate::ntt::{InverseScale, NttTable, Twiddles};

/// Below this degree the scalar code runs.
pub(super) const MIN_LOG: u32 = 7;

/// How `stages` stages are cut into passes of at most three.
fn passes(stages: u32) -> &'static [u32] {
    match stages {
        0 => &[],
        1 => &[1],
        2 => &[2],
        3 => &[3],
        4 => &[2, 2],
        5 => &[3, 2],
        _ => &[3, 3],
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn forward(t: &NttTable, x: &mut [u64]) {
    if t.log_n < MIN_LOG || x.len() != 1 << t.log_n {
        return scalar::forward(t, x);
    }
    forward_passes(t, x, t.log_n.saturating_sub(LOW_LOG), 1);
    for (b, block) in x.chunks_exact_mut(1 << LOW_LOG.min(t.log_n)).enumerate() {
        forward_low(t, block, b, &[]);
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn forward_low(t: &NttTable, x: &mut [u64], block: usize, ahead: &[&[u64]]) {
    let len_log = LOW_LOG.min(t.log_n);
    if t.log_n < MIN_LOG || x.len() != 1 << len_log || block >> (t.log_n - len_log) != 0 {
        return scalar::forward_low(t, x, block, ahead);
    }
    let index = (1 << (t.log_n - len_log)) + block;
    forward_passes(t, x, len_log - 6, index);
    let first = (1 << (t.log_n - 6)) + (block << (len_log - 6));
    if small(t) {
        forward_tail::<true>(t, x, first, ahead);
    } else {
        forward_tail::<false>(t, x, first, ahead);
    }
}

/// Whether the modulus leaves room to skip the reductions between stages: values grow by 2q per
/// stage and must stay below 2^52.
#[inline]
fn small(t: &NttTable) -> bool {
    t.modulus.bits() <= 46
}

/// The last six stages, on 64 words at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn forward_tail<const SMALL: bool>(t: &NttTable, x: &mut [u64], first: usize, ahead: &[&[u64]]) {
    let lanes = Lanes::new(&t.modulus);
    let one = splat(t.modulus.shoup(1));
    let steps = (x.len() / 64).max(1);
    for (i, words) in x.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        prefetch_tail(&t.forward, first + i + TWIDDLES_AHEAD);
        for run in ahead {
            // This step's share, line by line.
            let share = run.len().div_ceil(steps).next_multiple_of(LANES);
            if let Some(next) = run.get(share * i..(share * (i + 1)).min(run.len())) {
                for line in next.chunks(LANES) {
                    _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
                }
            }
        }
        let mut v = load_64(words);
        forward_layers::<3, SMALL>(&lanes, &mut v, &broadcast::<3>(&t.forward, first + i));
        let mut v = transpose(&v);
        forward_layers::<3, SMALL>(&lanes, &mut v, &tail_twiddles(&t.forward, first + i));
        for r in &mut v {
            *r = if SMALL {
                lanes.shoup_lazy(*r, one.0, one.1)
            } else {
                reduce_once(*r, lanes.q2)
            };
            *r = reduce_once(*r, lanes.q);
        }
        store_64(words, &transpose(&v));
    }
}

/// The next `stages` stages of a block with twiddle index `index` (blocks so far, plus its number).
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn forward_passes(t: &NttTable, x: &mut [u64], stages: u32, index: usize) {
    let len = x.len();
    let to = Target {
        words: x.as_mut_ptr(),
        row: len,
        columns: len,
    };
    // SAFETY: the destination is `x` itself, row by row.
    unsafe { forward_passes_to(t, x, stages, index, to) };
}

/// Where the last pass writes: word `i` goes to `words + i / columns * row + i % columns`.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) words: *mut u64,
    pub(super) row: usize,
    pub(super) columns: usize,
}

/// As `forward_passes`; the last pass writes elsewhere.
///
/// # Safety
/// `to` names writable words for every word of `x`, apart from `x` or `x` itself; the stages leave
/// blocks that are multiples of `to.columns` long and `to.columns` is a multiple of 8, or `to` is
/// `x` itself.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) unsafe fn forward_passes_to(
    t: &NttTable,
    x: &mut [u64],
    stages: u32,
    index: usize,
    to: Target,
) {
    let l = Lanes::new(&t.modulus);
    let (mut index, mut len) = (index, x.len());
    let plan = passes(stages);
    for (number, &r) in plan.iter().enumerate() {
        for (i, block) in x.chunks_exact_mut(len).enumerate() {
            let stride = len >> r;
            let p = block.as_mut_ptr();
            let (p, out) = if number + 1 == plan.len() && to.columns < len {
                let out = to.words.wrapping_add(i * len / to.columns * to.row);
                (p, (out, stride / to.columns * to.row))
            } else {
                (p, (p, stride))
            };
            // SAFETY: a block has 2^r runs of `stride` words; the destination likewise, by the
            // caller's promise (after the last pass each run is one row of it).
            unsafe {
                match (r, small(t)) {
                    (1, true) => {
                        forward_pass::<1, true>(&l, &t.forward, p, out, (stride, index + i))
                    }
                    (2, true) => {
                        forward_pass::<2, true>(&l, &t.forward, p, out, (stride, index + i))
                    }
                    (_, true) => {
                        forward_pass::<3, true>(&l, &t.forward, p, out, (stride, index + i))
                    }
                    (1, false) => {
                        forward_pass::<1, false>(&l, &t.forward, p, out, (stride, index + i))
                    }
                    (2, false) => {
                        forward_pass::<2, false>(&l, &t.forward, p, out, (stride, index + i))
                    }
                    (_, false) => {
                        forward_pass::<3, false>(&l, &t.forward, p, out, (stride, index + i))
                    }
                }
            }
        }
        index <<= r;
        len >>= r;
    }
}

/// Twiddles of `R` stages of one block, broadcast: entry `2^l - 1 + g` is group `g` of layer `l`.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast<const R: u32>(tw: &Twiddles, index: usize) -> [(__m512i, __m512i); 7] {
    let mut out = [(_mm512_setzero_si512(), _mm512_setzero_si512()); 7];
    for layer in 0..R {
        for g in 0..1usize << layer {
            let at = (index << layer) + g;
            let (w, quot) = (tw.w[at], tw.quot[at]);
            out[(1 << layer) - 1 + g] =
                (_mm512_set1_epi64(w as i64), _mm512_set1_epi64(quot as i64));
        }
    }
    out
}

/// Cooley-Tukey: `(a, b) -> (a + w b, a - w b)`, inputs and outputs below 4q; with `SMALL` outputs
/// are below inputs + 2q.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn butterfly<const SMALL: bool>(
    l: &Lanes,
    a: __m512i,
    b: __m512i,
    (w, quot): (__m512i, __m512i),
) -> (__m512i, __m512i) {
    let u = if SMALL { a } else { reduce_once(a, l.q2) };
    let v = l.shoup_lazy(b, w, quot);
    (
        _mm512_add_epi64(u, v),
        _mm512_sub_epi64(_mm512_add_epi64(u, l.q2), v),
    )
}

/// Gentleman-Sande: `(a, b) -> (a + b, (a - b) w)`, inputs and outputs below 2q.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn inverse_butterfly(
    l: &Lanes,
    a: __m512i,
    b: __m512i,
    (w, quot): (__m512i, __m512i),
) -> (__m512i, __m512i) {
    let sum = reduce_once(_mm512_add_epi64(a, b), l.q2);
    let diff = _mm512_sub_epi64(_mm512_add_epi64(a, l.q2), b);
    (sum, l.shoup_lazy(diff, w, quot))
}

/// `R` layers on registers `v[0 .. 2^R]`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn forward_layers<const R: u32, const SMALL: bool>(
    l: &Lanes,
    v: &mut [__m512i; 8],
    w: &[(__m512i, __m512i); 7],
) {
    for layer in 0..R {
        let half = 1usize << (R - 1 - layer);
        for g in 0..1usize << layer {
            for k in 0..half {
                let (i, j) = (2 * half * g + k, 2 * half * g + k + half);
                (v[i], v[j]) = butterfly::<SMALL>(l, v[i], v[j], w[(1 << layer) - 1 + g]);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn inverse_layers<const R: u32>(l: &Lanes, v: &mut [__m512i; 8], w: &[(__m512i, __m512i); 7]) {
    for layer in (0..R).rev() {
        let half = 1usize << (R - 1 - layer);
        for g in 0..1usize << layer {
            for k in 0..half {
                let (i, j) = (2 * half * g + k, 2 * half * g + k + half);
                (v[i], v[j]) = inverse_butterfly(l, v[i], v[j], w[(1 << layer) - 1 + g]);
            }
        }
    }
}

/// `R` stages of one block: run `k` of `stride` words is at `p + k stride` and goes to
/// `out.0 + k out.1`.
///
/// # Safety
/// `2^R` runs of `stride` words (a multiple of 8) are readable at `p` and writable at `out`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn forward_pass<const R: u32, const SMALL: bool>(
    l: &Lanes,
    tw: &Twiddles,
    p: *const u64,
    out: (*mut u64, usize),
    (stride, index): (usize, usize),
) {
    let w = broadcast::<R>(tw, index);
    let mut j = 0;
    while j + LANES <= stride {
        let mut v = [l.zero; 8];
        // SAFETY: the caller's promise, with j + LANES <= stride and k < 2^R.
        unsafe {
            for (k, v) in v.iter_mut().enumerate().take(1 << R) {
                *v = load(p.add(j + k * stride));
            }
            forward_layers::<R, SMALL>(l, &mut v, &w);
            for (k, &v) in v.iter().enumerate().take(1 << R) {
                store(out.0.add(j + k * out.1), v);
            }
        }
        j += LANES;
    }
}

/// The transpose of an 8x8 block of words.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(r: &[__m512i; 8]) -> [__m512i; 8] {
    let mut a = *r;
    for k in 0..4 {
        a[2 * k] = _mm512_unpacklo_epi64(r[2 * k], r[2 * k + 1]);
        a[2 * k + 1] = _mm512_unpackhi_epi64(r[2 * k], r[2 * k + 1]);
    }
    let mut out = a;
    for odd in 0..2 {
        let (a0, a2, a4, a6) = (a[odd], a[2 + odd], a[4 + odd], a[6 + odd]);
        let even0 = _mm512_shuffle_i64x2::<0x88>(a0, a2);
        let even1 = _mm512_shuffle_i64x2::<0x88>(a4, a6);
        let odd0 = _mm512_shuffle_i64x2::<0xdd>(a0, a2);
        let odd1 = _mm512_shuffle_i64x2::<0xdd>(a4, a6);
        out[odd] = _mm512_shuffle_i64x2::<0x88>(even0, even1);
        out[4 + odd] = _mm512_shuffle_i64x2::<0xdd>(even0, even1);
        out[2 + odd] = _mm512_shuffle_i64x2::<0x88>(odd0, odd1);
        out[6 + odd] = _mm512_shuffle_i64x2::<0xdd>(odd0, odd1);
    }
    out
}

/// How many 64-word blocks ahead the tail's twiddles are fetched.
const TWIDDLES_AHEAD: usize = 3;

/// Fetches what `tail_twiddles` will want; beyond the end nothing.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch_tail(tw: &Twiddles, index: usize) {
    let block = index.wrapping_sub(tw.w.len() / 16);
    if let Some(next) = tw.tail.as_chunks::<96>().0.get(block) {
        for line in next.as_chunks::<LANES>().0 {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
    }
}

/// Vector twiddles of the last three stages of 64-word block `i` (global number).
#[inline]
#[target_feature(enable = "avx512f")]
fn tail_twiddles(tw: &Twiddles, index: usize) -> [(__m512i, __m512i); 7] {
    let mut out = [(_mm512_setzero_si512(), _mm512_setzero_si512()); 7];
    // Blocks of 64 words are numbered from N/64 on.
    let block = index - tw.w.len() / 16;
    let (w, quot) = (
        &tw.w[8 * index..8 * index + 8],
        &tw.quot[8 * index..8 * index + 8],
    );
    let tail = &tw.tail[96 * block..96 * block + 96];
    // SAFETY: the three slices have 8, 8 and 96 words.
    unsafe {
        out[0] = (load(w.as_ptr()), load(quot.as_ptr()));
        let p = tail.as_ptr();
        for c in 0..2 {
            out[1 + c] = (load(p.add(8 * c)), load(p.add(16 + 8 * c)));
        }
        for c in 0..4 {
            out[3 + c] = (load(p.add(32 + 8 * c)), load(p.add(64 + 8 * c)));
        }
    }
    out
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_64(x: &[u64; 64]) -> [__m512i; 8] {
    let mut v = [_mm512_setzero_si512(); 8];
    for (r, words) in v.iter_mut().zip(x.as_chunks::<LANES>().0) {
        // SAFETY: a chunk has eight words.
        *r = unsafe { load(words.as_ptr()) };
    }
    v
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_64(x: &mut [u64; 64], v: &[__m512i; 8]) {
    for (r, words) in v.iter().zip(x.as_chunks_mut::<LANES>().0) {
        // SAFETY: a chunk has eight words.
        unsafe { store(words.as_mut_ptr(), *r) };
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn inverse_low(t: &NttTable, out: &mut [u64], x: &[u64], c: &InverseScale) {
    if t.log_n < MIN_LOG || x.len() != 1 << t.log_n || out.len() != x.len() {
        return scalar::inverse_low(t, out, x, c);
    }
    let len_log = LOW_LOG.min(t.log_n);
    let lanes = Lanes::new(&t.modulus);
    let size = 1usize << len_log;
    for (b, (out, x)) in out
        .chunks_exact_mut(size)
        .zip(x.chunks_exact(size))
        .enumerate()
    {
        let first = (1 << (t.log_n - 6)) + (b << (len_log - 6));
        let pairs = out
            .as_chunks_mut::<64>()
            .0
            .iter_mut()
            .zip(x.as_chunks::<64>().0);
        for (i, (out, words)) in pairs.enumerate() {
            prefetch_tail(&t.inverse, first + i + TWIDDLES_AHEAD);
            let mut v = transpose(&load_64(words));
            inverse_layers::<3>(&lanes, &mut v, &tail_twiddles(&t.inverse, first + i));
            let mut v = transpose(&v);
            inverse_layers::<3>(&lanes, &mut v, &broadcast::<3>(&t.inverse, first + i));
            store_64(out, &v);
        }
        inverse_passes(t, out, len_log - 6, (1 << (t.log_n - len_log)) + b, c);
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn inverse_top(t: &NttTable, tile: &mut [u64], c: &InverseScale) {
    let top = t.log_n.saturating_sub(LOW_LOG);
    if t.log_n < MIN_LOG || !tile.len().is_multiple_of(LANES << top) {
        return scalar::inverse_top(t, tile, c);
    }
    inverse_passes(t, tile, top, 1, c);
}

/// The `stages` stages before block `index` is whole.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn inverse_passes(t: &NttTable, x: &mut [u64], stages: u32, index: usize, c: &InverseScale) {
    let lanes = Lanes::new(&t.modulus);
    let (mut index, mut len) = (index << stages, x.len() >> stages);
    for &r in passes(stages).iter().rev() {
        index >>= r;
        len <<= r;
        for (i, block) in x.chunks_exact_mut(len).enumerate() {
            match (r, index) {
                (1, 1) => inverse_pass::<1, true>(&lanes, t, block, 1, c),
                (2, 1) => inverse_pass::<2, true>(&lanes, t, block, 1, c),
                (_, 1) => inverse_pass::<3, true>(&lanes, t, block, 1, c),
                (1, _) => inverse_pass::<1, false>(&lanes, t, block, index + i, c),
                (2, _) => inverse_pass::<2, false>(&lanes, t, block, index + i, c),
                _ => inverse_pass::<3, false>(&lanes, t, block, index + i, c),
            }
        }
    }
}

/// `R` inverse stages; with `LAST` the final one multiplies by `c` and gives canonical values.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn inverse_pass<const R: u32, const LAST: bool>(
    l: &Lanes,
    t: &NttTable,
    x: &mut [u64],
    index: usize,
    c: &InverseScale,
) {
    let mut w = broadcast::<R>(&t.inverse, index);
    let low = splat(c.low);
    if LAST {
        w[0] = splat(c.high);
    }
    let stride = x.len() >> R;
    let p = x.as_mut_ptr();
    let mut j = 0;
    while j + LANES <= stride {
        let mut v = [l.zero; 8];
        // SAFETY: j + LANES <= stride and k < 2^R, so all eight words lie in x.
        unsafe {
            for (k, v) in v.iter_mut().enumerate().take(1 << R) {
                *v = load(p.add(j + k * stride));
            }
            inverse_layers::<R>(l, &mut v, &w);
            if LAST {
                // The low half still lacks the factor that the high half got from its twiddle.
                let half = 1usize << (R - 1);
                for k in 0..half {
                    v[k] = l.shoup(v[k], low.0, low.1);
                    v[k + half] = reduce_once(v[k + half], l.q);
                }
            }
            for (k, &v) in v.iter().enumerate().take(1 << R) {
                store(p.add(j + k * stride), v);
            }
        }
        j += LANES;
    }
}
