//! The operations of a product, counted from its steps.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use veilformer_ckks::{Transform, moves};

use super::counts::Counts;
use super::diagonals::Diagonal;
use super::product::{Fold, Hoisting, MatrixProduct, OUTPUTS_PER_CALL, Steps};
use super::rows::Row;

impl MatrixProduct<Diagonal> {
    /// The operations of [`MatrixProduct::apply`] on ciphertexts of `slots` slots, the encoding of
    /// its plaintexts left out; what an [`veilformer_ckks::Ops`] really does is the same.
    #[must_use]
    pub fn counts(&self, slots: usize) -> Counts {
        let words = self.map(|diagonal, _| Ok::<usize, Infallible>(diagonal.words()));
        words.map_or_else(|never| match never {}, |words| words.tally(slots))
    }
}

/// Over the words per prime of each plaintext.
impl MatrixProduct<usize> {
    /// The operations on ciphertexts of `slots` slots.
    pub(super) fn tally(&self, slots: usize) -> Counts {
        let mut tally = Tally::new(slots);
        let maps: Vec<&Transform<usize>> = self.transforms().collect();
        match self.hoisting {
            Hoisting::Once => tally.once(&maps),
            Hoisting::Twice => {
                let mut terms = maps.iter().flat_map(|m| &m.giants).flat_map(|g| &g.terms);
                let shares = terms.any(|t| moves(t.baby, slots));
                let group = if shares { maps.len() } else { OUTPUTS_PER_CALL };
                maps.chunks(group).for_each(|maps| tally.call(maps));
            }
        }
        tally.counts.plain_words += self.zeros.iter().sum::<usize>();
        for output in &self.outputs {
            match output {
                None => {
                    tally.counts.plain.scalar += self.levels;
                    tally.counts.rescales += self.levels;
                }
                Some(Steps::Rows(rows)) => tally.rows(rows),
                Some(Steps::Diagonals { fold, .. }) => {
                    fold.iter().for_each(|fold| tally.fold(fold));
                }
            }
        }
        Counts {
            inputs: self.inputs,
            outputs: self.outputs.len(),
            levels: self.levels,
            ..tally.counts()
        }
    }
}

impl<Pl> MatrixProduct<Pl> {
    /// The rotations that are used, in slots, and whether the conjugation is.
    #[must_use]
    pub fn rotations(&self) -> (BTreeSet<i64>, bool) {
        let mut steps = BTreeSet::new();
        let mut conjugation = false;
        for output in self.outputs.iter().flatten() {
            match output {
                Steps::Rows(rows) => steps.extend(rows.iter().flat_map(|r| &r.steps)),
                Steps::Diagonals { transform, fold } => {
                    steps.extend(rotations_of(transform));
                    steps.extend(fold.iter().map(|f| f.rotation));
                    conjugation |= fold.is_some();
                }
            }
        }
        steps.remove(&0);
        (steps, conjugation)
    }
}

/// The baby and giant steps of a transform.
pub(super) fn rotations_of<Pl>(transform: &Transform<Pl>) -> impl Iterator<Item = i64> {
    transform.giants.iter().flat_map(|giant| {
        let babies = giant.terms.iter().map(|t| t.baby);
        babies.chain([giant.rotation])
    })
}

/// Counts operations as they are named to it.
pub(super) struct Tally {
    pub(super) counts: Counts,
    slots: usize,
    /// Rotations modulo the slots.
    keys: BTreeSet<i64>,
    /// Keys that are of no rotation.
    conjugation: bool,
    relinearization: bool,
}

impl Tally {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            counts: Counts::default(),
            slots,
            keys: BTreeSet::new(),
            conjugation: false,
            relinearization: false,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let others = usize::from(self.conjugation) + usize::from(self.relinearization);
        Counts {
            keys: self.keys.len() + others,
            ..self.counts
        }
    }

    /// Notes the key of a rotation; whether it moves anything.
    fn key(&mut self, by: i64) -> bool {
        let turns = moves(by, self.slots);
        if turns {
            self.keys.insert(by.rem_euclid(self.slots as i64));
        }
        turns
    }

    /// Rotations of one ciphertext in one call.
    pub(super) fn rotate_many(&mut self, by: impl IntoIterator<Item = i64>) {
        match by.into_iter().filter(|by| self.key(*by)).count() {
            0 => {}
            1 => self.counts.rotations += 1,
            several => {
                self.counts.hoisted += several;
                self.counts.decompositions += 1;
            }
        }
    }

    pub(super) fn conjugate(&mut self) {
        self.conjugation = true;
        self.counts.rotations += 1;
    }

    pub(super) fn mul_sum(&mut self, products: usize) {
        self.relinearization = true;
        self.counts.relinearizations += 1;
        self.counts.products += products;
    }

    /// A product with a plaintext of so many words that is encoded for it.
    pub(super) fn mul_plain(&mut self, words: usize) {
        self.counts.plain_words += words;
        *self.counts.plain.of_words(words, 2 * self.slots) += 1;
    }

    /// One call of `linear_transforms`.
    pub(super) fn call(&mut self, maps: &[&Transform<usize>]) {
        let mut babies = BTreeSet::new();
        let mut special = false;
        for giant in maps.iter().flat_map(|map| &map.giants) {
            let mut rotated = false;
            for term in &giant.terms {
                if self.key(term.baby) {
                    rotated = true;
                    babies.insert((term.input, term.baby));
                    self.counts.plain_words += term.plain;
                    *self.counts.extended.of_words(term.plain, 2 * self.slots) += 1;
                } else {
                    self.mul_plain(term.plain);
                }
            }
            let turned = self.key(giant.rotation);
            special |= rotated || turned;
            self.counts.giants += usize::from(turned && rotated);
            self.counts.plain_giants += usize::from(turned && !rotated);
        }
        let inputs: BTreeSet<usize> = babies.iter().map(|b| b.0).collect();
        self.counts.babies += babies.len();
        self.counts.decompositions += inputs.len();
        // Special primes are there for all transforms of a call, or for none.
        match special {
            true => self.counts.divisions += maps.len(),
            false => self.counts.rescales += maps.len(),
        }
    }

    /// All inputs rotated first, each rotation with its ModDown; then one call.
    fn once(&mut self, maps: &[&Transform<usize>]) {
        let mut babies: BTreeMap<usize, BTreeSet<i64>> = BTreeMap::new();
        let mut still: Vec<Transform<usize>> = maps.iter().map(|m| (*m).clone()).collect();
        let terms = still.iter_mut().flat_map(|m| &mut m.giants);
        for term in terms.flat_map(|g| &mut g.terms) {
            babies.entry(term.input).or_default().insert(term.baby);
            term.baby = 0;
        }
        for steps in babies.into_values() {
            self.rotate_many(steps);
        }
        if !still.is_empty() {
            self.call(&still.iter().collect::<Vec<_>>());
        }
    }

    fn fold(&mut self, fold: &Fold<usize>) {
        self.conjugate();
        self.counts.additions += 3;
        self.mul_plain(fold.unit);
        self.rotate_many([fold.rotation]);
    }

    fn rows(&mut self, rows: &[Row<usize>]) {
        for row in rows {
            self.call(&[&row.transform]);
            for step in &row.steps {
                self.rotate_many([*step]);
                self.counts.additions += 1;
            }
            self.mul_plain(row.mask);
        }
        // The sum of the masked rows, and its rescale.
        self.counts.additions += rows.len().saturating_sub(1);
        self.counts.rescales += 1;
    }
}
