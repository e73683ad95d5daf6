//! Plain dense matrices.

use crate::error::{ModelError, Result};

/// A dense row-major matrix of f64.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// `rows * cols` values, row after row.
    pub data: Vec<f64>,
}

impl Matrix {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self {
            rows,
            cols,
            data: vec![0.0; rows * cols],
        }
    }

    /// Takes `rows * cols` row-major values.
    ///
    /// # Errors
    /// When the number of values is another one.
    pub fn from_vec(rows: usize, cols: usize, data: Vec<f64>) -> Result<Self> {
        if data.len() != rows * cols {
            return Err(ModelError::Dimension {
                what: "number of values of a matrix",
                found: data.len(),
                expected: rows * cols,
            });
        }
        Ok(Self { rows, cols, data })
    }

    /// The value at (`row`, `col`), or `None` outside the matrix.
    pub fn get(&self, row: usize, col: usize) -> Option<f64> {
        if col >= self.cols {
            return None;
        }
        self.data
            .get(row.checked_mul(self.cols)?.checked_add(col)?)
            .copied()
    }

    /// The rows in order, each as a slice of `cols` values.
    pub fn iter_rows(&self) -> impl Iterator<Item = &[f64]> {
        self.data.chunks_exact(self.cols.max(1))
    }

    /// Row `row`, or an empty slice outside the matrix.
    pub fn row(&self, row: usize) -> &[f64] {
        let start = row.saturating_mul(self.cols);
        self.data
            .get(start..start.saturating_add(self.cols))
            .unwrap_or(&[])
    }
}
