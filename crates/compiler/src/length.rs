//! Pass 3: the sentence's length `n` disappears into the inputs.
//!
//! The server must not learn `n`, yet attention divides by it and pooling takes a mean. Every
//! value therefore carries a power: it is held as `true value * n^-e`, zero at padded tokens.
//! Linear maps keep `e`, squaring doubles it, attention turns `e` of its operands into `5 e - 1`
//! (two scores and a value, of which `1/n` belongs to the model), a product halves `e` for its
//! factors. Asking for the answer at `e = 1`, which makes a plain sum over tokens their mean, or at
//! `e = 0` for what the last token alone answers, fixes every other power; those of the inputs are
//! multiplied in by the client, which knows `n`. A value that is wanted at two powers
//! is held at the lower one, and lifted where it is read: by a product with the client's
//! `n^-d`, or, where both sides fit, as a difference of two squares.

use crate::CompileError;
use crate::atoms::{Atom, AtomId, AtomProgram, Form, Pooling};
use crate::pooling::{Kernel, Operand, Weighted, answer_terms};
use std::collections::BTreeMap;
use veilformer_ir::Matrix;

/// A power of `1/n`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Power(pub f64);

impl Power {
    /// Equality up to rounding: `n^(2^-40)` is one for every length there is.
    pub fn same(self, other: Power) -> bool {
        (self.0 - other.0).abs() < 1e-12
    }
}

/// Where a form reads from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// The client's features, at the form's power.
    Tokens,
    /// A node of this program.
    Node(usize),
    /// The client's mask, at the form's power: one feature, one at every real token.
    Mask,
}

/// An affine form all of whose sources are at one power. The bias counts on real tokens, at the
/// same power: it rides on the client's mask.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelForm {
    /// Sources with their matrices.
    pub terms: Vec<(Source, Matrix)>,
    /// One constant per feature.
    pub bias: Vec<f64>,
    /// The common power.
    pub power: Power,
}

impl LevelForm {
    /// True where a mask is needed.
    pub fn has_bias(&self) -> bool {
        self.bias.iter().any(|b| *b != 0.0)
    }

    /// The only source and the factor of each of its features, where the form does no more than
    /// scale the features of one source.
    pub fn diagonal(&self) -> Option<(Source, Vec<f64>)> {
        let [(source, matrix)] = self.terms.as_slice() else {
            return None;
        };
        let off = |r: usize| {
            let row = matrix.row(r).iter().enumerate();
            row.clone().any(|(c, v)| c != r && *v != 0.0)
        };
        if self.has_bias() || matrix.rows() != matrix.cols() || (0..matrix.rows()).any(off) {
            return None;
        }
        Some((
            *source,
            (0..matrix.rows()).map(|r| matrix.get(r, r)).collect(),
        ))
    }
}

/// A term of the answer: `sum over tokens of kernel(token) . source(token)`.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerTerm {
    /// What is weighed.
    pub source: Source,
    /// The power at which it is held.
    pub power: Power,
    /// The weights.
    pub kernel: Kernel,
}

/// A product on ciphertexts.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Power attention; see [`Atom::Attention`].
    Attention {
        /// Query.
        query: LevelForm,
        /// Key.
        key: LevelForm,
        /// Value.
        value: LevelForm,
        /// Heads.
        heads: usize,
        /// Layer, for people.
        layer: usize,
    },
    /// Squares.
    Square {
        /// What is squared.
        form: LevelForm,
        /// Layer, for people.
        layer: usize,
    },
    /// Products of two forms, feature by feature.
    Product {
        /// The factors.
        factors: [LevelForm; 2],
        /// Layer, for people.
        layer: usize,
    },
    /// A state with a public decay per feature.
    Recurrence {
        /// What is written into the state.
        form: LevelForm,
        /// Per feature what a token leaves of it.
        decay: Vec<f64>,
        /// Layer, for people.
        layer: usize,
    },
    /// A form times the client's `mask * n^-by`.
    Lift {
        /// What is lifted.
        form: LevelForm,
        /// By which power.
        by: Power,
    },
}

impl Node {
    /// The forms that the node reads.
    pub fn forms(&self) -> Vec<&LevelForm> {
        match self {
            Self::Attention {
                query, key, value, ..
            } => vec![query, key, value],
            Self::Product { factors, .. } => factors.iter().collect(),
            Self::Square { form, .. } | Self::Recurrence { form, .. } | Self::Lift { form, .. } => {
                vec![form]
            }
        }
    }

    fn forms_mut(&mut self) -> Vec<&mut LevelForm> {
        match self {
            Self::Attention {
                query, key, value, ..
            } => vec![query, key, value],
            Self::Product { factors, .. } => factors.iter_mut().collect(),
            Self::Square { form, .. } | Self::Recurrence { form, .. } | Self::Lift { form, .. } => {
                vec![form]
            }
        }
    }

    /// Features of the node's result.
    pub fn features(&self) -> usize {
        // All forms of a node are of one width.
        self.forms().first().map_or(0, |f| f.bias.len())
    }
}

/// A program without a length in it.
#[derive(Clone, Debug, PartialEq)]
pub struct LengthFree {
    /// Features of the client's tokens.
    pub token_features: usize,
    /// Per token feature the largest absolute value.
    pub token_bound: Vec<f64>,
    /// Products, operands first.
    pub nodes: Vec<Node>,
    /// The logits are the sum of these, plus `constant`.
    pub answer: Vec<AnswerTerm>,
    /// Per logit.
    pub constant: Vec<f64>,
    /// Longest sentence.
    pub max_tokens: usize,
}

/// The power at which a sum over tokens is a mean.
const MEAN: Power = Power(1.0);

/// The power at which a part of the answer is wanted.
fn pooled_power(pooling: Pooling) -> Power {
    match pooling {
        Pooling::Mean => MEAN,
        Pooling::Last => Power(0.0),
    }
}

/// Absorbs the length. `max_features` is how many features one ciphertext holds: squares that
/// share a power are stacked up to it.
///
/// # Errors
/// A program whose first atom is not the input.
pub fn absorb(program: &AtomProgram, max_features: usize) -> Result<LengthFree, CompileError> {
    let Some(Atom::Input { features, bound }) = program.atoms.first() else {
        return Err(CompileError::Empty);
    };
    let terms = answer_terms(program);
    let mut pass = Pass {
        atoms: &program.atoms,
        native: native_powers(program, &terms),
        node_of: BTreeMap::new(),
        nodes: Vec::new(),
    };
    for (id, atom) in program.atoms.iter().enumerate() {
        let Some(power) = pass.native.get(&id).copied() else {
            continue;
        };
        let node = match atom {
            Atom::Input { .. } => continue,
            Atom::Attention {
                query,
                key,
                value,
                heads,
                layer,
            } => {
                let e = attention_operand(power);
                Node::Attention {
                    query: pass.form(query, e),
                    key: pass.form(key, e),
                    value: pass.form(value, e),
                    heads: *heads,
                    layer: *layer,
                }
            }
            Atom::Square { form, layer } => Node::Square {
                form: pass.form(form, Power(power.0 / 2.0)),
                layer: *layer,
            },
            Atom::Product { factors, layer } => Node::Product {
                factors: [0, 1].map(|i| pass.form(&factors[i], Power(power.0 / 2.0))),
                layer: *layer,
            },
            Atom::Recurrence { form, decay, layer } => Node::Recurrence {
                form: pass.form(form, power),
                decay: decay.clone(),
                layer: *layer,
            },
        };
        let index = pass.push(node);
        pass.node_of.insert(id, index);
    }
    let constant = program.constant.clone();
    let answer = pass.answer(&terms, constant.len(), max_features);
    Ok(LengthFree {
        token_features: *features,
        token_bound: bound.clone(),
        nodes: pass.nodes,
        answer,
        constant,
        max_tokens: program.max_tokens,
    })
}

/// The operands' power of an attention whose result is at `result`.
fn attention_operand(result: Power) -> Power {
    Power((result.0 + 1.0) / 5.0)
}

/// The lowest power at which each non-linear atom is read, from the answer backwards. Atoms that
/// nothing reads are left out.
fn native_powers(program: &AtomProgram, answer: &[Weighted]) -> BTreeMap<AtomId, Power> {
    fn demand(lowest: &mut BTreeMap<AtomId, Power>, form: &Form, power: Power) {
        form.terms.keys().for_each(|a| want(lowest, *a, power));
    }
    fn want(lowest: &mut BTreeMap<AtomId, Power>, atom: AtomId, power: Power) {
        let p = lowest.entry(atom).or_insert(power);
        *p = Power(p.0.min(power.0));
    }
    let mut lowest = BTreeMap::new();
    for term in answer {
        if let Operand::Atom(a) = term.operand {
            want(&mut lowest, a, pooled_power(term.pooling));
        }
    }
    for (id, atom) in program.atoms.iter().enumerate().rev() {
        let Some(power) = lowest.get(&id).copied() else {
            continue;
        };
        match atom {
            Atom::Input { .. } => {}
            Atom::Attention {
                query, key, value, ..
            } => {
                for form in [query, key, value] {
                    demand(&mut lowest, form, attention_operand(power));
                }
            }
            Atom::Square { form, .. } => demand(&mut lowest, form, Power(power.0 / 2.0)),
            Atom::Product { factors, .. } => {
                for form in factors {
                    demand(&mut lowest, form, Power(power.0 / 2.0));
                }
            }
            Atom::Recurrence { form, .. } => demand(&mut lowest, form, power),
        }
    }
    lowest
}

struct Pass<'a> {
    atoms: &'a [Atom],
    native: BTreeMap<AtomId, Power>,
    node_of: BTreeMap<AtomId, usize>,
    nodes: Vec<Node>,
}

impl Pass<'_> {
    /// Appends a node and returns its index.
    fn push(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn is_input(&self, a: AtomId) -> bool {
        matches!(self.atoms.get(a), Some(Atom::Input { .. }))
    }

    fn power_of(&self, a: AtomId) -> Power {
        self.native.get(&a).copied().unwrap_or(MEAN)
    }

    /// The form with all its sources at `power`, which they have (or are inputs).
    fn direct(&self, form: &Form, power: Power) -> LevelForm {
        let source = |a: &AtomId| {
            self.node_of
                .get(a)
                .map_or(Source::Tokens, |n| Source::Node(*n))
        };
        let terms = form
            .terms
            .iter()
            .filter(|(_, m)| m.data().iter().any(|x| *x != 0.0));
        let terms = terms.map(|(a, m)| (source(a), m.clone())).collect();
        LevelForm {
            terms,
            bias: form.bias.clone(),
            power,
        }
    }

    /// Atoms of the form that are held below `power`, grouped by their power.
    fn low_groups(&self, form: &Form, power: Power) -> Vec<(Power, Vec<AtomId>)> {
        let mut groups: Vec<(Power, Vec<AtomId>)> = Vec::new();
        for a in form.terms.keys().filter(|a| !self.is_input(**a)) {
            let p = self.power_of(*a);
            if p.same(power) {
                continue;
            }
            match groups.iter_mut().find(|g| g.0.same(p)) {
                Some(g) => g.1.push(*a),
                None => groups.push((p, vec![*a])),
            }
        }
        groups
    }

    fn form(&mut self, form: &Form, power: Power) -> LevelForm {
        let groups = self.low_groups(form, power);
        let low = |a: AtomId| groups.iter().any(|g| g.1.contains(&a));
        let mut out = self.direct(&form.filter(|a| !low(a), true), power);
        for (p, atoms) in &groups {
            let part = self.direct(&form.filter(|a| atoms.contains(&a), false), *p);
            let lift = Node::Lift {
                form: part,
                by: Power(power.0 - p.0),
            };
            let node = Source::Node(self.push(lift));
            out.terms.push((node, Matrix::identity(form.features())));
        }
        out
    }

    /// The answer. Means of whole sentences are one form; other terms are read one by one.
    fn answer(&mut self, terms: &[Weighted], labels: usize, room: usize) -> Vec<AnswerTerm> {
        let mut means = Form {
            terms: BTreeMap::new(),
            bias: vec![0.0; labels],
        };
        for term in terms {
            if let (Operand::Atom(a), Pooling::Mean, Kernel::Every(m)) =
                (term.operand, term.pooling, &term.kernel)
            {
                means.terms.insert(a, m.clone());
            }
        }
        let mut out: Vec<AnswerTerm> = Vec::new();
        if !means.terms.is_empty() {
            let form = self.means(&means, room);
            out.extend(form.terms.into_iter().map(|(source, matrix)| AnswerTerm {
                source,
                power: form.power,
                kernel: Kernel::Every(matrix),
            }));
        }
        for term in terms {
            let power = pooled_power(term.pooling);
            let source = match (term.operand, &term.kernel) {
                (Operand::Atom(_), Kernel::Every(_)) => continue,
                (Operand::Atom(a), Kernel::FromEnd(_)) => self.source_at(a, power),
                (Operand::Mask, _) => Source::Mask,
            };
            // A node may have been widened since.
            let width = match source {
                Source::Node(n) => self.nodes.get(n).map(Node::features),
                Source::Tokens | Source::Mask => None,
            };
            let kernel = term.kernel.map(|m| {
                let more = width.unwrap_or(0).saturating_sub(m.cols());
                transpose_stack(m, &Matrix::zeros(m.rows(), more))
            });
            out.push(AnswerTerm {
                source,
                power,
                kernel,
            });
        }
        out
    }

    /// An atom at `power`: itself, or lifted.
    fn source_at(&mut self, atom: AtomId, power: Power) -> Source {
        let features = self.atoms.get(atom).map_or(0, Atom::features);
        if self.is_input(atom) {
            return Source::Tokens;
        }
        let own = self.power_of(atom);
        let unit = Form {
            terms: BTreeMap::from([(atom, Matrix::identity(features))]),
            bias: vec![0.0; features],
        };
        match self.node_of.get(&atom) {
            Some(node) if own.same(power) => Source::Node(*node),
            _ => {
                let form = self.direct(&unit, own);
                let by = Power(power.0 - own.0);
                Source::Node(self.push(Node::Lift { form, by }))
            }
        }
    }

    /// A form at [`MEAN`] whose sum over tokens is wanted, without a bias. What is held at half the power is squared there:
    /// `l m = ((l + m) / 2)^2 - ((l - m) / 2)^2` with the mask `m` in the place of a bias; these
    /// squares are stacked onto the last ones of the model where they fit.
    fn means(&mut self, form: &Form, max_features: usize) -> LevelForm {
        let half = Power(MEAN.0 / 2.0);
        let groups = self.low_groups(form, MEAN);
        let Some((_, atoms)) = groups.iter().find(|g| g.0.same(half)).cloned() else {
            let mut out = self.form(&form.filter(|_| true, false), MEAN);
            out.bias = vec![0.0; form.features()];
            return out;
        };
        let in_squares = |a: AtomId| self.is_input(a) || atoms.contains(&a);
        let low = form.filter(in_squares, false);
        let rest = form.filter(|a| !in_squares(a), false);
        let labels = form.features();
        let halves = vec![0.5; labels];
        let plus = low.affine(&halves, &halves);
        let minus = low.affine(&halves, &vec![-0.5; labels]);
        let atom_features = |a: AtomId| self.atoms.get(a).map_or(0, Atom::features);
        let squares = plus.stack(&minus, atom_features);
        let mut out = self.form(&rest, MEAN);
        out.bias = vec![0.0; labels];

        let signs = Matrix::identity(labels).scale_rows(&vec![-1.0; labels]);
        let back = transpose_stack(&Matrix::identity(labels), &signs);
        let squares = self.direct(&squares, half);
        let host = self.nodes.iter().rposition(|n| match n {
            Node::Square { form, .. } => {
                form.power.same(half) && form.bias.len() + 2 * labels <= max_features
            }
            _ => false,
        });
        // Stacking is only sound where the host reads nothing later than itself, which holds: all
        // that the new squares read are inputs and nodes at half power; those must precede it.
        let host = host.filter(|h| {
            squares
                .terms
                .iter()
                .all(|(s, _)| !matches!(s, Source::Node(n) if n >= h))
        });
        match host {
            Some(h) => {
                if let Some(Node::Square { form, .. }) = self.nodes.get_mut(h) {
                    let before = form.bias.len();
                    stack_onto(form, &squares);
                    let after = form.bias.len();
                    widen(&mut self.nodes, &mut out, h, before, after, &back);
                }
            }
            None => {
                let layer = self.nodes.len();
                let node = self.push(Node::Square {
                    form: squares,
                    layer,
                });
                out.terms.push((Source::Node(node), back));
            }
        }
        out
    }
}

/// `[a | b]` for matrices of equal height.
fn transpose_stack(a: &Matrix, b: &Matrix) -> Matrix {
    let mut out = Matrix::zeros(a.rows(), a.cols() + b.cols());
    for r in 0..a.rows() {
        a.row(r)
            .iter()
            .enumerate()
            .for_each(|(c, v)| out.set(r, c, *v));
        b.row(r)
            .iter()
            .enumerate()
            .for_each(|(c, v)| out.set(r, a.cols() + c, *v));
    }
    out
}

fn stack_onto(form: &mut LevelForm, below: &LevelForm) {
    let (top, extra) = (form.bias.len(), below.bias.len());
    for (source, matrix) in &mut form.terms {
        let more = below
            .terms
            .iter()
            .find(|t| t.0 == *source)
            .map(|t| t.1.clone());
        *matrix = matrix.stack(&more.unwrap_or_else(|| Matrix::zeros(extra, matrix.cols())));
    }
    for (source, matrix) in &below.terms {
        if form.terms.iter().all(|t| t.0 != *source) {
            form.terms
                .push((*source, Matrix::zeros(top, matrix.cols()).stack(matrix)));
        }
    }
    form.bias.extend(&below.bias);
}

/// Node `h` grew from `before` to `after` features: its readers get zero columns, and the answer
/// reads the new ones through `back`.
fn widen(
    nodes: &mut [Node],
    answer: &mut LevelForm,
    h: usize,
    before: usize,
    after: usize,
    back: &Matrix,
) {
    let pad = |form: &mut LevelForm| {
        for (source, m) in &mut form.terms {
            if *source == Source::Node(h) && m.cols() == before {
                *m = transpose_stack(m, &Matrix::zeros(m.rows(), after - before));
            }
        }
    };
    nodes.iter_mut().flat_map(Node::forms_mut).for_each(&pad);
    pad(answer);
    let extra = transpose_stack(&Matrix::zeros(back.rows(), before), back);
    match answer.terms.iter_mut().find(|t| t.0 == Source::Node(h)) {
        Some(term) => term.1 = term.1.sum(&extra),
        None => answer.terms.push((Source::Node(h), extra)),
    }
}
