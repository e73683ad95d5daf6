//! Levels whose primes have other sizes than the ordinary ones.
//!
//! A bootstrap computes at the highest levels what wants more precision than the ordinary scale
//! gives, and at the lowest ones what leads to the form that it begins with. Everything here follows from
//! the specification and the primes, so that a file needs no more than those.

use std::ops::RangeInclusive;

use veilformer_ring::Basis;

use crate::bands::runs;
use crate::primes::SPECIAL_SLACK_BITS;
use crate::security::log2_product;
use crate::{CkksError, MAX_PRIMES, ParamsSpec, Scale};

/// Least distance in bits of an outer level from the ordinary scale.
const LEAST_DISTANCE: u32 = 2;

/// Most bits of a prime.
const PRIME_BITS: u32 = 50;

/// Primes of a level of so many bits: two of half the size each where one cannot be so large.
fn words_of(bits: u32) -> usize {
    bits.div_ceil(PRIME_BITS) as usize
}

/// Sizes in bits of the outer levels, see [`ParamsSpec::validate_ladder`]; none by default. A level
/// of more than 50 bits has two primes, which its rescale divides by together.
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

    /// Primes of `least` bits and levels of `most` are possible.
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
        let mut count = spec.levels - outer + 1 + spec.special_count;
        for &bits in self.below.iter().chain(&self.above) {
            let words = words_of(bits).max(1);
            if bits > most || bits / (words as u32) < least {
                return fail(format!(
                    "an outer level of {bits} bits, expected at most {most} in primes of at least \
                     {least}"
                ));
            }
            if bits.abs_diff(spec.scale_bits) < LEAST_DISTANCE {
                return fail(format!(
                    "an outer level of {bits} bits next to scales of {}, expected {LEAST_DISTANCE} \
                     bits more or less",
                    spec.scale_bits
                ));
            }
            count += words;
        }
        if count > MAX_PRIMES {
            return fail(format!("{count} primes, at most {MAX_PRIMES} are possible"));
        }
        Ok(())
    }
}

/// The sizes of all levels.
pub(crate) struct Sizes {
    /// Bits of each level's step, those of level 0 first.
    steps: Vec<u32>,
    /// Primes of each of them.
    words: Vec<usize>,
    /// log2 of the scale that each level is meant to have.
    scales: Vec<u32>,
    middle: RangeInclusive<usize>,
}

impl Sizes {
    /// Of a ladder that was checked.
    pub(crate) fn of_ladder(spec: &ParamsSpec, ladder: &Ladder) -> Self {
        let ordinary = spec.levels - ladder.below.len() - ladder.above.len();
        let mut steps = vec![spec.first_bits];
        steps.extend(&ladder.below);
        steps.extend(std::iter::repeat_n(spec.scale_bits, ordinary));
        steps.extend(&ladder.above);
        Self::new(
            spec,
            steps,
            ladder.below.len()..=spec.levels - ladder.above.len(),
        )
    }

    /// Of levels that all are ordinary: plain CKKS without a ladder, or levels made of words.
    pub(crate) fn ordinary(spec: &ParamsSpec) -> Self {
        Self::of_ladder(spec, &Ladder::default())
    }

    /// Of a chain whose levels have the primes of the ones below and more: levels more than one bit
    /// off the ordinary scale are outer ones. None if no ladder makes it.
    pub(crate) fn of_levels(spec: &ParamsSpec, primes: &[u64], levels: &[Basis]) -> Option<Self> {
        let mut below = Basis::empty();
        let mut steps = Vec::with_capacity(levels.len());
        for &level in levels {
            let added = level.minus(below);
            if level != Basis::first(level.len()) || added.is_empty() {
                return None;
            }
            let own = added.iter().filter_map(|i| primes.get(i).copied());
            steps.push((log2_product(&own.collect::<Vec<_>>()), added.len()));
            below = level;
        }
        let outer =
            |step: &&(f64, usize)| step.1 > 1 || (step.0 - f64::from(spec.scale_bits)).abs() > 1.0;
        let bits = |step: &(f64, usize)| step.0.round() as u32;
        let ladder = steps.get(1..).unwrap_or_default();
        let below = ladder.iter().take_while(outer).count();
        let (below, rest) = ladder.split_at(below);
        let above = rest.iter().rev().take_while(outer).count();
        let (middle, above) = rest.split_at(rest.len() - above);
        let words = |steps: &[(f64, usize)]| steps.iter().all(|s| s.1 == words_of(bits(s)));
        let single = steps.iter().all(|s| s.1 == 1);
        let single_middle = middle.iter().all(|s| s.1 == 1) && steps.first()?.1 == 1;
        if !single && (middle.is_empty() || !single_middle || !words(below) || !words(above)) {
            return None;
        }
        if below.len() + above.len() >= spec.levels {
            // No ordinary level: a chain of another specification, to be refused as such.
            return Some(Self::ordinary(spec));
        }
        let ladder = Ladder {
            below: below.iter().map(bits).collect(),
            above: above.iter().map(bits).collect(),
        };
        Some(Self::of_ladder(spec, &ladder))
    }

    fn new(spec: &ParamsSpec, steps: Vec<u32>, middle: RangeInclusive<usize>) -> Self {
        let own = |level: usize| {
            // Level 0 is no step between scales; it is meant to be like the one above it.
            let step = if middle.contains(&level) {
                None
            } else {
                steps.get(level.max(1))
            };
            step.copied().unwrap_or(spec.scale_bits)
        };
        Self {
            scales: (0..=spec.levels).map(own).collect(),
            words: steps.iter().map(|&bits| words_of(bits)).collect(),
            steps,
            middle,
        }
    }

    /// The primes of each level.
    pub(crate) fn levels(&self) -> Vec<Basis> {
        let mut count = 0;
        let counts = self.words.iter().map(|words| {
            count += words;
            Basis::first(count)
        });
        counts.collect()
    }

    /// Bits that each prime is meant to have, up to one.
    pub(crate) fn prime_bits(&self) -> Vec<u32> {
        let words = self.steps.iter().zip(&self.words);
        words
            .flat_map(|(bits, &words)| std::iter::repeat_n(bits / words.max(1) as u32, words))
            .collect()
    }

    /// The ordinary levels, with those at which they meet the outer ones.
    pub(crate) fn middle(&self) -> RangeInclusive<usize> {
        self.middle.clone()
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.middle == (0..=self.scales.len() - 1)
    }

    /// Bits that the step of a level is meant to have, and the number of its primes.
    pub(crate) fn step(&self, level: usize) -> (u32, usize) {
        let words = self.words.get(level).copied().unwrap_or(1);
        (self.steps.get(level).copied().unwrap_or_default(), words)
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
        runs(primes, room, spec.digit_limbs.saturating_mul(2))
    }
}
