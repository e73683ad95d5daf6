//! Makes `src/bootstrap/presets.json`:
//! `cargo run --release -p veilformer-circuits --example presets > crates/circuits/src/bootstrap/presets.json`
#![allow(clippy::print_stdout)]

use veilformer_circuits::bootstrap::{Order, Preset};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (first, last) = (Order::SlotToCoeffFirst, Order::SlotToCoeffLast);
    let presets: Vec<Preset> = [(first, 10), (first, 11), (first, 14), (last, 14)]
        .into_iter()
        .map(|(order, levels)| Preset::generate(order, levels))
        .collect::<Result<_, _>>()?;
    println!("{}", serde_json::to_string_pretty(&presets)?);
    Ok(())
}
