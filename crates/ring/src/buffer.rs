//! A process-wide pool of 64-byte aligned word buffers.
//!
//! Page faults of fresh temporaries cost more than the NTT that fills them, so buffers are kept
//! when they are dropped, and taken again for what is as large or somewhat smaller: on their way
//! down the levels values lose a limb at a time. The pool is bounded; above the bound the buffers that
//! waited longest go back to the system, so that what one part of a program needs does not keep
//! out what the next one does.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers of at least this size are aligned to it and advised for huge pages.
const HUGE: usize = 2 << 20;
/// Default bound on the bytes that wait in the pool.
const DEFAULT_LIMIT: usize = 2 << 30;

/// An owned, aligned, initialized block of words from the pool.
pub(crate) struct Buffer {
    ptr: NonNull<u64>,
    len: usize,
    /// Capacity in words: the size class.
    class: usize,
}

// SAFETY: a Buffer owns its memory exclusively, like a Vec<u64>.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

struct Pool {
    /// Per size class the buffers that wait, each with the time when it came, first come first.
    free: BTreeMap<usize, VecDeque<(u64, Buffer)>>,
    /// Buffers that came so far.
    time: u64,
    bytes: usize,
    limit: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool::new(DEFAULT_LIMIT));

impl Pool {
    const fn new(limit: usize) -> Self {
        Self {
            free: BTreeMap::new(),
            time: 0,
            bytes: 0,
            limit,
        }
    }

    fn lock() -> MutexGuard<'static, Self> {
        POOL.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of the smallest class that is at least `class`, and at most half as large again, the buffer
    /// that came last.
    fn take(&mut self, class: usize) -> Option<Buffer> {
        let most = class + class / 2;
        let (&found, waiting) = self.free.range_mut(class..=most).next()?;
        let (_, buffer) = waiting.pop_back()?;
        if waiting.is_empty() {
            self.free.remove(&found);
        }
        self.bytes -= found * 8;
        Some(buffer)
    }

    fn put(&mut self, buffer: Buffer) {
        self.bytes += buffer.class * 8;
        self.time += 1;
        let waiting = self.free.entry(buffer.class).or_default();
        waiting.push_back((self.time, buffer));
    }

    /// Takes out what waited longest until the bound holds.
    fn shrink(&mut self) -> Vec<Buffer> {
        let mut out = Vec::new();
        while self.bytes > self.limit {
            let fronts = self.free.iter().filter_map(|(class, waiting)| {
                let (time, _) = waiting.front()?;
                Some((*time, *class))
            });
            let Some((_, class)) = fronts.min() else {
                break;
            };
            let Some(waiting) = self.free.get_mut(&class) else {
                break;
            };
            let front = waiting.pop_front();
            if waiting.is_empty() {
                self.free.remove(&class);
            }
            if let Some((_, buffer)) = front {
                self.bytes -= class * 8;
                out.push(buffer);
            }
        }
        out
    }
}

/// Bounds the bytes that unused buffers may hold in the process-wide pool, and gives back what is
/// above the bound.
pub fn set_pool_limit(bytes: usize) {
    let freed = {
        let mut pool = Pool::lock();
        pool.limit = bytes;
        pool.shrink()
    };
    for b in freed {
        b.free();
    }
}

/// Bytes of unused buffers that the pool holds now.
pub fn pool_bytes() -> usize {
    Pool::lock().bytes
}

/// Size classes are multiples of an eighth of the next lower power of two: at most 12.5% waste.
fn size_class(len: usize) -> usize {
    let step = (len.max(64).next_power_of_two() / 16).max(8);
    len.max(64).next_multiple_of(step)
}

fn layout(class: usize) -> Option<Layout> {
    let bytes = class.checked_mul(8)?;
    Layout::from_size_align(bytes, if bytes >= HUGE { HUGE } else { 64 }).ok()
}

impl Buffer {
    /// A buffer of `len` words whose contents are *arbitrary* (but initialized): the caller
    /// overwrites all of it.
    pub(crate) fn dirty(len: usize) -> Self {
        let class = size_class(len);
        let waiting = Pool::lock().take(class);
        match waiting {
            Some(mut b) => {
                b.len = len;
                b
            }
            None => Self::allocate(len, class),
        }
    }

    /// A buffer of `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut b = Self::dirty(len);
        b.fill(0);
        b
    }

    #[allow(clippy::expect_used)]
    fn allocate(len: usize, class: usize) -> Self {
        let layout = layout(class).expect("a buffer is far below the address space");
        // SAFETY: the layout has non-zero size: a class has at least 64 words.
        let raw = unsafe { alloc(layout) };
        let Some(ptr) = NonNull::new(raw.cast::<u64>()) else {
            handle_alloc_error(layout)
        };
        // The advice must come before the first touch, which decides the page size; hence not
        // `alloc_zeroed`.
        #[cfg(target_os = "linux")]
        if layout.size() >= HUGE {
            // SAFETY: advice on a range that we own; a refusal is harmless.
            unsafe { libc::madvise(raw.cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        // SAFETY: `class` words were just allocated.
        unsafe { ptr.as_ptr().write_bytes(0, class) };
        Self { ptr, len, class }
    }

    fn free(self) {
        if let Some(layout) = layout(self.class) {
            // SAFETY: allocated with this very layout; `self` is forgotten right after.
            unsafe { dealloc(self.ptr.as_ptr().cast(), layout) };
        }
        std::mem::forget(self);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mine = Self {
            ptr: self.ptr,
            len: self.len,
            class: self.class,
        };
        let freed = {
            let mut pool = Pool::lock();
            pool.put(mine);
            pool.shrink()
        };
        for b in freed {
            b.free();
        }
    }
}

impl Deref for Buffer {
    type Target = [u64];
    fn deref(&self) -> &[u64] {
        // SAFETY: `len <= class` words at `ptr` are allocated, initialized and owned.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u64] {
        // SAFETY: as in `deref`, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut b = Self::dirty(self.len);
        b.copy_from_slice(self);
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool of so many words, and one buffer of each length in it, in that order.
    fn pool(limit: usize, lens: &[usize]) -> Pool {
        let mut pool = Pool::new(8 * limit);
        for &len in lens {
            pool.put(Buffer::allocate(len, size_class(len)));
            for b in pool.shrink() {
                b.free();
            }
        }
        pool
    }

    fn empty(mut pool: Pool) -> Vec<usize> {
        pool.limit = 0;
        let freed = pool.shrink();
        assert_eq!((pool.bytes, pool.free.len()), (0, 0));
        let classes = freed.iter().map(|b| b.class).collect();
        freed.into_iter().for_each(Buffer::free);
        classes
    }

    #[test]
    fn what_waited_longest_makes_room() {
        let mut pool = pool(1000, &[512, 256, 64, 256]);
        assert_eq!(pool.bytes, 8 * (256 + 64 + 256));
        let taken = pool.take(256).unwrap();
        pool.put(taken);
        assert_eq!(empty(pool), [256, 64, 256]);
        assert_eq!(empty(self::pool(100, &[64, 512])), [0; 0]);
    }

    #[test]
    fn a_buffer_serves_what_is_somewhat_smaller() {
        let mut pool = pool(10_000, &[1024, 384, 256]);
        let mut take = |len: usize| {
            let taken = pool.take(size_class(len))?;
            let class = taken.class;
            taken.free();
            Some(class)
        };
        assert_eq!(take(257), Some(384));
        assert_eq!(take(257), None);
        assert_eq!(take(1025), None);
        assert_eq!(take(520), None);
        assert_eq!(take(682), Some(1024));
        assert_eq!(take(170), Some(256));
        assert_eq!(take(64), None);
        assert_eq!(empty(pool), [0; 0]);
    }

    #[test]
    fn a_buffer_that_waited_has_the_length_that_is_asked_for() {
        drop(Buffer::zeroed(1 << 12));
        let shorter = Buffer::dirty(3 << 10);
        assert_eq!(shorter.len(), 3 << 10);
        assert!(Buffer::zeroed(3000).iter().all(|&w| w == 0));
    }
}
