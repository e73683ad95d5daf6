//! Pools of threads, each of which stays on a core of its own.

use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{BenchError, Result};
use crate::interleave::Case;
use crate::machine::{allowed, pin};

/// A pool of so many threads; the backend's calls use the pool in which they are called.
///
/// # Errors
/// The system's.
pub fn pool(threads: usize) -> Result<Arc<ThreadPool>> {
    let cores = allowed();
    let keep = move |index: usize| {
        // From the last on, as the main thread's: the first core has the system's own work.
        let core = cores.len().checked_sub(index % cores.len().max(1) + 1);
        if let Some(&core) = core.and_then(|c| cores.get(c)) {
            // If it is refused, the thread stays where the process may be.
            let _ = pin(&[core]);
        }
    };
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .start_handler(keep)
        .build()
        .map(Arc::new)
        .map_err(|e| BenchError::Usage(format!("no pool of {threads} threads: {e}")))
}

/// The case, run in a pool.
#[must_use]
pub fn within<'a>(pool: &Arc<ThreadPool>, mut case: Case<'a>) -> Case<'a> {
    let pool = Arc::clone(pool);
    Case {
        name: case.name,
        run: Box::new(move |repeats| pool.install(|| (case.run)(repeats))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_run_in_their_pool() {
        for threads in [1, 2] {
            let case = Case {
                name: "threads".into(),
                run: Box::new(|repeats| Ok((rayon::current_num_threads() * repeats) as f64)),
            };
            let mut case = within(&pool(threads).unwrap(), case);
            assert_eq!((case.run)(3).unwrap(), (3 * threads) as f64);
        }
    }
}
