//! What a command says at its end.

use std::io::Write;

use serde::Serialize;

use super::error::{Failure, Result};

/// Text for people or an object for programs, on standard output.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub json: bool,
    pub quiet: bool,
}

impl Output {
    /// Prints `object` with `--json`, and otherwise `text` unless quiet.
    pub fn report<T: Serialize>(self, object: &T, text: impl FnOnce() -> String) -> Result<()> {
        if self.json {
            let json = serde_json::to_string(object).map_err(Failure::system)?;
            return print(&json);
        }
        if self.quiet {
            return Ok(());
        }
        print(text().trim_end())
    }

    /// Prints `object` with `--json`, and otherwise `text`: for commands whose text is the point.
    pub fn answer<T: Serialize>(self, object: &T, text: impl FnOnce() -> String) -> Result<()> {
        Self {
            quiet: false,
            ..self
        }
        .report(object, text)
    }
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // A reader that has seen enough (`| head`) is no failure.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::system(format!(
            "cannot write to standard output: {e}; check where it goes"
        ))),
        _ => Ok(()),
    }
}

/// Bytes for people: `12.3 MiB`.
pub fn bytes(count: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 {
        format!("{count} {name}")
    } else {
        format!("{value:.1} {name}")
    }
}

/// Columns padded to their widest cell, two spaces between them, each row indented by two.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        let cells = rows.iter().filter_map(|r| r.get(c));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!(" {cell:<width$} "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Memory of this machine, or of the control group that this process is in, in bytes, where the system
/// tells.
pub fn memory_bytes() -> Option<u64> {
    let all = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = all.lines().find(|l| l.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").unwrap_or_default();
    let group = group.trim().parse().unwrap_or(u64::MAX);
    Some((kib * 1024).min(group))
}

/// Most memory that this process had resident, in bytes, where the system tells.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// A text on one line of a terminal: at most `width` characters, with dots where something is missing, and
/// with a space for what a terminal would take as a command.
pub fn printable(text: &str, width: usize) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    let mut out: String = text.chars().take(width).map(shown).collect();
    if text.chars().nth(width).is_some() {
        out = out.chars().take(width.saturating_sub(3)).collect();
        out.push_str("...");
    }
    out
}

/// So many things with their name: `1 sentence`, `2 sentences`.
pub fn counted(count: usize, name: &str) -> String {
    match count {
        1 => format!("1 {name}"),
        _ => format!("{count} {name}s"),
    }
}
