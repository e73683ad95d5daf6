//! Precision of a full-size bootstrap by simulation: the circuit on plain slots with samples of the
//! scheme's noise.
//!
//! `cargo run --release -p veilformer-circuits --example bootstrap_noise [PRESET]`
#![allow(clippy::print_stdout)]

use std::time::Instant;
use veilformer_circuits::bootstrap::{Content, Preset, estimate};
use veilformer_circuits::testing::ClearOps;
use veilformer_ckks::{Complex, SecretKind, SlotVector};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1);
    let preset = Preset::named(name.as_deref().unwrap_or("11-levels"))?;
    let params = preset.validate()?;
    let plan = preset.plan(&params, Content::Complex)?;
    let predicted = estimate(&preset.bootstrap)?;
    println!(
        "log QP {:.1}, noise alone predicted: mean {:.2} worst {:.2} bits",
        params.log_qp(),
        predicted.mean_bits,
        predicted.worst_bits
    );
    println!(
        "the sine leaves {:.1} bits; standard deviations {:?}",
        -predicted.sine_error.log2(),
        predicted.stages
    );
    let n = params.slots();
    let wave = |x: usize| ((x * x % 10007) as f64 * 0.7).sin();
    let inputs: [(&str, Vec<Complex>); 4] = [
        (
            "random",
            (0..n)
                .map(|j| Complex::new(wave(j), wave(j + 77)))
                .collect(),
        ),
        ("constant", vec![Complex::new(1.0, 1.0); n]),
        (
            "signs",
            (0..n)
                .map(|j| Complex::new(wave(j).signum(), wave(j + 5).signum()))
                .collect(),
        ),
        (
            "replicated",
            (0..n)
                .map(|j| Complex::new(wave(j % 128), wave(j % 128 + 3)))
                .collect(),
        ),
    ];
    for (seed, (name, slots)) in inputs.iter().cycle().take(12).enumerate() {
        let seed = seed as u64;
        let start = Instant::now();
        let mut ops = ClearOps::with_noise(&params, SecretKind::DenseTernary, seed);
        let boot = plan.encode(&mut ops)?;
        let level = plan.input_level();
        let x = ops.encrypt(&SlotVector::Dense(slots.clone()), level)?;
        let y = boot.run(&mut ops, &x)?;
        let errors: Vec<f64> = ops
            .decrypt(&y)
            .iter()
            .zip(slots)
            .flat_map(|(a, b)| [(a - b).re.abs(), (a - b).im.abs()])
            .collect();
        let worst = errors.iter().copied().fold(0.0, f64::max);
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        println!(
            "{name}: mean {:.2} worst {:.2} bits ({:.1} s)",
            -mean.log2(),
            -worst.log2(),
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}
