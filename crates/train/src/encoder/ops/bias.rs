//! A bias added to every row.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::math::add_scaled;
use super::{check_columns, read, result, tensor, values};

/// `x + b` for every row of `x` (rows x columns), `b` of as many values as columns.
///
/// # Errors
/// When a shape does not fit or a value is not f32.
pub fn add_bias(x: &Tensor, b: &Tensor) -> Result<Tensor> {
    x.apply_op2(b, AddBias)
}

struct AddBias;

impl CustomOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut y = values(s1, l1)?.to_vec();
        let b = values(s2, l2)?;
        check_columns(l1, &[b])?;
        for row in y.chunks_exact_mut(b.len().max(1)) {
            add_scaled(row, 1.0, b);
        }
        Ok(result(y, l1.shape()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut sum = vec![0.0; b.elem_count()];
        for row in read(grad)?.chunks_exact(sum.len().max(1)) {
            add_scaled(&mut sum, 1.0, row);
        }
        Ok((Some(grad.clone()), Some(tensor(sum, b.shape())?)))
    }
}
