//! Forward NTT.
//!
//! Stages are done up to four at a time in registers. A polynomial longer than 4096 words first
//! goes through *top* passes over all of it; then each block of 4096 words finishes in L1 (*low*).
//! The last seven stages, the *tail*, take runs of 128 words in registers: three as in a pass, and four inside
//! pairs of vectors, after a twist (see `ntt::words`).
//!
//! **Bounds.** A butterfly gives `a + v` and `a - v` with `v = b w` and needs `0 <= b < 2^52`; every
//! value is some input plus or minus one product per stage.
//!
//! * `WIDE` (up to 46 bits): `0 <= v < 2q`, and words hold values modulo 2^52. The first stage adds
//!   `2 s q` to its `a`, where `s <= 13` is the number of stages before the twist. Inputs are below 4q, so
//!   that values lie between 0 and `(4 + 4 s) q <= 56 q < 2^52` and need no reduction. The twist, a product
//!   below 2q, adds 5q. Of the last four stages `b` is below 7, 9, 10 and 11q, all of which is below 2^50, and
//!   `v` so below `5/4 q`: values lie between 0 and 12q.
//! * `SOME` (47 to 49 bits): `v` is in `(-q, q)`, values are below `8 q <= 2^52`. Each pass, of at most three stages,
//!   brings the `a` of its first stage below 2q and adds 3q: after three stages they are again
//!   between 0 and 8q. The twist adds 4q, good for three stages; the last one brings `a` below 2q
//!   and adds q.
//! * `TIGHT` (50 bits): values are below `4 q <= 2^52`; each stage brings `a` below 2q and adds q.

use std::arch::x86_64::*;

use super::pointwise::lane_orders;
use super::{
    Factor, LANES, Lanes, MIN_LOG, RUN, RUN_LOG, Room, SOME, TIGHT, WIDE, broadcast, factors, load,
    passes, reduce_once, splat, store, store_to, twiddles,
};
use crate::kernels::{LOW_LOG, Minuend, scalar, share_of};
use crate::ntt::{Constant, Constants, NttTable, Sixteenth, WordTwiddles, is_roomy};

/// How much room the modulus leaves.
pub(super) fn room(t: &NttTable) -> Room {
    match t.modulus.bits() {
        _ if is_roomy(&t.modulus) => WIDE,
        ..=49 => SOME,
        _ => TIGHT,
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn forward(t: &NttTable, x: &mut [u64], ahead: &[u64]) {
    if t.log_n < MIN_LOG || x.len() != 1 << t.log_n {
        return scalar::forward(t, x, ahead);
    }
    if t.log_n > LOW_LOG {
        let whole = Target::whole(x);
        // SAFETY: the destination is `x` itself, row by row.
        unsafe { first_passes(t, x, whole) };
    }
    let size = 1 << LOW_LOG.min(t.log_n);
    let blocks = x.len() / size;
    for (b, block) in x.chunks_exact_mut(size).enumerate() {
        forward_low(t, block, b, share_of(ahead, b, blocks));
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn forward_low(t: &NttTable, x: &mut [u64], block: usize, ahead: &[u64]) {
    if !fits(t, x, block) {
        return scalar::forward_low(t, x, block, ahead);
    }
    low(t, x, block, ahead, &Canonical);
}

/// Results of the last stage stay as they are: below 12q if there is room for it, otherwise below 4q.
#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn forward_digits(t: &NttTable, x: &mut [u64], block: usize, ahead: &[u64]) {
    if !fits(t, x, block) {
        return scalar::forward_low(t, x, block, ahead);
    }
    low(t, x, block, ahead, &Lazy);
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn divide_low(
    t: &NttTable,
    x: &mut [u64],
    block: usize,
    ahead: &[u64],
    from: &Minuend<'_>,
) {
    let short = from.x.len() != x.len() || from.order.is_some_and(|o| o.blocks.len() * 8 < x.len());
    if !fits(t, x, block) || short {
        return scalar::divide_low(t, x, block, ahead, from);
    }
    let (w, quot) = splat(from.factor);
    let difference = Difference {
        x: from.x,
        w,
        quot,
        above: _mm512_set1_epi64((above(room(t)) * t.modulus.value()) as i64),
    };
    match from.order {
        None => low(t, x, block, ahead, &difference),
        Some(order) => {
            let permuted = Permuted {
                difference,
                blocks: &order.blocks[..x.len() / LANES],
                base: order.base,
                orders: lane_orders(order),
            };
            low(t, x, block, ahead, &permuted);
        }
    }
}

/// Whether vectors do the last stages on block `block`.
fn fits(t: &NttTable, x: &[u64], block: usize) -> bool {
    let len_log = LOW_LOG.min(t.log_n);
    t.log_n >= MIN_LOG && x.len() == 1 << len_log && block >> (t.log_n - len_log) == 0
}

/// The stages inside a block, and what becomes of their results.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn low<E: End>(t: &NttTable, x: &mut [u64], block: usize, ahead: &[u64], end: &E) {
    let len_log = LOW_LOG.min(t.log_n);
    let index = (1 << (t.log_n - len_log)) + block;
    let whole = Target::whole(x);
    // SAFETY: the destination is `x` itself, row by row.
    unsafe { forward_passes(t, x, len_log - RUN_LOG, index, whole) };
    let run = block << (len_log - RUN_LOG);
    match room(t) {
        WIDE => forward_tail::<WIDE, E>(t, x, run, ahead, end),
        SOME => forward_tail::<SOME, E>(t, x, run, ahead, end),
        _ => forward_tail::<TIGHT, E>(t, x, run, ahead, end),
    }
}

/// What becomes of the results of the last stage.
pub(super) trait End {
    /// Writes what becomes of the result at place `at` (in vectors), which may be to `here`, that place.
    ///
    /// # Safety
    /// The processor has the instructions of this module; the block has more than `at` vectors, and
    /// eight words at `here` are writable.
    unsafe fn end<const ROOM: Room>(&self, s: &Stages, x: __m512i, at: usize, here: *mut u64);
}

/// They are brought below q.
struct Canonical;

impl End for Canonical {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    unsafe fn end<const ROOM: Room>(&self, s: &Stages, x: __m512i, _at: usize, here: *mut u64) {
        // SAFETY: the caller's promise.
        unsafe { store(here, s.canonical::<ROOM>(x)) };
    }
}

/// They stay as they are.
struct Lazy;

impl End for Lazy {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    unsafe fn end<const ROOM: Room>(&self, s: &Stages, x: __m512i, _at: usize, here: *mut u64) {
        let x = match ROOM {
            WIDE => _mm512_and_si512(x, s.l.mask),
            _ => x,
        };
        // SAFETY: the caller's promise.
        unsafe { store(here, x) };
    }
}

/// They are subtracted from values of the same places, and the difference is multiplied.
pub(super) struct Difference<'a> {
    /// As many words as the block.
    pub(super) x: &'a [u64],
    pub(super) w: __m512i,
    pub(super) quot: __m512i,
    /// A multiple of q that is no less than a result.
    pub(super) above: __m512i,
}

impl Difference<'_> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn of<const ROOM: Room>(&self, s: &Stages, a: __m512i, x: __m512i) -> __m512i {
        let x = if ROOM == TIGHT {
            reduce_once(x, s.l.q2)
        } else {
            x
        };
        let a = _mm512_sub_epi64(_mm512_add_epi64(a, self.above), x);
        s.l.shoup(a, self.w, self.quot)
    }
}

impl End for Difference<'_> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    unsafe fn end<const ROOM: Room>(&self, s: &Stages, x: __m512i, at: usize, here: *mut u64) {
        // SAFETY: the caller's promise; `self.x` has as many words as the block.
        unsafe {
            let a = load(self.x.as_ptr().add(at * LANES));
            // The next block of a limb follows, and is divided next.
            let next = self.x.as_ptr().wrapping_add(self.x.len() + at * LANES);
            _mm_prefetch::<_MM_HINT_T1>(next.cast());
            store(here, self.of::<ROOM>(s, a, x));
        }
    }
}

/// The same with values of other places.
struct Permuted<'a> {
    difference: Difference<'a>,
    /// One for each vector of the block, a power of two of them.
    blocks: &'a [u32],
    base: usize,
    orders: [__m512i; 8],
}

impl End for Permuted<'_> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    unsafe fn end<const ROOM: Room>(&self, s: &Stages, x: __m512i, at: usize, here: *mut u64) {
        // SAFETY: the caller's promise; there is an entry of `blocks` for each vector, and the mask
        // keeps the source inside the block, whose words are as many as those of `difference.x`.
        unsafe {
            let b = *self.blocks.get_unchecked(at);
            let source = ((b >> 3) as usize).wrapping_sub(self.base) & (self.blocks.len() - 1);
            let a = load(self.difference.x.as_ptr().add(source * LANES));
            let a = _mm512_permutexvar_epi64(self.orders[(b & 7) as usize], a);
            store(here, self.difference.of::<ROOM>(s, a, x));
        }
    }
}

/// How many q are no less than a result of the last stage (`TIGHT`: one brought below 2q).
pub(super) fn above(room: Room) -> u64 {
    match room {
        WIDE => 12,
        SOME => 4,
        _ => 2,
    }
}

/// How many runs before its use a twist is fetched: those take about as long as memory does.
const TWISTS_AHEAD: usize = 8;

/// The last seven stages, on runs of 128 words of which `run` is the first.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn forward_tail<const ROOM: Room, E: End>(
    t: &NttTable,
    x: &mut [u64],
    run: usize,
    ahead: &[u64],
    end: &E,
) {
    let s = Stages::new(t);
    let tw = t.forward.words(&t.modulus);
    let steps = (x.len() / RUN).max(1);
    let Some(twists) = tw.twists.get(run..run + steps) else {
        return;
    };
    // The twiddles' index of the first run.
    let first = (1 << (t.log_n - RUN_LOG)) + run;
    let share = ahead.len().div_ceil(steps).next_multiple_of(LANES);
    let runs = x.as_chunks_mut::<RUN>().0.iter_mut().zip(twists);
    for (i, (words, twist)) in runs.enumerate() {
        // This step's share, line by line.
        if let Some(next) = ahead.get(share * i..(share * (i + 1)).min(ahead.len())) {
            for line in next.chunks(LANES) {
                _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
            }
        }
        // Of a limb's table each word is read once, too little at a time for the processor to run ahead.
        let soon = tw.twists.as_ptr().wrapping_add(run + i + TWISTS_AHEAD);
        for line in 0..size_of_val(twist) / 64 {
            _mm_prefetch::<_MM_HINT_T0>(soon.cast::<i8>().wrapping_add(64 * line));
        }
        let w = twiddles::<3>(tw, first + i);
        s.last::<ROOM, E>(words, &w, (twist, &tw.last), (end, 16 * i));
    }
}

/// Where the last pass writes: word `i` goes to `words + i / columns * row + i % columns`.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) words: *mut u64,
    pub(super) row: usize,
    pub(super) columns: usize,
    /// Whether words go past the caches, to whole lines.
    pub(super) past: bool,
}

impl Target {
    /// Where word `i` goes.
    #[inline]
    pub(super) fn at(&self, i: usize) -> *mut u64 {
        self.words
            .wrapping_add(i / self.columns * self.row + i % self.columns)
    }

    /// Every word where it was.
    pub(super) fn whole(x: &mut [u64]) -> Self {
        Self {
            words: x.as_mut_ptr(),
            row: x.len(),
            columns: x.len(),
            past: false,
        }
    }
}

/// The stages before blocks of `2^LOW_LOG` words, on the same columns of all of them.
///
/// # Safety
/// As for `forward_passes`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) unsafe fn first_passes(t: &NttTable, x: &mut [u64], to: Target) {
    // SAFETY: the caller's promise.
    unsafe { forward_passes(t, x, t.log_n - LOW_LOG, 1, to) };
}

/// The next `stages` stages of a block with twiddle index `index` (blocks so far, plus its
/// number); the last pass writes to `to`.
///
/// # Safety
/// `to` names writable words for every word of `x`, apart from `x` or `x` itself; the stages leave
/// blocks that are multiples of `to.columns` long and `to.columns` is a multiple of 8, or `to` is
/// `x` itself.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn forward_passes(t: &NttTable, x: &mut [u64], stages: u32, index: usize, to: Target) {
    let s = Stages::new(t);
    let tw = t.forward.words(&t.modulus);
    let (mut index, mut len) = (index, x.len());
    // Sixteen runs that begin in the same set of L1, 4 KiB apart, would be more than its ways.
    let plan = passes(room(t) == SOME || len >= 16 * 512, stages);
    for (number, &r) in plan.iter().enumerate() {
        for (i, block) in x.chunks_exact_mut(len).enumerate() {
            let stride = len >> r;
            let p = block.as_mut_ptr();
            let there = number + 1 == plan.len() && to.columns < len;
            let out = if there {
                let out = to.words.wrapping_add(i * len / to.columns * to.row);
                (out, stride / to.columns * to.row)
            } else {
                (p, stride)
            };
            let past = there && to.past;
            let at = Place {
                p,
                out,
                stride,
                past,
            };
            // SAFETY: a block has 2^r runs of `stride` words; the destination likewise, by the
            // caller's promise (after the last pass each run is one row of it).
            unsafe {
                match (r, room(t)) {
                    (1, WIDE) => pass_of::<1, 2, WIDE>(&s, tw, at, index + i),
                    (2, WIDE) => pass_of::<2, 4, WIDE>(&s, tw, at, index + i),
                    (3, WIDE) => pass_of::<3, 8, WIDE>(&s, tw, at, index + i),
                    (_, WIDE) => pass_of::<4, 16, WIDE>(&s, tw, at, index + i),
                    (1, SOME) => pass_of::<1, 2, SOME>(&s, tw, at, index + i),
                    (2, SOME) => pass_of::<2, 4, SOME>(&s, tw, at, index + i),
                    (_, SOME) => pass_of::<3, 8, SOME>(&s, tw, at, index + i),
                    (1, _) => pass_of::<1, 2, TIGHT>(&s, tw, at, index + i),
                    (2, _) => pass_of::<2, 4, TIGHT>(&s, tw, at, index + i),
                    (3, _) => pass_of::<3, 8, TIGHT>(&s, tw, at, index + i),
                    _ => pass_of::<4, 16, TIGHT>(&s, tw, at, index + i),
                }
            }
        }
        index <<= r;
        len >>= r;
    }
}

/// How many words ahead the first pass fetches.
const AHEAD: usize = 256;

/// Runs of `stride` words: run `k` is at `p + k stride` and goes to `out.0 + k out.1`.
#[derive(Clone, Copy)]
struct Place {
    p: *const u64,
    out: (*mut u64, usize),
    stride: usize,
    /// Whether words go past the caches.
    past: bool,
}

/// `R` stages of one block of `RUNS = 2^R` runs, with its twiddle index.
///
/// # Safety
/// The runs of `at` (their length a multiple of 8) are readable and writable where it says.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn pass_of<const R: usize, const RUNS: usize, const ROOM: Room>(
    s: &Stages,
    tw: &WordTwiddles,
    at: Place,
    index: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if index == 1 {
            pass::<R, RUNS, ROOM, true>(s, tw, at, index);
        } else {
            pass::<R, RUNS, ROOM, false>(s, tw, at, index);
        }
    }
}

/// As `pass_of`; `FIRST` for the first stages of all.
///
/// # Safety
/// As for `pass_of`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn pass<const R: usize, const RUNS: usize, const ROOM: Room, const FIRST: bool>(
    s: &Stages,
    tw: &WordTwiddles,
    at: Place,
    index: usize,
) {
    let w = twiddles::<R>(tw, index);
    let mut j = 0;
    while j + LANES <= at.stride {
        let mut v = [s.l.zero; RUNS];
        if FIRST {
            // Runs of the first pass may come from memory, and are too many and too short between
            // pages for the processor to foresee.
            for k in 0..RUNS {
                let next = at.p.wrapping_add(j + k * at.stride + AHEAD);
                _mm_prefetch::<_MM_HINT_T0>(next.cast());
            }
        }
        // SAFETY: the caller's promise, with j + LANES <= stride and k < RUNS.
        unsafe {
            for (k, v) in v.iter_mut().enumerate() {
                *v = load(at.p.add(j + k * at.stride));
            }
            layers::<R, RUNS, ROOM, FIRST>(s, &mut v, &w);
            for (k, &v) in v.iter().enumerate() {
                store_to(at.out.0.add(j + k * at.out.1), v, at.past);
            }
        }
        j += LANES;
    }
}

/// `R` stages on `RUNS = 2^R` registers.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn layers<const R: usize, const RUNS: usize, const ROOM: Room, const FIRST: bool>(
    s: &Stages,
    v: &mut [__m512i; RUNS],
    w: &[&[Constant]; R],
) {
    // One call per layer, each a loop of a constant number of steps: nested loops whose bounds
    // depend on each other were left rolled in some builds, with the registers in memory.
    layer::<0, RUNS, ROOM, FIRST>(s, v, w.first().copied());
    layer::<1, RUNS, ROOM, FIRST>(s, v, w.get(1).copied());
    layer::<2, RUNS, ROOM, FIRST>(s, v, w.get(2).copied());
    layer::<3, RUNS, ROOM, FIRST>(s, v, w.get(3).copied());
}

/// Stage `LAYER` of those, if there is one, with its `2^LAYER` twiddles.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn layer<const LAYER: usize, const RUNS: usize, const ROOM: Room, const FIRST: bool>(
    s: &Stages,
    v: &mut [__m512i; RUNS],
    w: Option<&[Constant]>,
) {
    let half = RUNS >> (LAYER + 1);
    let Some(w) = w.filter(|w| half > 0 && w.len() == 1 << LAYER) else {
        return;
    };
    for k in 0..RUNS / 2 {
        let i = 2 * half * (k / half) + k % half;
        let w = broadcast(&w[k / half]);
        let mut a = v[i];
        if LAYER == 0 && ROOM == WIDE && FIRST {
            a = _mm512_add_epi64(a, s.offset);
        }
        if LAYER == 0 && ROOM == SOME {
            a = reduce_once(reduce_once(a, s.q4), s.l.q2);
            a = _mm512_add_epi64(a, s.q3);
        }
        (v[i], v[i + half]) = s.butterfly::<ROOM>(a, v[i + half], w);
    }
}

/// Constants of the stages.
pub(super) struct Stages {
    pub(super) l: Lanes,
    /// What the first stage adds if there is room.
    pub(super) offset: __m512i,
    pub(super) q3: __m512i,
    q4: __m512i,
    minus_q: __m512i,
    /// What a twist adds, or minus that: as its product wants it.
    twist: __m512i,
    /// `floor(2^52 / q)`.
    one: __m512i,
    /// See `canonical`: `m`, and `F - 52`.
    quotient: __m512i,
    shift: __m512i,
}

impl Stages {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new(t: &NttTable) -> Self {
        let q = t.modulus.value() as i64;
        let twist = match room(t) {
            WIDE => 5,
            SOME => -4,
            _ => -1,
        };
        let exact = t.forward.words(&t.modulus).exact;
        Self {
            quotient: _mm512_set1_epi64(exact.multiplier as i64),
            shift: _mm512_set1_epi64(i64::from(exact.exponent - 52)),
            l: Lanes::new(&t.modulus),
            offset: _mm512_set1_epi64(2 * i64::from(t.log_n - 4) * q),
            q3: _mm512_set1_epi64(3 * q),
            q4: _mm512_set1_epi64(4 * q),
            minus_q: _mm512_set1_epi64(-q),
            twist: _mm512_set1_epi64(twist * q),
            one: _mm512_set1_epi64(t.modulus.times_in() as i64),
        }
    }

    /// Cooley-Tukey: `(a, b) -> (a + w b, a - w b)`, if `WIDE` modulo 2^52; if `TIGHT`, `a` is first brought
    /// below 2q and q is added.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn butterfly<const ROOM: Room>(
        &self,
        a: __m512i,
        b: __m512i,
        (w, wq): Factor,
    ) -> (__m512i, __m512i) {
        let l = &self.l;
        if ROOM == WIDE {
            let sum = l.shoup_onto(a, b, (w, wq));
            return (sum, _mm512_sub_epi64(_mm512_add_epi64(a, a), sum));
        }
        let m = _mm512_madd52lo_epu64(l.zero, b, wq);
        if ROOM == TIGHT {
            let a = reduce_once(a, l.q2);
            let high = _mm512_madd52hi_epu64(a, b, w);
            let sum = _mm512_sub_epi64(high, _mm512_madd52hi_epu64(self.minus_q, m, l.q));
            let twice = _mm512_add_epi64(_mm512_add_epi64(a, a), l.q2);
            (sum, _mm512_sub_epi64(twice, sum))
        } else {
            // The difference is 2 a - (a + v): the product needs no register of its own.
            let high = _mm512_madd52hi_epu64(a, b, w);
            let sum = _mm512_sub_epi64(high, _mm512_madd52hi_epu64(l.zero, m, l.q));
            (sum, _mm512_sub_epi64(_mm512_add_epi64(a, a), sum))
        }
    }

    /// The last seven stages of 128 words, with the twist before the last four. Those three stages more that
    /// could be a pass of their own fill what shuffles and the waits between stages leave of the multipliers.
    /// All eight blocks of 16 words take a stage together: with four, every instruction waits for one before it.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn last<const ROOM: Room, E: End>(
        &self,
        words: &mut [u64; RUN],
        front: &[&[Constant]; 3],
        (twist, w): (&[Constants; 2], &[Sixteenth; 8]),
        (end, mut at): (&E, usize),
    ) {
        let l = &self.l;
        let (mut xs, mut ys) = ([l.zero; 8], [l.zero; 8]);
        for ((x, y), words) in xs.iter_mut().zip(&mut ys).zip(words.as_chunks::<16>().0) {
            // SAFETY: there are 16 words.
            (*x, *y) = unsafe { (load(words.as_ptr()), load(words.as_ptr().add(LANES))) };
        }
        // Stage by stage, so that there is more to do while one vector waits.
        layer::<0, 8, ROOM, false>(self, &mut xs, Some(front[0]));
        layer::<0, 8, ROOM, false>(self, &mut ys, Some(front[0]));
        layer::<1, 8, ROOM, false>(self, &mut xs, Some(front[1]));
        layer::<1, 8, ROOM, false>(self, &mut ys, Some(front[1]));
        layer::<2, 8, ROOM, false>(self, &mut xs, Some(front[2]));
        layer::<2, 8, ROOM, false>(self, &mut ys, Some(front[2]));
        let (low, high) = (factors(&twist[0]), factors(&twist[1]));
        let mut v = [(l.zero, l.zero); 8];
        for ((v, x), y) in v.iter_mut().zip(xs).zip(ys) {
            *v = match ROOM {
                WIDE => (
                    l.shoup_onto(self.twist, x, low),
                    l.shoup_onto(self.twist, y, high),
                ),
                _ => (l.mont(x, low, self.twist), l.mont(y, high, self.twist)),
            };
        }
        for ((x, y), w) in v.iter_mut().zip(w) {
            (*x, *y) = self.butterfly::<ROOM>(*x, *y, broadcast(&w.half8));
        }
        for ((x, y), w) in v.iter_mut().zip(w) {
            let a = _mm512_shuffle_i64x2::<0x44>(*x, *y);
            let b = _mm512_shuffle_i64x2::<0xee>(*x, *y);
            (*x, *y) = self.butterfly::<ROOM>(a, b, factors(&w.half4));
        }
        for ((x, y), w) in v.iter_mut().zip(w) {
            let a = _mm512_shuffle_i64x2::<0x88>(*x, *y);
            let b = _mm512_shuffle_i64x2::<0xdd>(*x, *y);
            (*x, *y) = self.butterfly::<ROOM>(a, b, factors(&w.half2));
        }
        for ((x, y), w) in v.iter_mut().zip(w) {
            let mut a = _mm512_unpacklo_epi64(*x, *y);
            let b = _mm512_unpackhi_epi64(*x, *y);
            if ROOM == SOME {
                a = _mm512_add_epi64(self.below_2q(a), l.q);
            }
            (*x, *y) = self.butterfly::<ROOM>(a, b, factors(&w.half1));
        }
        let order = [
            _mm512_setr_epi64(0, 8, 1, 9, 4, 12, 5, 13),
            _mm512_setr_epi64(2, 10, 3, 11, 6, 14, 7, 15),
        ];
        for (&(x, y), words) in v.iter().zip(words.as_chunks_mut::<16>().0) {
            let low = _mm512_permutex2var_epi64(x, order[0], y);
            let high = _mm512_permutex2var_epi64(x, order[1], y);
            // SAFETY: there are 16 words, the vectors `at` and `at + 1` of the block.
            unsafe {
                let p = words.as_mut_ptr();
                end.end::<ROOM>(self, low, at, p);
                end.end::<ROOM>(self, high, at + 1, p.add(LANES));
            }
            at += 2;
        }
    }

    /// A result of the last stage, brought below q: if there is room, by its exact quotient
    /// `floor(x m / 2^F)` with `m = ceil(2^F / q)`. That is exact for `x (m q - 2^F) < 2^F`, which
    /// `x < 16 q` and `16 q^2 <= 2^F` make sure of (Granlund and Montgomery, "Division by invariant integers
    /// using multiplication", 1994, theorem 4.2).
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn canonical<const ROOM: Room>(&self, x: __m512i) -> __m512i {
        if ROOM != WIDE {
            return reduce_once(reduce_once(x, self.l.q2), self.l.q);
        }
        let high = _mm512_madd52hi_epu64(self.l.zero, x, self.quotient);
        let times = _mm512_srlv_epi64(high, self.shift);
        self.l.less(x, times)
    }

    /// Any value below 2^52 brought below 2q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn below_2q(&self, x: __m512i) -> __m512i {
        let times = _mm512_madd52hi_epu64(self.l.zero, x, self.one);
        self.l.less(x, times)
    }
}
