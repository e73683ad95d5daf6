//! The operations of a product, counted from its steps.

use std::collections::BTreeSet;

use veilformer_ckks::{Transform, moves};

use super::counts::Counts;
use super::diagonals::Diagonal;
use super::product::{Fold, Hoisting, MatrixProduct, OUTPUTS_PER_CALL, Steps};
use super::rows::Row;

impl MatrixProduct<Diagonal> {
    /// The operations of [`MatrixProduct::apply`] on ciphertexts of `slots` slots, the encoding of
    /// its plaintexts left out; what an [`Ops`] really does is the same.
    #[must_use]
    pub fn counts(&self, slots: usize) -> Counts {
        let mut tally = Tally {
            counts: Counts {
                inputs: self.inputs,
                outputs: self.outputs.len(),
                levels: self.levels,
                ..Counts::default()
            },
            slots,
            keys: BTreeSet::new(),
            conjugation: false,
        };
        for zero in &self.zeros {
            tally.counts.plain_words += zero.words();
        }
        let mut babies = BTreeSet::new();
        for output in &self.outputs {
            match output {
                None => {
                    tally.counts.plain.scalar += self.levels;
                    tally.counts.rescales += self.levels;
                }
                Some(Steps::Rows(rows)) => tally.rows(rows),
                Some(Steps::Diagonals { transform, fold }) => {
                    tally.transform(transform, self.hoisting, &mut babies);
                    if let Some(fold) = fold {
                        tally.fold(fold);
                    }
                }
            }
        }
        tally.shared(&babies, self.hoisting, self);
        tally.counts.keys = tally.keys.len() + usize::from(tally.conjugation);
        tally.counts
    }

    /// The rotations that are used, in slots, and whether the conjugation is.
    #[must_use]
    pub fn rotations(&self) -> (BTreeSet<i64>, bool) {
        let mut steps = BTreeSet::new();
        let mut conjugation = false;
        for output in self.outputs.iter().flatten() {
            match output {
                Steps::Rows(rows) => steps.extend(rows.iter().flat_map(|r| &r.steps)),
                Steps::Diagonals { transform, fold } => {
                    for giant in &transform.giants {
                        steps.insert(giant.rotation);
                        steps.extend(giant.terms.iter().map(|t| t.baby));
                    }
                    steps.extend(fold.iter().map(|f| f.rotation));
                    conjugation |= fold.is_some();
                }
            }
        }
        steps.remove(&0);
        (steps, conjugation)
    }
}

/// Counts while it goes over the steps.
struct Tally {
    counts: Counts,
    slots: usize,
    /// Rotations modulo the slots.
    keys: BTreeSet<i64>,
    conjugation: bool,
}

impl Tally {
    /// Notes a rotation; whether it moves anything.
    fn rotation(&mut self, by: i64) -> bool {
        let turns = moves(by, self.slots);
        if turns {
            self.keys.insert(by.rem_euclid(self.slots as i64));
        }
        turns
    }

    fn transform(
        &mut self,
        transform: &Transform<Diagonal>,
        hoisting: Hoisting,
        babies: &mut BTreeSet<(usize, i64)>,
    ) {
        for giant in &transform.giants {
            let mut rotated = false;
            for term in &giant.terms {
                let words = term.plain.words();
                self.counts.plain_words += words;
                let n = 2 * self.slots;
                let turns = self.rotation(term.baby);
                if turns {
                    babies.insert((term.input, term.baby));
                }
                let extended = turns && hoisting == Hoisting::Twice;
                rotated |= extended;
                let products = match extended {
                    true => &mut self.counts.extended,
                    false => &mut self.counts.plain,
                };
                *products.of_words(words, n) += 1;
            }
            if self.rotation(giant.rotation) {
                match rotated {
                    true => self.counts.giants += 1,
                    false => self.counts.plain_giants += 1,
                }
            }
        }
    }

    /// What all transforms share, and how they end.
    fn shared(
        &mut self,
        babies: &BTreeSet<(usize, i64)>,
        hoisting: Hoisting,
        product: &MatrixProduct<Diagonal>,
    ) {
        let inputs: BTreeSet<usize> = babies.iter().map(|b| b.0).collect();
        match hoisting {
            Hoisting::Twice => {
                self.counts.babies += babies.len();
                self.counts.decompositions += inputs.len();
            }
            Hoisting::Once => {
                for input in inputs {
                    match babies.iter().filter(|b| b.0 == input).count() {
                        1 => self.counts.rotations += 1,
                        several => {
                            self.counts.hoisted += several;
                            self.counts.decompositions += 1;
                        }
                    }
                }
            }
        }
        // Special primes are there for all transforms of one call, or for none.
        let giants =
            |t: &Transform<Diagonal>| t.giants.iter().any(|g| moves(g.rotation, self.slots));
        let maps: Vec<bool> = product.transforms().map(giants).collect();
        let group = match hoisting {
            Hoisting::Once => 1,
            Hoisting::Twice if babies.is_empty() => OUTPUTS_PER_CALL,
            Hoisting::Twice => maps.len().max(1),
        };
        let babies = !babies.is_empty() && hoisting == Hoisting::Twice;
        for maps in maps.chunks(group) {
            match babies || maps.iter().any(|giants| *giants) {
                true => self.counts.divisions += maps.len(),
                false => self.counts.rescales += maps.len(),
            }
        }
    }

    fn fold(&mut self, fold: &Fold<Diagonal>) {
        self.counts.plain_words += fold.unit.words();
        self.counts.plain.periodic += 1;
        self.counts.additions += 3;
        self.counts.rotations += 1 + usize::from(self.rotation(fold.rotation));
        self.conjugation = true;
    }

    fn rows(&mut self, rows: &[Row<Diagonal>]) {
        let n = 2 * self.slots;
        for row in rows {
            self.transform(&row.transform, Hoisting::Twice, &mut BTreeSet::new());
            self.counts.rescales += 1;
            for step in &row.steps {
                self.counts.rotations += usize::from(self.rotation(*step));
                self.counts.additions += 1;
            }
            let words = row.mask.words();
            self.counts.plain_words += words;
            *self.counts.plain.of_words(words, n) += 1;
        }
        // The sum of the masked rows, and its rescale.
        self.counts.additions += rows.len().saturating_sub(1);
        self.counts.rescales += 1;
    }
}
