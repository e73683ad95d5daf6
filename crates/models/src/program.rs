//! The tensor program of a checkpoint.

use crate::config::Pooling;
use crate::{Checkpoint, Layers, Linear, Norm, StateSpaceLayer, TransformerLayer};
use veilformer_ir::tensor::{TensorId, TensorOp, TensorProgram};

impl Checkpoint {
    /// The model as a tensor program over its token features (which the client looks up). Its
    /// input bound is exact: over all tokens and all positions.
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
        let mut x = program.push(TensorOp::Input {
            features: config.hidden_size,
            bound: self.embedding.bound(),
        });
        let eps = config.norm_eps;
        match &self.layers {
            Layers::Transformer(layers) => {
                for layer in layers {
                    x = transformer_layer(&mut program, x, layer, eps);
                }
            }
            Layers::StateSpace(layers) => {
                for layer in layers {
                    x = state_space_layer(&mut program, x, layer, eps);
                }
            }
        }
        let pooled = program.push(match config.pooling() {
            Pooling::Mean => TensorOp::MeanPool { x },
            Pooling::Last => TensorOp::LastToken { x },
        });
        linear(&mut program, pooled, &self.classifier);
        program
    }
}

fn transformer_layer(
    program: &mut TensorProgram,
    x: TensorId,
    layer: &TransformerLayer,
    eps: f64,
) -> TensorId {
    let a = norm(program, x, &layer.norm1, eps);
    let query = linear(program, a, &layer.query);
    let key = linear(program, a, &layer.key);
    let value = linear(program, a, &layer.value);
    let head_dim = layer.query.weight.rows() / layer.heads.max(1);
    let o = program.push(TensorOp::PowerAttention {
        query,
        key,
        value,
        heads: layer.heads,
        score_scale: 1.0 / (head_dim as f64).sqrt(),
    });
    let o = linear(program, o, &layer.output);
    let y = program.push(TensorOp::Add { x, y: o });
    let b = norm(program, y, &layer.norm2, eps);
    let u = linear(program, b, &layer.up);
    let coefficients = layer
        .activation
        .iter()
        .map(|[a, b]| [0.0, *b, *a])
        .collect();
    let u = program.push(TensorOp::Quadratic { x: u, coefficients });
    let f = linear(program, u, &layer.down);
    program.push(TensorOp::Add { x: y, y: f })
}

/// The factor `1 - decay` goes into the input map, where it costs nothing.
fn state_space_layer(
    program: &mut TensorProgram,
    x: TensorId,
    layer: &StateSpaceLayer,
    eps: f64,
) -> TensorId {
    let written: Vec<f64> = layer.decay.iter().map(|a| 1.0 - a).collect();
    let input = Linear {
        weight: layer.input.weight.scale_rows(&written),
        bias: layer
            .input
            .bias
            .iter()
            .zip(&written)
            .map(|(b, w)| b * w)
            .collect(),
    };
    let a = norm(program, x, &layer.norm, eps);
    let u = linear(program, a, &input);
    let g = linear(program, a, &layer.gate);
    let w = program.push(TensorOp::Product { x: u, y: g });
    let s = program.push(TensorOp::Recurrence {
        x: w,
        decay: layer.decay.clone(),
    });
    let c = linear(program, s, &layer.output);
    program.push(TensorOp::Add { x, y: c })
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
