//! Ciphertexts in a container: one metadata section, then one section of polynomials each.

use serde::{Deserialize, Serialize};
use veilformer_ring::ExpanderId;

use super::bits::{expect_end, poly_len, put_poly, take_poly};
use super::writer::to_meta;
use super::{ContainerError, Kind, Reader, Tag, Writer, bad_section};
use crate::{CiphertextInfo, CkksError, KeyId, Params, Scale, StoredCiphertext, Uniform, uniform};

/// Most ciphertexts that one file may hold.
pub const MAX_CIPHERTEXTS: usize = 1 << 14;

#[derive(Serialize, Deserialize)]
pub(crate) struct CiphertextRecord {
    pub(crate) level: u32,
    pub(crate) scale: Scale,
    pub(crate) key_id: KeyId,
    pub(crate) expander: u8,
    /// Seed of c1; without one, c1 follows c0.
    pub(crate) seed: Option<[u8; 32]>,
}

/// Adds ciphertexts to a container.
///
/// # Errors
/// If one does not conform to the parameters, or there are too many.
pub fn append_ciphertexts(
    writer: &mut Writer,
    params: &Params,
    ciphertexts: &[StoredCiphertext],
) -> Result<(), CkksError> {
    if ciphertexts.len() > MAX_CIPHERTEXTS {
        return Err(too_many(ciphertexts.len()).into());
    }
    let records: Vec<CiphertextRecord> = ciphertexts
        .iter()
        .map(|ct| CiphertextRecord {
            level: ct.info.level as u32,
            scale: ct.info.scale,
            key_id: ct.info.key_id,
            expander: ct.expander.into(),
            seed: match &ct.uniform {
                Uniform::Seed(seed) => Some(*seed),
                Uniform::Poly(_) => None,
            },
        })
        .collect();
    writer.meta(Tag::CIPHERTEXTS, &records)?;
    for ct in ciphertexts {
        ct.conform(params)?;
        let mut bytes = Vec::new();
        put_poly(params, &ct.body, &mut bytes);
        if let Uniform::Poly(c1) = &ct.uniform {
            put_poly(params, c1, &mut bytes);
        }
        writer.section(Tag::CIPHERTEXT, bytes);
    }
    Ok(())
}

/// A whole file of ciphertexts ([`Kind::Ciphertexts`] or [`Kind::Answer`]).
///
/// # Errors
/// As [`append_ciphertexts`].
pub fn ciphertexts_to_bytes(
    kind: Kind,
    params: &Params,
    ciphertexts: &[StoredCiphertext],
) -> Result<Vec<u8>, CkksError> {
    let mut writer = Writer::new(kind, Some(params))?;
    append_ciphertexts(&mut writer, params, ciphertexts)?;
    Ok(writer.to_bytes()?)
}

/// Bytes of the section of one ciphertext: its polynomials, or one polynomial beside a seed.
#[must_use]
pub fn ciphertext_bytes(params: &Params, level: usize, seeded: bool) -> usize {
    let polys = if seeded { 1 } else { 2 };
    polys * poly_len(params, params.basis_at(level))
}

/// Length in bytes of the file that [`ciphertexts_to_bytes`] makes of ciphertexts of the given
/// (level, seeded).
///
/// # Errors
/// None in practice; serialization's.
pub fn ciphertexts_file_bytes(
    params: &Params,
    ciphertexts: &[(usize, bool)],
) -> Result<u64, ContainerError> {
    let records: Vec<CiphertextRecord> = ciphertexts
        .iter()
        .map(|&(level, seeded)| CiphertextRecord {
            level: level as u32,
            scale: params.scale_at(level),
            key_id: KeyId::from_bytes([0; 16]),
            expander: uniform::EXPANDER.into(),
            seed: seeded.then_some([0; 32]),
        })
        .collect();
    let mut lengths = vec![
        super::params_to_bytes(params)?.len(),
        to_meta(Tag::CIPHERTEXTS, &records)?.len(),
    ];
    let bodies = ciphertexts.iter();
    lengths.extend(bodies.map(|&(level, seeded)| ciphertext_bytes(params, level, seeded)));
    Ok(super::file_bytes(&lengths))
}

/// The ciphertexts of a container under given parameters, in order.
///
/// # Errors
/// [`ContainerError::WrongParams`], or what does not conform.
pub fn read_ciphertexts(
    reader: &Reader<'_>,
    params: &Params,
) -> Result<Vec<StoredCiphertext>, CkksError> {
    reader.expect_params(params)?;
    let records: Vec<CiphertextRecord> =
        reader.meta_up_to(Tag::CIPHERTEXTS, MAX_CIPHERTEXTS * 80)?;
    if records.len() > MAX_CIPHERTEXTS {
        return Err(too_many(records.len()).into());
    }
    let mut bodies = reader.sections_of(Tag::CIPHERTEXT);
    let mut ciphertexts = Vec::new();
    for record in records {
        let body = bodies
            .next()
            .ok_or_else(|| ContainerError::MissingSection {
                section: Tag::CIPHERTEXT.to_string(),
            })?;
        ciphertexts.push(read_one(params, record, body)?);
    }
    if bodies.next().is_some() {
        return Err(bad_section(Tag::CIPHERTEXT, "there is one more than announced").into());
    }
    Ok(ciphertexts)
}

fn read_one(
    params: &Params,
    record: CiphertextRecord,
    mut bytes: &[u8],
) -> Result<StoredCiphertext, CkksError> {
    const TAG: Tag = Tag::CIPHERTEXT;
    let level = record.level as usize;
    params.check_level(level)?;
    let basis = params.basis_at(level);
    let expected = ciphertext_bytes(params, level, record.seed.is_some());
    if bytes.len() != expected {
        let what = format!(
            "{} bytes, expected {expected} at level {level}",
            bytes.len()
        );
        return Err(bad_section(TAG, what).into());
    }
    let body = take_poly(params, basis, TAG, &mut bytes)?;
    let uniform = match record.seed {
        Some(seed) => Uniform::Seed(seed),
        None => Uniform::Poly(take_poly(params, basis, TAG, &mut bytes)?),
    };
    expect_end(TAG, bytes)?;
    let ciphertext = StoredCiphertext {
        body,
        uniform,
        info: CiphertextInfo {
            level,
            scale: record.scale,
            key_id: record.key_id,
        },
        expander: ExpanderId::try_from(record.expander)?,
    };
    ciphertext.conform(params)?;
    Ok(ciphertext)
}

fn too_many(count: usize) -> ContainerError {
    bad_section(
        Tag::CIPHERTEXTS,
        format!("{count} ciphertexts, at most {MAX_CIPHERTEXTS} are possible"),
    )
}
