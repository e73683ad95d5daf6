//! The `Backend` trait: a machine that computes on residue polynomials.

use std::sync::Arc;

use crate::basis::Basis;
use crate::chain::Chain;
use crate::error::{Result, RingError};
use crate::galois::GaloisElement;
use crate::key::{PlainPoly, SwitchingKey};
use crate::poly::{Form, RnsPoly};

/// Two polynomials `(c0, c1)`, borrowed.
pub type PairRef<'a, P> = (&'a P, &'a P);

/// Two polynomials `(c0, c1)`, owned.
pub type Pair<P> = (P, P);

/// Two ciphertexts to be multiplied, borrowed.
pub type FactorsRef<'a, P> = (PairRef<'a, P>, PairRef<'a, P>);

/// A baby-step giant-step linear transform (Halevi and Shoup, "Faster homomorphic linear
/// transformations in HElib", section 3).
///
/// Output `o` is `sum_g sigma_g( sum_t plain_t * sigma_{b_t}(input_t) )` over its giant steps `g`
/// and their terms `t`.
pub struct TransformPlan<'a, B: Backend + ?Sized> {
    /// The keys that baby and giant steps name by index.
    pub keys: Vec<&'a B::Key>,
    /// The plaintexts that terms name by index. Each lives at least on the inputs' basis.
    pub plains: Vec<&'a B::Plain>,
    /// Per output its giant steps.
    pub outputs: Vec<Vec<GiantStep>>,
}

/// One giant step of a [`TransformPlan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GiantStep {
    /// Index of the key; `None` is the identity, which needs no key.
    pub key: Option<usize>,
    /// The terms that are summed before the giant step.
    pub terms: Vec<DiagonalTerm>,
}

/// One product of a [`TransformPlan`]: `plain * sigma_baby(inputs[input])`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiagonalTerm {
    /// Index of the input.
    pub input: usize,
    /// Index of the baby step's key; `None` is the identity.
    pub baby: Option<usize>,
    /// Index of the plaintext.
    pub plain: usize,
}

/// A machine that computes on residue polynomials.
///
/// Every operation checks bases, forms and chains and returns an error on a mismatch. Values are
/// canonical at every boundary and every implementer is bit-identical to
/// [`Reference`](crate::Reference) (up to the tie rule that [`extend`](Backend::extend) states).
/// One call runs on one thread; a backend may be called from many.
pub trait Backend: Send + Sync {
    /// A polynomial in the backend's memory.
    type Poly: Send + Sync;
    /// A prepared switching key.
    type Key: Send + Sync;
    /// A prepared plaintext.
    type Plain: Send + Sync;

    /// The chain of moduli.
    fn chain(&self) -> &Arc<Chain>;
    /// Takes a host polynomial.
    fn import(&self, poly: RnsPoly) -> Result<Self::Poly>;
    /// Gives a host polynomial.
    fn export(&self, poly: &Self::Poly) -> Result<RnsPoly>;
    /// A copy.
    fn duplicate(&self, poly: &Self::Poly) -> Self::Poly;
    /// The primes of a polynomial.
    fn basis(&self, poly: &Self::Poly) -> Basis;
    /// The form of a polynomial.
    fn form(&self, poly: &Self::Poly) -> Form;
    /// Brings a key into the form that key switching wants.
    fn prepare_key(&self, key: &SwitchingKey) -> Result<Self::Key>;
    /// The automorphism of a prepared key.
    fn key_galois(&self, key: &Self::Key) -> GaloisElement;
    /// Brings a plaintext into the form that products want.
    fn prepare_plain(&self, plain: &PlainPoly) -> Result<Self::Plain>;

    /// The zero polynomial.
    fn zero(&self, basis: Basis, form: Form) -> Result<Self::Poly> {
        self.import(RnsPoly::zero(self.chain(), basis, form)?)
    }

    /// Coefficient to NTT form.
    fn forward_ntt(&self, poly: &mut Self::Poly) -> Result<()>;
    /// NTT to coefficient form.
    fn inverse_ntt(&self, poly: &mut Self::Poly) -> Result<()>;
    /// `a += b`, either form.
    fn add_assign(&self, a: &mut Self::Poly, b: &Self::Poly) -> Result<()>;
    /// `a -= b`, either form.
    fn sub_assign(&self, a: &mut Self::Poly, b: &Self::Poly) -> Result<()>;
    /// `a = -a`, either form.
    fn neg_assign(&self, a: &mut Self::Poly) -> Result<()>;
    /// `a * b`, NTT form.
    fn mul(&self, a: &Self::Poly, b: &Self::Poly) -> Result<Self::Poly>;
    /// `acc += a * b`, NTT form.
    fn mul_acc(&self, acc: &mut Self::Poly, a: &Self::Poly, b: &Self::Poly) -> Result<()>;
    /// `a * plain`, NTT form; the plaintext may live on a larger basis.
    fn mul_plain(&self, a: &Self::Poly, plain: &Self::Plain) -> Result<Self::Poly>;
    /// `acc += a * plain`, NTT form; the plaintext may live on a larger basis.
    fn mul_plain_acc(
        &self,
        acc: &mut Self::Poly,
        a: &Self::Poly,
        plain: &Self::Plain,
    ) -> Result<()>;
    /// `a += plain`, NTT form; the plaintext may live on a larger basis.
    fn add_plain_assign(&self, a: &mut Self::Poly, plain: &Self::Plain) -> Result<()>;
    /// Multiplies by an integer given by its residues, one per limb, either form.
    fn mul_scalar_assign(&self, a: &mut Self::Poly, residues: &[u64]) -> Result<()>;
    /// `p(X) -> p(X^g)`, either form.
    fn automorphism(&self, poly: &Self::Poly, g: GaloisElement) -> Result<Self::Poly>;
    /// Keeps a sub-basis.
    fn restrict(&self, poly: &Self::Poly, to: Basis) -> Result<Self::Poly>;

    /// The centred representative in `[-D/2, D/2)`, `D` the product of the source basis, on `to`
    /// (coefficient form). Limbs that are in both bases are copied.
    ///
    /// The quotient is found in fixed point: a coefficient within `2^-44 D` of the tie `D/2` may
    /// come out as its neighbour representative (`x - D` for `x`), alike on all machines. With one
    /// source prime it is exact.
    fn extend(&self, poly: &Self::Poly, to: Basis) -> Result<Self::Poly>;

    /// `round(x / prod(drop))` on the basis without `drop`, centred; the form is kept. This is
    /// ModDown and rescaling. Unbiased: `prod(drop)` is odd, so there are no ties.
    fn div_round(&self, poly: &Self::Poly, drop: Basis) -> Result<Self::Poly>;

    /// `round(x * prod(add) / prod(drop))` on the basis without `drop` and with `add`; the form is
    /// kept. `add` is disjoint from the basis.
    fn rescale_rational(&self, poly: &Self::Poly, drop: Basis, add: Basis) -> Result<Self::Poly>;

    /// A sum of key switches with one ModDown, and a rescale fused into it: two polynomials (NTT)
    /// on the basis without `drop`,
    /// `round((P add + sum_i sigma_i(sum_d digit_d(poly_i) key_{i,d})) / (P prod(drop)))`.
    ///
    /// All polynomials are in NTT form on one basis `B`; all keys share `P`; `drop` is a proper
    /// subset of `B`. `digit_d(p)` is the exact centred extension of `p` restricted to digit `d` of
    /// `B`.
    #[allow(clippy::type_complexity)]
    fn key_switch_sum(
        &self,
        add: Option<PairRef<'_, Self::Poly>>,
        terms: &[(&Self::Poly, &Self::Key)],
        drop: Basis,
    ) -> Result<Pair<Self::Poly>>;

    /// Hoisted rotations: for each key `(sigma(c0) + ks0, ks1)`, with `c1` decomposed once.
    /// Bit-identical to rotating by each key alone.
    fn rotate_many(
        &self,
        c: PairRef<'_, Self::Poly>,
        keys: &[&Self::Key],
    ) -> Result<Vec<Pair<Self::Poly>>>;

    /// The sum of tensor products `a_i (x) b_i`, relinearized once: `(d0, d1)` plus the switch of
    /// `d2`, divided by `prod(drop)`.
    fn mul_sum_relin(
        &self,
        pairs: &[FactorsRef<'_, Self::Poly>],
        key: &Self::Key,
        drop: Basis,
    ) -> Result<Pair<Self::Poly>> {
        let Some(((first, _), _)) = pairs.first() else {
            return Err(RingError::Empty {
                op: "mul_sum_relin",
            });
        };
        let basis = self.basis(first);
        let mut d0 = self.zero(basis, Form::Ntt)?;
        let mut d1 = self.zero(basis, Form::Ntt)?;
        let mut d2 = self.zero(basis, Form::Ntt)?;
        for ((a0, a1), (b0, b1)) in pairs {
            self.mul_acc(&mut d0, a0, b0)?;
            self.mul_acc(&mut d1, a0, b1)?;
            self.mul_acc(&mut d1, a1, b0)?;
            self.mul_acc(&mut d2, a1, b1)?;
        }
        self.key_switch_sum(Some((&d0, &d1)), &[(&d2, key)], drop)
    }

    /// A linear transform of several inputs to several outputs, divided by `prod(drop)`; one
    /// ModDown per output for all its giant steps, with the rescale in it.
    ///
    /// Bit-identical to the definition: baby steps as [`rotate_many`](Backend::rotate_many), giant
    /// steps as one [`key_switch_sum`](Backend::key_switch_sum).
    fn linear_transform(
        &self,
        inputs: &[PairRef<'_, Self::Poly>],
        plan: &TransformPlan<'_, Self>,
        drop: Basis,
    ) -> Result<Vec<Pair<Self::Poly>>> {
        linear_transform_by_steps(self, inputs, plan, drop)
    }
}

/// Checks the indices of a plan and lists, per input, the baby keys that it needs.
pub(crate) fn baby_keys<B: Backend + ?Sized>(
    inputs: usize,
    plan: &TransformPlan<'_, B>,
) -> Result<Vec<Vec<usize>>> {
    let mut babies = vec![Vec::new(); inputs];
    let bad = |what: &str, index: usize, count: usize| {
        Err(RingError::BadPlan(format!(
            "{what} {index} is named, but only {count} are given"
        )))
    };
    for (o, giants) in plan.outputs.iter().enumerate() {
        if giants.is_empty() || giants.iter().any(|g| g.terms.is_empty()) {
            return Err(RingError::BadPlan(format!("output {o} has no terms")));
        }
        for giant in giants {
            if let Some(k) = giant.key.filter(|&k| k >= plan.keys.len()) {
                return bad("key", k, plan.keys.len());
            }
            for t in &giant.terms {
                if t.plain >= plan.plains.len() {
                    return bad("plaintext", t.plain, plan.plains.len());
                }
                let Some(list) = babies.get_mut(t.input) else {
                    return bad("input", t.input, inputs);
                };
                match t.baby {
                    Some(k) if k >= plan.keys.len() => return bad("key", k, plan.keys.len()),
                    Some(k) if !list.contains(&k) => list.push(k),
                    _ => {}
                }
            }
        }
    }
    Ok(babies)
}

/// The linear transform from its parts: what the definition says, and the default of the trait.
pub(crate) fn linear_transform_by_steps<B: Backend + ?Sized>(
    backend: &B,
    inputs: &[PairRef<'_, B::Poly>],
    plan: &TransformPlan<'_, B>,
    drop: Basis,
) -> Result<Vec<Pair<B::Poly>>> {
    let Some((first, _)) = inputs.first() else {
        return Err(RingError::Empty {
            op: "linear_transform",
        });
    };
    let basis = backend.basis(first);
    let babies = baby_keys(inputs.len(), plan)?;
    let mut rotated = Vec::with_capacity(inputs.len());
    for (input, keys) in inputs.iter().zip(&babies) {
        let list: Vec<&B::Key> = keys.iter().map(|&k| plan.keys[k]).collect();
        rotated.push(if list.is_empty() {
            Vec::new()
        } else {
            backend.rotate_many(*input, &list)?
        });
    }
    let mut outputs = Vec::with_capacity(plan.outputs.len());
    for giants in &plan.outputs {
        let mut sum0 = backend.zero(basis, Form::Ntt)?;
        let mut sum1 = backend.zero(basis, Form::Ntt)?;
        let mut switched = Vec::new();
        for giant in giants {
            let mut acc = match giant.key {
                None => None,
                Some(k) => Some((
                    plan.keys[k],
                    backend.zero(basis, Form::Ntt)?,
                    backend.zero(basis, Form::Ntt)?,
                )),
            };
            for t in &giant.terms {
                let (x0, x1) = match t.baby {
                    None => inputs[t.input],
                    Some(k) => {
                        let at = babies[t.input].iter().position(|&b| b == k).unwrap_or(0);
                        let (x0, x1) = &rotated[t.input][at];
                        (x0, x1)
                    }
                };
                let plain = plan.plains[t.plain];
                let (a0, a1) = match &mut acc {
                    None => (&mut sum0, &mut sum1),
                    Some((_, a0, a1)) => (a0, a1),
                };
                backend.mul_plain_acc(a0, x0, plain)?;
                backend.mul_plain_acc(a1, x1, plain)?;
            }
            if let Some((key, a0, a1)) = acc {
                backend.add_assign(
                    &mut sum0,
                    &backend.automorphism(&a0, backend.key_galois(key))?,
                )?;
                switched.push((a1, key));
            }
        }
        let terms: Vec<(&B::Poly, &B::Key)> = switched.iter().map(|(p, k)| (p, *k)).collect();
        outputs.push(if terms.is_empty() {
            if drop.is_empty() {
                (sum0, sum1)
            } else {
                (
                    backend.div_round(&sum0, drop)?,
                    backend.div_round(&sum1, drop)?,
                )
            }
        } else {
            backend.key_switch_sum(Some((&sum0, &sum1)), &terms, drop)?
        });
    }
    Ok(outputs)
}
