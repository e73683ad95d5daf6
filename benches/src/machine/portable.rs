//! Loops in portable code for machines without the vector instructions of the other modules; see
//! the AVX-512 one. Chains are read through `black_box` once per call, so that no step is known
//! before it runs.

use std::hint::black_box;

/// Chains of each loop.
pub(super) const CHAINS: usize = 4;
/// Residues per step of a chain.
pub(super) const LANES: usize = 1;

const Q: u64 = (1 << 45) - 229_375;

fn start(seed: u64) -> [u64; CHAINS] {
    black_box(std::array::from_fn(|k| (seed >> 20) + k as u64))
}

fn fold(x: [u64; CHAINS]) -> u64 {
    x.iter().fold(0, |s, v| s ^ v)
}

fn shoup(x: u64, (w, quotient, q): (u64, u64, u64)) -> u64 {
    let hi = ((u128::from(x) * u128::from(quotient)) >> 64) as u64;
    x.wrapping_mul(w).wrapping_sub(hi.wrapping_mul(q))
}

pub(super) fn butterfly(iterations: usize, seed: u64) -> u64 {
    let (mut x, mut y) = (start(seed), start(!seed));
    let c = black_box((seed >> 20, !seed, Q));
    for _ in 0..iterations {
        for k in 0..CHAINS {
            let t = shoup(y[k], c);
            let base = x[k];
            x[k] = base.wrapping_add(t);
            y[k] = base.wrapping_add(2 * c.2).wrapping_sub(t);
        }
    }
    fold(x) ^ fold(y)
}

pub(super) fn multiply(iterations: usize, seed: u64) -> u64 {
    let mut x = start(seed);
    let c = black_box((seed >> 20, !seed, Q));
    for _ in 0..iterations {
        for x in &mut x {
            let t = shoup(*x, c);
            *x = t.min(t.wrapping_sub(c.2));
        }
    }
    fold(x)
}

pub(super) fn multiply_accumulate(iterations: usize, seed: u64) -> u64 {
    let mut sums = start(seed).map(u128::from);
    let mut x = start(!seed);
    let b = black_box(seed);
    for _ in 0..iterations {
        for (sum, x) in sums.iter_mut().zip(&mut x) {
            *sum = sum.wrapping_add(u128::from(*x) * u128::from(b));
            *x = x.wrapping_add(b);
        }
    }
    fold(sums.map(|s| (s ^ (s >> 64)) as u64))
}

pub(super) fn reduce(iterations: usize, seed: u64) -> u64 {
    multiply(iterations, seed)
}

pub(super) fn add(iterations: usize, seed: u64) -> u64 {
    let mut x = start(seed);
    let (y, q) = black_box((seed >> 20, Q));
    for _ in 0..iterations {
        for x in &mut x {
            let sum = x.wrapping_add(y);
            *x = sum.min(sum.wrapping_sub(q));
        }
    }
    fold(x)
}

pub(super) fn complex_butterfly(iterations: usize, seed: u64) -> u64 {
    let first = start(seed).map(|x| x as f64);
    let (mut x, mut y) = ([[first[0], first[1]]; 2], [[first[2], first[3]]; 2]);
    let (re, im) = black_box((0.6f64, 0.8f64));
    // Lengths stay: subnormal numbers take some processors many times as long.
    let scale = black_box(std::f64::consts::FRAC_1_SQRT_2);
    for _ in 0..iterations {
        for k in 0..CHAINS / 2 {
            let ([xr, xi], [yr, yi]) = (x[k], y[k]);
            let (tr, ti) = (yr * re - yi * im, yr * im + yi * re);
            x[k] = [scale * (xr + tr), scale * (xi + ti)];
            y[k] = [scale * (xr - tr), scale * (xi - ti)];
        }
    }
    (x.iter().flatten().sum::<f64>() + y.iter().flatten().sum::<f64>()).to_bits()
}

pub(super) fn mix(iterations: usize, seed: u64) -> u64 {
    let mut state = [seed, !seed, seed << 1, !seed << 1].map(|s| start(s).map(|x| x as u32));
    let (m0, m1) = black_box((seed as u32, !seed as u32));
    for _ in 0..iterations {
        let [a, b, c, d] = &mut state;
        for k in 0..CHAINS {
            a[k] = a[k].wrapping_add(b[k]).wrapping_add(m0);
            d[k] = (d[k] ^ a[k]).rotate_right(16);
            c[k] = c[k].wrapping_add(d[k]);
            b[k] = (b[k] ^ c[k]).rotate_right(12);
            a[k] = a[k].wrapping_add(b[k]).wrapping_add(m1);
            d[k] = (d[k] ^ a[k]).rotate_right(8);
            c[k] = c[k].wrapping_add(d[k]);
            b[k] = (b[k] ^ c[k]).rotate_right(7);
        }
    }
    u64::from(state.iter().flatten().fold(0, |s, v| s ^ v))
}

pub(super) fn read(words: &[u64]) -> u64 {
    let mut sums = [0u64; 16];
    for block in words.as_chunks::<16>().0 {
        for (sum, word) in sums.iter_mut().zip(block) {
            *sum ^= word;
        }
    }
    sums.iter().fold(0, |s, v| s ^ v)
}

/// Portable code cannot ask for it.
pub(super) fn fetch(_words: &[u64]) {}

pub(super) fn write(words: &mut [u64], value: u64, _stream: bool) {
    words.fill(value);
}

pub(super) fn update(words: &mut [u64]) {
    words.iter_mut().for_each(|w| *w = !*w);
}

pub(super) fn copy(to: &mut [u64], from: &[u64], _stream: bool) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

pub(super) fn merge(to: &mut [u64], from: &[u64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to ^= *from);
}

pub(super) fn join(to: &mut [u64], (a, b): (&[u64], &[u64]), _stream: bool) {
    let from = a.iter().zip(b);
    to.iter_mut().zip(from).for_each(|(to, (a, b))| *to = a ^ b);
}
