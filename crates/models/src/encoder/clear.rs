//! Executions in the clear: one code for the model as it was trained and for what replaces its
//! functions.

use ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul};
use rayon::prelude::*;
use veilformer_ir::Matrix;
use veilformer_ir::encoder::{
    Activation, AttentionFunction, Dense, Embeddings, Encoder, EncoderLayer, Functions, Head,
    HeadSite, LayerNorm, NormSite, Pooling, SublayerNorm, TokenClass, ValueSite,
};

use super::progress::{Pass, UNHEARD};
use crate::error::{ModelError, Result};

/// The functions that a model was trained with.
#[derive(Clone, Copy, Debug)]
pub struct Exact {
    /// From scores to attention weights.
    pub attention: AttentionFunction,
    /// The model's activation.
    pub activation: Activation,
}

impl Functions for Exact {
    fn softmax(&mut self, _: HeadSite, scores: &mut [f64]) {
        self.attention.apply(scores);
    }

    fn inverse_root(&mut self, _: NormSite, x: f64) -> f64 {
        x.sqrt().recip()
    }

    fn activation(&mut self, _: usize, _: TokenClass, features: &mut [f64]) {
        for x in features {
            *x = self.activation.apply(*x);
        }
    }

    fn tanh(&mut self, features: &mut [f64]) {
        for x in features {
            *x = x.tanh();
        }
    }
}

/// A model that has been checked, ready to run.
#[derive(Clone, Copy, Debug)]
pub struct Execution<'m> {
    model: &'m Encoder,
}

impl<'m> Execution<'m> {
    /// Checks `model`.
    ///
    /// # Errors
    /// When its parts do not fit each other.
    pub fn new(model: &'m Encoder) -> Result<Self> {
        model.verify()?;
        Ok(Self { model })
    }

    /// The model.
    pub fn model(&self) -> &'m Encoder {
        self.model
    }

    /// The functions that the model was trained with.
    pub fn exact(&self) -> Exact {
        Exact {
            attention: self.model.attention,
            activation: self.model.activation,
        }
    }

    /// The client's part before the encrypted one: normalized sums of token and position vectors,
    /// one row per token.
    ///
    /// # Errors
    /// When there is no token, there are too many, or one lies outside the table.
    pub fn embed(&self, ids: &[u32]) -> Result<Matrix> {
        embed(&self.model.embeddings, self.model.layer_norm_eps, ids)
    }

    /// The encrypted part, in the clear: from the rows of [`Execution::embed`] to logits or to the
    /// embedding before it is normalized.
    ///
    /// # Errors
    /// When the rows are none or of another width.
    pub fn answer(&self, input: &Matrix, functions: &mut impl Functions) -> Result<Vec<f64>> {
        let model = self.model;
        if input.rows() == 0 || input.cols() != model.hidden() {
            return Err(ModelError::Dimension {
                what: "features of a token (and at least one token)",
                found: input.cols(),
                expected: model.hidden(),
            });
        }
        observe(functions, ValueSite::Input, input);
        let mut x = input.clone();
        for (index, layer) in model.layers.iter().enumerate() {
            x = self.layer(index, layer, x, functions)?;
        }
        let answer = match &model.head {
            Head::Embedding { pooling, .. } => match pooling {
                Pooling::First => x.row(0).to_vec(),
                Pooling::Mean => {
                    let mut sum = vec![0.0; x.cols()];
                    for row in x.iter_rows() {
                        sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
                    }
                    sum.iter().map(|s| s / x.rows() as f64).collect()
                }
            },
            Head::Classifier {
                pooler, classifier, ..
            } => {
                let mut pooled = apply(pooler, x.row(0));
                functions.tanh(&mut pooled);
                apply(classifier, &pooled)
            }
        };
        functions.observe(ValueSite::Answer, TokenClass::First, &answer);
        Ok(answer)
    }

    /// The client's part after the encrypted one: an embedding that the model normalizes is divided
    /// by its length.
    pub fn finish(&self, mut answer: Vec<f64>) -> Vec<f64> {
        if let Head::Embedding {
            normalize: true, ..
        } = self.model.head
        {
            let length = answer.iter().map(|v| v * v).sum::<f64>().sqrt();
            answer.iter_mut().for_each(|v| *v /= length.max(1e-12));
        }
        answer
    }

    /// The model's answers to all sentences, on all threads, with the functions it was trained with.
    ///
    /// # Errors
    /// As [`Execution::embed`], of the first sentence that has one.
    pub fn answers(&self, sentences: &[Vec<u32>]) -> Result<Vec<Vec<f64>>> {
        self.answers_with(sentences, &|| self.exact())
    }

    /// The same with other functions, made anew for every sentence.
    ///
    /// # Errors
    /// As [`Execution::answers`].
    pub fn answers_with<F: Functions>(
        &self,
        sentences: &[Vec<u32>],
        functions: &(dyn Fn() -> F + Sync),
    ) -> Result<Vec<Vec<f64>>> {
        let pass = Pass::through("answering", sentences, UNHEARD)?;
        self.answers_observed(sentences, functions, &pass)
    }

    /// [`Execution::answers_with`], counted by `pass`.
    ///
    /// # Errors
    /// As there, or [`ModelError::Stopped`].
    pub fn answers_observed<F: Functions>(
        &self,
        sentences: &[Vec<u32>],
        functions: &(dyn Fn() -> F + Sync),
        pass: &Pass<'_>,
    ) -> Result<Vec<Vec<f64>>> {
        let one = |ids: &Vec<u32>| {
            let answer = self.answer(&self.embed(ids)?, &mut functions())?;
            pass.advance(ids.len())?;
            Ok(self.finish(answer))
        };
        sentences.par_iter().map(one).collect()
    }

    fn layer(
        &self,
        index: usize,
        layer: &EncoderLayer,
        x: Matrix,
        f: &mut impl Functions,
    ) -> Result<Matrix> {
        let [q, k, v] = [&layer.query, &layer.key, &layer.value].map(|map| product(map, &x));
        let (q, k, v) = (q?, k?, v?);
        for (site, value) in [
            (ValueSite::Query(index), &q),
            (ValueSite::Key(index), &k),
            (ValueSite::Value(index), &v),
        ] {
            observe(f, site, value);
        }
        let context = self.attention((index, layer), [&q, &k, &v], f);
        observe(f, ValueSite::Context(index), &context);
        let sum = product(&layer.output, &context)?.sum(&x);
        observe(f, ValueSite::AttentionSum(index), &sum);
        let norm = SublayerNorm::Attention;
        let h = self.norm((index, norm), &layer.attention_norm, sum, f)?;
        observe(f, ValueSite::AttentionOutput(index), &h);
        let up = product(&layer.up, &h)?;
        let mut active = Vec::with_capacity(up.data().len());
        for (position, row) in up.iter_rows().enumerate() {
            let mut row = row.to_vec();
            f.activation(index, TokenClass::of(position), &mut row);
            active.extend(row);
        }
        let active = crate::tensors::matrix(up.rows(), up.cols(), active)?;
        let sum = product(&layer.down, &active)?.sum(&h);
        observe(f, ValueSite::FeedForwardSum(index), &sum);
        let out = self.norm((index, SublayerNorm::Output), &layer.output_norm, sum, f)?;
        observe(f, ValueSite::Output(index), &out);
        Ok(out)
    }

    fn attention(
        &self,
        (index, layer): (usize, &EncoderLayer),
        [q, k, v]: [&Matrix; 3],
        f: &mut impl Functions,
    ) -> Matrix {
        let (n, dim) = (q.rows(), self.model.head_dim());
        let factor = (dim as f64).sqrt().recip();
        let mut out = Matrix::zeros(n, q.cols());
        let mut scores = vec![0.0; n];
        for head in 0..self.model.heads {
            let columns = head * dim..(head + 1) * dim;
            for token in 0..n {
                let query = &q.row(token)[columns.clone()];
                let with = |key: &[f64]| dot(query, key);
                for (score, key) in scores.iter_mut().zip(k.iter_rows()) {
                    *score = factor * with(&key[columns.clone()]);
                }
                let centering = layer.centering.as_ref().and_then(|c| c.get(head));
                if let Some(c) = centering {
                    let beyond = factor * with(&layer.key.bias[columns.clone()]);
                    let score = |at: Option<usize>| at.and_then(|at| scores.get(at).copied());
                    let shift = with(&c.key)
                        + c.previous * score(token.checked_sub(1)).unwrap_or(beyond)
                        + c.own * score(Some(token)).unwrap_or(beyond)
                        + c.next * score(Some(token + 1)).unwrap_or(beyond);
                    scores.iter_mut().for_each(|s| *s -= shift);
                }
                let at = HeadSite {
                    layer: index,
                    head,
                    position: token,
                };
                f.softmax(at, &mut scores);
                let mut result = vec![0.0; dim];
                for (weight, value) in scores.iter().zip(v.iter_rows()) {
                    let value = &value[columns.clone()];
                    result
                        .iter_mut()
                        .zip(value)
                        .for_each(|(r, v)| *r += weight * v);
                }
                for (column, value) in columns.clone().zip(result) {
                    out.set(token, column, value);
                }
            }
        }
        out
    }

    fn norm(
        &self,
        (layer, norm): (usize, SublayerNorm),
        weights: &LayerNorm,
        x: Matrix,
        f: &mut impl Functions,
    ) -> Result<Matrix> {
        let eps = self.model.layer_norm_eps;
        let mut data = Vec::with_capacity(x.data().len());
        for (position, row) in x.iter_rows().enumerate() {
            let mut row = row.to_vec();
            let at = NormSite {
                layer,
                norm,
                token: TokenClass::of(position),
            };
            normalize(&mut row, weights, |v| f.inverse_root(at, v + eps));
            data.extend(row);
        }
        crate::tensors::matrix(x.rows(), x.cols(), data)
    }
}

/// [`Execution::embed`] without the rest of the model: all of it that a client needs.
///
/// # Errors
/// As there.
pub fn embed(e: &Embeddings, eps: f64, ids: &[u32]) -> Result<Matrix> {
    let (limit, d) = (e.positions.rows(), e.norm.weight.len());
    if ids.is_empty() {
        return Err(ModelError::EmptySentence);
    }
    if ids.len() > limit {
        return Err(ModelError::TooLong {
            count: ids.len(),
            limit,
        });
    }
    let mut rows = Vec::with_capacity(ids.len() * d);
    for (id, position) in ids.iter().zip(e.positions.iter_rows()) {
        let start = *id as usize * d;
        let Some(token) = e.tokens.get(start..start + d) else {
            return Err(ModelError::OutOfTable {
                what: "token",
                found: *id as usize,
                limit: e.vocab_size,
            });
        };
        let mut row: Vec<f64> = token
            .iter()
            .zip(position)
            .map(|(t, p)| f64::from(*t) + p)
            .collect();
        normalize(&mut row, &e.norm, |v| (v + eps).sqrt().recip());
        rows.extend(row);
    }
    crate::tensors::matrix(ids.len(), d, rows)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn observe(f: &mut impl Functions, site: ValueSite, rows: &Matrix) {
    for (position, row) in rows.iter_rows().enumerate() {
        f.observe(site, TokenClass::of(position), row);
    }
}

fn normalize(row: &mut [f64], weights: &LayerNorm, inverse_root: impl FnOnce(f64) -> f64) {
    let n = row.len() as f64;
    let mean = row.iter().sum::<f64>() / n;
    let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    let factor = inverse_root(variance);
    for ((x, w), b) in row.iter_mut().zip(&weights.weight).zip(&weights.bias) {
        *x = (*x - mean) * factor * w + b;
    }
}

fn apply(map: &Dense, x: &[f64]) -> Vec<f64> {
    let mut y = map.weight.apply(x);
    y.iter_mut().zip(&map.bias).for_each(|(y, b)| *y += b);
    y
}

/// `W x + b` for every row `x`; shapes were checked with the model.
fn product(map: &Dense, x: &Matrix) -> Result<Matrix> {
    let (rows, n) = (map.weight.rows(), x.rows());
    let mut data: Vec<f64> = (0..n).flat_map(|_| map.bias.iter().copied()).collect();
    let shape = |matrix: &Matrix| (matrix.rows(), matrix.cols());
    if let (Ok(w), Ok(x), Ok(mut y)) = (
        ArrayView2::from_shape(shape(&map.weight), map.weight.data()),
        ArrayView2::from_shape(shape(x), x.data()),
        ArrayViewMut2::from_shape((n, rows), &mut data),
    ) && x.ncols() == w.ncols()
    {
        general_mat_mul(1.0, &x, &w.t(), 1.0, &mut y);
    }
    crate::tensors::matrix(n, rows, data)
}
