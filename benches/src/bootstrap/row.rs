//! What a process reports of a bootstrap, and the row that is made of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use veilformer_ckks::security::{self, SecretKind, SecurityLevel};

use super::Details;
use crate::row::digits;
use crate::stats::Summary;

/// Bits of an error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bits {
    /// `-log2` of the largest absolute error of all real numbers in the slots.
    pub worst: f64,
    /// `-log2` of the mean absolute error.
    pub mean: f64,
}

/// The widest key under one secret.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyBits {
    /// Non-zero coefficients of the secret; `None` if it is dense.
    pub secret_weight: Option<u32>,
    /// log2 of the key's modulus, special primes included.
    pub log_qp: f64,
}

impl KeyBits {
    fn secret(self) -> SecretKind {
        match self.secret_weight {
            Some(hamming_weight) => SecretKind::SparseTernary { hamming_weight },
            None => SecretKind::DenseTernary,
        }
    }

    /// The bound of log QP at 128 bits, if the table has one.
    fn bound(self, log_n: u32) -> Option<f64> {
        security::bound(log_n, self.secret(), SecurityLevel::Bits128)
    }

    /// Bits of security by the table; 0 if below 128.
    fn security(self, log_n: u32) -> u32 {
        let holds = |&level: &SecurityLevel| {
            security::bound(log_n, self.secret(), level).is_some_and(|bound| self.log_qp <= bound)
        };
        let levels = SecurityLevel::ALL.into_iter().filter(holds);
        levels.map(SecurityLevel::bits).max().unwrap_or(0)
    }
}

/// Times of one bootstrap.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Time {
    /// Milliseconds on the wall clock.
    pub wall_ms: f64,
    /// Milliseconds of all threads together.
    pub cpu_ms: f64,
}

/// What a process reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The times.
    pub times: Vec<Time>,
    /// What they are of.
    #[serde(flatten)]
    pub parameters: Parameters,
}

impl Report {
    /// The report, or what it lacks.
    pub(super) fn checked(self) -> Result<Self, String> {
        let mut times = self.times.iter().flat_map(|t| [t.wall_ms, t.cpu_ms]);
        let fault = if self.times.is_empty() || !times.all(|t| t.is_finite() && t >= 0.0) {
            "no times"
        } else if self.parameters.levels == 0 {
            "no level that is left for use"
        } else if self.parameters.precision.is_empty() {
            "no precision"
        } else if self.parameters.keys.is_empty() {
            "no keys"
        } else {
            return Ok(self);
        };
        Err(format!("its report has {fault}"))
    }
}

/// A bootstrap's parameters, and what does not change from one run of it to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    /// The library's name of it.
    pub preset: String,
    /// log2 of the ring dimension.
    pub log_n: u32,
    /// Slots.
    pub slots: usize,
    /// Whether slots were complex in this run; else their imaginary parts were zero.
    pub complex: bool,
    /// Levels that are left for use before the next bootstrap.
    pub levels: usize,
    /// Bits of a level's scale.
    pub scale_bits: u32,
    /// Bits of the worst slot of the worst kind of input; made of `precision`.
    #[serde(default)]
    pub bits: f64,
    /// The widest key under each secret.
    pub keys: Vec<KeyBits>,
    /// Bytes of all evaluation keys as they are stored, if the library tells.
    pub key_bytes: Option<f64>,
    /// The most memory that the process had, if the system tells.
    pub resident_bytes: Option<f64>,
    /// Seconds of all threads together that making the keys took.
    pub keygen_s: f64,
    /// The same of everything else before the first bootstrap.
    pub setup_s: f64,
    /// Precision by the kind of input.
    pub precision: BTreeMap<String, Bits>,
    /// What is to be known about it.
    pub note: String,
    /// Of ours alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

impl Parameters {
    pub(super) fn worst_bits(&self) -> f64 {
        let bits = self.precision.values().map(|b| b.worst);
        bits.fold(f64::INFINITY, f64::min)
    }

    /// The lowest security of its keys by table; 0 if below 128.
    #[must_use]
    pub fn security_bits(&self) -> u32 {
        let bits = self.keys.iter().map(|k| k.security(self.log_n));
        bits.min().unwrap_or(0)
    }

    /// The first key above its bound at 128 bits, with the bound.
    #[must_use]
    pub fn above_bound(&self) -> Option<(KeyBits, f64)> {
        let above = |key: &KeyBits| {
            let bound = key.bound(self.log_n).unwrap_or(0.0);
            (key.log_qp > bound).then_some((*key, bound))
        };
        self.keys.iter().find_map(above)
    }

    /// The widest key.
    #[must_use]
    pub fn log_qp(&self) -> f64 {
        self.keys.iter().map(|k| k.log_qp).fold(0.0, f64::max)
    }
}

/// A bootstrap as measured: what `--json` prints a line of, and what is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootstrapRow {
    /// `bootstrap`.
    pub what: String,
    /// Which.
    pub op: String,
    /// Threads.
    pub threads: usize,
    /// Median time in milliseconds: of the processor on one thread, on the wall clock on more.
    pub ms: f64,
    /// Lower end of the interval of the median.
    pub ms_low: f64,
    /// Upper end.
    pub ms_high: f64,
    /// Number of bootstraps.
    pub n: usize,
    /// Median time on the wall clock in milliseconds.
    pub wall_ms: f64,
    /// Bits of the mean error of the kind of input where it is largest.
    pub mean_bits: f64,
    /// `ms` in seconds over levels and `params.bits`.
    pub seconds_per_level_bit: f64,
    /// The same with the bits of the worst slot of random inputs, if there were any.
    pub seconds_per_level_bit_random: Option<f64>,
    /// Bits of security of the keys by table; 0 if below 128.
    pub security_bits: u32,
    /// log2 of the modulus of the widest key.
    pub log_qp: f64,
    /// The rest.
    pub params: Parameters,
    /// Of ours: other libraries' presets in the same run, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peers: BTreeMap<String, PeerRow>,
}

/// A bootstrap beside one of ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerRow {
    /// The library.
    pub library: String,
    /// As [`BootstrapRow::ms`].
    pub ms: f64,
    /// Levels that are left for use.
    pub levels: usize,
    /// Bits of the worst slot of the worst kind of input.
    pub bits: f64,
    /// As [`BootstrapRow::seconds_per_level_bit`].
    pub seconds_per_level_bit: f64,
    /// That over ours.
    pub ratio: f64,
    /// Whether every key is inside its bound at 128 bits.
    pub inside: bool,
}

/// The group's name in rows.
pub(crate) const WHAT: &str = "bootstrap";

impl BootstrapRow {
    /// The row of a report; `None` if it has no times.
    #[must_use]
    pub fn new(op: &str, threads: usize, report: Report) -> Option<Self> {
        let Report {
            times,
            mut parameters,
        } = report;
        let of = |time: fn(&Time) -> f64| Summary::of(&times.iter().map(time).collect::<Vec<_>>());
        let wall = of(|t| t.wall_ms)?;
        let ms = if threads == 1 {
            of(|t| t.cpu_ms)?
        } else {
            wall
        };
        parameters.bits = parameters.worst_bits();
        let per_bit = |bits: f64| ms.median / 1e3 / (parameters.levels as f64 * bits);
        let random = parameters.precision.get("random");
        let mean = parameters.precision.values().map(|b| b.mean);
        Some(Self {
            what: WHAT.to_owned(),
            op: op.to_owned(),
            threads,
            ms: ms.median,
            ms_low: ms.low,
            ms_high: ms.high,
            n: ms.n,
            wall_ms: wall.median,
            mean_bits: mean.fold(f64::INFINITY, f64::min),
            seconds_per_level_bit: per_bit(parameters.bits),
            seconds_per_level_bit_random: random.map(|b| per_bit(b.worst)),
            security_bits: parameters.security_bits(),
            log_qp: parameters.log_qp(),
            params: parameters,
            peers: BTreeMap::new(),
        })
    }

    /// Puts presets of other libraries beside this one.
    pub(super) fn beside<'a>(&mut self, others: impl IntoIterator<Item = (&'a str, &'a Self)>) {
        let of = |(library, row): (&str, &Self)| {
            let figures = PeerRow {
                library: library.to_owned(),
                ms: row.ms,
                levels: row.params.levels,
                bits: row.params.bits,
                seconds_per_level_bit: row.seconds_per_level_bit,
                ratio: row.seconds_per_level_bit / self.seconds_per_level_bit,
                inside: row.security_bits >= 128,
            };
            (row.op.clone(), figures)
        };
        self.peers = others.into_iter().map(of).collect();
    }

    /// Of every library the preset with the least time per level and bit.
    pub(super) fn best_peers(&self) -> Vec<(&str, &PeerRow)> {
        let mut best: BTreeMap<&str, (&str, &PeerRow)> = BTreeMap::new();
        for (name, peer) in &self.peers {
            let old = best.get(peer.library.as_str()).map(|b| b.1.ratio);
            if old.is_none_or(|old| old > peer.ratio) {
                best.insert(&peer.library, (name, peer));
            }
        }
        best.into_values().collect()
    }

    /// The row for people.
    #[must_use]
    pub fn text(&self) -> String {
        let p = &self.params;
        format!(
            "{:<20} {:>9} ms [{}, {}]  {} levels at 2^{}, worst slot {:.1} bits, mean {:.1}: {:.4} s \
             per level and bit",
            self.op,
            digits(self.ms),
            digits(self.ms_low),
            digits(self.ms_high),
            p.levels,
            p.scale_bits,
            p.bits,
            self.mean_bits,
            self.seconds_per_level_bit
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a driver prints.
    pub(crate) const REPORT: &str = r#"{"preset":"N16QP1546H192H32","log_n":16,"slots":32768,"complex":false,"levels":9,"scale_bits":40,"keys":[{"secret_weight":192,"log_qp":1546},{"secret_weight":32,"log_qp":121}],"key_bytes":null,"keygen_s":30.5,"setup_s":2.5,"resident_bytes":16106127360,"times":[{"wall_ms":13000,"cpu_ms":12900},{"wall_ms":13100,"cpu_ms":13000},{"wall_ms":14000,"cpu_ms":13900},{"wall_ms":13050,"cpu_ms":12950}],"precision":{"random":{"worst":25,"mean":27},"constant":{"worst":20,"mean":21}},"note":"slow"}"#;

    pub(crate) fn sample() -> BootstrapRow {
        let report: Report = serde_json::from_str(REPORT).unwrap();
        BootstrapRow::new("lattigo_9_levels", 1, report).unwrap()
    }

    /// Another preset, with so many milliseconds per level and bit.
    pub(crate) fn peer(op: &str, ms_per_level_bit: f64) -> BootstrapRow {
        BootstrapRow {
            op: op.into(),
            seconds_per_level_bit: ms_per_level_bit / 1e3,
            ..sample()
        }
    }

    #[test]
    fn rows_have_medians_and_the_worst_of_all_inputs() {
        let row = sample();
        assert_eq!((row.ms, row.wall_ms, row.n), (12975.0, 13075.0, 4));
        assert_eq!((row.params.bits, row.mean_bits), (20.0, 21.0));
        assert_eq!(row.seconds_per_level_bit, 12.975 / (9.0 * 20.0));
        assert_eq!(
            row.seconds_per_level_bit_random,
            Some(12.975 / (9.0 * 25.0))
        );
        assert_eq!(row.log_qp, 1546.0);
        let two = serde_json::from_str(REPORT).unwrap();
        assert_eq!(BootstrapRow::new("x", 2, two).unwrap().ms, 13075.0);
        let back: BootstrapRow =
            serde_json::from_str(&serde_json::to_string(&row).unwrap()).unwrap();
        assert_eq!(back, row);
    }

    #[test]
    fn security_is_that_of_the_weakest_key() {
        let mut p = sample().params;
        // A secret of weight 192 may have 1481 bits, one of weight 32 349.
        assert_eq!(p.security_bits(), 0);
        assert_eq!(p.above_bound(), Some((p.keys[0], 1481.0)));
        p.keys[0].log_qp = 1481.0;
        assert_eq!((p.security_bits(), p.above_bound()), (128, None));
        p.keys[0].secret_weight = None;
        p.keys[1].log_qp = 350.0;
        assert_eq!(p.security_bits(), 0);
        assert_eq!(p.above_bound(), Some((p.keys[1], 349.0)));
        // No row of the table: nothing is permitted.
        p.keys[1].secret_weight = Some(16);
        assert_eq!(p.above_bound(), Some((p.keys[1], 0.0)));
    }

    #[test]
    fn incomplete_reports_are_refused() {
        let report = || serde_json::from_str::<Report>(REPORT).unwrap();
        assert!(report().checked().is_ok());
        let refused = |change: fn(&mut Report)| {
            let mut report = report();
            change(&mut report);
            report.checked().is_err()
        };
        assert!(refused(|r| r.times.clear()));
        assert!(refused(|r| r.times[1].cpu_ms = f64::NAN));
        assert!(refused(|r| r.parameters.levels = 0));
        assert!(refused(|r| r.parameters.precision.clear()));
        assert!(refused(|r| r.parameters.keys.clear()));
    }
}
