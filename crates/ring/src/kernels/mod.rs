//! The inner loops, once per instruction set, chosen at run time.
//!
//! All functions work on one limb. Values are canonical unless a function says otherwise, and all
//! instruction sets give bit-identical results. Products with a *Montgomery* operand expect it
//! multiplied by `2^52 mod q`: one reduction then gives the plain product.
//!
//! A transform is cut in two so that its caller can work on tiles: between `convert_tile` with
//! `top` and `forward_low`, and between `inverse_low` and `inverse_top`, words are lazy residues
//! in whatever form the instruction set likes. Callers may copy such words and set them to zero.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod ifma;
mod layout;
mod packed;
mod scalar;
#[cfg(test)]
mod sum_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod uniform_tests;

use std::ops::Range;

use crate::error::{Result, RingError};
use crate::modulus::{Modulus, ShoupConst};
use crate::ntt::{InverseScale, NttTable};
pub(crate) use layout::{LINE, Layout};
pub(crate) use packed::{PACKED_PAD, Packed, ROUND_KEYS, packed_words};
#[cfg(target_arch = "x86_64")]
use packed::{packed_stride, packed_width};

/// An instruction set for which kernels exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Isa {
    /// Portable 64-bit code.
    Scalar,
    /// x86-64 with AVX2, FMA and BMI2: products in double precision.
    Avx2,
    /// x86-64 with AVX-512 F, DQ, VL, IFMA (52-bit multiply-add), VBMI (permutations of bytes) and AES on
    /// vectors.
    Avx512Ifma,
}

impl Isa {
    /// What this processor can run, slowest first.
    pub fn available() -> Vec<Self> {
        [Self::Scalar, Self::Avx2, Self::Avx512Ifma]
            .into_iter()
            .filter(|isa| isa.runs_here())
            .collect()
    }

    fn runs_here(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Ifma => {
                Self::Avx2.runs_here()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512ifma")
                    && is_x86_feature_detected!("avx512vbmi")
                    && is_x86_feature_detected!("aes")
                    && is_x86_feature_detected!("vaes")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The fastest that this processor can run.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::Scalar)
    }
}

/// log2 of the words of a block on which the end of a forward NTT runs alone (32 KiB: L1).
pub(crate) const LOW_LOG: u32 = 12;

/// Most words per source limb of a tile (all its rows together).
pub(crate) const TILE_WORDS: usize = 2048;

/// Columns of a tile for `N = n`: 2048 words per source limb, so that a tile of eight limbs stays in the second
/// cache and its copies for two primes in L1, but 32 columns at least. Shorter rows keep the sources in L1
/// and cost more than that gains: memory is read and written in runs of a row.
pub(crate) fn tile_columns(n: usize) -> usize {
    let width = n.min(1 << LOW_LOG);
    (TILE_WORDS * width / n).max(32).min(width)
}

/// Per source prime: how `floor(y * 2^51 / q)` is approximated in fixed point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fraction {
    /// `52 - bits(q)`: `y << shift` is below 2^52.
    pub(crate) shift: u32,
    /// `floor(2^(bits + 51) / q)`, below 2^52.
    pub(crate) inverse: u64,
    /// `q / 2`, for the exact decision with one source prime.
    pub(crate) half: u64,
}

/// Constants of a base conversion to one target prime `p`.
pub(crate) struct ConvRow {
    /// `D/q_i * 2^52 mod p`, per source prime.
    pub(crate) weights: Vec<u64>,
    /// `-k D * 2^52 mod p` for k from 0 on.
    pub(crate) multiples: [u64; MULTIPLES],
}

/// Multiples of `-D` that a conversion has at hand: of fewer source primes a quotient is below it.
pub(crate) const MULTIPLES: usize = 16;

impl ConvRow {
    /// Of those weights and `d = D mod p`.
    pub(crate) fn new(m: &Modulus, weights: Vec<u64>, d: u64) -> Self {
        let (d, mut multiples) = (m.to_mont(d), [0; MULTIPLES]);
        for k in 1..MULTIPLES {
            multiples[k] = m.sub(multiples[k - 1], d);
        }
        Self { weights, multiples }
    }

    /// `-D * 2^52 mod p`.
    pub(crate) fn minus_d(&self) -> u64 {
        self.multiples[1]
    }
}

/// Columns of a limb, and what to do there.
#[derive(Clone)]
pub(crate) struct Tile {
    /// The columns.
    pub(crate) columns: Range<usize>,
    /// Whether the first stages of the NTT follow.
    pub(crate) top: bool,
}

/// Columns of a limb that went through `inverse_low`.
pub(crate) struct Columns<'a> {
    /// The limb, in either [`Layout`].
    pub(crate) x: &'a [u64],
    /// Which columns.
    pub(crate) range: Range<usize>,
    /// Words to fetch into the cache meanwhile, to be written next.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(crate) soon: &'a [u64],
    /// Whether the tile had better go past the caches, as for [`Converted`].
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    pub(crate) past: bool,
}

/// Orders words that went past the caches before what this thread does next, so that others may be told of
/// them.
#[inline]
pub(crate) fn order_past() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has SSE.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// What is fetched during part `i` of so many equal ones.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
fn share_of(ahead: &[u64], i: usize, parts: usize) -> &[u64] {
    let share = ahead.len() / parts.max(1);
    ahead.get(i * share..(i + 1) * share).unwrap_or(&[])
}

/// One tile of the source side of a base conversion.
#[derive(Clone, Copy)]
pub(crate) struct ConvSource<'a> {
    /// Scaled residues, per source prime the words of the tile, row by row.
    pub(crate) ys: &'a [u64],
    /// Quotients, in the same order: at most as many as there are primes.
    pub(crate) v: &'a [u8],
    /// All residues are below it; at most 2^50.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    pub(crate) bound: u64,
}

/// Where a base conversion goes.
pub(crate) struct Converted<'a> {
    /// Of the target prime.
    pub(crate) table: &'a NttTable,
    /// The constants towards it.
    pub(crate) row: &'a ConvRow,
    /// As many words as the source has of each prime, or a whole limb, in either [`Layout`].
    pub(crate) out: &'a mut [u64],
    /// Words to fetch into the cache meanwhile.
    pub(crate) ahead: &'a [u64],
    /// Whether what `convert_tile` leaves of a transform had better go past the caches, where every line would be
    /// fetched to be overwritten ([`order_past`] is up to the caller).
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    pub(crate) past: bool,
}

/// Whether `key` has the digits, the rows and the packed words for `n` columns.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
fn whole(m: &Modulus, key: &KeyRows<'_>, n: usize) -> bool {
    let ordered = |order: Option<&PermutationPiece<'_>>| {
        order.is_none_or(|o| n.is_power_of_two() && o.blocks.len() * 8 == n)
    };
    let row = |&first: &usize| match &key.uniform {
        None => first + 2 <= key.rows,
        Some(uniform) => {
            first / 2 < key.rows && (first / 2 + 1) * ROUND_KEYS <= uniform.round_keys.len()
        }
    };
    key.digits.len() <= key.first.len()
        && key.digits.iter().all(|d| d.len() >= n)
        && key.first.iter().all(row)
        && ordered(key.order)
        && key.uniform.as_ref().is_none_or(|u| ordered(u.order))
        && key.words.len() >= packed_words(m, key.rows, n) + PACKED_PAD
}

/// What an inner product adds, times a constant.
#[derive(Clone, Copy)]
pub(crate) struct Extra<'a> {
    /// Added to the first and to the second output.
    pub(crate) x: [Option<&'a [u64]>; 2],
    /// At most [`MOST_PRODUCTS`] tensor products, whose first two parts are added.
    pub(crate) tensors: &'a [Tensor<'a>],
    /// The constant in Montgomery form.
    pub(crate) factor: u64,
}

/// What values are subtracted from, and what the difference is multiplied by.
#[derive(Clone, Copy)]
pub(crate) struct Minuend<'a> {
    /// Canonical values, or what `inner_product` left for it (see [`KeyRows::loose`]), as many as are
    /// subtracted.
    pub(crate) x: &'a [u64],
    /// The order in which they are taken, if it is another one: a piece from this slice to it.
    pub(crate) order: Option<&'a PermutationPiece<'a>>,
    /// The factor.
    pub(crate) factor: ShoupConst,
}

/// What is left of a value modulo one prime, by which it is divided.
pub(crate) struct Rest<'a> {
    /// Below the prime, in coefficient form, tile by tile (see `tile_columns`) and row by row: canonical residues of
    /// the value plus half of the prime, rounded down. The number next to zero is the word less that half, which takes
    /// no comparison.
    pub(crate) words: &'a [u64],
    /// The prime.
    pub(crate) prime: u64,
    /// Whether results had better go past the caches: nobody reads them soon.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    pub(crate) past: bool,
}

/// A tensor product `(a0 b0, a0 b1 + a1 b0, a1 b1)` of canonical values.
#[derive(Clone, Copy)]
pub(crate) struct Tensor<'a> {
    pub(crate) a: [&'a [u64]; 2],
    pub(crate) b: [&'a [u64]; 2],
}

impl Extra<'_> {
    /// Whether every value has at least `n` words.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    pub(crate) fn covers(&self, n: usize) -> bool {
        let tensors = self.tensors.iter().flat_map(|t| t.a.iter().chain(&t.b));
        let mut all = self.x.iter().flatten().chain(tensors);
        all.all(|x| x.len() >= n)
    }
}

/// A piece of a `Permutation`: aligned blocks go to aligned blocks.
pub(crate) struct PermutationPiece<'a> {
    /// As in `Permutation`.
    pub(crate) blocks: &'a [u32],
    /// The block of eight with which the source slice begins.
    pub(crate) base: usize,
    /// As in `Permutation`.
    pub(crate) lanes: &'a [[u64; 8]; 8],
}

/// How many bytes before its use an inner product fetches its key.
#[cfg(target_arch = "x86_64")]
pub(crate) const KEY_AHEAD: usize = 9 << 10;

/// Digits and the key rows that they meet in one block, interleaved: for every eight columns, eight words of each row
/// (Montgomery form, packed: see `packed`). An inner product so reads one run of memory.
pub(crate) struct KeyRows<'a> {
    /// All packed words of the block, and [`PACKED_PAD`] more.
    pub(crate) words: &'a [u64],
    /// Number of rows, two per digit of the key, or one if the uniform halves are not among them.
    pub(crate) rows: usize,
    /// Per digit its first row, if it has two; its second row follows.
    pub(crate) first: &'a [usize],
    /// What the uniform halves are made from, if they are no rows.
    pub(crate) uniform: Option<Uniform<'a>>,
    /// The digits: values below 4q, or what `forward_digits` gave.
    pub(crate) digits: &'a [&'a [u64]],
    /// Where results go, if not to their columns: `blocks` has, for every eight columns, `target block
    /// << 3 | lane order`, and `base` is the block with which the outputs begin. As many as the outputs'
    /// blocks, a power of two.
    pub(crate) order: Option<&'a PermutationPiece<'a>>,
    /// Whether results go to `divide_low` as what it subtracts from: they may be other representatives then.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    pub(crate) loose: bool,
    /// The key's words that are read after this block, which are fetched meanwhile; none: those behind
    /// it in memory. Portable code has no way to.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    pub(crate) ahead: &'a [u64],
}

/// Uniform halves that an inner product makes for itself (see `keystream`).
#[derive(Clone, Copy, Default)]
pub(crate) struct Uniform<'a> {
    /// Per digit of the key `ROUND_KEYS` words, of which the first two are the AES key.
    pub(crate) round_keys: &'a [u64],
    /// Which words of the stream eight columns meet: the table by source of the key's automorphism, as
    /// for [`KeyRows::order`]; none: one after the other.
    pub(crate) order: Option<&'a PermutationPiece<'a>>,
    /// The group of eight columns with which the block begins.
    pub(crate) first: usize,
    /// Of the block's columns the words whose first attempt is refused. Portable code makes them anew.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    pub(crate) refused: &'a [Refused],
}

/// A word of a uniform half whose first attempt is refused. Known beforehand, such words cost an inner product no
/// branch: it takes all first attempts, and adds what is missing afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The column of the limb that meets the word.
    pub(crate) column: u32,
    /// The digit of the key.
    pub(crate) digit: u32,
    /// The attempt that is taken less the first one, modulo q.
    pub(crate) more: u64,
}

impl Uniform<'_> {
    /// The group of eight words that eight columns meet, and, for each of them, which of the eight.
    fn group(&self, columns: usize) -> (usize, [u64; 8]) {
        let Some(order) = self.order else {
            return (self.first + columns, [0, 1, 2, 3, 4, 5, 6, 7]);
        };
        let b = order.blocks.get(columns).copied().unwrap_or(0);
        ((b >> 3) as usize, words_met(&order.lanes[(b & 7) as usize]))
    }
}

/// Which of eight words each of eight columns meets, given from which column each word's result comes.
fn words_met(lanes: &[u64; 8]) -> [u64; 8] {
    let mut words = [0; 8];
    for (word, &column) in (0..).zip(lanes) {
        words[(column & 7) as usize] = word;
    }
    words
}

#[cfg(target_arch = "x86_64")]
impl KeyRows<'_> {
    /// Where the key's byte `at` is, of `whole` bytes of this block and those that are read next.
    fn later(&self, at: usize, whole: usize) -> *const u8 {
        let (next, from) = match self.ahead {
            ahead if at >= whole && !ahead.is_empty() => (ahead, at - whole),
            _ => (self.words, at),
        };
        next.as_ptr().cast::<u8>().wrapping_add(from)
    }
}

/// One of the sums that `sum_products` makes of the same words.
pub(crate) struct ProductSum<'a> {
    /// Where its halves go.
    pub(crate) out: [&'a mut [u64]; 2],
    /// Whether they are written there, or else added to what is there.
    pub(crate) fresh: [bool; 2],
    /// Per pair of words what both are multiplied by.
    pub(crate) factors: &'a [Factor<'a>],
    /// As many words to fetch into the cache meanwhile instead of the first half's: where it is added next.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    pub(crate) next: Option<&'a [u64]>,
}

/// Values in Montgomery form for some words.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    /// Zero for all.
    Zero,
    /// One for each run of equal length; at least one.
    Runs(&'a [u64]),
    /// One for every word.
    Packed(Packed<'a>),
}

/// What a pair of blocks is multiplied by.
#[derive(Clone, Copy)]
pub(crate) struct Factor<'a> {
    pub(crate) y: Values<'a>,
    /// Words to fetch into the cache meanwhile; portable code has no way to.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    pub(crate) ahead: &'a [u64],
}

impl ProductSum<'_> {
    /// Whether outputs have `n` words, and there are `count` factors, of which those with runs have them of one
    /// word, or of a power of two of at least `shortest`.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    pub(crate) fn fits(&self, m: &Modulus, (n, count): (usize, usize), shortest: usize) -> bool {
        let runs = |f: &Factor<'_>| match f.y {
            Values::Zero => true,
            Values::Runs(y) => {
                let powers = n.is_power_of_two() && y.len().is_power_of_two();
                y.len() == n || (powers && n / y.len() >= shortest)
            }
            Values::Packed(y) => y.covers(m, n),
        };
        self.out.iter().all(|out| out.len() == n)
            && self.factors.len() == count
            && self.factors.iter().all(runs)
    }
}

/// Sums that `sum_products` makes in one pass over the words: each factor is then read for four
/// multiplications, each word for eight, and their parts leave registers for the rest.
pub(crate) const ABREAST: usize = 4;

/// Most products of which one call of `mul_mont` makes the sum: it reads twice as many streams of words, and the
/// sum of so many needs no more reduction than one.
pub(crate) const TERMS: usize = 4;

/// What becomes of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// They are added to what is there.
    Added,
    /// They are written; what was there is not read.
    Written,
    /// The same, past the caches if there is a way and none of them is read again ([`order_past`] is up to the
    /// caller).
    Past,
}

/// Most products that one call of `sum_products` or `inner_product` takes: their sum stays lazy.
pub(crate) const MOST_PRODUCTS: usize = 1 << 10;

/// A checked choice of instruction set: holding one proves that the processor has it.
#[derive(Clone, Copy)]
pub(crate) struct Kernels {
    isa: Isa,
}

impl Kernels {
    pub(crate) fn new(isa: Isa) -> Result<Self> {
        let available = Isa::available();
        if available.contains(&isa) {
            Ok(Self { isa })
        } else {
            Err(RingError::IsaUnavailable {
                requested: isa,
                available,
            })
        }
    }

    pub(crate) fn isa(self) -> Isa {
        self.isa
    }
}

macro_rules! kernels {
    ($( $(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?); )*) => {
        impl Kernels {
            $(
                $(#[$doc])*
                pub(crate) fn $name(self, $($arg: $ty),*) {
                    match self.isa {
                        Isa::Scalar => scalar::$name($($arg),*),
                        #[cfg(target_arch = "x86_64")]
                        // SAFETY: `Kernels::new` checked that the processor has the features.
                        Isa::Avx2 => unsafe { avx2::$name($($arg),*) },
                        #[cfg(target_arch = "x86_64")]
                        // SAFETY: as above.
                        Isa::Avx512Ifma => unsafe { ifma::$name($($arg),*) },
                        #[cfg(not(target_arch = "x86_64"))]
                        _ => scalar::$name($($arg),*),
                    }
                }
            )*
        }
    };
}

kernels! {
    /// Forward NTT in place: input below 4q, output canonical. Meanwhile `ahead` is fetched into the
    /// cache.
    fn forward(t: &NttTable, x: &mut [u64], ahead: &[u64]);
    /// The rest of a forward NTT, after the stages that `convert_tile` with `top` does, on the
    /// block of that number; output canonical. Meanwhile `ahead` is fetched into the cache.
    fn forward_low(t: &NttTable, x: &mut [u64], block: usize, ahead: &[u64]);
    /// As `forward_low`, for digits: only an inner product may read what comes out.
    fn forward_digits(t: &NttTable, x: &mut [u64], block: usize, ahead: &[u64]);
    /// As `forward_low`; what comes out is subtracted from the minuend and multiplied by its factor:
    /// the end of a division by primes, with their rest in `x`.
    fn divide_low(t: &NttTable, x: &mut [u64], block: usize, ahead: &[u64], from: &Minuend<'_>);
    /// `out = (x - r) * factor` for whole limbs in NTT form: `x` and the factor as the minuend says, which
    /// has no order, `r` the rest. `work` has as many words, and something in the end.
    fn divide_rest(t: &NttTable, out: &mut [u64], work: &mut [u64], rest: &Rest<'_>, from: &Minuend<'_>);
    /// The same for a rest that went through `convert_tile` with `top` to `work`; the result goes past the
    /// caches.
    fn divide_converted(t: &NttTable, out: &mut [u64], work: &mut [u64], from: &Minuend<'_>);
    /// The stages of the inverse NTT inside the block of that number (`2^LOW_LOG` words, or all) of
    /// the values `x`, into `out`.
    fn inverse_low(t: &NttTable, out: &mut [u64], x: &[u64], block: usize, c: &InverseScale);
    /// The other stages and the factor, on columns of a limb; they go to a tile, rows one after the
    /// other.
    fn inverse_top(t: &NttTable, tile: &mut [u64], from: &Columns<'_>, c: &InverseScale);
    /// The whole inverse NTT into `out`: of `x`, or else of what `out` holds. Meanwhile `ahead` is
    /// fetched into the cache.
    fn inverse(t: &NttTable, out: &mut [u64], x: Option<&[u64]>, c: &InverseScale, ahead: &[u64]);
    /// `out += y`.
    fn add(m: &Modulus, out: &mut [u64], y: &[u64]);
    /// `out -= y`.
    fn sub(m: &Modulus, out: &mut [u64], y: &[u64]);
    /// `out = x + y`; results may go past the caches, as those of [`Converted`].
    fn sum(m: &Modulus, out: &mut [u64], x: &[u64], y: &[u64], past: bool);
    /// `out = x - y`; results may go past the caches, as those of [`Converted`].
    fn difference(m: &Modulus, out: &mut [u64], x: &[u64], y: &[u64], past: bool);
    /// `out = -out`.
    fn neg(m: &Modulus, out: &mut [u64]);
    /// `out = x * y`; results may go past the caches, as those of [`Converted`].
    fn mul(m: &Modulus, out: &mut [u64], x: &[u64], y: &[u64], past: bool);
    /// `out += x * y`.
    fn mul_acc(m: &Modulus, out: &mut [u64], x: &[u64], y: &[u64]);
    /// `out = sum_i x_i * y_i` with each `y_i` in Montgomery form, of one to `TERMS` of them, as `keep` says.
    fn mul_mont(m: &Modulus, out: &mut [u64], terms: &[(&[u64], Packed<'_>)], keep: Keep);
    /// `out = x + y` with `y` in Montgomery form; results may go past the caches, as those of [`Converted`].
    fn sum_mont(m: &Modulus, out: &mut [u64], x: &[u64], y: Packed<'_>, past: bool);
    /// `out = x * c`.
    fn mul_const(m: &Modulus, out: &mut [u64], x: &[u64], c: ShoupConst);
    /// `out += x * c`.
    fn mul_const_acc(m: &Modulus, out: &mut [u64], x: &[u64], c: ShoupConst);
    /// `out *= c`.
    fn scale(m: &Modulus, out: &mut [u64], c: ShoupConst);
    /// `out += c`.
    fn add_const(m: &Modulus, out: &mut [u64], c: u64);
    /// `out = x + c`.
    fn sum_const(m: &Modulus, out: &mut [u64], x: &[u64], c: u64);
    /// `out = (x - out) * c`.
    fn sub_from_scaled(m: &Modulus, out: &mut [u64], x: &[u64], c: ShoupConst);
    /// The quotients `v` of a centred base conversion from the scaled residues of a tile.
    fn quotient(v: &mut [u8], ys: &[u64], fractions: &[Fraction]);
    /// Per target `out = sum_i y_i * (D/q_i) - v * D mod p`, canonical.
    fn convert(targets: &mut [Converted<'_>], source: &ConvSource<'_>);
    /// The same for the columns of one tile; `out` is a whole limb. With `top` followed by the first
    /// stages of the NTT (lazy words for `forward_low`). Tiles come in ascending order and cover
    /// all columns.
    fn convert_tile(targets: &mut [Converted<'_>], source: &ConvSource<'_>, tile: &Tile);
    /// One row of so many packed into all columns of a limb: `x * c`.
    fn pack_row(m: &Modulus, out: &mut [u64], x: &[u64], c: ShoupConst, row: (usize, usize));
    /// What a uniform half is made from: `ROUND_KEYS` words, of which the first two are the AES key.
    fn round_keys(key: &[u8; 16], out: &mut [u64]);
    /// Of the first `words` words that such round keys make (a multiple of eight, at most `2^32`) those whose
    /// first attempt is refused: their numbers, and what is taken instead less that attempt, modulo q.
    fn refused(m: &Modulus, round_keys: &[u64], words: usize, out: &mut Vec<(u32, u64)>);
    /// The residues that such round keys make, from the first one on.
    fn uniform(m: &Modulus, round_keys: &[u64], out: &mut [u64]);
    /// `out_k = sum_d digits[d] * key[2d + k] + extra`, see `KeyRows`; canonical results, in another order
    /// if it has one.
    fn inner_product(m: &Modulus, out0: &mut [u64], out1: &mut [u64], key: &KeyRows<'_>, extra: &Extra<'_>);
    /// Per sum `out[k] = sum_i x_i[k] * y_i`, or that added to `out[k]` unless `fresh[k]`, of canonical
    /// words and with canonical results. At most `MOST_PRODUCTS` of them.
    fn sum_products(m: &Modulus, sums: &mut [ProductSum<'_>], x: &[[&[u64]; 2]]);
    /// `out = x`. Meanwhile `ahead` is fetched into the cache, as many lines as are copied.
    fn copy(out: &mut [u64], x: &[u64], ahead: &[u64]);
    /// Each word of `x` as many times as there is room for in `out`: 2 or 4 words for one of `x`.
    fn spread(out: &mut [u64], x: &[u64]);
    /// `out[j] = x[source(j)]`. Meanwhile `ahead` is fetched into the cache; results may go past it, as those of
    /// [`Converted`].
    fn permute(out: &mut [u64], x: &[u64], p: &PermutationPiece<'_>, ahead: &[u64], past: bool);
    /// `out[j] += x[source(j)]`.
    fn permute_acc(m: &Modulus, out: &mut [u64], x: &[u64], p: &PermutationPiece<'_>);
    /// `out[source^-1]`: coefficient-form automorphism `X -> X^g`.
    fn permute_coefficients(m: &Modulus, out: &mut [u64], x: &[u64], g: u64);
}
