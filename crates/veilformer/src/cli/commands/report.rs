//! `report`: the same sentences in the clear, simulated and encrypted; what was predicted against
//! what happened.

use std::path::Path;

use veilformer::client::Answer;
use veilformer::plot::{Figure, Histogram, Labels, Panel, Series};
use veilformer::runtime::{Plan, plan, report as hold_against};

use super::plan::costs;
use crate::cli::encrypted::Encrypted;
use crate::cli::error::{Failure, Result};
use crate::cli::files::{Access, NewFile, commit, make_folder};
use crate::cli::output::counted;
use crate::cli::sentences::{accuracy, answer_in_the_clear, choose};
use crate::cli::simulated::{Simulated, simulate};
use crate::cli::{Context, args, json, load};

/// Sentences that are answered where the flags do not say how many.
const SENTENCES: usize = 50;
/// The charts, one file each.
const CHARTS: [&str; 3] = ["scatter.svg", "errors.svg", "ranges.svg"];

pub fn run(context: &Context, args: &args::Report) -> Result<()> {
    let chosen = &args.sentences;
    let seed = chosen.seed.unwrap_or(1);
    let chosen = args::Sentences {
        limit: Some(chosen.limit.unwrap_or(SENTENCES)),
        seed: Some(seed),
        data: chosen.data.clone(),
        model: chosen.model.clone(),
        target: chosen.target.clone(),
        ..*chosen
    };
    let sentences = choose(&chosen)?;
    let items = sentences.len();
    let model = load::model(context, &chosen.model, &chosen.target)?;
    let stage = context.progress.stage("evaluating in the clear");
    let examples = answer_in_the_clear(&chosen, &model, sentences, |done, total| {
        stage.update(done, total);
    })?;
    stage.finish();
    if examples.is_empty() {
        return Err(Failure::input(
            "every sentence is too long for the model; choose others",
        ));
    }
    // After what may be refused, and before what takes long.
    let _folders = make_folder(&args.output)?;
    let mut files = CHARTS
        .iter()
        .map(|name| NewFile::create(&args.output.join(name), Access::Public, context.force))
        .collect::<Result<Vec<_>>>()?;
    let texts: Vec<&str> = examples.iter().map(|(e, _)| e.text.as_str()).collect();
    let poly: Vec<Answer> = examples.iter().map(|(_, a)| a.clone()).collect();

    let mut encrypted = Encrypted::new(context, &model, chosen.target.resolve())?;
    let planned = planned(context, &encrypted, args.costs.as_deref())?;
    let stage = context.progress.stage("simulating");
    let halves = (encrypted.client_bundle(), encrypted.server_bundle());
    let simulated = simulate(&model, halves, &texts, seed, |done, total| {
        stage.update(done, total);
    })?;
    stage.finish();
    let stage = context.progress.stage("evaluating on ciphertexts");
    let mut answers = Vec::with_capacity(texts.len());
    for batch in texts.chunks(encrypted.batch()) {
        answers.extend(encrypted.answer(batch)?);
        stage.update(answers.len(), texts.len());
    }
    stage.finish();

    let charts = charts(&poly, &answers, &simulated)?;
    for (file, chart) in files.iter_mut().zip(&charts) {
        file.put(chart.as_bytes())?;
    }
    commit(files)?;
    let runs = texts.len().div_ceil(encrypted.batch());
    let planned = times(&planned, runs);
    let correct = examples.iter().zip(&answers);
    let correct = correct
        .filter(|((e, _), a)| Some(e.label) == a.label)
        .count();
    let measured = Errors::of(&poly, &answers);
    let predicted = Errors::of(&poly, &simulated.answers);
    let report = json::Report {
        model: model.name().to_owned(),
        items,
        too_long: items - texts.len(),
        accuracy: correct as f64 / items as f64,
        batch: encrypted.batch(),
        runs,
        encrypted: measured.json(),
        simulated: predicted.json(),
        error_ratio: predicted.rms / measured.rms.max(f64::MIN_POSITIVE),
        range_violations: simulated.violations.clone(),
        seconds: json::Pair {
            planned: planned.seconds,
            measured: encrypted.stats.seconds,
        },
        cpu_seconds: json::Pair {
            planned: planned.cpu_seconds,
            measured: encrypted.stats.cpu_seconds.unwrap_or(0.0),
        },
        key_switches: json::Pair {
            planned: planned.key_switches as f64,
            measured: encrypted.stats.key_switches as f64,
        },
        peak_ciphertext_bytes: json::Pair {
            planned: planned.peak_ciphertext_bytes as f64,
            measured: encrypted.stats.peak_ciphertext_bytes as f64,
        },
        charts: CHARTS
            .iter()
            .map(|name| args.output.join(name).display().to_string())
            .collect(),
    };
    context.output.answer(&report, || {
        let by_section = hold_against(&planned, &encrypted.stats);
        format!("{}\n{by_section}", text(&report, model.labels().len()))
    })
}

fn planned(context: &Context, encrypted: &Encrypted, path: Option<&Path>) -> Result<Plan> {
    let bundle = encrypted.server_bundle();
    let threads = rayon::current_num_threads();
    let costs = costs(context, bundle, path, threads)?;
    let (program, params) = (bundle.program(), bundle.params());
    Ok(plan(program, params, bundle.keys(), &costs, threads)?)
}

/// The plan of so many runs one after the other.
fn times(plan: &Plan, runs: usize) -> Plan {
    let mut out = plan.clone();
    out.seconds *= runs as f64;
    out.cpu_seconds *= runs as f64;
    out.bootstrap_seconds *= runs as f64;
    out.key_switches *= runs as u64;
    out.multiplications *= runs as u64;
    out.bootstraps *= runs as u64;
    for section in &mut out.per_section {
        section.seconds *= runs as f64;
        section.key_switches *= runs as u64;
        section.instructions *= runs as u64;
    }
    out
}

/// How far answers are from those in the clear.
struct Errors {
    agree: usize,
    largest: f64,
    rms: f64,
}

impl Errors {
    fn of(poly: &[Answer], answers: &[Answer]) -> Self {
        let errors = differences(poly, answers);
        let squares: f64 = errors.iter().map(|e| e * e).sum();
        Self {
            agree: poly
                .iter()
                .zip(answers)
                .filter(|(p, a)| p.label == a.label)
                .count(),
            largest: errors.iter().fold(0.0, |m, e| m.max(e.abs())),
            rms: (squares / errors.len().max(1) as f64).sqrt(),
        }
    }

    fn json(&self) -> json::Errors {
        json::Errors {
            agree: self.agree,
            max_logit_error: self.largest,
            rms_logit_error: self.rms,
        }
    }
}

/// Every logit's difference from the one in the clear.
fn differences(poly: &[Answer], answers: &[Answer]) -> Vec<f64> {
    let pairs = poly.iter().zip(answers);
    let logits = pairs.flat_map(|(p, a)| p.logits.iter().zip(&a.logits));
    logits.map(|(p, a)| a - p).collect()
}

fn charts(poly: &[Answer], answers: &[Answer], simulated: &Simulated) -> Result<[String; 3]> {
    let pairs = poly.iter().zip(answers);
    let points = pairs.flat_map(|(p, a)| p.logits.iter().zip(&a.logits));
    let points = Series::new("logits", points.map(|(p, a)| (*p, *a)).collect());
    let labels = Labels::new(
        "Encrypted against plaintext",
        "logit in the clear",
        "logit decrypted",
    );
    let scatter = Figure::single(Panel::scatter(labels, vec![points]));

    let errors = |title: &str, answers: &[Answer]| {
        let sizes = differences(poly, answers)
            .iter()
            .map(|e| e.abs().max(1e-15).log10())
            .collect();
        let labels = Labels::new(title, "log10 of a logit's error", "logits");
        Panel::histogram(labels, bins(sizes))
    };
    let errors = Figure::grid(
        vec![
            errors("Errors, encrypted", answers),
            errors("Errors, simulated", &simulated.answers),
        ],
        2,
    );

    let used = simulated.used.iter().filter(|u| **u > 0.0);
    let labels = Labels::new(
        "Room to the promised bounds",
        "bits between the largest slot and its bound",
        "values of the program",
    );
    let room = Panel::histogram(labels, bins(used.map(|u| -u.log2()).collect()));
    let svg = |figure: &Figure| figure.svg().map_err(Failure::system);
    Ok([svg(&scatter)?, svg(&errors)?, svg(&Figure::single(room))?])
}

/// Values in bins.
fn bins(values: Vec<f64>) -> Histogram {
    const BINS: usize = 24;
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (first, width) = match (high - low).is_finite() && high > low {
        true => (low, (high - low) / BINS as f64),
        false => (if low.is_finite() { low } else { 0.0 }, 1.0),
    };
    let mut counts = vec![0; BINS];
    for value in values {
        let at = ((value - first) / width).floor().max(0.0) as usize;
        if let Some(count) = counts.get_mut(at.min(BINS - 1)) {
            *count += 1;
        }
    }
    Histogram {
        start: first,
        width,
        counts,
        log: false,
    }
}

fn text(report: &json::Report, classes: usize) -> String {
    let accuracy = accuracy(report.accuracy, classes);
    let line = |name: &str, e: &json::Errors| {
        format!(
            "{name}: {} of {} labels as in the clear, largest logit error {:.1e}, rms {:.2e}\n",
            e.agree,
            report.items - report.too_long,
            e.max_logit_error,
            e.rms_logit_error
        )
    };
    let ranges = match report.range_violations.len() {
        0 => "no value left the range that it was compiled for".to_owned(),
        n => format!(
            "{n} values left their ranges, the first: {}",
            report.range_violations[0]
        ),
    };
    let long = match report.too_long {
        0 => String::new(),
        n => format!(", {n} too long, counted as wrong"),
    };
    format!(
        "model {}, {} in {}{}{long}\n{}{}\
         simulated over measured error: {:.2}\n{ranges}\ncharts: {}\n",
        report.model,
        counted(report.items, "sentence"),
        counted(report.runs, "run"),
        accuracy,
        line("encrypted", &report.encrypted),
        line("simulated", &report.simulated),
        report.error_ratio,
        report.charts.join(" ")
    )
}
