//! At least 10^5 mutated files per parser: none panics, and whatever still parses goes through
//! evaluator operations without a panic.
#![allow(clippy::unwrap_used)] // a test's way to fail

mod support;

use support::ToyClient;
use veilformer_ckks::container::*;
use veilformer_ckks::testing::{mutate, tiny_params};
use veilformer_ckks::*;
use veilformer_ring::Cpu;

const RUNS: u64 = 100_000;

/// Runs `parse` on mutations; it says whether the file was accepted. Some must be, otherwise
/// nothing behind the header was reached.
fn run(bytes: &[u8], mut parse: impl FnMut(&[u8]) -> bool) {
    let accepted = (0..RUNS)
        .filter(|&seed| parse(&mutate(bytes, seed)))
        .count();
    assert!(
        accepted > 20,
        "only {accepted} of {RUNS} mutations were accepted"
    );
    assert!(
        accepted < RUNS as usize / 2,
        "{accepted} of {RUNS} mutations were accepted"
    );
}

fn keys(client: &mut ToyClient) -> StoredEvaluationKeys {
    let mut list = KeyList::default();
    list.need(KeyPurpose::Relinearization, 1, &client.params);
    list.need(KeyPurpose::Rotation(1), 1, &client.params);
    list.need(
        KeyPurpose::FromEphemeral,
        client.params.max_level(),
        &client.params,
    );
    client.keys(&list)
}

#[test]
fn ciphertexts() {
    let params = tiny_params();
    let mut client = ToyClient::new(&params, 1);
    let stored = keys(&mut client);
    let seeded = client.encrypt(&SlotVector::real_constant(0.5), 1);
    let prepared = EvaluationKeys::prepare(&params, &client.backend, &stored).unwrap();
    let evaluator =
        Evaluator::with_encoder(client.encoder.clone(), &client.backend, &prepared).unwrap();
    let full = seeded.expand(&params).unwrap().into_stored();
    let bytes = ciphertexts_to_bytes(Kind::Ciphertexts, &params, &[seeded, full]).unwrap();
    run(&bytes, |bytes| {
        let Ok(reader) = Reader::open(bytes) else {
            return false;
        };
        let Ok(found) = read_ciphertexts(&reader, &params) else {
            return false;
        };
        for stored in &found {
            let Ok(host) = stored.expand(&params) else {
                panic!("what was read does not expand");
            };
            if let Ok(ct) = evaluator.import(host) {
                let _ = evaluator.mul_sum(&[(&ct, &ct)]);
                let _ = evaluator.rotate_many(&ct, &[1]);
                let _ = evaluator.adjust(&ct, 0);
                let _ = evaluator.mod_raise(&ct);
            }
        }
        true
    });
}

#[test]
fn evaluation_keys() {
    let params = tiny_params();
    let mut client = ToyClient::new(&params, 2);
    let stored = keys(&mut client);
    let bytes = evaluation_keys_to_bytes(&params, &stored).unwrap();
    let ct = client.encrypt(&SlotVector::real_constant(0.5), 1);
    run(&bytes, |bytes| {
        let Ok(reader) = Reader::open(bytes) else {
            return false;
        };
        let Ok(found) = read_evaluation_keys(&reader, &params) else {
            return false;
        };
        let keys = EvaluationKeys::<Cpu>::prepare(&params, &client.backend, &found)
            .expect("what conforms can be prepared");
        let evaluator =
            Evaluator::with_encoder(client.encoder.clone(), &client.backend, &keys).unwrap();
        if let Ok(ct) = evaluator.import(ct.expand(&params).unwrap()) {
            let _ = evaluator.mul_sum(&[(&ct, &ct)]);
            let _ = evaluator.rotate_many(&ct, &[1, 2, 3]);
            if let Ok(low) = evaluator.drop_to(&ct, 0) {
                let _ = evaluator.mod_raise(&low);
            }
        }
        true
    });
}

#[test]
fn public_keys() {
    let params = tiny_params();
    let mut client = ToyClient::new(&params, 3);
    let bytes = public_key_to_bytes(&params, &client.public_key(2)).unwrap();
    run(&bytes, |bytes| {
        let Ok(reader) = Reader::open(bytes) else {
            return false;
        };
        match read_public_key(&reader, &params) {
            Ok(key) => key.expand(&params).is_ok(),
            Err(_) => false,
        }
    });
}

#[test]
fn parameters() {
    let params = tiny_params();
    let bytes = params_to_bytes(&params).unwrap();
    run(&bytes, |bytes| match params_from_bytes(bytes) {
        Ok(found) => {
            let encoder = Encoder::new(&found).unwrap();
            let one = SlotVector::real_constant(1.0);
            let _ = encoder.encode_plain(&one, found.basis_at(0), found.scale_at(0));
            true
        }
        Err(_) => false,
    });
}

#[test]
fn inspection() {
    let params = tiny_params();
    let mut client = ToyClient::new(&params, 4);
    let stored = keys(&mut client);
    let bytes = evaluation_keys_to_bytes(&params, &stored).unwrap();
    run(&bytes, |bytes| {
        inspect(bytes).is_ok_and(|found| !found.to_string().is_empty())
    });
}
