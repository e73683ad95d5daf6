//! Inverse NTT: the mirror image of the forward one.
//!
//! **Bounds.** A butterfly gives `a + b` and `(a - b + R q) w + q`, where `0 <= a, b < R q`: the
//! sum is below `2 R q`, the product, of which `2 R q <= 2^52` is required, between 0 and 2q.
//! Values of registers that are sums of sums grow; all others start at 2q once in every pass.
//!
//! * First four stages: `R = 1, 2, 4, 8` (`TIGHT`: 1, 2, 2, 2), then the twist back, a product.
//! * `WIDE` (up to 46 bits): all values that a pass reads are below 8q, and `R = 8, 16, 32` in its
//!   at most three stages; `64 q <= 2^52`. The first register, a sum of eight, is then brought below
//!   2q; the second is at most a sum of four products, below 8q, the third and fourth of two.
//! * `SOME` (47 and 48 bits): all values that a pass reads are below 2q; `R = 2, 4, 8`, and
//!   `16 q <= 2^52`. All sums of the last stage are brought below 2q.
//! * `TIGHT`: every sum is at once brought below 2q.

use std::arch::x86_64::*;

use super::{
    Factor, LANES, Lanes, MIN_LOG, Room, SOME, TIGHT, WIDE, broadcast, factors, load, passes,
    reduce_once, splat, store, twiddles,
};
use crate::kernels::{LOW_LOG, scalar};
use crate::ntt::{Constant, Constants, InverseScale, MontgomeryTwiddles, NttTable, Sixteenth};

/// How much room the modulus leaves.
fn room(t: &NttTable) -> Room {
    match t.modulus.bits() {
        ..=46 => WIDE,
        47 | 48 => SOME,
        _ => TIGHT,
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn inverse_low(t: &NttTable, out: &mut [u64], x: &[u64], c: &InverseScale) {
    if t.log_n < MIN_LOG || x.len() != 1 << t.log_n || out.len() != x.len() {
        return scalar::inverse_low(t, out, x, c);
    }
    let len_log = LOW_LOG.min(t.log_n);
    let size = 1usize << len_log;
    let blocks = out.chunks_exact_mut(size).zip(x.chunks_exact(size));
    for (b, (out, x)) in blocks.enumerate() {
        let run = b << (len_log - 7);
        match room(t) {
            WIDE => inverse_tail::<WIDE>(t, out, x, run),
            SOME => inverse_tail::<SOME>(t, out, x, run),
            _ => inverse_tail::<TIGHT>(t, out, x, run),
        }
        inverse_passes(t, out, len_log - 4, (1 << (t.log_n - len_log)) + b, c);
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

/// The first four stages, on runs of 128 words of which `run` is the first.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn inverse_tail<const ROOM: Room>(t: &NttTable, out: &mut [u64], x: &[u64], run: usize) {
    let s = Stages::new(t);
    let tw = t.inverse.montgomery(&t.modulus);
    let Some(twists) = tw.twists.get(run..run + out.len() / 128) else {
        return;
    };
    let out = out.as_chunks_mut::<128>().0.iter_mut();
    for ((out, x), twist) in out.zip(x.as_chunks::<128>().0).zip(twists) {
        s.first::<ROOM>(out, x, twist, &tw.last);
    }
}

/// The `stages` stages before block `index` is whole.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn inverse_passes(t: &NttTable, x: &mut [u64], stages: u32, index: usize, c: &InverseScale) {
    let s = Stages::new(t);
    let tw = t.inverse.montgomery(&t.modulus);
    let last = Scale {
        low: Constant::new(&t.modulus, c.low.w),
        high: Constant::new(&t.modulus, c.high.w),
    };
    let (mut index, mut len) = (index << stages, x.len() >> stages);
    for &r in passes(true, stages).iter().rev() {
        index >>= r;
        len <<= r;
        for (i, block) in x.chunks_exact_mut(len).enumerate() {
            let (at, last) = (index + i, (index == 1).then_some(&last));
            match (r, room(t)) {
                (1, WIDE) => pass_of::<1, 2, WIDE, 8>(&s, tw, block, at, last),
                (2, WIDE) => pass_of::<2, 4, WIDE, 8>(&s, tw, block, at, last),
                (_, WIDE) => pass_of::<3, 8, WIDE, 8>(&s, tw, block, at, last),
                (1, SOME) => pass_of::<1, 2, SOME, 2>(&s, tw, block, at, last),
                (2, SOME) => pass_of::<2, 4, SOME, 2>(&s, tw, block, at, last),
                (_, SOME) => pass_of::<3, 8, SOME, 2>(&s, tw, block, at, last),
                (1, _) => pass_of::<1, 2, TIGHT, 2>(&s, tw, block, at, last),
                (2, _) => pass_of::<2, 4, TIGHT, 2>(&s, tw, block, at, last),
                _ => pass_of::<3, 8, TIGHT, 2>(&s, tw, block, at, last),
            }
        }
    }
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
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn pass_of<const R: usize, const RUNS: usize, const ROOM: Room, const FROM: u64>(
    s: &Stages,
    tw: &MontgomeryTwiddles,
    x: &mut [u64],
    index: usize,
    last: Option<&Scale>,
) {
    match last {
        Some(last) => pass::<R, RUNS, ROOM, FROM, true>(s, tw, x, index, last),
        // The scale is not read.
        None => pass::<R, RUNS, ROOM, FROM, false>(s, tw, x, index, &Scale::NONE),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn pass<const R: usize, const RUNS: usize, const ROOM: Room, const FROM: u64, const LAST: bool>(
    s: &Stages,
    tw: &MontgomeryTwiddles,
    x: &mut [u64],
    index: usize,
    last: &Scale,
) {
    let w = twiddles::<R>(tw, index);
    let stride = x.len() / RUNS;
    let p = x.as_mut_ptr();
    let mut j = 0;
    while j + LANES <= stride {
        let mut v = [s.l.zero; RUNS];
        // SAFETY: j + LANES <= stride and k < RUNS, so all eight words lie in x.
        unsafe {
            for (k, v) in v.iter_mut().enumerate() {
                *v = load(p.add(j + k * stride));
            }
            layers::<R, RUNS, ROOM, FROM, LAST>(s, &mut v, &w, last);
            for (k, &v) in v.iter().enumerate() {
                store(p.add(j + k * stride), v);
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
    let mut range = FROM;
    for layer in (0..R).rev() {
        let half = RUNS >> (layer + 1);
        let above = s.times(range);
        if LAST && layer == 0 {
            let (low, high) = (broadcast(&last.low), broadcast(&last.high));
            for i in 0..half {
                let (a, b) = (v[i], v[i + half]);
                v[i] = s.canonical(_mm512_add_epi64(a, b), low);
                let difference = _mm512_sub_epi64(_mm512_add_epi64(a, above), b);
                v[i + half] = s.canonical(difference, high);
            }
            return;
        }
        for (g, w) in w[layer].iter().enumerate().take(1 << layer) {
            let w = broadcast(w);
            for i in 2 * half * g..2 * half * g + half {
                (v[i], v[i + half]) = s.butterfly::<ROOM>(v[i], v[i + half], w, above);
            }
        }
        if ROOM != TIGHT {
            range *= 2;
        }
    }
    match ROOM {
        WIDE => v[0] = s.below_2q(v[0]),
        SOME => {
            for v in &mut v[..RUNS / 2] {
                *v = s.below_2q(*v);
            }
        }
        _ => {}
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
            one: splat(t.modulus.shoup(1)).1,
        }
    }

    /// `factor q`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn times(&self, factor: u64) -> __m512i {
        _mm512_set1_epi64((factor * self.q) as i64)
    }

    /// Gentleman-Sande: `(a, b) -> (a + b, (a - b + above) w + q)`; if `TIGHT`, the sum is brought
    /// below 2q.
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
        (sum, self.l.mont(difference, w, self.minus_q))
    }

    /// A product, canonical.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn canonical(&self, x: __m512i, w: Factor) -> __m512i {
        let v = self.l.mont(x, w, self.l.zero);
        // Below zero it is very large as an unsigned number.
        _mm512_min_epu64(v, _mm512_add_epi64(v, self.l.q))
    }

    /// Any value below 2^52 brought below 2q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn below_2q(&self, x: __m512i) -> __m512i {
        let times = _mm512_madd52hi_epu64(self.l.zero, x, self.one);
        _mm512_sub_epi64(x, _mm512_mullo_epi64(times, self.l.q))
    }

    /// The first four stages of eight blocks of 16 words and the twist back, see the forward
    /// transform.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn first<const ROOM: Room>(
        &self,
        out: &mut [u64; 128],
        words: &[u64; 128],
        twist: &[Constants; 2],
        w: &[Sixteenth; 8],
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
        for (((x, y), words), w) in v.iter_mut().zip(words.as_chunks::<16>().0).zip(w) {
            // SAFETY: there are 16 words.
            let (low, high) = unsafe { (load(words.as_ptr()), load(words.as_ptr().add(LANES))) };
            let even = _mm512_permutex2var_epi64(low, order[0], high);
            let odd = _mm512_permutex2var_epi64(low, order[1], high);
            // The sum of two canonical values needs no reduction.
            (*x, *y) = self.butterfly::<WIDE>(even, odd, factors(&w.half1), l.q);
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
        for (&(x, y), out) in v.iter().zip(out.as_chunks_mut::<16>().0) {
            // SAFETY: there are 16 words.
            unsafe {
                store(out.as_mut_ptr(), l.mont(x, low, self.minus_q));
                store(out.as_mut_ptr().add(LANES), l.mont(y, high, self.minus_q));
            }
        }
    }
}
