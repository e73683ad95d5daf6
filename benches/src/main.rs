//! `bench`: see `bench --help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use veilformer_bench::{args::Args, run};

static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let args = Args::parse();
    // A second signal ends the process: the first lets the batch that runs now end.
    let on_signal = || {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after this batch; what is complete is kept");
    };
    if let Err(e) = ctrlc::set_handler(on_signal) {
        eprintln!("signals are not handled: {e}");
    }
    match run::run(&args, &STOP) {
        Ok(()) if STOP.load(Ordering::Relaxed) => ExitCode::from(130),
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
