//! Evaluation keys and public keys in a container.
//!
//! The metadata of all keys comes first, so that the length of every section is known before
//! the first key is made: keys are written one by one as they are generated, and read one by
//! one as they are prepared.

use std::io::Write;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use veilformer_ring::ExpanderId;

use super::bits::{expect_end, poly_len, put_poly, take_poly};
use super::writer::to_meta;
use super::{ContainerError, Kind, Reader, StreamWriter, Tag, Writer, bad_section};
use crate::keys::check_switching_key;
use crate::{
    CkksError, KeyId, KeyList, KeyPurpose, KeyShape, Params, SecretKind, StoredEvaluationKeys,
    StoredPublicKey, StoredSwitchingKey, Uniform, UniformParts, uniform,
};

/// Most keys that one file may hold.
const MAX_KEYS: usize = 1 << 12;

/// Bytes of a seed.
const SEED_BYTES: usize = 32;

/// What a set of evaluation keys is, without its polynomials. Its postcard form is wire format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationKeysHeader {
    /// The secret key.
    pub key_id: KeyId,
    /// Digest of the program whose key list they answer.
    pub program: [u8; 32],
    /// Every key, in the order of their sections.
    pub keys: Vec<KeyRecord>,
}

impl EvaluationKeysHeader {
    /// The header of the keys of a list, all with seeded uniform halves, of a client whose secret is
    /// of the given kind.
    #[must_use]
    pub fn of_list(
        params: &Params,
        list: &KeyList,
        (key_id, secret): (KeyId, SecretKind),
        program: [u8; 32],
    ) -> Self {
        let record = |(purpose, level): (KeyPurpose, usize)| KeyRecord {
            purpose,
            // Levels are below 128; a larger one is refused before it is written.
            level: u32::try_from(level).unwrap_or(u32::MAX),
            secret: purpose.secret(params, secret),
            seeded: true,
            expander: uniform::KEY_EXPANDER.into(),
        };
        Self {
            key_id,
            program,
            keys: list.iter().map(record).collect(),
        }
    }

    /// Length in bytes of the file that [`EvaluationKeysWriter`] makes of these keys.
    ///
    /// # Errors
    /// What [`KeyPurpose::shape`] says.
    pub fn file_bytes(&self, params: &Params) -> Result<u64, CkksError> {
        let mut lengths = vec![
            super::params_to_bytes(params)?.len(),
            to_meta(Tag::KEYS, self)?.len(),
        ];
        for key in &self.keys {
            lengths.push(key.bytes(params)?);
        }
        Ok(super::file_bytes(&lengths))
    }
}

/// What one evaluation key is, without its polynomials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// What it is for.
    pub purpose: KeyPurpose,
    /// The highest level at which it can be used.
    pub level: u32,
    /// Distribution of the secret.
    pub secret: SecretKind,
    /// Whether its uniform half is a seed.
    pub seeded: bool,
    /// How the seed expands.
    pub expander: u8,
}

impl KeyRecord {
    /// The record of a key.
    #[must_use]
    pub fn of(key: &StoredSwitchingKey) -> Self {
        Self {
            purpose: key.purpose,
            level: key.level as u32,
            secret: key.secret,
            seeded: matches!(key.a, UniformParts::Seed(_)),
            expander: key.expander.into(),
        }
    }

    /// Bytes of the section of the key: what a client uploads for it.
    ///
    /// # Errors
    /// What [`KeyPurpose::shape`] says.
    pub fn bytes(&self, params: &Params) -> Result<usize, CkksError> {
        Ok(self.bytes_of(params, &self.purpose.shape(params, self.level as usize)?))
    }

    fn bytes_of(&self, params: &Params, shape: &KeyShape) -> usize {
        let half = shape.digits.len() * poly_len(params, shape.basis);
        if self.seeded {
            SEED_BYTES + half
        } else {
            2 * half
        }
    }
}

/// Writes evaluation keys one by one.
pub struct EvaluationKeysWriter<W: Write> {
    out: StreamWriter<W>,
    params: Params,
    key_id: KeyId,
    expected: std::vec::IntoIter<KeyRecord>,
}

impl<W: Write> EvaluationKeysWriter<W> {
    /// Writes what is known before the first key is.
    ///
    /// # Errors
    /// The stream's, too many keys, or a level that does not exist.
    pub fn begin(
        out: W,
        params: &Params,
        header: &EvaluationKeysHeader,
    ) -> Result<Self, CkksError> {
        check_count(header)?;
        let params_bytes = super::params_to_bytes(params)?;
        let meta = to_meta(Tag::KEYS, header)?;
        let mut table = vec![
            (Tag::PARAMS, params_bytes.len() as u64),
            (Tag::KEYS, meta.len() as u64),
        ];
        for key in &header.keys {
            table.push((Tag::KEY, key.bytes(params)? as u64));
        }
        let mut out = StreamWriter::begin(out, Kind::EvaluationKeys, Some(params), table)?;
        out.section(Tag::PARAMS, &params_bytes)?;
        out.section(Tag::KEYS, &meta)?;
        Ok(Self {
            out,
            params: params.clone(),
            key_id: header.key_id,
            expected: header.keys.clone().into_iter(),
        })
    }

    /// Writes the next key of the header's list.
    ///
    /// # Errors
    /// If it is another than announced or does not conform, or the stream's.
    pub fn write(&mut self, key: &StoredSwitchingKey) -> Result<(), CkksError> {
        key.conform(&self.params)?;
        if key.key_id != self.key_id {
            return Err(CkksError::WrongKey {
                object: "a switching key of the set",
                found: key.key_id,
                expected: self.key_id,
            });
        }
        if self.expected.next() != Some(KeyRecord::of(key)) {
            let what = format!("{} is not the next key of the list", key.purpose);
            return Err(bad_section(Tag::KEY, what).into());
        }
        self.out.next_section(Tag::KEY)?;
        put_key(&self.params, key, &mut |bytes| self.out.write(bytes))?;
        Ok(())
    }

    /// Writes the digest; returns the stream and the length of the file in bytes.
    ///
    /// # Errors
    /// If keys are missing, or the stream's.
    pub fn finish(self) -> Result<(W, u64), CkksError> {
        Ok(self.out.finish()?)
    }
}

/// Writes a set of keys from an iterator, in the order of `header`; `progress` gets (done,
/// total) after each and may stop.
///
/// # Errors
/// As [`EvaluationKeysWriter`], the iterator's, or [`ContainerError::Stopped`].
pub fn write_evaluation_keys<W: Write>(
    out: W,
    params: &Params,
    header: &EvaluationKeysHeader,
    keys: impl Iterator<Item = Result<StoredSwitchingKey, CkksError>>,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<u64, CkksError> {
    let mut writer = EvaluationKeysWriter::begin(out, params, header)?;
    for (done, key) in keys.enumerate() {
        writer.write(&key?)?;
        if progress(done + 1, header.keys.len()).is_break() {
            return Err(ContainerError::Stopped.into());
        }
    }
    Ok(writer.finish()?.1)
}

/// A set of keys as a file in memory.
///
/// # Errors
/// If it does not conform to the parameters.
pub fn evaluation_keys_to_bytes(
    params: &Params,
    keys: &StoredEvaluationKeys,
) -> Result<Vec<u8>, CkksError> {
    keys.conform(params)?;
    let header = EvaluationKeysHeader {
        key_id: keys.key_id,
        program: keys.program,
        keys: keys.keys.iter().map(KeyRecord::of).collect(),
    };
    let mut out = Vec::new();
    let mut writer = EvaluationKeysWriter::begin(&mut out, params, &header)?;
    for key in &keys.keys {
        writer.write(key)?;
    }
    writer.finish()?;
    Ok(out)
}

/// Checks a list of keys: its length, every key's security, and the lengths of their sections.
pub(super) fn check_list(
    params: &Params,
    header: &EvaluationKeysHeader,
    lengths: &[u64],
) -> Result<(), CkksError> {
    check_count(header)?;
    if lengths.len() != header.keys.len() {
        let (found, announced) = (lengths.len(), header.keys.len());
        let what = format!("{found} keys, {announced} are announced");
        return Err(bad_section(Tag::KEY, what).into());
    }
    for (record, &length) in header.keys.iter().zip(lengths) {
        let key = (record.purpose, record.level as usize);
        let (shape, row) = check_switching_key(params, key, record.secret)?;
        ExpanderId::try_from(record.expander)?;
        let expected = record.bytes_of(params, &shape);
        if length != expected as u64 {
            let what = format!("{} has {length} bytes, expected {expected}", row.key);
            return Err(bad_section(Tag::KEY, what).into());
        }
    }
    Ok(())
}

/// Hands the bytes of a key's section to `put`, a polynomial at a time.
pub(super) fn put_key(
    params: &Params,
    key: &StoredSwitchingKey,
    put: &mut dyn FnMut(&[u8]) -> Result<(), ContainerError>,
) -> Result<(), ContainerError> {
    let polys: &[_] = match &key.a {
        UniformParts::Seed(seed) => {
            put(seed)?;
            &[]
        }
        UniformParts::Polys(polys) => polys,
    };
    let mut buffer = Vec::new();
    for poly in key.b.iter().chain(polys) {
        buffer.clear();
        put_poly(params, poly, &mut buffer);
        put(&buffer)?;
    }
    Ok(())
}

/// The key of a section; its lengths, and that residues are below their primes, are checked.
pub(super) fn key_from(
    params: &Params,
    record: &KeyRecord,
    key_id: KeyId,
    body: &[u8],
) -> Result<StoredSwitchingKey, CkksError> {
    const TAG: Tag = Tag::KEY;
    let mut bytes = body;
    let level = record.level as usize;
    let shape = record.purpose.shape(params, level)?;
    let (basis, digits) = (shape.basis, shape.digits.len());
    let seed = if record.seeded {
        let Some((seed, rest)) = bytes.split_first_chunk::<SEED_BYTES>() else {
            return Err(bad_section(TAG, "its seed is missing").into());
        };
        bytes = rest;
        Some(*seed)
    } else {
        None
    };
    let mut parts = || {
        (0..digits)
            .map(|_| take_poly(params, basis, TAG, &mut bytes))
            .collect::<Result<Vec<_>, _>>()
    };
    let b = parts()?;
    let a = match seed {
        Some(seed) => UniformParts::Seed(seed),
        None => UniformParts::Polys(parts()?),
    };
    expect_end(TAG, bytes)?;
    Ok(StoredSwitchingKey {
        purpose: record.purpose,
        secret: record.secret,
        level,
        key_id,
        b,
        a,
        expander: ExpanderId::try_from(record.expander)?,
    })
}

/// Reads and checks a whole set of keys.
///
/// # Errors
/// [`ContainerError::WrongKind`], [`ContainerError::WrongParams`], [`CkksError::Insecure`], what is
/// malformed, and those of [`StoredEvaluationKeys::conform`].
pub fn read_evaluation_keys(
    reader: &Reader<'_>,
    params: &Params,
) -> Result<StoredEvaluationKeys, CkksError> {
    reader.expect_kind(Kind::EvaluationKeys)?;
    reader.expect_params(params)?;
    let header: EvaluationKeysHeader = reader.meta(Tag::KEYS)?;
    let bodies: Vec<&[u8]> = reader.sections_of(Tag::KEY).collect();
    let lengths: Vec<u64> = bodies.iter().map(|body| body.len() as u64).collect();
    check_list(params, &header, &lengths)?;
    let keys = header.keys.iter().zip(bodies);
    let keys = keys.map(|(record, body)| key_from(params, record, header.key_id, body));
    let stored = StoredEvaluationKeys {
        params: params.digest(),
        key_id: header.key_id,
        program: header.program,
        keys: keys.collect::<Result<_, _>>()?,
    };
    stored.conform(params)?;
    Ok(stored)
}

#[derive(Serialize, Deserialize)]
struct PublicKeyRecord {
    level: u32,
    secret: SecretKind,
    key_id: KeyId,
    expander: u8,
    seed: Option<[u8; SEED_BYTES]>,
}

/// Adds a public key to a container.
///
/// # Errors
/// If it does not conform to the parameters.
pub fn append_public_key(
    writer: &mut Writer,
    params: &Params,
    key: &StoredPublicKey,
) -> Result<(), CkksError> {
    key.conform(params)?;
    let mut body = Vec::new();
    put_poly(params, &key.b, &mut body);
    let seed = match &key.a {
        Uniform::Seed(seed) => Some(*seed),
        Uniform::Poly(a) => {
            put_poly(params, a, &mut body);
            None
        }
    };
    let record = PublicKeyRecord {
        level: key.level as u32,
        secret: key.secret,
        key_id: key.key_id,
        expander: key.expander.into(),
        seed,
    };
    writer.meta(Tag::PUBLIC, &record)?;
    writer.section(Tag::PUBLIC_BODY, body);
    Ok(())
}

/// A public key as a file in memory.
///
/// # Errors
/// As [`append_public_key`].
pub fn public_key_to_bytes(params: &Params, key: &StoredPublicKey) -> Result<Vec<u8>, CkksError> {
    let mut writer = Writer::new(Kind::PublicKey, Some(params))?;
    append_public_key(&mut writer, params, key)?;
    Ok(writer.to_bytes()?)
}

/// Reads and checks a public key.
///
/// # Errors
/// [`ContainerError::WrongParams`], or what does not conform.
pub fn read_public_key(reader: &Reader<'_>, params: &Params) -> Result<StoredPublicKey, CkksError> {
    const TAG: Tag = Tag::PUBLIC_BODY;
    reader.expect_params(params)?;
    let record: PublicKeyRecord = reader.meta(Tag::PUBLIC)?;
    let level = record.level as usize;
    params.check_level(level)?;
    let basis = params.covering(level);
    let mut bytes = reader.section(TAG)?;
    let b = take_poly(params, basis, TAG, &mut bytes)?;
    let a = match record.seed {
        Some(seed) => Uniform::Seed(seed),
        None => Uniform::Poly(take_poly(params, basis, TAG, &mut bytes)?),
    };
    expect_end(TAG, bytes)?;
    let key = StoredPublicKey {
        b,
        a,
        level,
        secret: record.secret,
        key_id: record.key_id,
        expander: ExpanderId::try_from(record.expander)?,
    };
    key.conform(params)?;
    Ok(key)
}

fn check_count(header: &EvaluationKeysHeader) -> Result<(), ContainerError> {
    if header.keys.len() > MAX_KEYS {
        return Err(bad_section(
            Tag::KEYS,
            format!(
                "{} keys, at most {MAX_KEYS} are possible",
                header.keys.len()
            ),
        ));
    }
    Ok(())
}
