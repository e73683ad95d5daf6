//! Errors of functions from what the answer may be off by.

use veilformer_ir::encoder::{Encoder, Head, Ranges};

use super::{Budget, Substitution, substitute};
use crate::CompileError;

/// Most times that the errors are halved.
const HALVINGS: usize = 6;

/// What an answer may be off by, if nothing else is said: half of what is promised, since other
/// sentences than those of calibration come, and noise.
///
/// Of a classifier's logits 0.01 each; of an embedding 0.1 of its length, which is a cosine of 0.995.
pub fn answer_tolerance(head: &Head) -> f64 {
    match head {
        Head::Classifier { .. } => 0.01,
        Head::Embedding { .. } => 0.1,
    }
}

/// How far answers are from the exact ones, the worst of them, in the measure of
/// [`answer_tolerance`]. Infinite for what is no number.
pub fn answer_error(head: &Head, exact: &[Vec<f64>], answers: &[Vec<f64>]) -> f64 {
    let length = |all: &[f64]| all.iter().map(|x| x * x).sum::<f64>().sqrt();
    let errors = exact.iter().zip(answers).map(|(exact, answer)| {
        let apart: Vec<f64> = exact.iter().zip(answer).map(|(a, b)| a - b).collect();
        match head {
            Head::Classifier { .. } => apart.into_iter().map(f64::abs).fold(0.0, larger),
            Head::Embedding { .. } => length(&apart) / length(exact),
        }
    });
    errors.fold(0.0, larger)
}

/// Of two, where no number is the largest.
fn larger(a: f64, b: f64) -> f64 {
    if b.is_nan() { f64::INFINITY } else { a.max(b) }
}

/// [`substitute`] with the errors of `budget` halved until answers are near enough: `error` measures
/// the largest [`answer_error`] of a substitution, on sentences of its own.
///
/// # Errors
/// As [`substitute`]; whatever `error` returns; a tolerance that no budget meets.
pub fn substitute_within<E: From<CompileError>>(
    (ranges, model): (&Ranges, &Encoder),
    budget: &Budget,
    tolerance: f64,
    error: &mut dyn FnMut(&Substitution) -> Result<f64, E>,
) -> Result<Substitution, E> {
    let mut reached = f64::INFINITY;
    let mut refused = None;
    for halvings in 0..=HALVINGS {
        let budget = budget.scaled(0.5f64.powi(halvings as i32));
        let substitution = match substitute(ranges, model, &budget) {
            Ok(substitution) => substitution,
            Err(source) if halvings == 0 => return Err(source.into()),
            Err(source) => {
                refused = Some(Box::new(source));
                break;
            }
        };
        let found = error(&substitution)?;
        if found <= tolerance {
            return Ok(substitution);
        }
        reached = reached.min(found);
    }
    Err(CompileError::Tolerance {
        wanted: tolerance,
        reached,
        source: refused,
    }
    .into())
}
