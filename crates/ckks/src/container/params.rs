//! The parameters section.

use serde::{Deserialize, Serialize};
use veilformer_ring::{Basis, ExpanderId};

use super::{ContainerError, Reader, Tag, Writer, bad_section};
use crate::container::reader::from_meta;
use crate::container::writer::to_meta;
use crate::{CkksError, MAX_PRIMES, Params, ParamsSpec, security, uniform};

/// Largest parameters section: the word sets of 128 levels of 128 primes fit.
const LIMIT: usize = 1 << 16;

/// Wire form of [`Params`]. The primes of each level are written out: they need not follow from the
/// specification (levels made of words).
#[derive(Serialize, Deserialize)]
struct ParamsRecord {
    security_table: u16,
    expander: u8,
    insecure: bool,
    spec: ParamsSpec,
    primes: Vec<u64>,
    /// Prime indices of the special primes.
    special: Vec<u8>,
    /// Prime indices of each key-switching digit; after those of the highest level what
    /// [`Params::lower_bands`] gives, which is nothing in files from before there were bands.
    digits: Vec<Vec<u8>>,
    /// Prime indices of each level, from level 0.
    levels: Vec<Vec<u8>>,
}

impl ParamsRecord {
    fn of(params: &Params) -> Self {
        let levels = 0..=params.max_level();
        let lower = params.lower_bands();
        let digits = params.digits().iter().chain(&lower);
        Self {
            security_table: security::TABLE_VERSION,
            expander: uniform::EXPANDER.into(),
            insecure: params.is_insecure(),
            spec: params.spec().clone(),
            primes: params.primes().to_vec(),
            special: indices(params.special()),
            digits: digits.map(|basis| indices(*basis)).collect(),
            levels: levels
                .map(|level| indices(params.basis_at(level)))
                .collect(),
        }
    }
}

fn indices(basis: Basis) -> Vec<u8> {
    basis.iter().filter_map(|i| u8::try_from(i).ok()).collect()
}

fn basis(indices: &[u8]) -> Basis {
    let indices = indices.iter().map(|i| Basis::single(usize::from(*i)));
    indices.fold(Basis::empty(), Basis::union)
}

/// The parameters section as bytes.
///
/// # Errors
/// None in practice; serialization's.
pub fn params_to_bytes(params: &Params) -> Result<Vec<u8>, ContainerError> {
    to_meta(Tag::PARAMS, &ParamsRecord::of(params))
}

/// Parameters from their section, validated anew under this program's security table. What they
/// allocate (transform tables) is bounded by [`MAX_PRIMES`] and the largest ring, not by the length
/// of the section.
///
/// # Errors
/// [`ContainerError::BadSection`] or what [`Params::from_levels`] says.
pub fn params_from_bytes(bytes: &[u8]) -> Result<Params, CkksError> {
    let record: ParamsRecord = from_meta(Tag::PARAMS, bytes, LIMIT)?;
    if record.primes.len() > MAX_PRIMES {
        return Err(bad_section(
            Tag::PARAMS,
            format!(
                "{} primes, at most {MAX_PRIMES} are possible",
                record.primes.len()
            ),
        )
        .into());
    }
    ExpanderId::try_from(record.expander)?;
    let levels: Vec<Basis> = record.levels.iter().map(|l| basis(l)).collect();
    let secure = !record.insecure;
    let mut params = Params::from_levels(record.spec.clone(), &record.primes, &levels, secure)?;
    if record.digits.len() == params.digits().len() {
        params = params.in_one_band();
    }
    let expected = ParamsRecord::of(&params);
    if record.special != expected.special
        || record.digits != expected.digits
        || record.levels != expected.levels
    {
        return Err(bad_section(
            Tag::PARAMS,
            "the prime sets of its levels or digits follow rules that this version does not \
             know; use the version of Veilformer that wrote the file",
        )
        .into());
    }
    Ok(params)
}

/// Adds the parameters section.
///
/// # Errors
/// None in practice; serialization's.
pub fn append_params(writer: &mut Writer, params: &Params) -> Result<(), ContainerError> {
    let bytes = params_to_bytes(params)?;
    writer.section(Tag::PARAMS, bytes);
    Ok(())
}

/// The parameters of a file, whose digest must be the header's.
///
/// # Errors
/// As [`params_from_bytes`], or [`ContainerError::WrongParams`].
pub fn read_params(reader: &Reader<'_>) -> Result<Params, CkksError> {
    let params = params_from_bytes(reader.section(Tag::PARAMS)?)?;
    reader.expect_params(&params)?;
    Ok(params)
}
