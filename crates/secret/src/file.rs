//! The secret-key file.
//!
//! A container of kind [`Kind::SecretKey`] with three sections: the parameters, a record (kind
//! of secret, key id), and the coefficients, four to a byte from the lowest bits up, each plus
//! one. Whoever writes the bytes to disk gives the file mode 0600.

use serde::{Deserialize, Serialize};
use veilformer_ckks::container::{Kind, Reader, StreamWriter, Tag, params_to_bytes, read_params};
use veilformer_ckks::{CkksError, KeyId, Params, SecretKind};
use zeroize::Zeroizing;

use crate::{SecretError, SecretKey};

const RECORD: Tag = Tag(*b"SECR");
const COEFFICIENTS: Tag = Tag(*b"SECB");

#[derive(Serialize, Deserialize)]
struct Record {
    kind: SecretKind,
    key_id: KeyId,
}

impl SecretKey {
    /// The bytes of the secret-key file, wiped when dropped.
    ///
    /// # Errors
    /// None in practice; serialization's.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let params = params_to_bytes(self.params()).map_err(CkksError::from)?;
        let record = Record {
            kind: self.kind(),
            key_id: self.id(),
        };
        let record = postcard::to_allocvec(&record)
            .map_err(|error| malformed(format!("its record cannot be written: {error}")))?;
        let mut packed = Zeroizing::new(Vec::with_capacity(self.coefficients().len() / 4));
        packed.extend(self.coefficients().chunks(4).map(pack));
        let table = vec![
            (Tag::PARAMS, params.len() as u64),
            (RECORD, record.len() as u64),
            (COEFFICIENTS, packed.len() as u64),
        ];
        // Large enough for all that is written: a vector that grew would leave copies behind.
        let capacity = params.len() + record.len() + packed.len() + 1024;
        let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
        let write = || {
            let out: &mut Vec<u8> = &mut bytes;
            let mut writer = StreamWriter::begin(out, Kind::SecretKey, Some(self.params()), table)?;
            writer.section(Tag::PARAMS, &params)?;
            writer.section(RECORD, &record)?;
            writer.section(COEFFICIENTS, &packed)?;
            writer.finish().map(|_| ())
        };
        write().map_err(CkksError::from)?;
        Ok(bytes)
    }

    /// A secret key from the bytes of its file; the parameters are validated anew.
    ///
    /// # Errors
    /// What the container says, or [`SecretError::MalformedKey`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SecretError> {
        let reader = Reader::open_kind(bytes, Kind::SecretKey).map_err(CkksError::from)?;
        let params = read_params(&reader)?;
        read(&reader, &params)
    }

    /// As [`SecretKey::from_bytes`], refusing a key that was made under other parameters.
    ///
    /// # Errors
    /// As [`SecretKey::from_bytes`], or a container error that names both digests.
    pub fn from_bytes_for(bytes: &[u8], params: &Params) -> Result<Self, SecretError> {
        let reader = Reader::open_for(bytes, Kind::SecretKey, params).map_err(CkksError::from)?;
        read(&reader, params)
    }
}

fn read(reader: &Reader<'_>, params: &Params) -> Result<SecretKey, SecretError> {
    let record: Record = reader.meta(RECORD).map_err(CkksError::from)?;
    let packed = reader.section(COEFFICIENTS).map_err(CkksError::from)?;
    if packed.len() != params.n() / 4 {
        return Err(malformed(format!(
            "{} bytes of coefficients, expected {}",
            packed.len(),
            params.n() / 4
        )));
    }
    let mut coefficients = Zeroizing::new(Vec::with_capacity(params.n()));
    for byte in packed {
        coefficients.extend([0, 2, 4, 6].map(|shift| ((byte >> shift) & 3) as i8 - 1));
    }
    // Neither check reveals where a coefficient is: both look at all of them.
    let (mut invalid, mut weight) = (0u32, 0u32);
    for &value in coefficients.iter() {
        invalid += u32::from(value == 2);
        weight += u32::from(value & 1 != 0);
    }
    if invalid != 0 {
        return Err(malformed("a coefficient is not -1, 0 or 1".to_owned()));
    }
    if let SecretKind::SparseTernary { hamming_weight } = record.kind
        && hamming_weight != weight
    {
        return Err(malformed(format!(
            "it claims to have {hamming_weight} non-zero coefficients and has not"
        )));
    }
    // A sparse secret that calls itself dense would be held to bounds that it does not meet. Ten
    // standard deviations: no dense key is ever refused.
    let n = params.n() as f64;
    let unlikely = (f64::from(weight) - 2.0 / 3.0 * n).abs() > 10.0 * (2.0 / 9.0 * n).sqrt();
    if record.kind == SecretKind::DenseTernary && unlikely {
        return Err(malformed(
            "it claims to be uniformly ternary and cannot be".to_owned(),
        ));
    }
    SecretKey::assemble(params, record.kind, record.key_id, coefficients)
}

fn pack(coefficients: &[i8]) -> u8 {
    let place = |byte, (index, &value): (usize, &i8)| byte | ((value + 1) as u8) << (2 * index);
    coefficients.iter().enumerate().fold(0, place)
}

fn malformed(what: String) -> SecretError {
    SecretError::MalformedKey { what }
}
