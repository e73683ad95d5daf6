//! The one trait of ciphertext operations that every circuit is written against.
//!
//! [`crate::Evaluator`] runs the operations; the compiler's recorder writes them down; the noise
//! simulator models them. They agree on levels and scales because each implementer follows the
//! rules stated here.

use veilformer_ring::RingError;

use crate::{CkksError, KeyId, KeyPurpose, Params, Scale, SlotVector};

/// Why a ciphertext operation was refused.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// Operands of different levels.
    #[error("{op}: an operand is at level {found}, expected level {expected}; adjust it first")]
    LevelMismatch {
        /// The operation.
        op: &'static str,
        /// Level found.
        found: usize,
        /// Level expected.
        expected: usize,
    },
    /// The operation consumes a level and none is left, or a higher level was asked for.
    #[error(
        "{op}: level {level} does not suffice, at least {needed} is needed; \
         use parameters with more levels"
    )]
    OutOfLevels {
        /// The operation.
        op: &'static str,
        /// Level of the operand.
        level: usize,
        /// Level that is needed.
        needed: usize,
    },
    /// Operands of different scales, or a scale other than the level's canonical one.
    #[error("{op}: scale {found:e} met scale {expected:e}; adjust one operand first")]
    ScaleMismatch {
        /// The operation.
        op: &'static str,
        /// Scale found.
        found: f64,
        /// Scale expected.
        expected: f64,
    },
    /// A plaintext that meets a rotated input in a transform lacks the special primes.
    #[error(
        "{op}: a plaintext meets a rotated input but was not encoded modulo the special primes; \
         encode it with Ops::term_plain"
    )]
    NotExtended {
        /// The operation.
        op: &'static str,
    },
    /// A key that was not given, or that covers fewer levels than the operand has.
    #[error(
        "{op}: no {purpose} key that covers level {level}; make the keys of this program's key list"
    )]
    MissingKey {
        /// The operation.
        op: &'static str,
        /// Which key.
        purpose: KeyPurpose,
        /// Level of the operand.
        level: usize,
    },
    /// Operands (or keys) of different secret keys.
    #[error("{op}: an operand belongs to secret key {found}, expected {expected}")]
    WrongKey {
        /// The operation.
        op: &'static str,
        /// Key id found.
        found: KeyId,
        /// Key id expected.
        expected: KeyId,
    },
    /// Any other argument that the operation cannot take.
    #[error("{op}: {what}")]
    Invalid {
        /// The operation.
        op: &'static str,
        /// What was wrong and what was expected.
        what: String,
    },
    /// Encoding or parameters.
    #[error(transparent)]
    Ckks(#[from] CkksError),
    /// The ring.
    #[error(transparent)]
    Ring(#[from] RingError),
}

impl OpsError {
    /// That `op` got none of `what`.
    #[must_use]
    pub fn empty(op: &'static str, what: &str) -> Self {
        Self::Invalid {
            op,
            what: format!("at least one {what} is needed, none was given"),
        }
    }

    /// `Ok` if an operand is at the level that `op` needs: the rule that all implementers of
    /// [`Ops`] share.
    ///
    /// # Errors
    /// [`OpsError::LevelMismatch`].
    pub fn expect_level(op: &'static str, found: usize, expected: usize) -> Result<(), Self> {
        if found == expected {
            return Ok(());
        }
        Err(Self::LevelMismatch {
            op,
            found,
            expected,
        })
    }

    /// `Ok` if a plaintext of level `plain` serves a ciphertext of level `ct`: its own level or a
    /// lower one.
    ///
    /// # Errors
    /// [`OpsError::LevelMismatch`].
    pub fn expect_plain_level(op: &'static str, plain: usize, ct: usize) -> Result<(), Self> {
        Self::expect_level(op, plain.min(ct), ct)
    }

    /// `Ok` if a plaintext may be the factor of a term: a term whose baby step moves one of
    /// `slots` slots needs an extended one.
    ///
    /// # Errors
    /// [`OpsError::NotExtended`].
    pub fn expect_extended(
        op: &'static str,
        extended: bool,
        (baby, slots): (i64, usize),
    ) -> Result<(), Self> {
        if extended || !moves(baby, slots) {
            return Ok(());
        }
        Err(Self::NotExtended { op })
    }

    /// `Ok` if a scale [matches](Scale::matches) the one that `op` needs.
    ///
    /// # Errors
    /// [`OpsError::ScaleMismatch`].
    pub fn expect_scale(op: &'static str, found: Scale, expected: Scale) -> Result<(), Self> {
        if found.matches(expected) {
            return Ok(());
        }
        Err(Self::ScaleMismatch {
            op,
            found: found.value(),
            expected: expected.value(),
        })
    }
}

/// Whether a rotation by `step` moves any of `slots` slots.
#[must_use]
pub fn moves(step: i64, slots: usize) -> bool {
    step.rem_euclid(slots.max(1) as i64) != 0
}

/// The keys of [`Ops::mod_raise`] and the levels that they have to cover, `top` being the highest.
#[must_use]
pub fn mod_raise_keys(top: usize) -> [(KeyPurpose, usize); 2] {
    [
        (KeyPurpose::ToEphemeral, 0),
        (KeyPurpose::FromEphemeral, top),
    ]
}

/// A linear map on slots as baby and giant steps:
///
/// out = sum over giants g of rot_(g.rotation)( sum over terms t of t.plain * rot_(t.baby)(inputs\[t.input\]) )
///
/// The plaintexts are already rotated as this formula needs them: the factor that should meet
/// slot j of the result stands at slot j + g.rotation.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Transform<Pl> {
    /// The giant steps.
    pub giants: Vec<Giant<Pl>>,
}

/// One giant step: a rotation of a sum of plaintext products.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Giant<Pl> {
    /// Rotation of the sum.
    pub rotation: i64,
    /// The products.
    pub terms: Vec<Term<Pl>>,
}

/// One product of a plaintext with a rotated input.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Term<Pl> {
    /// Which input.
    pub input: usize,
    /// Rotation of the input before the product.
    pub baby: i64,
    /// The factor.
    pub plain: Pl,
}

/// Operations on ciphertexts.
///
/// Levels and scales: [`Params::scale_at`] is the canonical scale of a level,
/// [`Params::step_at`] the way down to the next. Rotation by r moves slot j + r to slot j.
pub trait Ops {
    /// A ciphertext; cloning is cheap.
    type Ct: Clone;
    /// An encoded plaintext; cloning is cheap.
    type Plain: Clone;

    /// The parameters.
    fn params(&self) -> &Params;

    /// Level of a ciphertext.
    fn level(&self, ct: &Self::Ct) -> usize;

    /// Scale of a ciphertext.
    fn scale(&self, ct: &Self::Ct) -> Scale;

    /// Encodes a vector of slots for operands of `level` (and below).
    ///
    /// # Errors
    /// If the vector does not fit the slots, or its coefficients the modulus.
    fn plain(
        &mut self,
        slots: &SlotVector,
        level: usize,
        scale: Scale,
    ) -> Result<Self::Plain, OpsError>;

    /// As [`Ops::plain`], modulo the special primes as well: for terms of a transform whose baby
    /// step is not 0, which are multiplied before the special primes are divided away. Serves
    /// everywhere else too, and takes more memory. Implementers to which primes make no difference
    /// leave it at that of [`Ops::plain`].
    ///
    /// # Errors
    /// As [`Ops::plain`].
    fn extended_plain(
        &mut self,
        slots: &SlotVector,
        level: usize,
        scale: Scale,
    ) -> Result<Self::Plain, OpsError> {
        self.plain(slots, level, scale)
    }

    /// The factor of a transform's term with this baby step: [`Ops::extended_plain`] if it moves
    /// anything, else [`Ops::plain`].
    ///
    /// # Errors
    /// As [`Ops::plain`].
    fn term_plain(
        &mut self,
        slots: &SlotVector,
        level: usize,
        scale: Scale,
        baby: i64,
    ) -> Result<Self::Plain, OpsError> {
        if moves(baby, self.params().slots()) {
            self.extended_plain(slots, level, scale)
        } else {
            self.plain(slots, level, scale)
        }
    }

    /// a + b. Both of one level and scale.
    ///
    /// # Errors
    /// [`OpsError::LevelMismatch`], [`OpsError::ScaleMismatch`].
    fn add(&mut self, a: &Self::Ct, b: &Self::Ct) -> Result<Self::Ct, OpsError>;

    /// a - b. Both of one level and scale.
    ///
    /// # Errors
    /// As [`Ops::add`].
    fn sub(&mut self, a: &Self::Ct, b: &Self::Ct) -> Result<Self::Ct, OpsError>;

    /// -a.
    ///
    /// # Errors
    /// None of its own.
    fn negate(&mut self, a: &Self::Ct) -> Result<Self::Ct, OpsError>;

    /// a + p; p at a's scale and at a's level or a higher one.
    ///
    /// # Errors
    /// As [`Ops::add`].
    fn add_plain(&mut self, a: &Self::Ct, p: &Self::Plain) -> Result<Self::Ct, OpsError>;

    /// a * p without rescaling: the scales multiply, the level stays. p at a's level or higher.
    ///
    /// # Errors
    /// [`OpsError::LevelMismatch`].
    fn mul_plain(&mut self, a: &Self::Ct, p: &Self::Plain) -> Result<Self::Ct, OpsError>;

    /// The sum of a * p over the terms without rescaling, in one pass over them where the implementer has
    /// one. All a at one level, all products of one scale.
    ///
    /// # Errors
    /// As [`Ops::mul_plain`] and [`Ops::add`]; an empty list.
    fn mul_plain_sum(&mut self, terms: &[(&Self::Ct, &Self::Plain)]) -> Result<Self::Ct, OpsError> {
        let mut sum: Option<Self::Ct> = None;
        for (a, p) in terms {
            let product = self.mul_plain(a, p)?;
            sum = Some(match sum {
                Some(sum) => self.add(&sum, &product)?,
                None => product,
            });
        }
        sum.ok_or_else(|| OpsError::empty("mul_plain_sum", "product"))
    }

    /// Divides by the step of the level: level - 1, scale / prod(drop) * prod(add).
    ///
    /// # Errors
    /// [`OpsError::OutOfLevels`] at level 0.
    fn rescale(&mut self, a: &Self::Ct) -> Result<Self::Ct, OpsError>;

    /// Sum of products with one relinearization, rescaled: level - 1, and the scale is the
    /// products' scale after the step. All operands of one level, all products of one scale.
    ///
    /// # Errors
    /// Mismatches, an empty list, no level left, or no relinearization key.
    fn mul_sum(&mut self, pairs: &[(&Self::Ct, &Self::Ct)]) -> Result<Self::Ct, OpsError>;

    /// All rotations of one ciphertext; what they share is computed once. 0 is allowed.
    ///
    /// # Errors
    /// [`OpsError::MissingKey`].
    fn rotate_many(&mut self, a: &Self::Ct, by: &[i64]) -> Result<Vec<Self::Ct>, OpsError>;

    /// The complex conjugate of every slot.
    ///
    /// # Errors
    /// [`OpsError::MissingKey`].
    fn conjugate(&mut self, a: &Self::Ct) -> Result<Self::Ct, OpsError>;

    /// Forgets primes: the same value and scale at a lower level. The scale then is not the
    /// canonical one of that level; the caller knows what it does. Exact, unless levels are made of
    /// words and the lower one is no subset: then with the rounding of a rescale.
    ///
    /// # Errors
    /// [`OpsError::OutOfLevels`] if `level` is above the ciphertext's; what [`crate::lowering`] says.
    fn drop_to(&mut self, a: &Self::Ct, level: usize) -> Result<Self::Ct, OpsError>;

    /// The same value at the canonical scale of a lower level: drop to `level + 1`, multiply by
    /// the constant round(s_level * q_(level+1) / scale), rescale. The identity if the value is
    /// there already. The constant stands for the number one encoded at the scale that it makes
    /// up for: its rounding is a relative error of at most one half of its inverse (2^-37 at
    /// scales of 2^36), as with every encoded plaintext.
    ///
    /// # Errors
    /// [`OpsError::OutOfLevels`] if `level` is above the ciphertext's;
    /// [`OpsError::ScaleMismatch`] if it is the ciphertext's level and the scale is not canonical.
    fn adjust(&mut self, a: &Self::Ct, level: usize) -> Result<Self::Ct, OpsError>;

    /// Linear maps of the same inputs by baby and giant steps, rescaled: level - 1, one result per
    /// map. All inputs of one level and scale; all plaintexts of one scale (usually the canonical one
    /// of that level), encoded there or higher by [`Ops::term_plain`].
    ///
    /// Doubly hoisted (see [`veilformer_ring::Backend::linear_transform`]): a rotated input costs
    /// an inner product with its key, once for all maps; a giant step a decomposition and a ModDown
    /// besides.
    ///
    /// # Errors
    /// Mismatches, no or an empty transform, no level left, or a missing rotation key.
    fn linear_transforms(
        &mut self,
        inputs: &[&Self::Ct],
        transforms: &[&Transform<Self::Plain>],
    ) -> Result<Vec<Self::Ct>, OpsError>;

    /// One linear map with *nested* giant steps (Horner's rule), rescaled: with the giants g_0, g_1, ..
    ///
    /// out = rot_(g_0)( A_0 + rot_(g_1)( A_1 + rot_(g_2)( A_2 + .. ))), A_i = the sum of g_i's terms.
    ///
    /// Equal rotations then share one key, where [`Ops::linear_transforms`] needs a key for each.
    /// Usually g_0 is 0. Otherwise as there; a giant step costs the same.
    ///
    /// # Errors
    /// As [`Ops::linear_transforms`].
    fn nested_transform(
        &mut self,
        inputs: &[&Self::Ct],
        transform: &Transform<Self::Plain>,
    ) -> Result<Self::Ct, OpsError> {
        let _ = (inputs, transform);
        Err(OpsError::Invalid {
            op: "nested_transform",
            what: "this implementation has no nested transforms".to_owned(),
        })
    }

    /// From level 0 to the highest level, under an ephemeral sparse secret (Bossuat,
    /// Troncoso-Pastoriza, Hubaux, "Bootstrapping for approximate homomorphic encryption with
    /// negligible failure-probability by using sparse-secret encapsulation", ePrint 2022/024): the
    /// scale stays, and multiples of q0 are added to the message's coefficients, about
    /// sqrt(h/12) of them.
    ///
    /// # Errors
    /// [`OpsError::LevelMismatch`] unless at level 0; [`OpsError::MissingKey`] without the two
    /// encapsulation keys.
    fn mod_raise(&mut self, a: &Self::Ct) -> Result<Self::Ct, OpsError> {
        let _ = a;
        Err(OpsError::Invalid {
            op: "mod_raise",
            what: "this implementation cannot raise the modulus".to_owned(),
        })
    }

    /// The same values with levels to compute on: at the output level of entry `which` of the
    /// implementer's table of bootstraps, and its canonical scale.
    ///
    /// `inputs` is one value, or a pair of real ones that ride as one complex number (for half the
    /// price), each at the entry's input level or above. **Every slot has to lie in [-1, 1]** (both
    /// parts of it, for complex content), junk and padding included: a value outside comes out wrong
    /// without notice and may spoil all slots. Implementers that know the slots, or a bound of them,
    /// refuse. Real content loses its imaginary part; in a pair an imaginary part would go into the
    /// other value.
    ///
    /// # Errors
    /// No such entry, levels that do not suffice, a missing key, slots known to be too large.
    fn bootstraps(
        &mut self,
        inputs: &[&Self::Ct],
        which: usize,
    ) -> Result<Vec<Self::Ct>, OpsError> {
        let _ = (inputs, which);
        Err(OpsError::Invalid {
            op: "bootstrap",
            what: "this implementation has no bootstraps".to_owned(),
        })
    }

    /// States that no slot of a value exceeds `bound` in absolute value, which a circuit knows of and
    /// its operations do not show: |T_k(x)| <= 1 for |x| <= 1. Who writes circuits down keeps it, for
    /// others it is nothing.
    fn promise(&mut self, ct: &Self::Ct, bound: f64) {
        let _ = (ct, bound);
    }

    /// One value; see [`Ops::bootstraps`].
    ///
    /// # Errors
    /// As there.
    fn bootstrap(&mut self, a: &Self::Ct, which: usize) -> Result<Self::Ct, OpsError> {
        let none = OpsError::Invalid {
            op: "bootstrap",
            what: "the implementation returned no ciphertext".to_owned(),
        };
        self.bootstraps(&[a], which)?.pop().ok_or(none)
    }

    /// One linear map; see [`Ops::linear_transforms`].
    ///
    /// # Errors
    /// As there.
    fn linear_transform(
        &mut self,
        inputs: &[&Self::Ct],
        transform: &Transform<Self::Plain>,
    ) -> Result<Self::Ct, OpsError> {
        let none = OpsError::Invalid {
            op: "linear_transform",
            what: "the implementation returned no ciphertext".to_owned(),
        };
        let mut results = self.linear_transforms(inputs, &[transform])?;
        results.pop().ok_or(none)
    }

    /// a * b, relinearized and rescaled.
    ///
    /// # Errors
    /// As [`Ops::mul_sum`].
    fn mul(&mut self, a: &Self::Ct, b: &Self::Ct) -> Result<Self::Ct, OpsError> {
        self.mul_sum(&[(a, b)])
    }

    /// a * a, relinearized and rescaled.
    ///
    /// # Errors
    /// As [`Ops::mul_sum`].
    fn square(&mut self, a: &Self::Ct) -> Result<Self::Ct, OpsError> {
        self.mul_sum(&[(a, a)])
    }

    /// One rotation.
    ///
    /// # Errors
    /// As [`Ops::rotate_many`].
    fn rotate(&mut self, a: &Self::Ct, by: i64) -> Result<Self::Ct, OpsError> {
        self.rotate_many(a, &[by])?.pop().ok_or(OpsError::Invalid {
            op: "rotate",
            what: "the implementation returned no ciphertext".to_owned(),
        })
    }

    /// A ciphertext plus its rotations by each of these steps, 0 among them or not: what they share is
    /// computed once, and rounded once where the implementer has a sum of rotations.
    ///
    /// # Errors
    /// As [`Ops::rotate_many`].
    fn rotate_sum(&mut self, a: &Self::Ct, by: &[i64]) -> Result<Self::Ct, OpsError> {
        let mut sum = a.clone();
        for turned in self.rotate_many(a, by)? {
            sum = self.add(&sum, &turned)?;
        }
        Ok(sum)
    }

    /// a - p; p at a's scale and at a's level or a higher one.
    ///
    /// # Errors
    /// As [`Ops::add_plain`].
    fn sub_plain(&mut self, a: &Self::Ct, p: &Self::Plain) -> Result<Self::Ct, OpsError> {
        let negated = self.negate(a)?;
        let sum = self.add_plain(&negated, p)?;
        self.negate(&sum)
    }
}
