//! [`Counting`]: any operations, counted as they run.

use std::collections::{BTreeMap, BTreeSet};

use veilformer_ckks::{
    Giant, KeyList, KeyPurpose, Ops, OpsError, Params, Scale, SlotVector, Term, Transform,
    mod_raise_keys, moves,
};

use crate::matrix::Counts;

type Result<T> = std::result::Result<T, OpsError>;

/// [`Ops`] that does what another one does and counts it, by the level of what an operation reads. Inputs,
/// outputs and levels are not an operation's: they stay zero.
pub struct Counting<O> {
    ops: O,
    counts: BTreeMap<usize, Counts>,
    keys: KeyList,
    bootstraps: usize,
}

/// A plaintext with the words per prime that it takes.
#[derive(Clone, Debug)]
pub struct CountedPlain<Pl> {
    plain: Pl,
    words: usize,
}

impl<O: Ops> Counting<O> {
    /// Counts from zero.
    pub fn new(ops: O) -> Self {
        Self {
            ops,
            counts: BTreeMap::new(),
            keys: KeyList::default(),
            bootstraps: 0,
        }
    }

    /// The operations so far.
    pub fn counts(&self) -> Counts {
        let mut all = Counts::default();
        self.counts.values().for_each(|counts| all += *counts);
        Counts {
            keys: self.keys.len(),
            ..all
        }
    }

    /// The operations so far by level, without their keys, and counts from zero again; keys are kept.
    pub fn take(&mut self) -> BTreeMap<usize, Counts> {
        std::mem::take(&mut self.counts)
    }

    /// What is counted of a level.
    fn at(&mut self, level: usize) -> &mut Counts {
        self.counts.entry(level).or_default()
    }

    /// The keys so far, with the highest level that each was used at.
    pub fn keys(&self) -> &KeyList {
        &self.keys
    }

    /// Bootstraps so far, of one value or of a pair.
    pub fn bootstraps(&self) -> usize {
        self.bootstraps
    }

    /// The operations that are counted.
    pub fn inner(&mut self) -> &mut O {
        &mut self.ops
    }

    /// The operations themselves, no longer counted.
    pub fn into_inner(self) -> O {
        self.ops
    }

    fn slots(&self) -> usize {
        self.ops.params().slots()
    }

    fn need(&mut self, purpose: KeyPurpose, level: usize) {
        self.keys.need(purpose, level, self.ops.params());
    }

    /// What the encoder stores; see `Encoder::encode_plain`.
    fn words(&mut self, slots: &SlotVector, level: usize) -> usize {
        let words = match slots {
            SlotVector::Constant(value) if value.im == 0.0 => 1,
            other => 2 * other.entries().len(),
        };
        self.at(level).plain_words += words;
        words
    }
}

impl<O: Ops> Ops for Counting<O> {
    type Ct = O::Ct;
    type Plain = CountedPlain<O::Plain>;

    fn params(&self) -> &Params {
        self.ops.params()
    }

    fn level(&self, ct: &O::Ct) -> usize {
        self.ops.level(ct)
    }

    fn scale(&self, ct: &O::Ct) -> Scale {
        self.ops.scale(ct)
    }

    fn plain(&mut self, slots: &SlotVector, level: usize, scale: Scale) -> Result<Self::Plain> {
        Ok(CountedPlain {
            plain: self.ops.plain(slots, level, scale)?,
            words: self.words(slots, level),
        })
    }

    fn extended_plain(
        &mut self,
        slots: &SlotVector,
        level: usize,
        scale: Scale,
    ) -> Result<Self::Plain> {
        Ok(CountedPlain {
            plain: self.ops.extended_plain(slots, level, scale)?,
            words: self.words(slots, level),
        })
    }

    fn add(&mut self, a: &O::Ct, b: &O::Ct) -> Result<O::Ct> {
        self.at(self.ops.level(a)).additions += 1;
        self.ops.add(a, b)
    }

    fn sub(&mut self, a: &O::Ct, b: &O::Ct) -> Result<O::Ct> {
        self.at(self.ops.level(a)).additions += 1;
        self.ops.sub(a, b)
    }

    fn negate(&mut self, a: &O::Ct) -> Result<O::Ct> {
        self.ops.negate(a)
    }

    fn add_plain(&mut self, a: &O::Ct, p: &Self::Plain) -> Result<O::Ct> {
        self.ops.add_plain(a, &p.plain)
    }

    fn mul_plain(&mut self, a: &O::Ct, p: &Self::Plain) -> Result<O::Ct> {
        let n = 2 * self.slots();
        let level = self.ops.level(a);
        *self.at(level).plain.of_words(p.words, n) += 1;
        self.ops.mul_plain(a, &p.plain)
    }

    fn rescale(&mut self, a: &O::Ct) -> Result<O::Ct> {
        self.at(self.ops.level(a)).rescales += 1;
        self.ops.rescale(a)
    }

    fn mul_sum(&mut self, pairs: &[(&O::Ct, &O::Ct)]) -> Result<O::Ct> {
        if let Some((a, _)) = pairs.first() {
            let level = self.ops.level(a);
            self.need(KeyPurpose::Relinearization, level);
            let counts = self.at(level);
            counts.products += pairs.len();
            counts.relinearizations += 1;
        }
        self.ops.mul_sum(pairs)
    }

    fn rotate_many(&mut self, a: &O::Ct, by: &[i64]) -> Result<Vec<O::Ct>> {
        let (slots, level) = (self.slots(), self.ops.level(a));
        by.iter()
            .for_each(|by| self.need(KeyPurpose::Rotation(*by), level));
        let counts = self.at(level);
        match by.iter().filter(|by| moves(**by, slots)).count() {
            0 => {}
            1 => counts.rotations += 1,
            several => {
                counts.decompositions += 1;
                counts.hoisted += several;
            }
        }
        self.ops.rotate_many(a, by)
    }

    /// One decomposition, an inner product for each step, one ModDown.
    fn rotate_sum(&mut self, a: &O::Ct, by: &[i64]) -> Result<O::Ct> {
        let (slots, level) = (self.slots(), self.ops.level(a));
        for by in by {
            self.need(KeyPurpose::Rotation(*by), level);
        }
        let moved = by.iter().filter(|by| moves(**by, slots)).count();
        let counts = self.at(level);
        counts.decompositions += moved.min(1);
        counts.babies += moved;
        counts.divisions += moved.min(1);
        self.ops.rotate_sum(a, by)
    }

    fn conjugate(&mut self, a: &O::Ct) -> Result<O::Ct> {
        let level = self.ops.level(a);
        self.need(KeyPurpose::Conjugation, level);
        self.at(level).rotations += 1;
        self.ops.conjugate(a)
    }

    fn drop_to(&mut self, a: &O::Ct, level: usize) -> Result<O::Ct> {
        self.ops.drop_to(a, level)
    }

    fn adjust(&mut self, a: &O::Ct, level: usize) -> Result<O::Ct> {
        // What is far above is lowered for nothing: it starts from the level above that of the result.
        if self.ops.level(a) != level {
            let counts = self.at(level + 1);
            counts.plain.scalar += 1;
            counts.rescales += 1;
        }
        self.ops.adjust(a, level)
    }

    fn linear_transforms(
        &mut self,
        inputs: &[&O::Ct],
        transforms: &[&Transform<Self::Plain>],
    ) -> Result<Vec<O::Ct>> {
        let slots = self.slots();
        let level = inputs.first().map_or(0, |input| self.ops.level(input));
        let giants: Vec<_> = transforms.iter().flat_map(|t| &t.giants).collect();
        let mut special = self.products(&giants, level);
        for giant in giants.iter().filter(|g| moves(g.rotation, slots)) {
            special = true;
            self.need(KeyPurpose::Rotation(giant.rotation), level);
            let rotated = giant.terms.iter().any(|t| moves(t.baby, slots));
            let counts = self.at(level);
            counts.giants += usize::from(rotated);
            counts.plain_giants += usize::from(!rotated);
        }
        match special {
            true => self.at(level).divisions += transforms.len(),
            false => self.at(level).rescales += transforms.len(),
        }
        let plain: Vec<Transform<O::Plain>> = transforms.iter().map(|t| uncounted(t)).collect();
        let plain: Vec<&Transform<O::Plain>> = plain.iter().collect();
        self.ops.linear_transforms(inputs, &plain)
    }

    /// Nested giant steps cost what those side by side do. What is inside of one is never exact: only
    /// the innermost may be without its ModDown.
    fn nested_transform(
        &mut self,
        inputs: &[&O::Ct],
        transform: &Transform<Self::Plain>,
    ) -> Result<O::Ct> {
        let slots = self.slots();
        let level = inputs.first().map_or(0, |input| self.ops.level(input));
        let giants: Vec<_> = transform.giants.iter().collect();
        let mut special = self.products(&giants, level);
        let mut exact = true;
        let within = giants.iter().rev().skip_while(|g| g.terms.is_empty());
        for giant in within {
            exact &= !giant.terms.iter().any(|t| moves(t.baby, slots));
            if moves(giant.rotation, slots) {
                self.need(KeyPurpose::Rotation(giant.rotation), level);
                let counts = self.at(level);
                counts.giants += usize::from(!exact);
                counts.plain_giants += usize::from(exact);
                (special, exact) = (true, false);
            }
        }
        match special {
            true => self.at(level).divisions += 1,
            false => self.at(level).rescales += 1,
        }
        self.ops.nested_transform(inputs, &uncounted(transform))
    }

    fn mod_raise(&mut self, a: &O::Ct) -> Result<O::Ct> {
        for (purpose, level) in mod_raise_keys(self.params().max_level()) {
            self.need(purpose, level);
            self.at(level).rotations += 1;
        }
        self.ops.mod_raise(a)
    }

    fn promise(&mut self, ct: &O::Ct, bound: f64) {
        self.ops.promise(ct, bound);
    }

    /// What happens inside is not counted: a [`crate::bootstrap::Bootstrapping`] around this has
    /// that counted too.
    fn bootstraps(&mut self, inputs: &[&O::Ct], which: usize) -> Result<Vec<O::Ct>> {
        self.bootstraps += 1;
        self.ops.bootstraps(inputs, which)
    }
}

impl<O: Ops> Counting<O> {
    /// Products, baby steps and decompositions of some giant steps; whether anything is rotated
    /// before its product.
    fn products(&mut self, giants: &[&Giant<CountedPlain<O::Plain>>], level: usize) -> bool {
        let (n, turn) = (2 * self.slots(), self.slots() as i64);
        // Per input its baby steps.
        let mut babies: BTreeMap<usize, BTreeSet<i64>> = BTreeMap::new();
        for term in giants.iter().flat_map(|g| &g.terms) {
            let baby = term.baby.rem_euclid(turn);
            if baby == 0 {
                *self.at(level).plain.of_words(term.plain.words, n) += 1;
            } else {
                *self.at(level).extended.of_words(term.plain.words, n) += 1;
                babies.entry(term.input).or_default().insert(baby);
            }
        }
        self.at(level).decompositions += babies.len();
        for step in babies.values().flatten() {
            self.need(KeyPurpose::Rotation(*step), level);
            self.at(level).babies += 1;
        }
        !babies.is_empty()
    }
}

/// The transform over the plaintexts of the operations that are counted.
fn uncounted<Pl: Clone>(transform: &Transform<CountedPlain<Pl>>) -> Transform<Pl> {
    let giant = |giant: &Giant<CountedPlain<Pl>>| Giant {
        rotation: giant.rotation,
        terms: giant
            .terms
            .iter()
            .map(|term| Term {
                input: term.input,
                baby: term.baby,
                plain: term.plain.plain.clone(),
            })
            .collect(),
    };
    Transform {
        giants: transform.giants.iter().map(giant).collect(),
    }
}
