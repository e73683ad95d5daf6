//! `poly` mode: the tensor program in floating point, straight from its definition.
//!
//! Independent of layouts, circuits and parameters: this is what every encrypted result is held
//! against.

use crate::error::ModelError;
use veilformer_ir::IrError;
use veilformer_ir::tensor::{TensorOp, TensorProgram};

/// Values of one operation: rows (tokens, or one pooled row) of features.
type Rows = Vec<Vec<f64>>;

/// What a run of the interpreter gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// One logit per label.
    pub logits: Vec<f64>,
    /// Per operation the largest absolute value of its result.
    pub ranges: Vec<f64>,
}

/// Runs `program` on `tokens` rows of features.
///
/// # Errors
/// A program that does not verify; no rows, too many, or rows of the wrong width.
pub fn interpret(program: &TensorProgram, tokens: &[Vec<f64>]) -> Result<Run, ModelError> {
    program.verify()?;
    let n = tokens.len();
    let wrong = |why: String| ModelError::Program(IrError::Tensor { index: 0, why });
    if n == 0 || n > program.max_tokens {
        return Err(wrong(format!(
            "{n} tokens, between 1 and {} are expected",
            program.max_tokens
        )));
    }
    let mut values: Vec<Rows> = Vec::with_capacity(program.ops.len());
    for op in &program.ops {
        let rows = match op {
            TensorOp::Input { features, .. } => {
                if let Some(row) = tokens.iter().find(|r| r.len() != *features) {
                    return Err(wrong(format!(
                        "a row of {} features, {features} are expected",
                        row.len()
                    )));
                }
                tokens.to_vec()
            }
            TensorOp::Linear { x, weight, bias } => each(&values[x.0], |row| {
                weight
                    .apply(row)
                    .iter()
                    .zip(bias)
                    .map(|(v, b)| v + b)
                    .collect()
            }),
            TensorOp::Affine { x, scale, shift } => each(&values[x.0], |row| {
                row.iter()
                    .zip(scale)
                    .zip(shift)
                    .map(|((v, s), b)| v * s + b)
                    .collect()
            }),
            TensorOp::Add { x, y } => values[x.0]
                .iter()
                .zip(&values[y.0])
                .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect())
                .collect(),
            TensorOp::PowerAttention {
                query,
                key,
                value,
                heads,
                score_scale,
            } => attention(
                [&values[query.0], &values[key.0], &values[value.0]],
                *heads,
                *score_scale,
            ),
            TensorOp::Quadratic { x, coefficients } => each(&values[x.0], |row| {
                row.iter()
                    .zip(coefficients)
                    .map(|(v, c)| c[0] + v * (c[1] + v * c[2]))
                    .collect()
            }),
            TensorOp::Product { x, y } => values[x.0]
                .iter()
                .zip(&values[y.0])
                .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).collect())
                .collect(),
            TensorOp::Recurrence { x, decay } => recurrence(&values[x.0], decay),
            TensorOp::LastToken { x } => values[x.0].last().cloned().into_iter().collect(),
            TensorOp::MeanPool { x } => {
                let rows = &values[x.0];
                let width = rows.first().map_or(0, Vec::len);
                let mean = |f: usize| rows.iter().map(|r| r[f]).sum::<f64>() / n as f64;
                vec![(0..width).map(mean).collect()]
            }
        };
        values.push(rows);
    }
    let largest = |rows: &Rows| rows.iter().flatten().fold(0.0f64, |m, v| m.max(v.abs()));
    let ranges = values.iter().map(largest).collect();
    let logits = values
        .pop()
        .and_then(|mut rows| rows.pop())
        .unwrap_or_default();
    Ok(Run { logits, ranges })
}

fn each(rows: &Rows, f: impl Fn(&[f64]) -> Vec<f64>) -> Rows {
    rows.iter().map(|r| f(r)).collect()
}

fn recurrence(rows: &Rows, decay: &[f64]) -> Rows {
    let mut state = vec![0.0; decay.len()];
    let mut step = |row: &Vec<f64>| {
        let next = state
            .iter()
            .zip(decay)
            .zip(row)
            .map(|((s, a), x)| a * s + x);
        state = next.collect();
        state.clone()
    };
    rows.iter().map(&mut step).collect()
}

fn attention([query, key, value]: [&Rows; 3], heads: usize, score_scale: f64) -> Rows {
    let n = query.len() as f64;
    let width = query.first().map_or(0, Vec::len);
    let dim = width / heads;
    let one = |q: &Vec<f64>| {
        let mut out = vec![0.0; width];
        for h in 0..heads {
            let head = h * dim..(h + 1) * dim;
            for (k, v) in key.iter().zip(value) {
                let dot: f64 = q[head.clone()]
                    .iter()
                    .zip(&k[head.clone()])
                    .map(|(a, b)| a * b)
                    .sum();
                let weight = (dot * score_scale).powi(2) / n;
                out[head.clone()]
                    .iter_mut()
                    .zip(&v[head.clone()])
                    .for_each(|(o, v)| *o += weight * v);
            }
        }
        out
    };
    query.iter().map(one).collect()
}

/// Label probabilities: the softmax of the logits.
pub fn probabilities(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = logits.iter().map(|l| (l - top).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| e / sum).collect()
}

/// Index of the largest logit, the first among equals.
pub fn label_of(logits: &[f64]) -> usize {
    let better = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).reduce(better).unwrap_or(0)
}
