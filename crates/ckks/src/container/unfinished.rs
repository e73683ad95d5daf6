//! A file of evaluation keys that is not finished.
//!
//! The place of every section follows from the list of keys alone, so that keys are written in any
//! order, and what an interrupted writer left is found again. Behind the end of the file to be stand
//! notes: per key a BLAKE3 hash of its number and its section, written after it. A section that its
//! note does not fit is not whole. To decrypt the keys would tell the same, and take longer than to
//! make them.

use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};

use super::key_file::{first_of, list_of};
use super::keys::{EvaluationKeysHeader, EvaluationKeysWriter, KeyRecord, put_key};
use super::reader::Head;
use super::{ContainerError, DIGEST_BYTES, Kind, Tag, bad_section};
use crate::{CkksError, KeyId, Params, StoredSwitchingKey};

const OBJECT: &str = "the unfinished file of evaluation keys";

/// Bytes that are read at a time to be hashed.
const CHUNK: usize = 1 << 20;

/// A file of evaluation keys while it is being made, by one or several attempts.
pub struct UnfinishedKeys<F> {
    file: F,
    params: Params,
    header: EvaluationKeysHeader,
    /// Per key where its section begins and how long it is, bytes.
    places: Vec<(u64, u64)>,
    /// Length of the file without its digest.
    body: u64,
}

impl<F: Read + Write + Seek> UnfinishedKeys<F> {
    /// Goes on with a file that holds as much of these keys as an earlier attempt came to; an empty
    /// one is begun. What is in it changes only where keys are written.
    ///
    /// # Errors
    /// [`ContainerError::NotOurs`], [`ContainerError::WrongKind`] or another [`ContainerError`] for any
    /// other file; [`ContainerError::WrongParams`], [`CkksError::WrongKey`] or
    /// [`CkksError::Malformed`] if its keys are of other parameters, another secret key, or another
    /// program; the file's.
    pub fn open(
        mut file: F,
        params: &Params,
        header: &EvaluationKeysHeader,
    ) -> Result<Self, CkksError> {
        let mut head = Vec::new();
        EvaluationKeysWriter::begin(&mut head, params, header)?;
        let (places, body) = places(params, header, head.len())?;
        let length = file.seek(SeekFrom::End(0)).map_err(ContainerError::Io)?;
        let mut found = vec![0; head.len().min(length as usize)];
        read_at(&mut file, 0, &mut found)?;
        if found != head {
            // A beginning of what would be written is what a first attempt came to.
            if !head.starts_with(&found) {
                return Err(difference(&mut file, params, header)?);
            }
            write_at(&mut file, 0, &head)?;
        }
        let longest = body + (DIGEST_BYTES * (1 + places.len())) as u64;
        if length > longest {
            let extra = length - longest;
            return Err(ContainerError::Trailing { extra }.into());
        }
        Ok(Self {
            file,
            params: params.clone(),
            header: header.clone(),
            places,
            body,
        })
    }

    /// Whether the key of that number is there, whole and unchanged.
    ///
    /// # Errors
    /// The file's, or if there is no such key on the list.
    pub fn holds(&mut self, index: usize) -> Result<bool, CkksError> {
        let (_, (at, length)) = self.place(index)?;
        let mut note = [0; DIGEST_BYTES];
        let mut hasher = noting(index);
        let note_at = self.note_at(index);
        let read = read_at(&mut self.file, note_at, &mut note)
            .and_then(|()| hash(&mut self.file, (at, length), &mut hasher));
        match read {
            Ok(()) => Ok(*hasher.finalize().as_bytes() == note),
            Err(ContainerError::Io(error)) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the key of that number.
    ///
    /// # Errors
    /// If it is another than the list has there, or does not conform; the file's.
    pub fn write(&mut self, index: usize, key: &StoredSwitchingKey) -> Result<(), CkksError> {
        let (record, (at, _)) = self.place(index)?;
        key.conform(&self.params)?;
        expect_id(key.key_id, self.header.key_id)?;
        if record != KeyRecord::of(key) {
            let what = format!("{} is not key {index} of the list", key.purpose);
            return Err(bad_section(Tag::KEY, what).into());
        }
        let note_at = self.note_at(index);
        let mut hasher = noting(index);
        let file = &mut self.file;
        file.seek(SeekFrom::Start(at)).map_err(ContainerError::Io)?;
        put_key(&self.params, key, &mut |bytes| {
            hasher.update(bytes);
            file.write_all(bytes).map_err(ContainerError::Io)
        })?;
        write_at(file, note_at, hasher.finalize().as_bytes())?;
        Ok(())
    }

    /// Writes the digest, once every key is there; returns the stream and the length of the file in
    /// bytes. To be a file of evaluation keys it is to be cut to that length: what follows are notes.
    ///
    /// # Errors
    /// The file's, also where it ends before the last key does.
    pub fn finish(mut self) -> Result<(F, u64), CkksError> {
        let mut hasher = blake3::Hasher::new();
        hash(&mut self.file, (0, self.body), &mut hasher)?;
        write_at(&mut self.file, self.body, hasher.finalize().as_bytes())?;
        self.file.flush().map_err(ContainerError::Io)?;
        Ok((self.file, self.body + DIGEST_BYTES as u64))
    }

    fn place(&self, index: usize) -> Result<(KeyRecord, (u64, u64)), ContainerError> {
        let found = self.header.keys.get(index).zip(self.places.get(index));
        let (record, place) = found
            .ok_or_else(|| bad_section(Tag::KEY, format!("there is no key {index} on the list")))?;
        Ok((*record, *place))
    }

    fn note_at(&self, index: usize) -> u64 {
        self.body + (DIGEST_BYTES * (1 + index)) as u64
    }
}

/// Where the section of every key begins, how long it is, and where the last one ends.
pub(super) fn places(
    params: &Params,
    header: &EvaluationKeysHeader,
    head: usize,
) -> Result<(Vec<(u64, u64)>, u64), CkksError> {
    let mut at = head as u64;
    let mut places = Vec::with_capacity(header.keys.len());
    for key in &header.keys {
        let length = key.bytes(params)? as u64;
        places.push((at, length));
        at += length;
    }
    Ok((places, at))
}

/// The hasher of a note: sections of equal keys in each other's places do not fit.
fn noting(index: usize) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(index as u64).to_le_bytes());
    hasher
}

/// Feeds the bytes at a place to a hasher.
pub(super) fn hash<F: Read + Seek>(
    file: &mut F,
    (at, length): (u64, u64),
    hasher: &mut blake3::Hasher,
) -> Result<(), ContainerError> {
    file.seek(SeekFrom::Start(at)).map_err(ContainerError::Io)?;
    let mut bytes = vec![0; CHUNK];
    let mut left = length;
    while let Some(now) = bytes.get_mut(..left.min(CHUNK as u64) as usize) {
        if now.is_empty() {
            break;
        }
        file.read_exact(now).map_err(ContainerError::Io)?;
        hasher.update(now);
        left -= now.len() as u64;
    }
    Ok(())
}

pub(super) fn read_at<F: Read + Seek>(
    file: &mut F,
    at: u64,
    out: &mut [u8],
) -> Result<(), ContainerError> {
    file.seek(SeekFrom::Start(at)).map_err(ContainerError::Io)?;
    file.read_exact(out).map_err(ContainerError::Io)
}

fn write_at<F: Write + Seek>(file: &mut F, at: u64, bytes: &[u8]) -> Result<(), ContainerError> {
    file.seek(SeekFrom::Start(at)).map_err(ContainerError::Io)?;
    file.write_all(bytes).map_err(ContainerError::Io)
}

fn expect_id(found: KeyId, expected: KeyId) -> Result<(), CkksError> {
    if found == expected {
        return Ok(());
    }
    Err(CkksError::WrongKey {
        object: OBJECT,
        found,
        expected,
    })
}

/// In what a file differs whose beginning is not the expected one.
fn difference<F: Read + Seek>(
    file: &mut F,
    params: &Params,
    expected: &EvaluationKeysHeader,
) -> Result<CkksError, CkksError> {
    let (first, length) = first_of(file)?;
    let head = Head::of_unfinished(&first)?;
    head.expect_kind(Kind::EvaluationKeys)?;
    head.expect_params(params).map_err(|error| match error {
        // No digest tells yet that a byte of the header was changed, but digests of other parameters
        // differ from their start.
        ContainerError::WrongParams { found, expected } if found == expected => {
            ContainerError::Corrupted
        }
        error => error,
    })?;
    let header = list_of((file, length), &head)?;
    expect_id(header.key_id, expected.key_id)?;
    Ok(CkksError::malformed(
        OBJECT,
        "its keys are another program's; name another file, or remove this one to begin anew",
    ))
}
