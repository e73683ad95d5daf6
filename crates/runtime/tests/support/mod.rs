//! A toy program with every operation, and its client.
#![allow(dead_code, clippy::unwrap_used)]

use std::ops::ControlFlow;

use veilformer_ckks::container::{Kind, Writer, append_ciphertexts};
use veilformer_ckks::{Complex, Giant, Ops, Params, SlotVector, StoredCiphertext, Term, Transform};
use veilformer_ir::ciphertext::{CiphertextProgram, Recorder};
use veilformer_ir::signature::SENTENCES;
use veilformer_runtime::{PROGRAM_DIGEST, Progress, ServerBundle};
use veilformer_secret::{Encryptor, KeyGenerator, SecretKey};

/// Never stops.
pub const GO_ON: &Progress<'static> = &|_, _| ControlFlow::Continue(());

/// A program over all operations, on parameters of three levels: two inputs, two outputs.
pub fn program(params: &Params) -> CiphertextProgram {
    let mut r = Recorder::new(params);
    let slots = params.slots();
    r.section("first");
    let a = r.input(3, 1.0).unwrap();
    let b = r.input(3, 1.0).unwrap();
    let at = |level| params.scale_at(level);
    let wave =
        |n: usize| SlotVector::real(&(0..slots).map(|j| (j % n) as f64 / 8.0).collect::<Vec<_>>());
    let turned = r.rotate_many(&a, &[0, 1, -1, 2]).unwrap();
    let sum = r.add(&turned[1], &turned[2]).unwrap();
    let product = r.mul_sum(&[(&sum, &b), (&turned[3], &a)]).unwrap();
    r.section("second");
    let term = |r: &mut Recorder, input, baby, n| {
        let plain = r.term_plain(&wave(n), 2, at(2), baby).unwrap();
        Term { input, baby, plain }
    };
    let lowered = r.adjust(&b, 2).unwrap();
    let giants = vec![
        Giant {
            rotation: 0,
            terms: vec![term(&mut r, 0, 0, 3), term(&mut r, 1, 1, 4)],
        },
        Giant {
            rotation: 2,
            terms: vec![term(&mut r, 0, 1, 5), term(&mut r, 1, 1, 2)],
        },
    ];
    let mapped = r
        .linear_transform(&[&product, &lowered], &Transform { giants })
        .unwrap();
    let turned = r.conjugate(&mapped).unwrap();
    let difference = r.sub(&turned, &mapped).unwrap();
    let negated = r.negate(&difference).unwrap();
    let constant = r.plain(&SlotVector::real_constant(0.25), 1, at(1)).unwrap();
    let shifted = r.add_plain(&negated, &constant).unwrap();
    let period = SlotVector::Periodic(vec![Complex::new(0.5, 0.0), Complex::new(0.0, 0.5)]);
    let period = r.plain(&period, 1, at(1)).unwrap();
    let scaled = r.mul_plain(&shifted, &period).unwrap();
    let last = r.rescale(&scaled).unwrap();
    let dropped = r.drop_to(&shifted, 0).unwrap();
    r.finish(vec![last, dropped])
}

/// A client of insecure parameters: everything follows from a seed.
pub struct Client {
    pub params: Params,
    pub secret: SecretKey,
    generator: KeyGenerator,
    seed: u64,
}

impl Client {
    pub fn new(params: &Params, seed: u64) -> Self {
        let mut generator = KeyGenerator::insecure_deterministic_for_tests(params, seed).unwrap();
        Self {
            params: params.clone(),
            secret: generator.secret_key().unwrap(),
            generator,
            seed,
        }
    }

    /// The key file of a bundle.
    pub fn keys(&mut self, bundle: &ServerBundle) -> Vec<u8> {
        let mut file = Vec::new();
        let go_on = &mut |_, _| ControlFlow::Continue(());
        let digest = bundle.program_digest();
        self.generator
            .write_evaluation_keys(&self.secret, bundle.keys(), digest, &mut file, go_on)
            .unwrap();
        file
    }

    /// As many input ciphertexts as are asked for, at a level.
    pub fn encrypt(&self, count: usize, level: usize) -> Vec<StoredCiphertext> {
        self.encrypt_periodic(count, level, self.params.slots())
    }

    /// The same of slots with a period.
    pub fn encrypt_periodic(
        &self,
        count: usize,
        level: usize,
        period: usize,
    ) -> Vec<StoredCiphertext> {
        let mut encryptor =
            Encryptor::insecure_deterministic_for_tests(&self.secret, self.seed).unwrap();
        let slots = self.params.slots();
        (0..count)
            .map(|i| {
                let value = |j: usize| ((i + j % period * 7) % 13) as f64 / 13.0;
                let slots: Vec<f64> = (0..slots).map(value).collect();
                encryptor.encrypt(&SlotVector::real(&slots), level).unwrap()
            })
            .collect()
    }

    /// The file of ciphertexts for a program.
    pub fn file(&self, ciphertexts: &[StoredCiphertext], digest: [u8; 32]) -> Vec<u8> {
        let mut writer = Writer::new(Kind::Ciphertexts, Some(&self.params)).unwrap();
        writer.section(PROGRAM_DIGEST, digest.to_vec());
        let sentences = ciphertexts.len() as u32 / 2;
        writer.section(SENTENCES, sentences.to_le_bytes().to_vec());
        append_ciphertexts(&mut writer, &self.params, ciphertexts).unwrap();
        writer.to_bytes().unwrap()
    }
}
