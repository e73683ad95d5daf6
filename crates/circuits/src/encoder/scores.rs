//! Scores of all pairs of tokens, one per slot.
//!
//! A product of queries and keys at one distance has a term of a score in every slot; the score is
//! the sum over a lane of `e` places. Of `e` products, the one for place `i` is summed into place
//! `i` of each lane: place `f` of it moves by the offset `j = f - i`,
//!
//! `out = sum over j of rot_j( sum over i of mask_(i + j) * P_i )`, `-e < j < e`,
//!
//! where `mask_f` is one at place `f` of each lane. That is `2 e - 2` rotations for `e` products, of
//! two distances each, instead of `log2 e` for each product; and the same `e` masks of period `e`
//! serve all of them. Where there are few products for a wide lane, each is added up by doublings
//! first, until its sum is that of a few places ([`Heads::gathered_places`]).

use std::collections::BTreeMap;

use veilformer_ckks::{Complex, Giant, Ops, SlotVector, Term, Transform};

use super::heads::{Heads, doublings};
use super::slots::{Parts, fold, need_levels};
use crate::CircuitError;

const SCORES: &str = "attention scores";
const SPREAD: &str = "copies of keys";

/// `<q_t, k_u>` for all pairs of tokens and all heads; two levels.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores<Pl> {
    heads: Heads,
    level: usize,
    parts: Parts<Pl>,
    /// From the products of a row of places to their sums.
    merge: Transform<Pl>,
}

impl<Pl: Clone> Scores<Pl> {
    /// For queries and keys of `level`. Every score is multiplied by `scale`: `1/sqrt(dim)`, and
    /// what the next polynomial wants.
    ///
    /// # Errors
    /// A shape that does not fit; fewer than two levels; what `ops` refuses to encode.
    pub fn new<O: Ops<Plain = Pl>>(
        ops: &mut O,
        heads: Heads,
        level: usize,
        scale: f64,
    ) -> Result<Self, CircuitError> {
        heads.check(ops.params().slots())?;
        need_levels(SCORES, level, 2)?;
        // The half makes up for the conjugate that separates real and imaginary parts.
        let scale = if heads.is_paired() {
            scale / 2.0
        } else {
            scale
        };
        let reach = heads.gathered_places();
        let masks = place_masks(ops, &heads, (level - 1, scale), (reach, false))?;
        let mut giants: BTreeMap<i64, Vec<Term<Pl>>> = BTreeMap::new();
        for input in 0..heads.used_places() {
            for (place, plain) in masks.iter().enumerate() {
                let offset = place as i64 - input as i64;
                giants.entry(offset).or_default().push(Term {
                    input,
                    baby: 0,
                    plain: plain.clone(),
                });
            }
        }
        let giants = giants.into_iter();
        let giants = giants.map(|(rotation, terms)| Giant { rotation, terms });
        Ok(Self {
            heads,
            level,
            parts: Parts::new(ops, level)?,
            merge: Transform {
                giants: giants.collect(),
            },
        })
    }

    /// The scores from the blocks of queries and keys: two levels down,
    /// [`Heads::score_ciphertexts`] of them, each score where [`Heads::score`] says. If
    /// [`Heads::is_paired`], they are *half* of the scores, for [`Parts::split`] to double.
    /// Slots that no score is in are zero.
    ///
    /// # Errors
    /// Other numbers of blocks, or another level; what `ops` refuses.
    pub fn apply<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        queries: &[O::Ct],
        keys: &[O::Ct],
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let heads = &self.heads;
        let blocks = heads.blocks();
        let levels = queries
            .iter()
            .chain(keys)
            .all(|ct| ops.level(ct) == self.level);
        if queries.len() != blocks || keys.len() != blocks || !levels {
            let what = format!(
                "{} and {} blocks of queries and keys; {blocks} of each at level {} are expected",
                queries.len(),
                keys.len(),
                self.level
            );
            return Err(CircuitError::shape(SCORES, what));
        }
        let backwards: Vec<i64> = (0..heads.giants())
            .map(|giant| -heads.by(giant * heads.babies))
            .collect();
        let onwards: Vec<i64> = (0..heads.babies).map(|baby| heads.by(baby)).collect();
        let mut turned_queries = Vec::with_capacity(blocks);
        let mut turned_keys = Vec::with_capacity(blocks);
        for (query, key) in queries.iter().zip(keys) {
            turned_queries.push(self.paired(ops, query, &backwards)?);
            turned_keys.push(ops.rotate_many(key, &onwards)?);
        }
        let reach = heads.gathered_places();
        let folds = doublings(reach, heads.places() / reach);
        let mut scores = Vec::with_capacity(heads.score_ciphertexts());
        for pair in 0..heads.pairs() {
            for row in 0..heads.rows() {
                let mut products = Vec::with_capacity(heads.used_places());
                let first = row * heads.used_places();
                for baby in first..first + heads.used_places() {
                    let operands = turned_queries.iter().zip(&turned_keys);
                    let operands: Vec<(&O::Ct, &O::Ct)> = operands
                        .filter_map(|(q, k)| q.get(pair).zip(k.get(baby)))
                        .collect();
                    let product = ops.mul_sum(&operands)?;
                    products.push(fold(ops, &product, &folds)?);
                }
                let products: Vec<&O::Ct> = products.iter().collect();
                scores.push(ops.linear_transform(&products, &self.merge)?);
            }
        }
        Ok(scores)
    }

    /// The rotated queries, two in one.
    fn paired<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        query: &O::Ct,
        steps: &[i64],
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let turned = ops.rotate_many(query, steps)?;
        if !self.heads.is_paired() {
            return Ok(turned);
        }
        let (re, im) = turned.split_at(self.heads.pairs());
        let pairs = re.iter().zip(im);
        let joined = pairs.map(|(re, im)| self.parts.join(ops, re, im));
        Ok(joined.collect::<Result<_, _>>()?)
    }
}

/// Moves each copy of keys, or of values, as many tokens on as the copies before it serve: one level.
/// With one copy there is nothing to do, and no level.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread<Pl> {
    transform: Option<Transform<Pl>>,
}

impl<Pl: Clone> Spread<Pl> {
    /// For blocks of `level` in which all copies are equal.
    ///
    /// # Errors
    /// A shape that does not fit; no level; what `ops` refuses to encode.
    pub fn new<O: Ops<Plain = Pl>>(
        ops: &mut O,
        heads: Heads,
        level: usize,
    ) -> Result<Self, CircuitError> {
        heads.check(ops.params().slots())?;
        if heads.copies == 1 {
            return Ok(Self { transform: None });
        }
        need_levels(SPREAD, level, 1)?;
        let scale = ops.params().scale_at(level);
        let mut terms = Vec::with_capacity(heads.copies);
        for copy in 0..heads.copies {
            let one = |at| f64::from(u8::from(at / heads.copy_stride() == copy));
            let slots = (0..heads.width).map(|at| Complex::new(one(at), 0.0));
            let slots = SlotVector::Periodic(slots.collect());
            let baby = heads.by(copy * heads.shifts());
            terms.push(Term {
                input: 0,
                baby,
                plain: ops.term_plain(&slots, level, scale, baby)?,
            });
        }
        let giants = vec![Giant { rotation: 0, terms }];
        Ok(Self {
            transform: Some(Transform { giants }),
        })
    }

    /// The copies of one block.
    ///
    /// # Errors
    /// What `ops` refuses.
    pub fn apply<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        block: &O::Ct,
    ) -> Result<O::Ct, CircuitError> {
        Ok(match &self.transform {
            None => block.clone(),
            Some(transform) => ops.linear_transform(&[block], transform)?,
        })
    }
}

/// For each of the first `count` places of a lane the plaintext that has `value` there and zero in the
/// others.
pub(super) fn place_masks<O: Ops>(
    ops: &mut O,
    heads: &Heads,
    (level, value): (usize, f64),
    (count, extended): (usize, bool),
) -> Result<Vec<O::Plain>, CircuitError> {
    let (places, scale) = (heads.places(), ops.params().scale_at(level));
    let mask = |place: usize| {
        let at = |i| if i == place { value } else { 0.0 };
        let slots = (0..places).map(|i| Complex::new(at(i), 0.0)).collect();
        let slots = SlotVector::Periodic(slots).simplified();
        Ok(match extended {
            true => ops.extended_plain(&slots, level, scale)?,
            false => ops.plain(&slots, level, scale)?,
        })
    };
    (0..count).map(mask).collect()
}
