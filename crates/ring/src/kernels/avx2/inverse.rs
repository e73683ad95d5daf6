//! The inverse NTT: the forward one's stages backwards, with the same cuts.
//!
//! **Bounds** (units of `q`). A pass of two stages takes `v0 .. v3` to `(v0 + v1) + (v2 + v3)`,
//! `((v0 - v1) w + (v2 - v3) w')`, `((v0 + v1) - (v2 + v3)) w''` and
//! `((v0 - v1) w - (v2 - v3) w') w''`, at these places 0, 1, 2, 3, and reduces the first, for
//! primes above 48 bits also the second. From values of at most 1 (canonical ones are) come then
//! values of at most 1: the first two by their reduction, the third as `1/2 + 4/8`, the fourth as
//! `1/2 + (2 * (1/2 + 2/8)) / 8`. For smaller primes values of at most 2 give at most 2: products
//! of values of at most 8 with `w` are at most `1/2 + 8/32`, and the second is a sum of two of
//! them. The last pass multiplies everything by the factor instead; it may have one stage.

use std::arch::x86_64::*;

use super::forward::{TAIL_GROUPS, TAIL_LOG, broadcast, inner, outer, passes, prefetch_group};
use super::{
    Factor, LANES, Lanes, MIN_LOG, centred, load_group, load_lazy, small, store, store_bits,
    store_group, transpose,
};
use crate::kernels::{Columns, LOW_LOG, scalar};
use crate::modulus::ShoupConst;
use crate::ntt::{InverseScale, NttTable};

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
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
    if small(t) {
        low::<true>(t, out, Some(x), block, c);
    } else {
        low::<false>(t, out, Some(x), block, c);
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn inverse_top(
    t: &NttTable,
    tile: &mut [u64],
    from: &Columns<'_>,
    c: &InverseScale,
) {
    let top = t.log_n.saturating_sub(LOW_LOG);
    if t.log_n < MIN_LOG || !tile.len().is_multiple_of(LANES << top) {
        return scalar::inverse_top(t, tile, from, c);
    }
    scalar::gather(t, tile, from);
    other_stages(t, tile, c);
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
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
    for (b, out) in out.chunks_exact_mut(size).enumerate() {
        let x = x.map(|x| &x[b * size..(b + 1) * size]);
        if small(t) {
            low::<true>(t, out, x, b, c);
        } else {
            low::<false>(t, out, x, b, c);
        }
    }
    other_stages(t, out, c);
}

/// The stages that are not inside blocks of `2^LOW_LOG` words.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
fn other_stages(t: &NttTable, tile: &mut [u64], c: &InverseScale) {
    let top = t.log_n.saturating_sub(LOW_LOG);
    if small(t) {
        inverse_passes::<true>(t, tile, top, 1, c);
    } else {
        inverse_passes::<false>(t, tile, top, 1, c);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn low<const SMALL: bool>(
    t: &NttTable,
    out: &mut [u64],
    x: Option<&[u64]>,
    block: usize,
    c: &InverseScale,
) {
    let len_log = LOW_LOG.min(t.log_n);
    tail::<SMALL>(t, out, x, block << (len_log - TAIL_LOG));
    let index = (1 << (t.log_n - len_log)) + block;
    inverse_passes::<SMALL>(t, out, len_log - TAIL_LOG, index, c);
}

/// The first four stages, two and two (see the forward `tail`), on 16 canonical words at a time, of `x`
/// or of what `out` holds.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tail<const SMALL: bool>(t: &NttTable, out: &mut [u64], x: Option<&[u64]>, first: usize) {
    let l = Lanes::new(&t.modulus);
    let Some(twiddles) = t.inverse.doubles(&t.modulus).tail.get(first..) else {
        return;
    };
    let mut x = x.map(|x| x.as_chunks::<16>().0.iter());
    let parts = out
        .chunks_mut(16 * TAIL_GROUPS)
        .zip(twiddles.chunks(TAIL_GROUPS));
    for (out, twiddles) in parts {
        let out = out.as_chunks_mut::<16>().0;
        for (out, tw) in out.iter_mut().zip(twiddles) {
            prefetch_group(tw);
            let from = x.as_mut().and_then(Iterator::next).unwrap_or(out);
            let v = load_group(from).map(|v| l.double(_mm256_castpd_si256(v)));
            let mut v = transpose(&v);
            layers::<SMALL>(&l, &mut v, &inner(&l, tw));
            store_group(out, &transpose(&v).map(|v| _mm256_castpd_si256(v)));
        }
        for (out, tw) in out.iter_mut().zip(twiddles) {
            let mut v = load_group(out);
            layers::<SMALL>(&l, &mut v, &outer(&l, tw));
            store_group(out, &v.map(|v| _mm256_castpd_si256(v)));
        }
    }
}

/// The `stages` stages before block `index` is whole.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn inverse_passes<const SMALL: bool>(
    t: &NttTable,
    x: &mut [u64],
    stages: u32,
    index: usize,
    c: &InverseScale,
) {
    let (mut index, mut len) = (index << stages, x.len() >> stages);
    for r in passes(stages).rev() {
        index >>= r;
        len <<= r;
        for (i, block) in x.chunks_exact_mut(len.max(1)).enumerate() {
            match (r, index) {
                (1, _) => last_pass::<1>(t, block, c),
                (_, 1) => last_pass::<2>(t, block, c),
                _ => inverse_pass::<SMALL>(t, block, index + i),
            }
        }
    }
}

/// Two stages of one block.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn inverse_pass<const SMALL: bool>(t: &NttTable, x: &mut [u64], index: usize) {
    let l = Lanes::new(&t.modulus);
    let w = broadcast::<2>(&l, t.inverse.doubles(&t.modulus), index);
    let stride = x.len() / 4;
    let p = x.as_mut_ptr();
    for j in (0..stride / LANES * LANES).step_by(LANES) {
        let mut v = [_mm256_setzero_pd(); 4];
        // SAFETY: j + LANES <= stride and r < 4, so all words lie in x.
        unsafe {
            for (r, v) in v.iter_mut().enumerate() {
                *v = load_lazy::<false>(&l, p.add(j + r * stride));
            }
            layers::<SMALL>(&l, &mut v, &w);
            for (r, &v) in v.iter().enumerate() {
                store_bits(p.add(j + r * stride), v);
            }
        }
    }
}

/// The last one or two stages and the factor `c`; canonical words come out.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn last_pass<const R: u32>(t: &NttTable, x: &mut [u64], c: &InverseScale) {
    let l = Lanes::new(&t.modulus);
    let splat = |c: ShoupConst| l.factor(_mm256_set1_pd(centred(&t.modulus, c.w)));
    let (low, high) = (splat(c.low), splat(c.high));
    let w = if R == 2 {
        broadcast::<2>(&l, t.inverse.doubles(&t.modulus), 1)
    } else {
        [low; 3]
    };
    let stride = x.len() >> R;
    let p = x.as_mut_ptr();
    for j in (0..stride / LANES * LANES).step_by(LANES) {
        let mut v = [_mm256_setzero_pd(); 4];
        // SAFETY: j + LANES <= stride and r < 2^R, so all words lie in x.
        unsafe {
            for (r, v) in v.iter_mut().enumerate().take(1 << R) {
                *v = load_lazy::<false>(&l, p.add(j + r * stride));
            }
            // Values of at most 2, and of at most 1 for large primes, so that what is multiplied
            // is at most 8, or 4.
            if R == 2 {
                (v[0], v[1]) = butterfly(&l, v[0], v[1], w[1]);
                (v[2], v[3]) = butterfly(&l, v[2], v[3], w[2]);
            }
            let half = 1usize << (R - 1);
            for k in 0..half {
                let (a, b) = (v[k], v[k + half]);
                v[k] = l.times(_mm256_add_pd(a, b), low);
                v[k + half] = l.times(_mm256_sub_pd(a, b), high);
            }
            for (r, &v) in v.iter().enumerate().take(1 << R) {
                store(p.add(j + r * stride), l.canonical(v));
            }
        }
    }
}

/// Gentleman-Sande: `(a, b) -> (a + b, (a - b) w)`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn butterfly(l: &Lanes, a: __m256d, b: __m256d, w: Factor) -> (__m256d, __m256d) {
    (_mm256_add_pd(a, b), l.times(_mm256_sub_pd(a, b), w))
}

/// Two stages on registers.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn layers<const SMALL: bool>(l: &Lanes, v: &mut [__m256d; 4], w: &[Factor; 3]) {
    (v[0], v[1]) = butterfly(l, v[0], v[1], w[1]);
    (v[2], v[3]) = butterfly(l, v[2], v[3], w[2]);
    (v[0], v[2]) = butterfly(l, v[0], v[2], w[0]);
    (v[1], v[3]) = butterfly(l, v[1], v[3], w[0]);
    v[0] = l.reduce(v[0]);
    if !SMALL {
        v[1] = l.reduce(v[1]);
    }
}
