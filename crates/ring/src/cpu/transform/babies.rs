//! Blocks of the inputs as terms multiply them: as they are, times P, or rotated.

use super::super::grouping::digit_stride;
use super::super::{Cpu, CpuKey};
use super::work::{Baby, Place, Work};
use crate::kernels::{Extra, KeyRows, Layout, PACKED_PAD, packed_words};
use crate::modulus::Modulus;
use crate::poly::RnsPoly;

impl Cpu {
    /// A block of an input as it is; meanwhile the next one's is fetched.
    pub(super) fn copy_block(
        &self,
        work: &Work<'_>,
        (baby, place): (&Baby<'_>, Place),
        next: Option<(&Baby<'_>, Place)>,
        out: &mut [u64],
    ) {
        let next = next.map_or([None; 2], |(baby, place)| baby.blocks(place, work.block));
        let (out0, out1) = work.halves_mut(out);
        let halves = [out0, out1].into_iter().zip(baby.blocks(place, work.block));
        for ((out, x), ahead) in halves.zip(next) {
            if let Some(x) = x {
                self.kernels.copy(out, x, ahead.unwrap_or(&[]));
            }
        }
    }

    /// A block of `P c`, as far as it is not zero.
    pub(super) fn lift_block(
        &self,
        work: &Work<'_>,
        baby: &Baby<'_>,
        place: Place,
        out: &mut [u64],
    ) {
        let m = self.chain.modulus(place.prime);
        let p = m.shoup(self.chain.product_mod(work.special, place.prime));
        let (out0, out1) = work.halves_mut(out);
        for (out, c) in [(out0, baby.c.0), (out1, baby.c.1)] {
            if let Some(x) = c.limb_of(place.prime) {
                let x = &x[place.words(work.block)];
                self.kernels.mul_const(m, out, x, p);
            }
        }
    }

    /// A block of a rotated input.
    pub(super) fn turn_block(
        &self,
        work: &Work<'_>,
        turn: &Turning<'_>,
        place: Place,
        out: &mut [u64],
    ) {
        let n = self.chain.n();
        let (stride, layout) = (digit_stride(n), Layout::apart(n));
        let m = self.chain.modulus(place.prime);
        let (from, _) = turn.key.permutation.piece_for(place.number, work.block);
        let order = turn.key.permutation.piece_from(from, work.block);
        let range = from * work.block..(from + 1) * work.block;
        let Some((_, words)) = key_block(m, work, turn.key, place) else {
            return;
        };
        let source = &work.sources[turn.source];
        let before = work.sources[..turn.source].iter();
        let first: usize = before.map(|s| s.digits.len()).sum();
        let limbs = turn.digits.chunks(stride).skip(first);
        let digits: Vec<&[u64]> = source
            .digits
            .iter()
            .zip(limbs)
            .map(|((own, _), limb)| match source.poly.limb_of(place.prime) {
                Some(x) if own.contains(place.prime) => &x[range.clone()],
                _ => &limb[layout.at(range.start)..][..work.block],
            })
            .collect();
        let rows = KeyRows {
            words,
            rows: turn.key.stored(),
            first: &source.rows,
            uniform: turn.key.uniform(place.prime, &range, Some(&order)),
            digits: &digits,
            order: Some(&order),
            loose: false,
            ahead: turn.ahead,
        };
        let c0 = turn.c0.limb_of(place.prime);
        let extra = Extra {
            x: [c0.and_then(|x| x.get(range)), None],
            tensors: &[],
            factor: m.to_mont(self.chain.product_mod(work.special, place.prime)),
        };
        let (out0, out1) = work.halves_mut(out);
        self.kernels.inner_product(m, out0, out1, &rows, &extra);
    }
}

/// What makes a block of a rotated input.
pub(super) struct Turning<'a> {
    pub(super) c0: &'a RnsPoly,
    pub(super) key: &'a CpuKey,
    /// Number of the decomposition.
    pub(super) source: usize,
    /// Digits of all inputs at this prime.
    pub(super) digits: &'a [u64],
    /// Words to fetch into the cache meanwhile.
    pub(super) ahead: &'a [u64],
}

/// The block that a rotation reads for a block of its result, and the key's words there.
pub(super) fn key_block<'k>(
    m: &Modulus,
    work: &Work<'_>,
    key: &'k CpuKey,
    place: Place,
) -> Option<(usize, &'k [u64])> {
    let (from, _) = key.permutation.piece_for(place.number, work.block);
    let words = packed_words(m, key.stored(), work.block);
    let row = key.row_of(place.prime)?;
    Some((
        from,
        row.get(from * words..(from + 1) * words + PACKED_PAD)?,
    ))
}
