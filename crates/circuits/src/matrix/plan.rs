//! The cheapest way to a product.

use super::counts::{Counts, UnitCosts};
use super::diagonals::{Diagonal, Entry, Wrap, entries, transforms};
use super::product::{Hoisting, MatrixProduct, Method};
use super::{Packing, Weights};
use crate::CircuitError;

/// Widths that are tried for each packing: the largest that fits, and halves of it.
const WIDTHS: usize = 4;

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

/// The packing and method that cost least for so many tokens (of all sentences together) in
/// ciphertexts of `slots` slots, given what operations cost at the level of the inputs. Inputs are
/// taken to be real. Of ways that cost the same the first one, of fewer words per weight.
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
        best: None,
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
    if search.best.is_none_or(|best| products < best.milliseconds) {
        search.diagonals(Packing::Column, Wrap::Signed);
    }
    let none = || CircuitError::shape("plan", "no packing fits");
    search.best.ok_or_else(none)
}

struct Search<'a> {
    weights: &'a Weights,
    slots: usize,
    units: &'a UnitCosts,
    best: Option<Choice>,
}

impl Search<'_> {
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
        let milliseconds = self.units.of(&counts);
        if self
            .best
            .is_none_or(|best| milliseconds < best.milliseconds)
        {
            self.best = Some(Choice {
                packing,
                method,
                counts,
                milliseconds,
            });
        }
    }
}
