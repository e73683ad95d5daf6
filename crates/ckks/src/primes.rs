//! Choice and check of the prime chain: q0, q1..qL, special primes.

use veilformer_ring::{is_prime, ntt_primes_near};

use crate::{CkksError, ParamsSpec};

/// Primes are below 2^50, see the ring.
pub(crate) const PRIME_LIMIT: u64 = 1 << 50;

/// Bits by which the product of the special primes may lie under that of the largest digit. The
/// noise that a key switch adds is proportional to digit/P before its rounding; primes "of the
/// same size" differ by small fractions of a bit, which half a bit lets pass and which costs at
/// most a factor sqrt(2) of a term that is below the rounding noise.
pub(crate) const SPECIAL_SLACK_BITS: f64 = 0.5;

/// Chooses the chain of a specification (see the table in [`crate::Params`]): q_L first, against
/// the exact scales, then q0 and the special primes, which no scale depends on.
pub(crate) fn choose(spec: &ParamsSpec) -> Result<Vec<u64>, CkksError> {
    let mut used: Vec<u64> = Vec::new();
    let mut take = |target: f64, count: usize| -> Result<Vec<u64>, CkksError> {
        // A target of 2^50 means the largest primes there are.
        let target = target.min((PRIME_LIMIT - 1) as f64);
        let found = ntt_primes_near(target, spec.log_n, &used, count)?;
        if found.len() < count {
            return Err(CkksError::params(
                format!("there are too few NTT primes near {target:e}"),
                "change the bit sizes or the ring",
            ));
        }
        used.extend(&found);
        Ok(found)
    };
    let top = 2f64.powi(spec.scale_bits as i32);
    let mut scale = top;
    let mut ladder = Vec::with_capacity(spec.levels);
    for _ in 0..spec.levels {
        let prime = take(scale * scale / top, 1)?;
        scale = scale * scale / prime[0] as f64;
        ladder.extend(prime);
    }
    ladder.reverse();
    let mut primes = take(2f64.powi(spec.first_bits as i32), 1)?;
    primes.extend(ladder);
    primes.extend(take(
        2f64.powi(spec.special_bits as i32),
        spec.special_count,
    )?);
    Ok(primes)
}

/// Checks a chain against its specification: count, size, residue class, primality, distinctness,
/// and that P is large enough for the largest digit. The sizes of words (if not `single`) are
/// judged by the scales that they make.
pub(crate) fn check(spec: &ParamsSpec, primes: &[u64], single: bool) -> Result<(), CkksError> {
    let fail = |what: String| {
        Err(CkksError::params(
            what,
            "the specification and the primes must belong together",
        ))
    };
    let expected = spec.levels + 1 + spec.special_count;
    let least = if single {
        expected
    } else {
        spec.special_count + 1
    };
    if primes.len() < least || (single && primes.len() > expected) {
        return fail(format!("{} primes, expected {expected}", primes.len()));
    }
    let count = primes.len() - spec.special_count;
    let step = 1u64 << (spec.log_n + 1);
    for (i, &q) in primes.iter().enumerate() {
        let bits = match i {
            0 => spec.first_bits,
            _ if i < count => spec.scale_bits,
            _ => spec.special_bits,
        };
        if q >= PRIME_LIMIT || q % step != 1 || !is_prime(q) {
            return fail(format!(
                "{q} is not a prime below 2^50 of the form 1 mod {step}"
            ));
        }
        let judged = single || i >= count;
        if judged && ((q as f64).log2() - f64::from(bits)).abs() > 1.0 {
            return fail(format!("prime {q} is not near 2^{bits}"));
        }
        if primes.iter().take(i).any(|&other| other == q) {
            return fail(format!("prime {q} occurs twice"));
        }
    }
    let log2 = crate::security::log2_product;
    let (ciphertext, special) = primes.split_at(count);
    let largest = ciphertext
        .chunks(spec.digit_limbs)
        .map(log2)
        .fold(0.0, f64::max);
    if log2(special) + SPECIAL_SLACK_BITS < largest {
        return Err(CkksError::params(
            format!(
                "the special primes have {:.1} bits together, the largest digit has {largest:.1}",
                log2(special)
            ),
            "add special primes, make them larger, or make the digits smaller",
        ));
    }
    Ok(())
}
