//! Bootstraps on a toy ring, in the clear and with real keys.
#![allow(clippy::unwrap_used)]

mod support;

use std::f64::consts::PI;

use support::{Client, check_multiples, iterate, worst};
use veilformer_circuits::bootstrap::{
    BootstrapPlan, BootstrapSpec, Bootstrapping, Content, InverseSine,
};
use veilformer_circuits::testing::{
    ClearOps, Counting, toy_bootstrap, toy_modraise_first, toy_modraise_first_of,
};
use veilformer_ckks::{Complex, Ops, Params, SecretKind, SlotVector};

/// A number in [-1, 1] for slot `j` of a vector with this content.
fn value(content: Content, j: usize) -> Complex {
    let wave = |x: usize| (x as f64 * 0.7 * PI).sin();
    match content {
        Content::Complex => Complex::new(wave(j), wave(3 * j + 1)),
        Content::Real => Complex::new(wave(j), 0.0),
        Content::Periodic(period) => Complex::new(wave(j % period + 2), 0.0),
        Content::PeriodicComplex(period) => value(Content::Complex, j % period),
    }
}

fn input(params: &Params, content: Content) -> Vec<Complex> {
    (0..params.slots()).map(|j| value(content, j)).collect()
}

const CONTENTS: [Content; 9] = [
    Content::Complex,
    Content::Real,
    Content::Periodic(64),
    Content::Periodic(8),
    Content::Periodic(2),
    Content::Periodic(1),
    Content::PeriodicComplex(128),
    Content::PeriodicComplex(8),
    Content::PeriodicComplex(1),
];

/// Runs in the clear, from every level that an input may have.
#[test]
fn in_the_clear() {
    let (params, spec) = toy_bootstrap(9);
    for content in CONTENTS {
        let plan = BootstrapPlan::new(&params, &spec, content).unwrap();
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

/// The order that ends with SlotToCoeff: from level 0, and from above.
#[test]
fn modraise_first_in_the_clear() {
    let (params, spec) = toy_modraise_first(9);
    for content in CONTENTS {
        let plan = BootstrapPlan::new(&params, &spec, content).unwrap();
        assert_eq!((plan.input_level(), plan.output_level()), (0, 3));
        let mut ops = ClearOps::new(&params);
        let boot = plan.encode(&mut ops).unwrap();
        let expected = input(&params, content);
        for level in [0, 3] {
            let x = ops
                .encrypt(&SlotVector::Dense(expected.clone()), level)
                .unwrap();
            let y = boot.run(&mut ops, &x).unwrap();
            assert_eq!(ops.level(&y), 3);
            assert!(ops.scale(&y).matches(params.scale_at(3)));
            let error = worst(&ops.decrypt(&y), &expected);
            eprintln!("{content:?} from level {level}: 2^{:.1}", error.log2());
            // The sine's relative error of fourth order.
            assert!(error < 2f64.powi(-23), "{content:?}: {error:e}");
        }
        // The real part alone.
        let x = ops
            .encrypt(&SlotVector::Dense(expected.clone()), 0)
            .unwrap();
        let y = boot.run_real(&mut ops, &x).unwrap();
        let real: Vec<Complex> = expected.iter().map(|z| z.re.into()).collect();
        assert!(worst(&ops.decrypt(&y), &real) < 2f64.powi(-23));
    }
}

/// A second bootstrap of the first one's error.
#[test]
fn a_second_bootstrap_makes_the_error_smaller() {
    for ((params, spec), least) in [(toy_bootstrap(9), -22), (toy_modraise_first(9), -25)] {
        let plan = BootstrapPlan::new(&params, &spec, Content::Complex).unwrap();
        let mut ops = ClearOps::with_noise(&params, SecretKind::DenseTernary, 1);
        let boot = plan.encode(&mut ops).unwrap();
        let expected = input(&params, Content::Complex);
        let x = ops
            .encrypt(&SlotVector::Dense(expected.clone()), plan.output_level())
            .unwrap();
        let once = boot.run(&mut ops, &x).unwrap();
        let go = &mut |_| std::ops::ControlFlow::Continue(());
        let twice = boot.run_twice(&mut ops, &x, 10, go).unwrap();
        assert_eq!(ops.level(&twice), plan.output_level());
        let [once, twice] = [once, twice].map(|y| worst(&ops.decrypt(&y), &expected));
        eprintln!("once 2^{:.1}, twice 2^{:.1}", once.log2(), twice.log2());
        // Down to the noise of rescales at 2^40: sqrt(N) sqrt(N / 18) is 2^6.9 here.
        assert!(once > 2f64.powi(least) && twice < 2f64.powi(-28));
        // An observer that stops it.
        let stop = &mut |_| std::ops::ControlFlow::Break(());
        assert!(boot.run_twice(&mut ops, &x, 10, stop).is_err());
    }
}

/// Real keys: the error is that of a simulation with the scheme's noise.
#[test]
fn with_real_keys() {
    as_simulated(toy_bootstrap(10));
}

/// The same where SlotToCoeff comes last.
#[test]
fn modraise_first_with_real_keys() {
    as_simulated(toy_modraise_first(10));
}

fn as_simulated((params, spec): (Params, BootstrapSpec)) {
    for content in CONTENTS {
        let plan = BootstrapPlan::new(&params, &spec, content).unwrap();
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

/// A pair of real values rides as one complex number; the table's entry is looked up by number.
#[test]
fn pairs_and_tables() {
    pairs_of(toy_bootstrap(9));
    pairs_of(toy_modraise_first(9));
}

fn pairs_of((params, spec): (Params, BootstrapSpec)) {
    let plan = |content| BootstrapPlan::new(&params, &spec, content).unwrap();
    let mut ops = ClearOps::new(&params);
    ops.set_bootstraps(&[plan(Content::Complex), plan(Content::Periodic(8))])
        .unwrap();
    let real = |shift: usize| -> Vec<Complex> {
        let value = |j| value(Content::Real, j + shift);
        (0..params.slots()).map(value).collect()
    };
    let (a, b) = (real(0), real(5));
    let x = ops.encrypt(&SlotVector::Dense(a.clone()), 2).unwrap();
    let y = ops.encrypt(&SlotVector::Dense(b.clone()), 3).unwrap();
    let out = ops.bootstraps(&[&x, &y], 0).unwrap();
    let [p, q] = &out[..] else {
        panic!("two results")
    };
    for (ct, expected) in [(p, &a), (q, &b)] {
        let output = *params.middle().end();
        assert_eq!(ops.level(ct), output);
        assert!(ops.scale(ct).matches(params.scale_at(output)));
        assert!(worst(&ops.decrypt(ct), expected) < 2f64.powi(-20));
    }
    // Pairs with a period, in one EvalMod.
    let period = Content::PeriodicComplex(16);
    let [a16, b16] = [&a, &b].map(|of| of[..16].repeat(of.len() / 16));
    let pair = [&a16, &b16].map(|of| SlotVector::Dense(of.clone()));
    let pair = pair.map(|of| ops.encrypt(&of, 2).unwrap());
    let boot = plan(period).encode(&mut ops).unwrap();
    let out = boot.run_pair(&mut ops, [&pair[0], &pair[1]]).unwrap();
    for (ct, expected) in out.iter().zip([&a16, &b16]) {
        let apart = worst(&ops.decrypt(ct), expected);
        assert!(apart < 2f64.powi(-20), "{apart:e}");
    }
    let real = boot.run_real(&mut ops, &pair[0]).unwrap();
    assert!(worst(&ops.decrypt(&real), &a16) < 2f64.powi(-20));
    // The wrapper gives any operations a table: the same circuit, the same result.
    let boot = plan(Content::Complex).encode(&mut ops).unwrap();
    let table = [boot];
    let mut wrapped = Bootstrapping::new(Counting::new(ClearOps::new(&params)), &[]);
    assert!(wrapped.bootstraps(&[&x, &y], 0).is_err());
    let mut wrapped = Bootstrapping::new(ClearOps::new(&params), &table);
    let again = wrapped.bootstrap(&x, 0).unwrap();
    assert!(worst(&ops.decrypt(&again), &a) < 2f64.powi(-20));
    let mut counting = Counting::new(ops);
    counting.bootstrap(&x, 0).unwrap();
    assert_eq!(counting.bootstraps(), 1);
}

/// What a bootstrap cannot take is refused where the slots are known.
#[test]
fn slots_out_of_range_are_named() {
    let (params, spec) = toy_bootstrap(9);
    let plan = |content| BootstrapPlan::new(&params, &spec, content).unwrap();
    let mut ops = ClearOps::new(&params);
    let contents = [
        Content::Complex,
        Content::Periodic(8),
        Content::PeriodicComplex(8),
    ];
    ops.set_bootstraps(&contents.map(plan)).unwrap();
    let with = |ops: &mut ClearOps, slot: usize, z: Complex| {
        let mut slots = vec![Complex::new(0.5, 0.0); params.slots()];
        slots[slot] = z;
        ops.encrypt(&SlotVector::Dense(slots), 3).unwrap()
    };
    let fine = with(&mut ops, 0, Complex::new(0.5, 0.0));
    let cases = [
        (Complex::new(1.002, 0.0), false, 0, "slot 17 holds 1.002"),
        (Complex::new(0.0, -1.5), false, 0, "expected at most 1"),
        (Complex::new(0.5, 0.1), true, 0, "only real numbers"),
        (Complex::new(0.3, 0.0), false, 1, "a period of 8"),
        (Complex::new(0.5, 0.3), false, 2, "a period of 8"),
        (Complex::new(0.5, 0.0), false, 3, "entry 3 of a table of 3"),
        (Complex::new(0.5, 0.0), true, 1, "expected one, or two"),
    ];
    for (z, paired, which, message) in cases {
        let x = with(&mut ops, 17, z);
        let inputs: &[&_] = if paired { &[&x, &fine] } else { &[&x] };
        let error = ops.bootstraps(inputs, which).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    // Just beyond one is what noise does.
    let edge = with(&mut ops, 17, Complex::new(1.0005, 0.0));
    assert!(ops.bootstrap(&edge, 0).is_ok());
}

/// Where noise decides, not the sine: EvalMod at 2^52, a message of 2^-10 of the modulus.
#[test]
fn modraise_first_has_the_noise_of_the_model() {
    let (params, spec) = toy_modraise_first_of(10, 52, 10);
    let plan = BootstrapPlan::new(&params, &spec, Content::Complex).unwrap();
    let slots = input(&params, Content::Complex);
    let predicted = (-plan.noise().unwrap().mean_bits).exp2();
    let client = Client::new(plan, Some(3));
    let mut ops = client.ops();
    let boot = client.plan.encode(&mut ops).unwrap();
    let mut clear = ClearOps::with_noise(&params, SecretKind::DenseTernary, 3);
    let simulated = client.plan.encode(&mut clear).unwrap();
    let mean = |got: &[Complex]| {
        let errors = got.iter().zip(&slots).map(|(a, b)| a - b);
        let sum: f64 = errors.map(|e| e.re.abs() + e.im.abs()).sum();
        sum / (2 * slots.len()) as f64
    };
    let (mut real, mut sampled) = (0.0, 0.0);
    for seed in 0..4 {
        let y = boot
            .run(&mut ops, &client.encrypt(&slots, 0, seed))
            .unwrap();
        real += mean(&client.decrypt(&y)) / 4.0;
        let x = clear.encrypt(&SlotVector::Dense(slots.clone()), 0).unwrap();
        let y = simulated.run(&mut clear, &x).unwrap();
        sampled += mean(&clear.decrypt(&y)) / 4.0;
    }
    let bits = |x: f64| -x.log2();
    eprintln!(
        "mean {:.2} bits, sampled {:.2}, predicted {:.2}",
        bits(real),
        bits(sampled),
        bits(predicted)
    );
    assert!((bits(real) - bits(predicted)).abs() < 0.4);
    assert!((bits(sampled) - bits(predicted)).abs() < 0.4);
}

/// Chains that a specification does not fit.
#[test]
fn modraise_first_wants_its_levels() {
    let (params, spec) = toy_modraise_first(9);
    let (other, first) = toy_bootstrap(9);
    let refused = |params, spec: &BootstrapSpec| {
        let plan = BootstrapPlan::new(params, spec, Content::Complex);
        plan.unwrap_err().to_string()
    };
    let error = refused(&other, &spec);
    assert!(error.contains("2 levels below"), "{error}");
    let error = refused(&params, &first);
    assert!(error.contains("0 levels below"), "{error}");
    let sine = BootstrapSpec {
        inverse_sine: InverseSine::None,
        ..first
    };
    let plan = BootstrapPlan::new(&other, &sine, Content::PeriodicComplex(8));
    let error = plan.unwrap_err().to_string();
    assert!(error.contains("needs the inverse sine"), "{error}");
    let bits = BootstrapSpec {
        message_ratio_bits: 9,
        ..spec
    };
    let error = refused(&params, &bits);
    assert!(error.contains("q0 is 2^7.0 of the lowest scale"), "{error}");
}

#[test]
fn multiples_of_q0_follow_the_sum_of_uniforms() {
    let (params, spec) = toy_bootstrap(10);
    let slots = input(&params, Content::Complex);
    for seed in 1..=4 {
        let plan = BootstrapPlan::new(&params, &spec, Content::Periodic(1)).unwrap();
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
    let (params, spec) = toy_bootstrap(10);
    let plan = BootstrapPlan::new(&params, &spec, Content::Real).unwrap();
    iterate(&Client::new(plan, Some(1)), 200, 0.7);
}
