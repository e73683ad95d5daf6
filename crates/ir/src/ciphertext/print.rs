//! The ciphertext program as text.

use std::fmt::Write as _;
use veilformer_ckks::Transform;

use super::{CiphertextProgram, Operation, PlainId, ValueId};

impl CiphertextProgram {
    /// One line per instruction: results, operation, level, log2 of the scale, slot bound.
    pub fn print(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "ciphertext program: {} instructions, {} values, {} plaintexts, {} slots, {} sentence(s) \
             a run",
            self.instructions.len(),
            self.values.len(),
            self.plains.len(),
            self.slots,
            self.batch
        );
        for (which, b) in self.bootstraps.iter().enumerate() {
            let _ = writeln!(
                out,
                "bootstrap {which}: {:?} slots, from level {} to level {}, error <= 2^{:.1}, {} keys",
                b.content,
                b.input_level,
                b.output_level,
                b.error.log2(),
                b.keys.len()
            );
        }
        let mut section = u32::MAX;
        for instruction in &self.instructions {
            if instruction.section != section {
                section = instruction.section;
                let name = self
                    .sections
                    .get(section as usize)
                    .map_or("", String::as_str);
                let _ = writeln!(out, "{name}:");
            }
            let results: Vec<String> = instruction.results.iter().map(name).collect();
            let info = instruction.results.first().and_then(|r| self.info(*r));
            let note = info.map_or(String::new(), |i| {
                format!(
                    "level {}, scale 2^{:.3}, |slot| <= {:.3e}",
                    i.level,
                    i.scale.log2(),
                    i.bound
                )
            });
            let _ = writeln!(
                out,
                "  {} = {}  ; {note}",
                results.join(" "),
                operation(&instruction.operation)
            );
        }
        let outputs: Vec<String> = self.outputs.iter().map(name).collect();
        let _ = writeln!(out, "answer: {}", outputs.join(" "));
        out
    }
}

fn name(id: &ValueId) -> String {
    format!("c{}", id.0)
}

fn operation(op: &Operation) -> String {
    match op {
        Operation::Input { index } => format!("input {index}"),
        Operation::Add(a, b) => format!("add {} {}", name(a), name(b)),
        Operation::Sub(a, b) => format!("sub {} {}", name(a), name(b)),
        Operation::Negate(a) => format!("negate {}", name(a)),
        Operation::AddPlain(a, p) => format!("add_plain {} p{}", name(a), p.0),
        Operation::MulPlain(a, p) => format!("mul_plain {} p{}", name(a), p.0),
        Operation::Rescale(a) => format!("rescale {}", name(a)),
        Operation::MulSum(pairs) => {
            let products: Vec<String> = pairs
                .iter()
                .map(|(a, b)| format!("{}*{}", name(a), name(b)))
                .collect();
            format!("mul_sum {}", products.join(" + "))
        }
        Operation::RotateMany { source, steps } => format!("rotate {} by {steps:?}", name(source)),
        Operation::RotateSum { source, steps } => {
            format!("rotate_sum {} by {steps:?}", name(source))
        }
        Operation::Conjugate(a) => format!("conjugate {}", name(a)),
        Operation::DropTo { source, level } => format!("drop {} to level {level}", name(source)),
        Operation::Adjust { source, level } => format!("adjust {} to level {level}", name(source)),
        Operation::LinearTransform { inputs, .. } | Operation::NestedTransform { inputs, .. } => {
            let inputs: Vec<String> = inputs.iter().map(name).collect();
            let map = |transform: &Transform<PlainId>| {
                let diagonals: usize = transform.giants.iter().map(|g| g.terms.len()).sum();
                let giants: Vec<i64> = transform.giants.iter().map(|g| g.rotation).collect();
                format!("({diagonals} diagonals, giant steps {giants:?})")
            };
            let maps: Vec<String> = op.transforms().iter().map(map).collect();
            let kind = match op {
                Operation::NestedTransform { .. } => "nested_transform",
                _ => "linear_transform",
            };
            format!("{kind} {} {}", inputs.join(" "), maps.join(" "))
        }
        Operation::ModRaise(a) => format!("mod_raise {}", name(a)),
        Operation::Bootstrap { inputs, .. } => {
            let inputs: Vec<String> = inputs.iter().map(name).collect();
            format!("{} {}", op.name(), inputs.join(" "))
        }
    }
}
