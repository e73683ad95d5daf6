//! The weights of a model as tensors.

use candle_core::{DType, Device, Tensor};
use veilformer_models::{Checkpoint, Layers, Linear, Norm};

use super::Weights;
use crate::error::Result;

/// The weights of `checkpoint` as tensors of type `dtype` (token table and projection are left
/// out).
///
/// # Errors
/// When a shape does not fit.
pub fn weights_of(checkpoint: &Checkpoint, dtype: DType) -> Result<Weights> {
    let mut out = Collector {
        weights: Weights::new(),
        dtype,
    };
    if let Some(p) = &checkpoint.embedding.position {
        out.put("position.weight", p.data(), &[p.rows(), p.cols()])?;
    }
    match &checkpoint.layers {
        Layers::Transformer(layers) => {
            for (l, layer) in layers.iter().enumerate() {
                let p = |part: &str| format!("layers.{l}.{part}");
                out.norm(&p("norm1"), &layer.norm1)?;
                out.linear(&p("attention.query"), &layer.query)?;
                out.linear(&p("attention.key"), &layer.key)?;
                out.linear(&p("attention.value"), &layer.value)?;
                out.linear(&p("attention.output"), &layer.output)?;
                out.norm(&p("norm2"), &layer.norm2)?;
                out.linear(&p("ffn.up"), &layer.up)?;
                let beta: Vec<f64> = layer.activation.iter().map(|[_, beta]| *beta).collect();
                out.put(&p("ffn.beta"), &beta, &[beta.len()])?;
                out.linear(&p("ffn.down"), &layer.down)?;
            }
        }
        Layers::StateSpace(layers) => {
            for (l, layer) in layers.iter().enumerate() {
                let p = |part: &str| format!("layers.{l}.{part}");
                out.norm(&p("norm"), &layer.norm)?;
                out.linear(&p("input"), &layer.input)?;
                out.linear(&p("gate"), &layer.gate)?;
                let logit: Vec<f64> = layer.decay.iter().map(|a| (a / (1.0 - a)).ln()).collect();
                out.put(&p("decay_logit"), &logit, &[logit.len()])?;
                out.linear(&p("output"), &layer.output)?;
            }
        }
    }
    out.linear("classifier", &checkpoint.classifier)?;
    Ok(out.weights)
}

struct Collector {
    weights: Weights,
    dtype: DType,
}

impl Collector {
    fn put(&mut self, name: &str, values: &[f64], shape: &[usize]) -> Result<()> {
        let tensor = Tensor::from_slice(values, shape, &Device::Cpu)?.to_dtype(self.dtype)?;
        self.weights.insert(name.to_owned(), tensor);
        Ok(())
    }

    fn linear(&mut self, name: &str, linear: &Linear) -> Result<()> {
        let shape = [linear.weight.rows(), linear.weight.cols()];
        self.put(&format!("{name}.weight"), linear.weight.data(), &shape)?;
        self.put(&format!("{name}.bias"), &linear.bias, &[linear.bias.len()])
    }

    fn norm(&mut self, name: &str, norm: &Norm) -> Result<()> {
        for (field, values) in [
            ("weight", &norm.weight),
            ("bias", &norm.bias),
            ("running_mean", &norm.running_mean),
            ("running_var", &norm.running_var),
        ] {
            self.put(&format!("{name}.{field}"), values, &[values.len()])?;
        }
        Ok(())
    }
}
