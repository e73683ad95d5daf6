//! Words of uniform halves: blocks of AES-128 by four, and by as many as the processor overlaps.

use std::arch::x86_64::*;

use super::{load, reduce_once, store};
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

/// Vectors whose blocks are encrypted together to find refused words.
const TOGETHER: usize = 4;

#[target_feature(enable = "avx512f,vaes")]
pub(in crate::kernels) fn refused(
    m: &Modulus,
    round_keys: &[u64],
    words: usize,
    out: &mut Vec<(u32, u64)>,
) {
    let size = TOGETHER * 8;
    if round_keys.len() < ROUND_KEYS || !words.is_multiple_of(size) || words as u64 > 1 << 32 {
        return scalar::refused(m, round_keys, words, out);
    }
    let attempts = Attempts::new(m, round_keys);
    let mut numbers = _mm512_setr_epi64(0, 0, 1, 0, 2, 0, 3, 0);
    for start in (0..words).step_by(size) {
        let counters = next_counters(&mut numbers);
        // SAFETY: there are eleven round keys.
        let first = unsafe { attempts.first(counters) };
        let places = (start..).step_by(8).zip(counters).zip(first);
        for ((number, counters), first) in places {
            // SAFETY: as above.
            let (taken, others) = unsafe { attempts.taken(counters, first) };
            if !others {
                continue;
            }
            let (mut old, mut new) = ([0; 8], [0; 8]);
            // SAFETY: eight words each.
            unsafe {
                store(old.as_mut_ptr(), first);
                store(new.as_mut_ptr(), taken);
            }
            for (number, (old, new)) in (number..).zip(old.into_iter().zip(new)) {
                if old != new {
                    out.push((number as u32, m.sub(m.reduce(new), m.reduce(old))));
                }
            }
        }
    }
}

/// The residue of what is taken is its Montgomery reduction, of a word that has no upper half.
#[target_feature(enable = "avx512f,avx512ifma,vaes")]
pub(in crate::kernels) fn uniform(m: &Modulus, round_keys: &[u64], out: &mut [u64]) {
    let size = TOGETHER * 8;
    if round_keys.len() < ROUND_KEYS || !out.len().is_multiple_of(size) {
        return scalar::uniform(m, round_keys, out);
    }
    let attempts = Attempts::new(m, round_keys);
    let q = _mm512_set1_epi64(m.value() as i64);
    let inverse = _mm512_set1_epi64(m.inv52() as i64);
    let zero = _mm512_setzero_si512();
    let mut numbers = _mm512_setr_epi64(0, 0, 1, 0, 2, 0, 3, 0);
    for out in out.chunks_exact_mut(size) {
        let counters = next_counters(&mut numbers);
        // SAFETY: there are eleven round keys.
        let first = unsafe { attempts.first(counters) };
        let words = counters.into_iter().zip(first);
        for ((counters, first), out) in words.zip(out.as_chunks_mut::<8>().0) {
            // SAFETY: as above.
            let (word, _) = unsafe { attempts.taken(counters, first) };
            let multiple = _mm512_madd52lo_epu64(zero, word, inverse);
            let high = _mm512_madd52hi_epu64(zero, multiple, q);
            // SAFETY: eight words.
            unsafe { store(out.as_mut_ptr(), reduce_once(_mm512_sub_epi64(q, high), q)) };
        }
    }
}

/// The numbers of the blocks of the next words, each with that of the first attempt above.
#[inline]
#[target_feature(enable = "avx512f")]
fn next_counters(numbers: &mut __m512i) -> [__m512i; TOGETHER] {
    let step = _mm512_setr_epi64(4, 0, 4, 0, 4, 0, 4, 0);
    let mut counters = [*numbers; TOGETHER];
    for counters in &mut counters {
        *counters = *numbers;
        *numbers = _mm512_add_epi64(*numbers, step);
    }
    counters
}

/// Attempts at the words of one limb.
struct Attempts {
    keys: *const u64,
    limit: __m512i,
    mask: __m512i,
}

impl Attempts {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(m: &Modulus, round_keys: &[u64]) -> Self {
        Self {
            keys: round_keys.as_ptr(),
            limit: _mm512_set1_epi64(limit(m) as i64),
            mask: _mm512_set1_epi64((1 << 52) - 1),
        }
    }

    /// The first ones at the words of blocks with these numbers.
    ///
    /// # Safety
    /// `keys` are round keys.
    #[inline]
    #[target_feature(enable = "avx512f,vaes")]
    unsafe fn first(&self, counters: [__m512i; TOGETHER]) -> [__m512i; TOGETHER] {
        // SAFETY: the caller's promise.
        let words = unsafe { attempt(self.keys, counters) };
        words.map(|words| _mm512_and_si512(words, self.mask))
    }

    /// What is taken, and whether some of it is not the first attempt.
    ///
    /// # Safety
    /// `keys` are round keys.
    #[inline]
    #[target_feature(enable = "avx512f,vaes")]
    unsafe fn taken(&self, mut counters: __m512i, first: __m512i) -> (__m512i, bool) {
        let mut left = _mm512_cmpge_epu64_mask(first, self.limit);
        if left == 0 {
            return (first, false);
        }
        let again = _mm512_setr_epi64(0, 1, 0, 1, 0, 1, 0, 1);
        let mut taken = first;
        while left != 0 {
            counters = _mm512_add_epi64(counters, again);
            // SAFETY: the caller's promise.
            let [more] = unsafe { attempt(self.keys, [counters]) };
            taken = _mm512_mask_and_epi64(taken, left, more, self.mask);
            left = _mm512_cmpge_epu64_mask(taken, self.limit);
        }
        (taken, true)
    }
}

/// What makes the words of the uniform halves of one block.
pub(super) struct Halves<'a> {
    uniform: Uniform<'a>,
    /// Per lane order which of eight words each column meets; without orders the first one is theirs.
    places: [Places; 8],
    /// The numbers of four blocks, each with zero above.
    blocks: __m512i,
    /// Where a block's number lies in them, but for its last two bits.
    number: __m512i,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Places([u64; 8]);

/// Which words of the stream `G` times eight columns meet.
#[derive(Clone, Copy)]
pub(super) struct Groups<const G: usize> {
    /// Entries of the order.
    entries: [u32; G],
}

impl<const G: usize> Groups<G> {
    pub(super) const NONE: Self = Self { entries: [0; G] };
}

impl<'a> Halves<'a> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new(uniform: Uniform<'a>) -> Self {
        let mut places = [Places([0, 1, 2, 3, 4, 5, 6, 7]); 8];
        for (places, lanes) in places
            .iter_mut()
            .zip(uniform.order.iter().flat_map(|o| o.lanes))
        {
            places.0 = words_met(lanes);
        }
        Self {
            uniform,
            places,
            blocks: _mm512_setr_epi64(0, 0, 1, 0, 2, 0, 3, 0),
            number: _mm512_maskz_set1_epi64(0b0101_0101, 0xffff_fffc),
        }
    }

    /// What a digit's words are made from.
    pub(super) fn round_keys(&self, digit: usize) -> *const u64 {
        let keys = self.uniform.round_keys.as_ptr();
        keys.wrapping_add(digit * ROUND_KEYS)
    }

    /// Those that columns `8 first ..` meet.
    ///
    /// # Safety
    /// An order has as many entries.
    #[inline]
    pub(super) unsafe fn groups<const G: usize>(&self, first: usize) -> Groups<G> {
        let mut entries = [0; G];
        for (g, entry) in entries.iter_mut().enumerate() {
            *entry = match self.uniform.order {
                None => ((self.uniform.first + first + g) << 3) as u32,
                // SAFETY: the caller's promise.
                Some(order) => unsafe { *order.blocks.get_unchecked(first + g) },
            };
        }
        Groups { entries }
    }

    /// The numbers of the blocks that eight columns meet.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn counters(&self, entry: u32) -> __m512i {
        let number = _mm512_and_si512(_mm512_set1_epi32((entry >> 1) as i32), self.number);
        _mm512_or_si512(number, self.blocks)
    }

    /// The first attempts at the words that these groups meet, of the digit with those round keys: in the low 52
    /// bits, which multiply-adds read.
    ///
    /// # Safety
    /// `keys` are round keys, and the groups those of `groups`.
    #[inline]
    #[target_feature(enable = "avx512f,vaes")]
    pub(super) unsafe fn words<const G: usize>(
        &self,
        keys: *const u64,
        groups: &Groups<G>,
    ) -> [__m512i; G] {
        let mut words = [self.blocks; G];
        for (words, &entry) in words.iter_mut().zip(&groups.entries) {
            *words = self.counters(entry);
        }
        // SAFETY: the caller's promise.
        words = unsafe { attempt(keys, words) };
        for (words, &entry) in words.iter_mut().zip(&groups.entries) {
            // SAFETY: eight words.
            let places = unsafe { load(self.places[(entry & 7) as usize].0.as_ptr()) };
            *words = _mm512_permutexvar_epi64(places, *words);
        }
        words
    }
}

/// One attempt at the words of blocks with these numbers, in the low 52 bits, with something above them: one round
/// of all blocks after the other, since alone each would wait for the one before it.
///
/// # Safety
/// `keys` are round keys.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
unsafe fn attempt<const G: usize>(keys: *const u64, mut x: [__m512i; G]) -> [__m512i; G] {
    // SAFETY: the caller's promise: eleven vectors.
    unsafe {
        let key = load(keys);
        for x in &mut x {
            *x = _mm512_xor_si512(*x, key);
        }
        for round in 1..ROUNDS {
            let key = load(keys.add(8 * round));
            for x in &mut x {
                *x = _mm512_aesenc_epi128(*x, key);
            }
        }
        let key = load(keys.add(8 * ROUNDS));
        for x in &mut x {
            *x = _mm512_aesenclast_epi128(*x, key);
        }
    }
    x
}
