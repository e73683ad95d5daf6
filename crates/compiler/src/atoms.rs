//! Pass 1: the tensor program as products of affine forms.
//!
//! Everything affine in a model (weights, biases, normalizations at inference, residual sums,
//! scales) folds into the matrices between its products. What is left are *atoms*: the input and
//! the results of non-linear operations, each of which reads affine forms of earlier atoms. A
//! form costs one level however many linear operations it came from.

use crate::CompileError;
use std::collections::BTreeMap;
use veilformer_ir::Matrix;
use veilformer_ir::tensor::{TensorOp, TensorProgram};

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
}

impl Atom {
    /// Features per token.
    pub fn features(&self) -> usize {
        match self {
            Self::Input { features, .. } => *features,
            Self::Attention { value, .. } => value.features(),
            Self::Square { form, .. } => form.features(),
        }
    }
}

/// A model as atoms and the form whose mean over the tokens is the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct AtomProgram {
    /// Atoms, operands first.
    pub atoms: Vec<Atom>,
    /// The logits before pooling, one feature per label.
    pub answer: Form,
    /// Longest sentence.
    pub max_tokens: usize,
    /// Labels.
    pub labels: Vec<String>,
}

/// Below this curvature, relative to its slope, completing the square would cancel digits.
const MIN_CURVATURE: f64 = 1e-3;

/// Folds everything affine. A quadratic `c0 + c1 x + c2 x^2` becomes
/// `sign(c2) (sqrt|c2| x + c1 / (2 sign sqrt|c2|))^2 + c0 - c1^2 / (4 c2)`.
///
/// # Errors
/// The program's own verification; a channel that is neither affine nor clearly quadratic.
pub fn fold(program: &TensorProgram) -> Result<AtomProgram, CompileError> {
    let shapes = program.verify()?;
    let mut atoms: Vec<Atom> = Vec::new();
    let mut forms: Vec<Form> = Vec::new();
    let mut layer = 0;
    for (index, op) in program.ops.iter().enumerate() {
        let of = |id: &veilformer_ir::tensor::TensorId| &forms[id.0];
        let form = match op {
            TensorOp::Input { features, bound } => {
                atoms.push(Atom::Input {
                    features: *features,
                    bound: bound.clone(),
                });
                Form::atom(0, *features)
            }
            TensorOp::Linear { x, weight, bias } => of(x).linear(weight, bias),
            TensorOp::Affine { x, scale, shift } => of(x).affine(scale, shift),
            TensorOp::Add { x, y } => of(x).add(of(y)),
            TensorOp::MeanPool { x } => of(x).clone(),
            TensorOp::PowerAttention {
                query,
                key,
                value,
                heads,
                score_scale,
            } => {
                let n = shapes[query.0].features;
                let query = of(query).affine(&vec![*score_scale; n], &vec![0.0; n]);
                atoms.push(Atom::Attention {
                    query,
                    key: of(key).clone(),
                    value: of(value).clone(),
                    heads: *heads,
                    layer,
                });
                Form::atom(atoms.len() - 1, n)
            }
            TensorOp::Quadratic { x, coefficients } => {
                let (square, back) = complete_square(of(x), coefficients).map_err(|channel| {
                    CompileError::FlatActivation {
                        operation: index,
                        channel,
                    }
                })?;
                atoms.push(Atom::Square {
                    form: square,
                    layer,
                });
                layer += 1;
                let id = atoms.len() - 1;
                let unit = Form::atom(id, coefficients.len());
                unit.affine(&back.0, &back.1)
            }
        };
        forms.push(form);
    }
    let answer = forms.pop().ok_or(CompileError::Empty)?;
    Ok(AtomProgram {
        atoms,
        answer,
        max_tokens: program.max_tokens,
        labels: program.labels.clone(),
    })
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
