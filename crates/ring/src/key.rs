//! Switching keys and plaintext polynomials as data.

use std::borrow::Cow;
use std::sync::Arc;

use crate::basis::Basis;
use crate::chain::Chain;
use crate::error::{Result, RingError};
use crate::expander::{Expander, Stream};
use crate::galois::GaloisElement;
use crate::poly::{Form, RnsPoly};

/// The uniform half of a part of a switching key.
#[derive(Clone)]
pub enum UniformHalf {
    /// As a polynomial.
    Poly(RnsPoly),
    /// As a seed. A backend that makes the words of [`crate::ExpanderId::Aes128`] faster than it reads
    /// them from memory keeps no more of it.
    Seeded {
        /// The seed.
        expander: Expander,
        /// Which of its polynomials.
        stream: Stream,
    },
}

impl UniformHalf {
    /// The polynomial, on the basis of the other half.
    ///
    /// # Errors
    /// [`RingError::BadBasis`].
    pub fn poly(&self, chain: &Arc<Chain>, basis: Basis) -> Result<Cow<'_, RnsPoly>> {
        Ok(match self {
            Self::Poly(a) => Cow::Borrowed(a),
            Self::Seeded { expander, stream } => Cow::Owned(expander.poly(chain, basis, *stream)?),
        })
    }
}

/// A hybrid key-switching key with digits (Han and Ki, ePrint 2019/688).
///
/// With `Q` the union of `digits` and `P = prod(special)`, part `d` is `(b_d, a_d)`,
/// `b_d = -a_d s + e_d + P g_d sigma(s')`, where `g_d` is 1 modulo the primes of digit `d` and 0
/// modulo the other primes of `Q`. All parts live, in NTT form, on one basis: a subset of `Q`
/// (a *level-aware* key) together with `special`. There is one part per digit, also for digits that
/// the subset does not meet.
pub struct SwitchingKey {
    /// The automorphism that the key follows; identity for relinearization.
    pub galois: GaloisElement,
    /// A partition of Q.
    pub digits: Vec<Basis>,
    /// The primes of P.
    pub special: Basis,
    /// Per digit `(b_d, a_d)`.
    pub parts: Vec<(RnsPoly, UniformHalf)>,
}

impl SwitchingKey {
    /// The basis on which the parts live, if there is a part.
    pub fn basis(&self) -> Basis {
        self.parts
            .first()
            .map_or(Basis::empty(), |(b, _)| b.basis())
    }

    /// Checks all structural rules against a chain.
    ///
    /// # Errors
    /// [`RingError::BadKey`], [`RingError::ChainMismatch`], [`RingError::BadGalois`].
    pub fn check(&self, chain: &Arc<Chain>) -> Result<()> {
        let bad = |why: String| Err(RingError::BadKey(why));
        self.galois.check(chain.log_n())?;
        if self.digits.is_empty() || self.digits.len() != self.parts.len() {
            return bad(format!(
                "{} digits but {} parts; each digit needs one part",
                self.digits.len(),
                self.parts.len()
            ));
        }
        if self.special.is_empty() {
            return bad("the special basis P is empty".into());
        }
        let mut q = Basis::empty();
        for d in &self.digits {
            if d.is_empty() || !q.is_disjoint(*d) || !self.special.is_disjoint(*d) {
                return bad("the digits must be non-empty, disjoint and apart from P".into());
            }
            q = q.union(*d);
        }
        let basis = self.basis();
        if !basis.contains_all(self.special) || !q.union(self.special).contains_all(basis) {
            return bad(format!(
                "its parts are on {basis}, expected all of P ({}) and a subset of Q ({q})",
                self.special
            ));
        }
        for (b, a) in &self.parts {
            let a = match a {
                UniformHalf::Poly(a) => Some(a),
                UniformHalf::Seeded { .. } => None,
            };
            for p in [Some(b), a].into_iter().flatten() {
                chain.check_same("switching key", p.chain())?;
                p.require_form("switching key", Form::Ntt)?;
                if p.basis() != basis {
                    return bad("its parts live on different bases".into());
                }
            }
        }
        Ok(())
    }
}

/// A plaintext polynomial in NTT form, to be multiplied by or added to polynomials on any
/// sub-basis of its own.
#[derive(Clone)]
pub enum PlainPoly {
    /// All N values per limb.
    Dense(RnsPoly),
    /// A polynomial in `X^(N/period)`: its NTT values are `period` distinct ones per limb, in
    /// contiguous runs of `N/period`.
    Periodic {
        /// Number of distinct values per limb: a power of two, at most N.
        period: usize,
        /// The primes.
        basis: Basis,
        /// `period` values per prime, in ascending order of prime index.
        values: Vec<u64>,
    },
    /// A constant: one residue per prime.
    Scalar {
        /// The primes.
        basis: Basis,
        /// One residue per prime, in ascending order of prime index.
        residues: Vec<u64>,
    },
}

impl std::fmt::Debug for PlainPoly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self {
            Self::Dense(_) => "Dense",
            Self::Periodic { .. } => "Periodic",
            Self::Scalar { .. } => "Scalar",
        };
        f.debug_struct(kind)
            .field("basis", &self.basis())
            .finish_non_exhaustive()
    }
}

impl PlainPoly {
    /// The primes on which the plaintext lives.
    pub fn basis(&self) -> Basis {
        match self {
            Self::Dense(p) => p.basis(),
            Self::Periodic { basis, .. } | Self::Scalar { basis, .. } => *basis,
        }
    }

    /// Checks lengths, form and that every residue is below its prime.
    ///
    /// # Errors
    /// [`RingError::BadPlain`], [`RingError::NotCanonical`], [`RingError::ChainMismatch`],
    /// [`RingError::FormMismatch`], [`RingError::BadBasis`].
    pub fn check(&self, chain: &Arc<Chain>) -> Result<()> {
        chain.check_basis("plaintext", self.basis())?;
        let (words, per_limb) = match self {
            Self::Dense(p) => {
                chain.check_same("plaintext", p.chain())?;
                return p.require_form("plaintext", Form::Ntt);
            }
            Self::Periodic { period, values, .. } => {
                if !period.is_power_of_two() || *period > chain.n() {
                    return Err(RingError::BadPlain(format!(
                        "period {period} must be a power of two of at most N = {}",
                        chain.n()
                    )));
                }
                (values, *period)
            }
            Self::Scalar { residues, .. } => (residues, 1),
        };
        if words.len() != per_limb * self.basis().len() {
            return Err(RingError::BadPlain(format!(
                "{} values, expected {per_limb} for each of {} primes",
                words.len(),
                self.basis().len()
            )));
        }
        for ((limb, i), values) in self.basis().iter().enumerate().zip(words.chunks(per_limb)) {
            let prime = chain.modulus(i).value();
            if let Some(&value) = values.iter().find(|&&v| v >= prime) {
                return Err(RingError::NotCanonical { limb, value, prime });
            }
        }
        Ok(())
    }

    /// The value at NTT index `j` of prime `i`, if the plaintext has that prime. For references.
    pub(crate) fn value(&self, i: usize, j: usize, n: usize) -> Option<u64> {
        let pos = self.basis().position_of(i)?;
        match self {
            Self::Dense(p) => p.limb(pos).get(j).copied(),
            Self::Periodic { period, values, .. } => {
                values.get(pos * period + j / (n / period)).copied()
            }
            Self::Scalar { residues, .. } => residues.get(pos).copied(),
        }
    }
}
