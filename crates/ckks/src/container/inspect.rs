//! What a file is, without any secret.

use std::fmt;

use serde::Serialize;

use super::ciphertexts::CiphertextRecord;
use super::{EvaluationKeysHeader, KeyRecord, Kind, Reader, Tag};
use crate::error::short_hex;
use crate::keys::check_switching_key;
use crate::{CkksError, SecurityRow};

/// What can be said about a file by looking at it.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// What it is.
    pub kind: Kind,
    /// Format version, major and minor.
    pub version: (u16, u16),
    /// Length in bytes.
    pub bytes: u64,
    /// Whether it was made with insecure test parameters.
    pub insecure: bool,
    /// Digest of the file, hexadecimal.
    pub digest: String,
    /// Digest of the parameters, hexadecimal; empty without parameters.
    pub params_digest: String,
    /// The parameters in a line, if the file has them.
    pub params: Option<String>,
    /// Name and length of every section (consecutive ones of one name together: count first).
    pub sections: Vec<(String, usize, u64)>,
    /// Lines about what is inside: ciphertexts, keys.
    pub contents: Vec<String>,
    /// The security row of every key inside.
    pub security: Vec<SecurityRow>,
}

/// Looks at a file of any kind. The digest is verified; polynomials are not read.
///
/// # Errors
/// If it is no container, or its metadata cannot be parsed.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, CkksError> {
    let reader = Reader::open(bytes)?;
    let mut sections: Vec<(String, usize, u64)> = Vec::new();
    for (tag, section) in reader.sections() {
        let (name, length) = (tag.to_string(), section.len() as u64);
        match sections.last_mut().filter(|last| last.0 == name) {
            Some(last) => (last.1, last.2) = (last.1 + 1, last.2 + length),
            None => sections.push((name, 1, length)),
        }
    }
    let has = |tag: Tag| reader.sections().any(|section| section.0 == tag);
    let params = if has(Tag::PARAMS) {
        Some(super::read_params(&reader)?)
    } else {
        None
    };
    let mut contents = Vec::new();
    let mut security = Vec::new();
    if has(Tag::CIPHERTEXTS) {
        contents.extend(ciphertext_lines(&reader)?);
    }
    if has(Tag::KEYS) {
        let header: EvaluationKeysHeader = reader.meta(Tag::KEYS)?;
        contents.extend(key_lines(&header));
        if let Some(params) = &params {
            for key in &header.keys {
                let what = (key.purpose, key.level as usize);
                security.push(check_switching_key(params, what, key.secret)?.1);
            }
        }
    }
    Ok(Inspection {
        kind: reader.kind(),
        version: reader.version(),
        bytes: bytes.len() as u64,
        insecure: reader.is_insecure(),
        digest: hex(&reader.digest()),
        params_digest: if reader.params_digest() == [0; 32] {
            String::new()
        } else {
            hex(&reader.params_digest())
        },
        params: params.as_ref().map(|params| {
            format!(
                "N=2^{}, {} levels at scale 2^{}, log QP {:.1}, {} bits required",
                params.log_n(),
                params.max_level(),
                params.spec().scale_bits,
                params.log_qp(),
                params.spec().security.bits()
            )
        }),
        sections,
        contents,
        security,
    })
}

fn ciphertext_lines(reader: &Reader<'_>) -> Result<Vec<String>, CkksError> {
    let records: Vec<CiphertextRecord> = reader.meta(Tag::CIPHERTEXTS)?;
    let line = |(i, ct): (usize, &CiphertextRecord)| {
        format!(
            "ciphertext {i}: level {}, scale 2^{:.3}, {}, secret key {}",
            ct.level,
            ct.scale.log2(),
            if ct.seed.is_some() { "seeded" } else { "full" },
            ct.key_id
        )
    };
    Ok(records.iter().enumerate().map(line).collect())
}

fn key_lines(header: &EvaluationKeysHeader) -> Vec<String> {
    let first = format!(
        "{} evaluation keys of secret key {} for program {}",
        header.keys.len(),
        header.key_id,
        short_hex(&header.program)
    );
    let line = |key: &KeyRecord| format!("{}: up to level {}", key.purpose, key.level);
    [first]
        .into_iter()
        .chain(header.keys.iter().map(line))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.kind)?;
        writeln!(
            f,
            "format {}.{}, {} bytes, digest {}",
            self.version.0, self.version.1, self.bytes, self.digest
        )?;
        if self.insecure {
            writeln!(f, "INSECURE: made with test parameters")?;
        }
        if let Some(params) = &self.params {
            writeln!(f, "parameters: {params} (digest {})", self.params_digest)?;
        }
        for (name, count, bytes) in &self.sections {
            writeln!(f, "section {name} x {count}: {bytes} bytes")?;
        }
        for line in &self.contents {
            writeln!(f, "{line}")?;
        }
        for row in &self.security {
            writeln!(
                f,
                "security of {}: log QP {:.1} at N=2^{}, {} secret: {} bits",
                row.key, row.log_qp, row.log_n, row.secret, row.bits
            )?;
        }
        Ok(())
    }
}
