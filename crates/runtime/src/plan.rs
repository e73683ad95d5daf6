//! What a run takes, before it runs: a fold over the program with the costs of this machine.

use serde::{Deserialize, Serialize};
use veilformer_ckks::container::{EvaluationKeysHeader, ciphertexts_file_bytes};
use veilformer_ckks::{KeyId, KeyList, Params, SecretKind};
use veilformer_compiler::schedule::schedule;
use veilformer_ir::ciphertext::{CiphertextProgram, ValueId};
use veilformer_ir::device::DeviceProgram;

use crate::bundle::container;
use crate::cost::{Cost, CostTable, encoded, encodings, inside};
use crate::executor::Stream;
use crate::memory;
use crate::stats::{OpKind, RunStats, key_switches, multiplications};
use crate::walk::{Scene, walk};
use crate::{RuntimeError, SectionStats};

/// What one run takes, which answers as many sentences as the program's batch. Bytes, key switches
/// and multiplications are exact; seconds and peak memory are estimates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Sentences that one run answers.
    pub batch: usize,
    /// Seconds by the clock for one run, its ciphertexts read and written, with weights
    /// encoded and keys loaded.
    pub seconds: f64,
    /// Processor time of the same, of all threads together.
    pub cpu_seconds: f64,
    /// Seconds by the clock until the first sentence may come: weights encoded, keys prepared.
    pub load_seconds: f64,
    /// Largest resident set of a server process that loads the keys from their file, one after the
    /// other, and answers several times.
    pub peak_memory_bytes: u64,
    /// Of these: the most that ciphertexts take at once during a run.
    pub peak_ciphertext_bytes: u64,
    /// Bytes of the device program's buffers, which is what is set aside for them.
    pub buffer_bytes: u64,
    /// What ciphertexts would take if no buffer were used twice.
    pub buffer_bytes_without_reuse: u64,
    /// Of these: keys and weights in the form that is computed with.
    pub resident_bytes: u64,
    /// Of these: the program's own weights.
    pub weight_bytes: u64,
    /// What these would take without periods: a packed value for every prime and coefficient.
    pub full_weight_bytes: u64,
    /// The most of the program's own weights that one instruction reads.
    pub most_weight_bytes: u64,
    /// Seconds by the clock to encode them all.
    pub weight_seconds: f64,
    /// Length of the file of evaluation keys.
    pub key_bytes: u64,
    /// Length of the file with one encrypted sentence.
    pub ciphertext_bytes_up: u64,
    /// Length of the file with its encrypted answer.
    pub ciphertext_bytes_down: u64,
    /// Key switches (see [`key_switches`]).
    pub key_switches: u64,
    /// Products of two ciphertexts, squares included.
    pub multiplications: u64,
    /// Bootstraps, of one value or of a pair.
    pub bootstraps: u64,
    /// Seconds of all threads that they take together.
    pub bootstrap_seconds: f64,
    /// The highest level of the parameters.
    pub levels: usize,
    /// Threads that were assumed.
    pub threads: usize,
    /// By section of the program: instructions, key switches, seconds of all threads together.
    pub per_section: Vec<SectionStats>,
}

impl Plan {
    /// The plan of a server whose peak of memory is at most `memory` bytes, as far as that is possible
    /// by keeping fewer weights, and how many bytes of them it keeps (see
    /// [`crate::Server::open_keeping`]): all others are encoded anew in every run.
    #[must_use]
    pub fn within(&self, memory: u64) -> (Self, u64) {
        let over = self.peak_memory_bytes.saturating_sub(memory);
        if over == 0 {
            return (self.clone(), u64::MAX);
        }
        // What one instruction reads beside them is there while it runs, on each thread.
        let beside = self.most_weight_bytes * self.threads as u64;
        let kept = self.weight_bytes.saturating_sub(over + beside);
        let left_out = self.weight_bytes - kept;
        let seconds = self.weight_seconds * left_out as f64 / self.weight_bytes.max(1) as f64;
        let plan = Self {
            seconds: self.seconds + seconds,
            cpu_seconds: self.cpu_seconds + seconds * self.threads as f64,
            load_seconds: (self.load_seconds - seconds).max(0.0),
            peak_memory_bytes: self.peak_memory_bytes - left_out + beside,
            resident_bytes: self.resident_bytes - left_out,
            ..self.clone()
        };
        (plan, kept)
    }
}

/// Plans the answer to one sentence by `threads` threads.
///
/// The program must have been verified against the parameters.
///
/// # Errors
/// None in practice; serialization's, whose lengths are counted.
pub fn plan(
    program: &CiphertextProgram,
    params: &Params,
    keys: &KeyList,
    costs: &CostTable,
    threads: usize,
) -> Result<Plan, RuntimeError> {
    let threads = threads.max(1);
    let device = schedule(program, params, threads);
    plan_scheduled((program, &device), params, keys, costs)
}

/// As [`plan`], along a given device program and for its threads.
///
/// # Errors
/// A device program that is not the ciphertext program.
pub fn plan_scheduled(
    (program, device): (&CiphertextProgram, &DeviceProgram),
    params: &Params,
    keys: &KeyList,
    costs: &CostTable,
) -> Result<Plan, RuntimeError> {
    let threads = device.threads;
    let stream = Stream::new(program, device)?;
    let inside = inside(program, params)?;
    let memory = memory::Estimate {
        program,
        inside: &inside,
        params,
        keys,
        threads,
        isa: costs.isa(),
    };
    let scene = Scene {
        program,
        params,
        inside: &inside,
        costs,
        device,
        stream: &stream,
    };
    let walk = walk(&scene);
    let io: f64 = io_levels(program).map(|l| costs.at(Cost::Import, l)).sum();
    let time = |(cost, level, share): (Cost, usize, f64)| costs.at(cost, level) * share;
    let plains = encoded(program, &inside).flat_map(encodings).map(time);
    let weights: f64 = encodings(program).map(time).sum();
    let keys_time = keys
        .iter()
        .map(|(_, level)| costs.at(Cost::PrepareKey, level));
    let computing: f64 = plains.chain(keys_time).sum();
    let key_bytes = key_file_bytes(params, keys)?;
    let up: Vec<_> = program.inputs.iter().map(|i| (i.level, true)).collect();
    let down: Vec<_> = program
        .outputs
        .iter()
        .map(|o| (level(program, o), false))
        .collect();
    let ciphertext_bytes_up = with_notes(ciphertexts_file_bytes(params, &up).map_err(container)?);
    let ciphertext_bytes_down =
        with_notes(ciphertexts_file_bytes(params, &down).map_err(container)?);
    // Plaintexts and keys take memory that the process does not have yet. To read the file of keys and
    // to hash it takes about as long per byte.
    let fresh = costs.at(Cost::Memory, 0) / f64::from(1 << 20);
    let clock = costs.slowdown(threads) / threads as f64;
    let load = (computing + (memory.plains() + memory.keys()) as f64 * fresh) * clock
        + key_bytes as f64 * fresh;
    let (weight_bytes, most_weight_bytes) = memory.weights();
    let operations = program.instructions.iter().map(|i| &i.operation);
    Ok(Plan {
        batch: program.batch,
        seconds: walk.now + io,
        cpu_seconds: walk.alone * costs.slowdown(threads) + io,
        load_seconds: load,
        peak_memory_bytes: memory.peak(ciphertext_bytes_up, &device.keys, walk.events()),
        peak_ciphertext_bytes: walk.peak_live,
        buffer_bytes: device.buffer_bytes(),
        buffer_bytes_without_reuse: device.bytes_without_reuse(program),
        resident_bytes: memory.resident(),
        weight_bytes,
        full_weight_bytes: memory.full_weights(),
        most_weight_bytes,
        weight_seconds: weights * clock,
        key_bytes,
        ciphertext_bytes_up,
        ciphertext_bytes_down,
        key_switches: operations.clone().map(|o| key_switches(program, o)).sum(),
        multiplications: operations
            .clone()
            .map(|o| multiplications(program, o))
            .sum(),
        bootstraps: operations
            .filter(|o| OpKind::of(o) == OpKind::Bootstrap)
            .count() as u64,
        bootstrap_seconds: walk.bootstrap_seconds,
        levels: params.max_level(),
        threads,
        per_section: walk.sections,
    })
}

/// Length of the file of evaluation keys that `keygen` makes for a list: seeded, dense secret.
///
/// # Errors
/// Levels that do not exist.
pub fn key_file_bytes(params: &Params, keys: &KeyList) -> Result<u64, RuntimeError> {
    let client_key = (KeyId::from_bytes([0; 16]), SecretKind::DenseTernary);
    let header = EvaluationKeysHeader::of_list(params, keys, client_key, [0; 32]);
    Ok(header.file_bytes(params)?)
}

/// A file of ciphertexts with the sections [`crate::PROGRAM_DIGEST`] and `SENTENCES` added to it.
fn with_notes(bytes: u64) -> u64 {
    bytes + (16 + 32) + (16 + 4)
}

fn level(program: &CiphertextProgram, id: &ValueId) -> usize {
    program.info(*id).map_or(0, |v| v.level)
}

/// Levels of the ciphertexts that come and go: inputs are counted by their instructions.
fn io_levels(program: &CiphertextProgram) -> impl Iterator<Item = usize> + '_ {
    program.outputs.iter().map(|o| level(program, o))
}

/// One line of a [`Report`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportRow {
    /// What was planned and measured.
    pub name: String,
    /// Seconds planned.
    pub planned: f64,
    /// Seconds measured.
    pub measured: f64,
}

/// A plan against a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Seconds of all threads by section, then "in all" by the clock.
    pub rows: Vec<ReportRow>,
    /// Key switches planned and executed.
    pub key_switches: (u64, u64),
    /// Most bytes of ciphertexts alive, planned and measured.
    pub peak_ciphertext_bytes: (u64, u64),
}

/// Holds a plan against what the run of one sentence took.
#[must_use]
pub fn report(plan: &Plan, stats: &RunStats) -> Report {
    let sections = plan.per_section.iter().zip(&stats.sections);
    let mut rows: Vec<ReportRow> = sections
        .map(|(planned, measured)| ReportRow {
            name: planned.name.clone(),
            planned: planned.seconds,
            measured: measured.seconds,
        })
        .collect();
    rows.push(ReportRow {
        name: "in all".into(),
        planned: plan.seconds,
        measured: stats.seconds,
    });
    if let Some(measured) = stats.cpu_seconds {
        rows.push(ReportRow {
            name: "processor time".into(),
            planned: plan.cpu_seconds,
            measured,
        });
    }
    Report {
        rows,
        key_switches: (plan.key_switches, stats.key_switches),
        peak_ciphertext_bytes: (plan.peak_ciphertext_bytes, stats.peak_ciphertext_bytes),
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{:40} {:>10} {:>10} {:>7}",
            "section", "planned ms", "run ms", "off"
        )?;
        for row in &self.rows {
            let off = (row.planned / row.measured.max(1e-9) - 1.0) * 100.0;
            writeln!(
                f,
                "{:40} {:>10.1} {:>10.1} {:>+6.0}%",
                row.name,
                row.planned * 1e3,
                row.measured * 1e3,
                off
            )?;
        }
        let (planned, run) = self.key_switches;
        writeln!(f, "{:40} {planned:>10} {run:>10}", "key switches")?;
        let (planned, run) = self.peak_ciphertext_bytes;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "{:40} {:>10.1} {:>10.1}",
            "most ciphertexts alive, MiB",
            mib(planned),
            mib(run)
        )
    }
}
