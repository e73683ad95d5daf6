//! Times of one NTT, per degree and instruction set.
//!
//! `cargo run --release -p veilformer-ring --example ntt_speed [-- scalar|avx2|avx512ifma]` prints
//! microseconds per limb, the best of many runs on one thread: of one limb that stays in cache,
//! for a 50-bit and a 45-bit prime, and swept over 24 limbs of either size.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use veilformer_ring::conformance::Samples;
use veilformer_ring::{
    Backend, Basis, Chain, Cpu, CpuConfig, Form, Isa, RingError, RnsPoly, ntt_primes_near,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Limbs of the swept polynomial.
const SWEPT: usize = 24;

/// The best of `runs`, forward and inverse, in microseconds per limb.
fn best(cpu: &Cpu, x: &mut RnsPoly, runs: usize) -> Result<(f64, f64), RingError> {
    let limbs = x.basis().len() as f64;
    let (mut forward, mut inverse) = (f64::MAX, f64::MAX);
    for _ in 0..runs {
        let start = Instant::now();
        cpu.forward_ntt(x)?;
        forward = forward.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        cpu.inverse_ntt(x)?;
        inverse = inverse.min(start.elapsed().as_secs_f64());
    }
    Ok((forward * 1e6 / limbs, inverse * 1e6 / limbs))
}

fn main() -> Outcome<()> {
    let isas = match std::env::args().nth(1).as_deref() {
        None => Isa::available(),
        Some("scalar") => vec![Isa::Scalar],
        Some("avx2") => vec![Isa::Avx2],
        Some("avx512ifma") => vec![Isa::Avx512Ifma],
        Some(other) => return Err(format!("{other}: expected scalar, avx2 or avx512ifma").into()),
    };
    println!("us per limb, forward / inverse, one thread");
    println!(
        "                    50 bits, hot       45 bits, hot     50 bits, swept     45 bits, swept"
    );
    for log_n in 13..=17 {
        let mut primes = ntt_primes_near(2f64.powi(50) - 2f64.powi(25), log_n, &[], SWEPT)?;
        primes.extend(ntt_primes_near(2f64.powi(45), log_n, &primes, SWEPT)?);
        let chain = Chain::new(log_n, &primes)?;
        let swept = [Basis::first(SWEPT), Basis::range(SWEPT, 2 * SWEPT)];
        for &isa in &isas {
            let cpu = Cpu::new(chain.clone(), CpuConfig { isa })?;
            let mut samples = Samples::new(&chain, 1);
            print!("2^{log_n} {:<10}", format!("{isa:?}"));
            for (basis, runs) in [
                (Basis::single(0), 400),
                (Basis::single(SWEPT), 400),
                (swept[0], 20),
                (swept[1], 20),
            ] {
                let mut x = samples.poly(basis, Form::Coefficient)?;
                let (forward, inverse) = best(&cpu, &mut x, runs)?;
                print!("  {forward:>7.1} / {inverse:>7.1}");
            }
            println!();
        }
    }
    Ok(())
}
