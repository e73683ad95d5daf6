//! One call on several threads: its parts are shared out in the ambient rayon pool.
//!
//! The caller puts parts of its work in a queue, offers the pool to help, and works the queue off
//! itself. Threads of the pool that have nothing else to do come and take parts; rayon lets them
//! take what waits longest first, so that whole operations of a program go before parts of one that
//! runs already. When the queue is empty the caller waits only for parts that somebody holds, and does
//! not begin anything else meanwhile: an operation takes its own time and one scratch per thread,
//! however many operations run at once.
//!
//! Parts write to disjoint memory and do not depend on who computes them, so results are the same
//! for any number of threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::grouping::threads_within;

/// Words of a limb-wise sum or product that take as long as one word's share of an NTT.
const POINTWISE: usize = 8;

/// Threads that may share work of so many words, each of which goes through about one NTT.
pub(super) fn threads_for(words: usize) -> usize {
    match threads_within(words, usize::MAX) {
        // Without a question to rayon, which would start its global pool for it.
        1 => 1,
        most => rayon::current_num_threads().min(most),
    }
}

/// The same for work that only adds or multiplies.
pub(super) fn threads_pointwise(words: usize) -> usize {
    threads_for(words / POINTWISE)
}

/// Counts those that may hold parts, also past a panic.
struct Present<'a>(&'a AtomicUsize);

impl<'a> Present<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs `work` on every part, in order of the parts, on this thread and at most `threads - 1`
/// others of the ambient pool; `scratch` makes what a thread needs for itself.
pub(super) fn share<T: Send, S>(
    threads: usize,
    parts: Vec<T>,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T) + Sync,
) {
    let helpers = threads.min(parts.len()).saturating_sub(1);
    if helpers == 0 {
        let mut scratch = scratch();
        parts.into_iter().for_each(|part| work(&mut scratch, part));
        return;
    }
    let queue = Mutex::new(parts.into_iter());
    let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let help = || {
        let mut next = take();
        if next.is_none() {
            return;
        }
        let mut scratch = scratch();
        while let Some(part) = next {
            work(&mut scratch, part);
            next = take();
        }
    };
    let present = AtomicUsize::new(0);
    rayon::scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|_| {
                let _present = Present::new(&present);
                help();
            });
        }
        help();
        // The end of the scope would wait as well, but with other work in hand.
        while present.load(Ordering::Acquire) > 0 {
            std::thread::yield_now();
        }
    });
}

/// `parts` in `count` runs (fewer if there are fewer parts) whose lengths differ by at most one.
pub(super) fn even_runs<T>(parts: Vec<T>, count: usize) -> Vec<Vec<T>> {
    let count = count.clamp(1, parts.len().max(1));
    let (each, more) = (parts.len() / count, parts.len() % count);
    let mut parts = parts.into_iter();
    (0..count)
        .map(|i| parts.by_ref().take(each + usize::from(i < more)).collect())
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::conformance::check_all;
    use crate::{Cpu, CpuConfig};

    #[test]
    fn conforms_in_pools_of_any_size() {
        for threads in [1, 2, 3, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().unwrap();
            let open = |chain| Cpu::new(chain, CpuConfig::default());
            if let Err(e) = pool.install(|| check_all(open)) {
                panic!("{threads} threads: {e}");
            }
        }
    }

    #[test]
    fn runs_are_even_and_in_order() {
        let runs = even_runs((0..11).collect(), 4);
        assert_eq!(
            runs,
            [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7, 8], vec![9, 10]]
        );
        assert_eq!(even_runs(vec![1, 2], 5), [[1], [2]]);
        assert!(even_runs(Vec::<u8>::new(), 3).concat().is_empty());
    }
}
