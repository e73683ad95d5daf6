//! Twiddle factors for kernels that multiply à la Montgomery with radix 2^52.
//!
//! A constant `w` is stored as `a = w 2^52 mod q` and `b = a q^-1 mod 2^52`: with them a product
//! `x w mod q` takes no quotient by division (Montgomery, "Modular multiplication without trial
//! division", 1985, with the second factor known beforehand).
//!
//! **Twists.** Plain tables hold a twiddle per block and stage, most of them for the last stages.
//! Here the last three stages, which work on blocks of 8 words, share one set. Let
//! `k = log2 N - 6` and let block `c` of the eight in run `B` of 64 words be taken modulo
//! `X^8 - s^8`. By the order of the contract `s = root^(2 rev_{k+3}(8B + c) + 1) = u v` with
//! `u = root^(2 rev_k(B) + 1)`, which depends on `B` alone, and `v = g^rev_3(c)`,
//! `g = root^(2^(k+1))` of order 64. Substituting `X = u Y` multiplies word `j` by `u^j` and leaves
//! the modulus `Y^8 - v^8` and twiddles that depend on `c` alone: those of a cyclic transform,
//! `g^(half rev(i))` for block `i` of the stage with half block `half`. The inverse substitutes
//! `Y = u^-1 X` after its first three stages; its root is the inverse one.
//! So 1/8 of a plain table remains, and as much again for the powers of `u`.

use super::{bit_reverse, bit_reversed_powers};
use crate::modulus::Modulus;

/// Eight words of one vector.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line(pub(crate) [u64; 8]);

/// A constant in both forms.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Constant {
    /// `w 2^52 mod q`.
    pub(crate) a: u64,
    /// `a q^-1 mod 2^52`.
    pub(crate) b: u64,
}

impl Constant {
    pub(crate) fn new(m: &Modulus, w: u64) -> Self {
        let a = m.to_mont(w);
        let b = a.wrapping_mul(m.inv52()) & ((1 << 52) - 1);
        Self { a, b }
    }
}

/// Eight constants in both forms.
#[derive(Clone, Copy)]
pub(crate) struct Constants {
    pub(crate) a: Line,
    pub(crate) b: Line,
}

impl Constants {
    fn new(m: &Modulus, w: impl Fn(usize) -> u64) -> Self {
        let c: [Constant; 8] = std::array::from_fn(|lane| Constant::new(m, w(lane)));
        Self {
            a: Line(c.map(|c| c.a)),
            b: Line(c.map(|c| c.b)),
        }
    }
}

/// Which block of 8 words, of two neighbours, and which half of it in order, each lane holds in
/// the stage with half block 4; the halves of the two directions lie differently.
const FORWARD_LANES: [usize; 8] = [0, 0, 0, 0, 1, 1, 1, 1];
const INVERSE_LANES: [usize; 8] = [0, 0, 1, 1, 0, 0, 1, 1];

/// Twiddles of one direction.
pub(crate) struct MontgomeryTwiddles {
    /// `root^rev(i)` at `i`, for all stages but the last three.
    pub(crate) front: Vec<Constant>,
    /// Per run of 64 words `u^j` in lane `j`.
    pub(crate) twists: Vec<Constants>,
    /// Per pair of neighbours among the eight blocks of a run: the stages with half block 4, 2, 1.
    pub(crate) last: [[Constants; 3]; 4],
}

impl MontgomeryTwiddles {
    /// For `N >= 64`.
    pub(super) fn new(m: &Modulus, log_n: u32, root: u64, inverse: bool) -> Self {
        let runs = log_n.saturating_sub(6);
        // root^rev(i) for i < N/8: multiples of 8 in the exponent.
        let front = bit_reversed_powers(m, log_n.saturating_sub(3), m.pow(root, 8))
            .into_iter()
            .map(|w| Constant::new(m, w))
            .collect();
        let squares = bit_reversed_powers(m, runs, m.mul(root, root));
        let twists = squares
            .into_iter()
            .map(|square| {
                let u = m.shoup(m.mul(square, root));
                let mut powers = [m.reduce(1); 8];
                for j in 1..8 {
                    powers[j] = m.mul_shoup(powers[j - 1], u);
                }
                Constants::new(m, |j| powers[j])
            })
            .collect();
        let g = m.pow(root, 2 << runs);
        let at = |half: u64, blocks: u32, i: usize| m.pow(g, half * bit_reverse(i as u64, blocks));
        let lanes = if inverse {
            INVERSE_LANES
        } else {
            FORWARD_LANES
        };
        let last = std::array::from_fn(|pair| {
            let block = |lane: usize| 2 * pair + (lane / 2) % 2;
            [
                Constants::new(m, |lane| at(4, 3, 2 * pair + lanes[lane])),
                Constants::new(m, |lane| at(2, 4, 2 * block(lane) + lane / 4)),
                Constants::new(m, |lane| {
                    at(1, 5, 4 * block(lane) + lane / 4 * 2 + lane % 2)
                }),
            ]
        });
        Self {
            front,
            twists,
            last,
        }
    }
}
