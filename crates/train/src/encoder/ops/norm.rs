//! LayerNorm (Ba et al., arXiv 1607.06450) and the logarithm of its variance.

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor};

use super::math::{add_scaled, sum};
use super::{check_columns, read, result, rows_and_columns, tensor, values};

/// `(x - mean) / sqrt(variance + eps) * weight + bias` for every row of `x`.
///
/// # Errors
/// When a shape does not fit or a value is not f32.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    x.apply_op3(weight, bias, LayerNorm { eps })
}

/// `ln(variance + eps)` of every row of `x`.
///
/// # Errors
/// When `x` is not f32.
pub fn log_variance(x: &Tensor, eps: f32) -> Result<Tensor> {
    x.apply_op1(LogVariance { eps })
}

/// Mean and variance.
fn moments(row: &[f32]) -> (f32, f32) {
    let n = row.len() as f32;
    let mean = sum(row.len(), |i| row[i]) / n;
    let variance = sum(row.len(), |i| (row[i] - mean) * (row[i] - mean)) / n;
    (mean, variance)
}

struct LayerNorm {
    eps: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) = (values(s1, l1)?, values(s2, l2)?, values(s3, l3)?);
        let d = check_columns(l1, &[weight, bias])?;
        let mut y = x.to_vec();
        for row in y.chunks_exact_mut(d.max(1)) {
            let (mean, variance) = moments(row);
            let factor = 1.0 / (variance + self.eps).sqrt();
            for ((x, w), b) in row.iter_mut().zip(weight).zip(bias) {
                *x = (*x - mean) * factor * w + b;
            }
        }
        Ok(result(y, l1.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (rows, w) = (read(x)?, read(weight)?);
        let mut g = read(grad)?;
        let d = w.len();
        let (mut weight_sum, mut bias_sum) = (vec![0.0f32; d], vec![0.0f32; d]);
        let mut unit = vec![0.0f32; d];
        for (x, g) in rows
            .chunks_exact(d.max(1))
            .zip(g.chunks_exact_mut(d.max(1)))
        {
            let (mean, variance) = moments(x);
            let factor = 1.0 / (variance + self.eps).sqrt();
            for (u, x) in unit.iter_mut().zip(x) {
                *u = (x - mean) * factor;
            }
            add_scaled(&mut bias_sum, 1.0, g);
            for ((s, g), u) in weight_sum.iter_mut().zip(&*g).zip(&unit) {
                *s += g * u;
            }
            for (g, w) in g.iter_mut().zip(&w) {
                *g *= w;
            }
            // The derivative of the unit row is a projection: away from 1 and from the row itself.
            let n = d as f32;
            let along_one = sum(d, |i| g[i]) / n;
            let along_row = sum(d, |i| g[i] * unit[i]) / n;
            for (g, u) in g.iter_mut().zip(&unit) {
                *g = factor * (*g - along_one - u * along_row);
            }
        }
        Ok((
            Some(tensor(g, x.shape())?),
            Some(tensor(weight_sum, weight.shape())?),
            Some(tensor(bias_sum, bias.shape())?),
        ))
    }
}

struct LogVariance {
    eps: f32,
}

impl CustomOp1 for LogVariance {
    fn name(&self) -> &'static str {
        "log-variance"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, d) = rows_and_columns(layout)?;
        let rows = values(storage, layout)?.chunks_exact(d.max(1));
        let y: Vec<f32> = rows.map(|row| (moments(row).1 + self.eps).ln()).collect();
        let shape = y.len();
        Ok(result(y, shape))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, d) = x.dims2()?;
        let mut rows = read(x)?;
        for (row, g) in rows.chunks_exact_mut(d.max(1)).zip(read(grad)?) {
            let (mean, variance) = moments(row);
            let factor = 2.0 * g / (d as f32 * (variance + self.eps));
            row.iter_mut().for_each(|x| *x = factor * (*x - mean));
        }
        Ok(Some(tensor(rows, x.shape())?))
    }
}
