//! Narrower sums in softmax, without changing what a model computes.
//!
//! Softmax does not change when a number is added to all scores of one query. Here it is a sum of
//! what costs nothing or next to it when scores are computed: the score with a fixed key, with the
//! token itself, and in the first layer with its neighbours (see [`Centering`]). Fitted to
//! `ln sum_j e^(s_ij)` over many queries, it leaves sums of exponentials that lie closer together
//! than they did, which decides how deep an approximation of their inverse has to be.

use rayon::prelude::*;
use veilformer_ir::encoder::{
    AttentionFunction, Centering, Encoder, Functions, HeadSite, NormSite, TokenClass, ValueSite,
};

use super::clear::{Exact, Execution};
use super::progress::{Pass, Progress, UNHEARD};
use crate::error::{ModelError, Result};

/// Most queries of a layer that are fitted to.
const QUERIES: usize = 8192;

/// Sentences after which their queries are counted.
const CHUNK: usize = 64;

/// Rounds of reweighting. The largest residuals decide a range, so a fourth power is minimized:
/// least squares with weights `residual^2`, half of the way at a time.
const ROUNDS: usize = 40;

/// Shrinks `w` towards nothing in directions in which queries barely vary, relative to the mean
/// square of a feature.
const RIDGE: f64 = 1e-4;

/// Gives every head of `model` the centering that leaves its sums of exponentials in a narrow
/// range on `sentences`. The model computes what it did, up to rounding. What a model has of
/// centering before is replaced. A model with another function than softmax has none.
///
/// # Errors
/// When there is no sentence, or as [`Execution::embed`].
pub fn center_keys(model: &mut Encoder, sentences: &[Vec<u32>]) -> Result<()> {
    center_keys_observed(model, sentences, UNHEARD)
}

/// [`center_keys`], which says after every sentence, and then after every head, how far it is.
/// Stopped, it leaves the model without centering or with that of its first layers.
///
/// # Errors
/// As there, or [`ModelError::Stopped`].
pub fn center_keys_observed(
    model: &mut Encoder,
    sentences: &[Vec<u32>],
    progress: &Progress<'_>,
) -> Result<()> {
    for layer in &mut model.layers {
        layer.centering = None;
    }
    if model.attention != AttentionFunction::Softmax {
        return match sentences {
            [] => Err(ModelError::Calibration),
            _ => Ok(()),
        };
    }
    let execution = Execution::new(model)?;
    let (layers, heads, dim) = (model.layers.len(), model.heads, model.head_dim());
    let mut all = Collector::new(execution.exact(), layers, heads);
    // In order, and no more sentences than are needed, so that the result is the same everywhere.
    let sentences = first(sentences);
    let pass = Pass::through("collecting queries", sentences, progress)?;
    for part in sentences.chunks(CHUNK) {
        let one = |ids: &Vec<u32>| {
            let mut collector = Collector::new(execution.exact(), layers, heads);
            execution.answer(&execution.embed(ids)?, &mut collector)?;
            pass.advance(ids.len())?;
            Ok(collector)
        };
        let done: Vec<Collector> = part.par_iter().map(one).collect::<Result<_>>()?;
        done.iter().for_each(|collector| all.append(collector));
    }
    if sentences.is_empty() {
        return Err(ModelError::Calibration);
    }
    let factor = (dim as f64).sqrt().recip();
    let fits = layers * heads;
    let pass = Pass::begin("centring keys", (fits, fits), progress)?;
    for (index, layer) in model.layers.iter_mut().enumerate() {
        let (queries, rows) = (&all.queries[index], &all.rows[index]);
        let bias = &layer.key.bias;
        let one = |head: usize| {
            let columns = head * dim..(head + 1) * dim;
            let features = queries.chunks_exact(heads * dim).zip(&rows[head]);
            let features = features.map(|(query, row)| {
                let query: Vec<f64> = query[columns.clone()]
                    .iter()
                    .map(|q| f64::from(*q))
                    .collect();
                let key = bias[columns.clone()].iter().zip(&query);
                let beyond = factor * key.map(|(b, q)| b * q).sum::<f64>();
                let mut features = query;
                features.push(row.own);
                if index == 0 {
                    features.extend([row.previous, row.next].map(|s| s.unwrap_or(beyond)));
                }
                features.push(1.0);
                features
            });
            let targets: Vec<f64> = rows[head].iter().map(|row| row.sum).collect();
            let solution = fit(&features.collect::<Vec<_>>(), &targets);
            let at = |i: usize| solution.get(dim + i).copied().unwrap_or(0.0);
            let (previous, next) = if index == 0 {
                (at(1), at(2))
            } else {
                (0.0, 0.0)
            };
            pass.advance(1)?;
            Ok(Centering {
                key: solution.iter().take(dim).copied().collect(),
                previous,
                own: at(0),
                next,
            })
        };
        let all = (0..heads).into_par_iter().map(one);
        layer.centering = Some(all.collect::<Result<_>>()?);
    }
    Ok(())
}

/// Those of the sentences that are fitted to: whole chunks until their tokens, each a query, are
/// enough.
fn first(sentences: &[Vec<u32>]) -> &[Vec<u32>] {
    let mut queries = 0;
    let chunks = sentences.chunks(CHUNK).take_while(|part| {
        let enough = queries >= QUERIES;
        queries += part.iter().map(Vec::len).sum::<usize>();
        !enough
    });
    let count: usize = chunks.map(<[_]>::len).sum();
    sentences.get(..count).unwrap_or(sentences)
}

/// The `w` of least `sum_i |y_i - x_i.w|^4`; the last feature is a constant.
fn fit(rows: &[Vec<f64>], targets: &[f64]) -> Vec<f64> {
    let n = rows.first().map_or(0, Vec::len);
    let dim = n.saturating_sub(1);
    let mean_square = rows.iter().flatten().map(|v| v * v).sum::<f64>() / (rows.len() * n) as f64;
    let mut solution = vec![0.0; n];
    let mut weights = vec![1.0; rows.len()];
    for round in 0..ROUNDS {
        let total: f64 = weights.iter().sum();
        let mut normal = vec![vec![0.0; n + 1]; n];
        for ((row, y), weight) in rows.iter().zip(targets).zip(&weights) {
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
        let residuals: Vec<f64> = rows.iter().zip(targets).map(residual).collect();
        let top = residuals.iter().fold(0.0f64, |m, r| m.max(r.abs()));
        // No weight is zero, so that no direction is lost.
        weights = residuals
            .iter()
            .map(|r| (r * r).max(1e-3 * top * top).max(f64::MIN_POSITIVE))
            .collect();
    }
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

/// What a row of scores shows.
#[derive(Clone, Copy)]
struct Row {
    /// Logarithm of the sum of exponentials.
    sum: f64,
    /// Score with the token itself.
    own: f64,
    /// Score with the token before, if there is one.
    previous: Option<f64>,
    /// Score with the token behind, if there is one.
    next: Option<f64>,
}

/// Exact functions that keep queries and what their scores show.
struct Collector {
    exact: Exact,
    /// Per layer, rows of all heads' features.
    queries: Vec<Vec<f32>>,
    /// Per layer and head, one per query.
    rows: Vec<Vec<Vec<Row>>>,
}

impl Collector {
    fn new(exact: Exact, layers: usize, heads: usize) -> Self {
        Self {
            exact,
            queries: vec![Vec::new(); layers],
            rows: vec![vec![Vec::new(); heads]; layers],
        }
    }

    fn append(&mut self, other: &Self) {
        for (to, from) in self.queries.iter_mut().zip(&other.queries) {
            to.extend(from);
        }
        let pairs = self
            .rows
            .iter_mut()
            .flatten()
            .zip(other.rows.iter().flatten());
        pairs.for_each(|(to, from)| to.extend(from));
    }
}

impl Functions for Collector {
    fn softmax(&mut self, at: HeadSite, scores: &mut [f64]) {
        let rows = self.rows.get_mut(at.layer).and_then(|l| l.get_mut(at.head));
        if let Some(rows) = rows {
            let score = |at: Option<usize>| at.and_then(|at| scores.get(at).copied());
            rows.push(Row {
                sum: AttentionFunction::Softmax.log_sum(scores),
                own: score(Some(at.position)).unwrap_or(0.0),
                previous: score(at.position.checked_sub(1)),
                next: score(Some(at.position + 1)),
            });
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
