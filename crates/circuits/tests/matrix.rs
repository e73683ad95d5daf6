//! Matrix products against the definition, and their counts against what runs.
#![allow(clippy::unwrap_used)] // a test's way to fail

use proptest::prelude::*;
use veilformer_circuits::matrix::{
    Hoisting, MatrixProduct, Method, Packing, ProductCosts, PruneUnit, TileProduct, TileShape,
    UnitCosts, Weights, Wrap, plan,
};
use veilformer_circuits::testing::{ClearOps, Counting, toy_params};
use veilformer_ckks::{Ops, Params, SlotVector};

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

/// Costs in the proportions of N = 2^16, 24 limbs (`bench linear` prints them).
fn costs() -> UnitCosts {
    UnitCosts {
        decomposition: 14.0,
        hoisted: 18.0,
        baby: 6.0,
        giant: 35.0,
        plain_giant: 22.0,
        rotation: 32.0,
        relinearization: 40.0,
        product: 4.0,
        plain: ProductCosts {
            dense: 0.7,
            periodic: 0.3,
            scalar: 0.3,
        },
        extended: ProductCosts {
            dense: 1.2,
            periodic: 0.6,
            scalar: 0.6,
        },
        addition: 2.0,
        rescale: 9.0,
        division: 17.0,
    }
}

#[test]
fn plans_follow_tokens_and_weights() {
    let slots = 1 << 15;
    let weights = Weights::from_fn(768, 768, |r, c| value(r, c, 5)).unwrap();
    let one = plan(&weights, 128, slots, &costs()).unwrap();
    assert_eq!(one.packing, Packing::FeatureFast { width: 256 });
    let paired = matches!(
        one.method,
        Method::Diagonals {
            wrap: Wrap::Paired,
            ..
        }
    );
    assert!(paired, "{one:?}");
    assert!(one.counts.plain_words <= 3 * weights.nonzero());
    // What is planned is what the product says of itself.
    let product = MatrixProduct::new(&weights, one.packing, one.method).unwrap();
    assert_eq!(product.counts(slots), one.counts);
    assert_eq!(costs().of(&one.counts), one.milliseconds);
    // No split is cheaper.
    for baby_steps in [1, 8, 16, 32, 64, 128, 256] {
        let product = MatrixProduct::new(&weights, one.packing, Method::diagonals(baby_steps));
        assert!(costs().of(&product.unwrap().counts(slots)) >= one.milliseconds);
    }
    // Full plaintexts that cost a little less do not pay for their memory, free ones do.
    let words = |factor: f64| {
        let mut units = costs();
        units.plain.dense = factor * units.plain.periodic;
        units.extended.dense = factor * units.extended.periodic;
        let choice = plan(&weights, 128, slots, &units).unwrap();
        choice.counts.plain_words / weights.nonzero()
    };
    assert!(
        words(0.7) <= 3 && words(0.0) > 100,
        "{} {}",
        words(0.7),
        words(0.0)
    );
    // So many tokens that a ciphertext has room for one feature.
    let small = Weights::from_fn(16, 16, |r, c| value(r, c, 6)).unwrap();
    let many = plan(&small, slots, slots, &costs()).unwrap();
    assert_eq!(many.packing, Packing::Column);
    // Pruned weights cost less.
    let pruned = weights.pruned(PruneUnit::Block(256), 0.75);
    let pruned = plan(&pruned, 128, slots, &costs()).unwrap();
    assert!(pruned.milliseconds < 0.6 * one.milliseconds);
    // A single row: sums of slots need no diagonals.
    let row = Weights::from_fn(1, 4096, |r, c| value(r, c, 7)).unwrap();
    let row = plan(&row, 128, slots, &costs()).unwrap();
    assert_eq!(row.method, Method::PackedRows);
    assert!(plan(&weights, 0, slots, &costs()).is_err());
    assert!(plan(&weights, slots + 1, slots, &costs()).is_err());
}

/// The product of two matrices, row by row, by its definition.
fn naive(a: &[f64], b: &[f64], d: usize) -> Vec<f64> {
    let entry = |i: usize, j: usize| (0..d).map(|k| a[i * d + k] * b[k * d + j]).sum();
    (0..d * d).map(|at| entry(at / d, at % d)).collect()
}

fn check_tiles(params: &Params, shape: TileShape, babies: usize) {
    let (slots, level) = (params.slots(), params.max_level());
    let product = TileProduct::new(shape, babies).unwrap();
    let entries = shape.dim * shape.dim;
    let matrices = |seed| -> Vec<Vec<f64>> {
        let one = |h| (0..entries).map(|at| value(at, h, seed)).collect();
        (0..shape.batch).map(one).collect()
    };
    let (a, b) = (matrices(8), matrices(9));
    let mut clear = ClearOps::new(params);
    let mut encrypt = |m: &[Vec<f64>]| {
        let slots = SlotVector::Dense(shape.pack(m, slots));
        clear.encrypt(&slots, level).unwrap()
    };
    let (x, y) = (encrypt(&a), encrypt(&b));
    let mut ops = Counting::new(clear);
    let encoded = product.encode(&mut ops, level).unwrap();
    let out = encoded.apply(&mut ops, &x, &y).unwrap();
    assert_eq!(ops.level(&out), level - 3);
    assert!(ops.scale(&out).matches(params.scale_at(level - 3)));
    let got = ops.inner().decrypt(&out);
    for h in 0..shape.batch {
        let expected = naive(&a[h], &b[h], shape.dim);
        for (g, e) in shape.unpack(&got, h).iter().zip(&expected) {
            assert!((g - e).abs() < 1e-6, "{shape:?}, {babies}: {g} is not {e}");
        }
    }
    // Repeated as it came: products of products need no more.
    assert!((got[0] - got[shape.period() % slots]).norm() < 1e-6);
    let counted = product.counts(slots);
    let mut ran = ops.counts();
    (ran.inputs, ran.outputs, ran.levels) = (2, 1, 3);
    assert_eq!(counted, ran, "{shape:?}, {babies}");
    let turn = |by: &i64| by.rem_euclid(slots as i64);
    let rotations: std::collections::BTreeSet<i64> = product
        .rotations()
        .iter()
        .map(turn)
        .filter(|by| *by != 0)
        .collect();
    // Relinearization and conjugation besides.
    assert_eq!(counted.keys, rotations.len() + 2);
}

#[test]
fn products_of_encrypted_tiles() {
    for (dim, batch) in [(2, 1), (2, 32), (4, 1), (4, 8), (8, 1), (8, 2)] {
        for babies in [1, 2, 4] {
            if babies <= dim / 2 {
                check_tiles(&toy_params(4), TileShape { dim, batch }, babies);
            }
        }
    }
    check_tiles(&larger(), TileShape { dim: 16, batch: 2 }, 4);
    assert!(TileProduct::new(TileShape { dim: 6, batch: 1 }, 1).is_err());
    assert!(TileProduct::new(TileShape { dim: 8, batch: 1 }, 8).is_err());
    let large = TileProduct::new(TileShape { dim: 16, batch: 1 }, 8).unwrap();
    let params = toy_params(4);
    assert!(large.encode(&mut ClearOps::new(&params), 4).is_err());
    // d = 64, eight heads: rotations of the row steps, of phi, of sigma and tau; one relinearization
    // per giant step.
    let counts = TileProduct::new(TileShape { dim: 64, batch: 8 }, 8)
        .unwrap()
        .counts(1 << 15);
    assert_eq!((counts.relinearizations, counts.products), (4, 32));
    assert_eq!(counts.hoisted, 7);
    assert!(counts.key_switches() < 200, "{counts:?}");
}
