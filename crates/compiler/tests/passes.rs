//! Each pass against the interpreter of the tensor program, over shapes that nobody shipped.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use veilformer_circuits::testing::ClearOps;
use veilformer_ckks::{Complex, Ops, SecurityLevel, SlotVector};
use veilformer_compiler::calibrate::evaluate;
use veilformer_compiler::{Compiled, DEFAULT_MARGIN, Options, atoms, compile, length};
use veilformer_ir::ciphertext::{Operation, replay};
use veilformer_models::interpreter::interpret;
use veilformer_models::{Checkpoint, ModelConfig, random_checkpoint};

#[derive(Clone, Copy, Debug)]
struct Shape {
    hidden: usize,
    layers: usize,
    heads: usize,
    head_dim: usize,
    tokens: usize,
    labels: usize,
    ffn: usize,
}

fn model(s: Shape, seed: u64) -> Checkpoint {
    let labels: Vec<String> = (0..s.labels)
        .map(|l| format!("\"{l}\":\"label {l}\""))
        .collect();
    let json = format!(
        r#"{{"model_type":"veilformer-poly","format_version":1,"hidden_size":{},
        "num_hidden_layers":{},"num_attention_heads":{},"head_dim":{},
        "intermediate_size":{},"max_position_embeddings":{},"vocab_size":50,
        "attention":{{"kind":"power","power":2,"length_scaling":"1/n"}},
        "activation":{{"kind":"polynomial","degree":2}},"normalization":"batch","norm_eps":1e-5,
        "pooling":"mean","id2label":{{{}}}}}"#,
        s.hidden,
        s.layers,
        s.heads,
        s.head_dim,
        s.ffn,
        s.tokens,
        labels.join(",")
    );
    random_checkpoint(&ModelConfig::from_json(json.as_bytes()).unwrap(), seed).unwrap()
}

fn rows(model: &Checkpoint, n: usize, seed: u32) -> Vec<Vec<f64>> {
    let ids: Vec<u32> = (0..n as u32)
        .map(|t| (t * 7 + seed * 13 + t * t * seed) % 50)
        .collect();
    let table = model.embedding.lookup(&ids, &model.position).unwrap();
    table.iter_rows().map(<[f64]>::to_vec).collect()
}

fn close(got: &[f64], want: &[f64], tolerance: f64) {
    for (g, w) in got.iter().zip(want) {
        assert!(
            (g - w).abs() <= tolerance * w.abs().max(1.0),
            "{got:?} against {want:?}"
        );
    }
}

fn compiled(model: &Checkpoint) -> Compiled {
    let program = model.tensor_program("test");
    let calibration = (1..=program.max_tokens)
        .map(|n| rows(model, n, n as u32))
        .collect();
    let options = Options {
        security: SecurityLevel::Bits128,
        calibration,
        margin: DEFAULT_MARGIN,
    };
    compile(&program, &options).unwrap()
}

/// Replays the ciphertext program on slots in the clear, which keep its level and scale rules.
fn replay_clear(compiled: &Compiled, tokens: &[Vec<f64>]) -> Vec<f64> {
    let (program, params) = (&compiled.program, &compiled.params);
    let mut ops = ClearOps::new(params);
    let plains: Vec<_> = program
        .plains
        .iter()
        .zip(program.extended_plains())
        .map(|(p, extended)| {
            let slots = p.pattern.expand();
            if extended {
                ops.extended_plain(&slots, p.level, p.scale).unwrap()
            } else {
                ops.plain(&slots, p.level, p.scale).unwrap()
            }
        })
        .collect();
    let mut values = vec![None; program.values.len()];
    for instruction in &program.instructions {
        let results = if let Operation::Input { index } = &instruction.operation {
            let spec = &compiled.signature.inputs[*index];
            let slots = compiled.signature.pack(spec, tokens, params.slots());
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
    let mut logits = Vec::new();
    for id in &program.outputs {
        let slots = ops.decrypt(values[id.0 as usize].as_ref().unwrap());
        let first = slots[0];
        assert!(
            slots
                .iter()
                .all(|s: &Complex| (s - first).norm() < 1e-6 * first.norm().max(1.0)),
            "every slot of an answer holds the answer"
        );
        logits.extend([first.re, first.im]);
    }
    logits.truncate(compiled.signature.labels.len());
    logits
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Folding and absorbing the length keep the model's function, for every depth.
    #[test]
    fn without_affine_parts_and_length_it_is_the_same_model(
        hidden in 2usize..9, layers in 1usize..4, heads in 1usize..4, head_dim in 1usize..5,
        tokens in 1usize..9, labels in 2usize..5, ffn in 1usize..9, room in 0usize..30, seed in 0u64..1000,
    ) {
        let model = model(Shape { hidden, layers, heads, head_dim, tokens, labels, ffn }, seed);
        let program = model.tensor_program("test");
        let free = length::absorb(&atoms::fold(&program).unwrap(), room).unwrap();
        for n in 1..=tokens {
            let input = rows(&model, n, seed as u32);
            close(&evaluate(&free, &input).0, &interpret(&program, &input).unwrap().logits, 1e-9);
        }
    }
}

/// The whole lowered program, for shapes with padding on every axis, at every length.
#[test]
fn lowered_programs_compute_the_model_in_the_clear() {
    let shapes = [
        Shape {
            hidden: 5,
            layers: 1,
            heads: 1,
            head_dim: 3,
            tokens: 1,
            labels: 2,
            ffn: 4,
        },
        Shape {
            hidden: 7,
            layers: 1,
            heads: 3,
            head_dim: 5,
            tokens: 6,
            labels: 3,
            ffn: 9,
        },
        Shape {
            hidden: 12,
            layers: 1,
            heads: 2,
            head_dim: 4,
            tokens: 17,
            labels: 2,
            ffn: 20,
        },
        Shape {
            hidden: 6,
            layers: 2,
            heads: 2,
            head_dim: 3,
            tokens: 4,
            labels: 5,
            ffn: 6,
        },
    ];
    for shape in shapes {
        let model = model(shape, 5);
        let compiled = compiled(&model);
        let program = model.tensor_program("test");
        for n in 1..=shape.tokens {
            let tokens = rows(&model, n, 77);
            let want = interpret(&program, &tokens).unwrap().logits;
            close(&replay_clear(&compiled, &tokens), &want, 1e-5);
        }
    }
}

/// More features than one ciphertext has chunks, and more heads: both axes are cut.
#[test]
fn wide_models_take_several_ciphertexts() {
    let shape = Shape {
        hidden: 40,
        layers: 1,
        heads: 5,
        head_dim: 16,
        tokens: 100,
        labels: 2,
        ffn: 90,
    };
    let model = model(shape, 9);
    let compiled = compiled(&model);
    let tokens = rows(&model, 93, 4);
    let want = interpret(&model.tensor_program("test"), &tokens)
        .unwrap()
        .logits;
    close(&replay_clear(&compiled, &tokens), &want, 1e-5);
}

/// The verifier refuses what a stranger's file could hold.
#[test]
fn a_tampered_program_does_not_verify() {
    let shape = Shape {
        hidden: 3,
        layers: 1,
        heads: 1,
        head_dim: 2,
        tokens: 2,
        labels: 2,
        ffn: 3,
    };
    let compiled = compiled(&model(shape, 1));
    let params = &compiled.params;
    assert!(compiled.program.verify(params).is_ok());
    let tampered = |change: &dyn Fn(&mut veilformer_ir::ciphertext::CiphertextProgram)| {
        let mut program = compiled.program.clone();
        change(&mut program);
        assert!(program.verify(params).is_err());
    };
    tampered(&|p| p.params_digest[0] ^= 1);
    tampered(&|p| p.values[3].level += 1);
    tampered(&|p| p.values.truncate(5));
    tampered(&|p| p.instructions.swap(1, 9));
    tampered(&|p| p.outputs.clear());
    tampered(&|p| p.outputs[0].0 = u32::MAX);
    tampered(&|p| p.plains.truncate(1));
    tampered(&|p| p.values.last_mut().unwrap().mean = f64::NAN);
    tampered(&|p| p.values.last_mut().unwrap().mean = 1e30);
    tampered(&|p| p.inputs.push(p.inputs[0].clone()));
    tampered(&|p| p.inputs[0].scale = p.inputs[0].scale.multiply(2.0));
    tampered(&|p| p.values.last_mut().unwrap().mean = -1.0);
    tampered(&|p| p.outputs = vec![p.outputs[0]; p.values.len() + 1]);
    tampered(&|p| p.sections[0] = "\u{1b}[2J".into());
    // A rotation that moves nothing has no result in the table, and one at run time.
    tampered(&|p| {
        let slots = p.slots as i64;
        let steps = p
            .instructions
            .iter_mut()
            .find_map(|i| match &mut i.operation {
                Operation::RotateMany { steps, .. } => Some(steps),
                _ => None,
            });
        steps.unwrap().insert(0, slots);
    });
    tampered(&|p| {
        for i in &mut p.instructions {
            if let Operation::LinearTransform { transform, .. } = &mut i.operation {
                transform.giants.clear();
            }
        }
    });
}

/// Ranges that say nothing would let answers overflow unseen.
#[test]
fn options_that_promise_nothing_are_refused() {
    let shape = Shape {
        hidden: 3,
        layers: 1,
        heads: 1,
        head_dim: 2,
        tokens: 2,
        labels: 2,
        ffn: 3,
    };
    let model = model(shape, 1);
    let program = model.tensor_program("test");
    let good = rows(&model, 2, 1);
    let refused = |calibration: Vec<Vec<Vec<f64>>>, margin: f64| {
        let options = Options {
            security: SecurityLevel::Bits128,
            calibration,
            margin,
        };
        compile(&program, &options).is_err()
    };
    assert!(!refused(vec![good.clone()], 1.0));
    for margin in [0.5, 0.0, -16.0, f64::NAN, f64::INFINITY] {
        assert!(refused(vec![good.clone()], margin));
    }
    for bad in [
        vec![],
        vec![vec![0.0; 2]],
        vec![vec![f64::NAN; 3]],
        vec![vec![0.0; 3]; 3],
    ] {
        assert!(refused(vec![good.clone(), bad], 16.0));
    }
}
