//! Repeats operations and says how long they take, with what they read in a cache or not.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

/// Repetitions in one pass, of which the median counts.
const REPETITIONS: usize = 3;
/// The most that is read between two repetitions, in bytes: more than what a core gets of its last level
/// of cache.
const MOST_BETWEEN: u64 = 1 << 28;
/// Bytes of a line of cache.
const LINE: usize = 64;

/// Times what a program does with its keys and weights. Between two uses of one of them a program reads
/// all others, so that they come from memory; repeated one after the other they would come from
/// a cache, twice as fast. So as many bytes are read in between.
pub(super) struct Clock {
    between: Vec<u8>,
}

impl Clock {
    /// For a program that reads so many bytes between two uses of the same ones.
    pub(super) fn new(bytes: u64) -> Self {
        let bytes = usize::try_from(bytes.min(MOST_BETWEEN)).unwrap_or(0);
        // Not zero: pages that nobody wrote would all be one page.
        Self {
            between: vec![1; bytes],
        }
    }

    /// Puts what was used last out of the caches.
    fn forget(&self) {
        let lines = self.between.iter().step_by(LINE);
        black_box(lines.fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
    }

    /// Median of the seconds that `seconds` says itself, with nothing in a cache before each.
    pub(super) fn repeated<E>(&self, seconds: impl FnMut() -> Result<f64, E>) -> Result<f64, E> {
        self.repeated_with(&Barrier::new(1), seconds)
    }

    /// The same on each of as many threads as the barrier is for, which begin every repetition together:
    /// nobody empties caches while another one computes.
    pub(super) fn repeated_with<E>(
        &self,
        all: &Barrier,
        mut seconds: impl FnMut() -> Result<f64, E>,
    ) -> Result<f64, E> {
        let warm = seconds();
        // Whoever fails goes on: the others wait for it.
        let times: Vec<_> = (0..REPETITIONS)
            .map(|_| {
                self.forget();
                all.wait();
                seconds()
            })
            .collect();
        warm?;
        Ok(median(times.into_iter().collect::<Result<_, _>>()?))
    }

    /// As [`Clock::repeated`], of one repetition alone where the first run took `long` seconds or more.
    pub(super) fn long<E>(
        &self,
        long: f64,
        mut seconds: impl FnMut() -> Result<f64, E>,
    ) -> Result<f64, E> {
        let warm = seconds()?;
        let repetitions = if warm < long { REPETITIONS } else { 1 };
        let times = (0..repetitions).map(|_| {
            self.forget();
            seconds()
        });
        Ok(median(times.collect::<Result<_, _>>()?))
    }

    /// Median seconds with the smaller number of pieces, and by how much more the larger one takes, with
    /// nothing in a cache before each: both in turns, since a host whose speed drifts by a tenth from one
    /// series to the next would hide what a few products add to a transform.
    pub(super) fn growth<E>(
        &self,
        [few, many]: [usize; 2],
        mut seconds: impl FnMut(usize) -> Result<f64, E>,
    ) -> Result<(f64, f64), E> {
        let mut next = |count| {
            self.forget();
            seconds(count)
        };
        next(few)?;
        next(many)?;
        let (mut least, mut more) = (Vec::new(), Vec::new());
        for _ in 0..REPETITIONS {
            let (low, high) = (next(few)?, next(many)?);
            least.push(low);
            more.push(high - low);
        }
        Ok((median(least), median(more).max(0.0)))
    }

    /// Fixed part and cost of each piece from what one piece and `many` of them take.
    pub(super) fn two_points<E>(
        &self,
        many: usize,
        seconds: impl FnMut(usize) -> Result<f64, E>,
    ) -> Result<(f64, f64), E> {
        let many = many.max(2);
        let (one, more) = self.growth([1, many], seconds)?;
        let each = more / (many - 1) as f64;
        Ok(((one - each).max(0.0), each))
    }
}

/// Seconds of one run of an operation.
pub(super) fn once<T, E>(mut operation: impl FnMut() -> Result<T, E>) -> Result<f64, E> {
    let started = Instant::now();
    black_box(operation()?);
    Ok(started.elapsed().as_secs_f64())
}

/// Median seconds of an operation after one run that warms it up: of one whose operands were
/// computed just before.
pub(super) fn time<T, E>(mut operation: impl FnMut() -> Result<T, E>) -> Result<f64, E> {
    once(&mut operation)?;
    let times = (0..REPETITIONS).map(|_| once(&mut operation));
    Ok(median(times.collect::<Result<_, _>>()?))
}

/// The middle one; of none, zero.
pub(super) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}
