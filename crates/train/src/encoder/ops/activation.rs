//! The function between the two maps of the feed-forward part.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::math::{erf, exp};
use super::{read, result, tensor, values};

/// Which function it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x/2 (1 + erf(x / sqrt 2))` (Hendrycks & Gimpel, arXiv 1606.08415).
    Gelu,
    /// The same paper's approximation by a hyperbolic tangent.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x^2/8 + x/4 + 1/2` (MPCFormer, Li et al. 2023, equation 3).
    Quadratic,
}

/// The activation of every value of `x`.
///
/// # Errors
/// When `x` is not f32.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    x.contiguous()?.apply_op1(activation)
}

impl Activation {
    /// Value and derivative at every `x`, into `y` and times `y`.
    fn forward(self, x: &[f32], y: &mut [f32]) {
        let pairs = x.iter().zip(y);
        match self {
            Self::Gelu => pairs.for_each(|(x, y)| *y = x * normal(*x)),
            Self::GeluTanh => pairs.for_each(|(x, y)| *y = x * sigmoid(*x)),
            Self::Relu => pairs.for_each(|(x, y)| *y = x.max(0.0)),
            Self::Quadratic => pairs.for_each(|(x, y)| *y = (0.125 * x + 0.25) * x + 0.5),
        }
    }

    /// The gradient `g` of the result becomes that of the argument.
    fn backward(self, x: &[f32], g: &mut [f32]) {
        const DENSITY: f32 = 0.398_942_3; // 1 / sqrt(2 pi)
        let pairs = x.iter().zip(g);
        match self {
            Self::Gelu => pairs.for_each(|(x, g)| {
                *g *= normal(*x) + x * DENSITY * exp(-0.5 * x * x);
            }),
            Self::GeluTanh => pairs.for_each(|(x, g)| {
                let s = sigmoid(*x);
                *g *= s + x * s * (1.0 - s) * 2.0 * ROOT * (1.0 + 3.0 * CUBE * x * x);
            }),
            Self::Relu => pairs.for_each(|(x, g)| *g = if *x > 0.0 { *g } else { 0.0 }),
            Self::Quadratic => pairs.for_each(|(x, g)| *g *= 0.25 * x + 0.25),
        }
    }
}

const ROOT: f32 = 0.797_884_6; // sqrt(2 / pi)
const CUBE: f32 = 0.044_715;

/// The standard normal distribution.
#[inline(always)]
fn normal(x: f32) -> f32 {
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `(1 + tanh(z)) / 2 = 1 / (1 + e^(-2z))` with `z = sqrt(2/pi) (x + 0.044715 x^3)`.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-2.0 * ROOT * (x + CUBE * x * x * x)))
}

impl CustomOp1 for Activation {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(storage, layout)?;
        let mut y = vec![0.0; x.len()];
        self.forward(x, &mut y);
        Ok(result(y, layout.shape()))
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut g = read(grad)?;
        self.backward(&read(arg)?, &mut g);
        Ok(Some(tensor(g, arg.shape())?))
    }
}
