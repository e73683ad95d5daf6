//! The layer of a public-decay state-space classifier.

use candle_core::{Device, Tensor};

use super::{Network, Pass};
use crate::error::Result;

impl Network<'_> {
    /// A layer on `x`, B x T x d: `y = x + C s + b` with `s_t = a . s_(t-1) + (1 - a) . u_t . g_t`.
    pub(super) fn state_space(
        &self,
        layer: &str,
        x: Tensor,
        pass: &mut Pass<'_, '_>,
    ) -> Result<Tensor> {
        let limits = pass.state_space_limits();
        let normed = self.norm(&format!("{layer}.norm"), &x, pass)?;
        let u = self.linear(&format!("{layer}.input"), &normed)?;
        let g = self.linear(&format!("{layer}.gate"), &normed)?;
        for (name, value) in [("u", &u), ("g", &g)] {
            pass.limit(name, value, limits.map(|l| l.factors))?;
        }
        let logit = self.weight(&format!("{layer}.decay_logit"))?;
        // 1 - a = 1 / (1 + exp(logit)).
        let left = (logit.exp()? + 1.0)?.recip()?;
        let written = (u * g)?.broadcast_mul(&left)?;
        pass.observe("w", &written)?;
        let state = decayed(&written, logit)?;
        pass.limit("s", &state, limits.map(|l| l.state))?;
        let read = self.linear(&format!("{layer}.output"), &state)?;
        let y = (x + pass.dropout(read)?)?;
        pass.observe("y", &y)?;
        Ok(y)
    }
}

/// `s_t = sum over u <= t of a^(t-u) w_u` of `w`, B x T x M, with the decays `a = 1 / (1 +
/// exp(-logit))`, M values. Per channel this is one product with a lower triangular T x T matrix,
/// which takes fewer and larger tensor operations than a loop over tokens.
fn decayed(w: &Tensor, logit: &Tensor) -> Result<Tensor> {
    let (_, tokens, channels) = w.dims3()?;
    let (mut distance, mut lower) = (vec![0.0f64; tokens * tokens], vec![0.0f64; tokens * tokens]);
    let rows = distance
        .chunks_exact_mut(tokens)
        .zip(lower.chunks_exact_mut(tokens));
    for (t, (distance, lower)) in rows.enumerate() {
        for (u, (d, l)) in distance.iter_mut().zip(lower).enumerate().take(t + 1) {
            (*d, *l) = ((t - u) as f64, 1.0);
        }
    }
    let square = |values: Vec<f64>| -> Result<Tensor> {
        let tensor = Tensor::from_vec(values, (1, tokens, tokens), &Device::Cpu)?;
        Ok(tensor.to_dtype(w.dtype())?)
    };
    // ln a = -ln(1 + exp(-logit)).
    let log = (logit.neg()?.exp()? + 1.0)?
        .log()?
        .neg()?
        .reshape((channels, 1, 1))?;
    let kernel = log
        .broadcast_mul(&square(distance)?)?
        .exp()?
        .broadcast_mul(&square(lower)?)?;
    let by_channel = w.transpose(0, 2)?.contiguous()?;
    Ok(kernel.matmul(&by_channel)?.transpose(0, 2)?.contiguous()?)
}
