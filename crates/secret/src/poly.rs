//! Polynomials that hold secrets.

use std::ops::{Deref, DerefMut};

use veilformer_ckks::uniform::{self, Stream};
use veilformer_ckks::{Coefficients, Params};
use veilformer_ring::{Backend, Basis, Cpu, CpuConfig, Expander, Form, Isa, RnsPoly};
use zeroize::Zeroizing;

use crate::rng::SecretRng;
use crate::{SecretError, samplers};

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

    /// A polynomial in NTT form whose words are arbitrary until they are written.
    pub(crate) fn unwritten(backend: &Cpu, basis: Basis) -> Result<Self, SecretError> {
        Ok(Self(RnsPoly::unwritten(backend.chain(), basis, Form::Ntt)?))
    }

    /// Ternary integers as a polynomial in NTT form.
    pub(crate) fn from_ternary(
        backend: &Cpu,
        basis: Basis,
        coefficients: &[i8],
    ) -> Result<Self, SecretError> {
        let hidden = Hidden::ternary(coefficients);
        let mut poly = Self::unwritten(backend, basis)?;
        for (position, prime) in basis.iter().enumerate() {
            hidden.limb(backend, prime, poly.0.limb_mut(position))?;
        }
        Ok(poly)
    }
}

/// Integers that an encryption hides: a message, an error, or one less the other. Wiped when
/// dropped.
pub(crate) struct Hidden(Coefficients);

impl Hidden {
    /// The message less a fresh error.
    pub(crate) fn message<R: SecretRng>(message: Coefficients, n: usize, rng: &mut R) -> Self {
        let mut hidden = Self(message.spread(n));
        let mut error = Zeroizing::new(vec![0i64; n]);
        samplers::gaussian(rng, &mut error);
        hidden.0.subtract(&error, samplers::GAUSSIAN_BOUND as u32);
        hidden
    }

    /// A fresh error alone.
    pub(crate) fn error<R: SecretRng>(n: usize, rng: &mut R) -> Self {
        let mut error = vec![0i64; n];
        samplers::gaussian(rng, &mut error);
        Self(Coefficients::small(error, samplers::GAUSSIAN_BOUND as u32))
    }

    /// Ternary integers.
    pub(crate) fn ternary(coefficients: &[i8]) -> Self {
        let words = coefficients.iter().map(|&c| i64::from(c)).collect();
        Self(Coefficients::small(words, 1))
    }

    /// The integers modulo one prime, in NTT form.
    pub(crate) fn limb(
        &self,
        backend: &Cpu,
        prime: usize,
        limb: &mut [u64],
    ) -> Result<(), SecretError> {
        self.0.reduce_below_2q(backend.chain().modulus(prime), limb);
        Ok(backend.forward_ntt_limb(prime, limb)?)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

/// Words of a product that are in the first cache when they are subtracted.
const PIECE: usize = 1024;

/// Where the uniform half `a` of an RLWE sample comes from.
pub(crate) struct Seeded {
    pub(crate) seed: [u8; 32],
    pub(crate) stream: Stream,
    pub(crate) basis: Basis,
}

/// The first component of an RLWE sample under `secret` (which has the primes of `a` at least) that
/// hides `hidden = m - e`: `m - (a s + e)`, in NTT form. Each limb is finished before the next is begun, `a`
/// included, which exists nowhere else, and written once; `add` is called with the index of its prime and the hidden
/// integers, in NTT form as well, to which it may add.
pub(crate) fn rlwe(
    (backend, secret): (&Cpu, &SecretPoly),
    a: &Seeded,
    hidden: &Hidden,
    mut add: impl FnMut(usize, &mut [u64]),
) -> Result<RnsPoly, SecretError> {
    let chain = backend.chain();
    let expander = Expander::new(a.stream.expander(), a.seed);
    let limbs = a.basis.len();
    let mut out = RnsPoly::unwritten(chain, a.basis, Form::Ntt)?;
    let mut work = SecretPoly::unwritten(backend, Basis::first(1))?;
    let work = work.0.limb_mut(0);
    let mut product = Zeroizing::new([0; PIECE]);
    let mut uniform = RnsPoly::unwritten(chain, Basis::first(1), Form::Ntt)?;
    let uniform = uniform.limb_mut(0);
    for (position, prime) in a.basis.iter().enumerate() {
        hidden.limb(backend, prime, work)?;
        add(prime, work);
        uniform::expand_limb(backend, (&expander, a.stream), prime, uniform)?;
        let factors = (&*uniform, secret.limb_of(prime).unwrap_or_default());
        let limb = out.limb_mut(position);
        backend.sub_product_limb((prime, limbs), limb, work, factors, &mut product[..])?;
    }
    Ok(out)
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
