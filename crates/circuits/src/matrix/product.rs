//! A matrix product as steps: counted, encoded, run.

use std::collections::BTreeSet;

use veilformer_ckks::{Complex, Ops, OpsError, Scale, Transform, moves};

use super::diagonals::{Diagonal, Wrap, entries, mapped, shifted, transforms};
use super::rows::{self, Row};
use super::{Packing, Weights};
use crate::CircuitError;

const CIRCUIT: &str = "matrix product";

/// Outputs of one call where no input is rotated, so that nothing but the inputs' words is shared.
pub(super) const OUTPUTS_PER_CALL: usize = 16;

/// How a plaintext matrix is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// One output feature after the other: see [`rows`](super#packed-rows).
    PackedRows,
    /// Diagonals in baby and giant steps. With [`Packing::Column`] these are products with
    /// constants, without any rotation.
    Diagonals {
        /// Features up to which baby steps go; giant steps are multiples.
        baby_steps: usize,
        /// What baby steps share.
        hoisting: Hoisting,
        /// For [`Packing::FeatureFast`]; other packings need none.
        wrap: Wrap,
    },
}

/// What the rotations of one ciphertext share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hoisting {
    /// The decomposition (Halevi and Shoup, ePrint 2018/244). Products are modulo the
    /// ciphertext's primes alone.
    Once,
    /// The ModDown too (Bossuat and others, ePrint 2020/1203): it is done once per giant step, and
    /// products are modulo the special primes as well.
    Twice,
}

impl Method {
    /// Doubly hoisted diagonals with the fewest words per weight.
    #[must_use]
    pub fn diagonals(baby_steps: usize) -> Self {
        Self::Diagonals {
            baby_steps,
            hoisting: Hoisting::Twice,
            wrap: Wrap::Paired,
        }
    }
}

/// A product of a plaintext matrix with encrypted features, `out[j][t] = sum_i W[j][i] in[i][t]`
/// for all tokens `t`, inputs and outputs in the same packing. Over [`Diagonal`]s it can be counted
/// and encoded; over an implementation's plaintexts it can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixProduct<Pl> {
    packing: Packing,
    rows: usize,
    pub(super) inputs: usize,
    /// Per output ciphertext; none: it is zero.
    pub(super) outputs: Vec<Option<Steps<Pl>>>,
    pub(super) hoisting: Hoisting,
    pub(super) levels: usize,
    /// Zero for each level, if an output needs it.
    pub(super) zeros: Vec<Pl>,
}

/// What a plaintext of a product is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A factor of the inputs, at the canonical scale of their level; extended (modulo the special
    /// primes as well) if the input is rotated before, without ModDown.
    Factor {
        /// See [`Ops::extended_plain`].
        extended: bool,
    },
    /// A factor so many levels below the inputs, at the canonical scale there.
    Below {
        /// How many.
        levels: usize,
    },
    /// The imaginary unit, one level below the inputs, at scale one.
    Unit,
}

/// The way to one output ciphertext.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Steps<Pl> {
    Diagonals {
        transform: Transform<Pl>,
        fold: Option<Fold<Pl>>,
    },
    Rows(Vec<Row<Pl>>),
}

/// `(C + conj C) + rot(-i (C - conj C))`, see [`Wrap::Paired`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fold<Pl> {
    pub(super) rotation: i64,
    /// `-i`.
    pub(super) unit: Pl,
}

impl MatrixProduct<Diagonal> {
    /// The steps of a product.
    ///
    /// # Errors
    /// A packing that is not of powers of two, or baby steps of no feature.
    pub fn new(weights: &Weights, packing: Packing, method: Method) -> Result<Self, CircuitError> {
        packing.check(1, usize::MAX)?;
        match method {
            Method::PackedRows => Ok(Self::of_rows(weights, packing)),
            Method::Diagonals { baby_steps: 0, .. } => {
                let what = "baby steps of no feature; at least 1 is expected";
                Err(CircuitError::shape(CIRCUIT, what))
            }
            Method::Diagonals {
                baby_steps,
                hoisting,
                wrap,
            } => {
                let outputs = packing.ciphertexts(weights.rows());
                let entries = entries(weights, packing, wrap, |values| values);
                let plain = |values: &Vec<_>, giant| shifted(values, packing, giant);
                let maps = transforms(&entries, packing, (outputs, baby_steps), plain);
                Ok(Self::of_transforms(
                    weights,
                    (packing, hoisting, wrap),
                    maps,
                    |diagonal| diagonal,
                ))
            }
        }
    }

    fn of_rows(weights: &Weights, packing: Packing) -> Self {
        let outputs = rows::rows(weights, packing).into_iter();
        let outputs = outputs.map(|rows| (!rows.is_empty()).then_some(Steps::Rows(rows)));
        let outputs: Vec<_> = outputs.collect();
        let zeros = outputs.iter().any(Option::is_none);
        let zeros = if zeros { rows::LEVELS } else { 0 };
        Self {
            packing,
            rows: weights.rows(),
            inputs: packing.ciphertexts(weights.cols()),
            outputs,
            hoisting: Hoisting::Twice,
            levels: rows::LEVELS,
            zeros: vec![Diagonal::constant(0.0); zeros],
        }
    }

    /// Encodes the plaintexts for inputs at `level`.
    ///
    /// # Errors
    /// Too few levels, or what `ops` refuses.
    pub fn encode<O: Ops>(
        &self,
        ops: &mut O,
        level: usize,
    ) -> Result<MatrixProduct<O::Plain>, CircuitError> {
        if level < self.levels {
            return Err(CircuitError::Levels {
                circuit: CIRCUIT,
                level,
                needed: self.levels,
            });
        }
        self.map(|diagonal, role| {
            let slots = diagonal.slots();
            let canonical = |ops: &O, level| ops.params().scale_at(level);
            match role {
                Role::Factor { extended: true } => {
                    ops.extended_plain(&slots, level, canonical(ops, level))
                }
                Role::Factor { extended: false } => ops.plain(&slots, level, canonical(ops, level)),
                Role::Below { levels } => {
                    let level = level - levels;
                    ops.plain(&slots, level, canonical(ops, level))
                }
                // At scale one the unit is a monomial: exact, and no level.
                Role::Unit => ops.plain(&slots, level - 1, Scale::power_of_two(0)),
            }
            .map_err(CircuitError::from)
        })
    }
}

impl<Pl> MatrixProduct<Pl> {
    /// The product by these transforms, one per output; `plain` makes the other plaintexts.
    pub(super) fn of_transforms(
        weights: &Weights,
        (packing, hoisting, wrap): (Packing, Hoisting, Wrap),
        maps: Vec<Transform<Pl>>,
        plain: impl Fn(Diagonal) -> Pl,
    ) -> Self {
        let paired = matches!(packing, Packing::FeatureFast { .. }) && wrap == Wrap::Paired;
        let zero = maps.iter().any(|map| map.giants.is_empty());
        let outputs = maps.into_iter().map(|transform| {
            let fold = paired.then(|| Fold {
                rotation: -(packing.width() as i64),
                unit: plain(Diagonal {
                    values: vec![Complex::new(0.0, -1.0)],
                    run: 1,
                }),
            });
            (!transform.giants.is_empty()).then_some(Steps::Diagonals { transform, fold })
        });
        Self {
            packing,
            rows: weights.rows(),
            inputs: packing.ciphertexts(weights.cols()),
            outputs: outputs.collect(),
            hoisting,
            levels: 1,
            zeros: zero
                .then(|| plain(Diagonal::constant(0.0)))
                .into_iter()
                .collect(),
        }
    }

    /// The packing of inputs and outputs.
    #[must_use]
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// The same steps with other plaintexts, `made` for what they are.
    ///
    /// # Errors
    /// Those of `made`.
    pub fn map<Q, E>(
        &self,
        mut made: impl FnMut(&Pl, Role) -> Result<Q, E>,
    ) -> Result<MatrixProduct<Q>, E> {
        let mut outputs = Vec::with_capacity(self.outputs.len());
        for output in &self.outputs {
            outputs.push(match output {
                None => None,
                Some(Steps::Diagonals { transform, fold }) => Some(Steps::Diagonals {
                    transform: mapped(transform, |plain, baby| {
                        let extended = baby != 0 && self.hoisting == Hoisting::Twice;
                        made(plain, Role::Factor { extended })
                    })?,
                    fold: match fold {
                        None => None,
                        Some(fold) => Some(Fold {
                            rotation: fold.rotation,
                            unit: made(&fold.unit, Role::Unit)?,
                        }),
                    },
                }),
                Some(Steps::Rows(rows)) => {
                    let rows = rows.iter().map(|row| {
                        Ok(Row {
                            transform: mapped(&row.transform, |plain, _| {
                                made(plain, Role::Factor { extended: false })
                            })?,
                            mask: made(&row.mask, Role::Below { levels: 1 })?,
                            steps: row.steps.clone(),
                        })
                    });
                    Some(Steps::Rows(rows.collect::<Result<_, E>>()?))
                }
            });
        }
        let zeros = self.zeros.iter().enumerate();
        let zeros = zeros.map(|(levels, zero)| made(zero, Role::Below { levels }));
        Ok(MatrixProduct {
            zeros: zeros.collect::<Result<_, E>>()?,
            packing: self.packing,
            rows: self.rows,
            inputs: self.inputs,
            outputs,
            hoisting: self.hoisting,
            levels: self.levels,
        })
    }

    /// Output features.
    #[must_use]
    pub fn features(&self) -> usize {
        self.rows
    }

    /// Levels from inputs to outputs.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.levels
    }
}

impl<Pl: Clone> MatrixProduct<Pl> {
    /// The product. Inputs are of the level that the plaintexts were encoded for, of one scale, and
    /// as many as the packing takes for the matrix's columns; with [`Wrap::Paired`] they are real.
    ///
    /// # Errors
    /// Another number of inputs; what `ops` refuses.
    pub fn apply<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        inputs: &[&O::Ct],
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let [first, ..] = inputs else {
            return Err(self.wrong_inputs(0));
        };
        if inputs.len() != self.inputs {
            return Err(self.wrong_inputs(inputs.len()));
        }
        let mut sums = self.sums(ops, inputs)?.into_iter();
        let mut results = Vec::with_capacity(self.outputs.len());
        for output in &self.outputs {
            results.push(match output {
                None => self.zero(ops, first)?,
                Some(Steps::Rows(rows)) => rows::apply(ops, inputs, rows)?,
                Some(Steps::Diagonals { fold, .. }) => {
                    let missing = || CircuitError::shape(CIRCUIT, "fewer results than transforms");
                    let sum = sums.next().ok_or_else(missing)?;
                    match fold {
                        None => sum,
                        Some(fold) => fold.apply(ops, &sum)?,
                    }
                }
            });
        }
        Ok(results)
    }

    /// The results of all transforms, in order.
    fn sums<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        inputs: &[&O::Ct],
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let maps: Vec<&Transform<Pl>> = self.transforms().collect();
        if maps.is_empty() {
            return Ok(Vec::new());
        }
        if self.hoisting == Hoisting::Once {
            return self.hoisted_once(ops, inputs, &maps);
        }
        let slots = ops.params().slots();
        let mut terms = maps.iter().flat_map(|m| &m.giants).flat_map(|g| &g.terms);
        let shares = terms.any(|t| moves(t.baby, slots));
        let group = if shares { maps.len() } else { OUTPUTS_PER_CALL };
        let mut results = Vec::with_capacity(maps.len());
        for maps in maps.chunks(group) {
            results.extend(ops.linear_transforms(inputs, maps)?);
        }
        Ok(results)
    }

    /// All rotated inputs first, each with its ModDown; then the same transforms of those.
    fn hoisted_once<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        inputs: &[&O::Ct],
        maps: &[&Transform<Pl>],
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let terms = maps.iter().flat_map(|m| &m.giants).flat_map(|g| &g.terms);
        let pairs: BTreeSet<(usize, i64)> = terms.map(|t| (t.input, t.baby)).collect();
        let pairs: Vec<(usize, i64)> = pairs.into_iter().collect();
        let mut rotated = Vec::with_capacity(pairs.len());
        for (i, input) in inputs.iter().enumerate() {
            let steps: Vec<i64> = pairs.iter().filter(|p| p.0 == i).map(|p| p.1).collect();
            if !steps.is_empty() {
                rotated.extend(ops.rotate_many(input, &steps)?);
            }
        }
        let rotated: Vec<&O::Ct> = rotated.iter().collect();
        let maps: Vec<Transform<Pl>> = maps
            .iter()
            .map(|map| {
                let mut map = (*map).clone();
                for term in map.giants.iter_mut().flat_map(|g| &mut g.terms) {
                    term.input = pairs.binary_search(&(term.input, term.baby)).unwrap_or(0);
                    term.baby = 0;
                }
                map
            })
            .collect();
        Ok(ops.linear_transforms(&rotated, &maps.iter().collect::<Vec<_>>())?)
    }

    pub(super) fn transforms(&self) -> impl Iterator<Item = &Transform<Pl>> {
        self.outputs
            .iter()
            .flatten()
            .filter_map(|steps| match steps {
                Steps::Diagonals { transform, .. } => Some(transform),
                Steps::Rows(_) => None,
            })
    }

    /// Zero at the level and scale of the other outputs.
    fn zero<O: Ops<Plain = Pl>>(&self, ops: &mut O, input: &O::Ct) -> Result<O::Ct, CircuitError> {
        let mut zero = input.clone();
        for plain in &self.zeros {
            zero = ops.mul_plain(&zero, plain)?;
            zero = ops.rescale(&zero)?;
        }
        Ok(zero)
    }

    fn wrong_inputs(&self, found: usize) -> CircuitError {
        let what = format!("{found} ciphertexts given, expected {}", self.inputs);
        CircuitError::shape(CIRCUIT, what)
    }
}

impl<Pl> Fold<Pl> {
    fn apply<O: Ops<Plain = Pl>>(&self, ops: &mut O, sum: &O::Ct) -> Result<O::Ct, OpsError> {
        let mirrored = ops.conjugate(sum)?;
        let within = ops.add(sum, &mirrored)?;
        let outside = ops.sub(sum, &mirrored)?;
        let outside = ops.mul_plain(&outside, &self.unit)?;
        let outside = ops.rotate(&outside, self.rotation)?;
        ops.add(&within, &outside)
    }
}
