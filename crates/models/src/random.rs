//! Random models of any shape, for tests and benches of what takes a model.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::checkpoint::Checkpoint;
use crate::config::{Family, ModelConfig, StateSpaceConfig, TransformerConfig};
use crate::embedding::{Embedding, EmbeddingTable};
use crate::error::Result;
use crate::layers::{Layers, Linear, Norm, StateSpaceLayer, TransformerLayer};
use crate::tensors::matrix;
use veilformer_ir::Matrix;

/// Columns of the shared table of a random model.
const SHARED_WIDTH: usize = 5;

/// A model of the shape `config` with random weights, scaled as a trained model's are: token
/// vectors of deviation about 1, scores around 1, activation inputs within a few units. If the
/// configuration names a shared token table, a random one of five columns takes its place. The
/// same for a seed on every machine (up to the last bits of its f64 logarithm and cosine).
///
/// # Errors
/// When the configuration is not valid.
pub fn random_checkpoint(config: &ModelConfig, seed: u64) -> Result<Checkpoint> {
    config.validate()?;
    let mut g = Generator {
        rng: ChaCha8Rng::seed_from_u64(seed),
    };
    let (d, shared) = (config.hidden_size, config.token_table.is_some());
    let width = if shared { SHARED_WIDTH } else { d };
    let table = g.matrix(config.vocab_size, width, 1.0)?;
    let projection = if shared {
        Some(g.matrix(d, width, 1.0 / (width as f64).sqrt())?)
    } else {
        None
    };
    let count = config.num_hidden_layers;
    let (position, layers) = match &config.family {
        Family::Transformer(shape) => {
            let position = g.matrix(config.max_position_embeddings, d, 0.2)?;
            let layers = (0..count).map(|_| g.transformer_layer(shape, d));
            let layers = layers.collect::<Result<_>>()?;
            (Some(position), Layers::Transformer(layers))
        }
        Family::StateSpace(shape) => {
            let layers = (0..count).map(|_| g.state_space_layer(shape, d));
            (None, Layers::StateSpace(layers.collect::<Result<_>>()?))
        }
    };
    Ok(Checkpoint {
        config: config.clone(),
        embedding: Embedding {
            table: EmbeddingTable::quantize(&table)?,
            projection,
            position,
        },
        layers,
        classifier: g.linear(config.num_classes(), d, 1.0 / (d as f64).sqrt(), 0.1)?,
    })
}

struct Generator {
    rng: ChaCha8Rng,
}

impl Generator {
    /// Normal values (Box & Muller 1958), rounded to f32 so that saving loses nothing.
    fn normal(&mut self, n: usize, sd: f64) -> Vec<f64> {
        let mut unit = || (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (0..n)
            .map(|_| {
                let radius = (-2.0 * (1.0 - unit()).ln()).sqrt();
                f64::from((sd * radius * (std::f64::consts::TAU * unit()).cos()) as f32)
            })
            .collect()
    }

    fn matrix(&mut self, rows: usize, cols: usize, sd: f64) -> Result<Matrix> {
        matrix(rows, cols, self.normal(rows * cols, sd))
    }

    fn transformer_layer(&mut self, c: &TransformerConfig, d: usize) -> Result<TransformerLayer> {
        let (a, f) = (c.attention_width(), c.intermediate_size);
        let unit = 1.0 / (d as f64).sqrt();
        let norm1 = self.norm(d);
        let mut query = self.linear(a, d, 0.4 * unit, 0.02)?;
        let mut key = self.linear(a, d, 0.4 * unit, 0.02)?;
        // b_q . b_k / sqrt(head_dim) = 1 per head: the linear and constant part of S^2.
        let constant = (c.head_dim as f64).powf(-0.25);
        for (q, k) in query.bias.iter_mut().zip(&mut key.bias) {
            let sign = if self.rng.next_u32() & 1 == 0 {
                constant
            } else {
                -constant
            };
            *q = f64::from((*q + sign) as f32);
            *k = f64::from((*k + sign) as f32);
        }
        let value = self.linear(a, d, unit, 0.02)?;
        let output = self.linear(d, a, 0.5 / (a as f64).sqrt(), 0.02)?;
        let norm2 = self.norm(d);
        let up = self.linear(f, d, unit, 0.1)?;
        let beta = self.normal(f, 0.5);
        let activation = beta
            .into_iter()
            .map(|b| [1.0, f64::from((1.0 + b) as f32)])
            .collect();
        Ok(TransformerLayer {
            heads: c.num_attention_heads,
            norm1,
            query,
            key,
            value,
            output,
            norm2,
            up,
            activation,
            down: self.linear(d, f, 0.3 / (f as f64).sqrt(), 0.02)?,
        })
    }

    /// Decays spread over time constants from about 1 to about 64 tokens.
    fn state_space_layer(&mut self, c: &StateSpaceConfig, d: usize) -> Result<StateSpaceLayer> {
        let (m, unit) = (c.state_size, 1.0 / (d as f64).sqrt());
        let norm = self.norm(d);
        let input = self.linear(m, d, unit, 0.1)?;
        let mut gate = self.linear(m, d, 0.5 * unit, 0.1)?;
        for bias in &mut gate.bias {
            *bias = f64::from((*bias + 1.0) as f32);
        }
        let decay = (0..m).map(|channel| {
            let place = (channel as f64 + 0.5) / m as f64;
            f64::from((-(-place * 64f64.ln()).exp()).exp() as f32)
        });
        Ok(StateSpaceLayer {
            norm,
            input,
            gate,
            decay: decay.collect(),
            output: self.linear(d, m, 1.0 / (m as f64).sqrt(), 0.02)?,
        })
    }

    fn linear(&mut self, rows: usize, cols: usize, sd: f64, bias_sd: f64) -> Result<Linear> {
        Ok(Linear {
            weight: matrix(rows, cols, self.normal(rows * cols, sd))?,
            bias: self.normal(rows, bias_sd),
        })
    }

    fn norm(&mut self, n: usize) -> Norm {
        let around = |values: Vec<f64>| values.into_iter().map(|v| f64::from((1.0 + v) as f32));
        Norm {
            weight: around(self.normal(n, 0.1)).collect(),
            bias: self.normal(n, 0.1),
            running_mean: self.normal(n, 0.1),
            running_var: around(self.normal(n, 0.1))
                .map(|v| v.abs().max(0.25))
                .collect(),
        }
    }
}
