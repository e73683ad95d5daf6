//! Key generation that is interrupted and goes on.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Cursor;
use std::ops::ControlFlow;

use common::*;
use veilformer_ckks::container::{
    ContainerError, EvaluationKeysHeader, Kind, Reader, read_evaluation_keys,
};
use veilformer_ckks::{
    CkksError, EvaluationKeys, Evaluator, KeyList, KeyPurpose, Ops, Params, SlotVector,
};
use veilformer_secret::{Decryptor, KeyGenerator, Resumed, SecretError, SecretKey};

const PROGRAM: [u8; 32] = [7; 32];
/// Bytes of what stands behind the end of an unfinished file of eight keys.
const NOTES: usize = 8 * 32;

/// Room for an ephemeral secret besides.
fn params() -> Params {
    toy(6)
}

/// Eight keys, of several levels.
fn list(params: &Params) -> KeyList {
    let mut list = KeyList::default();
    let top = params.max_level();
    list.need(KeyPurpose::Relinearization, top, params);
    list.need(KeyPurpose::Conjugation, 2, params);
    for by in [1, 2, 4, 8] {
        list.need(KeyPurpose::Rotation(by), 1 + by as usize / 4, params);
    }
    list.need(KeyPurpose::FromEphemeral, top, params);
    list
}

fn generator(params: &Params, seed: u64) -> KeyGenerator {
    KeyGenerator::insecure_deterministic_for_tests(params, seed).unwrap()
}

/// One attempt, which stops when `most` keys are there.
fn attempt(
    (secret, seed): (&SecretKey, u64),
    (list, program): (&KeyList, [u8; 32]),
    file: &mut Vec<u8>,
    most: usize,
) -> Result<Resumed, SecretError> {
    let mut bytes = Cursor::new(std::mem::take(file));
    let stop = &mut |done: usize, _: usize| match done >= most {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let made = generator(secret.params(), seed).resume_evaluation_keys(
        secret,
        (list, program),
        &mut bytes,
        stop,
    );
    *file = bytes.into_inner();
    made
}

/// Where every key's section is in the file.
fn places(params: &Params, secret: &SecretKey, list: &KeyList) -> Vec<std::ops::Range<usize>> {
    let id = (secret.id(), secret.kind());
    let header = EvaluationKeysHeader::of_list(params, list, id, PROGRAM);
    let mut end = header.file_bytes(params).unwrap() as usize - 32;
    let mut places: Vec<_> = header
        .keys
        .iter()
        .rev()
        .map(|key| {
            let start = end - key.bytes(params).unwrap();
            std::mem::replace(&mut end, start)..start
        })
        .map(|r| r.end..r.start)
        .collect();
    places.reverse();
    places
}

/// The file is whole but for the notes at its end, and its keys work.
fn check(params: &Params, secret: &SecretKey, file: &[u8]) {
    let file = &file[..file.len() - NOTES];
    let reader = Reader::open_for(file, Kind::EvaluationKeys, params).unwrap();
    let stored = read_evaluation_keys(&reader, params).unwrap();
    assert_eq!((stored.keys.len(), stored.program), (8, PROGRAM));
    let backend = cpu(params);
    let keys = EvaluationKeys::prepare(params, &backend, &stored).unwrap();
    let mut ops = Evaluator::new(params, &backend, &keys).unwrap();
    let x = slots(5, params.slots());
    let mut encryptor = veilformer_secret::Encryptor::insecure_deterministic_for_tests(secret, 3);
    let ct = encryptor
        .as_mut()
        .unwrap()
        .encrypt(&SlotVector::Dense(x.clone()), 1)
        .unwrap();
    let ct = ops.import(ct.expand(params).unwrap()).unwrap();
    let decryptor = Decryptor::new(secret).unwrap();
    for by in [1usize, 2, 4, 8] {
        let turned = ops.rotate(&ct, by as i64).unwrap();
        let got = decryptor
            .decrypt(&turned.export(&backend).unwrap())
            .unwrap();
        let got = got.reveal_to_owner().unwrap();
        for (j, z) in got.iter().enumerate() {
            assert!((z - x[(j + by) % x.len()]).norm() < 1e-5, "rotation {by}");
        }
    }
}

#[test]
fn an_interrupted_generation_goes_on() {
    let params = params();
    let list = list(&params);
    let secret = generator(&params, 1).secret_key().unwrap();
    let what = (&list, PROGRAM);
    let mut file = Vec::new();
    for (seed, most) in [(10, 0), (11, 3), (12, 5)] {
        let stopped = attempt((&secret, seed), what, &mut file, most).unwrap_err();
        assert!(matches!(stopped, SecretError::Stopped { done, total: 8 } if done == most));
        assert!(Reader::open(&file).is_err());
    }
    let before = file.clone();
    let done = attempt((&secret, 13), what, &mut file, 9).unwrap();
    assert_eq!((done.kept, done.bytes as usize), (5, file.len() - NOTES));
    check(&params, &secret, &file);
    // What was kept is what was there.
    let kept = places(&params, &secret, &list)[4].end;
    assert!(file[..kept] == before[..kept]);
    // All of a finished file is kept but for the keys of the ephemeral secret.
    let again = attempt((&secret, 14), what, &mut file, 9).unwrap();
    assert_eq!(again.kept, 6);
    check(&params, &secret, &file);
}

#[test]
fn an_uninterrupted_one_is_the_ordinary_file() {
    let params = params();
    let list = list(&params);
    let secret = generator(&params, 1).secret_key().unwrap();
    let mut file = Vec::new();
    attempt((&secret, 5), (&list, PROGRAM), &mut file, 9).unwrap();
    let mut ordinary = Vec::new();
    let go = &mut |_: usize, _: usize| ControlFlow::Continue(());
    generator(&params, 5)
        .write_evaluation_keys(&secret, &list, PROGRAM, &mut ordinary, go)
        .unwrap();
    assert!(file[..file.len() - NOTES] == ordinary);
}

#[test]
fn damaged_keys_are_made_again() {
    let params = params();
    let list = list(&params);
    let secret = generator(&params, 1).secret_key().unwrap();
    let what = (&list, PROGRAM);
    let mut whole = Vec::new();
    attempt((&secret, 5), what, &mut whole, 9).unwrap();
    let places = places(&params, &secret, &list);
    // A bit of the seed, of the first and of the last residue; of each key that can be told.
    for (index, place) in places.iter().enumerate().take(6) {
        for at in [place.start, place.start + 32, place.end - 8] {
            let mut file = whole.clone();
            file[at] ^= 1;
            let done = attempt((&secret, 6), what, &mut file, 9).unwrap();
            assert_eq!(done.kept, 5, "key {index}, byte {at}");
            check(&params, &secret, &file);
            for (other, place) in places.iter().enumerate().take(6) {
                let same = file[place.clone()] == whole[place.clone()];
                assert_eq!(same, other != index, "key {other}");
            }
        }
    }
    // Sections of which some never came to the disk, and a file that ends early, its notes with it.
    let mut file = whole.clone();
    file[places[1].start + 100..places[3].start + 100].fill(0);
    assert_eq!(attempt((&secret, 6), what, &mut file, 9).unwrap().kept, 3);
    check(&params, &secret, &file);
    for end in [whole.len() - NOTES, places[2].start + 100, 10, 0] {
        let mut file = whole[..end].to_vec();
        assert_eq!(attempt((&secret, 6), what, &mut file, 9).unwrap().kept, 0);
        check(&params, &secret, &file);
    }
    // A whole key in the place of another of its size, with its note.
    let mut file = whole.clone();
    assert_eq!(places[1].len(), places[2].len());
    file.copy_within(places[1].clone(), places[2].start);
    let note = |index: usize| whole.len() - NOTES + 32 * index;
    file.copy_within(note(1)..note(2), note(2));
    assert_eq!(attempt((&secret, 6), what, &mut file, 9).unwrap().kept, 5);
    check(&params, &secret, &file);
}

#[test]
fn other_files_are_refused_and_left_as_they_are() {
    let params = params();
    let list = list(&params);
    let secret = generator(&params, 1).secret_key().unwrap();
    let other = generator(&params, 2).secret_key().unwrap();
    let mut begun = Vec::new();
    attempt((&secret, 5), (&list, PROGRAM), &mut begun, 2).unwrap_err();
    let refused = |secret: &SecretKey, what: (&KeyList, [u8; 32]), mut file: Vec<u8>| {
        let before = file.clone();
        let error = attempt((secret, 6), what, &mut file, 9).unwrap_err();
        assert!(file == before, "{error}");
        error
    };
    match refused(&other, (&list, PROGRAM), begun.clone()) {
        SecretError::Ckks(CkksError::WrongKey {
            found, expected, ..
        }) => assert_eq!((found, expected), (secret.id(), other.id())),
        error => panic!("{error}"),
    }
    let says = |error: SecretError, what: &str| {
        assert!(error.to_string().contains(what), "{error}");
    };
    says(
        refused(&secret, (&list, [8; 32]), begun.clone()),
        "another program's",
    );
    let mut shorter = list.clone();
    shorter.need(KeyPurpose::Rotation(3), 1, &params);
    says(
        refused(&secret, (&shorter, PROGRAM), begun.clone()),
        "another program's",
    );
    let small = toy(7);
    let key = generator(&small, 1).secret_key().unwrap();
    let error = refused(&key, (&list, PROGRAM), begun.clone());
    assert!(matches!(
        error,
        SecretError::Ckks(CkksError::Container(ContainerError::WrongParams { .. }))
    ));
    says(
        refused(
            &secret,
            (&list, PROGRAM),
            secret.to_bytes().unwrap().to_vec(),
        ),
        "secret",
    );
    says(
        refused(&secret, (&list, PROGRAM), b"something else".to_vec()),
        "no Veilformer file",
    );
    // Of which too little is left to tell whose they are: of the list, and of the lengths.
    let list_end = places(&params, &secret, &list)[0].start;
    let short = begun[..list_end - 1].to_vec();
    says(refused(&other, (&list, PROGRAM), short), "truncated");
    let short = begun[..100].to_vec();
    says(refused(&key, (&list, PROGRAM), short), "truncated");
    let mut newer = begun.clone();
    newer[8] = 9;
    says(refused(&secret, (&list, PROGRAM), newer), "version 9");
    let mut long = begun;
    long.resize(1 << 22, 0);
    assert!(
        refused(&secret, (&list, PROGRAM), long)
            .to_string()
            .contains("bytes")
    );
}
