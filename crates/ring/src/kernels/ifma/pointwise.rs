//! Element-wise kernels and permutations.

use std::arch::x86_64::*;

use super::packed::Unpack;
use super::{LANES, Lanes, load, montgomery, reduce_once, splat, store, store_to};
use crate::kernels::{Keep, Packed, PermutationPiece, TERMS, packed_width, scalar};
use crate::modulus::{Modulus, ShoupConst};

/// Defines an element-wise kernel: `out` and other slices of equal length, a vector body, and the
/// scalar kernel for the rest.
macro_rules! elementwise {
    ($name:ident ($($arg:ident: $ty:ty),*) ($($src:ident),*) |$m:ident, $l:ident, $o:ident $(, $v:ident)*| $setup:stmt; $body:expr) => {
        #[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
        pub(in crate::kernels) fn $name($m: &Modulus, out: &mut [u64] $(, $src: &[u64])* $(, $arg: $ty)*) {
            let n = out.len() $(.min($src.len()))*;
            let whole = n - n % LANES;
            let $l = Lanes::new($m);
            $setup
            let mut j = 0;
            while j < whole {
                // SAFETY: j + LANES <= whole, which is at most the length of every slice.
                unsafe {
                    let p = out.as_mut_ptr().add(j);
                    let $o = load(p);
                    $(let $v = load($src.as_ptr().add(j));)*
                    store(p, $body);
                }
                j += LANES;
            }
            if whole < n {
                scalar::$name($m, &mut out[whole..n] $(, &$src[whole..n])* $(, $arg)*);
            }
        }
    };
}

/// The same for a kernel of two slices that reads nothing of `out`, and may write past the caches.
macro_rules! elementwise_apart {
    ($name:ident |$m:ident, $l:ident, $a:ident, $b:ident| $setup:stmt; $body:expr) => {
        #[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
        pub(in crate::kernels) fn $name($m: &Modulus, out: &mut [u64], x: &[u64], y: &[u64], past: bool) {
            let n = out.len().min(x.len()).min(y.len());
            let whole = n - n % LANES;
            let past = past && out.as_ptr().addr().is_multiple_of(64);
            let $l = Lanes::new($m);
            $setup
            let mut j = 0;
            while j < whole {
                // SAFETY: j + LANES <= whole, which is at most the length of every slice; lines are aligned if
                // they go past.
                unsafe {
                    let ($a, $b) = (load(x.as_ptr().add(j)), load(y.as_ptr().add(j)));
                    store_to(out.as_mut_ptr().add(j), $body, past);
                }
                j += LANES;
            }
            if whole < n {
                scalar::$name($m, &mut out[whole..n], &x[whole..n], &y[whole..n], past);
            }
        }
    };
}

elementwise!(add () (y) |m, l, o, a| (); l.add(o, a));
elementwise!(sub () (y) |m, l, o, a| (); l.sub(o, a));
elementwise!(neg () () |m, l, o| (); l.sub(l.zero, o));
elementwise!(mul_const (c: ShoupConst) (x) |m, l, _o, a| let (w, quot) = splat(c); l.shoup(a, w, quot));
elementwise!(mul_const_acc (c: ShoupConst) (x) |m, l, o, a| let (w, quot) = splat(c);
    l.add(o, l.shoup(a, w, quot)));
elementwise!(scale (c: ShoupConst) () |m, l, o| let (w, quot) = splat(c); l.shoup(o, w, quot));
elementwise_apart!(sum |m, l, a, b| (); l.add(a, b));
elementwise_apart!(difference |m, l, a, b| (); l.sub(a, b));
elementwise!(add_const (c: u64) () |m, l, o| let w = _mm512_set1_epi64(c as i64); l.add(o, w));
elementwise!(sum_const (c: u64) (x) |m, l, _o, a| let w = _mm512_set1_epi64(c as i64); l.add(a, w));
elementwise!(sub_from_scaled (c: ShoupConst) (x) |m, l, o, a| let (w, quot) = splat(c);
    // Any value below 2^52 may enter the product: x + q - out needs no reduction.
    l.shoup(_mm512_sub_epi64(_mm512_add_epi64(a, l.q), o), w, quot));
elementwise_apart!(mul |m, l, a, b|
    let (inv, r1) = (_mm512_set1_epi64(m.inv52() as i64), splat(m.mont_one()));
    mont_product(&l, inv, l.shoup_lazy(a, r1.0, r1.1), b));
elementwise!(mul_acc () (x, y) |m, l, o, a, b|
    let (inv, r1) = (_mm512_set1_epi64(m.inv52() as i64), splat(m.mont_one()));
    l.add(o, mont_product(&l, inv, l.shoup_lazy(a, r1.0, r1.1), b)));

/// `a * b * 2^-52`, canonical, for `a < 2q` and canonical `b`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn mont_product(l: &Lanes, inv: __m512i, a: __m512i, b: __m512i) -> __m512i {
    let lo = _mm512_madd52lo_epu64(l.zero, a, b);
    let hi = _mm512_madd52hi_epu64(l.zero, a, b);
    // a b < 2 q^2 < 2^51 q: the reduced value is below 2q.
    reduce_once(montgomery(l, inv, lo, hi), l.q)
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma,avx512vbmi")]
pub(in crate::kernels) fn sum_mont(
    m: &Modulus,
    out: &mut [u64],
    x: &[u64],
    y: Packed<'_>,
    past: bool,
) {
    let n = out.len();
    if !n.is_multiple_of(LANES) || x.len() < n || !y.covers(m, n) {
        return scalar::sum_mont(m, out, x, y, past);
    }
    let past = past && out.as_ptr().addr().is_multiple_of(64);
    // SAFETY: the lengths were checked.
    unsafe {
        match packed_width(m).is_multiple_of(8) {
            true => sum_of::<false>(m, out, x, y, past),
            false => sum_of::<true>(m, out, x, y, past),
        }
    }
}

/// The sum; `HALF` as for [`Unpack::at`].
///
/// # Safety
/// All have as many words as the output, a multiple of eight.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma,avx512vbmi")]
unsafe fn sum_of<const HALF: bool>(
    m: &Modulus,
    out: &mut [u64],
    x: &[u64],
    y: Packed<'_>,
    past: bool,
) {
    let (l, unpack) = (Lanes::new(m), Unpack::new(m));
    let inv = _mm512_set1_epi64(m.inv52() as i64);
    for j in (0..out.len()).step_by(LANES) {
        // SAFETY: the caller's promise; lines are aligned if they go past.
        unsafe {
            // No multiply-add leaves out what stands above the words here.
            let y = _mm512_and_si512(unpack.columns::<HALF>(y, j), l.mask);
            let y = montgomery(&l, inv, y, l.zero);
            let sum = l.add(load(x.as_ptr().add(j)), reduce_once(y, l.q));
            store_to(out.as_mut_ptr().add(j), sum, past);
        }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma,avx512vbmi")]
pub(in crate::kernels) fn mul_mont(
    m: &Modulus,
    out: &mut [u64],
    terms: &[(&[u64], Packed<'_>)],
    keep: Keep,
) {
    let n = out.len();
    let short = |&(x, y): &(&[u64], Packed<'_>)| x.len() < n || !y.covers(m, n);
    if !n.is_multiple_of(VECTORS * LANES) || terms.iter().any(short) {
        return scalar::mul_mont(m, out, terms, keep);
    }
    // SAFETY: the lengths were checked.
    unsafe {
        match packed_width(m).is_multiple_of(8) {
            true => some_products::<false>(m, out, terms, keep),
            false => some_products::<true>(m, out, terms, keep),
        }
    }
}

/// The sums of products; `HALF` as for [`Unpack::at`].
///
/// # Safety
/// As for [`few_products`].
#[inline]
#[target_feature(enable = "avx512f,avx512ifma,avx512vbmi")]
unsafe fn some_products<const HALF: bool>(
    m: &Modulus,
    out: &mut [u64],
    terms: &[(&[u64], Packed<'_>)],
    keep: Keep,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match *terms {
            [a] => few_products::<1, HALF>(m, out, [a], keep),
            [a, b] => few_products::<2, HALF>(m, out, [a, b], keep),
            [a, b, c] => few_products::<3, HALF>(m, out, [a, b, c], keep),
            [a, b, c, d] => few_products::<4, HALF>(m, out, [a, b, c, d], keep),
            _ => scalar::mul_mont(m, out, terms, keep),
        }
    }
}

/// Vectors of results that `few_products` works on at a time.
const VECTORS: usize = 2;

/// The sums of products, reduced once: of at most four products of canonical words the high half is below q, as
/// `4 q < 2^52`. `HALF` as for [`Unpack::at`].
///
/// # Safety
/// The output is a multiple of `VECTORS * LANES` words long, and all terms are no shorter.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma,avx512vbmi")]
unsafe fn few_products<const T: usize, const HALF: bool>(
    m: &Modulus,
    out: &mut [u64],
    terms: [(&[u64], Packed<'_>); T],
    keep: Keep,
) {
    const { assert!(T <= TERMS && TERMS <= 4) };
    let (l, unpack) = (Lanes::new(m), Unpack::new(m));
    let inv = _mm512_set1_epi64(m.inv52() as i64);
    let past = keep == Keep::Past && out.as_ptr().addr().is_multiple_of(64);
    for j in (0..out.len()).step_by(VECTORS * LANES) {
        let (mut lo, mut hi) = ([l.zero; VECTORS], [l.zero; VECTORS]);
        for (x, y) in terms {
            for k in 0..VECTORS {
                let at = j + k * LANES;
                // SAFETY: the caller's promise, with at + LANES <= out.len().
                let (x, y) = unsafe { (load(x.as_ptr().add(at)), unpack.columns::<HALF>(y, at)) };
                lo[k] = _mm512_madd52lo_epu64(lo[k], x, y);
                hi[k] = _mm512_madd52hi_epu64(hi[k], x, y);
            }
        }
        for k in 0..VECTORS {
            let sum = reduce_once(montgomery(&l, inv, lo[k], hi[k]), l.q);
            // SAFETY: the same; lines are aligned if they go past.
            unsafe {
                let to = out.as_mut_ptr().add(j + k * LANES);
                match keep {
                    Keep::Added => store(to, l.add(load(to), sum)),
                    _ => store_to(to, sum, past),
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn copy(out: &mut [u64], x: &[u64], ahead: &[u64]) {
    let mut ahead = ahead.as_chunks::<8>().0.iter();
    let ((out, out_rest), (x, x_rest)) = (out.as_chunks_mut::<8>(), x.as_chunks::<8>());
    for (out, x) in out.iter_mut().zip(x) {
        if let Some(line) = ahead.next() {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
        *out = *x;
    }
    scalar::copy(out_rest, x_rest, &[]);
}

/// Words past the last whole vector are left to scalar code.
#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn spread(out: &mut [u64], x: &[u64]) {
    let run = out.len() / x.len().max(1);
    if run != 2 && run != 4 {
        return scalar::spread(out, x);
    }
    let lane = |vector: usize, lane: usize| ((vector * LANES + lane) / run) as i64;
    let mut orders = [_mm512_setzero_si512(); 4];
    for (vector, order) in orders.iter_mut().enumerate() {
        let lanes: [i64; LANES] = std::array::from_fn(|i| lane(vector, i) % LANES as i64);
        // SAFETY: eight words.
        *order = unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) };
    }
    let (whole, rest) = x.as_chunks::<LANES>();
    let (vectors, others) = out.split_at_mut(whole.len() * LANES * run);
    let vectors = vectors.as_chunks_mut::<LANES>().0.chunks_exact_mut(run);
    for (outs, x) in vectors.zip(whole) {
        // SAFETY: chunks have eight words.
        unsafe {
            let x = load(x.as_ptr());
            for (out, order) in outs.iter_mut().zip(orders) {
                store(out.as_mut_ptr(), _mm512_permutexvar_epi64(order, x));
            }
        }
    }
    scalar::spread(others, rest);
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn permute(
    out: &mut [u64],
    x: &[u64],
    p: &PermutationPiece<'_>,
    ahead: &[u64],
    past: bool,
) {
    let past = past && out.as_ptr().addr().is_multiple_of(64);
    let orders = lane_orders(p);
    let mut ahead = ahead.as_chunks::<LANES>().0.iter();
    for (o, &b) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(p.blocks) {
        if let Some(line) = ahead.next() {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
        let source = ((b >> 3) as usize).wrapping_sub(p.base);
        let Some(src) = x.as_chunks::<LANES>().0.get(source) else {
            return;
        };
        // SAFETY: a chunk has eight words.
        unsafe {
            let v = load(src.as_ptr());
            let v = _mm512_permutexvar_epi64(orders[(b & 7) as usize], v);
            store_to(o.as_mut_ptr(), v, past);
        }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma")]
pub(in crate::kernels) fn permute_acc(
    m: &Modulus,
    out: &mut [u64],
    x: &[u64],
    p: &PermutationPiece<'_>,
) {
    let orders = lane_orders(p);
    let l = Lanes::new(m);
    for (o, &b) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(p.blocks) {
        let source = ((b >> 3) as usize).wrapping_sub(p.base);
        let Some(src) = x.as_chunks::<LANES>().0.get(source) else {
            return;
        };
        // SAFETY: a chunk has eight words.
        unsafe {
            let v = _mm512_permutexvar_epi64(orders[(b & 7) as usize], load(src.as_ptr()));
            store(o.as_mut_ptr(), l.add(load(o.as_ptr()), v));
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn lane_orders(p: &PermutationPiece<'_>) -> [__m512i; 8] {
    let mut orders = [_mm512_setzero_si512(); 8];
    for (o, lanes) in orders.iter_mut().zip(p.lanes) {
        // SAFETY: eight words.
        *o = unsafe { load(lanes.as_ptr()) };
    }
    orders
}
