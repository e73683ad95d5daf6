//! The rules by which buffers wait and are taken again: of the process-wide pool, and of models of it.

use std::collections::{BTreeMap, VecDeque};

/// What waits to be taken again, by size class (in words). Whoever needs a class gets what is as
/// large or up to three times as large; beyond a limit of bytes, what waited longest goes.
///
/// Three times, since memory fresh from the system is slow, and very slow where a hypervisor has to
/// find it. A program on few levels finds what the one on many left, and holds less in all than if each had
/// its own: see `benches/LOG.md`, section "Memory that is never given back".
#[derive(Clone, Debug)]
pub struct Shelves<T> {
    /// Per size class what waits, each with the time when it came, first come first.
    free: BTreeMap<usize, VecDeque<(u64, T)>>,
    /// How many came so far.
    time: u64,
    bytes: usize,
    limit: usize,
}

impl<T> Shelves<T> {
    /// Bytes that may wait in the process-wide pool unless somebody sets another limit. Memory is planned
    /// with this one.
    pub const DEFAULT_LIMIT: usize = 3 << 30;

    /// Empty ones on which at most `limit` bytes wait.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            free: BTreeMap::new(),
            time: 0,
            bytes: 0,
            limit,
        }
    }

    /// Bytes that wait.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets the limit, which [`Shelves::shrink`] restores.
    pub const fn set_limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    /// Of the smallest class that is at least `class`, and at most three times as large, what came last,
    /// with its class.
    pub fn take(&mut self, class: usize) -> Option<(usize, T)> {
        let most = class.saturating_mul(3);
        let (&found, _) = self.free.range(class..=most).next()?;
        Some((found, self.take_own(found)?))
    }

    /// Of this class alone what came last.
    pub fn take_own(&mut self, class: usize) -> Option<T> {
        let waiting = self.free.get_mut(&class)?;
        let (_, item) = waiting.pop_back()?;
        if waiting.is_empty() {
            self.free.remove(&class);
        }
        self.bytes = self.bytes.saturating_sub(bytes(class));
        Some(item)
    }

    /// Puts something of a class there, which may break the limit.
    pub fn put(&mut self, class: usize, item: T) {
        self.bytes = self.bytes.saturating_add(bytes(class));
        self.time += 1;
        let waiting = self.free.entry(class).or_default();
        waiting.push_back((self.time, item));
    }

    /// Takes out what waited longest until the limit holds, with the classes.
    pub fn shrink(&mut self) -> Vec<(usize, T)> {
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
            if let Some((_, item)) = front {
                self.bytes = self.bytes.saturating_sub(bytes(class));
                out.push((class, item));
            }
        }
        out
    }
}

/// Bytes of so many words.
const fn bytes(words: usize) -> usize {
    words.saturating_mul(8)
}

/// Words that a buffer of `len` words occupies. Size classes are multiples of an eighth of the next
/// lower power of two: at most 12.5% waste, and 64 words for what is less.
#[must_use]
pub fn size_class(len: usize) -> usize {
    let step = (len.max(64).next_power_of_two() / 16).max(8);
    len.max(64).next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shelves for so many words, and something of each length on them, in that order.
    fn shelves(limit: usize, lens: &[usize]) -> Shelves<()> {
        let mut shelves = Shelves::new(8 * limit);
        for &len in lens {
            shelves.put(size_class(len), ());
            shelves.shrink();
        }
        shelves
    }

    fn empty(mut shelves: Shelves<()>) -> Vec<usize> {
        shelves.set_limit(0);
        let gone = shelves.shrink();
        assert_eq!((shelves.bytes, shelves.free.len()), (0, 0));
        gone.into_iter().map(|(class, ())| class).collect()
    }

    #[test]
    fn what_waited_longest_makes_room() {
        let mut shelves = shelves(1000, &[512, 256, 64, 256]);
        assert_eq!(shelves.bytes(), 8 * (256 + 64 + 256));
        let (class, ()) = shelves.take(256).unwrap();
        shelves.put(class, ());
        assert_eq!(empty(shelves), [256, 64, 256]);
        assert_eq!(empty(self::shelves(100, &[64, 512])), [0; 0]);
    }

    #[test]
    fn what_is_there_serves_what_is_smaller() {
        let mut shelves = shelves(20_000, &[2048, 384, 256]);
        let mut take = |len: usize| Some(shelves.take(size_class(len))?.0);
        assert_eq!(take(257), Some(384));
        assert_eq!(take(257), None);
        assert_eq!(take(2049), None);
        assert_eq!(take(640), None);
        assert_eq!(take(641), Some(2048));
        assert_eq!(shelves.take_own(128), None);
        let mut take = |len: usize| Some(shelves.take(size_class(len))?.0);
        assert_eq!(take(80), None);
        assert_eq!(take(86), Some(256));
        assert_eq!(take(64), None);
        shelves.put(256, ());
        assert_eq!(shelves.take_own(256), Some(()));
        assert_eq!(empty(shelves), [0; 0]);
    }
}
