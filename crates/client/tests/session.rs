//! Sentences to ciphertexts and answers back, without a server.
#![allow(clippy::unwrap_used)]

mod common;

use common::parts;
use veilformer_ckks::container::{Kind, Reader, Tag, Writer, append_ciphertexts, read_ciphertexts};
use veilformer_ckks::testing::toy_params;
use veilformer_ckks::{Complex, Params, SlotVector, StoredCiphertext, Uniform};
use veilformer_client::{Answer, ClientBundle, ClientError};
use veilformer_ir::signature::PROGRAM_DIGEST as PROGRAM;
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator, SecretKey, SecureRng};

fn client() -> (ClientBundle, SecretKey) {
    let params = toy_params();
    let bundle = ClientBundle::new(&params, parts(&params, 8)).unwrap();
    (bundle, key(&params))
}

fn key(params: &Params) -> SecretKey {
    let mut generator = KeyGenerator::new(params, SecureRng::from_os().unwrap());
    generator.secret_key().unwrap()
}

fn encrypt(secret: &SecretKey, slots: &SlotVector) -> StoredCiphertext {
    let mut encryptor = Encryptor::new(secret, SecureRng::from_os().unwrap()).unwrap();
    encryptor.encrypt(slots, 0).unwrap()
}

fn answer_file(ciphertexts: &[StoredCiphertext], program: [u8; 32]) -> Vec<u8> {
    let params = toy_params();
    let mut writer = Writer::new(Kind::Answer, Some(&params)).unwrap();
    append_ciphertexts(&mut writer, &params, ciphertexts).unwrap();
    writer.section(PROGRAM, program.to_vec());
    writer.to_bytes().unwrap()
}

/// A single output is a value: a softmax over it would call everything certain.
#[test]
fn a_single_value_has_no_label() {
    let answer = Answer::of_logits(vec![-0.4]);
    assert_eq!((answer.label, answer.logits), (None, vec![-0.4]));
    assert!(answer.probabilities.is_empty());
    let answer = Answer::of_logits(vec![-0.4, 0.4]);
    assert_eq!((answer.label, answer.probabilities.len()), (Some(1), 2));
}

#[test]
fn every_input_of_every_length_holds_what_the_signature_says() {
    let (bundle, secret) = client();
    let text = |n: usize| ["good", "not", "bad", "film"].repeat(2)[..n].join(" ");
    let sentences: Vec<String> = (1..=8).map(text).collect();
    let file = bundle.encrypt(&secret, &sentences).unwrap();
    let reader = Reader::open_kind(&file, Kind::Ciphertexts).unwrap();
    assert_eq!(reader.section(PROGRAM).unwrap(), [7; 32]);
    let ciphertexts = read_ciphertexts(&reader, bundle.params()).unwrap();
    assert_eq!(ciphertexts.len(), 8 * 3);
    let decryptor = Decryptor::new(&secret).unwrap();
    for (sentence, ciphertexts) in sentences.iter().zip(ciphertexts.chunks(3)) {
        let rows = bundle.embed(&bundle.tokenize(sentence).unwrap()).unwrap();
        for (spec, ciphertext) in bundle.signature().inputs.iter().zip(ciphertexts) {
            assert_eq!(ciphertext.info.level, spec.level);
            let expected = bundle.signature().pack(spec, &[&rows], 512);
            let slots = decryptor.decrypt_stored(ciphertext).unwrap();
            for (got, want) in slots.reveal_to_owner().unwrap().iter().zip(expected) {
                assert!((got - want).norm() < 1e-4, "{got} {want}");
            }
        }
    }
}

#[test]
fn the_size_of_the_file_tells_the_number_of_sentences_only() {
    let (bundle, secret) = client();
    let size = |s: &[&str]| bundle.encrypt(&secret, s).unwrap().len();
    assert_eq!(size(&["good"]), size(&["not good not bad film film bad"]));
    assert!(size(&["good"]) < size(&["good", "bad"]));
}

/// Lengths, levels, scales and everything else outside of the polynomials and their seeds.
#[test]
fn nothing_beside_the_polynomials_depends_on_the_number_of_tokens() {
    let (bundle, secret) = client();
    let look = |n: usize| {
        let rows = bundle.embed(&vec![1; n]).unwrap();
        let file = bundle.encrypt_rows(&secret, &[rows]).unwrap();
        let reader = Reader::open_kind(&file, Kind::Ciphertexts).unwrap();
        let sections: Vec<(Tag, usize)> = reader.sections().map(|(t, s)| (t, s.len())).collect();
        let others: Vec<Vec<u8>> = reader
            .sections()
            .filter(|(t, _)| *t != Tag::CIPHERTEXTS && *t != Tag::CIPHERTEXT)
            .map(|(_, s)| s.to_vec())
            .collect();
        let infos: Vec<_> = read_ciphertexts(&reader, bundle.params())
            .unwrap()
            .iter()
            .map(|ct| (ct.info, matches!(ct.uniform, Uniform::Seed(_))))
            .collect();
        (sections, others, infos)
    };
    let one = look(1);
    for n in 2..=8 {
        assert!(look(n) == one, "{n} tokens show");
    }
}

#[test]
fn sentences_that_cannot_be_encrypted() {
    let (bundle, secret) = client();
    let message = |s: &[&str]| bundle.encrypt(&secret, s).unwrap_err().to_string();
    let empty = message(&["good", "  "]);
    assert!(
        empty.contains("sentence 2") && empty.contains("empty"),
        "{empty}"
    );
    let long = message(&["good bad good bad good bad good bad film"]);
    assert!(
        long.contains("9 tokens") && long.contains("limit is 8"),
        "{long}"
    );
    assert!(message(&[]).contains("0 sentences"));
    let rows = vec![vec![vec![0.0; 2]; 9]];
    let error = bundle.encrypt_rows(&secret, &rows).unwrap_err();
    assert!(matches!(
        error,
        ClientError::Rows {
            found: 9,
            limit: 8,
            ..
        }
    ));
    let rows = vec![vec![vec![0.0; 3]; 2]];
    assert!(bundle.encrypt_rows(&secret, &rows).is_err());
}

#[test]
fn answers_come_back_in_order() {
    let (bundle, secret) = client();
    let constant = |re, im| encrypt(&secret, &SlotVector::Constant(Complex::new(re, im)));
    let file = answer_file(
        &[
            constant(-1.5, 2.5),
            constant(0.25, 0.0),
            constant(3.0, 1.0),
            constant(7.0, 0.0),
        ],
        [7; 32],
    );
    let answers = bundle.decrypt(&secret, &file).unwrap();
    let labels: Vec<usize> = answers.iter().filter_map(|a| a.label).collect();
    assert_eq!(labels, [1, 2]);
    for (answer, expected) in answers.iter().zip([[-1.5, 2.5, 0.25], [3.0, 1.0, 7.0]]) {
        assert_eq!(answer.logits.len(), 3);
        for (got, want) in answer.logits.iter().zip(expected) {
            assert!((got - want).abs() < 1e-4, "{got} {want}");
        }
        assert!((answer.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}

#[test]
fn answers_that_are_none() {
    let (bundle, secret) = client();
    let message =
        |secret: &SecretKey, file: &[u8]| bundle.decrypt(secret, file).unwrap_err().to_string();
    let one = |v| encrypt(&secret, &SlotVector::real_constant(v));
    let odd = message(&secret, &answer_file(&[one(1.0)], [7; 32]));
    assert!(odd.contains("1 ciphertexts"), "{odd}");
    let none = message(&secret, &answer_file(&[], [7; 32]));
    assert!(none.contains("0 ciphertexts"), "{none}");
    let program = message(&secret, &answer_file(&[one(1.0), one(2.0)], [8; 32]));
    assert!(program.contains("program 0808"), "{program}");
    let uneven = encrypt(&secret, &SlotVector::real_periodic(&[1.0, 1.1]));
    let uneven = message(&secret, &answer_file(&[one(1.0), uneven], [7; 32]));
    assert!(uneven.contains("does not decrypt"), "{uneven}");
    let stranger = key(&toy_params());
    let other = message(&stranger, &answer_file(&[one(1.0), one(2.0)], [7; 32]));
    assert!(other.contains("secret key"), "{other}");
    let input = bundle.encrypt(&secret, &["good"]).unwrap();
    let kind = message(&secret, &input);
    assert!(kind.contains("expected an encrypted answer"), "{kind}");
}

/// A logit beyond what the program was compiled for is no answer, though its slots agree.
#[test]
fn a_logit_outside_the_range_is_refused() {
    let (bundle, secret) = client();
    let limit = bundle.signature().answer_bound;
    let outputs = bundle.signature().outputs();
    let answer = |value: f64| {
        let ciphertext = || encrypt(&secret, &SlotVector::Constant(Complex::new(value, 0.0)));
        answer_file(
            &(0..outputs).map(|_| ciphertext()).collect::<Vec<_>>(),
            [7; 32],
        )
    };
    assert!(bundle.decrypt(&secret, &answer(-0.9 * limit)).is_ok());
    let error = bundle.decrypt(&secret, &answer(-1.1 * limit)).unwrap_err();
    assert!(
        matches!(error, ClientError::OutOfRange { number: 1, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("outside the range"));
}
