//! The tensor program of a checkpoint.

use crate::{Checkpoint, Linear, Norm};
use veilformer_ir::tensor::{TensorId, TensorOp, TensorProgram};

impl Checkpoint {
    /// The model as a tensor program over its token features (embedding plus position, which the
    /// client looks up). Its input bound is exact: over all tokens and all positions.
    pub fn tensor_program(&self, name: &str) -> TensorProgram {
        let config = &self.config;
        let labels = (0..config.num_classes()).map(|c| {
            config
                .label(c)
                .map_or_else(|| format!("label {c}"), str::to_string)
        });
        let mut program = TensorProgram {
            name: name.to_string(),
            max_tokens: config.max_position_embeddings,
            ops: vec![],
            labels: labels.collect(),
        };
        let bound = self.input_bound();
        let mut x = program.push(TensorOp::Input {
            features: config.hidden_size,
            bound,
        });
        for layer in &self.layers {
            let a = norm(&mut program, x, &layer.norm1, config.norm_eps);
            let query = linear(&mut program, a, &layer.query);
            let key = linear(&mut program, a, &layer.key);
            let value = linear(&mut program, a, &layer.value);
            let o = program.push(TensorOp::PowerAttention {
                query,
                key,
                value,
                heads: config.num_attention_heads,
                score_scale: 1.0 / (config.head_dim as f64).sqrt(),
            });
            let o = linear(&mut program, o, &layer.output);
            let y = program.push(TensorOp::Add { x, y: o });
            let b = norm(&mut program, y, &layer.norm2, config.norm_eps);
            let u = linear(&mut program, b, &layer.up);
            let coefficients = layer
                .activation
                .iter()
                .map(|[a, b]| [0.0, *b, *a])
                .collect();
            let u = program.push(TensorOp::Quadratic { x: u, coefficients });
            let f = linear(&mut program, u, &layer.down);
            x = program.push(TensorOp::Add { x: y, y: f });
        }
        let pooled = program.push(TensorOp::MeanPool { x });
        linear(&mut program, pooled, &self.classifier);
        program
    }

    /// Per feature the largest absolute value of an embedding plus a position.
    fn input_bound(&self) -> Vec<f64> {
        let hidden = self.config.hidden_size;
        let mut table = vec![(0.0f64, 0.0f64); hidden];
        for row in self.embedding.values.chunks_exact(hidden.max(1)) {
            for ((range, v), s) in table.iter_mut().zip(row).zip(&self.embedding.scale) {
                let v = f64::from(*v) * s;
                *range = (range.0.min(v), range.1.max(v));
            }
        }
        let mut position = vec![(f64::INFINITY, f64::NEG_INFINITY); hidden];
        for row in self.position.iter_rows() {
            for (range, v) in position.iter_mut().zip(row) {
                *range = (range.0.min(*v), range.1.max(*v));
            }
        }
        let widest = |(t, p): (&(f64, f64), &(f64, f64))| (t.0 + p.0).abs().max((t.1 + p.1).abs());
        table.iter().zip(&position).map(widest).collect()
    }
}

fn norm(program: &mut TensorProgram, x: TensorId, norm: &Norm, eps: f64) -> TensorId {
    let (scale, shift) = norm.affine(eps);
    program.push(TensorOp::Affine { x, scale, shift })
}

fn linear(program: &mut TensorProgram, x: TensorId, linear: &Linear) -> TensorId {
    let weight = linear.weight.clone();
    program.push(TensorOp::Linear {
        x,
        weight,
        bias: linear.bias.clone(),
    })
}
