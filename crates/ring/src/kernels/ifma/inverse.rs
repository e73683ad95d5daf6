//! Inverse NTT: the mirror image of the forward one.
//!
//! **Bounds.** A butterfly gives `a + b` and `(a - b + R q) w`, where `0 <= a, b < R q`: the
//! sum is below `2 R q`, the product, of which `2 R q <= 2^52` is required, between 0 and 2q (`WIDE`: words
//! hold values modulo 2^52; otherwise q was added to a product in `(-q, q)`).
//! Values of registers that are sums of sums grow; all others start at 2q once in every pass.
//!
//! * First four stages: `R = 1, 2, 4, 8` (`TIGHT`: 1, 2, 2, 2), then the twist back, a product; the next three
//!   are those of a pass that reads values below 2q.
//! * `WIDE` (up to 46 bits): all values that a pass reads are below 8q, and `R = 8, 16, 32` in its
//!   at most three stages; `64 q <= 2^52`. The first register, a sum of eight, is then brought below
//!   2q; the second is at most a sum of four products, below 8q, the third and fourth of two. After that there may be a
//!   fourth stage, with `R = 8` again, if it is the last of all.
//! * `SOME` (47 and 48 bits): all values that a pass reads are below 2q; `R = 2, 4, 8`, and
//!   `16 q <= 2^52`. All sums of the last stage are brought below 2q.
//! * `TIGHT`: every sum is at once brought below 2q.

use std::arch::x86_64::*;

use super::{
    Factor, LANES, Lanes, MIN_LOG, RUN, RUN_LOG, Room, SOME, TIGHT, WIDE, broadcast, factors,
    fetch_to_write, load, passes, reduce_once, store, store_to, twiddles,
};
use crate::kernels::{Columns, LOW_LOG, Layout, scalar};
use crate::ntt::{Constant, Constants, InverseScale, NttTable, Sixteenth, WordTwiddles, is_roomy};

/// How much room the modulus leaves.
fn room(t: &NttTable) -> Room {
    match t.modulus.bits() {
        _ if is_roomy(&t.modulus) => WIDE,
        ..=48 => SOME,
        _ => TIGHT,
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn inverse_low(
    t: &NttTable,
    out: &mut [u64],
    x: &[u64],
    block: usize,
    c: &InverseScale,
) {
    let len_log = LOW_LOG.min(t.log_n);
    let inside = block >> (t.log_n - len_log) == 0;
    if t.log_n < MIN_LOG || x.len() != 1 << len_log || out.len() != x.len() || !inside {
        return scalar::inverse_low(t, out, x, block, c);
    }
    // The next block, which may come from memory.
    let later = x.as_ptr().wrapping_add(x.len());
    low(t, (out, Some(x)), block, later, c);
}

/// The stages inside a block of `x`, or of what `out` holds; meanwhile as many words from `later` on are
/// fetched: any address will do.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn low(
    t: &NttTable,
    (out, x): (&mut [u64], Option<&[u64]>),
    block: usize,
    later: *const u64,
    c: &InverseScale,
) {
    let len_log = LOW_LOG.min(t.log_n);
    let run = block << (len_log - RUN_LOG);
    match room(t) {
        WIDE => inverse_tail::<WIDE>(t, (out, x), run, later),
        SOME => inverse_tail::<SOME>(t, (out, x), run, later),
        _ => inverse_tail::<TIGHT>(t, (out, x), run, later),
    }
    let index = (1 << (t.log_n - len_log)) + block;
    // SAFETY: there is no source.
    unsafe { inverse_passes(t, out, (len_log - RUN_LOG, index), c, None) };
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn inverse_top(
    t: &NttTable,
    tile: &mut [u64],
    from: &Columns<'_>,
    c: &InverseScale,
) {
    let top = t.log_n.saturating_sub(LOW_LOG);
    let columns = from.range.len();
    let fits = columns.is_multiple_of(LANES) && tile.len() == columns << top;
    let layout = Layout::of(1 << t.log_n, from.x.len());
    let inside = |l: &Layout| from.range.start <= from.range.end && from.range.end <= l.width;
    let Some(layout) = layout.filter(|l| t.log_n >= MIN_LOG && inside(l) && fits) else {
        return scalar::inverse_top(t, tile, from, c);
    };
    if top == 0 {
        return scalar::gather(t, tile, from);
    }
    let source = Source {
        words: from.x[from.range.start..].as_ptr(),
        row: layout.pitch,
        soon: from.soon.as_ptr(),
        past: from.past && tile.as_ptr().addr().is_multiple_of(64),
    };
    // SAFETY: the limb has 2^top rows, `pitch` words apart, and the columns end inside them.
    unsafe { inverse_passes(t, tile, (top, 1), c, Some(source)) };
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn inverse(
    t: &NttTable,
    out: &mut [u64],
    x: Option<&[u64]>,
    c: &InverseScale,
    ahead: &[u64],
) {
    if t.log_n < MIN_LOG || out.len() != 1 << t.log_n || x.is_some_and(|x| x.len() != out.len()) {
        return scalar::inverse(t, out, x, c, ahead);
    }
    let size = 1 << LOW_LOG.min(t.log_n);
    let blocks = out.len() / size;
    for (b, out) in out.chunks_exact_mut(size).enumerate() {
        let x = x.map(|x| &x[b * size..(b + 1) * size]);
        let here = x.map_or(out.as_ptr(), <[u64]>::as_ptr);
        let later = match b + 1 < blocks {
            true => here.wrapping_add(size),
            false => ahead.as_ptr(),
        };
        low(t, (out, x), b, later, c);
    }
    let top = t.log_n.saturating_sub(LOW_LOG);
    // SAFETY: there is no source.
    unsafe { inverse_passes(t, out, (top, 1), c, None) };
}

/// The first seven stages, on runs of 128 words of which `run` is the first.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn inverse_tail<const ROOM: Room>(
    t: &NttTable,
    (out, x): (&mut [u64], Option<&[u64]>),
    run: usize,
    later: *const u64,
) {
    let s = Stages::new(t);
    let tw = t.inverse.words(&t.modulus);
    let Some(twists) = tw.twists.get(run..run + out.len() / RUN) else {
        return;
    };
    // The twiddles' index of the first run.
    let first = (1 << (t.log_n - RUN_LOG)) + run;
    let mut x = x.map(|x| x.as_chunks::<RUN>().0.iter());
    let runs = out.as_chunks_mut::<RUN>().0.iter_mut().zip(twists);
    for (i, (out, twist)) in runs.enumerate() {
        for line in 0..16 {
            let line = later.wrapping_add(RUN * i + LANES * line);
            _mm_prefetch::<_MM_HINT_T1>(line.cast());
        }
        let x = x.as_mut().and_then(Iterator::next);
        let w = twiddles::<3>(tw, first + i);
        s.first::<ROOM>(out, x, (twist, &tw.last), &w);
    }
}

/// Where the first pass reads instead: word `i` of run `k` at `words + k row + i`.
#[derive(Clone, Copy)]
struct Source {
    words: *const u64,
    row: usize,
    /// As many words as the passes work on, to be fetched for writing; any address will do.
    soon: *const u64,
    /// Whether words go past the caches, to whole lines, if one pass does all stages.
    past: bool,
}

/// The `stages` stages before block `index` is whole.
///
/// # Safety
/// A source has `2^stages` runs, each as long as those of `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn inverse_passes(
    t: &NttTable,
    x: &mut [u64],
    (stages, index): (u32, usize),
    c: &InverseScale,
    mut source: Option<Source>,
) {
    let s = Stages::new(t);
    let tw = t.inverse.words(&t.modulus);
    let last = Scale {
        low: Constant::of(&t.modulus, c.low),
        high: Constant::of(&t.modulus, c.high),
    };
    let (mut index, mut len) = (index << stages, x.len() >> stages);
    // Sixteen runs that begin in the same set of L1 would be more than its ways.
    let narrow = source.is_none() && x.len() >= 16 * 512;
    for &r in passes(narrow, stages).iter().rev() {
        index >>= r;
        len <<= r;
        let stride = len >> r;
        for (i, block) in x.chunks_exact_mut(len).enumerate() {
            let out = block.as_mut_ptr();
            let at = match source {
                Some(from) => Place {
                    from: (from.words.wrapping_add((i << r) * from.row), from.row),
                    to: match from.past && r == stages {
                        true => To::Past,
                        false => To::Apart(from.soon.wrapping_add(i * len)),
                    },
                    out,
                    stride,
                },
                None => Place {
                    from: (out, stride),
                    to: To::Same,
                    out,
                    stride,
                },
            };
            let (number, last) = (index + i, (index == 1).then_some(&last));
            // SAFETY: a block has 2^r runs of `stride` words; so has the source for each block, by
            // the caller's promise, since in the first pass a run of `x` is one of the source.
            unsafe {
                match (r, room(t)) {
                    (1, WIDE) => pass_of::<1, 2, WIDE, 8>(&s, tw, at, number, last),
                    (2, WIDE) => pass_of::<2, 4, WIDE, 8>(&s, tw, at, number, last),
                    (3, WIDE) => pass_of::<3, 8, WIDE, 8>(&s, tw, at, number, last),
                    (_, WIDE) => pass_of::<4, 16, WIDE, 8>(&s, tw, at, number, last),
                    (1, SOME) => pass_of::<1, 2, SOME, 2>(&s, tw, at, number, last),
                    (2, SOME) => pass_of::<2, 4, SOME, 2>(&s, tw, at, number, last),
                    (3, SOME) => pass_of::<3, 8, SOME, 2>(&s, tw, at, number, last),
                    (_, SOME) => pass_of::<4, 16, SOME, 2>(&s, tw, at, number, last),
                    (1, _) => pass_of::<1, 2, TIGHT, 2>(&s, tw, at, number, last),
                    (2, _) => pass_of::<2, 4, TIGHT, 2>(&s, tw, at, number, last),
                    (3, _) => pass_of::<3, 8, TIGHT, 2>(&s, tw, at, number, last),
                    _ => pass_of::<4, 16, TIGHT, 2>(&s, tw, at, number, last),
                }
            }
        }
        source = None;
    }
}

/// How words get to where runs go.
#[derive(Clone, Copy)]
enum To {
    /// They came from there.
    Same,
    /// They came from elsewhere, and nothing was written there yet; what comes next is fetched for
    /// writing.
    Apart(*const u64),
    /// They came from elsewhere, and go past the caches to whole lines.
    Past,
}

/// Runs of `stride` words: run `k` is at `from.0 + k from.1` and goes to `out + k stride`.
#[derive(Clone, Copy)]
struct Place {
    from: (*const u64, usize),
    to: To,
    out: *mut u64,
    stride: usize,
}

/// What the last stage multiplies by, see `InverseScale`.
struct Scale {
    low: Constant,
    high: Constant,
}

impl Scale {
    const NONE: Self = Self {
        low: Constant { a: 0, b: 0 },
        high: Constant { a: 0, b: 0 },
    };
}

/// `R` stages of one block of `RUNS = 2^R` runs, with values below `FROM q`; with `last` the final
/// one multiplies by it and gives canonical values.
///
/// # Safety
/// The runs of `at` (their length a multiple of 8) are readable, and writable where it says.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn pass_of<const R: usize, const RUNS: usize, const ROOM: Room, const FROM: u64>(
    s: &Stages,
    tw: &WordTwiddles,
    at: Place,
    index: usize,
    last: Option<&Scale>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match last {
            Some(last) => pass::<R, RUNS, ROOM, FROM, true>(s, tw, at, index, last),
            // The scale is not read. Four stages are always the last ones (`passes`).
            None => pass::<R, RUNS, ROOM, FROM, false>(s, tw, at, index, &Scale::NONE),
        }
    }
}

/// As `pass_of`; `LAST` if the scale is to be read.
///
/// # Safety
/// As for `pass_of`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn pass<
    const R: usize,
    const RUNS: usize,
    const ROOM: Room,
    const FROM: u64,
    const LAST: bool,
>(
    s: &Stages,
    tw: &WordTwiddles,
    at: Place,
    index: usize,
    last: &Scale,
) {
    let w = twiddles::<R>(tw, index);
    let mut j = 0;
    while j + LANES <= at.stride {
        let mut v = [s.l.zero; RUNS];
        if !matches!(at.to, To::Same) {
            // The next columns lie behind these in rows that are pages apart.
            for k in 0..RUNS {
                let next = at.from.0.wrapping_add(j + k * at.from.1 + at.stride);
                _mm_prefetch::<_MM_HINT_T0>(next.cast());
            }
        }
        if let To::Apart(soon) = at.to {
            for k in 0..RUNS {
                fetch_to_write(soon.wrapping_add(j + k * at.stride));
            }
        }
        let past = matches!(at.to, To::Past);
        // SAFETY: the caller's promise, with j + LANES <= stride and k < RUNS.
        unsafe {
            for (k, v) in v.iter_mut().enumerate() {
                *v = load(at.from.0.add(j + k * at.from.1));
            }
            layers::<R, RUNS, ROOM, FROM, LAST>(s, &mut v, &w, last);
            for (k, &v) in v.iter().enumerate() {
                store_to(at.out.add(j + k * at.stride), v, past);
            }
        }
        j += LANES;
    }
}

/// `R` stages on `RUNS = 2^R` registers with values below `FROM q`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn layers<
    const R: usize,
    const RUNS: usize,
    const ROOM: Room,
    const FROM: u64,
    const LAST: bool,
>(
    s: &Stages,
    v: &mut [__m512i; RUNS],
    w: &[&[Constant]; R],
    last: &Scale,
) {
    let above = |layer| s.times(range::<R, ROOM, FROM>(layer));
    // One call per layer, as in the forward transform.
    layer::<3, RUNS, ROOM>(s, v, w.get(3).copied(), above(3));
    layer::<2, RUNS, ROOM>(s, v, w.get(2).copied(), above(2));
    layer::<1, RUNS, ROOM>(s, v, w.get(1).copied(), above(1));
    if R == 4 {
        for block in v.chunks_exact_mut(8) {
            s.settle::<ROOM>(block);
        }
    }
    if !LAST {
        layer::<0, RUNS, ROOM>(s, v, w.first().copied(), above(0));
        return s.settle::<ROOM>(v);
    }
    let (low, high) = (broadcast(&last.low), broadcast(&last.high));
    for i in 0..RUNS / 2 {
        let (a, b) = (v[i], v[i + RUNS / 2]);
        v[i] = s.canonical::<ROOM>(_mm512_add_epi64(a, b), low);
        let difference = _mm512_sub_epi64(_mm512_add_epi64(a, above(0)), b);
        v[i + RUNS / 2] = s.canonical::<ROOM>(difference, high);
    }
}

/// What values are below, in multiples of q, when a layer begins.
const fn range<const R: usize, const ROOM: Room, const FROM: u64>(layer: usize) -> u64 {
    let before = if ROOM == TIGHT || layer >= R {
        0
    } else {
        // The last of four follows what ends three.
        (R - 1 - layer) % 3
    };
    FROM << before
}

/// Stage `LAYER` of those, if there is one, with its `2^LAYER` twiddles.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn layer<const LAYER: usize, const RUNS: usize, const ROOM: Room>(
    s: &Stages,
    v: &mut [__m512i; RUNS],
    w: Option<&[Constant]>,
    above: __m512i,
) {
    let half = RUNS >> (LAYER + 1);
    let Some(w) = w.filter(|w| half > 0 && w.len() == 1 << LAYER) else {
        return;
    };
    for k in 0..RUNS / 2 {
        let i = 2 * half * (k / half) + k % half;
        let w = broadcast(&w[k / half]);
        (v[i], v[i + half]) = s.butterfly::<ROOM>(v[i], v[i + half], w, above);
    }
}

/// Constants of the stages.
struct Stages {
    l: Lanes,
    q: u64,
    minus_q: __m512i,
    /// `floor(2^52 / q)`.
    one: __m512i,
}

impl Stages {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(t: &NttTable) -> Self {
        let q = t.modulus.value();
        Self {
            l: Lanes::new(&t.modulus),
            q,
            minus_q: _mm512_set1_epi64(-(q as i64)),
            one: _mm512_set1_epi64(t.modulus.times_in() as i64),
        }
    }

    /// `factor q`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn times(&self, factor: u64) -> __m512i {
        _mm512_set1_epi64((factor * self.q) as i64)
    }

    /// Gentleman-Sande: `(a, b) -> (a + b, (a - b + above) w)`, the product below 2q; if `TIGHT`, the
    /// sum is brought below 2q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn butterfly<const ROOM: Room>(
        &self,
        a: __m512i,
        b: __m512i,
        w: Factor,
        above: __m512i,
    ) -> (__m512i, __m512i) {
        let mut sum = _mm512_add_epi64(a, b);
        if ROOM == TIGHT {
            sum = reduce_once(sum, self.l.q2);
        }
        let difference = _mm512_sub_epi64(_mm512_add_epi64(a, above), b);
        (sum, self.product::<ROOM>(difference, w))
    }

    /// A product below 2q, if `WIDE` modulo 2^52.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn product<const ROOM: Room>(&self, x: __m512i, w: Factor) -> __m512i {
        match ROOM {
            WIDE => self.l.shoup_onto(self.l.zero, x, w),
            _ => self.l.mont(x, w, self.minus_q),
        }
    }

    /// The end of two or three stages on a block of registers: values as its beginning wants them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn settle<const ROOM: Room>(&self, block: &mut [__m512i]) {
        let sums = match ROOM {
            WIDE => 1,
            SOME => block.len() / 2,
            _ => 0,
        };
        for v in block.iter_mut().take(sums) {
            *v = self.below_2q(*v);
        }
    }

    /// A product, canonical.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn canonical<const ROOM: Room>(&self, x: __m512i, w: Factor) -> __m512i {
        if ROOM == WIDE {
            return self.l.shoup(x, w.0, w.1);
        }
        let v = self.l.mont(x, w, self.l.zero);
        // Below zero it is very large as an unsigned number.
        _mm512_min_epu64(v, _mm512_add_epi64(v, self.l.q))
    }

    /// Any value below 2^52 brought below 2q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn below_2q(&self, x: __m512i) -> __m512i {
        let times = _mm512_madd52hi_epu64(self.l.zero, x, self.one);
        self.l.less(x, times)
    }

    /// The first seven stages of 128 words of `x`, or of what `out` holds, with the twist back after four of
    /// them, see the forward transform.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn first<const ROOM: Room>(
        &self,
        out: &mut [u64; RUN],
        x: Option<&[u64; RUN]>,
        (twist, w): (&[Constants; 2], &[Sixteenth; 8]),
        front: &[&[Constant]; 3],
    ) {
        let l = &self.l;
        let above = |range| {
            if ROOM == TIGHT {
                l.q2
            } else {
                self.times(range)
            }
        };
        let order = [
            _mm512_setr_epi64(0, 2, 8, 10, 4, 6, 12, 14),
            _mm512_setr_epi64(1, 3, 9, 11, 5, 7, 13, 15),
        ];
        let mut v = [(l.zero, l.zero); 8];
        let words: &[u64; RUN] = x.unwrap_or(out);
        for (((x, y), words), w) in v.iter_mut().zip(words.as_chunks::<16>().0).zip(w) {
            // SAFETY: there are 16 words.
            let (low, high) = unsafe { (load(words.as_ptr()), load(words.as_ptr().add(LANES))) };
            let even = _mm512_permutex2var_epi64(low, order[0], high);
            let odd = _mm512_permutex2var_epi64(low, order[1], high);
            let w = factors(&w.half1);
            // The sum of two canonical values needs no reduction.
            (*x, *y) = match ROOM {
                WIDE => self.butterfly::<WIDE>(even, odd, w, l.q),
                _ => self.butterfly::<SOME>(even, odd, w, l.q),
            };
        }
        for ((x, y), w) in v.iter_mut().zip(w) {
            let a = _mm512_unpacklo_epi64(*x, *y);
            let b = _mm512_unpackhi_epi64(*x, *y);
            (*x, *y) = self.butterfly::<ROOM>(a, b, factors(&w.half2), l.q2);
        }
        for ((x, y), w) in v.iter_mut().zip(w) {
            let a = _mm512_shuffle_i64x2::<0x44>(*x, *y);
            let b = _mm512_shuffle_i64x2::<0xee>(*x, *y);
            (*x, *y) = self.butterfly::<ROOM>(a, b, factors(&w.half4), above(4));
        }
        for ((x, y), w) in v.iter_mut().zip(w) {
            let a = _mm512_shuffle_i64x2::<0x88>(*x, *y);
            let b = _mm512_shuffle_i64x2::<0xdd>(*x, *y);
            (*x, *y) = self.butterfly::<ROOM>(a, b, broadcast(&w.half8), above(8));
        }
        let (low, high) = (factors(&twist[0]), factors(&twist[1]));
        let (mut xs, mut ys) = ([l.zero; 8], [l.zero; 8]);
        for ((&v, x), y) in v.iter().zip(&mut xs).zip(&mut ys) {
            (*x, *y) = (
                self.product::<ROOM>(v.0, low),
                self.product::<ROOM>(v.1, high),
            );
        }
        // Products are below 2q. Stage by stage, as in the forward transform.
        let above = |layer| self.times(range::<3, ROOM, 2>(layer));
        for half in [&mut xs, &mut ys] {
            layer::<2, 8, ROOM>(self, half, Some(front[2]), above(2));
        }
        for half in [&mut xs, &mut ys] {
            layer::<1, 8, ROOM>(self, half, Some(front[1]), above(1));
        }
        for half in [&mut xs, &mut ys] {
            layer::<0, 8, ROOM>(self, half, Some(front[0]), above(0));
            self.settle::<ROOM>(half);
        }
        for ((&x, &y), out) in xs.iter().zip(&ys).zip(out.as_chunks_mut::<16>().0) {
            // SAFETY: there are 16 words.
            unsafe {
                store(out.as_mut_ptr(), x);
                store(out.as_mut_ptr().add(LANES), y);
            }
        }
    }
}
