//! A file of evaluation keys of which one key at a time is in memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

use super::keys::{EvaluationKeysHeader, check_list, key_from};
use super::reader::{Head, from_meta};
use super::unfinished::{hash, read_at};
use super::{ContainerError, DIGEST_BYTES, Kind, META_LIMIT, Tag, bad_section};
use crate::{CkksError, Params, StoredSwitchingKey};

/// A file of evaluation keys of which one key at a time is read, in any order and by any thread.
///
/// Its digest is compared once, when it is opened. Whoever changes the file afterwards changes what is
/// computed: each key that is read is checked for its lengths, residues and security, not for being
/// the same.
pub struct KeyFile<F = File> {
    file: Mutex<F>,
    /// What sections were read into: fresh pages for each would take longer than to read them.
    buffers: Mutex<Vec<Vec<u8>>>,
    params: Params,
    header: EvaluationKeysHeader,
    /// Per key where its section begins and how long it is, bytes.
    places: Vec<(u64, u64)>,
}

/// What a file begins with, as [`Head::parse`] wants it, and the file's length in bytes.
pub(super) fn first_of<F: Read + Seek>(file: &mut F) -> Result<(Vec<u8>, u64), ContainerError> {
    let length = file.seek(SeekFrom::End(0)).map_err(ContainerError::Io)?;
    let mut first = vec![0; length.min(Head::LIMIT as u64) as usize];
    read_at(file, 0, &mut first)?;
    Ok((first, length))
}

fn head_of<F: Read + Seek>(file: &mut F) -> Result<(Head, u64), ContainerError> {
    let (first, length) = first_of(file)?;
    Ok((Head::parse(&first, length)?, length))
}

/// The list of evaluation keys of a file that is so many bytes long.
pub(super) fn list_of<F: Read + Seek>(
    (file, found): (&mut F, u64),
    head: &Head,
) -> Result<EvaluationKeysHeader, ContainerError> {
    let (_, at, length) = head
        .sections()
        .find(|section| section.0 == Tag::KEYS)
        .ok_or_else(|| ContainerError::MissingSection {
            section: Tag::KEYS.to_string(),
        })?;
    let expected = at + length;
    if expected > found {
        return Err(ContainerError::Truncated { found, expected });
    }
    // One byte more than is parsed, to be told apart from what fits.
    let mut meta = vec![0; length.min(META_LIMIT as u64 + 1) as usize];
    read_at(file, at, &mut meta)?;
    from_meta(Tag::KEYS, &meta, META_LIMIT)
}

impl<F: Read + Seek> KeyFile<F> {
    /// What a file is, by its header.
    ///
    /// # Errors
    /// [`ContainerError`] for what is none of our files; the file's.
    pub fn kind_of(file: &mut F) -> Result<Kind, ContainerError> {
        Ok(head_of(file)?.0.kind())
    }

    /// Checks a file from its first byte to its digest.
    ///
    /// # Errors
    /// [`ContainerError`] for what is no whole file of evaluation keys under these parameters,
    /// [`CkksError::Insecure`]; the file's.
    pub fn open(mut file: F, params: &Params) -> Result<Self, CkksError> {
        let (head, length) = head_of(&mut file)?;
        // Compared first: hashing gigabytes of the wrong file helps nobody.
        head.expect_kind(Kind::EvaluationKeys)?;
        let body = length - DIGEST_BYTES as u64;
        let mut digest = [0; DIGEST_BYTES];
        read_at(&mut file, body, &mut digest)?;
        let mut hasher = blake3::Hasher::new();
        hash(&mut file, (0, body), &mut hasher)?;
        if *hasher.finalize().as_bytes() != digest {
            return Err(ContainerError::Corrupted.into());
        }
        // Compared last: a changed byte of the header is no sign of other parameters.
        head.expect_params(params)?;
        let header = list_of((&mut file, length), &head)?;
        let keys = head.sections().filter(|section| section.0 == Tag::KEY);
        let places: Vec<(u64, u64)> = keys.map(|(_, at, length)| (at, length)).collect();
        let lengths: Vec<u64> = places.iter().map(|place| place.1).collect();
        check_list(params, &header, &lengths)?;
        Ok(Self {
            file: Mutex::new(file),
            buffers: Mutex::new(Vec::new()),
            params: params.clone(),
            header,
            places,
        })
    }

    /// What the set is.
    #[must_use]
    pub fn header(&self) -> &EvaluationKeysHeader {
        &self.header
    }

    /// Reads one key.
    ///
    /// # Errors
    /// If there is no such key, or a residue is not below its prime; the file's.
    pub fn key(&self, index: usize) -> Result<StoredSwitchingKey, CkksError> {
        let found = self.header.keys.get(index).zip(self.places.get(index));
        let (record, &(at, length)) =
            found.ok_or_else(|| bad_section(Tag::KEY, format!("there is no key {index}")))?;
        let buffers = || self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = buffers().pop().unwrap_or_default();
        bytes.resize(length as usize, 0);
        let read = {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            read_at(&mut *file, at, &mut bytes)
        };
        let key = read
            .map_err(CkksError::from)
            .and_then(|()| key_from(&self.params, record, self.header.key_id, &bytes));
        buffers().push(bytes);
        key
    }
}
