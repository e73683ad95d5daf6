//! A line of results.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::floor::Computed;
use crate::interleave::Samples;
use crate::machine::Place;
use crate::scheme::Sizes;
use crate::stats::{Summary, paired_ratio};

/// One operation as measured: what `--json` prints a line of, and what is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The group: `ops`, `ntt`, `kernels`, `threads`, `linear`.
    pub what: String,
    /// The operation.
    pub op: String,
    /// Its parameters.
    pub params: Sizes,
    /// Threads.
    pub threads: usize,
    /// Median of the rounds, in milliseconds.
    pub ms: f64,
    /// Lower end of the interval of the median (95% where there are six rounds or more).
    pub ms_low: f64,
    /// Upper end.
    pub ms_high: f64,
    /// Number of rounds.
    pub n: usize,
    /// The least time that the machine allowed in these rounds.
    pub floor_ms: f64,
    /// `ms / floor_ms`.
    pub over_floor: f64,
    /// Modular operations that the floor counts.
    pub operations: f64,
    /// The farthest place that the floor's bytes come from or go to.
    pub place: Place,
    /// Bytes read and written there.
    pub bytes: f64,
    /// The floor's formula and what its sides come to, in milliseconds.
    pub floor: String,
    /// Per other library the median in milliseconds.
    pub peers: BTreeMap<String, f64>,
    /// Per other library its time over ours, from the rounds in which both ran.
    pub ratios: BTreeMap<String, Summary>,
    /// Of a circuit: its operations, and what they take by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<Counted>,
}

/// The operations of a circuit, counted, and what they take by themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Milliseconds: operations times what each takes.
    pub ms: f64,
    /// Measured time over it.
    pub over: f64,
    /// Rotations and conjugations.
    pub rotations: usize,
    /// Inner products with a key: rotations and relinearizations.
    pub key_switches: usize,
    /// Ciphertexts cut into digits once for several rotations.
    pub decompositions: usize,
    /// Products with plaintexts that store all words.
    pub products_full: usize,
    /// Products with plaintexts of a shorter period.
    pub products_periodic: usize,
    /// Products with constants.
    pub products_scalar: usize,
    /// Products of two ciphertexts.
    pub products_encrypted: usize,
    /// Words per weight and prime, where weights are in the clear.
    pub words_per_weight: Option<f64>,
    /// Bytes that all plaintexts take at least.
    pub plain_bytes: f64,
    /// Bytes of all keys.
    pub key_bytes: f64,
    /// The share of the outputs that was measured; the row's time is that of all.
    pub share: f64,
}

impl Counted {
    /// A table of the rows that have counts; empty if none has.
    #[must_use]
    pub fn table<'a>(rows: impl IntoIterator<Item = &'a Row>) -> String {
        let mut text = String::new();
        for row in rows {
            let Some(c) = &row.counted else { continue };
            if text.is_empty() {
                text += "\
| method | limbs | ms | counted, ms | ratio | rotations | key switches | products: full, periodic, scalar, \
encrypted | words per weight per limb | plaintexts, MiB | keys, MiB | outputs measured |
|---|---|---|---|---|---|---|---|---|---|---|---|
";
            }
            let words = c
                .words_per_weight
                .map_or("-".to_owned(), |w| format!("{w:.2}"));
            let mib = |bytes: f64| bytes / 2f64.powi(20);
            text += &format!(
                "| {} | {} | {} | {} | {:.2} | {} | {} | {}, {}, {}, {} | {words} | {:.0} | {:.0} | {:.1}% |\n",
                row.op,
                row.params.limbs,
                digits(row.ms),
                digits(c.ms),
                c.over,
                c.rotations,
                c.key_switches,
                c.products_full,
                c.products_periodic,
                c.products_scalar,
                c.products_encrypted,
                mib(c.plain_bytes),
                mib(c.key_bytes),
                100.0 * c.share
            );
        }
        text
    }
}

impl Row {
    /// The row of an operation, if it was measured at all.
    #[must_use]
    pub fn new(
        (what, op, threads): (&str, &str, usize),
        params: &Sizes,
        floor: Computed,
        samples: &Samples,
        peers: &BTreeMap<String, Samples>,
    ) -> Option<Self> {
        let of =
            |samples: &Samples| Summary::of(&samples.iter().flatten().copied().collect::<Vec<_>>());
        let ours = of(samples)?;
        let medians = peers
            .iter()
            .filter_map(|(name, s)| Some((name.clone(), of(s)?.median)));
        let ratios = peers
            .iter()
            .filter_map(|(name, s)| Some((name.clone(), paired_ratio(samples, s)?)));
        Some(Self {
            what: what.to_owned(),
            op: op.to_owned(),
            params: params.clone(),
            threads,
            ms: ours.median,
            ms_low: ours.low,
            ms_high: ours.high,
            n: ours.n,
            floor_ms: floor.ms,
            over_floor: ours.median / floor.ms,
            operations: floor.operations,
            place: floor.place,
            bytes: floor.bytes,
            floor: floor.formula,
            peers: medians.collect(),
            ratios: ratios.collect(),
            counted: None,
        })
    }

    /// The row for people; a mark where it is more than `most` times its floor.
    #[must_use]
    pub fn text(&self, most: f64) -> String {
        let mark = if self.over_floor > most { " <-" } else { "" };
        let mut line = format!(
            "{:<30} {:>10} ms [{}, {}]  floor {:>9}  x{:.2}{mark}",
            self.op,
            digits(self.ms),
            digits(self.ms_low),
            digits(self.ms_high),
            digits(self.floor_ms),
            self.over_floor,
        );
        if let Some(c) = &self.counted {
            line += &format!("  counted {} (x{:.2})", digits(c.ms), c.over);
        }
        for (name, ms) in &self.peers {
            line += &format!("  {name} {}", digits(*ms));
            if let Some(r) = self.ratios.get(name) {
                line += &format!(" (x{:.2} [{:.2}, {:.2}])", r.median, r.low, r.high);
            }
        }
        line
    }
}

/// Four significant digits.
#[must_use]
pub fn digits(value: f64) -> String {
    let before = value.abs().max(1e-9).log10().floor() as i32 + 1;
    let decimals = usize::try_from((4 - before).clamp(0, 6)).unwrap_or(0);
    format!("{value:.decimals$}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Row {
        let params = Sizes {
            log_n: 16,
            limbs: 24,
            special: 8,
            dnum: 3,
            scale_bits: 45,
            log_qp: 1448.0,
            security_bits: 128,
        };
        let floor = Computed {
            ms: 1.0,
            compute_ms: 0.5,
            operations: 10.0,
            place: Place::Memory,
            bytes: 20.0,
            formula: "words: max(..)".into(),
        };
        let peers = BTreeMap::from([
            ("openfhe".to_owned(), vec![Some(8.0), Some(10.0), None]),
            ("gone".to_owned(), vec![None, None, None]),
        ]);
        let ours = vec![Some(2.0), Some(2.0), Some(3.0)];
        Row::new(("ops", "rotate", 1), &params, floor, &ours, &peers).unwrap()
    }

    pub(crate) fn counted(ms: f64, measured: f64) -> Counted {
        Counted {
            ms,
            over: measured / ms,
            rotations: 5,
            key_switches: 6,
            decompositions: 1,
            products_full: 0,
            products_periodic: 9,
            products_scalar: 2,
            products_encrypted: 0,
            words_per_weight: Some(2.0),
            plain_bytes: 3.0 * 2f64.powi(20),
            key_bytes: 4.0 * 2f64.powi(20),
            share: 0.25,
        }
    }

    #[test]
    fn counts_are_kept_and_shown() {
        let mut row = sample();
        assert_eq!(Counted::table([&row]), "");
        assert!(!serde_json::to_string(&row).unwrap().contains("counted"));
        row.counted = Some(counted(1.6, row.ms));
        let back: Row = serde_json::from_str(&serde_json::to_string(&row).unwrap()).unwrap();
        assert_eq!(back, row);
        assert!(row.text(9.0).contains("counted 1.600 (x1.25)"));
        let table = Counted::table([&row]);
        let line =
            "| rotate | 24 | 2.000 | 1.600 | 1.25 | 5 | 6 | 0, 9, 2, 0 | 2.00 | 3 | 4 | 25.0% |";
        assert!(table.lines().any(|l| l == line), "{table}");
    }

    #[test]
    fn lines_have_the_promised_fields() {
        let row = sample();
        let line = serde_json::to_string(&row).unwrap();
        assert!(!line.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["op"], "rotate");
        assert_eq!(value["params"]["log_n"], 16);
        assert_eq!(
            (&value["ms"], &value["floor_ms"]),
            (&2.0.into(), &1.0.into())
        );
        assert_eq!(value["peers"], serde_json::json!({"openfhe": 9.0}));
        assert_eq!(value["ratios"]["openfhe"]["median"], 4.5);
        assert_eq!((&value["threads"], &value["n"]), (&1.into(), &3.into()));
        let back: Row = serde_json::from_str(&line).unwrap();
        assert_eq!(back, row);
    }

    #[test]
    fn texts_mark_what_is_above() {
        let row = sample();
        assert!(row.text(1.5).contains("x2.00 <-"));
        assert!(!row.text(2.5).contains("<-"));
        assert!(row.text(2.5).contains("openfhe 9.000 (x4.50 [4.00, 5.00])"));
        for (value, expected) in [(0.0658, "0.06580"), (26.123, "26.12"), (4535.2, "4535")] {
            assert_eq!(digits(value), expected);
        }
    }

    #[test]
    fn nothing_measured_is_no_row() {
        let row = sample();
        let floor = Computed {
            ms: 1.0,
            compute_ms: 0.0,
            operations: 0.0,
            place: Place::L1,
            bytes: 0.0,
            formula: String::new(),
        };
        let none = Row::new(
            ("ops", "x", 1),
            &row.params,
            floor,
            &vec![None],
            &BTreeMap::new(),
        );
        assert_eq!(none, None);
    }
}
