//! Milliseconds per operation, one thread, at one of two sizes:
//!
//! * N = 2^14, q0 of 45 bits, 7 levels of 36, 3 special primes of 41, digits of 3 primes:
//!   log2(QP) = 420, 128 bits;
//! * N = 2^16, 24 limbs of 45 bits, 8 special primes of 46, 3 digits of 8 primes:
//!   log2(QP) = 1448, 128 bits.
//!
//! `cargo run --release -p veilformer-secret --example ops_speed -- [14|16] [client]`; `client`
//! stops before the operations on ciphertexts.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use veilformer_ckks::{
    Complex, Encoder, EvaluationKeys, Evaluator, Giant, KeyPurpose, Params, ParamsSpec,
    SecurityLevel, SlotVector, StoredEvaluationKeys, Term, Transform,
};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator, PublicEncryptor, SecureRng};

fn params(log_n: u32) -> Params {
    let small = ParamsSpec {
        log_n: 14,
        first_bits: 45,
        scale_bits: 36,
        levels: 7,
        special_bits: 41,
        special_count: 3,
        digit_limbs: 3,
        security: SecurityLevel::Bits128,
    };
    let large = ParamsSpec {
        log_n: 16,
        scale_bits: 45,
        levels: 23,
        special_bits: 46,
        special_count: 8,
        digit_limbs: 8,
        ..small
    };
    let spec = if log_n == 16 { large } else { small };
    spec.validate().unwrap()
}

/// The fastest of several runs, in milliseconds.
fn time<T>(name: &str, mut run: impl FnMut() -> T) {
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let start = Instant::now();
        black_box(run());
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    println!("{name:<44} {best:9.3} ms");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let params = params(if has("16") { 16 } else { 14 });
    let isa = Isa::detect();
    println!(
        "N = 2^{}, log2(QP) = {:.1}, {isa:?}, best of 20",
        params.log_n(),
        params.log_qp()
    );
    let top = params.max_level();
    let rng = || SecureRng::from_os().unwrap();
    let mut generator = KeyGenerator::new(&params, rng());
    time("secret key", || generator.secret_key().unwrap());
    let secret = generator.secret_key().unwrap();
    time("secret key of weight 192", || {
        generator.sparse_secret_key(192).unwrap()
    });
    time("public key", || generator.public_key(&secret, top).unwrap());
    time("relinearization key", || {
        generator.relinearization(&secret, top).unwrap()
    });
    time("rotation key", || {
        generator.rotation(&secret, 1, top).unwrap()
    });
    time("rotation key for level 3", || {
        generator.rotation(&secret, 1, 3).unwrap()
    });

    let entry = |j: usize| Complex::new((j as f64 * 0.37).sin(), (j as f64 * 0.11).cos());
    let slots = SlotVector::Dense((0..params.slots()).map(entry).collect());
    let period = SlotVector::Periodic((0..128).map(entry).collect());
    let mut encryptor = Encryptor::new(&secret, rng()).unwrap();
    let public = generator.public_key(&secret, top).unwrap();
    let mut public = PublicEncryptor::new(&params, &public, rng()).unwrap();
    let decryptor = Decryptor::new(&secret).unwrap();
    let scale = params.scale_at(top);
    let (encoder, basis) = (Encoder::new(&params).unwrap(), params.basis_at(top));
    time("encode, dense", || {
        encoder.encode(&slots, basis, scale).unwrap()
    });
    time("encode, period 128", || {
        encoder.encode_plain(&period, basis, scale).unwrap()
    });
    time("encrypt", || encryptor.encrypt(&slots, top).unwrap());
    time("encrypt at level 1", || {
        encryptor.encrypt(&slots, 1).unwrap()
    });
    time("encrypt under the public key", || {
        public.encrypt(&slots, top).unwrap()
    });
    let fresh = encryptor.encrypt(&slots, top).unwrap();
    time("expand", || fresh.expand(&params).unwrap());
    time("decrypt and decode", || {
        decryptor
            .decrypt_stored(&fresh)
            .unwrap()
            .reveal_to_owner()
            .unwrap()
    });

    let expanded = fresh.expand(&params).unwrap();
    time("decrypt and decode, expanded", || {
        decryptor
            .decrypt(&expanded)
            .unwrap()
            .reveal_to_owner()
            .unwrap()
    });
    if has("client") {
        return;
    }

    let mut purposes: Vec<_> = (1..=8).chain([16, 24]).map(KeyPurpose::Rotation).collect();
    purposes.extend([KeyPurpose::Relinearization, KeyPurpose::Conjugation]);
    let keys = purposes
        .iter()
        .map(|&purpose| generator.switching_key(&secret, purpose, top).unwrap())
        .collect();
    let stored = StoredEvaluationKeys {
        params: params.digest(),
        key_id: secret.id(),
        program: [0; 32],
        keys,
    };
    let backend = Cpu::new(params.chain().clone(), CpuConfig { isa }).unwrap();
    time("prepare one key (expands its seed)", || {
        EvaluationKeys::prepare_one(&params, &backend, &stored.keys[0]).unwrap()
    });
    let keys = EvaluationKeys::prepare(&params, &backend, &stored).unwrap();
    let ops = Evaluator::new(&params, &backend, &keys).unwrap();

    let a = ops.import(fresh.expand(&params).unwrap()).unwrap();
    let dense = ops.encode(&slots, top, scale).unwrap();
    let periodic = ops.encode(&period, top, scale).unwrap();
    let extended = ops.encode_extended(&period, top, scale).unwrap();
    println!("-- level {top}, {} limbs", top + 1);
    time("add", || ops.add(&a, &a).unwrap());
    time("multiply by plaintext, dense", || {
        ops.mul_plain(&a, &dense).unwrap()
    });
    time("multiply by plaintext, period 128", || {
        ops.mul_plain(&a, &periodic).unwrap()
    });
    let product = ops.mul_plain(&a, &dense).unwrap();
    time("rescale", || ops.rescale(&product).unwrap());
    time("multiply, relinearize, rescale", || {
        ops.mul_sum(&[(&a, &a)]).unwrap()
    });
    time("sum of 4 products, relinearize, rescale", || {
        ops.mul_sum(&[(&a, &a), (&a, &a), (&a, &a), (&a, &a)])
            .unwrap()
    });
    time("rotate", || ops.rotate_many(&a, &[1]).unwrap());
    let mut seeded = EvaluationKeys::empty(&params, secret.id());
    let key = generator.rotation(&secret, 1, top).unwrap();
    seeded.insert_seeded(&params, key).unwrap();
    seeded.keep_resident(0);
    let regenerating = Evaluator::new(&params, &backend, &seeded).unwrap();
    time("rotate, the key regenerated from its seed", || {
        regenerating.rotate_many(&a, &[1]).unwrap()
    });
    time("8 hoisted rotations", || {
        ops.rotate_many(&a, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap()
    });
    time("conjugate", || ops.conjugate(&a).unwrap());
    time("adjust to the next level", || {
        ops.adjust(&a, top - 1).unwrap()
    });
    let giant = |rotation| Giant {
        rotation,
        terms: (0..8)
            .map(|baby| Term {
                input: 0,
                baby,
                plain: extended.clone(),
            })
            .collect(),
    };
    let transform = Transform {
        giants: [0, 8, 16, 24].map(giant).to_vec(),
    };
    time("linear transform, 32 diagonals as 8 x 4", || {
        ops.linear_transforms(&[&a], &[&transform]).unwrap()
    });
    let low = ops.drop_to(&a, 2).unwrap();
    time("rotate at level 2", || ops.rotate_many(&low, &[1]).unwrap());
}
