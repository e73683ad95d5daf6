//! Other placements, to hold [`super::place`] against.

use super::block::last_reads;
use super::flow::Solver;
use super::{Block, BlockPlacement, Flow, Machine, Packing, Placement};
use crate::CompileError;

/// Bootstraps what has too few levels for the next node, when it comes; everything starts from the
/// highest level that there is.
///
/// # Errors
/// As [`super::place`].
pub fn greedy(flow: &Flow, machine: &Machine) -> Result<Placement, CompileError> {
    flow.check(machine)?;
    let mut placement = Placement::default();
    let mut entry = flow.entry.clone();
    for block in &flow.blocks {
        let mut runs: Vec<(usize, BlockPlacement)> = Vec::new();
        for _ in 0..block.times {
            let run = greedily(block, machine, &entry);
            entry.clone_from(&run.exit);
            placement.bootstraps += run.bootstraps;
            placement.seconds += run.seconds;
            match runs.last_mut() {
                Some((times, known)) if *known == run => *times += 1,
                _ => runs.push((1, run)),
            }
        }
        placement.blocks.push(runs);
    }
    Ok(placement)
}

fn greedily(block: &Block, machine: &Machine, entry: &[usize]) -> BlockPlacement {
    let mut run = BlockPlacement {
        entry: entry.to_vec(),
        ..BlockPlacement::default()
    };
    let mut levels = entry.to_vec();
    for (node, ahead) in block.nodes.iter().zip(ahead(block)) {
        let needed = node.depth + ahead;
        let low = node.reads.iter().filter(|r| r.start(&levels) < needed);
        let mut set: Vec<usize> = low.map(|r| r.value).collect();
        set.sort_unstable();
        set.dedup();
        let values: Vec<_> = set.iter().filter_map(|v| block.value(*v)).collect();
        let (count, seconds) = machine.bootstraps(&values);
        for value in &set {
            if let Some(level) = levels.get_mut(*value) {
                *level = machine.levels;
            }
        }
        let level = Block::highest(node, &levels, machine);
        run.bootstraps += count;
        run.seconds += seconds + node.seconds.get(level).copied().unwrap_or(0.0);
        run.steps.push((set, level));
        levels.push(level.saturating_sub(node.depth));
    }
    let exit = block.outputs.iter().map(|o| levels.get(*o).copied());
    run.exit = exit.map(|level| level.unwrap_or(0)).collect();
    run
}

/// By node the levels that are needed after it before something can be bootstrapped again.
fn ahead(block: &Block) -> Vec<usize> {
    let mut ahead = vec![0; block.nodes.len()];
    for index in (0..block.nodes.len()).rev() {
        let own = block.inputs.len() + index;
        let unbounded = block.nodes.get(index).map(|n| n.value.packing) == Some(Packing::Unbounded);
        let readers = block.nodes.iter().zip(&ahead).flat_map(|(node, ahead)| {
            let reads = node.reads.iter().filter(|r| r.value == own);
            reads.map(move |r| node.depth + ahead - r.late)
        });
        let most = readers.max().unwrap_or(0);
        if let (Some(place), true) = (ahead.get_mut(index), unbounded) {
            *place = most;
        }
    }
    ahead
}

/// Each block by its own shortest path, from the levels at which the one before it ended: what is
/// cheapest now, of ways that cost the same the one that ends highest, whatever comes next.
///
/// # Errors
/// As [`super::place`].
pub fn in_turn(flow: &Flow, machine: &Machine) -> Result<Placement, CompileError> {
    flow.check(machine)?;
    let mut placement = Placement::default();
    let mut entry = flow.entry.clone();
    for block in &flow.blocks {
        let mut solver = Solver::new(block, machine);
        let mut runs: Vec<(usize, BlockPlacement)> = Vec::new();
        for _ in 0..block.times {
            let ways = solver.ways(&entry)?;
            let height = |way: &BlockPlacement| way.exit.iter().sum::<usize>();
            let cheapest = ways.iter().min_by(|a, b| {
                let cheaper = a.seconds.total_cmp(&b.seconds);
                cheaper.then(height(b).cmp(&height(a)))
            });
            let Some(way) = cheapest else {
                return Err(CompileError::Placement(
                    "a block has no way through".to_owned(),
                ));
            };
            entry.clone_from(&way.exit);
            placement.bootstraps += way.bootstraps;
            placement.seconds += way.seconds;
            match runs.last_mut() {
                Some((times, known)) if *known == **way => *times += 1,
                _ => runs.push((1, (**way).clone())),
            }
        }
        placement.blocks.push(runs);
    }
    Ok(placement)
}

/// Each block solved alone, between ends at one level: of all levels the best. After the last block
/// any level does.
///
/// # Errors
/// As [`super::place`]; no level that suits the inputs and all blocks.
pub fn per_layer(flow: &Flow, machine: &Machine) -> Result<Placement, CompileError> {
    flow.check(machine)?;
    let most = flow.entry.iter().min().copied().unwrap_or(machine.levels);
    let mut best: Option<Placement> = None;
    for end in 0..=most {
        let Some(placement) = between(flow, machine, end)? else {
            continue;
        };
        if best.as_ref().is_none_or(|b| placement.seconds < b.seconds) {
            best = Some(placement);
        }
    }
    best.ok_or_else(|| CompileError::Placement("no level suits the ends of all blocks".to_owned()))
}

fn between(flow: &Flow, machine: &Machine, end: usize) -> Result<Option<Placement>, CompileError> {
    let mut placement = Placement::default();
    let blocks = flow.blocks.len();
    for (number, block) in flow.blocks.iter().enumerate() {
        let mut solver = Solver::new(block, machine);
        let ways = solver.ways(&vec![end; block.inputs.len()])?;
        let mut cheapest = |free: bool, times: usize| {
            let fits = |way: &&std::rc::Rc<BlockPlacement>| {
                free || way.exit.iter().all(|level| *level >= end)
            };
            let best = ways.iter().filter(fits);
            let best = best.min_by(|a, b| a.seconds.total_cmp(&b.seconds));
            best.map(|way| {
                placement.bootstraps += times * way.bootstraps;
                placement.seconds += times as f64 * way.seconds;
                (times, (**way).clone())
            })
        };
        let last = usize::from(number + 1 == blocks && block.times > 0);
        let parts = [(false, block.times - last), (true, last)];
        let parts = parts.into_iter().filter(|(_, times)| *times > 0);
        let runs = parts.map(|(free, times)| cheapest(free, times));
        let Some(runs) = runs.collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        placement.blocks.push(runs);
    }
    Ok(Some(placement))
}

/// Every set of bootstraps before every node and every level, one after the other: seconds of the
/// best. Takes time that grows exponentially with the number of nodes: for tests.
///
/// # Errors
/// As [`super::place`].
pub fn exhaustive(flow: &Flow, machine: &Machine) -> Result<f64, CompileError> {
    flow.check(machine)?;
    let runs = flow
        .blocks
        .iter()
        .flat_map(|b| (0..b.times).map(move |_| b));
    let runs: Vec<&Block> = runs.collect();
    let mut search = Search {
        machine,
        runs,
        best: f64::INFINITY,
    };
    search.node((0, 0), &flow.entry, 0.0);
    Ok(search.best)
}

struct Search<'a> {
    machine: &'a Machine,
    runs: Vec<&'a Block>,
    best: f64,
}

impl Search<'_> {
    fn node(&mut self, (run, index): (usize, usize), levels: &[usize], seconds: f64) {
        if seconds >= self.best {
            return;
        }
        let Some(block) = self.runs.get(run).copied() else {
            self.best = seconds;
            return;
        };
        let Some(node) = block.nodes.get(index) else {
            let exit = block.outputs.iter().map(|o| levels.get(*o).copied());
            let exit: Vec<usize> = exit.map(|level| level.unwrap_or(0)).collect();
            return self.node((run + 1, 0), &exit, seconds);
        };
        let last = last_reads(block);
        let alive = |v: &usize| last.get(*v).copied().flatten() >= Some(index);
        let alive: Vec<usize> = (0..levels.len()).filter(alive).collect();
        for bits in 0..1usize << alive.len() {
            let chosen = alive.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
            let set: Vec<usize> = chosen.map(|(_, v)| *v).collect();
            let mut levels = levels.to_vec();
            for value in &set {
                if let Some(level) = levels.get_mut(*value) {
                    *level = self.machine.levels;
                }
            }
            let values: Vec<_> = set.iter().filter_map(|v| block.value(*v)).collect();
            let seconds = seconds + self.machine.bootstraps(&values).1;
            let highest = Block::highest(node, &levels, self.machine);
            for level in node.depth..=highest {
                let mut levels = levels.clone();
                levels.push(level - node.depth);
                let own = node.seconds.get(level).copied().unwrap_or(f64::INFINITY);
                self.node((run, index + 1), &levels, seconds + own);
            }
        }
    }
}
