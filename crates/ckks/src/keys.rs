//! Evaluation keys as they are stored and sent. What a program needs is in `key_list`, what a
//! backend computes with in `key_store`.

use std::fmt;

use serde::{Deserialize, Serialize};
use veilformer_ring::{
    Basis, Expander, ExpanderId, GaloisElement, RnsPoly, SwitchingKey, UniformHalf,
};

use crate::ciphertext::{Uniform, check_poly};
use crate::security::{SecretKind, SecurityReport, SecurityRow};
use crate::uniform::Stream;
use crate::{CkksError, KeyId, Params};

/// Hamming weight of the ephemeral secret under which the modulus is raised (as in ePrint
/// 2022/024). The multiples of q0 that a raised message carries have a variance of
/// (weight + 1)/12, and at N = 2^16 its keys may have 349 bits.
pub const EPHEMERAL_WEIGHT: u32 = 32;

/// Bits by which the special primes of the keys to and from the ephemeral secret exceed the modulus
/// of level 0: the errors of those keys are then below a thousandth of the rounding of their ModDown.
const ENCAPSULATION_MARGIN_BITS: f64 = 20.0;

/// What a switching key is for. Its postcard form is wire format: new variants come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum KeyPurpose {
    /// From s^2 to s, after a product of ciphertexts.
    Relinearization,
    /// From the secret rotated by so many slots to s.
    Rotation(i64),
    /// From the conjugate secret to s.
    Conjugation,
    /// From s to an ephemeral sparse secret, at level 0: what precedes raising the modulus.
    ToEphemeral,
    /// From that ephemeral secret to s, after raising the modulus.
    FromEphemeral,
}

impl KeyPurpose {
    /// The automorphism that an operation with this key applies (the identity where there is
    /// none).
    #[must_use]
    pub fn galois(self, log_n: u32) -> GaloisElement {
        match self {
            Self::Relinearization | Self::ToEphemeral | Self::FromEphemeral => {
                GaloisElement::identity()
            }
            Self::Rotation(by) => GaloisElement::rotation(by, log_n),
            Self::Conjugation => GaloisElement::conjugation(log_n),
        }
    }

    /// The secret that such a key hides under if the client's is of the kind `main`: the ephemeral
    /// one, of [`EPHEMERAL_WEIGHT`] (half the dimension of rings so small that they only serve
    /// tests), or the client's.
    #[must_use]
    pub fn secret(self, params: &Params, main: SecretKind) -> SecretKind {
        match self {
            Self::ToEphemeral => SecretKind::SparseTernary {
                hamming_weight: EPHEMERAL_WEIGHT.min(params.n() as u32 / 2),
            },
            _ => main,
        }
    }

    /// The primes and digits of such a key for operations up to `level`.
    ///
    /// # Errors
    /// [`CkksError::Level`], also for a key to the ephemeral secret above level 0;
    /// [`CkksError::Params`] if the special primes do not suffice for the ephemeral secret.
    pub fn shape(self, params: &Params, level: usize) -> Result<KeyShape, CkksError> {
        params.check_level(level)?;
        if self == Self::ToEphemeral && level > 0 {
            return Err(CkksError::Level { level, max: 0 });
        }
        let covering = params.covering(level);
        let (digits, special) = match self {
            Self::ToEphemeral | Self::FromEphemeral => {
                (vec![covering], encapsulation_special(params)?)
            }
            _ => (
                params.digits_at(self, level),
                params.special_at(self, level),
            ),
        };
        Ok(KeyShape {
            basis: covering.union(special),
            digits,
            special,
        })
    }
}

/// As few of the first special primes as exceed the modulus of level 0 by the margin.
fn encapsulation_special(params: &Params) -> Result<Basis, CkksError> {
    let needed = params.chain().product_log2(params.covering(0)) + ENCAPSULATION_MARGIN_BITS;
    let mut taken = Basis::empty();
    for prime in params.special().iter() {
        taken = taken.union(Basis::single(prime));
        if params.chain().product_log2(taken) >= needed {
            return Ok(taken);
        }
    }
    Err(CkksError::params(
        format!(
            "the special primes have {:.1} bits together, keys of an ephemeral secret need {needed:.1}",
            params.chain().product_log2(params.special())
        ),
        "add special primes",
    ))
}

/// The primes and digits of a switching key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyShape {
    /// The primes of its parts: those of its digits and `special`.
    pub basis: Basis,
    /// What its parts stand for, one after the other. Keys to and from the ephemeral secret have one
    /// digit, all ciphertext primes: what they switch is smaller than the modulus of level 0.
    pub digits: Vec<Basis>,
    /// The primes whose product P is divided away: those of the level's band ([`Params::special_at`]),
    /// or the first special primes that suffice for a key to or from the ephemeral secret, so that it
    /// has fewer bits.
    pub special: Basis,
}

/// The shape of a key, and its security row: refused if its moduli exceed the bound of the secret
/// that it hides under.
///
/// # Errors
/// As [`KeyPurpose::shape`]; [`CkksError::Malformed`] if the secret is of a kind that the purpose
/// does not allow; [`CkksError::Insecure`].
pub(crate) fn check_switching_key(
    params: &Params,
    (purpose, level): (KeyPurpose, usize),
    secret: SecretKind,
) -> Result<(KeyShape, SecurityRow), CkksError> {
    let shape = purpose.shape(params, level)?;
    if purpose == KeyPurpose::ToEphemeral && secret == SecretKind::DenseTernary {
        return Err(CkksError::malformed(
            "switching key",
            "the ephemeral secret is dense, expected a sparse one",
        ));
    }
    let row = params.check_key(&purpose.to_string(), shape.basis, secret)?;
    Ok((shape, row))
}

impl fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relinearization => f.write_str("relinearization"),
            Self::Rotation(by) => write!(f, "rotation {by}"),
            Self::Conjugation => f.write_str("conjugation"),
            Self::ToEphemeral => f.write_str("to the ephemeral secret"),
            Self::FromEphemeral => f.write_str("from the ephemeral secret"),
        }
    }
}

/// The uniformly random halves of a switching key.
pub enum UniformParts {
    /// The seed that all parts are expanded from.
    Seed([u8; 32]),
    /// One polynomial per digit.
    Polys(Vec<RnsPoly>),
}

/// A switching key as it is stored and sent: per digit d of its [`KeyPurpose::shape`] the part
/// b_d = -a_d s + e_d + P g_d s', where s' is what the purpose switches from, s the secret that it
/// switches to and hides under, g_d is 1 modulo the digit's primes and 0 modulo the others; b_d and
/// a_d in NTT form on the primes of its shape.
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
        let (shape, row) = check_switching_key(params, (self.purpose, self.level), self.secret)?;
        let digits = shape.digits.len();
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
            check_poly(params, OBJECT, poly, shape.basis)?;
        }
        Ok(row)
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
        let covering = params.covering(level);
        let shape = self.purpose.shape(params, level)?;
        let basis = shape.basis;
        // Parts are numbered by the key's own digits, of which any may be empty at a lower level.
        let own = self.purpose.shape(params, self.level)?.digits;
        let kept = self.b.iter().zip(own).enumerate();
        let kept = kept.filter(|(_, (_, digit))| !digit.is_disjoint(covering));
        let parts = kept
            .map(|(digit, (b, _))| {
                let missing = || CkksError::malformed("switching key", "a part is missing");
                let a = match &self.a {
                    UniformParts::Polys(polys) => {
                        let a = polys.get(digit).ok_or_else(missing)?;
                        UniformHalf::Poly(a.restricted(basis)?)
                    }
                    UniformParts::Seed(seed) => UniformHalf::Seeded {
                        expander: Expander::new(self.expander, *seed),
                        stream: Stream::Key { digit }.of_ring(),
                    },
                };
                Ok((b.restricted(basis)?, a))
            })
            .collect::<Result<_, CkksError>>()?;
        Ok(SwitchingKey {
            galois: self.purpose.galois(params.log_n()),
            digits: shape.digits,
            special: shape.special,
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
