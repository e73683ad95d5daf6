//! Words of uniform halves: blocks of AES-128 by four, and by as many as the processor overlaps.

use std::arch::x86_64::*;

use super::{load, store};
use crate::kernels::{ROUND_KEYS, Uniform, scalar, words_met};
use crate::keystream::limit;
use crate::modulus::Modulus;

/// Rounds of AES-128.
const ROUNDS: usize = 10;

/// Round keys by the schedule of FIPS 197, section 5.2, each in all four blocks of a vector.
#[target_feature(enable = "aes,avx512f")]
pub(in crate::kernels) fn round_keys(key: &[u8; 16], out: &mut [u64]) {
    let Some(out) = out.first_chunk_mut::<ROUND_KEYS>() else {
        return scalar::round_keys(key, out);
    };
    // SAFETY: 16 bytes are read.
    let mut k = unsafe { _mm_loadu_si128(key.as_ptr().cast()) };
    let mut outs = out.as_chunks_mut::<8>().0.iter_mut();
    let mut put = |k: __m128i| {
        if let Some(out) = outs.next() {
            // SAFETY: eight words are written.
            unsafe { store(out.as_mut_ptr(), _mm512_broadcast_i32x4(k)) };
        }
    };
    put(k);
    macro_rules! round {
        ($($constant:literal),*) => {$(
            let turned = _mm_shuffle_epi32::<0xff>(_mm_aeskeygenassist_si128::<$constant>(k));
            k = _mm_xor_si128(k, _mm_slli_si128::<4>(k));
            k = _mm_xor_si128(k, _mm_slli_si128::<8>(k));
            k = _mm_xor_si128(k, turned);
            put(k);
        )*};
    }
    round!(0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x1b, 0x36);
}

/// What makes the words of the uniform halves of one block.
pub(super) struct Halves<'a> {
    uniform: Uniform<'a>,
    /// Per lane order which of eight words each column meets.
    places: [[u64; 8]; 8],
    /// The numbers of four blocks, each with zero above.
    blocks: __m512i,
    mask: __m512i,
    limit: __m512i,
}

/// Which words of the stream eight columns meet.
#[derive(Clone, Copy)]
pub(super) struct Group {
    counters: __m512i,
    places: __m512i,
}

impl<'a> Halves<'a> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new(m: &Modulus, uniform: Uniform<'a>) -> Self {
        let places = uniform.order.map(|o| o.lanes.each_ref().map(words_met));
        Self {
            uniform,
            places: places.unwrap_or_default(),
            blocks: _mm512_setr_epi64(0, 0, 1, 0, 2, 0, 3, 0),
            mask: _mm512_set1_epi64((1 << 52) - 1),
            limit: _mm512_set1_epi64(limit(m) as i64),
        }
    }

    /// Those that columns `8 columns ..` meet.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn group(&self, columns: usize) -> Group {
        let (group, places) = match self.uniform.order {
            None => (self.uniform.first + columns, [0, 1, 2, 3, 4, 5, 6, 7]),
            Some(order) => {
                let b = order.blocks.get(columns).copied().unwrap_or(0);
                ((b >> 3) as usize, self.places[(b & 7) as usize])
            }
        };
        let first = _mm512_maskz_set1_epi64(0b0101_0101, 4 * group as i64);
        Group {
            counters: _mm512_add_epi64(self.blocks, first),
            // SAFETY: eight words.
            places: unsafe { load(places.as_ptr()) },
        }
    }

    /// The words of a digit: below 2^52, not reduced.
    ///
    /// # Safety
    /// The digit has round keys.
    #[inline]
    #[target_feature(enable = "avx512f,vaes")]
    pub(super) unsafe fn words(&self, digit: usize, group: Group) -> __m512i {
        // SAFETY: the caller's promise.
        let words = unsafe { self.attempt(digit, group.counters) };
        let refused = _mm512_cmpge_epu64_mask(words, self.limit);
        let words = match refused {
            0 => words,
            // SAFETY: the caller's promise.
            _ => unsafe { self.again(digit, group.counters, (words, refused)) },
        };
        _mm512_permutexvar_epi64(group.places, words)
    }

    /// Words that replace those refused: of the next attempts.
    #[cold]
    #[target_feature(enable = "avx512f,vaes")]
    unsafe fn again(
        &self,
        digit: usize,
        mut counters: __m512i,
        (mut words, mut refused): (__m512i, __mmask8),
    ) -> __m512i {
        let one = _mm512_setr_epi64(0, 1, 0, 1, 0, 1, 0, 1);
        while refused != 0 {
            counters = _mm512_add_epi64(counters, one);
            // SAFETY: the caller's promise.
            let more = unsafe { self.attempt(digit, counters) };
            words = _mm512_mask_mov_epi64(words, refused, more);
            refused = _mm512_cmpge_epu64_mask(words, self.limit);
        }
        words
    }

    #[inline]
    #[target_feature(enable = "avx512f,vaes")]
    unsafe fn attempt(&self, digit: usize, counters: __m512i) -> __m512i {
        let keys = self
            .uniform
            .round_keys
            .as_ptr()
            .wrapping_add(digit * ROUND_KEYS);
        // SAFETY: the caller's promise: eleven vectors.
        unsafe {
            let mut x = _mm512_xor_si512(counters, load(keys));
            for round in 1..ROUNDS {
                x = _mm512_aesenc_epi128(x, load(keys.add(8 * round)));
            }
            x = _mm512_aesenclast_epi128(x, load(keys.add(8 * ROUNDS)));
            _mm512_and_si512(x, self.mask)
        }
    }
}
