//! Times of encoding, decoding, packing and parsing at N=2^14 with 8 limbs and at N=2^16 with 24:
//! `cargo run --release -p veilformer-ckks --example encode_speed`.
#![allow(clippy::print_stdout)] // a program that prints

use std::time::Instant;

use veilformer_ckks::container::{Kind, Reader, ciphertexts_to_bytes, read_ciphertexts};
use veilformer_ckks::*;

fn time<T>(what: &str, mut run: impl FnMut() -> Result<T, CkksError>) -> Result<T, CkksError> {
    let mut last = run()?;
    let repeats = 5;
    let start = Instant::now();
    for _ in 0..repeats {
        last = run()?;
    }
    let ms = start.elapsed().as_secs_f64() * 1e3 / f64::from(repeats);
    println!("  {what}: {ms:.3} ms");
    Ok(last)
}

fn main() -> Result<(), CkksError> {
    for (log_n, levels, special_count, digit_limbs) in [(14, 7, 3, 3), (16, 23, 8, 8)] {
        let params = ParamsSpec {
            log_n,
            first_bits: 45,
            scale_bits: 36,
            levels,
            special_bits: 41,
            special_count,
            digit_limbs,
            security: SecurityLevel::Bits128,
        }
        .validate()?;
        println!("N=2^{log_n}, {} limbs, one thread", levels + 1);
        let encoder = time("tables of the encoder", || Encoder::new(&params))?;
        let (basis, scale) = (params.basis_at(levels), params.scale_at(levels));
        let dense: Vec<f64> = (0..params.slots())
            .map(|j| (j % 97) as f64 / 97.0)
            .collect();
        let dense = SlotVector::real(&dense);
        let poly = time("encode", || encoder.encode(&dense, basis, scale))?;
        for period in [64, 1024] {
            let slots = SlotVector::real_periodic(&vec![0.25; period]);
            time(&format!("encode, period {period}"), || {
                encoder.encode_plain(&slots, basis, scale)
            })?;
        }
        time("decode", || encoder.decode(&poly, scale))?;
        let stored = StoredCiphertext {
            body: poly,
            uniform: Uniform::Seed([1; 32]),
            info: CiphertextInfo {
                level: levels,
                scale,
                key_id: KeyId::from_bytes([1; 16]),
            },
            expander: uniform::EXPANDER,
        };
        let stored = [stored];
        let bytes = time("ciphertext to file", || {
            ciphertexts_to_bytes(Kind::Ciphertexts, &params, &stored)
        })?;
        println!("  {} bytes", bytes.len());
        time("ciphertext from file", || {
            read_ciphertexts(&Reader::open(&bytes)?, &params)
        })?;
        time("seed to polynomial", || stored[0].expand(&params))?;
    }
    Ok(())
}
