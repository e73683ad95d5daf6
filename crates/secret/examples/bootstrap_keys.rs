//! Milliseconds that the keys of a bootstrap and raising the modulus take, one thread, at N = 2^16 with
//! 31 limbs (q0 of 50 bits, three of 42, 14 of 40, 13 of 50) and six special primes of 50:
//! log2(QP) = 1686, 128 bits, five digits.
//!
//! `cargo run --release -p veilformer-secret --example bootstrap_keys`
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::io::Cursor;
use std::ops::ControlFlow;
use std::time::Instant;

use veilformer_ckks::{
    EPHEMERAL_WEIGHT, EvaluationKeys, Evaluator, KeyList, KeyPurpose, Ladder, ParamsSpec,
    SecurityLevel, SlotVector, StoredEvaluationKeys,
};
use veilformer_ring::{Backend, Cpu, CpuConfig, Isa};
use veilformer_secret::{Encryptor, KeyGenerator, SecureRng};

/// The fastest of several runs, in milliseconds.
fn time<T>(name: &str, runs: usize, mut run: impl FnMut() -> T) {
    let mut best = f64::INFINITY;
    for _ in 0..runs {
        let start = Instant::now();
        black_box(run());
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    println!("{name:<44} {best:9.3} ms");
}

fn main() {
    let spec = ParamsSpec {
        log_n: 16,
        first_bits: 50,
        scale_bits: 40,
        levels: 30,
        special_bits: 50,
        special_count: 6,
        digit_limbs: 6,
        security: SecurityLevel::Bits128,
    };
    let ladder = Ladder {
        below: vec![42; 3],
        above: vec![50; 13],
    };
    let params = spec.validate_ladder(&ladder).unwrap();
    let isa = Isa::detect();
    println!(
        "N = 2^{}, log2(QP) = {:.1}, {isa:?}",
        params.log_n(),
        params.log_qp()
    );
    let top = params.max_level();
    let rng = || SecureRng::from_os().unwrap();
    let mut generator = KeyGenerator::new(&params, rng());
    let secret = generator.secret_key().unwrap();
    time("rotation key", 10, || {
        generator.rotation(&secret, 1, top).unwrap()
    });
    time("relinearization key", 10, || {
        generator.relinearization(&secret, top).unwrap()
    });
    time("keys to and from an ephemeral secret", 10, || {
        generator.encapsulation(&secret, EPHEMERAL_WEIGHT).unwrap()
    });
    let mut list = KeyList::default();
    for by in [1, 2, 3, 4] {
        list.need(KeyPurpose::Rotation(by), top, &params);
    }
    let (what, go) = ((&list, [0; 32]), &mut |_, _| ControlFlow::Continue(()));
    let mut file = Cursor::new(Vec::new());
    for (name, kept) in [
        ("four rotation keys to a file", 0),
        ("the same, resumed", 4),
    ] {
        time(name, 1, || {
            let made = generator.resume_evaluation_keys(&secret, what, &mut file, go);
            assert_eq!(made.unwrap().kept, kept);
        });
    }

    let backend = Cpu::new(params.chain().clone(), CpuConfig { isa }).unwrap();
    let pair = generator.encapsulation(&secret, EPHEMERAL_WEIGHT);
    let mut keys = Vec::from(pair.unwrap());
    keys.push(generator.rotation(&secret, 1, top).unwrap());
    let stored = StoredEvaluationKeys {
        params: params.digest(),
        key_id: secret.id(),
        program: [0; 32],
        keys,
    };
    let keys = EvaluationKeys::prepare(&params, &backend, &stored).unwrap();
    let ops = Evaluator::new(&params, &backend, &keys).unwrap();
    let mut encryptor = Encryptor::new(&secret, rng()).unwrap();
    let slots = SlotVector::real_constant(0.5);
    let low = encryptor.encrypt(&slots, 0).unwrap();
    let low = ops.import(low.expand(&params).unwrap()).unwrap();
    if std::env::args().any(|argument| argument == "profile") {
        (0..300).for_each(|_| drop(black_box(ops.mod_raise(&low).unwrap())));
        return;
    }
    time("raise the modulus", 20, || ops.mod_raise(&low).unwrap());
    let high = ops.mod_raise(&low).unwrap();
    time("rotate at the highest level", 10, || {
        ops.rotate_many(&high, &[1]).unwrap()
    });
    let from = (KeyPurpose::FromEphemeral, top);
    let from = ops.keys().get(&params, &backend, from).unwrap().unwrap();
    time("the switch from the ephemeral secret", 20, || {
        backend.rotate_many(high.parts(), &[from.key()]).unwrap()
    });
    let mut c0 = backend.duplicate(low.c0());
    backend.inverse_ntt(&mut c0).unwrap();
    time("lift one polynomial", 20, || {
        let mut poly = backend.extend(&c0, params.basis_at(top)).unwrap();
        backend.forward_ntt(&mut poly).unwrap();
        poly
    });
}
