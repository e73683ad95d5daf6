//! Reading a container.

use serde::de::DeserializeOwned;

use super::{
    ContainerError, DIGEST_BYTES, FLAG_INSECURE, HEADER_BYTES, Kind, MAGIC, MAX_SECTIONS,
    META_LIMIT, TABLE_ENTRY_BYTES, Tag, VERSION, bad_section,
};
use crate::Params;
use crate::error::short_hex;

/// A container in memory (or mapped), whose header, lengths and digest are checked; sections
/// are borrowed from it.
pub struct Reader<'a> {
    bytes: &'a [u8],
    kind: Kind,
    version: (u16, u16),
    insecure: bool,
    params_digest: [u8; 32],
    count: usize,
}

impl<'a> Reader<'a> {
    /// Checks header, lengths and digest of a file of any kind.
    ///
    /// # Errors
    /// [`ContainerError`] that says which.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ContainerError> {
        let reader = Self::open_unverified(bytes)?;
        let (body, digest) = bytes.split_at(bytes.len() - DIGEST_BYTES);
        if blake3::hash(body).as_bytes() != digest {
            return Err(ContainerError::Corrupted);
        }
        Ok(reader)
    }

    /// As [`Reader::open`], for a file that must be of one kind.
    ///
    /// # Errors
    /// [`ContainerError::WrongKind`] and those of [`Reader::open`].
    pub fn open_kind(bytes: &'a [u8], expected: Kind) -> Result<Self, ContainerError> {
        // The kind is compared first: hashing gigabytes of the wrong file helps nobody.
        Self::open_unverified(bytes)?.expect_kind(expected)?;
        Self::open(bytes)
    }

    /// As [`Reader::open_kind`], for a file that must be under given parameters.
    ///
    /// # Errors
    /// [`ContainerError::WrongParams`] and those of [`Reader::open_kind`].
    pub fn open_for(
        bytes: &'a [u8],
        expected: Kind,
        params: &Params,
    ) -> Result<Self, ContainerError> {
        let reader = Self::open_unverified(bytes)?;
        reader.expect_kind(expected)?;
        reader.expect_params(params)?;
        Self::open(bytes)
    }

    /// Checks the header and all lengths, not the digest. For looking at a file only.
    ///
    /// # Errors
    /// As [`Reader::open`] without [`ContainerError::Corrupted`].
    pub fn open_unverified(bytes: &'a [u8]) -> Result<Self, ContainerError> {
        let truncated = |expected: usize| ContainerError::Truncated {
            found: bytes.len() as u64,
            expected: expected as u64,
        };
        let seen = bytes.len().min(MAGIC.len());
        if bytes.get(..seen) != MAGIC.get(..seen) || seen < 4 {
            return Err(ContainerError::NotOurs);
        }
        let header: &[u8; HEADER_BYTES] =
            bytes.first_chunk().ok_or_else(|| truncated(HEADER_BYTES))?;
        let version = (number(header, 8, 2) as u16, number(header, 10, 2) as u16);
        if version.0 > VERSION.0 {
            return Err(ContainerError::NewerVersion {
                major: version.0,
                minor: version.1,
                known: VERSION.0,
            });
        }
        let code = number(header, 12, 2) as u16;
        let flags = number(header, 14, 2) as u16;
        let kind = Kind::from_code(code)
            .filter(|_| version.0 == VERSION.0)
            .ok_or_else(|| {
                bad_header(format!("kind {code} of version {} is unknown", version.0))
            })?;
        if flags & !FLAG_INSECURE != 0 || number(header, 52, 4) != 0 {
            return Err(bad_header("unknown flags are set"));
        }
        let count = number(header, 48, 4) as usize;
        if count > MAX_SECTIONS {
            return Err(bad_header(format!(
                "{count} sections, at most {MAX_SECTIONS} are possible"
            )));
        }
        let total = number(header, 56, 8);
        match total.cmp(&(bytes.len() as u64)) {
            std::cmp::Ordering::Greater => {
                return Err(ContainerError::Truncated {
                    found: bytes.len() as u64,
                    expected: total,
                });
            }
            std::cmp::Ordering::Less => {
                return Err(ContainerError::Trailing {
                    extra: bytes.len() as u64 - total,
                });
            }
            std::cmp::Ordering::Equal => {}
        }
        let table_end = HEADER_BYTES + TABLE_ENTRY_BYTES * count;
        if bytes.len() < table_end + DIGEST_BYTES {
            return Err(truncated(table_end + DIGEST_BYTES));
        }
        let mut params_digest = [0; 32];
        params_digest.copy_from_slice(&header[16..48]);
        let reader = Self {
            bytes,
            kind,
            version,
            insecure: flags & FLAG_INSECURE != 0,
            params_digest,
            count,
        };
        let lengths = reader
            .table()
            .try_fold((table_end + DIGEST_BYTES) as u64, |sum, entry| {
                sum.checked_add(entry.1).filter(|_| entry.2 == 0)
            });
        if lengths != Some(total) {
            return Err(bad_header(
                "the section lengths do not add up to the file's length",
            ));
        }
        Ok(reader)
    }

    /// `Ok` if the file is of this kind.
    ///
    /// # Errors
    /// [`ContainerError::WrongKind`].
    pub fn expect_kind(&self, expected: Kind) -> Result<(), ContainerError> {
        if self.kind == expected {
            Ok(())
        } else {
            Err(ContainerError::WrongKind {
                found: self.kind.to_string(),
                expected: expected.to_string(),
            })
        }
    }

    /// `Ok` if the file was made under these parameters.
    ///
    /// # Errors
    /// [`ContainerError::WrongParams`].
    pub fn expect_params(&self, params: &Params) -> Result<(), ContainerError> {
        if self.params_digest == params.digest() && self.insecure == params.is_insecure() {
            Ok(())
        } else {
            Err(ContainerError::WrongParams {
                found: short_hex(&self.params_digest),
                expected: short_hex(&params.digest()),
            })
        }
    }

    /// What the file is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Format version, major and minor.
    #[must_use]
    pub fn version(&self) -> (u16, u16) {
        self.version
    }

    /// Whether it was made with insecure test parameters.
    #[must_use]
    pub fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// Digest of the parameters; zeros if there are none.
    #[must_use]
    pub fn params_digest(&self) -> [u8; 32] {
        self.params_digest
    }

    /// The digest at the end: the identity of the file.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.bytes.last_chunk().copied().unwrap_or_default()
    }

    /// All sections in order.
    pub fn sections(&self) -> impl Iterator<Item = (Tag, &'a [u8])> + '_ {
        let bytes = self.bytes;
        let mut at = HEADER_BYTES + TABLE_ENTRY_BYTES * self.count;
        self.table().map(move |(tag, length, _)| {
            // In bounds: open_unverified() compared the sum of the lengths.
            let section = bytes.get(at..at + length as usize).unwrap_or_default();
            at += length as usize;
            (tag, section)
        })
    }

    /// The first section with a tag.
    ///
    /// # Errors
    /// [`ContainerError::MissingSection`].
    pub fn section(&self, tag: Tag) -> Result<&'a [u8], ContainerError> {
        self.sections()
            .find(|section| section.0 == tag)
            .map(|section| section.1)
            .ok_or_else(|| ContainerError::MissingSection {
                section: tag.to_string(),
            })
    }

    /// Every section with a tag, in order.
    pub fn sections_of(&self, tag: Tag) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.sections()
            .filter(move |section| section.0 == tag)
            .map(|section| section.1)
    }

    /// The metadata of the first section with a tag, at most [`META_LIMIT`] bytes.
    ///
    /// # Errors
    /// [`ContainerError::MissingSection`], or [`ContainerError::BadSection`] if it is too long,
    /// cannot be parsed, or has bytes left over.
    pub fn meta<T: DeserializeOwned>(&self, tag: Tag) -> Result<T, ContainerError> {
        self.meta_up_to(tag, META_LIMIT)
    }

    /// As [`Reader::meta`] with another limit in bytes.
    ///
    /// # Errors
    /// As [`Reader::meta`].
    pub fn meta_up_to<T: DeserializeOwned>(
        &self,
        tag: Tag,
        limit: usize,
    ) -> Result<T, ContainerError> {
        from_meta(tag, self.section(tag)?, limit)
    }

    /// The section table: tag, length, reserved field.
    fn table(&self) -> impl Iterator<Item = (Tag, u64, u32)> + 'a {
        self.bytes
            .get(HEADER_BYTES..HEADER_BYTES + TABLE_ENTRY_BYTES * self.count)
            .unwrap_or_default()
            .chunks_exact(TABLE_ENTRY_BYTES)
            .map(|entry| {
                let tag = entry.first_chunk().copied().unwrap_or_default();
                (Tag(tag), number(entry, 8, 8), number(entry, 4, 4) as u32)
            })
    }
}

/// A value from metadata bytes.
pub(crate) fn from_meta<T: DeserializeOwned>(
    tag: Tag,
    bytes: &[u8],
    limit: usize,
) -> Result<T, ContainerError> {
    if bytes.len() > limit {
        return Err(bad_section(
            tag,
            format!(
                "{} bytes of metadata, at most {limit} are read",
                bytes.len()
            ),
        ));
    }
    let (value, rest) = postcard::take_from_bytes(bytes)
        .map_err(|error| bad_section(tag, format!("it cannot be parsed: {error}")))?;
    super::bits::expect_end(tag, rest)?;
    Ok(value)
}

fn bad_header(what: impl Into<String>) -> ContainerError {
    bad_section(Tag(*b"HEAD"), what)
}

/// A little-endian number of up to eight bytes; missing bytes count as zero.
pub(super) fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut padded = [0; 8];
    for (to, from) in padded.iter_mut().zip(bytes.iter().skip(at).take(len)) {
        *to = *from;
    }
    u64::from_le_bytes(padded)
}
