//! The sentences of a data set that the flags choose, and their answers in the clear.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use veilformer::any::AnyModel;
use veilformer::client::Answer;
use veilformer::models::{DataSet, Example, ModelError};

use super::args;
use super::error::{Failure, Result};
use super::output::printable;

/// Characters of a sentence that an error shows.
const SHOWN: usize = 200;

/// The sentences that the flags choose.
pub fn choose(args: &args::Sentences) -> Result<Vec<Example>> {
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
pub fn answer_in_the_clear(
    args: &args::Sentences,
    model: &AnyModel,
    examples: Vec<Example>,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<Vec<(Example, Answer)>> {
    let classes = model.labels().len();
    let limit = args.target.size.tokens.unwrap_or(usize::MAX);
    let total = examples.len();
    let done = AtomicUsize::new(0);
    let one = |example: Example| -> Option<Result<(Example, Answer)>> {
        let refuse = |e: &dyn std::fmt::Display| {
            Failure::input(format!(
                "{}: sentence \"{}\": {e}",
                args.data.display(),
                printable(&example.text, SHOWN)
            ))
        };
        if classes > 1 && example.label >= classes {
            let what = format!(
                "its label is {}, the model has {classes} classes; use a data set of this model's \
                 task",
                example.label
            );
            return Some(Err(refuse(&what)));
        }
        let answer = match model.encode(&example.text) {
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
            Ok(values) => Ok((example, answer_of(model, values))),
        };
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        Some(answer)
    };
    examples.into_par_iter().filter_map(one).collect()
}

/// What is said of a fraction of right labels; nothing of a model that gives values, not classes.
pub fn accuracy(fraction: f64, classes: usize) -> String {
    match classes {
        0 | 1 => String::new(),
        _ => format!(", accuracy {:.2} %", 100.0 * fraction),
    }
}

/// An answer of the values that a model gives.
pub fn answer_of(model: &AnyModel, values: Vec<f64>) -> Answer {
    match model.labels() {
        [] => Answer::of_embedding(values),
        _ => Answer::of_logits(values),
    }
}
