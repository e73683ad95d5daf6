//! Which function should expand seeds? Nanoseconds per 50-bit residue of each candidate, with the
//! same unbiased multiply-shift after it: `cargo run --release -p veilformer-ring --example
//! expander_speed`.

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use veilformer_ring::{Expander, ExpanderId, Modulus, Stream, ntt_primes_near};

const N: usize = 1 << 16;

/// Residues from a source of bytes, as the expander makes them.
fn residues(q: u64, out: &mut [u64], mut bytes: impl FnMut(&mut [u8])) {
    let threshold = q.wrapping_neg() % q;
    let mut block = [0u8; 8192];
    let mut filled = 0;
    while filled < out.len() {
        let take = block.len().min((out.len() - filled) * 8);
        bytes(&mut block[..take]);
        for word in block[..take].as_chunks::<8>().0 {
            let product = u128::from(u64::from_le_bytes(*word)) * u128::from(q);
            if product as u64 >= threshold {
                out[filled] = (product >> 64) as u64;
                filled += 1;
            }
        }
    }
}

fn report(name: &str, mut f: impl FnMut(&mut [u64])) {
    let mut out = vec![0; N];
    let mut best = f64::MAX;
    for _ in 0..50 {
        let start = Instant::now();
        f(black_box(&mut out));
        best = best.min(start.elapsed().as_secs_f64());
    }
    let ns = best * 1e9 / N as f64;
    println!(
        "{name:<28} {ns:>6.2} ns per residue, {:>6.2} GB/s of stream",
        8.0 / ns
    );
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let q = ntt_primes_near(2f64.powi(50) - 2f64.powi(30), 16, &[], 1)?[0];
    let m = Modulus::new(q)?;
    let expander = Expander::new(ExpanderId::Blake3, [7; 32]);
    report("BLAKE3 XOF (ciphertexts)", |out| {
        expander.fill(Stream::default(), &m, out)
    });
    let expander = Expander::new(ExpanderId::Aes128, [7; 32]);
    report("AES-128, any word (keys)", |out| {
        expander.fill(Stream::default(), &m, out)
    });
    report("ChaCha20 (rand_chacha)", |out| {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        residues(q, out, |b| rng.fill_bytes(b));
    });
    report("AES-256-CTR (aes)", |out| {
        let cipher = aes::Aes256::new(&Array::from([7u8; 32]));
        let mut counter = 0u128;
        residues(q, out, |bytes| {
            let mut blocks = [Array::from([0u8; 16]); 512];
            let blocks = &mut blocks[..bytes.len().div_ceil(16)];
            for b in blocks.iter_mut() {
                *b = Array::from(counter.to_le_bytes());
                counter += 1;
            }
            cipher.encrypt_blocks(blocks);
            for (out, b) in bytes.chunks_mut(16).zip(blocks) {
                out.copy_from_slice(&b[..out.len()]);
            }
        });
    });
    report("residues alone", |out| {
        let mut x = 1u8;
        residues(q, out, |b| {
            x = x.wrapping_mul(5).wrapping_add(1);
            b.fill(x);
        });
    });
    Ok(())
}
