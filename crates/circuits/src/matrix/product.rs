//! A matrix product as steps: counted, encoded, run.

use std::collections::BTreeSet;

use veilformer_ckks::{Complex, Ops, OpsError, Scale, Term, Transform, moves};

use super::counts::Counts;
use super::diagonals::{Diagonal, Wrap, transforms};
use super::rows::{self, Row};
use super::{Packing, Weights};
use crate::CircuitError;

const CIRCUIT: &str = "matrix product";

/// Outputs of one call where no input is rotated, so that nothing but the inputs' words is shared.
const OUTPUTS_PER_CALL: usize = 16;

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
    inputs: usize,
    /// Per output ciphertext; none: it is zero.
    outputs: Vec<Option<Steps<Pl>>>,
    hoisting: Hoisting,
    levels: usize,
    /// Zero for each level, if an output needs it.
    zeros: Vec<Pl>,
}

/// The way to one output ciphertext.
#[derive(Clone, Debug, PartialEq)]
enum Steps<Pl> {
    Diagonals {
        transform: Transform<Pl>,
        fold: Option<Fold<Pl>>,
    },
    Rows(Vec<Row<Pl>>),
}

/// `(C + conj C) + rot(-i (C - conj C))`, see [`Wrap::Paired`].
#[derive(Clone, Debug, PartialEq)]
struct Fold<Pl> {
    rotation: i64,
    /// `-i`.
    unit: Pl,
}

impl MatrixProduct<Diagonal> {
    /// The steps of a product.
    ///
    /// # Errors
    /// A packing that is not of powers of two, or baby steps of no feature.
    pub fn new(weights: &Weights, packing: Packing, method: Method) -> Result<Self, CircuitError> {
        let width = packing.width();
        packing.check(1, usize::MAX)?;
        let minus_i = Diagonal {
            values: vec![Complex::new(0.0, -1.0)],
            run: 1,
        };
        let (outputs, hoisting, levels): (Vec<_>, _, _) = match method {
            Method::PackedRows => {
                let rows = rows::rows(weights, packing).into_iter();
                let outputs = rows.map(|rows| (!rows.is_empty()).then_some(Steps::Rows(rows)));
                (outputs.collect(), Hoisting::Twice, rows::LEVELS)
            }
            Method::Diagonals { baby_steps: 0, .. } => {
                return Err(CircuitError::shape(
                    CIRCUIT,
                    "baby steps of no feature; at least 1",
                ));
            }
            Method::Diagonals {
                baby_steps,
                hoisting,
                wrap,
            } => {
                let paired = matches!(packing, Packing::FeatureFast { .. }) && wrap == Wrap::Paired;
                let fold = paired.then(|| Fold {
                    rotation: -(width as i64),
                    unit: minus_i,
                });
                let maps = transforms(weights, packing, wrap, baby_steps).into_iter();
                let outputs = maps.map(|transform| {
                    (!transform.giants.is_empty()).then(|| Steps::Diagonals {
                        transform,
                        fold: fold.clone(),
                    })
                });
                (outputs.collect(), hoisting, 1)
            }
        };
        let zeros = match outputs.iter().any(Option::is_none) {
            true => vec![Diagonal::constant(0.0); levels],
            false => Vec::new(),
        };
        Ok(Self {
            packing,
            rows: weights.rows(),
            inputs: packing.ciphertexts(weights.cols()),
            outputs,
            hoisting,
            levels,
            zeros,
        })
    }

    /// The operations of [`MatrixProduct::apply`] on ciphertexts of `slots` slots, the encoding of
    /// its plaintexts left out; what an [`Ops`] really does is the same.
    #[must_use]
    pub fn counts(&self, slots: usize) -> Counts {
        let mut tally = Tally {
            counts: Counts {
                inputs: self.inputs,
                outputs: self.outputs.len(),
                levels: self.levels,
                ..Counts::default()
            },
            slots,
            keys: BTreeSet::new(),
            conjugation: false,
        };
        for zero in &self.zeros {
            tally.counts.plain_words += zero.words();
        }
        let mut babies = BTreeSet::new();
        for output in &self.outputs {
            match output {
                None => {
                    tally.counts.plain.scalar += self.levels;
                    tally.counts.rescales += self.levels;
                }
                Some(Steps::Rows(rows)) => tally.rows(rows),
                Some(Steps::Diagonals { transform, fold }) => {
                    tally.transform(transform, self.hoisting, &mut babies);
                    if let Some(fold) = fold {
                        tally.fold(fold);
                    }
                }
            }
        }
        tally.shared(&babies, self.hoisting, self);
        tally.counts.keys = tally.keys.len() + usize::from(tally.conjugation);
        tally.counts
    }

    /// The rotations that are used, in slots, and whether the conjugation is.
    #[must_use]
    pub fn rotations(&self) -> (BTreeSet<i64>, bool) {
        let mut steps = BTreeSet::new();
        let mut conjugation = false;
        for output in self.outputs.iter().flatten() {
            match output {
                Steps::Rows(rows) => steps.extend(rows.iter().flat_map(|r| &r.steps)),
                Steps::Diagonals { transform, fold } => {
                    for giant in &transform.giants {
                        steps.insert(giant.rotation);
                        steps.extend(giant.terms.iter().map(|t| t.baby));
                    }
                    steps.extend(fold.iter().map(|f| f.rotation));
                    conjugation |= fold.is_some();
                }
            }
        }
        steps.remove(&0);
        (steps, conjugation)
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
        let scale = ops.params().scale_at(level);
        let below = ops.params().scale_at(level - 1);
        let hoisting = self.hoisting;
        let encode_steps = |ops: &mut O, steps: &Steps<Diagonal>| match steps {
            Steps::Diagonals { transform, fold } => {
                let transform = encoded(transform, |d, baby| match hoisting {
                    Hoisting::Once => ops.plain(&d.slots(), level, scale),
                    Hoisting::Twice => ops.term_plain(&d.slots(), level, scale, baby),
                })?;
                let fold = fold.as_ref().map(|fold| {
                    // At scale one the unit is a monomial: exact, and no level.
                    let unit = ops.plain(&fold.unit.slots(), level - 1, Scale::power_of_two(0))?;
                    Ok::<_, OpsError>(Fold {
                        rotation: fold.rotation,
                        unit,
                    })
                });
                let fold = fold.transpose()?;
                Ok::<_, OpsError>(Steps::Diagonals { transform, fold })
            }
            Steps::Rows(rows) => {
                let rows = rows.iter().map(|row| {
                    Ok::<_, OpsError>(Row {
                        transform: encoded(&row.transform, |d, _| {
                            ops.plain(&d.slots(), level, scale)
                        })?,
                        mask: ops.plain(&row.mask.slots(), level - 1, below)?,
                        steps: row.steps.clone(),
                    })
                });
                Ok(Steps::Rows(rows.collect::<Result<_, _>>()?))
            }
        };
        let outputs = self.outputs.iter();
        let outputs = outputs.map(|o| o.as_ref().map(|s| encode_steps(ops, s)).transpose());
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        let zeros = self.zeros.iter().enumerate().map(|(down, zero)| {
            let level = level - down;
            let scale = ops.params().scale_at(level);
            ops.plain(&zero.slots(), level, scale)
        });
        Ok(MatrixProduct {
            zeros: zeros.collect::<Result<_, _>>()?,
            packing: self.packing,
            rows: self.rows,
            inputs: self.inputs,
            outputs,
            hoisting,
            levels: self.levels,
        })
    }
}

impl<Pl> MatrixProduct<Pl> {
    /// The packing of inputs and outputs.
    #[must_use]
    pub fn packing(&self) -> Packing {
        self.packing
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
        let mut results = Vec::with_capacity(maps.len());
        for map in maps {
            let mut map = (*map).clone();
            for term in map.giants.iter_mut().flat_map(|g| &mut g.terms) {
                term.input = pairs.binary_search(&(term.input, term.baby)).unwrap_or(0);
                term.baby = 0;
            }
            results.push(ops.linear_transform(&rotated, &map)?);
        }
        Ok(results)
    }

    fn transforms(&self) -> impl Iterator<Item = &Transform<Pl>> {
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

/// The same transform with every factor encoded.
fn encoded<Pl>(
    transform: &Transform<Diagonal>,
    mut encode: impl FnMut(&Diagonal, i64) -> Result<Pl, OpsError>,
) -> Result<Transform<Pl>, OpsError> {
    let giants = transform.giants.iter().map(|giant| {
        let terms = giant.terms.iter().map(|term| {
            Ok(Term {
                input: term.input,
                baby: term.baby,
                plain: encode(&term.plain, term.baby)?,
            })
        });
        Ok(veilformer_ckks::Giant {
            rotation: giant.rotation,
            terms: terms.collect::<Result<_, OpsError>>()?,
        })
    });
    Ok(Transform {
        giants: giants.collect::<Result<_, OpsError>>()?,
    })
}

/// Counts while it goes over the steps.
struct Tally {
    counts: Counts,
    slots: usize,
    /// Rotations modulo the slots.
    keys: BTreeSet<i64>,
    conjugation: bool,
}

impl Tally {
    /// Notes a rotation; whether it moves anything.
    fn rotation(&mut self, by: i64) -> bool {
        let turns = moves(by, self.slots);
        if turns {
            self.keys.insert(by.rem_euclid(self.slots as i64));
        }
        turns
    }

    fn transform(
        &mut self,
        transform: &Transform<Diagonal>,
        hoisting: Hoisting,
        babies: &mut BTreeSet<(usize, i64)>,
    ) {
        for giant in &transform.giants {
            let mut rotated = false;
            for term in &giant.terms {
                let words = term.plain.words();
                self.counts.plain_words += words;
                let n = 2 * self.slots;
                let turns = self.rotation(term.baby);
                if turns {
                    babies.insert((term.input, term.baby));
                }
                let extended = turns && hoisting == Hoisting::Twice;
                rotated |= extended;
                let products = match extended {
                    true => &mut self.counts.extended,
                    false => &mut self.counts.plain,
                };
                *products.of_words(words, n) += 1;
            }
            if self.rotation(giant.rotation) {
                match rotated {
                    true => self.counts.giants += 1,
                    false => self.counts.plain_giants += 1,
                }
            }
        }
    }

    /// What all transforms share, and how they end.
    fn shared(
        &mut self,
        babies: &BTreeSet<(usize, i64)>,
        hoisting: Hoisting,
        product: &MatrixProduct<Diagonal>,
    ) {
        let inputs: BTreeSet<usize> = babies.iter().map(|b| b.0).collect();
        match hoisting {
            Hoisting::Twice => {
                self.counts.babies += babies.len();
                self.counts.decompositions += inputs.len();
            }
            Hoisting::Once => {
                for input in inputs {
                    match babies.iter().filter(|b| b.0 == input).count() {
                        1 => self.counts.rotations += 1,
                        several => {
                            self.counts.hoisted += several;
                            self.counts.decompositions += 1;
                        }
                    }
                }
            }
        }
        // Special primes are there for all transforms of one call, or for none.
        let giants =
            |t: &Transform<Diagonal>| t.giants.iter().any(|g| moves(g.rotation, self.slots));
        let maps: Vec<bool> = product.transforms().map(giants).collect();
        let group = match hoisting {
            Hoisting::Once => 1,
            Hoisting::Twice if babies.is_empty() => OUTPUTS_PER_CALL,
            Hoisting::Twice => maps.len().max(1),
        };
        let babies = !babies.is_empty() && hoisting == Hoisting::Twice;
        for maps in maps.chunks(group) {
            match babies || maps.iter().any(|giants| *giants) {
                true => self.counts.divisions += maps.len(),
                false => self.counts.rescales += maps.len(),
            }
        }
    }

    fn fold(&mut self, fold: &Fold<Diagonal>) {
        self.counts.plain_words += fold.unit.words();
        self.counts.plain.periodic += 1;
        self.counts.additions += 3;
        self.counts.rotations += 1 + usize::from(self.rotation(fold.rotation));
        self.conjugation = true;
    }

    fn rows(&mut self, rows: &[Row<Diagonal>]) {
        let n = 2 * self.slots;
        for row in rows {
            self.transform(&row.transform, Hoisting::Twice, &mut BTreeSet::new());
            self.counts.rescales += 1;
            for step in &row.steps {
                self.counts.rotations += usize::from(self.rotation(*step));
                self.counts.additions += 1;
            }
            let words = row.mask.words();
            self.counts.plain_words += words;
            *self.counts.plain.of_words(words, n) += 1;
        }
        // The sum of the masked rows, and its rescale.
        self.counts.additions += rows.len().saturating_sub(1);
        self.counts.rescales += 1;
    }
}
