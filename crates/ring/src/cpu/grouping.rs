//! How primes are grouped: what threads share, and what decides the size of their scratch. Public for
//! models of how much memory operations take.

use crate::kernels::{LOW_LOG, Layout};

/// Words of scratch that the groups of primes of all threads may take: a share of the last level of cache. Where
/// digits go past it, longer groups gain nothing either.
const GROUP_WORDS: usize = 1 << 22;
/// Two primes' digits of at most this many words stay in the second level of cache.
const SMALL_WORDS: usize = 1 << 17;
/// The largest group of primes.
const MAX_GROUP: usize = 12;

/// Words that go through one NTT in about 60 microseconds: less is not worth a thread. Tests share
/// out the work of the smallest rings too.
const GRAIN: usize = if cfg!(test) { 1 << 3 } else { 1 << 16 };

/// Of `threads` threads those that may share work of so many words, each of which goes through about
/// one NTT.
#[must_use]
pub fn threads_within(words: usize, threads: usize) -> usize {
    threads.min(words / GRAIN).max(1)
}

/// Words from one digit's limb, with what lies between its rows, to the next: half a period of the second-level
/// cache's sets more, so that equal blocks of all digits do not fall into the same sets.
#[must_use]
pub fn digit_stride(n: usize) -> usize {
    scratch_words(n) + n.min(1 << LOW_LOG)
}

/// Words of a limb in scratch.
#[must_use]
pub const fn scratch_words(n: usize) -> usize {
    Layout::apart(n).words()
}

/// The most primes that a thread works on at a time when each has `digits` converted digits and
/// `others` more limbs.
#[must_use]
pub fn group_size(n: usize, digits: usize, others: usize, threads: usize) -> usize {
    let max = if 2 * n * digits <= SMALL_WORDS {
        2
    } else {
        MAX_GROUP
    };
    (GROUP_WORDS / threads.max(1) / (n * (digits + others)).max(1)).clamp(1, max)
}

/// How many groups of at most `size` primes end together on so many threads.
#[must_use]
pub fn group_count(primes: usize, size: usize, threads: usize) -> usize {
    primes
        .div_ceil(size.max(1))
        .next_multiple_of(threads.max(1))
}
