//! Choice and check of the prime chain: q0, q1..qL, special primes.

use veilformer_ring::{Basis, is_prime, ntt_primes_below, ntt_primes_near};

use crate::ladder::Sizes;
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
pub(crate) fn choose(spec: &ParamsSpec, sizes: &Sizes) -> Result<Vec<u64>, CkksError> {
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
    let power = |bits: u32| 2f64.powi(bits as i32);
    let mut scale = power(sizes.scale_bits(spec.levels));
    let mut ladder = Vec::with_capacity(spec.levels);
    for level in (1..=spec.levels).rev() {
        let (bits, words) = sizes.step(level);
        let continues = sizes.continues(level);
        let target = match continues {
            true => scale * scale / power(sizes.scale_bits(level)),
            false => power(bits),
        };
        // The last of several makes up for the others.
        let mut product = 1.0;
        for left in (1..=words).rev() {
            let prime = take((target / product).powf(1.0 / left as f64), 1)?;
            product *= prime.iter().map(|&q| q as f64).product::<f64>();
            ladder.extend(prime);
        }
        scale = match continues {
            true => scale * scale / product,
            false => power(sizes.scale_bits(level - 1)),
        };
    }
    ladder.reverse();
    let mut primes = take(power(spec.first_bits), 1)?;
    primes.extend(ladder);
    let special = special(spec, &primes)?;
    primes.extend(special);
    Ok(primes)
}

/// The special primes: the largest of their size, with no bit more. What transforms save of a bit's room and
/// uniform words of words refused is more than their product loses; where there are so few that it loses
/// half of the slack, those nearest to their size instead.
pub(crate) fn special(spec: &ParamsSpec, used: &[u64]) -> Result<Vec<u64>, CkksError> {
    let (bits, count) = (spec.special_bits.min(63), spec.special_count);
    let wanted = f64::from(bits) * count as f64 - SPECIAL_SLACK_BITS / 2.0;
    match ntt_primes_below(1 << bits, spec.log_n, used, count) {
        Ok(primes) if crate::security::log2_product(&primes) >= wanted => Ok(primes),
        _ => {
            let target = f64::from(bits).exp2().min((PRIME_LIMIT - 1) as f64);
            Ok(ntt_primes_near(target, spec.log_n, used, count)?)
        }
    }
}

/// Checks a chain against its specification: count, size, residue class, primality, distinctness,
/// and that P is large enough for the largest digit. `sizes` are those of plain CKKS and of ladders;
/// the sizes of other words are judged by the scales that they make.
pub(crate) fn check(
    spec: &ParamsSpec,
    primes: &[u64],
    (sizes, digits): (Option<&Sizes>, &[Basis]),
) -> Result<(), CkksError> {
    let fail = |what: String| {
        Err(CkksError::params(
            what,
            "the specification and the primes must belong together",
        ))
    };
    let sizes = sizes.map(Sizes::prime_bits);
    let levels = sizes.as_ref().map_or(spec.levels + 1, Vec::len);
    let expected = levels + spec.special_count;
    let least = if sizes.is_some() {
        expected
    } else {
        spec.special_count + 1
    };
    if primes.len() < least || (sizes.is_some() && primes.len() > expected) {
        return fail(format!("{} primes, expected {expected}", primes.len()));
    }
    let count = primes.len() - spec.special_count;
    let step = 1u64 << (spec.log_n + 1);
    for (i, &q) in primes.iter().enumerate() {
        if q >= PRIME_LIMIT || q % step != 1 || !is_prime(q) {
            return fail(format!(
                "{q} is not a prime below 2^50 of the form 1 mod {step}"
            ));
        }
        let bits = if i < count {
            sizes.as_ref().and_then(|sizes| sizes.get(i).copied())
        } else {
            Some(spec.special_bits)
        };
        if let Some(bits) = bits
            && ((q as f64).log2() - f64::from(bits)).abs() > 1.0
        {
            return fail(format!("prime {q} is not near 2^{bits}"));
        }
        if primes.iter().take(i).any(|&other| other == q) {
            return fail(format!("prime {q} occurs twice"));
        }
    }
    let log2 = crate::security::log2_product;
    let special = primes.get(count..).unwrap_or_default();
    let bits = |digit: &Basis| {
        let primes = digit.iter().filter_map(|i| primes.get(i).copied());
        log2(&primes.collect::<Vec<_>>())
    };
    let largest = digits.iter().map(bits).fold(0.0, f64::max);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecurityLevel;

    #[test]
    fn special_primes_have_no_bit_more_while_there_are_enough() {
        let chosen = |special_bits, special_count| {
            let spec = ParamsSpec {
                log_n: 16,
                first_bits: 40,
                scale_bits: 30,
                levels: 3,
                special_bits,
                special_count,
                digit_limbs: 2,
                security: SecurityLevel::Bits128,
            };
            special(&spec, &[]).map(|primes| (primes.len(), primes.iter().max().copied()))
        };
        for (bits, count) in [(46, 8), (50, 13), (31, 4)] {
            let (found, largest) = chosen(bits, count).unwrap();
            assert!(found == count && largest < Some(1 << bits), "{bits}");
        }
        // Of 22 bits there are six, far from one another.
        let (found, largest) = chosen(22, 6).unwrap();
        assert!(found == 6 && largest > Some(1 << 22));
    }
}
