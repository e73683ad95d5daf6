//! Security by table: the largest modulus for a ring, a secret distribution and a level.
//!
//! A row of the table bounds log2 of the product of *all* primes of a key (Q and P). Every key
//! is checked against the bound of its own moduli and its own secret, when it is made and when
//! it is loaded. Rows hold for error of standard deviation 3.2.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::CkksError;

/// Distribution of a secret key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SecretKind {
    /// Every coefficient uniform in {-1, 0, 1}.
    DenseTernary,
    /// Exactly `hamming_weight` coefficients in {-1, 1}, the others 0.
    SparseTernary {
        /// Number of non-zero coefficients.
        hamming_weight: u32,
    },
}

impl SecretKind {
    /// Expected squared coefficient of the secret in a ring of dimension `n`.
    #[must_use]
    pub fn variance(self, n: usize) -> f64 {
        match self {
            Self::DenseTernary => 2.0 / 3.0,
            Self::SparseTernary { hamming_weight } => f64::from(hamming_weight) / n as f64,
        }
    }
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DenseTernary => f.write_str("dense ternary"),
            Self::SparseTernary { hamming_weight } => {
                write!(f, "sparse ternary (weight {hamming_weight})")
            }
        }
    }
}

/// Classical security that parameters and keys must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SecurityLevel {
    /// 128 bits.
    Bits128,
    /// 192 bits.
    Bits192,
    /// 256 bits.
    Bits256,
}

impl SecurityLevel {
    /// All levels, ascending.
    pub const ALL: [Self; 3] = [Self::Bits128, Self::Bits192, Self::Bits256];

    /// The number of bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            Self::Bits128 => 128,
            Self::Bits192 => 192,
            Self::Bits256 => 256,
        }
    }
}

/// What one key (or public key) rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecurityRow {
    /// Which key, in words: "relinearization", "rotation 5", ...
    pub key: String,
    /// log2 of the ring dimension.
    pub log_n: u32,
    /// log2 of the product of the key's moduli.
    pub log_qp: f64,
    /// Distribution of the secret that the key hides under.
    pub secret: SecretKind,
    /// The highest of 128, 192, 256 whose bound holds; 0 if none does.
    pub bits: u32,
}

impl SecurityRow {
    /// The same row under another name.
    #[must_use]
    pub fn named(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }
}

/// The rows of all keys of a parameter set or of a key file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SecurityReport {
    /// One row per key.
    pub rows: Vec<SecurityRow>,
}

impl SecurityReport {
    /// The lowest `bits` of all rows; 0 for an empty report.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.rows.iter().map(|row| row.bits).min().unwrap_or(0)
    }
}

/// Version of the table below; written into every file so that a reader can tell under which
/// bounds a file was made. Loading always checks against the table of the reading program.
pub const TABLE_VERSION: u16 = 1;

/// Fraction of the bound that [`crate::ParamsSpec::validate`] uses: estimators move.
pub const VALIDATION_MARGIN: f64 = 0.99;

mod table {
    //! Generated data: one row per ring, `(log_n, [128, 192, 256 bits])`, in bits of log2(QP).
    //!
    //! Dense ternary, sigma 3.2, classical:
    //! * 128 bits, 2^13..2^17: "Security Guidelines for Implementing Homomorphic Encryption",
    //!   ePrint 2024/463; 2^10..2^12: the same lineage, one to three bits under the
    //!   Homomorphic Encryption Standard of 2018 (27, 54, 109).
    //! * 192 bits, 2^15..2^17: ePrint 2024/463 (597, 1199, 2411). 256 bits, 2^16: the figure
    //!   that public libraries took over from it (929).
    //! * All other 192 and 256-bit entries: the standard's 2018 figure (19, 37, 75, 152, 305;
    //!   14, 29, 58, 118, 237, 476) times 0.975, rounded down, since the newer estimates lie
    //!   1.5 to 2.3% under the old ones where both are known. 2^17 at 256 bits: twice the
    //!   figure of 2^16.
    pub(super) const DENSE: [(u32, [u32; 3]); 8] = [
        (10, [26, 18, 13]),
        (11, [53, 36, 28]),
        (12, [106, 73, 56]),
        (13, [214, 148, 115]),
        (14, [430, 297, 231]),
        (15, [868, 597, 464]),
        (16, [1747, 1199, 929]),
        (17, [3523, 2411, 1858]),
    ];

    /// Sparse ternary at 128 bits, `(log_n, [(hamming weight, bound)])`: ePrint 2026/279 (a
    /// rotated primal hybrid attack). A weight between two entries takes the lower entry's
    /// bound, a weight under the first has none.
    pub(super) const SPARSE: [(u32, &[(u32, u32)]); 2] = [
        (15, &[(32, 164), (192, 739)]),
        (16, &[(32, 349), (192, 1481), (1024, 1714)]),
    ];
}

/// Largest log2(QP) for a ring, a secret and a security level; `None` where the table has no row
/// (nothing is permitted there).
#[must_use]
pub fn bound(log_n: u32, secret: SecretKind, level: SecurityLevel) -> Option<f64> {
    let dense = table::DENSE
        .iter()
        .find(|row| row.0 == log_n)
        .map(|row| match level {
            SecurityLevel::Bits128 => row.1[0],
            SecurityLevel::Bits192 => row.1[1],
            SecurityLevel::Bits256 => row.1[2],
        })?;
    match secret {
        SecretKind::DenseTernary => Some(f64::from(dense)),
        SecretKind::SparseTernary { hamming_weight } => {
            // The sparse table is for 128 bits only: no claim is made above.
            if level != SecurityLevel::Bits128 {
                return None;
            }
            let rows = table::SPARSE.iter().find(|row| row.0 == log_n)?.1;
            let sparse = rows.iter().rev().find(|row| row.0 <= hamming_weight)?.1;
            Some(f64::from(sparse.min(dense)))
        }
    }
}

/// The security row of a key from its own moduli, whatever it reaches.
#[must_use]
pub fn assess(log_n: u32, moduli: &[u64], secret: SecretKind) -> SecurityRow {
    let log_qp = log2_product(moduli);
    let bits = SecurityLevel::ALL
        .into_iter()
        .filter(|&level| bound(log_n, secret, level).is_some_and(|bound| log_qp <= bound))
        .map(SecurityLevel::bits)
        .max()
        .unwrap_or(0);
    SecurityRow {
        key: String::new(),
        log_n,
        log_qp,
        secret,
        bits,
    }
}

/// The security row of a key (unnamed: see [`SecurityRow::named`]), refused if its moduli exceed
/// the bound of its secret.
///
/// # Errors
/// [`CkksError::Insecure`] with the bound.
pub fn check_key(
    log_n: u32,
    moduli: &[u64],
    secret: SecretKind,
    required: SecurityLevel,
) -> Result<SecurityRow, CkksError> {
    let row = assess(log_n, moduli, secret);
    if row.bits >= required.bits() {
        return Ok(row);
    }
    Err(insecure("key", &row, required, 1.0))
}

pub(crate) fn insecure(
    key: &str,
    row: &SecurityRow,
    required: SecurityLevel,
    margin: f64,
) -> CkksError {
    CkksError::Insecure {
        key: key.to_owned(),
        log_n: row.log_n,
        log_qp: row.log_qp,
        secret: row.secret.to_string(),
        required: required.bits(),
        bound: bound(row.log_n, row.secret, required).unwrap_or(0.0) * margin,
    }
}

pub(crate) fn log2_product(moduli: &[u64]) -> f64 {
    moduli.iter().map(|&q| (q as f64).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENSE: SecretKind = SecretKind::DenseTernary;

    #[test]
    fn table_is_monotone() {
        for pair in table::DENSE.windows(2) {
            for column in 0..3 {
                assert!(pair[0].1[column] * 2 <= pair[1].1[column] + 2);
            }
        }
        for row in table::DENSE {
            assert!(row.1[0] > row.1[1] && row.1[1] > row.1[2]);
        }
    }

    #[test]
    fn published_anchors() {
        let at = |log_n, secret| bound(log_n, secret, SecurityLevel::Bits128);
        assert_eq!(at(14, DENSE), Some(430.0));
        assert_eq!(at(16, DENSE), Some(1747.0));
        let sparse = |hamming_weight| SecretKind::SparseTernary { hamming_weight };
        assert_eq!(at(16, sparse(192)), Some(1481.0));
        assert_eq!(at(16, sparse(191)), Some(349.0));
        assert_eq!(at(16, sparse(31)), None);
        assert_eq!(at(16, sparse(60_000)), Some(1714.0));
        assert_eq!(at(14, sparse(192)), None);
        assert_eq!(bound(16, sparse(192), SecurityLevel::Bits192), None);
    }

    #[test]
    fn one_larger_modulus_is_refused() {
        let small = vec![(1u64 << 42) - 1; 10];
        let row = check_key(14, &small, DENSE, SecurityLevel::Bits128).unwrap();
        assert_eq!((row.bits, row.log_qp.round() as u32), (128, 420));
        let mut large = small;
        large[3] = 1 << 60;
        assert!(check_key(14, &large, DENSE, SecurityLevel::Bits128).is_err());
        assert!(check_key(14, &large[..2], DENSE, SecurityLevel::Bits256).is_ok());
        assert!(check_key(9, &large[..1], DENSE, SecurityLevel::Bits128).is_err());
    }
}
