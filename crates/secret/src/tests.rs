//! Tests that need to see the secret: key equations, security rows, the stopping of key
//! generation.

use std::ops::ControlFlow;

use veilformer_ckks::{
    CkksError, Complex, Encoder, KeyList, KeyPurpose, Params, ParamsSpec, Scale, SecretKind,
    SecurityLevel, SlotVector, StoredCiphertext, StoredSwitchingKey,
};
use veilformer_ring::{Backend, Basis, RnsPoly};
use zeroize::Zeroizing;

use crate::poly::SecretPoly;
use crate::samplers::GAUSSIAN_BOUND;
use crate::{
    Decryptor, Encryptor, KeyGenerator, PublicEncryptor, SecretError, SecretKey, SecureRng,
};

const SPARSE: SecretKind = SecretKind::SparseTernary { hamming_weight: 32 };

fn spec(log_n: u32) -> ParamsSpec {
    ParamsSpec {
        log_n,
        first_bits: 45,
        scale_bits: 36,
        levels: 4,
        special_bits: 45,
        special_count: 2,
        digit_limbs: 2,
        security: SecurityLevel::Bits128,
    }
}

fn toy(seed: u64) -> (Params, KeyGenerator, SecretKey) {
    let params = spec(8).validate_insecure_for_tests().unwrap();
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, seed).unwrap();
    let key = generator.secret_key().unwrap();
    (params, generator, key)
}

/// A small secure ring that has all types of keys, and primes so small that one large modulus in
/// place of one of them breaks the bound of every type: log2(Q) = 177, log2(QP) = 207 of 214.
fn secure() -> Params {
    let spec = ParamsSpec {
        first_bits: 30,
        scale_bits: 21,
        levels: 7,
        special_bits: 30,
        special_count: 1,
        digit_limbs: 1,
        ..spec(13)
    };
    spec.validate().unwrap()
}

/// Largest coefficient of a polynomial that is small on every prime of its basis.
fn largest(key: &SecretKey, mut poly: RnsPoly) -> i64 {
    key.backend().inverse_ntt(&mut poly).unwrap();
    let chain = poly.chain().clone();
    let centred = |position: usize, prime: usize| -> Vec<i64> {
        let modulus = chain.modulus(prime);
        poly.limb(position)
            .iter()
            .map(|&x| modulus.center(x))
            .collect()
    };
    let limbs: Vec<_> = poly
        .basis()
        .iter()
        .enumerate()
        .map(|(p, i)| centred(p, i))
        .collect();
    assert!(limbs.windows(2).all(|pair| pair[0] == pair[1]), "not small");
    limbs[0].iter().map(|c| c.abs()).max().unwrap()
}

/// b_d + a_d s - P g_d s' for every digit.
fn errors_of(key: &SecretKey, made: &StoredSwitchingKey) -> Vec<RnsPoly> {
    let params = key.params();
    let (backend, chain) = (key.backend(), params.chain());
    let basis = params.rotation_basis(made.level);
    let secret = backend.restrict(key.ntt(), basis).unwrap();
    let source = match made.purpose {
        KeyPurpose::Relinearization => backend.mul(&secret, &secret).unwrap(),
        purpose => backend
            .automorphism(&secret, purpose.galois(params.log_n()))
            .unwrap(),
    };
    let expanded = made.expand(params).unwrap();
    let digits = params.digits_at(KeyPurpose::Relinearization, made.level);
    assert_eq!(expanded.parts.len(), digits.len());
    expanded
        .parts
        .iter()
        .zip(digits)
        .map(|((b, a), digit)| {
            let factors: Vec<u64> = basis
                .iter()
                .map(|i| {
                    if digit.contains(i) {
                        chain.product_mod(params.special(), i)
                    } else {
                        0
                    }
                })
                .collect();
            let mut gadget = backend.duplicate(&source);
            backend.mul_scalar_assign(&mut gadget, &factors).unwrap();
            let mut error = b.clone();
            let a = a.poly(chain, basis).unwrap();
            backend.mul_acc(&mut error, &a, &secret).unwrap();
            backend.sub_assign(&mut error, &gadget).unwrap();
            error
        })
        .collect()
}

#[test]
fn switching_keys_satisfy_their_equation() {
    let (params, mut generator, key) = toy(1);
    let purposes = [
        KeyPurpose::Relinearization,
        KeyPurpose::Rotation(1),
        KeyPurpose::Rotation(-7),
        KeyPurpose::Conjugation,
    ];
    for purpose in purposes {
        for level in 0..=params.max_level() {
            let made = generator.switching_key(&key, purpose, level).unwrap();
            assert_eq!(made.conform(&params).unwrap().key, purpose.to_string());
            for error in errors_of(&key, &made) {
                let largest = largest(&key, error);
                assert!(
                    (1..=GAUSSIAN_BOUND).contains(&largest),
                    "{purpose}: {largest}"
                );
            }
        }
    }
}

#[test]
fn public_keys_and_ciphertexts_satisfy_their_equation() {
    let (params, mut generator, key) = toy(2);
    for level in 0..=params.max_level() {
        let public = generator.public_key(&key, level).unwrap();
        let (mut b, a) = public.expand(&params).unwrap();
        let secret = key
            .backend()
            .restrict(key.ntt(), params.basis_at(level))
            .unwrap();
        key.backend().mul_acc(&mut b, &a, &secret).unwrap();
        assert!((1..=GAUSSIAN_BOUND).contains(&largest(&key, b)));

        let zero = SlotVector::real_constant(0.0);
        let mut encryptor = Encryptor::insecure_deterministic_for_tests(&key, 5).unwrap();
        let fresh = encryptor
            .encrypt(&zero, level)
            .unwrap()
            .expand(&params)
            .unwrap();
        let mut noise = fresh.c0().clone();
        key.backend()
            .mul_acc(&mut noise, fresh.c1(), &secret)
            .unwrap();
        assert!((1..=GAUSSIAN_BOUND).contains(&largest(&key, noise)));

        let mut encryptor =
            PublicEncryptor::insecure_deterministic_for_tests(&params, &public, 5).unwrap();
        let fresh = encryptor
            .encrypt(&zero, level)
            .unwrap()
            .expand(&params)
            .unwrap();
        let mut noise = fresh.c0().clone();
        key.backend()
            .mul_acc(&mut noise, fresh.c1(), &secret)
            .unwrap();
        // e v + e0 + e1 s: at most 2 N + 1 error coefficients, in fact 3.2 sqrt(4N/3) each way.
        let limit = (8.0 * 3.2 * (4.0 / 3.0 * params.n() as f64 + 1.0).sqrt()) as i64;
        assert!((1..=limit).contains(&largest(&key, noise)));
        if level < params.max_level() {
            assert!(encryptor.encrypt(&zero, level + 1).is_err());
        }
    }
}

#[test]
fn ternary_coefficients_have_the_residues_of_their_integers() {
    let (params, _, key) = toy(3);
    let ternary: Vec<i8> = (0..params.n()).map(|i| (i % 3) as i8 - 1).collect();
    let values: Vec<i64> = ternary.iter().map(|&c| i64::from(c)).collect();
    let mut poly = SecretPoly::from_ternary(key.backend(), params.chain().all(), &ternary).unwrap();
    key.backend().inverse_ntt(&mut poly).unwrap();
    let expected = RnsPoly::from_signed(params.chain(), params.chain().all(), &values).unwrap();
    assert!(*poly == expected);
}

#[test]
fn keys_depend_on_the_seed_and_not_on_the_threads() {
    let list = KeyList {
        relinearization: vec![3],
        rotations: (1..6).map(|by| (by, 2)).collect(),
        conjugation: Vec::new(),
        ..KeyList::default()
    };
    let make = |seed, threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let (_, mut generator, key) = toy(seed);
            generator
                .evaluation_keys(&key, &list, [7; 32], &mut |_, _| ControlFlow::Continue(()))
                .unwrap()
        })
    };
    let (one, three, other) = (make(1, 1), make(1, 3), make(2, 1));
    assert_eq!((one.keys.len(), one.program), (6, [7; 32]));
    for ((a, b), c) in one.keys.iter().zip(&three.keys).zip(&other.keys) {
        assert!(a.b == b.b && a.purpose == b.purpose && a.level == b.level);
        assert!(a.b != c.b);
    }
    assert!(one.keys.windows(2).all(|pair| pair[0].b[0] != pair[1].b[0]));
}

#[test]
fn generation_tells_its_progress_and_stops_when_asked() {
    let (_, mut generator, key) = toy(4);
    let list = KeyList {
        relinearization: vec![1],
        rotations: vec![(1, 1), (2, 1), (3, 0)],
        conjugation: vec![0],
        ..KeyList::default()
    };
    let mut seen = Vec::new();
    let keys = generator.evaluation_keys(&key, &list, [0; 32], &mut |done, total| {
        seen.push((done, total));
        ControlFlow::Continue(())
    });
    assert_eq!(keys.unwrap().keys.len(), 5);
    assert_eq!(seen, (0..=5).map(|done| (done, 5)).collect::<Vec<_>>());
    let stopped = generator.evaluation_keys(&key, &list, [0; 32], &mut |done, _| {
        if done < 2 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    assert!(matches!(
        stopped,
        Err(SecretError::Stopped { done: 2, total: 5 })
    ));
}

#[test]
fn fixed_seeds_are_refused_where_something_is_protected() {
    let params = secure();
    let refused = |result: Option<SecretError>| {
        assert!(matches!(
            result,
            Some(SecretError::DeterministicForSecureParams)
        ));
    };
    refused(KeyGenerator::insecure_deterministic_for_tests(&params, 1).err());
    let mut generator = KeyGenerator::new(&params, SecureRng::from_os().unwrap());
    let key = generator.secret_key().unwrap();
    refused(Encryptor::insecure_deterministic_for_tests(&key, 1).err());
    let public = generator.public_key(&key, 0).unwrap();
    refused(PublicEncryptor::insecure_deterministic_for_tests(&params, &public, 1).err());
}

#[test]
fn keys_of_other_parameters_are_refused() {
    let (_, mut generator, _) = toy(1);
    let other = spec(7).validate_insecure_for_tests().unwrap();
    let mut others = KeyGenerator::insecure_deterministic_for_tests(&other, 1).unwrap();
    let key = others.secret_key().unwrap();
    let result = generator.relinearization(&key, 1);
    assert!(matches!(result, Err(SecretError::WrongParams { .. })));
    assert!(matches!(
        generator.public_key(&key, 1),
        Err(SecretError::WrongParams { .. })
    ));
    assert!(others.rotation(&key, 1, 99).is_err());
}

fn is_insecure<T>(result: Result<T, CkksError>) -> bool {
    matches!(result, Err(CkksError::Insecure { .. }))
}

fn is_insecure_when_made<T>(result: Result<T, SecretError>) -> bool {
    matches!(result, Err(SecretError::Ckks(CkksError::Insecure { .. })))
}

/// For each type of key: its own row holds; with any one modulus too large it is refused, and
/// so is the same key under a secret that its moduli do not suit, when made and when loaded.
#[test]
fn every_key_type_is_held_to_the_bound_of_its_own_moduli_and_secret() {
    let params = secure();
    let mut generator = KeyGenerator::new(&params, SecureRng::from_os().unwrap());
    let dense = generator.secret_key().unwrap();
    let sparse = generator.sparse_secret_key(32).unwrap();
    assert_eq!(sparse.kind(), SPARSE);
    let level = params.max_level();

    let changed_moduli_are_refused = |name: &str, basis: Basis| {
        let moduli = params.moduli(basis);
        let row = params
            .check_key_moduli(name, &moduli, dense.kind())
            .unwrap();
        assert_eq!((row.bits, row.key.as_str()), (128, name));
        for position in 1..=level {
            let mut changed = moduli.clone();
            changed[position] = u64::MAX;
            assert!(is_insecure(params.check_key_moduli(
                name,
                &changed,
                dense.kind()
            )));
        }
    };

    for purpose in [
        KeyPurpose::Relinearization,
        KeyPurpose::Rotation(3),
        KeyPurpose::Conjugation,
    ] {
        let mut made = generator.switching_key(&dense, purpose, level).unwrap();
        assert_eq!(made.conform(&params).unwrap().bits, 128);
        changed_moduli_are_refused(&purpose.to_string(), params.rotation_basis(level));
        assert!(is_insecure_when_made(
            generator.switching_key(&sparse, purpose, level)
        ));
        made.secret = SPARSE;
        assert!(is_insecure(made.conform(&params)));
        assert!(is_insecure(made.expand(&params).map(|_| ())));
    }

    let mut public = generator.public_key(&dense, level).unwrap();
    changed_moduli_are_refused("public key", params.basis_at(level));
    assert!(is_insecure_when_made(generator.public_key(&sparse, level)));
    public.secret = SPARSE;
    assert!(is_insecure(public.conform(&params)));
    let encryptor = PublicEncryptor::new(&params, &public, SecureRng::from_os().unwrap());
    assert!(is_insecure_when_made(encryptor.map(|_| ())));

    let mut encryptor = Encryptor::new(&sparse, SecureRng::from_os().unwrap()).unwrap();
    assert!(is_insecure_when_made(
        encryptor.encrypt(&SlotVector::real_constant(0.0), 0)
    ));
}

/// Parameters with one prime too many exist only with the watermark, and their rows say 0.
#[test]
fn insecure_parameters_say_what_they_reach() {
    let too_large = ParamsSpec {
        levels: 3,
        ..spec(13)
    };
    assert!(is_insecure(too_large.clone().validate()));
    let params = too_large.validate_insecure_for_tests().unwrap();
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 1).unwrap();
    let key = generator.secret_key().unwrap();
    let top = generator.relinearization(&key, params.max_level()).unwrap();
    assert_eq!(top.conform(&params).unwrap().bits, 0);
    let low = generator.relinearization(&key, 1).unwrap();
    assert_eq!(low.conform(&params).unwrap().bits, 128);
}

#[test]
fn a_sparse_key_that_calls_itself_dense_is_not_loaded() {
    let (params, mut generator, dense) = toy(1);
    assert!(SecretKey::from_bytes(&dense.to_bytes().unwrap()).is_ok());
    let sparse = generator.sparse_secret_key(32).unwrap();
    let coefficients = Zeroizing::new(sparse.coefficients().to_vec());
    let kind = SecretKind::DenseTernary;
    let liar = SecretKey::assemble(&params, kind, sparse.id(), coefficients).unwrap();
    let result = SecretKey::from_bytes(&liar.to_bytes().unwrap());
    assert!(matches!(result, Err(SecretError::MalformedKey { .. })));
}

/// c0 + c1 s on all limbs, decoded.
fn full_decryption(key: &SecretKey, stored: &StoredCiphertext) -> Vec<Complex> {
    let (params, backend) = (key.params(), key.backend());
    let whole = stored.expand(params).unwrap();
    let secret = backend.restrict(key.ntt(), whole.c0().basis()).unwrap();
    let mut phase = whole.c0().clone();
    backend.mul_acc(&mut phase, whole.c1(), &secret).unwrap();
    let encoder = Encoder::new(params).unwrap();
    encoder.decode(&phase, whole.scale()).unwrap()
}

/// Messages that fill one limb, two, and more; and under another key, which gives coefficients of
/// all sizes. `ckks` holds the decoding of a whole polynomial against big integers.
#[test]
fn a_decryption_looks_at_few_limbs_and_is_that_of_all() {
    let (params, mut generator, key) = toy(11);
    let other = generator.secret_key().unwrap();
    let entry = |j: usize| Complex::new((j as f64).sin(), 0.5 - (j % 3) as f64);
    let clear: Vec<_> = (0..params.slots()).map(entry).collect();
    let slots = SlotVector::Dense(clear.clone());
    let mut encryptor = Encryptor::insecure_deterministic_for_tests(&key, 12).unwrap();
    for level in 0..=params.max_level() {
        for bits in [20, 30, 36, 60, 78, 100, 115] {
            let scale = Scale::power_of_two(bits);
            let Ok(mut stored) = encryptor.encrypt_at(&slots, level, scale) else {
                let room = params.chain().product_log2(params.basis_at(level));
                assert!(
                    room < f64::from(bits) + 4.0,
                    "level {level}, scale 2^{bits}"
                );
                continue;
            };
            let decryptor = Decryptor::new(&key).unwrap();
            let seeded = decryptor.decrypt_stored(&stored).unwrap();
            let seeded = seeded.reveal_to_owner().unwrap();
            let expanded = decryptor.decrypt(&stored.expand(&params).unwrap()).unwrap();
            assert_eq!(expanded.reveal_to_owner().unwrap(), seeded);
            assert_eq!(full_decryption(&key, &stored), seeded);
            let bound = 2f64.powi(10 - bits as i32).max(2f64.powi(-45));
            for (a, b) in seeded.iter().zip(&clear) {
                assert!((a - b).norm() < bound, "level {level}, scale 2^{bits}");
            }
            stored.info.key_id = other.id();
            let wrong = Decryptor::new(&other).unwrap();
            let wrong = wrong.decrypt_stored(&stored).unwrap();
            let wrong = wrong.reveal_to_owner().unwrap();
            assert_eq!(full_decryption(&other, &stored), wrong);
            assert_ne!(wrong, seeded);
        }
    }
}
