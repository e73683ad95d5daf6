//! Trained parameters: initial values, AdamW, and the running average that is evaluated.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use veilformer_models::ModelConfig;

use crate::corpus::TokenSource;
use crate::error::Result;
use crate::family::FamilyRecipe;
use crate::init::Init;
use crate::network::Weights;
use crate::recipe::Recipe;

/// Decay of AdamW's first moment.
const BETA1: f64 = 0.9;
/// Decay of AdamW's second moment.
const BETA2: f64 = 0.98;
/// Added to the root of the second moment.
const EPS: f64 = 1e-8;

/// One trained tensor with the optimizer's state.
pub struct Parameter {
    /// Name, as in [`Weights`]; `projection` is the map from frozen features to token vectors
    /// (features x d), `embedding` learned token vectors (tokens x d).
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
    /// Initial values for a model of shape `config` whose token vectors come from `tokens`.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn new(recipe: &Recipe, config: &ModelConfig, tokens: &TokenSource) -> Result<Self> {
        let mut init = Init::new(recipe.seed);
        let d = config.hidden_size;
        match tokens {
            // Features have variance 1, so this gives token vectors of deviation `embedding`.
            TokenSource::Frozen(features) => {
                let sd = recipe.init.embedding / (features.width as f64).sqrt();
                init.normal("projection", &[features.width, d], sd)?;
            }
            TokenSource::Learned { tokens, sd } => {
                init.normal("embedding", &[tokens.len(), d], *sd)?;
            }
        }
        match &recipe.family {
            FamilyRecipe::Transformer(family) => init.transformer(family, config)?,
            FamilyRecipe::StateSpace(family) => init.state_space(family, config)?,
        }
        let classes = config.num_classes();
        let sd = 1.0 / (d as f64).sqrt();
        init.linear("classifier", [classes, d], sd, vec![0.0; classes])?;
        Ok(Self {
            list: init.list,
            statistics: init.statistics,
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
        let clip = clip(norm, o.clip_norm);
        self.step += 1;
        let average = warm(o.average_decay, self.step);
        for (p, gradient) in self.list.iter_mut().zip(&gradients) {
            let mut values = p.var.flatten_all()?.to_vec1::<f32>()?;
            let decay = if p.decays { o.weight_decay } else { 0.0 };
            let adam = AdamW::new(self.step, BETA2, rate, decay);
            let [first, second, mean] = &mut p.state;
            let moments = first.iter_mut().zip(second.iter_mut()).zip(mean.iter_mut());
            for ((value, &g), ((m, s), e)) in values.iter_mut().zip(gradient).zip(moments) {
                let new = adam.next([value, m, s], f64::from(g) * clip);
                *value = new as f32;
                *e = (average * f64::from(*e) + (1.0 - average) * new) as f32;
            }
            p.var
                .set(&Tensor::from_vec(values, p.var.shape(), &Device::Cpu)?)?;
        }
        Ok(norm)
    }
}

/// A step of AdamW (Loshchilov & Hutter 2019, algorithm 2) on single values.
#[derive(Debug, Clone, Copy)]
pub struct AdamW {
    rate: f64,
    kept: f64,
    beta2: f64,
    corrections: [f64; 2],
}

impl AdamW {
    /// Step number `step`, from 1, of size `rate`, with decay `beta2` of the second moment and
    /// weight decay `decay`.
    pub fn new(step: usize, beta2: f64, rate: f64, decay: f64) -> Self {
        Self {
            rate,
            kept: 1.0 - rate * decay,
            beta2,
            corrections: [BETA1, beta2].map(|beta| 1.0 - beta.powi(step as i32)),
        }
    }

    /// The new value, and both moments in their places, of a `value` with gradient `g`.
    #[inline]
    pub fn next(&self, [value, first, second]: [&mut f32; 3], g: f64) -> f64 {
        let m = BETA1 * f64::from(*first) + (1.0 - BETA1) * g;
        let s = self.beta2 * f64::from(*second) + (1.0 - self.beta2) * g * g;
        (*first, *second) = (m as f32, s as f32);
        let [c1, c2] = self.corrections;
        let step = self.rate * (m / c1) / ((s / c2).sqrt() + EPS);
        f64::from(*value) * self.kept - step
    }
}

/// The factor that makes a gradient of norm `norm` no longer than `most`.
pub(crate) fn clip(norm: f64, most: f64) -> f64 {
    if norm > most { most / norm } else { 1.0 }
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
