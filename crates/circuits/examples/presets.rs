//! Makes `src/bootstrap/presets.json`:
//! `cargo run --release -p veilformer-circuits --example presets > crates/circuits/src/bootstrap/presets.json`
#![allow(clippy::print_stdout)]

use veilformer_circuits::bootstrap::Preset;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let presets: Vec<Preset> = [10, 14]
        .into_iter()
        .map(Preset::generate)
        .collect::<Result<_, _>>()?;
    println!("{}", serde_json::to_string_pretty(&presets)?);
    Ok(())
}
