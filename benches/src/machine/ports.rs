//! What the ports of one core do: the loops of the instruction sets, timed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use veilformer_ring::Isa;

use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, ifma};

/// An operation that floors count. What an operation is for an instruction set is said at its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A butterfly of a number-theoretic transform, on lazy residues.
    Butterfly,
    /// A canonical product of residues.
    Multiply,
    /// A product added to an unreduced sum.
    MultiplyAccumulate,
    /// A canonical residue of an unreduced sum.
    Reduce,
    /// A canonical sum of residues.
    Add,
    /// A butterfly of a complex transform.
    ComplexButterfly,
    /// 64 random bits: an eighth of a block of BLAKE3's extendable output.
    RandomWord,
    /// A word of a key's uniform half, where kernels make it: half a block of AES-128.
    UniformWord,
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Butterfly,
        Self::Multiply,
        Self::MultiplyAccumulate,
        Self::Reduce,
        Self::Add,
        Self::ComplexButterfly,
        Self::RandomWord,
        Self::UniformWord,
    ];
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Butterfly => "butterflies",
            Self::Multiply => "products",
            Self::MultiplyAccumulate => "multiply-accumulates",
            Self::Reduce => "reductions",
            Self::Add => "sums",
            Self::ComplexButterfly => "complex butterflies",
            Self::RandomWord => "random words",
            Self::UniformWord => "uniform words",
        })
    }
}

/// Iterations of a loop in one run.
const ITERATIONS: usize = 20_000;

/// Nanoseconds per operation on one thread.
pub type Costs = BTreeMap<Unit, f64>;

/// An instruction set of which it is known that this processor has it: the only way to call its
/// loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set(Isa);

/// Calls one function of the set's module.
macro_rules! dispatch {
    ($set:expr, $function:ident($($argument:expr),*)) => {
        match $set.0 {
            // SAFETY: a `Set` with this `Isa` exists only if the processor has the features:
            // `Isa::available` looked, and asks for AVX2 with FMA here and for AVX-512 F, DQ, VL
            // and IFMA and for VAES below.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::$function($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Ifma => unsafe { ifma::$function($($argument),*) },
            _ => portable::$function($($argument),*),
        }
    };
}

impl Set {
    /// What this processor can run, slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        Isa::available().into_iter().map(Self).collect()
    }

    /// The set of an instruction set, if this processor has it.
    #[must_use]
    pub fn of(isa: Isa) -> Option<Self> {
        Self::available().into_iter().find(|set| set.0 == isa)
    }

    /// The instruction set.
    #[must_use]
    pub fn isa(self) -> Isa {
        self.0
    }

    /// What its kernels do: only those of AVX-512 make uniform words.
    pub fn units(self) -> impl Iterator<Item = Unit> {
        let made = self.0 == Isa::Avx512Ifma;
        Unit::ALL
            .into_iter()
            .filter(move |&u| made || u != Unit::UniformWord)
    }

    /// Runs the loop of a unit that is one of the set's.
    fn run(self, unit: Unit, iterations: usize, seed: u64) -> u64 {
        match unit {
            Unit::Butterfly => dispatch!(self, butterfly(iterations, seed)),
            Unit::Multiply => dispatch!(self, multiply(iterations, seed)),
            Unit::MultiplyAccumulate => dispatch!(self, multiply_accumulate(iterations, seed)),
            Unit::Reduce => dispatch!(self, reduce(iterations, seed)),
            Unit::Add => dispatch!(self, add(iterations, seed)),
            Unit::ComplexButterfly => dispatch!(self, complex_butterfly(iterations, seed)),
            Unit::RandomWord => dispatch!(self, mix(iterations, seed)),
            // SAFETY: as in `dispatch!`.
            #[cfg(target_arch = "x86_64")]
            Unit::UniformWord if self.0 == Isa::Avx512Ifma => unsafe {
                ifma::encrypt(iterations, seed)
            },
            Unit::UniformWord => 0,
        }
    }

    /// Operations of one iteration of a unit's loop.
    fn per_iteration(self, unit: Unit) -> f64 {
        let (chains, lanes) = match self.0 {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if !matches!(unit, Unit::MultiplyAccumulate | Unit::RandomWord) => {
                (avx2::MANY, avx2::LANES)
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => (avx2::CHAINS, avx2::LANES),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Ifma if unit == Unit::Butterfly => (ifma::BUTTERFLIES, ifma::LANES),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Ifma if matches!(unit, Unit::Multiply | Unit::Reduce) => {
                (ifma::MANY, ifma::LANES)
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Ifma => (ifma::CHAINS, ifma::LANES),
            _ => (portable::CHAINS, portable::LANES),
        };
        let plain = (chains * lanes) as f64;
        match unit {
            Unit::ComplexButterfly => plain / 2.0,
            // Vectors of 32-bit words, one lane per block; half as many columns as chains where
            // registers are vectors. A block of 64 bytes takes 7 rounds of 8 steps.
            Unit::RandomWord => {
                let steps = match self.0 {
                    Isa::Scalar => plain,
                    _ => (chains / 2 * 2 * lanes) as f64,
                };
                steps * 8.0 / 56.0
            }
            _ => plain,
        }
    }

    /// How long one run of a unit's loop takes, about half a millisecond, for a unit that is one of the set's.
    #[must_use]
    pub fn time(self, unit: Unit, seed: u64) -> Duration {
        let seed = std::hint::black_box(0x0123_4567_89ab_cdef ^ seed);
        let start = Instant::now();
        std::hint::black_box(self.run(unit, ITERATIONS, seed));
        start.elapsed()
    }

    /// Operations in such a run.
    #[must_use]
    pub fn operations(self, unit: Unit) -> f64 {
        ITERATIONS as f64 * self.per_iteration(unit)
    }

    /// Nanoseconds of one operation: the fastest of twenty runs, since every disturbance makes it slower.
    fn cost(self, unit: Unit) -> f64 {
        let best = (0..20).map(|k| self.time(unit, k)).min();
        best.unwrap_or_default().as_nanos() as f64 / self.operations(unit)
    }

    /// Times all loops.
    #[must_use]
    pub fn costs(self) -> Costs {
        self.units().map(|u| (u, self.cost(u))).collect()
    }

    /// Reads all words but those behind the last whole vector; some function of them.
    pub(super) fn read(self, words: &[u64]) -> u64 {
        dispatch!(self, read(words))
    }

    /// Brings words into the first cache while other things happen, if the instruction set can.
    pub(super) fn fetch(self, words: &[u64]) {
        dispatch!(self, fetch(words));
    }

    /// Writes all words but those behind the last whole vector; past the caches if `stream` and
    /// the instruction set can.
    pub(super) fn write(self, words: &mut [u64], value: u64, stream: bool) {
        dispatch!(self, write(words, value, stream));
    }

    /// Changes every word where it is, but those behind the last whole vector.
    pub(super) fn update(self, words: &mut [u64]) {
        dispatch!(self, update(words));
    }

    /// Copies, as [`Set::write`] writes.
    pub(super) fn copy(self, to: &mut [u64], from: &[u64], stream: bool) {
        dispatch!(self, copy(to, from, stream));
    }

    /// Writes what both slices of `from` make to `to`, which is not longer, as [`Set::write`] writes.
    pub(super) fn join(self, to: &mut [u64], from: (&[u64], &[u64]), stream: bool) {
        dispatch!(self, join(to, from, stream));
    }

    /// Changes every word of `to` by that of `from`, but those behind the last whole vector.
    pub(super) fn merge(self, to: &mut [u64], from: &[u64]) {
        dispatch!(self, merge(to, from));
    }
}

/// GHz: a chain of additions, each waiting for the one before, takes a cycle each. `None` where
/// nobody wrote the chain.
pub(super) fn clock() -> Option<f64> {
    const STEPS: usize = 1_000_000;
    let best = (0..10)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(additions(STEPS / 10)?);
            Some(start.elapsed().as_nanos() as f64)
        })
        .try_fold(f64::INFINITY, |best, ns| Some(best.min(ns?)))?;
    Some(STEPS as f64 / best)
}

/// Ten additions per iteration.
#[cfg(target_arch = "x86_64")]
fn additions(iterations: usize) -> Option<u64> {
    let (mut x, y) = (1u64, std::hint::black_box(3u64));
    for _ in 0..iterations {
        // SAFETY: additions of registers, which touch neither memory nor the stack.
        unsafe {
            std::arch::asm!(
                "add {x}, {y}", "add {x}, {y}", "add {x}, {y}", "add {x}, {y}", "add {x}, {y}",
                "add {x}, {y}", "add {x}, {y}", "add {x}, {y}", "add {x}, {y}", "add {x}, {y}",
                x = inout(reg) x,
                y = in(reg) y,
                options(nomem, nostack)
            );
        }
    }
    Some(x)
}

#[cfg(not(target_arch = "x86_64"))]
fn additions(_: usize) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_cannot_be_shrunk() {
        // Twice the iterations take about twice the time, whatever the set and the unit.
        for set in Set::available() {
            for unit in set.units() {
                let time = |iterations| {
                    (0..15)
                        .map(|k| {
                            let start = Instant::now();
                            std::hint::black_box(set.run(
                                unit,
                                iterations,
                                std::hint::black_box(k),
                            ));
                            start.elapsed().as_nanos() as f64
                        })
                        .fold(f64::INFINITY, f64::min)
                };
                let ratio = time(20_000) / time(5_000);
                assert!(ratio > 2.5, "{:?} {unit}: {ratio}", set.isa());
            }
        }
    }

    #[test]
    fn costs_are_plausible() {
        for set in Set::available() {
            for (unit, ns) in set.costs() {
                // No port does more than four vectors of eight per cycle at six GHz.
                assert!(ns > 1.0 / (4.0 * 8.0 * 6.0) && ns < 1000.0, "{unit}: {ns}");
            }
        }
        if let Some(ghz) = clock() {
            assert!(ghz > 0.2 && ghz < 8.0, "{ghz}");
        }
    }
}
