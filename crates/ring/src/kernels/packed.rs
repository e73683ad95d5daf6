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

/// Words of memory that `columns` words each of `rows` key rows (an even number) take.
pub(crate) fn key_words(m: &Modulus, rows: usize, columns: usize) -> usize {
    columns / 8 * (rows * key_width(m) / 8)
}

/// Word number `i` of those that lie one after the other.
pub(super) fn key_word(words: &[u64], i: usize, width: usize) -> u64 {
    let (at, shift) = (i * width / 64, i * width % 64);
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    let high = match shift {
        0 => 0,
        _ => word(at + 1) << (64 - shift),
    };
    (word(at) >> shift | high) & ((1 << width) - 1)
}

/// Two rows of a key, `first` (an even number) and the next one of `rows`, into all columns of `out`.
pub(super) fn pack_key(
    m: &Modulus,
    out: &mut [u64],
    pair: [&[u64]; 2],
    (first, rows): (usize, usize),
) {
    let width = key_width(m);
    let columns = pair[0]
        .as_chunks::<8>()
        .0
        .iter()
        .zip(pair[1].as_chunks::<8>().0);
    for (column, (x, y)) in columns.enumerate() {
        let at = (column * rows + first) * width / 8;
        let Some(out) = out.get_mut(at..at + width / 4) else {
            return;
        };
        let (mut low, mut bits) = (0u128, 0);
        let mut out = out.iter_mut();
        for &word in x.iter().chain(y) {
            low |= u128::from(word) << bits;
            bits += width;
            if bits >= 64 {
                if let Some(out) = out.next() {
                    *out = low as u64;
                }
                low >>= 64;
                bits -= 64;
            }
        }
    }
}
