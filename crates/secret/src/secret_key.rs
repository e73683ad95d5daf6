//! The secret key.

use veilformer_ckks::{KeyId, Params, SecretKind};
use veilformer_ring::Cpu;
use zeroize::Zeroizing;

use crate::SecretError;
use crate::poly::{SecretPoly, host};

/// A secret key: a polynomial with coefficients in {-1, 0, 1}.
///
/// It cannot be cloned or printed, its memory is wiped when it is dropped, and outside this
/// crate its coefficients can only be had as a file (see [`SecretKey::to_bytes`]).
pub struct SecretKey {
    params: Params,
    kind: SecretKind,
    id: KeyId,
    coefficients: Zeroizing<Vec<i8>>,
    /// NTT form on all primes of the chain, P included.
    ntt: SecretPoly,
    backend: Cpu,
}

impl SecretKey {
    /// The caller has drawn or checked the coefficients: N of them, ternary, of the right weight.
    pub(crate) fn assemble(
        params: &Params,
        kind: SecretKind,
        id: KeyId,
        coefficients: Zeroizing<Vec<i8>>,
    ) -> Result<Self, SecretError> {
        let backend = host(params)?;
        let ntt = SecretPoly::from_ternary(&backend, params.chain().all(), &coefficients)?;
        Ok(Self {
            params: params.clone(),
            kind,
            id,
            coefficients,
            ntt,
            backend,
        })
    }

    /// The parameters that it was made for.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The distribution that it was drawn from.
    #[must_use]
    pub fn kind(&self) -> SecretKind {
        self.kind
    }

    /// The public name of this key: every key and ciphertext made with it carries it.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(crate) fn coefficients(&self) -> &[i8] {
        &self.coefficients
    }

    pub(crate) fn ntt(&self) -> &SecretPoly {
        &self.ntt
    }

    /// The key modulo one prime of the chain, in NTT form.
    pub(crate) fn limb(&self, prime: usize) -> &[u64] {
        self.ntt.limb_of(prime).unwrap_or_default()
    }

    /// What [`crate::poly::rlwe`] encrypts with.
    pub(crate) fn under(&self) -> (&Cpu, &SecretPoly) {
        (&self.backend, &self.ntt)
    }

    pub(crate) fn backend(&self) -> &Cpu {
        &self.backend
    }
}
