//! The words of a polynomial, which several polynomials may read.
//!
//! What forgets its last primes has its limbs already: they are the first ones of where it comes from. It
//! reads them there, and so does a copy. Whoever writes to words that others read as well gets its own
//! first.

use std::hint::black_box;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::buffer::Buffer;

/// Words of one owner, or the first ones of a buffer that has several.
pub(crate) struct Words {
    kept: Arc<Kept>,
    len: usize,
}

/// A buffer until its last reader is gone.
struct Kept {
    buffer: Buffer,
    /// Whether somebody wanted zeros there while others read it.
    wipe: AtomicBool,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if *self.wipe.get_mut() {
            self.buffer.fill(0);
            black_box(&self.buffer[..]);
        }
    }
}

impl Words {
    /// So many arbitrary words, which the caller overwrites.
    pub(crate) fn dirty(len: usize) -> Self {
        Self::of(Buffer::dirty(len))
    }

    /// So many zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        Self::of(Buffer::zeroed(len))
    }

    fn of(buffer: Buffer) -> Self {
        let len = buffer.len();
        let wipe = AtomicBool::new(false);
        let kept = Arc::new(Kept { buffer, wipe });
        Self { kept, len }
    }

    /// The first words, where they are. None if they are less than two thirds of their buffer, all of
    /// which they would keep for as long as they live.
    pub(crate) fn first(&self, len: usize) -> Option<Self> {
        let share = len <= self.len && 3 * len >= 2 * self.kept.buffer.len();
        share.then(|| Self {
            kept: self.kept.clone(),
            len,
        })
    }

    /// Zeros in place of the words: now if nobody else reads them, or else when nobody does any more.
    pub(crate) fn zeroize(&mut self) {
        match Arc::get_mut(&mut self.kept) {
            Some(kept) => {
                kept.buffer.fill(0);
                // Whoever looks at the words now must see zeros: the stores are not dead.
                black_box(&kept.buffer[..]);
            }
            None => self.kept.wipe.store(true, Ordering::Relaxed),
        }
    }
}

impl Deref for Words {
    type Target = [u64];
    fn deref(&self) -> &[u64] {
        &self.kept.buffer[..self.len]
    }
}

impl DerefMut for Words {
    fn deref_mut(&mut self) -> &mut [u64] {
        if Arc::get_mut(&mut self.kept).is_none() {
            *self = self.clone();
        }
        // Nobody can have begun to share it: that takes a reference to `self`.
        let kept = Arc::get_mut(&mut self.kept);
        kept.map_or(&mut [], |kept| &mut kept.buffer[..self.len])
    }
}

impl Clone for Words {
    fn clone(&self) -> Self {
        let mut buffer = Buffer::dirty(self.len);
        buffer.copy_from_slice(self);
        Self::of(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(len: usize) -> Words {
        let mut words = Words::dirty(len);
        words.iter_mut().zip(1..).for_each(|(w, i)| *w = i);
        words
    }

    #[test]
    fn who_writes_gets_words_of_its_own() {
        let mut all = counted(12);
        let mut some = all.first(8).unwrap();
        assert!(std::ptr::eq(&all[0], &some[0]));
        some[0] = 77;
        assert_eq!((all[0], some[0], some.len()), (1, 77, 8));
        let whole = all.first(12).unwrap();
        all[1] = 78;
        assert_eq!((all[1], whole[1]), (78, 2));
        // Alone again, it writes where it is.
        let place = std::ptr::from_ref(&whole[0]);
        let mut alone = whole;
        alone[0] = 5;
        assert_eq!(std::ptr::from_ref(&alone[0]), place);
    }

    #[test]
    fn a_small_part_does_not_keep_the_whole() {
        let all = counted(12);
        assert!(all.first(7).is_none());
        // Nor by way of a larger part.
        assert!(all.first(9).unwrap().first(7).is_none());
        assert!(all.first(9).unwrap().first(8).is_some());
        assert!(all.first(9).unwrap().first(10).is_none());
    }

    #[test]
    fn zeros_come_when_the_last_reader_goes() {
        // More than three times what any other test takes: the pool hands out this very buffer again.
        let len = 3_000_001;
        let mut secret = counted(len);
        let reader = secret.first(2_500_000).unwrap();
        let place = secret.as_ptr();
        secret.zeroize();
        drop(secret);
        assert_eq!(reader[2_499_999], 2_500_000);
        drop(reader);
        let again = Buffer::dirty(len);
        assert_eq!(again.as_ptr(), place);
        assert!(again.iter().all(|&w| w == 0));
    }

    #[test]
    fn the_last_reader_makes_zeros_of_all() {
        let whole = counted(12);
        let mut part = whole.first(9).unwrap();
        drop(whole);
        part.zeroize();
        assert!(part.kept.buffer.iter().all(|&w| w == 0));
    }
}
