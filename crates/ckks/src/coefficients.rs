//! Integer coefficients of an encoding: from real numbers to residues.

use veilformer_ring::Modulus;

use crate::{CkksError, Scale};

/// Largest coefficient, in bits, that encoding computes with.
const COEFFICIENT_BITS: f64 = 120.0;

/// 3 * 2^51: added to a number of magnitude up to 2^51 it leaves the number, rounded to an integer
/// (ties to even), in the low bits of the sum.
const ROUNDER: f64 = 3.0 * (1u64 << 51) as f64;

/// Magnitudes up to which [`ROUNDER`] works.
const SMALL: u64 = 1 << 51;

/// Integer coefficients of a polynomial in X^stride, before they are reduced modulo primes.
///
/// Reduction runs over whole limbs without divisions for coefficients up to 2^51, which is nearly
/// every encoding.
pub struct Coefficients {
    values: Values,
    /// The largest absolute value.
    largest: u128,
}

enum Values {
    Word(Vec<i64>),
    Wide(Vec<i128>),
}

impl Coefficients {
    /// The coefficients `scale * exact`, each rounded once, ties to even.
    ///
    /// # Errors
    /// [`CkksError::TooLarge`] above 120 bits, or if one is not a number.
    pub(crate) fn round(mut exact: Vec<f64>, scale: Scale) -> Result<Self, CkksError> {
        let scale = scale.value();
        // The largest by its bit pattern, which orders absolute values and has infinities and NaN
        // at the top: it is NaN if anything is.
        let mut bits = 0u64;
        for c in &mut exact {
            *c *= scale;
            bits = bits.max(c.abs().to_bits());
        }
        let largest = f64::from_bits(bits);
        if largest.is_nan() || largest >= COEFFICIENT_BITS.exp2() {
            return Err(too_large(largest, COEFFICIENT_BITS + 1.0));
        }
        let values = if largest <= SMALL as f64 {
            let round = |c: &f64| ((c + ROUNDER).to_bits() as i64) - ROUNDER.to_bits() as i64;
            Values::Word(exact.iter().map(round).collect())
        } else if largest < 2f64.powi(62) {
            let round = |c: &f64| c.round_ties_even() as i64;
            Values::Word(exact.iter().map(round).collect())
        } else {
            let round = |c: &f64| c.round_ties_even() as i128;
            Values::Wide(exact.iter().map(round).collect())
        };
        Ok(Self {
            values,
            largest: largest.round_ties_even() as u128,
        })
    }

    /// Integers of magnitude at most `bound`.
    #[must_use]
    pub fn small(values: Vec<i64>, bound: u32) -> Self {
        Self {
            values: Values::Word(values),
            largest: bound.into(),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.values {
            Values::Word(values) => values.len(),
            Values::Wide(values) => values.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A bound on the absolute values.
    #[must_use]
    pub fn largest(&self) -> u128 {
        self.largest
    }

    /// The coefficients as integers.
    #[must_use]
    pub fn to_i128(&self) -> Vec<i128> {
        match &self.values {
            Values::Word(values) => values.iter().map(|&c| i128::from(c)).collect(),
            Values::Wide(values) => values.clone(),
        }
    }

    /// The polynomial in X of dimension `n` that these coefficients of X^(n/len) mean.
    #[must_use]
    pub fn spread(mut self, n: usize) -> Self {
        fn spread<T: Copy + Default>(compact: &mut Vec<T>, n: usize) {
            if compact.is_empty() || compact.len() >= n {
                return;
            }
            let mut out = vec![T::default(); n];
            let to = out.iter_mut().step_by(n / compact.len());
            to.zip(compact.iter()).for_each(|(to, &c)| *to = c);
            *compact = out;
        }
        match &mut self.values {
            Values::Word(values) => spread(values, n),
            Values::Wide(values) => spread(values, n),
        }
        self
    }

    /// Subtracts small integers, of magnitude at most `bound`: the error of an encryption.
    pub fn subtract(&mut self, small: &[i64], bound: u32) {
        self.largest += u128::from(bound);
        match &mut self.values {
            Values::Word(values) => {
                for (c, &e) in values.iter_mut().zip(small) {
                    *c -= e;
                }
            }
            Values::Wide(values) => {
                for (c, &e) in values.iter_mut().zip(small) {
                    *c -= i128::from(e);
                }
            }
        }
    }

    /// Writes the residues modulo a prime to every `limb.len() / len`-th word of a limb, whose
    /// other words are left alone.
    pub fn reduce(&self, modulus: &Modulus, limb: &mut [u64]) {
        let q = modulus.value() as i64;
        match &self.values {
            Values::Word(values) if self.largest < q as u128 => {
                write(limb, values, |c| lift(c, q));
            }
            _ => self.reduce_below_2q(modulus, limb),
        }
    }

    /// As [`Coefficients::reduce`], but to any representative below 2q, as an NTT takes it.
    pub fn reduce_below_2q(&self, modulus: &Modulus, limb: &mut [u64]) {
        let q = modulus.value() as i64;
        match &self.values {
            // One addition, for nearly every encoding and every error.
            Values::Word(values) if self.largest < q as u128 => {
                write(limb, values, |c| (c + q) as u64);
            }
            Values::Word(values) if self.largest <= u128::from(SMALL) => {
                let (q_double, inverse) = (q as f64, 1.0 / q as f64);
                write(limb, values, |c| {
                    // Both are exact: |c| <= 2^51.
                    let x = f64::from_bits((c + ROUNDER.to_bits() as i64) as u64) - ROUNDER;
                    let quotient = (x * inverse + ROUNDER) - ROUNDER;
                    // The quotient is off by less than one, so the remainder is in (-q, q), and
                    // |quotient q| < 2^51 + q < 2^53: product and difference are exact.
                    let rest = x - quotient * q_double;
                    let rest = (rest + ROUNDER).to_bits() as i64 - ROUNDER.to_bits() as i64;
                    lift(rest, q)
                });
            }
            Values::Word(values) => write(limb, values, |c| modulus.from_i64(c)),
            Values::Wide(values) => write(limb, values, |c| modulus.from_i128(c)),
        }
    }

    /// Overwrites everything with zero: once an error is part of them, they are a secret.
    pub fn wipe(&mut self) {
        match &mut self.values {
            Values::Word(values) => values.fill(0),
            Values::Wide(values) => values.fill(0),
        }
        // Whoever looks at the values now must see zeros: the stores are not dead.
        std::hint::black_box(&self.values);
    }
}

/// A value of (-q, q) modulo q, without a branch.
#[inline]
fn lift(c: i64, q: i64) -> u64 {
    (c + (q & (c >> 63))) as u64
}

#[inline]
fn write<T: Copy>(limb: &mut [u64], values: &[T], residue: impl Fn(T) -> u64) {
    let stride = (limb.len() / values.len().max(1)).max(1);
    if stride == 1 {
        // A loop of its own: this one the compiler vectorizes.
        limb.iter_mut()
            .zip(values)
            .for_each(|(to, &c)| *to = residue(c));
    } else {
        let to = limb.iter_mut().step_by(stride);
        to.zip(values).for_each(|(to, &c)| *to = residue(c));
    }
}

pub(crate) fn too_large(largest: f64, available: f64) -> CkksError {
    CkksError::TooLarge {
        needed: largest.log2() + 1.0,
        available,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every path of the reduction against the division of big integers, at the edges of each.
    #[test]
    fn residues_are_those_of_the_integers() {
        let moduli = [17, 97, 65537, (1 << 45) - 229, (1 << 50) - 27];
        for q in moduli.map(|q| Modulus::new(q).unwrap()) {
            let half = q.value() as f64 / 2.0;
            let edges = [
                0.0,
                0.5,
                1.0,
                1.5,
                half,
                q.value() as f64,
                3.0 * q.value() as f64,
            ];
            for bits in [4, 20, 44, 49, 50, 51, 52, 61, 62, 63, 80, 119] {
                let top = 2f64.powi(bits);
                let more = [top, top - 1.0, top / 3.0, top - top / 2f64.powi(50)];
                let some = edges.iter().filter(|&&e| e <= top).chain(&more);
                let exact: Vec<f64> = some.flat_map(|&c| [c, -c]).collect();
                let made = Coefficients::round(exact.clone(), Scale::power_of_two(0)).unwrap();
                let integers = made.to_i128();
                for (integer, exact) in integers.iter().zip(&exact) {
                    assert_eq!(*integer, exact.round_ties_even() as i128);
                }
                let mut limb = vec![0; exact.len()];
                made.reduce(&q, &mut limb);
                for (&residue, &c) in limb.iter().zip(&integers) {
                    assert_eq!(residue, q.from_i128(c), "{c} modulo {}", q.value());
                }
                made.reduce_below_2q(&q, &mut limb);
                for (&residue, &c) in limb.iter().zip(&integers) {
                    assert!(residue < 2 * q.value());
                    assert_eq!(q.reduce(residue), q.from_i128(c));
                }
            }
        }
    }

    #[test]
    fn refuses_what_is_no_number_and_what_is_too_large() {
        for bad in [f64::NAN, -f64::NAN, f64::INFINITY, -2f64.powi(120)] {
            let made = Coefficients::round(vec![1.0, bad, 2.0], Scale::power_of_two(0));
            assert!(made.is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_are_subtracted_and_wiped() {
        for top in [5.0, 2f64.powi(70)] {
            let made = Coefficients::round(vec![top, -3.0], Scale::power_of_two(0)).unwrap();
            let mut spread = made.spread(4);
            spread.subtract(&[1, -2, 3, 0], 3);
            assert_eq!(spread.to_i128(), [top as i128 - 1, 2, -6, 0]);
            assert_eq!(spread.largest(), top as u128 + 3);
            spread.wipe();
            assert_eq!(spread.to_i128(), [0; 4]);
        }
    }
}
