//! Random models of any shape, for tests and benches of what takes a model.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::checkpoint::matrix;
use crate::checkpoint::{Checkpoint, EmbeddingTable, LayerWeights, Linear, Norm};
use crate::config::ModelConfig;
use crate::error::Result;

/// A model of the shape `config` with random weights, scaled as a trained model's are: token
/// vectors of deviation about 1, scores around 1, activation inputs within a few units. The same
/// for a seed on every machine (up to the last bits of its f64 logarithm and cosine).
///
/// # Errors
/// When the configuration is not valid.
pub fn random_checkpoint(config: &ModelConfig, seed: u64) -> Result<Checkpoint> {
    config.validate()?;
    let mut g = Generator {
        rng: ChaCha8Rng::seed_from_u64(seed),
    };
    let (d, a, f) = (
        config.hidden_size,
        config.attention_width(),
        config.intermediate_size,
    );
    let unit = 1.0 / (d as f64).sqrt();
    let table = matrix(config.vocab_size, d, g.normal(config.vocab_size * d, 1.0))?;
    let positions = config.max_position_embeddings;
    let position = matrix(positions, d, g.normal(positions * d, 0.2))?;
    let mut layers = Vec::with_capacity(config.num_hidden_layers);
    for _ in 0..config.num_hidden_layers {
        let norm1 = g.norm(d);
        let mut query = g.linear(a, d, 0.4 * unit, 0.02)?;
        let mut key = g.linear(a, d, 0.4 * unit, 0.02)?;
        // b_q . b_k / sqrt(head_dim) = 1 per head: the linear and constant part of S^2.
        let constant = (config.head_dim as f64).powf(-0.25);
        for (q, k) in query.bias.iter_mut().zip(&mut key.bias) {
            let sign = if g.rng.next_u32() & 1 == 0 {
                constant
            } else {
                -constant
            };
            *q = f64::from((*q + sign) as f32);
            *k = f64::from((*k + sign) as f32);
        }
        let value = g.linear(a, d, unit, 0.02)?;
        let output = g.linear(d, a, 0.5 / (a as f64).sqrt(), 0.02)?;
        let norm2 = g.norm(d);
        let up = g.linear(f, d, unit, 0.1)?;
        let beta = g.normal(f, 0.5);
        let activation = beta
            .into_iter()
            .map(|b| [1.0, f64::from((1.0 + b) as f32)])
            .collect();
        let down = g.linear(d, f, 0.3 / (f as f64).sqrt(), 0.02)?;
        layers.push(LayerWeights {
            norm1,
            query,
            key,
            value,
            output,
            norm2,
            up,
            activation,
            down,
        });
    }
    let classifier = g.linear(config.num_classes(), d, unit, 0.1)?;
    Ok(Checkpoint {
        config: config.clone(),
        embedding: EmbeddingTable::quantize(&table)?,
        position,
        layers,
        classifier,
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
