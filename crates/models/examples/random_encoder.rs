//! Writes the Hugging Face folder of a random encoder in the shape of BERT-base:
//!
//! `cargo run --release -p veilformer-models --example random_encoder -- DIR [LAYERS]`
#![allow(clippy::print_stdout)]

use std::path::PathBuf;

use veilformer_models::encoder::{RandomEncoder, write_random_folder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("DIR [LAYERS]")?);
    let mut shape = RandomEncoder::bert_base();
    if let Some(layers) = arguments.next() {
        shape.layers = layers.parse()?;
    }
    write_random_folder(&dir, &shape, 1)?;
    println!("{}: {} layers", dir.display(), shape.layers);
    Ok(())
}
