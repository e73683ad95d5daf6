//! Runs in rounds: every case once per round, in another order each time.
//!
//! What disturbs a machine (another job, a clock that changes) then meets all cases alike, and two
//! cases of one round can be compared with each other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{BenchError, Result};
use crate::stats::Summary;

/// One thing that is measured.
pub struct Case<'a> {
    /// What it is called in messages.
    pub name: String,
    /// Runs it so many times and gives the milliseconds of one: the median of the repetitions, so
    /// that a pause (a collector of garbage, another process) counts in the rounds that it fills.
    pub run: Box<dyn FnMut(usize) -> Result<f64> + Send + 'a>,
}

impl<'a> Case<'a> {
    /// A case whose batches are timed here.
    pub fn timed(name: &str, mut once: impl FnMut() -> Result<()> + Send + 'a) -> Self {
        Self {
            name: name.to_owned(),
            run: Box::new(move |repeats| {
                median_ms(repeats, || {
                    let start = Instant::now();
                    once()?;
                    Ok(start.elapsed())
                })
            }),
        }
    }
}

/// The median of what `once` says it took, in milliseconds.
///
/// # Errors
/// Those of `once`.
pub fn median_ms(repeats: usize, mut once: impl FnMut() -> Result<Duration>) -> Result<f64> {
    let times: Result<Vec<f64>> = (0..repeats.max(1))
        .map(|_| Ok(once()?.as_secs_f64() * 1e3))
        .collect();
    Ok(Summary::of(&times?).map_or(f64::NAN, |s| s.median))
}

/// How long a measurement takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Number of rounds.
    pub rounds: usize,
    /// A batch has as many repetitions as fit this time, at least one.
    pub batch: Duration,
}

/// Most repetitions of one batch.
const MOST_REPEATS: usize = 1000;

/// Runs shorter than this have one more run before each batch that is not timed: their data should
/// be where it is in a program that does nothing else. Longer ones go through the caches anyway.
const WARMED_BELOW_MS: f64 = 50.0;

/// The samples of a case, in milliseconds: one per round, `None` where it was not reached or failed.
pub type Samples = Vec<Option<f64>>;

/// What is told while it runs.
pub trait Watch {
    /// Before each batch: the fraction that is done, and what comes next. `false` stops the
    /// measurement; what is complete is kept.
    fn step(&mut self, done: f64, next: &str) -> bool;
    /// A case failed and takes no part any more.
    fn failed(&mut self, name: &str, why: &BenchError);
}

/// Measures the cases. A case that fails is reported and left out from then on, so that one
/// library's fault does not cost the figures of the others.
pub fn interleave(
    cases: &mut [Case<'_>],
    effort: Effort,
    seed: u64,
    watch: &mut dyn Watch,
) -> Vec<Samples> {
    let mut samples = vec![Samples::new(); cases.len()];
    let mut repeats = vec![0usize; cases.len()];
    let mut warm = vec![false; cases.len()];
    let total = (cases.len() * (effort.rounds + 1)) as f64;
    let mut done = 0.0;
    let mut shuffler = Shuffler::new(seed);
    // How many repetitions fill a batch; the first run of all is never one of the samples.
    for (i, case) in cases.iter_mut().enumerate() {
        if !watch.step(done / total, &case.name) {
            return samples;
        }
        done += 1.0;
        let first = (case.run)(1).and_then(|ms| match ms < WARMED_BELOW_MS {
            true => (case.run)(1),
            false => Ok(ms),
        });
        match first {
            Ok(ms) => {
                let fit = effort.batch.as_secs_f64() * 1e3 / ms.max(1e-6);
                repeats[i] = (fit as usize).clamp(1, MOST_REPEATS);
                warm[i] = ms < WARMED_BELOW_MS;
            }
            Err(e) => watch.failed(&case.name, &e),
        }
    }
    for round in 0..effort.rounds {
        for s in &mut samples {
            s.push(None);
        }
        for i in shuffler.order(cases.len()) {
            done += 1.0;
            if repeats[i] == 0 {
                continue;
            }
            let case = &mut cases[i];
            if !watch.step(done / total, &case.name) {
                return samples;
            }
            let first = if warm[i] { (case.run)(1) } else { Ok(0.0) };
            match first.and_then(|_| (case.run)(repeats[i])) {
                Ok(ms) => samples[i][round] = Some(ms),
                Err(e) => {
                    repeats[i] = 0;
                    watch.failed(&case.name, &e);
                }
            }
        }
    }
    samples
}

/// Progress on standard error for what takes longer than two seconds, and an end by a flag that a
/// signal handler sets.
pub struct Terminal<'a> {
    stop: &'a AtomicBool,
    begun: Instant,
    told: Instant,
}

impl<'a> Terminal<'a> {
    /// Stops when `stop` is set.
    #[must_use]
    pub fn new(stop: &'a AtomicBool) -> Self {
        let now = Instant::now();
        Self {
            stop,
            begun: now,
            told: now,
        }
    }
}

impl Watch for Terminal<'_> {
    fn step(&mut self, done: f64, next: &str) -> bool {
        if self.told.elapsed() > Duration::from_secs(2) {
            self.told = Instant::now();
            let spent = self.begun.elapsed().as_secs();
            eprintln!("{:3.0}% after {spent} s, next: {next}", 100.0 * done);
        }
        !self.stop.load(Ordering::Relaxed)
    }

    fn failed(&mut self, name: &str, why: &BenchError) {
        eprintln!("{name}: {why}; left out from here on");
    }
}

/// Orders from a fixed seed (SplitMix64; Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014).
pub struct Shuffler(u64);

impl Shuffler {
    /// A generator.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`; the bias is below `bound / 2^64`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * u128::from(bound)) >> 64) as u64
    }

    /// `0..count` in random order (Fisher and Yates).
    pub fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, self.below(i as u64 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    struct Script {
        steps: usize,
        stop_after: usize,
        failed: Vec<String>,
    }

    impl Watch for Script {
        fn step(&mut self, done: f64, _: &str) -> bool {
            assert!((0.0..=1.0).contains(&done));
            self.steps += 1;
            self.steps <= self.stop_after
        }
        fn failed(&mut self, name: &str, _: &BenchError) {
            self.failed.push(name.to_owned());
        }
    }

    fn script(stop_after: usize) -> Script {
        Script {
            steps: 0,
            stop_after,
            failed: Vec::new(),
        }
    }

    const EFFORT: Effort = Effort {
        rounds: 4,
        batch: Duration::from_millis(10),
    };

    #[test]
    fn orders_are_permutations_and_follow_from_the_seed() {
        let orders = |seed| {
            let mut s = Shuffler::new(seed);
            [s.order(9), s.order(9)]
        };
        assert_eq!(orders(1), orders(1));
        let [mut a, b] = orders(1);
        assert_ne!(a, b);
        a.sort_unstable();
        assert_eq!(a, (0..9).collect::<Vec<_>>());
    }

    #[test]
    fn every_case_comes_at_every_place_equally_often() {
        let mut shuffler = Shuffler::new(7);
        let mut at = [[0u32; 4]; 4];
        for _ in 0..4000 {
            for (place, case) in shuffler.order(4).into_iter().enumerate() {
                at[case][place] += 1;
            }
        }
        // 1000 are expected; the standard deviation is 27. A swap that leaves out its own place
        // never gives a case its place back.
        for count in at.into_iter().flatten() {
            assert!((860..1140).contains(&count), "{at:?}");
        }
    }

    #[test]
    fn each_case_once_per_round() {
        let log = Mutex::new(Vec::new());
        let case = |name: &'static str, ms: f64| {
            let log = &log;
            Case {
                name: name.to_owned(),
                run: Box::new(move |repeats| {
                    log.lock().unwrap().push((name, repeats));
                    Ok(ms)
                }),
            }
        };
        let mut cases = [case("short", 0.5), case("long", 60.0)];
        let samples = interleave(&mut cases, EFFORT, 3, &mut script(usize::MAX));
        assert_eq!(samples, vec![vec![Some(0.5); 4], vec![Some(60.0); 4]]);
        let log = log.lock().unwrap();
        // Twice or once to learn the time, then a warm-up and a batch of 20, or one run.
        assert_eq!(log[..3], [("short", 1), ("short", 1), ("long", 1)]);
        assert_eq!(log.iter().filter(|e| **e == ("short", 20)).count(), 4);
        assert_eq!(log.len(), 3 + 4 * 2 + 4);
        for round in log[3..].chunks(3) {
            assert_eq!(round.iter().filter(|e| e.0 == "long").count(), 1);
        }
    }

    #[test]
    fn failures_cost_their_own_figures_only_and_a_stop_keeps_the_rest() {
        let mut calls = 0;
        let mut cases = [
            Case {
                name: "bad".into(),
                run: Box::new(|_| {
                    calls += 1;
                    if calls > 3 {
                        return Err(BenchError::Usage("no".into()));
                    }
                    Ok(100.0)
                }),
            },
            Case::timed("good", || Ok(())),
        ];
        let mut watch = script(usize::MAX);
        let samples = interleave(&mut cases, EFFORT, 1, &mut watch);
        assert_eq!(watch.failed, ["bad"]);
        assert_eq!(samples[0].iter().flatten().count(), 2);
        assert_eq!(samples[1].iter().flatten().count(), 4);
        let mut cases = [Case::timed("good", || Ok(()))];
        let samples = interleave(&mut cases, EFFORT, 1, &mut script(3));
        assert_eq!(samples[0].iter().flatten().count(), 2);
    }
}
