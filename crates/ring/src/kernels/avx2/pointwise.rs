//! Element-wise kernels and permutations.

use std::arch::x86_64::*;

use super::packed::Unpack;
use super::{Factor, LANES, Lanes, centred, load, select_negative, store, store_to};
use crate::kernels::{Keep, Packed, PermutationPiece, TERMS, packed_width, scalar};
use crate::modulus::{Modulus, ShoupConst};

/// Defines an element-wise kernel: `out` and other slices of equal length, a vector body, and the
/// scalar kernel for the rest.
macro_rules! elementwise {
    ($name:ident ($($arg:ident: $ty:ty),*) ($($src:ident),*) |$m:ident, $l:ident, $o:ident $(, $v:ident)*| $setup:stmt; $body:expr) => {
        #[target_feature(enable = "avx2,bmi1,bmi2,fma")]
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
        #[target_feature(enable = "avx2,bmi1,bmi2,fma")]
        pub(in crate::kernels) fn $name($m: &Modulus, out: &mut [u64], x: &[u64], y: &[u64], past: bool) {
            let n = out.len().min(x.len()).min(y.len());
            let whole = n - n % LANES;
            // Two vectors make a line: past the caches goes what fills whole ones.
            let past = past && out.as_ptr().addr().is_multiple_of(64);
            let $l = Lanes::new($m);
            $setup
            let mut j = 0;
            while j < whole {
                // SAFETY: j + LANES <= whole, which is at most the length of every slice; vectors are aligned if
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

/// A constant factor in all lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn splat(m: &Modulus, l: &Lanes, c: u64) -> Factor {
    l.factor(_mm256_set1_pd(centred(m, c)))
}

/// What a product with an operand in Montgomery form lacks: `2^-52 mod q`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn leave(m: &Modulus, l: &Lanes) -> Factor {
    splat(m, l, m.leave_mont(1))
}

/// The product of two canonical words, below `3/4` of `q` in absolute value.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn product(l: &Lanes, a: __m256i, b: __m256i) -> __m256d {
    l.mul(l.double(a), l.double(b))
}

elementwise!(add () (y) |m, l, o, a| (); l.add(o, a));
elementwise!(sub () (y) |m, l, o, a| (); l.sub(o, a));
elementwise!(neg () () |m, l, o| (); l.sub(_mm256_setzero_si256(), o));
elementwise_apart!(sum |m, l, a, b| (); l.add(a, b));
elementwise_apart!(difference |m, l, a, b| (); l.sub(a, b));
elementwise!(add_const (c: u64) () |m, l, o| let w = _mm256_set1_epi64x(c as i64); l.add(o, w));
elementwise!(sum_const (c: u64) (x) |m, l, _o, a| let w = _mm256_set1_epi64x(c as i64); l.add(a, w));
elementwise!(mul_const (c: ShoupConst) (x) |m, l, _o, a| let w = splat(m, &l, c.w);
    l.canonical(l.times(l.double(a), w)));
elementwise!(mul_const_acc (c: ShoupConst) (x) |m, l, o, a| let w = splat(m, &l, c.w);
    l.add(o, l.canonical(l.times(l.double(a), w))));
elementwise!(scale (c: ShoupConst) () |m, l, o| let w = splat(m, &l, c.w);
    l.canonical(l.times(l.double(o), w)));
// The difference is a signed word above -q and below q, which a double takes as it is.
elementwise!(sub_from_scaled (c: ShoupConst) (x) |m, l, o, a| let w = splat(m, &l, c.w);
    l.canonical(l.times(l.double(_mm256_sub_epi64(a, o)), w)));
elementwise_apart!(mul |m, l, a, b| (); l.canonical(product(&l, a, b)));
elementwise!(mul_acc () (x, y) |m, l, o, a, b| (); l.add(o, l.canonical(product(&l, a, b))));

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn sum_mont(
    m: &Modulus,
    out: &mut [u64],
    x: &[u64],
    y: Packed<'_>,
    past: bool,
) {
    let n = out.len();
    if !n.is_multiple_of(8) || x.len() < n || !y.covers(m, n) {
        return scalar::sum_mont(m, out, x, y, past);
    }
    let past = past && out.as_ptr().addr().is_multiple_of(64);
    // SAFETY: the lengths were checked.
    unsafe {
        match packed_width(m).is_multiple_of(8) {
            true => sum_of::<true>(m, out, x, y, past),
            false => sum_of::<false>(m, out, x, y, past),
        }
    }
}

/// The sum; `WHOLE` as for [`Unpack::at`].
///
/// # Safety
/// All have as many words as the output, a multiple of eight.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn sum_of<const WHOLE: bool>(
    m: &Modulus,
    out: &mut [u64],
    x: &[u64],
    y: Packed<'_>,
    past: bool,
) {
    let (l, unpack) = (Lanes::new(m), Unpack::new(m));
    let w = leave(m, &l);
    for j in (0..out.len()).step_by(8) {
        // SAFETY: the caller's promise; vectors are aligned if they go past.
        unsafe {
            for (y, j) in unpack.eight::<WHOLE>(y, j).into_iter().zip([j, j + LANES]) {
                let y = l.canonical(l.times(l.double(y), w));
                let sum = l.add(load(x.as_ptr().add(j)), y);
                store_to(out.as_mut_ptr().add(j), sum, past);
            }
        }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn mul_mont(
    m: &Modulus,
    out: &mut [u64],
    terms: &[(&[u64], Packed<'_>)],
    keep: Keep,
) {
    let n = out.len();
    let short = |&(x, y): &(&[u64], Packed<'_>)| x.len() < n || !y.covers(m, n);
    if !n.is_multiple_of(8) || terms.iter().any(short) {
        return scalar::mul_mont(m, out, terms, keep);
    }
    // SAFETY: the lengths were checked.
    unsafe {
        match packed_width(m).is_multiple_of(8) {
            true => some_products::<true>(m, out, terms, keep),
            false => some_products::<false>(m, out, terms, keep),
        }
    }
}

/// The sums of products; `WHOLE` as for [`Unpack::at`].
///
/// # Safety
/// As for [`few_products`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn some_products<const WHOLE: bool>(
    m: &Modulus,
    out: &mut [u64],
    terms: &[(&[u64], Packed<'_>)],
    keep: Keep,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match *terms {
            [a] => few_products::<1, WHOLE>(m, out, [a], keep),
            [a, b] => few_products::<2, WHOLE>(m, out, [a, b], keep),
            [a, b, c] => few_products::<3, WHOLE>(m, out, [a, b, c], keep),
            [a, b, c, d] => few_products::<4, WHOLE>(m, out, [a, b, c, d], keep),
            _ => scalar::mul_mont(m, out, terms, keep),
        }
    }
}

/// The sums of products, which leave Montgomery form once: each product is at most `3/4` of q, four are less than the
/// `4 q` that [`Lanes::times`] takes. `WHOLE` as for [`Unpack::at`].
///
/// # Safety
/// All terms have as many words as the output, a multiple of eight.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn few_products<const T: usize, const WHOLE: bool>(
    m: &Modulus,
    out: &mut [u64],
    terms: [(&[u64], Packed<'_>); T],
    keep: Keep,
) {
    const { assert!(T <= TERMS && TERMS <= 4) };
    let past = keep == Keep::Past && out.as_ptr().addr().is_multiple_of(64);
    let (l, unpack) = (Lanes::new(m), Unpack::new(m));
    let w = leave(m, &l);
    for j in (0..out.len()).step_by(8) {
        let mut sums = [_mm256_setzero_pd(); 2];
        // SAFETY: the caller's promise; vectors are aligned if they go past.
        unsafe {
            for (x, y) in terms {
                let y = unpack.eight::<WHOLE>(y, j);
                for k in 0..2 {
                    let x = load(x.as_ptr().add(j + k * LANES));
                    sums[k] = _mm256_add_pd(sums[k], product(&l, x, y[k]));
                }
            }
            for (k, sum) in sums.into_iter().enumerate() {
                let to = out.as_mut_ptr().add(j + k * LANES);
                let value = l.canonical(l.times(sum, w));
                match keep {
                    Keep::Added => store(to, l.add(load(to), value)),
                    _ => store_to(to, value, past),
                }
            }
        }
    }
}

/// A lane order of eight words in two vectors, for each half of the result.
#[derive(Clone, Copy)]
pub(super) struct Order {
    /// Which word of a half, as its two 32-bit parts.
    word: [__m256i; 2],
    /// Negative where the word comes from the upper half.
    upper: [__m256i; 2],
}

impl Order {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(lanes: &[u64; 8]) -> Self {
        // SAFETY: four words from 0 and four from 4.
        let halves = unsafe { [load(lanes.as_ptr()), load(lanes.as_ptr().add(4))] };
        Self {
            word: halves.map(|lane| {
                let even = _mm256_slli_epi64::<1>(_mm256_and_si256(lane, _mm256_set1_epi64x(3)));
                let both = _mm256_or_si256(even, _mm256_slli_epi64::<32>(even));
                _mm256_or_si256(both, _mm256_set1_epi64x(1 << 32))
            }),
            upper: halves.map(|lane| _mm256_slli_epi64::<61>(lane)),
        }
    }

    /// Those of a permutation.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn all(p: &PermutationPiece<'_>) -> [Self; 8] {
        std::array::from_fn(|i| Self::new(&p.lanes[i]))
    }

    /// The words of `x` in this order.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn apply(&self, x: [__m256i; 2]) -> [__m256i; 2] {
        [self.half::<0>(x), self.half::<1>(x)]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn half<const HALF: usize>(&self, x: [__m256i; 2]) -> __m256i {
        let low = _mm256_permutevar8x32_epi32(x[0], self.word[HALF]);
        let high = _mm256_permutevar8x32_epi32(x[1], self.word[HALF]);
        select_negative(self.upper[HALF], high, low)
    }
}

/// `combine(old, new)` of every block of eight. Meanwhile `ahead` is fetched.
#[inline]
#[target_feature(enable = "avx2")]
fn permute_with(
    out: &mut [u64],
    (x, ahead): (&[u64], &[u64]),
    p: &PermutationPiece<'_>,
    combine: impl Fn(__m256i, __m256i) -> __m256i,
) {
    let orders = Order::all(p);
    let mut ahead = ahead.as_chunks::<8>().0.iter();
    for (o, &b) in out.as_chunks_mut::<8>().0.iter_mut().zip(p.blocks) {
        if let Some(line) = ahead.next() {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
        let source = ((b >> 3) as usize).wrapping_sub(p.base);
        let Some(src) = x.as_chunks::<8>().0.get(source) else {
            return;
        };
        let (src, o) = (src.as_ptr(), o.as_mut_ptr());
        // SAFETY: both chunks have eight words.
        unsafe {
            let v = orders[(b & 7) as usize].apply([load(src), load(src.add(4))]);
            store(o, combine(load(o), v[0]));
            store(o.add(4), combine(load(o.add(4)), v[1]));
        }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
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

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn permute(
    out: &mut [u64],
    x: &[u64],
    p: &PermutationPiece<'_>,
    ahead: &[u64],
    _past: bool,
) {
    permute_with(out, (x, ahead), p, |_, new| new);
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn permute_acc(
    m: &Modulus,
    out: &mut [u64],
    x: &[u64],
    p: &PermutationPiece<'_>,
) {
    let l = Lanes::new(m);
    permute_with(out, (x, &[]), p, |old, new| l.add(old, new));
}

/// `out = (x - out) c` with `x` in another order.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn permute_sub_scaled(
    m: &Modulus,
    out: &mut [u64],
    (x, order): (&[u64], &PermutationPiece<'_>),
    c: ShoupConst,
) {
    let l = Lanes::new(m);
    let w = splat(m, &l, c.w);
    permute_with(out, (x, &[]), order, |old, new| {
        l.canonical(l.times(l.double(_mm256_sub_epi64(new, old)), w))
    });
}
