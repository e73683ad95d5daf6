//! Key switches of lifted polynomials.

use super::{Bench, Check, digits};
use crate::backend::Backend;
use crate::{Basis, Form, GaloisElement};

/// From one prime and from two, by keys of one digit (with all of P and with a part of it) and of
/// several, with and without an automorphism.
pub(super) fn raising<B: Backend>(t: &mut Bench<B>) -> Check {
    let (several, special) = digits();
    let whole = vec![Basis::range(0, 6)];
    let first = Basis::single(6);
    let shapes = [(&whole, special), (&whole, first), (&several, special)];
    for from in [Basis::single(0), Basis::range(2, 4)] {
        let c = (
            t.samples.poly(from, Form::Ntt)?,
            t.samples.poly(from, Form::Ntt)?,
        );
        let ours = (t.ours.import(c.0.clone())?, t.ours.import(c.1.clone())?);
        for (digits, special) in shapes {
            for galois in [
                GaloisElement::identity(),
                GaloisElement::rotation(1, t.log_n),
            ] {
                let key = t.samples.key(galois, digits, special)?;
                let mine = t.ours.prepare_key(&key)?;
                let theirs = t.reference.prepare_key(&key)?;
                for to in [Basis::range(0, 6), Basis::range(0, 5)] {
                    let (s0, s1) = t.ours.raise((&ours.0, &ours.1), &mine, to)?;
                    let (r0, r1) = t.reference.raise((&c.0, &c.1), &theirs, to)?;
                    t.same("raise", &s0, &r0)?;
                    t.same("raise", &s1, &r1)?;
                }
                let pair = (&ours.0, &ours.1);
                let above = t.ours.raise(pair, &mine, Basis::range(1, 6).minus(from));
                t.refused("raising to other primes", above)?;
                let special = t.ours.raise(pair, &mine, Basis::range(0, 7));
                t.refused("raising to P", special)?;
            }
        }
    }
    let key = t.samples.key(GaloisElement::identity(), &whole, special)?;
    let key = t.ours.prepare_key(&key)?;
    let zero = |form| t.ours.zero(Basis::single(0), form);
    let (ntt, coefficient) = (zero(Form::Ntt)?, zero(Form::Coefficient)?);
    let other = t.ours.zero(Basis::single(1), Form::Ntt)?;
    let to = Basis::range(0, 6);
    for (what, pair) in [
        ("raising coefficients", (&coefficient, &coefficient)),
        ("raising a pair of two forms", (&ntt, &coefficient)),
        ("raising a pair on two bases", (&ntt, &other)),
    ] {
        t.refused(what, t.ours.raise(pair, &key, to))?;
    }
    Ok(())
}
