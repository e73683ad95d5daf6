//! Rolls blocks of a stream that repeat into loops.
//!
//! Two steps are alike when they do the same with as many buffers: only which instruction, which
//! buffers and which plaintexts may differ. Runs of like blocks become a loop, short blocks first,
//! so that a block that holds loops can repeat as well.

use std::collections::HashMap;

use veilformer_ir::ciphertext::{CiphertextProgram, Operation};
use veilformer_ir::device::{Column, Node, Step};

/// Longest block that is looked for, in steps and loops.
const LONGEST_BLOCK: usize = 64;

/// A step outside of any loop.
pub(crate) struct Flat {
    pub(crate) instruction: u32,
    pub(crate) reads: Vec<u32>,
    pub(crate) writes: Vec<u32>,
    pub(crate) releases: Vec<u32>,
}

/// A node under construction: columns are lists of numbers, one per iteration.
enum Building {
    Step {
        instruction: Vec<u32>,
        reads: Vec<Vec<u32>>,
        writes: Vec<Vec<u32>>,
        releases: Vec<Vec<u32>>,
    },
    Loop {
        count: usize,
        body: Vec<Shaped>,
    },
}

/// A node and the number of its shape.
struct Shaped {
    shape: u32,
    node: Building,
}

/// Shapes by what makes them: steps by their text, loops by count and body.
#[derive(Default)]
struct Shapes {
    known: HashMap<String, u32>,
}

impl Shapes {
    fn number(&mut self, text: String) -> u32 {
        let next = self.known.len() as u32;
        *self.known.entry(text).or_insert(next)
    }
}

/// The stream with its repetitions as loops.
pub(crate) fn roll(program: &CiphertextProgram, steps: Vec<Flat>) -> Vec<Node> {
    let mut shapes = Shapes::default();
    let column = |n: u32| vec![n];
    let columns = |list: Vec<u32>| list.into_iter().map(column).collect();
    let mut nodes: Vec<Shaped> = Vec::with_capacity(steps.len());
    for step in steps {
        let shape = shapes.number(step_shape(program, &step));
        nodes.push(Shaped {
            shape,
            node: Building::Step {
                instruction: column(step.instruction),
                reads: columns(step.reads),
                writes: columns(step.writes),
                releases: columns(step.releases),
            },
        });
    }
    let mut length = 1;
    while length <= LONGEST_BLOCK.min(nodes.len() / 2) {
        let before = nodes.len();
        nodes = roll_blocks(nodes, length, &mut shapes);
        // A new loop may make shorter blocks alike that were not before.
        length = if nodes.len() < before { 1 } else { length + 1 };
    }
    nodes.into_iter().map(|n| finish(n.node)).collect()
}

/// Rolls every run of at least two like blocks of this length.
fn roll_blocks(nodes: Vec<Shaped>, length: usize, shapes: &mut Shapes) -> Vec<Shaped> {
    let kinds: Vec<u32> = nodes.iter().map(|n| n.shape).collect();
    let mut rest = nodes.into_iter();
    let mut out = Vec::new();
    let mut at = 0;
    while at < kinds.len() {
        let block = kinds.get(at..at + length);
        let repeats = block.map_or(0, |block| {
            let others = kinds.get(at..).unwrap_or_default().chunks_exact(length);
            others.take_while(|other| *other == block).count()
        });
        // Two steps of one kind in a row are no shorter as a loop.
        if repeats < 2 || repeats * length < 3 {
            out.extend(rest.next());
            at += 1;
            continue;
        }
        let mut body: Vec<Shaped> = rest.by_ref().take(length).collect();
        for _ in 1..repeats {
            for node in &mut body {
                if let Some(next) = rest.next() {
                    append(&mut node.node, next.node);
                }
            }
        }
        let text: Vec<String> = body.iter().map(|n| n.shape.to_string()).collect();
        out.push(Shaped {
            shape: shapes.number(format!("{repeats} x {}", text.join(" "))),
            node: Building::Loop {
                count: repeats,
                body,
            },
        });
        at += repeats * length;
    }
    out
}

/// The iterations of `next` after those of `node`, which is of the same shape.
fn append(node: &mut Building, next: Building) {
    match (node, next) {
        (
            Building::Step {
                instruction,
                reads,
                writes,
                releases,
            },
            Building::Step {
                instruction: i,
                reads: r,
                writes: w,
                releases: l,
            },
        ) => {
            instruction.extend(i);
            let join = |mine: &mut Vec<Vec<u32>>, theirs: Vec<Vec<u32>>| {
                mine.iter_mut().zip(theirs).for_each(|(m, t)| m.extend(t));
            };
            join(reads, r);
            join(writes, w);
            join(releases, l);
        }
        (Building::Loop { body, .. }, Building::Loop { body: other, .. }) => {
            for (mine, theirs) in body.iter_mut().zip(other) {
                append(&mut mine.node, theirs.node);
            }
        }
        // Nodes of one shape are of one kind.
        _ => {}
    }
}

fn finish(node: Building) -> Node {
    match node {
        Building::Step {
            instruction,
            reads,
            writes,
            releases,
        } => {
            let columns = |list: Vec<Vec<u32>>| list.iter().map(|c| Column::of(c)).collect();
            Node::Step(Step {
                instruction: Column::of(&instruction),
                reads: columns(reads),
                writes: columns(writes),
                releases: columns(releases),
            })
        }
        Building::Loop { count, body } => Node::Loop {
            count,
            body: body.into_iter().map(|n| finish(n.node)).collect(),
        },
    }
}

/// What two steps must share to be iterations of one loop.
fn step_shape(program: &CiphertextProgram, step: &Flat) -> String {
    let Some(instruction) = program.instructions.get(step.instruction as usize) else {
        return String::new();
    };
    let levels: Vec<usize> = instruction
        .results
        .iter()
        .map(|id| program.info(*id).map_or(0, |v| v.level))
        .collect();
    let section = program.sections.get(instruction.section as usize);
    let detail = match &instruction.operation {
        Operation::LinearTransform { .. } | Operation::NestedTransform { .. } => {
            let transforms = instruction.operation.transforms();
            let giants = transforms.iter().flat_map(|t| &t.giants).map(|g| {
                let terms: Vec<_> = g.terms.iter().map(|t| (t.input, t.baby)).collect();
                (g.rotation, terms)
            });
            format!("{:?}", giants.collect::<Vec<_>>())
        }
        _ => String::new(),
    };
    format!(
        "{}|{detail}|{levels:?}|{}|{}|{}",
        instruction.operation.name(),
        step.reads.len(),
        step.releases.len(),
        section.map_or("", String::as_str)
    )
}
