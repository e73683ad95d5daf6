//! Packed words, by permutations of bytes inside of pairs.

use std::arch::x86_64::*;

use super::pointwise::splat;
use super::{LANES, Lanes, load};
use crate::kernels::{Packed, packed_stride, packed_width, scalar};
use crate::modulus::{Modulus, ShoupConst};

/// How four packed words of one width are taken apart, see `kernels::packed`.
pub(super) struct Unpack {
    pub(super) width: usize,
    /// Bytes from eight columns to the next ones of a single row.
    step: usize,
    /// Per byte of two words where it is; none where it is not one of the word's.
    bytes: __m256i,
    /// Where the second two of four words are read, in bytes: with what is before them, so that nothing behind them is.
    second: usize,
    /// Bits of the word before in its first byte.
    shift: __m256i,
    mask: __m256i,
}

impl Unpack {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn new(m: &Modulus) -> Self {
        let width = packed_width(m);
        let whole = width.is_multiple_of(8);
        let mut bytes = [0i8; 32];
        let before = 16 - width / 4;
        for (i, byte) in bytes.iter_mut().enumerate() {
            // Of words of whole bytes no other ones. What is none of two words of half bytes is masked.
            let at = i / 16 * before + i / 8 % 2 * width / 8 + i % 8;
            *byte = match whole && i % 8 >= width / 8 {
                true => -1,
                false => at.min(15) as i8,
            };
        }
        let half = if whole { 0 } else { 4 };
        Self {
            width,
            step: 8 * packed_stride(m, 1),
            second: width / 4 - before,
            // SAFETY: 32 bytes.
            bytes: unsafe { load(bytes.as_ptr().cast()) },
            shift: _mm256_setr_epi64x(0, half, 0, half),
            mask: _mm256_set1_epi64x((1 << width) - 1),
        }
    }

    /// Four words that begin at `p`; `WHOLE` if all have whole bytes.
    ///
    /// # Safety
    /// `width / 2` bytes at `p` must be readable.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn at<const WHOLE: bool>(&self, p: *const u8) -> __m256i {
        // SAFETY: the caller's promise: four words take 20 bytes or more, the second load ends with them.
        let pairs = unsafe {
            let low = _mm_loadu_si128(p.cast());
            _mm256_set_m128i(_mm_loadu_si128(p.add(self.second).cast()), low)
        };
        let words = _mm256_shuffle_epi8(pairs, self.bytes);
        match WHOLE {
            true => words,
            false => _mm256_and_si256(_mm256_srlv_epi64(words, self.shift), self.mask),
        }
    }

    /// Eight words of a single row, from column `j` on, in two vectors.
    ///
    /// # Safety
    /// The row covers `j + 8` columns, and `j` is a multiple of eight.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn eight<const WHOLE: bool>(
        &self,
        row: Packed<'_>,
        j: usize,
    ) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let p = row.words.as_ptr().cast::<u8>().add(j / 8 * self.step);
            [self.at::<WHOLE>(p), self.at::<WHOLE>(p.add(self.width / 2))]
        }
    }

    /// Fetches, of words that lie like this, the eight from column `j` on, if they are there.
    #[inline]
    pub(super) fn fetch(&self, words: &[u64], j: usize) {
        let at = j / 8 * self.step;
        if at < size_of_val(words) {
            let line = words.as_ptr().cast::<u8>().wrapping_add(at);
            // SAFETY: a prefetch reads nothing, and faults at no address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
        }
    }
}

/// How two words of one width are put together in each half of a vector.
struct Pack {
    /// Bytes that they take.
    pair: usize,
    /// Bits by which the second word is moved up first: half a byte in words of 52 bits.
    shift: __m256i,
    /// Per byte of a pair where it is, in the first word or in the second.
    first: __m256i,
    second: __m256i,
    /// The last eight bytes of a pair.
    tail: __m128i,
}

impl Pack {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(m: &Modulus) -> Self {
        let width = packed_width(m);
        let pair = width / 4;
        let (mut first, mut second, mut tail) = ([-1i8; 32], [-1i8; 32], [-1i8; 16]);
        for i in 0..pair {
            for half in [0, 16] {
                if 8 * i < width {
                    first[half + i] = i as i8;
                }
                if i >= width / 8 {
                    second[half + i] = (8 + i - width / 8) as i8;
                }
            }
        }
        for (i, byte) in tail.iter_mut().take(8).enumerate() {
            *byte = (pair - 8 + i) as i8;
        }
        let half = if width.is_multiple_of(8) { 0 } else { 4 };
        // SAFETY: 32 bytes, and 16.
        unsafe {
            Self {
                pair,
                shift: _mm256_setr_epi64x(0, half, 0, half),
                first: load(first.as_ptr().cast()),
                second: load(second.as_ptr().cast()),
                tail: _mm_loadu_si128(tail.as_ptr().cast()),
            }
        }
    }

    /// Two words in each half, packed.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn pairs(&self, words: __m256i) -> [__m128i; 2] {
        let words = _mm256_sllv_epi64(words, self.shift);
        let first = _mm256_shuffle_epi8(words, self.first);
        let both = _mm256_or_si256(first, _mm256_shuffle_epi8(words, self.second));
        [
            _mm256_castsi256_si128(both),
            _mm256_extracti128_si256::<1>(both),
        ]
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,fma")]
pub(in crate::kernels) fn pack_row(
    m: &Modulus,
    out: &mut [u64],
    x: &[u64],
    c: ShoupConst,
    (row, rows): (usize, usize),
) {
    let step = packed_stride(m, rows);
    if !x.len().is_multiple_of(8) || row >= rows || out.len() < x.len() / 8 * step {
        return scalar::pack_row(m, out, x, c, (row, rows));
    }
    let (l, pack) = (Lanes::new(m), Pack::new(m));
    let w = splat(m, &l, c.w);
    for (column, words) in x.as_chunks::<8>().0.iter().enumerate() {
        // SAFETY: eight words are read. Four pairs are written, in the column's row, inside `out` since every column
        // has `step` words and the row is one of `rows`: what is written behind the first three is
        // overwritten by the next one, and of the last one no more than it has.
        unsafe {
            let to = out.as_mut_ptr().add(column * step).cast::<u8>();
            let to = to.add(row * packed_width(m));
            let low = l.double(load(words.as_ptr()));
            let high = l.double(load(words.as_ptr().add(LANES)));
            let [pair0, pair1] = pack.pairs(l.canonical(l.times(low, w)));
            let [pair2, pair3] = pack.pairs(l.canonical(l.times(high, w)));
            _mm_storeu_si128(to.cast(), pair0);
            _mm_storeu_si128(to.add(pack.pair).cast(), pair1);
            _mm_storeu_si128(to.add(2 * pack.pair).cast(), pair2);
            let last = to.add(3 * pack.pair);
            _mm_storel_epi64(last.cast(), pair3);
            let tail = _mm_shuffle_epi8(pair3, pack.tail);
            _mm_storel_epi64(last.add(pack.pair - 8).cast(), tail);
        }
    }
}
