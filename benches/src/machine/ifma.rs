//! Register loops with AVX-512 IFMA: what the ports do when nothing comes from memory.
//!
//! Every loop works on independent chains of vectors, so many that throughput counts and not
//! latency; each step's input is the step before, so nothing can be left out. All work on 52-bit
//! words in 512-bit vectors.

use std::arch::x86_64::*;

/// Chains of most loops.
pub(super) const CHAINS: usize = 8;
/// Chains of the loops in which a step is a long chain itself.
pub(super) const MANY: usize = 16;
/// Pairs of chains of butterflies: as many as the registers hold. Eight pairs take a tenth longer.
pub(super) const BUTTERFLIES: usize = 12;
/// Residues per vector.
pub(super) const LANES: usize = 8;

#[target_feature(enable = "avx512f")]
fn start<const COUNT: usize>(seed: u64) -> [__m512i; COUNT] {
    std::array::from_fn(|k| _mm512_set1_epi64((seed >> 20) as i64 + k as i64))
}

#[target_feature(enable = "avx512f")]
fn fold<const COUNT: usize>(x: [__m512i; COUNT]) -> u64 {
    x.iter()
        .fold(0, |sum, v| sum ^ _mm512_reduce_add_epi64(*v) as u64)
}

/// Butterflies `(x + w y, x - w y)` of Cooley and Tukey on lazy residues (Harvey, "Faster arithmetic for
/// number-theoretic transforms", 2014), with a constant whose quotient is known. Primes of 45 bits leave 7
/// bits of a word free, so sums grow through several stages before they are reduced, and multiply-adds, which read
/// 52 bits only, need no mask between them; the reduction is not counted. 5 instructions beside a cleared register;
/// by Montgomery's reduction, and those of Gentleman and Sande, are 6: this bounds both directions.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
pub(super) fn butterfly(iterations: usize, seed: u64) -> u64 {
    let (mut x, mut y): ([_; BUTTERFLIES], [_; BUTTERFLIES]) = (start(seed), start(!seed));
    let [w, quotient, minus_q] = start(seed ^ 0x1234_5678_9abc);
    let zero = _mm512_setzero_si512();
    for _ in 0..iterations {
        for (x, y) in x.iter_mut().zip(&mut y) {
            let high = _mm512_madd52hi_epu64(zero, *y, quotient);
            let low = _mm512_madd52lo_epu64(*x, *y, w);
            let sum = _mm512_madd52lo_epu64(low, high, minus_q);
            *y = _mm512_sub_epi64(_mm512_add_epi64(*x, *x), sum);
            *x = sum;
        }
    }
    fold(x) ^ fold(y)
}

/// Canonical products with a constant: quotient, two low products, mask, conditional subtraction.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
pub(super) fn multiply(iterations: usize, seed: u64) -> u64 {
    let mut x: [_; MANY] = start(seed);
    let [w, quotient, minus_q, q] = start(seed ^ 0x1234_5678_9abc);
    let mask = _mm512_set1_epi64((1 << 52) - 1);
    let zero = _mm512_setzero_si512();
    for _ in 0..iterations {
        for x in &mut x {
            let hi = _mm512_madd52hi_epu64(zero, *x, quotient);
            let lo = _mm512_madd52lo_epu64(zero, *x, w);
            let t = _mm512_and_si512(_mm512_madd52lo_epu64(lo, hi, minus_q), mask);
            *x = _mm512_min_epu64(t, _mm512_sub_epi64(t, q));
        }
    }
    fold(x)
}

/// Products added to a low and a high sum, which are reduced once at the end: two instructions.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
pub(super) fn multiply_accumulate(iterations: usize, seed: u64) -> u64 {
    let (mut low, mut high): ([_; CHAINS], [_; CHAINS]) = (start(seed), start(!seed));
    let [a, b] = start(seed ^ 0x1234_5678_9abc);
    for _ in 0..iterations {
        for k in 0..CHAINS {
            low[k] = _mm512_madd52lo_epu64(low[k], a, b);
            high[k] = _mm512_madd52hi_epu64(high[k], a, b);
        }
    }
    fold(low) ^ fold(high)
}

/// Montgomery reductions of a low and a high sum to a canonical residue: carry, quotient, product,
/// difference, conditional subtraction.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
pub(super) fn reduce(iterations: usize, seed: u64) -> u64 {
    let mut x: [_; MANY] = start(seed);
    let [inverse, q, high] = start(seed ^ 0x1234_5678_9abc);
    let zero = _mm512_setzero_si512();
    for _ in 0..iterations {
        for x in &mut x {
            let carried = _mm512_add_epi64(high, _mm512_srli_epi64::<52>(*x));
            let m = _mm512_madd52lo_epu64(zero, *x, inverse);
            let t = _mm512_sub_epi64(carried, _mm512_madd52hi_epu64(zero, m, q));
            *x = _mm512_min_epu64(t, _mm512_add_epi64(t, q));
        }
    }
    fold(x)
}

/// Canonical sums: add, subtract, minimum.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
pub(super) fn add(iterations: usize, seed: u64) -> u64 {
    let mut x: [_; CHAINS] = start(seed);
    let [y, q] = start(seed ^ 0x1234_5678_9abc);
    for _ in 0..iterations {
        for x in &mut x {
            let sum = _mm512_add_epi64(*x, y);
            *x = _mm512_min_epu64(sum, _mm512_sub_epi64(sum, q));
        }
    }
    fold(x)
}

/// Butterflies of a complex transform in double precision, real and imaginary parts apart.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
pub(super) fn complex_butterfly(iterations: usize, seed: u64) -> u64 {
    const PAIRS: usize = CHAINS / 2;
    let first = |k: usize| _mm512_set1_pd((seed >> 60) as f64 + k as f64);
    let mut x: [[__m512d; 2]; PAIRS] = std::array::from_fn(|k| [first(k), first(k + 1)]);
    let mut y = x;
    let (re, im) = (first(1), first(2));
    for _ in 0..iterations {
        for k in 0..PAIRS {
            let ([xr, xi], [yr, yi]) = (x[k], y[k]);
            let tr = _mm512_fmsub_pd(yr, re, _mm512_mul_pd(yi, im));
            let ti = _mm512_fmadd_pd(yr, im, _mm512_mul_pd(yi, re));
            x[k] = [_mm512_add_pd(xr, tr), _mm512_add_pd(xi, ti)];
            y[k] = [_mm512_sub_pd(xr, tr), _mm512_sub_pd(xi, ti)];
        }
    }
    let sum = |v: [[__m512d; 2]; PAIRS]| {
        v.iter()
            .flatten()
            .fold(0.0, |s, v| s + _mm512_reduce_add_pd(*v))
    };
    (sum(x) + sum(y)).to_bits()
}

/// Steps of a random generator: the function G of BLAKE3 (as in ChaCha, with two message words) on
/// sixteen blocks at a time. 14 instructions.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
pub(super) fn mix(iterations: usize, seed: u64) -> u64 {
    let [mut a, mut b]: [[_; 4]; 2] = [start(seed), start(!seed)];
    let [mut c, mut d]: [[_; 4]; 2] = [start(seed << 1), start(!seed << 1)];
    let [m0, m1] = start(seed ^ 0x1234_5678_9abc);
    // Four columns are independent of each other.
    for _ in 0..iterations {
        for k in 0..4 {
            a[k] = _mm512_add_epi32(_mm512_add_epi32(a[k], b[k]), m0);
            d[k] = _mm512_ror_epi32::<16>(_mm512_xor_si512(d[k], a[k]));
            c[k] = _mm512_add_epi32(c[k], d[k]);
            b[k] = _mm512_ror_epi32::<12>(_mm512_xor_si512(b[k], c[k]));
            a[k] = _mm512_add_epi32(_mm512_add_epi32(a[k], b[k]), m1);
            d[k] = _mm512_ror_epi32::<8>(_mm512_xor_si512(d[k], a[k]));
            c[k] = _mm512_add_epi32(c[k], d[k]);
            b[k] = _mm512_ror_epi32::<7>(_mm512_xor_si512(b[k], c[k]));
        }
    }
    fold(a) ^ fold(b) ^ fold(c) ^ fold(d)
}

/// Words of a uniform half: blocks of AES-128 by four, of which multiply-adds read 52 bits of each half. Ten
/// rounds, a sum with the first key: 11 instructions for eight words.
#[target_feature(enable = "avx512f,vaes")]
pub(super) fn encrypt(iterations: usize, seed: u64) -> u64 {
    let mut x: [_; CHAINS] = start(seed);
    let [key] = start(!seed);
    for _ in 0..iterations {
        for x in &mut x {
            *x = _mm512_xor_si512(*x, key);
        }
        for _ in 1..10 {
            for x in &mut x {
                *x = _mm512_aesenc_epi128(*x, key);
            }
        }
        for x in &mut x {
            *x = _mm512_aesenclast_epi128(*x, key);
        }
    }
    fold(x)
}

/// Reads `words` and gives a sum.
#[target_feature(enable = "avx512f")]
pub(super) fn read(words: &[u64]) -> u64 {
    let mut sums: [_; CHAINS] = start(0);
    let (blocks, _) = words.as_chunks::<{ CHAINS * LANES }>();
    for block in blocks {
        for (k, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `k * LANES + LANES` is at most the length of the block; the load needs no
            // alignment.
            let v = unsafe { _mm512_loadu_si512(block.as_ptr().add(k * LANES).cast()) };
            *sum = _mm512_xor_si512(*sum, v);
        }
    }
    fold(sums)
}

/// Brings `words` into the first cache.
#[target_feature(enable = "avx512f")]
pub(super) fn fetch(words: &[u64]) {
    for line in words.chunks(8) {
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
    }
}

/// Writes `value` to all of `words`; around the caches if `stream` (then the words are aligned to
/// 64 bytes).
#[target_feature(enable = "avx512f")]
pub(super) fn write(words: &mut [u64], value: u64, stream: bool) {
    let v = _mm512_set1_epi64(value as i64);
    for block in words.as_chunks_mut::<LANES>().0 {
        let at = block.as_mut_ptr();
        // SAFETY: the block has room for one vector. A streaming store needs an aligned address,
        // which is looked at first.
        unsafe {
            if stream && (at as usize).is_multiple_of(64) {
                _mm512_stream_si512(at.cast(), v);
            } else {
                _mm512_storeu_si512(at.cast(), v);
            }
        }
    }
}

/// Inverts every bit of whole vectors.
#[target_feature(enable = "avx512f")]
pub(super) fn update(words: &mut [u64]) {
    let ones = _mm512_set1_epi64(-1);
    for block in words.as_chunks_mut::<LANES>().0 {
        let at = block.as_mut_ptr();
        // SAFETY: the block holds one vector; neither access needs an alignment.
        unsafe {
            let v = _mm512_loadu_si512(at.cast());
            _mm512_storeu_si512(at.cast(), _mm512_xor_si512(v, ones));
        }
    }
}

/// Copies; around the caches if `stream`.
#[target_feature(enable = "avx512f")]
pub(super) fn copy(to: &mut [u64], from: &[u64], stream: bool) {
    let to = to.as_chunks_mut::<LANES>().0;
    for (to, from) in to.iter_mut().zip(from.as_chunks::<LANES>().0) {
        let at = to.as_mut_ptr();
        // SAFETY: both blocks hold one vector; the streaming store's alignment is looked at.
        unsafe {
            let v = _mm512_loadu_si512(from.as_ptr().cast());
            if stream && (at as usize).is_multiple_of(64) {
                _mm512_stream_si512(at.cast(), v);
            } else {
                _mm512_storeu_si512(at.cast(), v);
            }
        }
    }
}

/// The exclusive or of both goes to the first.
#[target_feature(enable = "avx512f")]
pub(super) fn merge(to: &mut [u64], from: &[u64]) {
    let to = to.as_chunks_mut::<LANES>().0;
    for (to, from) in to.iter_mut().zip(from.as_chunks::<LANES>().0) {
        let at = to.as_mut_ptr();
        // SAFETY: both blocks hold one vector; no access needs an alignment.
        unsafe {
            let v = _mm512_loadu_si512(from.as_ptr().cast());
            let v = _mm512_xor_si512(v, _mm512_loadu_si512(at.cast()));
            _mm512_storeu_si512(at.cast(), v);
        }
    }
}

/// The exclusive or of both goes to other words; around the caches if `stream`.
#[target_feature(enable = "avx512f")]
pub(super) fn join(to: &mut [u64], from: (&[u64], &[u64]), stream: bool) {
    let from = from
        .0
        .as_chunks::<LANES>()
        .0
        .iter()
        .zip(from.1.as_chunks::<LANES>().0);
    for (to, (a, b)) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(from) {
        let at = to.as_mut_ptr();
        // SAFETY: all blocks hold one vector; the streaming store's alignment is looked at.
        unsafe {
            let v = _mm512_loadu_si512(a.as_ptr().cast());
            let v = _mm512_xor_si512(v, _mm512_loadu_si512(b.as_ptr().cast()));
            if stream && (at as usize).is_multiple_of(64) {
                _mm512_stream_si512(at.cast(), v);
            } else {
                _mm512_storeu_si512(at.cast(), v);
            }
        }
    }
}
