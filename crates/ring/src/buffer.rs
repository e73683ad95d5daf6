//! A process-wide pool of 64-byte aligned word buffers.
//!
//! Page faults of fresh temporaries cost more than the NTT that fills them, so buffers are kept
//! when they are dropped, and taken again for what is as large or smaller: on their way
//! down the levels values lose a limb at a time. The pool is bounded; above the bound the buffers that
//! waited longest go back to the system, so that what one part of a program needs does not keep
//! out what the next one does. What stays and is short is cut from regions of huge pages: products read a few
//! words of each of thousands of plaintexts at a time, and would look up a page for each of them.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::shelves::{Shelves, size_class};

/// Buffers of at least this size are aligned to it and advised for huge pages.
const HUGE: usize = 2 << 20;

/// Bytes of a region.
const REGION: usize = 16 << 20;

/// The least that is cut from a region, in bytes: a few pages.
const SHORT: usize = 16 << 10;

/// An owned, aligned, initialized block of words from the pool.
pub(crate) struct Buffer {
    memory: ManuallyDrop<Memory>,
    len: usize,
}

/// What a buffer lies in; initialized.
struct Memory {
    ptr: NonNull<u64>,
    /// Words: the size class.
    class: usize,
    home: Home,
}

/// Where memory is from.
enum Home {
    /// The allocator.
    Heap,
    /// [`fresh_pages`] of its own.
    Pages,
    /// A region, which lives as long as any of its pieces.
    Region(#[allow(dead_code)] Arc<Region>),
}

/// [`fresh_pages`] for several.
struct Region {
    start: NonNull<u8>,
}

// SAFETY: Memory is owned exclusively, like a Vec<u64>.
unsafe impl Send for Memory {}
// SAFETY: shared access only reads.
unsafe impl Sync for Memory {}
// SAFETY: a region itself reads and writes nothing.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

static POOL: Mutex<Shelves<Memory>> = Mutex::new(Shelves::new(Shelves::<Memory>::DEFAULT_LIMIT));

/// The region that is being cut, and where it goes on.
static CUT: Mutex<Cut> = Mutex::new(None);

type Cut = Option<(Arc<Region>, usize)>;

fn lock() -> MutexGuard<'static, Shelves<Memory>> {
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
    drop(freed);
}

/// Bytes of unused buffers that the pool holds now. Short ones are pieces of regions of 16 MiB: one that leaves the
/// pool gives its bytes back to the system with the last piece of its region.
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
        Self::of(len, waiting.map(|(_, m)| m), false)
    }

    /// The same for what stays, as keys and weights do: of its own size class, so that nothing larger is kept from
    /// what needs it, and beside others if it is short.
    pub(crate) fn kept(len: usize) -> Self {
        let waiting = lock().take_own(size_class(len));
        Self::of(len, waiting, true)
    }

    /// What waited, with this length, or else memory from the system.
    fn of(len: usize, waiting: Option<Memory>, stays: bool) -> Self {
        let memory = waiting.unwrap_or_else(|| Memory::new(size_class(len), stays));
        Self {
            memory: ManuallyDrop::new(memory),
            len,
        }
    }

    /// The words, and `BEHIND` arbitrary ones.
    pub(crate) fn and_behind(&self) -> &[u64] {
        // SAFETY: as in `deref`; behind the class are as many words more.
        unsafe { std::slice::from_raw_parts(self.memory.ptr.as_ptr(), self.len + BEHIND) }
    }

    /// A buffer of `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut b = Self::dirty(len);
        b.fill(0);
        b
    }
}

impl Memory {
    #[allow(clippy::expect_used)]
    fn new(class: usize, stays: bool) -> Self {
        let layout = layout(class).expect("a buffer is far below the address space");
        let size = layout.size();
        let fresh = if layout.align() >= HUGE {
            fresh_pages(size).map(|raw| (raw, Home::Pages))
        } else if stays && size >= SHORT {
            let mut cut = CUT.lock().unwrap_or_else(PoisonError::into_inner);
            Region::piece(&mut cut, size).map(|(raw, region)| (raw, Home::Region(region)))
        } else {
            None
        };
        // SAFETY: the layout has non-zero size: a class has at least 64 words.
        let (raw, home) = fresh.unwrap_or_else(|| (unsafe { alloc_zeroed(layout) }, Home::Heap));
        let Some(ptr) = NonNull::new(raw.cast::<u64>()) else {
            handle_alloc_error(layout)
        };
        Self { ptr, class, home }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let Some(layout) = layout(self.class) else {
            return;
        };
        let raw = self.ptr.as_ptr().cast();
        match self.home {
            Home::Pages => give_back(raw, layout.size()),
            // SAFETY: allocated with this very layout.
            Home::Heap => unsafe { dealloc(raw, layout) },
            Home::Region(_) => {}
        }
    }
}

impl Region {
    /// Zeros that nobody else has, at a multiple of 64, and where they are from; none if the system refuses.
    fn piece(cut: &mut Cut, size: usize) -> Option<(*mut u8, Arc<Self>)> {
        let (region, at) = match cut.take() {
            Some((region, at)) if at + size <= REGION => (region, at),
            _ => {
                let start = NonNull::new(fresh_pages(REGION)?)?;
                (Arc::new(Self { start }), 0)
            }
        };
        let raw = region.start.as_ptr().wrapping_add(at);
        *cut = Some((Arc::clone(&region), at + size.next_multiple_of(64)));
        Some((raw, region))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        give_back(self.start.as_ptr(), REGION);
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
        // SAFETY: nobody uses the field after this.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        let freed = {
            let mut pool = lock();
            pool.put(memory.class, memory);
            pool.shrink()
        };
        drop(freed);
    }
}

impl Deref for Buffer {
    type Target = [u64];
    fn deref(&self) -> &[u64] {
        // SAFETY: `len <= class` words at `ptr` are allocated, initialized and owned.
        unsafe { std::slice::from_raw_parts(self.memory.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u64] {
        // SAFETY: as in `deref`, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.ptr.as_ptr(), self.len) }
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
        assert_eq!(
            (whole.memory.class, all.len()),
            (1 << 12, (1 << 12) + BEHIND)
        );
        assert_eq!(all.to_vec()[..1 << 12], whole[..]);
    }

    /// A buffer of what waited for nobody, all of its class.
    fn fresh(len: usize, stays: bool) -> Buffer {
        let memory = Memory::new(size_class(len), stays);
        Buffer::of(memory.class, Some(memory), stays)
    }

    /// Marks all, then drops some: what is left has its mark.
    fn stay_apart(mut all: Vec<Buffer>, drops: &[usize]) {
        for (mark, b) in all.iter_mut().enumerate() {
            assert!(b.iter().all(|&w| w == 0));
            assert_eq!(b.and_behind()[b.len..], [0; BEHIND]);
            b.fill(mark as u64 + 1);
        }
        let mut left: Vec<(u64, Buffer)> = (1..).zip(all).collect();
        for &at in drops {
            let (mark, mut gone) = left.remove(at);
            assert!(gone.iter().all(|&w| w == mark));
            // SAFETY: the buffer is forgotten right after.
            drop(unsafe { ManuallyDrop::take(&mut gone.memory) });
            std::mem::forget(gone);
            for (mark, b) in &left {
                assert!(b.iter().all(|w| w == mark));
            }
        }
    }

    /// Mappings and what is cut off around them: aligned, zero, all theirs, and gone one by one.
    #[test]
    fn large_buffers_lie_apart() {
        let lens = [1 << 18, 5 << 16, (1 << 20) + 1, 7 << 17, 1 << 18];
        let all = lens.map(|len| fresh(len, true));
        for b in &all {
            assert_eq!(b.memory.ptr.as_ptr() as usize % HUGE, 0);
            assert_eq!(
                matches!(b.memory.home, Home::Pages),
                cfg!(target_os = "linux")
            );
        }
        stay_apart(all.into(), &[1, 2, 0, 1, 0]);
    }

    /// The last of the pieces takes the region with it, if another one is being cut.
    #[test]
    #[cfg(target_os = "linux")]
    fn regions_go_with_their_last_piece() {
        let mut cut = None;
        let mut piece = || Region::piece(&mut cut, REGION / 2 - 64).unwrap().1;
        let (first, second, third) = (piece(), piece(), piece());
        let gone = Arc::downgrade(&first);
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&second, &third));
        drop(first);
        assert!(gone.upgrade().is_some());
        let start = second.start.as_ptr();
        drop(second);
        assert!(gone.upgrade().is_none());
        // Nothing is there any more.
        // SAFETY: asks of a page whether it is in memory.
        let mapped = unsafe { libc::mincore(start.cast(), 4096, [0u8; 16].as_mut_ptr()) } == 0;
        assert!(!mapped);
        drop((third, cut));
    }

    /// More pieces than a region has room for; those of one go before, between and after those of the next.
    #[test]
    fn what_stays_and_is_short_shares_regions() {
        let len = 100_000;
        let all: Vec<Buffer> = (0..2 * REGION / (8 * len) + 3)
            .map(|i| fresh(len - 8 * i, true))
            .collect();
        let mut regions = Vec::new();
        for b in &all {
            assert_eq!(b.memory.ptr.as_ptr() as usize % 64, 0);
            if let Home::Region(region) = &b.memory.home {
                regions.push(Arc::as_ptr(region));
            }
        }
        if cfg!(target_os = "linux") {
            assert_eq!(regions.len(), all.len());
            regions.dedup();
            assert!(regions.len() >= 3);
        }
        assert!(matches!(fresh(len, false).memory.home, Home::Heap));
        assert!(matches!(fresh(1000, true).memory.home, Home::Heap));
        stay_apart(all, &[40, 0, 20, 20, 1, 0]);
    }
}
