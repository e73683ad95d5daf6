//! The recorder against the operations in the clear, and the verifiers' refusals.
#![allow(clippy::unwrap_used)] // a test's way to fail

use proptest::prelude::*;
use veilformer_circuits::testing::{ClearOps, toy_params};
use veilformer_ckks::{Complex, Giant, Ops, OpsError, SlotVector, Term, Transform, pairing};
use veilformer_ir::Matrix;
use veilformer_ir::ciphertext::{Operation, PlainId, PlainPattern, Recorder, ValueId, replay};
use veilformer_ir::tensor::{TensorId, TensorOp, TensorProgram};

/// A transform by one giant step, its rotated term with a plaintext that is made for that or not.
fn transform<O: Ops>(
    ops: &mut O,
    inputs: &[&O::Ct; 2],
    baby: i64,
    (extended, nested): (bool, bool),
) -> Result<O::Ct, OpsError> {
    let level = ops.level(inputs[0]);
    // Any scale will do, as long as it is one.
    let scale = ops.params().scale_at(level).multiply(1.5);
    // The recorder stores equal plaintexts once: different ones for what each is good for.
    let constant = |c: f64| SlotVector::real_constant(c);
    let first = ops.plain(&constant(0.25), level, scale)?;
    let second = if extended {
        ops.term_plain(&constant(0.3), level, scale, baby)?
    } else {
        ops.plain(&constant(0.2), level, scale)?
    };
    let term = |input, baby, plain| Term { input, baby, plain };
    let giants = vec![Giant {
        rotation: 2,
        terms: vec![term(0, 0, first), term(1, baby, second)],
    }];
    if nested {
        let around = Giant {
            rotation: baby,
            terms: giants[0].terms[..1].to_vec(),
        };
        let giants = [vec![around], giants].concat();
        return ops.nested_transform(inputs, &Transform { giants });
    }
    ops.linear_transform(inputs, &Transform { giants })
}

/// One random operation on the values so far; every implementer of `Ops` must take or refuse it
/// alike.
fn step<O: Ops>(
    ops: &mut O,
    values: &mut Vec<O::Ct>,
    choice: (u8, usize, usize, usize),
) -> Result<(), String> {
    let (kind, a, b, n) = choice;
    let (x, y) = (
        values[a % values.len()].clone(),
        values[b % values.len()].clone(),
    );
    let level = n % 4;
    let result = match kind % 14 {
        0 => ops.add(&x, &y),
        1 => ops.sub(&x, &y),
        2 => ops.mul(&x, &y),
        3 => ops.mul_sum(&[(&x, &y), (&y, &x)]),
        4 => ops.rotate(&x, n as i64 - 3),
        5 => ops.conjugate(&x),
        6 => ops.drop_to(&x, level),
        7 => ops.adjust(&x, level),
        8 => {
            let scale = ops.params().scale_at(level);
            let half = SlotVector::real_constant(0.5);
            ops.plain(&half, level, scale)
                .and_then(|p| ops.mul_plain(&x, &p))
        }
        9 => transform(ops, &[&x, &y], n as i64 - 3, (b % 2 == 0, false)),
        10 => transform(ops, &[&x, &y], n as i64 - 3, (b % 2 == 0, true)),
        11 => ops.mod_raise(&x),
        // Of which one may move nothing.
        12 => ops.rotate_sum(&x, &[n as i64 - 3, b as i64]),
        _ => ops.rescale(&x),
    };
    values.push(result.map_err(|e| e.to_string())?);
    Ok(())
}

/// A nested transform and a raised modulus: recorded, verified and run on values, they are
/// what they are when run at once.
#[test]
fn nested_transforms_and_raised_moduli_are_replayed() {
    let params = toy_params(3);
    let slots: Vec<f64> = (0..params.slots()).map(|j| (j % 8) as f64 / 32.0).collect();
    let slots = SlotVector::real(&slots);
    fn run<O: Ops>(ops: &mut O, x: &O::Ct) -> [O::Ct; 2] {
        let lowered = transform(ops, &[x, x], 3, (true, true)).unwrap();
        let bottom = ops.drop_to(&lowered, 0).unwrap();
        let raised = ops.mod_raise(&bottom).unwrap();
        [lowered, raised]
    }
    let mut recorder = Recorder::new(&params);
    let x = recorder.input(3, 0.25).unwrap();
    let [lowered, raised] = run(&mut recorder, &x);
    assert!((recorder.bound(lowered) - 0.25 * (0.25 + 0.25 + 0.3)).abs() < 1e-12);
    assert_eq!(recorder.bound(raised), f64::INFINITY);
    let unbounded = recorder.finish(vec![lowered, raised]);
    // The circuit around it has to say what the modulus holds.
    assert!(unbounded.verify(&params).is_err());
    let mut recorder = Recorder::new(&params);
    let x = recorder.input(3, 0.25).unwrap();
    let [lowered, raised] = run(&mut recorder, &x);
    recorder.tighten(raised, 1e6);
    let program = recorder.finish(vec![lowered, raised]);
    program.verify(&params).unwrap();
    // What a map or ModRaise makes has to fit its modulus, whether it is an answer or not.
    for (value, answer) in [(lowered, raised), (raised, lowered)] {
        let mut tight = program.clone();
        tight.outputs = vec![answer];
        tight.verify(&params).unwrap();
        tight.values[value.0 as usize].mean = 1e60;
        assert!(tight.verify(&params).is_err());
    }
    let text = program.print();
    assert!(
        text.contains("nested_transform c0 c0 (3 diagonals, giant steps [3, 2])"),
        "{text}"
    );
    assert!(text.contains("mod_raise c2"), "{text}");

    let mut clear = ClearOps::new(&params);
    let x = clear.encrypt(&slots, 3).unwrap();
    let expected = run(&mut clear, &x);
    assert_eq!(program.key_list(&params), *clear.keys());
    let mut clear = ClearOps::new(&params);
    let plains = program.encode(&mut clear).unwrap();
    let mut values = Vec::new();
    for instruction in &program.instructions {
        let value = |id: ValueId| values.get(id.0 as usize).cloned();
        let plain = |id: PlainId| plains.get(id.0 as usize).cloned();
        let input = |_: usize| Some(x.clone());
        let made = replay(&mut clear, &instruction.operation, &value, &plain, &input);
        values.extend(made.unwrap());
    }
    for (id, expected) in program.outputs.iter().zip(&expected) {
        let found = clear.decrypt(&values[id.0 as usize]);
        assert_eq!(found, clear.decrypt(expected));
    }
}

/// A sum of rotations is one instruction with the keys of its steps, and what it is when run at once; one that
/// would need no key is refused.
#[test]
fn sums_of_rotations_are_replayed() {
    let params = toy_params(1);
    let mut recorder = Recorder::new(&params);
    let x = recorder.input(1, 0.25).unwrap();
    let steps = [3, -1, params.slots() as i64];
    let sum = recorder.rotate_sum(&x, &steps).unwrap();
    assert!((recorder.bound(sum) - 1.0).abs() < 1e-12);
    let program = recorder.finish(vec![sum]);
    program.verify(&params).unwrap();
    assert_eq!(program.instructions.len(), 3, "{}", program.print());
    assert!(program.print().contains("rotate_sum c0 by [3, "));

    let slots: Vec<f64> = (0..params.slots()).map(|j| (j % 8) as f64 / 32.0).collect();
    let mut clear = ClearOps::new(&params);
    let x = clear.encrypt(&SlotVector::real(&slots), 1).unwrap();
    let at_once = clear.rotate_sum(&x, &steps).unwrap();
    assert_eq!(program.key_list(&params), *clear.keys());
    let mut values = Vec::new();
    for instruction in &program.instructions {
        let value = |id: ValueId| values.get(id.0 as usize).cloned();
        let input = |_: usize| Some(x.clone());
        let made = replay(
            &mut clear,
            &instruction.operation,
            &value,
            &|_| None,
            &input,
        );
        values.extend(made.unwrap());
    }
    let (found, expected) = (
        clear.decrypt(values.last().unwrap()),
        clear.decrypt(&at_once),
    );
    for (j, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let by = |step: usize| slots[(j + step) % slots.len()];
        let real = 2.0 * by(0) + by(3) + by(slots.len() - 1);
        assert!((found.re - real).abs() < 1e-9 && (expected.re - real).abs() < 1e-9);
    }
    for steps in [vec![], vec![3, 0]] {
        let mut broken = program.clone();
        let source = ValueId(0);
        broken.instructions[1].operation = Operation::RotateSum { source, steps };
        let refused = broken.verify(&params).unwrap_err().to_string();
        assert!(refused.contains("move nothing"), "{refused}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is recorded is what runs: the same operations are refused, and level, scale and the
    /// bound of every slot agree with the values themselves.
    #[test]
    fn the_recorder_follows_the_operations(
        choices in prop::collection::vec((any::<u8>(), 0usize..50, 0usize..50, 0usize..8), 1..40),
    ) {
        let params = toy_params(3);
        let mut clear = ClearOps::new(&params);
        let mut recorder = Recorder::new(&params);
        let slots: Vec<f64> = (0..params.slots()).map(|i| ((i * 7) % 11) as f64 / 11.0 - 0.4).collect();
        let mut run = vec![clear.encrypt(&SlotVector::real(&slots), 3).unwrap()];
        let mut recorded = vec![recorder.input(3, 0.6).unwrap()];
        for choice in choices {
            let done = step(&mut clear, &mut run, choice);
            // What outgrows its modulus is the verifier's business, not the recorder's.
            if done.as_ref().is_err_and(|e| e.contains("modulus")) {
                break;
            }
            let noted = step(&mut recorder, &mut recorded, choice);
            prop_assert_eq!(done.is_ok(), noted.is_ok(), "{:?} {:?} {:?}", choice, done, noted);
            let (ct, id) = (run.last().unwrap(), recorded.last().unwrap());
            prop_assert_eq!(clear.level(ct), recorder.level(id));
            prop_assert!(clear.scale(ct).matches(recorder.scale(id)));
            let largest = clear.decrypt(ct).iter().fold(0.0f64, |m, s| m.max(s.norm()));
            prop_assert!(largest <= recorder.bound(*id) * (1.0 + 1e-4) + 1e-4, "{} {}", largest, recorder.bound(*id));
        }
        let last = *recorded.last().unwrap();
        let keys = clear.keys().clone();
        let program = recorder.finish(vec![last]);
        prop_assert_eq!(program.key_list(&params), keys);
    }

    /// A pattern expands to what it was made of, however it is stored.
    #[test]
    fn patterns_keep_their_slots(log_run in 0u32..7, seed in 0u64..1000) {
        let run = 1usize << log_run;
        let value = |i: usize| Complex::new((((i / run) as u64 * 37 + seed) % 5) as f64, seed as f64);
        let slots: Vec<Complex> = (0..64).map(value).collect();
        let pattern = PlainPattern::of(&SlotVector::Dense(slots.clone()));
        let expanded = match pattern.expand() {
            SlotVector::Constant(c) => vec![c; 64],
            SlotVector::Dense(v) => v,
            SlotVector::Periodic(p) => p.iter().cycle().take(64).copied().collect(),
        };
        prop_assert_eq!(&expanded, &slots);
        prop_assert!(pattern.check(64).is_ok());
        let largest = slots.iter().fold(0.0f64, |m, s| m.max(s.norm()));
        prop_assert!((pattern.max_abs() - largest).abs() < 1e-12);
        prop_assert!(pattern.mean_abs() <= pattern.max_abs() + 1e-12);
    }
}

/// Which plaintexts live on the special primes follows from what they meet, at any level of use.
#[test]
fn plaintexts_of_rotated_inputs_are_extended() {
    let params = toy_params(2);
    let mut r = Recorder::new(&params);
    let x = r.input(2, 1.0).unwrap();
    let scale = params.scale_at(2);
    let constant = |c: f64| SlotVector::real_constant(c);
    let both = r.plain(&constant(0.5), 2, scale).unwrap();
    let plain = r.plain(&constant(0.25), 2, scale).unwrap();
    let slots = params.slots() as i64;
    let term = |baby, plain| Term {
        input: 0,
        baby,
        plain,
    };
    let map = |terms| Transform {
        giants: vec![Giant { rotation: 1, terms }],
    };
    // A rotation by all slots moves nothing.
    let still = map(vec![term(slots, plain), term(0, both)]);
    r.linear_transform(&[&x], &still).unwrap();
    let turned = map(vec![term(0, plain), term(3, both)]);
    assert!(matches!(
        r.linear_transform(&[&x], &turned),
        Err(OpsError::NotExtended { .. })
    ));
    // Equal slots are stored once, whatever they meet.
    assert_eq!(r.term_plain(&constant(0.5), 2, scale, 3).unwrap(), both);
    let y = r.linear_transform(&[&x], &turned).unwrap();
    let program = r.finish(vec![y]);
    assert_eq!(program.extended_plains(), [true, false]);
    program.verify(&params).unwrap();
}

/// Real and imaginary parts in the clear and recorded: no level, one key switch.
#[test]
fn pairs_are_taken_apart_and_joined() {
    fn run<O: Ops>(ops: &mut O, x: &O::Ct) -> [O::Ct; 3] {
        let (re, im) = pairing::split(ops, x).unwrap();
        let joined = pairing::join(ops, &re, &im).unwrap();
        assert_eq!(ops.level(&joined), ops.level(x));
        assert!(ops.scale(&joined).matches(ops.scale(x)));
        [re, im, joined]
    }
    let params = toy_params(2);
    let slots: Vec<Complex> = (0..params.slots())
        .map(|j| Complex::new(j as f64 / 64.0, (j % 5) as f64))
        .collect();
    let mut clear = ClearOps::new(&params);
    let x = clear.encrypt(&SlotVector::Dense(slots.clone()), 2).unwrap();
    let [re, im, joined] = run(&mut clear, &x).map(|ct| clear.decrypt(&ct));
    for (j, slot) in slots.iter().enumerate() {
        assert!((re[j] - 2.0 * slot.re).norm() < 1e-5);
        assert!((im[j] - 2.0 * slot.im).norm() < 1e-5);
        assert!((joined[j] - 2.0 * slot).norm() < 1e-5);
    }
    let mut recorder = Recorder::new(&params);
    let x = recorder.input(2, 5.0).unwrap();
    let made = run(&mut recorder, &x);
    let program = recorder.finish(made.to_vec());
    program.verify(&params).unwrap();
    let keys = program.key_list(&params);
    assert_eq!((keys.len(), keys.conjugation), (1, vec![2]));
}

#[test]
fn patterns_of_the_wrong_size_are_refused() {
    let one = Complex::new(1.0, 0.0);
    assert!(
        PlainPattern::Runs {
            run: 8,
            values: vec![one; 7]
        }
        .check(64)
        .is_err()
    );
    assert!(
        PlainPattern::Runs {
            run: usize::MAX,
            values: vec![one; 2]
        }
        .check(64)
        .is_err()
    );
    assert!(
        PlainPattern::Constant(Complex::new(f64::NAN, 0.0))
            .check(64)
            .is_err()
    );
}

fn model() -> TensorProgram {
    let mut p = TensorProgram {
        name: "m".into(),
        max_tokens: 4,
        ops: vec![],
        labels: vec!["a".into(), "b".into()],
    };
    let x = p.push(TensorOp::Input {
        features: 2,
        bound: vec![1.0; 2],
    });
    let o = p.push(TensorOp::PowerAttention {
        query: x,
        key: x,
        value: x,
        heads: 2,
        score_scale: 1.0,
    });
    let y = p.push(TensorOp::Add { x, y: o });
    let u = p.push(TensorOp::Quadratic {
        x: y,
        coefficients: vec![[0.0, 1.0, 1.0]; 2],
    });
    let m = p.push(TensorOp::MeanPool { x: u });
    p.push(TensorOp::Linear {
        x: m,
        weight: Matrix::identity(2),
        bias: vec![0.0; 2],
    });
    p
}

#[test]
fn the_tensor_verifier_names_what_does_not_fit() {
    let good = model();
    assert!(good.verify().is_ok());
    let text = good.print();
    assert!(
        text.contains("power attention") && text.contains("answer: a, b"),
        "{text}"
    );
    type Change = fn(&mut TensorProgram);
    let table: [(&str, Change); 10] = [
        ("empty", |p| p.ops.clear()),
        ("max_tokens", |p| p.max_tokens = 0),
        ("logit per label", |p| p.labels.push("c".into())),
        ("only input", |p| p.ops[2] = p.ops[0].clone()),
        ("bounds", |p| {
            p.ops[0] = TensorOp::Input {
                features: 2,
                bound: vec![],
            }
        }),
        ("heads", |p| {
            let q = TensorId(0);
            p.ops[1] = TensorOp::PowerAttention {
                query: q,
                key: q,
                value: q,
                heads: 3,
                score_scale: 1.0,
            };
        }),
        ("before its use", |p| {
            p.ops[2] = TensorOp::Add {
                x: TensorId(0),
                y: TensorId(9),
            }
        }),
        ("coefficient", |p| {
            p.ops[3] = TensorOp::Quadratic {
                x: TensorId(2),
                coefficients: vec![],
            }
        }),
        ("pooled", |p| {
            p.ops[5] = TensorOp::MeanPool { x: TensorId(4) }
        }),
        ("not finite", |p| {
            let weight = Matrix::from_rows(2, 2, vec![f64::NAN; 4]).unwrap();
            p.ops[5] = TensorOp::Linear {
                x: TensorId(4),
                weight,
                bias: vec![0.0; 2],
            };
        }),
    ];
    for (phrase, change) in table {
        let mut program = model();
        change(&mut program);
        let error = program.verify().unwrap_err().to_string();
        assert!(
            error.contains(phrase),
            "expected \"{phrase}\" in \"{error}\""
        );
    }
}
