//! Goldschmidt's iteration of [`Inverse`] on ciphertexts, with other constants in each head and no
//! product with a plaintext.
//!
//! `a <- alpha a (2 - a)` and `p <- alpha p (2 - a)` are run on `A = a / s` and `P = p / r`:
//! with `s' = alpha s^2` and `r' = alpha s r`,
//!
//! `A <- A (2/s - A)`, `P <- P (2/s - A)`,
//!
//! so that all that is left of a head's constants is a plaintext that is added. From the end
//! (`s = 1`) back to the beginning, `s = sqrt(s' / alpha)` stays between 1/2 and 1.
//!
//! A long iteration has to be interrupted by a bootstrap, which takes nothing above 1. `A` is carried
//! as `A / 2^k`, to be doubled `k` times where a factor is made of it. `P` begins as a small number in
//! place of 1, small enough for the first half of the steps; the level that this product takes is one
//! that the first `A` takes anyway.

use veilformer_ckks::SlotVector;

use super::Layout;
use crate::encoder::Inverse;

/// Iterations of so many steps are never interrupted.
const WHOLE: usize = 6;

/// The constants of all heads.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Inverses {
    /// What the sums of each head are multiplied with before they come, besides [`Self::doublings`].
    pub scales: Vec<f64>,
    /// How often they, and what is left to invert after each step, are doubled to be `A`: so that
    /// none of them is above 1 before.
    pub doublings: usize,
    /// What the product begins with.
    pub start: f64,
    /// `2/s` of each step, in the lanes of the heads.
    pub terms: Vec<SlotVector>,
    /// After each step, a bound of the product and of what is left to invert, before it is doubled.
    pub bounds: Vec<f64>,
    /// What the results of each head have to be multiplied with.
    pub gains: Vec<f64>,
}

impl Inverses {
    pub(super) fn new(inverses: &[Inverse], layout: &Layout) -> Self {
        let steps = inverses.iter().map(Inverse::depth).max().unwrap_or(0);
        let mut all = Vec::with_capacity(inverses.len());
        for inverse in inverses {
            let mut sizes = vec![1.0; steps + 1];
            for (step, factor) in inverse.factors().iter().enumerate().rev() {
                sizes[step] = (sizes[step + 1] / factor).sqrt();
            }
            let gain = inverse.factors().iter().zip(&sizes);
            let gain = gain.fold(inverse.seed(), |r, (alpha, s)| r * alpha * s);
            all.push((inverse.seed() / sizes[0], sizes, gain));
        }
        let largest = all.iter().fold(1.0, |m, (scale, ..)| f64::max(m, *scale));
        // `A` is at most 2/s, for no factor is below zero.
        let sizes = all.iter().flat_map(|(_, sizes, _)| sizes);
        let largest = sizes.fold(largest, |m, s| f64::max(m, 2.0 / s));
        let doublings = largest.log2().ceil().max(0.0) as usize;
        let part = 0.5f64.powi(doublings as i32);
        let term = |step: usize| {
            let of = |index| {
                let head = layout.lane(index).unwrap_or(0);
                let sizes = all.get(head).or(all.first());
                2.0 / sizes.and_then(|(_, s, _)| s.get(step)).unwrap_or(&1.0)
            };
            layout.per_feature(1, of).pop()
        };
        // No factor is above 2/s, for none of what is left to invert is below zero.
        let mut product = 1.0;
        let products = (0..steps).map(|step| {
            let sizes = all.iter().filter_map(|(_, s, _)| s.get(step));
            product *= sizes.fold(2.0, |m: f64, s| m.max(2.0 / s));
            product
        });
        let products: Vec<f64> = products.collect();
        let start = match products.get(steps / 2) {
            Some(half) if steps > WHOLE => 0.5f64.powi(half.log2().ceil() as i32),
            _ => 1.0,
        };
        let bounds = products.iter().map(|p| f64::max(p * start, 1.0));
        Self {
            bounds: bounds.collect(),
            scales: all.iter().map(|(scale, ..)| scale * part).collect(),
            doublings,
            start,
            terms: (0..steps).filter_map(term).collect(),
            gains: all.iter().map(|(.., gain)| gain / start).collect(),
        }
    }
}
