//! The evaluator: [`Ops`] on ciphertexts of a backend.

mod transforms;

use std::sync::Arc;

use veilformer_ring::{Backend, Basis};

use crate::ciphertext::CiphertextInfo;
use crate::key_store::PreparedKey;
use crate::ops::{OpsError, moves};
use crate::{
    Ciphertext, CkksError, Encoder, EvaluationKeys, KeyPurpose, LevelStep, Ops, Params, Scale,
    SlotVector, Transform, compose,
};

/// A ciphertext on a backend, cheap to clone.
pub type SharedCiphertext<B> = Arc<Ciphertext<<B as Backend>::Poly>>;

/// A plaintext on a backend, cheap to clone.
pub type SharedPlain<B> = Arc<PreparedPlain<B>>;

/// An encoded plaintext on a backend.
pub struct PreparedPlain<B: Backend> {
    plain: B::Plain,
    level: usize,
    scale: Scale,
    extended: bool,
}

impl<B: Backend> PreparedPlain<B> {
    /// The backend's plaintext.
    #[must_use]
    pub fn plain(&self) -> &B::Plain {
        &self.plain
    }

    /// The highest level that it can be used at.
    #[must_use]
    pub fn level(&self) -> usize {
        self.level
    }

    /// Its scale.
    #[must_use]
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// Whether it lives on the primes of P of a rotation as well ([`Params::rotation_basis`]).
    #[must_use]
    pub fn extended(&self) -> bool {
        self.extended
    }
}

/// Runs [`Ops`] on a backend with the evaluation keys of one client.
///
/// All methods take `&self`, so that threads may share one evaluator; the implementation of
/// [`Ops`] (whose `&mut self` is for recorders) calls them.
pub struct Evaluator<'a, B: Backend> {
    params: Params,
    backend: &'a B,
    keys: &'a EvaluationKeys<B>,
    encoder: Encoder,
    /// Most keys that one rotation may be composed of.
    most_keys: usize,
}

impl<B: Backend> Clone for Evaluator<'_, B> {
    fn clone(&self) -> Self {
        Self {
            params: self.params.clone(),
            backend: self.backend,
            keys: self.keys,
            encoder: self.encoder.clone(),
            most_keys: self.most_keys,
        }
    }
}

type Ct<B> = SharedCiphertext<B>;
type Parts<B> = (<B as Backend>::Poly, <B as Backend>::Poly);
const ROTATE: &str = "rotate_many";

type Result<T> = std::result::Result<T, OpsError>;

impl<'a, B: Backend> Evaluator<'a, B> {
    /// An evaluator; its encoder's tables are computed here.
    ///
    /// # Errors
    /// [`CkksError::WrongParams`] if the keys belong to other parameters, [`CkksError::Malformed`]
    /// if the backend has another chain.
    pub fn new(
        params: &Params,
        backend: &'a B,
        keys: &'a EvaluationKeys<B>,
    ) -> std::result::Result<Self, CkksError> {
        Self::with_encoder(Encoder::new(params)?, backend, keys)
    }

    /// As [`Evaluator::new`], with an encoder that exists already.
    ///
    /// # Errors
    /// As [`Evaluator::new`].
    pub fn with_encoder(
        encoder: Encoder,
        backend: &'a B,
        keys: &'a EvaluationKeys<B>,
    ) -> std::result::Result<Self, CkksError> {
        let params = encoder.params().clone();
        if keys.params_digest() != params.digest() {
            return Err(CkksError::WrongParams {
                object: "the evaluation key set",
                found: crate::error::short_hex(&keys.params_digest()),
                expected: crate::error::short_hex(&params.digest()),
            });
        }
        if backend.chain() != params.chain() {
            return Err(CkksError::malformed(
                "backend",
                "it was made for another prime chain than the parameters'",
            ));
        }
        Ok(Self {
            params,
            backend,
            keys,
            encoder,
            most_keys: 1,
        })
    }

    /// Lets [`Ops::rotate_many`] compose a rotation that has no key from those that have one, at
    /// most `most` of them (see [`compose`]): each is a key switch, and adds that much noise
    /// ([`crate::noise::NoiseModel::rotation`]). For key sets that were kept small; with the keys
    /// of a program's list there is nothing to compose. Linear transforms want all their keys.
    #[must_use]
    pub fn composing_rotations(mut self, most: usize) -> Self {
        self.most_keys = most;
        self
    }

    /// The backend.
    #[must_use]
    pub fn backend(&self) -> &'a B {
        self.backend
    }

    /// The evaluation keys.
    #[must_use]
    pub fn keys(&self) -> &'a EvaluationKeys<B> {
        self.keys
    }

    /// The encoder.
    #[must_use]
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The parameters.
    #[must_use]
    pub fn parameters(&self) -> &Params {
        &self.params
    }

    /// Takes a host ciphertext.
    ///
    /// # Errors
    /// [`OpsError::WrongKey`], or if it does not conform to the parameters.
    pub fn import(&self, ct: Ciphertext) -> Result<Ct<B>> {
        let (parts, info) = ct.into_parts();
        self.check_key_id("import", info)?;
        let ct = Ciphertext::from_polys(&self.params, parts, info)?;
        Ok(Arc::new(ct.import(self.backend)?))
    }

    /// See [`Ops::plain`].
    ///
    /// # Errors
    /// See there.
    pub fn encode(&self, slots: &SlotVector, level: usize, scale: Scale) -> Result<SharedPlain<B>> {
        self.params.check_level(level)?;
        self.encode_on(false, slots, level, scale)
    }

    /// See [`Ops::extended_plain`].
    ///
    /// # Errors
    /// See there.
    pub fn encode_extended(
        &self,
        slots: &SlotVector,
        level: usize,
        scale: Scale,
    ) -> Result<SharedPlain<B>> {
        self.params.check_level(level)?;
        self.encode_on(true, slots, level, scale)
    }

    fn encode_on(
        &self,
        extended: bool,
        slots: &SlotVector,
        level: usize,
        scale: Scale,
    ) -> Result<SharedPlain<B>> {
        let basis = match extended {
            true => self.params.rotation_basis(level),
            false => self.params.basis_at(level),
        };
        // Ciphertext primes that stand in P are counted by the encoder; the plaintext has to do without.
        let own = self.params.covering(level);
        if !basis.minus(own).minus(self.params.special()).is_empty() {
            self.encoder.coefficients_for(slots, own, scale)?;
        }
        let plain = self.encoder.encode_plain(slots, basis, scale)?;
        Ok(Arc::new(PreparedPlain {
            plain: self.backend.prepare_plain(&plain)?,
            level,
            scale,
            extended,
        }))
    }

    /// See [`Ops::add`].
    ///
    /// # Errors
    /// See there.
    pub fn add(&self, a: &Ct<B>, b: &Ct<B>) -> Result<Ct<B>> {
        self.check_pair("add", a, b)?;
        let c0 = self.backend.add(a.c0(), b.c0())?;
        let c1 = self.backend.add(a.c1(), b.c1())?;
        Ok(make((c0, c1), a.info()))
    }

    /// See [`Ops::sub`].
    ///
    /// # Errors
    /// See there.
    pub fn sub(&self, a: &Ct<B>, b: &Ct<B>) -> Result<Ct<B>> {
        self.check_pair("sub", a, b)?;
        let c0 = self.backend.sub(a.c0(), b.c0())?;
        let c1 = self.backend.sub(a.c1(), b.c1())?;
        Ok(make((c0, c1), a.info()))
    }

    /// See [`Ops::negate`].
    ///
    /// # Errors
    /// See there.
    pub fn negate(&self, a: &Ct<B>) -> Result<Ct<B>> {
        let mut c0 = self.backend.duplicate(a.c0());
        let mut c1 = self.backend.duplicate(a.c1());
        self.backend.neg_assign(&mut c0)?;
        self.backend.neg_assign(&mut c1)?;
        Ok(make((c0, c1), a.info()))
    }

    /// See [`Ops::add_plain`].
    ///
    /// # Errors
    /// See there.
    pub fn add_plain(&self, a: &Ct<B>, p: &SharedPlain<B>) -> Result<Ct<B>> {
        OpsError::expect_plain_level("add_plain", p.level(), a.level())?;
        OpsError::expect_scale("add_plain", p.scale(), a.scale())?;
        let c0 = self.backend.add_plain(a.c0(), p.plain())?;
        let c1 = self.backend.duplicate(a.c1());
        Ok(make((c0, c1), a.info()))
    }

    /// See [`Ops::mul_plain`].
    ///
    /// # Errors
    /// See there.
    pub fn mul_plain(&self, a: &Ct<B>, p: &SharedPlain<B>) -> Result<Ct<B>> {
        self.mul_plain_sum(&[(a, p)])
    }

    /// See [`Ops::mul_plain_sum`].
    ///
    /// # Errors
    /// See there.
    pub fn mul_plain_sum(&self, terms: &[(&Ct<B>, &SharedPlain<B>)]) -> Result<Ct<B>> {
        const OP: &str = "mul_plain_sum";
        let Some((first, p)) = terms.first() else {
            return Err(OpsError::empty(OP, "product"));
        };
        let scale = first.scale().product(p.scale());
        for (a, p) in terms {
            OpsError::expect_level(OP, a.level(), first.level())?;
            // A product alone makes sense under any secret, a sum under one.
            if terms.len() > 1 {
                self.check_key_id(OP, a.info())?;
            }
            OpsError::expect_plain_level(OP, p.level(), a.level())?;
            OpsError::expect_scale(OP, a.scale().product(p.scale()), scale)?;
        }
        let part = |which: fn(&Ciphertext<B::Poly>) -> &B::Poly| {
            let terms: Vec<_> = terms.iter().map(|(a, p)| (which(a), p.plain())).collect();
            self.backend.mul_plain_sum(&terms)
        };
        let info = CiphertextInfo {
            scale,
            ..first.info()
        };
        Ok(make((part(Ciphertext::c0)?, part(Ciphertext::c1)?), info))
    }

    /// See [`Ops::rescale`].
    ///
    /// # Errors
    /// See there.
    pub fn rescale(&self, a: &Ct<B>) -> Result<Ct<B>> {
        let (parts, info) = self.divided("rescale", a.parts(), a.info())?;
        Ok(make(parts, info))
    }

    /// See [`Ops::mul_sum`].
    ///
    /// # Errors
    /// See there.
    pub fn mul_sum(&self, pairs: &[(&Ct<B>, &Ct<B>)]) -> Result<Ct<B>> {
        const OP: &str = "mul_sum";
        let Some((first, other)) = pairs.first() else {
            return Err(OpsError::empty(OP, "product"));
        };
        let scale = first.scale().product(other.scale());
        for (a, b) in pairs {
            for operand in [a, b] {
                OpsError::expect_level(OP, operand.level(), first.level())?;
                self.check_key_id(OP, operand.info())?;
            }
            OpsError::expect_scale(OP, a.scale().product(b.scale()), scale)?;
        }
        let info = CiphertextInfo {
            scale,
            ..first.info()
        };
        let key = self.key(OP, KeyPurpose::Relinearization, info.level)?;
        let operands: Vec<_> = pairs.iter().map(|(a, b)| (a.parts(), b.parts())).collect();
        let mut made = self.fused_step(OP, info, |drop| {
            let key = key.key();
            Ok(vec![self.backend.mul_sum_relin(&operands, key, drop)?])
        })?;
        made.pop().ok_or_else(|| short_answer(OP))
    }

    /// See [`Ops::rotate_many`].
    ///
    /// # Errors
    /// See there.
    pub fn rotate_many(&self, a: &Ct<B>, by: &[i64]) -> Result<Vec<Ct<B>>> {
        self.check_key_id(ROTATE, a.info())?;
        let paths = by
            .iter()
            .map(|&by| self.path(by, a.level()))
            .collect::<Result<Vec<_>>>()?;
        // The first steps share their decomposition.
        let mut first: Vec<i64> = paths.iter().filter_map(|p| p.first().copied()).collect();
        first.sort_unstable();
        first.dedup();
        let hoisted = self.rotate_by_keys(a, &first)?;
        let follow = |path: &Vec<i64>| {
            let Some((start, rest)) = path.split_first() else {
                return Ok(a.clone());
            };
            let known = first.binary_search(start).ok();
            let mut ct = known
                .and_then(|at| hoisted.get(at).cloned())
                .ok_or_else(|| short_answer(ROTATE))?;
            for &step in rest {
                let next = self.rotate_by_keys(&ct, &[step])?.pop();
                ct = next.ok_or_else(|| short_answer(ROTATE))?;
            }
            Ok(ct)
        };
        paths.iter().map(follow).collect()
    }

    /// See [`Ops::rotate_sum`].
    ///
    /// # Errors
    /// See there.
    pub fn rotate_sum(&self, a: &Ct<B>, by: &[i64]) -> Result<Ct<B>> {
        self.check_key_id(ROTATE, a.info())?;
        // Steps with a key share one sum; what moves nothing, or is composed of several, is added to it.
        let (mut keys, mut others) = (Vec::with_capacity(by.len()), Vec::new());
        for &step in by {
            match self.path(step, a.level())?[..] {
                [step] => keys.push(self.key(ROTATE, KeyPurpose::Rotation(step), a.level())?),
                _ => others.push(step),
            }
        }
        let mut sum = a.clone();
        if !keys.is_empty() {
            let keys: Vec<_> = keys.iter().map(|key| key.key()).collect();
            sum = make(self.backend.rotate_sum(a.parts(), &keys)?, a.info());
        }
        for turned in self.rotate_many(a, &others)? {
            sum = self.add(&sum, &turned)?;
        }
        Ok(sum)
    }

    /// The rotations with a key that make up a rotation: none if it moves nothing.
    fn path(&self, by: i64, level: usize) -> Result<Vec<i64>> {
        let slots = self.params.slots();
        if !self.is_turn(by) {
            return Ok(Vec::new());
        }
        let by = by.rem_euclid(slots as i64);
        let purpose = KeyPurpose::Rotation(by);
        if self.keys.covers(&self.params, purpose, level) {
            return Ok(vec![by]);
        }
        let composed = if self.most_keys > 1 {
            let available: Vec<i64> = self.keys.rotations(&self.params, level).collect();
            compose(by, &available, slots)
        } else {
            None
        };
        let missing = OpsError::MissingKey {
            op: ROTATE,
            purpose,
            level,
        };
        composed
            .filter(|path| path.len() <= self.most_keys)
            .ok_or(missing)
    }

    /// Hoisted rotations, each with its own key.
    fn rotate_by_keys(&self, a: &Ct<B>, by: &[i64]) -> Result<Vec<Ct<B>>> {
        let keys = by
            .iter()
            .map(|&by| self.key(ROTATE, KeyPurpose::Rotation(by), a.level()))
            .collect::<Result<Vec<_>>>()?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = keys.iter().map(|key| key.key()).collect();
        let rotated = self.backend.rotate_many(a.parts(), &keys)?.into_iter();
        Ok(rotated.map(|parts| make(parts, a.info())).collect())
    }

    /// See [`Ops::conjugate`].
    ///
    /// # Errors
    /// See there.
    pub fn conjugate(&self, a: &Ct<B>) -> Result<Ct<B>> {
        const OP: &str = "conjugate";
        self.check_key_id(OP, a.info())?;
        let key = self.key(OP, KeyPurpose::Conjugation, a.level())?;
        Ok(make(self.switched(OP, a.parts(), &key)?, a.info()))
    }

    /// See [`Ops::mod_raise`].
    ///
    /// With Q0 the modulus of level 0, s the client's secret and s' the ephemeral one: the switch
    /// to s' leaves c0' + c1' s' = m + e modulo Q0. The centred lifts of c0' and c1' add up to
    /// m + e + Q0 I over the integers, with |I| <= (weight + 2)/2, so also modulo the modulus of the
    /// highest level; there the second key switches back to s.
    ///
    /// # Errors
    /// See there.
    pub fn mod_raise(&self, a: &Ct<B>) -> Result<Ct<B>> {
        const OP: &str = "mod_raise";
        OpsError::expect_level(OP, a.level(), 0)?;
        self.check_key_id(OP, a.info())?;
        let level = self.params.max_level();
        let to = self.key(OP, KeyPurpose::ToEphemeral, 0)?;
        let from = self.key(OP, KeyPurpose::FromEphemeral, level)?;
        let (c0, c1) = self.switched(OP, a.parts(), &to)?;
        let basis = self.params.basis_at(level);
        let parts = self.backend.raise((&c0, &c1), from.key(), basis)?;
        Ok(make(parts, CiphertextInfo { level, ..a.info() }))
    }

    /// Switches a pair to the secret of a key without an automorphism.
    fn switched(
        &self,
        op: &'static str,
        parts: (&B::Poly, &B::Poly),
        key: &PreparedKey<B>,
    ) -> Result<Parts<B>> {
        let switched = self.backend.rotate_many(parts, &[key.key()])?.pop();
        switched.ok_or_else(|| short_answer(op))
    }

    /// See [`Ops::drop_to`].
    ///
    /// # Errors
    /// See there.
    pub fn drop_to(&self, a: &Ct<B>, level: usize) -> Result<Ct<B>> {
        if level == a.level() {
            return Ok(a.clone());
        }
        if level > a.level() {
            return Err(OpsError::OutOfLevels {
                op: "drop_to",
                level: a.level(),
                needed: level,
            });
        }
        let way = lowering(&self.params, a.level(), level)?;
        let parts = (self.lower(a.c0(), way)?, self.lower(a.c1(), way)?);
        Ok(make(parts, CiphertextInfo { level, ..a.info() }))
    }

    /// One polynomial of a ciphertext on the primes of a lower level.
    fn lower(&self, poly: &B::Poly, way: Lowering) -> Result<B::Poly> {
        let mut poly = self.backend.restrict(poly, way.keep)?;
        if way.step.add.is_empty() {
            return Ok(poly);
        }
        let residues = self.residues(way.keep, way.constant);
        self.backend.mul_scalar_assign(&mut poly, &residues)?;
        let rescaled = self
            .backend
            .rescale_rational(&poly, way.step.drop, way.step.add);
        Ok(rescaled?)
    }

    /// An integer modulo each prime of a basis.
    fn residues(&self, basis: Basis, value: i128) -> Vec<u64> {
        let chain = self.params.chain();
        let primes = basis.iter();
        primes
            .map(|prime| chain.modulus(prime).from_i128(value))
            .collect()
    }

    /// See [`Ops::adjust`].
    ///
    /// # Errors
    /// See there.
    pub fn adjust(&self, a: &Ct<B>, level: usize) -> Result<Ct<B>> {
        const OP: &str = "adjust";
        if level > a.level() {
            return Err(OpsError::OutOfLevels {
                op: OP,
                level: a.level(),
                needed: level,
            });
        }
        let target = self.params.scale_at(level);
        if level == a.level() {
            OpsError::expect_scale(OP, a.scale(), target)?;
            return Ok(a.clone());
        }
        let constant = adjust_constant(&self.params, a.scale(), level)?;
        let way = lowering(&self.params, a.level(), level + 1)?;
        let residues = self.residues(self.params.basis_at(level + 1), constant);
        let scaled = |poly| {
            let mut poly = self.lower(poly, way)?;
            self.backend.mul_scalar_assign(&mut poly, &residues)?;
            Ok::<_, OpsError>(poly)
        };
        let info = CiphertextInfo {
            level: level + 1,
            scale: a.scale().multiply(constant as f64),
            ..a.info()
        };
        let (c0, c1) = (scaled(a.c0())?, scaled(a.c1())?);
        let (parts, info) = self.divided(OP, (&c0, &c1), info)?;
        // Up to the rounding of the constant this is the scale already; see the trait.
        let info = CiphertextInfo {
            scale: target,
            ..info
        };
        Ok(make(parts, info))
    }

    /// Whether a rotation moves anything.
    fn is_turn(&self, by: i64) -> bool {
        moves(by, self.params.slots())
    }

    fn key(
        &self,
        op: &'static str,
        purpose: KeyPurpose,
        level: usize,
    ) -> Result<Arc<PreparedKey<B>>> {
        self.keys
            .get(&self.params, self.backend, (purpose, level))?
            .ok_or(OpsError::MissingKey { op, purpose, level })
    }

    fn check_key_id(&self, op: &'static str, info: CiphertextInfo) -> Result<()> {
        if info.key_id == self.keys.key_id() {
            Ok(())
        } else {
            Err(OpsError::WrongKey {
                op,
                found: info.key_id,
                expected: self.keys.key_id(),
            })
        }
    }

    fn check_pair(&self, op: &'static str, a: &Ct<B>, b: &Ct<B>) -> Result<()> {
        OpsError::expect_level(op, b.level(), a.level())?;
        OpsError::expect_scale(op, b.scale(), a.scale())?;
        self.check_key_id(op, a.info())?;
        self.check_key_id(op, b.info())
    }

    /// The rescale of a pair at `info.level`.
    fn divided(
        &self,
        op: &'static str,
        (c0, c1): (&B::Poly, &B::Poly),
        info: CiphertextInfo,
    ) -> Result<(Parts<B>, CiphertextInfo)> {
        let lowered = lowered(&self.params, op, info)?;
        let step = self.params.step_at(info.level);
        if step.add.is_empty() {
            return Ok((self.backend.div_round_pair((c0, c1), step.drop)?, lowered));
        }
        let divide = |poly| self.backend.rescale_rational(poly, step.drop, step.add);
        Ok(((divide(c0)?, divide(c1)?), lowered))
    }

    /// An operation into whose last division the rescale can be fused. `info` is that of the
    /// result before the rescale. A rational step cannot be fused and follows.
    fn fused_step(
        &self,
        op: &'static str,
        info: CiphertextInfo,
        run: impl FnOnce(Basis) -> veilformer_ring::Result<Vec<Parts<B>>>,
    ) -> Result<Vec<Ct<B>>> {
        let lowered = lowered(&self.params, op, info)?;
        let step = self.params.step_at(info.level);
        if step.add.is_empty() {
            let made = run(step.drop)?.into_iter();
            return Ok(made.map(|parts| make(parts, lowered)).collect());
        }
        let undivided = run(Basis::empty())?.into_iter();
        let divided = undivided.map(|(c0, c1)| {
            let (parts, info) = self.divided(op, (&c0, &c1), info)?;
            Ok(make(parts, info))
        });
        divided.collect()
    }
}

/// The constant of [`Ops::adjust`]: round(s_level * prod(drop) / prod(add) / scale) for the step
/// down to `level`. Shared by everything that implements `adjust`.
///
/// # Errors
/// [`OpsError::ScaleMismatch`] if the scale is so large that the constant would be below 2^16 (its
/// rounding would be visible), or so small that it leaves 120 bits.
pub fn adjust_constant(
    params: &Params,
    scale: Scale,
    level: usize,
) -> std::result::Result<i128, OpsError> {
    let step = params.step_at(level + 1);
    let target = params.scale_at(level);
    let constant =
        (target.value() * params.product(step.drop) / params.product(step.add) / scale.value())
            .round_ties_even();
    if constant >= 2f64.powi(16) && constant < 2f64.powi(120) {
        Ok(constant as i128)
    } else {
        Err(OpsError::ScaleMismatch {
            op: "adjust",
            found: scale.value(),
            expected: target.value(),
        })
    }
}

/// How [`Ops::drop_to`] goes from one level to a lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lowering {
    /// The primes that are kept at first; the others are forgotten.
    pub keep: Basis,
    /// What is multiplied with, so that the step keeps the scale; 1 if there is no step.
    pub constant: i128,
    /// The division that follows, to the primes of the lower level; nothing if forgetting is enough.
    pub step: LevelStep,
}

/// The way from level `from` to the lower level `to` that keeps value and scale. Where the primes of
/// `to` are among those of `from`, the others are forgotten. Otherwise (levels made of words) some
/// of them are kept, for a rational rescale of the value times round(prod(drop) / prod(add)).
///
/// # Errors
/// [`OpsError::Invalid`] if the levels are so near each other that the constant would be below
/// 2^16: its rounding would be visible.
pub fn lowering(
    params: &Params,
    from: usize,
    to: usize,
) -> std::result::Result<Lowering, OpsError> {
    let (from, to) = (params.basis_at(from), params.basis_at(to));
    let add = to.minus(from);
    let mut drop = Basis::empty();
    let mut constant = 1;
    if !add.is_empty() {
        // As few as make the constant's rounding smaller than any noise.
        for prime in from.minus(to).iter() {
            if params.product(drop) / params.product(add) >= CONSTANT_ENOUGH {
                break;
            }
            drop = drop.union(Basis::single(prime));
        }
        let ratio = params.product(drop) / params.product(add);
        if ratio < 2f64.powi(16) {
            let what = "the levels are too near each other to go from one to the other".to_string();
            return Err(OpsError::Invalid {
                op: "drop_to",
                what,
            });
        }
        // Below CONSTANT_ENOUGH times one word.
        constant = ratio.round_ties_even() as i128;
    }
    Ok(Lowering {
        keep: from.intersect(to).union(drop),
        constant,
        step: LevelStep { drop, add },
    })
}

/// A constant from which on its rounding does not count: see [`crate::SCALE_TOLERANCE`].
const CONSTANT_ENOUGH: f64 = (1u64 << 40) as f64;

/// What a ciphertext is after the step down from `info.level`. Shared by everything that follows
/// the level and scale rules of [`Ops`].
///
/// # Errors
/// [`OpsError::OutOfLevels`] at level 0.
pub fn lowered(
    params: &Params,
    op: &'static str,
    info: CiphertextInfo,
) -> std::result::Result<CiphertextInfo, OpsError> {
    if info.level == 0 {
        return Err(OpsError::OutOfLevels {
            op,
            level: 0,
            needed: 1,
        });
    }
    let step = params.step_at(info.level);
    let mut scale = info.scale.divide(params.product(step.drop));
    if !step.add.is_empty() {
        scale = scale.multiply(params.product(step.add));
    }
    Ok(CiphertextInfo {
        level: info.level - 1,
        scale,
        key_id: info.key_id,
    })
}

fn make<P>(parts: (P, P), info: CiphertextInfo) -> Arc<Ciphertext<P>> {
    Arc::new(Ciphertext::from_checked(parts, info))
}

fn short_answer(op: &'static str) -> OpsError {
    OpsError::Invalid {
        op,
        what: "the backend returned fewer results than it was asked for".to_owned(),
    }
}

impl<B: Backend> Ops for Evaluator<'_, B> {
    type Ct = Ct<B>;
    type Plain = SharedPlain<B>;

    fn params(&self) -> &Params {
        &self.params
    }

    fn level(&self, ct: &Self::Ct) -> usize {
        ct.level()
    }

    fn scale(&self, ct: &Self::Ct) -> Scale {
        ct.scale()
    }

    fn plain(&mut self, slots: &SlotVector, level: usize, scale: Scale) -> Result<Self::Plain> {
        self.encode(slots, level, scale)
    }

    fn extended_plain(
        &mut self,
        slots: &SlotVector,
        level: usize,
        scale: Scale,
    ) -> Result<Self::Plain> {
        self.encode_extended(slots, level, scale)
    }

    fn add(&mut self, a: &Self::Ct, b: &Self::Ct) -> Result<Self::Ct> {
        Evaluator::add(self, a, b)
    }

    fn sub(&mut self, a: &Self::Ct, b: &Self::Ct) -> Result<Self::Ct> {
        Evaluator::sub(self, a, b)
    }

    fn negate(&mut self, a: &Self::Ct) -> Result<Self::Ct> {
        Evaluator::negate(self, a)
    }

    fn add_plain(&mut self, a: &Self::Ct, p: &Self::Plain) -> Result<Self::Ct> {
        Evaluator::add_plain(self, a, p)
    }

    fn mul_plain(&mut self, a: &Self::Ct, p: &Self::Plain) -> Result<Self::Ct> {
        Evaluator::mul_plain(self, a, p)
    }

    fn mul_plain_sum(&mut self, terms: &[(&Self::Ct, &Self::Plain)]) -> Result<Self::Ct> {
        Evaluator::mul_plain_sum(self, terms)
    }

    fn rescale(&mut self, a: &Self::Ct) -> Result<Self::Ct> {
        Evaluator::rescale(self, a)
    }

    fn mul_sum(&mut self, pairs: &[(&Self::Ct, &Self::Ct)]) -> Result<Self::Ct> {
        Evaluator::mul_sum(self, pairs)
    }

    fn rotate_many(&mut self, a: &Self::Ct, by: &[i64]) -> Result<Vec<Self::Ct>> {
        Evaluator::rotate_many(self, a, by)
    }

    fn rotate_sum(&mut self, a: &Self::Ct, by: &[i64]) -> Result<Self::Ct> {
        Evaluator::rotate_sum(self, a, by)
    }

    fn conjugate(&mut self, a: &Self::Ct) -> Result<Self::Ct> {
        Evaluator::conjugate(self, a)
    }

    fn mod_raise(&mut self, a: &Self::Ct) -> Result<Self::Ct> {
        Evaluator::mod_raise(self, a)
    }

    fn drop_to(&mut self, a: &Self::Ct, level: usize) -> Result<Self::Ct> {
        Evaluator::drop_to(self, a, level)
    }

    fn adjust(&mut self, a: &Self::Ct, level: usize) -> Result<Self::Ct> {
        Evaluator::adjust(self, a, level)
    }

    fn linear_transforms(
        &mut self,
        inputs: &[&Self::Ct],
        transforms: &[&Transform<Self::Plain>],
    ) -> Result<Vec<Self::Ct>> {
        Evaluator::linear_transforms(self, inputs, transforms)
    }

    fn nested_transform(
        &mut self,
        inputs: &[&Self::Ct],
        transform: &Transform<Self::Plain>,
    ) -> Result<Self::Ct> {
        Evaluator::nested_transform(self, inputs, transform)
    }
}
