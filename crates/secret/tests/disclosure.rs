//! Decryption under the wrong key, and the ways in which a decryption may leave its owner.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use veilformer_ckks::SlotVector;
use veilformer_secret::{
    Decrypted, Decryptor, Disclosure, KeyGenerator, PublicEncryptor, SecretError, SecureRng,
};

const BOUND: f64 = 1.0 / (1u64 << 34) as f64;

fn decrypted(kit: &Kit, level: usize) -> Decrypted {
    let x = SlotVector::Dense(slots(1, kit.params.slots()));
    let stored = kit.encryptor(1).encrypt(&x, level).unwrap();
    Decryptor::new(&kit.secret)
        .unwrap()
        .decrypt_stored(&stored)
        .unwrap()
}

#[test]
fn another_key_or_other_parameters_are_refused() {
    let params = toy(7);
    let (kit, other) = (Kit::new(&params, 1, &[]), Kit::new(&params, 2, &[]));
    let x = SlotVector::Dense(slots(1, params.slots()));
    let stored = kit.encryptor(1).encrypt(&x, 2).unwrap();
    let result = Decryptor::new(&other.secret)
        .unwrap()
        .decrypt_stored(&stored);
    assert!(matches!(result, Err(SecretError::WrongKey { .. })));
    let larger = Kit::new(&toy(8), 1, &[]);
    assert!(
        Decryptor::new(&larger.secret)
            .unwrap()
            .decrypt_stored(&stored)
            .is_err()
    );
}

#[test]
fn public_key_encryption_decrypts() {
    let params = toy(8);
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 3).unwrap();
    let secret = generator.secret_key().unwrap();
    let public = generator.public_key(&secret, 3).unwrap();
    let mut encryptor =
        PublicEncryptor::insecure_deterministic_for_tests(&params, &public, 4).unwrap();
    let x = slots(5, params.slots());
    let decryptor = Decryptor::new(&secret).unwrap();
    for level in 0..=3 {
        let stored = encryptor
            .encrypt(&SlotVector::Dense(x.clone()), level)
            .unwrap();
        let found = decryptor
            .decrypt_stored(&stored)
            .unwrap()
            .reveal_to_owner()
            .unwrap();
        // Eight times the deviation 3.2 sqrt(4N/3) sqrt(N) / 2^36 of a slot.
        assert!(max_error(&found, &x) < 2f64.powi(-23));
    }
}

#[test]
fn encrypt_many_is_encrypt() {
    let params = toy(8);
    let kit = Kit::new(&params, 3, &[]);
    let vectors: Vec<_> = (0..5).map(|i| slots(i, params.slots())).collect();
    let inputs: Vec<_> = vectors.iter().cloned().map(SlotVector::Dense).collect();
    let decryptor = Decryptor::new(&kit.secret).unwrap();
    let stored = kit.encryptor(9).encrypt_many(&inputs, 2).unwrap();
    for (stored, x) in stored.iter().zip(&vectors) {
        let found = decryptor
            .decrypt_stored(stored)
            .unwrap()
            .reveal_to_owner()
            .unwrap();
        assert!(max_error(&found, x) < 2f64.powi(-26));
    }
}

#[test]
fn rounding_leaves_multiples() {
    let kit = Kit::new(&toy(8), 1, &[]);
    let mut rng = SecureRng::from_os().unwrap();
    let shared = decrypted(&kit, 3)
        .disclose(Disclosure::Rounded { bits: 10 }, &mut rng)
        .unwrap();
    assert_eq!(shared.disclosure(), Disclosure::Rounded { bits: 10 });
    let exact = slots(1, kit.params.slots());
    assert!(max_error(shared.slots(), &exact) < 2f64.powi(-10));
    for slot in shared.into_slots() {
        assert!((slot.re * 1024.0).fract() == 0.0 && (slot.im * 1024.0).fract() == 0.0);
    }
}

#[test]
fn flooding_adds_the_noise_of_its_formula() {
    let kit = Kit::new(&toy(10), 1, &[]);
    let mut rng = SecureRng::from_os().unwrap();
    let disclosure = Disclosure::Flooded {
        queries: 4,
        static_noise_bound: BOUND,
    };
    let shared = decrypted(&kit, 3).disclose(disclosure, &mut rng).unwrap();
    let exact = slots(1, kit.params.slots());
    let errors: Vec<_> = zip(shared.slots(), &exact, |a, b| a - b);
    let variance = errors.iter().map(|e| e.norm_sqr()).sum::<f64>() / (2.0 * errors.len() as f64);
    // sqrt(12 q) 2^15 E per coefficient, sqrt(N/2) times that per slot and component.
    let per_coefficient = (12.0f64 * 4.0).sqrt() * 2f64.powi(15) * BOUND;
    let predicted = per_coefficient.powi(2) * kit.params.n() as f64 / 2.0;
    // 1024 samples: a relative standard deviation of sqrt(2/1024) = 0.044; seven of them.
    assert!(
        (variance / predicted - 1.0).abs() < 0.31,
        "{variance:e} {predicted:e}"
    );
}

#[test]
fn what_protects_nothing_is_refused() {
    let kit = Kit::new(&toy(8), 1, &[]);
    let mut rng = SecureRng::from_os().unwrap();
    let mut refused =
        |disclosure, level| decrypted(&kit, level).disclose(disclosure, &mut rng).err();
    assert!(matches!(
        refused(Disclosure::Refused, 1),
        Some(SecretError::Refused)
    ));
    let flooded = |queries, static_noise_bound| Disclosure::Flooded {
        queries,
        static_noise_bound,
    };
    for (disclosure, level) in [
        (Disclosure::Rounded { bits: 61 }, 1),
        (flooded(0, BOUND), 1),
        (flooded(1, 0.0), 1),
        (flooded(1, f64::NAN), 1),
        (flooded(1, f64::INFINITY), 1),
        (flooded(u64::MAX, 1.0), 1),
        // 2^36 * 2^-12 * 2^17 leaves nothing of a first prime of 45 bits.
        (flooded(1, 2f64.powi(-8)), 0),
    ] {
        let error = refused(disclosure, level);
        assert!(
            matches!(error, Some(SecretError::Disclosure { .. })),
            "{disclosure:?}"
        );
    }
}
