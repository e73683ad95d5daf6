//! The container: the format of every file that the system writes.
//!
//! # Format, version 1
//! All numbers are little-endian.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | magic: 0x89 `VEIL` CR LF 0x1a (a transfer that rewrites line ends destroys it) |
//! | 8 | 2 + 2 | format version, major and minor |
//! | 12 | 2 | [`Kind`] |
//! | 14 | 2 | flags: bit 0 = made with insecure test parameters; the others are 0 |
//! | 16 | 32 | digest of the parameters ([`crate::Params::digest`]), zeros if there are none |
//! | 48 | 4 + 4 | number of sections; 0 |
//! | 56 | 8 | length of the whole file |
//! | 64 | 16 each | section table: [`Tag`] (4), 0 (4), length (8) |
//! | | | the sections, one after the other |
//! | end - 32 | 32 | BLAKE3 of everything before |
//!
//! A section is metadata (postcard, of limited size), polynomials (residues bit-packed to the
//! size of their prime, see `bits.rs`) or bytes of the caller. A reader checks the header before
//! it allocates anything, and the digest before it looks into a section. A higher minor version
//! may add sections, which older readers skip; a higher major version is refused.

pub(crate) mod bits;
mod ciphertexts;
mod error;
mod inspect;
mod key_file;
mod keys;
mod params;
mod reader;
mod unfinished;
mod writer;

use std::fmt;

pub use ciphertexts::{
    MAX_CIPHERTEXTS, append_ciphertexts, ciphertext_bytes, ciphertexts_file_bytes,
    ciphertexts_to_bytes, read_ciphertexts,
};
pub use error::{ContainerError, Kind};
pub use inspect::{Inspection, inspect};
pub use key_file::KeyFile;
pub use keys::{
    EvaluationKeysHeader, EvaluationKeysWriter, KeyRecord, append_public_key,
    evaluation_keys_to_bytes, public_key_to_bytes, read_evaluation_keys, read_public_key,
    write_evaluation_keys,
};
pub use params::{append_params, params_from_bytes, params_to_bytes, read_params};
pub use reader::{Reader, announced_bytes};
pub use unfinished::UnfinishedKeys;
pub use writer::{StreamWriter, Writer};

/// First bytes of every file.
pub const MAGIC: [u8; 8] = *b"\x89VEIL\r\n\x1a";

/// Format version of the files that this program writes, and the highest major one it reads.
pub const VERSION: (u16, u16) = (1, 0);

/// Bytes of the header of every file.
pub const HEADER_BYTES: usize = 64;
pub(crate) const TABLE_ENTRY_BYTES: usize = 16;
pub(crate) const DIGEST_BYTES: usize = 32;
pub(crate) const FLAG_INSECURE: u16 = 1;

/// Most sections that a file may have.
pub const MAX_SECTIONS: usize = 1 << 16;

/// Largest metadata section that [`Reader::meta`] parses unless told otherwise.
pub const META_LIMIT: usize = 1 << 20;

/// Name of a section: four printable bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(pub [u8; 4]);

impl Tag {
    /// Parameters: specification, primes, word sets.
    pub const PARAMS: Self = Self(*b"PARM");
    /// What the ciphertexts of the file are.
    pub const CIPHERTEXTS: Self = Self(*b"CTXS");
    /// The polynomials of one ciphertext.
    pub const CIPHERTEXT: Self = Self(*b"CTXT");
    /// What the evaluation keys of the file are.
    pub const KEYS: Self = Self(*b"KEYS");
    /// The polynomials of one evaluation key.
    pub const KEY: Self = Self(*b"KEY ");
    /// What the public key of the file is.
    pub const PUBLIC: Self = Self(*b"PUBL");
    /// The polynomials of the public key.
    pub const PUBLIC_BODY: Self = Self(*b"PUBB");
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({self})")
    }
}

/// Length of a container whose sections have the given lengths.
pub(crate) fn file_bytes(sections: &[usize]) -> u64 {
    let fixed = HEADER_BYTES + TABLE_ENTRY_BYTES * sections.len() + DIGEST_BYTES;
    fixed as u64 + sections.iter().map(|&length| length as u64).sum::<u64>()
}

pub(crate) fn bad_section(tag: Tag, what: impl Into<String>) -> ContainerError {
    ContainerError::BadSection {
        section: tag.to_string(),
        what: what.into(),
    }
}
