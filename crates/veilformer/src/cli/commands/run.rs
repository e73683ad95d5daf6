//! `run`: the server's side, which has no secret key and no type that could hold one.

use std::ops::ControlFlow;

use veilformer::ir::ciphertext::{CiphertextProgram, Operation};

use crate::cli::error::{Failure, Result};
use crate::cli::files::{self, Access, NewFile, apart, commit};
use crate::cli::output::{bytes, counted, peak_rss_bytes};
use crate::cli::{Context, args, json, load};

pub fn run(context: &Context, args: &args::Run) -> Result<()> {
    load::memory_limit(&args.memory)?;
    apart(&[&args.output], &[&args.input, &args.server, &args.keys])?;
    let input = files::read(&args.input)?;
    let mut file = NewFile::create(&args.output, Access::Public, context.force)?;
    let stage = context.progress.stage("loading bundle and keys");
    let bundle = load::server_bundle(&args.server)?;
    let keys = files::open(&args.keys)?;
    // Before what is said of the keys: too little memory is not their fault.
    let kept = load::kept(&bundle, &args.memory)?;
    let server = load::server_keeping(context, (bundle, kept), keys, |done, total| {
        stage.update(done, total);
    })
    .map_err(|e| e.of(&args.keys))?;
    let load_seconds = stage.finish();

    let stage = context.progress.stage("running on ciphertexts");
    let work = Work::of(server.bundle().program());
    let run = server
        .run(&input, &|done, total| {
            let (part, share) = work.at(done, total);
            stage.share((done, total), part, share);
            ControlFlow::Continue(())
        })
        .map_err(|e| Failure::from(e).of(&args.input))?;
    let seconds = stage.finish();
    file.put(&run.answer)?;
    commit(vec![file])?;
    let report = json::Run {
        sentences: run.items,
        output: args.output.display().to_string(),
        ciphertext_bytes_down: run.answer.len() as u64,
        load_seconds,
        seconds,
        cpu_seconds: run.stats.cpu_seconds.unwrap_or(0.0),
        key_switches: run.stats.key_switches,
        multiplications: run.stats.multiplications,
        peak_rss_bytes: peak_rss_bytes().unwrap_or(0),
    };
    context.output.report(&report, || {
        format!(
            "{}: {} answered in {:.2} s, {} (for the client)",
            report.output,
            counted(report.sentences, "sentence"),
            report.seconds,
            bytes(report.ciphertext_bytes_down)
        )
    })
}

/// Roughly what each instruction of a program costs beside the others, to say how much of a run is
/// left.
struct Work<'a> {
    program: &'a CiphertextProgram,
    /// The cost of all instructions up to each.
    sums: Vec<f64>,
}

impl<'a> Work<'a> {
    fn of(program: &'a CiphertextProgram) -> Self {
        // Key switches and products with plaintexts, by the primes that they have; a bootstrap is some
        // hundreds of the former at the highest levels.
        let cost = |operation: &Operation| {
            let level = operation
                .operands()
                .first()
                .and_then(|id| program.info(*id));
            let primes = level.map_or(1.0, |info| 2.0 + info.level as f64);
            match operation {
                Operation::Bootstrap { which, .. } => {
                    let entry = program.bootstraps.get(*which as usize);
                    entry.map_or(1.0, |b| 20.0 * b.key_switches as f64)
                }
                _ => {
                    let switches = program.key_uses(operation).len() as f64;
                    primes * (0.2 + switches + 0.1 * operation.plains().len() as f64)
                }
            }
        };
        let mut sum = 0.0;
        let sums = program.instructions.iter().map(|instruction| {
            sum += cost(&instruction.operation);
            sum
        });
        Self {
            sums: sums.collect(),
            program,
        }
    }

    /// The part of the model that is reached when so many of so many instructions are done, and the
    /// share of the work that this is.
    fn at(&self, done: usize, total: usize) -> (&'a str, f64) {
        let each = self.sums.len().max(1);
        let runs = (total / each).max(1);
        let within = (done % each).saturating_sub(1);
        let whole = self.sums.last().copied().unwrap_or(1.0);
        let part = if done.is_multiple_of(each) {
            0.0
        } else {
            self.sums.get(within).copied().unwrap_or(0.0) / whole
        };
        let share = ((done / each) as f64 + part) / runs as f64;
        let section = self.program.instructions.get(done % each);
        let name = section.and_then(|i| self.program.sections.get(i.section as usize));
        (name.map_or("", String::as_str), share)
    }
}
