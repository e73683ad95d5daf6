//! Negacyclic number-theoretic transform: tables and the order of its values.
//!
//! **Contract.** Let `psi = a^((q-1)/2N)` for the smallest `a = 2, 3, ..` with `psi^N = -1 mod q`.
//! The forward transform of `p` holds at index `j` the value `p(psi^(2*rev(j)+1))`, where `rev`
//! reverses the `log2 N` bits of `j`. Stored keys and ciphertexts and periodic plaintexts depend
//! on this order and on this choice of `psi`.

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

/// Twiddle factors of one prime, with 52-bit Shoup quotients.
pub(crate) struct NttTable {
    pub(crate) modulus: Modulus,
    pub(crate) log_n: u32,
    /// `psi^rev(i)` at `i`: the twiddle of block `i - 2^s` of forward stage `s` (`i` in
    /// `2^s..2^(s+1)`).
    pub(crate) forward: Vec<u64>,
    pub(crate) forward_quot: Vec<u64>,
    /// `psi^-rev(i)` at `i`.
    pub(crate) inverse: Vec<u64>,
    pub(crate) inverse_quot: Vec<u64>,
    /// `N^-1`, and `N^-1 * psi^-rev(1)` for the last inverse stage.
    pub(crate) n_inv: ShoupConst,
    pub(crate) n_inv_last: ShoupConst,
}

impl NttTable {
    pub(crate) fn new(m: &Modulus, log_n: u32) -> Self {
        let n = 1usize << log_n;
        let psi = primitive_root(m, log_n);
        let psi_inv = m.inv(psi).unwrap_or(1);
        let table = |root: u64| {
            let mut w = vec![0; n];
            let mut power = 1;
            for i in 0..n as u64 {
                w[bit_reverse(i, log_n) as usize] = power;
                power = m.mul(power, root);
            }
            let quot = w.iter().map(|&w| m.shoup(w).quotient).collect::<Vec<_>>();
            (w, quot)
        };
        let (forward, forward_quot) = table(psi);
        let (inverse, inverse_quot) = table(psi_inv);
        let n_inv = m.inv(m.reduce(n as u64)).unwrap_or(1);
        let n_inv_last = m.shoup(m.mul(n_inv, inverse[1]));
        Self {
            modulus: m.clone(),
            log_n,
            forward,
            forward_quot,
            inverse,
            inverse_quot,
            n_inv: m.shoup(n_inv),
            n_inv_last,
        }
    }
}
