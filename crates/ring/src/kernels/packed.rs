//! How the words of a prepared key lie in memory: with fewer than 64 bits each.
//!
//! Keys come from memory, which is what an inner product waits for. Words take 40, 48 or 52 bits, the
//! least that holds a residue: with whole bytes a vector takes them apart by one permutation of
//! bytes, and of 52 bits a multiply-add ignores what stands above.

use crate::modulus::Modulus;

/// Bits of a key word, which are the bytes of eight of them.
pub(crate) fn key_width(m: &Modulus) -> usize {
    match m.bits() {
        ..=40 => 40,
        41..=48 => 48,
        _ => 52,
    }
}

/// Words behind a block's packed ones that kernels may read, whatever they are: a vector of 64 bytes
/// takes eight words of 40 bits.
pub(crate) const KEY_PAD: usize = 3;

/// Words of memory that eight columns of so many key rows take.
pub(crate) fn key_stride(m: &Modulus, rows: usize) -> usize {
    (rows * key_width(m)).div_ceil(8)
}

/// Words of memory that `columns` words each of `rows` key rows take.
pub(crate) fn key_words(m: &Modulus, rows: usize, columns: usize) -> usize {
    columns / 8 * key_stride(m, rows)
}

/// Words that the round keys of one uniform half take, each four times: what a vector of blocks is
/// encrypted with.
pub(crate) const ROUND_KEYS: usize = 11 * 8;

/// The bit at which column `j` of one of `rows` rows begins.
fn bit_of(m: &Modulus, (row, rows): (usize, usize), j: usize) -> usize {
    let width = key_width(m);
    (j / 8 * key_stride(m, rows) * 64) + row * 8 * width + j % 8 * width
}

/// Column `j` of one of `rows` rows.
pub(super) fn key_word(m: &Modulus, words: &[u64], row: (usize, usize), j: usize) -> u64 {
    let (bit, width) = (bit_of(m, row, j), key_width(m));
    let word = |at: usize| u128::from(words.get(at).copied().unwrap_or(0));
    let both = word(bit / 64) | word(bit / 64 + 1) << 64;
    (both >> (bit % 64)) as u64 & ((1 << width) - 1)
}

/// One row of a key, of so many, into all columns of `out`.
pub(super) fn pack_key(m: &Modulus, out: &mut [u64], x: &[u64], row: (usize, usize)) {
    let width = key_width(m);
    for (j, &value) in x.iter().enumerate() {
        let bit = bit_of(m, row, j);
        let (value, mask) = (u128::from(value), (1u128 << width) - 1);
        for (at, half) in (bit / 64..).zip([0, 64]) {
            if let Some(word) = out.get_mut(at) {
                let bits = (mask << (bit % 64) >> half) as u64;
                *word = *word & !bits | (value << (bit % 64) >> half) as u64;
            }
        }
    }
}
