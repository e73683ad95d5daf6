//! Runs a device program on an evaluator, in as many threads as the current rayon pool has.
//!
//! Every step may start when what it reads is there and what it writes is free; of those that may,
//! the first of the stream does. One thread so runs in exactly that order, and several stay close to
//! it. What comes out does not depend on the order: the operations are deterministic.

use crate::RuntimeError;
use crate::memory::plains_bytes;
use crate::stats::{RunStats, Tally, processor_time};
use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use veilformer_circuits::CircuitError;
use veilformer_circuits::bootstrap::{Bootstrap, BootstrapPlan, Bootstrapping};
use veilformer_ckks::{Evaluator, Ops, OpsError, SharedCiphertext, SharedPlain};
use veilformer_ir::IrError;
use veilformer_ir::ciphertext::{
    CiphertextProgram, Operation, PlainId, PlainSpec, ValueId, replay,
};
use veilformer_ir::device::{BufferId, Dependencies, DeviceProgram, Resolved};
use veilformer_ring::Backend;

/// Hears how many of how many steps are done: instructions of a run, measurements; `Break` stops it.
pub type Progress<'a> = dyn Fn(usize, usize) -> ControlFlow<()> + Sync + 'a;

/// A program with its plaintexts encoded for a backend: ready to run any number of times.
pub struct Prepared<B: Backend> {
    /// None of those that are encoded when they are read.
    plains: Vec<Option<SharedPlain<B>>>,
    /// Which are for rotated inputs.
    extended: Vec<bool>,
    /// Encoded once, for all instructions that name them.
    bootstraps: Vec<Bootstrap<SharedPlain<B>>>,
}

impl<B: Backend> Prepared<B> {
    /// Encodes all the program's plaintexts, and those of its bootstraps.
    ///
    /// # Errors
    /// What the encoder refuses.
    pub fn new(
        program: &CiphertextProgram,
        evaluator: &Evaluator<'_, B>,
    ) -> Result<Self, RuntimeError> {
        Self::keeping(program, evaluator, u64::MAX)
    }

    /// As [`Prepared::new`], but of the program's own plaintexts only so many bytes, encoded, are kept;
    /// the others are encoded whenever an instruction reads them.
    ///
    /// # Errors
    /// As [`Prepared::new`].
    pub fn keeping(
        program: &CiphertextProgram,
        evaluator: &Evaluator<'_, B>,
        most: u64,
    ) -> Result<Self, RuntimeError> {
        let extended = program.extended_plains();
        let bytes = plains_bytes(program, evaluator.params());
        let mut left = most;
        let kept = bytes.iter().map(|bytes| {
            let fits = *bytes <= left;
            left -= if fits { *bytes } else { 0 };
            fits
        });
        let kept: Vec<bool> = kept.collect();
        let plains = program
            .plains
            .par_iter()
            .zip(&extended)
            .zip(kept)
            .map(|((spec, extended), kept)| {
                kept.then(|| encode(evaluator, (spec, *extended)))
                    .transpose()
            })
            .collect::<Result<_, OpsError>>()?;
        let plans = program.bootstraps.iter();
        let plans = plans.map(|info| info.plan(evaluator.params()));
        let plans = plans.collect::<Result<Vec<_>, CircuitError>>()?;
        Ok(Self {
            plains,
            extended,
            bootstraps: BootstrapPlan::encode_table(&plans, &mut evaluator.clone())?,
        })
    }
}

fn encode<B: Backend>(
    evaluator: &Evaluator<'_, B>,
    (spec, extended): (&PlainSpec, bool),
) -> Result<SharedPlain<B>, OpsError> {
    let slots = spec.pattern.expand();
    if extended {
        evaluator.encode_extended(&slots, spec.level, spec.scale)
    } else {
        evaluator.encode(&slots, spec.level, spec.scale)
    }
}

/// Gives the input of an index when its step comes. It must be of the level and scale that the
/// program says.
pub type Inputs<'a, B> = dyn Fn(usize) -> Result<SharedCiphertext<B>, RuntimeError> + Sync + 'a;

/// A device program, checked against its ciphertext program and taken apart: its steps, and which
/// of them wait for which.
pub struct Stream {
    steps: Vec<Resolved>,
    buffers: Vec<u64>,
    outputs: Vec<BufferId>,
    dependencies: Dependencies,
    /// Per step and result: how many steps read it; what the stream never lets go, answers
    /// included, has one more.
    reads: Vec<Vec<usize>>,
}

impl Stream {
    /// Checks a device program.
    ///
    /// # Errors
    /// [`RuntimeError::Ir`] where it is not the ciphertext program.
    pub fn new(program: &CiphertextProgram, device: &DeviceProgram) -> Result<Self, RuntimeError> {
        device.verify(program)?;
        let why = "a loop has more iterations than numbers".to_owned();
        let steps = device.steps().ok_or(IrError::Device { index: 0, why })?;
        let mut stream = Self {
            buffers: device.buffers.iter().map(|b| b.bytes).collect(),
            outputs: device.outputs.clone(),
            dependencies: Dependencies::of(&steps, device.buffers.len()),
            reads: steps.iter().map(|s| vec![0; s.writes.len()]).collect(),
            steps,
        };
        stream.count_reads();
        Ok(stream)
    }

    /// Steps in their order.
    #[must_use]
    pub fn steps(&self) -> &[Resolved] {
        &self.steps
    }

    /// Which steps wait for which.
    #[must_use]
    pub fn dependencies(&self) -> &Dependencies {
        &self.dependencies
    }

    /// Counts the reads of every result.
    fn count_reads(&mut self) {
        // Per buffer: the step and result number of what it holds.
        let mut held: Vec<Option<(usize, usize)>> = vec![None; self.buffers.len()];
        for (index, step) in self.steps.iter().enumerate() {
            let reads: BTreeSet<usize> = step.reads.iter().map(|b| b.0 as usize).collect();
            for b in reads {
                if let Some((writer, result)) = held[b] {
                    self.reads[writer][result] += 1;
                }
            }
            for (result, b) in step.writes.iter().enumerate() {
                held[b.0 as usize] = Some((index, result));
                self.reads[index][result] = 1;
            }
            for b in &step.releases {
                if let Some((writer, result)) = held[b.0 as usize] {
                    self.reads[writer][result] -= 1;
                }
            }
        }
    }
}

/// Runs `program` along `stream` and returns its outputs and what the run took.
///
/// The program must have been verified against the evaluator's parameters.
///
/// # Errors
/// [`RuntimeError::Input`] for inputs of the wrong level or scale, [`RuntimeError::Stopped`] when
/// `progress` breaks, what `inputs` returns, and what an operation refuses.
pub fn run<B: Backend>(
    (program, stream): (&CiphertextProgram, &Stream),
    prepared: &Prepared<B>,
    evaluator: &Evaluator<'_, B>,
    inputs: &Inputs<'_, B>,
    progress: &Progress<'_>,
) -> Result<(Vec<SharedCiphertext<B>>, RunStats), RuntimeError> {
    let (started, cpu) = (Instant::now(), processor_time());
    let run = Run {
        program,
        stream,
        prepared,
        evaluator,
        inputs,
        progress,
        buffers: stream.buffers.iter().map(|_| Mutex::new(None)).collect(),
        reads: stream.buffers.iter().map(|_| AtomicUsize::new(0)).collect(),
        waiting: stream
            .dependencies
            .waiting
            .iter()
            .map(|w| AtomicUsize::new(*w))
            .collect(),
        ready: Mutex::new(BinaryHeap::new()),
        done: AtomicUsize::new(0),
        live: AtomicU64::new(0),
        most_live: AtomicU64::new(0),
        tally: Mutex::new(Tally::new(program)),
        stopped: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    rayon::scope(|scope| {
        let ready: Vec<usize> = (0..run.waiting.len())
            .filter(|i| stream.dependencies.waiting[*i] == 0)
            .collect();
        for i in ready {
            run.may_start(scope, i);
        }
    });
    let wall = started.elapsed();
    let cpu = processor_time()
        .zip(cpu)
        .map(|(now, then)| now.saturating_sub(then));
    let Run {
        buffers,
        failure,
        tally,
        most_live,
        ..
    } = run;
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let take =
        |b: &BufferId| -> Option<SharedCiphertext<B>> { lock(buffers.get(b.0 as usize)?).clone() };
    let outputs = stream
        .outputs
        .iter()
        .map(|b| take(b).ok_or(RuntimeError::NoResult { value: b.0 }))
        .collect::<Result<_, _>>()?;
    Ok((outputs, tally.finish((wall, cpu), most_live.into_inner())))
}

pub(crate) fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

type Slot<B> = Mutex<Option<SharedCiphertext<B>>>;

/// One run: what is there and what waits.
struct Run<'a, B: Backend> {
    program: &'a CiphertextProgram,
    stream: &'a Stream,
    prepared: &'a Prepared<B>,
    evaluator: &'a Evaluator<'a, B>,
    inputs: &'a Inputs<'a, B>,
    progress: &'a Progress<'a>,
    buffers: Vec<Slot<B>>,
    /// Per buffer: reads of what it holds that are still to come.
    reads: Vec<AtomicUsize>,
    /// Per step: others that are not done yet.
    waiting: Vec<AtomicUsize>,
    /// Steps that may start; there are as many tasks as entries.
    ready: Mutex<BinaryHeap<Reverse<usize>>>,
    done: AtomicUsize,
    live: AtomicU64,
    most_live: AtomicU64,
    tally: Mutex<Tally>,
    stopped: AtomicBool,
    failure: Mutex<Option<RuntimeError>>,
}

impl<B: Backend> Run<'_, B> {
    fn may_start<'s>(&'s self, scope: &rayon::Scope<'s>, index: usize) {
        lock(&self.ready).push(Reverse(index));
        // Whichever thread is free takes the first that is ready then, not this one.
        scope.spawn(move |scope| self.step(scope));
    }

    /// Runs the first step that is ready, and makes those ready that waited for it alone.
    fn step<'s>(&'s self, scope: &rayon::Scope<'s>) {
        if self.stopped.load(Ordering::Relaxed) {
            return;
        }
        let next = lock(&self.ready).pop();
        let Some((index, step)) = next.and_then(|i| Some((i.0, self.stream.steps.get(i.0)?)))
        else {
            return;
        };
        let Some(instruction) = self.program.instructions.get(step.instruction) else {
            return;
        };
        let started = Instant::now();
        let results = match self.execute(&instruction.operation, step) {
            Ok(results) => results,
            Err(error) => return self.stop(error),
        };
        let took = started.elapsed();
        lock(&self.tally).note(self.program, instruction, took);
        self.keep(index, step, results);
        let mut operands = step.reads.clone();
        operands.sort_unstable();
        operands.dedup();
        operands.iter().for_each(|b| self.release(*b));
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.stream.steps.len();
        if (self.progress)(done, total).is_break() {
            return self.stop(RuntimeError::Stopped { done, total });
        }
        for next in self
            .stream
            .dependencies
            .successors
            .get(index)
            .into_iter()
            .flatten()
        {
            let waiting = self.waiting.get(*next);
            if waiting.is_some_and(|w| w.fetch_sub(1, Ordering::AcqRel) == 1) {
                self.may_start(scope, *next);
            }
        }
    }

    fn execute(
        &self,
        operation: &Operation,
        step: &Resolved,
    ) -> Result<Vec<SharedCiphertext<B>>, RuntimeError> {
        if let Operation::Input { index } = operation {
            return Ok(vec![self.input(*index)?]);
        }
        let operands = operation.operands();
        let value = |id: ValueId| {
            let at = operands.iter().position(|o| *o == id)?;
            lock(self.buffers.get(step.reads.get(at)?.0 as usize)?).clone()
        };
        let fresh = self.encode_missing(operation)?;
        let plain = |id: PlainId| {
            let kept = self.prepared.plains.get(id.0 as usize)?;
            kept.clone().or_else(|| fresh.get(&id).cloned())
        };
        let table = &self.prepared.bootstraps;
        let mut ops = Bootstrapping::new(self.evaluator.clone(), table);
        Ok(replay(&mut ops, operation, &value, &plain, &|_| None)?)
    }

    /// The plaintexts that an operation reads and that are not kept.
    fn encode_missing(
        &self,
        operation: &Operation,
    ) -> Result<BTreeMap<PlainId, SharedPlain<B>>, RuntimeError> {
        let Prepared {
            plains, extended, ..
        } = self.prepared;
        let missing = |id: &PlainId| matches!(plains.get(id.0 as usize), Some(None));
        let ids: BTreeSet<PlainId> = operation.plains().into_iter().filter(missing).collect();
        let one = |id: PlainId| {
            let at = id.0 as usize;
            let spec = self.program.plains.get(at).zip(extended.get(at));
            let (spec, extended) = spec?;
            let plain = encode(self.evaluator, (spec, *extended));
            Some(plain.map(|plain| (id, plain)))
        };
        let encoded = ids.into_par_iter().filter_map(one);
        Ok(encoded.collect::<Result<_, OpsError>>()?)
    }

    fn input(&self, index: usize) -> Result<SharedCiphertext<B>, RuntimeError> {
        let ct = (self.inputs)(index)?;
        match self.program.inputs.get(index) {
            Some(info) if ct.level() == info.level && ct.scale().matches(info.scale) => Ok(ct),
            info => Err(RuntimeError::Input {
                index,
                found_level: ct.level(),
                expected_level: info.map_or(0, |i| i.level),
            }),
        }
    }

    /// Puts results where their readers find them; those without readers are let go.
    fn keep(&self, index: usize, step: &Resolved, results: Vec<SharedCiphertext<B>>) {
        for (number, (b, result)) in step.writes.iter().zip(results).enumerate() {
            let at = b.0 as usize;
            let bytes = self.stream.buffers.get(at).copied().unwrap_or(0);
            let live = self.live.fetch_add(bytes, Ordering::Relaxed) + bytes;
            self.most_live.fetch_max(live, Ordering::Relaxed);
            let reads = self.stream.reads.get(index).and_then(|r| r.get(number));
            let reads = reads.copied().unwrap_or(0);
            if let (Some(count), Some(slot), true) =
                (self.reads.get(at), self.buffers.get(at), reads > 0)
            {
                count.store(reads, Ordering::Release);
                *lock(slot) = Some(result);
            } else {
                self.live.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
    }

    fn release(&self, b: BufferId) {
        let at = b.0 as usize;
        let count = self.reads.get(at);
        let last = count.is_some_and(|r| r.fetch_sub(1, Ordering::AcqRel) == 1);
        if last && let Some(slot) = self.buffers.get(at) {
            *lock(slot) = None;
            let bytes = self.stream.buffers.get(at).copied().unwrap_or(0);
            self.live.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn stop(&self, error: RuntimeError) {
        self.stopped.store(true, Ordering::Relaxed);
        lock(&self.failure).get_or_insert(error);
    }
}
