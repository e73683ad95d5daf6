//! Trained weights and AdamW over them.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};

use super::folder::is_dense;
use super::recipe::EncoderOptimizer;
use crate::error::Result;
use crate::network::Weights;
use crate::params::{AdamW, clip};

/// Name of the token vectors, which a recipe may leave as they are.
const TOKENS: &str = "bert.embeddings.word_embeddings.weight";
/// Decay of AdamW's second moment, as in the transformers library.
const BETA2: f64 = 0.999;

/// One trained tensor with the optimizer's state.
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// The values being trained.
    pub var: Var,
    /// First and second moment.
    pub moments: [Vec<f32>; 2],
}

/// All that training changes, and what it leaves as it is.
pub struct Parameters {
    /// The trained tensors in a fixed order.
    pub list: Vec<Parameter>,
    /// Steps done.
    pub step: usize,
    frozen: Weights,
}

impl Parameters {
    /// The given weights at the beginning of a training.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn new(weights: &[(String, Tensor)], optimizer: &EncoderOptimizer) -> Result<Self> {
        let mut this = Self {
            list: Vec::new(),
            step: 0,
            frozen: Weights::new(),
        };
        for (name, tensor) in weights {
            if name == TOKENS && !optimizer.train_tokens {
                this.frozen.insert(name.clone(), tensor.clone());
                continue;
            }
            let n = tensor.elem_count();
            this.list.push(Parameter {
                name: name.clone(),
                var: Var::from_tensor(tensor)?,
                moments: [vec![0.0; n], vec![0.0; n]],
            });
        }
        Ok(this)
    }

    /// All weights; on the trained ones gradients can be taken.
    pub fn weights(&self) -> Weights {
        let trained = self.list.iter();
        let mut weights: Weights = trained
            .map(|p| (p.name.clone(), p.var.as_tensor().clone()))
            .collect();
        weights.extend(self.frozen.clone());
        weights
    }

    /// One step of AdamW with the gradient clipped to the recipe's norm. Returns the norm before.
    ///
    /// # Errors
    /// When a tensor cannot be read or set.
    pub fn update(&mut self, grads: &GradStore, rate: f64, o: &EncoderOptimizer) -> Result<f64> {
        let mut gradients = Vec::with_capacity(self.list.len());
        let mut square = 0.0f64;
        for p in &self.list {
            let gradient = match grads.get(p.var.as_tensor()) {
                Some(g) => Some(g.flatten_all()?.to_vec1::<f32>()?),
                None => None,
            };
            let parts = gradient.iter().flat_map(|g| g.chunks(4096));
            square += parts
                .map(|part| f64::from(part.iter().map(|g| g * g).sum::<f32>()))
                .sum::<f64>();
            gradients.push(gradient);
        }
        let norm = square.sqrt();
        let clip = clip(norm, o.clip_norm);
        self.step += 1;
        for (p, gradient) in self.list.iter_mut().zip(&gradients) {
            let Some(gradient) = gradient else { continue };
            let decay = if is_dense(&p.name) {
                o.weight_decay
            } else {
                0.0
            };
            let adam = AdamW::new(self.step, BETA2, rate, decay);
            let mut values = p.var.flatten_all()?.to_vec1::<f32>()?;
            let row = p.var.dims().last().copied().unwrap_or(1).max(1);
            let [first, second] = &mut p.moments;
            let rows = values.chunks_mut(row).zip(gradient.chunks(row));
            let moments = first.chunks_mut(row).zip(second.chunks_mut(row));
            for ((values, gradient), (first, second)) in rows.zip(moments) {
                // Most token vectors: never seen, nothing to do.
                if decay == 0.0
                    && [gradient, first]
                        .iter()
                        .all(|x| x.iter().all(|v| *v == 0.0))
                {
                    continue;
                }
                let moments = first.iter_mut().zip(second);
                for ((value, g), (m, s)) in values.iter_mut().zip(gradient).zip(moments) {
                    *value = adam.next([value, m, s], f64::from(*g) * clip) as f32;
                }
            }
            p.var
                .set(&Tensor::from_vec(values, p.var.shape(), &Device::Cpu)?)?;
        }
        Ok(norm)
    }
}
