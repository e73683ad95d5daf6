//! `run`: the server's side, which has no secret key and no type that could hold one.

use std::ops::ControlFlow;

use crate::cli::error::{Failure, Result};
use crate::cli::files::{self, Access, NewFile, commit};
use crate::cli::output::{bytes, peak_rss_bytes};
use crate::cli::{Context, args, json, load};

pub fn run(context: &Context, args: &args::Run) -> Result<()> {
    let input = files::read(&args.input)?;
    let mut file = NewFile::create(&args.output, Access::Public, context.force)?;
    let stage = context.progress.stage("loading bundle and keys");
    let bundle = load::server_bundle(&args.server)?;
    let keys = files::read(&args.keys)?;
    let server = load::server(context, bundle, &keys, |done, total| {
        stage.update(done, total);
    })
    .map_err(|e| e.of(&args.keys))?;
    drop(keys);
    let load_seconds = stage.finish();

    let stage = context.progress.stage("running on ciphertexts");
    let run = server
        .run(&input, &|done, total| {
            stage.update(done, total);
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
        key_switches: run.stats.key_switches,
        multiplications: run.stats.multiplications,
        peak_rss_bytes: peak_rss_bytes().unwrap_or(0),
    };
    context.output.report(&report, || {
        format!(
            "{}: {} sentences answered in {:.2} s, {} (for the client)",
            report.output,
            report.sentences,
            report.seconds,
            bytes(report.ciphertext_bytes_down)
        )
    })
}
