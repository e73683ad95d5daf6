//! Packed words, by permutations of bytes inside of pairs.

use std::arch::x86_64::*;

use super::load;
use crate::kernels::{Packed, packed_stride, packed_width};
use crate::modulus::Modulus;

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
