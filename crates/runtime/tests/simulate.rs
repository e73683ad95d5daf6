//! The simulator: noise of the right size, and a watch on what was promised.
#![allow(clippy::unwrap_used)]

use veilformer_ckks::testing::toy_params;
use veilformer_ckks::{Ops, SecretKind, SlotVector};
use veilformer_ir::ciphertext::{CiphertextProgram, Recorder};
use veilformer_runtime::{RuntimeError, Simulator};

/// `(x + y) x`, turned and halved; `x` and `y` of at most one.
fn program(params: &veilformer_ckks::Params) -> CiphertextProgram {
    let mut r = Recorder::new(params);
    r.section("sum");
    let (x, y) = (r.input(3, 1.0).unwrap(), r.input(3, 1.0).unwrap());
    let sum = r.add(&x, &y).unwrap();
    r.section("product");
    let product = r.mul(&sum, &x).unwrap();
    r.section("answer");
    let turned = r.rotate(&product, 1).unwrap();
    let half = r
        .plain(&SlotVector::real_constant(0.5), 2, params.scale_at(2))
        .unwrap();
    let scaled = r.mul_plain(&turned, &half).unwrap();
    let answer = r.rescale(&scaled).unwrap();
    let program = r.finish(vec![answer]);
    program.verify(params).unwrap();
    program
}

#[test]
fn answers_have_noise_and_the_seed_decides_it() {
    let params = toy_params();
    let program = program(&params);
    let mut simulator = Simulator::new(&program, &params, SecretKind::DenseTernary).unwrap();
    let n = params.slots();
    let x: Vec<f64> = (0..n).map(|j| (j % 5) as f64 / 5.0).collect();
    let y: Vec<f64> = (0..n).map(|j| (j % 3) as f64 / 3.0).collect();
    let inputs = [x.clone(), y.clone()];
    let run = simulator.run(&inputs, 7).unwrap();
    assert!(run.violations.is_empty());
    assert_eq!(run.used.len(), program.values.len());
    assert!(run.used.iter().all(|u| (0.0..=1.001).contains(u)));
    let mut square = 0.0;
    for (j, got) in run.outputs[0].iter().enumerate() {
        let k = (j + 1) % n;
        let want = (x[k] + y[k]) * x[k] / 2.0;
        assert!(
            (got.re - want).abs() < 1e-2 && got.im.abs() < 1e-2,
            "{got} {want}"
        );
        square += (got.re - want).powi(2);
    }
    assert!(square > 0.0, "an answer without noise");
    assert_eq!(simulator.run(&inputs, 7).unwrap().outputs, run.outputs);
    assert_ne!(simulator.run(&inputs, 8).unwrap().outputs, run.outputs);
}

#[test]
fn what_leaves_its_range_is_named_with_its_part_of_the_model() {
    let params = toy_params();
    let program = program(&params);
    let mut simulator = Simulator::new(&program, &params, SecretKind::DenseTernary).unwrap();
    let n = params.slots();
    let mut x = vec![0.5; n];
    x[3] = 4.0;
    let run = simulator.run(&[x, vec![0.0; n]], 1).unwrap();
    let first = &run.violations[0];
    assert_eq!(
        (first.section.as_str(), first.value, first.bound),
        ("sum", 0, 1.0)
    );
    assert!((first.found - 4.0).abs() < 0.01);
    assert!(run.violations.iter().any(|v| v.section == "product"));
    assert!(first.to_string().contains("4.0 times as much"), "{first}");

    // So far outside that the modulus does not hold it: what left its range first is said.
    let refused = simulator.run(&[vec![1e9; n], vec![1e9; n]], 1);
    let message = match refused {
        Err(error @ RuntimeError::Range(_)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(
        message.contains("outside the range") && message.contains("sum"),
        "{message}"
    );
    assert!(matches!(
        simulator.run(&[vec![0.0; n]], 1),
        Err(RuntimeError::InputCount {
            found: 1,
            expected: 2
        })
    ));
}
