//! The presets' cards: a page of the book, made of the presets, what is predicted of them and the
//! newest stored measurements.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use veilformer_circuits::bootstrap::tail::uniform_sum_tail;
use veilformer_circuits::bootstrap::{BootstrapSpec, Content, Input, Precision, Preset, simulate};
use veilformer_ckks::security::{self, SecretKind, SecurityLevel, SecurityRow};

use super::{BootstrapRow, Details, PRESETS};
use crate::error::Result;
use crate::results::{Header, Results};
use crate::row::digits;

/// Where the page is in the repository.
#[must_use]
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../book/src/concepts/bootstrap-cards.md")
}

/// Simulations whose median is a prediction.
const SIMULATIONS: u64 = 5;

/// Names in reports and what they are in simulations.
const INPUTS: [(&str, Input); 4] = [
    ("random", Input::Random),
    ("constant", Input::Constant),
    ("signs", Input::Signs),
    ("replicated", Input::Replicated(128)),
];

/// The page, from results of one file per machine.
///
/// # Errors
/// What the libraries say.
pub fn page(results: &[Results]) -> Result<String> {
    let mut text = "\
# Cards of the bootstrap presets

Made by `cargo run --release -p xtask -- bench cards` from the generated
[presets](../../../crates/circuits/src/bootstrap/presets.json) and the newest
[results](../../../benches/results/README.md) of `bench bootstrap --save` on every machine;
[what the figures mean](bootstraps.md). Bits are `-log2` of the mean and of the largest absolute
error over all real numbers in the slots. Predicted is the median of simulations of the noise model
(and, in brackets, what a preset promises for magnitudes of 1).
"
    .to_owned();
    for preset in Preset::all()? {
        card(&mut text, preset, results)?;
    }
    Ok(text)
}

fn card(text: &mut String, preset: &Preset, results: &[Results]) -> Result<()> {
    let p = &preset.predicted;
    let _ = write!(
        text,
        "
## {}

N=2^{}, {} levels at 2^{} after a bootstrap, log QP {:.0}, {} digits, {} keys of {:.2} GiB in all
(half of it where they are kept as seeds).

",
        preset.name,
        preset.params.log_n,
        p.levels,
        preset.params.scale_bits,
        p.log_qp,
        p.digits,
        p.keys,
        gib(p.key_bytes as f64),
    );
    let measured = full(preset, results);
    precision(text, preset, &measured)?;
    failure(text, preset, &measured);
    times(text, preset, results);
    let _ = write!(
        text,
        "\n| key | secret | log QP | bound at 128 bits | bits |\n|---|---|---|---|---|\n"
    );
    for row in &p.security.rows {
        text.push_str(&security_row(row));
    }
    Ok(())
}

fn gib(bytes: f64) -> f64 {
    bytes / 2f64.powi(30)
}

type Found<'a> = (&'a Header, &'a BootstrapRow);

/// Rows of bootstraps of this preset, each with its content and whether keys are seeded.
fn rows<'a>(
    preset: &'a Preset,
    results: &'a [Results],
) -> impl Iterator<Item = (Found<'a>, Content, bool)> {
    let all = results
        .iter()
        .flat_map(|r| r.bootstraps.iter().map(move |row| (&r.header, row)));
    all.filter_map(move |found| {
        let ours = PRESETS.iter().find(|p| p.name == found.1.op)?;
        let setting = ours.setting().filter(|s| s.preset == preset.name)?;
        Some((found, setting.content, setting.seeded.is_some()))
    })
}

/// Measurements of full slots on one thread.
fn full<'a>(preset: &'a Preset, results: &'a [Results]) -> Vec<Found<'a>> {
    let full = rows(preset, results).filter(|((_, row), content, seeded)| {
        *content == Content::Complex && !seeded && row.threads == 1
    });
    full.map(|r| r.0).collect()
}

/// The median of some simulations.
fn simulated(spec: &BootstrapSpec, input: Input) -> Result<Precision> {
    let runs = (0..SIMULATIONS)
        .map(|seed| Ok(simulate(spec, input, true, seed)?))
        .collect::<Result<Vec<_>>>()?;
    let median = |of: fn(&Precision) -> f64| {
        let mut bits: Vec<f64> = runs.iter().map(of).collect();
        bits.sort_by(f64::total_cmp);
        bits.get(bits.len() / 2).copied().unwrap_or(0.0)
    };
    Ok(Precision {
        mean_bits: median(|p| p.mean_bits),
        worst_bits: median(|p| p.worst_bits),
    })
}

fn precision(text: &mut String, preset: &Preset, measured: &[Found<'_>]) -> Result<()> {
    text.push_str(
        "| input | mean: predicted | measured | worst slot: predicted | measured |\n|---|---|---|---|---|\n",
    );
    for (name, input) in INPUTS {
        let predicted = simulated(&preset.bootstrap, input)?;
        let edge = matches!(input, Input::Constant | Input::Signs);
        let promised = |bits: f64| {
            if edge {
                format!(" ({bits:.1})")
            } else {
                String::new()
            }
        };
        let of = |bits: fn(&super::row::Bits) -> f64| {
            let bits = measured
                .iter()
                .filter_map(|(_, row)| row.params.precision.get(name).map(bits));
            list(bits.map(|b| format!("{b:.1}")))
        };
        let _ = writeln!(
            text,
            "| {name} | {:.1}{} | {} | {:.1}{} | {} |",
            predicted.mean_bits,
            promised(preset.predicted.mean_bits),
            of(|b| b.mean),
            predicted.worst_bits,
            promised(preset.predicted.worst_bits),
            of(|b| b.worst),
        );
    }
    Ok(())
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        return "-".to_owned();
    }
    items.join("; ")
}

/// Computed, and sampled where that is possible: at the multiples of q0 that do occur.
fn failure(text: &mut String, preset: &Preset, measured: &[Found<'_>]) {
    let spec = &preset.bootstrap;
    let _ = write!(
        text,
        "\nProbability that some coefficient leaves the range (|I| > {}) in one bootstrap: at most 2^{:.1}.",
        spec.covered, preset.predicted.failure_log2
    );
    for (_, row) in measured {
        if let Some(details) = &row.params.details {
            text.push_str(&sampled(details, spec.ephemeral_weight));
        }
    }
    text.push('\n');
}

/// Every tail that was seen: counted and expected.
fn sampled(details: &Details, weight: u32) -> String {
    let counts = &details.multiples;
    let n: u64 = counts.iter().sum();
    let tails = (1..counts.len()).rev().take(5).map(|k| {
        let seen: u64 = counts.iter().skip(k).sum();
        let expected = n as f64 * uniform_sum_tail(weight, k as f64 - 0.5);
        format!("|I| >= {k}: {seen} ({})", digits(expected))
    });
    let tails: Vec<String> = tails.collect();
    if tails.is_empty() {
        return String::new();
    }
    format!(
        " Sampled, of {n} coefficients (in brackets what a sum of {weight} uniforms makes expect): {}.",
        tails.join(", ")
    )
}

fn times(text: &mut String, preset: &Preset, results: &[Results]) {
    let mut found: Vec<_> = rows(preset, results).collect();
    found.sort_by_key(|((_, row), _, _)| {
        let place = PRESETS.iter().position(|p| p.name == row.op);
        (place, row.threads)
    });
    if found.is_empty() {
        text.push_str("\nNothing is measured yet.\n");
        return;
    }
    text.push_str(
        "
| slots | threads | s | ms per level and bit | keys, GiB | resident, GiB | making keys, s | machine |
|---|---|---|---|---|---|---|---|
",
    );
    for ((header, row), _, seeded) in found {
        let p = &row.params;
        let bytes = |bytes: Option<f64>| bytes.map_or("-".to_owned(), |b| format!("{:.1}", gib(b)));
        let _ = writeln!(
            text,
            "| {}{}{} | {} | {} | {} | {} | {} | {:.1} | {}, {}, {}{} |",
            p.slots,
            if p.complex { " complex" } else { " real" },
            if seeded { ", keys as seeds" } else { "" },
            row.threads,
            digits(row.ms / 1e3),
            digits(1e3 * row.seconds_per_level_bit),
            bytes(p.key_bytes),
            bytes(p.resident_bytes),
            p.keygen_s,
            header.machine.cpu,
            header.date,
            header.commit,
            if header.dirty { ", with changes" } else { "" },
        );
    }
}

fn security_row(row: &SecurityRow) -> String {
    let secret = match row.secret {
        SecretKind::DenseTernary => "dense".to_owned(),
        SecretKind::SparseTernary { hamming_weight } => format!("weight {hamming_weight}"),
    };
    let bound = security::bound(row.log_n, row.secret, SecurityLevel::Bits128);
    format!(
        "| {} | {secret} | {:.0} | {} | {} |\n",
        row.key,
        row.log_qp,
        bound.map_or("-".to_owned(), |b| format!("{b:.0}")),
        row.bits
    )
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::sample;
    use super::*;
    use crate::machine::tests::round;
    use crate::results;

    #[test]
    fn the_page_of_the_book_is_up_to_date() {
        let newest = Results::newest_bootstraps(results::folder()).unwrap();
        let page = page(&newest).unwrap();
        let book = std::fs::read_to_string(path()).unwrap();
        assert!(
            book == page,
            "run `cargo run --release -p xtask -- bench cards`"
        );
    }

    #[test]
    fn cards_show_what_was_measured() {
        let mut row = sample();
        row.op = "bootstrap_10_levels".into();
        row.params.details = Some(Details {
            multiples: vec![600, 390, 10],
            ..Details::default()
        });
        let mut seeded = row.clone();
        seeded.op = "bootstrap_10_levels_seeded".into();
        seeded.threads = 2;
        let results = Results {
            header: Header {
                date: "2000-01-01".into(),
                time: 0,
                commit: "0123456789".into(),
                dirty: false,
                machine: round(),
            },
            rows: Vec::new(),
            // The table is in the order of the presets.
            bootstraps: vec![seeded, row],
        };
        let page = page(&[results]).unwrap();
        let (ten, others) = page.split_once("## 11-levels").unwrap();
        let (_, fourteen) = others.split_once("## 14-levels").unwrap();
        for part in [
            "| 21.8 | 27.0 |",
            "of 1000 coefficients (in brackets what a sum of 32 uniforms makes expect): |I| >= 2: 10 (360.",
            "| 32768 real | 1 | 12.97 | 72.08 | - | 15.0 | 30.5 | Round (R) 1, 2000-01-01, 0123456789 |\n\
             | 32768 real, keys as seeds | 2 |",
            "| to the ephemeral secret | weight 32 | 150 | 349 | 128 |",
            "| rotation 8192 | dense | 1670 | 1747 | 128 |",
        ] {
            assert!(ten.contains(part), "{part}\n{ten}");
        }
        assert!(fourteen.contains("Nothing is measured yet."));
        assert!(fourteen.contains("| random | 21.8 | - |"), "{fourteen}");
    }
}
