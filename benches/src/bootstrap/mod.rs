//! Bootstraps, ours and those of other libraries, each in a process of its own.
//!
//! A bootstrap takes seconds and its keys take gigabytes, so that two do not fit most machines: the
//! presets run one after another, not interleaved. A process makes keys, bootstraps every kind of
//! input a number of times and prints a report (benches/peers/README.md). All of them measure
//! precision alike: the error of every real number that goes in and comes out, as `-log2` of the
//! largest and of the mean absolute one. What presets are compared by is the time per useful level
//! and bit of the worst slot, of the worst kind of input.

pub mod cards;
mod gates;
mod inputs;
mod ours;
mod process;
mod row;
mod table;

use veilformer_circuits::bootstrap::Content;
use veilformer_ring::Isa;

use crate::error::Result;
use crate::peers::{Peer, Place};
use crate::session::Session;
pub use ours::{Details, Effort, Setting, run};
pub use row::{BootstrapRow, Parameters, PeerRow, Report};
pub use table::table;

/// A bootstrap that is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    /// The name in commands and results.
    pub name: &'static str,
    /// What it is.
    pub text: &'static str,
    /// Whose it is.
    whose: Whose,
    /// Memory that it needs, GiB.
    needs: f64,
}

/// Whose a preset is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Whose {
    Ours(Setting),
    /// A library's, with what its driver calls it.
    Theirs(Peer, &'static str),
}

impl Preset {
    /// The library, unless it is ours.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        match self.whose {
            Whose::Ours(_) => None,
            Whose::Theirs(peer, _) => Some(peer),
        }
    }

    /// What is measured, if it is ours.
    #[must_use]
    pub fn setting(&self) -> Option<&Setting> {
        match &self.whose {
            Whose::Ours(setting) => Some(setting),
            Whose::Theirs(..) => None,
        }
    }

    const fn ours(name: &'static str, text: &'static str, setting: Setting, needs: f64) -> Self {
        Self {
            name,
            text,
            whose: Whose::Ours(setting),
            needs,
        }
    }
}

const TEN: Setting = Setting {
    preset: "10-levels",
    content: Content::Complex,
    seeded: None,
};
const ELEVEN: Setting = Setting {
    preset: "11-levels",
    ..TEN
};
const FOURTEEN: Setting = Setting {
    preset: "14-levels",
    ..TEN
};
/// Keys that stay prepared where they are regenerated: those of one step.
const KEPT: usize = 8;

/// All presets, in the order in which they run.
pub const PRESETS: [Preset; 12] = [
    Preset::ours(
        "bootstrap_10_levels",
        "ours, complex full slots: 10 levels at 2^40",
        TEN,
        8.0,
    ),
    Preset::ours(
        "bootstrap_11_levels",
        "ours, complex full slots: 11 levels at 2^40",
        ELEVEN,
        8.0,
    ),
    Preset::ours(
        "bootstrap_14_levels",
        "ours, complex full slots: 14 levels at 2^40",
        FOURTEEN,
        12.0,
    ),
    Preset::ours(
        "bootstrap_modraise_first",
        "ours, complex full slots, SlotToCoeff last, EvalMod at 2^60: 14 levels at 2^40",
        Setting {
            preset: "modraise-first",
            ..TEN
        },
        12.0,
    ),
    Preset::ours(
        "bootstrap_512_slots",
        "ours, 512 real numbers that repeat: 10 levels at 2^40",
        Setting {
            content: Content::Periodic(512),
            ..TEN
        },
        8.0,
    ),
    Preset::ours(
        "bootstrap_1_slot",
        "ours, one real number in all slots: 10 levels at 2^40",
        Setting {
            content: Content::Periodic(1),
            ..TEN
        },
        8.0,
    ),
    Preset::ours(
        "bootstrap_10_levels_seeded",
        "bootstrap_10_levels with keys that are regenerated from their seeds",
        Setting {
            seeded: Some(KEPT),
            ..TEN
        },
        8.0,
    ),
    Preset::ours(
        "bootstrap_14_levels_seeded",
        "bootstrap_14_levels with keys that are regenerated from their seeds",
        Setting {
            seeded: Some(KEPT),
            ..FOURTEEN
        },
        12.0,
    ),
    Preset {
        name: "poulpy_15_levels",
        text: "poulpy's fastest preset, complex full slots: 15 levels at 2^35",
        whose: Whose::Theirs(Peer::Poulpy, "levels_15"),
        needs: 18.0,
    },
    Preset {
        name: "poulpy_17_levels",
        text: "poulpy's most precise preset, complex full slots: 17 levels at 2^35",
        whose: Whose::Theirs(Peer::Poulpy, "levels_17"),
        needs: 15.0,
    },
    Preset {
        name: "lattigo_9_levels",
        text: "Lattigo's default of full slots, N16QP1546H192H32: 9 levels at 2^40",
        whose: Whose::Theirs(Peer::Lattigo, "levels_9"),
        needs: 18.0,
    },
    Preset {
        name: "openfhe_7_levels",
        text: "OpenFHE's wheel, full slots: 7 levels at 2^55",
        whose: Whose::Theirs(Peer::Openfhe, "levels_7"),
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
    /// Where other libraries are installed; `None` if none are measured.
    pub place: Option<Place>,
    /// The instruction set of ours.
    pub isa: Isa,
    /// Whether batches of ours are measured too.
    pub batch: bool,
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
    compare(&mut rows);
    let gates = gates::gates(&rows);
    session.keep_bootstraps(rows)?;
    let lines: Vec<String> = gates.iter().map(ToString::to_string).collect();
    if lines.is_empty() {
        return Ok(());
    }
    session.say(&lines.join("\n"))
}

/// Puts other libraries' rows beside each of ours.
fn compare(rows: &mut [BootstrapRow]) {
    let library = |op: &str| PRESETS.iter().find(|p| p.name == op)?.peer();
    let theirs: Vec<_> = rows
        .iter()
        .filter_map(|row| Some((library(&row.op)?, row.clone())))
        .collect();
    for row in rows.iter_mut().filter(|row| library(&row.op).is_none()) {
        row.beside(theirs.iter().map(|(peer, row)| (peer.name(), row)));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use veilformer_circuits::bootstrap;

    pub(crate) use super::row::tests::sample;

    #[test]
    fn presets_have_names_of_their_own() {
        for (i, a) in PRESETS.iter().enumerate() {
            assert!(!PRESETS[..i].iter().any(|b| a.name == b.name), "{a:?}");
            assert!(a.peer().is_none_or(|p| !p.transforms_only()), "{a:?}");
            if let Some(setting) = a.setting() {
                let preset = bootstrap::Preset::named(setting.preset).unwrap();
                preset
                    .plan(&preset.validate().unwrap(), setting.content)
                    .unwrap();
            }
        }
    }
}
