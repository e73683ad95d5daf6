//! The pass to a device program: order, buffers, loops.
//!
//! The order is the recorded one or one that greedily frees most memory at each step; buffers are
//! given out along it. A buffer that was let go may wait before it is given out again: the longer,
//! the more steps can run at once, and the more memory it takes. Of all these the schedule of least
//! memory stays whose time, by rough weights of the operations, is within a few percent of the
//! shortest. A buffer is of one level: on the backends that there are, memory of one size is not cut
//! for another. Blocks that repeat are then rolled into loops.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use veilformer_ckks::Params;
use veilformer_ir::ciphertext::{CiphertextProgram, Instruction, Operation, ValueId};
use veilformer_ir::device::{
    Buffer, BufferId, Dependencies, DeviceProgram, NONE, Resolved, resources,
};

use crate::roll::{Flat, roll};

/// Above this many instructions the greedy order is not tried: it is quadratic.
const GREEDY_LIMIT: usize = 20_000;

/// How much longer than the shortest schedule the chosen one may take.
const SLACK: f64 = 1.04;

/// Schedules a verified program for a device that runs up to `threads` steps at once.
pub fn schedule(program: &CiphertextProgram, params: &Params, threads: usize) -> DeviceProgram {
    let threads = threads.max(1);
    let lifetimes = Lifetimes::new(program);
    let mut orders = vec![(0..program.instructions.len()).collect::<Vec<_>>()];
    if program.instructions.len() <= GREEDY_LIMIT {
        orders.push(greedy(program, params, &lifetimes));
    }
    // Alone, a step finds everything done before it: nothing is gained by waiting.
    let waits: &[usize] = if threads == 1 { &[1] } else { &[1, 8, 64] };
    let mut tried: Vec<(f64, Assigned)> = Vec::new();
    for order in &orders {
        for wait in waits {
            let assigned = assign(program, params, &lifetimes, (order, threads * wait));
            tried.push((makespan(program, &assigned, threads), assigned));
        }
    }
    let shortest = tried.iter().fold(f64::INFINITY, |m, t| m.min(t.0));
    let fast = tried.into_iter().filter(|t| t.0 <= shortest * SLACK);
    let best = fast.min_by_key(|(_, assigned)| bytes(&assigned.buffers));
    let best = best.map(|t| t.1);
    finish(program, threads, best.unwrap_or_default())
}

/// Time of a schedule in units of an addition of one limb: of the steps that may start, the first
/// starts on the thread that is free first.
fn makespan(program: &CiphertextProgram, assigned: &Assigned, threads: usize) -> f64 {
    let buffers = |list: &[u32]| list.iter().map(|b| BufferId(*b)).collect();
    let steps: Vec<Resolved> = assigned
        .steps
        .iter()
        .map(|s| Resolved {
            instruction: s.instruction as usize,
            reads: buffers(&s.reads),
            writes: buffers(&s.writes),
            releases: Vec::new(),
        })
        .collect();
    let Dependencies {
        mut waiting,
        successors,
    } = Dependencies::of(&steps, assigned.buffers.len());
    let starts = waiting.iter().enumerate().filter(|(_, w)| **w == 0);
    let mut ready: BinaryHeap<Reverse<usize>> = starts.map(|(i, _)| Reverse(i)).collect();
    let mut running: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut now = 0;
    loop {
        while running.len() < threads
            && let Some(Reverse(index)) = ready.pop()
        {
            let instruction = steps.get(index).map_or(0, |s| s.instruction);
            running.push(Reverse((now + weight(program, instruction), index)));
        }
        let Some(Reverse((end, index))) = running.pop() else {
            return now as f64;
        };
        now = end;
        for &next in successors.get(index).into_iter().flatten() {
            waiting[next] -= 1;
            if waiting[next] == 0 {
                ready.push(Reverse(next));
            }
        }
    }
}

/// A rough weight of an instruction, in additions of one limb. Ratios of one machine; they decide
/// between schedules, and nothing else.
fn weight(program: &CiphertextProgram, index: usize) -> u64 {
    const SWITCH: usize = 20;
    let Some(instruction) = program.instructions.get(index) else {
        return 0;
    };
    let operands = instruction.operation.operands();
    let first = operands.first().or(instruction.results.first());
    let limbs = 1 + first
        .and_then(|id| program.info(*id))
        .map_or(0, |v| v.level);
    let additions = match &instruction.operation {
        Operation::MulSum(pairs) => SWITCH + 2 * pairs.len(),
        Operation::RotateMany { steps, .. } => SWITCH * steps.len(),
        Operation::RotateSum { steps, .. } => SWITCH * (1 + steps.len()) / 2,
        Operation::Conjugate(_) => SWITCH,
        Operation::Adjust { .. } | Operation::Rescale(_) => 3,
        Operation::ModRaise(_) => SWITCH,
        Operation::LinearTransform { .. } | Operation::NestedTransform { .. } => {
            let transforms = instruction.operation.transforms();
            let giants = || transforms.iter().flat_map(|t| &t.giants);
            let products: usize = giants().map(|g| g.terms.len()).sum();
            let keys = program.key_uses(&instruction.operation);
            let switches = keys.iter().collect::<BTreeSet<_>>().len();
            2 * products + SWITCH * switches / 2 + 3 * transforms.len()
        }
        // Most of it at twice the limbs of what goes in.
        Operation::Bootstrap { which, .. } => {
            let entry = program.bootstraps.get(*which as usize);
            2 * SWITCH * entry.map_or(1, |b| b.key_switches)
        }
        _ => 1,
    };
    (limbs * additions) as u64
}

/// The same program in its recorded order, every value in a place of its own until the end: what a
/// schedule is measured against.
pub fn unscheduled(program: &CiphertextProgram, params: &Params, threads: usize) -> DeviceProgram {
    let mut buffers = Vec::with_capacity(program.values.len());
    for value in &program.values {
        buffers.push(buffer(params, value.level));
    }
    let steps = program
        .instructions
        .iter()
        .enumerate()
        .map(|(i, instruction)| Flat {
            instruction: i as u32,
            reads: instruction
                .operation
                .operands()
                .iter()
                .map(|id| id.0)
                .collect(),
            writes: instruction.results.iter().map(|id| id.0).collect(),
            releases: vec![],
        });
    let assigned = Assigned {
        steps: steps.collect(),
        buffers,
        outputs: program.outputs.iter().map(|id| BufferId(id.0)).collect(),
    };
    finish(program, threads.max(1), assigned)
}

fn finish(program: &CiphertextProgram, threads: usize, assigned: Assigned) -> DeviceProgram {
    let order = assigned.steps.iter().map(|s| s.instruction as usize);
    let (keys, plains) = resources(program, order);
    DeviceProgram {
        threads,
        nodes: roll(program, assigned.steps),
        buffers: assigned.buffers,
        outputs: assigned.outputs,
        keys,
        plains,
    }
}

fn buffer(params: &Params, level: usize) -> Buffer {
    Buffer {
        level,
        bytes: params.ciphertext_bytes(level),
    }
}

fn bytes(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(|b| b.bytes).sum()
}

/// Who reads what.
struct Lifetimes {
    /// Per value the instructions that read it, each once; outputs have a reader beyond all.
    readers: Vec<BTreeSet<usize>>,
}

impl Lifetimes {
    fn new(program: &CiphertextProgram) -> Self {
        let mut readers = vec![BTreeSet::new(); program.values.len()];
        let mut note = |id: ValueId, reader: usize| {
            if let Some(set) = readers.get_mut(id.0 as usize) {
                set.insert(reader);
            }
        };
        for (index, instruction) in program.instructions.iter().enumerate() {
            for id in instruction.operation.operands() {
                note(id, index);
            }
        }
        for id in &program.outputs {
            note(*id, usize::MAX);
        }
        Self { readers }
    }

    /// Per value how many reads are still to come.
    fn counts(&self) -> Vec<usize> {
        self.readers.iter().map(BTreeSet::len).collect()
    }
}

/// The operands of an instruction, each once, in their order.
fn distinct_operands(instruction: &Instruction) -> Vec<ValueId> {
    let mut seen = BTreeSet::new();
    let mut operands = instruction.operation.operands();
    operands.retain(|id| seen.insert(*id));
    operands
}

/// Always the ready instruction that adds least memory or frees most, the first of equals.
fn greedy(program: &CiphertextProgram, params: &Params, lifetimes: &Lifetimes) -> Vec<usize> {
    let size = |id: &ValueId| {
        let level = program.info(*id).map_or(0, |v| v.level);
        params.ciphertext_bytes(level) as i64
    };
    let operands: Vec<Vec<ValueId>> = program.instructions.iter().map(distinct_operands).collect();
    let mut waiting: Vec<usize> = operands.iter().map(Vec::len).collect();
    let mut left = lifetimes.counts();
    let mut ready: BTreeSet<usize> = (0..waiting.len()).filter(|i| waiting[*i] == 0).collect();
    let mut order = Vec::with_capacity(waiting.len());
    loop {
        let grows = |index: &usize| -> i64 {
            let made = program.instructions.get(*index).map(|i| &i.results);
            let made: i64 = made.into_iter().flatten().map(size).sum();
            let last = |id: &&ValueId| left.get(id.0 as usize) == Some(&1);
            let freed: i64 = operands[*index].iter().filter(last).map(size).sum();
            made - freed
        };
        let Some(next) = ready.iter().copied().min_by_key(|i| (grows(i), *i)) else {
            return order;
        };
        ready.remove(&next);
        order.push(next);
        for id in &operands[next] {
            if let Some(count) = left.get_mut(id.0 as usize) {
                *count = count.saturating_sub(1);
            }
        }
        let results = program.instructions.get(next).map(|i| i.results.as_slice());
        for id in results.into_iter().flatten() {
            for reader in lifetimes.readers.get(id.0 as usize).into_iter().flatten() {
                if let Some(w) = waiting.get_mut(*reader) {
                    *w -= 1;
                    if *w == 0 {
                        ready.insert(*reader);
                    }
                }
            }
        }
    }
}

/// Steps in their order with the buffers that they use.
#[derive(Default)]
struct Assigned {
    steps: Vec<Flat>,
    buffers: Vec<Buffer>,
    outputs: Vec<BufferId>,
}

/// Gives out buffers along `order`. One that a step lets go is not given to the next `wait - 1`
/// steps: they may run beside it.
fn assign(
    program: &CiphertextProgram,
    params: &Params,
    lifetimes: &Lifetimes,
    (order, wait): (&[usize], usize),
) -> Assigned {
    let mut left = lifetimes.counts();
    let mut place: Vec<Option<u32>> = vec![None; program.values.len()];
    let mut buffers: Vec<Buffer> = Vec::new();
    // By level: free buffers with the position from which on they may be taken.
    let mut free: BTreeMap<usize, VecDeque<(u32, usize)>> = BTreeMap::new();
    let mut steps = Vec::with_capacity(order.len());
    for (position, &index) in order.iter().enumerate() {
        let Some(instruction) = program.instructions.get(index) else {
            continue;
        };
        let at = |id: &ValueId, place: &[Option<u32>]| {
            place
                .get(id.0 as usize)
                .copied()
                .flatten()
                .unwrap_or(u32::MAX)
        };
        let operands = instruction.operation.operands();
        let reads = operands.iter().map(|id| at(id, &place)).collect();
        let mut writes = Vec::with_capacity(instruction.results.len());
        for id in &instruction.results {
            let level = program.info(*id).map_or(0, |v| v.level);
            let waiting = free.entry(level).or_default();
            let taken = match waiting.front() {
                Some((b, from)) if *from <= position => {
                    let b = *b;
                    waiting.pop_front();
                    b
                }
                _ => {
                    buffers.push(buffer(params, level));
                    buffers.len() as u32 - 1
                }
            };
            place[id.0 as usize] = Some(taken);
            writes.push(taken);
        }
        let operands = distinct_operands(instruction);
        for id in &operands {
            if let Some(count) = left.get_mut(id.0 as usize) {
                *count = count.saturating_sub(1);
            }
        }
        let mut releases = Vec::with_capacity(operands.len() + writes.len());
        // A result that nobody reads is let go at once.
        for id in operands.iter().chain(&instruction.results) {
            let done = left.get(id.0 as usize) == Some(&0);
            let taken = place.get_mut(id.0 as usize);
            match taken.filter(|_| done).and_then(Option::take) {
                Some(b) => {
                    let level = program.info(*id).map_or(0, |v| v.level);
                    let waiting = free.entry(level).or_default();
                    waiting.push_back((b, position + wait));
                    releases.push(b);
                }
                None => releases.push(NONE),
            }
        }
        steps.push(Flat {
            instruction: index as u32,
            reads,
            writes,
            releases,
        });
    }
    let outputs = program.outputs.iter();
    let outputs = outputs
        .map(|id| {
            BufferId(
                place
                    .get(id.0 as usize)
                    .copied()
                    .flatten()
                    .unwrap_or(u32::MAX),
            )
        })
        .collect();
    Assigned {
        steps,
        buffers,
        outputs,
    }
}
