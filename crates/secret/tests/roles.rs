//! The whole path through bytes: a client that holds the secret, a server that gets files.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Cursor;
use std::ops::ControlFlow;

use common::*;
use veilformer_ckks::container::{
    KeyFile, Kind, Reader, ciphertexts_to_bytes, evaluation_keys_to_bytes, public_key_to_bytes,
    read_ciphertexts, read_params, read_public_key,
};
use veilformer_ckks::{EvaluationKeys, Evaluator, KeyList, Params, SlotVector};
use veilformer_secret::{
    Decryptor, Encryptor, KeyGenerator, PublicEncryptor, SecretError, SecretKey,
};

fn list() -> KeyList {
    KeyList {
        relinearization: vec![3],
        rotations: vec![(1, 2), (5, 3)],
        conjugation: Vec::new(),
        encapsulation: Some(3),
    }
}

/// Writes the secret key and streams the evaluation keys.
fn keygen(params: &Params) -> (Vec<u8>, Vec<u8>) {
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(params, 1).unwrap();
    let secret = generator.secret_key().unwrap();
    let mut file = Vec::new();
    let mut told = 0;
    let length = generator
        .write_evaluation_keys(&secret, &list(), [9; 32], &mut file, &mut |_, _| {
            told += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((length, told), (file.len() as u64, list().len() + 1));
    (secret.to_bytes().unwrap().to_vec(), file)
}

/// Computes rot_5(x y + x x) from files alone.
fn serve(keys: &[u8], inputs: &[u8]) -> Vec<u8> {
    let reader = Reader::open_kind(keys, Kind::EvaluationKeys).unwrap();
    let params = read_params(&reader).unwrap();
    let backend = cpu(&params);
    let stored = KeyFile::open(Cursor::new(keys), &params).unwrap();
    assert_eq!(stored.header().program, [9; 32]);
    let mut keys = EvaluationKeys::empty(&params, stored.header().key_id);
    for index in 0..stored.header().keys.len() {
        keys.insert(&params, &backend, &stored.key(index).unwrap())
            .unwrap();
    }
    let ops = Evaluator::new(&params, &backend, &keys).unwrap();
    let inputs = Reader::open_for(inputs, Kind::Ciphertexts, &params).unwrap();
    let inputs: Vec<_> = read_ciphertexts(&inputs, &params)
        .unwrap()
        .iter()
        .map(|stored| ops.import(stored.expand(&params).unwrap()).unwrap())
        .collect();
    let sum = ops
        .mul_sum(&[(&inputs[0], &inputs[1]), (&inputs[0], &inputs[0])])
        .unwrap();
    let answer = ops
        .rotate_many(&ops.add(&sum, &sum).unwrap(), &[5])
        .unwrap();
    let answer = answer[0].export(&backend).unwrap().into_stored();
    ciphertexts_to_bytes(Kind::Answer, &params, &[answer]).unwrap()
}

#[test]
fn client_and_server_share_files_only() {
    let (secret, keys) = keygen(&toy(8));
    let secret = SecretKey::from_bytes(&secret).unwrap();
    let params = secret.params().clone();
    let (x, y) = (slots(1, params.slots()), slots(2, params.slots()));
    let inputs = [&x, &y].map(|v| SlotVector::Dense(v.clone()));
    let mut encryptor = Encryptor::insecure_deterministic_for_tests(&secret, 2).unwrap();
    let inputs = encryptor.encrypt_many(&inputs, 3).unwrap();
    let inputs = ciphertexts_to_bytes(Kind::Ciphertexts, &params, &inputs).unwrap();
    let answer = serve(&keys, &inputs);

    let reader = Reader::open_for(&answer, Kind::Answer, &params).unwrap();
    let answer = read_ciphertexts(&reader, &params).unwrap();
    let found = Decryptor::new(&secret)
        .unwrap()
        .decrypt_stored(&answer[0])
        .unwrap();
    let expected = rotate(&zip(&x, &y, |x, y| 2.0 * (x * y + x * x)), 5);
    assert!(max_error(&found.reveal_to_owner().unwrap(), &expected) < 2f64.powi(-22));
}

#[test]
fn streamed_keys_are_the_keys_made_at_once() {
    let params = toy(7);
    let (_, streamed) = keygen(&params);
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 1).unwrap();
    let secret = generator.secret_key().unwrap();
    let at_once = generator
        .evaluation_keys(&secret, &list(), [9; 32], &mut |_, _| {
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(streamed == evaluation_keys_to_bytes(&params, &at_once).unwrap());
}

#[test]
fn a_stream_that_fails_or_stops_is_an_error() {
    let params = toy(7);
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 1).unwrap();
    let secret = generator.secret_key().unwrap();
    let mut full = [0u8; 5000];
    let mut write = |out: &mut [u8], stop| {
        generator.write_evaluation_keys(&secret, &list(), [0; 32], out, &mut |done, _| {
            if done == stop {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    };
    assert!(matches!(write(&mut full, 99), Err(SecretError::Ckks(_))));
    let stopped = write(&mut vec![0; 1 << 20], 2);
    assert!(matches!(
        stopped,
        Err(SecretError::Stopped { done: 2, total: 5 })
    ));
}

#[test]
fn public_keys_travel() {
    let params = toy(7);
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 1).unwrap();
    let secret = generator.secret_key().unwrap();
    let public = generator.public_key(&secret, 2).unwrap();
    let bytes = public_key_to_bytes(&params, &public).unwrap();
    let reader = Reader::open_for(&bytes, Kind::PublicKey, &params).unwrap();
    let back = read_public_key(&reader, &params).unwrap();
    let mut encryptor =
        PublicEncryptor::insecure_deterministic_for_tests(&params, &back, 5).unwrap();
    let x = slots(3, params.slots());
    let stored = encryptor.encrypt(&SlotVector::Dense(x.clone()), 2).unwrap();
    let found = Decryptor::new(&secret)
        .unwrap()
        .decrypt_stored(&stored)
        .unwrap();
    assert!(max_error(&found.reveal_to_owner().unwrap(), &x) < 2f64.powi(-23));
}
