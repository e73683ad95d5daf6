//! Parsers of our own container format.

use std::io::Cursor;
use std::ops::ControlFlow;

use veilformer_ckks::container::{
    EvaluationKeysHeader, KeyFile, KeyRecord, Kind, Reader, UnfinishedKeys, Writer,
    append_ciphertexts, evaluation_keys_to_bytes, inspect, params_from_bytes, read_ciphertexts,
    read_evaluation_keys, read_public_key,
};
use veilformer_ckks::testing::reseal;
use veilformer_ckks::{
    CkksError, EvaluationKeys, Evaluator, SlotVector, StoredCiphertext, StoredEvaluationKeys,
};
use veilformer_client::ClientBundle;
use veilformer_ring::Cpu;
use veilformer_runtime::{CostTable, PROGRAM_DIGEST, Server, ServerBundle};
use veilformer_secret::{Decryptor, Encryptor, PublicEncryptor, SecretKey};

use crate::toy::{MAX_LOG_N, Toy, backend, toy};

/// As it came, and with length and digest made right.
fn both(data: &[u8], parse: impl Fn(&[u8])) {
    parse(data);
    let mut sealed = data.to_vec();
    reseal(&mut sealed);
    parse(&sealed);
}

/// Any file: what `inspect` prints.
pub fn container(data: &[u8]) {
    both(data, |data| {
        if let Ok(found) = inspect(data) {
            assert!(!found.to_string().is_empty());
        }
    });
}

/// The parameters section; it has no digest of its own.
pub fn params(data: &[u8]) {
    let Ok(params) = params_from_bytes(data) else {
        return;
    };
    assert!(params.is_insecure() || params.security().bits() >= 128);
    if params.log_n() <= MAX_LOG_N {
        let toy = Toy::new(&params, &toy_list(&params), [0; 32]);
        if let Some(toy) = toy {
            evaluate(&toy, &toy.keys, &[toy.encrypt(params.max_level())]);
        }
    }
}

/// Encrypted inputs.
pub fn ciphertexts(data: &[u8]) {
    let toy = toy();
    both(data, |data| {
        let Ok(reader) = Reader::open(data) else {
            return;
        };
        if let Ok(found) = read_ciphertexts(&reader, &toy.params) {
            evaluate(toy, &toy.keys, &found);
            let decryptor = Decryptor::new(&toy.secret).expect("toy parameters");
            for ct in &found {
                let _ = decryptor
                    .decrypt_stored(ct)
                    .and_then(|d| d.reveal_to_owner());
            }
        }
    });
}

/// Evaluation keys: all in memory, one by one from a file, and as what an interrupted generation left.
pub fn evaluation_keys(data: &[u8]) {
    let toy = toy();
    let header = EvaluationKeysHeader {
        key_id: toy.keys.key_id,
        program: toy.keys.program,
        keys: toy.keys.keys.iter().map(KeyRecord::of).collect(),
    };
    both(data, |data| {
        let reader = Reader::open(data).map_err(CkksError::from);
        let keys = reader.and_then(|reader| read_evaluation_keys(&reader, &toy.params));
        let file = KeyFile::open(Cursor::new(data), &toy.params);
        let singly = file.and_then(|file| {
            let indices = 0..file.header().keys.len();
            assert!(file.key(indices.end).is_err());
            // In another order than they stand in.
            let mut keys: Vec<_> = indices
                .rev()
                .map(|i| file.key(i))
                .collect::<Result<_, _>>()?;
            keys.reverse();
            Ok(keys)
        });
        match (keys, singly) {
            (Ok(keys), Ok(singly)) => {
                let singly = StoredEvaluationKeys {
                    params: keys.params,
                    key_id: keys.key_id,
                    program: keys.program,
                    keys: singly,
                };
                let [one, other] = [&keys, &singly].map(|keys| {
                    evaluation_keys_to_bytes(&toy.params, keys).expect("what was read")
                });
                assert!(one == other);
                evaluate(toy, &keys, &[toy.encrypt(toy.params.max_level())]);
            }
            (Err(_), Err(_)) => {}
            (keys, singly) => panic!("in memory: {:?}, singly: {:?}", keys.err(), singly.err()),
        }
        let unfinished = Cursor::new(data.to_vec());
        if let Ok(mut file) = UnfinishedKeys::open(unfinished, &toy.params, &header) {
            let held: Vec<_> = (0..header.keys.len()).map(|i| file.holds(i)).collect();
            assert!(held.iter().all(Result::is_ok), "{held:?}");
        }
    });
}

/// A public key.
pub fn public_key(data: &[u8]) {
    let toy = toy();
    both(data, |data| {
        let Ok(reader) = Reader::open(data) else {
            return;
        };
        if let Ok(key) = read_public_key(&reader, &toy.params) {
            let mut encryptor =
                PublicEncryptor::insecure_deterministic_for_tests(&toy.params, &key, 1)
                    .expect("what was read can be used");
            let _ = encryptor.encrypt(&SlotVector::real_constant(0.5), key.level);
        }
    });
}

/// A secret key.
pub fn secret_key(data: &[u8]) {
    both(data, |data| {
        let Ok(secret) = SecretKey::from_bytes(data) else {
            return;
        };
        if secret.params().log_n() > MAX_LOG_N {
            return;
        }
        let Ok(mut encryptor) = Encryptor::insecure_deterministic_for_tests(&secret, 1) else {
            return;
        };
        let half = SlotVector::real_constant(0.5);
        let stored = encryptor
            .encrypt(&half, 0)
            .expect("one half fits every scale");
        let _ = Decryptor::new(&secret).map(|d| d.decrypt_stored(&stored).map(drop));
    });
}

/// The client's half of a compiled model: it is asked to encrypt.
pub fn client_bundle(data: &[u8]) {
    both(data, |data| {
        let Ok(bundle) = ClientBundle::from_bytes(data) else {
            return;
        };
        bundle.to_bytes().expect("what was read can be written");
        bundle
            .content_digest()
            .expect("what was read can be written");
        let tokens = bundle.tokenize("a good film, not a bad one");
        let _ = tokens.as_ref().map(|tokens| bundle.embed(tokens));
        if bundle.params().log_n() > MAX_LOG_N {
            return;
        }
        if let Some(toy) = Toy::new(bundle.params(), bundle.keys(), bundle.server_content()) {
            let _ = bundle.encrypt(&toy.secret, &["good", "bad film"]);
            let level = bundle.params().max_level();
            if let Ok(answer) =
                ciphertext_file(&toy, Kind::Answer, &[level], bundle.server_content())
            {
                let _ = bundle.decrypt(&toy.secret, &answer);
            }
        }
    });
}

/// The server's half: it is asked to answer an input that fits it.
pub fn server_bundle(data: &[u8]) {
    both(data, |data| {
        let Ok(bundle) = ServerBundle::from_bytes(data) else {
            return;
        };
        bundle.to_bytes().expect("what was read can be written");
        let params = bundle.params().clone();
        if params.log_n() > MAX_LOG_N || bundle.program().instructions.len() > 1 << 10 {
            return;
        }
        let digest = bundle.program_digest();
        let Some(toy) = Toy::new(&params, bundle.keys(), digest) else {
            return;
        };
        let levels: Vec<usize> = bundle.program().inputs.iter().map(|i| i.level).collect();
        let Ok(input) = ciphertext_file(&toy, Kind::Ciphertexts, &levels, digest) else {
            return;
        };
        let Ok(mut server) = Server::open(bundle, backend(&params)) else {
            return;
        };
        let go = |_: usize, _: usize| ControlFlow::Continue(());
        let keys = evaluation_keys_to_bytes(&params, &toy.keys).expect("keys can be written");
        if server.load_keys(Cursor::new(&keys), &go).is_ok() {
            let _ = server.run(&input, &go);
        }
    });
}

/// Measured costs of this machine, as `plan` caches them.
pub fn cost_table(data: &[u8]) {
    both(data, |data| {
        if let Ok(table) = CostTable::from_bytes(data) {
            table.to_bytes().expect("what was read can be written");
            let _ = (table.slowdown(1), table.slowdown(16));
            for (cost, level) in table.seconds.keys() {
                assert!(table.at(*cost, *level as usize) >= 0.0);
            }
        }
    });
}

fn toy_list(params: &veilformer_ckks::Params) -> veilformer_ckks::KeyList {
    let mut keys = veilformer_ckks::KeyList::default();
    let level = params.max_level();
    keys.need(veilformer_ckks::KeyPurpose::Relinearization, level, params);
    keys
}

fn ciphertext_file(
    toy: &Toy,
    kind: Kind,
    levels: &[usize],
    program: [u8; 32],
) -> Result<Vec<u8>, veilformer_ckks::CkksError> {
    let ciphertexts: Vec<StoredCiphertext> = levels.iter().map(|l| toy.encrypt(*l)).collect();
    let mut writer = Writer::new(kind, Some(&toy.params))?;
    append_ciphertexts(&mut writer, &toy.params, &ciphertexts)?;
    writer.section(PROGRAM_DIGEST, program.to_vec());
    Ok(writer.to_bytes()?)
}

/// What an evaluator does with what conforms.
fn evaluate(
    toy: &Toy,
    keys: &veilformer_ckks::StoredEvaluationKeys,
    ciphertexts: &[StoredCiphertext],
) {
    let keys = EvaluationKeys::<Cpu>::prepare(&toy.params, &toy.backend, keys)
        .expect("what conforms can be prepared");
    let evaluator = Evaluator::with_encoder(toy.encoder.clone(), &toy.backend, &keys)
        .expect("keys of these parameters");
    for stored in ciphertexts {
        let host = stored.expand(&toy.params).expect("what conforms expands");
        if let Ok(ct) = evaluator.import(host) {
            let _ = evaluator.mul_sum(&[(&ct, &ct)]);
            let _ = evaluator.rotate_many(&ct, &[0, 1, 2]);
            let _ = evaluator.conjugate(&ct);
            let _ = evaluator.adjust(&ct, 0);
            let _ = evaluator
                .drop_to(&ct, 0)
                .and_then(|low| evaluator.mod_raise(&low));
        }
    }
}
