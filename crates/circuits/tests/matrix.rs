//! Matrix products against the definition, and their counts against what runs.
#![allow(clippy::unwrap_used)] // a test's way to fail

use proptest::prelude::*;
use veilformer_circuits::matrix::{
    Hoisting, MatrixProduct, Method, Packing, PruneUnit, Weights, Wrap,
};
use veilformer_circuits::testing::{ClearOps, Counting, toy_params};
use veilformer_ckks::{Ops, Params};

/// A value in [-1, 1) for some numbers.
fn value(a: usize, b: usize, seed: u64) -> f64 {
    let mut x = (a as u64 * 0x9E37 + b as u64 * 0x85EB + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^= x >> 29;
    (x.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f64 / (1u64 << 23) as f64 - 1.0
}

fn table(features: usize, tokens: usize, seed: u64) -> Vec<Vec<f64>> {
    let feature = |f| (0..tokens).map(|t| value(f, t, seed)).collect();
    (0..features).map(feature).collect()
}

/// Runs a product in the clear; its result is the definition's, its counts are those predicted.
fn check(params: &Params, weights: &Weights, tokens: usize, (packing, method): (Packing, Method)) {
    let slots = params.slots();
    packing.check(tokens, slots).unwrap();
    let product = MatrixProduct::new(weights, packing, method).unwrap();
    let level = params.max_level();
    let mut clear = ClearOps::new(params);
    let x = table(weights.cols(), tokens, 77);
    let inputs: Vec<_> = packing
        .pack(&x, slots)
        .unwrap()
        .iter()
        .map(|ct| clear.encrypt(ct, level).unwrap())
        .collect();
    let mut ops = Counting::new(clear);
    let encoded = product.encode(&mut ops, level).unwrap();
    let outputs = encoded
        .apply(&mut ops, &inputs.iter().collect::<Vec<_>>())
        .unwrap();
    let expected = weights.apply(&x);
    for out in &outputs {
        assert_eq!(ops.level(out), level - product.levels());
        let canonical = params.scale_at(level - product.levels());
        assert!(ops.scale(out).matches(canonical));
    }
    let decrypted: Vec<_> = outputs.iter().map(|ct| ops.inner().decrypt(ct)).collect();
    let got = packing.unpack(&decrypted, weights.rows(), tokens);
    for (row, (got, expected)) in got.iter().zip(&expected).enumerate() {
        for (t, (g, e)) in got.iter().zip(expected).enumerate() {
            assert!(
                (g - e).abs() < 1e-7,
                "{packing:?} {method:?}: feature {row} of token {t} is {g}, expected {e}"
            );
        }
    }
    let counted = product.counts(slots);
    assert_eq!(
        (counted.inputs, counted.outputs),
        (inputs.len(), outputs.len())
    );
    let mut ran = ops.counts();
    (ran.inputs, ran.outputs, ran.levels) = (counted.inputs, counted.outputs, product.levels());
    assert_eq!(counted, ran, "{packing:?} {method:?}");
    let (rotations, conjugation) = product.rotations();
    let rotations: std::collections::BTreeSet<i64> = rotations
        .iter()
        .map(|r| r.rem_euclid(slots as i64))
        .filter(|r| *r != 0)
        .collect();
    assert_eq!(counted.keys, rotations.len() + usize::from(conjugation));
}

fn methods(baby_steps: usize) -> Vec<Method> {
    let mut all = vec![Method::PackedRows];
    for hoisting in [Hoisting::Once, Hoisting::Twice] {
        for wrap in [Wrap::Signed, Wrap::Paired] {
            all.push(Method::Diagonals {
                baby_steps,
                hoisting,
                wrap,
            });
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_method_is_the_definition(
        rows in 1usize..40,
        cols in 1usize..40,
        (log_width, tokens) in (0u32..5).prop_flat_map(|w| (Just(w), 1usize..=(64 >> w))),
        baby_steps in 1usize..12,
        (unit, share) in (0usize..6, 0usize..5),
        seed in 0u64..1000,
    ) {
        let params = toy_params(3);
        let width = 1usize << log_width;
        let weights = Weights::from_fn(rows, cols, |r, c| value(r, c, seed)).unwrap();
        let unit = match unit {
            0 => PruneUnit::Block(width),
            1 => PruneUnit::Block(3),
            2 => PruneUnit::Diagonal(4),
            _ => PruneUnit::Diagonal(width),
        };
        let weights = weights.pruned(unit, [0.0, 0.5, 0.75, 0.9, 1.0][share]);
        let run = tokens.next_power_of_two();
        let packings = [
            Packing::FeatureFast { width },
            Packing::TokenFast { width, run },
            Packing::Column,
        ];
        for packing in packings {
            for method in methods(baby_steps) {
                check(&params, &weights, tokens, (packing, method));
            }
        }
    }
}

/// Parameters of N = 2^10 for larger shapes.
fn larger() -> Params {
    veilformer_ckks::ParamsSpec {
        log_n: 10,
        first_bits: 48,
        scale_bits: 36,
        levels: 3,
        special_bits: 45,
        special_count: 2,
        digit_limbs: 2,
        security: veilformer_ckks::SecurityLevel::Bits128,
    }
    .validate_insecure_for_tests()
    .unwrap()
}

/// Shapes of transformers, and those that are no power of two, have one row or one column, or
/// rows without any weight.
#[test]
fn shapes_of_transformers() {
    let params = larger();
    let dense = |rows, cols| Weights::from_fn(rows, cols, |r, c| value(r, c, 3) / 8.0).unwrap();
    let feature_fast = |width| Packing::FeatureFast { width };
    let paired = Method::diagonals(32);
    let signed = Method::Diagonals {
        baby_steps: 32,
        hoisting: Hoisting::Twice,
        wrap: Wrap::Signed,
    };
    let token_fast = Packing::TokenFast { width: 256, run: 2 };
    check(&params, &dense(128, 128), 4, (feature_fast(128), paired));
    check(&params, &dense(768, 768), 2, (feature_fast(256), paired));
    check(&params, &dense(768, 768), 2, (feature_fast(256), signed));
    check(&params, &dense(768, 768), 2, (token_fast, signed));
    check(&params, &dense(3072, 768), 2, (feature_fast(256), paired));
    check(&params, &dense(768, 3072), 2, (feature_fast(256), paired));
    check(&params, &dense(384, 100), 4, (feature_fast(128), paired));
    check(&params, &dense(1, 300), 1, (feature_fast(512), paired));
    check(&params, &dense(300, 1), 1, (feature_fast(512), paired));
    let rows = |r: usize| if r / 64 == 1 { 0.0 } else { 1.0 };
    let gap = Weights::from_fn(192, 70, |r, c| rows(r) * value(r, c, 4)).unwrap();
    for packing in [feature_fast(64), Packing::TokenFast { width: 64, run: 8 }] {
        for method in methods(8) {
            check(&params, &gap, 7, (packing, method));
        }
    }
    let none = dense(70, 70).pruned(PruneUnit::Block(1), 1.0);
    check(&params, &none, 7, (feature_fast(64), paired));
}

/// What a dense product of 768 x 768 takes at 128 tokens in N = 2^16, by hand.
#[test]
fn counts_of_a_dense_product() {
    let slots = 1 << 15;
    let weights = Weights::from_fn(768, 768, |_, _| 1.0).unwrap();
    let entries = weights.nonzero();
    let count = |packing, wrap, hoisting| {
        let method = Method::Diagonals {
            baby_steps: 32,
            hoisting,
            wrap,
        };
        MatrixProduct::new(&weights, packing, method)
            .unwrap()
            .counts(slots)
    };
    let feature_fast = Packing::FeatureFast { width: 256 };
    let token_fast = Packing::TokenFast {
        width: 256,
        run: 128,
    };
    let paired = count(feature_fast, Wrap::Paired, Hoisting::Twice);
    assert_eq!((paired.babies, paired.decompositions), (3 * 31, 3));
    assert_eq!((paired.giants, paired.divisions), (3 * 7, 3));
    assert_eq!((paired.rotations, paired.additions), (3 * 2, 9));
    assert_eq!(paired.extended.periodic, 9 * 8 * 31);
    assert_eq!(paired.plain.periodic, 9 * 8 + 3);
    assert_eq!(paired.keys, 31 + 7 + 2);
    // Two words per weight, but for the imaginary units of the three folds.
    assert_eq!(paired.plain_words, 2 * entries + 3 * 2);
    let signed = count(feature_fast, Wrap::Signed, Hoisting::Twice);
    assert_eq!((signed.giants, signed.rotations), (3 * 15, 0));
    assert_eq!(signed.plain_words, 9 * 511 * 512);
    assert!(signed.plain_words < 4 * entries);
    let dense = count(token_fast, Wrap::Signed, Hoisting::Twice);
    assert_eq!(
        (dense.extended.dense, dense.plain.dense),
        (9 * 8 * 31, 9 * 8)
    );
    assert_eq!(dense.plain_words, 256 * entries);
    let once = count(token_fast, Wrap::Signed, Hoisting::Once);
    assert_eq!(
        (once.hoisted, once.babies, once.plain_giants),
        (3 * 31, 0, 3 * 7)
    );
    let rows = MatrixProduct::new(&weights, feature_fast, Method::PackedRows).unwrap();
    let rows = rows.counts(slots);
    assert_eq!((rows.rotations, rows.plain.periodic), (768 * 8, 768 * 4));
    assert_eq!((rows.keys, rows.levels), (16, 2));
    let columns = MatrixProduct::new(&weights, Packing::Column, Method::diagonals(1)).unwrap();
    let columns = columns.counts(slots);
    assert_eq!((columns.plain.scalar, columns.key_switches()), (entries, 0));
    // Half of the diagonals gone in each block: half of the products.
    let uneven = |r: usize, c: usize| (1 + (c + 256 - r % 256) % 256) as f64;
    let uneven = Weights::from_fn(768, 768, uneven).unwrap();
    let half = uneven.pruned(PruneUnit::Diagonal(256), 0.5);
    let half = MatrixProduct::new(&half, feature_fast, Method::diagonals(32)).unwrap();
    assert_eq!(half.counts(slots).plain_words, entries + 3 * 2);
}
