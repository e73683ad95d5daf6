//! From tokens to token vectors: the client's part of a model, in the clear.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::error::{ModelError, Result};
use crate::tensors::{bad_value, matrix};
use veilformer_ir::Matrix;

/// Most rows of a token table.
pub const MAX_VOCABULARY: usize = 1 << 24;
/// Most values of a row of a token table.
pub const MAX_WIDTH: usize = 4096;

/// A token table as it ships: one signed byte per value, one scale per column.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingTable {
    /// Rows (tokens).
    pub vocab_size: usize,
    /// Columns: features of a token vector, or components that a projection maps to them.
    pub width: usize,
    /// `vocab_size * width` bytes, row after row.
    pub values: Vec<i8>,
    /// One scale per column: the value is `byte * scale`.
    pub scale: Vec<f64>,
}

impl EmbeddingTable {
    /// Rounds `table` (tokens x columns) to bytes. The scale of a column is its largest absolute
    /// value over 127, stored as f32, so that the error is at most half a scale.
    ///
    /// # Errors
    /// When a value is not finite.
    pub fn quantize(table: &Matrix) -> Result<Self> {
        let mut largest = vec![0.0f64; table.cols()];
        for (index, &value) in table.data().iter().enumerate() {
            if !value.is_finite() {
                return Err(bad_value(
                    "embedding.weight",
                    index,
                    value,
                    "a finite number",
                ));
            }
            if let Some(m) = largest.get_mut(index % table.cols().max(1)) {
                *m = m.max(value.abs());
            }
        }
        let scale: Vec<f64> = largest
            .iter()
            .map(|&m| {
                if m > 0.0 {
                    f64::from((m / 127.0) as f32)
                } else {
                    1.0
                }
            })
            .collect();
        let mut values = Vec::with_capacity(table.data().len());
        for row in table.iter_rows() {
            values.extend(
                row.iter()
                    .zip(&scale)
                    .map(|(v, s)| (v / s).round().clamp(-127.0, 127.0) as i8),
            );
        }
        Ok(Self {
            vocab_size: table.rows(),
            width: table.cols(),
            values,
            scale,
        })
    }

    /// The row of token `id`, `width` values.
    ///
    /// # Errors
    /// When `id` lies outside the table.
    pub fn row(&self, id: u32) -> Result<Vec<f64>> {
        let start = (id as usize).checked_mul(self.width);
        let bytes = start
            .and_then(|s| self.values.get(s..s.checked_add(self.width)?))
            .ok_or(ModelError::OutOfTable {
                what: "token",
                found: id as usize,
                limit: self.vocab_size,
            })?;
        Ok(self.scaled(bytes).collect())
    }

    /// All rows as numbers, one after the other.
    pub fn rows(&self) -> impl Iterator<Item = Vec<f64>> {
        self.values
            .chunks_exact(self.width.max(1))
            .map(|bytes| self.scaled(bytes).collect())
    }

    fn scaled(&self, bytes: &[i8]) -> impl Iterator<Item = f64> {
        bytes
            .iter()
            .zip(&self.scale)
            .map(|(&b, s)| f64::from(b) * s)
    }

    /// Reads the bytes of a shared table's file: a safetensors file with `embedding.weight`
    /// (tokens x columns, I8) and `embedding.scale` (columns, F32), and nothing else.
    ///
    /// # Errors
    /// A sentence that says what is wrong with them.
    pub fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, String> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|e| format!("it is malformed ({e}); copy the table's folder again"))?;
        let take = |name: &str, dtype: Dtype| match file.tensor(name) {
            Ok(view) if view.dtype() == dtype => Ok(view),
            _ => Err(format!(
                "it has no tensor `{name}` of type {dtype:?}; take a table that \
                 `veilformer-train token-table` wrote"
            )),
        };
        let weight = take("embedding.weight", Dtype::I8)?;
        let scale = take("embedding.scale", Dtype::F32)?;
        let &[vocab_size, width] = weight.shape() else {
            return Err(format!(
                "embedding.weight has {} axes, expected 2",
                weight.shape().len()
            ));
        };
        let sane = (1..=MAX_VOCABULARY).contains(&vocab_size) && (1..=MAX_WIDTH).contains(&width);
        if !sane || scale.shape() != [width] || file.len() != 2 {
            return Err(format!(
                "it has {} tensors, a table of {vocab_size} x {width} and scales of shape {:?}; \
                 expected 2 tensors, up to {MAX_VOCABULARY} x {MAX_WIDTH}, a scale per column",
                file.len(),
                scale.shape()
            ));
        }
        let (words, _) = scale.data().as_chunks::<4>();
        let scale: Vec<f64> = words
            .iter()
            .map(|w| f64::from(f32::from_le_bytes(*w)))
            .collect();
        if scale.iter().any(|s| !s.is_finite()) {
            return Err("a scale is not a finite number; copy the table's folder again".into());
        }
        Ok(Self {
            vocab_size,
            width,
            values: weight.data().iter().map(|b| b.cast_signed()).collect(),
            scale,
        })
    }

    /// The bytes of a shared table's file; scales are rounded to f32.
    ///
    /// # Errors
    /// When the table's parts do not belong together.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let values: Vec<u8> = self.values.iter().map(|v| v.cast_unsigned()).collect();
        let scale: Vec<u8> = self
            .scale
            .iter()
            .flat_map(|&s| (s as f32).to_le_bytes())
            .collect();
        let malformed = |e: safetensors::SafeTensorError| ModelError::Safetensors(e.to_string());
        let shape = vec![self.vocab_size, self.width];
        let views = [
            (
                "embedding.weight",
                TensorView::new(Dtype::I8, shape, &values).map_err(malformed)?,
            ),
            (
                "embedding.scale",
                TensorView::new(Dtype::F32, vec![self.scale.len()], &scale).map_err(malformed)?,
            ),
        ];
        let info = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize(views, Some(info)).map_err(malformed)
    }
}

/// Everything between a token and its vector of `d` features.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// The token table.
    pub table: EmbeddingTable,
    /// The map from a row of the table to a token vector, d x columns; `None` where the rows are
    /// the token vectors.
    pub projection: Option<Matrix>,
    /// Added to the vector of the token at each position, positions x d.
    pub position: Option<Matrix>,
}

impl Embedding {
    /// Features of a token vector, `d`.
    pub fn width(&self) -> usize {
        self.projection
            .as_ref()
            .map_or(self.table.width, Matrix::rows)
    }

    /// The vectors of all tokens in order, d values each, without positions.
    pub fn vectors(&self) -> impl Iterator<Item = Vec<f64>> {
        let columns = self.columns();
        self.table.rows().map(move |row| match &columns {
            Some(columns) => combine(columns, &row),
            None => row,
        })
    }

    /// The model's input for the tokens `ids`: row `t` is the vector of `ids[t]`, plus that of
    /// position `t` if there is a position table; an n x d matrix.
    ///
    /// # Errors
    /// When there is no token, a token lies outside the table, there are more tokens than
    /// positions, or the tables do not fit each other.
    pub fn lookup(&self, ids: &[u32]) -> Result<Matrix> {
        if ids.is_empty() {
            return Err(ModelError::EmptySentence);
        }
        let width = self.width();
        if let Some(p) = &self.projection
            && p.cols() != self.table.width
        {
            return Err(ModelError::Dimension {
                what: "columns of the projection",
                found: p.cols(),
                expected: self.table.width,
            });
        }
        let columns = self.columns();
        let mut data = Vec::with_capacity(ids.len() * width);
        for &id in ids {
            let row = self.table.row(id)?;
            data.extend(match &columns {
                Some(columns) => combine(columns, &row),
                None => row,
            });
        }
        if let Some(position) = &self.position {
            if ids.len() > position.rows() {
                return Err(ModelError::TooLong {
                    count: ids.len(),
                    limit: position.rows(),
                });
            }
            if position.cols() != width {
                return Err(ModelError::Dimension {
                    what: "features of the position table",
                    found: position.cols(),
                    expected: width,
                });
            }
            for (value, p) in data.iter_mut().zip(position.data()) {
                *value += p;
            }
        }
        matrix(ids.len(), width, data)
    }

    /// Per feature the largest absolute value that a token at a position can have.
    pub fn bound(&self) -> Vec<f64> {
        let none = vec![(0.0f64, 0.0f64); self.width()];
        let mut table = none.clone();
        self.vectors().for_each(|row| widen(&mut table, &row));
        let mut position = none;
        if let Some(p) = &self.position {
            position.fill((f64::INFINITY, f64::NEG_INFINITY));
            p.iter_rows().for_each(|row| widen(&mut position, row));
        }
        let widest = |(t, p): (&(f64, f64), &(f64, f64))| (t.0 + p.0).abs().max((t.1 + p.1).abs());
        table.iter().zip(&position).map(widest).collect()
    }

    /// The projection's columns as rows: sums over components then run along memory.
    fn columns(&self) -> Option<Matrix> {
        let p = self.projection.as_ref()?;
        let mut columns = Matrix::zeros(p.cols(), p.rows());
        for (r, row) in p.iter_rows().enumerate() {
            for (c, &value) in row.iter().enumerate() {
                columns.set(c, r, value);
            }
        }
        Some(columns)
    }
}

/// The sum of the rows of `columns`, each times its factor.
fn combine(columns: &Matrix, factors: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; columns.cols()];
    for (column, &factor) in columns.iter_rows().zip(factors) {
        for (s, v) in sum.iter_mut().zip(column) {
            *s += factor * v;
        }
    }
    sum
}

fn widen(ranges: &mut [(f64, f64)], row: &[f64]) {
    for (range, &v) in ranges.iter_mut().zip(row) {
        *range = (range.0.min(v), range.1.max(v));
    }
}
