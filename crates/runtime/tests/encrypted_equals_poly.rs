//! Models of shapes that nobody shipped, compiled and run encrypted, against the interpreter.

use std::ops::ControlFlow;
use std::sync::Arc;
use veilformer_ckks::{Complex, EvaluationKeys, Evaluator, SecurityLevel, SlotVector};
use veilformer_compiler::{Compiled, DEFAULT_MARGIN, Options, compile};
use veilformer_ir::tensor::TensorProgram;
use veilformer_models::interpreter::interpret;
use veilformer_models::{Checkpoint, ModelConfig, random_checkpoint};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_runtime::{Prepared, run};
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator, SecureRng};

fn config(
    hidden: usize,
    layers: usize,
    heads: usize,
    head_dim: usize,
    tokens: usize,
) -> ModelConfig {
    let json = format!(
        r#"{{"model_type":"veilformer-poly","format_version":1,"hidden_size":{hidden},
        "num_hidden_layers":{layers},"num_attention_heads":{heads},"head_dim":{head_dim},
        "intermediate_size":{ff},"max_position_embeddings":{tokens},"vocab_size":50,
        "attention":{{"kind":"power","power":2,"length_scaling":"1/n"}},
        "activation":{{"kind":"polynomial","degree":2}},"normalization":"batch","norm_eps":1e-5,
        "pooling":"mean","id2label":{{"0":"a","1":"b","2":"c"}}}}"#,
        ff = 2 * hidden
    );
    ModelConfig::from_json(json.as_bytes()).unwrap()
}

fn rows(model: &Checkpoint, ids: &[u32]) -> Vec<Vec<f64>> {
    let m = model.embedding.lookup(ids, &model.position).unwrap();
    m.iter_rows().map(<[f64]>::to_vec).collect()
}

fn sentence(n: usize, seed: u32) -> Vec<u32> {
    (0..n as u32)
        .map(|t| (t * 7 + seed * 13 + t * t * seed) % 50)
        .collect()
}

fn build(model: &Checkpoint) -> (TensorProgram, Compiled) {
    let program = model.tensor_program("unshipped");
    let calibration = (1..=program.max_tokens)
        .zip(1..)
        .map(|(n, seed)| rows(model, &sentence(n, seed)));
    let options = Options {
        security: SecurityLevel::Bits128,
        calibration: calibration.collect(),
        margin: DEFAULT_MARGIN,
    };
    let compiled = compile(&program, &options).unwrap();
    (program, compiled)
}

fn check(config: &ModelConfig, lengths: &[usize]) {
    let model = random_checkpoint(config, 11).unwrap();
    let (program, compiled) = build(&model);
    let params = &compiled.params;
    assert!(params.security().bits() >= 128);
    let mut generator = KeyGenerator::new(params, SecureRng::from_os().unwrap());
    let secret = generator.secret_key().unwrap();
    let stored = generator
        .evaluation_keys(&secret, &compiled.keys, [0; 32], &mut |_, _| {
            ControlFlow::Continue(())
        })
        .unwrap();
    let config = CpuConfig { isa: Isa::detect() };
    let backend = Cpu::new(params.chain().clone(), config).unwrap();
    let keys = EvaluationKeys::prepare(params, &backend, &stored).unwrap();
    let evaluator = Evaluator::new(params, &backend, &keys).unwrap();
    let prepared = Prepared::new(&compiled.program, &evaluator).unwrap();
    let mut encryptor = Encryptor::new(&secret, SecureRng::from_os().unwrap()).unwrap();
    let decryptor = Decryptor::new(&secret).unwrap();
    for &n in lengths {
        let tokens = rows(&model, &sentence(n, 3));
        let expected = interpret(&program, &tokens).unwrap().logits;
        let inputs: Vec<_> = compiled
            .signature
            .inputs
            .iter()
            .map(|spec| {
                let slots = compiled.signature.pack(spec, &tokens, params.slots());
                let stored = encryptor
                    .encrypt(&SlotVector::real(&slots), spec.level)
                    .unwrap();
                evaluator.import(stored.expand(params).unwrap()).unwrap()
            })
            .collect();
        let started = std::time::Instant::now();
        let outputs = run(
            &compiled.program,
            &prepared,
            &evaluator,
            &inputs,
            &|_, _| ControlFlow::Continue(()),
        )
        .unwrap();
        println!(
            "{n} tokens: {:.0} ms",
            started.elapsed().as_secs_f64() * 1e3
        );
        let mut logits = Vec::new();
        for ct in &outputs {
            let ct = Arc::clone(ct).export(&backend).unwrap();
            let slots = decryptor.decrypt(&ct).unwrap().reveal_to_owner().unwrap();
            let mean = slots.iter().sum::<Complex>() / slots.len() as f64;
            for s in &slots {
                assert!(
                    (s - mean).norm() < 1e-3,
                    "every slot holds the answer and nothing else"
                );
            }
            logits.extend([mean.re, mean.im]);
        }
        for (got, want) in logits.iter().zip(&expected) {
            assert!(
                (got - want).abs() < 1e-3 * want.abs().max(1.0),
                "{got} {want} at {n} tokens"
            );
        }
    }
}

#[test]
fn small_heads_that_are_no_powers_of_two() {
    check(&config(20, 1, 3, 5, 12), &[1, 5, 12]);
}
