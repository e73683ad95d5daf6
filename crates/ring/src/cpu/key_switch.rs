//! Key switching: its rules and its three shapes; the work is in `engine`.

use super::engine::{Added, Decomposed, Job, Shape};
use super::{Cpu, CpuKey};
use crate::backend::{Backend, FactorsRef, Pair, PairRef, check_raise, lift};
use crate::basis::Basis;
use crate::error::{Result, RingError};
use crate::kernels::MOST_PRODUCTS;
use crate::poly::{Form, RnsPoly};
use crate::reference::check_drop;

const OP: &str = "key_switch_sum";

impl CpuKey {
    /// Refuses a key that does not switch polynomials on `basis` with this P.
    pub(super) fn check_covers(
        &self,
        op: &'static str,
        basis: Basis,
        special: Basis,
    ) -> Result<()> {
        if self.special != special {
            return Err(RingError::BadKey("keys of one sum must share P".into()));
        }
        let covered = self.digits.iter().fold(Basis::empty(), |a, &d| a.union(d));
        let needed = basis.union(special);
        if !covered.contains_all(basis) || !self.basis.contains_all(needed) {
            return Err(RingError::BasisMismatch {
                op,
                expected: self.basis,
                found: needed,
            });
        }
        Ok(())
    }
}

impl Cpu {
    pub(super) fn switch_sum(
        &self,
        add: Option<PairRef<'_, RnsPoly>>,
        terms: &[(&RnsPoly, &CpuKey)],
        drop: Basis,
    ) -> Result<Pair<RnsPoly>> {
        let Some((first, key)) = terms.first() else {
            return Err(RingError::Empty { op: OP });
        };
        if let Some((a0, a1)) = add {
            first.require_like(OP, a0)?;
            first.require_like(OP, a1)?;
        }
        let shape = self.check_terms(first, key, terms, drop)?;
        let add = add.map_or([None, None], |(a0, a1)| [Some(a0), Some(a1)]);
        // What is added rides on the first inner product if that is not permuted afterwards.
        let inside = key.galois.is_identity();
        let job = Job {
            add_inside: Added::Pair(if inside { add } else { [None, None] }),
            add_before: if inside { [None, None] } else { add },
            onto: false,
            every: false,
            terms: terms
                .iter()
                .enumerate()
                .map(|(i, (_, k))| (i, *k))
                .collect(),
        };
        self.run(terms, &[job], shape)
            .pop()
            .ok_or(RingError::Empty { op: OP })
    }

    /// The third polynomial of a sum of tensor products, limb by limb; the first two come into
    /// being where the key switch adds them.
    pub(super) fn tensor_relin(
        &self,
        pairs: &[FactorsRef<'_, RnsPoly>],
        key: &CpuKey,
        drop: Basis,
    ) -> Result<Pair<RnsPoly>> {
        const OP: &str = "mul_sum_relin";
        let Some(((first, _), _)) = pairs.first() else {
            return Err(RingError::Empty { op: OP });
        };
        for ((a0, a1), (b0, b1)) in pairs {
            for p in [a0, a1, b0, b1] {
                first.require_like(OP, p)?;
            }
        }
        let shape = self.check_terms(first, key, &[(first, key)], drop)?;
        let mut d2 = RnsPoly::dirty(&self.chain, first.basis(), Form::Ntt);
        let past = self.floods(std::iter::once(&key.digits[..]), 1, shape);
        let digits = self.decompose_products(&mut d2, pairs, &key.digits, past);
        if !key.galois.is_identity() || pairs.len() > MOST_PRODUCTS {
            // The sums are not to be permuted with the products, or too many to stay lazy.
            return self.tensor_before(pairs, (digits, key), (shape, past));
        }
        let job = Job {
            add_inside: Added::Products(pairs),
            add_before: [None, None],
            onto: false,
            every: false,
            terms: vec![(0, key)],
        };
        self.run_on(&[digits], &[job], (shape, past))
            .pop()
            .ok_or(RingError::Empty { op: OP })
    }

    /// The same with the first two polynomials made in full.
    fn tensor_before(
        &self,
        pairs: &[FactorsRef<'_, RnsPoly>],
        (digits, key): (Decomposed<'_>, &CpuKey),
        (shape, past): (Shape, bool),
    ) -> Result<Pair<RnsPoly>> {
        let zero = || RnsPoly::zero(&self.chain, shape.basis, Form::Ntt);
        let (mut d0, mut d1) = (zero()?, zero()?);
        for ((a0, a1), (b0, b1)) in pairs {
            self.mul_acc(&mut d0, a0, b0)?;
            self.mul_acc(&mut d1, a0, b1)?;
            self.mul_acc(&mut d1, a1, b0)?;
        }
        let job = Job {
            add_inside: Added::Pair([None, None]),
            add_before: [Some(&d0), Some(&d1)],
            onto: false,
            every: false,
            terms: vec![(0, key)],
        };
        self.run_on(&[digits], &[job], (shape, past))
            .pop()
            .ok_or(RingError::Empty { op: OP })
    }

    pub(super) fn rotate_hoisted(
        &self,
        c: PairRef<'_, RnsPoly>,
        keys: &[&CpuKey],
    ) -> Result<Vec<Pair<RnsPoly>>> {
        let Some(key) = keys.first() else {
            return Ok(Vec::new());
        };
        c.0.require_like("rotate_many", c.1)?;
        let terms: Vec<(&RnsPoly, &CpuKey)> = keys.iter().map(|k| (c.1, *k)).collect();
        let shape = self.check_terms(c.1, key, &terms, Basis::empty())?;
        if keys
            .iter()
            .any(|k| !cut_alike(&k.digits, &key.digits, shape.basis))
        {
            // Digits of another partition cannot be shared: one switch each.
            return keys
                .iter()
                .map(|k| {
                    self.rotate_hoisted(c, &[k])?
                        .pop()
                        .ok_or(RingError::Empty { op: OP })
                })
                .collect();
        }
        let mut outputs = Vec::with_capacity(keys.len());
        // Bounds the memory of intermediate products.
        for keys in keys.chunks(8) {
            let jobs: Vec<Job<'_>> = keys
                .iter()
                .map(|k| Job {
                    add_inside: Added::Pair([Some(c.0), None]),
                    add_before: [None, None],
                    onto: false,
                    every: false,
                    terms: vec![(0, *k)],
                })
                .collect();
            outputs.extend(self.run(&[(c.1, *key)], &jobs, shape));
        }
        Ok(outputs)
    }

    /// A pair plus its rotations.
    pub(super) fn rotate_hoisted_sum(
        &self,
        c: PairRef<'_, RnsPoly>,
        keys: &[&CpuKey],
    ) -> Result<Pair<RnsPoly>> {
        let Some(key) = keys.first() else {
            return Err(RingError::Empty { op: "rotate_sum" });
        };
        c.0.require_like("rotate_sum", c.1)?;
        let terms: Vec<(&RnsPoly, &CpuKey)> = keys.iter().map(|k| (c.1, *k)).collect();
        let shape = self.check_terms(c.1, key, &terms, Basis::empty())?;
        // Digits of another partition cannot be shared.
        let alike = |k: &&CpuKey| cut_alike(&k.digits, &key.digits, shape.basis);
        let (shared, others): (Vec<&CpuKey>, Vec<&CpuKey>) = keys.iter().partition(|k| alike(k));
        let polys: Vec<(&RnsPoly, &CpuKey)> = std::iter::once(*key)
            .chain(others.iter().copied())
            .map(|key| (c.1, key))
            .collect();
        let others = others.into_iter().enumerate().map(|(i, k)| (i + 1, k));
        let job = Job {
            add_inside: Added::Pair([Some(c.0), None]),
            every: true,
            add_before: [Some(c.0), Some(c.1)],
            onto: false,
            terms: shared.into_iter().map(|k| (0, k)).chain(others).collect(),
        };
        self.run(&polys, &[job], shape)
            .pop()
            .ok_or(RingError::Empty { op: "rotate_sum" })
    }

    /// A key switch of a pair lifted to `to`. The second half is converted where it meets the key.
    pub(super) fn raise_pair(
        &self,
        c: PairRef<'_, RnsPoly>,
        key: &CpuKey,
        to: Basis,
    ) -> Result<Pair<RnsPoly>> {
        const OP: &str = "raise";
        c.0.require_like(OP, c.1)?;
        check_raise((c.0.basis(), c.1.basis()), to)?;
        let c0 = lift(self, c.0, to)?;
        if !key.digits.iter().any(|digit| digit.contains_all(to)) {
            // Digits that cut the lift: it is decomposed like any other polynomial.
            let c1 = lift(self, c.1, to)?;
            let raised = self.rotate_hoisted((&c0, &c1), &[key])?.pop();
            return raised.ok_or(RingError::Empty { op: OP });
        }
        self.chain.check_same(OP, c.1.chain())?;
        key.check_covers(OP, to, key.special)?;
        let shape = Shape {
            basis: to,
            special: key.special,
            drop: Basis::empty(),
        };
        let job = Job {
            add_inside: Added::Pair([Some(&c0), None]),
            add_before: [None, None],
            onto: false,
            every: false,
            terms: vec![(0, key)],
        };
        let raised = self.run(&[(c.1, key)], &[job], shape).pop();
        raised.ok_or(RingError::Empty { op: OP })
    }

    fn check_terms(
        &self,
        first: &RnsPoly,
        key: &CpuKey,
        terms: &[(&RnsPoly, &CpuKey)],
        drop: Basis,
    ) -> Result<Shape> {
        let (basis, special) = (first.basis(), key.special);
        self.chain.check_same(OP, first.chain())?;
        first.require_form(OP, Form::Ntt)?;
        for (p, k) in terms {
            first.require_like(OP, p)?;
            k.check_covers(OP, basis, special)?;
        }
        check_drop(OP, basis, drop)?;
        Ok(Shape {
            basis,
            special,
            drop,
        })
    }
}

/// Whether two keys' digits cut a polynomial on `basis` alike, into the same rows: keys of different levels
/// may differ in what lies outside.
pub(super) fn cut_alike(a: &[Basis], b: &[Basis], basis: Basis) -> bool {
    let digit = |of: &[Basis], d: usize| of.get(d).map_or(Basis::empty(), |x| x.intersect(basis));
    (0..a.len().max(b.len())).all(|d| digit(a, d) == digit(b, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_several_levels_cut_what_lies_below_alike() {
        let range = Basis::range;
        let low = [range(0, 3), range(3, 4)];
        let high = [range(0, 3), range(3, 6), range(6, 8)];
        let basis = range(0, 4);
        assert!(cut_alike(&low, &high, basis) && cut_alike(&high, &low, basis));
        assert!(!cut_alike(&low, &high, range(0, 5)));
        assert!(!cut_alike(&low, &[range(0, 2), range(2, 4)], basis));
        // The same digits in other rows.
        assert!(!cut_alike(&low, &[range(6, 8), low[0], low[1]], basis));
    }
}
