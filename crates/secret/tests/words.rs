//! Levels that are made of several primes: every chain that a narrow machine would use, run here
//! on the CPU, which is the oracle of such machines.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use std::ops::ControlFlow;
use veilformer_ckks::container::{params_from_bytes, params_to_bytes};
use veilformer_ckks::{
    Ciphertext, EvaluationKeys, Evaluator, KeyList, KeyPurpose, Ops, Params, ParamsSpec,
    SlotVector, WordSpec, lowering,
};
use veilformer_ring::{Backend, Reference, RnsPoly};
use veilformer_secret::{Decryptor, KeyGenerator, PublicEncryptor, SecureRng};

/// Chains at a toy ring: two words of 22 bits per level of 44; words of 30 and 25 bits for levels of
/// 40; words of 30 and 20 bits, four of which make three levels.
fn chains(log_n: u32) -> Vec<(&'static str, Params)> {
    let spec = |first_bits, scale_bits, special_bits, special_count, digit_limbs| ParamsSpec {
        first_bits,
        scale_bits,
        special_bits,
        special_count,
        digit_limbs,
        ..toy_spec(log_n)
    };
    let words = |main_bits, side_bits, most_side| WordSpec {
        main_bits,
        side_bits,
        most_side,
    };
    let made = |spec: ParamsSpec, words| spec.validate_words_insecure_for_tests(words).unwrap();
    vec![
        ("2 x 22", made(spec(44, 44, 24, 4, 4), words(22, 22, 0))),
        ("30 and 25", made(spec(50, 40, 31, 4, 4), words(30, 25, 4))),
        ("30 and 20", made(spec(50, 40, 31, 4, 4), words(30, 20, 2))),
    ]
}

#[test]
fn steps_keep_the_scale_and_levels_are_not_nested() {
    for (name, params) in chains(9) {
        let top = params.max_level();
        let nested = (1..=top).all(|l| params.basis_at(l).contains_all(params.basis_at(l - 1)));
        assert_eq!(nested, name == "2 x 22", "{name}");
        for level in 0..=top {
            let drift = params.scale_at(level).log2() - f64::from(params.spec().scale_bits);
            assert!(
                drift.abs() < 0.5,
                "{name}: level {level} drifts by {drift} bits"
            );
            let union = (0..=level).fold(params.basis_at(0), |u, l| u.union(params.basis_at(l)));
            assert_eq!(params.covering(level), union);
            assert!(params.rotation_basis(level).contains_all(union));
            for lower in 0..level {
                let way = lowering(&params, level, lower).unwrap();
                assert!(params.basis_at(level).contains_all(way.keep));
                let after = way.keep.minus(way.step.drop).union(way.step.add);
                assert_eq!(after, params.basis_at(lower), "{name}: {level} to {lower}");
            }
        }
        let read = params_from_bytes(&params_to_bytes(&params).unwrap()).unwrap();
        assert_eq!(read.digest(), params.digest());
        assert_eq!(read.step_at(top), params.step_at(top));
    }
}

#[test]
fn public_keys_serve_every_level() {
    for (name, params) in chains(9) {
        let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 8).unwrap();
        let secret = generator.secret_key().unwrap();
        let public = generator.public_key(&secret, params.max_level()).unwrap();
        let mut encryptor =
            PublicEncryptor::insecure_deterministic_for_tests(&params, &public, 3).unwrap();
        let decryptor = Decryptor::new(&secret).unwrap();
        let x = slots(4, params.slots());
        for level in 0..=params.max_level() {
            let stored = encryptor
                .encrypt(&SlotVector::Dense(x.clone()), level)
                .unwrap();
            let decrypted = decryptor.decrypt(&stored.expand(&params).unwrap()).unwrap();
            let error = max_error(&decrypted.reveal_to_owner().unwrap(), &x);
            assert!(error < 2f64.powi(-20), "{name}: level {level}: {error:e}");
        }
    }
}

/// What a program of several operations gives on a backend, as residues.
fn run<B: Backend>(
    params: &Params,
    backend: &B,
    keys: &veilformer_ckks::StoredEvaluationKeys,
    inputs: [&Ciphertext<RnsPoly>; 2],
) -> Vec<RnsPoly> {
    let keys = EvaluationKeys::prepare(params, backend, keys).unwrap();
    let mut ops = Evaluator::new(params, backend, &keys).unwrap();
    let take = |ct: &Ciphertext<RnsPoly>| {
        let parts = (ct.c0().clone(), ct.c1().clone());
        ops.import(Ciphertext::from_polys(params, parts, ct.info()).unwrap())
            .unwrap()
    };
    let (a, b) = (take(inputs[0]), take(inputs[1]));
    let product = ops.mul(&a, &b).unwrap();
    let turned = ops.rotate(&product, 1).unwrap();
    let square = ops.square(&turned).unwrap();
    let low = ops.adjust(&a, square.level()).unwrap();
    let sum = ops.add(&square, &low).unwrap();
    let last = ops.drop_to(&sum, 0).unwrap();
    [product, turned, sum, last]
        .iter()
        .flat_map(|ct| {
            let host = ct.export(backend).unwrap();
            [host.c0().clone(), host.c1().clone()]
        })
        .collect()
}

#[test]
fn the_fast_backend_equals_the_reference_bit_for_bit() {
    for (name, params) in [8, 9, 11].into_iter().flat_map(chains) {
        let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 5).unwrap();
        let secret = generator.secret_key().unwrap();
        let top = params.max_level();
        let mut list = KeyList::default();
        list.need(KeyPurpose::Relinearization, top, &params);
        list.need(KeyPurpose::Rotation(1), top, &params);
        let stored = generator
            .evaluation_keys(&secret, &list, [0; 32], &mut |_, _| {
                ControlFlow::Continue(())
            })
            .unwrap();
        let mut encryptor =
            veilformer_secret::Encryptor::insecure_deterministic_for_tests(&secret, 9).unwrap();
        let mut fresh = |seed| {
            let slots = SlotVector::Dense(slots(seed, params.slots()));
            let stored = encryptor
                .encrypt_at(&slots, top, params.scale_at(top))
                .unwrap();
            stored.expand(&params).unwrap()
        };
        let (a, b) = (fresh(1), fresh(2));
        let fast = run(&params, &cpu(&params), &stored, [&a, &b]);
        let reference = Reference::new(params.chain().clone());
        let slow = run(&params, &reference, &stored, [&a, &b]);
        assert!(fast == slow, "{name}");
    }
}

#[test]
fn every_way_down_keeps_the_value() {
    for (name, params) in chains(9) {
        let kit = Kit::new(&params, 1, &[]);
        let ops = kit.evaluator();
        let x = slots(2, params.slots());
        for from in 0..=params.max_level() {
            let a = kit.encrypt(3, &x, from);
            for to in 0..=from {
                for low in [ops.drop_to(&a, to).unwrap(), ops.adjust(&a, to).unwrap()] {
                    assert_eq!(low.level(), to);
                    let error = max_error(&kit.decrypt(&low), &x);
                    assert!(error < 2f64.powi(-22), "{name}: {from} to {to}: {error:e}");
                }
            }
        }
    }
}

#[test]
fn seeded_keys_serve_every_level() {
    for (name, params) in chains(9) {
        let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 8).unwrap();
        let secret = generator.secret_key().unwrap();
        let top = params.max_level();
        let key = generator.rotation(&secret, 1, top).unwrap();
        let mut list = KeyList::default();
        list.need(KeyPurpose::Rotation(2), top, &params);
        let stored = generator
            .evaluation_keys(&secret, &list, [0; 32], &mut |_, _| {
                ControlFlow::Continue(())
            })
            .unwrap();
        let backend = cpu(&params);
        let mut keys = EvaluationKeys::prepare(&params, &backend, &stored).unwrap();
        keys.insert_seeded(&params, key).unwrap();
        let mut ops = Evaluator::new(&params, &backend, &keys).unwrap();
        let mut encryptor =
            veilformer_secret::Encryptor::insecure_deterministic_for_tests(&secret, 9).unwrap();
        let decryptor = Decryptor::new(&secret).unwrap();
        let x = slots(4, params.slots());
        for level in 0..=top {
            let stored = encryptor
                .encrypt_at(&SlotVector::Dense(x.clone()), level, params.scale_at(level))
                .unwrap();
            let a = ops.import(stored.expand(&params).unwrap()).unwrap();
            let turned = ops.rotate(&a, 1).unwrap().export(&backend).unwrap();
            let found = decryptor.decrypt(&turned).unwrap();
            let error = max_error(&found.reveal_to_owner().unwrap(), &rotate(&x, 1));
            assert!(error < 2f64.powi(-20), "{name}: level {level}: {error:e}");
        }
    }
}

#[test]
fn refuses_what_makes_no_levels() {
    let words = |main_bits, side_bits, most_side| WordSpec {
        main_bits,
        side_bits,
        most_side,
    };
    let spec = || toy_spec(9);
    // 45 + 36 l bits are no multiples of 31, and there are no side words.
    let error = spec()
        .validate_words_insecure_for_tests(words(31, 25, 0))
        .unwrap_err();
    assert!(error.to_string().contains("level"), "{error}");
    assert!(
        spec()
            .validate_words_insecure_for_tests(words(3, 25, 4))
            .is_err()
    );
    assert!(
        spec()
            .validate_words_insecure_for_tests(words(50, 25, 4))
            .is_err()
    );
    // More side words than there can be primes would be tried one after the other.
    let error = spec()
        .validate_words_insecure_for_tests(words(31, 25, usize::MAX))
        .unwrap_err();
    assert!(error.to_string().contains("most_side"), "{error}");
    let many = ParamsSpec {
        levels: 120,
        ..spec()
    };
    assert!(
        many.validate_words_insecure_for_tests(words(18, 18, 0))
            .is_err()
    );
}

#[test]
#[ignore = "full size: some seconds and two gigabytes"]
fn a_narrow_chain_at_full_size() {
    let spec = ParamsSpec {
        log_n: 16,
        first_bits: 60,
        scale_bits: 40,
        levels: 24,
        special_bits: 30,
        special_count: 12,
        digit_limbs: 12,
        ..toy_spec(16)
    };
    let words = WordSpec {
        main_bits: 30,
        side_bits: 25,
        most_side: 4,
    };
    let params = spec.validate_words(words).unwrap();
    assert_eq!(params.security().bits(), 128);
    let mut generator = KeyGenerator::new(&params, SecureRng::from_os().unwrap());
    let secret = generator.secret_key().unwrap();
    drop((secret, generator));
    let kit = Kit::new(&params, 1, &[1]);
    let x = slots(1, params.slots());
    let mut ops = kit.evaluator();
    let a = kit.encrypt(1, &x, params.max_level());
    let product = ops.mul(&a, &a).unwrap();
    let turned = ops.rotate(&product, 1).unwrap();
    let expected = rotate(&zip(&x, &x, |x, y| x * y), 1);
    let error = max_error(&kit.decrypt(&turned), &expected);
    assert!(error < 2f64.powi(-18), "{error:e}");
}
