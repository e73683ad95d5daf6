//! What the tests of the compiler share.
#![allow(clippy::unwrap_used)]

use veilformer_circuits::testing::ClearOps;
use veilformer_ckks::{Ops, SlotVector};
use veilformer_compiler::Compiled;
use veilformer_ir::ciphertext::{Operation, replay};

pub fn close(got: &[f64], want: &[f64], tolerance: f64) {
    for (g, w) in got.iter().zip(want) {
        assert!(
            (g - w).abs() <= tolerance * w.abs().max(1.0),
            "{got:?} against {want:?}"
        );
    }
}

/// Replays the ciphertext program on slots in the clear, which keep its level and scale rules.
pub fn replay_clear(compiled: &Compiled, sentences: &[Vec<Vec<f64>>]) -> Vec<Vec<f64>> {
    let (program, params) = (&compiled.program, &compiled.params);
    let mut ops = ClearOps::new(params);
    let plains: Vec<_> = program
        .plains
        .iter()
        .map(|p| ops.plain(&p.pattern.expand(), p.level, p.scale).unwrap())
        .collect();
    let mut values = vec![None; program.values.len()];
    for instruction in &program.instructions {
        let results = if let Operation::Input { index } = &instruction.operation {
            let spec = &compiled.signature.inputs[*index];
            let slots = compiled.signature.pack(spec, sentences, params.slots());
            vec![ops.encrypt(&SlotVector::real(&slots), spec.level).unwrap()]
        } else {
            let value = |id: veilformer_ir::ciphertext::ValueId| values[id.0 as usize].clone();
            let plain =
                |id: veilformer_ir::ciphertext::PlainId| Some(plains[id.0 as usize].clone());
            replay(&mut ops, &instruction.operation, &value, &plain, &|_| None).unwrap()
        };
        for (id, ct) in instruction.results.iter().zip(results) {
            // Whatever lies in a slot, junk and padding included, keeps the promised bounds.
            let info = program.info(*id).unwrap();
            let slots = ops.decrypt(&ct);
            let largest = slots.iter().fold(0.0f64, |m, s| m.max(s.norm()));
            let mean = slots.iter().map(|s| s.norm()).sum::<f64>() / slots.len() as f64;
            let room = 1.0 + 1e-6;
            assert!(
                largest <= info.bound * room + 1e-9,
                "{largest} exceeds {} in {instruction:?}",
                info.bound
            );
            assert!(
                mean <= info.mean * room + 1e-9,
                "a mean of {mean} exceeds {} in {instruction:?}",
                info.mean
            );
            values[id.0 as usize] = Some(ct);
        }
    }
    assert_eq!(
        ops.keys(),
        &compiled.keys,
        "the key list is what the program uses"
    );
    let slots = |id: &veilformer_ir::ciphertext::ValueId| {
        ops.decrypt(values[id.0 as usize].as_ref().unwrap())
    };
    let outputs: Vec<_> = program.outputs.iter().map(slots).collect();
    let answers = compiled.signature.unpack(&outputs);
    assert!(
        answers.iter().all(|a| a.spread < 1e-6),
        "every slot of an answer holds the answer of its sentence"
    );
    answers.into_iter().map(|a| a.logits).collect()
}
