//! Blocks one after the other, and blocks that repeat.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::block::solve;
use super::{Block, BlockPlacement, Flow, Machine, Placement};
use crate::CompileError;

/// How the runs of a block that repeats may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loops {
    /// Each in its own way: the cheapest, with as many versions of the block as ways.
    Free,
    /// All alike, but for the first perhaps: two versions of the block at most.
    Alike,
}

/// Ways through a block, by the levels of its inputs: each solved when it is first asked for.
pub(super) struct Solver<'a> {
    machine: &'a Machine,
    block: &'a Block,
    known: BTreeMap<Vec<usize>, Rc<Vec<Rc<BlockPlacement>>>>,
    /// How often the block was solved.
    solved: usize,
}

impl<'a> Solver<'a> {
    pub(super) fn new(block: &'a Block, machine: &'a Machine) -> Self {
        Self {
            machine,
            block,
            known: BTreeMap::new(),
            solved: 0,
        }
    }

    pub(super) fn ways(
        &mut self,
        entry: &[usize],
    ) -> Result<Rc<Vec<Rc<BlockPlacement>>>, CompileError> {
        if let Some(known) = self.known.get(entry) {
            return Ok(Rc::clone(known));
        }
        let ways = solve(self.block, self.machine, entry)?;
        self.solved += 1;
        let ways = Rc::new(ways.into_iter().map(Rc::new).collect::<Vec<_>>());
        self.known.insert(entry.to_vec(), Rc::clone(&ways));
        Ok(ways)
    }

    /// How often the block was solved: once for each entry.
    pub(super) fn solved(&self) -> usize {
        self.solved
    }
}

/// Runs so far: seconds, and per run its block, times and way, the last one first.
#[derive(Clone)]
struct Way {
    seconds: f64,
    last: Option<Rc<Run>>,
}

struct Run {
    block: usize,
    times: usize,
    way: Rc<BlockPlacement>,
    before: Option<Rc<Run>>,
}

impl Way {
    fn and(&self, block: usize, times: usize, way: &Rc<BlockPlacement>) -> Self {
        Self {
            seconds: self.seconds + times as f64 * way.seconds,
            last: Some(Rc::new(Run {
                block,
                times,
                way: Rc::clone(way),
                before: self.last.clone(),
            })),
        }
    }
}

/// By levels of all values that go on.
type States = BTreeMap<Vec<usize>, Way>;

/// The cheapest placement of all.
///
/// # Errors
/// [`CompileError::Placement`]: blocks that do not fit each other; a stage that is deeper than a
/// bootstrap has levels; too many values alive at once.
pub fn place(flow: &Flow, machine: &Machine, loops: Loops) -> Result<Placement, CompileError> {
    flow.check(machine)?;
    let start = Way {
        seconds: 0.0,
        last: None,
    };
    let mut states = States::from([(flow.entry.clone(), start)]);
    let mut solved = 0;
    for (number, block) in flow.blocks.iter().enumerate() {
        let mut solver = Solver::new(block, machine);
        states = match (loops, block.times) {
            (_, 0) => states,
            (Loops::Alike, 2..) => alike(&states, (number, block), &mut solver)?,
            (_, times) => {
                for _ in 0..times {
                    states = once(&states, number, &mut solver)?;
                }
                states
            }
        };
        solved += solver.solved();
    }
    let best = states.into_values();
    let best = best.min_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let best = best.ok_or_else(|| CompileError::Placement("no way through".to_owned()))?;
    Ok(Placement {
        solved,
        ..gathered(flow.blocks.len(), best)
    })
}

/// One run of a block from every state.
fn once(states: &States, number: usize, solver: &mut Solver<'_>) -> Result<States, CompileError> {
    let mut next = States::new();
    for (entry, way) in states {
        for run in solver.ways(entry)?.iter() {
            keep(&mut next, &run.exit, way.and(number, 1, run));
        }
    }
    Ok(undominated(next))
}

/// All runs of a block alike: from levels that its outputs have as well.
fn alike(
    states: &States,
    (number, block): (usize, &Block),
    solver: &mut Solver<'_>,
) -> Result<States, CompileError> {
    let mut next = States::new();
    for (entry, way) in states {
        // The first run may start from more than those after it, by another way.
        for first in solver.ways(entry)?.iter() {
            let after = way.and(number, 1, first);
            for low in below(&first.exit) {
                for run in solver.ways(&low)?.iter() {
                    if run.exit.iter().zip(&low).all(|(a, b)| a >= b) {
                        keep(
                            &mut next,
                            &run.exit,
                            after.and(number, block.times - 1, run),
                        );
                    }
                }
            }
        }
        for low in below(entry) {
            for run in solver.ways(&low)?.iter() {
                if run.exit.iter().zip(&low).all(|(a, b)| a >= b) {
                    keep(&mut next, &run.exit, way.and(number, block.times, run));
                }
            }
        }
    }
    Ok(undominated(next))
}

/// All vectors of levels up to these.
fn below(levels: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for level in levels {
        let longer = all.iter().flat_map(|v: &Vec<usize>| {
            (0..=*level).map(|l| {
                let mut v = v.clone();
                v.push(l);
                v
            })
        });
        all = longer.collect();
    }
    all
}

fn keep(states: &mut States, levels: &[usize], way: Way) {
    match states.get_mut(levels) {
        Some(known) if known.seconds <= way.seconds => {}
        Some(known) => *known = way,
        None => {
            states.insert(levels.to_vec(), way);
        }
    }
}

/// Without the states of which another has all levels for no more.
fn undominated(states: States) -> States {
    let beaten = |levels: &Vec<usize>, way: &Way| {
        states.iter().any(|(others, other)| {
            others != levels
                && other.seconds <= way.seconds
                && others.iter().zip(levels).all(|(a, b)| a >= b)
        })
    };
    let kept = states.iter().filter(|(levels, way)| !beaten(levels, way));
    kept.map(|(levels, way)| (levels.clone(), way.clone()))
        .collect()
}

/// The runs in their order, equal ones together.
fn gathered(blocks: usize, way: Way) -> Placement {
    let mut placement = Placement {
        blocks: vec![Vec::new(); blocks],
        seconds: way.seconds,
        ..Placement::default()
    };
    let mut at = way.last;
    while let Some(run) = at {
        placement.bootstraps += run.times * run.way.bootstraps;
        if let Some(runs) = placement.blocks.get_mut(run.block) {
            match runs.last_mut() {
                Some((times, known)) if *known == *run.way => *times += run.times,
                _ => runs.push((run.times, (*run.way).clone())),
            }
        }
        at = run.before.clone();
    }
    placement.blocks.iter_mut().for_each(|runs| runs.reverse());
    placement
}
