//! The statistical gate: for every operation the measured variance of the noise against the one
//! that `ckks::noise` predicts, under fixed seeds.
//!
//! The variance is that of one coefficient, measured through the slots: the embedding is sqrt(N)
//! times an isometry, so the mean of |slot error|^2 is N Var(e) / scale^2. With N = 1024 and 8
//! keys a chi-square variable of 8192 degrees of freedom has a relative standard deviation of
//! 1.6%; the squared norm of the secrets adds 0.8%. The gate [0.8, 1.25] is ten of them wide: a
//! correct implementation never misses it, an extra or missing rounding or digit always does.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use std::sync::Arc;
use veilformer_ckks::noise::NoiseModel;
use veilformer_ckks::{
    Ciphertext, Complex, Evaluator, Giant, KeyPurpose, Ops, Params, ParamsSpec, SharedCiphertext,
    SlotVector, Term, Transform, pairing,
};
use veilformer_ring::{
    Backend, Basis, Cpu, DiagonalTerm, GiantStep, OutputPlan, PlainPoly, TransformPlan,
};
use veilformer_secret::{KeyGenerator, PublicEncryptor};

const KEYS: u64 = 8;

type Ct = SharedCiphertext<Cpu>;

/// Two ciphertexts under one key, with what they hold.
struct Sample<'a> {
    kit: &'a Kit,
    ops: Evaluator<'a, Cpu>,
    clear: [Vec<Complex>; 3],
    a: Ct,
    b: Ct,
}

impl Sample<'_> {
    /// The same for a term of a transform.
    fn term_plain(&mut self, baby: i64) -> <Evaluator<'static, Cpu> as Ops>::Plain {
        let (level, scale) = (self.a.level(), self.a.scale());
        let slots = SlotVector::Dense(self.clear[2].clone());
        self.ops.term_plain(&slots, level, scale, baby).unwrap()
    }

    /// The third vector as a plaintext at the scale of the highest level.
    fn plain(&mut self) -> <Evaluator<'static, Cpu> as Ops>::Plain {
        let (level, scale) = (self.a.level(), self.a.scale());
        let slots = SlotVector::Dense(self.clear[2].clone());
        self.ops.plain(&slots, level, scale).unwrap()
    }
}

/// The mean variance per coefficient of what `run` makes, over all keys.
fn measured(params: &Params, mut run: impl FnMut(&mut Sample<'_>) -> (Ct, Vec<Complex>)) -> f64 {
    let mut sum = 0.0;
    for seed in 0..KEYS {
        let kit = Kit::new(params, seed, &[1, 2, 3]);
        let clear = [0, 1, 2].map(|i| slots(100 * seed + i, params.slots()));
        let mut sample = Sample {
            a: kit.encrypt(2 * seed, &clear[0], params.max_level()),
            b: kit.encrypt(2 * seed + 1, &clear[1], params.max_level()),
            ops: kit.evaluator(),
            kit: &kit,
            clear,
        };
        let (result, expected) = run(&mut sample);
        sum += variance(&kit.decrypt(&result), &expected, &result);
    }
    sum / KEYS as f64
}

fn variance(found: &[Complex], expected: &[Complex], ct: &Ct) -> f64 {
    let errors = found.iter().zip(expected).map(|(a, b)| (a - b).norm_sqr());
    let scale = ct.scale().value();
    let count = found.len() as f64;
    errors.sum::<f64>() / count * scale * scale / (2.0 * count)
}

fn gate(name: &str, measured: f64, predicted: f64) {
    let ratio = measured / predicted;
    assert!(
        (0.8..=1.25).contains(&ratio),
        "{name}: variance {measured:.3e}, predicted {predicted:.3e}, ratio {ratio:.3}"
    );
}

/// Mean of |z|^2 of slots with both parts uniform in [-1, 1).
const MEAN_SQUARE: f64 = 2.0 / 3.0;

fn every_operation(params: &Params) {
    let model = NoiseModel::new(params, veilformer_ckks::SecretKind::DenseTernary);
    let (top, n) = (params.max_level(), params.n());
    let scale = params.scale_at(top);
    let norm = NoiseModel::message_norm(MEAN_SQUARE, scale);
    let fresh = model.fresh_secret_key() + model.encoding(n);
    let map = |s: &Sample<'_>, f: fn(Complex, Complex) -> Complex| zip(&s.clear[0], &s.clear[1], f);

    gate(
        "fresh",
        measured(params, |s| (s.a.clone(), s.clear[0].clone())),
        fresh,
    );

    let public = measured(params, |s| {
        let mut generator = KeyGenerator::insecure_deterministic_for_tests(params, 77).unwrap();
        let key = generator.public_key(&s.kit.secret, top).unwrap();
        let mut encryptor =
            PublicEncryptor::insecure_deterministic_for_tests(params, &key, 78).unwrap();
        let stored = encryptor
            .encrypt(&SlotVector::Dense(s.clear[0].clone()), top)
            .unwrap();
        let ct = s.ops.import(stored.expand(params).unwrap()).unwrap();
        (ct, s.clear[0].clone())
    });
    gate(
        "public key",
        public,
        model.fresh_public_key() + model.encoding(n),
    );

    let sum = measured(params, |s| {
        (s.ops.add(&s.a, &s.b).unwrap(), map(s, |x, y| x + y))
    });
    gate("add", sum, model.sum(fresh, fresh));
    let difference = measured(params, |s| {
        (s.ops.sub(&s.a, &s.b).unwrap(), map(s, |x, y| x - y))
    });
    gate("sub", difference, model.sum(fresh, fresh));
    let with_plain = measured(params, |s| {
        let p = s.plain();
        (
            s.ops.add_plain(&s.a, &p).unwrap(),
            zip(&s.clear[0], &s.clear[2], |x, w| x + w),
        )
    });
    gate("add_plain", with_plain, model.sum(fresh, model.encoding(n)));

    // The plaintext's own rounding multiplies the message.
    let plain_product = model.plain_product(fresh, norm) + norm * model.encoding(n);
    let product = |s: &Sample<'_>| zip(&s.clear[0], &s.clear[2], |x, w| x * w);
    let multiplied = measured(params, |s| {
        let p = s.plain();
        (s.ops.mul_plain(&s.a, &p).unwrap(), product(s))
    });
    gate("mul_plain", multiplied, plain_product);
    let rescaled = measured(params, |s| {
        let p = s.plain();
        let wide = s.ops.mul_plain(&s.a, &p).unwrap();
        (s.ops.rescale(&wide).unwrap(), product(s))
    });
    gate("rescale", rescaled, model.rescale(plain_product, top));

    let product = measured(params, |s| {
        (s.ops.mul(&s.a, &s.b).unwrap(), map(s, |x, y| x * y))
    });
    let predicted = model.product(fresh, norm, fresh, norm);
    gate("mul", product, model.relinearize_rescale(predicted, top));
    let square = measured(params, |s| {
        (s.ops.square(&s.a).unwrap(), map(s, |x, _| x * x))
    });
    gate(
        "square",
        square,
        model.relinearize_rescale(model.square(fresh, norm), top),
    );
    let several = measured(params, |s| {
        let sum = s.ops.mul_sum(&[(&s.a, &s.b), (&s.b, &s.a)]).unwrap();
        (sum, map(s, |x, y| x * y * 2.0))
    });
    gate(
        "mul_sum",
        several,
        model.relinearize_rescale(4.0 * predicted, top),
    );

    let rotated = measured(params, |s| {
        (s.ops.rotate(&s.a, 3).unwrap(), rotate(&s.clear[0], 3))
    });
    gate("rotate", rotated, fresh + model.key_switch(top));
    let hoisted = measured(params, |s| {
        let all = s.ops.rotate_many(&s.a, &[1, 2, 3]).unwrap();
        (all[1].clone(), rotate(&s.clear[0], 2))
    });
    gate("rotate_many", hoisted, fresh + model.key_switch(top));
    let summed = measured(params, |s| {
        let sum = s.ops.rotate_sum(&s.a, &[1, 2, 3]).unwrap();
        let x = &s.clear[0];
        let turned = [1, 2, 3].map(|by| rotate(x, by));
        let both = turned
            .iter()
            .fold(x.clone(), |sum, t| zip(&sum, t, |a, b| a + b));
        (sum, both)
    });
    gate(
        "rotate_sum",
        summed,
        4.0 * fresh + model.rotation_sum(top, 3),
    );
    let composed = measured(params, |s| {
        let ops = s.ops.clone().composing_rotations(3);
        let all = ops.rotate_many(&s.a, &[3, 8]).unwrap();
        (all[1].clone(), rotate(&s.clear[0], 8))
    });
    gate(
        "composed rotation",
        composed,
        fresh + model.rotation(top, 3),
    );
    let low = measured(params, |s| {
        let low = s.ops.drop_to(&s.a, 1).unwrap();
        (s.ops.rotate(&low, 1).unwrap(), rotate(&s.clear[0], 1))
    });
    gate("rotate at level 1", low, fresh + model.key_switch(1));
    let conjugated = measured(params, |s| {
        (s.ops.conjugate(&s.a).unwrap(), map(s, |x, _| x.conj()))
    });
    gate("conjugate", conjugated, fresh + model.key_switch(top));

    let real = measured(params, |s| {
        let parts = pairing::split(&mut s.ops, &s.a).unwrap();
        (parts.0, map(s, |x, _| Complex::new(2.0 * x.re, 0.0)))
    });
    gate("real part", real, 2.0 * fresh + model.key_switch(top));
    let imaginary = measured(params, |s| {
        let parts = pairing::split(&mut s.ops, &s.a).unwrap();
        (parts.1, map(s, |x, _| Complex::new(2.0 * x.im, 0.0)))
    });
    gate(
        "imaginary part",
        imaginary,
        2.0 * fresh + model.key_switch(top),
    );
    let joined = measured(params, |s| {
        let (a, b) = (s.a.clone(), s.b.clone());
        let both = pairing::join(&mut s.ops, &a, &b).unwrap();
        (both, map(s, |x, y| x + Complex::i() * y))
    });
    gate("join", joined, model.sum(fresh, fresh));

    let adjusted = measured(params, |s| {
        (s.ops.adjust(&s.a, 1).unwrap(), s.clear[0].clone())
    });
    let ratio = params.scale_at(1).value() / scale.value();
    gate("adjust", adjusted, fresh * ratio * ratio + model.division());

    // Two baby steps (one of them a rotation) under one giant step.
    let transformed = measured(params, |s| {
        let terms = [0, 1]
            .map(|baby| Term {
                input: 0,
                baby,
                plain: s.term_plain(baby),
            })
            .to_vec();
        let transform = Transform {
            giants: vec![Giant { rotation: 2, terms }],
        };
        let result = s.ops.linear_transform(&[&s.a], &transform).unwrap();
        let (x, w) = (&s.clear[0], &s.clear[2]);
        (
            result,
            rotate(
                &zip(&zip(x, &rotate(x, 1), |x, y| x + y), w, |x, w| x * w),
                2,
            ),
        )
    });
    // Both terms carry the same fresh noise and the same rounded plaintext, in other places.
    let turned = model.plain_product(fresh + model.baby_step(top), norm);
    let terms = plain_product + turned + norm * model.encoding(n);
    gate(
        "linear_transform",
        transformed,
        model.rescale(terms + model.giant_step(top, true), top),
    );
    unscaled_transforms(params, &model);
}

/// Transforms without the rescale and with the plaintext 1, so that what each step adds is not
/// lost beside the products: with a baby step alone, a giant step alone, and both.
fn unscaled_transforms(params: &Params, model: &NoiseModel) {
    let (top, n) = (params.max_level(), params.n());
    let fresh = model.fresh_secret_key() + model.encoding(n);
    let run = |baby: Option<usize>, giant: Option<usize>| {
        measured(params, |s| {
            let (ring, keys) = (s.ops.backend(), s.ops.keys());
            let key = |by| {
                let purpose = KeyPurpose::Rotation(by);
                keys.get(params, ring, (purpose, top)).unwrap().unwrap()
            };
            let (one_step, two_steps) = (key(1), key(2));
            let basis = params.rotation_basis(top);
            let one = PlainPoly::Scalar {
                basis,
                residues: vec![1; basis.len()],
            };
            let one = ring.prepare_plain(&one).unwrap();
            let term = DiagonalTerm {
                input: 0,
                baby,
                plain: 0,
            };
            let plan = TransformPlan {
                keys: vec![one_step.key(), two_steps.key()],
                plains: vec![&one],
                outputs: vec![OutputPlan::beside(vec![GiantStep {
                    key: giant,
                    terms: vec![term],
                }])],
            };
            let input = s.a.parts();
            let mut out = ring
                .linear_transform(&[input], &plan, Basis::empty())
                .unwrap();
            let parts = out.pop().unwrap();
            let ct = Ciphertext::from_polys(params, parts, s.a.info()).unwrap();
            let by = [baby, giant].into_iter().flatten().map(|k| k as i64 + 1);
            (Arc::new(ct), rotate(&s.clear[0], by.sum()))
        })
    };
    let end = model.division();
    nested_transforms(params, model);
    gate(
        "baby step",
        run(Some(0), None),
        fresh + model.baby_step(top) + end,
    );
    gate(
        "giant step",
        run(None, Some(1)),
        fresh + model.giant_step(top, false) + end,
    );
    gate(
        "baby and giant step",
        run(Some(0), Some(1)),
        fresh + model.baby_step(top) + model.giant_step(top, true) + end,
    );
}

/// The same with nested giant steps: rotations of each term, from the first step to the last.
fn nested_transforms(params: &Params, model: &NoiseModel) {
    let (top, n) = (params.max_level(), params.n());
    let fresh = model.fresh_secret_key() + model.encoding(n);
    let run = |steps: &[(Option<usize>, Option<usize>)]| {
        measured(params, |s| {
            let (ring, keys) = (s.ops.backend(), s.ops.keys());
            let keys = [1, 2].map(|by| {
                let purpose = KeyPurpose::Rotation(by);
                keys.get(params, ring, (purpose, top)).unwrap().unwrap()
            });
            let basis = params.rotation_basis(top);
            let one = PlainPoly::Scalar {
                basis,
                residues: vec![1; basis.len()],
            };
            let one = ring.prepare_plain(&one).unwrap();
            // The innermost step alone has a term: all steps turn it.
            let giants = steps.iter().enumerate().map(|(i, &(key, baby))| GiantStep {
                key,
                terms: match i + 1 == steps.len() {
                    true => vec![DiagonalTerm {
                        input: 0,
                        baby,
                        plain: 0,
                    }],
                    false => Vec::new(),
                },
            });
            let plan = TransformPlan {
                keys: keys.iter().map(|key| key.key()).collect(),
                plains: vec![&one],
                outputs: vec![OutputPlan::nested(giants.collect())],
            };
            let mut out = ring
                .linear_transform(&[s.a.parts()], &plan, Basis::empty())
                .unwrap();
            let parts = out.pop().unwrap();
            let ct = Ciphertext::from_polys(params, parts, s.a.info()).unwrap();
            let turns = steps.iter().flat_map(|(key, baby)| [key, baby]);
            let by = turns.flatten().map(|k| *k as i64 + 1).sum();
            (Arc::new(ct), rotate(&s.clear[0], by))
        })
    };
    let (exact, step) = (model.giant_step(top, false), model.giant_step(top, true));
    let end = model.division();
    gate(
        "two nested steps",
        run(&[(None, None), (Some(0), None), (Some(0), None)]),
        fresh + exact + step + end,
    );
    gate(
        "three nested steps over a baby step",
        run(&[(Some(1), None), (Some(0), None), (Some(0), Some(1))]),
        fresh + model.baby_step(top) + 3.0 * step + end,
    );
}

#[test]
fn noise_of_every_operation_is_as_predicted() {
    every_operation(&toy(10));
}

/// P no larger than a digit: the error of the key itself dominates key switching, not the
/// rounding of ModDown.
#[test]
fn noise_of_key_switching_with_a_small_special_modulus() {
    let spec = ParamsSpec {
        first_bits: 40,
        scale_bits: 40,
        special_bits: 40,
        ..toy_spec(10)
    };
    let params = spec.validate_insecure_for_tests().unwrap();
    let model = NoiseModel::new(&params, veilformer_ckks::SecretKind::DenseTernary);
    assert!(model.key_switch_error(params.max_level()) > 10.0 * model.division());
    every_operation(&params);
}
