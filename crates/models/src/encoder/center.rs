//! Narrower sums in softmax, without changing what a model computes.
//!
//! Softmax does not change when a number is added to all scores of one query. In a row of scores
//! `q.k_j` such a number is `-q.w` for any fixed vector `w`: it is had by taking `w` from the
//! bias of the keys, at no cost. The `w` that fits `ln sum_j e^(q.k_j)` best, over many queries,
//! leaves sums of exponentials that lie closer together than they did, which is what decides how
//! deep an approximation of their inverse has to be.

use rayon::prelude::*;
use veilformer_ir::encoder::{Encoder, Functions, HeadSite, NormSite, TokenClass, ValueSite};

use super::calibrate::log_sum;
use super::clear::{Exact, Execution};
use crate::error::{ModelError, Result};

/// Most queries of a layer that are fitted to.
const QUERIES: usize = 8192;

/// Rounds of reweighting. The largest residuals decide a range, so a fourth power is minimized:
/// least squares with weights `residual^2`, half of the way at a time.
const ROUNDS: usize = 40;

/// Shrinks `w` towards nothing in directions in which queries barely vary, relative to the mean
/// square of a feature.
const RIDGE: f64 = 1e-4;

/// Changes the biases of all keys so that the sums of exponentials in softmax are in a narrower
/// range on `sentences`. The model computes what it did, up to rounding.
///
/// # Errors
/// When there is no sentence, or as [`Execution::embed`].
pub fn center_keys(model: &mut Encoder, sentences: &[Vec<u32>]) -> Result<()> {
    let execution = Execution::new(model)?;
    let (layers, heads, dim) = (model.layers.len(), model.heads, model.head_dim());
    let mut all = Collector::new(execution.exact(), layers, heads);
    // In order, and no more sentences than are needed, so that the result is the same everywhere.
    for part in sentences.chunks(64) {
        if all
            .queries
            .first()
            .is_some_and(|q| q.len() >= QUERIES * heads * dim)
        {
            break;
        }
        let one = |ids: &Vec<u32>| {
            let mut collector = Collector::new(execution.exact(), layers, heads);
            execution.answer(&execution.embed(ids)?, &mut collector)?;
            Ok(collector)
        };
        let done: Vec<Collector> = part.par_iter().map(one).collect::<Result<_>>()?;
        done.iter().for_each(|collector| all.append(collector));
    }
    if sentences.is_empty() {
        return Err(ModelError::Calibration);
    }
    let factor = (dim as f64).sqrt();
    for (index, layer) in model.layers.iter_mut().enumerate() {
        let queries = &all.queries[index];
        let shifts: Vec<Vec<f64>> = (0..heads)
            .into_par_iter()
            .map(|head| {
                let rows: Vec<&[f32]> = queries
                    .chunks_exact(heads * dim)
                    .filter_map(|row| row.get(head * dim..(head + 1) * dim))
                    .collect();
                fit(&rows, &all.sums[index][head])
            })
            .collect();
        // Scores are q.k / sqrt(dim).
        for (bias, shift) in layer.key.bias.iter_mut().zip(shifts.into_iter().flatten()) {
            *bias -= factor * shift;
        }
    }
    Ok(())
}

/// The `w` of least `sum_i |sum_i - q_i.w - c|^4`.
fn fit(queries: &[&[f32]], sums: &[f64]) -> Vec<f64> {
    let dim = queries.first().map_or(0, |q| q.len());
    let n = dim + 1;
    let row = |q: &[f32]| -> Vec<f64> { q.iter().map(|v| f64::from(*v)).chain([1.0]).collect() };
    let rows: Vec<Vec<f64>> = queries.iter().map(|q| row(q)).collect();
    let mean_square = rows.iter().flatten().map(|v| v * v).sum::<f64>() / (rows.len() * n) as f64;
    let mut solution = vec![0.0; n];
    let mut weights = vec![1.0; rows.len()];
    for round in 0..ROUNDS {
        let total: f64 = weights.iter().sum();
        let mut normal = vec![vec![0.0; n + 1]; n];
        for ((row, y), weight) in rows.iter().zip(sums).zip(&weights) {
            let weight = weight / total;
            for (i, target) in normal.iter_mut().enumerate() {
                let scaled = weight * row[i];
                target
                    .iter_mut()
                    .zip(row)
                    .for_each(|(t, v)| *t += scaled * v);
                target[n] += scaled * y;
            }
        }
        for (i, row) in normal.iter_mut().enumerate().take(dim) {
            row[i] += RIDGE * mean_square;
        }
        let Some(next) = solve(normal) else { break };
        let step = if round == 0 { 1.0 } else { 0.5 };
        solution
            .iter_mut()
            .zip(next)
            .for_each(|(s, x)| *s += step * (x - *s));
        let residual = |(row, y): (&Vec<f64>, &f64)| {
            y - row.iter().zip(&solution).map(|(a, b)| a * b).sum::<f64>()
        };
        let residuals: Vec<f64> = rows.iter().zip(sums).map(residual).collect();
        let top = residuals.iter().fold(0.0f64, |m, r| m.max(r.abs()));
        // No weight is zero, so that no direction is lost.
        weights = residuals
            .iter()
            .map(|r| (r * r).max(1e-3 * top * top).max(f64::MIN_POSITIVE))
            .collect();
    }
    solution.truncate(dim);
    solution
}

/// Solves `A x = b`, given as rows of `A` with `b` behind them, for a positive definite `A`, by
/// elimination; `None` if a pivot is not positive.
fn solve(mut rows: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let n = rows.len();
    for col in 0..n {
        let (upper, lower) = rows.split_at_mut(col + 1);
        let lead = upper.get(col)?;
        let pivot = *lead.get(col)?;
        if !(pivot > 0.0 && pivot.is_finite()) {
            return None;
        }
        for row in lower {
            let factor = row[col] / pivot;
            for (r, l) in row.iter_mut().zip(lead).skip(col) {
                *r -= factor * l;
            }
        }
    }
    let mut x = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| rows[i][j] * x[j]).sum();
        x[i] = (rows[i][n] - known) / rows[i][i];
    }
    Some(x)
}

/// Exact functions that keep queries and the logarithms of their sums.
struct Collector {
    exact: Exact,
    /// Per layer, rows of all heads' features.
    queries: Vec<Vec<f32>>,
    /// Per layer and head, one value per query.
    sums: Vec<Vec<Vec<f64>>>,
}

impl Collector {
    fn new(exact: Exact, layers: usize, heads: usize) -> Self {
        Self {
            exact,
            queries: vec![Vec::new(); layers],
            sums: vec![vec![Vec::new(); heads]; layers],
        }
    }

    fn append(&mut self, other: &Self) {
        for (to, from) in self.queries.iter_mut().zip(&other.queries) {
            to.extend(from);
        }
        let pairs = self
            .sums
            .iter_mut()
            .flatten()
            .zip(other.sums.iter().flatten());
        pairs.for_each(|(to, from)| to.extend(from));
    }
}

impl Functions for Collector {
    fn softmax(&mut self, at: HeadSite, scores: &mut [f64]) {
        let sums = self.sums.get_mut(at.layer).and_then(|l| l.get_mut(at.head));
        if let Some(sums) = sums {
            sums.push(log_sum(scores));
        }
        self.exact.softmax(at, scores);
    }

    fn inverse_root(&mut self, at: NormSite, x: f64) -> f64 {
        self.exact.inverse_root(at, x)
    }

    fn activation(&mut self, layer: usize, token: TokenClass, features: &mut [f64]) {
        self.exact.activation(layer, token, features);
    }

    fn tanh(&mut self, features: &mut [f64]) {
        self.exact.tanh(features);
    }

    fn observe(&mut self, site: ValueSite, _: TokenClass, features: &[f64]) {
        if let ValueSite::Query(layer) = site
            && let Some(queries) = self.queries.get_mut(layer)
        {
            queries.extend(features.iter().map(|v| *v as f32));
        }
    }
}
