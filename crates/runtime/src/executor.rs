//! Runs a ciphertext program on an evaluator, in as many threads as the current rayon pool has.
//!
//! Every instruction may start when its operands are there; of those that may, the first in the
//! program's order does. One thread so runs in exactly that order, and several stay close to it:
//! the order of a program is one in which few values live. A value is let go after its last use.
//! What comes out does not depend on the order: the operations are deterministic.

use crate::RuntimeError;
use crate::stats::{RunStats, Tally, ciphertext_memory};
use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use veilformer_ckks::{Evaluator, OpsError, SharedCiphertext, SharedPlain};
use veilformer_ir::ciphertext::{
    CiphertextProgram, Operation, PlainId, PlainSpec, ValueId, replay,
};
use veilformer_ring::Backend;

/// Hears how many of how many instructions are done; `Break` stops the run.
pub type Progress<'a> = dyn Fn(usize, usize) -> ControlFlow<()> + Sync + 'a;

/// A program with its plaintexts encoded for a backend: ready to run any number of times.
pub struct Prepared<B: Backend> {
    plains: Vec<SharedPlain<B>>,
}

impl<B: Backend> Prepared<B> {
    /// Encodes all the program's plaintexts.
    ///
    /// # Errors
    /// What the encoder refuses.
    pub fn new(
        program: &CiphertextProgram,
        evaluator: &Evaluator<'_, B>,
    ) -> Result<Self, RuntimeError> {
        let encode = |(p, extended): (&PlainSpec, bool)| {
            let slots = p.pattern.expand();
            if extended {
                evaluator.encode_extended(&slots, p.level, p.scale)
            } else {
                evaluator.encode(&slots, p.level, p.scale)
            }
        };
        let plains = program
            .plains
            .par_iter()
            .zip(program.extended_plains())
            .map(encode)
            .collect::<Result<_, OpsError>>()?;
        Ok(Self { plains })
    }
}

/// Runs `program` on `inputs` and returns its outputs.
///
/// The program must have been verified against the evaluator's parameters.
///
/// # Errors
/// [`RuntimeError::InputCount`], [`RuntimeError::Input`] for inputs of the wrong level or scale,
/// [`RuntimeError::Stopped`] when `progress` breaks, and what an operation refuses.
pub fn run<B: Backend>(
    program: &CiphertextProgram,
    prepared: &Prepared<B>,
    evaluator: &Evaluator<'_, B>,
    inputs: &[SharedCiphertext<B>],
    progress: &Progress<'_>,
) -> Result<Vec<SharedCiphertext<B>>, RuntimeError> {
    Ok(run_with_stats(program, prepared, evaluator, inputs.to_vec(), progress)?.0)
}

/// As [`run`], with what the run took. The inputs are given away, so that each is let go after
/// its last use.
///
/// # Errors
/// As [`run`].
pub fn run_with_stats<B: Backend>(
    program: &CiphertextProgram,
    prepared: &Prepared<B>,
    evaluator: &Evaluator<'_, B>,
    inputs: Vec<SharedCiphertext<B>>,
    progress: &Progress<'_>,
) -> Result<(Vec<SharedCiphertext<B>>, RunStats), RuntimeError> {
    check_inputs::<B>(program, &inputs)?;
    let started = Instant::now();
    let run = Run::new(program, prepared, evaluator, inputs, progress);
    rayon::scope(|scope| {
        let ready: Vec<usize> = (0..run.waiting.len())
            .filter(|i| run.waiting[*i].load(Ordering::Relaxed) == 0)
            .collect();
        for i in ready {
            run.may_start(scope, i);
        }
    });
    let wall = started.elapsed();
    let Run {
        values,
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
        |id: &ValueId| -> Option<SharedCiphertext<B>> { lock(values.get(id.0 as usize)?).clone() };
    let outputs = program
        .outputs
        .iter()
        .map(|id| take(id).ok_or(RuntimeError::NoResult { value: id.0 }))
        .collect::<Result<_, _>>()?;
    Ok((outputs, tally.finish(wall, most_live.into_inner())))
}

fn check_inputs<B: Backend>(
    program: &CiphertextProgram,
    inputs: &[SharedCiphertext<B>],
) -> Result<(), RuntimeError> {
    if inputs.len() != program.inputs.len() {
        return Err(RuntimeError::InputCount {
            found: inputs.len(),
            expected: program.inputs.len(),
        });
    }
    for (index, (ct, info)) in inputs.iter().zip(&program.inputs).enumerate() {
        if ct.level() != info.level || !ct.scale().matches(info.scale) {
            return Err(RuntimeError::Input {
                index,
                found_level: ct.level(),
                expected_level: info.level,
            });
        }
    }
    Ok(())
}

pub(crate) fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

type Slot<B> = Mutex<Option<SharedCiphertext<B>>>;

/// One run: what is there, what waits, and who reads what.
struct Run<'a, B: Backend> {
    program: &'a CiphertextProgram,
    prepared: &'a Prepared<B>,
    evaluator: &'a Evaluator<'a, B>,
    inputs: Vec<Slot<B>>,
    progress: &'a Progress<'a>,
    values: Vec<Slot<B>>,
    /// Per value: bytes of the ciphertext.
    bytes: Vec<u64>,
    /// Per value: reads that are still to come; outputs count one more.
    reads: Vec<AtomicUsize>,
    /// Per instruction: operands that are not there yet.
    waiting: Vec<AtomicUsize>,
    /// Per value: the instructions that read it, once per read.
    readers: Vec<Vec<usize>>,
    /// Instructions that may start; there are as many tasks as entries.
    ready: Mutex<BinaryHeap<Reverse<usize>>>,
    done: AtomicUsize,
    live: AtomicU64,
    most_live: AtomicU64,
    tally: Mutex<Tally>,
    stopped: AtomicBool,
    failure: Mutex<Option<RuntimeError>>,
}

impl<'a, B: Backend> Run<'a, B> {
    fn new(
        program: &'a CiphertextProgram,
        prepared: &'a Prepared<B>,
        evaluator: &'a Evaluator<'a, B>,
        inputs: Vec<SharedCiphertext<B>>,
        progress: &'a Progress<'a>,
    ) -> Self {
        let mut readers = vec![Vec::new(); program.values.len()];
        let mut waiting = Vec::with_capacity(program.instructions.len());
        for (i, instruction) in program.instructions.iter().enumerate() {
            let operands = instruction.operation.operands();
            for id in &operands {
                if let Some(r) = readers.get_mut(id.0 as usize) {
                    r.push(i);
                }
            }
            waiting.push(AtomicUsize::new(operands.len()));
        }
        let mut reads: Vec<usize> = readers.iter().map(Vec::len).collect();
        for id in &program.outputs {
            if let Some(r) = reads.get_mut(id.0 as usize) {
                *r += 1;
            }
        }
        let params = evaluator.parameters();
        let memory = |level| ciphertext_memory(params, level);
        let live: u64 = inputs.iter().map(|ct| memory(ct.level())).sum();
        Self {
            program,
            prepared,
            evaluator,
            inputs: inputs.into_iter().map(|ct| Mutex::new(Some(ct))).collect(),
            progress,
            values: program.values.iter().map(|_| Mutex::new(None)).collect(),
            bytes: program.values.iter().map(|v| memory(v.level)).collect(),
            reads: reads.into_iter().map(AtomicUsize::new).collect(),
            waiting,
            readers,
            ready: Mutex::new(BinaryHeap::new()),
            done: AtomicUsize::new(0),
            live: AtomicU64::new(live),
            most_live: AtomicU64::new(live),
            tally: Mutex::new(Tally::new(program)),
            stopped: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    fn may_start<'s>(&'s self, scope: &rayon::Scope<'s>, index: usize) {
        lock(&self.ready).push(Reverse(index));
        // Whichever thread is free takes the first that is ready then, not this one.
        scope.spawn(move |scope| self.step(scope));
    }

    /// Runs the first instruction that is ready, and makes its readers ready.
    fn step<'s>(&'s self, scope: &rayon::Scope<'s>) {
        if self.stopped.load(Ordering::Relaxed) {
            return;
        }
        let next = lock(&self.ready).pop();
        let Some(instruction) = next.and_then(|i| self.program.instructions.get(i.0)) else {
            return;
        };
        let started = Instant::now();
        let results = match self.execute(&instruction.operation) {
            Ok(results) => results,
            Err(error) => return self.stop(error.into()),
        };
        let took = started.elapsed();
        lock(&self.tally).note(&instruction.operation, instruction.section, took);
        self.keep(&instruction.operation, &instruction.results, results);
        for id in instruction.operation.operands() {
            self.release(id);
        }
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.program.instructions.len();
        if (self.progress)(done, total).is_break() {
            return self.stop(RuntimeError::Stopped { done, total });
        }
        for id in &instruction.results {
            for reader in self.readers.get(id.0 as usize).into_iter().flatten() {
                let waiting = self.waiting.get(*reader);
                if waiting.is_some_and(|w| w.fetch_sub(1, Ordering::AcqRel) == 1) {
                    self.may_start(scope, *reader);
                }
            }
        }
    }

    fn execute(&self, operation: &Operation) -> Result<Vec<SharedCiphertext<B>>, OpsError> {
        let value = |id: ValueId| lock(self.values.get(id.0 as usize)?).clone();
        let plain = |id: PlainId| self.prepared.plains.get(id.0 as usize).cloned();
        let input = |i: usize| lock(self.inputs.get(i)?).take();
        let mut ops = self.evaluator.clone();
        replay(&mut ops, operation, &value, &plain, &input)
    }

    /// Puts results where their readers find them; those without readers are let go.
    fn keep(&self, op: &Operation, ids: &[ValueId], results: Vec<SharedCiphertext<B>>) {
        // An input was alive before it became a value.
        let is_new = !matches!(op, Operation::Input { .. });
        for (id, result) in ids.iter().zip(results) {
            let at = id.0 as usize;
            let bytes = self.bytes.get(at).copied().unwrap_or(0);
            if is_new {
                let live = self.live.fetch_add(bytes, Ordering::Relaxed) + bytes;
                self.most_live.fetch_max(live, Ordering::Relaxed);
            }
            let reads = self.reads.get(at).map_or(0, |r| r.load(Ordering::Relaxed));
            match self.values.get(at) {
                Some(slot) if reads > 0 => *lock(slot) = Some(result),
                _ => {
                    self.live.fetch_sub(bytes, Ordering::Relaxed);
                }
            }
        }
    }

    fn release(&self, id: ValueId) {
        let at = id.0 as usize;
        let last = self
            .reads
            .get(at)
            .is_some_and(|r| r.fetch_sub(1, Ordering::AcqRel) == 1);
        if last && let Some(slot) = self.values.get(at) {
            *lock(slot) = None;
            let bytes = self.bytes.get(at).copied().unwrap_or(0);
            self.live.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn stop(&self, error: RuntimeError) {
        self.stopped.store(true, Ordering::Relaxed);
        lock(&self.failure).get_or_insert(error);
    }
}
