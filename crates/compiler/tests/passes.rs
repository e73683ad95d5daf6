//! Each pass against the interpreter of the tensor program, over shapes that nobody shipped.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use support::{close, replay_clear};
use veilformer_ckks::SecurityLevel;
use veilformer_compiler::calibrate::evaluate;
use veilformer_compiler::{Compiled, DEFAULT_MARGIN, Options, atoms, compile, length};
use veilformer_ir::ciphertext::Operation;
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
    model.rows(&ids).unwrap()
}

fn compiled(model: &Checkpoint) -> Compiled {
    compiled_for(model, 1)
}

fn compiled_for(model: &Checkpoint, batch: usize) -> Compiled {
    let program = model.tensor_program("test");
    let calibration = (1..=program.max_tokens)
        .map(|n| rows(model, n, n as u32))
        .collect();
    let options = Options {
        security: SecurityLevel::Bits128,
        calibration,
        margin: DEFAULT_MARGIN,
        tokens: None,
        batch,
    };
    compile(&program, &options).unwrap()
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
            close(&replay_clear(&compiled, &[tokens])[0], &want, 1e-5);
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
    close(&replay_clear(&compiled, &[tokens])[0], &want, 1e-5);
}

/// Several sentences in one ciphertext: each gets its own answer.
#[test]
fn a_batch_of_sentences_is_as_good_as_one_after_the_other() {
    let shape = Shape {
        hidden: 7,
        layers: 1,
        heads: 3,
        head_dim: 5,
        tokens: 6,
        labels: 3,
        ffn: 9,
    };
    let model = model(shape, 5);
    let program = model.tensor_program("test");
    for batch in [2, 16] {
        let compiled = compiled_for(&model, batch);
        let sentences: Vec<_> = (0..batch - 1)
            .map(|i| rows(&model, 1 + i % 6, i as u32))
            .collect();
        for (tokens, got) in sentences.iter().zip(replay_clear(&compiled, &sentences)) {
            close(&got, &interpret(&program, tokens).unwrap().logits, 1e-5);
        }
    }
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
    tampered(&|p| p.batch = 3);
    tampered(&|p| p.batch = 2 * p.slots);
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
            if let Operation::LinearTransform { transforms, .. } = &mut i.operation {
                transforms.iter_mut().for_each(|t| t.giants.clear());
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
            tokens: None,
            batch: 1,
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
