//! Trained parameters: initial values, AdamW, and the running average that is evaluated.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use veilformer_models::ModelConfig;

use crate::error::Result;
use crate::network::Weights;
use crate::noise::Noise;
use crate::recipe::Recipe;

/// Decay of AdamW's first moment.
const BETA1: f64 = 0.9;
/// Decay of AdamW's second moment.
const BETA2: f64 = 0.98;
/// Added to the root of the second moment.
const EPS: f64 = 1e-8;

/// One trained tensor with the optimizer's state.
pub struct Parameter {
    /// Name, as in [`Weights`]; `projection` is the map from features to token vectors.
    pub name: String,
    /// The values being trained.
    pub var: Var,
    /// Whether weight decay applies.
    pub decays: bool,
    /// First and second moment and running average, as flat values.
    pub state: [Vec<f32>; 3],
}

/// Running statistics of a normalization: mean and variance, and the average that goes with the
/// averaged weights.
pub struct Statistics {
    /// Name of the normalization.
    pub name: String,
    /// Running mean, running variance, and the averages of both.
    pub values: [Vec<f32>; 4],
}

/// All that training changes.
pub struct Parameters {
    /// The trained tensors in a fixed order.
    pub list: Vec<Parameter>,
    /// Running statistics, one entry per normalization.
    pub statistics: Vec<Statistics>,
    /// Steps done.
    pub step: usize,
}

impl Parameters {
    /// Initial values for features of width `features`.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn new(recipe: &Recipe, config: &ModelConfig, features: usize) -> Result<Self> {
        let mut init = Init {
            noise: Noise::new(recipe.seed, u64::MAX),
            list: Vec::new(),
        };
        let i = &recipe.init;
        let (d, a, f) = (
            config.hidden_size,
            config.attention_width(),
            config.intermediate_size,
        );
        // Features have variance 1, so this gives token vectors of deviation `embedding`.
        init.normal(
            "projection",
            &[features, d],
            i.embedding / (features as f64).sqrt(),
        )?;
        if config.num_hidden_layers > 0 {
            init.position(config.max_position_embeddings, d, i.position, i.sinusoid)?;
        }
        let mut statistics = Vec::new();
        for l in 0..config.num_hidden_layers {
            let p = |name: &str| format!("layers.{l}.{name}");
            for norm in ["norm1", "norm2"] {
                init.constant(&p(&format!("{norm}.weight")), d, 1.0)?;
                init.constant(&p(&format!("{norm}.bias")), d, 0.0)?;
                statistics.push(Statistics {
                    name: p(norm),
                    values: [vec![0.0; d], vec![1.0; d], vec![0.0; d], vec![1.0; d]],
                });
            }
            // The same constant in q and k: every score starts near
            // head_dim * c^2 / sqrt(head_dim) = 1, so that attention starts near a mean.
            let c = (config.head_dim as f32).powf(-0.25);
            let constant: Vec<f32> = (0..a).map(|_| c * init.noise.sign()).collect();
            let unit = 1.0 / (d as f64).sqrt();
            init.linear(
                &p("attention.query"),
                a,
                d,
                i.score * unit,
                constant.clone(),
            )?;
            init.linear(&p("attention.key"), a, d, i.score * unit, constant)?;
            init.linear(&p("attention.value"), a, d, unit, vec![0.0; a])?;
            let out = i.attention_output / (a as f64).sqrt();
            init.linear(&p("attention.output"), d, a, out, vec![0.0; d])?;
            init.linear(&p("ffn.up"), f, d, unit, vec![0.0; f])?;
            init.constant(&p("ffn.beta"), f, 1.0)?;
            let down = i.ffn_output / (f as f64).sqrt();
            init.linear(&p("ffn.down"), d, f, down, vec![0.0; d])?;
        }
        let classes = config.num_classes();
        init.linear(
            "classifier",
            classes,
            d,
            1.0 / (d as f64).sqrt(),
            vec![0.0; classes],
        )?;
        Ok(Self {
            list: init.list,
            statistics,
            step: 0,
        })
    }

    /// The trained tensors, on which gradients can be taken. No running statistics.
    pub fn trained(&self) -> Weights {
        self.list
            .iter()
            .map(|p| (p.name.clone(), p.var.as_tensor().clone()))
            .collect()
    }

    /// The averaged tensors and statistics, for evaluation.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn averaged(&self) -> Result<Weights> {
        let mut weights = Weights::new();
        for p in &self.list {
            let tensor = Tensor::from_slice(&p.state[2], p.var.shape(), &Device::Cpu)?;
            weights.insert(p.name.clone(), tensor);
        }
        for s in &self.statistics {
            let [_, _, mean, variance] = &s.values;
            for (part, values) in [("running_mean", mean), ("running_var", variance)] {
                let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
                weights.insert(format!("{}.{part}", s.name), tensor);
            }
        }
        Ok(weights)
    }

    /// Takes the batch's statistics into the running ones, `decay` being what is left of the old.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn take_statistics(
        &mut self,
        batch: &[(String, Tensor, Tensor)],
        decay: f64,
        average_decay: f64,
    ) -> Result<()> {
        // The first steps weigh alike, as in the average of the weights.
        let decay = warm(decay, self.step) as f32;
        let average = warm(average_decay, self.step) as f32;
        for (name, mean, variance) in batch {
            let new = [mean.to_vec1::<f32>()?, variance.to_vec1::<f32>()?];
            let Some(s) = self.statistics.iter_mut().find(|s| s.name == *name) else {
                continue;
            };
            let [mean, variance, mean_average, variance_average] = &mut s.values;
            for ((old, averaged), new) in [(mean, mean_average), (variance, variance_average)]
                .into_iter()
                .zip(&new)
            {
                mix(old, new, decay);
                mix(averaged, old, average);
            }
        }
        Ok(())
    }

    /// One step of AdamW (Loshchilov & Hutter 2019, algorithm 2) with the gradient clipped to norm
    /// `clip`, and of the running average. Returns the gradient's norm before clipping.
    ///
    /// # Errors
    /// When a tensor cannot be read or set.
    pub fn update(&mut self, grads: &GradStore, rate: f64, recipe: &Recipe) -> Result<f64> {
        let o = &recipe.optimizer;
        let mut gradients = Vec::with_capacity(self.list.len());
        let mut square = 0.0f64;
        for p in &self.list {
            let gradient = match grads.get(p.var.as_tensor()) {
                Some(g) => g.flatten_all()?.to_vec1::<f32>()?,
                None => vec![0.0; p.var.elem_count()],
            };
            square += gradient
                .iter()
                .map(|&g| f64::from(g) * f64::from(g))
                .sum::<f64>();
            gradients.push(gradient);
        }
        let norm = square.sqrt();
        let clip = if norm > o.clip_norm {
            o.clip_norm / norm
        } else {
            1.0
        };
        self.step += 1;
        let correction1 = 1.0 - BETA1.powi(self.step as i32);
        let correction2 = 1.0 - BETA2.powi(self.step as i32);
        let average = warm(o.average_decay, self.step);
        for (p, gradient) in self.list.iter_mut().zip(&gradients) {
            let mut values = p.var.flatten_all()?.to_vec1::<f32>()?;
            let decay = if p.decays {
                1.0 - rate * o.weight_decay
            } else {
                1.0
            };
            let [first, second, mean] = &mut p.state;
            let moments = first.iter_mut().zip(second.iter_mut()).zip(mean.iter_mut());
            for ((value, &g), ((m, s), e)) in values.iter_mut().zip(gradient).zip(moments) {
                let g = f64::from(g) * clip;
                let m1 = BETA1 * f64::from(*m) + (1.0 - BETA1) * g;
                let s1 = BETA2 * f64::from(*s) + (1.0 - BETA2) * g * g;
                let step = rate * (m1 / correction1) / ((s1 / correction2).sqrt() + EPS);
                let new = f64::from(*value) * decay - step;
                (*m, *s, *value) = (m1 as f32, s1 as f32, new as f32);
                *e = (average * f64::from(*e) + (1.0 - average) * new) as f32;
            }
            p.var
                .set(&Tensor::from_vec(values, p.var.shape(), &Device::Cpu)?)?;
        }
        Ok(norm)
    }
}

/// Decay of an average after `step` steps: never more memory than steps were done.
fn warm(decay: f64, step: usize) -> f64 {
    decay.min((1.0 + step as f64) / (10.0 + step as f64))
}

fn mix(old: &mut [f32], new: &[f32], decay: f32) {
    for (o, &n) in old.iter_mut().zip(new) {
        *o = decay * *o + (1.0 - decay) * n;
    }
}

struct Init {
    noise: Noise,
    list: Vec<Parameter>,
}

impl Init {
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

    fn normal(&mut self, name: &str, shape: &[usize], sd: f64) -> Result<()> {
        let values = self.noise.normal(shape.iter().product(), sd);
        self.push(name, values, shape, true)
    }

    fn constant(&mut self, name: &str, n: usize, value: f32) -> Result<()> {
        self.push(name, vec![value; n], &[n], false)
    }

    fn linear(
        &mut self,
        name: &str,
        out: usize,
        inp: usize,
        sd: f64,
        bias: Vec<f32>,
    ) -> Result<()> {
        self.normal(&format!("{name}.weight"), &[out, inp], sd)?;
        self.push(&format!("{name}.bias"), bias, &[out], false)
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
