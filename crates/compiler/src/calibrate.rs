//! Runs a length-free program in the clear: which ranges occur, and is it still the model?
//!
//! Interval arithmetic over several products bounds values far above anything that occurs, so
//! the slots that a program computes are bounded by what calibration inputs show, times a margin.

use crate::length::{LengthFree, LevelForm, Node, Source};
use veilformer_ir::Matrix;

/// Rows (tokens) of features.
type Rows = Vec<Vec<f64>>;

/// What calibration saw, or what it promises once multiplied by a margin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Per node the largest absolute value in its result.
    pub nodes: Vec<f64>,
    /// Per node the largest absolute value of the forms it reads.
    pub forms: Vec<f64>,
    /// Largest absolute logit.
    pub answer: f64,
    /// Largest sum over tokens and features of the absolute products that make up a logit.
    pub answer_terms: f64,
}

impl Bounds {
    /// No promise at all, for a program of that many nodes.
    pub fn unknown(nodes: usize) -> Self {
        let all = vec![f64::INFINITY; nodes];
        Self {
            nodes: all.clone(),
            forms: all,
            answer: f64::INFINITY,
            answer_terms: f64::INFINITY,
        }
    }

    fn raise(&mut self, other: &Bounds) {
        let raise = |a: &mut Vec<f64>, b: &[f64]| {
            a.resize(a.len().max(b.len()), 0.0);
            a.iter_mut().zip(b).for_each(|(x, y)| *x = x.max(*y));
        };
        raise(&mut self.nodes, &other.nodes);
        raise(&mut self.forms, &other.forms);
        self.answer = self.answer.max(other.answer);
        self.answer_terms = self.answer_terms.max(other.answer_terms);
    }

    fn times(mut self, margin: f64) -> Self {
        self.nodes
            .iter_mut()
            .chain(&mut self.forms)
            .for_each(|x| *x *= margin);
        self.answer *= margin;
        self.answer_terms *= margin;
        self
    }
}

/// The largest ranges over all `samples`, times `margin`; no promise where there are no samples.
pub fn calibrate(program: &LengthFree, samples: &[Rows], margin: f64) -> Bounds {
    if samples.is_empty() {
        return Bounds::unknown(program.nodes.len());
    }
    let mut bounds = Bounds::default();
    for tokens in samples {
        bounds.raise(&evaluate(program, tokens).1);
    }
    bounds.times(margin)
}

/// The logits of the program on `tokens` (rows of features), and the ranges on the way.
pub fn evaluate(program: &LengthFree, tokens: &[Vec<f64>]) -> (Vec<f64>, Bounds) {
    let n = tokens.len().max(1) as f64;
    let mut values: Vec<Rows> = Vec::with_capacity(program.nodes.len());
    let mut bounds = Bounds::default();
    for node in &program.nodes {
        let form = |f: &LevelForm| apply(f, tokens, n, &values);
        let (result, read) = match node {
            Node::Attention {
                query,
                key,
                value,
                heads,
                ..
            } => {
                let [q, k, v] = [query, key, value].map(form);
                let read = largest(&q).max(largest(&k)).max(largest(&v));
                (attention(&q, &k, &v, *heads), read)
            }
            Node::Square { form: f, .. } => {
                let x = form(f);
                (
                    x.iter()
                        .map(|r| r.iter().map(|v| v * v).collect())
                        .collect(),
                    largest(&x),
                )
            }
            Node::Product { factors, .. } => {
                let [x, y] = [form(&factors[0]), form(&factors[1])];
                let product =
                    |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| a * b).collect();
                (
                    x.iter().zip(&y).map(product).collect(),
                    largest(&x).max(largest(&y)),
                )
            }
            Node::Recurrence { form: f, decay, .. } => {
                let x = form(f);
                (recurrence(&x, decay), largest(&x))
            }
            Node::Lift { form: f, by } => {
                let x = form(f);
                let factor = n.powf(-by.0);
                (
                    x.iter()
                        .map(|r| r.iter().map(|v| v * factor).collect())
                        .collect(),
                    largest(&x),
                )
            }
        };
        bounds.nodes.push(largest(&result));
        bounds.forms.push(read);
        values.push(result);
    }
    let mut logits = program.constant.clone();
    let mut terms = vec![0.0f64; logits.len()];
    let mask = vec![vec![1.0]; tokens.len()];
    for part in &program.answer {
        let rows: &[Vec<f64>] = match part.source {
            Source::Mask => &mask,
            other => rows_of(other, tokens, &values),
        };
        let factor = source_factor(part.source, part.power.0, n);
        for (k, row) in rows.iter().rev().enumerate() {
            let Some(matrix) = part.kernel.at(k) else {
                break;
            };
            for (j, (logit, term)) in logits.iter_mut().zip(&mut terms).enumerate() {
                let products = matrix.row(j).iter().zip(row).map(|(w, v)| w * v * factor);
                products.for_each(|p| {
                    *logit += p;
                    *term += p.abs();
                });
            }
        }
    }
    bounds.answer = logits.iter().fold(0.0, |m, l| m.max(l.abs()));
    bounds.answer_terms = terms.iter().fold(0.0, |m, t| m.max(*t));
    (logits, bounds)
}

fn largest(rows: &Rows) -> f64 {
    rows.iter().flatten().fold(0.0, |m, v| m.max(v.abs()))
}

fn rows_of<'a>(source: Source, tokens: &'a [Vec<f64>], values: &'a [Rows]) -> &'a [Vec<f64>] {
    match source {
        Source::Tokens => tokens,
        Source::Node(i) => values.get(i).map_or(&[], Vec::as_slice),
        Source::Mask => &[],
    }
}

/// The client's features and mask are held at power zero here; nodes carry theirs.
fn source_factor(source: Source, power: f64, n: f64) -> f64 {
    match source {
        Source::Tokens | Source::Mask => n.powf(-power),
        Source::Node(_) => 1.0,
    }
}

fn recurrence(rows: &Rows, decay: &[f64]) -> Rows {
    let mut out: Rows = Vec::with_capacity(rows.len());
    for row in rows {
        let before = out.last();
        let state = row.iter().zip(decay).enumerate().map(|(f, (x, a))| {
            let old = before.and_then(|s| s.get(f)).copied().unwrap_or(0.0);
            a * old + x
        });
        out.push(state.collect());
    }
    out
}

fn apply(form: &LevelForm, tokens: &[Vec<f64>], n: f64, values: &[Rows]) -> Rows {
    let mask = n.powf(-form.power.0);
    let bias: Vec<f64> = form.bias.iter().map(|b| b * mask).collect();
    let mut out = vec![bias; tokens.len()];
    for (source, matrix) in &form.terms {
        let factor = source_factor(*source, form.power.0, n);
        for (row, x) in out.iter_mut().zip(rows_of(*source, tokens, values)) {
            let y: Vec<f64> = Matrix::apply(matrix, x);
            row.iter_mut().zip(y).for_each(|(o, v)| *o += v * factor);
        }
    }
    out
}

fn attention(query: &Rows, key: &Rows, value: &Rows, heads: usize) -> Rows {
    let width = query.first().map_or(0, Vec::len);
    let dim = width / heads.max(1);
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
                out[head.clone()]
                    .iter_mut()
                    .zip(&v[head.clone()])
                    .for_each(|(o, v)| *o += dot * dot * v);
            }
        }
        out
    };
    query.iter().map(one).collect()
}
