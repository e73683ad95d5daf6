//! Register loops with AVX2 and FMA; see the AVX-512 module. Residues are products in double
//! precision: the quotient is a rounded product, the remainder comes from two fused multiply-adds.

use std::arch::x86_64::*;

/// Chains of each loop; there are 16 registers.
pub(super) const CHAINS: usize = 4;
/// Residues per vector.
pub(super) const LANES: usize = 4;

#[target_feature(enable = "avx2,fma")]
fn start(seed: u64) -> [__m256d; CHAINS] {
    std::array::from_fn(|k| _mm256_set1_pd((seed >> 60) as f64 + k as f64))
}

#[target_feature(enable = "avx2,fma")]
fn fold(x: [__m256d; CHAINS]) -> u64 {
    let mut sum = 0;
    for v in x {
        let v = _mm256_castpd_si256(v);
        sum ^= _mm256_extract_epi64::<0>(v) ^ _mm256_extract_epi64::<3>(v);
    }
    sum as u64
}

/// The remainder of `x w`: six operations, `constants` being w, w/q, q and 1.5 * 2^52.
#[target_feature(enable = "avx2,fma")]
fn product(x: __m256d, constants: [__m256d; CHAINS]) -> __m256d {
    let [w, ratio, q, magic] = constants;
    let high = _mm256_mul_pd(x, w);
    let quotient = _mm256_sub_pd(_mm256_fmadd_pd(x, ratio, magic), magic);
    let low = _mm256_fmsub_pd(x, w, high);
    _mm256_add_pd(_mm256_fnmadd_pd(quotient, q, high), low)
}

/// See the AVX-512 module: 8 operations.
#[target_feature(enable = "avx2,fma")]
pub(super) fn butterfly(iterations: usize, seed: u64) -> u64 {
    let (mut x, mut y) = (start(seed), start(!seed));
    let constants = start(seed ^ 0x1234_5678_9abc);
    for _ in 0..iterations {
        for k in 0..CHAINS {
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
    let mut x = start(seed);
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
    let (mut high, mut low) = (start(seed), start(!seed));
    let [a, b, ..] = start(seed ^ 0x1234_5678_9abc);
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
    let mut x = start(seed);
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
    let mut x: [__m256i; CHAINS] =
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
    let [mut xr, mut xi, mut yr, mut yi] = [seed, !seed, seed << 1, !seed << 1].map(|s| {
        let [a, b, ..] = start(s);
        [a, b]
    });
    let [re, im, ..] = start(seed ^ 0x1234_5678_9abc);
    for _ in 0..iterations {
        for k in 0..CHAINS / 2 {
            let tr = _mm256_fmsub_pd(yr[k], re, _mm256_mul_pd(yi[k], im));
            let ti = _mm256_fmadd_pd(yr[k], im, _mm256_mul_pd(yi[k], re));
            (xr[k], yr[k]) = (_mm256_add_pd(xr[k], tr), _mm256_sub_pd(xr[k], tr));
            (xi[k], yi[k]) = (_mm256_add_pd(xi[k], ti), _mm256_sub_pd(xi[k], ti));
        }
    }
    fold([xr[0], xr[1], yr[0], yr[1]]) ^ fold([xi[0], xi[1], yi[0], yi[1]])
}

/// The function G of BLAKE3 on eight blocks at a time; a rotation takes three operations here.
#[target_feature(enable = "avx2,fma")]
pub(super) fn mix(iterations: usize, seed: u64) -> u64 {
    let [mut a, mut b, mut c, mut d] = [seed, !seed, seed << 1, !seed << 1].map(|s| {
        let [x, y, ..] = start(s);
        [x, y].map(|v| _mm256_castpd_si256(v))
    });
    let [m0, m1, ..] = start(seed ^ 0x1234_5678_9abc).map(|v| _mm256_castpd_si256(v));
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
