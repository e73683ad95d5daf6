//! The kernels of an encoder against their definitions, in the clear and encrypted.
#![allow(clippy::unwrap_used)] // a test's way to fail

use std::ops::ControlFlow;

use proptest::prelude::*;
use veilformer_circuits::CircuitError;
use veilformer_circuits::encoder::{
    Heads, KeySum, LayerNorm, Mask, Parts, Pool, Scores, Softmax, Spread, Variance, Weighted,
    attend, power,
};
use veilformer_circuits::matrix::Packing;
use veilformer_circuits::polynomial::{Chebyshev, InputMap, evaluate_one};
use veilformer_circuits::testing::{ClearCiphertext, ClearOps, Counting, toy_params};
use veilformer_ckks::{
    Complex, EvaluationKeys, Evaluator, Ops, Params, ParamsSpec, SecretKind, SecurityLevel,
    SlotVector,
};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator};

/// A value in [-1, 1) for some numbers.
fn value(a: usize, b: usize, c: usize, seed: u64) -> f64 {
    let numbers = [0x9E37, 0x85EB, 0xC2B3]
        .iter()
        .zip([a, b, c])
        .map(|(factor, n)| factor * n as u64);
    let mut x = (numbers.sum::<u64>() + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^= x >> 29;
    (x.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f64 / (1u64 << 23) as f64 - 1.0
}

/// `table[head][token][dim]`.
type Table = Vec<Vec<Vec<f64>>>;

fn table(heads: &Heads, seed: u64) -> Table {
    let token = |h, t| (0..heads.dim).map(|f| value(h, t, f, seed)).collect();
    let head = |h| (0..heads.tokens).map(|t| token(h, t)).collect();
    (0..heads.heads).map(head).collect()
}

fn packed(heads: &Heads, table: &Table) -> Vec<SlotVector> {
    heads.pack(|h, f, t| table[h][t][f])
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `sum over keys below count of weight(<q, k>) v`, over the sum of the weights if `normal`.
fn attention(
    [q, k, v]: [&Table; 3],
    count: usize,
    weight: impl Fn(f64) -> f64,
    normal: bool,
) -> Table {
    let head = |h: usize| {
        let token = |query: &Vec<f64>| {
            let weights: Vec<f64> = k[h].iter().map(|key| weight(dot(query, key))).collect();
            let total: f64 = weights.iter().take(count).sum();
            let mut out = vec![0.0; query.len()];
            for (w, value) in weights.iter().zip(&v[h]).take(count) {
                out.iter_mut().zip(value).for_each(|(o, x)| *o += w * x);
            }
            let by = if normal { total } else { 1.0 };
            out.iter().map(|o| o / by).collect()
        };
        q[h].iter().map(token).collect()
    };
    (0..q.len()).map(head).collect()
}

/// Every shape of so many slots, or half of them, that the numbers ask for.
fn shapes() -> impl Strategy<Value = Heads> {
    let numbers = (0u32..=4, 0u32..=1, 0u32..=3, 0u32..=2, 0u32..=4);
    (numbers, 1usize..=8, 1usize..=20).prop_filter_map(
        "shape",
        |((tokens, spare, lanes, copies, babies), heads, dim)| {
            let tokens = 1usize << tokens;
            let heads = Heads {
                tokens,
                width: (128 / tokens) >> spare,
                heads,
                dim,
                lanes: 1 << lanes,
                copies: 1 << copies,
                babies: 1 << babies,
            };
            heads.check(128).ok().map(|()| heads)
        },
    )
}

fn encrypt(ops: &mut ClearOps, slots: &[SlotVector], level: usize) -> Vec<ClearCiphertext> {
    let encrypted = slots.iter().map(|slots| ops.encrypt(slots, level).unwrap());
    encrypted.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn scores_are_where_they_should_be(heads in shapes(), seed in 0u64..1000) {
        let params = toy_params(4);
        let mut ops = ClearOps::new(&params);
        let (q, k) = (table(&heads, seed), table(&heads, seed + 5000));
        let query = encrypt(&mut ops, &packed(&heads, &q), 3);
        let key = encrypt(&mut ops, &packed(&heads, &k), 4);
        let spread = Spread::new(&mut ops, heads, 4).unwrap();
        let key: Vec<_> = key
            .iter()
            .map(|k| {
                let k = spread.apply(&mut ops, k).unwrap();
                ops.adjust(&k, 3).unwrap()
            })
            .collect();
        let scores = Scores::new(&mut ops, heads, 3, 0.25).unwrap();
        let scores = scores.apply(&mut ops, &query, &key).unwrap();
        prop_assert_eq!(scores.len(), heads.score_ciphertexts());
        let parts = Parts::new(&mut ops, 1).unwrap();
        let mut found: Vec<[Vec<Complex>; 2]> = Vec::new();
        for ct in &scores {
            prop_assert_eq!(ops.level(ct), 1);
            prop_assert!(ops.scale(ct).matches(params.scale_at(1)));
            found.push(match heads.is_paired() {
                true => parts.split(&mut ops, ct).unwrap().map(|ct| ops.decrypt(&ct)),
                false => [ops.decrypt(ct), vec![Complex::default(); params.slots()]],
            });
        }
        for (h, (q, k)) in q.iter().zip(&k).enumerate() {
            for (t, query) in q.iter().enumerate() {
                for (u, key) in k.iter().enumerate() {
                    let at = heads.score(h, t, u);
                    let expected = dot(query, key) / 4.0;
                    // Again after every period.
                    for slot in (at.slot..params.slots()).step_by(heads.period()) {
                        let got = &mut found[at.ciphertext][usize::from(at.imaginary)][slot];
                        prop_assert!((*got - expected).norm() < 1e-6, "{heads:?} {at:?} {got}");
                        *got = Complex::default();
                    }
                }
            }
        }
        // Each score had a slot of its own, and in all others is zero.
        for z in found.iter().flatten().flatten() {
            prop_assert!(z.norm() < 1e-6, "{heads:?}: {z}");
        }
    }

    #[test]
    fn attention_is_its_definition(
        heads in shapes(),
        (missing, encrypted) in (0usize..4, any::<bool>()),
        seed in 0u64..1000,
    ) {
        let params = toy_params(8);
        let mut ops = ClearOps::new(&params);
        let count = heads.tokens - missing.min(heads.tokens - 1);
        let [q, k, v] = [1, 2, 3].map(|i| table(&heads, seed + 5000 * i));
        let [query, key, values] = [&q, &k, &v].map(|x| encrypt(&mut ops, &packed(&heads, x), 8));
        let spread = Spread::new(&mut ops, heads, 8).unwrap();
        let spread = |ops: &mut ClearOps, blocks: &[ClearCiphertext]| -> Vec<_> {
            let blocks = blocks.iter().map(|ct| spread.apply(ops, ct).unwrap());
            blocks.collect::<Vec<_>>()
        };
        let (key, values) = (spread(&mut ops, &key), spread(&mut ops, &values));
        let lower = |ops: &mut ClearOps, blocks: &[ClearCiphertext]| -> Vec<_> {
            let blocks = blocks.iter().map(|ct| ops.adjust(ct, 7).unwrap());
            blocks.collect::<Vec<_>>()
        };
        let (query, key) = (lower(&mut ops, &query), lower(&mut ops, &key));
        let scores = Scores::new(&mut ops, heads, 7, 1.0).unwrap();
        let scores = scores.apply(&mut ops, &query, &key).unwrap();
        // A function in the clear stands for a polynomial: x -> 1 + x + x^2.
        let weight = |ops: &mut ClearOps, x: &ClearCiphertext| {
            let square = ops.square(x)?;
            let x = ops.adjust(x, ops.level(&square))?;
            let sum = ops.add(&square, &x)?;
            let one = ops.plain(&SlotVector::real_constant(1.0), ops.level(&sum), ops.scale(&sum))?;
            Ok(ops.add_plain(&sum, &one)?)
        };
        let real = |x: f64| 1.0 + x + x * x;
        let masks: Vec<_> = heads
            .of_keys(|key| f64::from(u8::from(key < count)))
            .iter()
            .map(|slots| match encrypted {
                true => Mask::Encrypted(ops.encrypt(slots, 6).unwrap()),
                false => Mask::public(&mut ops, slots, 4).unwrap(),
            })
            .collect();
        // 1/z, computed in the clear: what is at hand in place of a polynomial. A sum of zero
        // would show as a slot that is not finite.
        let inverse = |ops: &mut ClearOps, z: &ClearCiphertext| {
            let values = ops.decrypt(z);
            assert!(values.iter().all(|z| z.re > 0.1), "{heads:?}: {values:?}");
            let slots: Vec<f64> = values.iter().map(|z| 1.0 / z.re).collect();
            Ok(ops.encrypt(&SlotVector::real(&slots), ops.level(z))?)
        };
        let softmax = Softmax { scores: &scores, weight, inverse };
        let got = attend(&mut ops, heads, softmax, Some(&masks), (&values, (1.0, 1.0))).unwrap();
        let expected = attention([&q, &k, &v], count, real, true);
        let got: Vec<_> = got.iter().map(|ct| ops.decrypt(ct)).collect();
        same(&heads, &got, &expected, 1e-5);
    }

    /// Keys that are zero at padded tokens weigh nothing: no mask, no level for one.
    #[test]
    fn power_softmax_is_its_definition(
        heads in shapes(),
        missing in 0usize..4,
        seed in 0u64..1000,
    ) {
        let heads = Heads { copies: 1, ..heads };
        let params = toy_params(8);
        let mut ops = ClearOps::new(&params);
        let count = heads.tokens - missing.min(heads.tokens - 1);
        let [q, mut k, v] = [1, 2, 3].map(|i| table(&heads, seed + 5000 * i));
        k.iter_mut().flat_map(|head| head.iter_mut().skip(count)).flatten().for_each(|x| *x = 0.0);
        let [query, key, values] = [&q, &k, &v].map(|x| encrypt(&mut ops, &packed(&heads, x), 7));
        let scores = Scores::new(&mut ops, heads, 7, 0.5).unwrap();
        let scores = scores.apply(&mut ops, &query, &key).unwrap();
        let inverse = |ops: &mut ClearOps, z: &ClearCiphertext| {
            let slots: Vec<f64> = ops.decrypt(z).iter().map(|z| 1.0 / (z.re + 0.01)).collect();
            Ok(ops.encrypt(&SlotVector::real(&slots), ops.level(z))?)
        };
        let softmax = Softmax { scores: &scores, weight: |ops: &mut ClearOps, x: &ClearCiphertext| power(ops, x, 4), inverse };
        let got = attend(&mut ops, heads, softmax, None, (&values, (1.0, 0.0))).unwrap();
        prop_assert!(got.iter().all(|ct| ops.level(ct) == 0));
        let got: Vec<_> = got.iter().map(|ct| ops.decrypt(ct)).collect();
        // 0.01 more in every sum is one more key, of no value.
        let mut expected = attention([&q, &k, &v], count, |s| (s / 2.0).powi(4), false);
        for (h, head) in expected.iter_mut().enumerate() {
            for (query, row) in q[h].iter().zip(head) {
                let weights = k[h].iter().map(|key| (dot(query, key) / 2.0).powi(4));
                let total = weights.sum::<f64>() + 0.01;
                row.iter_mut().for_each(|x| *x /= total);
            }
        }
        same(&heads, &got, &expected, 1e-5);
    }

    #[test]
    fn norms_are_their_definition(
        hidden in 1usize..100,
        log_width in 0u32..=5,
        spare in 0u32..=1,
        seed in 0u64..1000,
    ) {
        let width = 1usize << log_width;
        let tokens = (128 / width) >> spare;
        let params = toy_params(6);
        let x: Vec<Vec<f64>> = (0..hidden)
            .map(|f| (0..tokens).map(|t| value(f, t, 0, seed)).collect())
            .collect();
        let packing = Packing::FeatureFast { width };
        let blocks = packing.pack(&x, params.slots()).unwrap();
        for variance in [Variance::Centred, Variance::Moments] {
            let mut ops = ClearOps::new(&params);
            let blocks = encrypt(&mut ops, &blocks, 6);
            let norm = LayerNorm::new(&mut ops, (hidden, width), 6, variance).unwrap();
            let mut at = 0;
            let inverse = |ops: &mut ClearOps, z: &ClearCiphertext| {
                at = ops.level(z);
                let slots: Vec<f64> = ops
                    .decrypt(z)
                    .iter()
                    .map(|z| 1.0 / (z.re + 0.01).sqrt())
                    .collect();
                Ok(ops.encrypt(&SlotVector::real(&slots), ops.level(z))?)
            };
            let got = norm.apply(&mut ops, &blocks, inverse).unwrap();
            prop_assert_eq!(at, if variance == Variance::Centred { 3 } else { 4 });
            let got: Vec<_> = got.iter().map(|ct| ops.decrypt(ct)).collect();
            let back = packing.unpack(&got, got.len() * width, tokens);
            for t in 0..tokens {
                let mean = x.iter().map(|f| f[t]).sum::<f64>() / hidden as f64;
                let square = x.iter().map(|f| (f[t] - mean).powi(2)).sum::<f64>();
                let by = (square / hidden as f64 + 0.01).sqrt();
                for (f, row) in back.iter().enumerate() {
                    // Padding stays zero.
                    let expected = x.get(f).map_or(0.0, |row| (row[t] - mean) / by);
                    prop_assert!(
                        (row[t] - expected).abs() < 1e-6,
                        "{hidden}, {width}, {variance:?}: {} is not {expected}", row[t]
                    );
                }
            }
        }
    }

    #[test]
    fn pools_are_their_definition(
        log_tokens in 0u32..=5,
        spare in 0u32..=1,
        count in 1usize..32,
        encrypted in any::<bool>(),
        seed in 0u64..1000,
    ) {
        let tokens = 1usize << log_tokens;
        let width = (128 / tokens) >> spare;
        let count = count.min(tokens);
        let pool = Pool { tokens, width };
        let params = toy_params(2);
        let mut ops = ClearOps::new(&params);
        let slots: Vec<f64> = (0..128)
            .map(|slot| value(slot % (tokens * width), 0, 0, seed))
            .collect();
        let block = ops.encrypt(&SlotVector::real(&slots), 2).unwrap();
        let mask = pool
            .of_tokens(|t| if t < count { 1.0 / count as f64 } else { 0.0 })
            .unwrap();
        let mask = match encrypted {
            true => Mask::Encrypted(ops.encrypt(&mask, 2).unwrap()),
            false => Mask::public(&mut ops, &mask, 2).unwrap(),
        };
        let mean = pool.sum(&mut ops, &block, &mask).unwrap();
        prop_assert_eq!(ops.level(&mean), 1);
        let first = pool.token(&mut ops, &block, 0).unwrap();
        let (mean, first) = (ops.decrypt(&mean), ops.decrypt(&first));
        for slot in 0..tokens * width {
            let column = slots.iter().skip(slot % width).step_by(width).take(count);
            let expected = column.sum::<f64>() / count as f64;
            prop_assert!((mean[slot] - expected).norm() < 1e-8);
            let expected = if slot < width { slots[slot] } else { 0.0 };
            prop_assert!((first[slot] - expected).norm() < 1e-8);
        }
        prop_assert!(pool.token(&mut ops, &block, tokens).is_err());
    }
}

/// Results lie in the first copy's lanes; lanes without a head and places without a dimension are
/// zero there.
fn same(heads: &Heads, got: &[Vec<Complex>], expected: &Table, tolerance: f64) {
    let places = heads.places();
    for (block, slots) in got.iter().enumerate() {
        for (slot, z) in slots.iter().enumerate() {
            let (t, at) = (slot / heads.width % heads.tokens, slot % heads.width);
            if at >= heads.width / heads.copies {
                continue;
            }
            let (h, f) = (at / places, block * places + at % places);
            let row = expected.get(h).map(|head| &head[t]);
            let e = row.and_then(|row| row.get(f)).copied().unwrap_or_default();
            assert!(
                (z - e).norm() < tolerance,
                "{heads:?}: head {h} token {t} dim {f} is {z}, expected {e}"
            );
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let good = Heads::new(8, 16, 3, 4).unwrap();
    assert_eq!((good.lanes, good.copies, good.babies), (4, 1, 4));
    let bad = |change: fn(&mut Heads)| {
        let mut heads = good;
        change(&mut heads);
        matches!(heads.check(128), Err(CircuitError::Shape { .. }))
    };
    assert!(!bad(|_| {}));
    assert!(bad(|h| h.tokens = 6));
    assert!(bad(|h| h.width = 32));
    assert!(bad(|h| h.lanes = 2));
    assert!(bad(|h| h.lanes = 32));
    assert!(bad(|h| h.copies = 2));
    assert!(bad(|h| h.babies = 16));
    assert!(bad(|h| h.babies = 0));
    assert!(bad(|h| h.heads = 0));
    assert!(bad(|h| h.dim = 0));
    assert!(bad(|h| h.width = usize::MAX / 2 + 1));
    assert!(Heads::new(8, 16, usize::MAX, 4).is_err());
    assert!(Heads::new(0, 16, 1, 4).is_err());

    let params = toy_params(3);
    let mut ops = ClearOps::new(&params);
    let ct = ops.encrypt(&SlotVector::real_constant(0.1), 2).unwrap();
    let low = ops.adjust(&ct, 1).unwrap();
    let levels = |e: Result<_, CircuitError>| matches!(e, Err(CircuitError::Levels { .. }));
    assert!(levels(Scores::new(&mut ops, good, 1, 1.0).map(|_| ())));
    assert!(levels(Weighted::new(&mut ops, good, 1).map(|_| ())));
    assert!(levels(
        KeySum::new(&mut ops, good, 0, (1.0, 0.0)).map(|_| ())
    ));
    let norm = LayerNorm::new(&mut ops, (20, 16), 2, Variance::Centred);
    assert!(levels(norm.map(|_| ())));
    let norm = |ops: &mut ClearOps, shape| LayerNorm::new(ops, shape, 2, Variance::Moments);
    assert!(norm(&mut ops, (0, 16)).is_err());
    assert!(norm(&mut ops, (20, 12)).is_err());
    assert!(norm(&mut ops, (20, 256)).is_err());
    let norm = norm(&mut ops, (20, 16)).unwrap();
    assert!(norm.centre(&mut ops, std::slice::from_ref(&ct)).is_err());
    assert!(norm.centre(&mut ops, &[ct.clone(), low.clone()]).is_err());
    let scores = Scores::new(&mut ops, good, 2, 1.0).unwrap();
    let blocks = [ct.clone()];
    assert!(scores.apply(&mut ops, &blocks, &[]).is_err());
    assert!(
        scores
            .apply(&mut ops, &blocks, std::slice::from_ref(&low))
            .is_err()
    );
    let found = scores.apply(&mut ops, &blocks, &blocks).unwrap();
    assert_eq!(found.len(), 1);
    let weighted = Weighted::new(&mut ops, good, 2).unwrap();
    assert!(weighted.apply(&mut ops, &blocks, &[]).is_err());
    assert!(weighted.apply(&mut ops, &[low], &blocks).is_err());
    let sum = KeySum::new(&mut ops, good, 2, (1.0, 0.0)).unwrap();
    assert!(sum.apply(&mut ops, &[]).is_err());
    let softmax = Softmax {
        scores: &found,
        weight: |ops: &mut ClearOps, x: &ClearCiphertext| power(ops, x, 4),
        inverse: |_: &mut ClearOps, z: &ClearCiphertext| Ok(z.clone()),
    };
    let none = attend(&mut ops, good, softmax, Some(&[]), (&blocks, (1.0, 0.0)));
    assert!(matches!(none, Err(CircuitError::Shape { .. })));
    let pool = Pool {
        tokens: 12,
        width: 4,
    };
    assert!(pool.of_tokens(|_| 1.0).is_err());
}

#[test]
fn powers_take_the_levels_of_their_logarithm() {
    let params = toy_params(5);
    let mut ops = ClearOps::new(&params);
    let x = ops.encrypt(&SlotVector::real_constant(-0.9), 5).unwrap();
    for exponent in 1u32..=9 {
        let y = power(&mut ops, &x, exponent).unwrap();
        let levels = exponent.next_power_of_two().ilog2() as usize;
        assert_eq!(ops.level(&y), 5 - levels, "{exponent}");
        let error = ops.decrypt(&y)[0].re - (-0.9f64).powi(exponent as i32);
        assert!(error.abs() < 1e-9, "{exponent}: {error:e}");
    }
}

#[test]
fn candidates_are_those_that_fit() {
    let all = Heads::candidates(128, 256, 2, 64);
    assert!(all.iter().all(|heads| heads.check(1 << 15).is_ok()));
    let copies = |n| all.iter().filter(|heads| heads.copies == n).count();
    assert!(copies(1) > 0 && copies(4) > 0);
    // A lane of 128 places for 64 dimensions is half empty, and would be 2 lanes.
    assert!(all.iter().all(|heads| heads.lanes >= 4));
    let wide = Heads::new(128, 256, 12, 32).unwrap();
    assert!(Heads::candidates(128, 256, 12, 32).contains(&wide));
    assert!(Heads::candidates(12, 256, 2, 64).is_empty());
    assert!(Heads::candidates(0, 0, 0, 0).is_empty());
    assert!(Heads::candidates(8, 16, usize::MAX, 4).is_empty());
}

fn toy() -> Params {
    ParamsSpec {
        log_n: 10,
        first_bits: 48,
        scale_bits: 40,
        levels: 13,
        special_bits: 48,
        special_count: 4,
        digit_limbs: 4,
        security: SecurityLevel::Bits128,
    }
    .validate_insecure_for_tests()
    .unwrap()
}

/// A circuit of inputs at the highest level.
trait Circuit {
    fn run<O: Ops>(&self, ops: &mut O, inputs: &[O::Ct]) -> Vec<O::Ct>;
}

/// Softmax by polynomials for exp and the inverse, then a norm over what comes out and the mean of
/// all tokens: everything there is. Inputs: queries, keys, values, the key masks.
struct Everything {
    heads: Heads,
    count: usize,
}

impl Circuit for Everything {
    fn run<O: Ops>(&self, ops: &mut O, inputs: &[O::Ct]) -> Vec<O::Ct> {
        let heads = self.heads;
        let blocks = heads.blocks();
        let [query, key, value] = [0, 1, 2].map(|i| &inputs[i * blocks..(i + 1) * blocks]);
        let masks = inputs[3 * blocks..].iter().cloned().map(Mask::Encrypted);
        let masks: Vec<_> = masks.collect();
        let top = ops.level(&query[0]);
        let scores = Scores::new(ops, heads, top, 0.25).unwrap();
        let scores = scores.apply(ops, query, key).unwrap();
        let exp = Chebyshev::fit(f64::exp, 5, (-2.0, 2.0)).unwrap();
        let range = (self.count as f64 * 0.2, self.count as f64 * 4.0);
        let inverse = Chebyshev::fit(|z| 1.0 / z, 7, range).unwrap();
        let softmax = Softmax {
            scores: &scores,
            weight: |ops: &mut O, x: &O::Ct| evaluate_one(ops, x, &exp, InputMap::Affine),
            inverse: |ops: &mut O, z: &O::Ct| evaluate_one(ops, z, &inverse, InputMap::Affine),
        };
        let fill = (1.0, self.count as f64);
        let mut out = attend(ops, heads, softmax, Some(&masks), (value, fill)).unwrap();
        // The norm sees values; they have the levels that attention has used up.
        let hidden = value.len() * heads.width - heads.width / 4;
        let norm = LayerNorm::new(ops, (hidden, heads.width), top, Variance::Moments).unwrap();
        let (centred, variance) = norm.centre(ops, value).unwrap();
        out.extend(centred);
        out.push(variance);
        let pool = Pool {
            tokens: heads.tokens,
            width: heads.width,
        };
        let mean = pool.of_tokens(|_| 1.0 / heads.tokens as f64).unwrap();
        let mean = Mask::public(ops, &mean, top).unwrap();
        out.push(pool.sum(ops, &value[0], &mean).unwrap());
        out
    }
}

/// Encrypted, the results are those in the clear up to what the noise model says: the root of the
/// mean square of the error of each is within a factor of two of a simulation's, and the operations
/// and keys are those that the run in the clear needed.
#[test]
fn encrypted_as_in_the_clear() {
    let params = toy();
    let top = params.max_level();
    let heads = Heads::new(8, 64, 3, 28).unwrap();
    assert_eq!((heads.lanes, heads.blocks(), heads.babies), (4, 2, 8));
    let heads = Heads { babies: 4, ..heads };
    assert!(heads.is_paired());
    let count = 6;
    let circuit = Everything { heads, count };
    let mut inputs: Vec<SlotVector> = (1..=3)
        .flat_map(|seed| packed(&heads, &table(&heads, seed)))
        .collect();
    inputs.extend(heads.of_keys(|key| f64::from(u8::from(key < count))));

    let mut clear = Counting::new(ClearOps::new(&params));
    let cts = encrypt(clear.inner(), &inputs, top);
    let expected = circuit.run(&mut clear, &cts);
    let expected: Vec<_> = expected
        .iter()
        .map(|ct| clear.inner().decrypt(ct))
        .collect();
    let [q, k, v] = [1, 2, 3].map(|seed| table(&heads, seed));
    let exact = attention([&q, &k, &v], count, |s| (s / 4.0).exp(), true);
    same(&heads, &expected[..heads.blocks()], &exact, 0.05);

    let mut noisy = ClearOps::with_noise(&params, SecretKind::DenseTernary, 9);
    let cts = encrypt(&mut noisy, &inputs, top);
    let simulated = circuit.run(&mut noisy, &cts);
    let simulated: Vec<_> = simulated.iter().map(|ct| noisy.decrypt(ct)).collect();

    let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 1).unwrap();
    let secret = generator.secret_key().unwrap();
    let go = &mut |_: usize, _: usize| ControlFlow::Continue(());
    let stored = generator
        .evaluation_keys(&secret, clear.keys(), [0; 32], go)
        .unwrap();
    let backend = Cpu::new(params.chain().clone(), CpuConfig { isa: Isa::detect() }).unwrap();
    let keys = EvaluationKeys::prepare(&params, &backend, &stored).unwrap();
    let ops = Evaluator::new(&params, &backend, &keys).unwrap();
    let mut encryptor = Encryptor::insecure_deterministic_for_tests(&secret, 2).unwrap();
    let cts: Vec<_> = inputs
        .iter()
        .map(|slots| {
            let ct = encryptor.encrypt(slots, top).unwrap();
            ops.import(ct.expand(&params).unwrap()).unwrap()
        })
        .collect();
    let mut ops = Counting::new(ops);
    let outputs = circuit.run(&mut ops, &cts);
    assert_eq!(ops.counts(), clear.counts());
    let decryptor = Decryptor::new(&secret).unwrap();
    for (i, output) in outputs.iter().enumerate() {
        let host = output.export(&backend).unwrap();
        let got = decryptor.decrypt(&host).unwrap().reveal_to_owner().unwrap();
        let error = |got: &[Complex]| {
            let pairs = got.iter().zip(&expected[i]);
            let square: f64 = pairs.map(|(g, e)| (g - e).norm_sqr()).sum();
            (square / got.len() as f64).sqrt()
        };
        let (measured, predicted) = (error(&got), error(&simulated[i]));
        eprintln!(
            "output {i}: 2^{:.1}, simulated 2^{:.1}",
            measured.log2(),
            predicted.log2()
        );
        assert!((0.5..2.0).contains(&(measured / predicted)), "output {i}");
        assert!(measured < f64::exp2(-16.0), "output {i}: {measured:e}");
    }
}
