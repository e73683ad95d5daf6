//! Attention over the tokens of each sentence, with the sums of its weights.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use veilformer_ir::encoder::AttentionFunction;

use super::math::{add_scaled, exp, sum};
use super::{read, result, rows_and_columns, tensor, values};

/// The shape of an attention.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// Tokens of each sentence; together the rows of queries, keys and values.
    pub lengths: Vec<usize>,
    /// Number of heads; they divide the columns.
    pub heads: usize,
    /// How scores become weights.
    pub function: AttentionFunction,
    /// Whether the logarithms of the sums are given too.
    pub sums: bool,
}

/// What [`attend`] gives.
pub struct Attended {
    /// The weighted sums of values, tokens x features.
    pub context: Tensor,
    /// The logarithms of the sums, tokens x heads, if they were asked for.
    pub log_sums: Option<Tensor>,
}

/// Attention of queries, keys and values, each tokens x features: in every head, scores
/// `q . k / sqrt(dim)` over all tokens of the query's sentence, weights, and their sum of values.
///
/// # Errors
/// When a shape does not fit or a value is not f32.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, shape: Attention) -> Result<Attended> {
    let (d, heads, sums) = (q.dim(1)?, shape.heads, shape.sums);
    let both = q.apply_op3(k, v, shape)?;
    if !sums {
        return Ok(Attended {
            context: both,
            log_sums: None,
        });
    }
    Ok(Attended {
        context: both.narrow(1, 0, d)?.contiguous()?,
        log_sums: Some(both.narrow(1, d, heads)?.contiguous()?),
    })
}

impl Attention {
    /// Scores become weights, as [`AttentionFunction::apply`]; returns the sum.
    fn weigh(&self, scores: &mut [f32]) -> LogSum {
        let n = scores.len();
        match self.function {
            AttentionFunction::Softmax => {
                let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                scores.iter_mut().for_each(|s| *s = exp(*s - top));
                let total = sum(n, |i| scores[i]);
                let factor = 1.0 / total;
                scores.iter_mut().for_each(|s| *s *= factor);
                LogSum {
                    total,
                    log: top + total.ln(),
                }
            }
            AttentionFunction::PowerSoftmax { power, epsilon } => {
                scores
                    .iter_mut()
                    .for_each(|s| *s = raise(*s * *s, power / 2));
                let total = epsilon as f32 + sum(n, |i| scores[i]);
                let factor = 1.0 / total;
                scores.iter_mut().for_each(|s| *s *= factor);
                LogSum {
                    total,
                    log: total.ln(),
                }
            }
        }
    }

    /// The gradient of weights becomes that of scores. `log` is the gradient of the logarithm of
    /// the sum.
    fn back(&self, sums: LogSum, [scores, weights]: [&[f32]; 2], g: &mut [f32], log: f32) {
        let mean = sum(g.len(), |i| g[i] * weights[i]) - log;
        match self.function {
            AttentionFunction::Softmax => {
                for (g, w) in g.iter_mut().zip(weights) {
                    *g = w * (*g - mean);
                }
            }
            AttentionFunction::PowerSoftmax { power, .. } => {
                let factor = power as f32 / sums.total;
                for (g, s) in g.iter_mut().zip(scores) {
                    *g = factor * s * raise(s * s, power / 2 - 1) * (*g - mean);
                }
            }
        }
    }
}

#[inline(always)]
fn raise(square: f32, exponent: u32) -> f32 {
    // The field's power is 4; a loop of unknown length is not vectorized.
    match exponent {
        0 => 1.0,
        1 => square,
        2 => square * square,
        _ => (2..exponent).fold(square * square, |y, _| y * square),
    }
}

#[derive(Clone, Copy)]
struct LogSum {
    /// The sum, for softmax without the factor `e^top`.
    total: f32,
    log: f32,
}

/// Columns of one head in the rows of one sentence, as rows and as columns.
struct Part {
    rows: Vec<f32>,
    columns: Vec<f32>,
}

impl Part {
    fn new(all: &[f32], width: usize, tokens: &Range<usize>, head: Range<usize>) -> Self {
        let (n, dim) = (tokens.len(), head.len());
        let (mut rows, mut columns) = (Vec::with_capacity(n * dim), vec![0.0; n * dim]);
        for (at, token) in tokens.clone().enumerate() {
            let row = &all[token * width..][head.clone()];
            rows.extend_from_slice(row);
            for (c, x) in row.iter().enumerate() {
                columns[c * n + at] = *x;
            }
        }
        Self { rows, columns }
    }

    /// The products of `row` with every row of this part, into `out`.
    fn products(&self, row: &[f32], scale: f32, out: &mut [f32]) {
        out.fill(0.0);
        for (x, column) in row.iter().zip(self.columns.chunks_exact(out.len())) {
            add_scaled(out, scale * x, column);
        }
    }
}

impl Attention {
    /// Calls `each` with every sentence's rows and every head's columns.
    fn parts(&self, d: usize, mut each: impl FnMut(&Range<usize>, usize, Range<usize>)) {
        let dim = d / self.heads;
        let mut start = 0;
        for &n in &self.lengths {
            let tokens = start..start + n;
            for head in 0..self.heads {
                each(&tokens, head, head * dim..(head + 1) * dim);
            }
            start += n;
        }
    }

    fn check(&self, rows: usize, d: usize, others: [(usize, usize); 2]) -> Result<()> {
        let tokens: usize = self.lengths.iter().sum();
        let fits = others.iter().all(|o| *o == (rows, d));
        if tokens != rows || !fits || self.heads == 0 || !d.is_multiple_of(self.heads) {
            bail!(
                "attention: {} heads over {tokens} tokens do not fit {rows} rows of {d} features",
                self.heads
            );
        }
        Ok(())
    }

    /// Columns of the result: the context's and, if they are asked for, the sums'.
    fn width(&self, d: usize) -> usize {
        d + if self.sums { self.heads } else { 0 }
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, k, v) = (values(s1, l1)?, values(s2, l2)?, values(s3, l3)?);
        let (rows, d) = rows_and_columns(l1)?;
        self.check(rows, d, [rows_and_columns(l2)?, rows_and_columns(l3)?])?;
        let width = self.width(d);
        let mut out = vec![0.0; rows * width];
        let scale = 1.0 / ((d / self.heads) as f32).sqrt();
        let mut weights = Vec::new();
        self.parts(d, |tokens, head, columns| {
            let key = Part::new(k, d, tokens, columns.clone());
            weights.resize(tokens.len(), 0.0);
            for token in tokens.clone() {
                let query = &q[token * d..][columns.clone()];
                key.products(query, scale, &mut weights);
                let sums = self.weigh(&mut weights);
                let row = &mut out[token * width..(token + 1) * width];
                for (w, other) in weights.iter().zip(tokens.clone()) {
                    let value = &v[other * d..][columns.clone()];
                    add_scaled(&mut row[columns.clone()], *w, value);
                }
                if self.sums {
                    row[d + head] = sums.log;
                }
            }
        });
        Ok(result(out, (rows, width)))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (_, d) = q.dims2()?;
        let width = self.width(d);
        let all = [read(q)?, read(k)?, read(v)?];
        let g = read(grad)?;
        let mut out = [0; 3].map(|_| vec![0.0; all[0].len()]);
        let scale = 1.0 / ((d / self.heads) as f32).sqrt();
        let (mut scores, mut weights, mut gradient) = (Vec::new(), Vec::new(), Vec::new());
        self.parts(d, |tokens, head, columns| {
            let [query, key, value] =
                [0, 1, 2].map(|i| Part::new(&all[i], d, tokens, columns.clone()));
            let dim = columns.len();
            for buffer in [&mut scores, &mut weights, &mut gradient] {
                buffer.resize(tokens.len(), 0.0);
            }
            let [dq, dk, dv] = &mut out;
            for (at, token) in tokens.clone().enumerate() {
                let own = &query.rows[at * dim..(at + 1) * dim];
                key.products(own, scale, &mut scores);
                weights.copy_from_slice(&scores);
                let sums = self.weigh(&mut weights);
                let row = &g[token * width..(token + 1) * width];
                let context = &row[columns.clone()];
                value.products(context, 1.0, &mut gradient);
                let log = if self.sums { row[d + head] } else { 0.0 };
                self.back(sums, [&scores, &weights], &mut gradient, log);
                let dq = &mut dq[token * d..][columns.clone()];
                for (other, (w, g)) in weights.iter().zip(&gradient).enumerate() {
                    let at = (tokens.start + other) * d;
                    add_scaled(&mut dv[at..][columns.clone()], *w, context);
                    add_scaled(&mut dk[at..][columns.clone()], scale * g, own);
                    let key = &key.rows[other * dim..(other + 1) * dim];
                    add_scaled(dq, scale * g, key);
                }
            }
        });
        let [dq, dk, dv] = out.map(|values| tensor(values, q.shape()));
        Ok((Some(dq?), Some(dk?), Some(dv?)))
    }
}
