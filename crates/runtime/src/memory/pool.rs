//! The pool of buffers, simulated: what it holds after each buffer that is taken and given back.

use veilformer_ring::{Shelves, size_class};

use super::script::Event;

/// The process-wide pool ([`veilformer_ring::Shelves`] with its default limit) without memory.
pub(crate) struct PoolModel {
    shelves: Shelves<()>,
    in_use: u64,
    peak: u64,
}

impl Default for PoolModel {
    fn default() -> Self {
        Self::new(Shelves::<()>::DEFAULT_LIMIT)
    }
}

impl PoolModel {
    /// An empty pool in which at most `limit` bytes wait.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            shelves: Shelves::new(limit),
            in_use: 0,
            peak: 0,
        }
    }

    /// The most bytes so far, in use and waiting.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    /// A buffer of so many words; its class.
    pub(crate) fn take(&mut self, words: usize) -> usize {
        let wanted = size_class(words);
        let class = self.shelves.take(wanted).map_or(wanted, |found| found.0);
        self.hold(class);
        class
    }

    /// A buffer of so many words that stays.
    pub(crate) fn keep(&mut self, words: usize) {
        let class = size_class(words);
        // What waits of that class is as good as new: both are held from now on.
        let _ = self.shelves.take_own(class);
        self.hold(class);
    }

    /// A buffer of a class that does not wait any more is in use.
    fn hold(&mut self, class: usize) {
        self.in_use = self.in_use.saturating_add(bytes(class));
        let held = self.in_use.saturating_add(self.shelves.bytes() as u64);
        self.peak = self.peak.max(held);
    }

    /// A buffer of a class comes back.
    pub(crate) fn give(&mut self, class: usize) {
        self.in_use = self.in_use.saturating_sub(bytes(class));
        self.shelves.put(class, ());
        // What is too much goes back to the system at once.
        self.shelves.shrink();
    }

    /// Lets events happen, of which none gives back what was taken before them.
    pub(crate) fn play(&mut self, events: &[Event]) {
        let mut taken = Vec::new();
        for event in events {
            match event {
                Event::Take(words) => taken.push(self.take(*words)),
                Event::Give(number) => {
                    if let Some(class) = taken.get(*number) {
                        self.give(*class);
                    }
                }
            }
        }
    }
}

fn bytes(words: usize) -> u64 {
    (words as u64).saturating_mul(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_serves_a_smaller_wish() {
        let mut pool = PoolModel::new(1 << 20);
        let large = pool.take(1024);
        pool.give(large);
        let small = pool.take(700);
        assert_eq!((pool.peak(), small), (8 << 10, 1024));
        // Too large for the next one, which is taken beside it.
        pool.give(small);
        assert_eq!(pool.take(300), 320);
        assert_eq!(pool.peak(), 8 * (1024 + 320));
    }

    #[test]
    fn what_stays_takes_nothing_larger() {
        let mut pool = PoolModel::new(1 << 20);
        let large = pool.take(1024);
        pool.give(large);
        pool.keep(700);
        assert_eq!(pool.peak(), 8 * (1024 + 704));
        // Its own size it does.
        pool.keep(1020);
        assert_eq!(pool.peak(), 8 * (1024 + 704));
        assert_eq!(pool.take(1000), 1024);
        assert_eq!(pool.peak(), 8 * (1024 + 704 + 1024));
    }

    #[test]
    fn what_waits_stays_within_the_limit_and_the_oldest_leaves() {
        let mut pool = PoolModel::new(8 * 980);
        let events = [
            Event::Take(512),
            Event::Take(256),
            Event::Take(208),
            Event::Give(0),
            Event::Give(1),
            Event::Give(2),
        ];
        pool.play(&events);
        assert_eq!((pool.peak(), pool.in_use), (8 * 976, 0));
        // Sixty words too many: the oldest goes, and the others stay.
        let more = pool.take(64);
        pool.give(more);
        assert_eq!((pool.peak(), pool.shelves.bytes()), (8 * 1040, 8 * 528));
        pool.take(512);
        assert_eq!(pool.peak(), 8 * 1040);
        assert_eq!(pool.shelves.bytes(), 8 * (256 + 208 + 64));
    }

    #[test]
    fn a_second_run_finds_what_the_first_one_left() {
        let mut pool = PoolModel::new(1 << 20);
        let run = [
            Event::Take(1024),
            Event::Take(64),
            Event::Give(0),
            Event::Give(1),
        ];
        pool.play(&run);
        let once = pool.peak();
        pool.play(&run);
        assert_eq!((pool.peak(), pool.in_use), (once, 0));
    }
}
