//! The doubly hoisted linear transform, as [`Backend::linear_transform`] defines it.

use super::{Reference, ReferenceKey, check_drop, mul_mod};
use crate::backend::{
    Backend, GiantStep, OutputPlan, Pair, PairRef, TransformPlan, check_plan, used_keys,
};
use crate::basis::Basis;
use crate::error::{Result, RingError};
use crate::poly::{Form, RnsPoly};

const OP: &str = "linear_transform";

type Inputs<'a> = [PairRef<'a, RnsPoly>];
type Plan<'a> = TransformPlan<'a, Reference>;

impl Reference {
    pub(super) fn transform(
        &self,
        inputs: &Inputs<'_>,
        plan: &Plan<'_>,
        drop: Basis,
    ) -> Result<Vec<Pair<RnsPoly>>> {
        check_plan(inputs.len(), plan)?;
        let first = inputs[0].0;
        let basis = first.basis();
        for (c0, c1) in inputs {
            c0.require_form(OP, Form::Ntt)?;
            first.require_like(OP, c0)?;
            first.require_like(OP, c1)?;
        }
        check_drop(OP, basis, drop)?;
        let special = shared_special(plan)?;
        let outputs = plan.outputs.iter();
        outputs
            .map(|output| {
                let acc = self.undivided(inputs, plan, (output, special))?;
                let divisor = special.union(drop);
                if divisor.is_empty() {
                    return Ok(acc);
                }
                Ok((
                    self.div_round(&acc.0, divisor)?,
                    self.div_round(&acc.1, divisor)?,
                ))
            })
            .collect()
    }

    /// An output before its last division, on the basis with P.
    fn undivided(
        &self,
        inputs: &Inputs<'_>,
        plan: &Plan<'_>,
        (output, special): (&OutputPlan, Basis),
    ) -> Result<Pair<RnsPoly>> {
        if output.nested {
            return self.nested(inputs, plan, (&output.giants, special));
        }
        let mut acc = self.zero_pair(inputs[0].0.basis().union(special))?;
        for giant in &output.giants {
            let turned = self.giant(inputs, plan, (giant, special))?;
            self.add_pair(&mut acc, &turned)?;
        }
        Ok(acc)
    }

    /// The same with nested giant steps.
    fn nested(
        &self,
        inputs: &Inputs<'_>,
        plan: &Plan<'_>,
        (giants, special): (&[GiantStep], Basis),
    ) -> Result<Pair<RnsPoly>> {
        let mut acc = self.zero_pair(inputs[0].0.basis().union(special))?;
        for giant in giants.iter().rev() {
            self.add_pair(&mut acc, &self.sum(inputs, plan, (giant, special))?)?;
            if let Some(key) = giant.key.map(|k| plan.keys[k]) {
                acc = self.giant_turn(key, acc)?;
            }
        }
        Ok(acc)
    }

    fn add_pair(&self, acc: &mut Pair<RnsPoly>, x: &Pair<RnsPoly>) -> Result<()> {
        self.add_assign(&mut acc.0, &x.0)?;
        self.add_assign(&mut acc.1, &x.1)
    }

    fn zero_pair(&self, basis: Basis) -> Result<Pair<RnsPoly>> {
        let zero = || RnsPoly::zero(&self.chain, basis, Form::Ntt);
        Ok((zero()?, zero()?))
    }

    /// `A_g`, on the basis with P.
    fn sum(
        &self,
        inputs: &Inputs<'_>,
        plan: &Plan<'_>,
        (giant, special): (&GiantStep, Basis),
    ) -> Result<Pair<RnsPoly>> {
        let basis = inputs[0].0.basis();
        let mut acc = self.zero_pair(basis.union(special))?;
        for term in &giant.terms {
            let plain = plan.plains[term.plain];
            let (c0, c1) = inputs[term.input];
            let product = match term.baby {
                // A multiple of P does not depend on the plaintext modulo P.
                None => (
                    self.lift(&self.mul_plain(c0, plain)?, special)?,
                    self.lift(&self.mul_plain(c1, plain)?, special)?,
                ),
                Some(key) => {
                    let (s0, s1) = self.turn(plan.keys[key], c0, c1)?;
                    (self.mul_plain(&s0, plain)?, self.mul_plain(&s1, plain)?)
                }
            };
            self.add_pair(&mut acc, &product)?;
        }
        Ok(acc)
    }

    /// `T_g`, on the basis with P.
    fn giant(
        &self,
        inputs: &Inputs<'_>,
        plan: &Plan<'_>,
        (giant, special): (&GiantStep, Basis),
    ) -> Result<Pair<RnsPoly>> {
        let sum = self.sum(inputs, plan, (giant, special))?;
        match giant.key.map(|k| plan.keys[k]) {
            None => Ok(sum),
            Some(key) => self.giant_turn(key, sum),
        }
    }

    /// `T_g` from `A_g`, or from that and the steps nested in it.
    fn giant_turn(&self, key: &ReferenceKey, (a0, a1): Pair<RnsPoly>) -> Result<Pair<RnsPoly>> {
        let y = self.div_round(&a1, key.special)?;
        let (mut t0, t1) = self.switch(&y, key)?;
        self.add_assign(&mut t0, &self.automorphism(&a0, key.galois)?)?;
        Ok((t0, t1))
    }

    /// `S_b(c)`, on the basis with P.
    fn turn(&self, key: &ReferenceKey, c0: &RnsPoly, c1: &RnsPoly) -> Result<Pair<RnsPoly>> {
        let (mut s0, s1) = self.switch(c1, key)?;
        let turned = self.automorphism(c0, key.galois)?;
        self.add_assign(&mut s0, &self.lift(&turned, key.special)?)?;
        Ok((s0, s1))
    }

    /// `P x`: zero modulo the primes of P.
    fn lift(&self, x: &RnsPoly, special: Basis) -> Result<RnsPoly> {
        let mut out = RnsPoly::zero(&self.chain, x.basis().union(special), x.form())?;
        for (i, out) in out.limbs_mut() {
            let (q, p) = (self.q(i), self.chain.product_mod(special, i));
            if let Some(x) = x.limb_of(i) {
                out.iter_mut()
                    .zip(x)
                    .for_each(|(out, &x)| *out = mul_mod(x, p, q));
            }
        }
        Ok(out)
    }
}

/// P of the keys that the plan uses; empty if there are none.
fn shared_special(plan: &Plan<'_>) -> Result<Basis> {
    let mut specials = used_keys(plan).map(|k| plan.keys[k].special);
    let first = specials.next().unwrap_or_default();
    if specials.any(|s| s != first) {
        return Err(RingError::BadKey("keys of one sum must share P".into()));
    }
    Ok(first)
}
