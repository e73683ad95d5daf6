//! Pass 2: the answer as weights over tokens.
//!
//! Pooling is linear, and so is a recurrence with a public decay. A recurrence that only pooling
//! reads is therefore never evaluated: what the answer reads of it is a weighted sum over the
//! tokens of what was written into it, and that sum costs the level that any answer costs.
//! Weights are counted from the sentence's last token backwards, which the compiled program can
//! do because sentences are padded on the left.

use crate::atoms::{Atom, AtomId, AtomProgram, Pooling};
use veilformer_ir::Matrix;

/// Weights of a value in the answer, `labels x features`, token by token.
#[derive(Clone, Debug, PartialEq)]
pub enum Kernel {
    /// The same at every real token.
    Every(Matrix),
    /// Number `k` at the token that is `k` before the sentence's last; zero further back.
    FromEnd(Vec<Matrix>),
}

impl Kernel {
    /// The weights at the token `k` before the last.
    pub fn at(&self, k: usize) -> Option<&Matrix> {
        match self {
            Self::Every(m) => Some(m),
            Self::FromEnd(list) => list.get(k),
        }
    }

    /// The same with every matrix mapped.
    pub fn map(&self, f: impl Fn(&Matrix) -> Matrix) -> Self {
        match self {
            Self::Every(m) => Self::Every(f(m)),
            Self::FromEnd(list) => Self::FromEnd(list.iter().map(f).collect()),
        }
    }

    /// True where no weight is other than zero.
    pub fn is_zero(&self) -> bool {
        let zero = |m: &Matrix| m.data().iter().all(|x| *x == 0.0);
        match self {
            Self::Every(m) => zero(m),
            Self::FromEnd(list) => list.iter().all(zero),
        }
    }

    fn sum(&self, other: &Kernel, tokens: usize) -> Self {
        if let (Self::Every(a), Self::Every(b)) = (self, other) {
            return Self::Every(a.sum(b));
        }
        let at = |k| match (self.at(k), other.at(k)) {
            (Some(a), Some(b)) => Some(a.sum(b)),
            (a, b) => a.or(b).cloned(),
        };
        Self::FromEnd((0..tokens).map_while(at).collect())
    }

    /// The weights on what a recurrence of this decay reads: `sum over j <= k of K_j decay^(k-j)`.
    fn through(&self, decay: &[f64], tokens: usize) -> Self {
        let mut out: Vec<Matrix> = Vec::with_capacity(tokens);
        for k in 0..tokens {
            let carried = out.last().map(|m| scale_columns(m, decay));
            out.push(match (carried, self.at(k)) {
                (Some(c), Some(own)) => c.sum(own),
                (Some(c), None) => c,
                (None, Some(own)) => own.clone(),
                (None, None) => break,
            });
        }
        Self::FromEnd(out)
    }
}

fn scale_columns(m: &Matrix, factors: &[f64]) -> Matrix {
    let mut out = m.clone();
    for r in 0..m.rows() {
        for (c, f) in factors.iter().enumerate() {
            out.set(r, c, m.get(r, c) * f);
        }
    }
    out
}

/// What the answer weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// An atom that is not a recurrence.
    Atom(AtomId),
    /// One at every real token: what the bias of a recurrence's form rides on.
    Mask,
}

/// A term of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// What is weighed.
    pub operand: Operand,
    /// Whether the sum is divided by the number of tokens.
    pub pooling: Pooling,
    /// The weights.
    pub kernel: Kernel,
}

/// The terms of the answer, recurrences resolved; at most one per operand and pooling.
pub fn answer_terms(program: &AtomProgram) -> Vec<Weighted> {
    let tokens = program.max_tokens;
    let mut out: Vec<Weighted> = Vec::new();
    let mut open: Vec<Weighted> = Vec::new();
    for part in &program.answer {
        for (atom, matrix) in &part.form.terms {
            let kernel = match part.pooling {
                Pooling::Mean => Kernel::Every(matrix.clone()),
                Pooling::Last => Kernel::FromEnd(vec![matrix.clone()]),
            };
            open.push(Weighted {
                operand: Operand::Atom(*atom),
                pooling: part.pooling,
                kernel,
            });
        }
    }
    while let Some(term) = open.pop() {
        let recurrence = match term.operand {
            Operand::Atom(a) => program.atoms.get(a),
            Operand::Mask => None,
        };
        let Some(Atom::Recurrence { form, decay, .. }) = recurrence else {
            add(&mut out, term, tokens);
            continue;
        };
        let inner = term.kernel.through(decay, tokens);
        for (atom, matrix) in &form.terms {
            open.push(Weighted {
                operand: Operand::Atom(*atom),
                pooling: term.pooling,
                kernel: inner.map(|k| k.product(matrix)),
            });
        }
        if let Some(bias) = Matrix::from_rows(form.bias.len(), 1, form.bias.clone())
            && form.bias.iter().any(|b| *b != 0.0)
        {
            open.push(Weighted {
                operand: Operand::Mask,
                pooling: term.pooling,
                kernel: inner.map(|k| k.product(&bias)),
            });
        }
    }
    out.retain(|t| !t.kernel.is_zero());
    out
}

fn add(terms: &mut Vec<Weighted>, term: Weighted, tokens: usize) {
    let same = |t: &&mut Weighted| t.operand == term.operand && t.pooling == term.pooling;
    match terms.iter_mut().find(same) {
        Some(t) => t.kernel = t.kernel.sum(&term.kernel, tokens),
        None => terms.push(term),
    }
}
