//! Circuits on real ciphertexts over a toy ring, against the same function in the clear.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;

use veilformer_circuits::matrix::{
    Diagonal, Hoisting, MatrixProduct, Method, Packing, TileProduct, TileShape, Weights, Wrap,
};
use veilformer_circuits::polynomial::{Chebyshev, EvaluationPlan, InputMap, evaluate};
use veilformer_circuits::testing::{ClearOps, Counting};
use veilformer_ckks::{
    EvaluationKeys, Evaluator, Giant, KeyList, KeyPurpose, Ops, Params, ParamsSpec, SecurityLevel,
    SlotVector, Term, Transform,
};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator};

fn toy() -> Params {
    ParamsSpec {
        log_n: 10,
        first_bits: 48,
        scale_bits: 40,
        levels: 6,
        special_bits: 48,
        special_count: 2,
        digit_limbs: 2,
        security: SecurityLevel::Bits128,
    }
    .validate_insecure_for_tests()
    .unwrap()
}

/// Several polynomials of one plan on encrypted slots, the interval's ends included.
#[test]
fn polynomials_on_ciphertexts() {
    let params = toy();
    let top = params.max_level();
    let interval = (-3.0, 5.0);
    let functions: [fn(f64) -> f64; 3] =
        [f64::tanh, |x| (x * 0.5).cos(), |x| 1.0 / (1.0 + (-x).exp())];
    let polynomials: Vec<Chebyshev> = functions
        .iter()
        .zip([31, 16, 23])
        .map(|(f, degree)| Chebyshev::fit(f, degree, interval).unwrap())
        .collect();
    let plan = EvaluationPlan::new(&polynomials, InputMap::Affine).unwrap();
    assert_eq!(plan.depth(), 6);

    let n = params.slots();
    let xs: Vec<f64> = (0..n)
        .map(|i| -3.0 + 8.0 * i as f64 / (n - 1) as f64)
        .collect();
    let slots = SlotVector::real(&xs);

    // The keys that the circuit needs are those that the clear run noted.
    let mut clear = ClearOps::new(&params);
    let x = clear.encrypt(&slots, top).unwrap();
    evaluate(&mut clear, &x, &plan).unwrap();
    let list: KeyList = clear.keys().clone();
    assert_eq!(
        list.iter().collect::<Vec<_>>(),
        [(KeyPurpose::Relinearization, top - 1)]
    );

    let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 1).unwrap();
    let secret = generator.secret_key().unwrap();
    let stored = generator
        .evaluation_keys(&secret, &list, [0; 32], &mut |_, _| {
            ControlFlow::Continue(())
        })
        .unwrap();
    let backend = Cpu::new(params.chain().clone(), CpuConfig { isa: Isa::detect() }).unwrap();
    let keys = EvaluationKeys::prepare(&params, &backend, &stored).unwrap();
    let mut ops = Evaluator::new(&params, &backend, &keys).unwrap();
    let x = Encryptor::insecure_deterministic_for_tests(&secret, 2)
        .unwrap()
        .encrypt_at(&slots, top, params.scale_at(top))
        .unwrap();
    let x = ops.import(x.expand(&params).unwrap()).unwrap();

    let outputs = evaluate(&mut ops, &x, &plan).unwrap();
    for (y, p) in outputs.iter().zip(&polynomials) {
        assert_eq!(ops.level(y), 0);
        assert!(ops.scale(y).matches(params.scale_at(0)));
        let host = y.export(&backend).unwrap();
        let got = Decryptor::new(&secret)
            .unwrap()
            .decrypt(&host)
            .unwrap()
            .reveal_to_owner()
            .unwrap();
        let worst = xs
            .iter()
            .zip(got.iter())
            .map(|(x, z)| (z.re - p.evaluate(*x)).abs().max(z.im.abs()))
            .fold(0.0, f64::max);
        eprintln!("degree {}: 2^{:.1}", p.degree(), worst.log2());
        assert!(worst < 2f64.powi(-20), "degree {}: {worst:e}", p.degree());
    }
}

/// A table of numbers in [-1, 1).
fn table(features: usize, tokens: usize, seed: usize) -> Vec<Vec<f64>> {
    let value = |f: usize, t: usize| ((f * 37 + t * 11 + seed) % 23) as f64 / 11.5 - 1.0;
    (0..features)
        .map(|f| (0..tokens).map(|t| value(f, t)).collect())
        .collect()
}

/// A circuit of some inputs at the highest level.
trait Circuit {
    fn run<O: Ops>(&self, ops: &mut O, inputs: &[&O::Ct]) -> Vec<O::Ct>;
}

impl Circuit for MatrixProduct<Diagonal> {
    fn run<O: Ops>(&self, ops: &mut O, inputs: &[&O::Ct]) -> Vec<O::Ct> {
        let encoded = self.encode(ops, ops.level(inputs[0])).unwrap();
        encoded.apply(ops, inputs).unwrap()
    }
}

impl Circuit for TileProduct<Diagonal> {
    fn run<O: Ops>(&self, ops: &mut O, inputs: &[&O::Ct]) -> Vec<O::Ct> {
        let encoded = self.encode(ops, ops.level(inputs[0])).unwrap();
        vec![encoded.apply(ops, inputs[0], inputs[1]).unwrap()]
    }
}

/// Runs a circuit in the clear to learn its keys, then encrypted: results differ by less than
/// `2^bits`, and the operations are those that were counted in the clear.
fn encrypted_as_in_the_clear(
    params: &Params,
    inputs: &[SlotVector],
    circuit: &impl Circuit,
    bits: f64,
) {
    let top = params.max_level();
    let mut clear = Counting::new(ClearOps::new(params));
    let cts: Vec<_> = inputs
        .iter()
        .map(|slots| clear.inner().encrypt(slots, top).unwrap())
        .collect();
    let expected = circuit.run(&mut clear, &cts.iter().collect::<Vec<_>>());

    let mut generator = KeyGenerator::insecure_deterministic_for_tests(params, 1).unwrap();
    let secret = generator.secret_key().unwrap();
    let go = &mut |_: usize, _: usize| ControlFlow::Continue(());
    let stored = generator
        .evaluation_keys(&secret, clear.keys(), [0; 32], go)
        .unwrap();
    let backend = Cpu::new(params.chain().clone(), CpuConfig { isa: Isa::detect() }).unwrap();
    let keys = EvaluationKeys::prepare(params, &backend, &stored).unwrap();
    let ops = Evaluator::new(params, &backend, &keys).unwrap();
    let mut encryptor = Encryptor::insecure_deterministic_for_tests(&secret, 2).unwrap();
    let cts: Vec<_> = inputs
        .iter()
        .map(|slots| {
            let ct = encryptor.encrypt(slots, top).unwrap();
            ops.import(ct.expand(params).unwrap()).unwrap()
        })
        .collect();
    let mut ops = Counting::new(ops);
    let outputs = circuit.run(&mut ops, &cts.iter().collect::<Vec<_>>());
    assert_eq!(ops.counts(), clear.counts());
    assert_eq!(outputs.len(), expected.len());
    let decryptor = Decryptor::new(&secret).unwrap();
    for (output, expected) in outputs.iter().zip(&expected) {
        let host = output.export(&backend).unwrap();
        let got = decryptor.decrypt(&host).unwrap().reveal_to_owner().unwrap();
        let expected = clear.inner().decrypt(expected);
        let pairs = got.iter().zip(&expected);
        let worst = pairs.map(|(g, e)| (g - e).norm()).fold(0.0, f64::max);
        assert!(worst < f64::exp2(bits), "2^{:.1}", worst.log2());
    }
}

/// Every method of a plaintext matrix product, in every packing.
#[test]
fn matrix_products_on_ciphertexts() {
    let params = toy();
    let weights = Weights::from_fn(21, 40, |r, c| ((r * 13 + c * 7) % 19) as f64 / 9.5 - 1.0);
    let weights = weights.unwrap();
    let diagonals = |hoisting, wrap| Method::Diagonals {
        baby_steps: 4,
        hoisting,
        wrap,
    };
    let feature_fast = Packing::FeatureFast { width: 16 };
    let token_fast = Packing::TokenFast { width: 16, run: 32 };
    let cases = [
        (feature_fast, diagonals(Hoisting::Twice, Wrap::Paired)),
        (feature_fast, diagonals(Hoisting::Once, Wrap::Paired)),
        (feature_fast, diagonals(Hoisting::Twice, Wrap::Signed)),
        (feature_fast, Method::PackedRows),
        (token_fast, diagonals(Hoisting::Twice, Wrap::Signed)),
        (token_fast, Method::PackedRows),
        (Packing::Column, diagonals(Hoisting::Twice, Wrap::Signed)),
    ];
    for (packing, method) in cases {
        let product = MatrixProduct::new(&weights, packing, method).unwrap();
        let inputs = packing.pack(&table(40, 30, 3), params.slots()).unwrap();
        encrypted_as_in_the_clear(&params, &inputs, &product, -22.0);
    }
}

/// Products of two encrypted matrices, two of them at once.
#[test]
fn tile_products_on_ciphertexts() {
    let params = toy();
    let shape = TileShape { dim: 16, batch: 2 };
    let tile = |seed| {
        let matrices: Vec<Vec<f64>> = table(2, 256, seed);
        SlotVector::Dense(shape.pack(&matrices, params.slots()))
    };
    for babies in [2, 8] {
        let product = TileProduct::new(shape, babies).unwrap();
        encrypted_as_in_the_clear(&params, &[tile(1), tile(2)], &product, -20.0);
    }
}

/// Nested giant steps `(rotation, baby steps)` of two inputs in turn.
struct Nested(&'static [(i64, &'static [i64])]);

impl Circuit for Nested {
    fn run<O: Ops>(&self, ops: &mut O, inputs: &[&O::Ct]) -> Vec<O::Ct> {
        let level = ops.level(inputs[0]);
        let (slots, scale) = (ops.params().slots(), ops.params().scale_at(level));
        let mut number = 0;
        let mut term = |ops: &mut O, baby: i64| {
            number += 1;
            let values: Vec<f64> = (0..slots)
                .map(|j| ((j * 7 + number * 5) % 23) as f64 / 11.5 - 1.0)
                .collect();
            let plain = SlotVector::real(&values);
            let plain = ops.term_plain(&plain, level, scale.multiply(1.25), baby);
            Term {
                input: number % 2,
                baby,
                plain: plain.unwrap(),
            }
        };
        let giants = self.0.iter().map(|(rotation, babies)| Giant {
            rotation: *rotation,
            terms: babies.iter().map(|baby| term(ops, *baby)).collect(),
        });
        let transform = Transform {
            giants: giants.collect(),
        };
        vec![ops.nested_transform(inputs, &transform).unwrap()]
    }
}

/// Steps with the same key and with others, without a term, without a rotation, under an outer
/// rotation, and with nothing rotated before its product.
#[test]
fn nested_transforms_on_ciphertexts() {
    let params = toy();
    let slots = |seed| SlotVector::real(&table(1, params.slots(), seed)[0]);
    const SHAPES: [&[(i64, &[i64])]; 6] = [
        &[(0, &[0, 1, 2, 3]), (4, &[0, 1, 2, 3]), (4, &[0, 1])],
        &[(4, &[0, 1]), (3, &[]), (0, &[2]), (-4, &[0])],
        &[(0, &[]), (0, &[1]), (1, &[3]), (1, &[])],
        &[(2, &[1]), (0, &[0])],
        &[(0, &[0, 1]), (0, &[0])],
        &[(0, &[0]), (4, &[0]), (4, &[0])],
    ];
    for shape in SHAPES {
        encrypted_as_in_the_clear(&params, &[slots(1), slots(2)], &Nested(shape), -24.0);
    }
}
