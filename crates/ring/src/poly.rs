//! Host polynomials: residues on a basis, limb-major.

use std::sync::Arc;

use num_bigint::{BigInt, BigUint};

use crate::basis::Basis;
use crate::chain::Chain;
use crate::error::{Result, RingError};
use crate::words::Words;

/// Whether limbs hold coefficients or NTT values.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Form {
    /// Coefficient of `X^j` at index `j`.
    Coefficient,
    /// Value at `psi^(2*rev(j)+1)` at index `j` (see the crate documentation).
    Ntt,
}

/// A polynomial of `Z[X]/(X^N+1)` modulo the primes of a basis: one limb of `N` words per prime, in
/// ascending order of prime index, every word canonical.
///
/// The memory is 64-byte aligned and comes from a pool. `Debug` does not show contents.
#[derive(Clone)]
pub struct RnsPoly {
    chain: Arc<Chain>,
    basis: Basis,
    form: Form,
    data: Words,
}

impl std::fmt::Debug for RnsPoly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RnsPoly")
            .field("n", &self.n())
            .field("basis", &self.basis)
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

impl PartialEq for RnsPoly {
    fn eq(&self, other: &Self) -> bool {
        self.basis == other.basis
            && self.form == other.form
            && (Arc::ptr_eq(&self.chain, &other.chain) || self.chain == other.chain)
            && self.data[..] == other.data[..]
    }
}

impl RnsPoly {
    /// The zero polynomial.
    ///
    /// # Errors
    /// [`RingError::BadBasis`] if the basis names primes outside the chain.
    pub fn zero(chain: &Arc<Chain>, basis: Basis, form: Form) -> Result<Self> {
        chain.check_basis("zero", basis)?;
        let data = Words::zeroed(basis.len() * chain.n());
        Ok(Self {
            chain: chain.clone(),
            basis,
            form,
            data,
        })
    }

    /// A polynomial with arbitrary contents, which the caller overwrites entirely. The basis must
    /// be within the chain.
    pub(crate) fn dirty(chain: &Arc<Chain>, basis: Basis, form: Form) -> Self {
        let basis = basis.intersect(chain.all());
        let data = Words::dirty(basis.len() * chain.n());
        Self {
            chain: chain.clone(),
            basis,
            form,
            data,
        }
    }

    /// A polynomial whose words are arbitrary: for callers that write every limb before they do
    /// anything else with it, and whom a pass of zeros over memory would cost.
    ///
    /// # Errors
    /// [`RingError::BadBasis`] if the basis names primes outside the chain.
    pub fn unwritten(chain: &Arc<Chain>, basis: Basis, form: Form) -> Result<Self> {
        chain.check_basis("unwritten", basis)?;
        Ok(Self::dirty(chain, basis, form))
    }

    /// A polynomial from limb-major words: `basis.len() * N` of them, each below its prime.
    ///
    /// # Errors
    /// [`RingError::BadBasis`], [`RingError::BadLength`] or [`RingError::NotCanonical`].
    pub fn from_limbs(chain: &Arc<Chain>, basis: Basis, form: Form, words: &[u64]) -> Result<Self> {
        chain.check_basis("from_limbs", basis)?;
        let expected = basis.len() * chain.n();
        if words.len() != expected {
            return Err(RingError::BadLength {
                op: "from_limbs",
                expected,
                found: words.len(),
            });
        }
        for ((limb, i), values) in basis.iter().enumerate().zip(words.chunks_exact(chain.n())) {
            let prime = chain.modulus(i).value();
            if let Some(&value) = values.iter().find(|&&v| v >= prime) {
                return Err(RingError::NotCanonical { limb, value, prime });
            }
        }
        let mut data = Words::dirty(expected);
        data.copy_from_slice(words);
        Ok(Self {
            chain: chain.clone(),
            basis,
            form,
            data,
        })
    }

    /// The polynomial with the given `N` integer coefficients.
    ///
    /// # Errors
    /// [`RingError::BadBasis`] or [`RingError::BadLength`].
    pub fn from_signed(chain: &Arc<Chain>, basis: Basis, coefficients: &[i64]) -> Result<Self> {
        let mut p = Self::zero_for(chain, basis, coefficients.len())?;
        for (i, limb) in basis.iter().zip(p.data.chunks_exact_mut(chain.n())) {
            let m = chain.modulus(i);
            limb.iter_mut()
                .zip(coefficients)
                .for_each(|(x, &c)| *x = m.from_i64(c));
        }
        Ok(p)
    }

    /// The polynomial with the given `N` wide integer coefficients.
    ///
    /// # Errors
    /// [`RingError::BadBasis`] or [`RingError::BadLength`].
    pub fn from_i128(chain: &Arc<Chain>, basis: Basis, coefficients: &[i128]) -> Result<Self> {
        let mut p = Self::zero_for(chain, basis, coefficients.len())?;
        for (i, limb) in basis.iter().zip(p.data.chunks_exact_mut(chain.n())) {
            let m = chain.modulus(i);
            limb.iter_mut()
                .zip(coefficients)
                .for_each(|(x, &c)| *x = m.from_i128(c));
        }
        Ok(p)
    }

    /// The polynomial with the given `N` coefficients of any size.
    ///
    /// # Errors
    /// [`RingError::BadBasis`] or [`RingError::BadLength`].
    pub fn from_bigint(chain: &Arc<Chain>, basis: Basis, coefficients: &[BigInt]) -> Result<Self> {
        let mut p = Self::zero_for(chain, basis, coefficients.len())?;
        for (i, limb) in basis.iter().zip(p.data.chunks_exact_mut(chain.n())) {
            let m = chain.modulus(i);
            for (x, c) in limb.iter_mut().zip(coefficients) {
                let r = (c.magnitude() % m.value())
                    .iter_u64_digits()
                    .next()
                    .unwrap_or(0);
                *x = if c.sign() == num_bigint::Sign::Minus {
                    m.neg(r)
                } else {
                    r
                };
            }
        }
        Ok(p)
    }

    fn zero_for(chain: &Arc<Chain>, basis: Basis, found: usize) -> Result<Self> {
        if found != chain.n() {
            return Err(RingError::BadLength {
                op: "from integers",
                expected: chain.n(),
                found,
            });
        }
        Self::zero(chain, basis, Form::Coefficient)
    }

    /// The coefficients as integers in `[-D/2, D/2)`, `D` the product of the basis. Slow (big
    /// integers): for tests and references.
    ///
    /// # Errors
    /// [`RingError::FormMismatch`] in NTT form.
    pub fn to_centered_bigint(&self) -> Result<Vec<BigInt>> {
        if self.form != Form::Coefficient {
            return Err(RingError::FormMismatch {
                op: "to_centered_bigint",
                expected: Form::Coefficient,
                found: self.form,
            });
        }
        let product: BigUint = self
            .basis
            .iter()
            .map(|i| BigUint::from(self.chain.modulus(i).value()))
            .product();
        let weights: Vec<(BigUint, u64)> = self
            .basis
            .iter()
            .map(|i| {
                let rest = self.basis.minus(Basis::single(i));
                let q = self.chain.modulus(i).value();
                (&product / q, self.chain.product_inverse_mod(rest, i))
            })
            .collect();
        let half = &product >> 1u32;
        let n = self.n();
        let value = |j: usize| {
            let mut sum = BigUint::ZERO;
            for (pos, (i, (weight, inverse))) in self.basis.iter().zip(&weights).enumerate() {
                sum += weight * self.chain.modulus(i).mul(self.data[pos * n + j], *inverse);
            }
            let x = sum % &product;
            if x > half {
                BigInt::from(x) - BigInt::from(product.clone())
            } else {
                x.into()
            }
        };
        Ok((0..n).map(value).collect())
    }

    /// The chain of moduli.
    pub fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// The primes on which this polynomial lives.
    pub fn basis(&self) -> Basis {
        self.basis
    }

    /// Coefficient or NTT form.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The ring degree N.
    pub fn n(&self) -> usize {
        self.chain.n()
    }

    /// The limb at position `pos` (0 .. basis().len()).
    ///
    /// # Panics
    /// If `pos >= basis().len()`, like slice indexing.
    pub fn limb(&self, pos: usize) -> &[u64] {
        let n = self.n();
        &self.data[pos * n..(pos + 1) * n]
    }

    /// The limb at position `pos`, to write. Every word must stay below its prime.
    ///
    /// # Panics
    /// If `pos >= basis().len()`, like slice indexing.
    pub fn limb_mut(&mut self, pos: usize) -> &mut [u64] {
        let n = self.n();
        &mut self.data[pos * n..(pos + 1) * n]
    }

    /// The limb of prime `prime_index`, if it is in the basis.
    pub fn limb_of(&self, prime_index: usize) -> Option<&[u64]> {
        self.basis
            .position_of(prime_index)
            .map(|pos| self.limb(pos))
    }

    /// All words, limb-major.
    pub fn words(&self) -> &[u64] {
        &self.data
    }

    /// Overwrites all words with zero (the pool would keep them otherwise): for secrets, before
    /// they are dropped. Words that other polynomials read as well are overwritten when the last one of
    /// them is dropped.
    pub fn zeroize(&mut self) {
        self.data.zeroize();
    }

    /// Pairs of prime index and limb.
    pub(crate) fn limbs_mut(&mut self) -> impl Iterator<Item = (usize, &mut [u64])> {
        let n = self.chain.n();
        self.basis.iter().zip(self.data.chunks_exact_mut(n))
    }

    /// Pairs of prime index and limb.
    pub(crate) fn limbs(&self) -> impl Iterator<Item = (usize, &[u64])> {
        self.basis
            .iter()
            .zip(self.data.chunks_exact(self.chain.n()))
    }

    pub(crate) fn set_form(&mut self, form: Form) {
        self.form = form;
    }

    pub(crate) fn require_form(&self, op: &'static str, expected: Form) -> Result<()> {
        if self.form == expected {
            Ok(())
        } else {
            Err(RingError::FormMismatch {
                op,
                expected,
                found: self.form,
            })
        }
    }

    /// Same chain, basis and form.
    pub(crate) fn require_like(&self, op: &'static str, other: &Self) -> Result<()> {
        self.chain.check_same(op, &other.chain)?;
        if self.basis != other.basis {
            return Err(RingError::BasisMismatch {
                op,
                expected: self.basis,
                found: other.basis,
            });
        }
        other.require_form(op, self.form)
    }

    /// The polynomial on a sub-basis. If that has the first primes of the basis, and most of them, the
    /// words are not copied before one of both writes to them.
    ///
    /// # Errors
    /// [`RingError::BasisMismatch`] if `to` names other primes.
    pub fn restricted(&self, to: Basis) -> Result<Self> {
        if !self.basis.contains_all(to) {
            return Err(RingError::BasisMismatch {
                op: "restrict",
                expected: self.basis,
                found: to,
            });
        }
        let count = to.len();
        let first = self.basis.iter().take(count).eq(to.iter());
        let shared = if first {
            self.data.first(count * self.n())
        } else {
            None
        };
        if let Some(data) = shared {
            return Ok(Self {
                chain: self.chain.clone(),
                basis: to,
                form: self.form,
                data,
            });
        }
        let mut out = Self::dirty(&self.chain, to, self.form);
        for (i, limb) in out.limbs_mut() {
            if let Some(src) = self.limb_of(i) {
                limb.copy_from_slice(src);
            }
        }
        Ok(out)
    }
}
