//! The device program as text.

use std::fmt::Write as _;

use super::{Column, DeviceProgram, NONE, Node, Step};
use crate::ciphertext::{CiphertextProgram, Operation};

/// Most numbers of a column that are written out.
const SHOWN: usize = 6;

impl DeviceProgram {
    /// The stream, one line per step: buffers written, what is done, buffers read, buffers that are
    /// free after it. Loops are written once, with `i` for the iteration.
    pub fn print(&self, program: &CiphertextProgram) -> String {
        let mut out = String::new();
        let steps = self.steps().map_or(0, |s| s.len());
        let _ = writeln!(
            out,
            "device program: {steps} steps, {} written down, up to {} at once",
            self.written_steps(),
            self.threads
        );
        let _ = writeln!(
            out,
            "buffers: {}, {:.1} MiB; without reuse {:.1} MiB",
            self.buffers.len(),
            mebibytes(self.buffer_bytes()),
            mebibytes(self.bytes_without_reuse(program))
        );
        let mut by_level = std::collections::BTreeMap::new();
        for buffer in &self.buffers {
            let entry: &mut (usize, u64) = by_level.entry(buffer.level).or_default();
            entry.0 += 1;
            entry.1 = buffer.bytes;
        }
        for (level, (count, bytes)) in by_level.iter().rev() {
            let _ = writeln!(
                out,
                "  level {level}: {count} of {:.2} MiB",
                mebibytes(*bytes)
            );
        }
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        let _ = writeln!(out, "keys, by first use: {}", keys.join(", "));
        let _ = writeln!(
            out,
            "plaintexts, by first use: {}",
            runs(&self.plains.iter().map(|p| p.0).collect::<Vec<_>>())
        );
        let mut section = None;
        print_nodes(&mut out, &self.nodes, program, (1, 0), &mut section);
        let outputs: Vec<String> = self.outputs.iter().map(|b| format!("b{}", b.0)).collect();
        let _ = writeln!(out, "answer: {}", outputs.join(" "));
        out
    }

    /// What ciphertexts would take if each value had a place of its own until the end.
    pub fn bytes_without_reuse(&self, program: &CiphertextProgram) -> u64 {
        let mut by_level = std::collections::BTreeMap::new();
        for buffer in &self.buffers {
            by_level.insert(buffer.level, buffer.bytes);
        }
        let bytes = |level| by_level.get(&level).copied().unwrap_or(0);
        program.values.iter().map(|v| bytes(v.level)).sum()
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Numbers in order, those that follow each other as one range.
fn runs(numbers: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &n in numbers {
        match parts.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(n) => *last = n,
            _ => parts.push((n, n)),
        }
    }
    let shown = parts.iter().take(4 * SHOWN).map(|(a, b)| match a == b {
        true => format!("p{a}"),
        false => format!("p{a}..p{b}"),
    });
    let shown: Vec<String> = shown.collect();
    let rest = if parts.len() > shown.len() {
        " ..."
    } else {
        ""
    };
    format!("{}{rest}", shown.join(" "))
}

fn print_nodes(
    out: &mut String,
    nodes: &[Node],
    program: &CiphertextProgram,
    (indent, depth): (usize, usize),
    section: &mut Option<String>,
) {
    let pad = "  ".repeat(indent);
    for node in nodes {
        match node {
            Node::Loop { count, body } => {
                let _ = writeln!(out, "{pad}repeat {count} times:");
                print_nodes(out, body, program, (indent + 1, depth + 1), section);
            }
            Node::Step(step) => {
                let name = section_of(program, step);
                if section.as_deref() != Some(name) {
                    let _ = writeln!(out, "{pad}; {name}");
                    *section = Some(name.to_owned());
                }
                let _ = writeln!(out, "{pad}{}", line(program, step));
            }
        }
    }
}

fn section_of<'a>(program: &'a CiphertextProgram, step: &Step) -> &'a str {
    let instruction = step
        .instruction
        .at(0)
        .and_then(|i| program.instructions.get(i as usize));
    let name = instruction.and_then(|i| program.sections.get(i.section as usize));
    name.map_or("", String::as_str)
}

fn line(program: &CiphertextProgram, step: &Step) -> String {
    let columns = |list: &[Column]| -> String {
        let shown: Vec<String> = list
            .iter()
            .take(2 * SHOWN)
            .map(|c| column("b", c))
            .collect();
        let rest = if list.len() > shown.len() {
            format!(" and {} more", list.len() - shown.len())
        } else {
            String::new()
        };
        format!("{}{rest}", shown.join(" "))
    };
    let first = step
        .instruction
        .at(0)
        .and_then(|i| program.instructions.get(i as usize));
    let mut name = first.map_or_else(String::new, |i| i.operation.name());
    if let Column::Fixed(_) = &step.instruction {
        match first.map(|i| &i.operation) {
            Some(Operation::RotateMany { steps, .. }) => name = format!("rotate by {steps:?}"),
            Some(Operation::RotateSum { steps, .. }) => name = format!("rotate_sum by {steps:?}"),
            _ => {}
        }
    }
    let mut text = format!(
        "{} = {name} {}",
        columns(&step.writes),
        columns(&step.reads)
    );
    let mut freed = step.releases.clone();
    freed.retain(|c| *c != Column::Fixed(NONE));
    if !freed.is_empty() {
        let _ = write!(text, "; frees {}", columns(&freed));
    }
    let _ = write!(text, "  ({})", column("#", &step.instruction));
    text
}

fn column(prefix: &str, column: &Column) -> String {
    match column {
        Column::Fixed(n) => format!("{prefix}{n}"),
        Column::Strided { first, stride } if *stride < 0 => {
            format!("{prefix}[{first}-{}i]", stride.unsigned_abs())
        }
        Column::Strided { first, stride: 1 } => format!("{prefix}[{first}+i]"),
        Column::Strided { first, stride } => format!("{prefix}[{first}+{stride}i]"),
        Column::Table(numbers) => {
            let number = |n: &u32| match *n {
                NONE => "-".to_owned(),
                n => n.to_string(),
            };
            let shown: Vec<String> = numbers.iter().take(SHOWN).map(number).collect();
            let rest = if numbers.len() > SHOWN { ",..." } else { "" };
            format!("{prefix}[{}{rest}]", shown.join(","))
        }
    }
}
