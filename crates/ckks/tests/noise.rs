//! Measured against predicted noise, operation by operation.
//!
//! Each gate takes 16 ciphertexts of N = 2^10 coefficients under 16 secrets. Were all errors
//! independent, the measured variance would have a relative deviation of sqrt(2 / 16384) = 1.1%;
//! the squared norms of the secret and of the key errors, which many coefficients share, add about
//! 2.2% / 4 and 4.4% / 4. The gate of [0.8, 1.25] is thus beyond ten deviations for a right
//! formula and catches any factor of 4/3 and up.
#![allow(clippy::unwrap_used)] // a test's way to fail

mod support;

use support::ToyClient;
use veilformer_ckks::noise::NoiseModel;
use veilformer_ckks::testing::toy_spec;
use veilformer_ckks::*;
use veilformer_ring::{Backend, Cpu, GaloisElement, RnsPoly};

const SEEDS: u64 = 16;

/// Parameters whose digits are as large as P, so that the key-switching error is visible.
fn params() -> Params {
    let spec = ParamsSpec {
        special_bits: 35,
        ..toy_spec(10)
    };
    spec.validate_insecure_for_tests().unwrap()
}

struct Case {
    client: ToyClient,
    keys: EvaluationKeys<Cpu>,
}

impl Case {
    fn new(params: &Params, seed: u64) -> Self {
        let mut client = ToyClient::new(params, 1000 + seed);
        let mut list = KeyList::default();
        list.need(KeyPurpose::Relinearization, 3, params);
        list.need(KeyPurpose::Rotation(1), 3, params);
        let stored = client.keys(&list);
        let keys = EvaluationKeys::prepare(params, &client.backend, &stored).unwrap();
        Self { client, keys }
    }

    fn evaluator(&self) -> Evaluator<'_, Cpu> {
        let encoder = self.client.encoder.clone();
        Evaluator::with_encoder(encoder, &self.client.backend, &self.keys).unwrap()
    }

    /// A fresh ciphertext at level 3 and its encoded message.
    fn fresh(&mut self) -> (RnsPoly, SharedCiphertext<Cpu>) {
        let params = self.client.params.clone();
        let slots = SlotVector::Dense(self.client.random_slots());
        let message = self
            .client
            .encoder
            .encode(&slots, params.basis_at(3), params.scale_at(3))
            .unwrap();
        let stored = self.client.encrypt(&slots, 3);
        let ct = self
            .evaluator()
            .import(stored.expand(&params).unwrap())
            .unwrap();
        (message, ct)
    }

    /// Mean square of the coefficients of `phase * factor - exact`, divided by factor^2.
    fn variance(&self, ct: &SharedCiphertext<Cpu>, exact: &RnsPoly, factor: u64) -> f64 {
        let backend = &self.client.backend;
        let chain = self.client.params.chain();
        let mut error = self.client.phase(&ct.export(backend).unwrap());
        let basis = error.basis();
        let residues: Vec<u64> = basis
            .iter()
            .map(|i| chain.modulus(i).reduce(factor))
            .collect();
        backend.mul_scalar_assign(&mut error, &residues).unwrap();
        let exact = backend.restrict(exact, basis).unwrap();
        backend.sub_assign(&mut error, &exact).unwrap();
        let centred = self.client.encoder.centred(&error).unwrap();
        let coefficients = centred.scaled(1.0 / factor as f64);
        let sum: f64 = coefficients.iter().map(|c| c.powi(2)).sum();
        sum / coefficients.len() as f64
    }
}

/// Averages `measure` (measured, predicted) over the seeds and compares.
fn gate(what: &str, measure: impl Fn(&mut Case, &NoiseModel) -> (f64, f64)) {
    let params = params();
    let model = NoiseModel::new(&params, SecretKind::DenseTernary);
    let (mut measured, mut predicted) = (0.0, 0.0);
    for seed in 0..SEEDS {
        let (m, p) = measure(&mut Case::new(&params, seed), &model);
        measured += m / SEEDS as f64;
        predicted += p / SEEDS as f64;
    }
    let ratio = measured / predicted;
    assert!(
        (0.8..=1.25).contains(&ratio),
        "{what}: measured {measured:e}, predicted {predicted:e}, ratio {ratio:.3}"
    );
}

/// Mean square slot of the test messages: real and imaginary part uniform in [-1, 1].
const MEAN_SQUARE: f64 = 2.0 / 3.0;

#[test]
fn fresh_and_sum() {
    gate("fresh", |case, model| {
        let (m, ct) = case.fresh();
        (case.variance(&ct, &m, 1), model.fresh_secret_key())
    });
    gate("sum", |case, model| {
        let (mut a, ca) = case.fresh();
        let (b, cb) = case.fresh();
        case.client.backend.add_assign(&mut a, &b).unwrap();
        let sum = case.evaluator().add(&ca, &cb).unwrap();
        let fresh = model.fresh_secret_key();
        (case.variance(&sum, &a, 1), model.sum(fresh, fresh))
    });
}

#[test]
fn rescale() {
    gate("rescale", |case, model| {
        let (m, ct) = case.fresh();
        let lowered = case.evaluator().rescale(&ct).unwrap();
        let q = case.client.params.primes()[3];
        let predicted = model.rescale(model.fresh_secret_key(), 3);
        (case.variance(&lowered, &m, q), predicted)
    });
}

#[test]
fn plain_product() {
    gate("plain product", |case, model| {
        let (m, ct) = case.fresh();
        let params = case.client.params.clone();
        let slots = SlotVector::Periodic(case.client.random_slots()[..8].to_vec());
        let norm = slots.entries().iter().map(|z| z.norm_sqr()).sum::<f64>() / 8.0;
        let evaluator = case.evaluator();
        // A small scale keeps the error below half of the two primes that are read.
        let scale = Scale::power_of_two(10);
        let plain = evaluator.encode(&slots, 3, scale).unwrap();
        let product = evaluator.mul_plain(&ct, &plain).unwrap();
        let exact = case.client.backend.mul_plain(&m, plain.plain()).unwrap();
        assert_eq!(product.level(), params.max_level());
        let norm = NoiseModel::message_norm(norm, scale);
        let predicted = model.plain_product(model.fresh_secret_key(), norm);
        (case.variance(&product, &exact, 1), predicted)
    });
}

#[test]
fn rotation() {
    gate("rotation", |case, model| {
        let (m, ct) = case.fresh();
        let turned = case.evaluator().rotate_many(&ct, &[1]).unwrap();
        let galois = GaloisElement::rotation(1, case.client.params.log_n());
        let exact = case.client.backend.automorphism(&m, galois).unwrap();
        let predicted = model.fresh_secret_key() + model.key_switch(3);
        (case.variance(&turned[0], &exact, 1), predicted)
    });
}

#[test]
fn product_and_square() {
    let norm = |case: &Case| NoiseModel::message_norm(MEAN_SQUARE, case.client.params.scale_at(3));
    gate("product", |case, model| {
        let (a, ca) = case.fresh();
        let (b, cb) = case.fresh();
        let product = case.evaluator().mul_sum(&[(&ca, &cb)]).unwrap();
        let exact = case.client.backend.mul(&a, &b).unwrap();
        let q = case.client.params.primes()[3];
        let fresh = model.fresh_secret_key();
        let predicted = model.product(fresh, norm(case), fresh, norm(case));
        let predicted = model.relinearize_rescale(predicted, 3);
        (case.variance(&product, &exact, q), predicted)
    });
    gate("square", |case, model| {
        let (a, ca) = case.fresh();
        let square = case.evaluator().mul_sum(&[(&ca, &ca)]).unwrap();
        let exact = case.client.backend.mul(&a, &a).unwrap();
        let q = case.client.params.primes()[3];
        let predicted = model.square(model.fresh_secret_key(), norm(case));
        let predicted = model.relinearize_rescale(predicted, 3);
        (case.variance(&square, &exact, q), predicted)
    });
}

#[test]
fn key_switch_error_alone() {
    // With digits as large as P the error outweighs the rounding: the rotation gate above sees it.
    let params = params();
    let model = NoiseModel::new(&params, SecretKind::DenseTernary);
    assert!(model.key_switch_error(3) > 10.0 * model.division());
}

#[test]
fn slots() {
    gate("slot error", |case, model| {
        let slots = case.client.random_slots();
        let stored = case.client.encrypt(&SlotVector::Dense(slots.clone()), 3);
        let host = stored.expand(&case.client.params).unwrap();
        let found = case.client.decrypt(&host);
        let mean: f64 = slots
            .iter()
            .zip(&found)
            .map(|(a, b)| (a - b).norm_sqr())
            .sum::<f64>()
            / slots.len() as f64;
        let variance = model.fresh_secret_key() + model.encoding(case.client.params.n());
        (mean, model.slot_deviation(variance, host.scale()).powi(2))
    });
}
