//! Encoders recorded as ciphertext programs, on a ring without security.
#![allow(clippy::unwrap_used)]

use veilformer_circuits::bootstrap::Content;
use veilformer_circuits::testing::{ClearCiphertext, ClearOps, IdealBootstrap, toy_bootstrap_of};
use veilformer_ckks::SlotVector;
use veilformer_compiler::encoder::{
    Budget, CompiledEncoder, Polynomials, Substitution, compile, substitute,
};
use veilformer_ir::ciphertext::{Operation, PlainId, ValueId, replay};
use veilformer_ir::encoder::AttentionFunction;
use veilformer_models::encoder::{
    EncoderFolder, Execution, RandomEncoder, calibrate, center_keys, write_random_folder,
};

/// Two layers of three heads, 48 tokens.
fn shape(labels: usize) -> RandomEncoder {
    RandomEncoder {
        layers: 2,
        hidden: 192,
        heads: 3,
        intermediate: 384,
        activation: "gelu_pytorch_tanh".into(),
        attention: AttentionFunction::Softmax,
        positions: 64,
        vocabulary: 96,
        labels,
        ranges: vec![(4.0, 4.0)],
    }
}

fn sentences(tokens: usize) -> Vec<Vec<u32>> {
    let lengths = [tokens, tokens / 2, 5, tokens - 1, tokens / 3];
    let sentence = |seed: usize| -> Vec<u32> {
        let token = |i: usize| (5 + (i * i * 31 + i * 17 + seed * 101) % 90) as u32;
        (0..lengths[seed % lengths.len()].max(2))
            .map(token)
            .collect()
    };
    (0..40).map(sentence).collect()
}

/// The folder of a random model, with keys centred, and the ranges of its sentences.
fn folder(labels: usize, tokens: usize) -> EncoderFolder {
    let dir = tempfile::tempdir().unwrap();
    write_random_folder(dir.path(), &shape(labels), 7).unwrap();
    let mut folder = EncoderFolder::load(dir.path(), tokens).unwrap();
    center_keys(&mut folder.encoder, &sentences(tokens)).unwrap();
    folder
}

fn compiled(folder: &EncoderFolder, tokens: usize) -> (CompiledEncoder, Substitution) {
    let (params, spec) = toy_bootstrap_of(12, 11);
    let execution = Execution::new(&folder.encoder).unwrap();
    let ranges = calibrate(&execution, &sentences(tokens)).unwrap();
    let budget = Budget {
        margin: 0.3,
        ..Budget::default()
    };
    let substitution = substitute(&ranges, &folder.encoder, &budget).unwrap();
    let mut heard = Vec::new();
    let progress = &mut |stage: &str| heard.push(stage.to_owned());
    let of = (&substitution, &ranges);
    let compiled = compile(&folder.encoder, of, (&params, &spec), tokens, progress).unwrap();
    assert_eq!(heard.first().unwrap(), "layout");
    assert_eq!(heard.last().unwrap(), "verification");
    assert!(heard.iter().any(|stage| stage == "layer 1, scores"));
    (compiled, substitution)
}

/// Replays the program in the clear; the largest difference from the polynomials' own run.
fn replayed(folder: &EncoderFolder, tokens: usize) -> f64 {
    let (compiled, substitution) = compiled(folder, tokens);
    let CompiledEncoder {
        compiled, stages, ..
    } = compiled;
    let (program, params) = (&compiled.program, &compiled.params);
    program.verify(params).unwrap();
    let execution = Execution::new(&folder.encoder).unwrap();
    // Every stage is a section, in its order.
    let names = stages.iter().map(|stage| &stage.name);
    assert!(names.eq(&program.sections[1..]), "{:?}", program.sections);
    let bootstraps = |section: &str| {
        let section = program.sections.iter().position(|s| s == section);
        let in_section = program.instructions.iter();
        let all = in_section.filter(|i| matches!(i.operation, Operation::Bootstrap { .. }));
        all.filter(|i| Some(i.section as usize) == section).count()
    };
    for stage in &stages {
        let expected = stage.bootstraps + stage.real_bootstraps;
        assert_eq!(bootstraps(&stage.name), expected, "{}", stage.name);
    }

    let mut ops = ClearOps::new(params);
    let table = program.bootstraps.iter().map(|b| IdealBootstrap {
        content: b.content,
        input_level: b.input_level,
        output_level: b.output_level,
    });
    let table: Vec<_> = table.collect();
    assert!(table.iter().any(|b| b.content == Content::Real));
    ops.set_ideal_bootstraps(&table);
    let plains = program.encode(&mut ops).unwrap();
    let mut worst = 0.0f64;
    for ids in &sentences(tokens)[..3] {
        let rows = execution.embed(ids).unwrap();
        let mut poly = Polynomials::new(&substitution);
        let expected = execution.finish(execution.answer(&rows, &mut poly).unwrap());
        assert!(poly.violations().is_empty(), "{:?}", poly.violations());
        let rows: Vec<Vec<f64>> = rows.iter_rows().map(<[f64]>::to_vec).collect();
        let signature = &compiled.signature;
        let inputs: Vec<ClearCiphertext> = signature
            .inputs
            .iter()
            .map(|spec| {
                let slots = signature.pack(spec, &[&rows], params.slots());
                ops.encrypt(&SlotVector::real(&slots), spec.level).unwrap()
            })
            .collect();
        let mut values: Vec<Option<ClearCiphertext>> = Vec::new();
        for instruction in &program.instructions {
            let value = |id: ValueId| values[id.0 as usize].clone();
            let plain = |id: PlainId| plains.get(id.0 as usize).cloned();
            let input = |index: usize| inputs.get(index).cloned();
            let made = replay(&mut ops, &instruction.operation, &value, &plain, &input).unwrap();
            for (id, ct) in instruction.results.iter().zip(&made) {
                let most = ops
                    .decrypt(ct)
                    .iter()
                    .fold(0.0, |m, z| f64::max(m, z.norm()));
                let bound = program.info(*id).unwrap().bound;
                let section = &program.sections[instruction.section as usize];
                assert!(
                    most <= 1.01 * bound + 1e-3,
                    "{section}: {most} beyond {bound}"
                );
            }
            values.extend(made.into_iter().map(Some));
        }
        let outputs = program.outputs.iter();
        let slots = outputs.map(|id| ops.decrypt(values[id.0 as usize].as_ref().unwrap()));
        let slots: Vec<_> = slots.collect();
        let answer = signature.unpack(&slots).remove(0);
        assert!(answer.spread <= 0.0, "{}", answer.spread);
        let scale = expected.iter().fold(1e-6, |m, e| f64::max(m, e.abs()));
        assert_eq!(answer.logits.len(), expected.len());
        for (a, b) in answer.logits.iter().zip(&expected) {
            worst = worst.max((a - b).abs() / scale);
        }
    }
    worst
}

#[test]
fn a_recorded_classifier_is_its_polynomials() {
    let folder = folder(3, 48);
    let error = replayed(&folder, 48);
    // Weights are 32-bit numbers now.
    assert!((1e-12..1e-5).contains(&error), "{error:e}");
}

#[test]
fn a_recorded_embedding_is_its_polynomials() {
    let folder = folder(0, 48);
    let error = replayed(&folder, 48);
    assert!((1e-12..1e-5).contains(&error), "{error:e}");
}
