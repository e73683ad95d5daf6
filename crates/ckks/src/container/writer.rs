//! Writing a container, in one piece or section by section.

use std::io::Write;

use serde::Serialize;

use super::{
    ContainerError, DIGEST_BYTES, FLAG_INSECURE, HEADER_BYTES, Kind, MAGIC, MAX_SECTIONS,
    TABLE_ENTRY_BYTES, Tag, VERSION, bad_section,
};
use crate::Params;

/// Writes a container section by section to a stream; the lengths are known beforehand, so
/// nothing but the section at hand is in memory.
pub struct StreamWriter<W: Write> {
    out: W,
    hasher: blake3::Hasher,
    table: std::vec::IntoIter<(Tag, u64)>,
    /// What remains of the current section.
    current: Option<(Tag, u64)>,
    total: u64,
}

impl<W: Write> StreamWriter<W> {
    /// Writes the header and the section table.
    ///
    /// # Errors
    /// The stream's, or too many sections.
    pub fn begin(
        out: W,
        kind: Kind,
        params: Option<&Params>,
        table: Vec<(Tag, u64)>,
    ) -> Result<Self, ContainerError> {
        if table.len() > MAX_SECTIONS {
            return Err(bad_section(
                Tag(*b"*   "),
                format!(
                    "{} sections, at most {MAX_SECTIONS} are possible",
                    table.len()
                ),
            ));
        }
        let fixed = HEADER_BYTES + TABLE_ENTRY_BYTES * table.len() + DIGEST_BYTES;
        let total = table
            .iter()
            .fold(fixed as u64, |sum, entry| sum.saturating_add(entry.1));
        let flags = params.map_or(0, |params| {
            if params.is_insecure() {
                FLAG_INSECURE
            } else {
                0
            }
        });
        let mut head = Vec::with_capacity(fixed);
        head.extend(MAGIC);
        head.extend(VERSION.0.to_le_bytes());
        head.extend(VERSION.1.to_le_bytes());
        head.extend(kind.code().to_le_bytes());
        head.extend(flags.to_le_bytes());
        head.extend(params.map_or([0; 32], Params::digest));
        head.extend((table.len() as u32).to_le_bytes());
        head.extend([0; 4]);
        head.extend(total.to_le_bytes());
        for (tag, length) in &table {
            head.extend(tag.0);
            head.extend([0; 4]);
            head.extend(length.to_le_bytes());
        }
        let mut writer = Self {
            out,
            hasher: blake3::Hasher::new(),
            table: table.into_iter(),
            current: None,
            total,
        };
        writer.put(&head)?;
        Ok(writer)
    }

    /// Begins the next section of the table, which must have this tag; the one before it must
    /// be complete.
    ///
    /// # Errors
    /// [`ContainerError::BadSection`] if the order or a length differs from the table.
    pub fn next_section(&mut self, tag: Tag) -> Result<(), ContainerError> {
        self.expect_complete()?;
        match self.table.next() {
            Some(entry) if entry.0 == tag => {
                self.current = Some(entry);
                Ok(())
            }
            _ => Err(bad_section(tag, "it is not the next of the section table")),
        }
    }

    /// Writes a part of the current section.
    ///
    /// # Errors
    /// The stream's, or [`ContainerError::BadSection`] if the section grows too long.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ContainerError> {
        match &mut self.current {
            Some((_, left)) if *left >= bytes.len() as u64 => *left -= bytes.len() as u64,
            Some((tag, _)) => return Err(bad_section(*tag, "it is longer than announced")),
            None => return Err(bad_section(Tag(*b"*   "), "no section was begun")),
        }
        self.put(bytes)
    }

    /// Writes a whole section.
    ///
    /// # Errors
    /// As [`StreamWriter::next_section`] and [`StreamWriter::write`].
    pub fn section(&mut self, tag: Tag, bytes: &[u8]) -> Result<(), ContainerError> {
        self.next_section(tag)?;
        self.write(bytes)
    }

    /// Writes the digest; all sections must have been written. Returns the stream and the
    /// length of the file in bytes.
    ///
    /// # Errors
    /// The stream's, or [`ContainerError::BadSection`] if something is missing.
    pub fn finish(mut self) -> Result<(W, u64), ContainerError> {
        self.expect_complete()?;
        if let Some((tag, _)) = self.table.next() {
            return Err(bad_section(tag, "it was announced and not written"));
        }
        let digest = self.hasher.finalize();
        self.out.write_all(digest.as_bytes())?;
        self.out.flush()?;
        Ok((self.out, self.total))
    }

    fn expect_complete(&self) -> Result<(), ContainerError> {
        match self.current {
            Some((tag, left)) if left > 0 => {
                Err(bad_section(tag, format!("{left} bytes are missing")))
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ContainerError> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)?;
        Ok(())
    }
}

/// Collects sections and writes them as a container.
///
/// ```
/// use veilformer_ckks::container::{Kind, Reader, Tag, Writer};
///
/// const NOTE: Tag = Tag(*b"NOTE");
/// let mut writer = Writer::new(Kind::CostTable, None)?;
/// writer.meta(NOTE, &vec![1.5f64, 2.5])?;
/// let bytes = writer.to_bytes()?;
///
/// let reader = Reader::open_kind(&bytes, Kind::CostTable)?;
/// assert_eq!(reader.meta::<Vec<f64>>(NOTE)?, [1.5, 2.5]);
/// # Ok::<(), veilformer_ckks::container::ContainerError>(())
/// ```
pub struct Writer {
    kind: Kind,
    params: Option<Params>,
    sections: Vec<(Tag, Vec<u8>)>,
}

impl Writer {
    /// A container of a kind, under parameters if it has any: then their section comes first.
    ///
    /// # Errors
    /// None in practice; serialization's.
    pub fn new(kind: Kind, params: Option<&Params>) -> Result<Self, ContainerError> {
        let mut writer = Self {
            kind,
            params: params.cloned(),
            sections: Vec::new(),
        };
        if let Some(params) = params {
            super::append_params(&mut writer, params)?;
        }
        Ok(writer)
    }

    /// Adds a section of bytes.
    pub fn section(&mut self, tag: Tag, bytes: Vec<u8>) -> &mut Self {
        self.sections.push((tag, bytes));
        self
    }

    /// Adds a section of metadata.
    ///
    /// # Errors
    /// [`ContainerError::BadSection`] if the value cannot be serialized.
    pub fn meta<T: Serialize>(&mut self, tag: Tag, value: &T) -> Result<&mut Self, ContainerError> {
        let bytes = to_meta(tag, value)?;
        Ok(self.section(tag, bytes))
    }

    /// Writes the container; returns its length in bytes.
    ///
    /// # Errors
    /// The stream's.
    pub fn write_to<W: Write>(&self, out: W) -> Result<u64, ContainerError> {
        let table = self
            .sections
            .iter()
            .map(|(tag, bytes)| (*tag, bytes.len() as u64))
            .collect();
        let mut writer = StreamWriter::begin(out, self.kind, self.params.as_ref(), table)?;
        for (tag, bytes) in &self.sections {
            writer.section(*tag, bytes)?;
        }
        Ok(writer.finish()?.1)
    }

    /// The container as bytes.
    ///
    /// # Errors
    /// Too many sections.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ContainerError> {
        let mut out = Vec::new();
        self.write_to(&mut out)?;
        Ok(out)
    }
}

/// A value as metadata bytes.
pub(crate) fn to_meta<T: Serialize>(tag: Tag, value: &T) -> Result<Vec<u8>, ContainerError> {
    postcard::to_allocvec(value)
        .map_err(|error| bad_section(tag, format!("it cannot be written: {error}")))
}
