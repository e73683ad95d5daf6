//! Reading a container.

use serde::de::DeserializeOwned;

use super::{
    ContainerError, DIGEST_BYTES, FLAG_INSECURE, HEADER_BYTES, Kind, MAGIC, MAX_SECTIONS,
    META_LIMIT, TABLE_ENTRY_BYTES, Tag, VERSION, bad_section,
};
use crate::Params;
use crate::error::short_hex;

/// What stands before the sections of a container.
pub(super) struct Head {
    kind: Kind,
    version: (u16, u16),
    insecure: bool,
    params_digest: [u8; 32],
    /// Tag and length of each section.
    sections: Vec<(Tag, u64)>,
}

impl Head {
    /// Longest head, bytes.
    pub(super) const LIMIT: usize = HEADER_BYTES + TABLE_ENTRY_BYTES * MAX_SECTIONS;

    /// Checks the header and all lengths of a file of `length` bytes that begins with `first`, of
    /// which there are [`Head::LIMIT`] unless the file is shorter.
    ///
    /// # Errors
    /// As [`Reader::open_unverified`].
    pub(super) fn parse(first: &[u8], length: u64) -> Result<Self, ContainerError> {
        let truncated = |expected: u64| ContainerError::Truncated {
            found: length,
            expected,
        };
        let (header, version) = beginning(first, length)?;
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
        if total > length {
            return Err(truncated(total));
        }
        if total < length {
            let extra = length - total;
            // Behind the keys stand the notes of whoever makes them, a digest each and no more than keys.
            let notes = extra.is_multiple_of(DIGEST_BYTES as u64)
                && extra / DIGEST_BYTES as u64 <= count as u64;
            return Err(match kind {
                Kind::EvaluationKeys if notes => ContainerError::Unfinished,
                _ => ContainerError::Trailing { extra },
            });
        }
        let table_end = HEADER_BYTES + TABLE_ENTRY_BYTES * count;
        let least = (table_end + DIGEST_BYTES) as u64;
        let table = match first.get(HEADER_BYTES..table_end) {
            Some(table) if length >= least => table,
            _ => return Err(truncated(least)),
        };
        let mut sections = Vec::with_capacity(count);
        let mut sum = Some(least);
        for entry in table.chunks_exact(TABLE_ENTRY_BYTES) {
            let (reserved, length) = (number(entry, 4, 4), number(entry, 8, 8));
            sum = sum.and_then(|s| s.checked_add(length).filter(|_| reserved == 0));
            sections.push((
                Tag(entry.first_chunk().copied().unwrap_or_default()),
                length,
            ));
        }
        if sum != Some(total) {
            return Err(bad_header(
                "the section lengths do not add up to the file's length",
            ));
        }
        let mut params_digest = [0; 32];
        params_digest.copy_from_slice(&header[16..48]);
        Ok(Self {
            kind,
            version,
            insecure: flags & FLAG_INSECURE != 0,
            params_digest,
            sections,
        })
    }

    /// As [`Head::parse`], of a file whose end may be missing or not be its own: it is as long as its
    /// header says.
    ///
    /// # Errors
    /// As [`Reader::open_unverified`].
    pub(super) fn of_unfinished(first: &[u8]) -> Result<Self, ContainerError> {
        Self::parse(first, number(first, 56, 8))
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Per section its tag, where it begins and its length, bytes.
    pub(super) fn sections(&self) -> impl Iterator<Item = (Tag, u64, u64)> + '_ {
        let mut at = (HEADER_BYTES + TABLE_ENTRY_BYTES * self.sections.len()) as u64;
        self.sections.iter().map(move |&(tag, length)| {
            let begin = at;
            at += length;
            (tag, begin, length)
        })
    }

    pub(super) fn expect_kind(&self, expected: Kind) -> Result<(), ContainerError> {
        if self.kind == expected {
            return Ok(());
        }
        Err(ContainerError::WrongKind {
            found: self.kind.to_string(),
            expected: expected.to_string(),
        })
    }

    pub(super) fn expect_params(&self, params: &Params) -> Result<(), ContainerError> {
        if self.params_digest == params.digest() && self.insecure == params.is_insecure() {
            return Ok(());
        }
        Err(ContainerError::WrongParams {
            found: short_hex(&self.params_digest),
            expected: short_hex(&params.digest()),
        })
    }
}

/// A container in memory, whose header, lengths and digest are checked; sections are borrowed from
/// it.
pub struct Reader<'a> {
    bytes: &'a [u8],
    head: Head,
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
        let reader = Self::open_kind(bytes, expected)?;
        // Compared last: a changed byte of the header is no sign of other parameters.
        reader.expect_params(params)?;
        Ok(reader)
    }

    /// Checks the header and all lengths, not the digest. For looking at a file only.
    ///
    /// # Errors
    /// As [`Reader::open`] without [`ContainerError::Corrupted`].
    pub fn open_unverified(bytes: &'a [u8]) -> Result<Self, ContainerError> {
        let head = Head::parse(bytes, bytes.len() as u64)?;
        Ok(Self { bytes, head })
    }

    /// `Ok` if the file is of this kind.
    ///
    /// # Errors
    /// [`ContainerError::WrongKind`].
    pub fn expect_kind(&self, expected: Kind) -> Result<(), ContainerError> {
        self.head.expect_kind(expected)
    }

    /// `Ok` if the file was made under these parameters.
    ///
    /// # Errors
    /// [`ContainerError::WrongParams`].
    pub fn expect_params(&self, params: &Params) -> Result<(), ContainerError> {
        self.head.expect_params(params)
    }

    /// What the file is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.head.kind
    }

    /// Format version, major and minor.
    #[must_use]
    pub fn version(&self) -> (u16, u16) {
        self.head.version
    }

    /// Whether it was made with insecure test parameters.
    #[must_use]
    pub fn is_insecure(&self) -> bool {
        self.head.insecure
    }

    /// Digest of the parameters; zeros if there are none.
    #[must_use]
    pub fn params_digest(&self) -> [u8; 32] {
        self.head.params_digest
    }

    /// The digest at the end: the identity of the file.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.bytes.last_chunk().copied().unwrap_or_default()
    }

    /// All sections in order.
    pub fn sections(&self) -> impl Iterator<Item = (Tag, &'a [u8])> + '_ {
        let bytes = self.bytes;
        self.head.sections().map(move |(tag, at, length)| {
            // In bounds: the sum of the lengths was compared.
            let section = bytes.get(at as usize..(at + length) as usize);
            (tag, section.unwrap_or_default())
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

/// How long a file is by what its header says, from its first bytes ([`HEADER_BYTES`] of them are enough):
/// so that a reader knows how much to read of what has no length of its own.
///
/// # Errors
/// [`ContainerError::NotOurs`], [`ContainerError::Truncated`] or [`ContainerError::NewerVersion`].
pub fn announced_bytes(first: &[u8]) -> Result<u64, ContainerError> {
    let (header, _) = beginning(first, first.len() as u64)?;
    Ok(number(header, 56, 8))
}

/// The header of a file of `length` bytes, whose magic bytes and version are checked, and the version.
fn beginning(
    first: &[u8],
    length: u64,
) -> Result<(&[u8; HEADER_BYTES], (u16, u16)), ContainerError> {
    let seen = first.len().min(MAGIC.len());
    if first.get(..seen) != MAGIC.get(..seen) || seen < 4 {
        return Err(ContainerError::NotOurs);
    }
    let header: &[u8; HEADER_BYTES] = first.first_chunk().ok_or(ContainerError::Truncated {
        found: length,
        expected: HEADER_BYTES as u64,
    })?;
    let version = (number(header, 8, 2) as u16, number(header, 10, 2) as u16);
    if version.0 > VERSION.0 {
        return Err(ContainerError::NewerVersion {
            major: version.0,
            minor: version.1,
            known: VERSION.0,
        });
    }
    Ok((header, version))
}

fn bad_header(what: impl Into<String>) -> ContainerError {
    bad_section(Tag(*b"HEAD"), what)
}

/// A little-endian number of up to eight bytes; missing bytes count as zero.
fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut padded = [0; 8];
    for (to, from) in padded.iter_mut().zip(bytes.iter().skip(at).take(len)) {
        *to = *from;
    }
    u64::from_le_bytes(padded)
}
