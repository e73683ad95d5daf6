//! Sums of weighted values.
//!
//! A weight stands in one place of a lane; its product with the values wants it in all of them. Of
//! a ciphertext with a weight in each of `e` places, the map for place `i` is
//!
//! `out_i = sum over places f of mask_f * rot_(i - f)(in)`:
//!
//! all `e` of them share `2 e - 2` rotated inputs, which cost an inner product with their key
//! each. Where few places of a wide lane hold weights, the maps reach some places only, and
//! doublings the others ([`Heads::spread_places`]). What is then summed over baby steps is relinearized once, and rotated to its queries once.

use veilformer_ckks::{Giant, Ops, Term, Transform};

use super::heads::{Heads, doublings};
use super::scores::place_masks;
use super::slots::{Parts, fold, need_levels};
use crate::CircuitError;

const CIRCUIT: &str = "weighted values";

/// `sum over keys u of w(t, u) v_u` for all tokens and heads; two levels below the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted<Pl> {
    heads: Heads,
    level: usize,
    gather: Gather<Pl>,
    /// Per place the map that brings its weight to the first [`Heads::spread_places`].
    expand: Vec<Transform<Pl>>,
}

impl<Pl: Clone> Weighted<Pl> {
    /// For weights of `level`.
    ///
    /// # Errors
    /// A shape that does not fit; fewer than two levels; what `ops` refuses to encode.
    pub fn new<O: Ops<Plain = Pl>>(
        ops: &mut O,
        heads: Heads,
        level: usize,
    ) -> Result<Self, CircuitError> {
        heads.check(ops.params().slots())?;
        need_levels(CIRCUIT, level, 2)?;
        let value = if heads.is_paired() { 0.5 } else { 1.0 };
        let reach = heads.spread_places();
        let still = place_masks(ops, &heads, (level, value), (reach, false))?;
        let turned = place_masks(ops, &heads, (level, value), (reach, true))?;
        let expand = (0..heads.used_places()).map(|from| {
            let masks = still.iter().zip(&turned).enumerate();
            let terms = masks.map(|(to, (still, turned))| Term {
                input: 0,
                baby: from as i64 - to as i64,
                plain: if from == to { still } else { turned }.clone(),
            });
            Transform {
                giants: vec![Giant {
                    rotation: 0,
                    terms: terms.collect(),
                }],
            }
        });
        Ok(Self {
            heads,
            level,
            gather: Gather::new(ops, heads, level)?,
            expand: expand.collect(),
        })
    }

    /// The sums, from weights that lie as scores do (real and imaginary parts joined, zero where no
    /// score is) and from the blocks of values, at most a level below the weights and as
    /// [`super::Spread`] leaves them. Results lie as values do; lanes of other copies than the
    /// first hold bounded junk.
    ///
    /// # Errors
    /// Other numbers of ciphertexts, or another level; what `ops` refuses.
    pub fn apply<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        weights: &[O::Ct],
        values: &[O::Ct],
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let heads = &self.heads;
        let below = self.level - 1;
        let fits = weights.iter().all(|ct| ops.level(ct) == self.level)
            && values.iter().all(|ct| ops.level(ct) >= below);
        let expected = (heads.score_ciphertexts(), heads.blocks());
        if (weights.len(), values.len()) != expected || !fits {
            let what = format!(
                "{} ciphertexts of weights and {} of values; {} at level {} and {} at level \
                 {below} or above are expected",
                weights.len(),
                values.len(),
                expected.0,
                self.level,
                expected.1
            );
            return Err(CircuitError::shape(CIRCUIT, what));
        }
        let steps: Vec<i64> = (0..heads.babies).map(|baby| heads.by(baby)).collect();
        let mut turned = Vec::with_capacity(values.len());
        for value in values {
            let value = ops.adjust(value, below)?;
            turned.push(ops.rotate_many(&value, &steps)?);
        }
        let maps: Vec<&Transform<Pl>> = self.expand.iter().collect();
        let reach = heads.spread_places();
        let fills = doublings(reach, heads.places() / reach).into_iter();
        let fills: Vec<i64> = fills.map(|step| -step).collect();
        // Per block the sums of each pair of giant steps.
        let mut sums = vec![Vec::with_capacity(heads.pairs()); values.len()];
        for rows in weights.chunks(heads.rows()) {
            let mut broad = Vec::with_capacity(heads.babies);
            for row in rows {
                for near in ops.linear_transforms(&[row], &maps)? {
                    broad.push(fold(ops, &near, &fills)?);
                }
            }
            for (sums, values) in sums.iter_mut().zip(&turned) {
                let pairs: Vec<(&O::Ct, &O::Ct)> = broad.iter().zip(values).collect();
                sums.push(ops.mul_sum(&pairs)?);
            }
        }
        let gathered = sums.iter().map(|sums| {
            let sum = self.gather.apply(ops, sums)?;
            Ok(fold(ops, &sum, &heads.copy_steps())?)
        });
        gathered.collect()
    }
}

/// Brings the parts of a query together, from where its keys are: of one ciphertext per pair of
/// giant steps, twice `sum over a < pairs of rot_(G a)(Re_a) + rot_(G (a + pairs))(Im_a)` if there
/// are pairs, the ciphertext itself otherwise.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gather<Pl> {
    heads: Heads,
    parts: Parts<Pl>,
}

impl<Pl> Gather<Pl> {
    pub(super) fn new<O: Ops<Plain = Pl>>(
        ops: &mut O,
        heads: Heads,
        level: usize,
    ) -> Result<Self, CircuitError> {
        let parts = Parts::new(ops, level)?;
        Ok(Self { heads, parts })
    }

    pub(super) fn apply<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        sums: &[O::Ct],
    ) -> Result<O::Ct, CircuitError> {
        let giant = self.heads.by(self.heads.babies);
        let missing = || CircuitError::shape(CIRCUIT, "no sums given, one per pair expected");
        let (last, others) = sums.split_last().ok_or_else(missing)?;
        // By Horner's rule: one key for all giant steps.
        let mut total = last.clone();
        for sum in others.iter().rev() {
            total = ops.rotate(&total, giant)?;
            total = ops.add(&total, sum)?;
        }
        if !self.heads.is_paired() {
            return Ok(total);
        }
        let [re, im] = self.parts.split(ops, &total)?;
        let im = ops.rotate(&im, giant * self.heads.pairs() as i64)?;
        Ok(ops.add(&re, &im)?)
    }
}
