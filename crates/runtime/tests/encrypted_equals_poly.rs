//! Models of shapes that nobody shipped, compiled and run encrypted, against the interpreter.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;
use std::ops::ControlFlow;
use veilformer_ckks::container::{Kind, Reader, Writer, append_ciphertexts, read_ciphertexts};
use veilformer_ckks::{Complex, SecurityLevel, SlotVector};
use veilformer_compiler::{Compiled, DEFAULT_MARGIN, Options, compile};
use veilformer_ir::tensor::TensorProgram;
use veilformer_models::interpreter::interpret;
use veilformer_models::{Checkpoint, ModelConfig, random_checkpoint};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_runtime::{PROGRAM_DIGEST, Progress, Server, ServerBundle};
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator, SecretKey, SecureRng};

const GO_ON: &Progress<'static> = &|_, _| ControlFlow::Continue(());

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
    model.rows(ids).unwrap()
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
        tokens: None,
        batch: 1,
    };
    let compiled = compile(&program, &options).unwrap();
    (program, compiled)
}

/// The whole path of one model: client and server.
struct Path {
    program: TensorProgram,
    compiled: Compiled,
    secret: SecretKey,
    server: Server<Cpu>,
}

impl Path {
    fn new(model: &Checkpoint) -> Self {
        let (program, compiled) = build(model);
        let params = &compiled.params;
        assert!(params.security().bits() >= 128);
        let mut generator = KeyGenerator::new(params, SecureRng::from_os().unwrap());
        let secret = generator.secret_key().unwrap();
        let bundle =
            ServerBundle::new(params.clone(), compiled.program.clone(), "m", [0; 32]).unwrap();
        let mut keys = Vec::new();
        let digest = bundle.program_digest();
        let go_on = &mut |_, _| ControlFlow::Continue(());
        generator
            .write_evaluation_keys(&secret, &compiled.keys, digest, &mut keys, go_on)
            .unwrap();
        let config = CpuConfig { isa: Isa::detect() };
        let backend = Cpu::new(params.chain().clone(), config).unwrap();
        let mut server = Server::open(bundle, backend).unwrap();
        server.load_keys(Cursor::new(&keys), GO_ON).unwrap();
        Self {
            program,
            compiled,
            secret,
            server,
        }
    }

    /// The logits of a sentence, encrypted. Every slot must hold the answer and nothing else.
    fn logits(&self, tokens: &[Vec<f64>]) -> Vec<f64> {
        let (params, signature) = (&self.compiled.params, &self.compiled.signature);
        let mut encryptor = Encryptor::new(&self.secret, SecureRng::from_os().unwrap()).unwrap();
        let inputs: Vec<_> = signature
            .inputs
            .iter()
            .map(|spec| {
                let slots = signature.pack(spec, &[tokens], params.slots());
                encryptor
                    .encrypt(&SlotVector::real(&slots), spec.level)
                    .unwrap()
            })
            .collect();
        let mut writer = Writer::new(Kind::Ciphertexts, Some(params)).unwrap();
        let digest = self.server.bundle().program_digest();
        writer.section(PROGRAM_DIGEST, digest.to_vec());
        append_ciphertexts(&mut writer, params, &inputs).unwrap();
        let run = self.server.run(&writer.to_bytes().unwrap(), GO_ON).unwrap();
        let reader = Reader::open_for(&run.answer, Kind::Answer, params).unwrap();
        let decryptor = Decryptor::new(&self.secret).unwrap();
        let mut logits = Vec::new();
        for ct in read_ciphertexts(&reader, params).unwrap() {
            let ct = ct.expand(params).unwrap();
            let slots = decryptor.decrypt(&ct).unwrap().reveal_to_owner().unwrap();
            let mean = slots.iter().sum::<Complex>() / slots.len() as f64;
            assert!(slots.iter().all(|s| (s - mean).norm() < 1e-3));
            logits.extend([mean.re, mean.im]);
        }
        logits
    }

    fn check(&self, tokens: &[Vec<f64>]) {
        let expected = interpret(&self.program, tokens).unwrap().logits;
        for (got, want) in self.logits(tokens).iter().zip(&expected) {
            assert!(
                (got - want).abs() < 1e-3 * want.abs().max(1.0),
                "{got} {want} at {} tokens",
                tokens.len()
            );
        }
    }

    /// Nothing but padding: no sentence means it, but its answer too is one number in all slots.
    fn check_padding(&self) {
        let logits = self.logits(&[]);
        assert!(logits.iter().all(|x| x.abs() < 100.0), "{logits:?}");
    }
}

#[test]
fn small_heads_that_are_no_powers_of_two() {
    let model = random_checkpoint(&config(20, 1, 3, 5, 12), 11).unwrap();
    let path = Path::new(&model);
    for n in [1, 5, 12] {
        path.check(&rows(&model, &sentence(n, 3)));
    }
    // One token over and over; the first and the last of the vocabulary.
    path.check(&rows(&model, &[7; 12]));
    path.check(&rows(&model, &[0, 49, 0, 49]));
    path.check_padding();
}

#[test]
fn more_tokens_and_a_head_wider_than_the_feed_forward() {
    let model = random_checkpoint(&config(12, 1, 2, 16, 32), 12).unwrap();
    let path = Path::new(&model);
    for n in [1, 32] {
        path.check(&rows(&model, &sentence(n, 5)));
    }
}

#[test]
#[ignore = "a ring of 2^15 takes some ten seconds"]
fn two_layers() {
    let model = random_checkpoint(&config(16, 2, 2, 8, 16), 13).unwrap();
    let path = Path::new(&model);
    for n in [1, 9, 16] {
        path.check(&rows(&model, &sentence(n, 3)));
    }
}

#[test]
#[ignore = "every length of the shipped model takes half a minute"]
fn every_length_of_the_shipped_model() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/sst2-poly");
    let model = Checkpoint::load(&folder).unwrap();
    let path = Path::new(&model);
    let vocabulary = model.config.vocab_size as u32;
    for n in 1..=path.program.max_tokens {
        let ids: Vec<u32> = (0..n as u32)
            .map(|t| (t * 97 + n as u32 * 31) % vocabulary)
            .collect();
        path.check(&rows(&model, &ids));
    }
    for id in [0, vocabulary - 1] {
        path.check(&rows(&model, &vec![id; path.program.max_tokens]));
    }
    path.check_padding();
}
