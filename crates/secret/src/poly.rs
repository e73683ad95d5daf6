//! Polynomials that hold secrets.

use std::ops::{Deref, DerefMut};

use veilformer_ring::{Backend, Basis, Cpu, CpuConfig, Form, Isa, RnsPoly};
use zeroize::Zeroizing;

use crate::SecretError;
use crate::rng::SecretRng;
use crate::samplers;
use veilformer_ckks::Params;

/// The backend on which secrets are computed with: always this machine's own processor.
pub(crate) fn host(params: &Params) -> Result<Cpu, SecretError> {
    let config = CpuConfig { isa: Isa::detect() };
    Ok(Cpu::new(params.chain().clone(), config)?)
}

/// A polynomial that is wiped when dropped: the pool of buffers would keep its content.
pub(crate) struct SecretPoly(RnsPoly);

impl SecretPoly {
    pub(crate) fn new(poly: RnsPoly) -> Self {
        Self(poly)
    }

    /// Takes the polynomial out, once it hides nothing any more.
    pub(crate) fn publish(mut self) -> Result<RnsPoly, SecretError> {
        let empty = RnsPoly::zero(self.0.chain(), Basis::empty(), Form::Ntt)?;
        Ok(std::mem::replace(&mut self.0, empty))
    }

    /// Small integers as a polynomial in NTT form.
    pub(crate) fn from_small<T: Copy + Into<i64>>(
        backend: &Cpu,
        basis: Basis,
        coefficients: &[T],
    ) -> Result<Self, SecretError> {
        let chain = backend.chain();
        let mut poly = Self(RnsPoly::zero(chain, basis, Form::Coefficient)?);
        for (position, prime) in basis.iter().enumerate() {
            let modulus = chain.modulus(prime).value();
            for (word, &value) in poly.0.limb_mut(position).iter_mut().zip(coefficients) {
                // The sign selects the modulus by a mask, not by a branch.
                let value = value.into() as u64;
                let negative = ((value as i64) >> 63) as u64;
                *word = value.wrapping_add(modulus & negative);
            }
        }
        backend.forward_ntt(&mut poly.0)?;
        Ok(poly)
    }

    /// A fresh error polynomial in NTT form.
    pub(crate) fn error<R: SecretRng>(
        backend: &Cpu,
        basis: Basis,
        rng: &mut R,
    ) -> Result<Self, SecretError> {
        let mut error = Zeroizing::new(vec![0i64; backend.chain().n()]);
        samplers::gaussian(rng, &mut error);
        Self::from_small(backend, basis, &error)
    }

    /// The first component of a fresh RLWE sample, -(a s + e), in NTT form on the basis of `a`.
    pub(crate) fn rlwe<R: SecretRng>(
        backend: &Cpu,
        a: &RnsPoly,
        secret: &Self,
        rng: &mut R,
    ) -> Result<Self, SecretError> {
        let mut sample = Self::error(backend, a.basis(), rng)?;
        if secret.basis() == a.basis() {
            backend.mul_acc(&mut sample, a, secret)?;
        } else {
            let secret = Self(backend.restrict(secret, a.basis())?);
            backend.mul_acc(&mut sample, a, &secret)?;
        }
        backend.neg_assign(&mut sample)?;
        Ok(sample)
    }
}

impl Deref for SecretPoly {
    type Target = RnsPoly;
    fn deref(&self) -> &RnsPoly {
        &self.0
    }
}

impl DerefMut for SecretPoly {
    fn deref_mut(&mut self) -> &mut RnsPoly {
        &mut self.0
    }
}

impl Drop for SecretPoly {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
