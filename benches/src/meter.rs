//! What the ports do in the rounds in which operations are measured.
//!
//! Others use a shared machine more in one minute than in the next. A floor from loops that ran before is
//! then that of another machine; loops that take part in the rounds, like the operations, have the same
//! minutes as these.

use crate::error::Result;
use crate::interleave::{self, Case, Effort, Samples, Watch, median_ms};
use crate::machine::{Machine, Set, Unit};
use crate::session::SEED;
use crate::stats::Summary;
use crate::threads::{pool, within};

/// Most runs of a loop in one round.
const MOST: usize = 9;

/// Measures cases together with the loops of an instruction set, on the core of a pool of one thread: the machine
/// with what was seen of its ports, and the samples of each case.
///
/// # Errors
/// The system's.
pub fn interleave(
    (before, set): (&Machine, Set),
    mut cases: Vec<Case<'_>>,
    effort: Effort,
    watch: &mut dyn Watch,
) -> Result<(Machine, Vec<Samples>)> {
    let count = cases.len();
    if count == 0 {
        return Ok((before.clone(), Vec::new()));
    }
    let pool = pool(1)?;
    cases.extend(ports(set).into_iter().map(|case| within(&pool, case)));
    let mut samples = interleave::interleave(&mut cases, effort, SEED, watch);
    let seen = samples.split_off(count);
    Ok((machine(before, set, &seen), samples))
}

/// A case for each loop.
fn ports(set: Set) -> Vec<Case<'static>> {
    let case = |unit: Unit| Case {
        name: format!("ports: {unit}"),
        run: Box::new(move |repeats| {
            let mut seed = 0;
            median_ms(repeats.min(MOST), || {
                seed += 1;
                Ok(set.time(unit, seed))
            })
        }),
    };
    set.units().map(case).collect()
}

/// The machine with medians of the samples of [`ports`], where there are any.
fn machine(before: &Machine, set: Set, samples: &[Samples]) -> Machine {
    let mut machine = before.clone();
    for (unit, samples) in set.units().zip(samples) {
        let seen: Vec<f64> = samples.iter().flatten().copied().collect();
        if let Some(ms) = Summary::of(&seen).map(|s| s.median) {
            machine.costs.insert(unit, ms * 1e6 / set.operations(unit));
        }
    }
    machine
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interleave::Terminal;
    use crate::machine::tests::round;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    #[test]
    fn medians_replace_what_was_seen_before() {
        for set in Set::available() {
            let mut samples = vec![vec![None; 4]; set.units().count()];
            samples[0] = vec![Some(2e-6), None, Some(4e-6), Some(9e-6)];
            let machine = machine(&round(), set, &samples);
            let first = set.units().next().unwrap();
            let expected = 4.0 / set.operations(first);
            assert!((machine.costs[&first] / expected - 1.0).abs() < 1e-9);
            assert!(set.units().skip(1).all(|u| machine.costs[&u] == 1.0));
            assert_eq!(machine.bandwidth, round().bandwidth);
        }
    }

    #[test]
    fn loops_take_part_and_are_not_among_the_samples() {
        let effort = Effort {
            rounds: 2,
            batch: Duration::from_millis(1),
        };
        for set in Set::available() {
            let case = Case {
                name: "seven".into(),
                run: Box::new(|_| Ok(7.0)),
            };
            let stop = AtomicBool::new(false);
            let mut watch = Terminal::new(&stop);
            let before = (&round(), set);
            let (machine, samples) = interleave(before, vec![case], effort, &mut watch).unwrap();
            assert_eq!(samples, [[Some(7.0); 2]]);
            // Half a millisecond a run, or several on slow machines and in debug builds.
            for unit in set.units() {
                let ms = machine.costs[&unit] * set.operations(unit) * 1e-6;
                assert!(ms > 0.01 && ms < 1000.0, "{unit}: {ms}");
            }
            let (machine, samples) = interleave(before, Vec::new(), effort, &mut watch).unwrap();
            assert_eq!((machine, samples), (round(), Vec::new()));
        }
    }
}
