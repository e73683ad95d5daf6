//! How far values lie outside an interval.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{read, result, tensor, values};

/// The sum over all values of `x` of the squared distance to the interval `[low, high]`: a scalar.
///
/// # Errors
/// When `x` is not f32.
pub fn excess(x: &Tensor, low: f32, high: f32) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Excess { low, high })
}

struct Excess {
    low: f32,
    high: f32,
}

impl Excess {
    #[inline(always)]
    fn of(&self, x: f32) -> f32 {
        (x - self.high).max(0.0) + (x - self.low).min(0.0)
    }
}

impl CustomOp1 for Excess {
    fn name(&self) -> &'static str {
        "excess"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(storage, layout)?;
        let sum = super::math::sum(x.len(), |i| {
            let over = self.of(x[i]);
            over * over
        });
        Ok(result(vec![sum], ()))
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let factor = 2.0 * grad.to_scalar::<f32>()?;
        let mut g = read(arg)?;
        g.iter_mut().for_each(|x| *x = factor * self.of(*x));
        Ok(Some(tensor(g, arg.shape())?))
    }
}
