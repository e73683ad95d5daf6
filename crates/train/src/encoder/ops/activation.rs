//! The function between the two maps of the feed-forward part.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use veilformer_ir::encoder::Activation;

use super::math::{erf, exp};
use super::{read, result, tensor, values};

/// The activation of every value of `x`.
///
/// # Errors
/// When `x` is not f32.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Activate(activation))
}

/// [`Activation::apply`] and its derivative.
struct Activate(Activation);

impl Activate {
    /// The values at every `x`.
    fn forward(&self, x: &[f32], y: &mut [f32]) {
        let [a, b, c] = QUADRATIC;
        let pairs = x.iter().zip(y);
        match self.0 {
            Activation::Gelu => pairs.for_each(|(x, y)| *y = x * normal(*x)),
            Activation::GeluTanh => pairs.for_each(|(x, y)| *y = x * sigmoid(*x)),
            Activation::Relu => pairs.for_each(|(x, y)| *y = x.max(0.0)),
            Activation::Quadratic => pairs.for_each(|(x, y)| *y = (a * x + b) * x + c),
        }
    }

    /// The gradient `g` of the result becomes that of the argument.
    fn backward(&self, x: &[f32], g: &mut [f32]) {
        const DENSITY: f32 = 0.398_942_3; // 1 / sqrt(2 pi)
        let [a, b, _] = QUADRATIC;
        let pairs = x.iter().zip(g);
        match self.0 {
            Activation::Gelu => pairs.for_each(|(x, g)| {
                *g *= normal(*x) + x * DENSITY * exp(-0.5 * x * x);
            }),
            Activation::GeluTanh => pairs.for_each(|(x, g)| {
                let s = sigmoid(*x);
                *g *= s + x * s * (1.0 - s) * 2.0 * ROOT * (1.0 + 3.0 * CUBE * x * x);
            }),
            Activation::Relu => pairs.for_each(|(x, g)| *g = if *x > 0.0 { *g } else { 0.0 }),
            Activation::Quadratic => pairs.for_each(|(x, g)| *g *= 2.0 * a * x + b),
        }
    }
}

/// [`Activation::QUADRATIC`].
const QUADRATIC: [f32; 3] = {
    let [a, b, c] = Activation::QUADRATIC;
    [a as f32, b as f32, c as f32]
};
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

impl CustomOp1 for Activate {
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
