//! The conformance suite of [`Backend`]: every operation of an implementer against
//! [`Reference`] on random inputs, bit for bit.
//!
//! A backend's tests call [`check_all`] with a function that opens it on a chain.

mod raise;
mod transform;

use std::sync::Arc;

use crate::backend::Backend;
use crate::expander::{Expander, ExpanderId, Stream};
use crate::{
    Basis, Chain, Form, GaloisElement, PlainPoly, Reference, Result, RingError, RnsPoly,
    SwitchingKey, UniformHalf, ntt_primes_near,
};

/// Why a backend does not conform.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The backend refused what it must do.
    #[error("{0}")]
    Ring(#[from] RingError),
    /// A result differs from the reference.
    #[error("{check} at N = 2^{log_n}: the result differs from the reference")]
    Differs {
        /// The check.
        check: &'static str,
        /// The ring degree.
        log_n: u32,
    },
    /// The backend accepted what it must refuse.
    #[error("{check}: accepted operands that must be refused")]
    Accepted {
        /// The check.
        check: &'static str,
    },
}

type Check = std::result::Result<(), Failure>;

/// A chain for tests: `q` primes of about 41 bits (the first of 50), then `p` of about 50 bits.
///
/// # Errors
/// As [`Chain::new`].
pub fn test_chain(log_n: u32, q: usize, p: usize) -> Result<Arc<Chain>> {
    let top = 2f64.powi(50) - 2f64.powi(30);
    let big = ntt_primes_near(top, log_n, &[], p + 1)?;
    let mut primes = vec![big[0]];
    primes.extend(ntt_primes_near(
        2f64.powi(41),
        log_n,
        &big,
        q.saturating_sub(1),
    )?);
    primes.extend(&big[1..]);
    Chain::new(log_n, &primes)
}

/// Deterministic random test data on one chain.
pub struct Samples {
    chain: Arc<Chain>,
    expander: Expander,
    next: u32,
    /// Keys made so far.
    keys: usize,
}

impl Samples {
    /// A source with a seed.
    pub fn new(chain: &Arc<Chain>, seed: u8) -> Self {
        let expander = Expander::new(ExpanderId::Blake3, [seed; 32]);
        Self {
            chain: chain.clone(),
            expander,
            next: 0,
            keys: 0,
        }
    }

    /// A uniform polynomial.
    ///
    /// # Errors
    /// [`RingError::BadBasis`].
    pub fn poly(&mut self, basis: Basis, form: Form) -> Result<RnsPoly> {
        self.next += 1;
        let mut p = self.expander.poly(
            &self.chain,
            basis,
            Stream {
                digit: self.next,
                part: 0,
            },
        )?;
        p.set_form(form);
        Ok(p)
    }

    /// Uniform residues, `per_limb` per prime.
    pub fn residues(&mut self, basis: Basis, per_limb: usize) -> Vec<u64> {
        self.next += 1;
        let mut out = vec![0; per_limb * basis.len()];
        for (i, limb) in basis.iter().zip(out.chunks_mut(per_limb.max(1))) {
            let stream = Stream {
                digit: self.next,
                part: 1,
            };
            self.expander.fill(stream, self.chain.modulus(i), limb);
        }
        out
    }

    /// A switching key with uniform parts: what matters to the ring is the arithmetic.
    ///
    /// # Errors
    /// [`RingError::BadBasis`].
    pub fn key(
        &mut self,
        galois: GaloisElement,
        digits: &[Basis],
        special: Basis,
    ) -> Result<SwitchingKey> {
        let basis = digits.iter().fold(special, |a, &d| a.union(d));
        let key = self.keys % 4;
        self.keys += 1;
        let mut parts = Vec::new();
        for _ in digits {
            let b = self.poly(basis, Form::Ntt)?;
            // Of four keys one has its uniform halves in full, one seeds whose words follow one another, the
            // others seeds of which words are made one by one.
            let a = match key {
                0 => UniformHalf::Poly(self.poly(basis, Form::Ntt)?),
                _ => {
                    self.next += 1;
                    let id = match key {
                        1 => ExpanderId::Blake3,
                        _ => ExpanderId::Aes128,
                    };
                    UniformHalf::Seeded {
                        expander: Expander::new(id, [key as u8; 32]),
                        stream: Stream {
                            digit: self.next,
                            part: 2,
                        },
                    }
                }
            };
            parts.push((b, a));
        }
        Ok(SwitchingKey {
            galois,
            digits: digits.to_vec(),
            special,
            parts,
        })
    }
}

/// One backend beside the reference on one chain.
struct Bench<B> {
    ours: B,
    reference: Reference,
    chain: Arc<Chain>,
    samples: Samples,
    log_n: u32,
}

impl<B: Backend> Bench<B> {
    fn same(&self, check: &'static str, ours: &B::Poly, expected: &RnsPoly) -> Check {
        if self.ours.export(ours)? == *expected
            && self.ours.basis(ours) == expected.basis()
            && self.ours.form(ours) == expected.form()
        {
            Ok(())
        } else {
            Err(Failure::Differs {
                check,
                log_n: self.log_n,
            })
        }
    }

    fn refused<T>(&self, check: &'static str, result: Result<T>) -> Check {
        if result.is_err() {
            Ok(())
        } else {
            Err(Failure::Accepted { check })
        }
    }
}

/// Runs every check for several small degrees and bases.
///
/// # Errors
/// The first [`Failure`].
pub fn check_all<B: Backend>(open: impl Fn(Arc<Chain>) -> Result<B>) -> Check {
    for (log_n, seed) in [(3, 1), (4, 2), (6, 3), (8, 4)] {
        let chain = test_chain(log_n, 6, 3)?;
        let mut bench = Bench {
            ours: open(chain.clone())?,
            reference: Reference::new(chain.clone()),
            samples: Samples::new(&chain, seed),
            chain,
            log_n,
        };
        transforms(&mut bench)?;
        pointwise(&mut bench)?;
        plaintexts(&mut bench)?;
        automorphisms(&mut bench)?;
        conversions(&mut bench)?;
        // At the largest degree the reference takes most of the time, so that only primes in mixed places are
        // tried there: the harder case of the two.
        let cases = [Places::MIXED, Places::IN_ORDER];
        let cases = &cases[..if log_n < 8 { 2 } else { 1 }];
        for &places in cases {
            key_switches(&mut bench, places)?;
            transform::linear_transforms(&mut bench, places)?;
        }
        hoisting(&mut bench)?;
        raise::raising(&mut bench)?;
        mismatches(&mut bench)?;
    }
    Ok(())
}

fn transforms<B: Backend>(t: &mut Bench<B>) -> Check {
    let x = t.samples.poly(t.chain.all(), Form::Coefficient)?;
    let mut ours = t.ours.import(x.clone())?;
    let mut theirs = x.clone();
    t.ours.forward_ntt(&mut ours)?;
    t.reference.forward_ntt(&mut theirs)?;
    t.same("forward_ntt", &ours, &theirs)?;
    t.ours.inverse_ntt(&mut ours)?;
    t.same("inverse_ntt", &ours, &x)
}

fn pointwise<B: Backend>(t: &mut Bench<B>) -> Check {
    let basis = Basis::from_indices(&[0, 2, 3, 7]);
    let a = t.samples.poly(basis, Form::Ntt)?;
    let b = t.samples.poly(basis, Form::Ntt)?;
    let (x, y) = (t.ours.import(a.clone())?, t.ours.import(b.clone())?);
    let (mut s, mut r) = (t.ours.duplicate(&x), a.clone());
    t.ours.add_assign(&mut s, &y)?;
    t.reference.add_assign(&mut r, &b)?;
    t.same("add_assign", &s, &r)?;
    t.ours.mul_acc(&mut s, &x, &y)?;
    t.reference.mul_acc(&mut r, &a, &b)?;
    t.same("mul_acc", &s, &r)?;
    t.ours.sub_assign(&mut s, &y)?;
    t.reference.sub_assign(&mut r, &b)?;
    t.same("sub_assign", &s, &r)?;
    t.ours.neg_assign(&mut s)?;
    t.reference.neg_assign(&mut r)?;
    t.same("neg_assign", &s, &r)?;
    t.same("mul", &t.ours.mul(&x, &y)?, &t.reference.mul(&a, &b)?)?;
    t.same("add", &t.ours.add(&x, &y)?, &t.reference.add(&a, &b)?)?;
    t.same("sub", &t.ours.sub(&x, &y)?, &t.reference.sub(&a, &b)?)?;
    let residues = t.samples.residues(basis, 1);
    t.ours.mul_scalar_assign(&mut s, &residues)?;
    t.reference.mul_scalar_assign(&mut r, &residues)?;
    t.same("mul_scalar_assign", &s, &r)?;
    // The last primes, the first ones, all of them: what is read may be shared, and writing is not.
    for part in [&[2, 7][..], &[0, 2, 3], &[0, 2, 3, 7]] {
        let part = Basis::from_indices(part);
        let (mut ours, mut theirs) = (t.ours.restrict(&s, part)?, t.reference.restrict(&r, part)?);
        t.same("restrict", &ours, &theirs)?;
        t.ours.neg_assign(&mut ours)?;
        t.reference.neg_assign(&mut theirs)?;
        t.same("a part written to", &ours, &theirs)?;
        t.same("the whole then", &s, &r)?;
        let kept = t.ours.restrict(&s, part)?;
        t.ours.neg_assign(&mut s)?;
        t.same(
            "a part of what is written to",
            &kept,
            &t.reference.restrict(&r, part)?,
        )?;
        t.reference.neg_assign(&mut r)?;
        t.same("what is written to", &s, &r)?;
    }
    let copy = t.ours.duplicate(&s);
    t.ours.neg_assign(&mut s)?;
    t.same("a copy of what is written to", &copy, &r)
}

fn plaintexts<B: Backend>(t: &mut Bench<B>) -> Check {
    let wide = t.chain.all();
    let basis = Basis::from_indices(&[1, 2, 4, 8]);
    let n = t.chain.n();
    let mut plains = vec![
        PlainPoly::Dense(t.samples.poly(wide, Form::Ntt)?),
        PlainPoly::Scalar {
            basis: wide,
            residues: t.samples.residues(wide, 1),
        },
    ];
    for log_period in 0..=t.log_n {
        let period = 1 << log_period;
        let values = t.samples.residues(wide, period);
        plains.push(PlainPoly::Periodic {
            period,
            basis: wide,
            values,
        });
    }
    // More with a value for every word, between others.
    for _ in 0..5 {
        plains.push(PlainPoly::Dense(t.samples.poly(wide, Form::Ntt)?));
    }
    let mut terms = Vec::new();
    for plain in plains {
        let a = t.samples.poly(basis, Form::Ntt)?;
        let x = t.ours.import(a.clone())?;
        let (p, rp) = (
            t.ours.prepare_plain(&plain)?,
            t.reference.prepare_plain(&plain)?,
        );
        let (s, r) = (t.ours.mul_plain(&x, &p)?, t.reference.mul_plain(&a, &rp)?);
        t.same("mul_plain", &s, &r)?;
        let sums = (
            t.ours.mul_plain_sum(&[(&x, &p), (&s, &p), (&x, &p)])?,
            t.reference
                .mul_plain_sum(&[(&a, &rp), (&r, &rp), (&a, &rp)])?,
        );
        t.same("mul_plain_sum", &sums.0, &sums.1)?;
        let (ours, theirs) = (t.ours.add_plain(&s, &p)?, t.reference.add_plain(&r, &rp)?);
        t.same("add_plain", &ours, &theirs)?;
        t.same("what add_plain read", &s, &r)?;
        terms.push((x, p, a, rp));
    }
    for some in [&terms[..], &terms[..2], &terms[terms.len() - 5..]] {
        let ours: Vec<_> = some.iter().map(|(x, p, ..)| (x, p)).collect();
        let theirs: Vec<_> = some.iter().map(|(.., a, rp)| (a, rp)).collect();
        let sum = t.ours.mul_plain_sum(&ours)?;
        let expected = t.reference.mul_plain_sum(&theirs)?;
        t.same("mul_plain_sum of several", &sum, &expected)?;
    }
    let bad = PlainPoly::Periodic {
        period: 2 * n,
        basis,
        values: vec![0; 8 * n],
    };
    t.refused("prepare_plain", t.ours.prepare_plain(&bad))
}

fn automorphisms<B: Backend>(t: &mut Bench<B>) -> Check {
    let basis = Basis::from_indices(&[0, 3]);
    for form in [Form::Coefficient, Form::Ntt] {
        let a = t.samples.poly(basis, form)?;
        let x = t.ours.import(a.clone())?;
        for g in [
            GaloisElement::identity(),
            GaloisElement::conjugation(t.log_n),
            GaloisElement::rotation(1, t.log_n),
            GaloisElement::rotation(-3, t.log_n),
            GaloisElement::rotation(2, t.log_n)
                .compose(GaloisElement::conjugation(t.log_n), t.log_n),
        ] {
            t.same(
                "automorphism",
                &t.ours.automorphism(&x, g)?,
                &t.reference.automorphism(&a, g)?,
            )?;
        }
    }
    Ok(())
}

fn conversions<B: Backend>(t: &mut Bench<B>) -> Check {
    for source in [
        Basis::single(0),
        Basis::single(4),
        Basis::range(1, 4),
        Basis::range(0, 7),
    ] {
        let a = t.samples.poly(source, Form::Coefficient)?;
        let x = t.ours.import(a.clone())?;
        for to in [t.chain.all(), Basis::from_indices(&[2, 5, 8])] {
            t.same(
                "extend",
                &t.ours.extend(&x, to)?,
                &t.reference.extend(&a, to)?,
            )?;
        }
    }
    let basis = Basis::from_indices(&[0, 1, 2, 4, 6]);
    for form in [Form::Coefficient, Form::Ntt] {
        let a = t.samples.poly(basis, form)?;
        let x = t.ours.import(a.clone())?;
        for drop in [
            Basis::single(6),
            Basis::single(0),
            Basis::from_indices(&[1, 2, 4, 6]),
        ] {
            let (ours, theirs) = (
                t.ours.div_round(&x, drop)?,
                t.reference.div_round(&a, drop)?,
            );
            t.same("div_round", &ours, &theirs)?;
            let mut other = a.clone();
            t.reference.neg_assign(&mut other)?;
            let pair = (&x, &t.ours.import(other.clone())?);
            let ours = t.ours.div_round_pair(pair, drop)?;
            let theirs = t.reference.div_round_pair((&a, &other), drop)?;
            t.same("div_round_pair", &ours.0, &theirs.0)?;
            t.same("div_round_pair", &ours.1, &theirs.1)?;
            for add in [
                Basis::empty(),
                Basis::single(3),
                Basis::from_indices(&[3, 8]),
            ] {
                t.same(
                    "rescale_rational",
                    &t.ours.rescale_rational(&x, drop, add)?,
                    &t.reference.rescale_rational(&a, drop, add)?,
                )?;
            }
        }
    }
    Ok(())
}

/// Digits of different sizes over the first six primes, and P.
fn digits() -> (Vec<Basis>, Basis) {
    (
        vec![Basis::range(0, 3), Basis::single(3), Basis::range(4, 6)],
        Basis::range(6, 9),
    )
}

/// Which primes of the chain the first nine stand for: P need not follow Q, nor be in one piece.
#[derive(Clone, Copy)]
struct Places([usize; 9]);

impl Places {
    const IN_ORDER: Self = Self([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    const MIXED: Self = Self([0, 1, 3, 4, 6, 7, 2, 5, 8]);

    fn of(self, basis: Basis) -> Basis {
        let primes = basis.iter().filter_map(|i| self.0.get(i).copied());
        Basis::from_indices(&primes.collect::<Vec<_>>())
    }

    /// [`digits()`] there.
    fn digits(self) -> (Vec<Basis>, Basis) {
        let (digits, special) = digits();
        let digits = digits.into_iter().map(|digit| self.of(digit));
        (digits.collect(), self.of(special))
    }
}

fn key_switches<B: Backend>(t: &mut Bench<B>, places: Places) -> Check {
    let (digits, special) = places.digits();
    let keys = [
        t.samples.key(GaloisElement::identity(), &digits, special)?,
        t.samples
            .key(GaloisElement::rotation(3, t.log_n), &digits, special)?,
        t.samples
            .key(GaloisElement::conjugation(t.log_n), &digits, special)?,
    ];
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for k in &keys {
        ours.push(t.ours.prepare_key(k)?);
        theirs.push(t.reference.prepare_key(k)?);
    }
    // All of Q; a basis that cuts a digit; one that leaves a digit out.
    for (basis, drop) in [
        (Basis::range(0, 6), Basis::empty()),
        (Basis::range(0, 6), Basis::from_indices(&[4, 5])),
        (Basis::from_indices(&[0, 2, 3, 4]), Basis::single(4)),
        (Basis::from_indices(&[1, 5]), Basis::empty()),
    ] {
        let (basis, drop) = (places.of(basis), places.of(drop));
        let mut p = Vec::new();
        for _ in 0..5 {
            p.push(t.samples.poly(basis, Form::Ntt)?);
        }
        let x = p
            .iter()
            .map(|p| t.ours.import(p.clone()))
            .collect::<Result<Vec<_>>>()?;
        for count in 1..=3 {
            let mine: Vec<_> = x.iter().zip(&ours).take(count).collect();
            let refs: Vec<_> = p.iter().zip(&theirs).take(count).collect();
            for with_add in [false, true] {
                let (a, b) = (
                    with_add.then_some((&x[3], &x[4])),
                    with_add.then_some((&p[3], &p[4])),
                );
                let (s0, s1) = t.ours.key_switch_sum(a, &mine, drop)?;
                let (r0, r1) = t.reference.key_switch_sum(b, &refs, drop)?;
                t.same("key_switch_sum", &s0, &r0)?;
                t.same("key_switch_sum", &s1, &r1)?;
            }
        }
        let pairs = [
            ((&x[0], &x[1]), (&x[2], &x[3])),
            ((&x[4], &x[1]), (&x[0], &x[2])),
        ];
        let refs = [
            ((&p[0], &p[1]), (&p[2], &p[3])),
            ((&p[4], &p[1]), (&p[0], &p[2])),
        ];
        for count in 1..=2 {
            let (s0, s1) = t.ours.mul_sum_relin(&pairs[..count], &ours[0], drop)?;
            let (r0, r1) = t
                .reference
                .mul_sum_relin(&refs[..count], &theirs[0], drop)?;
            t.same("mul_sum_relin", &s0, &r0)?;
            t.same("mul_sum_relin", &s1, &r1)?;
        }
    }
    Ok(())
}

fn hoisting<B: Backend>(t: &mut Bench<B>) -> Check {
    let (digits, _) = digits();
    // As a key of a lower level cuts; otherwise; the same in other rows.
    let lower = vec![Basis::range(0, 3), Basis::single(3), Basis::single(4)];
    let other = vec![Basis::range(0, 2), Basis::range(2, 5)];
    let mut later = vec![Basis::single(5)];
    later.extend(&lower);
    for partitions in [
        [&digits, &digits, &digits],
        [&lower, &digits, &lower],
        [&digits, &other, &digits],
        [&later, &digits, &lower],
    ] {
        hoisting_with(t, &partitions)?;
    }
    Ok(())
}

/// Rotations of one ciphertext by keys with these digits.
fn hoisting_with<B: Backend>(t: &mut Bench<B>, partitions: &[&Vec<Basis>; 3]) -> Check {
    let (_, special) = digits();
    let basis = Basis::range(0, 5);
    let a = (
        t.samples.poly(basis, Form::Ntt)?,
        t.samples.poly(basis, Form::Ntt)?,
    );
    let x = (t.ours.import(a.0.clone())?, t.ours.import(a.1.clone())?);
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for (by, partition) in [1, 2, -1].into_iter().zip(partitions) {
        let g = GaloisElement::rotation(by, t.log_n);
        // A level-aware key: no limb of prime 5.
        let mut key = t.samples.key(g, partition, special)?;
        for (b, a) in &mut key.parts {
            *b = b.restricted(basis.union(special))?;
            if let UniformHalf::Poly(a) = a {
                *a = a.restricted(basis.union(special))?;
            }
        }
        ours.push(t.ours.prepare_key(&key)?);
        theirs.push(t.reference.prepare_key(&key)?);
    }
    let mine: Vec<_> = ours.iter().collect();
    let refs: Vec<_> = theirs.iter().collect();
    let out = t.ours.rotate_many((&x.0, &x.1), &mine)?;
    let expected = t.reference.rotate_many((&a.0, &a.1), &refs)?;
    for (i, ((s0, s1), (r0, r1))) in out.iter().zip(&expected).enumerate() {
        t.same("rotate_many", s0, r0)?;
        t.same("rotate_many", s1, r1)?;
        // Hoisted and plain rotation are bit-identical.
        let c0 = t.ours.automorphism(&x.0, t.ours.key_galois(&ours[i]))?;
        let zero = t.ours.zero(basis, Form::Ntt)?;
        let (p0, p1) =
            t.ours
                .key_switch_sum(Some((&c0, &zero)), &[(&x.1, &ours[i])], Basis::empty())?;
        t.same("rotate_many against key_switch_sum", &p0, r0)?;
        t.same("rotate_many against key_switch_sum", &p1, r1)?;
    }
    for count in 1..=mine.len() {
        let (s0, s1) = t.ours.rotate_sum((&x.0, &x.1), &mine[..count])?;
        let (r0, r1) = t.reference.rotate_sum((&a.0, &a.1), &refs[..count])?;
        t.same("rotate_sum", &s0, &r0)?;
        t.same("rotate_sum", &s1, &r1)?;
    }
    let large = t
        .ours
        .import(t.samples.poly(Basis::range(0, 6), Form::Ntt)?)?;
    t.refused(
        "a level-aware key on a larger basis",
        t.ours
            .key_switch_sum(None, &[(&large, &ours[0])], Basis::empty()),
    )
}

fn mismatches<B: Backend>(t: &mut Bench<B>) -> Check {
    let small = t.ours.zero(Basis::range(0, 2), Form::Ntt)?;
    let other = t.ours.zero(Basis::range(1, 3), Form::Ntt)?;
    let mut coefficient = t.ours.zero(Basis::range(0, 2), Form::Coefficient)?;
    let mut copy = t.ours.duplicate(&small);
    t.refused("add on two bases", t.ours.add_assign(&mut copy, &other))?;
    t.refused("sum on two bases", t.ours.add(&copy, &other))?;
    t.refused("difference on two bases", t.ours.sub(&copy, &other))?;
    t.refused(
        "sub of two forms",
        t.ours.sub_assign(&mut copy, &coefficient),
    )?;
    t.refused("mul on two bases", t.ours.mul(&small, &other))?;
    t.refused(
        "mul in coefficient form",
        t.ours.mul(&coefficient, &coefficient),
    )?;
    t.refused(
        "mul_acc on two bases",
        t.ours.mul_acc(&mut copy, &small, &other),
    )?;
    t.refused("forward_ntt twice", t.ours.forward_ntt(&mut copy))?;
    t.refused(
        "inverse_ntt of coefficients",
        t.ours.inverse_ntt(&mut coefficient),
    )?;
    t.refused("extend in NTT form", t.ours.extend(&small, t.chain.all()))?;
    t.refused(
        "extend outside the chain",
        t.ours.extend(&coefficient, Basis::single(100)),
    )?;
    t.refused(
        "restrict to more",
        t.ours.restrict(&small, Basis::range(0, 3)),
    )?;
    t.refused(
        "div_round by nothing",
        t.ours.div_round(&small, Basis::empty()),
    )?;
    t.refused(
        "div_round by all",
        t.ours.div_round(&small, Basis::range(0, 2)),
    )?;
    t.refused(
        "div_round by absent",
        t.ours.div_round(&small, Basis::single(3)),
    )?;
    t.refused(
        "rescale_rational adding what is there",
        t.ours
            .rescale_rational(&small, Basis::single(0), Basis::single(1)),
    )?;
    t.refused(
        "too few residues",
        t.ours.mul_scalar_assign(&mut copy, &[1]),
    )?;
    t.refused(
        "residue too large",
        t.ours.mul_scalar_assign(&mut copy, &[1, u64::MAX]),
    )?;
    t.refused(
        "empty sum",
        t.ours.key_switch_sum(None, &[], Basis::empty()),
    )?;
    let plain = PlainPoly::Scalar {
        basis: Basis::single(0),
        residues: vec![3],
    };
    let plain = t.ours.prepare_plain(&plain)?;
    t.refused(
        "plaintext on too few primes",
        t.ours.mul_plain(&small, &plain),
    )?;
    t.refused("no product to sum", t.ours.mul_plain_sum(&[]))?;
    let foreign = test_chain(t.log_n, 2, 1)?;
    let foreign = RnsPoly::zero(&foreign, Basis::range(0, 2), Form::Ntt)?;
    t.refused("import from another chain", t.ours.import(foreign))
}
