//! Initial values of the trained parameters.

use candle_core::{DType, Device, Tensor, Var};
use veilformer_models::ModelConfig;

use crate::error::Result;
use crate::family::{StateSpaceRecipe, TransformerRecipe};
use crate::noise::Noise;
use crate::params::{Parameter, Statistics};

/// Collects parameters in a fixed order; what is random comes from one stream.
pub(crate) struct Init {
    noise: Noise,
    pub(crate) list: Vec<Parameter>,
    pub(crate) statistics: Vec<Statistics>,
}

impl Init {
    /// Nothing yet.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            noise: Noise::new(seed, u64::MAX),
            list: Vec::new(),
            statistics: Vec::new(),
        }
    }

    /// Positions and layers of a transformer.
    pub(crate) fn transformer(&mut self, r: &TransformerRecipe, c: &ModelConfig) -> Result<()> {
        let (d, f) = (c.hidden_size, r.intermediate_size);
        let a = r.num_attention_heads * r.head_dim;
        let i = &r.init;
        if c.num_hidden_layers > 0 {
            self.position(c.max_position_embeddings, d, i.position, i.sinusoid)?;
        }
        for l in 0..c.num_hidden_layers {
            let p = |name: &str| format!("layers.{l}.{name}");
            self.norm(&p("norm1"), d)?;
            self.norm(&p("norm2"), d)?;
            // The same constant in q and k: every score starts near
            // head_dim * c^2 / sqrt(head_dim) = 1, so that attention starts near a mean.
            let c = (r.head_dim as f32).powf(-0.25);
            let constant: Vec<f32> = (0..a).map(|_| c * self.noise.sign()).collect();
            let unit = 1.0 / (d as f64).sqrt();
            self.linear(
                &p("attention.query"),
                [a, d],
                i.score * unit,
                constant.clone(),
            )?;
            self.linear(&p("attention.key"), [a, d], i.score * unit, constant)?;
            self.linear(&p("attention.value"), [a, d], unit, vec![0.0; a])?;
            let out = i.attention_output / (a as f64).sqrt();
            self.linear(&p("attention.output"), [d, a], out, vec![0.0; d])?;
            self.linear(&p("ffn.up"), [f, d], unit, vec![0.0; f])?;
            self.constant(&p("ffn.beta"), f, 1.0)?;
            let down = i.ffn_output / (f as f64).sqrt();
            self.linear(&p("ffn.down"), [d, f], down, vec![0.0; d])?;
        }
        Ok(())
    }

    /// Layers of a state-space classifier.
    pub(crate) fn state_space(&mut self, r: &StateSpaceRecipe, c: &ModelConfig) -> Result<()> {
        let (d, m) = (c.hidden_size, r.state_size);
        let unit = 1.0 / (d as f64).sqrt();
        for l in 0..c.num_hidden_layers {
            let p = |name: &str| format!("layers.{l}.{name}");
            self.norm(&p("norm"), d)?;
            self.linear(&p("input"), [m, d], unit, vec![0.0; m])?;
            // Gates start around 1, so that what is written starts near a linear map.
            self.linear(&p("gate"), [m, d], r.init.gate * unit, vec![1.0; m])?;
            self.push(
                &p("decay_logit"),
                decay_logits(m, r.init.shortest, r.init.longest),
                &[m],
                false,
            )?;
            let out = r.init.output / (m as f64).sqrt();
            self.linear(&p("output"), [d, m], out, vec![0.0; d])?;
        }
        Ok(())
    }

    fn push(&mut self, name: &str, values: Vec<f32>, shape: &[usize], decays: bool) -> Result<()> {
        let state = [
            vec![0.0; values.len()],
            vec![0.0; values.len()],
            values.clone(),
        ];
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(DType::F32)?;
        let var = Var::from_tensor(&tensor)?;
        self.list.push(Parameter {
            name: name.to_owned(),
            var,
            decays,
            state,
        });
        Ok(())
    }

    /// Normal values of standard deviation `sd`.
    pub(crate) fn normal(&mut self, name: &str, shape: &[usize], sd: f64) -> Result<()> {
        let values = self.noise.normal(shape.iter().product(), sd);
        self.push(name, values, shape, true)
    }

    fn constant(&mut self, name: &str, n: usize, value: f32) -> Result<()> {
        self.push(name, vec![value; n], &[n], false)
    }

    /// An affine map, `shape` being outputs and inputs.
    pub(crate) fn linear(
        &mut self,
        name: &str,
        shape: [usize; 2],
        sd: f64,
        bias: Vec<f32>,
    ) -> Result<()> {
        self.normal(&format!("{name}.weight"), &shape, sd)?;
        self.push(&format!("{name}.bias"), bias, &shape[..1], false)
    }

    fn norm(&mut self, name: &str, d: usize) -> Result<()> {
        self.constant(&format!("{name}.weight"), d, 1.0)?;
        self.constant(&format!("{name}.bias"), d, 0.0)?;
        self.statistics.push(Statistics {
            name: name.to_owned(),
            values: [vec![0.0; d], vec![1.0; d], vec![0.0; d], vec![1.0; d]],
        });
        Ok(())
    }

    /// Sinusoids of geometrically growing wave lengths (Vaswani et al. 2017, section 3.5) plus a
    /// random part.
    fn position(&mut self, rows: usize, d: usize, sd: f64, amplitude: f64) -> Result<()> {
        let mut values = self.noise.normal(rows * d, sd);
        for (index, value) in values.iter_mut().enumerate() {
            let (t, i) = ((index / d) as f64, index % d);
            let angle = t / 10_000f64.powf((i / 2 * 2) as f64 / d as f64);
            let wave = if i % 2 == 0 { angle.sin() } else { angle.cos() };
            *value += (amplitude * wave) as f32;
        }
        self.push("position.weight", values, &[rows, d], false)
    }
}

/// Logits of decays whose time constants run evenly in their logarithm from `shortest` to
/// `longest` tokens.
fn decay_logits(channels: usize, shortest: f64, longest: f64) -> Vec<f32> {
    let last = channels.saturating_sub(1).max(1) as f64;
    (0..channels)
        .map(|c| {
            let time = shortest * (longest / shortest).powf(c as f64 / last);
            // a / (1 - a) for a = exp(-1 / time), without the loss of digits of 1 - a.
            -((1.0 / time).exp_m1().ln()) as f32
        })
        .collect()
}
