//! `eval`: a data set through a model.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use veilformer::build::build;
use veilformer::ckks::SecurityLevel;
use veilformer::client::{Answer, ClientBundle};
use veilformer::model::{Model, ModelFiles};
use veilformer::models::{DataSet, Example, ModelError};
use veilformer::ring::Cpu;
use veilformer::runtime::Server;
use veilformer::secret::{KeyGenerator, SecretKey, SecureRng};

use crate::cli::args::{self, Mode};
use crate::cli::error::{Failure, Result};
use crate::cli::{Context, json, load};

pub fn run(context: &Context, args: &args::Eval) -> Result<()> {
    if args.mode == Mode::Sim {
        return Err(Failure::input(
            "mode sim is not part of this version; use clear, poly or encrypted",
        ));
    }
    let model = ModelFiles::find(&args.model)?.load()?;
    let data = choose(args)?;
    let stage = context.progress.stage("evaluating in the clear");
    let items = data.len();
    let examples = answer_in_the_clear(args, &model, data, |done, total| {
        stage.update(done, total);
    })?;
    let clear_seconds = stage.finish();
    let encrypted = match args.mode {
        Mode::Encrypted => Some(Encrypted::new(context, &model)?),
        _ => None,
    };
    let mut report = json::Eval {
        items,
        too_long: items - examples.len(),
        agree: 0,
        accuracy: 0.0,
        max_logit_error: 0.0,
        seconds: clear_seconds,
    };
    let stage = encrypted
        .is_some()
        .then(|| context.progress.stage("evaluating on ciphertexts"));
    let mut correct = 0;
    for (done, (example, poly)) in examples.iter().enumerate() {
        let answer = match &encrypted {
            Some(encrypted) => encrypted.answer(&example.text)?,
            None => poly.clone(),
        };
        let pairs = answer.logits.iter().zip(&poly.logits);
        let error = pairs.fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        report.max_logit_error = report.max_logit_error.max(error);
        report.agree += usize::from(answer.label == poly.label);
        correct += usize::from(answer.label == example.label);
        if let Some(stage) = &stage {
            stage.update(done + 1, examples.len());
        }
    }
    if let Some(stage) = stage {
        report.seconds = stage.finish();
    }
    report.accuracy = correct as f64 / items.max(1) as f64;
    context.output.answer(&report, || {
        let mut note = String::new();
        if report.too_long > 0 {
            note += &format!("\n{} too long, counted as wrong", report.too_long);
        }
        if args.mode == Mode::Clear {
            note += "\nmode clear is mode poly here: the original model is polynomial";
        }
        format!(
            "{} sentences, accuracy {:.2} %, {} labels as in mode poly, \
             largest logit error {:.1e}, {:.1} s{note}",
            report.items,
            100.0 * report.accuracy,
            report.agree,
            report.max_logit_error,
            report.seconds
        )
    })
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
        let answer = match model.poly(&example.text) {
            Err(ModelError::TooLong { .. }) if args.long_as_wrong => return None,
            Err(e) => Err(refuse(&e)),
            Ok(logits) => Ok((example, Answer::of_logits(logits))),
        };
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        Some(answer)
    };
    examples.into_par_iter().filter_map(one).collect()
}

/// A client and a server with fresh keys.
struct Encrypted {
    client: ClientBundle,
    secret: SecretKey,
    server: Server<Cpu>,
}

impl Encrypted {
    fn new(context: &Context, model: &Model) -> Result<Self> {
        let stage = context.progress.stage("compiling the model");
        let bundles = build(model, SecurityLevel::Bits128)?;
        stage.finish();
        let stage = context.progress.stage("making keys");
        let client = bundles.client;
        let mut generator = KeyGenerator::new(client.params(), SecureRng::from_os()?);
        let secret = generator.secret_key()?;
        let mut keys = Vec::new();
        client.write_evaluation_keys(&mut generator, &secret, &mut keys, &mut |done, total| {
            stage.update(done, total);
            ControlFlow::Continue(())
        })?;
        stage.finish();
        let stage = context.progress.stage("loading keys");
        let server = load::server(context, bundles.server, &keys, |done, total| {
            stage.update(done, total);
        })?;
        stage.finish();
        Ok(Self {
            client,
            secret,
            server,
        })
    }

    fn answer(&self, sentence: &str) -> Result<Answer> {
        let input = self.client.encrypt(&self.secret, &[sentence])?;
        let run = self.server.run(&input, &|_, _| ControlFlow::Continue(()))?;
        let answers = self.client.decrypt(&self.secret, &run.answer)?;
        let none = || Failure::system("the server gave no answer; please report this");
        answers.into_iter().next().ok_or_else(none)
    }
}
