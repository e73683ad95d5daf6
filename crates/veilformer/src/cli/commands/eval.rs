//! `eval`: a data set through a model.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use veilformer::any::AnyModel;
use veilformer::client::Answer;

use crate::cli::args::{self, Mode};
use crate::cli::encrypted::Encrypted;
use crate::cli::error::Result;
use crate::cli::output::counted;
use crate::cli::sentences::{accuracy, answer_in_the_clear, answer_of, choose};
use crate::cli::simulated::simulate;
use crate::cli::{Context, json, load};

pub fn run(context: &Context, eval: &args::Eval) -> Result<()> {
    let (args, mode) = (&eval.sentences, eval.mode);
    let model = load::model(context, &args.model, &args.target)?;
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
        original: None,
    };
    let texts: Vec<&str> = examples.iter().map(|(e, _)| e.text.as_str()).collect();
    let originals = originals(context, &model, &texts)?;
    let answers = match mode {
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
            let bundles = model.build(args.target.resolve(), &mut |part| stage.part(part))?;
            stage.finish();
            let stage = context.progress.stage("simulating");
            let seed = args.seed.unwrap_or_default();
            let halves = (&bundles.client, &bundles.server);
            let simulated = simulate(&model, halves, &texts, seed, |done, total| {
                stage.update(done, total);
            })?;
            report.seconds = stage.finish();
            report.batch = Some(bundles.client.signature().batch);
            report.range_violations = Some(simulated.violations);
            simulated.answers
        }
        Mode::Clear if !originals.is_empty() => originals.clone(),
        _ => examples.iter().map(|(_, poly)| poly.clone()).collect(),
    };
    if !originals.is_empty() {
        report.original = Some(against(&answers, &originals));
    }
    let mut correct = 0;
    for ((example, poly), answer) in examples.iter().zip(&answers) {
        let pairs = answer.logits.iter().zip(&poly.logits);
        let error = pairs.fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        report.max_logit_error = report.max_logit_error.max(error);
        report.agree += usize::from(answer.label == poly.label);
        correct += usize::from(answer.label == Some(example.label));
    }
    report.accuracy = correct as f64 / items.max(1) as f64;
    context
        .output
        .answer(&report, || text(&report, mode, model.labels().len()))
}

/// What the original model says, where it is not the polynomial one.
fn originals(context: &Context, model: &AnyModel, texts: &[&str]) -> Result<Vec<Answer>> {
    if matches!(model, AnyModel::Own(_)) {
        return Ok(Vec::new());
    }
    let stage = context.progress.stage("evaluating the original");
    let done = AtomicUsize::new(0);
    let one = |text: &&str| {
        let answer = answer_of(model, model.original(text)?);
        stage.update(done.fetch_add(1, Ordering::Relaxed) + 1, texts.len());
        Ok(answer)
    };
    let answers = texts.par_iter().map(one).collect();
    stage.finish();
    answers
}

fn against(answers: &[Answer], originals: &[Answer]) -> json::Original {
    let mut report = json::Original {
        agree: 0,
        max_error: 0.0,
        min_cosine: 1.0,
    };
    for (a, b) in answers.iter().zip(originals) {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let (a, b, same) = (
            &a.logits,
            &b.logits,
            a.label.is_some() && a.label == b.label,
        );
        let lengths = (dot(a, a) * dot(b, b)).sqrt();
        report.min_cosine = report
            .min_cosine
            .min(dot(a, b) / lengths.max(f64::MIN_POSITIVE));
        let errors = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        report.max_error = errors.fold(report.max_error, f64::max);
        report.agree += usize::from(same);
    }
    report
}

/// Range violations that people are shown.
const SHOWN: usize = 10;

fn text(report: &json::Eval, mode: Mode, classes: usize) -> String {
    let answered = report.items - report.too_long;
    let per_minute = |seconds: f64| 60.0 * answered as f64 / seconds;
    let long = match report.too_long {
        0 => String::new(),
        n => format!("\n{n} too long, counted as wrong"),
    };
    let note = match (mode, report.run_seconds, report.batch) {
        (Mode::Clear, ..) if report.original.is_none() => {
            "\nmode clear is mode poly here: the original model is polynomial".to_owned()
        }
        // Of none there is no rate.
        (_, Some(_), _) if answered == 0 => String::new(),
        (_, Some(run), Some(batch)) => format!(
            "\n{} a run; {:.0} sentences per minute, {:.0} on the server alone",
            counted(batch, "sentence"),
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
    let labels = match classes {
        0 | 1 => String::new(),
        _ => format!(", {} labels as in mode poly", report.agree),
    };
    let original = report.original.as_ref().map_or_else(String::new, |o| {
        format!(
            "\nagainst the original model: {}largest error {:.1e}, least cosine {:.6}",
            match classes {
                0 | 1 => String::new(),
                _ => format!("{} labels the same, ", o.agree),
            },
            o.max_error,
            o.min_cosine
        )
    });
    format!(
        "{}{}{labels}, largest logit error {:.1e}, {:.1} s{long}{note}{original}",
        counted(report.items, "sentence"),
        accuracy(report.accuracy, classes),
        report.max_logit_error,
        report.seconds
    )
}
