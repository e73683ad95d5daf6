//! Tensors of `model.safetensors` by name, with every shape and value checked.

use safetensors::{Dtype, SafeTensors};

use crate::error::{ModelError, Result};
use crate::layers::{Linear, Norm};
use veilformer_ir::Matrix;

/// What a value has to be and is not.
pub(crate) fn bad_value(
    name: &str,
    index: usize,
    value: f64,
    expected: &'static str,
) -> ModelError {
    ModelError::BadValue {
        name: name.to_owned(),
        index,
        value,
        expected,
    }
}

/// Takes tensors out of a file.
pub(crate) struct Reader<'a> {
    file: SafeTensors<'a>,
    taken: Vec<String>,
}

impl<'a> Reader<'a> {
    /// All tensors of `file`, none taken yet.
    pub(crate) fn new(file: SafeTensors<'a>) -> Self {
        Self {
            file,
            taken: Vec::new(),
        }
    }

    fn raw(&mut self, name: &str, shape: &[usize], dtype: Dtype) -> Result<&[u8]> {
        let Ok(view) = self.file.tensor(name) else {
            return Err(ModelError::MissingTensor {
                name: name.to_owned(),
            });
        };
        if view.dtype() != dtype {
            return Err(ModelError::Dtype {
                name: name.to_owned(),
                found: format!("{:?}", view.dtype()),
                expected: if dtype == Dtype::I8 { "I8" } else { "F32" },
            });
        }
        if view.shape() != shape {
            return Err(ModelError::Shape {
                name: name.to_owned(),
                found: view.shape().to_vec(),
                expected: shape.to_vec(),
            });
        }
        self.taken.push(name.to_owned());
        Ok(view.data())
    }

    pub(crate) fn bytes(&mut self, name: &str, shape: &[usize]) -> Result<&[u8]> {
        self.raw(name, shape, Dtype::I8)
    }

    pub(crate) fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f64>> {
        let bytes = self.raw(name, shape, Dtype::F32)?;
        let (words, _) = bytes.as_chunks::<4>();
        let mut out = Vec::with_capacity(words.len());
        for (index, word) in words.iter().enumerate() {
            let value = f32::from_le_bytes(*word);
            if !value.is_finite() {
                return Err(bad_value(name, index, f64::from(value), "a finite number"));
            }
            out.push(f64::from(value));
        }
        Ok(out)
    }

    pub(crate) fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        matrix(rows, cols, self.floats(name, &[rows, cols])?)
    }

    pub(crate) fn linear(&mut self, name: &str, rows: usize, cols: usize) -> Result<Linear> {
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"), rows, cols)?,
            bias: self.floats(&format!("{name}.bias"), &[rows])?,
        })
    }

    pub(crate) fn norm(&mut self, name: &str, width: usize) -> Result<Norm> {
        let mut get = |part: &str| self.floats(&format!("{name}.{part}"), &[width]);
        let norm = Norm {
            weight: get("weight")?,
            bias: get("bias")?,
            running_mean: get("running_mean")?,
            running_var: get("running_var")?,
        };
        for (index, &value) in norm.running_var.iter().enumerate() {
            if value < 0.0 {
                let name = format!("{name}.running_var");
                return Err(bad_value(&name, index, value, "a variance of at least 0"));
            }
        }
        Ok(norm)
    }

    /// A tensor left over would be a part of another architecture, silently ignored.
    pub(crate) fn finish(self) -> Result<()> {
        let mut names = self.file.names();
        names.sort_unstable();
        match names
            .into_iter()
            .find(|n| !self.taken.iter().any(|t| t == n))
        {
            Some(name) => Err(ModelError::UnexpectedTensor {
                name: name.to_owned(),
            }),
            None => Ok(()),
        }
    }
}

/// Collects tensors for a file.
#[derive(Default)]
pub(crate) struct Writer {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl Writer {
    /// The tensors in the order of their names: name, type, shape, bytes.
    pub(crate) fn sorted(&mut self) -> &[(String, Dtype, Vec<usize>, Vec<u8>)] {
        self.tensors.sort_by(|x, y| x.0.cmp(&y.0));
        &self.tensors
    }

    pub(crate) fn push(
        &mut self,
        name: &str,
        shape: &[usize],
        dtype: Dtype,
        bytes: Vec<u8>,
    ) -> Result<()> {
        let width = if dtype == Dtype::I8 { 1 } else { 4 };
        let expected = shape.iter().product::<usize>();
        if bytes.len() != expected * width {
            return Err(ModelError::Shape {
                name: name.to_owned(),
                found: vec![bytes.len() / width],
                expected: shape.to_vec(),
            });
        }
        self.tensors
            .push((name.to_owned(), dtype, shape.to_vec(), bytes));
        Ok(())
    }

    pub(crate) fn floats(&mut self, name: &str, shape: &[usize], values: &[f64]) -> Result<()> {
        let mut bytes = Vec::with_capacity(values.len() * 4);
        for (index, &value) in values.iter().enumerate() {
            if !(value as f32).is_finite() {
                return Err(bad_value(name, index, value, "a finite 32-bit number"));
            }
            bytes.extend_from_slice(&(value as f32).to_le_bytes());
        }
        self.push(name, shape, Dtype::F32, bytes)
    }

    pub(crate) fn linear(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
        map: &Linear,
    ) -> Result<()> {
        self.floats(&format!("{name}.weight"), &[rows, cols], map.weight.data())?;
        self.floats(&format!("{name}.bias"), &[rows], &map.bias)
    }

    pub(crate) fn norm(&mut self, name: &str, width: usize, norm: &Norm) -> Result<()> {
        self.floats(&format!("{name}.weight"), &[width], &norm.weight)?;
        self.floats(&format!("{name}.bias"), &[width], &norm.bias)?;
        self.floats(
            &format!("{name}.running_mean"),
            &[width],
            &norm.running_mean,
        )?;
        self.floats(&format!("{name}.running_var"), &[width], &norm.running_var)
    }
}

/// A matrix of `rows * cols` row-major values.
///
/// # Errors
/// [`ModelError::Dimension`] when the number of values is another one.
pub fn matrix(rows: usize, cols: usize, data: Vec<f64>) -> Result<Matrix> {
    let found = data.len();
    Matrix::from_rows(rows, cols, data).ok_or(ModelError::Dimension {
        what: "number of values of a matrix",
        found,
        expected: rows.saturating_mul(cols),
    })
}
