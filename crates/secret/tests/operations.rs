//! Every operation, encrypted against the same operation on plaintext slots.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use proptest::prelude::*;
use veilformer_ckks::{
    Complex, Evaluator, Giant, Ops, OpsError, SlotVector, Term, Transform, adjust_constant,
};
use veilformer_ring::Cpu;

const ROTATIONS: [i64; 9] = [1, 2, 3, 4, 8, 12, -1, -5, 100];

/// Runs all operations once; `tolerance` bounds the error of each in each slot.
fn every_operation(kit: &Kit, tolerance: f64) {
    let params = &kit.params;
    let (count, top) = (params.slots(), params.max_level());
    let (x, y, z) = (slots(1, count), slots(2, count), slots(3, count));
    let mut ops = kit.evaluator();
    let a = kit.encrypt(1, &x, top);
    let b = kit.encrypt(2, &y, top);
    let check = |name: &str, ct: &_, expected: &[Complex]| {
        let error = max_error(&kit.decrypt(ct), expected);
        assert!(
            error < tolerance,
            "{name}: error {error:e}, tolerance {tolerance:e}"
        );
    };
    let canonical = |ops: &Evaluator<'_, Cpu>, ct: &_| {
        assert!(ops.scale(ct).matches(params.scale_at(ops.level(ct))));
    };
    let scale = params.scale_at(top);

    check("encrypt", &a, &x);
    check("add", &ops.add(&a, &b).unwrap(), &zip(&x, &y, |x, y| x + y));
    check(
        "sub",
        &Ops::sub(&mut ops, &a, &b).unwrap(),
        &zip(&x, &y, |x, y| x - y),
    );
    check("negate", &ops.negate(&a).unwrap(), &zip(&x, &x, |x, _| -x));

    for plain in [
        SlotVector::Dense(z.clone()),
        SlotVector::Periodic(z[..8].to_vec()),
        SlotVector::Constant(Complex::new(0.7, -0.3)),
        SlotVector::real_constant(-0.6),
    ] {
        let w = plain.to_dense(count).unwrap().into_owned();
        let p = ops.plain(&plain, top, scale).unwrap();
        check(
            "add_plain",
            &ops.add_plain(&a, &p).unwrap(),
            &zip(&x, &w, |x, w| x + w),
        );
        check(
            "sub_plain",
            &ops.sub_plain(&a, &p).unwrap(),
            &zip(&x, &w, |x, w| x - w),
        );
        let product = ops.mul_plain(&a, &p).unwrap();
        assert!(ops.scale(&product).matches(scale.product(scale)));
        check("mul_plain", &product, &zip(&x, &w, |x, w| x * w));
        let rescaled = ops.rescale(&product).unwrap();
        canonical(&ops, &rescaled);
        check("rescale", &rescaled, &zip(&x, &w, |x, w| x * w));
    }

    let product = ops.mul(&a, &b).unwrap();
    canonical(&ops, &product);
    check("mul", &product, &zip(&x, &y, |x, y| x * y));
    check(
        "square",
        &ops.square(&a).unwrap(),
        &zip(&x, &x, |x, _| x * x),
    );
    let sum = ops.mul_sum(&[(&a, &b), (&a, &a), (&b, &b)]).unwrap();
    check("mul_sum", &sum, &zip(&x, &y, |x, y| x * y + x * x + y * y));

    let rotated = ops
        .rotate_many(&a, &[0, 1, -1, 100, -5, count as i64])
        .unwrap();
    for (ct, by) in rotated.iter().zip([0, 1, -1, 100, -5, 0]) {
        check(&format!("rotate by {by}"), ct, &rotate(&x, by));
    }
    let single = ops.rotate(&a, -5).unwrap();
    assert!(single.c0() == rotated[4].c0() && single.c1() == rotated[4].c1());
    for by in [&[][..], &[0], &[1], &[1, -1, 100], &[-5, 0, 1]] {
        let mut expected = x.clone();
        for &by in by {
            let turned = rotate(&x, by);
            expected = zip(&expected, &turned, |x, y| x + y);
        }
        let sum = ops.rotate_sum(&a, by).unwrap();
        canonical(&ops, &sum);
        check(&format!("sum of rotations by {by:?}"), &sum, &expected);
    }
    check(
        "conjugate",
        &ops.conjugate(&a).unwrap(),
        &zip(&x, &x, |x, _| x.conj()),
    );

    let dropped = ops.drop_to(&a, 1).unwrap();
    assert_eq!(ops.level(&dropped), 1);
    check("drop_to", &dropped, &x);
    for level in [0, 1, top - 1, top] {
        let adjusted = ops.adjust(&a, level).unwrap();
        assert_eq!(ops.level(&adjusted), level);
        canonical(&ops, &adjusted);
        check(&format!("adjust to {level}"), &adjusted, &x);
    }
    // What the adjusting constant stands for is rounded to one part in 2^37 or better.
    assert!(adjust_constant(params, scale, 0).unwrap() > 1 << 35);

    // Down to the last level, scales staying canonical; no slot exceeds one.
    let mut clear: Vec<Complex> = x.iter().map(|x| x * 0.7).collect();
    let mut power = kit.encrypt(3, &clear, top);
    while ops.level(&power) > 0 {
        power = ops.square(&power).unwrap();
        canonical(&ops, &power);
        clear = zip(&clear, &clear, |x, _| x * x);
    }
    check("a chain of squares", &power, &clear);
}

/// Sixteen random diagonals of two matrices on two inputs, as 4 baby and 4 giant steps, against
/// the matrix product.
fn transform(kit: &Kit, tolerance: f64) {
    let params = &kit.params;
    let (count, level) = (params.slots(), params.max_level() - 1);
    let mut ops = kit.evaluator();
    let inputs = [slots(20, count), slots(21, count)];
    let encrypted = [
        kit.encrypt(5, &inputs[0], level),
        kit.encrypt(6, &inputs[1], level),
    ];
    // Nested steps are by four each, of plaintexts at a scale of their own.
    for (nested, factor) in [(false, 1.0), (true, 1.0), (true, 0.625)] {
        let plain_scale = params.scale_at(level).multiply(factor);
        let mut expected = vec![Complex::default(); count];
        let mut giants = Vec::new();
        for giant in 0..4i64 {
            let mut terms = Vec::new();
            for baby in 0..4i64 {
                for (input, values) in inputs.iter().enumerate() {
                    let diagonal = slots((100 * input as i64 + 4 * giant + baby) as u64, count);
                    for (j, out) in expected.iter_mut().enumerate() {
                        let from = (j + (4 * giant + baby) as usize) % count;
                        *out += diagonal[j] * values[from];
                    }
                    let plain = SlotVector::Dense(rotate(&diagonal, -4 * giant));
                    let plain = ops.term_plain(&plain, level, plain_scale, baby).unwrap();
                    terms.push(Term { input, baby, plain });
                }
            }
            let rotation = if nested { 4.min(4 * giant) } else { 4 * giant };
            giants.push(Giant { rotation, terms });
        }
        let transform = Transform { giants };
        let encrypted = [&encrypted[0], &encrypted[1]];
        let result = match nested {
            true => ops.nested_transform(&encrypted, &transform),
            false => ops.linear_transform(&encrypted, &transform),
        };
        let result = result.unwrap();
        assert_eq!(ops.level(&result), level - 1);
        let scale = params.scale_at(level - 1).multiply(factor);
        assert!(ops.scale(&result).matches(scale));
        let error = max_error(&kit.decrypt(&result), &expected);
        assert!(error < tolerance, "nested {nested}: error {error:e}");
    }
}

#[test]
fn every_operation_on_a_toy_ring() {
    let kit = Kit::new(&toy(9), 1, &ROTATIONS);
    every_operation(&kit, 2f64.powi(-24));
    transform(&kit, 2f64.powi(-22));
}

#[test]
fn every_operation_on_levels_made_of_words() {
    use veilformer_ckks::{ParamsSpec, WordSpec};
    // Two words of 22 bits per level; words of 30 and 25 bits that a step drops and adds.
    for (scale_bits, first_bits, main_bits, side_bits, most_side) in
        [(44, 44, 22, 22, 0), (40, 50, 30, 25, 4)]
    {
        let spec = ParamsSpec {
            first_bits,
            scale_bits,
            special_bits: 31,
            special_count: 4,
            digit_limbs: 4,
            ..toy_spec(9)
        };
        let words = WordSpec {
            main_bits,
            side_bits,
            most_side,
        };
        let params = spec.validate_words_insecure_for_tests(words).unwrap();
        let kit = Kit::new(&params, 1, &ROTATIONS);
        every_operation(&kit, 2f64.powi(-24));
        transform(&kit, 2f64.powi(-22));
    }
}

#[test]
#[ignore = "full size: some seconds and a gigabyte"]
fn every_operation_at_full_size() {
    let kit = Kit::new(&demo(), 1, &ROTATIONS);
    assert!(!kit.params.is_insecure());
    assert_eq!(kit.keys.security().bits(), 128);
    every_operation(&kit, 2f64.powi(-18));
    transform(&kit, 2f64.powi(-17));
}

#[test]
fn rotations_of_all_kinds_on_all_levels() {
    let params = toy(7);
    let by: Vec<i64> = (-3..=3).chain([16, 31, 32, 33, 63]).collect();
    let kit = Kit::new(&params, 2, &by);
    let ops = kit.evaluator();
    let x = slots(9, params.slots());
    for level in 0..=params.max_level() {
        let ct = kit.encrypt(level as u64, &x, level);
        for (rotated, &by) in ops.rotate_many(&ct, &by).unwrap().iter().zip(&by) {
            let error = max_error(&kit.decrypt(rotated), &rotate(&x, by));
            assert!(
                error < 2f64.powi(-24),
                "by {by} at level {level}: {error:e}"
            );
        }
    }
}

#[test]
fn what_cannot_be_done_is_an_error() {
    let params = toy(7);
    let kit = Kit::new(&params, 3, &[1]);
    let other = Kit::new(&params, 4, &[1]);
    let mut ops = kit.evaluator();
    let x = slots(1, params.slots());
    let a = kit.encrypt(1, &x, 3);
    let low = kit.encrypt(2, &x, 0);
    assert!(matches!(
        ops.rotate(&a, 2),
        Err(OpsError::MissingKey { .. })
    ));
    assert!(matches!(
        ops.add(&a, &low),
        Err(OpsError::LevelMismatch { .. })
    ));
    assert!(matches!(
        ops.mul(&low, &low),
        Err(OpsError::OutOfLevels { .. })
    ));
    assert!(matches!(
        ops.rescale(&low),
        Err(OpsError::OutOfLevels { .. })
    ));
    let doubled = kit.encrypt_at(3, &x, 3, params.scale_at(3).multiply(2.0));
    assert!(matches!(
        ops.add(&a, &doubled),
        Err(OpsError::ScaleMismatch { .. })
    ));
    let foreign = other.encrypt(1, &x, 3).export(&other.backend).unwrap();
    assert!(matches!(
        ops.import(foreign),
        Err(OpsError::WrongKey { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Encryption and decryption, secret-key and public-key, keep what they are given.
    #[test]
    fn round_trip(seed in any::<u64>(), level in 0usize..=5, log_size in -20i32..8) {
        let params = toy(8);
        let kit = Kit::new(&params, seed, &[]);
        let size = f64::from(log_size).exp2();
        let x: Vec<Complex> = slots(seed, params.slots()).iter().map(|z| z * size).collect();
        // Fresh noise: 16 slots of error at 3.2 sqrt(N) per slot, and encoding's rounding.
        let bound = 2f64.powi(-36) * 8.0 * 3.2 * 16.0;
        let found = kit.decrypt(&kit.encrypt(seed, &x, level));
        prop_assert!(max_error(&found, &x) < bound + size * 1e-13);
    }
}
