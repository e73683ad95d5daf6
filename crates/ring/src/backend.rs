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
/// With `A_g = sum_t plain_t * sigma_{b_t}(input_t)` over the terms `t` of a giant step `g`, an output
/// is `sum_g sigma_g(A_g)`, or, with nested giant steps, `sigma_0(A_0 + sigma_1(A_1 + ..))`, up to
/// the roundings that [`linear_transform`](Backend::linear_transform) defines.
pub struct TransformPlan<'a, B: Backend + ?Sized> {
    /// The keys that baby and giant steps name by index.
    pub keys: Vec<&'a B::Key>,
    /// The plaintexts that terms name by index. Each lives at least on the inputs' basis; one that
    /// meets a rotated input also lives on the special primes of the keys.
    pub plains: Vec<&'a B::Plain>,
    /// The outputs.
    pub outputs: Vec<OutputPlan>,
}

/// One output of a [`TransformPlan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPlan {
    /// Its giant steps.
    pub giants: Vec<GiantStep>,
    /// Whether each giant step is applied to the sum of its terms and of all later giant steps
    /// (Horner's rule) instead of to its own terms alone: equal steps then share a key.
    pub nested: bool,
}

impl OutputPlan {
    /// A sum of giant steps.
    #[must_use]
    pub fn beside(giants: Vec<GiantStep>) -> Self {
        let nested = false;
        Self { giants, nested }
    }

    /// Nested giant steps, the outermost first. All but the first need a key, and all but the last
    /// may lack terms.
    #[must_use]
    pub fn nested(giants: Vec<GiantStep>) -> Self {
        let nested = true;
        Self { giants, nested }
    }
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
/// A backend may be called from many threads, and may use several for one call; results do not
/// depend on that.
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
    /// A copy; its words may be made when one of both is written to.
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
    /// `a + b`, either form.
    fn add(&self, a: &Self::Poly, b: &Self::Poly) -> Result<Self::Poly>;
    /// `a - b`, either form.
    fn sub(&self, a: &Self::Poly, b: &Self::Poly) -> Result<Self::Poly>;
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
    fn mul_plain(&self, a: &Self::Poly, plain: &Self::Plain) -> Result<Self::Poly> {
        self.mul_plain_sum(&[(a, plain)])
    }
    /// The sum of `a * plain` over the terms, at least one; all `a` alike and in NTT form; plaintexts may
    /// live on larger bases.
    fn mul_plain_sum(&self, terms: &[(&Self::Poly, &Self::Plain)]) -> Result<Self::Poly>;
    /// `a + plain`, NTT form; the plaintext may live on a larger basis.
    fn add_plain(&self, a: &Self::Poly, plain: &Self::Plain) -> Result<Self::Poly>;
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

    /// [`div_round`](Backend::div_round) of both polynomials of a ciphertext: one basis and form.
    fn div_round_pair(&self, c: PairRef<'_, Self::Poly>, drop: Basis) -> Result<Pair<Self::Poly>> {
        Ok((self.div_round(c.0, drop)?, self.div_round(c.1, drop)?))
    }

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

    /// A ciphertext plus its rotations by each key: the sum of hoisted rotations with one ModDown for all,
    /// `(c0 + sum_i sigma_i(c0), c1) + round(sum_i sigma_i(sum_d digit_d(c1) key_{i,d}) / P)`.
    fn rotate_sum(
        &self,
        c: PairRef<'_, Self::Poly>,
        keys: &[&Self::Key],
    ) -> Result<Pair<Self::Poly>> {
        let mut sum = self.duplicate(c.0);
        for key in keys {
            let turned = self.automorphism(c.0, self.key_galois(key))?;
            self.add_assign(&mut sum, &turned)?;
        }
        let terms: Vec<_> = keys.iter().map(|&key| (c.1, key)).collect();
        self.key_switch_sum(Some((&sum, c.1)), &terms, Basis::empty())
    }

    /// A key switch of lifted polynomials: [`rotate_many`](Backend::rotate_many) by one key of the
    /// centred representatives ([`extend`](Backend::extend)) of both polynomials (NTT form) on `to`,
    /// which contains their basis. With a key of one digit, nothing is decomposed: the lift is the
    /// digit.
    fn raise(
        &self,
        c: PairRef<'_, Self::Poly>,
        key: &Self::Key,
        to: Basis,
    ) -> Result<Pair<Self::Poly>> {
        check_raise((self.basis(c.0), self.basis(c.1)), to)?;
        let (c0, c1) = (lift(self, c.0, to)?, lift(self, c.1, to)?);
        let raised = self.rotate_many((&c0, &c1), &[key])?.pop();
        raised.ok_or(RingError::Empty { op: "raise" })
    }

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

    /// A linear transform of several inputs to several outputs, divided by `prod(drop)`, doubly
    /// hoisted (Bossuat, Mouchet, Troncoso-Pastoriza, Hubaux, "Efficient bootstrapping for
    /// approximate homomorphic encryption with non-sparse keys", ePrint 2020/1203, the section on
    /// matrix-vector products): rotated inputs and their products with plaintexts stay modulo
    /// `P`, which is divided away once per giant step and once per output.
    ///
    /// With `B` the inputs' basis and `P` the special primes that all keys of the plan share, on
    /// `B + P` for an input `c = (c0, c1)` and a baby step `b`:
    ///
    /// * `S_b(c) = (P sigma_b(c0), 0) + sum_d digit_d(sigma_b(c1)) key_{b,d}`, and
    ///   `S(c) = (P c0, P c1)` without a baby step;
    /// * `A_g = sum_t plain_t * S_{b_t}(input_t)` for each giant step `g`;
    /// * `T_g = (sigma_g(A_{g,0}), 0) + sum_d digit_d(sigma_g(y_g)) key_{g,d}` with
    ///   `y_g = round(A_{g,1} / P)` on `B`, and `T_g = A_g` for the giant step without a key;
    /// * the output is `round(sum_g T_g / (P prod(drop)))` on `B` without `drop`.
    ///
    /// With nested giant steps the output is `round(T_0 / (P prod(drop)))`, where `T_g` is defined as
    /// above with `A_g + T_{g+1}` in the place of `A_g` for all steps but the last. Their first
    /// halves are not rounded before the end either.
    ///
    /// `round` and `digit_d` are those of [`div_round`](Backend::div_round) and
    /// [`key_switch_sum`](Backend::key_switch_sum). What is a multiple of `P` is exact: a giant
    /// step whose terms have no baby step is not rounded, its `y_g` is the sum of products on `B`
    /// (of nested ones the last alone);
    /// without any key the output is `round(sum plain_t input_t / prod(drop))`, and nothing needs
    /// to be computed modulo `P`. For the same reason only plaintexts of terms with a baby step
    /// have to live on `P`.
    ///
    /// # Errors
    /// [`RingError::Empty`] without inputs; [`RingError::BadPlan`] for an index that names nothing
    /// or an output without terms; otherwise as [`key_switch_sum`](Backend::key_switch_sum).
    fn linear_transform(
        &self,
        inputs: &[PairRef<'_, Self::Poly>],
        plan: &TransformPlan<'_, Self>,
        drop: Basis,
    ) -> Result<Vec<Pair<Self::Poly>>>;
}

/// Checks the bases of [`Backend::raise`].
pub(crate) fn check_raise(from: (Basis, Basis), to: Basis) -> Result<()> {
    let mismatch = |expected, found| {
        Err(RingError::BasisMismatch {
            op: "raise",
            expected,
            found,
        })
    };
    if from.0 != from.1 {
        return mismatch(from.0, from.1);
    }
    if from.0.is_empty() || !to.contains_all(from.0) {
        return mismatch(to, from.0);
    }
    Ok(())
}

/// The centred representative of a polynomial in NTT form on `to`, in NTT form: its own limbs stay,
/// the others are transformed.
pub(crate) fn lift<B: Backend + ?Sized>(backend: &B, poly: &B::Poly, to: Basis) -> Result<B::Poly> {
    let mut poly = backend.duplicate(poly);
    backend.inverse_ntt(&mut poly)?;
    let mut lifted = backend.extend(&poly, to)?;
    backend.forward_ntt(&mut lifted)?;
    Ok(lifted)
}

/// Checks the indices of a plan.
pub(crate) fn check_plan<B: Backend + ?Sized>(
    inputs: usize,
    plan: &TransformPlan<'_, B>,
) -> Result<()> {
    if inputs == 0 {
        return Err(RingError::Empty {
            op: "linear_transform",
        });
    }
    let within = |what: &str, index: usize, count: usize| {
        if index < count {
            return Ok(());
        }
        Err(RingError::BadPlan(format!(
            "{what} {index} is named, but only {count} are given"
        )))
    };
    for (o, OutputPlan { giants, nested }) in plan.outputs.iter().enumerate() {
        let with_terms = if *nested { 1 } else { giants.len() };
        let mut with_terms = giants.iter().rev().take(with_terms);
        if giants.is_empty() || with_terms.any(|g| g.terms.is_empty()) {
            return Err(RingError::BadPlan(format!("output {o} has no terms")));
        }
        if *nested && giants.iter().skip(1).any(|g| g.key.is_none()) {
            return Err(RingError::BadPlan(format!(
                "a nested giant step of output {o} has no key; only the first may lack one"
            )));
        }
        for giant in giants {
            let babies = giant.terms.iter().filter_map(|t| t.baby);
            for key in giant.key.into_iter().chain(babies) {
                within("key", key, plan.keys.len())?;
            }
            for t in &giant.terms {
                within("plaintext", t.plain, plan.plains.len())?;
                within("input", t.input, inputs)?;
            }
        }
    }
    Ok(())
}

/// The indices of the keys that steps of a (checked) plan name, repeats included.
pub(crate) fn used_keys<B: Backend + ?Sized>(
    plan: &TransformPlan<'_, B>,
) -> impl Iterator<Item = usize> {
    let giants = plan.outputs.iter().flat_map(|o| &o.giants);
    giants.flat_map(|g| {
        g.key
            .into_iter()
            .chain(g.terms.iter().filter_map(|t| t.baby))
    })
}
