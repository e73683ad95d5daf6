//! Programs with bootstraps: recorded, verified, printed, replayed.
#![allow(clippy::unwrap_used)]

use veilformer_circuits::bootstrap::Content;
use veilformer_circuits::testing::{ClearCiphertext, ClearOps, toy_bootstrap};
use veilformer_ckks::{KeyPurpose, Ops, OpsError, Params, SlotVector};
use veilformer_ir::ciphertext::{CiphertextProgram, MAX_BOOTSTRAPS, Operation, Recorder, replay};

/// A pair and a single value are bootstrapped, and multiplied with what was not.
fn circuit<O: Ops>(ops: &mut O, [x, y]: [&O::Ct; 2]) -> Result<Vec<O::Ct>, OpsError> {
    let pair = ops.bootstraps(&[x, y], 0)?;
    let product = ops.mul(&pair[0], &pair[1])?;
    let low = ops.adjust(&product, 2)?;
    let again = ops.bootstrap(&low, 1)?;
    let turned = ops.rotate(&again, 3)?;
    Ok(vec![turned, ops.sub(&pair[0], &pair[1])?])
}

fn program(params: &Params) -> CiphertextProgram {
    let (_, spec) = toy_bootstrap(params.log_n());
    let mut recorder = Recorder::new(params);
    for (which, content) in [Content::Complex, Content::Real, Content::Complex]
        .into_iter()
        .enumerate()
    {
        assert_eq!(recorder.bootstrap_entry(&spec, content).unwrap(), which % 2);
    }
    recorder.section("all of it");
    let x = recorder.input(2, 1.0).unwrap();
    let y = recorder.input(4, 0.5).unwrap();
    let outputs = circuit(&mut recorder, [&x, &y]).unwrap();
    recorder.finish(outputs)
}

#[test]
fn what_is_recorded_is_what_runs() {
    let (params, spec) = toy_bootstrap(9);
    let program = program(&params);
    program.verify(&params).unwrap();
    let [complex, real] = &program.bootstraps[..] else {
        panic!("two entries")
    };
    assert_eq!((complex.input_level, complex.output_level), (2, 5));
    // What follows from a specification is what its circuit does.
    for entry in [complex, real] {
        let plan = entry.plan(&params).unwrap();
        assert_eq!(entry.keys, plan.keys().unwrap());
        let mut purposes: Vec<KeyPurpose> = entry.keys.iter().map(|key| key.0).collect();
        purposes.sort_unstable();
        purposes.dedup();
        let mut order = entry.order.clone();
        order.sort_unstable();
        assert_eq!(order, purposes);
        assert!(entry.spec == spec && entry.error < 2f64.powi(-15));
        let inside = entry.inside(&params).unwrap();
        assert_eq!(inside.values.last().unwrap().level, entry.output_level);
    }
    assert!(real.key_switches < complex.key_switches);
    let list = program.key_list(&params);
    assert_eq!(list.encapsulation, Some(params.max_level()));
    assert!(
        list.rotations
            .iter()
            .any(|(by, level)| *by == 3 && *level >= 5)
    );
    let uses = program.key_uses(&program.instructions[2].operation);
    assert!(uses.contains(&KeyPurpose::FromEphemeral) && uses.contains(&KeyPurpose::Conjugation));
    let text = program.print();
    for part in [
        "bootstrap 1: Real slots, from level 2 to level 5",
        "c2 c3 = bootstrap 0 of a pair c0 c1  ; level 5",
        "c6 = bootstrap 1 c5",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // The bound grows by what a bootstrap may err.
    let bound = |id: usize| program.values[id].bound;
    assert_eq!(bound(3), 0.5 + complex.error);

    let mut ops = ClearOps::new(&params);
    let table = program.bootstraps.iter().map(|b| b.plan(&params).unwrap());
    ops.set_bootstraps(&table.collect::<Vec<_>>()).unwrap();
    let n = params.slots();
    let wave = |k: usize, most: f64| -> Vec<f64> {
        (0..n).map(|j| most * ((j * k) as f64).sin()).collect()
    };
    let (a, b) = (wave(3, 1.0), wave(7, 0.5));
    let x = ops.encrypt(&SlotVector::real(&a), 2).unwrap();
    let y = ops.encrypt(&SlotVector::real(&b), 4).unwrap();
    let mut values: Vec<Option<ClearCiphertext>> = Vec::new();
    for instruction in &program.instructions {
        let value = |id: veilformer_ir::ciphertext::ValueId| values[id.0 as usize].clone();
        let input = |index: usize| Some([&x, &y][index].clone());
        let made = replay(&mut ops, &instruction.operation, &value, &|_| None, &input).unwrap();
        values.extend(made.into_iter().map(Some));
    }
    let direct = circuit(&mut ops, [&x, &y]).unwrap();
    for (id, direct) in program.outputs.iter().zip(&direct) {
        let replayed = ops.decrypt(values[id.0 as usize].as_ref().unwrap());
        assert!(
            replayed
                .iter()
                .zip(ops.decrypt(direct))
                .all(|(a, b)| (a - b).norm() < 1e-5)
        );
    }
    for (j, z) in ops.decrypt(&direct[0]).iter().enumerate() {
        let k = (j + 3) % n;
        assert!((z - a[k] * b[k]).norm() < 1e-5, "{z}");
    }
}

#[test]
fn bounds_and_levels_are_checked_when_a_bootstrap_is_recorded() {
    let (params, spec) = toy_bootstrap(9);
    let mut r = Recorder::new(&params);
    r.section("layer 3, residual");
    let x = r.input(4, 1.25).unwrap();
    let low = r.input(1, 1.0).unwrap();
    let fine = r.input(3, 1.0005).unwrap();
    assert!(
        r.bootstrap(&x, 0)
            .unwrap_err()
            .to_string()
            .contains("table of 0")
    );
    assert_eq!(r.bootstrap_entry(&spec, Content::Real).unwrap(), 0);
    let error = r.bootstrap(&x, 0).unwrap_err().to_string();
    for part in ["layer 3, residual", "1.2500e0", "at most 1", "c0"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(matches!(
        r.bootstrap(&low, 0),
        Err(OpsError::OutOfLevels {
            level: 1,
            needed: 2,
            ..
        })
    ));
    let pair = r.bootstraps(&[&fine, &fine], 0).unwrap_err().to_string();
    assert!(pair.contains("expected one, or two"), "{pair}");
    assert!(r.bootstrap(&fine, 0).is_ok());
    // Who knows better says so.
    r.tighten(x, 0.9);
    let result = r.bootstrap(&x, 0).unwrap();
    assert!((0.9..0.901).contains(&r.bound(result)));
    // Other rings have other bootstraps.
    let (_, other) = toy_bootstrap(10);
    assert!(r.bootstrap_entry(&other, Content::Real).is_err());
    for number in 1..MAX_BOOTSTRAPS {
        let more = r.bootstrap_entry(&spec, Content::Periodic(1 << (number % 7)));
        assert!(more.is_ok());
    }
}

#[test]
fn altered_tables_are_refused() {
    let (params, _) = toy_bootstrap(9);
    let good = program(&params);
    type Change = fn(&mut CiphertextProgram);
    let changes: [(Change, &str); 7] = [
        (|p| p.bootstraps[1].error = 0.0, "bootstrap 1: it is not"),
        (
            |p| p.bootstraps[0].keys.rotations.clear(),
            "bootstrap 0: it is not",
        ),
        (|p| p.bootstraps[0].spec.range = 1, "range is 1"),
        (
            |p| p.bootstraps[0].content = Content::Periodic(3),
            "power of two",
        ),
        (|p| p.bootstraps.truncate(1), "entry 1 of a table of 1"),
        (
            |p| p.bootstraps = vec![p.bootstraps[0].clone(); 17],
            "at most 16",
        ),
        (
            |p| {
                let Some(Operation::Bootstrap { which, .. }) =
                    p.instructions.get_mut(2).map(|i| &mut i.operation)
                else {
                    panic!("the pair")
                };
                *which = 1;
            },
            "expected one, or two",
        ),
    ];
    for (change, message) in changes {
        let mut bad = good.clone();
        change(&mut bad);
        let error = bad.verify(&params).unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
    // A value whose stated bound is beyond the range: the section is named.
    let mut bad = good.clone();
    bad.inputs[0].bound = 1.5;
    bad.values[0].bound = 1.5;
    let error = bad.verify(&params).unwrap_err().to_string();
    assert!(
        error.contains("all of it: slots of c0 may reach 1.5"),
        "{error}"
    );
    // The table comes back from its specifications alone.
    let mut stored = good.clone();
    stored.bootstraps.clear();
    assert!(stored.verify(&params).is_err());
    let table: Vec<_> = good
        .bootstraps
        .iter()
        .map(|b| (b.spec, b.content))
        .collect();
    stored.set_bootstraps(&params, &table).unwrap();
    assert_eq!(stored, good);
}
