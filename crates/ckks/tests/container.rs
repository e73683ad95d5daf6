//! The container: round trips, what each kind of damage is called, streaming, inspection.
#![allow(clippy::unwrap_used)] // a test's way to fail

mod support;

use std::ops::ControlFlow;

use support::{ToyClient, assert_close};
use veilformer_ckks::container::*;
use veilformer_ckks::testing::{reseal, tiny_params, toy_params};
use veilformer_ckks::*;
use veilformer_ring::Cpu;

fn list(params: &Params) -> KeyList {
    let mut list = KeyList::default();
    list.need(KeyPurpose::Relinearization, 3, params);
    list.need(KeyPurpose::Rotation(1), 2, params);
    list.need(KeyPurpose::Conjugation, 0, params);
    list.need(KeyPurpose::FromEphemeral, 3, params);
    list
}

#[test]
fn ciphertexts_round_trip() {
    let params = toy_params();
    let mut client = ToyClient::new(&params, 3);
    let slots = client.random_slots();
    let fresh = client.encrypt(&SlotVector::Dense(slots.clone()), 2);
    let full = fresh.expand(&params).unwrap().into_stored();
    let bytes = ciphertexts_to_bytes(Kind::Ciphertexts, &params, &[fresh, full]).unwrap();
    let predicted = ciphertexts_file_bytes(&params, &[(2, true), (2, false)]).unwrap();
    assert_eq!(predicted, bytes.len() as u64);
    let reader = Reader::open_for(&bytes, Kind::Ciphertexts, &params).unwrap();
    let back = read_ciphertexts(&reader, &params).unwrap();
    assert_eq!(back.len(), 2);
    for ct in &back {
        let host = ct.expand(&params).unwrap();
        assert_close(&client.decrypt(&host), &slots, 1e-5, "round trip");
    }
    let sections: Vec<usize> = reader
        .sections_of(Tag::CIPHERTEXT)
        .map(<[u8]>::len)
        .collect();
    assert_eq!(sections[1], 2 * sections[0], "a seed halves the upload");
    let bits: usize = params
        .moduli(params.basis_at(2))
        .iter()
        .map(|q| 64 - q.leading_zeros() as usize)
        .sum();
    assert_eq!(sections[0], bits * params.n() / 8);
}

#[test]
fn evaluation_keys_round_trip_and_stream() {
    let params = toy_params();
    let mut client = ToyClient::new(&params, 4);
    let list = list(&params);
    let keys = client.keys(&list);
    let bytes = evaluation_keys_to_bytes(&params, &keys).unwrap();
    let back = read_evaluation_keys(&Reader::open(&bytes).unwrap(), &params).unwrap();
    assert_eq!((back.program, back.key_id), ([7; 32], client.key_id));
    for (a, b) in keys.keys.iter().zip(&back.keys) {
        assert!(a.purpose == b.purpose && a.level == b.level && a.b == b.b);
    }
    assert!(EvaluationKeys::<Cpu>::prepare(&params, &client.backend, &back).is_ok());

    let header = EvaluationKeysHeader {
        key_id: keys.key_id,
        program: keys.program,
        keys: keys.keys.iter().map(KeyRecord::of).collect(),
    };
    let client_key = (keys.key_id, SecretKind::DenseTernary);
    assert!(header == EvaluationKeysHeader::of_list(&params, &list, client_key, keys.program));
    assert_eq!(header.file_bytes(&params).unwrap(), bytes.len() as u64);
    let mut streamed = Vec::new();
    let mut seen = Vec::new();
    let length = write_evaluation_keys(
        &mut streamed,
        &params,
        &header,
        keys.keys.into_iter().map(Ok),
        &mut |done, total| {
            seen.push((done, total));
            ControlFlow::Continue(())
        },
    )
    .unwrap();
    assert_eq!(seen, [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
    assert!(streamed == bytes && length == bytes.len() as u64);
    let reader = Reader::open(&bytes).unwrap();
    let predicted = header.keys.iter().map(|key| key.bytes(&params).unwrap());
    let predicted: usize = predicted.sum();
    assert_eq!(
        reader.sections_of(Tag::KEY).map(<[u8]>::len).sum::<usize>(),
        predicted
    );

    let refused = write_evaluation_keys(
        Vec::new(),
        &params,
        &header,
        std::iter::empty(),
        &mut |_, _| ControlFlow::Continue(()),
    );
    assert!(refused.is_err(), "missing keys");
    let stopped = write_evaluation_keys(
        Vec::new(),
        &params,
        &header,
        client.keys(&list).keys.into_iter().map(Ok),
        &mut |_, _| ControlFlow::Break(()),
    );
    assert!(matches!(
        stopped,
        Err(CkksError::Container(ContainerError::Stopped))
    ));
}

#[test]
fn keys_in_full_and_public_keys() {
    let params = toy_params();
    let mut client = ToyClient::new(&params, 8);
    let mut key = client.key(KeyPurpose::Rotation(2), 1);
    let a: Vec<_> = key
        .expand(&params)
        .unwrap()
        .parts
        .into_iter()
        .map(|(b, a)| a.poly(params.chain(), b.basis()).unwrap().into_owned())
        .collect();
    key.a = UniformParts::Polys(a);
    let keys = StoredEvaluationKeys {
        params: params.digest(),
        key_id: client.key_id,
        program: [0; 32],
        keys: vec![key],
    };
    let bytes = evaluation_keys_to_bytes(&params, &keys).unwrap();
    let back = read_evaluation_keys(&Reader::open(&bytes).unwrap(), &params).unwrap();
    let (UniformParts::Polys(x), UniformParts::Polys(y)) = (&keys.keys[0].a, &back.keys[0].a)
    else {
        panic!("the kind of the uniform half changed");
    };
    assert!(x == y);
    let public = client.public_key(2);
    let bytes = public_key_to_bytes(&params, &public).unwrap();
    let reader = Reader::open_for(&bytes, Kind::PublicKey, &params).unwrap();
    let back = read_public_key(&reader, &params).unwrap();
    assert!(back.b == public.b && back.level == 2);
}

#[test]
fn each_damage_has_its_name() {
    let params = tiny_params();
    let mut client = ToyClient::new(&params, 5);
    let ct = client.encrypt(&SlotVector::real_constant(0.5), 1);
    let good = ciphertexts_to_bytes(Kind::Ciphertexts, &params, &[ct]).unwrap();
    let open = |bytes: &[u8]| Reader::open(bytes).map(|_| ());
    assert!(open(&good).is_ok());
    assert!(matches!(open(b""), Err(ContainerError::NotOurs)));
    assert!(matches!(
        open(b"PK\x03\x04 something else"),
        Err(ContainerError::NotOurs)
    ));
    for len in [8, 63, 64, 100, good.len() - 1] {
        assert!(
            matches!(open(&good[..len]), Err(ContainerError::Truncated { .. })),
            "{len}"
        );
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(matches!(
        open(&longer),
        Err(ContainerError::Trailing { extra: 1 })
    ));
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(matches!(open(&flipped), Err(ContainerError::Corrupted)));
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    assert!(open(&flipped).is_err());
    let mut newer = good.clone();
    newer[8] = 2;
    reseal(&mut newer);
    let error = open(&newer).unwrap_err();
    assert!(error.to_string().contains("newer"), "{error}");
    let mut minor = good.clone();
    minor[10] = 9;
    reseal(&mut minor);
    assert!(open(&minor).is_ok(), "minor versions stay readable");
    let wrong = Reader::open_kind(&good, Kind::SecretKey)
        .map(|_| ())
        .unwrap_err();
    let text = wrong.to_string();
    assert!(
        text.contains("encrypted inputs") && text.contains("secret key"),
        "{text}"
    );
    let other = Reader::open_for(&good, Kind::Ciphertexts, &toy_params()).map(|_| ());
    assert!(matches!(other, Err(ContainerError::WrongParams { .. })));
    // Bytes of the digest of the parameters, and the flag of insecure ones.
    for at in [16, 30, 14] {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        let refused = Reader::open_for(&flipped, Kind::Ciphertexts, &params).map(|_| ());
        assert!(matches!(refused, Err(ContainerError::Corrupted)), "{at}");
    }
}

#[test]
fn the_first_bytes_say_how_long_a_file_is() {
    let params = tiny_params();
    let mut client = ToyClient::new(&params, 5);
    let ct = client.encrypt(&SlotVector::real_constant(0.5), 1);
    let file = ciphertexts_to_bytes(Kind::Ciphertexts, &params, &[ct]).unwrap();
    let announced = announced_bytes(&file[..HEADER_BYTES]);
    assert_eq!(announced.unwrap(), file.len() as u64);
    let few = announced_bytes(&file[..HEADER_BYTES - 1]);
    assert!(matches!(few, Err(ContainerError::Truncated { .. })));
    let none = announced_bytes(&[0; HEADER_BYTES]);
    assert!(matches!(none, Err(ContainerError::NotOurs)));
}

#[test]
fn a_residue_above_its_prime_is_refused() {
    let params = tiny_params();
    let mut client = ToyClient::new(&params, 6);
    let ct = client.encrypt(&SlotVector::real_constant(0.5), 0);
    let mut bytes = ciphertexts_to_bytes(Kind::Ciphertexts, &params, &[ct]).unwrap();
    let end = bytes.len() - 32;
    bytes[end - 5..end].fill(0xff);
    reseal(&mut bytes);
    let reader = Reader::open(&bytes).unwrap();
    let error = read_ciphertexts(&reader, &params)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("prime"), "{error}");

    // The prime itself is the smallest of them: the last word, in the top bits of the section.
    let prime = params.moduli(params.basis_at(0))[0];
    let shift = prime.leading_zeros();
    let low = u64::from_le_bytes(bytes[end - 8..end].try_into().unwrap()) << (64 - shift);
    for (word, refused) in [(prime, true), (prime - 1, false)] {
        let last = word << shift | low >> (64 - shift);
        bytes[end - 8..end].copy_from_slice(&last.to_le_bytes());
        reseal(&mut bytes);
        let reader = Reader::open(&bytes).unwrap();
        assert_eq!(read_ciphertexts(&reader, &params).is_err(), refused);
    }
}

/// Lengths and counts of a file whose digest is right all the same.
#[test]
fn lengths_and_counts_are_bounded() {
    let params = tiny_params();
    let mut client = ToyClient::new(&params, 9);
    let ct = client.encrypt(&SlotVector::real_constant(0.5), 0);
    let good = ciphertexts_to_bytes(Kind::Ciphertexts, &params, &[ct]).unwrap();
    let error = |at: usize, field: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + field.len()].copy_from_slice(field);
        reseal(&mut bytes);
        Reader::open(&bytes).err().unwrap().to_string()
    };
    // The header has 64 bytes, the number of sections at 48; a section's length is 8 bytes after
    // its tag.
    let length = u64::from_le_bytes(good[72..80].try_into().unwrap());
    for length in [0, length - 1, length + 1, u64::MAX] {
        let error = error(72, &length.to_le_bytes());
        assert!(error.contains("add up"), "{error}");
    }
    let many = error(48, &(MAX_SECTIONS as u32 + 1).to_le_bytes());
    assert!(many.contains("at most 65536"), "{many}");

    let record = (
        0u32,
        params.scale_at(0),
        client.key_id,
        0u8,
        Some([0u8; 32]),
    );
    let mut writer = Writer::new(Kind::Ciphertexts, Some(&params)).unwrap();
    let records = vec![record; (1 << 14) + 1];
    writer.meta(Tag::CIPHERTEXTS, &records).unwrap();
    let bytes = writer.to_bytes().unwrap();
    let many = read_ciphertexts(&Reader::open(&bytes).unwrap(), &params);
    let many = many.err().unwrap().to_string();
    assert!(many.contains("at most 16384"), "{many}");
}

#[test]
fn bundles_of_other_crates() {
    const NAME: Tag = Tag(*b"NAME");
    let params = toy_params();
    let mut writer = Writer::new(Kind::ServerBundle, Some(&params)).unwrap();
    writer.meta(NAME, &("model", 64u32)).unwrap();
    writer.section(Tag(*b"BLOB"), vec![1, 2, 3]);
    let bytes = writer.to_bytes().unwrap();
    let reader = Reader::open_kind(&bytes, Kind::ServerBundle).unwrap();
    assert!(reader.is_insecure());
    assert_eq!(read_params(&reader).unwrap(), params);
    let meta: (String, u32) = reader.meta(NAME).unwrap();
    assert_eq!(meta, ("model".to_owned(), 64));
    assert_eq!(reader.section(Tag(*b"BLOB")).unwrap(), [1, 2, 3]);
    let missing = reader.section(Tag(*b"NONE"));
    assert!(matches!(
        missing,
        Err(ContainerError::MissingSection { .. })
    ));
    assert!(reader.meta_up_to::<(String, u32)>(NAME, 3).is_err());
    let bare = Writer::new(Kind::CostTable, None)
        .unwrap()
        .to_bytes()
        .unwrap();
    let reader = Reader::open(&bare).unwrap();
    assert_eq!(reader.params_digest(), [0; 32]);
    assert!(read_params(&reader).is_err());
}

#[test]
fn inspection_tells_what_a_file_is() {
    let params = toy_params();
    let mut client = ToyClient::new(&params, 7);
    let keys = client.keys(&list(&params));
    let bytes = evaluation_keys_to_bytes(&params, &keys).unwrap();
    let inspection = inspect(&bytes).unwrap();
    assert_eq!(inspection.kind, Kind::EvaluationKeys);
    assert_eq!(inspection.security.len(), 5);
    let text = inspection.to_string();
    for part in [
        "evaluation keys",
        "INSECURE",
        "rotation 1: up to level 2",
        "from the ephemeral secret: up to level 3",
        "KEY  x 5",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let ct = client.encrypt(&SlotVector::real_constant(0.5), 2);
    let bytes = ciphertexts_to_bytes(Kind::Answer, &params, &[ct]).unwrap();
    let text = inspect(&bytes).unwrap().to_string();
    assert!(
        text.contains("ciphertext 0: level 2, scale 2^30") && text.contains("seeded"),
        "{text}"
    );
    assert!(inspect(b"hello").is_err());
}
