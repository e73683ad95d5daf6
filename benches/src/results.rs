//! Stored results: one file per day, commit and machine, a line of JSON for what made it and one for
//! each row; and the table that is made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::bootstrap::{self, BootstrapRow};
use crate::error::{BenchError, Result};
use crate::machine::Machine;
use crate::row::{Counted, Row, digits};

/// What made a file of results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Day (UTC) as year-month-day.
    pub date: String,
    /// Seconds since 1970: which of two files is newer.
    pub time: u64,
    /// The commit.
    pub commit: String,
    /// Whether tracked files differed from it.
    pub dirty: bool,
    /// The machine, and what it did at most before everything. Floors of rows took its ports from their own rounds.
    pub machine: Machine,
}

/// A file of results.
#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    /// What made it.
    pub header: Header,
    /// The rows.
    pub rows: Vec<Row>,
    /// The bootstraps.
    pub bootstraps: Vec<BootstrapRow>,
}

/// A line of a file, told by its fields: a bootstrap has no floor.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Operation(Box<Row>),
    Bootstrap(Box<BootstrapRow>),
}

/// The folder of results in the repository.
#[must_use]
pub fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/results"))
}

impl Header {
    /// The header of a run that ends now, on the commit that is checked out.
    ///
    /// # Errors
    /// Without git or outside of a repository.
    pub fn now(machine: &Machine) -> Result<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let time = since.map_or(0, |d| d.as_secs());
        // Results themselves do not make a tree dirty.
        let changes = [
            "status",
            "--porcelain",
            "--untracked-files=no",
            "--",
            ":/",
            ":(top,exclude)benches/results",
        ];
        Ok(Self {
            date: date(time),
            time,
            commit: git(&["rev-parse", "--short=10", "HEAD"])?,
            dirty: !git(&changes)?.is_empty(),
            machine: machine.clone(),
        })
    }

    fn file_name(&self) -> String {
        let dirty = if self.dirty { "-dirty" } else { "" };
        format!(
            "{}-{}{dirty}-{}.jsonl",
            self.date,
            self.commit,
            self.machine.slug()
        )
    }
}

fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .map_err(BenchError::io("git"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(BenchError::Usage(format!(
        "git {} failed: results need their commit",
        arguments.join(" ")
    )))
}

/// Year-month-day of seconds since 1970 (Hinnant, "chrono-compatible low-level date algorithms").
fn date(time: u64) -> String {
    // Days since 0000-03-01, in eras of 400 years.
    let days = time / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 {
        (year, month + 3)
    } else {
        (year + 1, month - 9)
    };
    format!("{:04}-{month:02}-{day:02}", year + 400 * era)
}

impl Results {
    /// Writes the rows to a file of their own in `folder`, or into the one of the same day, commit and
    /// machine: there they take the place of rows of the same operation, parameters and threads.
    ///
    /// # Errors
    /// The file system's, or a file that is not one of results.
    pub fn save(mut self, folder: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(folder).map_err(BenchError::io(folder.display().to_string()))?;
        let path = folder.join(self.header.file_name());
        if path.exists() {
            let key = |r: &Row| (r.what.clone(), r.op.clone(), r.params.clone(), r.threads);
            let new: Vec<_> = self.rows.iter().map(key).collect();
            let old = Self::load(&path)?;
            let mut rows = old.rows;
            rows.retain(|row| !new.contains(&key(row)));
            rows.append(&mut self.rows);
            self.rows = rows;
            let key = |r: &BootstrapRow| (r.op.clone(), r.threads);
            let new: Vec<_> = self.bootstraps.iter().map(key).collect();
            let mut bootstraps = old.bootstraps;
            bootstraps.retain(|row| !new.contains(&key(row)));
            bootstraps.append(&mut self.bootstraps);
            self.bootstraps = bootstraps;
        }
        let json = |e| BenchError::json("results")(e);
        let mut text = serde_json::to_string(&self.header).map_err(json)? + "\n";
        for row in &self.rows {
            text += &(serde_json::to_string(row).map_err(json)? + "\n");
        }
        for row in &self.bootstraps {
            text += &(serde_json::to_string(row).map_err(json)? + "\n");
        }
        std::fs::write(&path, text).map_err(BenchError::io(path.display().to_string()))?;
        Ok(path)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The file system's, or a line that is none of results.
    pub fn load(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(BenchError::io(name()))?;
        let mut lines = text.lines();
        let header = serde_json::from_str(lines.next().unwrap_or_default());
        let mut results = Self {
            header: header.map_err(BenchError::json(name()))?,
            rows: Vec::new(),
            bootstraps: Vec::new(),
        };
        for line in lines {
            match serde_json::from_str(line).map_err(BenchError::json(name()))? {
                Line::Operation(row) => results.rows.push(*row),
                Line::Bootstrap(row) => results.bootstraps.push(*row),
            }
        }
        Ok(results)
    }

    /// What is newest of every machine in `folder`: its newest file, then of older ones, newest
    /// first, what was measured with a number of threads and in none of the files before.
    ///
    /// # Errors
    /// As [`Results::load`], or if there is none.
    pub fn newest(folder: &Path) -> Result<Vec<Self>> {
        let mut files = Self::load_all(folder)?;
        if files.is_empty() {
            return Err(BenchError::Usage(format!(
                "{} has no results; make some with --save",
                folder.display()
            )));
        }
        files.sort_by_key(|r| (r.header.machine.slug(), std::cmp::Reverse(r.header.time)));
        let mut seen: BTreeSet<(String, String, usize)> = BTreeSet::new();
        for file in &mut files {
            let slug = file.header.machine.slug();
            let group = |what: &str, threads: usize| (slug.clone(), what.to_owned(), threads);
            let known = |what: &str, threads| seen.contains(&group(what, threads));
            file.rows.retain(|row| !known(&row.what, row.threads));
            file.bootstraps.retain(|b| !known("bootstrap", b.threads));
            let rows = file.rows.iter().map(|row| group(&row.what, row.threads));
            let bootstraps = file
                .bootstraps
                .iter()
                .map(|b| group("bootstrap", b.threads));
            let found: Vec<_> = rows.chain(bootstraps).collect();
            seen.extend(found);
        }
        files.retain(|file| !(file.rows.is_empty() && file.bootstraps.is_empty()));
        Ok(files)
    }

    /// What is newest of every machine, as one each: with the header of its newest file.
    ///
    /// # Errors
    /// As [`Results::newest`].
    pub fn newest_of_machines(folder: &Path) -> Result<Vec<Self>> {
        let mut machines: Vec<Self> = Vec::new();
        for file in Self::newest(folder)? {
            let slug = file.header.machine.slug();
            match machines.last_mut() {
                Some(last) if last.header.machine.slug() == slug => {
                    last.rows.extend(file.rows);
                    last.bootstraps.extend(file.bootstraps);
                }
                _ => machines.push(file),
            }
        }
        Ok(machines)
    }

    fn load_all(folder: &Path) -> Result<Vec<Self>> {
        let name = folder.display().to_string();
        let mut all = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(BenchError::io(&name))? {
            let path = entry.map_err(BenchError::io(&name))?.path();
            if path.extension().is_some_and(|e| e == "jsonl") {
                all.push(Self::load(&path)?);
            }
        }
        Ok(all)
    }

    /// The newest file of every machine in `folder` that has bootstraps; there may be none.
    ///
    /// # Errors
    /// As [`Results::load`].
    pub fn newest_bootstraps(folder: &Path) -> Result<Vec<Self>> {
        let mut newest: BTreeMap<String, Self> = BTreeMap::new();
        for results in Self::load_all(folder)? {
            let slug = results.header.machine.slug();
            let old = newest.get(&slug).map(|r| r.header.time);
            let newer = old.is_none_or(|old| old < results.header.time);
            if newer && !results.bootstraps.is_empty() {
                newest.insert(slug, results);
            }
        }
        Ok(newest.into_values().collect())
    }

    /// The results as a chapter of Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let Header {
            date,
            commit,
            dirty,
            machine,
            ..
        } = &self.header;
        let dirty = if *dirty { ", with changes" } else { "" };
        let mut text = format!(
            "## {} ({})\n\n{date}, commit {commit}{dirty}.\n\n",
            machine.cpu, machine.isa
        );
        text += &format!("```\n{machine}```\n");
        let mut groups: Vec<(&str, usize)> = Vec::new();
        for row in &self.rows {
            let group = (row.what.as_str(), row.threads);
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        for (what, threads) in groups {
            let rows = self
                .rows
                .iter()
                .filter(|r| (r.what.as_str(), r.threads) == (what, threads));
            let rows: Vec<&Row> = rows.collect();
            text += &table(what, threads, &rows);
            let counted = Counted::table(rows);
            if !counted.is_empty() {
                text += &format!("\n{counted}");
            }
        }
        let mut threads: Vec<usize> = self.bootstraps.iter().map(|r| r.threads).collect();
        threads.dedup();
        for threads in threads {
            let rows = self.bootstraps.iter().filter(|r| r.threads == threads);
            let _ = write!(
                text,
                "\n### bootstraps, {threads} thread{}\n\n{}",
                plural(threads),
                bootstrap::table(rows)
            );
        }
        text
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The rows of one group.
fn table(what: &str, threads: usize, rows: &[&Row]) -> String {
    let mut peers: Vec<&String> = rows.iter().flat_map(|r| r.peers.keys()).collect();
    peers.sort_unstable();
    peers.dedup();
    let mut text = format!("\n### {what}, {threads} thread{}\n", plural(threads));
    if let Some(Row { params: p, .. }) = rows.first().filter(|_| what != "ntt") {
        let _ = writeln!(
            text,
            "\nN=2^{}, {} + {} limbs, {} digits, scale 2^{}, log QP {:.0}, security {} bits.",
            p.log_n, p.limbs, p.special, p.dnum, p.scale_bits, p.log_qp, p.security_bits
        );
    }
    text += "\n| operation | ms | floor, ms | over floor |";
    peers
        .iter()
        .for_each(|p| text += &format!(" {p}, ms (times ours) |"));
    text += "\n|---|---|---|---|";
    peers.iter().for_each(|_| text += "---|");
    for r in rows {
        let _ = write!(
            text,
            "\n| {} | {} [{}, {}] | {} | {:.2} |",
            r.op,
            digits(r.ms),
            digits(r.ms_low),
            digits(r.ms_high),
            digits(r.floor_ms),
            r.over_floor
        );
        for &peer in &peers {
            text += &match (r.peers.get(peer), r.ratios.get(peer)) {
                (Some(ms), Some(ratio)) => format!(
                    " {} ({:.2} [{:.2}, {:.2}]) |",
                    digits(*ms),
                    ratio.median,
                    ratio.low,
                    ratio.high
                ),
                (Some(ms), None) => format!(" {} |", digits(*ms)),
                _ => " |".to_owned(),
            };
        }
    }
    text + "\n"
}

/// The whole page.
#[must_use]
pub fn page(results: &[Results]) -> String {
    let mut text = "\
# Results

Made by `cargo run --release -p xtask -- bench table` from the newest file of every machine in this
folder, and from older ones where that lacks something; `bench WHAT --save` writes them. Medians of interleaved rounds with intervals of the median
(95% or more, from order statistics). Floors are computed: the longest of arithmetic and of each kind
of traffic in every phase, from loops in registers and from passes that only move; their formulas are in
the files. Ratios are medians over the rounds in which both sides ran.
"
    .to_owned();
    for r in results {
        text += "\n";
        text += &r.markdown();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::round;
    use crate::row::tests::sample;

    fn results(time: u64) -> Results {
        Results {
            header: Header {
                date: date(time),
                time,
                commit: "0123456789".into(),
                dirty: false,
                machine: round(),
            },
            rows: vec![sample()],
            bootstraps: vec![bootstrap::tests::sample()],
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (time, expected) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (954_460_800, "2000-03-31"),
            (1_735_689_599, "2024-12-31"),
            (4_102_444_800, "2100-01-01"),
        ] {
            assert_eq!(date(time), expected);
        }
    }

    #[test]
    fn files_come_back_and_rows_are_replaced() {
        let folder = std::env::temp_dir().join(format!("bench-results-{}", std::process::id()));
        let first = results(1000);
        let path = first.clone().save(&folder).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(name, "1970-01-01-0123456789-round-r-1-scalar.jsonl");
        assert_eq!(Results::load(&path).unwrap(), first);
        // The same operation again, and another one.
        let mut second = results(2000);
        second.rows[0].ms = 7.0;
        let mut other = sample();
        other.op = "add".into();
        second.rows.push(other);
        second.bootstraps[0].ms = 8.0;
        let mut other = bootstrap::tests::sample();
        other.threads = 2;
        second.bootstraps.push(other);
        second.save(&folder).unwrap();
        let merged = Results::newest(&folder).unwrap().remove(0);
        let ms: Vec<_> = merged.rows.iter().map(|r| (r.op.as_str(), r.ms)).collect();
        assert_eq!(ms, [("rotate", 7.0), ("add", 2.0)]);
        let bootstraps = merged.bootstraps.iter().map(|r| (r.threads, r.ms));
        assert_eq!(bootstraps.collect::<Vec<_>>(), [(1, 8.0), (2, 12975.0)]);
        // A newer file of the machine wins, but for what it lacks.
        results(200_000).save(&folder).unwrap();
        let newest = Results::newest(&folder).unwrap();
        let times: Vec<_> = newest.iter().map(|r| r.header.time).collect();
        assert_eq!(times, [200_000, 2000]);
        assert_eq!((newest[0].rows.len(), newest[0].bootstraps.len()), (1, 1));
        assert_eq!(newest[1].rows, []);
        assert_eq!(newest[1].bootstraps[0].threads, 2);
        let whole = Results::newest_of_machines(&folder).unwrap();
        assert_eq!((whole.len(), whole[0].header.time), (1, 200_000));
        assert_eq!((whole[0].rows.len(), whole[0].bootstraps.len()), (1, 2));
        // One without bootstraps is not among those that have some.
        let mut bare = results(400_000);
        bare.bootstraps.clear();
        bare.save(&folder).unwrap();
        let time = |newest: Vec<Results>| newest[0].header.time;
        assert_eq!(time(Results::newest(&folder).unwrap()), 400_000);
        let bootstraps = Results::newest_bootstraps(&folder).unwrap();
        assert_eq!(time(bootstraps), 200_000);
        std::fs::write(&path, "{}").unwrap();
        let error = Results::newest(&folder).unwrap_err().to_string();
        assert!(error.contains("1970-01-01"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn tables_have_a_column_per_peer() {
        let mut r = results(0);
        let mut other = sample();
        other.op = "add".into();
        other.peers = BTreeMap::from([("poulpy".to_owned(), 1.4)]);
        r.rows.push(other);
        let mut two = bootstrap::tests::sample();
        two.threads = 2;
        r.bootstraps.push(two);
        let page = page(&[r]);
        for line in [
            "| operation | ms | floor, ms | over floor | openfhe, ms (times ours) | poulpy, ms (times ours) |",
            "|---|---|---|---|---|---|",
            "| rotate | 2.000 [2.000, 3.000] | 1.000 | 2.00 | 9.000 (4.50 [4.00, 5.00]) | |",
            "| add | 2.000 [2.000, 3.000] | 1.000 | 2.00 | | 1.400 |",
            "N=2^16, 24 + 8 limbs, 3 digits, scale 2^45, log QP 1448, security 128 bits.",
            "1970-01-01, commit 0123456789.",
            "### bootstraps, 1 thread",
            "### bootstraps, 2 threads",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }
}
