//! Files of released formats stay readable. `corpus/v1.*` were written by format 1.0 with toy
//! parameters; they are never rewritten: a new format gets new files beside them.
//! `v1.raising.veil` has what came later: primes of several sizes and the keys of an ephemeral secret;
//! `v1.bands.veil` has the same with bands of levels, `v1.seeds.veil` besides seeds for AES.
#![allow(clippy::unwrap_used)] // a test's way to fail

mod support;

use std::path::PathBuf;

use support::{ToyClient, assert_close};
use veilformer_ckks::container::*;
use veilformer_ckks::testing::tiny_params;
use veilformer_ckks::*;
use veilformer_ring::{Cpu, ExpanderId};

fn slots() -> SlotVector {
    SlotVector::real(&[0.5, -0.25, 0.125, 1.0])
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name)
}

/// Parameters as a file has them: of a specification other primes may be chosen today than were then.
fn params_of(name: &str) -> Params {
    let file = std::fs::read(path(name)).unwrap();
    read_params(&Reader::open(&file).unwrap()).unwrap()
}

/// What the corpus holds, made anew: (input, keys, public key).
fn make(params: &Params) -> (ToyClient, [Vec<u8>; 3]) {
    let mut client = ToyClient::new(params, 77).with_key_expander(ExpanderId::Blake3);
    let seeded = client.encrypt(&slots(), 3);
    let full = client
        .encrypt(&slots(), 1)
        .expand(params)
        .unwrap()
        .into_stored();
    let mut list = KeyList::default();
    list.need(KeyPurpose::Relinearization, 3, params);
    list.need(KeyPurpose::Rotation(1), 3, params);
    list.need(KeyPurpose::Conjugation, 1, params);
    let keys = client.keys(&list);
    let public = client.public_key(2);
    let files = [
        ciphertexts_to_bytes(Kind::Ciphertexts, params, &[seeded, full]).unwrap(),
        evaluation_keys_to_bytes(params, &keys).unwrap(),
        public_key_to_bytes(params, &public).unwrap(),
    ];
    (client, files)
}

/// Insecure parameters with outer levels of other sizes.
fn ladder_params() -> Params {
    let ladder = Ladder {
        below: vec![34],
        above: vec![40],
    };
    let spec = tiny_params().spec().clone();
    spec.validate_ladder_insecure_for_tests(&ladder).unwrap()
}

fn make_raising(params: &Params, expander: ExpanderId) -> (ToyClient, Vec<u8>) {
    let mut client = ToyClient::new(params, 78).with_key_expander(expander);
    let mut list = KeyList::default();
    list.need(KeyPurpose::Conjugation, 2, params);
    list.need(KeyPurpose::FromEphemeral, 3, params);
    let keys = client.keys(&list);
    let file = evaluation_keys_to_bytes(params, &keys).unwrap();
    (client, file)
}

const RAISING: &str = "v1.raising.veil";
const BANDS: &str = "v1.bands.veil";
const SEEDS: &str = "v1.seeds.veil";

#[test]
fn keys_of_an_ephemeral_secret_are_still_readable() {
    let file = std::fs::read(path(RAISING)).unwrap();
    let params = read_params(&Reader::open(&file).unwrap()).unwrap();
    // What was written before levels had bands has none.
    assert_eq!(params.bands(KeyPurpose::Conjugation).len(), 1);
    assert_ne!(params, ladder_params());
    raises(&file, &params, ExpanderId::Blake3);
}

#[test]
fn keys_of_bands_are_still_readable() {
    let params = params_of(BANDS);
    assert_eq!(params.spec(), ladder_params().spec());
    assert!(params.bands(KeyPurpose::Conjugation).len() > 1);
    let file = std::fs::read(path(BANDS)).unwrap();
    raises(&file, &params, ExpanderId::Blake3);
}

#[test]
fn keys_of_seeds_for_aes_are_still_readable() {
    let file = std::fs::read(path(SEEDS)).unwrap();
    raises(&file, &params_of(SEEDS), ExpanderId::Aes128);
}

/// Whether a file of [`make_raising`] is what is written today, and its keys serve.
fn raises(file: &[u8], params: &Params, expander: ExpanderId) {
    let (mut client, made) = make_raising(params, expander);
    assert!(file == made, "writing is reproducible");
    let reader = Reader::open_for(file, Kind::EvaluationKeys, params).unwrap();
    assert_eq!(read_params(&reader).unwrap(), *params);
    let stored = read_evaluation_keys(&reader, params).unwrap();
    let fresh = client.encrypt(&slots(), 0).expand(params).unwrap();
    let keys = EvaluationKeys::<Cpu>::prepare(params, &client.backend, &stored).unwrap();
    let evaluator = Evaluator::new(params, &client.backend, &keys).unwrap();
    let raised = evaluator.mod_raise(&evaluator.import(fresh).unwrap());
    let raised = raised.unwrap().export(&client.backend).unwrap();
    assert_eq!(raised.level(), 3);
    // Modulo q0 it is what it was.
    let phase = client
        .phase(&raised)
        .restricted(params.basis_at(0))
        .unwrap();
    let found = client.encoder.decode(&phase, raised.scale()).unwrap();
    let expected = slots().to_dense(params.slots()).unwrap().into_owned();
    assert_close(&found, &expected, 1e-6, "raised");
}

const NAMES: [&str; 3] = ["v1.ciphertexts.veil", "v1.keys.veil", "v1.public.veil"];

/// Writes the corpus of the current format where files are missing.
#[test]
#[ignore = "writes files: run once after a new format version"]
fn write_missing_files() {
    let (_, files) = make(&tiny_params());
    let raising = |expander| make_raising(&ladder_params(), expander).1;
    let bands = (BANDS, raising(ExpanderId::Blake3));
    let seeds = (SEEDS, raising(ExpanderId::Aes128));
    for (name, bytes) in NAMES.into_iter().zip(files).chain([bands, seeds]) {
        if !path(name).exists() {
            std::fs::write(path(name), bytes).unwrap();
        }
    }
}

#[test]
fn format_1_is_still_readable() {
    let params = params_of(NAMES[0]);
    assert_eq!(params.spec(), tiny_params().spec());
    let (client, _) = make(&params);
    let files = NAMES.map(|name| std::fs::read(path(name)).unwrap());
    for bytes in &files {
        assert!(inspect(bytes).is_ok());
        assert_eq!(read_params(&Reader::open(bytes).unwrap()).unwrap(), params);
    }
    let reader = Reader::open_for(&files[0], Kind::Ciphertexts, &params).unwrap();
    let inputs = read_ciphertexts(&reader, &params).unwrap();
    let expected = slots().to_dense(params.slots()).unwrap().into_owned();
    for (input, level) in inputs.iter().zip([3, 1]) {
        assert_eq!(input.info.level, level);
        let host = input.expand(&params).unwrap();
        assert_close(&client.decrypt(&host), &expected, 1e-6, "stored ciphertext");
    }
    let reader = Reader::open_for(&files[1], Kind::EvaluationKeys, &params).unwrap();
    let stored = read_evaluation_keys(&reader, &params).unwrap();
    let keys = EvaluationKeys::<Cpu>::prepare(&params, &client.backend, &stored).unwrap();
    let evaluator = Evaluator::new(&params, &client.backend, &keys).unwrap();
    let ct = evaluator
        .import(inputs[0].expand(&params).unwrap())
        .unwrap();
    let turned = evaluator.rotate_many(&ct, &[1]).unwrap();
    let product = evaluator.mul_sum(&[(&ct, &turned[0])]).unwrap();
    let host = product.export(&client.backend).unwrap();
    let products: Vec<Complex> = (0..4)
        .map(|j| expected[j] * expected[(j + 1) % 4])
        .collect();
    assert_close(
        &client.decrypt(&host),
        &products,
        1e-5,
        "computed with stored keys",
    );
    let reader = Reader::open_for(&files[2], Kind::PublicKey, &params).unwrap();
    assert_eq!(read_public_key(&reader, &params).unwrap().level, 2);
}

/// The bytes of format 1.0 themselves: what this program writes today from the same inputs is
/// what it wrote then.
#[test]
fn writing_is_reproducible() {
    let (_, files) = make(&params_of(NAMES[0]));
    for (name, bytes) in NAMES.into_iter().zip(files) {
        assert!(std::fs::read(path(name)).unwrap() == bytes, "{name}");
    }
}
