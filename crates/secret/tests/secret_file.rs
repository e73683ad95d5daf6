//! The secret-key file: what is written is read, what is damaged is refused.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use veilformer_ckks::container::{ContainerError, Kind, Reader, inspect};
use veilformer_ckks::testing::{mutate, reseal, tiny_params};
use veilformer_ckks::{CkksError, Params, SecretKind, SlotVector};
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator, SecretError, SecretKey, SecureRng};

fn key(params: &Params, seed: u64) -> SecretKey {
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(params, seed).unwrap();
    generator.secret_key().unwrap()
}

#[test]
fn a_key_read_back_decrypts() {
    let params = toy(8);
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 1).unwrap();
    for secret in [
        generator.secret_key().unwrap(),
        generator.sparse_secret_key(32).unwrap(),
    ] {
        let bytes = secret.to_bytes().unwrap();
        let back = SecretKey::from_bytes(&bytes).unwrap();
        assert!((back.id(), back.kind()) == (secret.id(), secret.kind()));
        assert!(*back.to_bytes().unwrap() == *bytes);
        let back = SecretKey::from_bytes_for(&bytes, &params).unwrap();

        let x = slots(1, params.slots());
        let mut encryptor = Encryptor::insecure_deterministic_for_tests(&secret, 1).unwrap();
        let stored = encryptor.encrypt(&SlotVector::Dense(x.clone()), 2).unwrap();
        let found = Decryptor::new(&back)
            .unwrap()
            .decrypt_stored(&stored)
            .unwrap();
        assert!(max_error(&found.reveal_to_owner().unwrap(), &x) < 2f64.powi(-26));
    }
}

#[test]
fn the_file_says_what_it_is_and_no_more() {
    let params = demo();
    let mut generator = KeyGenerator::new(&params, SecureRng::from_os().unwrap());
    let secret = generator.secret_key().unwrap();
    let bytes = secret.to_bytes().unwrap();
    let reader = Reader::open(&bytes).unwrap();
    assert_eq!(reader.kind(), Kind::SecretKey);
    assert!(!reader.is_insecure());
    // 2 bits per coefficient, and the parameters.
    assert!(bytes.len() < params.n() / 4 + 1024);
    let text = format!("{:?}", inspect(&bytes).unwrap());
    assert!(text.len() < 4096);
}

fn refused(bytes: &[u8]) -> SecretError {
    match SecretKey::from_bytes(bytes) {
        Ok(_) => panic!("a damaged file was accepted"),
        Err(error) => error,
    }
}

#[test]
fn each_kind_of_damage_has_its_message() {
    let params = tiny_params();
    let bytes = key(&params, 1).to_bytes().unwrap();
    let container = |error| match error {
        SecretError::Ckks(CkksError::Container(error)) => error,
        other => panic!("{other}"),
    };
    assert!(matches!(container(refused(b"")), ContainerError::NotOurs));
    assert!(matches!(
        container(refused(b"hello, world")),
        ContainerError::NotOurs
    ));
    let cut = container(refused(&bytes[..bytes.len() - 1]));
    assert!(matches!(cut, ContainerError::Truncated { .. }));
    let mut changed = bytes.to_vec();
    let coefficient = bytes.len() - 33;
    changed[coefficient] ^= 1;
    assert!(matches!(
        container(refused(&changed)),
        ContainerError::Corrupted
    ));
    changed[8] = 2;
    assert!(matches!(
        container(refused(&changed)),
        ContainerError::NewerVersion { .. }
    ));
    let mut public = bytes.to_vec();
    public[12] = 3;
    reseal(&mut public);
    assert!(matches!(
        container(refused(&public)),
        ContainerError::WrongKind { .. }
    ));

    // A coefficient that is none.
    let mut changed = bytes.to_vec();
    changed[coefficient] = 0xff;
    reseal(&mut changed);
    assert!(matches!(
        refused(&changed),
        SecretError::MalformedKey { .. }
    ));

    let other = toy(7);
    let result = SecretKey::from_bytes_for(&bytes, &other).err().unwrap();
    assert!(matches!(
        container(result),
        ContainerError::WrongParams { .. }
    ));
}

#[test]
fn a_sparse_key_must_have_its_weight() {
    let params = tiny_params();
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 1).unwrap();
    let secret = generator.sparse_secret_key(3).unwrap();
    assert_eq!(
        secret.kind(),
        SecretKind::SparseTernary { hamming_weight: 3 }
    );
    let mut bytes = secret.to_bytes().unwrap().to_vec();
    let (first, last) = (bytes.len() - 34, bytes.len() - 33);
    bytes[first..=last].fill(0b0101_0101);
    reseal(&mut bytes);
    assert!(matches!(refused(&bytes), SecretError::MalformedKey { .. }));
}

/// At least 10^5 damaged files: none may panic, and what passes must work like a key.
#[test]
fn damaged_files_never_panic() {
    let params = tiny_params();
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 1).unwrap();
    let dense = generator.secret_key().unwrap().to_bytes().unwrap();
    let sparse = generator.sparse_secret_key(5).unwrap().to_bytes().unwrap();
    let (mut accepted, mut malformed) = (0, 0);
    for seed in 0..100_000 {
        let original = if seed % 2 == 0 { &dense } else { &sparse };
        match SecretKey::from_bytes(&mutate(original, seed)) {
            Ok(secret) => {
                accepted += 1;
                let mut encryptor =
                    Encryptor::insecure_deterministic_for_tests(&secret, seed).unwrap();
                let one = SlotVector::real_constant(1.0);
                let stored = encryptor.encrypt(&one, 0).unwrap();
                let found = Decryptor::new(&secret)
                    .unwrap()
                    .decrypt_stored(&stored)
                    .unwrap();
                let found = found.reveal_to_owner().unwrap();
                assert!((found[0].re - 1.0).abs() < 2f64.powi(-16));
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                malformed += usize::from(matches!(error, SecretError::MalformedKey { .. }));
            }
        }
    }
    // The faults reach behind the digest: some change nothing that matters, some everything.
    assert!(
        accepted > 100 && malformed > 100,
        "{accepted} accepted, {malformed} malformed"
    );
}

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/v1.secret.veil");

/// A file that an earlier version wrote: it stays readable.
#[test]
fn a_file_of_format_1_is_read() {
    let bytes = std::fs::read(CORPUS).unwrap();
    let secret = SecretKey::from_bytes(&bytes).unwrap();
    assert_eq!(secret.kind(), SecretKind::DenseTernary);
    assert_eq!(secret.params().n(), 128);
    let mut encryptor = Encryptor::insecure_deterministic_for_tests(&secret, 1).unwrap();
    let one = encryptor
        .encrypt(&SlotVector::real_constant(1.0), 1)
        .unwrap();
    let found = Decryptor::new(&secret)
        .unwrap()
        .decrypt_stored(&one)
        .unwrap();
    assert!((found.reveal_to_owner().unwrap()[5].re - 1.0).abs() < 2f64.powi(-24));
}

#[test]
#[ignore = "writes a new corpus file; only for a new format"]
fn write_the_corpus() {
    std::fs::write(CORPUS, &*key(&toy(7), 2026).to_bytes().unwrap()).unwrap();
}
