//! Levels whose primes have other sizes than the ordinary ones.
//!
//! A bootstrap computes at the highest levels what wants more precision than the ordinary scale
//! gives, and at the lowest ones what leads to the form that it begins with. Everything here follows from
//! the specification and the primes, so that a file needs no more than those.

use std::ops::RangeInclusive;

use veilformer_ring::Basis;

use crate::primes::SPECIAL_SLACK_BITS;
use crate::security::log2_product;
use crate::{CkksError, ParamsSpec, Scale};

/// Least distance in bits of an outer prime from the ordinary scale.
const LEAST_DISTANCE: u32 = 2;

/// Sizes in bits of the primes of the outer levels, see [`ParamsSpec::validate_ladder`]; none by
/// default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ladder {
    /// Of the lowest levels, from level 1 up.
    pub below: Vec<u32>,
    /// Of the highest levels, upwards: the last is that of the highest level.
    pub above: Vec<u32>,
}

impl Ladder {
    /// The same without those innermost levels that are ordinary ones.
    pub(crate) fn trimmed(mut self, scale_bits: u32) -> Self {
        while self.below.last() == Some(&scale_bits) {
            self.below.pop();
        }
        let ordinary = self.above.iter().take_while(|&&b| b == scale_bits).count();
        self.above.drain(..ordinary);
        self
    }

    /// `least` to `most` bits are possible.
    pub(crate) fn check(
        &self,
        spec: &ParamsSpec,
        (least, most): (u32, u32),
    ) -> Result<(), CkksError> {
        let fail = |what: String| Err(CkksError::params(what, "change the ladder"));
        let outer = self.below.len() + self.above.len();
        if outer > 0 && outer >= spec.levels {
            return fail(format!(
                "{} levels, {outer} of them outer ones; at least one must be ordinary",
                spec.levels
            ));
        }
        for &bits in self.below.iter().chain(&self.above) {
            if !(least..=most).contains(&bits) {
                return fail(format!(
                    "an outer prime of {bits} bits, expected {least} to {most}"
                ));
            }
            if bits.abs_diff(spec.scale_bits) < LEAST_DISTANCE {
                return fail(format!(
                    "an outer prime of {bits} bits next to scales of {}, expected {LEAST_DISTANCE} \
                     bits more or less",
                    spec.scale_bits
                ));
            }
        }
        Ok(())
    }
}

/// The sizes of all levels.
pub(crate) struct Sizes {
    /// Bits of the prime of each level, q0's first.
    primes: Vec<u32>,
    /// log2 of the scale that each level is meant to have.
    scales: Vec<u32>,
    middle: RangeInclusive<usize>,
}

impl Sizes {
    /// Of a ladder that was checked.
    pub(crate) fn of_ladder(spec: &ParamsSpec, ladder: &Ladder) -> Self {
        let ordinary = spec.levels - ladder.below.len() - ladder.above.len();
        let mut primes = vec![spec.first_bits];
        primes.extend(&ladder.below);
        primes.extend(std::iter::repeat_n(spec.scale_bits, ordinary));
        primes.extend(&ladder.above);
        Self::new(
            spec,
            primes,
            ladder.below.len()..=spec.levels - ladder.above.len(),
        )
    }

    /// Of levels that all are ordinary: plain CKKS without a ladder, or levels made of words.
    pub(crate) fn ordinary(spec: &ParamsSpec) -> Self {
        Self::of_ladder(spec, &Ladder::default())
    }

    /// Of the primes q0..qL: those more than one bit off the ordinary scale are outer ones.
    pub(crate) fn of_primes(spec: &ParamsSpec, primes: &[u64]) -> Self {
        let outer = |q: &&u64| ((**q as f64).log2() - f64::from(spec.scale_bits)).abs() > 1.0;
        let bits = |q: &u64| (*q as f64).log2().round() as u32;
        let ladder = primes.get(1..).unwrap_or_default();
        let below = ladder.iter().take_while(outer).count();
        let (below, rest) = ladder.split_at(below);
        let above = rest.iter().rev().take_while(outer).count();
        let (_, above) = rest.split_at(rest.len() - above);
        let ladder = Ladder {
            below: below.iter().map(bits).collect(),
            above: above.iter().map(bits).collect(),
        };
        if ladder.below.len() + ladder.above.len() < spec.levels {
            Self::of_ladder(spec, &ladder)
        } else {
            // No ordinary level: a chain of another specification, to be refused as such.
            Self::ordinary(spec)
        }
    }

    fn new(spec: &ParamsSpec, primes: Vec<u32>, middle: RangeInclusive<usize>) -> Self {
        let own = |level: usize| {
            // q0 is no prime of a scale; level 0 is meant to be like the one above it.
            let prime = if middle.contains(&level) {
                None
            } else {
                primes.get(level.max(1))
            };
            prime.copied().unwrap_or(spec.scale_bits)
        };
        Self {
            scales: (0..=spec.levels).map(own).collect(),
            primes,
            middle,
        }
    }

    /// The ordinary levels, with those at which they meet the outer ones.
    pub(crate) fn middle(&self) -> RangeInclusive<usize> {
        self.middle.clone()
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.middle == (0..=self.scales.len() - 1)
    }

    /// Bits that the prime of a level is meant to have.
    pub(crate) fn prime_bits(&self, level: usize) -> Option<u32> {
        self.primes.get(level).copied()
    }

    /// Bits that the scale of a level is meant to have.
    pub(crate) fn scale_bits(&self, level: usize) -> u32 {
        self.scales.get(level).copied().unwrap_or_default()
    }

    /// Whether the scale of `level - 1` follows from that of `level`; otherwise it begins anew as a
    /// power of two.
    pub(crate) fn continues(&self, level: usize) -> bool {
        level > 0 && self.scale_bits(level) == self.scale_bits(level - 1)
    }

    /// The canonical scales from that of the highest level down: `step` is the rescale of a product.
    pub(crate) fn scale_table(
        &self,
        step: impl Fn(usize, Scale) -> Scale,
    ) -> Result<Vec<Scale>, CkksError> {
        let top = self.scales.len() - 1;
        let mut scale = Scale::power_of_two(self.scale_bits(top));
        let mut table = vec![scale];
        for level in (1..=top).rev() {
            scale = if self.continues(level) {
                step(level, scale.product(scale))
            } else {
                Scale::power_of_two(self.scale_bits(level - 1))
            };
            table.push(scale);
        }
        table.reverse();
        for (level, scale) in table.iter().enumerate() {
            let bits = self.scale_bits(level);
            if (scale.log2() - f64::from(bits)).abs() > 1.0 {
                return Err(CkksError::params(
                    format!("the scales drift from 2^{bits} by more than a factor of two"),
                    "choose a smaller ring or other sizes, so that primes are near each other",
                ));
            }
        }
        Ok(table)
    }

    /// The key-switching digits of the ciphertext primes: runs of `digit_limbs`; with a ladder,
    /// where primes differ, as many from q0 up as keep the product of a digit within P (and the slack
    /// that [`crate::primes`] allows), at most twice `digit_limbs`.
    pub(crate) fn digits(&self, spec: &ParamsSpec, primes: &[u64], special: &[u64]) -> Vec<Basis> {
        let count = primes.len();
        if self.is_plain() {
            return (0..count)
                .step_by(spec.digit_limbs)
                .map(|start| Basis::range(start, start.saturating_add(spec.digit_limbs).min(count)))
                .collect();
        }
        let room = log2_product(special) + SPECIAL_SLACK_BITS;
        let most = spec.digit_limbs.saturating_mul(2);
        let mut digits = Vec::new();
        let (mut start, mut bits) = (0, 0.0);
        for (i, &q) in primes.iter().enumerate() {
            let own = (q as f64).log2();
            if i > start && (bits + own > room || i - start == most) {
                digits.push(Basis::range(start, i));
                (start, bits) = (i, 0.0);
            }
            bits += own;
        }
        digits.push(Basis::range(start, count));
        digits
    }
}
