//! Division by one prime, a limb at a time: the rest is brought to the limb's prime and transformed in
//! halves.
//!
//! At `N = 2^16` the rest, its transform, what is divided and the result are 512 KiB each; the second cache
//! holds two of them. So the first stage of the transform makes one half of its results at a time (the
//! second half makes the products of that stage again), which go on in a scratch of 256 KiB: that stays in
//! the cache, as the rest does. What is divided is fetched early, and the result is written once.

use std::arch::x86_64::*;

use super::forward::{
    Difference, End, Stages, Target, above, divide_low, first_passes, layers, low, room,
};
use super::{
    Factor, LANES, MIN_LOG, Room, SOME, TIGHT, WIDE, broadcast, fetch_to_write, load, reduce_once,
    splat, store, twiddles,
};
use crate::kernels::{LOW_LOG, Minuend, Rest, scalar, tile_columns};
use crate::ntt::NttTable;

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn divide_rest(
    t: &NttTable,
    out: &mut [u64],
    work: &mut [u64],
    rest: &Rest<'_>,
    from: &Minuend<'_>,
) {
    let n = 1 << t.log_n;
    let long = [out.len(), work.len(), rest.words.len(), from.x.len()] == [n; 4];
    if t.log_n < MIN_LOG || !long || from.order.is_some() {
        return scalar::divide_rest(t, out, work, rest, from);
    }
    let top = t.log_n.saturating_sub(LOW_LOG);
    if !(1..=4).contains(&top) || !fits(t, rest.prime) {
        return whole(t, out, rest, from);
    }
    if rest.past && out.as_ptr().addr().is_multiple_of(64) {
        halves::<true>(t, out, work, rest, from);
        // Such stores are otherwise ordered with nothing, so that another thread could read what was before.
        _mm_sfence();
    } else {
        halves::<false>(t, out, work, rest, from);
    }
}

/// Whether a transform modulo the table's prime may begin with [centred](Centre) residues of another one:
/// if they are below 4q, as any transform's inputs, or if they leave room for what stages add without
/// reducing anything. Neither is so for primes above 3q where q has 47 bits or more, and for the largest where it
/// has nearly 46.
fn fits(t: &NttTable, prime: u64) -> bool {
    let q = t.modulus.value();
    // Up to thirteen stages before the twist add and subtract less than 2q each.
    prime <= 3 * q || room(t) == WIDE && prime + (1 + 4 * 13) * q <= 1 << 52
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn divide_converted(
    t: &NttTable,
    out: &mut [u64],
    work: &mut [u64],
    from: &Minuend<'_>,
) {
    let long = [out.len(), work.len(), from.x.len()] == [1 << t.log_n; 3];
    if t.log_n < MIN_LOG || !long || from.order.is_some() {
        return scalar::divide_converted(t, out, work, from);
    }
    let width = 1 << LOW_LOG.min(t.log_n);
    let (w, quot) = splat(from.factor);
    let above = _mm512_set1_epi64((above(room(t)) * t.modulus.value()) as i64);
    let past = out.as_ptr().addr().is_multiple_of(64);
    let mut left = work;
    let places = out.chunks_exact_mut(width).zip(from.x.chunks_exact(width));
    for (block, (out, x)) in places.enumerate() {
        let Some((words, later)) = left.split_at_mut_checked(width) else {
            break;
        };
        let ahead = later.get(..width).unwrap_or(&[]);
        let difference = Difference { x, w, quot, above };
        let out = out.as_mut_ptr();
        if past {
            low(t, words, block, ahead, &Apart::<true> { difference, out });
        } else {
            low(t, words, block, ahead, &Apart::<false> { difference, out });
        }
        left = later;
    }
    _mm_sfence();
}

/// Half by half, as said above.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
fn halves<const PAST: bool>(
    t: &NttTable,
    out: &mut [u64],
    work: &mut [u64],
    rest: &Rest<'_>,
    from: &Minuend<'_>,
) {
    let centre = Centre::new(t, rest);
    let top = t.log_n - LOW_LOG;
    let (w, quot) = splat(from.factor);
    let above = _mm512_set1_epi64((above(room(t)) * t.modulus.value()) as i64);
    let width = 1 << LOW_LOG;
    for half in 0..2 {
        let to = (work.as_mut_ptr(), width + LANES);
        // SAFETY: the rest has 2^top rows of `width` words; `work`, of as many words, has room for half
        // as many rows that are eight words longer.
        unsafe {
            match (top, room(t)) {
                (1, WIDE) => first::<0, 1, WIDE>(t, (rest.words, &centre), half, to),
                (1, SOME) => first::<0, 1, SOME>(t, (rest.words, &centre), half, to),
                (1, _) => first::<0, 1, TIGHT>(t, (rest.words, &centre), half, to),
                (2, WIDE) => first::<1, 2, WIDE>(t, (rest.words, &centre), half, to),
                (2, SOME) => first::<1, 2, SOME>(t, (rest.words, &centre), half, to),
                (2, _) => first::<1, 2, TIGHT>(t, (rest.words, &centre), half, to),
                (3, WIDE) => first::<2, 4, WIDE>(t, (rest.words, &centre), half, to),
                (3, SOME) => first::<2, 4, SOME>(t, (rest.words, &centre), half, to),
                (3, _) => first::<2, 4, TIGHT>(t, (rest.words, &centre), half, to),
                (_, WIDE) => first::<3, 8, WIDE>(t, (rest.words, &centre), half, to),
                (_, SOME) => first::<3, 8, SOME>(t, (rest.words, &centre), half, to),
                (_, _) => first::<3, 8, TIGHT>(t, (rest.words, &centre), half, to),
            }
        }
        for row in 0..1 << (top - 1) {
            let block = (half << (top - 1)) + row;
            let begin = row * (width + LANES);
            let range = block * width..(block + 1) * width;
            let end = Apart::<PAST> {
                difference: Difference {
                    x: &from.x[range.clone()],
                    w,
                    quot,
                    above,
                },
                out: out[range].as_mut_ptr(),
            };
            low(t, &mut work[begin..begin + width], block, &[], &end);
        }
    }
}

/// The same in `out` alone, pass by pass.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vl,avx2,bmi1,bmi2")]
fn whole(t: &NttTable, out: &mut [u64], rest: &Rest<'_>, from: &Minuend<'_>) {
    let (s, centre) = (Stages::new(t), Centre::new(t, rest));
    let large = !fits(t, rest.prime);
    let width = 1 << LOW_LOG.min(t.log_n);
    let columns = tile_columns(out.len());
    let rows = out.len() / width;
    for (i, words) in rest.words.chunks_exact(columns).enumerate() {
        let at = i % rows * width + i / rows * columns;
        let out = out[at..at + columns].as_chunks_mut::<LANES>().0;
        for (out, x) in out.iter_mut().zip(words.as_chunks::<LANES>().0) {
            // SAFETY: there are eight words.
            let x = centre.of(unsafe { load(x.as_ptr()) });
            let x = if large { s.below_2q(x) } else { x };
            // SAFETY: likewise.
            unsafe { store(out.as_mut_ptr(), x) };
        }
    }
    if t.log_n > LOW_LOG {
        let to = Target::whole(out);
        // SAFETY: the destination is `out` itself, row by row.
        unsafe { first_passes(t, out, to) };
    }
    for (block, (out, x)) in out
        .chunks_exact_mut(width)
        .zip(from.x.chunks_exact(width))
        .enumerate()
    {
        let from = Minuend { x, ..*from };
        divide_low(t, out, block, &[], &from);
    }
}

/// From words of a rest, residues of one prime, to lazy residues of another one.
struct Centre {
    /// Minus what was added to them, modulo the other one.
    minus: u64,
    /// The same in all lanes.
    minuses: __m512i,
}

impl Centre {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(t: &NttTable, rest: &Rest<'_>) -> Self {
        let m = &t.modulus;
        let minus = m.neg(m.reduce(rest.prime / 2));
        Self {
            minus,
            minuses: _mm512_set1_epi64(minus as i64),
        }
    }

    /// Below the one prime and the other together.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn of(&self, x: __m512i) -> __m512i {
        _mm512_add_epi64(x, self.minuses)
    }
}

/// The first stage for one half of its results, of a rest's words. If `WIDE`, results are below the rest's prime and
/// `(2 s + 3) q`, where `s` is the number of stages before the twist, and no less than `2 s q`: see `fits`.
struct Begin<const ROOM: Room, const HALF: usize> {
    /// Unless `WIDE`, what is added to each word.
    centre: __m512i,
    /// The twiddle; if `WIDE` and for differences, minus it.
    w: Factor,
    /// If `WIDE`, what makes sums of words those of what they stand for, and the stage's offset:
    /// `(a + c) + (b + c) w = a + b w + c (1 + w)`.
    more: __m512i,
}

impl<const ROOM: Room, const HALF: usize> Begin<ROOM, HALF> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(t: &NttTable, s: &Stages, centre: &Centre) -> Self {
        let (m, twiddle) = (&t.modulus, t.forward.words(&t.modulus).front[1]);
        let mut w = broadcast(&twiddle);
        let mut more = s.offset;
        if ROOM == WIDE {
            // Where there is room, twiddles are not in Montgomery form.
            let signed = if HALF == 0 {
                twiddle.a
            } else {
                m.neg(twiddle.a)
            };
            w = splat(m.shoup(signed));
            let both = m.add(centre.minus, m.mul(centre.minus, signed));
            more = _mm512_add_epi64(more, _mm512_set1_epi64(both as i64));
        }
        Self {
            centre: centre.minuses,
            w,
            more,
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn of(&self, s: &Stages, a: __m512i, b: __m512i) -> __m512i {
        if ROOM == WIDE {
            return s.l.shoup_onto(_mm512_add_epi64(a, self.more), b, self.w);
        }
        let (mut a, b) = (
            _mm512_add_epi64(a, self.centre),
            _mm512_add_epi64(b, self.centre),
        );
        if ROOM == SOME {
            a = _mm512_add_epi64(reduce_once(a, s.l.q2), s.q3);
        }
        let both = s.butterfly::<ROOM>(a, b, self.w);
        if HALF == 0 { both.0 } else { both.1 }
    }
}

/// `R + 1` stages of half number `half` of the limb: the first one, and those of that block of it. Rows
/// go to `to.0` and every `to.1` words behind it.
///
/// # Safety
/// `from` has `2^(R + 1)` rows of `2^LOW_LOG` words, and `RUNS = 2^R` of them can be written to `to`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn first<const R: usize, const RUNS: usize, const ROOM: Room>(
    t: &NttTable,
    (from, centre): (&[u64], &Centre),
    half: usize,
    to: (*mut u64, usize),
) {
    // SAFETY: the caller's promise.
    unsafe {
        match half {
            0 => first_of::<R, RUNS, ROOM, 0>(t, (from, centre), to),
            _ => first_of::<R, RUNS, ROOM, 1>(t, (from, centre), to),
        }
    }
}

/// As `first`, for half `HALF`.
///
/// # Safety
/// As for `first`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn first_of<const R: usize, const RUNS: usize, const ROOM: Room, const HALF: usize>(
    t: &NttTable,
    (from, centre): (&[u64], &Centre),
    to: (*mut u64, usize),
) {
    let s = Stages::new(t);
    let begin = Begin::<ROOM, HALF>::new(t, &s, centre);
    let w = twiddles::<R>(t.forward.words(&t.modulus), 2 + HALF);
    let columns = tile_columns(from.len());
    for (tile, words) in from.chunks_exact(2 * RUNS * columns).enumerate() {
        for j in (0..columns).step_by(LANES) {
            let mut v = [s.l.zero; RUNS];
            // SAFETY: the caller's promise, with tile * columns + j + LANES <= 2^LOW_LOG and k < RUNS.
            unsafe {
                for (k, v) in v.iter_mut().enumerate() {
                    let at = words.as_ptr().add(j + k * columns);
                    *v = begin.of(&s, load(at), load(at.add(RUNS * columns)));
                }
                layers::<R, RUNS, ROOM, false>(&s, &mut v, &w);
                for (k, &v) in v.iter().enumerate() {
                    store(to.0.add(tile * columns + j + k * to.1), v);
                }
            }
        }
    }
}

/// As `Difference`, with results elsewhere; `PAST` the caches, to places aligned to 64 bytes.
struct Apart<'a, const PAST: bool> {
    difference: Difference<'a>,
    /// As many words as the block.
    out: *mut u64,
}

/// How many words ahead what is divided, and a result's lines, are fetched.
const AHEAD: usize = 2048;

impl<const PAST: bool> End for Apart<'_, PAST> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    unsafe fn end<const ROOM: Room>(&self, s: &Stages, x: __m512i, at: usize, _here: *mut u64) {
        // SAFETY: the caller's promise; what is divided, and `out`, have as many words as the block.
        unsafe {
            let p = self.difference.x.as_ptr().add(at * LANES);
            let a = load(p);
            // The block fills the first cache, so it waits in the second. It is read once; yet to fetch it past the
            // caches takes half as long again on Intel's servers.
            _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(AHEAD).cast());
            let out = self.out.add(at * LANES);
            let x = self.difference.of::<ROOM>(s, a, x);
            if PAST {
                _mm512_stream_si512(out.cast(), x);
            } else {
                fetch_to_write(out.wrapping_add(AHEAD));
                store(out, x);
            }
        }
    }
}
