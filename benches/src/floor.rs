//! Floors: the least time that an operation can take on a machine, from counts.
//!
//! An operation is a sequence of phases that depend on each other. A phase computes and moves bytes
//! at the same time, so it takes at least
//!
//! `max(sum of operations / throughput, for each place: bytes / bandwidth)`,
//!
//! and the floor is the sum over the phases. Throughputs are those of loops in registers, run
//! in the same rounds as the operations ([`crate::meter`]), and bandwidths those of passes that only move, run
//! before ([`Machine`]); neither is a time of our kernels.
//! Bandwidth depends on the size of what is moved in turn, and is measured by size. Of
//! bytes only those are counted that have to move: tables of twiddle factors, whose values could be
//! computed, are not.

use serde::{Deserialize, Serialize};

use crate::machine::{Machine, Place, Unit};

/// So many operations of one kind, with the formula of the number.
#[derive(Clone, Debug, PartialEq)]
struct Work {
    unit: Unit,
    count: f64,
    formula: String,
}

/// Bytes that a phase reads and writes at one place.
#[derive(Clone, Debug, PartialEq)]
struct Traffic {
    /// Bytes of what the data belongs to: they decide the bandwidth.
    resident: f64,
    read: f64,
    write: f64,
    /// Whether what is written are other words than those read.
    apart: bool,
    formula: String,
}

/// A part of an operation that the next part has to wait for.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    name: String,
    work: Vec<Work>,
    traffic: Vec<Traffic>,
}

impl Phase {
    /// A phase without anything to do yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            work: Vec::new(),
            traffic: Vec::new(),
        }
    }

    /// Adds operations.
    #[must_use]
    pub fn work(mut self, unit: Unit, count: f64, formula: impl Into<String>) -> Self {
        self.work.push(Work {
            unit,
            count,
            formula: formula.into(),
        });
        self
    }

    /// Adds bytes read and written in data of `resident` bytes.
    #[must_use]
    pub fn bytes(
        mut self,
        resident: f64,
        (read, write): (f64, f64),
        formula: impl Into<String>,
    ) -> Self {
        self.traffic.push(Traffic {
            resident,
            read,
            write,
            apart: false,
            formula: formula.into(),
        });
        self
    }

    /// Says that the bytes added last are written to other words than those that are read.
    #[must_use]
    pub fn apart(mut self) -> Self {
        if let Some(last) = self.traffic.last_mut() {
            last.apart = true;
        }
        self
    }

    /// Nanoseconds of the operations, and of the slowest place.
    fn parts(&self, machine: &Machine, threads: usize) -> (f64, f64) {
        let compute = self
            .work
            .iter()
            .map(|w| machine.compute_ns(w.unit, w.count, threads))
            .sum();
        // What has one place shares its ways; different places work at the same time.
        let place = |place| {
            let here = self
                .traffic
                .iter()
                .filter(|t| machine.place_of(t.resident) == place);
            let ns = |t: &Traffic| {
                let bandwidth = machine.bandwidth_over(t.resident, threads);
                bandwidth.map_or(0.0, |b| match t.apart {
                    true => b.ns_apart(t.read, t.write),
                    false => b.ns(t.read, t.write),
                })
            };
            here.map(ns).sum::<f64>()
        };
        let places = [Place::L1, Place::L2, Place::L3, Place::Memory];
        (compute, places.map(place).into_iter().fold(0.0, f64::max))
    }
}

/// The phases of an operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Floor {
    phases: Vec<Phase>,
}

/// A floor on one machine, as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Computed {
    /// Milliseconds.
    pub ms: f64,
    /// Milliseconds of its operations alone.
    pub compute_ms: f64,
    /// Modular operations (products, sums of products, butterflies, ..).
    pub operations: f64,
    /// The farthest place that holds data of it.
    pub place: Place,
    /// Bytes read and written of such data.
    pub bytes: f64,
    /// The formula in words.
    pub formula: String,
}

impl Floor {
    /// A floor of these phases.
    #[must_use]
    pub fn of(phases: Vec<Phase>) -> Self {
        Self { phases }
    }

    /// A part of it: what several results share.
    #[must_use]
    pub fn shared_by(mut self, results: f64) -> Self {
        for phase in &mut self.phases {
            phase.name = format!("{} / {results}", phase.name);
            phase.work.iter_mut().for_each(|w| w.count /= results);
            for t in &mut phase.traffic {
                t.read /= results;
                t.write /= results;
            }
        }
        self
    }

    /// So many times the same.
    #[must_use]
    pub fn times(mut self, times: f64) -> Self {
        for phase in &mut self.phases {
            phase.name = format!("{times} x {}", phase.name);
            phase.work.iter_mut().for_each(|w| w.count *= times);
            for t in &mut phase.traffic {
                t.read *= times;
                t.write *= times;
            }
        }
        self
    }

    /// One after the other.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.phases.extend(next.phases);
        self
    }

    /// Milliseconds on a machine.
    #[must_use]
    pub fn ms(&self, machine: &Machine, threads: usize) -> f64 {
        let ns = |p: &Phase| {
            let (compute, bytes) = p.parts(machine, threads);
            compute.max(bytes)
        };
        self.phases.iter().map(ns).sum::<f64>() * 1e-6
    }

    /// The floor on a machine.
    #[must_use]
    pub fn on(&self, machine: &Machine, threads: usize) -> Computed {
        let compute = self.phases.iter().map(|p| p.parts(machine, threads).0);
        let work = self.phases.iter().flat_map(|p| &p.work);
        let traffic = self.phases.iter().flat_map(|p| &p.traffic);
        let place_of = |t: &&Traffic| machine.place_of(t.resident);
        let place = traffic.clone().map(|t| place_of(&t)).max();
        let place = place.unwrap_or(Place::L1);
        let there = traffic.filter(|t| place_of(t) == place);
        Computed {
            ms: self.ms(machine, threads),
            compute_ms: compute.sum::<f64>() * 1e-6,
            operations: work.map(|w| w.count).sum(),
            place,
            bytes: there.map(|t| t.read + t.write).sum(),
            formula: self.formula(machine, threads),
        }
    }

    /// The phases with their formulas and what they come to, in milliseconds.
    fn formula(&self, machine: &Machine, threads: usize) -> String {
        let phases = self.phases.iter().map(|phase| {
            let (compute, bytes) = phase.parts(machine, threads);
            let work = phase
                .work
                .iter()
                .map(|w| format!("{} {}", w.formula, w.unit));
            let traffic = phase.traffic.iter();
            let traffic =
                traffic.map(|t| format!("{} at {}", t.formula, machine.place_of(t.resident)));
            let sides = [
                (work.collect::<Vec<_>>(), compute),
                (traffic.collect::<Vec<_>>(), bytes),
            ];
            let sides = sides.into_iter().filter(|(texts, _)| !texts.is_empty());
            let sides: Vec<String> = sides
                .map(|(texts, ns)| format!("{} = {:.3}", texts.join(" + "), ns * 1e-6))
                .collect();
            format!("{}: max({})", phase.name, sides.join("; "))
        });
        phases.collect::<Vec<_>>().join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::round;

    const MIB: f64 = 1024.0 * 1024.0;

    fn two_phases() -> Floor {
        Floor::of(vec![
            // 3 ms of work against 1 ms of memory.
            Phase::new("first")
                .work(Unit::Multiply, 2e6, "2M")
                .work(Unit::Add, 1e6, "1M")
                .bytes(f64::INFINITY, (0.5e6, 0.5e6), "bytes"),
            // 1 ms of work against 2 ms of memory and 1 ms of L3.
            Phase::new("second")
                .work(Unit::Multiply, 1e6, "1M")
                .bytes(f64::INFINITY, (1e6, 0.0), "a")
                .bytes(f64::INFINITY, (0.0, 1e6), "b")
                .bytes(32.0 * MIB, (2e6, 0.0), "c"),
        ])
    }

    #[test]
    fn bandwidth_is_that_of_the_size() {
        // Between 32 MiB at 2 bytes per ns and 64 MiB at 1: half way in logarithms.
        let phase = Phase::new("p").bytes(2f64.sqrt() * 32.0 * MIB, (3e6, 0.0), "x");
        let floor = Floor::of(vec![phase]).on(&round(), 1);
        assert!((floor.ms - 2.0).abs() < 1e-9, "{}", floor.ms);
        assert_eq!((floor.place, floor.bytes), (Place::Memory, 3e6));
    }

    #[test]
    fn phases_add_and_their_sides_do_not() {
        let floor = two_phases();
        assert!((floor.ms(&round(), 1) - 5.0).abs() < 1e-9);
        // Two threads: half the work, the same memory.
        assert!((floor.ms(&round(), 2) - 3.5).abs() < 1e-9);
        let computed = floor.on(&round(), 1);
        assert_eq!((computed.operations, computed.bytes), (4e6, 3e6));
        assert_eq!(computed.place, Place::Memory);
        assert!((computed.compute_ms - 4.0).abs() < 1e-9);
        assert_eq!(
            computed.formula,
            "first: max(2M products + 1M sums = 3.000; bytes at memory = 1.000) | \
             second: max(1M products = 1.000; a at memory + b at memory + c at L3 = 2.000)"
        );
    }

    #[test]
    fn floors_are_multiplied_shared_and_joined() {
        let floor = two_phases();
        let m = round();
        assert!((floor.clone().times(3.0).ms(&m, 1) - 15.0).abs() < 1e-9);
        assert!((floor.clone().shared_by(5.0).ms(&m, 1) - 1.0).abs() < 1e-9);
        assert!((floor.clone().then(floor).ms(&m, 1) - 10.0).abs() < 1e-9);
    }
}
