//! Parameters: the scale table, what is refused, and the per-key bound.
#![allow(clippy::unwrap_used)] // a test's way to fail

use veilformer_ckks::testing::{toy_params, toy_spec};
use veilformer_ckks::*;

/// The shape of the first shipped model's parameters.
fn demo_spec() -> ParamsSpec {
    ParamsSpec {
        log_n: 14,
        first_bits: 45,
        scale_bits: 36,
        levels: 7,
        special_bits: 41,
        special_count: 3,
        digit_limbs: 3,
        security: SecurityLevel::Bits128,
    }
}

#[test]
fn scales_are_exact_and_stay_near() {
    for params in [demo_spec().validate().unwrap(), toy_params()] {
        let top = 2f64.powi(params.spec().scale_bits as i32);
        assert_eq!(params.scale_at(params.max_level()).value(), top);
        for level in 1..=params.max_level() {
            let s = params.scale_at(level);
            let q = params.product(params.step_at(level).drop);
            let below = params.scale_at(level - 1);
            assert_eq!(s.product(s).divide(q), below, "bit for bit");
            // The next prime is within a few thousand steps of 2N.
            let drift = (below.value() / top - 1.0).abs();
            assert!(
                drift < 2000.0 * 2.0 * params.n() as f64 / top,
                "level {level}: {drift:e}"
            );
        }
    }
}

#[test]
fn demo_parameters_are_secure_and_complete() {
    let params = demo_spec().validate().unwrap();
    assert!((params.log_qp() - 420.0).abs() < 0.5, "{}", params.log_qp());
    assert_eq!(params.security().bits(), 128);
    assert!(!params.is_insecure());
    assert_eq!(params.chain().len(), 11);
    assert_eq!(params.digits().len(), 3);
    assert_eq!(params.digits_at(KeyPurpose::Relinearization, 3).len(), 2);
    assert_eq!(params.digits_at(KeyPurpose::Relinearization, 2).len(), 1);
    assert_eq!(params.rotation_basis(0).len(), 4);
    let again = Params::from_primes(demo_spec(), params.primes()).unwrap();
    assert_eq!(again.digest(), params.digest());
    assert_ne!(toy_params().digest(), params.digest());
}

#[test]
fn insecure_is_refused_and_marked() {
    let mut spec = demo_spec();
    spec.levels = 8;
    assert!(matches!(
        spec.clone().validate(),
        Err(CkksError::Insecure { .. })
    ));
    let marked = spec.validate_insecure_for_tests().unwrap();
    assert!(marked.is_insecure());
    assert_eq!(marked.security().bits(), 0);
    // The watermark is part of the identity.
    let plain = demo_spec().validate().unwrap();
    let copy = Params::from_primes_insecure_for_tests(demo_spec(), plain.primes()).unwrap();
    assert_ne!(copy.digest(), plain.digest());
    let strict = ParamsSpec {
        security: SecurityLevel::Bits192,
        ..demo_spec()
    };
    assert!(matches!(strict.validate(), Err(CkksError::Insecure { .. })));
}

#[test]
fn each_key_is_checked_by_its_own_moduli_and_secret() {
    let params = demo_spec().validate().unwrap();
    let dense = SecretKind::DenseTernary;
    let mut list = KeyList::default();
    list.need(KeyPurpose::Relinearization, 7, &params);
    list.need(KeyPurpose::Rotation(-1), 2, &params);
    list.need(KeyPurpose::Rotation(-1), 4, &params);
    list.need(KeyPurpose::Rotation(params.slots() as i64), 4, &params);
    list.need(KeyPurpose::Conjugation, 0, &params);
    assert_eq!(list.rotations, [(params.slots() as i64 - 1, 4)]);
    let report = list.security(&params).unwrap();
    assert_eq!((report.rows.len(), report.bits()), (3, 128));
    assert_eq!(report.rows[2].bits, 256, "45 + 123 bits at N = 2^14");
    for (purpose, level) in list.iter() {
        let mut moduli = params.moduli(params.rotation_basis(level));
        assert!(
            params
                .check_key_moduli(&purpose.to_string(), &moduli, dense)
                .is_ok()
        );
        // One modulus too large, or too many, puts the key over its bound.
        moduli.extend([(1 << 49) + 1; 8]);
        let refused = params.check_key_moduli(&purpose.to_string(), &moduli, dense);
        assert!(matches!(refused, Err(CkksError::Insecure { .. })));
        let sparse = SecretKind::SparseTernary { hamming_weight: 32 };
        assert!(
            params
                .check_key("sparse", params.rotation_basis(level), sparse)
                .is_err()
        );
    }
    let mut public = params.moduli(params.basis_at(7));
    assert!(
        params
            .check_key_moduli("public key", &public, dense)
            .is_ok()
    );
    public.extend([(1 << 49) + 1; 3]);
    assert!(
        params
            .check_key_moduli("public key", &public, dense)
            .is_err()
    );
    list.need(KeyPurpose::Conjugation, 8, &params);
    assert!(matches!(
        list.security(&params),
        Err(CkksError::Level { .. })
    ));
}

#[test]
fn one_changed_prime_is_refused() {
    let params = demo_spec().validate().unwrap();
    for at in 0..params.primes().len() {
        let mut primes = params.primes().to_vec();
        primes[at] = (1 << 50) - 27;
        assert!(
            Params::from_primes(demo_spec(), &primes).is_err(),
            "prime {at}"
        );
        primes[at] = params.primes()[(at + 1) % primes.len()];
        assert!(
            Params::from_primes(demo_spec(), &primes).is_err(),
            "twice, at {at}"
        );
    }
    assert!(Params::from_primes(demo_spec(), &params.primes()[1..]).is_err());
    assert!(Params::from_primes(demo_spec(), &[]).is_err());
}

#[test]
fn impossible_specifications_are_errors() {
    let change: [fn(&mut ParamsSpec); 9] = [
        |s| s.log_n = 2,
        |s| s.log_n = 40,
        |s| s.first_bits = 51,
        |s| s.scale_bits = 3,
        |s| s.special_count = 0,
        |s| s.digit_limbs = 0,
        |s| s.levels = usize::MAX,
        |s| s.digit_limbs = 4,
        |s| s.special_bits = u32::MAX,
    ];
    for (i, change) in change.into_iter().enumerate() {
        let mut spec = toy_spec(10);
        change(&mut spec);
        assert!(spec.validate_insecure_for_tests().is_err(), "change {i}");
    }
}

#[test]
fn the_gate_size_has_parameters() {
    let params = ParamsSpec {
        log_n: 16,
        first_bits: 50,
        scale_bits: 42,
        levels: 30,
        special_bits: 46,
        special_count: 6,
        digit_limbs: 6,
        security: SecurityLevel::Bits128,
    }
    .validate()
    .unwrap();
    assert_eq!(params.digits().len(), 6);
    assert_eq!(params.security().bits(), 128);
}
