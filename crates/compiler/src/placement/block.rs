//! One block from one state at its start: every way that may be part of the best.

use std::collections::HashMap;

use super::{Block, BlockPlacement, Machine, Packing, Read};
use crate::CompileError;

/// Most states after one node. So many come up only where very many values are alive at once.
const MOST_STATES: usize = 1 << 15;

/// Most values alive at once: sets of them are tried.
const MOST_ALIVE: usize = 12;

/// In the place of the level of a value that nobody reads any more.
const DEAD: usize = usize::MAX;

/// A way up to some node.
struct Way {
    /// By value: its level, or [`DEAD`].
    levels: Vec<usize>,
    seconds: f64,
    /// Index of the last step, if any.
    last: Option<usize>,
}

/// A step of a way: what happened at one node.
struct Step {
    before: Option<usize>,
    bootstrapped: Vec<usize>,
    level: usize,
}

/// Per value the last node that reads it; outputs are read at the end, and what is never read has
/// `None`.
pub(super) fn last_reads(block: &Block) -> Vec<Option<usize>> {
    let mut last = vec![None; block.inputs.len() + block.nodes.len()];
    let end = block.nodes.len();
    let reads = block.nodes.iter().enumerate();
    let reads = reads.flat_map(|(index, node)| node.reads.iter().map(move |r| (r.value, index)));
    for (read, index) in reads.chain(block.outputs.iter().map(|output| (*output, end))) {
        if let Some(place) = last.get_mut(read) {
            *place = Some(index);
        }
    }
    last
}

/// All ways through a block that may be part of the best, from inputs at these levels.
///
/// # Errors
/// More values alive at once than can be looked at.
pub(super) fn solve(
    block: &Block,
    machine: &Machine,
    entry: &[usize],
) -> Result<Vec<BlockPlacement>, CompileError> {
    let last = last_reads(block);
    let alive = |value: usize, node: usize| last.get(value).copied().flatten() >= Some(node);
    let mut levels = entry.to_vec();
    let kept = levels.iter_mut().enumerate();
    kept.filter(|(v, _)| !alive(*v, 0))
        .for_each(|(_, l)| *l = DEAD);
    let mut ways = vec![Way {
        levels,
        seconds: 0.0,
        last: None,
    }];
    let mut steps: Vec<Step> = Vec::new();
    for (index, node) in block.nodes.iter().enumerate() {
        let mut best: HashMap<Vec<usize>, Way> = HashMap::new();
        for way in &ways {
            for set in sets(block, way, (&node.reads, machine.levels))? {
                let (levels, seconds) = bootstrapped(block, machine, way, &set);
                let highest = Block::highest(node, &levels, machine);
                for level in node.depth..=highest {
                    let mut levels = levels.clone();
                    levels.push(level - node.depth);
                    let gone = levels.iter_mut().enumerate();
                    gone.filter(|(v, _)| !alive(*v, index + 1))
                        .for_each(|(_, l)| *l = DEAD);
                    let own = node.seconds.get(level).copied().unwrap_or(f64::INFINITY);
                    let seconds = seconds + own;
                    if best.get(&levels).is_some_and(|w| w.seconds <= seconds) {
                        continue;
                    }
                    steps.push(Step {
                        before: way.last,
                        bootstrapped: set.clone(),
                        level,
                    });
                    let last = Some(steps.len() - 1);
                    best.insert(
                        levels.clone(),
                        Way {
                            levels,
                            seconds,
                            last,
                        },
                    );
                }
            }
        }
        ways = undominated(best.into_values().collect());
        if ways.len() > MOST_STATES {
            return Err(CompileError::Placement(format!(
                "stage {}: too many values are alive at once",
                node.name
            )));
        }
    }
    let finish = |way: &Way| finished(block, machine, (way, &steps), entry);
    Ok(ways.iter().map(finish).collect())
}

/// Sets of values that may be bootstrapped before a node that reads `reads`: none, and each with one
/// of these at least.
fn sets(
    block: &Block,
    way: &Way,
    (reads, top): (&[Read], usize),
) -> Result<Vec<Vec<usize>>, CompileError> {
    let levels = way.levels.iter().enumerate();
    // What is at the top gains nothing.
    let low = levels.filter(|(_, l)| **l < top).map(|(v, _)| v);
    let bounded = |v: &usize| {
        block
            .value(*v)
            .is_some_and(|v| v.packing != Packing::Unbounded)
    };
    let low: Vec<usize> = low.filter(bounded).collect();
    if low.len() > MOST_ALIVE {
        return Err(CompileError::Placement(format!(
            "{} values are alive at once; at most {MOST_ALIVE} can be looked at",
            low.len()
        )));
    }
    let all = (0..1usize << low.len()).map(|bits| {
        let chosen = low.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
        chosen.map(|(_, v)| *v).collect::<Vec<usize>>()
    });
    let useful = |set: &Vec<usize>| {
        set.is_empty() || set.iter().any(|v| reads.iter().any(|r| r.value == *v))
    };
    Ok(all.filter(useful).collect())
}

/// Levels and seconds after a set is bootstrapped.
fn bootstrapped(block: &Block, machine: &Machine, way: &Way, set: &[usize]) -> (Vec<usize>, f64) {
    let values: Vec<_> = set.iter().filter_map(|v| block.value(*v)).collect();
    let mut levels = way.levels.clone();
    for value in set {
        if let Some(level) = levels.get_mut(*value) {
            *level = machine.levels;
        }
    }
    (levels, way.seconds + machine.bootstraps(&values).1)
}

/// Drops every way of which another has all levels, in no more time.
fn undominated(mut ways: Vec<Way>) -> Vec<Way> {
    // Of ways of one time the one with more levels comes first.
    ways.sort_by(|a, b| {
        let time = a.seconds.total_cmp(&b.seconds);
        time.then_with(|| b.levels.cmp(&a.levels))
    });
    let mut kept: Vec<Way> = Vec::new();
    for way in ways {
        let above = |k: &Way| k.levels.iter().zip(&way.levels).all(|(a, b)| a >= b);
        if !kept.iter().any(above) {
            kept.push(way);
        }
    }
    kept
}

fn finished(
    block: &Block,
    machine: &Machine,
    (way, all): (&Way, &[Step]),
    entry: &[usize],
) -> BlockPlacement {
    let mut steps = Vec::with_capacity(block.nodes.len());
    let mut bootstraps = 0;
    let mut at = way.last;
    while let Some(step) = at.and_then(|index| all.get(index)) {
        let values = step.bootstrapped.iter().filter_map(|v| block.value(*v));
        bootstraps += machine.bootstraps(&values.collect::<Vec<_>>()).0;
        steps.push((step.bootstrapped.clone(), step.level));
        at = step.before;
    }
    steps.reverse();
    let exit = block.outputs.iter().map(|o| way.levels.get(*o).copied());
    BlockPlacement {
        steps,
        entry: entry.to_vec(),
        exit: exit.map(|level| level.unwrap_or(0)).collect(),
        bootstraps,
        seconds: way.seconds,
    }
}
