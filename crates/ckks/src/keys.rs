//! Evaluation keys as they are stored and sent, and the list of those that a program needs. What
//! a backend computes with is in `key_store`.

use std::fmt;

use serde::{Deserialize, Serialize};
use veilformer_ring::{ExpanderId, GaloisElement, RnsPoly, SwitchingKey};

use crate::ciphertext::{Uniform, check_poly};
use crate::security::{SecretKind, SecurityReport, SecurityRow};
use crate::uniform::{self, Stream};
use crate::{CkksError, KeyId, Params};

/// What a switching key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum KeyPurpose {
    /// From s^2 to s, after a product of ciphertexts.
    Relinearization,
    /// From the secret rotated by so many slots to s.
    Rotation(i64),
    /// From the conjugate secret to s.
    Conjugation,
}

impl KeyPurpose {
    /// The automorphism that an operation with this key applies (the identity for
    /// relinearization).
    #[must_use]
    pub fn galois(self, log_n: u32) -> GaloisElement {
        match self {
            Self::Relinearization => GaloisElement::identity(),
            Self::Rotation(by) => GaloisElement::rotation(by, log_n),
            Self::Conjugation => GaloisElement::conjugation(log_n),
        }
    }
}

impl fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relinearization => f.write_str("relinearization"),
            Self::Rotation(by) => write!(f, "rotation {by}"),
            Self::Conjugation => f.write_str("conjugation"),
        }
    }
}

/// The keys that a program needs, each with the highest level at which it is used: a key covers
/// the primes of that level, and P.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyList {
    /// Level of the relinearization key.
    pub relinearization: Option<usize>,
    /// Rotations with their levels; each rotation once.
    pub rotations: Vec<(i64, usize)>,
    /// Level of the conjugation key.
    pub conjugation: Option<usize>,
}

impl KeyList {
    /// Notes that a key is used at `level`. Rotations are taken modulo `slots`; a rotation by 0
    /// needs no key.
    pub fn need(&mut self, purpose: KeyPurpose, level: usize, slots: usize) {
        let raise = |old: &mut Option<usize>| *old = Some(old.map_or(level, |l| l.max(level)));
        match purpose {
            KeyPurpose::Relinearization => raise(&mut self.relinearization),
            KeyPurpose::Conjugation => raise(&mut self.conjugation),
            KeyPurpose::Rotation(by) => {
                let by = by.rem_euclid(slots.max(1) as i64);
                if by == 0 {
                    return;
                }
                match self.rotations.binary_search_by_key(&by, |entry| entry.0) {
                    Ok(i) => self.rotations[i].1 = self.rotations[i].1.max(level),
                    Err(i) => self.rotations.insert(i, (by, level)),
                }
            }
        }
    }

    /// All keys with their levels: relinearization, rotations, conjugation.
    pub fn iter(&self) -> impl Iterator<Item = (KeyPurpose, usize)> + '_ {
        let relinearization = self
            .relinearization
            .map(|level| (KeyPurpose::Relinearization, level));
        let rotations = self
            .rotations
            .iter()
            .map(|&(by, level)| (KeyPurpose::Rotation(by), level));
        let conjugation = self
            .conjugation
            .map(|level| (KeyPurpose::Conjugation, level));
        relinearization
            .into_iter()
            .chain(rotations)
            .chain(conjugation)
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether no key is needed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The security row of every key on the list, under a dense secret.
    ///
    /// # Errors
    /// [`CkksError::Insecure`], or a level that does not exist.
    pub fn security(&self, params: &Params) -> Result<SecurityReport, CkksError> {
        let rows = self
            .iter()
            .map(|(purpose, level)| {
                params.check_level(level)?;
                params.check_key(
                    &purpose.to_string(),
                    params.key_basis(level),
                    SecretKind::DenseTernary,
                )
            })
            .collect::<Result<_, _>>()?;
        Ok(SecurityReport { rows })
    }
}

/// The uniformly random halves of a switching key.
pub enum UniformParts {
    /// The seed that all parts are expanded from.
    Seed([u8; 32]),
    /// One polynomial per digit.
    Polys(Vec<RnsPoly>),
}

/// A switching key as it is stored and sent: per digit d of [`Params::digits_at`]`(level)` the
/// part b_d = -a_d s + e_d + P g_d s', where s' is what the purpose switches from, g_d is 1
/// modulo the digit's primes and 0 modulo the others; b_d and a_d in NTT form on
/// [`Params::key_basis`]`(level)`.
pub struct StoredSwitchingKey {
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Distribution of the secret that it hides under.
    pub secret: SecretKind,
    /// The highest level at which it can be used.
    pub level: usize,
    /// The secret key.
    pub key_id: KeyId,
    /// The parts b_d.
    pub b: Vec<RnsPoly>,
    /// The parts a_d or their seed.
    pub a: UniformParts,
    /// How the seed expands.
    pub expander: ExpanderId,
}

impl StoredSwitchingKey {
    /// Checks everything that a computation relies on, the security bound included.
    ///
    /// # Errors
    /// [`CkksError::Malformed`], [`CkksError::Level`] or [`CkksError::Insecure`].
    pub fn conform(&self, params: &Params) -> Result<SecurityRow, CkksError> {
        const OBJECT: &str = "switching key";
        params.check_level(self.level)?;
        let digits = params.digits_at(self.level).len();
        let basis = params.key_basis(self.level);
        let stored_a: &[RnsPoly] = match &self.a {
            UniformParts::Seed(_) => &[],
            UniformParts::Polys(polys) => {
                if polys.len() != digits {
                    return Err(CkksError::malformed(
                        OBJECT,
                        format!("{} uniform parts, expected {digits}", polys.len()),
                    ));
                }
                polys
            }
        };
        if self.b.len() != digits {
            return Err(CkksError::malformed(
                OBJECT,
                format!("{} parts, expected {digits}", self.b.len()),
            ));
        }
        for poly in self.b.iter().chain(stored_a) {
            check_poly(params, OBJECT, poly, basis)?;
        }
        params.check_key(&self.purpose.to_string(), basis, self.secret)
    }

    /// The key as the ring takes it, checked.
    ///
    /// # Errors
    /// As [`StoredSwitchingKey::conform`].
    pub fn expand(&self, params: &Params) -> Result<SwitchingKey, CkksError> {
        self.expand_at(params, self.level)
    }

    /// As [`StoredSwitchingKey::expand`], with only the limbs that are used at `level` and below.
    ///
    /// # Errors
    /// As [`StoredSwitchingKey::conform`], or [`CkksError::Level`] above the key's level.
    pub fn expand_at(&self, params: &Params, level: usize) -> Result<SwitchingKey, CkksError> {
        self.conform(params)?;
        if level > self.level {
            return Err(CkksError::Level {
                level,
                max: self.level,
            });
        }
        let (basis, covering) = (params.key_basis(level), params.covering(level));
        // Parts are numbered by the key's own digits, of which any may be empty at a lower level.
        let own = params.digits_at(self.level);
        let kept = self.b.iter().zip(own).enumerate();
        let kept = kept.filter(|(_, (_, digit))| !digit.is_disjoint(covering));
        let parts = kept
            .map(|(digit, (b, _))| {
                let a = match &self.a {
                    UniformParts::Polys(polys) => {
                        polys.get(digit).map(|a| a.restricted(basis)).transpose()?
                    }
                    UniformParts::Seed(seed) => Some(uniform::expand(
                        params,
                        self.expander,
                        seed,
                        Stream::Key { digit },
                        basis,
                    )?),
                };
                let a =
                    a.ok_or_else(|| CkksError::malformed("switching key", "a part is missing"))?;
                Ok((b.restricted(basis)?, a))
            })
            .collect::<Result<_, CkksError>>()?;
        Ok(SwitchingKey {
            galois: self.purpose.galois(params.log_n()),
            digits: params.digits_at(level),
            special: params.special(),
            parts,
        })
    }
}

/// A public key: an encryption of zero under the secret, (b, a) with b = -a s + e on the basis of
/// a level.
pub struct StoredPublicKey {
    /// The part b.
    pub b: RnsPoly,
    /// The part a or its seed.
    pub a: Uniform,
    /// The highest level that can be encrypted at.
    pub level: usize,
    /// Distribution of the secret.
    pub secret: SecretKind,
    /// The secret key.
    pub key_id: KeyId,
    /// How the seed expands.
    pub expander: ExpanderId,
}

impl StoredPublicKey {
    /// Checks everything that encryption relies on, the security bound included.
    ///
    /// # Errors
    /// [`CkksError::Malformed`], [`CkksError::Level`] or [`CkksError::Insecure`].
    pub fn conform(&self, params: &Params) -> Result<SecurityRow, CkksError> {
        params.check_level(self.level)?;
        let basis = params.covering(self.level);
        check_poly(params, "public key", &self.b, basis)?;
        if let Uniform::Poly(a) = &self.a {
            check_poly(params, "public key", a, basis)?;
        }
        params.check_key("public key", basis, self.secret)
    }

    /// The pair (b, a), checked.
    ///
    /// # Errors
    /// As [`StoredPublicKey::conform`].
    pub fn expand(&self, params: &Params) -> Result<(RnsPoly, RnsPoly), CkksError> {
        self.conform(params)?;
        let basis = params.covering(self.level);
        let a = self
            .a
            .expand(params, self.expander, Stream::PublicKey, basis)?;
        Ok((self.b.clone(), a))
    }
}

/// The evaluation keys of a client as they are stored and sent.
pub struct StoredEvaluationKeys {
    /// Digest of the parameters.
    pub params: [u8; 32],
    /// The secret key.
    pub key_id: KeyId,
    /// Digest of the program whose key list they answer.
    pub program: [u8; 32],
    /// The keys.
    pub keys: Vec<StoredSwitchingKey>,
}

impl StoredEvaluationKeys {
    /// Checks every key, and that all belong to one secret key and to these parameters.
    ///
    /// # Errors
    /// The first that fails.
    pub fn conform(&self, params: &Params) -> Result<SecurityReport, CkksError> {
        if self.params != params.digest() {
            return Err(CkksError::WrongParams {
                object: "the evaluation key set",
                found: crate::error::short_hex(&self.params),
                expected: crate::error::short_hex(&params.digest()),
            });
        }
        let mut report = SecurityReport::default();
        for key in &self.keys {
            if key.key_id != self.key_id {
                return Err(CkksError::WrongKey {
                    object: "a switching key of the set",
                    found: key.key_id,
                    expected: self.key_id,
                });
            }
            report.rows.push(key.conform(params)?);
        }
        Ok(report)
    }
}
