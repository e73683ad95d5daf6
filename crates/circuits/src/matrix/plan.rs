//! The cheapest way to a product.

use super::counts::{Counts, UnitCosts};
use super::diagonals::{Diagonal, Entry, Wrap, entries, transforms};
use super::product::{Hoisting, MatrixProduct, Method};
use super::{Packing, Weights};
use crate::CircuitError;

/// Widths that are tried for each packing: the largest that fits, and halves of it.
const WIDTHS: usize = 4;

/// Exponent of the words of plaintexts beside the time: half the words are worth 7 % of the time. A price that
/// rises without a step: plaintexts of a token's period have a hundredth of the words of full ones, which
/// should not hang on whether their time is just below or just above some bound.
const WORDS: f64 = 0.1;

/// A way to a product, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The packing of inputs and outputs.
    pub packing: Packing,
    /// The method.
    pub method: Method,
    /// Its operations.
    pub counts: Counts,
    /// What they cost.
    pub milliseconds: f64,
}

/// The packing and method for so many tokens (of all sentences together) in ciphertexts of `slots` slots,
/// given what operations cost at the level of the inputs: those with the least product of time and the tenth
/// root of the words of plaintexts. Inputs are taken to be real.
///
/// # Errors
/// No token, or more than the slots.
pub fn plan(
    weights: &Weights,
    tokens: usize,
    slots: usize,
    units: &UnitCosts,
) -> Result<Choice, CircuitError> {
    Packing::Column.check(tokens, slots)?;
    let run = tokens.next_power_of_two();
    let features = weights.rows().max(weights.cols()).next_power_of_two();
    let widest = (slots / run).min(features);
    let widths = (0..WIDTHS).map(|halved| widest >> halved);
    let widths: Vec<usize> = widths.filter(|width| *width > 1).collect();
    let mut search = Search {
        weights,
        slots,
        units,
        ways: Vec::new(),
    };
    for &width in &widths {
        let feature_fast = Packing::FeatureFast { width };
        search.diagonals(feature_fast, Wrap::Paired);
        search.diagonals(feature_fast, Wrap::Signed);
        search.diagonals(Packing::TokenFast { width, run }, Wrap::Signed);
    }
    if let Some(&width) = widths.first() {
        search.rows(Packing::FeatureFast { width })?;
    }
    // All weights are terms, of a word each: they are gathered only where that can pay.
    let products = units.plain.scalar * weights.nonzero() as f64;
    if price(products, weights.nonzero()) < search.least() {
        search.diagonals(Packing::Column, Wrap::Signed);
    }
    let best = search
        .ways
        .into_iter()
        .min_by(|a, b| a.price().total_cmp(&b.price()));
    best.ok_or_else(|| CircuitError::shape("plan", "no packing fits"))
}

/// What is least: milliseconds, and the memory that they take.
fn price(milliseconds: f64, words: usize) -> f64 {
    // Costs are differences of measured times: a sum that is not positive still has a price.
    milliseconds.max(f64::MIN_POSITIVE) * (words.max(1) as f64).powf(WORDS)
}

impl Choice {
    fn price(&self) -> f64 {
        price(self.milliseconds, self.counts.plain_words)
    }
}

struct Search<'a> {
    weights: &'a Weights,
    slots: usize,
    units: &'a UnitCosts,
    ways: Vec<Choice>,
}

impl Search<'_> {
    /// The least price so far.
    fn least(&self) -> f64 {
        let prices = self.ways.iter().map(Choice::price);
        prices.fold(f64::INFINITY, f64::min)
    }

    fn diagonals(&mut self, packing: Packing, wrap: Wrap) {
        // What the entries are does not count.
        let words = |values: Vec<_>| {
            let run = packing.unit();
            Diagonal { values, run }.words()
        };
        let entries: Vec<Entry<usize>> = entries(self.weights, packing, wrap, words);
        let outputs = packing.ciphertexts(self.weights.rows());
        for bits in 0..=packing.width().ilog2() {
            let baby_steps = 1 << bits;
            for hoisting in [Hoisting::Twice, Hoisting::Once] {
                let maps = transforms(&entries, packing, (outputs, baby_steps), |words, _| *words);
                let way = (packing, hoisting, wrap);
                let product = MatrixProduct::of_transforms(self.weights, way, maps, |d| d.words());
                let method = Method::Diagonals {
                    baby_steps,
                    hoisting,
                    wrap,
                };
                self.offer(packing, method, product.tally(self.slots));
            }
        }
    }

    fn rows(&mut self, packing: Packing) -> Result<(), CircuitError> {
        let product = MatrixProduct::new(self.weights, packing, Method::PackedRows)?;
        self.offer(packing, Method::PackedRows, product.counts(self.slots));
        Ok(())
    }

    fn offer(&mut self, packing: Packing, method: Method, counts: Counts) {
        self.ways.push(Choice {
            packing,
            method,
            counts,
            milliseconds: self.units.of(&counts),
        });
    }
}
