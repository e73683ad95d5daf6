//! Packed words, by permutations of bytes.

use std::arch::x86_64::*;

use super::{LANES, Lanes, load, splat};
use crate::kernels::{Packed, packed_stride, packed_width, scalar};
use crate::modulus::{Modulus, ShoupConst};

/// How eight words of one width are taken apart.
#[derive(Clone, Copy)]
pub(super) struct Unpack {
    /// Per byte of a word where it is, and whether it is one of the word's.
    bytes: __m512i,
    mask: __mmask64,
    /// Bits of the word before in its first byte.
    shift: __m512i,
    pub(super) width: usize,
    /// Bytes from eight columns to the next ones of a single row.
    step: usize,
}

impl Unpack {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new(m: &Modulus) -> Self {
        let width = packed_width(m);
        let half = if width.is_multiple_of(8) { 0 } else { 4 };
        let (mut bytes, mut mask) = ([0u8; 64], 0u64);
        for (i, byte) in bytes.iter_mut().enumerate() {
            let (lane, k) = (i / 8, i % 8);
            *byte = (lane * width / 8 + k) as u8;
            // Of words of whole bytes no other ones; what a half byte leaves stands above bit 52,
            // where no multiply-add looks.
            mask |= u64::from(!width.is_multiple_of(8) || k < width / 8) << i;
        }
        Self {
            // SAFETY: 64 bytes.
            bytes: unsafe { load(bytes.as_ptr().cast()) },
            mask,
            shift: _mm512_setr_epi64(0, half, 0, half, 0, half, 0, half),
            width,
            step: 8 * packed_stride(m, 1),
        }
    }

    /// Eight words: their low 52 bits are what was packed. `HALF` if a word may not begin with a byte.
    ///
    /// # Safety
    /// 64 bytes at `p` must be readable.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vbmi")]
    pub(super) unsafe fn at<const HALF: bool>(&self, p: *const u8) -> __m512i {
        // SAFETY: the caller's promise.
        let packed = unsafe { load(p.cast()) };
        let words = _mm512_maskz_permutexvar_epi8(self.mask, self.bytes, packed);
        if HALF {
            _mm512_srlv_epi64(words, self.shift)
        } else {
            words
        }
    }

    /// The same of a single row, from column `j` on.
    ///
    /// # Safety
    /// The row covers `j + LANES` columns, and `j` is a multiple of LANES.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vbmi")]
    pub(super) unsafe fn columns<const HALF: bool>(&self, row: Packed<'_>, j: usize) -> __m512i {
        // SAFETY: the caller's promise; behind the words of a row are those that a last load may touch.
        unsafe { self.at::<HALF>(row.words.as_ptr().cast::<u8>().add(j / LANES * self.step)) }
    }

    /// Fetches, of words that lie like this, so many vectors from column `j` on, as far as they are there.
    #[inline]
    pub(super) fn fetch<const COLUMNS: usize>(&self, words: &[u64], j: usize) {
        let begin = j / LANES * self.step;
        for at in (begin..begin + COLUMNS * self.step).step_by(64) {
            if at < size_of_val(words) {
                let line = words.as_ptr().cast::<u8>().wrapping_add(at);
                // SAFETY: a prefetch reads nothing, and faults at no address.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
            }
        }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512dq,avx512vl,avx512ifma,avx512vbmi")]
pub(in crate::kernels) fn pack_row(
    m: &Modulus,
    out: &mut [u64],
    x: &[u64],
    c: ShoupConst,
    (row, rows): (usize, usize),
) {
    let (n, width) = (x.len(), packed_width(m));
    let step = packed_stride(m, rows);
    if !n.is_multiple_of(8) || row >= rows || out.len() < n / 8 * step {
        return scalar::pack_row(m, out, x, c, (row, rows));
    }
    // Byte `i` is one of a word, or its first half ends one and the second begins the next. Odd words
    // then stand half a byte higher.
    let (mut bytes, mut others, mut shared) = ([0u8; 64], [0u8; 64], 0u64);
    for i in 0..width {
        let word = i * 8 / width;
        let within = |word: usize| (8 * word + i - word * width / 8) as u8;
        bytes[i] = within(word);
        if (word + 1) * width < (i + 1) * 8 && word < 7 {
            others[i] = within(word + 1);
            shared |= 1 << i;
        }
    }
    let half = if width.is_multiple_of(8) { 0 } else { 4 };
    let shift = _mm512_setr_epi64(0, half, 0, half, 0, half, 0, half);
    // SAFETY: 64 bytes each.
    let (bytes, others) = unsafe { (load(bytes.as_ptr().cast()), load(others.as_ptr().cast())) };
    let k = Lanes::new(m);
    let (w, quotient) = splat(c);
    for (column, words) in x.as_chunks::<8>().0.iter().enumerate() {
        // SAFETY: eight words are read. `width` bytes are written, in the column's row, inside
        // `out` since every column has `step` words and the row is one of `rows`.
        unsafe {
            let x = k.shoup(load(words.as_ptr()), w, quotient);
            let x = _mm512_sllv_epi64(x, shift);
            let packed = _mm512_or_si512(
                _mm512_permutexvar_epi8(bytes, x),
                _mm512_maskz_permutexvar_epi8(shared, others, x),
            );
            let to = out.as_mut_ptr().add(column * step).cast::<u8>();
            let to = to.add(row * width);
            _mm256_storeu_si256(to.cast(), _mm512_castsi512_si256(packed));
            let upper = _mm512_extracti64x4_epi64::<1>(packed);
            match width {
                40 => _mm_storel_epi64(to.add(32).cast(), _mm256_castsi256_si128(upper)),
                48 => _mm_storeu_si128(to.add(32).cast(), _mm256_castsi256_si128(upper)),
                _ => {
                    _mm_storeu_si128(to.add(32).cast(), _mm256_castsi256_si128(upper));
                    let last = _mm256_extract_epi32::<4>(upper);
                    to.add(48).cast::<i32>().write_unaligned(last);
                }
            }
        }
    }
}
