//! `eval`: a data set through a model.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use veilformer::build::build;
use veilformer::client::Answer;
use veilformer::model::{Model, ModelFiles};
use veilformer::models::{DataSet, Example, ModelError};

use crate::cli::args::{self, Mode};
use crate::cli::encrypted::Encrypted;
use crate::cli::error::{Failure, Result};
use crate::cli::simulated::simulate;
use crate::cli::{Context, json};

pub fn run(context: &Context, args: &args::Eval) -> Result<()> {
    let model = ModelFiles::find(&args.model)?.load()?;
    let data = choose(args)?;
    let stage = context.progress.stage("evaluating in the clear");
    let items = data.len();
    let examples = answer_in_the_clear(args, &model, data, |done, total| {
        stage.update(done, total);
    })?;
    let clear_seconds = stage.finish();
    let mut report = json::Eval {
        items,
        too_long: items - examples.len(),
        agree: 0,
        accuracy: 0.0,
        max_logit_error: 0.0,
        seconds: clear_seconds,
        run_seconds: None,
        batch: None,
        range_violations: None,
    };
    let answers = match args.mode {
        Mode::Encrypted => {
            let mut encrypted = Encrypted::new(context, &model, args.target.resolve())?;
            let stage = context.progress.stage("evaluating on ciphertexts");
            let mut answers = Vec::with_capacity(examples.len());
            for batch in examples.chunks(encrypted.batch()) {
                let texts: Vec<&str> = batch.iter().map(|(e, _)| e.text.as_str()).collect();
                answers.extend(encrypted.answer(&texts)?);
                stage.update(answers.len(), examples.len());
            }
            report.seconds = stage.finish();
            report.run_seconds = Some(encrypted.run_seconds);
            report.batch = Some(encrypted.batch());
            answers
        }
        Mode::Sim => {
            let stage = context.progress.stage("compiling the model");
            let bundles = build(&model, args.target.resolve())?;
            stage.finish();
            let stage = context.progress.stage("simulating");
            let texts: Vec<&str> = examples.iter().map(|(e, _)| e.text.as_str()).collect();
            let seed = args.seed.unwrap_or_default();
            let simulated = simulate(&model, &bundles, &texts, seed, |done, total| {
                stage.update(done, total);
            })?;
            report.seconds = stage.finish();
            report.batch = Some(bundles.client.signature().batch);
            report.range_violations = Some(simulated.violations);
            simulated.answers
        }
        _ => examples.iter().map(|(_, poly)| poly.clone()).collect(),
    };
    let mut correct = 0;
    for ((example, poly), answer) in examples.iter().zip(&answers) {
        let pairs = answer.logits.iter().zip(&poly.logits);
        let error = pairs.fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        report.max_logit_error = report.max_logit_error.max(error);
        report.agree += usize::from(answer.label == poly.label);
        correct += usize::from(answer.label == example.label);
    }
    report.accuracy = correct as f64 / items.max(1) as f64;
    context.output.answer(&report, || text(&report, args.mode))
}

/// Range violations that people are shown.
const SHOWN: usize = 10;

fn text(report: &json::Eval, mode: Mode) -> String {
    let per_minute = |seconds: f64| 60.0 * report.items as f64 / seconds.max(1e-9);
    let long = match report.too_long {
        0 => String::new(),
        n => format!("\n{n} too long, counted as wrong"),
    };
    let note = match (mode, report.run_seconds, report.batch) {
        (Mode::Clear, ..) => {
            "\nmode clear is mode poly here: the original model is polynomial".to_owned()
        }
        (_, Some(run), Some(batch)) => format!(
            "\n{batch} sentence(s) a run; {:.0} sentences per minute, {:.0} on the server alone",
            per_minute(report.seconds),
            per_minute(run)
        ),
        _ => match report.range_violations.as_deref() {
            Some([]) => "\nno value left the range that it was compiled for".to_owned(),
            Some(all) => {
                let shown: Vec<&str> = all.iter().take(SHOWN).map(String::as_str).collect();
                format!(
                    "\n{} values left their ranges:\n{}",
                    all.len(),
                    shown.join("\n")
                )
            }
            None => String::new(),
        },
    };
    format!(
        "{} sentences, accuracy {:.2} %, {} labels as in mode poly, \
         largest logit error {:.1e}, {:.1} s{long}{note}",
        report.items,
        100.0 * report.accuracy,
        report.agree,
        report.max_logit_error,
        report.seconds
    )
}

/// The sentences that the flags choose.
fn choose(args: &args::Eval) -> Result<Vec<Example>> {
    let mut data = DataSet::load_lines(&args.data, args.lines)?;
    let limit = args.limit.unwrap_or(usize::MAX);
    match args.seed {
        Some(seed) => data = data.sample(limit, seed),
        None => data.examples.truncate(limit),
    }
    if data.is_empty() {
        return Err(Failure::input(
            "no sentence is left to evaluate; raise --limit",
        ));
    }
    Ok(data.examples)
}

/// The sentences, each with its answer in mode `poly`: what a sentence is refused for is found
/// out before anything is encrypted. Those that are too long are left out where the flags say so.
fn answer_in_the_clear(
    args: &args::Eval,
    model: &Model,
    examples: Vec<Example>,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<Vec<(Example, Answer)>> {
    let classes = model.program.labels.len();
    let limit = args.target.tokens.unwrap_or(usize::MAX);
    let total = examples.len();
    let done = AtomicUsize::new(0);
    let one = |example: Example| -> Option<Result<(Example, Answer)>> {
        let refuse = |e: &dyn std::fmt::Display| {
            Failure::input(format!(
                "{}: sentence \"{}\": {e}",
                args.data.display(),
                example.text
            ))
        };
        if example.label >= classes {
            let what = format!(
                "its label is {}, the model has {classes} classes; use a data set of this model's \
                 task",
                example.label
            );
            return Some(Err(refuse(&what)));
        }
        let answer = match model.folder.encode(&example.text) {
            Ok(ids) if ids.len() > limit => Err(ModelError::TooLong {
                count: ids.len(),
                limit,
            }),
            Ok(_) => model.poly(&example.text),
            Err(e) => Err(e),
        };
        let answer = match answer {
            Err(ModelError::TooLong { .. }) if args.long_as_wrong => return None,
            Err(e) => Err(refuse(&e)),
            Ok(logits) => Ok((example, Answer::of_logits(logits))),
        };
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        Some(answer)
    };
    examples.into_par_iter().filter_map(one).collect()
}
