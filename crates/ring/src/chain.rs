//! The chain of moduli of one parameter set, with everything that is computed once per prime.

use std::sync::Arc;

use crate::basis::Basis;
use crate::error::{Result, RingError};
use crate::modulus::Modulus;
use crate::ntt::NttTable;

/// All primes of a parameter set for one ring degree, with their NTT tables. Shared by `Arc`.
pub struct Chain {
    log_n: u32,
    moduli: Vec<Modulus>,
    tables: Vec<Arc<NttTable>>,
    /// `pair[i * len + j] = (q_i mod q_j, q_i^-1 mod q_j)`; zeros on the diagonal.
    pairs: Vec<(u64, u64)>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let primes: Vec<u64> = self.moduli.iter().map(Modulus::value).collect();
        f.debug_struct("Chain")
            .field("log_n", &self.log_n)
            .field("primes", &primes)
            .finish()
    }
}

impl PartialEq for Chain {
    fn eq(&self, other: &Self) -> bool {
        self.log_n == other.log_n && self.moduli == other.moduli
    }
}
impl Eq for Chain {}

impl Chain {
    /// A chain for `N = 2^log_n` (3..=17) of 1..=128 distinct primes, each `1 mod 2N` and below
    /// 2^50. The order gives the indices that a [`Basis`] names.
    ///
    /// # Errors
    /// [`RingError::BadDegree`], [`RingError::BadModulus`] or [`RingError::BadChain`].
    pub fn new(log_n: u32, primes: &[u64]) -> Result<Arc<Self>> {
        if !(3..=17).contains(&log_n) {
            return Err(RingError::BadDegree { log_n });
        }
        if primes.is_empty() || primes.len() > Basis::MAX {
            return Err(RingError::BadChain(format!(
                "{} primes given, expected 1 to {}",
                primes.len(),
                Basis::MAX
            )));
        }
        let mut moduli = Vec::with_capacity(primes.len());
        for (i, &q) in primes.iter().enumerate() {
            if primes[..i].contains(&q) {
                return Err(RingError::BadChain(format!("prime {q} occurs twice")));
            }
            if q % (1 << (log_n + 1)) != 1 {
                return Err(RingError::BadModulus {
                    value: q,
                    reason: "it is not 1 mod 2N",
                });
            }
            moduli.push(Modulus::new(q)?);
        }
        let tables = moduli
            .iter()
            .map(|m| Arc::new(NttTable::new(m, log_n)))
            .collect();
        let mut pairs = Vec::with_capacity(moduli.len() * moduli.len());
        for a in &moduli {
            for b in &moduli {
                let r = b.reduce(a.value());
                pairs.push((r, b.inv(r).unwrap_or(0)));
            }
        }
        Ok(Arc::new(Self {
            log_n,
            moduli,
            tables,
            pairs,
        }))
    }

    /// The ring degree N.
    pub fn n(&self) -> usize {
        1 << self.log_n
    }

    /// log2 of the ring degree.
    pub fn log_n(&self) -> u32 {
        self.log_n
    }

    /// Number of primes.
    #[allow(clippy::len_without_is_empty)] // a chain is never empty
    pub fn len(&self) -> usize {
        self.moduli.len()
    }

    /// The `i`-th modulus.
    ///
    /// # Panics
    /// If `i >= len()`, like slice indexing; every index in a basis that a polynomial of this
    /// chain carries is valid.
    pub fn modulus(&self, i: usize) -> &Modulus {
        &self.moduli[i]
    }

    /// All primes, in order.
    pub fn primes(&self) -> Vec<u64> {
        self.moduli.iter().map(Modulus::value).collect()
    }

    /// The basis of all primes.
    pub fn all(&self) -> Basis {
        Basis::first(self.moduli.len())
    }

    /// log2 of the product of the primes of `basis`.
    pub fn product_log2(&self, basis: Basis) -> f64 {
        basis
            .intersect(self.all())
            .iter()
            .map(|i| (self.moduli[i].value() as f64).log2())
            .sum()
    }

    /// The NTT table of prime `i`.
    pub(crate) fn table(&self, i: usize) -> &NttTable {
        &self.tables[i]
    }

    /// `prod(basis) mod q_j`.
    pub fn product_mod(&self, basis: Basis, j: usize) -> u64 {
        let m = &self.moduli[j];
        basis
            .iter()
            .fold(1, |acc, i| m.mul(acc, self.pairs[i * self.len() + j].0))
    }

    /// `prod(basis)^-1 mod q_j`; zero if `j` is in `basis`.
    pub fn product_inverse_mod(&self, basis: Basis, j: usize) -> u64 {
        let m = &self.moduli[j];
        basis
            .iter()
            .fold(1, |acc, i| m.mul(acc, self.pairs[i * self.len() + j].1))
    }

    /// Refuses a basis that names primes which this chain lacks.
    pub(crate) fn check_basis(&self, op: &'static str, basis: Basis) -> Result<()> {
        if self.all().contains_all(basis) {
            Ok(())
        } else {
            Err(RingError::BadBasis {
                op,
                basis,
                reason: "it names primes outside the chain",
            })
        }
    }

    /// Refuses an operand of another chain.
    pub(crate) fn check_same(self: &Arc<Self>, op: &'static str, other: &Arc<Self>) -> Result<()> {
        if Arc::ptr_eq(self, other) || self == other {
            Ok(())
        } else {
            Err(RingError::ChainMismatch { op })
        }
    }
}
