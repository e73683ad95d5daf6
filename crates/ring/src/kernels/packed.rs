//! How the words of prepared keys and of plaintexts with a value for every word lie in memory: with fewer than 64
//! bits each.
//!
//! Both come from memory, which is what sums of products wait for. Words take 40, 48 or 52 bits, the
//! least that holds a residue: with whole bytes a vector takes them apart by one permutation of
//! bytes, and of 52 bits a multiply-add ignores what stands above.

use std::ops::Range;

use crate::modulus::{Modulus, ShoupConst};

/// Bits of a packed word, which are the bytes of eight of them.
pub(crate) fn packed_width(m: &Modulus) -> usize {
    match m.bits() {
        ..=40 => 40,
        41..=48 => 48,
        _ => 52,
    }
}

/// Words behind a block's packed ones that kernels may read, whatever they are: a vector of 64 bytes
/// takes eight words of 40 bits. Masked loads would read no more, but are no operand of a permutation.
pub(crate) const PACKED_PAD: usize = 3;

/// Words of memory that eight columns of so many rows take.
pub(crate) fn packed_stride(m: &Modulus, rows: usize) -> usize {
    (rows * packed_width(m)).div_ceil(8)
}

/// Words of memory that `columns` words each of so many rows take: whole eights of columns.
pub(crate) fn packed_words(m: &Modulus, rows: usize, columns: usize) -> usize {
    columns.div_ceil(8) * packed_stride(m, rows)
}

/// Words that the round keys of one uniform half take, each four times: what a vector of blocks is
/// encrypted with.
pub(crate) const ROUND_KEYS: usize = 11 * 8;

/// A single packed row, or some columns of it.
#[derive(Clone, Copy)]
pub(crate) struct Packed<'a> {
    /// All packed words, and [`PACKED_PAD`] more.
    pub(crate) words: &'a [u64],
}

impl<'a> Packed<'a> {
    /// Some of the columns, whole eights of them; none of it where they are not there.
    pub(crate) fn columns(self, m: &Modulus, columns: Range<usize>) -> Self {
        let begin = packed_words(m, 1, columns.start);
        let end = begin + packed_words(m, 1, columns.len()) + PACKED_PAD;
        let words = self.words.get(begin..end).unwrap_or(&[]);
        Self { words }
    }

    /// Whether it has so many columns.
    pub(crate) fn covers(self, m: &Modulus, columns: usize) -> bool {
        self.words.len() >= packed_words(m, 1, columns) + PACKED_PAD
    }

    /// The word of a column.
    pub(super) fn word(self, m: &Modulus, column: usize) -> u64 {
        packed_word(m, self.words, (0, 1), column)
    }
}

/// The bit at which column `j` of one of `rows` rows begins.
fn bit_of(m: &Modulus, (row, rows): (usize, usize), j: usize) -> usize {
    let width = packed_width(m);
    (j / 8 * packed_stride(m, rows) * 64) + row * 8 * width + j % 8 * width
}

/// Column `j` of one of `rows` rows.
pub(super) fn packed_word(m: &Modulus, words: &[u64], row: (usize, usize), j: usize) -> u64 {
    let (bit, width) = (bit_of(m, row, j), packed_width(m));
    let word = |at: usize| u128::from(words.get(at).copied().unwrap_or(0));
    let both = word(bit / 64) | word(bit / 64 + 1) << 64;
    (both >> (bit % 64)) as u64 & ((1 << width) - 1)
}

/// One row of so many, into all columns of `out`: `x * c`.
pub(super) fn pack_row(
    m: &Modulus,
    out: &mut [u64],
    x: &[u64],
    c: ShoupConst,
    row: (usize, usize),
) {
    let width = packed_width(m);
    for (block, values) in x.chunks(8).enumerate() {
        let bit = bit_of(m, row, 8 * block);
        let mut outs = out.iter_mut().skip(bit / 64);
        // Of the first and the last word other rows may have a part.
        let (mut left, mut have) = (0u128, bit % 64);
        let mut first = (1u64 << have) - 1;
        for &value in values {
            left |= u128::from(m.mul_shoup(value, c)) << have;
            have += width;
            if have >= 64 {
                let Some(word) = outs.next() else { return };
                *word = *word & first | left as u64;
                (left, have, first) = (left >> 64, have - 64, 0);
            }
        }
        if have > 0
            && let Some(word) = outs.next()
        {
            *word = *word & (u64::MAX << have | first) | left as u64;
        }
    }
}
