//! Bandwidth by the size of what is read and written in turn: the fastest of several passes that only
//! move, over buffers from half of the first cache to several times the last.
//!
//! Between caches bandwidth does not fall in steps: a cache serves a part of data that is somewhat
//! larger than itself.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::ports::Set;

/// Bytes per nanosecond (GB/s) that one or several threads move together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Reading only.
    pub read: f64,
    /// Writing only, past the caches where the level is memory and the machine can.
    pub write: f64,
    /// Copying, changing words where they are, or changing them by others, whichever is fastest; what is
    /// read and what is written are both counted.
    pub copy: f64,
    /// What is read and written, both counted, where the words written are others than those read: of one
    /// or two streams into another one, whichever is fastest. A line that is written has to be fetched
    /// first, unless it goes past the caches.
    #[serde(default)]
    pub apart: f64,
}

impl Bandwidth {
    /// Of everything the faster one.
    fn faster(self, other: Self) -> Self {
        Self {
            read: self.read.max(other.read),
            write: self.write.max(other.write),
            copy: self.copy.max(other.copy),
            apart: self.apart.max(other.apart),
        }
    }

    /// Nanoseconds for so many bytes into words that are not among those read.
    #[must_use]
    pub fn ns_apart(&self, read: f64, write: f64) -> f64 {
        let alone = (read / self.read).max(write / self.write);
        match self.apart > 0.0 {
            true => alone.max((read + write) / self.apart),
            false => self.ns(read, write),
        }
    }

    /// Nanoseconds for so many bytes: no direction can be faster than alone, both together not
    /// faster than the best that was seen of anything.
    #[must_use]
    pub fn ns(&self, read: f64, write: f64) -> f64 {
        let together = (read + write) / self.copy.max(self.read).max(self.write);
        (read / self.read).max(write / self.write).max(together)
    }
}

/// Bandwidth over data of one size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Bytes that all threads go through together.
    pub bytes: f64,
    /// What they move.
    pub bandwidth: Bandwidth,
}

/// Bandwidth by size, ascending.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve(pub Vec<Point>);

impl Curve {
    /// Bandwidth over data of `bytes`: between two measured sizes on the line through both over the
    /// logarithm of the size, below the first and above the last what was measured there.
    #[must_use]
    pub fn at(&self, bytes: f64) -> Bandwidth {
        let above = self.0.iter().position(|p| p.bytes >= bytes);
        let (low, high) = match above {
            Some(0) => (self.0.first(), self.0.first()),
            Some(i) => (self.0.get(i - 1), self.0.get(i)),
            None => (self.0.last(), self.0.last()),
        };
        let (Some(low), Some(high)) = (low, high) else {
            // Without a measurement nothing is known to take time.
            let none = f64::INFINITY;
            return Bandwidth {
                read: none,
                write: none,
                copy: none,
                apart: none,
            };
        };
        let width = (high.bytes / low.bytes).ln();
        let t = if width > 0.0 {
            (bytes / low.bytes).ln() / width
        } else {
            0.0
        };
        let between = |f: fn(&Bandwidth) -> f64| {
            f(&low.bandwidth) + t * (f(&high.bandwidth) - f(&low.bandwidth))
        };
        Bandwidth {
            read: between(|b| b.read),
            write: between(|b| b.write),
            copy: between(|b| b.copy),
            apart: between(|b| b.apart),
        }
    }
}

/// Measures the curve for `threads` threads on a machine with such caches.
pub(super) fn curve(set: Set, caches: [usize; 3], threads: usize) -> Curve {
    let [l1, l2, l3] = caches.map(|c| c / 1024);
    // Per thread: the first two caches are a core's own.
    let own = [
        l1 / 2,
        l1,
        l2 / 4,
        l2 / 2,
        3 * l2 / 4,
        l2,
        3 * l2 / 2,
        2 * l2,
    ];
    // Together: the last one is shared.
    let shared = [
        l3 / 8,
        l3 / 4,
        l3 / 2,
        3 * l3 / 4,
        l3,
        5 * l3 / 4,
        3 * l3 / 2,
        2 * l3,
        3 * l3,
        6 * l3,
    ];
    let own = own.into_iter().map(|kib| kib.max(8) * threads);
    // Of a last cache of hundreds of MiB four sizes: each takes a second or more.
    let few = [l3 / 4, l3 / 2, l3, 2 * l3];
    let shared = shared
        .into_iter()
        .filter(|kib| l3 <= 128 << 10 || few.contains(kib));
    // And what operations work on, however far the last cache is from the one before.
    let between = [4, 8, 16, 32, 64].map(|times| times * l2 * threads);
    let between = between.into_iter().filter(|kib| *kib < l3 / 4);
    let mut sizes: Vec<usize> = own.chain(between).chain(shared).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let each = |kib: usize| (kib / threads).max(8);
    let most = sizes.last().map_or(0, |&kib| each(kib));
    let mut spaces = vec![Vec::new(); threads];
    let buffers = spaces.iter_mut();
    let mut buffers: Vec<&mut [u64]> = buffers
        .map(|space| large_pages(space, most * WORDS_PER_KIB))
        .collect();
    let point = |kib: usize| {
        let mut bandwidth = measure(set, each(kib), &mut buffers, Way::NEAR);
        // Farther away fetching ahead may be faster, and where most is written past the caches that.
        let ways = [(l2 * threads, Way::FETCHED), (l3 / 2, Way::PAST)];
        for (_, way) in ways.into_iter().filter(|(from, _)| kib >= *from) {
            bandwidth = bandwidth.faster(measure(set, each(kib), &mut buffers, way));
        }
        let bytes = (kib * 1024) as f64;
        Point { bytes, bandwidth }
    };
    let mut points: Vec<Point> = sizes.into_iter().map(point).collect();
    never_slower(&mut points);
    Curve(points)
}

/// Nothing is slower for being smaller: what a larger size reached, a smaller one can.
fn never_slower(points: &mut [Point]) {
    for i in (1..points.len()).rev() {
        let (before, after) = points.split_at_mut(i);
        if let (Some(small), Some(large)) = (before.last_mut(), after.first()) {
            small.bandwidth = small.bandwidth.faster(large.bandwidth);
        }
    }
}

/// One thread's passes over its buffer.
#[derive(Clone, Copy)]
enum Pass {
    Read,
    Write,
    Copy,
    Update,
    Merge,
    /// Of the first two thirds to the last.
    Join,
}

/// How a pass goes through its buffer.
#[derive(Clone, Copy)]
struct Way {
    /// Whether the next piece of each of [`STREAMS`] is fetched while one is at work. A processor's own
    /// prefetchers stop at pages, and wait for the first words of each.
    fetch: bool,
    /// Whether what is written goes past the caches.
    past: bool,
}

impl Way {
    const NEAR: Self = Self {
        fetch: false,
        past: false,
    };
    const FETCHED: Self = Self {
        fetch: true,
        past: false,
    };
    const PAST: Self = Self {
        fetch: true,
        past: true,
    };
}

/// Parts of a buffer that are gone through in turns where pieces are fetched: so that the translation of
/// one's addresses does not stop all.
const STREAMS: usize = 4;

/// Words of such a piece: 64 lines.
const PIECE: usize = 512;

/// Words of a stretch that one call of a loop works on: calls of 32 KiB stay small against what is
/// measured and need no care for ends.
const WORDS_PER_KIB: usize = 128;

/// Bytes of a large page.
const PAGE: usize = 2 << 20;

/// The bandwidth over the first `kib` KiB of buffers, one per thread.
fn measure(set: Set, kib: usize, buffers: &mut [&mut [u64]], way: Way) -> Bandwidth {
    let mut one = |pass| -> f64 {
        let parts = buffers.iter_mut();
        let parts: Vec<&mut [u64]> = parts
            .filter_map(|b| b.get_mut(..kib * WORDS_PER_KIB))
            .collect();
        let go = std::sync::Barrier::new(parts.len());
        let per_thread = |buffer: &mut [u64]| {
            // At least 16 MiB per pass, so that clocks do not matter; passes over more say as much in fewer.
            let repeats = (16 * 1024 / kib).max(1);
            let passes = if kib > 64 << 10 { 3 } else { 7 };
            (0..passes)
                .map(|_| {
                    go.wait();
                    let start = Instant::now();
                    for _ in 0..repeats {
                        run(set, pass, buffer, way);
                    }
                    go.wait();
                    // Until the slowest thread is done.
                    (repeats * kib * 1024) as f64 / start.elapsed().as_nanos() as f64
                })
                .fold(0.0, f64::max)
        };
        std::thread::scope(|scope| {
            let mut parts = parts.into_iter();
            let mine = parts.next();
            let others: Vec<_> = parts.map(|part| scope.spawn(|| per_thread(part))).collect();
            let mine = mine.map_or(0.0, per_thread);
            let theirs = others.into_iter().filter_map(|t| t.join().ok());
            mine + theirs.sum::<f64>()
        })
    };
    // In place no line is fetched only to be written over. It moves its size both ways.
    let update = one(Pass::Update);
    // Half of the buffer is read and half is written: the pass moves its size once.
    let copy = one(Pass::Copy);
    Bandwidth {
        read: one(Pass::Read).max(update),
        write: one(Pass::Write).max(update),
        // A merge reads all of the buffer.
        copy: copy.max(2.0 * update).max(1.5 * one(Pass::Merge)),
        apart: copy.max(one(Pass::Join)),
    }
}

/// Makes `space` as many words and more, and gives those from the first that begins a large page, where
/// the system has such pages: what a ring's polynomials lie in. In small ones a part of the time goes to
/// the translation of addresses. No vector lies in two cache lines.
fn large_pages(space: &mut Vec<u64>, words: usize) -> &mut [u64] {
    space.reserve_exact(words + PAGE / 8);
    let first = space.as_ptr().addr().wrapping_neg() % PAGE / 8;
    // The advice comes before the first touch, which decides the size of the pages.
    #[cfg(target_os = "linux")]
    // SAFETY: advice on a part of what the vector has reserved, which begins a page; a refusal is
    // harmless.
    unsafe {
        let at = space.as_mut_ptr().wrapping_add(first);
        libc::madvise(
            at.cast(),
            (words * 8)
                .next_multiple_of(PAGE)
                .min(words * 8 + PAGE - 8 * first),
            libc::MADV_HUGEPAGE,
        );
    }
    space.resize(words + PAGE / 8, 1);
    &mut space[first..first + words]
}

/// One pass over a buffer.
fn run(set: Set, pass: Pass, buffer: &mut [u64], way: Way) {
    let (written, read) = match pass {
        Pass::Read => (0, 1),
        Pass::Write | Pass::Update => (1, 0),
        Pass::Copy | Pass::Merge => (1, 1),
        Pass::Join => (1, 2),
    };
    let each = buffer.len() / (written + read);
    let (to, from) = buffer.split_at_mut(written * each);
    let (a, b) = from.split_at(from.len().min(each));
    if way.fetch {
        by_pieces(set, pass, (&mut *to, a, b), way.past);
    } else {
        step(set, pass, (&mut *to, a, b), way.past);
    }
    std::hint::black_box(buffer);
}

/// What a pass writes, and one or two things that it reads.
type Words<'a> = (&'a mut [u64], &'a [u64], &'a [u64]);

/// A pass over some words.
fn step(set: Set, pass: Pass, (to, a, b): Words<'_>, past: bool) {
    match pass {
        Pass::Read => {
            std::hint::black_box(set.read(a));
        }
        Pass::Write => set.write(to, 3, past),
        Pass::Update => set.update(to),
        Pass::Copy => set.copy(to, a, past),
        Pass::Merge => set.merge(to, a),
        Pass::Join => set.join(to, (a, b), past),
    }
}

/// The same piece by piece, the next one of a stream fetched before each.
fn by_pieces(set: Set, pass: Pass, (to, a, b): Words<'_>, past: bool) {
    let pieces = to.len().max(a.len()).div_ceil(PIECE);
    let stream = pieces.div_ceil(STREAMS);
    // What goes past the caches is not to be in them.
    let through = !past || matches!(pass, Pass::Update | Pass::Merge);
    for i in 0..stream {
        for piece in (0..STREAMS).map(|s| s * stream + i) {
            let range = |words: &[u64], piece: usize| {
                let at = |piece: usize| (piece * PIECE).min(words.len());
                at(piece)..at(piece + 1)
            };
            if i + 1 < stream {
                set.fetch(&a[range(a, piece + 1)]);
                set.fetch(&b[range(b, piece + 1)]);
                if through {
                    set.fetch(&to[range(to, piece + 1)]);
                }
            }
            let here = range(to, piece);
            let words = (&mut to[here], &a[range(a, piece)], &b[range(b, piece)]);
            step(set, pass, words, past);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_slowest_way() {
        let b = Bandwidth {
            read: 10.0,
            write: 5.0,
            copy: 12.0,
            apart: 9.0,
        };
        assert_eq!(b.ns(100.0, 0.0), 10.0);
        assert_eq!(b.ns(0.0, 100.0), 20.0);
        assert_eq!(b.ns(100.0, 50.0), 12.5);
        assert_eq!(b.ns_apart(50.0, 40.0), 10.0);
        assert_eq!(b.ns_apart(10.0, 40.0), 8.0);
    }

    #[test]
    fn curves_are_lines_between_sizes() {
        let point = |bytes, x| Point {
            bytes,
            bandwidth: Bandwidth {
                read: x,
                write: x,
                copy: 2.0 * x,
                apart: x,
            },
        };
        let curve = Curve(vec![point(1e3, 100.0), point(1e5, 50.0)]);
        let at = |bytes| (curve.at(bytes).read, curve.at(bytes).copy);
        assert_eq!(at(10.0), (100.0, 200.0));
        assert_eq!(at(1e3), (100.0, 200.0));
        let (read, copy) = at(1e4);
        assert!((read - 75.0).abs() < 1e-9 && (copy - 150.0).abs() < 1e-9);
        assert_eq!(at(1e9), (50.0, 100.0));
        assert_eq!(at(f64::INFINITY), (50.0, 100.0));
    }

    #[test]
    fn no_size_is_slower_than_a_larger_one() {
        let rows = [
            [3.0, 9.0, 4.0, 1.0],
            [5.0, 2.0, 4.0, 2.0],
            [1.0, 3.0, 6.0, 3.0],
        ];
        let mut points = rows.map(|[read, write, copy, apart]| Point {
            bytes: 1.0,
            bandwidth: Bandwidth {
                read,
                write,
                copy,
                apart,
            },
        });
        never_slower(&mut points);
        let rows = points
            .map(|p| p.bandwidth)
            .map(|b| [b.read, b.write, b.copy, b.apart]);
        let expected = [
            [5.0, 9.0, 6.0, 3.0],
            [5.0, 3.0, 6.0, 3.0],
            [1.0, 3.0, 6.0, 3.0],
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn pieces_are_all_words_once() {
        for set in Set::available() {
            for (words, way) in [(1 << 12, Way::FETCHED), (9 * PIECE + 16, Way::PAST)] {
                let mut buffer = vec![1u64; words];
                run(set, Pass::Update, &mut buffer, way);
                assert!(buffer.iter().all(|w| *w == !1));
                buffer[..words / 2].fill(5);
                run(set, Pass::Merge, &mut buffer, way);
                assert!(buffer[..words / 2].iter().all(|w| *w == !1 ^ 5));
                run(set, Pass::Copy, &mut buffer, way);
                assert!(buffer.iter().all(|w| *w == !1));
                run(set, Pass::Write, &mut buffer, way);
                assert!(buffer.iter().all(|w| *w == 3));
                let third = words / 3 / 8 * 8;
                let buffer = &mut buffer[..3 * third];
                buffer[third..].fill(6);
                buffer[2 * third..].fill(9);
                run(set, Pass::Join, buffer, way);
                assert!(buffer[..third].iter().all(|w| *w == 6 ^ 9));
                run(set, Pass::Read, buffer, way);
                assert!(buffer[..third].iter().all(|w| *w == 6 ^ 9));
            }
        }
    }

    #[test]
    fn buffers_begin_a_page() {
        for words in [2048, 3 << 18] {
            let mut space = Vec::new();
            let buffer = large_pages(&mut space, words);
            assert_eq!((buffer.len(), buffer.as_ptr().addr() % PAGE), (words, 0));
        }
    }

    #[test]
    fn every_set_reads_writes_and_copies() {
        // Bytes per ns; no machine is below that, past the caches or not.
        let least = if cfg!(debug_assertions) { 0.01 } else { 0.3 };
        for set in Set::available() {
            for way in [Way::NEAR, Way::FETCHED, Way::PAST] {
                let mut spaces = [Vec::new(), Vec::new()];
                let mut buffers = spaces.each_mut().map(|s| large_pages(s, 2048));
                let b = measure(set, 16, &mut buffers, way);
                let memory = way.past;
                for x in [b.read, b.write, b.copy, b.apart] {
                    assert!(x > least && x < 1e5, "{b:?}");
                }
                // 1024 words: whole vectors everywhere.
                let mut words = vec![0; 1024];
                set.write(&mut words, 7, memory);
                assert!(words.iter().all(|w| *w == 7));
                words[512..].fill(9);
                let (to, from) = words.split_at_mut(512);
                set.copy(to, from, memory);
                assert!(words.iter().all(|w| *w == 9));
                set.update(&mut words);
                assert!(words.iter().all(|w| *w != 9));
                words[..512].fill(5);
                words[512..].fill(6);
                let (to, from) = words.split_at_mut(512);
                set.merge(to, from);
                assert!(words[..512].iter().all(|w| *w == 3));
                assert!(words[512..].iter().all(|w| *w == 6));
                let (from, to) = words.split_at_mut(1000);
                let (a, b) = from.split_at(992);
                set.join(&mut to[..8], (&a[..8], b), memory);
                assert!(words[1000..1008].iter().all(|w| *w == 3 ^ 6));
                words.fill(9);
                words[1] = 1;
                words[700] = 4;
                // An exclusive or of all words, folded over lanes in some way, is not zero here.
                assert_ne!(set.read(&words), set.read(&vec![9; 1024]));
            }
        }
    }
}
