//! Where to bootstrap, over a whole program.
//!
//! # What goes in
//! A [`Flow`]: blocks of [`Node`]s, one after the other; a block that repeats is written once. A node
//! is a stage of a circuit that reads values and makes one: it takes all that it reads at one level (or
//! some of it so many levels later), takes `depth` levels away, and has a time for each level that it
//! may start from. A value is some
//! ciphertexts that live and are bootstrapped together ([`Value`]: how many, and what their slots
//! hold). A stage that may be interrupted (a polynomial between two of its powers, an iteration) is a
//! chain of nodes, each with as many ciphertexts in its value as are alive at that cut; one that is
//! deeper than the levels that a bootstrap gives has to be. Levels count from 0, the level at which
//! a bootstrap takes its input ([`veilformer_circuits::bootstrap::BootstrapPlan::input_level`]), to
//! [`Machine::levels`], that of its output. Times are any: those of encoders
//! are counted ([`crate::encoder::circuit::Times`]), so that every machine compiles the same program.
//!
//! Within a block values are numbered: its inputs, then what its nodes make, in their order. The
//! outputs of a block are the inputs of the next: what a later block reads has to go through all
//! between (as an output that is an input).
//!
//! # What is decided
//! Before each node a set of values that are alive may be bootstrapped, which puts them at the highest
//! level; real ciphertexts of one set share bootstraps by two. Then the node starts from any level
//! that all that it reads have: to lower a ciphertext is free, so that where branches join, the
//! lowest decides, and a low level makes everything until the next bootstrap cheaper.
//!
//! [`place`] finds the cheapest of all these. State after a node: the level of every value that is
//! still read. A state of which another has all levels, for less, is dropped; that is safe because
//! levels can be given up for nothing, and few remain, since few values are alive at a cut. A set of
//! bootstraps can wait until a node reads one of its values, so only such sets are looked at. A
//! block is solved once for each state at its start, however often it repeats.
//!
//! Beside it, to hold it against: [`greedy`] bootstraps what has too few levels for the next node;
//! [`in_turn`] takes each block's own shortest path from where the one before it ended; [`per_layer`]
//! solves each block alone between ends of one level (as Ebel, Garimella, Reagen, "Orion", arXiv
//! 2311.03470, does with layers), and of these levels takes the best for the whole program, so that
//! where all blocks are alike it may well be the optimum; [`exhaustive`] tries everything.

mod block;
mod compare;
mod flow;

pub use compare::{exhaustive, greedy, in_turn, per_layer};
pub use flow::{Loops, place};

use crate::CompileError;

/// What the slots of a value's ciphertexts hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Packing {
    /// Real numbers: two ciphertexts share a bootstrap.
    Real,
    /// Complex numbers: a bootstrap each.
    Complex,
    /// Real numbers with a short period: the cheaper bootstrap of few slots each.
    Sparse,
    /// Numbers without a bound: no bootstrap takes them.
    Unbounded,
}

/// Ciphertexts that live and are bootstrapped together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// How many.
    pub ciphertexts: usize,
    /// What they hold.
    pub packing: Packing,
}

/// A value that a stage reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its number in the block.
    pub value: usize,
    /// How many levels below the one that the stage starts from it comes in.
    pub late: usize,
}

impl Read {
    /// A value that comes in where the stage starts.
    #[must_use]
    pub fn first(value: usize) -> Self {
        Self { value, late: 0 }
    }

    /// The highest level that a stage may start from, as far as this value goes.
    fn start(&self, levels: &[usize]) -> usize {
        levels.get(self.value).map_or(0, |level| level + self.late)
    }
}

/// A stage of a circuit.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// For people.
    pub name: String,
    /// Values that it reads: all of smaller numbers than its own.
    pub reads: Vec<Read>,
    /// Levels that it takes.
    pub depth: usize,
    /// Seconds by the level that it starts from, `0..=levels`; those below `depth` are not read.
    pub seconds: Vec<f64>,
    /// What it makes.
    pub value: Value,
}

/// Stages with what goes in and out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    /// The values that it gets: numbers `0..inputs.len()`.
    pub inputs: Vec<Value>,
    /// The stages; what the i-th makes is number `inputs.len() + i`.
    pub nodes: Vec<Node>,
    /// Numbers of the values that the next block gets.
    pub outputs: Vec<usize>,
    /// How often it runs, each time on its own outputs; then these are like its inputs.
    pub times: usize,
}

/// A program for which bootstraps are to be placed.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// The highest level at which each input of the first block may come; at most that of a
    /// bootstrap's output.
    pub entry: Vec<usize>,
    /// One after the other.
    pub blocks: Vec<Block>,
}

/// Levels and times of bootstraps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Levels that a bootstrap gives.
    pub levels: usize,
    /// Seconds of a bootstrap of a complex ciphertext, or of two real ones.
    pub complex: f64,
    /// Of one real ciphertext.
    pub real: f64,
    /// Of one with a short period.
    pub sparse: f64,
}

/// What was decided for one run of a block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockPlacement {
    /// Per node: what is bootstrapped before it (numbers of values, ascending), and the level that it
    /// starts from.
    pub steps: Vec<(Vec<usize>, usize)>,
    /// Levels of the inputs that were counted on.
    pub entry: Vec<usize>,
    /// Levels of the outputs.
    pub exit: Vec<usize>,
    /// Bootstraps; a pair is one.
    pub bootstraps: usize,
    /// Seconds, bootstraps included.
    pub seconds: f64,
}

/// What was decided for a program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// Per block its runs: so many times this.
    pub blocks: Vec<Vec<(usize, BlockPlacement)>>,
    /// Bootstraps in all; a pair is one.
    pub bootstraps: usize,
    /// Seconds in all, bootstraps included.
    pub seconds: f64,
    /// Blocks that were solved, each for one state at its start: what compiling took.
    pub solved: usize,
}

impl Machine {
    /// Number and seconds of the bootstraps of some values at once.
    #[must_use]
    pub fn bootstraps(&self, values: &[Value]) -> (usize, f64) {
        let count = |packing| {
            let of = values.iter().filter(|v| v.packing == packing);
            of.map(|v| v.ciphertexts).sum::<usize>()
        };
        let (real, sparse) = (count(Packing::Real), count(Packing::Sparse));
        let complex = count(Packing::Complex) + real / 2;
        let single = real % 2;
        let seconds = if count(Packing::Unbounded) > 0 {
            f64::INFINITY
        } else {
            complex as f64 * self.complex + single as f64 * self.real + sparse as f64 * self.sparse
        };
        (complex + single + sparse, seconds)
    }
}

impl Block {
    /// The level from which a node starts at most.
    fn highest(node: &Node, levels: &[usize], machine: &Machine) -> usize {
        let starts = node.reads.iter().map(|read| read.start(levels));
        starts.min().unwrap_or(machine.levels).min(machine.levels)
    }

    /// A value of the block.
    fn value(&self, number: usize) -> Option<Value> {
        let made = number.checked_sub(self.inputs.len());
        match made {
            None => self.inputs.get(number).copied(),
            Some(node) => self.nodes.get(node).map(|n| n.value),
        }
    }

    fn check(&self, machine: &Machine) -> Result<(), String> {
        for (index, node) in self.nodes.iter().enumerate() {
            let own = self.inputs.len() + index;
            let fail = |what: String| Err(format!("stage {}: {what}", node.name));
            if let Some(read) = node.reads.iter().find(|r| r.value >= own) {
                let value = read.value;
                return fail(format!("it reads value {value} and makes number {own}"));
            }
            if node.reads.iter().any(|r| r.late > node.depth) {
                return fail("it reads a value after its last level".to_owned());
            }
            if node.depth > machine.levels {
                return fail(format!(
                    "it takes {} levels and a bootstrap gives {}; cut it into several",
                    node.depth, machine.levels
                ));
            }
            let times = node.seconds.get(node.depth..=machine.levels);
            if !times.is_some_and(|t| t.iter().all(|s| s.is_finite() && *s >= 0.0)) {
                return fail(format!(
                    "a time for each level up to {} is expected",
                    machine.levels
                ));
            }
        }
        if let Some(bad) = self.outputs.iter().find(|o| self.value(**o).is_none()) {
            return Err(format!("output {bad} is no value of the block"));
        }
        let given: Vec<_> = self.outputs.iter().map(|o| self.value(*o)).collect();
        let taken: Vec<_> = self.inputs.iter().map(|v| Some(*v)).collect();
        if self.times > 1 && given != taken {
            return Err("a block that repeats gives other values than it takes".to_owned());
        }
        Ok(())
    }
}

impl Flow {
    /// Whether blocks and times fit each other and the machine.
    fn check(&self, machine: &Machine) -> Result<(), CompileError> {
        let fail = |what: String| Err(CompileError::Placement(what));
        let seconds = [machine.complex, machine.real, machine.sparse];
        if !seconds.iter().all(|s| s.is_finite() && *s >= 0.0) {
            return fail("the time of a bootstrap is no time".to_owned());
        }
        if self.entry.iter().any(|level| *level > machine.levels) {
            return fail("an input comes above the level of a bootstrap's output".to_owned());
        }
        let mut before: Option<Vec<Option<Value>>> = None;
        for (number, block) in self.blocks.iter().enumerate() {
            if let Err(what) = block.check(machine) {
                return fail(format!("block {number}: {what}"));
            }
            let takes: Vec<Option<Value>> = block.inputs.iter().map(|v| Some(*v)).collect();
            let fits = match &before {
                None => takes.len() == self.entry.len(),
                Some(gives) => *gives == takes,
            };
            if !fits {
                return fail(format!("block {number} takes other values than come to it"));
            }
            before = Some(match block.times {
                // It does not run: what comes goes on.
                0 => takes,
                _ => block.outputs.iter().map(|o| block.value(*o)).collect(),
            });
        }
        Ok(())
    }
}
