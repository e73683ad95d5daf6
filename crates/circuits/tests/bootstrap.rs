//! Bootstraps on a toy ring, in the clear and with real keys.
#![allow(clippy::unwrap_used)]

mod support;

use std::f64::consts::PI;

use support::{Client, check_multiples, iterate, spec, toy, worst};
use veilformer_circuits::bootstrap::{BootstrapPlan, Content};
use veilformer_circuits::testing::ClearOps;
use veilformer_ckks::{Complex, Ops, Params, SecretKind, SlotVector};

/// A number in [-1, 1] for slot `j` of a vector with this content.
fn value(content: Content, j: usize) -> Complex {
    let wave = |x: usize| (x as f64 * 0.7 * PI).sin();
    match content {
        Content::Complex => Complex::new(wave(j), wave(3 * j + 1)),
        Content::Real => Complex::new(wave(j), 0.0),
        Content::Periodic(period) => Complex::new(wave(j % period + 2), 0.0),
    }
}

fn input(params: &Params, content: Content) -> Vec<Complex> {
    (0..params.slots()).map(|j| value(content, j)).collect()
}

const CONTENTS: [Content; 6] = [
    Content::Complex,
    Content::Real,
    Content::Periodic(64),
    Content::Periodic(8),
    Content::Periodic(2),
    Content::Periodic(1),
];

/// Runs in the clear, from every level that an input may have.
#[test]
fn in_the_clear() {
    let params = toy(9);
    for content in CONTENTS {
        let plan = BootstrapPlan::new(&params, &spec(&params), content).unwrap();
        assert_eq!((plan.input_level(), plan.output_level()), (2, 5));
        let mut ops = ClearOps::new(&params);
        let boot = plan.encode(&mut ops).unwrap();
        let expected = input(&params, content);
        for level in [2, 5] {
            let x = ops
                .encrypt(&SlotVector::Dense(expected.clone()), level)
                .unwrap();
            let y = boot.run(&mut ops, &x).unwrap();
            assert_eq!(ops.level(&y), 5);
            assert!(ops.scale(&y).matches(params.scale_at(5)));
            let error = worst(&ops.decrypt(&y), &expected);
            eprintln!("{content:?} from level {level}: 2^{:.1}", error.log2());
            // The sine's error of fourth order.
            assert!(error < 2f64.powi(-20), "{content:?}: {error:e}");
        }
    }
}

/// Real keys: the error is that of a simulation with the scheme's noise.
#[test]
fn with_real_keys() {
    let params = toy(10);
    for content in CONTENTS {
        let plan = BootstrapPlan::new(&params, &spec(&params), content).unwrap();
        let client = Client::new(plan, Some(1));
        let mut ops = client.ops();
        let boot = client.plan.encode(&mut ops).unwrap();
        let slots = input(&params, content);
        let level = client.plan.input_level();
        let x = client.encrypt(&slots, level, 2);
        let y = boot.run(&mut ops, &x).unwrap();
        assert_eq!(y.level(), client.plan.output_level());
        let got = client.decrypt(&y);
        let error = worst(&got, &slots);

        let mut clear = ClearOps::with_noise(&params, SecretKind::DenseTernary, 3);
        let simulated = client.plan.encode(&mut clear).unwrap();
        let x = clear
            .encrypt(&SlotVector::Dense(slots.clone()), level)
            .unwrap();
        let y = simulated.run(&mut clear, &x).unwrap();
        let predicted = worst(&clear.decrypt(&y), &slots);
        eprintln!(
            "{content:?}: 2^{:.1}, simulated 2^{:.1}",
            error.log2(),
            predicted.log2()
        );
        assert!(
            (error / predicted).log2().abs() < 1.5,
            "{content:?}: {error:e}"
        );
    }
}

#[test]
fn multiples_of_q0_follow_the_sum_of_uniforms() {
    let params = toy(10);
    let slots = input(&params, Content::Complex);
    for seed in 1..=4 {
        let plan = BootstrapPlan::new(&params, &spec(&params), Content::Periodic(1)).unwrap();
        let weight = plan.spec().ephemeral_weight;
        check_multiples(
            &Client::new(plan, Some(seed)).count_multiples(&slots, 20),
            weight,
        );
    }
}

/// 200 levels through 66 bootstraps.
#[test]
fn errors_of_a_long_iteration_grow_as_predicted() {
    let params = toy(10);
    let plan = BootstrapPlan::new(&params, &spec(&params), Content::Real).unwrap();
    iterate(&Client::new(plan, Some(1)), 200);
}
