//! Negacyclic number-theoretic transform: tables and the order of its values.
//!
//! **Contract.** Let `psi = a^((q-1)/2N)` for the smallest `a = 2, 3, ..` with `psi^N = -1 mod q`.
//! The forward transform of `p` holds at index `j` the value `p(psi^(2*rev(j)+1))`, where `rev`
//! reverses the `log2 N` bits of `j`. Stored keys and ciphertexts and periodic plaintexts depend
//! on this order and on this choice of `psi`.
//!
//! Algorithm: Cooley-Tukey forward, Gentleman-Sande inverse, lazy values (Harvey, "Faster
//! arithmetic for number-theoretic transforms", 2014): below `4q` forward, below `2q` inverse.

#[cfg(target_arch = "x86_64")]
mod doubles;

#[cfg(target_arch = "x86_64")]
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
pub(crate) use doubles::{DoubleTwiddles, Sixteen};

use crate::modulus::{Modulus, ShoupConst};

/// Reverses the low `bits` bits of `x`.
pub(crate) fn bit_reverse(x: u64, bits: u32) -> u64 {
    if bits == 0 {
        0
    } else {
        x.reverse_bits() >> (64 - bits)
    }
}

/// The primitive 2N-th root of unity that the contract names.
pub(crate) fn primitive_root(m: &Modulus, log_n: u32) -> u64 {
    let exponent = (m.value() - 1) >> (log_n + 1);
    let minus_one = m.value() - 1;
    (2..m.value())
        .map(|a| m.pow(a, exponent))
        .find(|&psi| m.pow(psi, 1 << log_n) == minus_one)
        .unwrap_or(1)
}

/// From this degree on the twiddles of the last two stages are stored in blocks.
const BLOCKED_FROM: u32 = 6;

/// Twiddle factors of one direction, with 52-bit Shoup quotients.
pub(crate) struct Twiddles {
    log_n: u32,
    /// `root^rev(i)` at `i`: the twiddle of block `i - 2^s` of stage `s` (`i` in `2^s..2^(s+1)`).
    /// All stages for small N; all but the last two (half block 2 and 1) otherwise.
    pub(crate) w: Vec<u64>,
    pub(crate) quot: Vec<u64>,
    /// The last two stages, per 64 words of data 96 words: for half block 2 `w` of even, of odd
    /// blocks, then their quotients alike (4 x 8); for half block 1 `w` of blocks 0, 1, 2, 3 mod 4,
    /// then their quotients alike (8 x 8). This is the order in which eight lanes want them.
    pub(crate) tail: Vec<u64>,
    /// The same as doubles, made when first asked for: most users have kernels that need none.
    #[cfg(target_arch = "x86_64")]
    doubles: OnceLock<DoubleTwiddles>,
}

impl Twiddles {
    fn new(m: &Modulus, log_n: u32, root: u64) -> Self {
        let n = 1usize << log_n;
        let mut all = vec![0; n];
        let mut power = 1;
        let step = m.shoup(root);
        for i in 0..n as u64 {
            all[bit_reverse(i, log_n) as usize] = power;
            power = m.mul_shoup(power, step);
        }
        let mut tail = Vec::new();
        let mut w = all;
        if log_n >= BLOCKED_FROM {
            tail.reserve_exact(3 * n / 2);
            let full = w;
            for block in 0..n / 64 {
                for (columns, first) in [(2, n / 4 + 16 * block), (4, n / 2 + 32 * block)] {
                    let column = |c: usize| (0..8).map(move |lane| first + columns * lane + c);
                    for c in 0..columns {
                        tail.extend(column(c).map(|i| full[i]));
                    }
                    for c in 0..columns {
                        tail.extend(column(c).map(|i| m.shoup(full[i]).quotient));
                    }
                }
            }
            w = full[..n / 4].to_vec();
        }
        let quot = w.iter().map(|&w| m.shoup(w).quotient).collect();
        Self {
            log_n,
            w,
            quot,
            tail,
            #[cfg(target_arch = "x86_64")]
            doubles: OnceLock::new(),
        }
    }

    /// The twiddles as doubles; `m` is the modulus they were made for, and N at least 16.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn doubles(&self, m: &Modulus) -> &DoubleTwiddles {
        self.doubles
            .get_or_init(|| DoubleTwiddles::new(m, self.log_n, self))
    }

    /// Twiddle `i` of the stage with `blocks` blocks.
    #[inline(always)]
    pub(crate) fn get(&self, blocks: usize, i: usize) -> ShoupConst {
        if let (Some(&w), Some(&quotient)) = (self.w.get(blocks + i), self.quot.get(blocks + i)) {
            return ShoupConst { w, quotient };
        }
        let last = blocks << 1 >> self.log_n;
        let (columns, offset) = if last == 1 { (4, 32) } else { (2, 0) };
        let (lane, column) = (i / columns % 8, i % columns);
        let at = i / (8 * columns) * 96 + offset + 8 * column + lane;
        let get = |at: usize| self.tail.get(at).copied().unwrap_or(0);
        ShoupConst {
            w: get(at),
            quotient: get(at + 8 * columns),
        }
    }
}

/// Tables of one prime.
pub(crate) struct NttTable {
    pub(crate) modulus: Modulus,
    pub(crate) log_n: u32,
    pub(crate) forward: Twiddles,
    pub(crate) inverse: Twiddles,
    n_inv: u64,
}

/// What the last stage of an inverse NTT multiplies by: `c N^-1` for the low half and
/// `c N^-1 psi^-rev(1)` for the high half.
pub(crate) struct InverseScale {
    pub(crate) low: ShoupConst,
    pub(crate) high: ShoupConst,
}

impl NttTable {
    pub(crate) fn new(m: &Modulus, log_n: u32) -> Self {
        let psi = primitive_root(m, log_n);
        let inverse = Twiddles::new(m, log_n, m.inv(psi).unwrap_or(1));
        let n_inv = m.inv(m.reduce(1 << log_n)).unwrap_or(1);
        Self {
            modulus: m.clone(),
            log_n,
            forward: Twiddles::new(m, log_n, psi),
            n_inv,
            inverse,
        }
    }

    /// The inverse NTT times `c`.
    pub(crate) fn scaled(&self, c: u64) -> InverseScale {
        let m = &self.modulus;
        let low = m.mul(self.n_inv, c);
        let high = m.mul(low, self.inverse.get(1, 0).w);
        InverseScale {
            low: m.shoup(low),
            high: m.shoup(high),
        }
    }
}
