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

/// A token table as it ships: few bits per value, one scale per column.
///
/// A column of 8 bits holds signed bytes, and the value is `byte * scale`. A column of fewer bits
/// `b` holds numbers `q` below `2^b`, and the value is `(2 q + 1 - 2^b) * scale`: evenly spaced
/// values on both sides of 0. The values of a row stand one after the other, the low bits of a byte
/// first, and a row begins with a new byte.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingTable {
    vocab_size: usize,
    bits: Vec<u8>,
    scale: Vec<f64>,
    packed: Vec<u8>,
}

impl EmbeddingTable {
    /// A table of `vocab_size` rows from its parts: bits and scale of every column, and the rows.
    ///
    /// # Errors
    /// A sentence that says what does not fit: at least one row and column, at most
    /// [`MAX_VOCABULARY`] and [`MAX_WIDTH`], 1 to 8 bits, scales that are finite, as many bytes as
    /// all that calls for.
    pub fn new(
        vocab_size: usize,
        bits: Vec<u8>,
        scale: Vec<f64>,
        packed: Vec<u8>,
    ) -> std::result::Result<Self, String> {
        let width = bits.len();
        if !(1..=MAX_VOCABULARY).contains(&vocab_size) || !(1..=MAX_WIDTH).contains(&width) {
            return Err(format!(
                "a table of {vocab_size} rows and {width} columns, expected 1 to {MAX_VOCABULARY} \
                 and 1 to {MAX_WIDTH}"
            ));
        }
        if let Some(b) = bits.iter().find(|b| !(1..=8).contains(*b)) {
            return Err(format!("a column of {b} bits, expected 1 to 8"));
        }
        if scale.len() != width || scale.iter().any(|s| !s.is_finite()) {
            return Err(format!(
                "{} scales for {width} columns, or one that is not a finite number",
                scale.len()
            ));
        }
        let table = Self {
            vocab_size,
            bits,
            scale,
            packed,
        };
        let expected = vocab_size * table.row_bytes();
        if table.packed.len() != expected {
            return Err(format!(
                "{} bytes of values, expected {expected}",
                table.packed.len()
            ));
        }
        Ok(table)
    }

    /// Rounds `table` (tokens x columns) to signed bytes. The scale of a column is its largest
    /// absolute value over 127, stored as f32, so that the error is at most half a scale.
    ///
    /// # Errors
    /// When a value is not finite, or the table has too many rows or columns or none.
    pub fn quantize(table: &Matrix) -> Result<Self> {
        check_finite(table)?;
        let mut largest = vec![0.0f64; table.cols()];
        for row in table.iter_rows() {
            for (m, v) in largest.iter_mut().zip(row) {
                *m = m.max(v.abs());
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
        Self::pack(table, vec![8; table.cols()], scale)
    }

    /// Rounds `table` (tokens x columns) to the given number of bits per column. The scale of a
    /// column, an f32, is the one among many with the smallest mean square error.
    ///
    /// # Errors
    /// As [`EmbeddingTable::quantize`], or when there are not 1 to 8 bits for every column.
    pub fn quantize_to(table: &Matrix, bits: &[u8]) -> Result<Self> {
        check_finite(table)?;
        let scale = (0..table.cols()).zip(bits).map(|(c, &b)| {
            let column: Vec<f64> = (0..table.rows()).map(|r| table.get(r, c)).collect();
            best_scale(&column, b)
        });
        let scale = scale.collect();
        Self::pack(table, bits.to_vec(), scale)
    }

    fn pack(table: &Matrix, bits: Vec<u8>, scale: Vec<f64>) -> Result<Self> {
        let mut packed = Vec::new();
        for row in table.iter_rows() {
            let (mut word, mut held) = (0u32, 0);
            for ((v, s), &b) in row.iter().zip(&scale).zip(&bits) {
                word |= code(*v, *s, b) << held;
                held += u32::from(b);
                while held >= 8 {
                    packed.push(word as u8);
                    (word, held) = (word >> 8, held - 8);
                }
            }
            if held > 0 {
                packed.push(word as u8);
            }
        }
        Self::new(table.rows(), bits, scale, packed).map_err(ModelError::Config)
    }

    /// Rows (tokens).
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Columns: features of a token vector, or components that a projection maps to them.
    pub fn width(&self) -> usize {
        self.bits.len()
    }

    /// Bits of a value, per column.
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// One scale per column.
    pub fn scale(&self) -> &[f64] {
        &self.scale
    }

    /// All rows as bytes, one after the other.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        let bits: usize = self.bits.iter().map(|&b| usize::from(b)).sum();
        bits.div_ceil(8)
    }

    /// The row of token `id`, one value per column.
    ///
    /// # Errors
    /// When `id` lies outside the table.
    pub fn row(&self, id: u32) -> Result<Vec<f64>> {
        let length = self.row_bytes();
        let start = (id as usize).checked_mul(length);
        let bytes = start
            .and_then(|s| self.packed.get(s..s.checked_add(length)?))
            .ok_or(ModelError::OutOfTable {
                what: "token",
                found: id as usize,
                limit: self.vocab_size,
            })?;
        Ok(self.unpack(bytes))
    }

    /// All rows as numbers, one after the other.
    pub fn rows(&self) -> impl Iterator<Item = Vec<f64>> {
        self.packed
            .chunks_exact(self.row_bytes().max(1))
            .map(|bytes| self.unpack(bytes))
    }

    fn unpack(&self, bytes: &[u8]) -> Vec<f64> {
        let mut next = bytes.iter();
        let (mut word, mut held) = (0u32, 0);
        let one = |(&b, s): (&u8, &f64)| {
            if held < u32::from(b) {
                word |= u32::from(next.next().copied().unwrap_or(0)) << held;
                held += 8;
            }
            let code = word & ((1 << b) - 1);
            (word, held) = (word >> b, held - u32::from(b));
            level(code, b) * s
        };
        self.bits.iter().zip(&self.scale).map(one).collect()
    }

    /// Reads the bytes of a shared table's file: a safetensors file with `embedding.weight`
    /// (tokens x bytes of a row, U8), `embedding.bits` (columns, U8) and `embedding.scale`
    /// (columns, F32), and nothing else.
    ///
    /// # Errors
    /// A sentence that says what is wrong with them.
    pub fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, String> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|e| format!("it is malformed ({e}); copy the table's folder again"))?;
        let take = |name: &str, dtype: Dtype| match file.tensor(name) {
            Ok(view) if view.dtype() == dtype && file.len() == 3 => Ok(view),
            _ => Err(format!(
                "it has no tensor `{name}` of type {dtype:?}, or other tensors than three; take a \
                 table that `veilformer-train token-table` wrote"
            )),
        };
        let weight = take("embedding.weight", Dtype::U8)?;
        let bits = take("embedding.bits", Dtype::U8)?;
        let scale = take("embedding.scale", Dtype::F32)?;
        let (words, _) = scale.data().as_chunks::<4>();
        let scale = words.iter().map(|w| f64::from(f32::from_le_bytes(*w)));
        let rows = weight.shape().first().copied().unwrap_or(0);
        let (bits, scale) = (bits.data().to_vec(), scale.collect());
        Self::new(rows, bits, scale, weight.data().to_vec())
            .map_err(|what| format!("it has {what}; copy the table's folder again"))
    }

    /// The bytes of a shared table's file; scales are rounded to f32.
    ///
    /// # Errors
    /// None in practice; serialization's.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let scale: Vec<u8> = self
            .scale
            .iter()
            .flat_map(|&s| (s as f32).to_le_bytes())
            .collect();
        let shape = vec![self.vocab_size, self.row_bytes()];
        let view = |dtype, shape, bytes| {
            TensorView::new(dtype, shape, bytes).map_err(|e| ModelError::Safetensors(e.to_string()))
        };
        let width = vec![self.width()];
        let views = [
            ("embedding.weight", view(Dtype::U8, shape, &self.packed)?),
            (
                "embedding.bits",
                view(Dtype::U8, width.clone(), &self.bits)?,
            ),
            ("embedding.scale", view(Dtype::F32, width, &scale)?),
        ];
        let info = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize(views, Some(info))
            .map_err(|e| ModelError::Safetensors(e.to_string()))
    }
}

/// What a code of `bits` bits stands for, in units of the scale.
fn level(code: u32, bits: u8) -> f64 {
    if bits == 8 {
        f64::from((code as u8).cast_signed())
    } else {
        f64::from(2 * code as i32 + 1 - (1 << bits))
    }
}

/// The code whose level is nearest to `value`.
fn code(value: f64, scale: f64, bits: u8) -> u32 {
    if bits == 8 {
        let byte = (value / scale).round().clamp(-127.0, 127.0) as i8;
        u32::from(byte.cast_unsigned())
    } else {
        let top = f64::from((1u32 << bits) - 1);
        let nearest = ((value / scale + top) / 2.0).round();
        nearest.clamp(0.0, top) as u32
    }
}

/// The scale of a column with the smallest error, among steps of 4 percent between those that
/// spread the levels over half a deviation and over the whole range.
fn best_scale(column: &[f64], bits: u8) -> f64 {
    let square = column.iter().map(|v| v * v).sum::<f64>() / column.len().max(1) as f64;
    let largest = column.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if largest == 0.0 {
        return 1.0;
    }
    let top = level(if bits == 8 { 127 } else { (1 << bits) - 1 }, bits);
    let mut best = (f64::INFINITY, 1.0);
    let mut scale = largest / top;
    while scale * top > 0.5 * square.sqrt() {
        let stored = f64::from(scale as f32);
        let error: f64 = column
            .iter()
            .map(|v| (v - level(code(*v, stored, bits), bits) * stored).powi(2))
            .sum();
        if error < best.0 {
            best = (error, stored);
        }
        scale *= 0.96;
    }
    best.1
}

fn check_finite(table: &Matrix) -> Result<()> {
    let bad = table
        .data()
        .iter()
        .enumerate()
        .find(|(_, v)| !v.is_finite());
    match bad {
        Some((index, &value)) => Err(bad_value(
            "embedding.weight",
            index,
            value,
            "a finite number",
        )),
        None => Ok(()),
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
            .map_or(self.table.width(), Matrix::rows)
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
            && p.cols() != self.table.width()
        {
            return Err(ModelError::Dimension {
                what: "columns of the projection",
                found: p.cols(),
                expected: self.table.width(),
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
