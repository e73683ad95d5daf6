//! One run of the program: what it measures with, and what it says.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bootstrap::{self, BootstrapRow};
use crate::error::{BenchError, Result};
use crate::floor::Floor;
use crate::interleave::{Case, Effort, Samples, Terminal};
use crate::machine::{Machine, Set};
use crate::meter;
use crate::row::Row;
use crate::scheme::Sizes;

/// Rows above this many times their floor are marked.
pub const MOST_OVER_FLOOR: f64 = 1.5;

/// Seed of the orders of all rounds.
pub(crate) const SEED: u64 = 2024;

/// What all measurements of a run share.
pub struct Session<'a> {
    /// The machine, as it was before everything.
    pub machine: Machine,
    /// The instruction set of our kernels.
    pub set: Set,
    /// Rounds and batches.
    pub effort: Effort,
    /// Set by the signal handler.
    pub stop: &'a AtomicBool,
    /// One JSON object per row instead of text.
    pub json: bool,
    /// The rows so far.
    pub rows: Vec<Row>,
    /// The bootstraps so far.
    pub bootstraps: Vec<BootstrapRow>,
}

/// An operation to be measured, with its peers.
pub struct Item<'a> {
    /// Its name.
    pub op: String,
    /// Its parameters.
    pub params: Sizes,
    /// Its floor.
    pub floor: Floor,
    /// Threads that it uses.
    pub threads: usize,
    /// Ours.
    pub ours: Case<'a>,
    /// The same of other libraries, by name.
    pub peers: Vec<(String, Case<'a>)>,
}

impl Session<'_> {
    /// Measures items in one interleaved run, prints their rows and keeps them.
    ///
    /// # Errors
    /// Standard output, the system's.
    pub fn measure(&mut self, what: &str, items: Vec<Item<'_>>) -> Result<()> {
        let mut cases = Vec::new();
        let mut heads = Vec::new();
        for item in items {
            let names: Vec<String> = item.peers.iter().map(|p| p.0.clone()).collect();
            heads.push((item.op, item.params, item.floor, item.threads, names));
            cases.push(item.ours);
            cases.extend(item.peers.into_iter().map(|(peer, mut case)| {
                case.name = format!("{} of {peer}", case.name);
                case
            }));
        }
        let mut watch = Terminal::new(self.stop);
        let before = (&self.machine, self.set);
        let (machine, samples) = meter::interleave(before, cases, self.effort, &mut watch)?;
        let mut samples = samples.into_iter();
        for (op, params, floor, threads, names) in heads {
            let Some(ours) = samples.next() else { break };
            let peers: BTreeMap<String, Samples> =
                names.into_iter().zip(samples.by_ref()).collect();
            let floor = floor.on(&machine, threads);
            if let Some(row) = Row::new((what, &op, threads), &params, floor, &ours, &peers) {
                self.keep(row)?;
            }
        }
        Ok(())
    }

    /// Whether a signal asked for the end.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Prints a row and keeps it.
    ///
    /// # Errors
    /// Standard output.
    pub fn keep(&mut self, row: Row) -> Result<()> {
        self.print(&row)?;
        self.rows.push(row);
        Ok(())
    }

    /// Prints bootstraps, and a table of them, and keeps them.
    ///
    /// # Errors
    /// Standard output.
    pub fn keep_bootstraps(&mut self, rows: Vec<BootstrapRow>) -> Result<()> {
        for row in &rows {
            if self.json {
                self.line(&serde_json::to_string(row).map_err(BenchError::json("a row"))?)?;
            } else {
                self.line(&row.text())?;
            }
        }
        if !rows.is_empty() {
            self.say(&bootstrap::table(&rows))?;
        }
        self.bootstraps.extend(rows);
        Ok(())
    }

    /// Text beside the rows: on standard error where these are lines of JSON.
    ///
    /// # Errors
    /// Standard output.
    pub fn say(&self, text: &str) -> Result<()> {
        if self.json {
            eprintln!("{text}");
            return Ok(());
        }
        self.line(text)
    }

    fn print(&self, row: &Row) -> Result<()> {
        let text = if self.json {
            serde_json::to_string(row).map_err(BenchError::json("a row"))?
        } else {
            format!("{}\n    {}", row.text(MOST_OVER_FLOOR), row.floor)
        };
        self.line(&text)
    }

    fn line(&self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").map_err(BenchError::io("standard output"))
    }
}
