//! A file of evaluation keys that stays on disk.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

use super::keys::{EvaluationKeysHeader, EvaluationKeysWriter, key_from};
use super::unfinished::{Begun, beginning, hash, places, read_at};
use super::{ContainerError, DIGEST_BYTES, Kind, Tag, bad_section};
use crate::error::short_hex;
use crate::{CkksError, Params, StoredSwitchingKey};

/// A file of evaluation keys of which one key at a time is read, by any thread.
///
/// Its digest is compared once, when it is opened. Whoever changes the file afterwards changes what is
/// computed: each key that is read is checked for its lengths, residues and security, not for being
/// the same.
pub struct KeyFile {
    file: Mutex<File>,
    params: Params,
    header: EvaluationKeysHeader,
    /// Per key where its section begins and how long it is, bytes.
    places: Vec<(u64, u64)>,
}

impl KeyFile {
    /// Checks a file from its first byte to its digest.
    ///
    /// # Errors
    /// [`ContainerError`] for what is no whole file of evaluation keys under these parameters; the
    /// file's.
    pub fn open(mut file: File, params: &Params) -> Result<Self, CkksError> {
        let (digest, header) = match beginning(&mut file) {
            Some(Begun::Keys(digest, header)) => (digest, header),
            Some(Begun::Other(kind)) => {
                return Err(ContainerError::WrongKind {
                    found: kind.to_string(),
                    expected: Kind::EvaluationKeys.to_string(),
                }
                .into());
            }
            None => return Err(ContainerError::NotOurs.into()),
        };
        if digest != params.digest() {
            return Err(ContainerError::WrongParams {
                found: short_hex(&digest),
                expected: short_hex(&params.digest()),
            }
            .into());
        }
        let mut head = Vec::new();
        EvaluationKeysWriter::begin(&mut head, params, &header)?;
        let (places, body) = places(params, &header, head.len())?;
        let length = file.seek(SeekFrom::End(0)).map_err(ContainerError::Io)?;
        let expected = body + DIGEST_BYTES as u64;
        if length < expected {
            let found = length;
            return Err(ContainerError::Truncated { found, expected }.into());
        }
        if length > expected {
            let extra = length - expected;
            return Err(ContainerError::Trailing { extra }.into());
        }
        let (mut found, mut end) = (vec![0; head.len()], [0; DIGEST_BYTES]);
        read_at(&mut file, 0, &mut found)?;
        read_at(&mut file, body, &mut end)?;
        let mut hasher = blake3::Hasher::new();
        hash(&mut file, (0, body), &mut hasher)?;
        if found != head || *hasher.finalize().as_bytes() != end {
            return Err(ContainerError::Corrupted.into());
        }
        Ok(Self {
            file: Mutex::new(file),
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
        let mut bytes = vec![0; length as usize];
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            read_at(&mut *file, at, &mut bytes)?;
        }
        key_from(&self.params, record, self.header.key_id, &bytes)
    }
}
