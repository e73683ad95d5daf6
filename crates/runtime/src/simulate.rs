//! Mode `sim`: a ciphertext program on slots in the clear, with samples of the noise that
//! ciphertexts have, and a watch on every value's promised range.
//!
//! What the compiler promised of a value (its bound in every slot, its mean over the slots) is what
//! keeps encrypted values from running over their modulus; on ciphertexts nobody can look. Here one
//! can: an input that leaves the ranges that the program was compiled for is named with the part of
//! the model where it happens first.

use std::fmt;

use veilformer_circuits::testing::{ClearCiphertext, ClearOps, ClearPlain};
use veilformer_ckks::{Complex, Params, SecretKind, SlotVector};
use veilformer_ir::ciphertext::{
    CiphertextProgram, Instruction, Operation, PlainId, ValueId, replay,
};

use crate::RuntimeError;

/// A bound is met up to noise and the rounding of what the bound was computed from.
const TOLERANCE: f64 = 1e-3;

/// A program with its plaintexts encoded, ready to be simulated any number of times.
pub struct Simulator<'a> {
    program: &'a CiphertextProgram,
    ops: ClearOps,
    plains: Vec<ClearPlain>,
    /// Per value the last instruction that reads it; beyond all for outputs.
    last_use: Vec<usize>,
}

/// What a simulated run gives.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// The slots of every output.
    pub outputs: Vec<Vec<Complex>>,
    /// Values that left their promised range, in the program's order.
    pub violations: Vec<Violation>,
    /// Per value of the program its largest slot over what was promised of it; 0 where nothing
    /// was.
    pub used: Vec<f64>,
    /// What went into and came out of bootstraps, in the program's order: one for each value.
    pub bootstraps: Vec<BootstrapRange>,
}

/// A value that was bootstrapped.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapRange {
    /// The part of the model.
    pub section: String,
    /// Number of the value that went in.
    pub value: u32,
    /// Its largest slot, in absolute value; at most 1 is allowed.
    pub found: f64,
    /// What was promised of it.
    pub bound: f64,
    /// The largest difference between what went in and what came out, of any slot's part.
    pub error: f64,
    /// What is predicted of that.
    pub predicted: f64,
}

/// A value that left its promised range.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// The part of the model.
    pub section: String,
    /// Number of the value in the program.
    pub value: u32,
    /// The largest slot, in absolute value.
    pub found: f64,
    /// What was promised.
    pub bound: f64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: value c{} reaches {:.3e} and the program was compiled for at most {:.3e} \
             ({:.1} times as much)",
            self.section,
            self.value,
            self.found,
            self.bound,
            self.found / self.bound.max(f64::MIN_POSITIVE)
        )
    }
}

impl<'a> Simulator<'a> {
    /// Encodes the program's plaintexts, with the rounding that any encoding leaves. The program
    /// must have been verified against the parameters.
    ///
    /// # Errors
    /// What the encoder refuses.
    pub fn new(
        program: &'a CiphertextProgram,
        params: &Params,
        secret: SecretKind,
    ) -> Result<Self, RuntimeError> {
        let mut ops = ClearOps::with_noise(params, secret, 0);
        let plains = program.encode(&mut ops)?;
        let table = program.bootstraps.iter().map(|b| b.plan(params));
        ops.set_bootstraps(&table.collect::<Result<Vec<_>, _>>()?)?;
        let mut last_use = vec![0; program.values.len()];
        for (index, instruction) in program.instructions.iter().enumerate() {
            for id in instruction.operation.operands() {
                if let Some(last) = last_use.get_mut(id.0 as usize) {
                    *last = index;
                }
            }
        }
        for id in &program.outputs {
            if let Some(last) = last_use.get_mut(id.0 as usize) {
                *last = usize::MAX;
            }
        }
        Ok(Self {
            program,
            ops,
            plains,
            last_use,
        })
    }

    /// Runs the program on the slots of its inputs. The same seed gives the same noise.
    ///
    /// # Errors
    /// [`RuntimeError::InputCount`]; [`RuntimeError::Range`] where a value would run over its
    /// modulus; inputs that do not fit the slots.
    pub fn run(&mut self, inputs: &[Vec<f64>], seed: u64) -> Result<Simulation, RuntimeError> {
        self.ops.reseed(seed.wrapping_add(1));
        let program = self.program;
        if inputs.len() != program.inputs.len() {
            return Err(RuntimeError::InputCount {
                found: inputs.len(),
                expected: program.inputs.len(),
            });
        }
        let mut values: Vec<Option<ClearCiphertext>> = vec![None; program.values.len()];
        let mut violations = Vec::new();
        let mut used = vec![0.0; program.values.len()];
        let mut bootstraps = Vec::new();
        for (index, instruction) in program.instructions.iter().enumerate() {
            let results = match &instruction.operation {
                Operation::Input { index } => {
                    let slots = inputs.get(*index).map_or(&[][..], Vec::as_slice);
                    let level = program.inputs.get(*index).map_or(0, |i| i.level);
                    vec![self.ops.encrypt(&SlotVector::real(slots), level)?]
                }
                operation => {
                    let value = |id: ValueId| values.get(id.0 as usize)?.clone();
                    let plain = |id: PlainId| self.plains.get(id.0 as usize).cloned();
                    let results = replay(&mut self.ops, operation, &value, &plain, &|_| None);
                    results.map_err(|e| self.out_of_range(instruction, &e, &violations))?
                }
            };
            if let Operation::Bootstrap { inputs, which } = &instruction.operation {
                let pairs = inputs.iter().zip(&results);
                bootstraps.extend(pairs.filter_map(|(id, after)| {
                    let before = values.get(id.0 as usize)?.as_ref()?;
                    self.bootstrapped(instruction, (*id, *which), (before, after))
                }));
            }
            for (id, ct) in instruction.results.iter().zip(results) {
                let (part, violation) = self.watch(instruction, *id, &ct);
                violations.extend(violation);
                if let Some(place) = used.get_mut(id.0 as usize) {
                    *place = part;
                }
                if let Some(place) = values.get_mut(id.0 as usize) {
                    *place = Some(ct);
                }
            }
            for id in instruction.operation.operands() {
                let at = id.0 as usize;
                if self.last_use.get(at) == Some(&index) {
                    values[at] = None;
                }
            }
        }
        let slots = |id: &ValueId| {
            let ct = values.get(id.0 as usize).and_then(Option::as_ref);
            ct.map_or_else(Vec::new, |ct| self.ops.decrypt(ct))
        };
        Ok(Simulation {
            outputs: program.outputs.iter().map(slots).collect(),
            violations,
            used,
            bootstraps,
        })
    }

    /// What a bootstrap did to one value.
    fn bootstrapped(
        &self,
        instruction: &Instruction,
        (id, which): (ValueId, u32),
        (before, after): (&ClearCiphertext, &ClearCiphertext),
    ) -> Option<BootstrapRange> {
        let entry = self.program.bootstraps.get(which as usize)?;
        let (before, after) = (self.ops.decrypt(before), self.ops.decrypt(after));
        // Of real content the imaginary part does not come out, and is not meant to.
        let complex = entry.content.is_complex() && instruction.results.len() == 1;
        let part = |z: Complex| {
            if complex {
                z.re.abs().max(z.im.abs())
            } else {
                z.re.abs()
            }
        };
        let differences = before.iter().zip(&after).map(|(a, b)| part(a - b));
        Some(BootstrapRange {
            section: self.section(instruction),
            value: id.0,
            found: before.iter().map(|z| part(*z)).fold(0.0, f64::max),
            bound: self.program.info(id)?.bound,
            error: differences.fold(0.0, f64::max),
            predicted: entry.error,
        })
    }

    /// The value against what was promised of it: the part of its range that it takes, and
    /// whether it leaves it.
    fn watch(
        &self,
        instruction: &Instruction,
        id: ValueId,
        ct: &ClearCiphertext,
    ) -> (f64, Option<Violation>) {
        let Some(info) = self.program.info(id) else {
            return (0.0, None);
        };
        let slots = self.ops.decrypt(ct);
        let largest = slots.iter().fold(0.0f64, |m, s| m.max(s.norm()));
        let mean = slots.iter().map(|s| s.norm()).sum::<f64>() / slots.len().max(1) as f64;
        let part = if info.bound.is_finite() && info.bound > 0.0 {
            largest / info.bound
        } else {
            0.0
        };
        let room = |bound: f64| bound * (1.0 + TOLERANCE) + TOLERANCE;
        // What the modulus holds is decided by the mean; the bound is what polynomials rely on.
        let (found, bound) = if largest > room(info.bound) {
            (largest, info.bound)
        } else if mean > room(info.mean) {
            (mean, info.mean)
        } else {
            return (part, None);
        };
        let violation = Violation {
            section: self.section(instruction),
            value: id.0,
            found,
            bound,
        };
        (part, Some(violation))
    }

    fn section(&self, instruction: &Instruction) -> String {
        let name = self.program.sections.get(instruction.section as usize);
        name.cloned().unwrap_or_default()
    }

    /// A run that cannot go on, and what left its range before, which says more than where it ended.
    fn out_of_range(
        &self,
        instruction: &Instruction,
        error: &veilformer_ckks::OpsError,
        before: &[Violation],
    ) -> RuntimeError {
        let end = format!("{}: {error}", self.section(instruction));
        RuntimeError::Range(match before.first() {
            Some(first) => format!("{first}; then {end}"),
            None => end,
        })
    }
}
