//! The equations of both keys, what raising the modulus adds (statistics under fixed seeds), and what
//! is refused.

use std::ops::ControlFlow;

use veilformer_ckks::noise::NoiseModel;
use veilformer_ckks::{
    Ciphertext, CkksError, Complex, EPHEMERAL_WEIGHT, EvaluationKeys, Evaluator, KeyList,
    KeyPurpose, Ladder, OpsError, Params, ParamsSpec, Scale, SecretKind, SecurityLevel,
    SharedCiphertext, SlotVector, StoredEvaluationKeys, WordSpec,
};
use veilformer_ring::{Backend, Basis, Cpu, RnsPoly, UniformHalf};

use crate::poly::host;
use crate::samplers::GAUSSIAN_BOUND;
use crate::{Encryptor, KeyGenerator, SecretError, SecretKey, SecureRng};

const DENSE: SecretKind = SecretKind::DenseTernary;

fn spec(log_n: u32) -> ParamsSpec {
    ParamsSpec {
        log_n,
        first_bits: 50,
        scale_bits: 40,
        levels: 4,
        special_bits: 50,
        special_count: 3,
        digit_limbs: 2,
        security: SecurityLevel::Bits128,
    }
}

/// With outer levels, so that primes of all sizes are raised to.
fn toy(log_n: u32) -> Params {
    let sizes = Ladder {
        below: vec![42],
        above: vec![50],
    };
    spec(log_n)
        .validate_ladder_insecure_for_tests(&sizes)
        .unwrap()
}

fn generator(params: &Params, seed: u64) -> (KeyGenerator, SecretKey) {
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(params, seed).unwrap();
    let key = generator.secret_key().unwrap();
    (generator, key)
}

fn pair(params: &Params, key: &SecretKey, generator: &mut KeyGenerator) -> StoredEvaluationKeys {
    StoredEvaluationKeys {
        params: params.digest(),
        key_id: key.id(),
        program: [0; 32],
        keys: generator
            .encapsulation(key, EPHEMERAL_WEIGHT)
            .unwrap()
            .into(),
    }
}

/// The centred integers that are congruent to a polynomial (NTT form) modulo its first two primes;
/// the other primes must agree.
fn integers(backend: &Cpu, mut poly: RnsPoly) -> Vec<i128> {
    backend.inverse_ntt(&mut poly).unwrap();
    let chain = backend.chain();
    let primes: Vec<usize> = poly.basis().iter().collect();
    let [p, q] = [0, 1].map(|i| chain.modulus(primes[i]));
    let inverse = q.inv(q.from_i128(i128::from(p.value()))).unwrap();
    let product = i128::from(p.value()) * i128::from(q.value());
    let both = poly.limb(0).iter().zip(poly.limb(1));
    let values: Vec<i128> = both
        .map(|(&a, &b)| {
            let difference = q.from_i128(i128::from(b) - i128::from(a));
            let carry = i128::from(q.mul(difference, inverse));
            let value = i128::from(a) + i128::from(p.value()) * carry;
            if value > product / 2 {
                value - product
            } else {
                value
            }
        })
        .collect();
    for (position, &prime) in primes.iter().enumerate() {
        let modulus = chain.modulus(prime);
        let limb = values.iter().map(|&v| modulus.from_i128(v));
        assert!(
            limb.eq(poly.limb(position).iter().copied()),
            "prime {prime}"
        );
    }
    values
}

/// b + a s on the key's primes.
fn phase(backend: &Cpu, (b, a): &(RnsPoly, UniformHalf), secret: &RnsPoly) -> RnsPoly {
    let secret = backend.restrict(secret, b.basis()).unwrap();
    let mut phase = b.clone();
    let a = a.poly(backend.chain(), b.basis()).unwrap();
    backend.mul_acc(&mut phase, &a, &secret).unwrap();
    phase
}

fn in_ntt_form(backend: &Cpu, basis: Basis, values: &[i64]) -> RnsPoly {
    let mut poly = RnsPoly::from_signed(backend.chain(), basis, values).unwrap();
    backend.forward_ntt(&mut poly).unwrap();
    poly
}

#[test]
fn both_keys_satisfy_their_equations() {
    let params = toy(8);
    let (mut generator, key) = generator(&params, 1);
    let backend = key.backend();
    for weight in [1, 32, 100] {
        let [to, from] = generator.encapsulation(&key, weight).unwrap();
        let sparse = SecretKind::SparseTernary {
            hamming_weight: weight,
        };
        assert_eq!((to.level, to.secret), (0, sparse));
        assert_eq!((from.level, from.secret), (params.max_level(), DENSE));
        assert_eq!(from.conform(&params).unwrap().key, from.purpose.to_string());
        to.conform(&params).unwrap();
        let (to, from) = (to.expand(&params).unwrap(), from.expand(&params).unwrap());
        // Two special primes suffice, and no other prime than that of level 0 is in the first key.
        let special = Basis::range(5, 7);
        assert_eq!((to.special, from.special), (special, special));
        assert_eq!(to.basis(), Basis::first(1).union(special));
        assert_eq!(from.basis(), Basis::first(7));
        assert_eq!((to.parts.len(), from.parts.len()), (1, 1));
        assert_eq!(from.digits, [Basis::first(5)]);

        // e + P s' hidden under s: modulo P it is e alone.
        let whole = phase(backend, &from.parts[0], key.ntt());
        let error = integers(backend, backend.restrict(&whole, special).unwrap());
        assert!(error.iter().all(|e| e.abs() <= i128::from(GAUSSIAN_BOUND)));
        assert!(error.iter().any(|&e| e != 0));
        let small: Vec<i64> = error.iter().map(|&e| e as i64).collect();
        let mut lifted = backend.restrict(&whole, Basis::first(5)).unwrap();
        let small = in_ntt_form(backend, Basis::first(5), &small);
        backend.sub_assign(&mut lifted, &small).unwrap();
        let chain = params.chain();
        let inverses: Vec<u64> = (0..5)
            .map(|i| {
                let product = chain.product_mod(special, i);
                chain.modulus(i).inv(product).unwrap()
            })
            .collect();
        backend.mul_scalar_assign(&mut lifted, &inverses).unwrap();
        let ephemeral: Vec<i64> = integers(backend, lifted)
            .iter()
            .map(|&c| c as i64)
            .collect();
        assert!(ephemeral.iter().all(|c| c.abs() <= 1));
        let found = ephemeral.iter().filter(|&&c| c != 0).count();
        assert_eq!(found, weight as usize);

        // e + P s hidden under s'.
        let sparse = in_ntt_form(backend, chain.all(), &ephemeral);
        let mut rest = phase(backend, &to.parts[0], &sparse);
        let mut gadget = backend.restrict(key.ntt(), to.basis()).unwrap();
        let factors: Vec<u64> = to
            .basis()
            .iter()
            .map(|i| chain.product_mod(special, i))
            .collect();
        backend.mul_scalar_assign(&mut gadget, &factors).unwrap();
        backend.sub_assign(&mut rest, &gadget).unwrap();
        let error = integers(backend, rest);
        assert!(error.iter().all(|e| e.abs() <= i128::from(GAUSSIAN_BOUND)));
        assert!(error.iter().any(|&e| e != 0));
    }
}

/// What raising the modulus made of a message: the multiples of q0, and the errors that came.
struct Raised {
    multiples: Vec<i64>,
    errors: Vec<f64>,
}

fn raised(params: &Params, seed: u64) -> Raised {
    let (mut generator, key) = generator(params, seed);
    let backend = host(params).unwrap();
    let stored = pair(params, &key, &mut generator);
    let keys = EvaluationKeys::<Cpu>::prepare(params, &backend, &stored).unwrap();
    let evaluator = Evaluator::new(params, &backend, &keys).unwrap();
    let ct = encrypt(&evaluator, &key, 0);
    let up = evaluator.mod_raise(&ct).unwrap();
    assert_eq!((up.level(), up.scale()), (params.max_level(), ct.scale()));
    let phase = |ct: &Ciphertext| {
        phase(
            &backend,
            &(ct.c0().clone(), UniformHalf::Poly(ct.c1().clone())),
            key.ntt(),
        )
    };
    let before = phase(&ct);
    let q0 = i128::from(params.primes()[0]);
    let mut before_coefficients = before.clone();
    backend.inverse_ntt(&mut before_coefficients).unwrap();
    let modulus = params.chain().modulus(0);
    let before = before_coefficients
        .limb(0)
        .iter()
        .map(|&x| i128::from(modulus.center(x)));
    let after = integers(&backend, phase(&up));
    let (mut multiples, mut errors) = (Vec::new(), Vec::new());
    for (after, before) in after.into_iter().zip(before) {
        let added = after - before;
        let multiple = (added + q0 * 1000 + q0 / 2) / q0 - 1000;
        multiples.push(multiple as i64);
        errors.push((added - multiple * q0) as f64);
    }
    Raised { multiples, errors }
}

fn encrypt<'a>(
    evaluator: &Evaluator<'a, Cpu>,
    key: &SecretKey,
    level: usize,
) -> SharedCiphertext<Cpu> {
    let params = key.params();
    let slot = |j: usize| Complex::new((j as f64 * 0.37).sin(), (j as f64 * 0.11).cos());
    let slots = SlotVector::Dense((0..params.slots()).map(slot).collect());
    let mut encryptor = if params.is_insecure() {
        Encryptor::insecure_deterministic_for_tests(key, 5).unwrap()
    } else {
        Encryptor::new(key, SecureRng::from_os().unwrap()).unwrap()
    };
    let scale = Scale::power_of_two(42);
    let stored = encryptor.encrypt_at(&slots, level, scale).unwrap();
    evaluator.import(stored.expand(params).unwrap()).unwrap()
}

/// Density of the sum of `n` uniform variables on [-1/2, 1/2), by the recursion of B-splines.
fn sum_of_uniforms(n: u32, x: f64) -> f64 {
    if n == 1 {
        return if (-0.5..0.5).contains(&x) { 1.0 } else { 0.0 };
    }
    // From the bottom up: values at x - (n-1)/2 .. x + (n-1)/2 in steps of one.
    let mut row: Vec<f64> = (0..n)
        .map(|i| sum_of_uniforms(1, x + f64::from(i) - f64::from(n - 1) / 2.0))
        .collect();
    for order in 2..=n {
        let half = f64::from(order) / 2.0;
        let at = |i: usize| x + i as f64 - f64::from(n - order) / 2.0;
        row = (0..row.len() - 1)
            .map(|i| {
                let y = at(i);
                ((half + y) * row[i + 1] + (half - y) * row[i]) / f64::from(order - 1)
            })
            .collect();
    }
    row[0]
}

#[test]
fn raising_adds_multiples_of_q0_and_the_predicted_error() {
    // At the small ring the sparse secret's rounding is as large as the dense one's; at the large
    // one a message meets many keys' worth of coefficients.
    for (log_n, runs) in [(6, 400), (12, 6)] {
        let params = toy(log_n);
        let samples: Vec<Raised> = (0..runs).map(|seed| raised(&params, seed)).collect();
        let errors: Vec<f64> = samples.iter().flat_map(|s| s.errors.clone()).collect();
        let count = errors.len() as f64;
        let variance = errors.iter().map(|e| e * e).sum::<f64>() / count;
        let predicted = NoiseModel::new(&params, DENSE).mod_raise().unwrap();
        let ratio = variance / predicted;
        assert!((0.95..1.05).contains(&ratio), "N=2^{log_n}: {ratio}");
        let mean = errors.iter().sum::<f64>() / count;
        assert!(mean.abs() < 5.0 * (predicted / count).sqrt(), "{mean}");

        // I is the sum of the 32 uniform coefficients that the secret meets, rounded to an integer: as
        // likely as the density of 33 uniforms there.
        let most = i64::from(EPHEMERAL_WEIGHT / 2) + 1;
        let multiples: Vec<i64> = samples.iter().flat_map(|s| s.multiples.clone()).collect();
        assert!(multiples.iter().all(|i| i.abs() <= most));
        let squares = multiples.iter().map(|&i| (i * i) as f64).sum::<f64>() / count;
        let expected = f64::from(EPHEMERAL_WEIGHT + 1) / 12.0;
        assert!((squares / expected - 1.0).abs() < 0.05, "{squares}");
        let mut chi_square = 0.0;
        for value in -5..=5i64 {
            let likely = count * sum_of_uniforms(33, value as f64);
            let seen = multiples.iter().filter(|&&i| i == value).count() as f64;
            chi_square += (seen - likely).powi(2) / likely;
        }
        // Eleven degrees of freedom: 35 is passed once in 4000.
        assert!(chi_square < 35.0, "N=2^{log_n}: {chi_square}");
    }
}

#[test]
fn density_of_sums() {
    assert!((sum_of_uniforms(2, 0.25) - 0.75).abs() < 1e-12);
    assert!((sum_of_uniforms(3, 0.0) - 0.75).abs() < 1e-12);
    let sum: f64 = (-17..=17).map(|i| sum_of_uniforms(33, f64::from(i))).sum();
    assert!((sum - 1.0).abs() < 1e-12, "{sum}");
}

#[test]
fn levels_of_words_are_raised_too() {
    let spec = ParamsSpec {
        first_bits: 60,
        scale_bits: 40,
        special_bits: 30,
        special_count: 5,
        digit_limbs: 5,
        ..spec(9)
    };
    let words = WordSpec {
        main_bits: 30,
        side_bits: 25,
        most_side: 4,
    };
    let params = spec.validate_words_insecure_for_tests(words).unwrap();
    let (mut generator, key) = generator(&params, 1);
    let backend = host(&params).unwrap();
    let stored = pair(&params, &key, &mut generator);
    let keys = EvaluationKeys::<Cpu>::prepare(&params, &backend, &stored).unwrap();
    let evaluator = Evaluator::new(&params, &backend, &keys).unwrap();
    let ct = encrypt(&evaluator, &key, 0);
    let up = evaluator.mod_raise(&ct).unwrap();
    let phase = |ct: &Ciphertext| {
        phase(
            &backend,
            &(ct.c0().clone(), UniformHalf::Poly(ct.c1().clone())),
            key.ntt(),
        )
    };
    let (before, after) = (phase(&ct), phase(&up));
    assert_eq!(after.basis(), params.basis_at(params.max_level()));
    // Modulo the modulus of level 0 nothing but the error came.
    let low = params.basis_at(0);
    assert!(after.basis().contains_all(low));
    let mut added = backend.restrict(&after, low).unwrap();
    backend.sub_assign(&mut added, &before).unwrap();
    let added = integers(&backend, added);
    let predicted = NoiseModel::new(&params, DENSE).mod_raise().unwrap();
    let variance = added.iter().map(|&e| (e * e) as f64).sum::<f64>() / added.len() as f64;
    let ratio = variance / predicted;
    assert!((0.8..1.25).contains(&ratio), "{ratio}");
}

#[test]
fn seeded_keys_and_lists_do_the_same() {
    let params = toy(7);
    let (mut generator, key) = generator(&params, 3);
    let backend = host(&params).unwrap();
    let mut list = KeyList::default();
    list.need(KeyPurpose::Rotation(1), 2, &params);
    list.need(KeyPurpose::FromEphemeral, params.max_level(), &params);
    let mut told = Vec::new();
    let stored = generator
        .evaluation_keys(&key, &list, [0; 32], &mut |done, total| {
            told.push((done, total));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(told, [(0, 3), (1, 3), (2, 3), (3, 3)]);
    let purposes: Vec<_> = stored.keys.iter().map(|k| (k.purpose, k.level)).collect();
    assert_eq!(purposes, list.iter().collect::<Vec<_>>());
    let prepared = EvaluationKeys::<Cpu>::prepare(&params, &backend, &stored).unwrap();
    let rows = &prepared.security().rows;
    let log = |basis| params.chain().product_log2(basis);
    assert!((rows[1].log_qp - log(Basis::first(1)) - log(Basis::range(5, 7))).abs() < 1e-9);
    assert!((rows[2].log_qp - log(Basis::first(7))).abs() < 1e-9);
    let mut seeded = EvaluationKeys::<Cpu>::empty(&params, key.id());
    for key in stored.keys {
        seeded.insert_seeded(&params, key).unwrap();
    }
    let one = Evaluator::new(&params, &backend, &prepared).unwrap();
    let other = Evaluator::new(&params, &backend, &seeded).unwrap();
    let ct = encrypt(&one, &key, 0);
    let raised = one.mod_raise(&ct).unwrap();
    for _ in 0..2 {
        let again = other.mod_raise(&ct).unwrap();
        assert!(again.parts() == raised.parts() && again.info() == raised.info());
    }
    // What is raised goes on being computed with.
    let down = one.drop_to(&raised, 2).unwrap();
    assert!(one.rotate_many(&down, &[1]).is_ok());
}

#[test]
fn what_cannot_be_raised_is_refused() {
    let params = toy(6);
    let (mut first, key) = generator(&params, 1);
    let backend = host(&params).unwrap();
    let stored = pair(&params, &key, &mut first);
    let none = EvaluationKeys::<Cpu>::empty(&params, key.id());
    let without = Evaluator::new(&params, &backend, &none).unwrap();
    let ct = encrypt(&without, &key, 0);
    let missing = |ops: &Evaluator<'_, Cpu>, expected| {
        let refused = ops.mod_raise(&ct);
        matches!(refused, Err(OpsError::MissingKey { purpose, .. }) if purpose == expected)
    };
    assert!(missing(&without, KeyPurpose::ToEphemeral));
    let mut half = EvaluationKeys::<Cpu>::empty(&params, key.id());
    half.insert(&params, &backend, &stored.keys[0]).unwrap();
    let half = Evaluator::new(&params, &backend, &half).unwrap();
    assert!(missing(&half, KeyPurpose::FromEphemeral));
    let keys = EvaluationKeys::<Cpu>::prepare(&params, &backend, &stored).unwrap();
    let ops = Evaluator::new(&params, &backend, &keys).unwrap();
    let high = encrypt(&ops, &key, 1);
    assert!(matches!(
        ops.mod_raise(&high),
        Err(OpsError::LevelMismatch {
            found: 1,
            expected: 0,
            ..
        })
    ));

    // Keys and ciphertexts of another secret.
    let (mut second, other) = generator(&params, 2);
    let theirs = pair(&params, &other, &mut second);
    let mut mixed = EvaluationKeys::<Cpu>::empty(&params, key.id());
    for wrong in &theirs.keys {
        let refused = mixed.insert(&params, &backend, wrong);
        assert!(matches!(refused, Err(CkksError::WrongKey { .. })));
    }
    let their_keys = EvaluationKeys::<Cpu>::prepare(&params, &backend, &theirs).unwrap();
    let their_ops = Evaluator::new(&params, &backend, &their_keys).unwrap();
    assert!(matches!(
        their_ops.mod_raise(&ct),
        Err(OpsError::WrongKey { .. })
    ));
    // They are made together or not at all.
    for purpose in [KeyPurpose::ToEphemeral, KeyPurpose::FromEphemeral] {
        let refused = first.switching_key(&key, purpose, 0);
        assert!(matches!(refused, Err(SecretError::Purpose(p)) if p == purpose));
    }
    assert!(matches!(
        first.encapsulation(&key, 65),
        Err(SecretError::Weight { .. })
    ));
}

/// A set in which one thing is changed does not conform.
#[test]
fn tampered_keys_are_refused() {
    let params = toy(6);
    let (mut generator, key) = generator(&params, 1);
    let change: [fn(&mut StoredEvaluationKeys); 7] = [
        |s| s.keys[0].secret = DENSE,
        |s| s.keys[0].level = 1,
        |s| {
            // At level 0 it would have the shape of a conjugation's.
            s.keys[0].purpose = KeyPurpose::Conjugation;
            s.keys[0].level = 1;
        },
        |s| s.keys[1].purpose = KeyPurpose::ToEphemeral,
        |s| s.keys[1].purpose = KeyPurpose::Relinearization,
        |s| s.keys[1].level = 2,
        |s| s.keys.swap(0, 1),
    ];
    let good = pair(&params, &key, &mut generator);
    assert!(good.conform(&params).is_ok());
    for (i, change) in change.into_iter().enumerate() {
        let mut set = pair(&params, &key, &mut generator);
        change(&mut set);
        // The order is free.
        assert_eq!(set.conform(&params).is_ok(), i == 6, "change {i}");
    }
    // The sparse secret protects no key of a higher level.
    assert!(matches!(
        KeyPurpose::ToEphemeral.shape(&params, 1),
        Err(CkksError::Level { level: 1, max: 0 })
    ));
    let mut set = pair(&params, &key, &mut generator);
    let part = set.keys[1].b[0].clone();
    set.keys[0].b[0] = part;
    assert!(set.conform(&params).is_err());
}

#[test]
fn each_key_is_held_to_the_bound_of_its_own_secret() {
    let rng = || SecureRng::from_os().unwrap();
    let insecure = |result: Result<_, SecretError>| {
        matches!(result, Err(SecretError::Ckks(CkksError::Insecure { .. })))
    };
    // Secure parameters of N = 2^15: 50 + 100 bits of 164 for the sparse secret.
    let params = ParamsSpec {
        levels: 2,
        ..spec(15)
    };
    let params = params.validate().unwrap();
    let mut generator = KeyGenerator::new(&params, rng());
    let key = generator.secret_key().unwrap();
    let [mut to, from] = generator.encapsulation(&key, EPHEMERAL_WEIGHT).unwrap();
    let row = to.conform(&params).unwrap();
    assert_eq!(row.bits, 128);
    assert_eq!(row.secret, SecretKind::SparseTernary { hamming_weight: 32 });
    assert!((row.log_qp - 150.0).abs() < 0.1);
    assert_eq!(from.conform(&params).unwrap().secret, DENSE);
    assert!(insecure(generator.encapsulation(&key, 31)));
    to.secret = SecretKind::SparseTernary { hamming_weight: 31 };
    assert!(matches!(
        to.conform(&params),
        Err(CkksError::Insecure { .. })
    ));

    // The same ring with a larger modulus under the key: 60 + 117 bits.
    let wide = ParamsSpec {
        first_bits: 60,
        special_bits: 39,
        special_count: 3,
        levels: 2,
        ..spec(15)
    };
    let words = WordSpec {
        main_bits: 30,
        side_bits: 25,
        most_side: 4,
    };
    let wide = wide.validate_words(words).unwrap();
    let mut generator = KeyGenerator::new(&wide, rng());
    let key = generator.secret_key().unwrap();
    assert!(insecure(generator.encapsulation(&key, EPHEMERAL_WEIGHT)));
    let mut list = KeyList::default();
    list.need(KeyPurpose::FromEphemeral, 2, &wide);
    assert!(matches!(
        list.security(&wide),
        Err(CkksError::Insecure { .. })
    ));

    // No bound is known for sparse secrets in smaller rings.
    let small = ParamsSpec {
        levels: 2,
        ..spec(14)
    };
    let small = small.validate().unwrap();
    let mut generator = KeyGenerator::new(&small, rng());
    let key = generator.secret_key().unwrap();
    assert!(insecure(generator.encapsulation(&key, EPHEMERAL_WEIGHT)));

    // One special prime is too small for the errors of those keys.
    let short = ParamsSpec {
        special_count: 1,
        digit_limbs: 1,
        ..spec(6)
    };
    let short = short.validate_insecure_for_tests().unwrap();
    assert!(matches!(
        KeyPurpose::ToEphemeral.shape(&short, 0),
        Err(CkksError::Params { .. })
    ));
}
