//! The commands, and what they share.

mod args;
mod commands;
mod encrypted;
mod error;
mod files;
mod json;
mod load;
mod output;
mod progress;
mod sentences;
mod simulated;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use veilformer::ring::{Cpu, CpuConfig, Isa};

use args::{Cli, Command};
use error::{Failure, Result};
use output::Output;
use progress::Progress;

/// What every command is given beside its own arguments.
pub struct Context {
    started: Instant,
    progress: Progress,
    output: Output,
    force: bool,
    isa: Isa,
}

impl Context {
    /// A backend for parameters, on the chosen instruction set.
    fn backend(&self, params: &veilformer::ckks::Params) -> Result<Cpu> {
        let config = CpuConfig { isa: self.isa };
        Cpu::new(params.chain().clone(), config).map_err(Failure::input)
    }
}

pub fn main() -> ExitCode {
    let started = Instant::now();
    // Wrong usage ends here, with clap's own message and exit code 2.
    let cli = Cli::parse();
    files::clean_up_on_interrupt();
    match run(started, cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            progress::line(&format!("error: {failure}"));
            ExitCode::from(failure.code())
        }
    }
}

fn run(started: Instant, cli: Cli) -> Result<()> {
    let global = cli.global;
    let isa = global.isa.map_or_else(Isa::detect, Isa::from);
    if !Isa::available().contains(&isa) {
        return Err(Failure::input(format!(
            "this processor has no {isa:?}; it can run {:?}, leave --isa out to take the fastest",
            Isa::available()
        )));
    }
    if let Some(threads) = global.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(usize::from(threads));
        pool.build_global().map_err(Failure::system)?;
    }
    let context = Context {
        started,
        progress: Progress::new(global.quiet, global.progress),
        output: Output {
            json: global.json,
            quiet: global.quiet,
        },
        force: global.force,
        isa,
    };
    match &cli.command {
        Command::Demo(args) => commands::demo::run(&context, args),
        Command::Compile(args) => commands::compile::run(&context, args),
        Command::Keygen(args) => commands::keygen::run(&context, args),
        Command::Encrypt(args) => commands::encrypt::run(&context, args),
        Command::Run(args) => commands::run::run(&context, args),
        Command::Decrypt(args) => commands::decrypt::run(&context, args),
        Command::Plan(args) => commands::plan::run(&context, args),
        Command::Explain(args) => commands::explain::run(&context, args),
        Command::Inspect(args) => commands::inspect::run(&context, args),
        Command::Models(args) => commands::models::run(&context, args),
        Command::Eval(args) => commands::eval::run(&context, args),
        Command::Report(args) => commands::report::run(&context, args),
    }
}
