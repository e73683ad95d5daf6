//! A plaintext matrix, and pruning of it.

use crate::CircuitError;

/// A matrix of `rows` output features by `cols` input features, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    rows: usize,
    cols: usize,
    values: Vec<f64>,
}

/// What [`Weights::pruned`] removes as one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneUnit {
    /// Square blocks of so many rows and columns, aligned; those at the edges may be smaller.
    Block(usize),
    /// The cyclic diagonals of every aligned square block of so many rows and columns.
    Diagonal(usize),
}

impl Weights {
    /// A matrix from its values, row by row.
    ///
    /// # Errors
    /// No row, no column, another number of values than `rows * cols`, or a value that is not
    /// finite.
    pub fn new(rows: usize, cols: usize, values: Vec<f64>) -> Result<Self, CircuitError> {
        let fits = rows > 0 && cols > 0 && rows.checked_mul(cols) == Some(values.len());
        if !fits || values.iter().any(|v| !v.is_finite()) {
            let what = format!(
                "{rows} x {cols} weights from {} values; at least one row and column, \
                 as many finite values as their product are expected",
                values.len()
            );
            return Err(CircuitError::shape("matrix", what));
        }
        Ok(Self { rows, cols, values })
    }

    /// A matrix whose entry at (row, column) is `f(row, column)`.
    ///
    /// # Errors
    /// As [`Weights::new`].
    pub fn from_fn(
        rows: usize,
        cols: usize,
        f: impl Fn(usize, usize) -> f64,
    ) -> Result<Self, CircuitError> {
        let values = (0..rows).flat_map(|r| (0..cols).map(move |c| (r, c)));
        Self::new(rows, cols, values.map(|(r, c)| f(r, c)).collect())
    }

    /// Output features.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The entry at (row, column); zero outside.
    #[must_use]
    pub fn at(&self, row: usize, col: usize) -> f64 {
        if col >= self.cols {
            return 0.0;
        }
        let value = self.values.get(row * self.cols + col);
        value.copied().unwrap_or_default()
    }

    /// Number of entries that are not zero.
    #[must_use]
    pub fn nonzero(&self) -> usize {
        self.values.iter().filter(|v| **v != 0.0).count()
    }

    /// The product with a table of features, `table[f][t]`, by its definition. Missing features are
    /// zero. What every other way is held against.
    #[must_use]
    pub fn apply(&self, table: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let tokens = table.iter().map(Vec::len).max().unwrap_or(0);
        let row = |r: usize| {
            let mut out = vec![0.0; tokens];
            for (c, feature) in table.iter().enumerate() {
                let w = self.at(r, c);
                out.iter_mut().zip(feature).for_each(|(o, x)| *o += w * x);
            }
            out
        };
        (0..self.rows).map(row).collect()
    }

    /// The matrix without the fraction `share` (rounded down to whole units) of its units that have
    /// the smallest sums of squares; of equals those that come first go first.
    #[must_use]
    pub fn pruned(&self, unit: PruneUnit, share: f64) -> Self {
        let size = match unit {
            PruneUnit::Block(size) | PruneUnit::Diagonal(size) => size.max(1),
        };
        let per_block = match unit {
            PruneUnit::Block(_) => 1,
            PruneUnit::Diagonal(_) => size,
        };
        let across = self.cols.div_ceil(size);
        let of = |row: usize, col: usize| {
            let block = row / size * across + col / size;
            block * per_block + (col + size - row % size) % size * usize::from(per_block > 1)
        };
        let mut norms: Vec<(f64, usize)> = (0..self.rows.div_ceil(size) * across * per_block)
            .map(|unit| (0.0, unit))
            .collect();
        for (at, value) in self.values.iter().enumerate() {
            if let Some(norm) = norms.get_mut(of(at / self.cols, at % self.cols)) {
                norm.0 += value * value;
            }
        }
        let gone = (norms.len() as f64 * share.clamp(0.0, 1.0)).floor() as usize;
        norms.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut keep = vec![true; norms.len()];
        for (_, unit) in norms.iter().take(gone) {
            keep[*unit] = false;
        }
        let values = self.values.iter().enumerate().map(|(at, value)| {
            if keep[of(at / self.cols, at % self.cols)] {
                *value
            } else {
                0.0
            }
        });
        Self {
            values: values.collect(),
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_smallest_units_go() {
        let w = Weights::from_fn(5, 6, |r, c| (1 + r / 2 * 3 + c / 2) as f64).unwrap();
        let half = w.pruned(PruneUnit::Block(2), 0.5);
        // Nine blocks; the four smallest are those of the first row of blocks and one more, where
        // the last row of blocks has half the height and so half the sum.
        assert_eq!(half.nonzero(), 30 - 16);
        assert_eq!(
            (half.at(0, 0), half.at(2, 0), half.at(2, 2)),
            (0.0, 0.0, 5.0)
        );
        let w = Weights::from_fn(4, 4, |r, c| ((c + 4 - r) % 4) as f64).unwrap();
        let quarter = w.pruned(PruneUnit::Diagonal(4), 0.5);
        for r in 0..4 {
            for c in 0..4 {
                let diagonal = (c + 4 - r) % 4;
                let expected = if diagonal < 2 { 0.0 } else { diagonal as f64 };
                assert_eq!(quarter.at(r, c), expected);
            }
        }
        assert_eq!(w.pruned(PruneUnit::Diagonal(4), 0.0), w);
        assert_eq!(w.pruned(PruneUnit::Block(3), 1.0).nonzero(), 0);
    }

    #[test]
    fn refuses_what_is_no_matrix() {
        assert!(Weights::new(2, 3, vec![0.0; 5]).is_err());
        assert!(Weights::new(0, 3, vec![]).is_err());
        assert!(Weights::new(1, 1, vec![f64::NAN]).is_err());
        assert!(Weights::new(usize::MAX, 2, vec![]).is_err());
    }
}
