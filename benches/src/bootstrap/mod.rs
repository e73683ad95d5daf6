//! Bootstraps, of other libraries each in a process of its own.
//!
//! A bootstrap takes seconds and its keys take gigabytes, so that two do not fit most machines: the
//! presets run one after another, not interleaved. A process makes keys, bootstraps every kind of
//! input a number of times and prints a report (benches/peers/README.md). All of them measure
//! precision alike: the error of every real number that goes in and comes out, as `-log2` of the
//! largest and of the mean absolute one. What presets are compared by is the time per useful level
//! and bit of the worst slot, of the worst kind of input.

mod process;
mod row;
mod table;

use crate::error::Result;
use crate::peers::{Peer, Place};
use crate::session::Session;
pub use row::{BootstrapRow, Parameters, Report};
pub use table::table;

/// A bootstrap that is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    /// The name in commands and results.
    pub name: &'static str,
    /// What it is.
    pub text: &'static str,
    /// Whose it is.
    peer: Peer,
    /// What its driver calls it.
    argument: &'static str,
    /// Memory that it needs, GiB.
    needs: f64,
}

impl Preset {
    /// The library.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }
}

/// All presets, in the order in which they run.
pub const PRESETS: [Preset; 4] = [
    Preset {
        name: "poulpy_15_levels",
        text: "poulpy's fastest preset, complex full slots: 15 levels at 2^35",
        peer: Peer::Poulpy,
        argument: "levels_15",
        needs: 18.0,
    },
    Preset {
        name: "poulpy_17_levels",
        text: "poulpy's most precise preset, complex full slots: 17 levels at 2^35",
        peer: Peer::Poulpy,
        argument: "levels_17",
        needs: 15.0,
    },
    Preset {
        name: "lattigo_9_levels",
        text: "Lattigo's default of full slots, N16QP1546H192H32: 9 levels at 2^40",
        peer: Peer::Lattigo,
        argument: "levels_9",
        needs: 18.0,
    },
    Preset {
        name: "openfhe_7_levels",
        text: "OpenFHE's wheel, full slots: 7 levels at 2^55",
        peer: Peer::Openfhe,
        argument: "levels_7",
        needs: 13.0,
    },
];

/// How a run is made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Bootstraps of every kind of input.
    pub rounds: usize,
    /// Threads.
    pub threads: usize,
    /// Where other libraries are installed.
    pub place: Place,
}

/// Measures the presets one after another. One that cannot be had is left out, with a line on standard
/// error that says why.
///
/// # Errors
/// Standard output.
pub fn measure(presets: &[Preset], plan: &Plan, session: &mut Session<'_>) -> Result<()> {
    let mut rows = Vec::new();
    for preset in presets {
        if session.stopped() {
            break;
        }
        match process::run(preset, plan) {
            Ok(report) => rows.extend(BootstrapRow::new(preset.name, plan.threads, report)),
            Err(e) => eprintln!("{}: left out: {e}", preset.name),
        }
    }
    session.keep_bootstraps(rows)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) use super::row::tests::sample;

    #[test]
    fn presets_have_names_of_their_own() {
        for (i, a) in PRESETS.iter().enumerate() {
            assert!(!PRESETS[..i].iter().any(|b| a.name == b.name), "{a:?}");
            assert!(!a.peer.transforms_only(), "{a:?}");
        }
    }
}
