//! A dense matrix of `f64`, row-major: what weights are before they are encoded.

/// A dense row-major matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<f64>,
}

impl Matrix {
    /// The `rows x cols` matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self {
            rows,
            cols,
            data: vec![0.0; rows * cols],
        }
    }

    /// The `n x n` identity.
    pub fn identity(n: usize) -> Self {
        let mut m = Self::zeros(n, n);
        for i in 0..n {
            m.data[i * n + i] = 1.0;
        }
        m
    }

    /// A matrix from row-major `data`; `None` where its length is not `rows * cols`.
    pub fn from_rows(rows: usize, cols: usize, data: Vec<f64>) -> Option<Self> {
        (rows.checked_mul(cols) == Some(data.len())).then_some(Self { rows, cols, data })
    }

    /// The rows in order, each a slice of `cols` values.
    pub fn iter_rows(&self) -> impl Iterator<Item = &[f64]> {
        self.data.chunks_exact(self.cols.max(1))
    }

    /// Number of rows (outputs of a linear map).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (inputs of a linear map).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row `r`; empty where there is none.
    pub fn row(&self, r: usize) -> &[f64] {
        self.data
            .get(r * self.cols..(r + 1) * self.cols)
            .unwrap_or(&[])
    }

    /// All entries, row-major.
    pub fn data(&self) -> &[f64] {
        &self.data
    }

    /// Entry at row `r`, column `c`; zero outside.
    pub fn get(&self, r: usize, c: usize) -> f64 {
        if c < self.cols {
            self.row(r).get(c).copied().unwrap_or(0.0)
        } else {
            0.0
        }
    }

    /// Sets the entry at row `r`, column `c`; nothing outside.
    pub fn set(&mut self, r: usize, c: usize, value: f64) {
        if c < self.cols
            && let Some(x) = self.data.get_mut(r * self.cols + c)
        {
            *x = value;
        }
    }

    /// `self * x` for a vector of `cols` entries.
    pub fn apply(&self, x: &[f64]) -> Vec<f64> {
        (0..self.rows)
            .map(|r| self.row(r).iter().zip(x).map(|(w, v)| w * v).sum())
            .collect()
    }

    /// `self * other`; shapes are the caller's business (missing entries count as zero).
    pub fn product(&self, other: &Matrix) -> Matrix {
        let mut out = Matrix::zeros(self.rows, other.cols);
        for r in 0..self.rows {
            for (k, &w) in self.row(r).iter().enumerate() {
                if w == 0.0 {
                    continue;
                }
                let dst = &mut out.data[r * other.cols..(r + 1) * other.cols];
                for (d, &v) in dst.iter_mut().zip(other.row(k)) {
                    *d += w * v;
                }
            }
        }
        out
    }

    /// `self + other`, of equal shape.
    pub fn sum(&self, other: &Matrix) -> Matrix {
        let data = self
            .data
            .iter()
            .zip(&other.data)
            .map(|(a, b)| a + b)
            .collect();
        Matrix {
            rows: self.rows,
            cols: self.cols,
            data,
        }
    }

    /// Row `r` times `factors[r]`, for every row.
    pub fn scale_rows(&self, factors: &[f64]) -> Matrix {
        let mut out = self.clone();
        for (r, &f) in factors.iter().enumerate().take(self.rows) {
            for x in &mut out.data[r * self.cols..(r + 1) * self.cols] {
                *x *= f;
            }
        }
        out
    }

    /// `self` above `below`, of equal width.
    pub fn stack(&self, below: &Matrix) -> Matrix {
        let mut data = self.data.clone();
        data.extend_from_slice(&below.data);
        Matrix {
            rows: self.rows + below.rows,
            cols: self.cols,
            data,
        }
    }

    /// The rows in the given order; a missing row counts as zero.
    pub fn select_rows(&self, order: &[usize]) -> Matrix {
        let mut out = Matrix::zeros(order.len(), self.cols);
        for (dst, &src) in order.iter().enumerate() {
            for (c, &v) in self.row(src).iter().enumerate() {
                out.data[dst * self.cols + c] = v;
            }
        }
        out
    }

    /// True where every entry is finite.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|x| x.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_and_apply_agree() {
        let a = Matrix::from_rows(2, 3, vec![1., 2., 3., 4., 5., 6.]).unwrap();
        let b = Matrix::from_rows(3, 2, vec![1., 0., 0., 1., 2., -1.]).unwrap();
        let x = [0.5, -2.0];
        assert_eq!(a.product(&b).apply(&x), a.apply(&b.apply(&x)));
        assert_eq!(a.product(&Matrix::identity(3)), a);
    }

    #[test]
    fn shapes_are_checked() {
        assert!(Matrix::from_rows(2, 2, vec![0.0; 3]).is_none());
        assert!(Matrix::from_rows(usize::MAX, 2, vec![]).is_none());
        assert_eq!(Matrix::zeros(1, 1).get(5, 5), 0.0);
    }
}
