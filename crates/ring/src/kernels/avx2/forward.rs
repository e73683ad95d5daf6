//! The forward NTT.
//!
//! Stages are done two at a time in registers. A polynomial longer than 4096 words first goes
//! through its *top* stages, column by column, in a scratch that stays in L1; then each block of
//! 4096 words finishes in L1 (*low*). The last four stages work on 16 words in four registers,
//! transposed for the last two.
//!
//! **Bounds** (units of `q`; see the module above for products). Words enter a transform with at
//! most 2. Primes of at most 48 bits: a stage takes `B` to at most `B + 1/2 + B/32`, so 17 stages
//! take 2 to less than 15, within the 16 that products allow (`16 q * q/2 <= 2^51 q`). Larger
//! primes: only a first pass may have one stage, and reduces what is not multiplied:
//! `1/2+ + 1/2 + 2/8 < 1.3`. A pass of two stages takes values of at most 3 to at most 3: it
//! reduces the first of four, so that after one stage values are at most `1/2+ + 1/2 + 3/8 < 1.4`
//! and (the second and fourth) `3 + 1/2 + 3/8 < 3.9`, within the 4 that products allow; after two
//! stages at most `1.4 + 1/2 + 3.9/8 < 2.4`.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::pointwise::{permute_sub_scaled, sub_from_scaled};
use super::{
    Factor, LANES, Lanes, MIN_LOG, load_group, load_lazy, small, store_bits, store_group, transpose,
};
use crate::kernels::{LOW_LOG, Minuend, Rest, TILE_WORDS, scalar, share_of};
use crate::ntt::{DoubleTwiddles, NttTable, Sixteen};

/// log2 of the words on which the last stages work in registers.
pub(super) const TAIL_LOG: u32 = 4;

/// Groups of 16 words that the tail takes through two stages before the next two.
pub(super) const TAIL_GROUPS: usize = 32;

/// How many groups of 16 words ahead the tail's twiddles are fetched.
const TWIDDLES_AHEAD: usize = 16;

/// How `stages` stages are cut into passes of at most two; only the first may have one stage.
pub(super) fn passes(stages: u32) -> impl DoubleEndedIterator<Item = u32> {
    (0..stages % 2).map(|_| 1).chain((0..stages / 2).map(|_| 2))
}

/// Scratch for a tile.
#[repr(align(64))]
pub(super) struct Scratch(pub(super) MaybeUninit<[u64; TILE_WORDS]>);

/// Rows of words: row `i` begins at `words + i * pitch`.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) words: *mut u64,
    pub(super) pitch: usize,
}

/// Where passes read and write: the first reads `from`, the last writes `to`, all others `via`.
#[derive(Clone, Copy)]
pub(super) struct Route {
    pub(super) from: Rows,
    pub(super) via: Rows,
    pub(super) to: Rows,
    /// Words of a row.
    pub(super) columns: usize,
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn forward(t: &NttTable, x: &mut [u64], ahead: &[u64]) {
    if t.log_n < MIN_LOG || x.len() != 1 << t.log_n {
        return scalar::forward(t, x, ahead);
    }
    if t.log_n <= LOW_LOG {
        return low::<true>(t, x, 0, ahead);
    }
    first_stages(t, x);
    let width = 1 << LOW_LOG;
    let blocks = x.len() / width;
    for (b, block) in x.chunks_exact_mut(width).enumerate() {
        low::<false>(t, block, b, share_of(ahead, b, blocks));
    }
}

/// The stages before blocks of `2^LOW_LOG` words of a longer limb.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn first_stages(t: &NttTable, x: &mut [u64]) {
    let width = 1usize << LOW_LOG;
    let columns = (TILE_WORDS / 2) >> (t.log_n - LOW_LOG);
    let mut scratch = Scratch(MaybeUninit::uninit());
    for start in (0..width).step_by(columns) {
        // SAFETY: start + columns <= width, and x has N / width rows of that many words; the
        // scratch has N / width rows of `columns` words, which is a multiple of 4.
        unsafe {
            let outside = Rows {
                words: x.as_mut_ptr().add(start),
                pitch: width,
            };
            let via = Rows {
                words: scratch.0.as_mut_ptr().cast(),
                pitch: columns,
            };
            let route = Route {
                from: outside,
                via,
                to: outside,
                columns,
            };
            forward_top::<true>(t, route);
        }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn forward_low(t: &NttTable, x: &mut [u64], block: usize, ahead: &[u64]) {
    if t.log_n < MIN_LOG {
        return scalar::forward_low(t, x, block, ahead);
    }
    low::<false>(t, x, block, ahead);
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn divide_low(
    t: &NttTable,
    x: &mut [u64],
    block: usize,
    ahead: &[u64],
    from: &Minuend<'_>,
) {
    forward_low(t, x, block, ahead);
    match from.order {
        Some(order) => permute_sub_scaled(&t.modulus, x, (from.x, order), from.factor),
        None => sub_from_scaled(&t.modulus, x, from.x, from.factor),
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn divide_rest(
    t: &NttTable,
    out: &mut [u64],
    work: &mut [u64],
    rest: &Rest<'_>,
    from: &Minuend<'_>,
) {
    let n = 1 << t.log_n;
    let long = [out.len(), rest.words.len(), from.x.len()] == [n; 3];
    if t.log_n <= LOW_LOG || !long || from.order.is_some() {
        return scalar::divide_rest(t, out, work, rest, from);
    }
    scalar::centre(&t.modulus, out, rest);
    first_stages(t, out);
    let width = 1 << LOW_LOG;
    let blocks = out.chunks_exact_mut(width).zip(from.x.chunks_exact(width));
    for (b, (out, x)) in blocks.enumerate() {
        let next = from.x.get((b + 1) * width..(b + 2) * width).unwrap_or(&[]);
        divide_low(t, out, b, next, &Minuend { x, ..*from });
    }
}

/// Not past the caches: there is no kernel that reads and writes words in different places.
#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn divide_converted(
    t: &NttTable,
    out: &mut [u64],
    work: &mut [u64],
    from: &Minuend<'_>,
) {
    if out.len() != work.len() || from.x.len() != out.len() {
        return;
    }
    out.copy_from_slice(work);
    let width = 1 << LOW_LOG.min(t.log_n);
    let blocks = out.chunks_exact_mut(width).zip(from.x.chunks_exact(width));
    for (b, (out, x)) in blocks.enumerate() {
        divide_low(t, out, b, &[], &Minuend { x, ..*from });
    }
}

/// The stages above blocks of `2^LOW_LOG` words; `INT` as for [`load_lazy`].
///
/// # Safety
/// All rows of the route, `2^(log_n - LOW_LOG)` of them, are readable and writable, and its
/// columns are a multiple of 4.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn forward_top<const INT: bool>(t: &NttTable, route: Route) {
    // SAFETY: the caller's promise.
    unsafe {
        if small(t) {
            forward_passes::<true, INT>(t, route, t.log_n - LOW_LOG, 1);
        } else {
            forward_passes::<false, INT>(t, route, t.log_n - LOW_LOG, 1);
        }
    }
}

/// The last stages on one block; `INT` as for [`load_lazy`].
#[inline]
#[target_feature(enable = "avx2,fma")]
fn low<const INT: bool>(t: &NttTable, x: &mut [u64], block: usize, ahead: &[u64]) {
    let len_log = LOW_LOG.min(t.log_n);
    let fits = x.len() == 1 << len_log && block >> (t.log_n - len_log) == 0;
    debug_assert!(fits, "block {block} of {} words", x.len());
    if !fits {
        return;
    }
    let rows = Rows {
        words: x.as_mut_ptr(),
        pitch: 1 << TAIL_LOG,
    };
    let route = Route {
        from: rows,
        via: rows,
        to: rows,
        columns: 1 << TAIL_LOG,
    };
    let (stages, index) = (len_log - TAIL_LOG, (1 << (t.log_n - len_log)) + block);
    let first = block << (len_log - TAIL_LOG);
    // SAFETY: x has 2^stages rows of 16 words.
    unsafe {
        if small(t) {
            forward_passes::<true, INT>(t, route, stages, index);
            tail::<true>(t, x, first, ahead);
        } else {
            forward_passes::<false, INT>(t, route, stages, index);
            tail::<false>(t, x, first, ahead);
        }
    }
}

/// The next `stages` stages of `2^stages` rows which are a block with twiddle index `index`
/// (blocks so far, plus its number).
///
/// # Safety
/// All rows of the route are readable and writable, and its columns are a multiple of 4.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn forward_passes<const SMALL: bool, const INT: bool>(
    t: &NttTable,
    route: Route,
    stages: u32,
    index: usize,
) {
    let l = Lanes::new(&t.modulus);
    let tw = t.forward.doubles(&t.modulus);
    let mut done = 0;
    for r in passes(stages) {
        let mut pass = Pass {
            from: if done == 0 { route.from } else { route.via },
            to: if done + r == stages {
                route.to
            } else {
                route.via
            },
            blocks: 1 << done,
            index: index << done,
            span: 1 << (stages - done - r),
            columns: route.columns,
        };
        pass.join_rows();
        // SAFETY: blocks * 2^r * span is the number of rows.
        unsafe {
            match (r, INT && done == 0) {
                (1, true) => forward_pass::<1, SMALL, true>(&l, tw, pass),
                (_, true) => forward_pass::<2, SMALL, true>(&l, tw, pass),
                (1, false) => forward_pass::<1, SMALL, false>(&l, tw, pass),
                (_, false) => forward_pass::<2, SMALL, false>(&l, tw, pass),
            }
        }
        done += r;
    }
}

/// One or two stages of `blocks` blocks, each of 2 or 4 runs of `span` rows.
#[derive(Clone, Copy)]
struct Pass {
    from: Rows,
    to: Rows,
    blocks: usize,
    index: usize,
    span: usize,
    columns: usize,
}

impl Pass {
    /// Rows that follow one another in memory become one.
    fn join_rows(&mut self) {
        if self.from.pitch == self.columns && self.to.pitch == self.columns {
            self.columns *= self.span;
            self.from.pitch = self.columns;
            self.to.pitch = self.columns;
            self.span = 1;
        }
    }
}

/// # Safety
/// `p.blocks * 2^R * p.span` rows of `p.columns` words, a multiple of 4, are readable and writable.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn forward_pass<const R: u32, const SMALL: bool, const INT: bool>(
    l: &Lanes,
    tw: &DoubleTwiddles,
    p: Pass,
) {
    for block in 0..p.blocks {
        let w = broadcast::<R>(l, tw, p.index + block);
        for k in 0..p.span {
            let row = (block << R) * p.span + k;
            for j in (0..p.columns).step_by(LANES) {
                let mut v = [_mm256_setzero_pd(); 4];
                // SAFETY: rows row + r * span of this block, r < 2^R, and columns j to j + 3.
                unsafe {
                    for (r, v) in v.iter_mut().enumerate().take(1 << R) {
                        let at = (row + r * p.span) * p.from.pitch + j;
                        *v = load_lazy::<INT>(l, p.from.words.add(at));
                    }
                    layers::<R, SMALL>(l, &mut v, &w);
                    for (r, &v) in v.iter().enumerate().take(1 << R) {
                        let at = (row + r * p.span) * p.to.pitch + j;
                        store_bits(p.to.words.add(at), v);
                    }
                }
            }
        }
    }
}

/// Twiddles of `R` stages of one block: of its first stage, then of the two blocks of its second.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn broadcast<const R: u32>(l: &Lanes, tw: &DoubleTwiddles, index: usize) -> [Factor; 3] {
    let one = |i: usize| l.factor(_mm256_set1_pd(tw.front[i]));
    if R == 1 {
        [one(index); 3]
    } else {
        [one(index), one(2 * index), one(2 * index + 1)]
    }
}

/// Cooley-Tukey: `(a, b) -> (a + w b, a - w b)`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn butterfly(l: &Lanes, a: __m256d, b: __m256d, w: Factor) -> (__m256d, __m256d) {
    let p = l.times(b, w);
    (_mm256_add_pd(a, p), _mm256_sub_pd(a, p))
}

/// `R` stages on registers `v[0 .. 2^R]`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn layers<const R: u32, const SMALL: bool>(l: &Lanes, v: &mut [__m256d; 4], w: &[Factor; 3]) {
    if !SMALL {
        v[0] = l.reduce(v[0]);
    }
    if R == 1 {
        (v[0], v[1]) = butterfly(l, v[0], v[1], w[0]);
    } else {
        (v[0], v[2]) = butterfly(l, v[0], v[2], w[0]);
        (v[1], v[3]) = butterfly(l, v[1], v[3], w[0]);
        (v[0], v[1]) = butterfly(l, v[0], v[1], w[1]);
        (v[2], v[3]) = butterfly(l, v[2], v[3], w[2]);
    }
}

/// The last four stages, two and two, on 16 words at a time; canonical words come out.
///
/// Each pair has a loop of its own over some groups: in one loop the chain of dependent operations
/// would be longer than what a processor looks ahead.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tail<const SMALL: bool>(t: &NttTable, x: &mut [u64], first: usize, ahead: &[u64]) {
    let l = Lanes::new(&t.modulus);
    let Some(twiddles) = t.forward.doubles(&t.modulus).tail.get(first..) else {
        return;
    };
    let groups = x.as_chunks_mut::<16>().0;
    let share = ahead.len().div_ceil(groups.len().max(1));
    let share = share.next_multiple_of(8);
    let parts = groups
        .chunks_mut(TAIL_GROUPS)
        .zip(twiddles.chunks(TAIL_GROUPS));
    let mut step = 0;
    for (groups, twiddles) in parts {
        for (words, tw) in groups.iter_mut().zip(twiddles) {
            // This step's share, line by line.
            if let Some(next) = ahead.get(share * step..(share * (step + 1)).min(ahead.len())) {
                for line in next.chunks(8) {
                    _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
                }
            }
            step += 1;
            prefetch_group(tw);
            let mut v = load_group(words);
            layers::<2, SMALL>(&l, &mut v, &outer(&l, tw));
            store_group(words, &v.map(|v| _mm256_castpd_si256(v)));
        }
        for (words, tw) in groups.iter_mut().zip(twiddles) {
            let mut v = transpose(&load_group(words));
            layers::<2, SMALL>(&l, &mut v, &inner(&l, tw));
            let v = transpose(&v).map(|v| l.canonical(l.reduce(v)));
            store_group(words, &v);
        }
    }
}

/// Fetches the twiddles of a group of 16 words to come.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn prefetch_group(now: &Sixteen) {
    let next = std::ptr::from_ref(now).wrapping_add(TWIDDLES_AHEAD);
    _mm_prefetch::<_MM_HINT_T0>(next.cast());
    _mm_prefetch::<_MM_HINT_T0>(next.cast::<i8>().wrapping_add(64));
}

/// Twiddles of the first two of the last four stages.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn outer(l: &Lanes, tw: &Sixteen) -> [Factor; 3] {
    [0, 1, 2].map(|i| l.factor(_mm256_set1_pd(tw.outer[i])))
}

/// Twiddles of the last two stages, a block in each lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn inner(l: &Lanes, tw: &Sixteen) -> [Factor; 3] {
    // SAFETY: four doubles each.
    [&tw.pairs, &tw.even, &tw.odd].map(|w| l.factor(unsafe { _mm256_loadu_pd(w.as_ptr()) }))
}
