//! No input gives a silently wrong answer: every length, constant sentences, padding and unknown
//! tokens, through the shipped bundles and real keys, against the interpreter.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::Cursor;
use std::ops::ControlFlow;
use veilformer::build::{Target, build};
use veilformer::client::ClientBundle;
use veilformer::model::{Model, ModelFiles};
use veilformer::models::interpreter::{interpret, label_of};
use veilformer::ring::{Cpu, CpuConfig, Isa};
use veilformer::runtime::Server;
use veilformer::secret::{KeyGenerator, SecretKey, SecureRng};

struct Path {
    model: Model,
    client: ClientBundle,
    server: Server<Cpu>,
    secret: SecretKey,
}

impl Path {
    fn open(name: &str) -> Self {
        let model = ModelFiles::find(name).unwrap().load().unwrap();
        let bundles = build(&model, Target::default()).unwrap();
        let params = bundles.client.params().clone();
        let isa = Isa::detect();
        let backend = Cpu::new(params.chain().clone(), CpuConfig { isa }).unwrap();
        let mut server = Server::open(bundles.server, backend).unwrap();
        let mut generator = KeyGenerator::new(&params, SecureRng::from_os().unwrap());
        let secret = generator.secret_key().unwrap();
        let mut keys = Vec::new();
        let client = bundles.client;
        let mut go = |_: usize, _: usize| ControlFlow::Continue(());
        client
            .write_evaluation_keys(&mut generator, &secret, &mut keys, &mut go)
            .unwrap();
        server
            .load_keys(Cursor::new(&keys), &|_, _| ControlFlow::Continue(()))
            .unwrap();
        Self {
            model,
            client,
            server,
            secret,
        }
    }

    /// Encrypted against interpreted; gives the largest logit error.
    fn check(&self, sentences: &[Vec<u32>]) -> f64 {
        let rows = |s: &Vec<u32>| self.model.rows(s).unwrap();
        let rows: Vec<Vec<Vec<f64>>> = sentences.iter().map(rows).collect();
        let file = self.client.encrypt_rows(&self.secret, &rows).unwrap();
        let run = self
            .server
            .run(&file, &|_, _| ControlFlow::Continue(()))
            .unwrap();
        let answers = self.client.decrypt(&self.secret, &run.answer).unwrap();
        assert_eq!(answers.len(), sentences.len());
        let mut worst = 0.0f64;
        for ((ids, rows), got) in sentences.iter().zip(&rows).zip(&answers) {
            let want = interpret(&self.model.program, rows).unwrap().logits;
            let largest = want.iter().fold(1.0f64, |m, v| m.max(v.abs()));
            for (g, w) in got.logits.iter().zip(&want) {
                let error = (g - w).abs();
                assert!(
                    error < 1e-3 * largest,
                    "{} tokens: {g} against {w}",
                    ids.len()
                );
                worst = worst.max(error);
            }
            let gap = (want[0] - want[1]).abs();
            assert!(
                gap < 2e-3 || got.label == Some(label_of(&want)),
                "{} tokens",
                ids.len()
            );
        }
        worst
    }
}

/// Tokens spread over the vocabulary.
fn mixed(n: usize, seed: u32, vocabulary: u32) -> Vec<u32> {
    (0..n as u32)
        .map(|t| (t * 7919 + seed * 104_729 + t * t * 31) % vocabulary)
        .collect()
}

#[test]
fn the_shortest_the_longest_constant_padding_and_unknown() {
    ["sst2-poly", "sst2-ssm"].into_iter().for_each(extremes);
}

fn extremes(name: &str) {
    let path = Path::open(name);
    let longest = path.model.program.max_tokens;
    let token = |t: &str| path.model.folder.tokenizer.token_to_id(t).unwrap();
    let sentences = vec![
        mixed(1, 1, 30_522),
        mixed(longest, 2, 30_522),
        vec![token("good"); longest],
        vec![token("[PAD]"); longest],
        vec![token("[UNK]")],
        vec![token("[UNK]"); longest - 1],
    ];
    path.check(&sentences);
}

#[test]
#[ignore = "a minute: every length of all models"]
fn every_length() {
    for name in ["sst2-poly", "sst2-ssm", "rt-poly", "rt-ssm", "order"] {
        let path = Path::open(name);
        let vocabulary = path.model.folder.tokenizer.vocab_size() as u32;
        let mut worst = 0.0f64;
        for n in 1..=path.model.program.max_tokens {
            worst = worst.max(path.check(&[mixed(n, n as u32, vocabulary)]));
        }
        println!("{name}: largest logit error over every length {worst:.2e}");
    }
}
