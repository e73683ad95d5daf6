//! Pass 1: the tensor program as products of affine forms.
//!
//! Everything affine in a model (weights, biases, normalizations at inference, residual sums,
//! scales) folds into the matrices between its products. What is left are *atoms*: the input and
//! the results of non-linear operations, each of which reads affine forms of earlier atoms. A
//! form costs one level however many linear operations it came from.

use crate::CompileError;
use std::collections::BTreeMap;
use veilformer_ir::Matrix;
use veilformer_ir::tensor::{TensorId, TensorOp, TensorProgram};

/// Index of an atom.
pub type AtomId = usize;

/// `sum_a M_a . atom_a + bias`, token by token; the bias counts on real tokens only.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    /// Per atom its matrix, `features x atom features`.
    pub terms: BTreeMap<AtomId, Matrix>,
    /// One constant per feature.
    pub bias: Vec<f64>,
}

impl Form {
    /// The form that is the atom itself.
    fn atom(id: AtomId, features: usize) -> Self {
        let terms = BTreeMap::from([(id, Matrix::identity(features))]);
        Self {
            terms,
            bias: vec![0.0; features],
        }
    }

    /// Number of features.
    pub fn features(&self) -> usize {
        self.bias.len()
    }

    /// `W form + b`.
    fn linear(&self, weight: &Matrix, bias: &[f64]) -> Self {
        let shifted = weight.apply(&self.bias);
        Self {
            terms: self
                .terms
                .iter()
                .map(|(a, m)| (*a, weight.product(m)))
                .collect(),
            bias: shifted.iter().zip(bias).map(|(x, b)| x + b).collect(),
        }
    }

    /// `scale . form + shift`.
    pub fn affine(&self, scale: &[f64], shift: &[f64]) -> Self {
        Self {
            terms: self
                .terms
                .iter()
                .map(|(a, m)| (*a, m.scale_rows(scale)))
                .collect(),
            bias: self
                .bias
                .iter()
                .zip(scale)
                .zip(shift)
                .map(|((x, s), b)| x * s + b)
                .collect(),
        }
    }

    fn add(&self, other: &Form) -> Self {
        let mut terms = self.terms.clone();
        for (a, m) in &other.terms {
            terms
                .entry(*a)
                .and_modify(|x| *x = x.sum(m))
                .or_insert_with(|| m.clone());
        }
        let bias = self
            .bias
            .iter()
            .zip(&other.bias)
            .map(|(x, y)| x + y)
            .collect();
        Self { terms, bias }
    }

    /// The features in the given order.
    pub fn select(&self, order: &[usize]) -> Self {
        Self {
            terms: self
                .terms
                .iter()
                .map(|(a, m)| (*a, m.select_rows(order)))
                .collect(),
            bias: order
                .iter()
                .map(|&i| self.bias.get(i).copied().unwrap_or(0.0))
                .collect(),
        }
    }

    /// Only the terms of the atoms that `keep` accepts; the bias goes with the flag.
    pub fn filter(&self, keep: impl Fn(AtomId) -> bool, with_bias: bool) -> Self {
        let terms = self
            .terms
            .iter()
            .filter(|(a, _)| keep(**a))
            .map(|(a, m)| (*a, m.clone()))
            .collect();
        let bias = if with_bias {
            self.bias.clone()
        } else {
            vec![0.0; self.bias.len()]
        };
        Self { terms, bias }
    }

    /// This form's features followed by another's.
    pub fn stack(&self, below: &Form, atom_features: impl Fn(AtomId) -> usize) -> Self {
        let mut terms = BTreeMap::new();
        for &a in self.terms.keys().chain(below.terms.keys()) {
            let part = |f: &Form| {
                f.terms
                    .get(&a)
                    .cloned()
                    .unwrap_or_else(|| Matrix::zeros(f.features(), atom_features(a)))
            };
            terms.insert(a, part(self).stack(&part(below)));
        }
        Self {
            terms,
            bias: [self.bias.as_slice(), below.bias.as_slice()].concat(),
        }
    }
}

/// A non-linear value.
#[derive(Clone, Debug, PartialEq)]
pub enum Atom {
    /// The client's features.
    Input {
        /// Features per token.
        features: usize,
        /// Per feature the largest absolute value.
        bound: Vec<f64>,
    },
    /// `o_t = sum_u (q_t.k_u)^2 v_u / n` per head; the score scale is folded into the query.
    Attention {
        /// Query form.
        query: Form,
        /// Key form.
        key: Form,
        /// Value form.
        value: Form,
        /// Number of heads.
        heads: usize,
        /// Which layer of the model, for people.
        layer: usize,
    },
    /// Square of every feature of a form.
    Square {
        /// What is squared.
        form: Form,
        /// Which layer of the model, for people.
        layer: usize,
    },
    /// Product of two forms, feature by feature.
    Product {
        /// The factors.
        factors: [Form; 2],
        /// Which layer of the model, for people.
        layer: usize,
    },
    /// `s_t = decay . s_(t-1) + form_t`: linear, but over tokens.
    Recurrence {
        /// What is written into the state.
        form: Form,
        /// Per feature what a token leaves of the state.
        decay: Vec<f64>,
        /// Which layer of the model, for people.
        layer: usize,
    },
}

impl Atom {
    /// Features per token.
    pub fn features(&self) -> usize {
        match self {
            Self::Input { features, .. } => *features,
            Self::Attention { value, .. } => value.features(),
            Self::Square { form, .. } | Self::Recurrence { form, .. } => form.features(),
            Self::Product { factors, .. } => factors[0].features(),
        }
    }
}

/// How tokens become one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Mean over the sentence's tokens.
    Mean,
    /// The sentence's last token.
    Last,
}

/// A part of the answer: a form of tokens, pooled.
#[derive(Clone, Debug, PartialEq)]
pub struct Pooled {
    /// How.
    pub pooling: Pooling,
    /// What, without a bias: pooling leaves a constant as it is.
    pub form: Form,
}

/// A model as atoms and the forms that, pooled over the tokens, are the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct AtomProgram {
    /// Atoms, operands first.
    pub atoms: Vec<Atom>,
    /// The logits are the sum of these and `constant`; at most one part per pooling.
    pub answer: Vec<Pooled>,
    /// One constant per label.
    pub constant: Vec<f64>,
    /// Longest sentence.
    pub max_tokens: usize,
    /// Labels.
    pub labels: Vec<String>,
}

/// Below this curvature, relative to its slope, completing the square would cancel digits.
const MIN_CURVATURE: f64 = 1e-3;

/// A value on the way: rows of tokens, or one row of pooled parts.
enum Value {
    Tokens(Form),
    Row(Row),
}

/// A pooled row: parts with linear maps applied to them, and a constant.
#[derive(Clone)]
struct Row {
    parts: Vec<Pooled>,
    constant: Vec<f64>,
}

impl Row {
    fn of(form: &Form, pooling: Pooling) -> Self {
        Self {
            constant: form.bias.clone(),
            parts: vec![Pooled {
                pooling,
                form: form.filter(|_| true, false),
            }],
        }
    }

    fn map(&self, constant: Vec<f64>, f: impl Fn(&Form) -> Form) -> Self {
        let part = |p: &Pooled| Pooled {
            pooling: p.pooling,
            form: f(&p.form),
        };
        Self {
            parts: self.parts.iter().map(part).collect(),
            constant,
        }
    }

    fn add(&self, other: &Row) -> Self {
        let mut out = self.clone();
        for part in &other.parts {
            match out.parts.iter_mut().find(|p| p.pooling == part.pooling) {
                Some(p) => p.form = p.form.add(&part.form),
                None => out.parts.push(part.clone()),
            }
        }
        let pairs = self.constant.iter().zip(&other.constant);
        out.constant = pairs.map(|(a, b)| a + b).collect();
        out
    }
}

/// Folds everything affine. A quadratic `c0 + c1 x + c2 x^2` becomes
/// `sign(c2) (sqrt|c2| x + c1 / (2 sign sqrt|c2|))^2 + c0 - c1^2 / (4 c2)`.
///
/// # Errors
/// The program's own verification; a channel that is neither affine nor clearly quadratic.
pub fn fold(program: &TensorProgram) -> Result<AtomProgram, CompileError> {
    program.verify()?;
    let mut fold = Fold {
        atoms: Vec::new(),
        values: Vec::with_capacity(program.ops.len()),
        layer: 0,
    };
    for (index, op) in program.ops.iter().enumerate() {
        let value = fold.value(index, op)?;
        fold.values.push(value);
    }
    let Some(Value::Row(answer)) = fold.values.pop() else {
        return Err(CompileError::Empty);
    };
    Ok(AtomProgram {
        atoms: fold.atoms,
        answer: answer.parts,
        constant: answer.constant,
        max_tokens: program.max_tokens,
        labels: program.labels.clone(),
    })
}

struct Fold {
    atoms: Vec<Atom>,
    values: Vec<Value>,
    layer: usize,
}

impl Fold {
    /// The form of a value per token; verification has seen to it that it is one.
    fn tokens(&self, id: TensorId) -> Result<&Form, CompileError> {
        match self.values.get(id.0) {
            Some(Value::Tokens(form)) => Ok(form),
            _ => Err(CompileError::Empty),
        }
    }

    /// Appends an atom and gives the form that is the atom itself.
    fn atom(&mut self, atom: Atom) -> Value {
        let features = atom.features();
        self.atoms.push(atom);
        Value::Tokens(Form::atom(self.atoms.len() - 1, features))
    }

    fn value(&mut self, index: usize, op: &TensorOp) -> Result<Value, CompileError> {
        let layer = self.layer;
        Ok(match op {
            TensorOp::Input { features, bound } => self.atom(Atom::Input {
                features: *features,
                bound: bound.clone(),
            }),
            TensorOp::Linear { x, weight, bias } => match self.values.get(x.0) {
                Some(Value::Row(row)) => {
                    let shifted = weight.apply(&row.constant);
                    let constant = shifted.iter().zip(bias).map(|(x, b)| x + b).collect();
                    let none = vec![0.0; weight.rows()];
                    Value::Row(row.map(constant, |f| f.linear(weight, &none)))
                }
                _ => Value::Tokens(self.tokens(*x)?.linear(weight, bias)),
            },
            TensorOp::Affine { x, scale, shift } => match self.values.get(x.0) {
                Some(Value::Row(row)) => {
                    let parts = row.constant.iter().zip(scale).zip(shift);
                    let constant = parts.map(|((x, s), b)| x * s + b).collect();
                    let none = vec![0.0; shift.len()];
                    Value::Row(row.map(constant, |f| f.affine(scale, &none)))
                }
                _ => Value::Tokens(self.tokens(*x)?.affine(scale, shift)),
            },
            TensorOp::Add { x, y } => match (self.values.get(x.0), self.values.get(y.0)) {
                (Some(Value::Row(a)), Some(Value::Row(b))) => Value::Row(a.add(b)),
                _ => Value::Tokens(self.tokens(*x)?.add(self.tokens(*y)?)),
            },
            TensorOp::MeanPool { x } => Value::Row(Row::of(self.tokens(*x)?, Pooling::Mean)),
            TensorOp::LastToken { x } => Value::Row(Row::of(self.tokens(*x)?, Pooling::Last)),
            TensorOp::PowerAttention {
                query,
                key,
                value,
                heads,
                score_scale,
            } => {
                let query = self.tokens(*query)?;
                let n = query.features();
                self.atom(Atom::Attention {
                    query: query.affine(&vec![*score_scale; n], &vec![0.0; n]),
                    key: self.tokens(*key)?.clone(),
                    value: self.tokens(*value)?.clone(),
                    heads: *heads,
                    layer,
                })
            }
            TensorOp::Quadratic { x, coefficients } => {
                let completed = complete_square(self.tokens(*x)?, coefficients);
                let (form, back) = completed.map_err(|channel| CompileError::FlatActivation {
                    operation: index,
                    channel,
                })?;
                self.layer += 1;
                match self.atom(Atom::Square { form, layer }) {
                    Value::Tokens(unit) => Value::Tokens(unit.affine(&back.0, &back.1)),
                    row @ Value::Row(_) => row,
                }
            }
            TensorOp::Product { x, y } => {
                let factors = [self.tokens(*x)?.clone(), self.tokens(*y)?.clone()];
                self.atom(Atom::Product { factors, layer })
            }
            TensorOp::Recurrence { x, decay } => {
                self.layer += 1;
                self.atom(Atom::Recurrence {
                    form: self.tokens(*x)?.clone(),
                    decay: decay.clone(),
                    layer,
                })
            }
        })
    }
}

type Completed = (Form, (Vec<f64>, Vec<f64>));

fn complete_square(form: &Form, coefficients: &[[f64; 3]]) -> Result<Completed, usize> {
    let (mut scale, mut shift) = (Vec::new(), Vec::new());
    let (mut sign, mut rest) = (Vec::new(), Vec::new());
    for (channel, [c0, c1, c2]) in coefficients.iter().copied().enumerate() {
        if c2.abs() < MIN_CURVATURE * c1.abs().max(f64::MIN_POSITIVE) {
            return Err(channel);
        }
        let (s, root) = (c2.signum(), c2.abs().sqrt());
        scale.push(root);
        shift.push(s * c1 / (2.0 * root));
        sign.push(s);
        rest.push(c0 - c1 * c1 / (4.0 * c2));
    }
    Ok((form.affine(&scale, &shift), (sign, rest)))
}
