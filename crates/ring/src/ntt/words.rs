//! Twiddle factors for kernels with multiply-adds of 52 bits.
//!
//! A constant `w` comes in one of two forms:
//! * where words have room ([`is_roomy`]), with its quotient (Shoup, in Harvey, "Faster arithmetic for
//!   number-theoretic transforms", 2014): `a = w` and `b = floor(w 2^52 / q)`. The product is then a
//!   difference of two low halves, which multiply-adds leave modulo 2^52 for nothing; nobody looks at the bits
//!   above as long as the value itself is below 2^52.
//! * elsewhere `a = w 2^52 mod q` and `b = a q^-1 mod 2^52` (Montgomery, "Modular multiplication without trial
//!   division", 1985, with the second factor known beforehand). The product is a difference of two high halves,
//!   a word as it is, in `(-q, q)`: a range half as long as the other one's.
//!
//! **Twists.** Plain tables hold a twiddle per block and stage, most of them for the last stages.
//! Here the last four stages, which work on blocks of 16 words, share one set. Let
//! `k = log2 N - 7` and let block `c` of the eight in run `B` of 128 words be taken modulo
//! `X^16 - s^16`. By the order of the contract `s = root^(2 rev_{k+3}(8B + c) + 1) = u v` with
//! `u = root^(2 rev_k(B) + 1)`, which depends on `B` alone, and `v = g^rev_3(c)`,
//! `g = root^(2^(k+1))` of order 128. Substituting `X = u Y` multiplies word `j` by `u^j` and leaves
//! the modulus `Y^16 - v^16` and twiddles that depend on `c` alone: those of a cyclic transform,
//! `g^(half rev(i))` for block `i` of the stage with half block `half`. The inverse substitutes
//! `Y = u^-1 X` after its first four stages; its root is the inverse one.
//! So 1/16 of a plain table remains, and twice that for the powers of `u`.

use super::{bit_reverse, bit_reversed_powers};
use crate::modulus::{Modulus, ShoupConst};

/// Eight words of one vector.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line(pub(crate) [u64; 8]);

/// Whether values may grow to `64 q` in a word of 52 bits.
pub(crate) fn is_roomy(m: &Modulus) -> bool {
    m.bits() <= 46
}

/// A constant as products want it.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Constant {
    /// `w`, or `w 2^52 mod q`.
    pub(crate) a: u64,
    /// `floor(w 2^52 / q)`, or `a q^-1 mod 2^52`.
    pub(crate) b: u64,
}

impl Constant {
    fn new(m: &Modulus, w: u64) -> Self {
        Self::of(m, m.shoup(w))
    }

    /// A constant with its quotient in the form that the modulus wants.
    pub(crate) fn of(m: &Modulus, c: ShoupConst) -> Self {
        if is_roomy(m) {
            return Self {
                a: c.w,
                b: c.quotient,
            };
        }
        let a = m.to_mont(c.w);
        let b = a.wrapping_mul(m.inv52()) & ((1 << 52) - 1);
        Self { a, b }
    }
}

/// Eight constants.
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

/// Which of two neighbouring blocks of 8 words each lane holds in the stage with half block 4: the
/// two directions shuffle differently.
const FORWARD_LANES: [usize; 8] = [0, 0, 0, 0, 1, 1, 1, 1];
const INVERSE_LANES: [usize; 8] = [0, 0, 1, 1, 0, 0, 1, 1];

/// The twiddles of the last four stages of a block of 16 words.
pub(crate) struct Sixteenth {
    /// Half block 8.
    pub(crate) half8: Constant,
    /// Half block 4: a lane holds what the lanes above say.
    pub(crate) half4: Constants,
    /// Half block 2: words 0 and 1 of the first, of the second half, words 4 and 5 of either.
    pub(crate) half2: Constants,
    /// Half block 1: words 0 and 2 of the first, of the second half, words 4 and 6 of either.
    pub(crate) half1: Constants,
}

/// What the quotient of a value below `16 q` by `q` is made with, exactly: `floor(x m / 2^F)` with
/// `m = ceil(2^F / q)`.
#[derive(Clone, Copy)]
pub(crate) struct ExactQuotient {
    /// `m`: below 2^52 for q of up to 47 bits, as `2^(bits - 1) < q < 2^bits`; above them it is of no use.
    pub(crate) multiplier: u64,
    /// `F`, with `16 q^2 <= 2^F`.
    pub(crate) exponent: u32,
}

impl ExactQuotient {
    fn new(m: &Modulus) -> Self {
        let exponent = (2 * m.bits() + 4).max(52);
        Self {
            multiplier: (1u128 << exponent).div_ceil(u128::from(m.value())) as u64,
            exponent,
        }
    }
}

/// Twiddles of one direction.
pub(crate) struct WordTwiddles {
    pub(crate) exact: ExactQuotient,
    /// `root^rev(i)` at `i`, for all stages but the last four.
    pub(crate) front: Vec<Constant>,
    /// Per run of 128 words `u^j`, for `j` below 8 and from 8 on.
    pub(crate) twists: Vec<[Constants; 2]>,
    /// Per block of 16 words of a run.
    pub(crate) last: [Sixteenth; 8],
}

impl WordTwiddles {
    /// For `N >= 128`.
    pub(super) fn new(m: &Modulus, log_n: u32, root: u64, inverse: bool) -> Self {
        let runs = log_n.saturating_sub(7);
        // root^rev(i) for i < N/16: multiples of 16 in the exponent.
        let front = bit_reversed_powers(m, log_n.saturating_sub(4), m.pow(root, 16))
            .into_iter()
            .map(|w| Constant::new(m, w))
            .collect();
        let squares = bit_reversed_powers(m, runs, m.mul(root, root));
        let twists = squares
            .into_iter()
            .map(|square| {
                let u = m.shoup(m.mul(square, root));
                let mut powers = [m.reduce(1); 16];
                for j in 1..16 {
                    powers[j] = m.mul_shoup(powers[j - 1], u);
                }
                [0, 8].map(|from| Constants::new(m, |j| powers[from + j]))
            })
            .collect();
        let g = m.pow(root, 2 << runs);
        let at = |half: u64, bits: u32, i: usize| m.pow(g, half * bit_reverse(i as u64, bits));
        let lanes = if inverse {
            INVERSE_LANES
        } else {
            FORWARD_LANES
        };
        let last = std::array::from_fn(|c| {
            // Blocks of 4 words: lanes in pairs are of the first, the second half.
            let block = |lane: usize| 2 * c + (lane / 2) % 2;
            Sixteenth {
                half8: Constant::new(m, at(8, 3, c)),
                half4: Constants::new(m, |lane| at(4, 4, 2 * c + lanes[lane])),
                half2: Constants::new(m, |lane| at(2, 5, 2 * block(lane) + lane / 4)),
                half1: Constants::new(m, |lane| {
                    at(1, 6, 4 * block(lane) + lane / 4 * 2 + lane % 2)
                }),
            }
        });
        Self {
            exact: ExactQuotient::new(m),
            front,
            twists,
            last,
        }
    }
}
