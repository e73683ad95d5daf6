//! Register loops with AVX2 and FMA; see the AVX-512 module. Residues are products in double
//! precision: the quotient is a rounded product, the remainder comes from two fused multiply-adds.

use std::arch::x86_64::*;

/// Chains of most loops; there are 16 registers.
pub(super) const CHAINS: usize = 4;
/// Chains of the loops in which a step is a long chain itself: of up to 17 cycles, where the ports
/// need two. They do not fit the registers; loads and stores have ports of their own.
pub(super) const MANY: usize = 16;
/// Residues per vector.
pub(super) const LANES: usize = 4;

#[target_feature(enable = "avx2,fma")]
fn start<const COUNT: usize>(seed: u64) -> [__m256d; COUNT] {
    std::array::from_fn(|k| _mm256_set1_pd((seed >> 60) as f64 + k as f64))
}

#[target_feature(enable = "avx2,fma")]
fn fold<const COUNT: usize>(x: [__m256d; COUNT]) -> u64 {
    let mut sum = 0;
    for v in x {
        let v = _mm256_castpd_si256(v);
        sum ^= _mm256_extract_epi64::<0>(v) ^ _mm256_extract_epi64::<3>(v);
    }
    sum as u64
}

/// The remainder of `x w`: six operations, `constants` being w, w/q, q and 1.5 * 2^52.
#[target_feature(enable = "avx2,fma")]
fn product(x: __m256d, constants: [__m256d; 4]) -> __m256d {
    let [w, ratio, q, magic] = constants;
    let high = _mm256_mul_pd(x, w);
    let quotient = _mm256_sub_pd(_mm256_fmadd_pd(x, ratio, magic), magic);
    let low = _mm256_fmsub_pd(x, w, high);
    _mm256_add_pd(_mm256_fnmadd_pd(quotient, q, high), low)
}

/// See the AVX-512 module: 8 operations.
#[target_feature(enable = "avx2,fma")]
pub(super) fn butterfly(iterations: usize, seed: u64) -> u64 {
    let (mut x, mut y): ([_; MANY], [_; MANY]) = (start(seed), start(!seed));
    let constants = start(seed ^ 0x1234_5678_9abc);
    for _ in 0..iterations {
        for k in 0..MANY {
            let t = product(y[k], constants);
            let base = x[k];
            x[k] = _mm256_add_pd(base, t);
            y[k] = _mm256_sub_pd(base, t);
        }
    }
    fold(x) ^ fold(y)
}

/// A product; what makes it canonical is not counted.
#[target_feature(enable = "avx2,fma")]
pub(super) fn multiply(iterations: usize, seed: u64) -> u64 {
    let mut x: [_; MANY] = start(seed);
    let constants = start(seed ^ 0x1234_5678_9abc);
    for _ in 0..iterations {
        for x in &mut x {
            *x = product(*x, constants);
        }
    }
    fold(x)
}

/// A product added to a high and a low sum (error-free transformation): 4 operations.
#[target_feature(enable = "avx2,fma")]
pub(super) fn multiply_accumulate(iterations: usize, seed: u64) -> u64 {
    let (mut high, mut low): ([_; CHAINS], [_; CHAINS]) = (start(seed), start(!seed));
    let [a, b] = start(seed ^ 0x1234_5678_9abc);
    for _ in 0..iterations {
        for k in 0..CHAINS {
            let sum = _mm256_fmadd_pd(a, b, high[k]);
            let part = _mm256_sub_pd(sum, high[k]);
            low[k] = _mm256_add_pd(low[k], _mm256_fmsub_pd(a, b, part));
            high[k] = sum;
        }
    }
    fold(high) ^ fold(low)
}

/// A sum's remainder: quotient, remainder, sign.
#[target_feature(enable = "avx2,fma")]
pub(super) fn reduce(iterations: usize, seed: u64) -> u64 {
    let mut x: [_; MANY] = start(seed);
    let [inverse, q, magic, low] = start(seed ^ 0x1234_5678_9abc);
    for _ in 0..iterations {
        for x in &mut x {
            let quotient = _mm256_sub_pd(_mm256_fmadd_pd(*x, inverse, magic), magic);
            *x = _mm256_add_pd(_mm256_fnmadd_pd(quotient, q, *x), low);
        }
    }
    fold(x)
}

/// Canonical sums of integers: add, subtract, compare, blend.
#[target_feature(enable = "avx2,fma")]
pub(super) fn add(iterations: usize, seed: u64) -> u64 {
    let mut x: [__m256i; MANY] =
        std::array::from_fn(|k| _mm256_set1_epi64x((seed >> 20) as i64 + k as i64));
    let (y, q) = (x[1], _mm256_set1_epi64x((seed >> 19) as i64));
    for _ in 0..iterations {
        for x in &mut x {
            let sum = _mm256_add_epi64(*x, y);
            let less = _mm256_sub_epi64(sum, q);
            *x = _mm256_blendv_epi8(less, sum, _mm256_cmpgt_epi64(q, sum));
        }
    }
    fold(x.map(|v| _mm256_castsi256_pd(v)))
}

/// Butterflies of a complex transform, real and imaginary parts apart.
#[target_feature(enable = "avx2,fma")]
pub(super) fn complex_butterfly(iterations: usize, seed: u64) -> u64 {
    const PAIRS: usize = MANY / 2;
    let [mut xr, mut xi, mut yr, mut yi] =
        [seed, !seed, seed << 1, !seed << 1].map(|s| start::<PAIRS>(s));
    let [re, im] = start(seed ^ 0x1234_5678_9abc);
    for _ in 0..iterations {
        for k in 0..PAIRS {
            let tr = _mm256_fmsub_pd(yr[k], re, _mm256_mul_pd(yi[k], im));
            let ti = _mm256_fmadd_pd(yr[k], im, _mm256_mul_pd(yi[k], re));
            (xr[k], yr[k]) = (_mm256_add_pd(xr[k], tr), _mm256_sub_pd(xr[k], tr));
            (xi[k], yi[k]) = (_mm256_add_pd(xi[k], ti), _mm256_sub_pd(xi[k], ti));
        }
    }
    fold(xr) ^ fold(xi) ^ fold(yr) ^ fold(yi)
}

/// The function G of BLAKE3 on eight blocks at a time; a rotation takes three operations here.
#[target_feature(enable = "avx2,fma")]
pub(super) fn mix(iterations: usize, seed: u64) -> u64 {
    let [mut a, mut b, mut c, mut d] =
        [seed, !seed, seed << 1, !seed << 1].map(|s| start::<2>(s).map(|v| _mm256_castpd_si256(v)));
    let [m0, m1] = start::<2>(seed ^ 0x1234_5678_9abc).map(|v| _mm256_castpd_si256(v));
    macro_rules! turn {
        ($x:expr, $by:literal) => {
            _mm256_or_si256(
                _mm256_srli_epi32::<$by>($x),
                _mm256_slli_epi32::<{ 32 - $by }>($x),
            )
        };
    }
    for _ in 0..iterations {
        for k in 0..2 {
            a[k] = _mm256_add_epi32(_mm256_add_epi32(a[k], b[k]), m0);
            d[k] = turn!(_mm256_xor_si256(d[k], a[k]), 16);
            c[k] = _mm256_add_epi32(c[k], d[k]);
            b[k] = turn!(_mm256_xor_si256(b[k], c[k]), 12);
            a[k] = _mm256_add_epi32(_mm256_add_epi32(a[k], b[k]), m1);
            d[k] = turn!(_mm256_xor_si256(d[k], a[k]), 8);
            c[k] = _mm256_add_epi32(c[k], d[k]);
            b[k] = turn!(_mm256_xor_si256(b[k], c[k]), 7);
        }
    }
    let [a, b, c, d] = [a, b, c, d].map(|x| _mm256_castsi256_pd(_mm256_xor_si256(x[0], x[1])));
    fold([a, b, c, d])
}

/// Reads `words` and gives a sum.
#[target_feature(enable = "avx2,fma")]
pub(super) fn read(words: &[u64]) -> u64 {
    let mut sums = [_mm256_setzero_si256(); 8];
    for block in words.as_chunks::<32>().0 {
        for (k, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `4 k + 4` is at most the length of the block; the load needs no alignment.
            let v = unsafe { _mm256_loadu_si256(block.as_ptr().add(4 * k).cast()) };
            *sum = _mm256_xor_si256(*sum, v);
        }
    }
    let all = sums
        .iter()
        .fold(_mm256_setzero_si256(), |s, v| _mm256_xor_si256(s, *v));
    (_mm256_extract_epi64::<0>(all) ^ _mm256_extract_epi64::<3>(all)) as u64
}

/// Brings `words` into the first cache.
#[target_feature(enable = "avx2,fma")]
pub(super) fn fetch(words: &[u64]) {
    for line in words.chunks(8) {
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
    }
}

/// Writes `value` to all of `words`; around the caches if `stream` (then the words are aligned to
/// 32 bytes).
#[target_feature(enable = "avx2,fma")]
pub(super) fn write(words: &mut [u64], value: u64, stream: bool) {
    let v = _mm256_set1_epi64x(value as i64);
    for block in words.as_chunks_mut::<LANES>().0 {
        put(block, v, stream);
    }
}

/// Inverts every bit of whole vectors.
#[target_feature(enable = "avx2,fma")]
pub(super) fn update(words: &mut [u64]) {
    let ones = _mm256_set1_epi64x(-1);
    for block in words.as_chunks_mut::<LANES>().0 {
        let v = get(block);
        put(block, _mm256_xor_si256(v, ones), false);
    }
}

/// Copies; around the caches if `stream`.
#[target_feature(enable = "avx2,fma")]
pub(super) fn copy(to: &mut [u64], from: &[u64], stream: bool) {
    let to = to.as_chunks_mut::<LANES>().0;
    for (to, from) in to.iter_mut().zip(from.as_chunks::<LANES>().0) {
        put(to, get(from), stream);
    }
}

/// The exclusive or of both goes to the first.
#[target_feature(enable = "avx2,fma")]
pub(super) fn merge(to: &mut [u64], from: &[u64]) {
    let to = to.as_chunks_mut::<LANES>().0;
    for (to, from) in to.iter_mut().zip(from.as_chunks::<LANES>().0) {
        let v = _mm256_xor_si256(get(to), get(from));
        put(to, v, false);
    }
}

/// The exclusive or of both goes to other words; around the caches if `stream`.
#[target_feature(enable = "avx2,fma")]
pub(super) fn join(to: &mut [u64], (a, b): (&[u64], &[u64]), stream: bool) {
    let from = a
        .as_chunks::<LANES>()
        .0
        .iter()
        .zip(b.as_chunks::<LANES>().0);
    for (to, (a, b)) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(from) {
        put(to, _mm256_xor_si256(get(a), get(b)), stream);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn get(block: &[u64; LANES]) -> __m256i {
    // SAFETY: the block is one vector; the load needs no alignment.
    unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn put(block: &mut [u64; LANES], v: __m256i, stream: bool) {
    let at = block.as_mut_ptr();
    // SAFETY: the block has room for one vector. A streaming store needs an aligned address,
    // which is looked at first.
    unsafe {
        if stream && (at as usize).is_multiple_of(32) {
            _mm256_stream_si256(at.cast(), v);
        } else {
            _mm256_storeu_si256(at.cast(), v);
        }
    }
}
