//! Bandwidth of each level of the memory: the fastest of several passes over a buffer that fills
//! half of a cache, or that no cache holds.

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
    /// Copying; what is read and what is written are both counted.
    pub copy: f64,
}

impl Bandwidth {
    /// Nanoseconds for so many bytes: no direction can be faster than alone, both together not
    /// faster than the best that was seen of anything.
    #[must_use]
    pub fn ns(&self, read: f64, write: f64) -> f64 {
        let together = (read + write) / self.copy.max(self.read).max(self.write);
        (read / self.read).max(write / self.write).max(together)
    }
}

/// One thread's passes over its buffer.
#[derive(Clone, Copy)]
enum Pass {
    Read,
    Write,
    Copy,
}

/// Words of a stretch that one call of a loop works on: calls of 32 KiB stay small against what is
/// measured and need no care for ends.
const WORDS_PER_KIB: usize = 128;

/// Words of a cache line.
const LINE_WORDS: usize = 8;

/// The bandwidth over buffers of `kib` KiB per thread; `memory` if no cache holds them.
pub(super) fn measure(set: Set, kib: usize, threads: usize, memory: bool) -> Bandwidth {
    let one = |pass| -> f64 {
        let per_thread = |go: &std::sync::Barrier| {
            let mut space = vec![1u64; kib * WORDS_PER_KIB + LINE_WORDS];
            let buffer = aligned(&mut space, kib * WORDS_PER_KIB);
            // At least 16 MiB per pass, so that clocks do not matter; seven passes.
            let repeats = (16 * 1024 / kib).max(1);
            (0..7)
                .map(|_| {
                    go.wait();
                    let start = Instant::now();
                    for _ in 0..repeats {
                        run(set, pass, buffer, memory);
                    }
                    go.wait();
                    // Until the slowest thread is done.
                    (repeats * kib * 1024) as f64 / start.elapsed().as_nanos() as f64
                })
                .fold(0.0, f64::max)
        };
        let go = std::sync::Barrier::new(threads);
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads)
                .map(|_| scope.spawn(|| per_thread(&go)))
                .collect();
            let mine = per_thread(&go);
            let theirs = others.into_iter().filter_map(|t| t.join().ok());
            mine + theirs.sum::<f64>()
        })
    };
    Bandwidth {
        read: one(Pass::Read),
        write: one(Pass::Write),
        // Half of the buffer is read and half is written: the pass moves its size once.
        copy: one(Pass::Copy),
    }
}

/// So many words from the first that begins a cache line, so that no vector lies in two.
fn aligned(space: &mut [u64], words: usize) -> &mut [u64] {
    let line = 8 * LINE_WORDS;
    let first = (line - space.as_ptr().addr() % line) % line / 8;
    let end = (first + words).min(space.len());
    &mut space[first.min(end)..end]
}

fn run(set: Set, pass: Pass, buffer: &mut [u64], memory: bool) {
    match pass {
        Pass::Read => {
            std::hint::black_box(set.read(buffer));
        }
        Pass::Write => set.write(buffer, 3, memory),
        Pass::Copy => {
            let (to, from) = buffer.split_at_mut(buffer.len() / 2);
            set.copy(to, from, memory);
        }
    }
    std::hint::black_box(buffer);
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
        };
        assert_eq!(b.ns(100.0, 0.0), 10.0);
        assert_eq!(b.ns(0.0, 100.0), 20.0);
        assert_eq!(b.ns(100.0, 50.0), 12.5);
    }

    #[test]
    fn every_set_reads_writes_and_copies() {
        for set in Set::available() {
            for memory in [false, true] {
                let b = measure(set, 16, 2, memory);
                for x in [b.read, b.write, b.copy] {
                    assert!(x > 0.01 && x < 1e5, "{b:?}");
                }
                // 1024 words: whole vectors everywhere.
                let mut words = vec![0; 1024];
                set.write(&mut words, 7, memory);
                assert!(words.iter().all(|w| *w == 7));
                words[512..].fill(9);
                let (to, from) = words.split_at_mut(512);
                set.copy(to, from, memory);
                assert!(words.iter().all(|w| *w == 9));
                words[1] = 1;
                words[700] = 4;
                // An exclusive or of all words, folded over lanes in some way, is not zero here.
                assert_ne!(set.read(&words), set.read(&vec![9; 1024]));
            }
        }
    }
}
