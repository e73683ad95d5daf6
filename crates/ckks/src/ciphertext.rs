//! Ciphertexts: the kind that is computed on, and the kind that is stored and sent.

use std::fmt;

use serde::{Deserialize, Serialize};
use veilformer_ring::{Backend, Basis, ExpanderId, Form, RnsPoly};

use crate::error::short_hex;
use crate::uniform::{self, Stream};
use crate::{CkksError, Params, Scale};

/// Names a secret key without telling anything about it: 16 random bytes that every evaluation
/// key and every ciphertext made with it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyId([u8; 16]);

impl KeyId {
    /// From its bytes (which the secret half draws at random).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&short_hex(&self.0))
    }
}

/// A ciphertext (c0, c1) with c0 + c1 s = m * scale + noise, both in NTT form on the basis of its
/// level. `P` is the backend's polynomial.
pub struct Ciphertext<P = RnsPoly> {
    c0: P,
    c1: P,
    level: usize,
    scale: Scale,
    key_id: KeyId,
}

/// What a ciphertext carries beside its polynomials.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CiphertextInfo {
    /// The level.
    pub level: usize,
    /// The scale.
    pub scale: Scale,
    /// The secret key that decrypts it.
    pub key_id: KeyId,
}

impl<P> Ciphertext<P> {
    /// A ciphertext on a backend, from its two polynomials.
    ///
    /// # Errors
    /// If the level does not exist or a polynomial is not in NTT form on the level's basis.
    pub fn from_parts<B: Backend<Poly = P>>(
        params: &Params,
        backend: &B,
        parts: (P, P),
        info: CiphertextInfo,
    ) -> Result<Self, CkksError> {
        params.check_level(info.level)?;
        let expected = params.basis_at(info.level);
        for part in [&parts.0, &parts.1] {
            check_form(
                "ciphertext",
                backend.basis(part),
                backend.form(part),
                expected,
            )?;
        }
        Ok(Self::from_checked(parts, info))
    }

    pub(crate) fn from_checked(parts: (P, P), info: CiphertextInfo) -> Self {
        Self {
            c0: parts.0,
            c1: parts.1,
            level: info.level,
            scale: info.scale,
            key_id: info.key_id,
        }
    }

    /// The polynomial c0.
    #[must_use]
    pub fn c0(&self) -> &P {
        &self.c0
    }

    /// The polynomial c1.
    #[must_use]
    pub fn c1(&self) -> &P {
        &self.c1
    }

    /// Both polynomials.
    #[must_use]
    pub fn parts(&self) -> (&P, &P) {
        (&self.c0, &self.c1)
    }

    /// The level.
    #[must_use]
    pub fn level(&self) -> usize {
        self.level
    }

    /// The scale.
    #[must_use]
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// The secret key that decrypts it.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Level, scale and key id.
    #[must_use]
    pub fn info(&self) -> CiphertextInfo {
        CiphertextInfo {
            level: self.level,
            scale: self.scale,
            key_id: self.key_id,
        }
    }

    /// The polynomials and the rest.
    #[must_use]
    pub fn into_parts(self) -> ((P, P), CiphertextInfo) {
        let info = self.info();
        ((self.c0, self.c1), info)
    }

    /// Copies the ciphertext from the backend to the host.
    ///
    /// # Errors
    /// The backend's.
    pub fn export<B: Backend<Poly = P>>(
        &self,
        backend: &B,
    ) -> Result<Ciphertext<RnsPoly>, CkksError> {
        let parts = (backend.export(&self.c0)?, backend.export(&self.c1)?);
        Ok(Ciphertext::from_checked(parts, self.info()))
    }
}

impl Ciphertext<RnsPoly> {
    /// A ciphertext on the host, from its two polynomials.
    ///
    /// # Errors
    /// If the level does not exist or a polynomial is not in NTT form on the level's basis.
    pub fn from_polys(
        params: &Params,
        parts: (RnsPoly, RnsPoly),
        info: CiphertextInfo,
    ) -> Result<Self, CkksError> {
        params.check_level(info.level)?;
        for part in [&parts.0, &parts.1] {
            check_poly(params, "ciphertext", part, params.basis_at(info.level))?;
        }
        Ok(Self::from_checked(parts, info))
    }

    /// Hands the ciphertext to a backend.
    ///
    /// # Errors
    /// The backend's.
    pub fn import<B: Backend>(self, backend: &B) -> Result<Ciphertext<B::Poly>, CkksError> {
        let (parts, info) = self.into_parts();
        let parts = (backend.import(parts.0)?, backend.import(parts.1)?);
        Ok(Ciphertext::from_checked(parts, info))
    }

    /// The form to store: both polynomials in full (what comes out of a computation has no seed).
    #[must_use]
    pub fn into_stored(self) -> StoredCiphertext {
        let ((body, c1), info) = self.into_parts();
        StoredCiphertext {
            body,
            uniform: Uniform::Poly(c1),
            info,
            expander: uniform::EXPANDER,
        }
    }
}

/// The uniformly random half of a ciphertext or public key.
pub enum Uniform {
    /// The seed that it is expanded from.
    Seed([u8; 32]),
    /// The polynomial itself.
    Poly(RnsPoly),
}

impl Uniform {
    /// The polynomial, expanded if need be.
    pub(crate) fn expand(
        &self,
        params: &Params,
        expander: ExpanderId,
        stream: Stream,
        basis: Basis,
    ) -> Result<RnsPoly, CkksError> {
        match self {
            Self::Seed(seed) => uniform::expand(params, expander, seed, stream, basis),
            Self::Poly(poly) => Ok(poly.clone()),
        }
    }
}

/// A ciphertext as it is stored and sent: fresh ones carry a seed in place of c1.
pub struct StoredCiphertext {
    /// c0, in NTT form on the basis of the level.
    pub body: RnsPoly,
    /// c1 or its seed.
    pub uniform: Uniform,
    /// Level, scale and key id.
    pub info: CiphertextInfo,
    /// How the seed expands.
    pub expander: ExpanderId,
}

impl StoredCiphertext {
    /// Checks everything that a computation relies on.
    ///
    /// # Errors
    /// If the level does not exist or a polynomial is not in NTT form on its basis.
    pub fn conform(&self, params: &Params) -> Result<(), CkksError> {
        params.check_level(self.info.level)?;
        let basis = params.basis_at(self.info.level);
        check_poly(params, "ciphertext", &self.body, basis)?;
        match &self.uniform {
            Uniform::Seed(_) => Ok(()),
            Uniform::Poly(poly) => check_poly(params, "ciphertext", poly, basis),
        }
    }

    /// The ciphertext itself, checked.
    ///
    /// # Errors
    /// As [`StoredCiphertext::conform`].
    pub fn expand(&self, params: &Params) -> Result<Ciphertext<RnsPoly>, CkksError> {
        self.conform(params)?;
        let basis = params.basis_at(self.info.level);
        let c1 = self
            .uniform
            .expand(params, self.expander, Stream::Ciphertext, basis)?;
        Ok(Ciphertext::from_checked((self.body.clone(), c1), self.info))
    }
}

pub(crate) fn check_form(
    object: &'static str,
    basis: Basis,
    form: Form,
    expected: Basis,
) -> Result<(), CkksError> {
    if basis != expected {
        return Err(CkksError::malformed(
            object,
            format!("a polynomial is on {basis}, expected {expected}"),
        ));
    }
    if form != Form::Ntt {
        return Err(CkksError::malformed(
            object,
            "a polynomial is in coefficient form, expected NTT form",
        ));
    }
    Ok(())
}

pub(crate) fn check_poly(
    params: &Params,
    object: &'static str,
    poly: &RnsPoly,
    expected: Basis,
) -> Result<(), CkksError> {
    check_form(object, poly.basis(), poly.form(), expected)?;
    if poly.n() != params.n() {
        return Err(CkksError::malformed(
            object,
            format!(
                "a polynomial has dimension {}, expected {}",
                poly.n(),
                params.n()
            ),
        ));
    }
    Ok(())
}
