//! The executor's way through the stream, simulated: the ready step that is first in the stream starts
//! on the thread that is free first; threads without a step help the others. What is taken from the pool
//! of buffers and given back to it meanwhile is written down.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;

use veilformer_ckks::Params;
use veilformer_ir::ciphertext::{CiphertextProgram, Instruction, Operation, ValueId};
use veilformer_ir::device::{BufferId, DeviceProgram, Resolved};

use crate::SectionStats;
use crate::cost::CostTable;
use crate::executor::Stream;
use crate::memory::{Event, Ledger, Performance, Script, Value, Writer, operands};
use crate::stats::{OpKind, key_switches};

/// No instruction is taken to be longer, whatever a table says: sums stay finite.
const MOST_SECONDS: f64 = 1e15;

/// What is run, and where.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) program: &'a CiphertextProgram,
    pub(crate) params: &'a Params,
    /// What happens inside of bootstraps.
    pub(crate) inside: &'a [CiphertextProgram],
    pub(crate) costs: &'a CostTable,
    pub(crate) device: &'a DeviceProgram,
    pub(crate) stream: &'a Stream,
}

/// One run.
pub(crate) struct Walk<'a> {
    scene: &'a Scene<'a>,
    waiting: Vec<usize>,
    ledger: Ledger,
    /// Per buffer of the device program those of the pool that its ciphertext is in.
    held: Vec<Option<[usize; 2]>>,
    /// The circuits of bootstraps, each with the seconds that its operations take.
    inside: Vec<(&'a CiphertextProgram, Vec<f64>)>,
    /// Scripts of bootstraps, by entry, threads that share their work, and operands.
    bootstraps: HashMap<(u32, usize, Vec<Value>), Rc<Script>>,
    /// Seconds by the clock.
    pub(crate) now: f64,
    /// Seconds of all instructions so far, each alone on one thread.
    pub(crate) alone: f64,
    live: u64,
    /// The most bytes of ciphertexts at once.
    pub(crate) peak_live: u64,
    pub(crate) sections: Vec<SectionStats>,
    /// Seconds of all threads in bootstraps.
    pub(crate) bootstrap_seconds: f64,
}

/// An instruction that runs.
struct Running {
    /// Seconds of one thread that it takes, and that it still takes.
    all: f64,
    left: f64,
    index: usize,
    /// When it began.
    since: f64,
    performance: Performance,
}

impl Running {
    /// Seconds of one thread from now until the next buffer comes or goes.
    fn next_event(&self) -> Option<f64> {
        let at = self.performance.next()?;
        Some((at * self.all - (self.all - self.left)).max(0.0))
    }
}

/// A run along the stream.
pub(crate) fn walk<'a>(scene: &'a Scene<'a>) -> Walk<'a> {
    let mut walk = Walk::new(scene);
    walk.run();
    walk
}

impl<'a> Walk<'a> {
    fn new(scene: &'a Scene<'a>) -> Self {
        let names = scene.program.sections.iter();
        Self {
            scene,
            waiting: scene.stream.dependencies().waiting.clone(),
            ledger: Ledger::default(),
            held: vec![None; scene.device.buffers.len()],
            inside: Vec::new(),
            bootstraps: HashMap::new(),
            now: 0.0,
            alone: 0.0,
            live: 0,
            peak_live: 0,
            sections: names
                .map(|name| SectionStats {
                    name: name.clone(),
                    ..SectionStats::default()
                })
                .collect(),
            bootstrap_seconds: 0.0,
        }
    }

    fn level(&self, id: ValueId) -> usize {
        self.scene.program.info(id).map_or(0, |v| v.level)
    }

    /// Words of one half of a ciphertext.
    fn words(&self, level: usize) -> usize {
        self.scene.params.basis_at(level).len() * self.scene.params.n()
    }

    /// What happened to the pool of buffers, all of which are back.
    pub(crate) fn events(&self) -> &[Event] {
        self.ledger.events()
    }

    fn run(&mut self) {
        let inside = self.scene.inside.iter().map(|circuit| {
            let operations = circuit.instructions.iter().map(|i| &i.operation);
            let seconds = operations.map(|o| self.seconds(circuit, o)).collect();
            (circuit, seconds)
        });
        self.inside = inside.collect();
        // Of each input one half is there as it was sent, until the answer is.
        let inputs = self.scene.program.inputs.iter();
        let sizes: Vec<usize> = inputs.map(|i| self.words(i.level)).collect();
        let stored: Vec<_> = sizes.iter().map(|words| self.ledger.take(*words)).collect();
        self.steps();
        let outputs = self.scene.program.outputs.iter();
        let sizes = outputs.flat_map(|id| [self.words(self.level(*id)); 2]);
        let sizes: Vec<usize> = sizes.collect();
        let answers: Vec<_> = sizes.iter().map(|words| self.ledger.take(*words)).collect();
        let held = self.held.iter_mut().filter_map(Option::take).flatten();
        for buffer in held.chain(stored).chain(answers) {
            self.ledger.give(buffer);
        }
    }

    fn steps(&mut self) {
        let threads = self.scene.device.threads.max(1);
        let mut ready: BinaryHeap<Reverse<usize>> = BinaryHeap::new();
        let starts = self.waiting.iter().enumerate().filter(|(_, w)| **w == 0);
        ready.extend(starts.map(|(index, _)| Reverse(index)));
        let mut running: Vec<Running> = Vec::new();
        loop {
            let sharing = threads / (running.len() + ready.len()).clamp(1, threads);
            while running.len() < threads
                && let Some(Reverse(index)) = ready.pop()
            {
                running.push(self.start(index, sharing));
            }
            let next = |a: &(usize, &Running), b: &(usize, &Running)| {
                let (a, b) = (a.1, b.1);
                a.left.total_cmp(&b.left).then(a.index.cmp(&b.index))
            };
            let first = running.iter().enumerate().min_by(next);
            let Some((place, left)) = first.map(|(place, r)| (place, r.left)) else {
                break;
            };
            until(&mut running, left, &mut self.ledger);
            self.now += left / self.scene.costs.speed(running.len(), threads);
            running.iter_mut().for_each(|r| r.left -= left);
            let done = running.remove(place);
            self.note_section(&done);
            for reader in self.finish(done) {
                ready.push(Reverse(reader));
            }
        }
    }

    /// Seconds that an operation takes alone on one thread.
    fn seconds(&self, program: &CiphertextProgram, operation: &Operation) -> f64 {
        let alone = self
            .scene
            .costs
            .operation(program, self.scene.inside, operation);
        alone.clamp(0.0, MOST_SECONDS)
    }

    /// Starts a step, whose work so many threads share.
    fn start(&mut self, index: usize, sharing: usize) -> Running {
        let (alone, performance) = match self.step(index) {
            None => (0.0, Performance::default()),
            Some((step, instruction)) => (
                self.seconds(self.scene.program, &instruction.operation),
                self.performance(step, &instruction.operation, sharing),
            ),
        };
        self.alone += alone;
        Running {
            all: alone,
            left: alone,
            index,
            since: self.now,
            performance,
        }
    }

    fn performance(
        &mut self,
        step: &Resolved,
        operation: &Operation,
        sharing: usize,
    ) -> Performance {
        let (params, program) = (self.scene.params, self.scene.program);
        let read = |b: &BufferId| self.held.get(b.0 as usize).copied().flatten();
        let pairs = step
            .reads
            .iter()
            .map(|b| read(b).unwrap_or([usize::MAX; 2]));
        let buffers: Vec<usize> = pairs.flatten().collect();
        let words: Vec<usize> = buffers.iter().map(|b| self.ledger.words(*b)).collect();
        let levels = operation.operands().into_iter().map(|id| self.level(id));
        let operands = operands(params, &levels.collect::<Vec<_>>(), &words);
        let write = |operands: &[Value]| {
            let writer = Writer::new(params, self.scene.device.threads, sharing);
            Rc::new(writer.script(program, &self.inside, (operation, operands)))
        };
        let script = match operation {
            Operation::Bootstrap { which, .. } => {
                let kind = (*which, sharing, operands);
                match self.bootstraps.get(&kind) {
                    Some(known) => known.clone(),
                    None => {
                        let script = write(&kind.2);
                        self.bootstraps.insert(kind, script.clone());
                        script
                    }
                }
            }
            _ => write(&operands),
        };
        Performance::new(script, buffers)
    }

    fn note_section(&mut self, done: &Running) {
        let Some((_, instruction)) = self.step(done.index) else {
            return;
        };
        if let Some(section) = self.sections.get_mut(instruction.section as usize) {
            section.instructions += 1;
            section.key_switches += key_switches(self.scene.program, &instruction.operation);
            section.seconds += self.now - done.since;
        }
        if OpKind::of(&instruction.operation) == OpKind::Bootstrap {
            self.bootstrap_seconds += self.now - done.since;
        }
    }

    fn step(&self, index: usize) -> Option<(&'a Resolved, &'a Instruction)> {
        let step = self.scene.stream.steps().get(index)?;
        let instruction = self.scene.program.instructions.get(step.instruction)?;
        Some((step, instruction))
    }

    /// Puts the results in place, lets go of what is not read any more; gives those that may
    /// start now.
    fn finish(&mut self, done: Running) -> Vec<usize> {
        let Some((step, _)) = self.step(done.index) else {
            return Vec::new();
        };
        let results = done.performance.finish(&mut self.ledger);
        let device = self.scene.device;
        let bytes = |b: &BufferId| device.buffers.get(b.0 as usize).map_or(0, |b| b.bytes);
        for (b, result) in step.writes.iter().zip(results) {
            if let Some(place) = self.held.get_mut(b.0 as usize) {
                *place = Some(result);
            }
        }
        self.live += step.writes.iter().map(bytes).sum::<u64>();
        self.peak_live = self.peak_live.max(self.live);
        self.live -= step.releases.iter().map(bytes).sum::<u64>();
        for b in &step.releases {
            let place = self.held.get_mut(b.0 as usize).and_then(Option::take);
            let ledger = &mut self.ledger;
            place.into_iter().flatten().for_each(|b| ledger.give(b));
        }
        let mut ready = Vec::new();
        let successors = &self.scene.stream.dependencies().successors;
        for &next in successors.get(done.index).into_iter().flatten() {
            if let Some(waiting) = self.waiting.get_mut(next) {
                *waiting -= 1;
                if *waiting == 0 {
                    ready.push(next);
                }
            }
        }
        ready
    }
}

/// Lets happen in all steps what does in the next `seconds` of one thread, in its order.
fn until(running: &mut [Running], seconds: f64, ledger: &mut Ledger) {
    loop {
        let next = running
            .iter_mut()
            .filter_map(|r| Some((r.next_event()?, r)));
        match next.min_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((at, running)) if at <= seconds => running.performance.step(ledger),
            _ => return,
        }
    }
}
