//! Products of two encrypted matrices.
//!
//! Jiang, Kim, Lauter and Song, "Secure Outsourced Matrix Computation and Application to Neural
//! Networks" (CCS 2018, ePrint 2018/1041), section 3: with the maps on square matrices
//!
//! `sigma(A)[i][j] = A[i][i+j]`, `tau(B)[i][j] = B[i+j][j]`,
//! `phi(A)[i][j] = A[i][j+1]`, `psi(B)[i][j] = B[i+1][j]` (indices modulo d),
//!
//! `A B = sum over k < d of phi^k(sigma(A)) * psi^k(tau(B))`, products slot by slot. Here
//!
//! * all `phi^k` are one call of transforms that shares its 2 (d - 1) rotations, and all products one
//!   relinearization per giant step;
//! * two values of `k` ride in one product, for real matrices: with `k' = k + d/2`,
//!   `Re((phi^k + i phi^k')(X) * psi^k(Y - i psi^(d/2)(Y))) =
//!   phi^k(X) psi^k(Y) + phi^k'(X) psi^k'(Y)`. Half of the products, of the `phi^k` and of the
//!   rotations of `Y`, for a rotation and a conjugation;
//! * `k = g + b` in giant and baby steps: `psi` commutes with products, and the masks of `phi^k`
//!   are the same in all rows, so `sum_g psi^g( sum_b psi^-g(phi^(g+b)(X)) * psi^b(Y) )` rotates
//!   `Y` by baby steps alone and `X` no more often than before.

use std::collections::BTreeSet;
use std::convert::Infallible;

use veilformer_ckks::{Complex, Giant, Ops, OpsError, Scale, Term, Transform};

use super::counts::Counts;
use super::diagonals::{Diagonal, mapped};
use super::tally::{Tally, rotations_of};
use crate::CircuitError;

const CIRCUIT: &str = "tile product";

/// Levels that a [`TileProduct`] takes.
const LEVELS: usize = 3;

/// Square matrices in one ciphertext: entry (i, j) of matrix `h` in slot
/// `(i * dim + j) * batch + h`, repeated with period `dim * dim * batch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TileShape {
    /// Rows and columns: a power of two, at least 2.
    pub dim: usize,
    /// Matrices side by side (the heads of an attention): a power of two.
    pub batch: usize,
}

impl TileShape {
    /// Slots after which the layout repeats.
    #[must_use]
    pub fn period(self) -> usize {
        self.dim * self.dim * self.batch
    }

    /// The slots of so many matrices, each row by row.
    #[must_use]
    pub fn pack(self, matrices: &[Vec<f64>], slots: usize) -> Vec<Complex> {
        let value = |slot: usize| {
            let slot = slot % self.period();
            let matrix = matrices.get(slot % self.batch);
            let value = matrix.and_then(|m| m.get(slot / self.batch));
            Complex::new(value.copied().unwrap_or_default(), 0.0)
        };
        (0..slots).map(value).collect()
    }

    /// Matrix `h` of these slots, row by row.
    #[must_use]
    pub fn unpack(self, slots: &[Complex], h: usize) -> Vec<f64> {
        let entries = slots.iter().skip(h).step_by(self.batch);
        entries.take(self.dim * self.dim).map(|z| z.re).collect()
    }

    fn check(self) -> Result<(), CircuitError> {
        let powers = self.dim.is_power_of_two() && self.batch.is_power_of_two();
        if powers && self.dim >= 2 {
            return Ok(());
        }
        let what = format!("{self:?}; powers of two and at least 2 rows are expected");
        Err(CircuitError::shape(CIRCUIT, what))
    }
}

/// The product of two encrypted real matrices, for each of a batch; see the source's head for how.
#[derive(Clone, Debug, PartialEq)]
pub struct TileProduct<Pl> {
    shape: TileShape,
    /// Baby steps of the rows.
    babies: usize,
    sigma: Transform<Pl>,
    tau: Transform<Pl>,
    /// Per k the pair of `phi`, turned back by the giant step of k.
    phi: Vec<Transform<Pl>>,
    /// `-i`, at scale one.
    unit: Pl,
}

/// What a plaintext of a tile product is for: a factor so many levels below the inputs, extended
/// or not; or none, the imaginary unit one level below, at scale one.
type Place = Option<(usize, bool)>;

impl TileProduct<Diagonal> {
    /// The steps, with so many baby steps over rows: a power of two up to half of them; fewer are
    /// fewer rotations and keys for more relinearizations.
    ///
    /// # Errors
    /// A shape or a number of steps that is no power of two or out of range.
    pub fn new(shape: TileShape, babies: usize) -> Result<Self, CircuitError> {
        shape.check()?;
        let half = shape.dim / 2;
        if !babies.is_power_of_two() || babies > half {
            let what = format!("{babies} baby steps; a power of two up to {half} is expected");
            return Err(CircuitError::shape(CIRCUIT, what));
        }
        let phi = (0..half).map(|k| phi(shape, k, k / babies * babies));
        Ok(Self {
            shape,
            babies,
            sigma: sigma(shape),
            tau: tau(shape),
            phi: phi.collect(),
            unit: Diagonal {
                values: vec![Complex::new(0.0, -1.0)],
                run: 1,
            },
        })
    }

    /// Encodes the masks for inputs at `level`.
    ///
    /// # Errors
    /// Fewer than three levels, a tile of more than the slots, or what `ops` refuses.
    pub fn encode<O: Ops>(
        &self,
        ops: &mut O,
        level: usize,
    ) -> Result<TileProduct<O::Plain>, CircuitError> {
        if level < LEVELS {
            return Err(CircuitError::Levels {
                circuit: CIRCUIT,
                level,
                needed: LEVELS,
            });
        }
        let slots = ops.params().slots();
        if self.shape.period() > slots {
            let what = format!("{:?} does not fit {slots} slots", self.shape);
            return Err(CircuitError::shape(CIRCUIT, what));
        }
        self.map(|diagonal, place| {
            let slots = diagonal.slots();
            let Some((down, extended)) = place else {
                return Ok(ops.plain(&slots, level - 1, Scale::power_of_two(0))?);
            };
            let (level, scale) = (level - down, ops.params().scale_at(level - down));
            Ok(match extended {
                true => ops.extended_plain(&slots, level, scale)?,
                false => ops.plain(&slots, level, scale)?,
            })
        })
    }

    /// The operations of [`TileProduct::apply`] on ciphertexts of `slots` slots; the encoding of
    /// masks is left out.
    #[must_use]
    pub fn counts(&self, slots: usize) -> Counts {
        let words = self.map(|diagonal, _| Ok::<usize, Infallible>(diagonal.words()));
        words.map_or_else(|never| match never {}, |words| words.tally(slots))
    }
}

impl TileProduct<usize> {
    fn tally(&self, slots: usize) -> Counts {
        let mut tally = Tally::new(slots);
        tally.call(&[&self.sigma]);
        tally.call(&self.phi.iter().collect::<Vec<_>>());
        tally.call(&[&self.tau]);
        tally.rotate_many([self.row(self.shape.dim / 2)]);
        tally.mul_plain(self.unit);
        // Down to the level of the other factors.
        tally.counts.plain.scalar += 1;
        tally.counts.rescales += 1;
        tally.rotate_many((0..self.babies).map(|b| self.row(b)));
        let giants = self.phi.len() / self.babies;
        for giant in 0..giants {
            tally.mul_sum(self.babies);
            tally.rotate_many([self.row(giant * self.babies)]);
        }
        tally.conjugate();
        tally.counts.additions += 1 + (giants - 1) + 1;
        Counts {
            inputs: 2,
            outputs: 1,
            levels: LEVELS,
            ..tally.counts()
        }
    }
}

impl<Pl> TileProduct<Pl> {
    /// The rotations that are used, in slots; relinearization and conjugation are too.
    #[must_use]
    pub fn rotations(&self) -> BTreeSet<i64> {
        let maps = self.phi.iter().chain([&self.sigma, &self.tau]);
        let mut all: BTreeSet<i64> = maps.flat_map(rotations_of).collect();
        let giants = (0..self.phi.len()).step_by(self.babies);
        let rows = (0..self.babies).chain(giants).chain([self.shape.dim / 2]);
        all.extend(rows.map(|k| self.row(k)));
        all.remove(&0);
        all
    }

    /// The rotation by so many rows.
    fn row(&self, k: usize) -> i64 {
        (k * self.shape.dim * self.shape.batch) as i64
    }

    fn map<Q, E>(
        &self,
        mut made: impl FnMut(&Pl, Place) -> Result<Q, E>,
    ) -> Result<TileProduct<Q>, E> {
        let mut transform = |map: &Transform<Pl>, down| {
            mapped(map, |plain, baby| made(plain, Some((down, baby != 0))))
        };
        Ok(TileProduct {
            shape: self.shape,
            babies: self.babies,
            sigma: transform(&self.sigma, 0)?,
            tau: transform(&self.tau, 0)?,
            phi: self
                .phi
                .iter()
                .map(|map| transform(map, 1))
                .collect::<Result<_, E>>()?,
            unit: made(&self.unit, None)?,
        })
    }
}

impl<Pl: Clone> TileProduct<Pl> {
    /// `a b` for every matrix of the batch, three levels down. Both are real, of the level that the
    /// masks were encoded for, and of one scale.
    ///
    /// # Errors
    /// What `ops` refuses.
    pub fn apply<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        a: &O::Ct,
        b: &O::Ct,
    ) -> Result<O::Ct, CircuitError> {
        let level = ops.level(a);
        let x = ops.linear_transform(&[a], &self.sigma)?;
        let x = ops.linear_transforms(&[&x], &self.phi.iter().collect::<Vec<_>>())?;

        let y = ops.linear_transform(&[b], &self.tau)?;
        let further = ops.rotate(&y, self.row(self.shape.dim / 2))?;
        let further = ops.mul_plain(&further, &self.unit)?;
        let y = ops.add(&y, &further)?;
        let y = ops.adjust(&y, level.saturating_sub(2))?;
        let steps: Vec<i64> = (0..self.babies).map(|b| self.row(b)).collect();
        let y = ops.rotate_many(&y, &steps)?;

        let mut total: Option<O::Ct> = None;
        for (giant, x) in x.chunks(self.babies).enumerate() {
            let pairs: Vec<(&O::Ct, &O::Ct)> = x.iter().zip(&y).collect();
            let sum = ops.mul_sum(&pairs)?;
            let sum = ops.rotate(&sum, self.row(giant * self.babies))?;
            total = Some(match total {
                None => sum,
                Some(total) => ops.add(&total, &sum)?,
            });
        }
        let total = total.ok_or(OpsError::Invalid {
            op: CIRCUIT,
            what: "no products".to_owned(),
        })?;
        let mirrored = ops.conjugate(&total)?;
        Ok(ops.add(&total, &mirrored)?)
    }
}

/// `sigma`: offset `i` for the columns `j < dim - i` of row `i`, `i - dim` for the others.
fn sigma(shape: TileShape) -> Transform<Diagonal> {
    let d = shape.dim as i64;
    let offsets = 1 - d..d;
    let diagonal = |offset: i64| {
        let row = offset.rem_euclid(d);
        let one = |at: i64| at / d == row && (at % d + row >= d) == (offset < 0);
        let values = (0..d * d).map(|at| Complex::new(f64::from(u8::from(one(at))), 0.0));
        Diagonal {
            values: values.collect(),
            run: shape.batch,
        }
    };
    let diagonals = offsets.map(|offset| (offset, diagonal(offset)));
    in_steps(diagonals.collect(), shape.batch)
}

/// `tau`: column `j` comes from `j` rows further on, cyclically.
fn tau(shape: TileShape) -> Transform<Diagonal> {
    let d = shape.dim as i64;
    let diagonal = |column: i64| {
        let one = |j: i64| Complex::new(f64::from(u8::from(j == column)), 0.0);
        Diagonal {
            values: (0..d).map(one).collect(),
            run: shape.batch,
        }
    };
    let diagonals = (0..d).map(|j| (j * d, diagonal(j)));
    in_steps(diagonals.collect(), shape.batch)
}

/// `psi^-back((phi^k + i phi^(k + dim/2)) / 2)`: the half makes up for the conjugate that is added at
/// the end.
fn phi(shape: TileShape, k: usize, back: usize) -> Transform<Diagonal> {
    let d = shape.dim as i64;
    let parts = [
        (k as i64, Complex::new(0.5, 0.0)),
        (k as i64 + d / 2, Complex::new(0.0, 0.5)),
    ];
    let mut terms = Vec::with_capacity(4);
    for (k, value) in parts {
        // Columns that come from within their row, and those that come from before its start.
        for (offset, columns) in [(k, 0..d - k), (k - d, d - k..d)] {
            if columns.is_empty() {
                continue;
            }
            let one = |j: i64| {
                if columns.contains(&j) {
                    value
                } else {
                    Complex::default()
                }
            };
            let period = shape.period() as i64;
            let baby = (offset - back as i64 * d) * shape.batch as i64;
            terms.push(Term {
                input: 0,
                baby: baby.rem_euclid(period),
                plain: Diagonal {
                    values: (0..d).map(one).collect(),
                    run: shape.batch,
                },
            });
        }
    }
    Transform {
        giants: vec![Giant { rotation: 0, terms }],
    }
}

/// Diagonals of offsets in entries of `batch` slots, in baby and giant steps: as many baby steps
/// as the power of two next above the root of their number.
fn in_steps(diagonals: Vec<(i64, Diagonal)>, batch: usize) -> Transform<Diagonal> {
    let stride = match diagonals.as_slice() {
        [(first, _), (second, _), ..] => second - first,
        _ => 1,
    };
    let babies = 1i64 << (diagonals.len().ilog2().div_ceil(2));
    let mut giants: std::collections::BTreeMap<i64, Vec<Term<Diagonal>>> = Default::default();
    for (offset, mut diagonal) in diagonals {
        let baby = offset.rem_euclid(babies * stride);
        let giant = offset - baby;
        let by = giant.rem_euclid(diagonal.values.len() as i64);
        diagonal.values.rotate_right(by as usize);
        giants.entry(giant * batch as i64).or_default().push(Term {
            input: 0,
            baby: baby * batch as i64,
            plain: diagonal,
        });
    }
    let giants = giants.into_iter();
    Transform {
        giants: giants
            .map(|(rotation, terms)| Giant { rotation, terms })
            .collect(),
    }
}
