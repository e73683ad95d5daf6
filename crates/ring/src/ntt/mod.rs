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
mod words;

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
pub(crate) use doubles::{DoubleTwiddles, Sixteen};
#[cfg(target_arch = "x86_64")]
pub(crate) use words::{Constant, Constants, Sixteenth, WordTwiddles, is_roomy};

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

/// `root^rev(i)` at `i` in `0..2^bits`.
fn bit_reversed_powers(m: &Modulus, bits: u32, root: u64) -> Vec<u64> {
    let mut all = vec![0; 1 << bits];
    let step = m.shoup(root);
    let mut power = m.reduce(1);
    for i in 0..1u64 << bits {
        all[bit_reverse(i, bits) as usize] = power;
        power = m.mul_shoup(power, step);
    }
    all
}

/// Twiddle factors of one direction, each form made when first asked for: kernels of one
/// instruction set use one of them.
pub(crate) struct Twiddles {
    log_n: u32,
    root: u64,
    #[cfg(target_arch = "x86_64")]
    inverse: bool,
    shoup: OnceLock<ShoupTwiddles>,
    #[cfg(target_arch = "x86_64")]
    doubles: OnceLock<DoubleTwiddles>,
    #[cfg(target_arch = "x86_64")]
    words: OnceLock<WordTwiddles>,
}

/// Twiddle factors with their Shoup quotients.
pub(crate) struct ShoupTwiddles(Vec<ShoupConst>);

impl ShoupTwiddles {
    /// Twiddle `i` of the stage with `blocks` blocks: `root^rev(blocks + i)`.
    #[inline(always)]
    pub(crate) fn get(&self, blocks: usize, i: usize) -> ShoupConst {
        self.0[blocks + i]
    }
}

impl Twiddles {
    fn new(log_n: u32, root: u64, inverse: bool) -> Self {
        #[cfg(not(target_arch = "x86_64"))]
        let _ = inverse;
        Self {
            log_n,
            root,
            #[cfg(target_arch = "x86_64")]
            inverse,
            shoup: OnceLock::new(),
            #[cfg(target_arch = "x86_64")]
            doubles: OnceLock::new(),
            #[cfg(target_arch = "x86_64")]
            words: OnceLock::new(),
        }
    }

    /// With Shoup quotients; `m` here and below is the modulus they were made for.
    pub(crate) fn shoup(&self, m: &Modulus) -> &ShoupTwiddles {
        self.shoup.get_or_init(|| {
            let powers = bit_reversed_powers(m, self.log_n, self.root);
            ShoupTwiddles(powers.into_iter().map(|w| m.shoup(w)).collect())
        })
    }

    /// As doubles, for N at least 16.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn doubles(&self, m: &Modulus) -> &DoubleTwiddles {
        self.doubles
            .get_or_init(|| DoubleTwiddles::new(m, self.log_n, self.root))
    }

    /// As words, for N at least 128.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn words(&self, m: &Modulus) -> &WordTwiddles {
        self.words
            .get_or_init(|| WordTwiddles::new(m, self.log_n, self.root, self.inverse))
    }
}

/// Tables of one prime.
pub(crate) struct NttTable {
    pub(crate) modulus: Modulus,
    pub(crate) log_n: u32,
    pub(crate) forward: Twiddles,
    pub(crate) inverse: Twiddles,
    n_inv: u64,
    /// `psi^-rev(1)`, the only twiddle of the last inverse stage.
    last: u64,
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
        let inverse = m.inv(psi).unwrap_or(1);
        let n_inv = m.inv(m.reduce(1 << log_n)).unwrap_or(1);
        Self {
            modulus: m.clone(),
            log_n,
            forward: Twiddles::new(log_n, psi, false),
            inverse: Twiddles::new(log_n, inverse, true),
            n_inv,
            last: m.pow(inverse, 1 << log_n >> 1),
        }
    }

    /// The inverse NTT times `c`.
    pub(crate) fn scaled(&self, c: u64) -> InverseScale {
        let m = &self.modulus;
        let low = m.mul(self.n_inv, c);
        let high = m.mul(low, self.last);
        InverseScale {
            low: m.shoup(low),
            high: m.shoup(high),
        }
    }
}
