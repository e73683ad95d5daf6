//! The cheapest way to a product.

use super::counts::{Counts, UnitCosts};
use super::diagonals::{Diagonal, Entry, Wrap, entries, transforms};
use super::product::{Hoisting, MatrixProduct, Method};
use super::{Packing, Weights};
use crate::CircuitError;

/// Widths that are tried for each packing: the largest that fits, and halves of it.
const WIDTHS: usize = 4;

/// Counted times are right to about as much: of ways that are no further apart memory decides.
const MARGIN: f64 = 1.25;

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
/// given what operations cost at the level of the inputs: of those that cost at most a quarter more than the
/// cheapest, the one with the fewest words of plaintexts, and then the cheapest. Inputs are taken to be real.
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
    // All weights are terms: they are gathered only where that can pay.
    let products = units.plain.scalar * weights.nonzero() as f64;
    if products < MARGIN * search.least() {
        search.diagonals(Packing::Column, Wrap::Signed);
    }
    let most = MARGIN * search.least();
    let near = search
        .ways
        .into_iter()
        .filter(|way| way.milliseconds <= most);
    let best = near.min_by(|a, b| {
        let words = a.counts.plain_words.cmp(&b.counts.plain_words);
        words.then(a.milliseconds.total_cmp(&b.milliseconds))
    });
    best.ok_or_else(|| CircuitError::shape("plan", "no packing fits"))
}

struct Search<'a> {
    weights: &'a Weights,
    slots: usize,
    units: &'a UnitCosts,
    ways: Vec<Choice>,
}

impl Search<'_> {
    /// What the cheapest way so far costs.
    fn least(&self) -> f64 {
        let costs = self.ways.iter().map(|way| way.milliseconds);
        costs.fold(f64::INFINITY, f64::min)
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
