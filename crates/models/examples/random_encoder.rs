//! Writes the Hugging Face folder of a random encoder in the shape of BERT-base or MiniLM:
//!
//! `cargo run --release -p veilformer-models --example random_encoder -- DIR [LAYERS] [--minilm | --small] [--power]`
//!
//! With `--power` it has power-softmax and a quadratic activation. `--small` is a classifier of three labels
//! that is like neither: 2 layers of 192 features, 3 heads, GELU by tanh, 48 tokens, a vocabulary of its own.
#![allow(clippy::print_stdout)]

use std::path::PathBuf;

use veilformer_ir::encoder::AttentionFunction;
use veilformer_models::encoder::{RandomEncoder, write_random_folder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = std::env::args().skip(1);
    let (options, arguments): (Vec<_>, Vec<_>) = arguments.partition(|a| a.starts_with("--"));
    let usage = "DIR [LAYERS] [--minilm | --small] [--power]";
    let dir = PathBuf::from(arguments.first().ok_or(usage)?);
    let mut shape = RandomEncoder::bert_base();
    for option in &options {
        match option.as_str() {
            "--minilm" => {
                (shape.layers, shape.hidden, shape.intermediate) = (6, 384, 1536);
                shape.ranges = shape.ranges.iter().step_by(2).copied().collect();
            }
            "--small" => {
                shape = RandomEncoder {
                    layers: 2,
                    hidden: 192,
                    heads: 3,
                    intermediate: 384,
                    activation: "gelu_pytorch_tanh".into(),
                    positions: 48,
                    vocabulary: 512,
                    labels: 3,
                    ranges: vec![(4.0, 4.0)],
                    ..shape
                };
            }
            "--power" => {
                shape.activation = "quadratic".into();
                shape.attention = AttentionFunction::PowerSoftmax {
                    power: 4,
                    epsilon: 64.0,
                };
                // Models that are trained with it have no wide scores.
                shape.ranges.iter_mut().for_each(|r| r.0 = 6.0);
            }
            _ => return Err(usage.into()),
        }
    }
    if let Some(layers) = arguments.get(1) {
        shape.layers = layers.parse()?;
    }
    write_random_folder(&dir, &shape, 1)?;
    println!("{}: {} layers", dir.display(), shape.layers);
    Ok(())
}
