//! Runs a ciphertext program on an evaluator, in as many threads as the current rayon pool has.
//!
//! Every instruction starts when its operands are there, and a value is let go after its last
//! use. What comes out does not depend on the order: the operations are deterministic.

use crate::RuntimeError;
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use veilformer_ckks::{Evaluator, OpsError, SharedCiphertext, SharedPlain};
use veilformer_ir::ciphertext::{CiphertextProgram, PlainId, ValueId, replay};
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
        let encode = |p: &veilformer_ir::ciphertext::PlainSpec| {
            evaluator.encode(&p.pattern.expand(), p.level, p.scale)
        };
        let plains = program
            .plains
            .par_iter()
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
    check_inputs::<B>(program, inputs)?;
    let run = Run::new(program, prepared, evaluator, inputs, progress);
    rayon::scope(|scope| {
        let ready: Vec<usize> = (0..run.waiting.len())
            .filter(|i| run.waiting[*i].load(Ordering::Relaxed) == 0)
            .collect();
        for i in ready {
            let run = &run;
            scope.spawn(move |scope| run.step(scope, i));
        }
    });
    if let Some(error) = run
        .failure
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        return Err(error);
    }
    let take = |id: &ValueId| -> Option<SharedCiphertext<B>> {
        lock(run.values.get(id.0 as usize)?).clone()
    };
    program
        .outputs
        .iter()
        .map(|id| take(id).ok_or(RuntimeError::NoResult { value: id.0 }))
        .collect()
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

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One run: what is there, what waits, and who reads what.
struct Run<'a, B: Backend> {
    program: &'a CiphertextProgram,
    prepared: &'a Prepared<B>,
    evaluator: &'a Evaluator<'a, B>,
    inputs: &'a [SharedCiphertext<B>],
    progress: &'a Progress<'a>,
    values: Vec<Mutex<Option<SharedCiphertext<B>>>>,
    /// Per value: reads that are still to come; outputs count one more.
    reads: Vec<AtomicUsize>,
    /// Per instruction: operands that are not there yet.
    waiting: Vec<AtomicUsize>,
    /// Per value: the instructions that read it, once per read.
    readers: Vec<Vec<usize>>,
    done: AtomicUsize,
    stopped: AtomicBool,
    failure: Mutex<Option<RuntimeError>>,
}

impl<'a, B: Backend> Run<'a, B> {
    fn new(
        program: &'a CiphertextProgram,
        prepared: &'a Prepared<B>,
        evaluator: &'a Evaluator<'a, B>,
        inputs: &'a [SharedCiphertext<B>],
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
        Self {
            program,
            prepared,
            evaluator,
            inputs,
            progress,
            values: program.values.iter().map(|_| Mutex::new(None)).collect(),
            reads: reads.into_iter().map(AtomicUsize::new).collect(),
            waiting,
            readers,
            done: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// Runs instruction `index`, then whatever it made ready: the first here, the others
    /// wherever there is a thread.
    fn step<'s>(&'s self, scope: &rayon::Scope<'s>, index: usize) {
        if self.stopped.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.execute(index) {
            self.stop(error);
            return;
        }
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.program.instructions.len();
        if (self.progress)(done, total).is_break() {
            self.stop(RuntimeError::Stopped { done, total });
            return;
        }
        let Some(instruction) = self.program.instructions.get(index) else {
            return;
        };
        for id in instruction.operation.operands() {
            self.release(id);
        }
        for id in &instruction.results {
            for reader in self.readers.get(id.0 as usize).into_iter().flatten() {
                if self.waiting[*reader].fetch_sub(1, Ordering::AcqRel) == 1 {
                    let reader = *reader;
                    scope.spawn(move |scope| self.step(scope, reader));
                }
            }
        }
    }

    fn execute(&self, index: usize) -> Result<(), RuntimeError> {
        let Some(instruction) = self.program.instructions.get(index) else {
            return Ok(());
        };
        let value = |id: ValueId| lock(self.values.get(id.0 as usize)?).clone();
        let plain = |id: PlainId| self.prepared.plains.get(id.0 as usize).cloned();
        let input = |i: usize| self.inputs.get(i).cloned();
        let mut ops = self.evaluator.clone();
        let results = replay(&mut ops, &instruction.operation, &value, &plain, &input)?;
        for (id, result) in instruction.results.iter().zip(results) {
            let unread = self
                .reads
                .get(id.0 as usize)
                .is_none_or(|r| r.load(Ordering::Relaxed) == 0);
            if let Some(slot) = self.values.get(id.0 as usize)
                && !unread
            {
                *lock(slot) = Some(result);
            }
        }
        Ok(())
    }

    fn release(&self, id: ValueId) {
        let Some(reads) = self.reads.get(id.0 as usize) else {
            return;
        };
        if reads.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(slot) = self.values.get(id.0 as usize)
        {
            *lock(slot) = None;
        }
    }

    fn stop(&self, error: RuntimeError) {
        self.stopped.store(true, Ordering::Relaxed);
        lock(&self.failure).get_or_insert(error);
    }
}
