//! The oracle: every operation straight from its definition, with big integers where the
//! definition speaks of integers. Slow; for small rings.

mod transform;

use std::sync::Arc;

use num_bigint::BigInt;

use crate::backend::{Backend, Pair, PairRef, TransformPlan};
use crate::basis::Basis;
use crate::chain::Chain;
use crate::error::{Result, RingError};
use crate::galois::GaloisElement;
use crate::key::{PlainPoly, SwitchingKey};
use crate::ntt::{bit_reverse, primitive_root};
use crate::poly::{Form, RnsPoly};

/// The naive backend that all others are tested against.
pub struct Reference {
    chain: Arc<Chain>,
    /// Per prime the powers of psi, 0..2N.
    powers: Vec<Vec<u64>>,
}

/// A switching key of the oracle: the key itself.
pub struct ReferenceKey {
    galois: GaloisElement,
    digits: Vec<Basis>,
    special: Basis,
    parts: Vec<(RnsPoly, RnsPoly)>,
}

fn mul_mod(a: u64, b: u64, q: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(q)) as u64
}

/// `sum a b mod q` of residues: reduced once, since products of 50 bits each leave room for `2^28` of them.
fn sum_mod(terms: impl Iterator<Item = (u64, u64)>, q: u64) -> u64 {
    let sum: u128 = terms.map(|(a, b)| u128::from(a) * u128::from(b)).sum();
    (sum % u128::from(q)) as u64
}

impl Reference {
    /// The oracle on a chain.
    pub fn new(chain: Arc<Chain>) -> Self {
        let powers = (0..chain.len())
            .map(|i| {
                let m = chain.modulus(i);
                let psi = primitive_root(m, chain.log_n());
                let mut p = 1;
                (0..2 * chain.n())
                    .map(|_| {
                        let now = p;
                        p = mul_mod(p, psi, m.value());
                        now
                    })
                    .collect()
            })
            .collect();
        Self { chain, powers }
    }

    fn q(&self, i: usize) -> u64 {
        self.chain.modulus(i).value()
    }

    /// Exponent of psi at NTT index `j`.
    fn exponent(&self, j: usize) -> usize {
        2 * bit_reverse(j as u64, self.chain.log_n()) as usize + 1
    }

    fn map2(
        &self,
        op: &'static str,
        a: &mut RnsPoly,
        b: &RnsPoly,
        f: impl Fn(u64, u64, u64) -> u64,
    ) -> Result<()> {
        self.chain.check_same(op, a.chain())?;
        a.require_like(op, b)?;
        for ((i, x), (_, y)) in a.limbs_mut().zip(b.limbs()) {
            let q = self.q(i);
            x.iter_mut().zip(y).for_each(|(x, &y)| *x = f(*x, y, q));
        }
        Ok(())
    }

    fn map_plain(
        &self,
        op: &'static str,
        a: &mut RnsPoly,
        plain: &PlainPoly,
        f: impl Fn(u64, u64, u64) -> u64,
    ) -> Result<()> {
        self.chain.check_same(op, a.chain())?;
        a.require_form(op, Form::Ntt)?;
        if !plain.basis().contains_all(a.basis()) {
            return Err(RingError::BasisMismatch {
                op,
                expected: a.basis(),
                found: plain.basis(),
            });
        }
        let n = self.chain.n();
        for (i, x) in a.limbs_mut() {
            let q = self.q(i);
            for (j, x) in x.iter_mut().enumerate() {
                *x = f(*x, plain.value(i, j, n).unwrap_or(0), q);
            }
        }
        Ok(())
    }

    fn product(&self, basis: Basis) -> BigInt {
        basis.iter().map(|i| BigInt::from(self.q(i))).product()
    }

    /// `round(x * num / den)` for odd `den`, on basis `to`.
    fn scale_round(&self, poly: &RnsPoly, num: Basis, den: Basis, to: Basis) -> Result<RnsPoly> {
        let form = poly.form();
        let mut p = poly.clone();
        if form == Form::Ntt {
            self.inverse_ntt(&mut p)?;
        }
        let (num, den) = (self.product(num), self.product(den));
        let half: BigInt = &den >> 1u32;
        let coefficients: Vec<BigInt> = p
            .to_centered_bigint()?
            .into_iter()
            .map(|x| {
                let y: BigInt = x * &num + &half;
                // Floor division.
                let mut quot: BigInt = &y / &den;
                if y.sign() == num_bigint::Sign::Minus && &quot * &den != y {
                    quot -= 1;
                }
                quot
            })
            .collect();
        let mut out = RnsPoly::from_bigint(&self.chain, to, &coefficients)?;
        if form == Form::Ntt {
            self.forward_ntt(&mut out)?;
        }
        Ok(out)
    }

    /// `sum_d digit_d(sigma(p)) * key_d` on `basis(p) + P`: rotating before the decomposition is
    /// the same, since the centred extension commutes with an automorphism.
    fn switch(&self, p: &RnsPoly, key: &ReferenceKey) -> Result<(RnsPoly, RnsPoly)> {
        const OP: &str = "key_switch_sum";
        p.require_form(OP, Form::Ntt)?;
        let target = p.basis().union(key.special);
        let covered = key.digits.iter().fold(Basis::empty(), |a, &d| a.union(d));
        let stored = key.parts.first().map_or(Basis::empty(), |(b, _)| b.basis());
        if !covered.contains_all(p.basis()) || !stored.contains_all(target) {
            return Err(RingError::BasisMismatch {
                op: OP,
                expected: stored,
                found: target,
            });
        }
        let mut rotated = self.automorphism(p, key.galois)?;
        self.inverse_ntt(&mut rotated)?;
        let mut acc0 = RnsPoly::zero(&self.chain, target, Form::Ntt)?;
        let mut acc1 = RnsPoly::zero(&self.chain, target, Form::Ntt)?;
        for (digit, (b, a)) in key.digits.iter().zip(&key.parts) {
            let own = digit.intersect(p.basis());
            if own.is_empty() {
                continue;
            }
            let mut x = self.extend(&rotated.restricted(own)?, target)?;
            self.forward_ntt(&mut x)?;
            self.mul_acc(&mut acc0, &x, &b.restricted(target)?)?;
            self.mul_acc(&mut acc1, &x, &a.restricted(target)?)?;
        }
        Ok((acc0, acc1))
    }
}

impl Backend for Reference {
    type Poly = RnsPoly;
    type Key = ReferenceKey;
    type Plain = PlainPoly;

    fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    fn import(&self, poly: RnsPoly) -> Result<RnsPoly> {
        self.chain.check_same("import", poly.chain())?;
        Ok(poly)
    }

    fn export(&self, poly: &RnsPoly) -> Result<RnsPoly> {
        Ok(poly.clone())
    }

    fn duplicate(&self, poly: &RnsPoly) -> RnsPoly {
        poly.clone()
    }

    fn basis(&self, poly: &RnsPoly) -> Basis {
        poly.basis()
    }

    fn form(&self, poly: &RnsPoly) -> Form {
        poly.form()
    }

    fn prepare_key(&self, key: &SwitchingKey) -> Result<ReferenceKey> {
        key.check(&self.chain)?;
        let parts = key.parts.iter().map(|(b, a)| {
            let a = a.poly(&self.chain, b.basis())?;
            Ok((b.clone(), a.into_owned()))
        });
        Ok(ReferenceKey {
            galois: key.galois,
            digits: key.digits.clone(),
            special: key.special,
            parts: parts.collect::<Result<_>>()?,
        })
    }

    fn key_galois(&self, key: &ReferenceKey) -> GaloisElement {
        key.galois
    }

    fn prepare_plain(&self, plain: &PlainPoly) -> Result<PlainPoly> {
        plain.check(&self.chain)?;
        Ok(plain.clone())
    }

    fn forward_ntt(&self, poly: &mut RnsPoly) -> Result<()> {
        poly.require_form("forward_ntt", Form::Coefficient)?;
        let n = self.chain.n();
        for (i, limb) in poly.limbs_mut() {
            let (q, powers) = (self.q(i), &self.powers[i]);
            let input = limb.to_vec();
            for (j, out) in limb.iter_mut().enumerate() {
                let e = self.exponent(j);
                let terms = input.iter().enumerate();
                *out = sum_mod(terms.map(|(k, &c)| (c, powers[(e * k) & (2 * n - 1)])), q);
            }
        }
        poly.set_form(Form::Ntt);
        Ok(())
    }

    fn inverse_ntt(&self, poly: &mut RnsPoly) -> Result<()> {
        poly.require_form("inverse_ntt", Form::Ntt)?;
        let n = self.chain.n();
        for (i, limb) in poly.limbs_mut() {
            let (m, powers) = (self.chain.modulus(i), &self.powers[i]);
            let q = m.value();
            let n_inv = m.inv(n as u64 % q).unwrap_or(0);
            let input = limb.to_vec();
            for (k, out) in limb.iter_mut().enumerate() {
                let terms = input.iter().enumerate().map(|(j, &v)| {
                    let back = (2 * n - ((self.exponent(j) * k) & (2 * n - 1))) & (2 * n - 1);
                    (v, powers[back])
                });
                *out = mul_mod(sum_mod(terms, q), n_inv, q);
            }
        }
        poly.set_form(Form::Coefficient);
        Ok(())
    }

    fn add(&self, a: &RnsPoly, b: &RnsPoly) -> Result<RnsPoly> {
        let mut sum = a.clone();
        self.add_assign(&mut sum, b)?;
        Ok(sum)
    }

    fn sub(&self, a: &RnsPoly, b: &RnsPoly) -> Result<RnsPoly> {
        let mut difference = a.clone();
        self.sub_assign(&mut difference, b)?;
        Ok(difference)
    }

    fn add_assign(&self, a: &mut RnsPoly, b: &RnsPoly) -> Result<()> {
        self.map2("add_assign", a, b, |x, y, q| (x + y) % q)
    }

    fn sub_assign(&self, a: &mut RnsPoly, b: &RnsPoly) -> Result<()> {
        self.map2("sub_assign", a, b, |x, y, q| (x + q - y) % q)
    }

    fn neg_assign(&self, a: &mut RnsPoly) -> Result<()> {
        self.chain.check_same("neg_assign", a.chain())?;
        for (i, x) in a.limbs_mut() {
            let q = self.q(i);
            x.iter_mut().for_each(|x| *x = (q - *x) % q);
        }
        Ok(())
    }

    fn mul(&self, a: &RnsPoly, b: &RnsPoly) -> Result<RnsPoly> {
        a.require_form("mul", Form::Ntt)?;
        let mut out = a.clone();
        self.map2("mul", &mut out, b, mul_mod)?;
        Ok(out)
    }

    fn mul_acc(&self, acc: &mut RnsPoly, a: &RnsPoly, b: &RnsPoly) -> Result<()> {
        let product = self.mul(a, b)?;
        acc.require_like("mul_acc", &product)?;
        self.add_assign(acc, &product)
    }

    fn mul_plain_sum(&self, terms: &[(&RnsPoly, &PlainPoly)]) -> Result<RnsPoly> {
        const OP: &str = "mul_plain_sum";
        let mut sum: Option<RnsPoly> = None;
        for (a, plain) in terms {
            let mut product = (*a).clone();
            self.map_plain(OP, &mut product, plain, mul_mod)?;
            match &mut sum {
                Some(sum) => {
                    sum.require_like(OP, &product)?;
                    self.add_assign(sum, &product)?;
                }
                None => sum = Some(product),
            }
        }
        sum.ok_or(RingError::Empty { op: OP })
    }

    fn add_plain(&self, a: &RnsPoly, plain: &PlainPoly) -> Result<RnsPoly> {
        let mut sum = a.clone();
        self.map_plain("add_plain", &mut sum, plain, |x, y, q| (x + y) % q)?;
        Ok(sum)
    }

    fn mul_scalar_assign(&self, a: &mut RnsPoly, residues: &[u64]) -> Result<()> {
        check_residues(&self.chain, a, residues)?;
        for ((i, x), &r) in a.limbs_mut().zip(residues) {
            let q = self.q(i);
            x.iter_mut().for_each(|x| *x = mul_mod(*x, r, q));
        }
        Ok(())
    }

    fn automorphism(&self, poly: &RnsPoly, g: GaloisElement) -> Result<RnsPoly> {
        self.chain.check_same("automorphism", poly.chain())?;
        g.check(self.chain.log_n())?;
        let form = poly.form();
        let mut p = poly.clone();
        if form == Form::Ntt {
            self.inverse_ntt(&mut p)?;
        }
        let n = self.chain.n();
        let mut out = RnsPoly::zero(&self.chain, p.basis(), Form::Coefficient)?;
        for ((i, dst), (_, src)) in out.limbs_mut().zip(p.limbs()) {
            let q = self.q(i);
            for (k, &c) in src.iter().enumerate() {
                let e = k * g.value() as usize % (2 * n);
                dst[e % n] = if e < n { c } else { (q - c) % q };
            }
        }
        if form == Form::Ntt {
            self.forward_ntt(&mut out)?;
        }
        Ok(out)
    }

    fn restrict(&self, poly: &RnsPoly, to: Basis) -> Result<RnsPoly> {
        self.chain.check_same("restrict", poly.chain())?;
        poly.restricted(to)
    }

    fn extend(&self, poly: &RnsPoly, to: Basis) -> Result<RnsPoly> {
        check_extend(&self.chain, poly, to)?;
        RnsPoly::from_bigint(&self.chain, to, &poly.to_centered_bigint()?)
    }

    fn div_round(&self, poly: &RnsPoly, drop: Basis) -> Result<RnsPoly> {
        let to = check_rescale(&self.chain, "div_round", poly, drop, Basis::empty())?;
        self.scale_round(poly, Basis::empty(), drop, to)
    }

    fn rescale_rational(&self, poly: &RnsPoly, drop: Basis, add: Basis) -> Result<RnsPoly> {
        let to = check_rescale(&self.chain, "rescale_rational", poly, drop, add)?;
        self.scale_round(poly, add, drop, to)
    }

    fn key_switch_sum(
        &self,
        add: Option<PairRef<'_, RnsPoly>>,
        terms: &[(&RnsPoly, &ReferenceKey)],
        drop: Basis,
    ) -> Result<(RnsPoly, RnsPoly)> {
        const OP: &str = "key_switch_sum";
        let Some((first, key)) = terms.first() else {
            return Err(RingError::Empty { op: OP });
        };
        let (basis, special) = (first.basis(), key.special);
        let target = basis.union(special);
        let mut acc = (
            RnsPoly::zero(&self.chain, target, Form::Ntt)?,
            RnsPoly::zero(&self.chain, target, Form::Ntt)?,
        );
        for (p, k) in terms {
            first.require_like(OP, p)?;
            if k.special != special {
                return Err(RingError::BadKey("keys of one sum must share P".into()));
            }
            let (x0, x1) = self.switch(p, k)?;
            self.add_assign(&mut acc.0, &x0)?;
            self.add_assign(&mut acc.1, &x1)?;
        }
        if let Some((a0, a1)) = add {
            for (acc, a) in [(&mut acc.0, a0), (&mut acc.1, a1)] {
                first.require_like(OP, a)?;
                for (i, x) in acc.limbs_mut() {
                    let (q, p) = (self.q(i), self.chain.product_mod(special, i));
                    if let Some(a) = a.limb_of(i) {
                        x.iter_mut()
                            .zip(a)
                            .for_each(|(x, &a)| *x = (*x + mul_mod(a, p, q)) % q);
                    }
                }
            }
        }
        check_drop(OP, basis, drop)?;
        let den = special.union(drop);
        Ok((self.div_round(&acc.0, den)?, self.div_round(&acc.1, den)?))
    }

    fn rotate_many(
        &self,
        c: PairRef<'_, RnsPoly>,
        keys: &[&ReferenceKey],
    ) -> Result<Vec<Pair<RnsPoly>>> {
        keys.iter()
            .map(|key| {
                c.0.require_like("rotate_many", c.1)?;
                let (mut x0, x1) = self.key_switch_sum(None, &[(c.1, key)], Basis::empty())?;
                self.add_assign(&mut x0, &self.automorphism(c.0, key.galois)?)?;
                Ok((x0, x1))
            })
            .collect()
    }

    fn linear_transform(
        &self,
        inputs: &[PairRef<'_, RnsPoly>],
        plan: &TransformPlan<'_, Self>,
        drop: Basis,
    ) -> Result<Vec<Pair<RnsPoly>>> {
        self.transform(inputs, plan, drop)
    }
}

/// Refuses a `drop` of a fused operation that is no proper subset of the polynomials' basis.
pub(crate) fn check_drop(op: &'static str, basis: Basis, drop: Basis) -> Result<()> {
    if basis.contains_all(drop) && basis != drop {
        return Ok(());
    }
    Err(RingError::BadBasis {
        op,
        basis: drop,
        reason: "drop must be a proper subset of the polynomials' basis",
    })
}

/// The preconditions of `mul_scalar_assign`.
pub(crate) fn check_residues(chain: &Arc<Chain>, a: &RnsPoly, residues: &[u64]) -> Result<()> {
    const OP: &str = "mul_scalar_assign";
    chain.check_same(OP, a.chain())?;
    if residues.len() != a.basis().len() {
        return Err(RingError::BadLength {
            op: OP,
            expected: a.basis().len(),
            found: residues.len(),
        });
    }
    for (limb, (i, &value)) in a.basis().iter().zip(residues).enumerate() {
        let prime = chain.modulus(i).value();
        if value >= prime {
            return Err(RingError::NotCanonical { limb, value, prime });
        }
    }
    Ok(())
}

/// The preconditions of `extend`.
pub(crate) fn check_extend(chain: &Arc<Chain>, poly: &RnsPoly, to: Basis) -> Result<()> {
    const OP: &str = "extend";
    chain.check_same(OP, poly.chain())?;
    chain.check_basis(OP, to)?;
    poly.require_form(OP, Form::Coefficient)?;
    if poly.basis().is_empty() {
        return Err(RingError::BadBasis {
            op: OP,
            basis: poly.basis(),
            reason: "the source basis is empty",
        });
    }
    Ok(())
}

/// The preconditions of `div_round` and `rescale_rational`; returns the basis of the result.
pub(crate) fn check_rescale(
    chain: &Arc<Chain>,
    op: &'static str,
    poly: &RnsPoly,
    drop: Basis,
    add: Basis,
) -> Result<Basis> {
    chain.check_same(op, poly.chain())?;
    chain.check_basis(op, add)?;
    let basis = poly.basis();
    if drop.is_empty() || !basis.contains_all(drop) {
        return Err(RingError::BadBasis {
            op,
            basis: drop,
            reason: "the dropped primes must be a non-empty subset of the polynomial's basis",
        });
    }
    if !add.is_disjoint(basis) {
        return Err(RingError::BadBasis {
            op,
            basis: add,
            reason: "the added primes must not be in the polynomial's basis",
        });
    }
    let to = basis.minus(drop).union(add);
    if to.is_empty() {
        return Err(RingError::BadBasis {
            op,
            basis: drop,
            reason: "nothing would remain",
        });
    }
    Ok(to)
}
