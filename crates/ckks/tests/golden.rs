//! Golden vectors of an independent big-integer model (`golden/make.py`): prime choice, scales,
//! encoding, NTT order, product with relinearization and rescale, rotation, rescale. Equal bit for
//! bit, on every backend that this machine has.
#![allow(clippy::unwrap_used)] // a test's way to fail

use std::sync::Arc;

use serde::Deserialize;
use veilformer_ckks::*;
use veilformer_ring::{Backend, Basis, Cpu, CpuConfig, Form, Isa, Reference, RnsPoly};

type Limbs = Vec<Vec<u64>>;

#[derive(Deserialize)]
struct Vectors {
    spec: ParamsSpec,
    primes: Vec<u64>,
    scale_words: Vec<u64>,
    encodings: Vec<Encoding>,
    a: [Limbs; 2],
    b: [Limbs; 2],
    /// Relinearization, rotation by one: per digit (b, a).
    keys: [Vec<[Limbs; 2]>; 2],
    multiplied: [Limbs; 2],
    rotated: [Limbs; 2],
    rescaled: [Limbs; 2],
}

#[derive(Deserialize)]
struct Encoding {
    level: usize,
    slots: Vec<(f64, f64)>,
    coefficients: Vec<i128>,
    ntt: Limbs,
}

fn vectors() -> (Vectors, Params) {
    let vectors: Vectors = serde_json::from_str(include_str!("golden/vectors.json")).unwrap();
    let params = vectors.spec.clone().validate_insecure_for_tests().unwrap();
    (vectors, params)
}

fn poly<B: Backend>(backend: &B, basis: Basis, limbs: &Limbs) -> RnsPoly {
    let host =
        RnsPoly::from_limbs(backend.chain(), basis, Form::Coefficient, &limbs.concat()).unwrap();
    let mut poly = backend.import(host).unwrap();
    backend.forward_ntt(&mut poly).unwrap();
    backend.export(&poly).unwrap()
}

fn check<B: Backend>(backend: &B, ct: &Ciphertext<B::Poly>, expected: &[Limbs; 2], what: &str) {
    for (part, expected) in [ct.c0(), ct.c1()].into_iter().zip(expected) {
        let mut part = backend.duplicate(part);
        backend.inverse_ntt(&mut part).unwrap();
        assert_eq!(
            backend.export(&part).unwrap().words(),
            expected.concat(),
            "{what}"
        );
    }
}

#[test]
fn primes_and_scales() {
    let (vectors, params) = vectors();
    assert_eq!(params.primes(), vectors.primes);
    for (level, word) in vectors.scale_words.iter().enumerate() {
        assert_eq!(
            params.scale_at(level).value().to_bits(),
            *word,
            "level {level}"
        );
    }
}

#[test]
fn encoding() {
    let (vectors, params) = vectors();
    let encoder = Encoder::new(&params).unwrap();
    for golden in &vectors.encodings {
        let slots = golden.slots.iter().map(|&(re, im)| Complex::new(re, im));
        let slots = SlotVector::Dense(slots.collect());
        let scale = params.scale_at(golden.level);
        assert_eq!(
            encoder.coefficients(&slots, scale).unwrap().to_i128(),
            golden.coefficients
        );
        let poly = encoder
            .encode(&slots, params.basis_at(golden.level), scale)
            .unwrap();
        assert_eq!(poly.words(), golden.ntt.concat());
    }
}

fn evaluate<B: Backend>(backend: &B) {
    let (vectors, params) = vectors();
    let level = params.max_level();
    let basis = params.basis_at(level);
    let key_id = KeyId::from_bytes([1; 16]);
    let mut keys = EvaluationKeys::empty(&params, key_id);
    let purposes = [KeyPurpose::Relinearization, KeyPurpose::Rotation(1)];
    for (purpose, parts) in purposes.into_iter().zip(&vectors.keys) {
        let half = |at: usize| {
            let basis = params.rotation_basis(level);
            parts
                .iter()
                .map(|part| poly(backend, basis, &part[at]))
                .collect()
        };
        let stored = StoredSwitchingKey {
            purpose,
            secret: SecretKind::DenseTernary,
            level,
            key_id,
            b: half(0),
            a: UniformParts::Polys(half(1)),
            expander: uniform::EXPANDER,
        };
        keys.insert(&params, backend, &stored).unwrap();
    }
    let evaluator = Evaluator::new(&params, backend, &keys).unwrap();
    let ciphertext = |limbs: &[Limbs; 2]| {
        let info = CiphertextInfo {
            level,
            scale: params.scale_at(level),
            key_id,
        };
        let parts = (
            poly(backend, basis, &limbs[0]),
            poly(backend, basis, &limbs[1]),
        );
        let host = Ciphertext::from_polys(&params, parts, info).unwrap();
        evaluator.import(host).unwrap()
    };
    let (a, b) = (ciphertext(&vectors.a), ciphertext(&vectors.b));
    let product = evaluator.mul_sum(&[(&a, &b)]).unwrap();
    check(backend, &product, &vectors.multiplied, "multiplied");
    let rotated = evaluator.rotate_many(&a, &[1]).unwrap();
    check(backend, &rotated[0], &vectors.rotated, "rotated");
    let rescaled = evaluator.rescale(&a).unwrap();
    check(backend, &rescaled, &vectors.rescaled, "rescaled");
}

#[test]
fn operations_on_every_backend() {
    let (_, params) = vectors();
    evaluate(&Reference::new(Arc::clone(params.chain())));
    for isa in Isa::available() {
        evaluate(&Cpu::new(Arc::clone(params.chain()), CpuConfig { isa }).unwrap());
    }
}
