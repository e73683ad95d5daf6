//! Parameters: a specification that anyone may write, and the validated value that the rest of
//! the system takes.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use veilformer_ring::{Basis, Chain};

use crate::bands::{Band, Bands};
use crate::ladder::Sizes;
use crate::security::{self, SecretKind, SecurityLevel, SecurityReport, SecurityRow};
use crate::{CkksError, KeyPurpose, Ladder, Scale, WordSpec};

/// Smallest and largest log2 of the ring dimension that [`ParamsSpec::validate_insecure_for_tests`]
/// takes; secure parameters start where the security table does.
pub const LOG_N_RANGE: std::ops::RangeInclusive<u32> = 3..=17;

/// Most primes that a chain may have.
pub const MAX_PRIMES: usize = 128;

/// What parameters are asked for. Anyone may write one; [`ParamsSpec::validate`] makes
/// [`Params`] of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamsSpec {
    /// log2 of the ring dimension N; there are N/2 slots.
    pub log_n: u32,
    /// Bits of the last remaining prime q0 (the message at level 0 must stay below q0/2).
    pub first_bits: u32,
    /// The scale at the highest level is 2^scale_bits; the primes q1.. are near it (with a
    /// [`Ladder`], those of the middle levels).
    pub scale_bits: u32,
    /// Number of rescales: the highest level.
    pub levels: usize,
    /// Bits of each special prime: the largest below 2^special_bits.
    pub special_bits: u32,
    /// Number of special primes (their product is P).
    pub special_count: usize,
    /// Number of consecutive primes of Q per key-switching digit (see [`Params::digits`]).
    pub digit_limbs: usize,
    /// Required security of every key.
    pub security: SecurityLevel,
}

/// Most bits of level 0 and of a scale where each is one prime (those of scales lie on both sides of
/// theirs).
const SINGLE_MOST: (u32, u32) = (50, 49);
/// The same where they are made of words: a product before its rescale must fit what decoding
/// reads.
const WORDS_MOST: (u32, u32) = (100, 60);

/// How a rescale goes from one level to the next lower one: the value is multiplied by the
/// product of the primes in `add` and divided by those in `drop`, whose sets the basis loses and
/// gains. Plain CKKS drops one prime and adds none; rational rescaling does both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelStep {
    /// Primes that the basis loses.
    pub drop: Basis,
    /// Primes that the basis gains.
    pub add: Basis,
}

/// Validated parameters: cheap to clone, and without a way to exist other than through the
/// checks of [`ParamsSpec::validate`], [`ParamsSpec::validate_insecure_for_tests`] or
/// [`Params::from_primes`].
///
/// # The chain
/// Prime indices: 0 is q0, `1..=levels` are q1..qL, then come the special primes. Level l has
/// the basis {q0..ql}; levels of a [`Ladder`] may add two primes each. Chains of words
/// ([`ParamsSpec::validate_words`]) have main words first, then side words, then the special
/// primes, and each level is a set of them; a lower level then need not be a subset of a higher one.
///
/// # The per-level table of scales
/// s_L = 2^scale_bits, and going down: q_l is the free NTT prime nearest to
/// s_l^2 / 2^scale_bits, and s_(l-1) = s_l^2 / q_l (in general s_l^2 times the words that the step
/// adds over those that it drops). The product of two values of level l at scale
/// s_l, rescaled, thus has *exactly* the canonical scale s_(l-1), and since the next prime is
/// chosen against the scale that came out, the distance from 2^scale_bits stays that between
/// neighbouring primes. A plaintext that multiplies a ciphertext of level l is encoded at s_l.
///
/// With a [`Ladder`] of b levels below and a above ([`ParamsSpec::validate_ladder`]) there are
/// three such tables, and within a part one for each run of primes of one size:
/// * the *middle* levels b..=L-a ([`Params::middle`], both ends included) begin with exactly
///   2^scale_bits at level L-a;
/// * the levels above begin at level L with 2^(bits of q_L), and go down to level L-a+1;
/// * the levels below begin at level b-1 with 2^(bits of q_(b-1); of q_1 if b = 1), and go down to
///   level 0.
///
/// From L-a+1 to L-a and from b to b-1 a rescaled product has not the canonical scale of the lower
/// level: what goes there chooses the scale of a plaintext so that it has, or is adjusted.
#[derive(Clone)]
pub struct Params(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    spec: ParamsSpec,
    chain: Arc<Chain>,
    primes: Vec<u64>,
    scales: Vec<Scale>,
    middle: RangeInclusive<usize>,
    /// Of each level its primes.
    levels: Vec<Basis>,
    /// Of each level the primes of all levels up to it.
    covering: Vec<Basis>,
    bands: Bands,
    special: Basis,
    report: SecurityReport,
    digest: [u8; 32],
    insecure: bool,
}

impl ParamsSpec {
    /// Chooses the primes and checks everything, security included.
    ///
    /// ```
    /// use veilformer_ckks::{ParamsSpec, SecurityLevel};
    ///
    /// let params = ParamsSpec {
    ///     log_n: 14,
    ///     first_bits: 45,
    ///     scale_bits: 36,
    ///     levels: 7,
    ///     special_bits: 41,
    ///     special_count: 3,
    ///     digit_limbs: 3,
    ///     security: SecurityLevel::Bits128,
    /// }
    /// .validate()?;
    /// assert_eq!(params.slots(), 8192);
    /// assert_eq!(params.security().bits(), 128);
    /// assert!(params.log_qp() < 0.99 * 430.0);
    /// # Ok::<(), veilformer_ckks::CkksError>(())
    /// ```
    ///
    /// # Errors
    /// [`CkksError::Params`] if no such chain exists, [`CkksError::Insecure`] if log2(QP) is not
    /// 1% under the bound for a dense ternary secret at the required level.
    pub fn validate(self) -> Result<Params, CkksError> {
        self.build(false)
    }

    /// As [`ParamsSpec::validate`], without the security check. Everything made with the result
    /// carries a watermark, and its security rows say what they really reach.
    ///
    /// # Errors
    /// [`CkksError::Params`] if no such chain exists.
    pub fn validate_insecure_for_tests(self) -> Result<Params, CkksError> {
        self.build(true)
    }

    /// As [`ParamsSpec::validate`], with levels that are made of several smaller primes: the chains
    /// of machines with narrow multipliers. `first_bits` is then the size of level 0 and `scale_bits`
    /// that of a step between levels, each made of words; `digit_limbs` counts words.
    ///
    /// ```
    /// use veilformer_ckks::{ParamsSpec, SecurityLevel, WordSpec};
    ///
    /// let spec = ParamsSpec {
    ///     log_n: 16,
    ///     first_bits: 60,
    ///     scale_bits: 40,
    ///     levels: 9,
    ///     special_bits: 30,
    ///     special_count: 5,
    ///     digit_limbs: 5,
    ///     security: SecurityLevel::Bits128,
    /// };
    /// let words = WordSpec { main_bits: 30, side_bits: 25, most_side: 4 };
    /// let params = spec.validate_words(words)?;
    /// // 420 bits at the top; the step from there drops words and adds others.
    /// assert!((params.log_q(9) - 420.0).abs() < 1.0);
    /// assert!((params.log_q(9) - params.log_q(8) - 40.0).abs() < 0.1);
    /// assert!(params.primes().iter().all(|q| *q < 1 << 31));
    /// # Ok::<(), veilformer_ckks::CkksError>(())
    /// ```
    ///
    /// # Errors
    /// As [`ParamsSpec::validate`].
    pub fn validate_words(self, words: WordSpec) -> Result<Params, CkksError> {
        self.build_words(words, false)
    }

    /// As [`ParamsSpec::validate_words`], without the security check and with the watermark.
    ///
    /// # Errors
    /// [`CkksError::Params`] if no such chain exists.
    pub fn validate_words_insecure_for_tests(self, words: WordSpec) -> Result<Params, CkksError> {
        self.build_words(words, true)
    }

    fn build_words(self, words: WordSpec, insecure: bool) -> Result<Params, CkksError> {
        self.check_ranges(WORDS_MOST)?;
        let words = crate::words::choose(&self, words)?;
        Params::assemble(self, words.primes, words.levels, insecure)
    }

    /// As [`ParamsSpec::validate`], with other sizes of the lowest and highest levels: for what a
    /// bootstrap does there. `levels` counts all levels, `scale_bits` is that of the middle ones; for
    /// their scales see [`Params`]. Primes of 50 bits are the largest below 2^50; the levels take
    /// those nearest to their scales, before q0 and the special primes. A level of 51 to 60 bits has
    /// two primes of half its size.
    ///
    /// ```
    /// use veilformer_ckks::{Ladder, ParamsSpec, SecurityLevel};
    ///
    /// let spec = ParamsSpec {
    ///     log_n: 16,
    ///     first_bits: 50,
    ///     scale_bits: 40,
    ///     levels: 30,
    ///     special_bits: 50,
    ///     special_count: 6,
    ///     digit_limbs: 6,
    ///     security: SecurityLevel::Bits128,
    /// };
    /// let ladder = Ladder { below: vec![42; 3], above: vec![50; 13] };
    /// let params = spec.validate_ladder(&ladder)?;
    /// assert_eq!(params.middle(), 3..=17);
    /// assert_eq!(params.scale_at(17).log2(), 40.0);
    /// assert_eq!(params.scale_at(30).log2(), 50.0);
    /// assert_eq!(params.scale_at(2).log2(), 42.0);
    /// // 31 primes in digits of at most 300 bits.
    /// assert_eq!(params.digits().len(), 5);
    /// # Ok::<(), veilformer_ckks::CkksError>(())
    /// ```
    ///
    /// # Errors
    /// As [`ParamsSpec::validate`]; also if an outer size is not the middle one and nearer to it than
    /// two bits, if an ordinary size stands outside of an outer one, or if no middle level is left.
    pub fn validate_ladder(self, ladder: &Ladder) -> Result<Params, CkksError> {
        self.build_ladder(ladder, false)
    }

    /// As [`ParamsSpec::validate_ladder`], without the security check and with the watermark.
    ///
    /// # Errors
    /// As there, without [`CkksError::Insecure`].
    pub fn validate_ladder_insecure_for_tests(self, ladder: &Ladder) -> Result<Params, CkksError> {
        self.build_ladder(ladder, true)
    }

    fn build(self, insecure: bool) -> Result<Params, CkksError> {
        self.build_ladder(&Ladder::default(), insecure)
    }

    fn build_ladder(self, ladder: &Ladder, insecure: bool) -> Result<Params, CkksError> {
        self.check_ranges(SINGLE_MOST)?;
        let ladder = ladder.clone().trimmed(self.scale_bits);
        ladder.check(&self, (self.log_n + 5, WORDS_MOST.1))?;
        let sizes = Sizes::of_ladder(&self, &ladder);
        let primes = crate::primes::choose(&self, &sizes)?;
        let levels = sizes.levels();
        let params = Params::assemble(self, primes, levels, insecure)?;
        // The sizes are read off the primes from now on.
        if params.middle() != sizes.middle() {
            return Err(CkksError::params(
                "the primes of the ladder are too far from the sizes asked for",
                "choose larger sizes or a smaller ring, so that there are primes near them",
            ));
        }
        Ok(params)
    }

    /// The levels of plain CKKS: each has one prime more than the one below.
    fn single_primes(&self) -> Vec<Basis> {
        (0..=self.levels).map(|l| Basis::first(l + 1)).collect()
    }

    /// `most` bits of the modulus of level 0 and of a scale.
    fn check_ranges(&self, most: (u32, u32)) -> Result<(), CkksError> {
        let fail = |what: String| Err(CkksError::params(what, "change the specification"));
        if !LOG_N_RANGE.contains(&self.log_n) {
            return fail(format!(
                "log_n is {}, expected {} to {}",
                self.log_n,
                LOG_N_RANGE.start(),
                LOG_N_RANGE.end()
            ));
        }
        // The primes of the levels lie on both sides of 2^scale_bits, the others may lie below.
        for (name, bits, most) in [
            ("first_bits", self.first_bits, most.0),
            ("scale_bits", self.scale_bits, most.1),
            ("special_bits", self.special_bits, SINGLE_MOST.0),
        ] {
            if !(self.log_n + 5..=most).contains(&bits) {
                return fail(format!(
                    "{name} is {bits}, expected {} to {most} (primes are below 2^50, level 0 and \
                     scales of several below 2^{})",
                    self.log_n + 5,
                    WORDS_MOST.0
                ));
            }
        }
        if self.special_count == 0 || self.digit_limbs == 0 {
            return fail("special_count and digit_limbs must be at least 1".to_owned());
        }
        let count = self
            .levels
            .saturating_add(1)
            .saturating_add(self.special_count);
        if count > MAX_PRIMES {
            return fail(format!("{count} primes, at most {MAX_PRIMES} are possible"));
        }
        Ok(())
    }
}

impl Params {
    /// Rebuilds parameters from a specification and its primes (a file), checking everything
    /// that [`ParamsSpec::validate`] checks, and the primes themselves.
    ///
    /// # Errors
    /// [`CkksError::Params`], [`CkksError::Insecure`] or a ring error for a number that is no
    /// NTT prime.
    pub fn from_primes(spec: ParamsSpec, primes: &[u64]) -> Result<Self, CkksError> {
        spec.check_ranges(SINGLE_MOST)?;
        let levels = spec.single_primes();
        Self::assemble(spec, primes.to_vec(), levels, false)
    }

    /// As [`Params::from_primes`] for any chain: `levels` has the primes of each level, from
    /// level 0. Without `secure` the security check is left out and the watermark is set.
    ///
    /// # Errors
    /// As [`Params::from_primes`].
    pub fn from_levels(
        spec: ParamsSpec,
        primes: &[u64],
        levels: &[Basis],
        secure: bool,
    ) -> Result<Self, CkksError> {
        let single = is_single(levels);
        spec.check_ranges(if single { SINGLE_MOST } else { WORDS_MOST })?;
        Self::assemble(spec, primes.to_vec(), levels.to_vec(), !secure)
    }

    /// As [`Params::from_primes`], without the security check and with the watermark.
    ///
    /// # Errors
    /// As [`Params::from_primes`], without [`CkksError::Insecure`].
    pub fn from_primes_insecure_for_tests(
        spec: ParamsSpec,
        primes: &[u64],
    ) -> Result<Self, CkksError> {
        spec.check_ranges(SINGLE_MOST)?;
        let levels = spec.single_primes();
        Self::assemble(spec, primes.to_vec(), levels, true)
    }

    fn assemble(
        spec: ParamsSpec,
        primes: Vec<u64>,
        levels: Vec<Basis>,
        insecure: bool,
    ) -> Result<Self, CkksError> {
        let count = primes.len().saturating_sub(spec.special_count);
        let (ciphertext, special) = primes.split_at(count);
        let ladder = Sizes::of_levels(&spec, ciphertext, &levels);
        let known = ladder.is_some();
        let sizes = ladder.unwrap_or_else(|| Sizes::ordinary(&spec));
        let digits = sizes.digits(&spec, ciphertext, special);
        crate::primes::check(&spec, &primes, (known.then_some(&sizes), &digits))?;
        let covering = check_levels(&spec, ciphertext, &levels)?;
        let report = security_report(&spec, &primes, insecure)?;
        let scales = scale_table(&sizes, &primes, &levels)?;
        let special = Basis::range(count, primes.len());
        let whole = Band {
            levels: 0..=spec.levels,
            digits,
            special,
        };
        let bands = match sizes.is_plain() {
            true => Bands::single(whole),
            false => {
                let most = spec.digit_limbs.saturating_mul(2);
                let highest = Band {
                    levels: spec.levels..=spec.levels,
                    ..whole
                };
                Bands::new(&primes, &covering, &highest, most)
            }
        };
        let digest = digest(&spec, &primes, (&bands, &levels), insecure);
        let chain = Chain::new(spec.log_n, &primes)?;
        Ok(Self(Arc::new(Inner {
            spec,
            chain,
            primes,
            scales,
            middle: sizes.middle(),
            levels,
            covering,
            bands,
            special,
            report,
            digest,
            insecure,
        })))
    }

    /// The same chain with all levels in one band: what files were made for before there were several.
    pub(crate) fn in_one_band(&self) -> Self {
        let mut inner = Inner::clone(&self.0);
        inner.bands = Bands::single(Band {
            levels: 0..=self.max_level(),
            digits: self.digits().to_vec(),
            special: self.special(),
        });
        let parts = (&inner.bands, &*inner.levels);
        inner.digest = digest(&inner.spec, &inner.primes, parts, inner.insecure);
        Self(Arc::new(inner))
    }

    /// The specification.
    #[must_use]
    pub fn spec(&self) -> &ParamsSpec {
        &self.0.spec
    }

    /// The prime chain: q0..qL (or words), then the special primes.
    #[must_use]
    pub fn chain(&self) -> &Arc<Chain> {
        &self.0.chain
    }

    /// The primes in chain order.
    #[must_use]
    pub fn primes(&self) -> &[u64] {
        &self.0.primes
    }

    /// log2 of the ring dimension.
    #[must_use]
    pub fn log_n(&self) -> u32 {
        self.0.spec.log_n
    }

    /// The ring dimension N.
    #[must_use]
    pub fn n(&self) -> usize {
        1 << self.0.spec.log_n
    }

    /// Number of slots, N/2.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.n() / 2
    }

    /// The highest level.
    #[must_use]
    pub fn max_level(&self) -> usize {
        self.0.spec.levels
    }

    /// The primes of a ciphertext at `level`. Above the highest level: those of the highest.
    #[must_use]
    pub fn basis_at(&self, level: usize) -> Basis {
        // The tables have max_level() + 1 entries by construction.
        self.0.levels[level.min(self.max_level())]
    }

    /// The primes of all levels up to `level`: those of the level itself unless levels are made
    /// of words. Keys live on them.
    #[must_use]
    pub fn covering(&self, level: usize) -> Basis {
        self.0.covering[level.min(self.max_level())]
    }

    /// The special primes (P).
    #[must_use]
    pub fn special(&self) -> Basis {
        self.0.special
    }

    /// The key-switching digits of all primes but the special ones: consecutive runs of
    /// `digit_limbs`. With a [`Ladder`], whose primes differ in size, each run takes as many as keep
    /// its product within P, at most twice `digit_limbs`.
    #[must_use]
    pub fn digits(&self) -> &[Basis] {
        self.0.bands.digits()
    }

    /// The bands of levels for keys of this purpose, from the lowest up; together they are all levels.
    #[must_use]
    pub fn bands(&self, purpose: KeyPurpose) -> &[Band] {
        self.0.bands.of(purpose)
    }

    pub(crate) fn lower_bands(&self) -> Vec<Basis> {
        self.0.bands.lower()
    }

    /// The canonical scale of `level`. Above the highest level: that of the highest.
    #[must_use]
    pub fn scale_at(&self, level: usize) -> Scale {
        let level = level.min(self.max_level());
        // The table has max_level() + 1 entries by construction.
        self.0.scales[level]
    }

    /// The levels whose primes are ordinary ones, and those at which they meet the outer levels of a
    /// [`Ladder`]: all levels without one.
    #[must_use]
    pub fn middle(&self) -> RangeInclusive<usize> {
        self.0.middle.clone()
    }

    /// The rescale from `level` to `level - 1`: drop {q_level} and add nothing, unless levels are
    /// made of words. At level 0 both sets are empty: there is no lower level.
    #[must_use]
    pub fn step_at(&self, level: usize) -> LevelStep {
        let level = level.min(self.max_level());
        let (from, to) = (self.basis_at(level), self.basis_at(level.saturating_sub(1)));
        LevelStep {
            drop: from.minus(to),
            add: to.minus(from),
        }
    }

    /// Product of the primes of a basis that a rescale divides by, as the exact scale table uses
    /// it.
    #[must_use]
    pub fn product(&self, basis: Basis) -> f64 {
        self.moduli(basis).iter().map(|&q| q as f64).product()
    }

    /// The moduli of a basis, ascending by prime index. Indices beyond the chain are left out.
    #[must_use]
    pub fn moduli(&self, basis: Basis) -> Vec<u64> {
        basis
            .iter()
            .filter_map(|i| self.0.primes.get(i).copied())
            .collect()
    }

    /// log2 of the modulus of `level`.
    #[must_use]
    pub fn log_q(&self, level: usize) -> f64 {
        security::log2_product(&self.moduli(self.basis_at(level)))
    }

    /// Bytes that a ciphertext of `level` takes in memory: two polynomials of eight-byte residues.
    /// Levels above the highest count as the highest.
    #[must_use]
    pub fn ciphertext_bytes(&self, level: usize) -> u64 {
        let limbs = self.basis_at(level.min(self.max_level())).len();
        2 * 8 * (self.n() * limbs) as u64
    }

    /// log2 of the product of all primes.
    #[must_use]
    pub fn log_qp(&self) -> f64 {
        security::log2_product(&self.0.primes)
    }

    /// BLAKE3 digest of the specification, the primes, the word set of every level and the
    /// watermark: equal digests mean that objects may meet.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.0.digest
    }

    /// The security rows of the largest key-switching key and of the public key under a dense
    /// secret. Every key that is made gets a row of its own: [`Params::check_key`].
    #[must_use]
    pub fn security(&self) -> &SecurityReport {
        &self.0.report
    }

    /// Whether these parameters came without the security check.
    #[must_use]
    pub fn is_insecure(&self) -> bool {
        self.0.insecure
    }

    /// The security row of a key that lives on `basis` under a secret of the given kind. For
    /// insecure parameters the row says what is reached, and nothing is refused.
    ///
    /// # Errors
    /// [`CkksError::Insecure`] if the key's own moduli exceed the bound of its own secret.
    pub fn check_key(
        &self,
        key: &str,
        basis: Basis,
        secret: SecretKind,
    ) -> Result<SecurityRow, CkksError> {
        self.check_key_moduli(key, &self.moduli(basis), secret)
    }

    /// As [`Params::check_key`], for moduli given as numbers.
    ///
    /// # Errors
    /// [`CkksError::Insecure`].
    pub fn check_key_moduli(
        &self,
        key: &str,
        moduli: &[u64],
        secret: SecretKind,
    ) -> Result<SecurityRow, CkksError> {
        let row = security::assess(self.log_n(), moduli, secret).named(key);
        if self.is_insecure() || row.bits >= self.spec().security.bits() {
            Ok(row)
        } else {
            Err(security::insecure(key, &row, self.spec().security, 1.0))
        }
    }

    /// `Ok` if `level` exists.
    ///
    /// # Errors
    /// [`CkksError::Level`].
    pub fn check_level(&self, level: usize) -> Result<(), CkksError> {
        if level <= self.max_level() {
            Ok(())
        } else {
            Err(CkksError::Level {
                level,
                max: self.max_level(),
            })
        }
    }
}

impl PartialEq for Params {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.digest() == other.digest()
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Params")
            .field("spec", &self.0.spec)
            .field("log_qp", &self.log_qp())
            .field("insecure", &self.is_insecure())
            .finish_non_exhaustive()
    }
}

fn security_report(
    spec: &ParamsSpec,
    primes: &[u64],
    insecure: bool,
) -> Result<SecurityReport, CkksError> {
    let secret = SecretKind::DenseTernary;
    let count = primes.len().saturating_sub(spec.special_count);
    let ciphertext_primes = primes.get(..count).unwrap_or(primes);
    let keys = security::assess(spec.log_n, primes, secret).named("key switching (highest level)");
    let public = security::assess(spec.log_n, ciphertext_primes, secret).named("public key");
    let bound = security::bound(spec.log_n, secret, spec.security).unwrap_or(0.0);
    if !insecure && keys.log_qp > bound * security::VALIDATION_MARGIN {
        return Err(security::insecure(
            "parameters",
            &keys,
            spec.security,
            security::VALIDATION_MARGIN,
        ));
    }
    Ok(SecurityReport {
        rows: vec![keys, public],
    })
}

/// Whether each level has one prime more than the one below: plain CKKS.
fn is_single(levels: &[Basis]) -> bool {
    let mut numbered = levels.iter().enumerate();
    numbered.all(|(l, basis)| *basis == Basis::first(l + 1))
}

/// Checks the primes of each level, the ciphertext primes given; returns what covers each level.
fn check_levels(
    spec: &ParamsSpec,
    primes: &[u64],
    levels: &[Basis],
) -> Result<Vec<Basis>, CkksError> {
    let fail = |what: String| {
        Err(CkksError::params(
            what,
            "the specification and the levels must belong together",
        ))
    };
    if levels.len() != spec.levels + 1 {
        return fail(format!(
            "primes of {} levels, expected {}",
            levels.len(),
            spec.levels + 1
        ));
    }
    let all = Basis::first(primes.len());
    if let Some(level) = levels
        .iter()
        .position(|l| l.is_empty() || !all.contains_all(*l))
    {
        return fail(format!("level {level} has no primes or unknown ones"));
    }
    let bits = |basis: Basis| -> f64 {
        let primes = basis.iter().filter_map(|i| primes.get(i));
        primes.map(|&q| (q as f64).log2()).sum()
    };
    if bits(levels[0]) + 1.0 < f64::from(spec.first_bits) {
        return fail(format!(
            "level 0 has {:.1} bits, expected {}",
            bits(levels[0]),
            spec.first_bits
        ));
    }
    let mut union = Basis::empty();
    let covering: Vec<Basis> = levels
        .iter()
        .map(|level| {
            union = union.union(*level);
            union
        })
        .collect();
    if union != all {
        return fail("some primes belong to no level".to_string());
    }
    Ok(covering)
}

fn scale_table(sizes: &Sizes, primes: &[u64], levels: &[Basis]) -> Result<Vec<Scale>, CkksError> {
    let product = |basis: Basis| -> f64 {
        let primes = basis.iter().filter_map(|i| primes.get(i));
        primes.map(|&q| q as f64).product()
    };
    sizes.scale_table(|level, scale| {
        let (Some(&from), Some(&to)) = (levels.get(level), levels.get(level - 1)) else {
            return scale;
        };
        let scale = scale.divide(product(from.minus(to)));
        let add = to.minus(from);
        if add.is_empty() {
            scale
        } else {
            scale.multiply(product(add))
        }
    })
}

fn digest(
    spec: &ParamsSpec,
    primes: &[u64],
    (bands, levels): (&Bands, &[Basis]),
    insecure: bool,
) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"veilformer ckks parameters 1\0");
    let words = |hasher: &mut blake3::Hasher, values: &mut dyn Iterator<Item = u64>| {
        let list: Vec<u64> = values.collect();
        hasher.update(&(list.len() as u64).to_le_bytes());
        for value in list {
            hasher.update(&value.to_le_bytes());
        }
    };
    let numbers = [
        u64::from(spec.log_n),
        u64::from(spec.first_bits),
        u64::from(spec.scale_bits),
        spec.levels as u64,
        u64::from(spec.special_bits),
        spec.special_count as u64,
        spec.digit_limbs as u64,
        u64::from(spec.security.bits()),
        u64::from(insecure),
    ];
    words(&mut hasher, &mut numbers.into_iter());
    words(&mut hasher, &mut primes.iter().copied());
    let mut basis = |basis: &Basis| words(&mut hasher, &mut basis.iter().map(|i| i as u64));
    bands.digits().iter().for_each(&mut basis);
    levels.iter().for_each(&mut basis);
    bands.lower().iter().for_each(&mut basis);
    *hasher.finalize().as_bytes()
}
