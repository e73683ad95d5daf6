//! Precision of a full-size bootstrap by simulation: the circuit on plain slots with samples of the
//! scheme's noise.
//!
//! `cargo run --release -p veilformer-circuits --example bootstrap_noise [LEVELS]`
#![allow(clippy::print_stdout)]

use std::time::Instant;
use veilformer_circuits::bootstrap::{BootstrapPlan, BootstrapSpec, Content};
use veilformer_circuits::testing::ClearOps;
use veilformer_ckks::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let levels: usize = std::env::args().nth(1).map_or(Ok(10), |a| a.parse())?;
    let special = if levels > 12 { 6 } else { 9 };
    let spec = ParamsSpec {
        log_n: 16,
        first_bits: 50,
        scale_bits: 40,
        levels: 3 + levels + 13,
        special_bits: 50,
        special_count: special,
        digit_limbs: special,
        security: SecurityLevel::Bits128,
    };
    let ladder = Ladder {
        below: vec![44; 3],
        above: vec![50; 13],
    };
    let params = spec.validate_ladder(&ladder)?;
    println!(
        "log QP {:.1}, digits {:?}",
        params.log_qp(),
        params.digits().iter().map(|d| d.len()).collect::<Vec<_>>()
    );
    let model = noise::NoiseModel::new(&params, SecretKind::DenseTernary);
    for level in [params.max_level() - 3, params.max_level()] {
        println!(
            "level {level}: key switch / rounding {:.2e}",
            model.key_switch_error(level) / model.division()
        );
    }
    let plan = BootstrapPlan::new(&params, &BootstrapSpec::PRESET, Content::Complex)?;
    let predicted = veilformer_circuits::bootstrap::estimate(&BootstrapSpec::PRESET)?;
    let log = |x: f64| x.log2();
    let s = predicted.stages;
    println!(
        "predicted {:.2} {:.2}; s2c {:.1} raise {:.1} c2s {:.1} cheb {:.1} double {:.1} sine {:.1}, sine error {:.1}",
        predicted.mean_bits,
        predicted.worst_bits,
        log(s.slot_to_coeff),
        log(s.mod_raise),
        log(s.coeff_to_slot),
        log(s.chebyshev),
        log(s.double_angle),
        log(s.inverse_sine),
        log(predicted.sine_error)
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
