//! What the ports do in the rounds in which operations are measured.
//!
//! Others use a shared machine more in one minute than in the next. A floor from loops that ran before is
//! then that of another machine; loops that take part in the rounds, like the operations, have the same
//! minutes as these.

use crate::interleave::{Case, Samples, median_ms};
use crate::machine::{Machine, Set, Unit};
use crate::stats::Summary;

/// Most runs of a loop in one round.
const MOST: usize = 9;

/// Loops that are cases of an interleaved run.
pub struct Meter {
    set: Set,
    units: Vec<Unit>,
}

impl Meter {
    /// The loops of an instruction set, and their cases.
    #[must_use]
    pub fn new(set: Set) -> (Self, Vec<Case<'static>>) {
        let units: Vec<Unit> = set.units().collect();
        let case = |&unit: &Unit| Case {
            name: format!("ports: {unit}"),
            run: Box::new(move |repeats| {
                let mut seed = 0;
                median_ms(repeats.min(MOST), || {
                    seed += 1;
                    Ok(set.time(unit, seed))
                })
            }),
        };
        let cases = units.iter().map(case).collect();
        (Self { set, units }, cases)
    }

    /// The machine with what was seen of its ports: medians of the cases' samples, in their order.
    #[must_use]
    pub fn machine(&self, before: &Machine, samples: &[Samples]) -> Machine {
        let mut machine = before.clone();
        for (&unit, samples) in self.units.iter().zip(samples) {
            let seen: Vec<f64> = samples.iter().flatten().copied().collect();
            if let Some(ms) = Summary::of(&seen).map(|s| s.median) {
                machine
                    .costs
                    .insert(unit, ms * 1e6 / self.set.operations(unit));
            }
        }
        machine
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::round;

    #[test]
    fn medians_replace_what_was_seen_before() {
        for set in Set::available() {
            let (meter, mut cases) = Meter::new(set);
            assert_eq!(cases.len(), set.units().count());
            let samples: Vec<Samples> = (0..cases.len())
                .map(|i| match i {
                    0 => vec![Some(2e-6), None, Some(4e-6), Some(9e-6)],
                    _ => vec![None; 4],
                })
                .collect();
            let machine = meter.machine(&round(), &samples);
            let first = set.units().next().unwrap();
            let expected = 4.0 / set.operations(first);
            assert!((machine.costs[&first] / expected - 1.0).abs() < 1e-9);
            let kept = set.units().skip(1);
            assert!(kept.into_iter().all(|u| machine.costs[&u] == 1.0));
            assert_eq!(machine.bandwidth, round().bandwidth);
            for case in &mut cases {
                // Half a millisecond, or several on slow machines and in debug builds.
                let ms = (case.run)(3).unwrap();
                assert!(ms > 0.01 && ms < 1000.0, "{}: {ms}", case.name);
            }
        }
    }
}
