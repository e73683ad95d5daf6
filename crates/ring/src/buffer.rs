//! A process-wide pool of 64-byte aligned word buffers.
//!
//! Page faults of fresh temporaries cost more than the NTT that fills them, so buffers are kept
//! when they are dropped, and taken again for what is as large or smaller: on their way
//! down the levels values lose a limb at a time. The pool is bounded; above the bound the buffers that
//! waited longest go back to the system, so that what one part of a program needs does not keep
//! out what the next one does.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::shelves::{Shelves, size_class};

/// Buffers of at least this size are aligned to it and advised for huge pages.
const HUGE: usize = 2 << 20;

/// An owned, aligned, initialized block of words from the pool.
pub(crate) struct Buffer {
    ptr: NonNull<u64>,
    len: usize,
    /// Capacity in words: the size class.
    class: usize,
    /// Whether it is of [`fresh_pages`].
    is_mapped: bool,
}

// SAFETY: a Buffer owns its memory exclusively, like a Vec<u64>.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

static POOL: Mutex<Shelves<Buffer>> = Mutex::new(Shelves::new(Shelves::<Buffer>::DEFAULT_LIMIT));

fn lock() -> MutexGuard<'static, Shelves<Buffer>> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bounds the bytes that unused buffers may hold in the process-wide pool, and gives back what is
/// above the bound.
pub fn set_pool_limit(bytes: usize) {
    let freed = {
        let mut pool = lock();
        pool.set_limit(bytes);
        pool.shrink()
    };
    for (_, b) in freed {
        b.free();
    }
}

/// Bytes of unused buffers that the pool holds now.
pub fn pool_bytes() -> usize {
    lock().bytes()
}

/// Words behind every buffer that may be read: vectors that take less than they load end there. In a size class
/// they would cost an eighth where what a buffer holds is a whole one.
const BEHIND: usize = 8;

/// Bytes behind large buffers, at least a page of any system; nobody writes there, so they take no memory.
const BEHIND_LARGE: usize = 1 << 16;

fn layout(class: usize) -> Option<Layout> {
    let bytes = class.checked_mul(8)?;
    let (align, behind) = match bytes >= HUGE {
        true => (HUGE, BEHIND_LARGE),
        false => (64, 8 * BEHIND),
    };
    Layout::from_size_align(bytes.checked_add(behind)?, align).ok()
}

impl Buffer {
    /// A buffer of `len` words whose contents are *arbitrary* (but initialized): the caller
    /// overwrites all of it.
    pub(crate) fn dirty(len: usize) -> Self {
        let waiting = lock().take(size_class(len));
        Self::of(len, waiting.map(|(_, b)| b))
    }

    /// The same for what stays, as keys and weights do: of its own size class, so that nothing larger is kept from
    /// what needs it.
    pub(crate) fn kept(len: usize) -> Self {
        let waiting = lock().take_own(size_class(len));
        Self::of(len, waiting)
    }

    /// What waited, with this length, or else memory from the system.
    fn of(len: usize, waiting: Option<Self>) -> Self {
        match waiting {
            Some(mut b) => {
                b.len = len;
                b
            }
            None => Self::allocate(len, size_class(len)),
        }
    }

    /// The words, and `BEHIND` arbitrary ones.
    pub(crate) fn and_behind(&self) -> &[u64] {
        // SAFETY: as in `deref`; behind the class are as many words more.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len + BEHIND) }
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
        let fresh = match layout.align() >= HUGE {
            true => fresh_pages(layout.size()),
            false => None,
        };
        // SAFETY: the layout has non-zero size: a class has at least 64 words.
        let raw = fresh.unwrap_or_else(|| unsafe { alloc_zeroed(layout) });
        let Some(ptr) = NonNull::new(raw.cast::<u64>()) else {
            handle_alloc_error(layout)
        };
        Self {
            ptr,
            len,
            class,
            is_mapped: fresh.is_some(),
        }
    }

    fn free(self) {
        if let Some(layout) = layout(self.class) {
            let raw = self.ptr.as_ptr().cast();
            match self.is_mapped {
                true => give_back(raw, layout.size()),
                // SAFETY: allocated with this very layout; `self` is forgotten right after.
                false => unsafe { dealloc(raw, layout) },
            }
        }
        std::mem::forget(self);
    }
}

/// Zeros from the system, aligned to [`HUGE`] and advised for huge pages; none if it refuses, or is not
/// one that we know how to ask.
///
/// An allocator's blocks would not do: glibc's takes those of up to 32 MiB from its heaps once one as large
/// was freed, where pages stay when they are given back. A MiniLM held a gigabyte of them.
#[cfg(target_os = "linux")]
fn fresh_pages(size: usize) -> Option<*mut u8> {
    // Classes of this size, and what is behind, are multiples of any page.
    debug_assert!(size.is_multiple_of(BEHIND_LARGE));
    let whole = size.checked_add(HUGE)?;
    // SAFETY: a new mapping, which touches no other memory.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            whole,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return None;
    }
    let start = start.cast::<u8>();
    let before = start.align_offset(HUGE).min(HUGE);
    let (raw, after) = (start.wrapping_add(before), HUGE - before);
    if before > 0 {
        give_back(start, before);
    }
    if after > 0 {
        give_back(raw.wrapping_add(size), after);
    }
    // The advice must come before the first touch, which decides the page size.
    // SAFETY: advice on a range that we own; a refusal is harmless.
    unsafe { libc::madvise(raw.cast(), size, libc::MADV_HUGEPAGE) };
    Some(raw)
}

#[cfg(not(target_os = "linux"))]
fn fresh_pages(_: usize) -> Option<*mut u8> {
    None
}

/// Takes pages of [`fresh_pages`] out of the address space.
#[cfg(target_os = "linux")]
fn give_back(start: *mut u8, size: usize) {
    // SAFETY: whole pages of a mapping of ours, to which nothing points any more.
    let refused = unsafe { libc::munmap(start.cast(), size) } != 0;
    if refused {
        // A process has so many mappings only, and to free the middle of one makes two of it.
        // SAFETY: as above; what is there may be lost.
        unsafe { libc::madvise(start.cast(), size, libc::MADV_DONTNEED) };
    }
}

#[cfg(not(target_os = "linux"))]
fn give_back(_: *mut u8, _: usize) {}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mine = Self {
            ptr: self.ptr,
            len: self.len,
            class: self.class,
            is_mapped: self.is_mapped,
        };
        let freed = {
            let mut pool = lock();
            pool.put(mine.class, mine);
            pool.shrink()
        };
        for (_, b) in freed {
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

    #[test]
    fn a_buffer_that_waited_has_the_length_that_is_asked_for() {
        drop(Buffer::zeroed(1 << 12));
        let shorter = Buffer::dirty(3 << 10);
        assert_eq!(shorter.len(), 3 << 10);
        assert!(Buffer::zeroed(3000).iter().all(|&w| w == 0));
        // What stays takes nothing larger, and of a whole class there are words behind, too.
        drop(Buffer::dirty(6 << 10));
        let whole = Buffer::kept(1 << 12);
        let all = whole.and_behind();
        assert_eq!((whole.class, all.len()), (1 << 12, (1 << 12) + BEHIND));
        assert_eq!(all.to_vec()[..1 << 12], whole[..]);
    }

    /// Mappings and what is cut off around them: aligned, zero, all theirs, and gone one by one.
    #[test]
    fn large_buffers_lie_apart() {
        let lens = [1 << 18, 5 << 16, (1 << 20) + 1, 7 << 17, 1 << 18];
        let mut all: Vec<Buffer> = lens
            .iter()
            .map(|&len| Buffer::allocate(len, size_class(len)))
            .collect();
        for (mark, b) in all.iter_mut().enumerate() {
            assert_eq!(b.ptr.as_ptr() as usize % HUGE, 0);
            assert_eq!(b.is_mapped, cfg!(target_os = "linux"));
            assert!(b.iter().all(|&w| w == 0));
            b.len = b.class;
            b.fill(mark as u64 + 1);
            assert_eq!(b.and_behind()[b.class..], [0; BEHIND]);
        }
        let mut left: Vec<(u64, Buffer)> = (1..).zip(all).collect();
        for at in [1, 2, 0, 1, 0] {
            let (mark, gone) = left.remove(at);
            assert!(gone.iter().all(|&w| w == mark));
            gone.free();
            for (mark, b) in &left {
                assert!(b.iter().all(|w| w == mark));
            }
        }
    }
}
