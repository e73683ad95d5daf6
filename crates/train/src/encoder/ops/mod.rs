//! The operations of an encoder that would be a dozen tensor operations each, fused, with their
//! gradients: measured on one core, everything here together takes a fifth of a training step, and
//! the matrix products the rest.
//!
//! Values are f32; rows are the tokens of all sentences of a batch, one sentence after the other.
//! No padding is computed.

mod activation;
mod attention;
mod bias;
mod excess;
mod math;
mod norm;

pub use activation::activate;
pub use attention::{Attended, Attention, attend};
pub use bias::add_bias;
pub use excess::excess;
pub use norm::{layer_norm, log_variance};

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Tensor, bail};

/// The values of an operand, which must lie in order.
fn values<'s>(storage: &'s CpuStorage, layout: &Layout) -> Result<&'s [f32]> {
    let all = storage.as_slice::<f32>()?;
    let range = layout
        .contiguous_offsets()
        .and_then(|(start, end)| all.get(start..end));
    match range {
        Some(values) => Ok(values),
        None => bail!("an operand is not contiguous"),
    }
}

/// Rows and columns of an operand.
fn rows_and_columns(layout: &Layout) -> Result<(usize, usize)> {
    layout.shape().dims2()
}

/// The columns of `x`, which every one of `rows` must fill.
fn check_columns(x: &Layout, rows: &[&[f32]]) -> Result<usize> {
    let (_, columns) = rows_and_columns(x)?;
    if rows.iter().any(|row| row.len() != columns) {
        bail!("a row of other than {columns} values");
    }
    Ok(columns)
}

fn result(values: Vec<f32>, shape: impl Into<Shape>) -> (CpuStorage, Shape) {
    (CpuStorage::F32(values), shape.into())
}

/// The values of a tensor, in order.
fn read(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

fn tensor(values: Vec<f32>, shape: &Shape) -> Result<Tensor> {
    Tensor::from_vec(values, shape, &Device::Cpu)
}
