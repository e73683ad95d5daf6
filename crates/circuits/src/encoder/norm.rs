//! LayerNorm over the features of a token (Ba, Kiros and Hinton, arXiv 1607.06450, equation 4),
//! without its gain and bias, which belong into the weights that follow.

use veilformer_ckks::{Ops, OpsError};

use super::heads::doublings;
use super::slots::{factor, fold, meet, need_levels, sum, times};
use crate::CircuitError;

const CIRCUIT: &str = "layer norm";

/// From what the variance is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variance {
    /// The mean square of the centred values: two levels below them, so three below the input.
    Centred,
    /// The mean square less the square of the mean: two levels below the input. The error is
    /// relative to the mean square; so for means that are no larger than the deviation.
    Moments,
}

/// Mean and variance of `hidden` features per token, `width` to a block. Features beyond the last
/// one have to be zero, and stay it.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm<Pl> {
    hidden: usize,
    width: usize,
    level: usize,
    variance: Variance,
    /// `1 / hidden` in the first slot of every token, for the sums of features and of squares.
    means: [Pl; 2],
}

impl<Pl: Clone> LayerNorm<Pl> {
    /// For `hidden` features in blocks of `width` (a power of two), at `level`.
    ///
    /// # Errors
    /// A shape that does not fit; too few levels; what `ops` refuses to encode.
    pub fn new<O: Ops<Plain = Pl>>(
        ops: &mut O,
        (hidden, width): (usize, usize),
        level: usize,
        variance: Variance,
    ) -> Result<Self, CircuitError> {
        let slots = ops.params().slots();
        if hidden == 0 || !width.is_power_of_two() || width > slots {
            let what = format!(
                "{hidden} features, {width} to a block; at least one, and a power of two up to \
                 {slots} are expected"
            );
            return Err(CircuitError::shape(CIRCUIT, what));
        }
        let squares = match variance {
            Variance::Centred => 2,
            Variance::Moments => 1,
        };
        need_levels(CIRCUIT, level, squares + 1)?;
        let value = |at| if at == 0 { 1.0 / hidden as f64 } else { 0.0 };
        Ok(Self {
            hidden,
            width,
            level,
            variance,
            means: [
                factor(ops, level, width, value)?,
                factor(ops, level - squares, width, value)?,
            ],
        })
    }

    /// Ciphertexts of features.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.hidden.div_ceil(self.width)
    }

    /// The features less their mean, one level down, and the variance, two or three levels down, in
    /// all slots of every token. A token whose features are all zero (a padded one) has variance
    /// zero: whoever takes an inverse of it has to bring it into range.
    ///
    /// # Errors
    /// Another number of blocks, or another level; what `ops` refuses.
    pub fn centre<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        blocks: &[O::Ct],
    ) -> Result<(Vec<O::Ct>, O::Ct), CircuitError> {
        let fits = blocks.iter().all(|ct| ops.level(ct) == self.level);
        if blocks.len() != self.blocks() || !fits {
            let what = format!(
                "{} blocks given; {} at level {} are expected",
                blocks.len(),
                self.blocks(),
                self.level
            );
            return Err(CircuitError::shape(CIRCUIT, what));
        }
        let total = sum(ops, CIRCUIT, blocks)?;
        let mean = self.first_slots(ops, &total, &self.means[0])?;
        let means = self.spread(ops, &mean)?;
        let mut centred = Vec::with_capacity(blocks.len());
        for (block, mean) in blocks.iter().zip(&means) {
            let block = ops.adjust(block, self.level - 1)?;
            centred.push(ops.sub(&block, mean)?);
        }
        let squared = match self.variance {
            Variance::Centred => &centred,
            Variance::Moments => blocks,
        };
        let squared: Vec<(&O::Ct, &O::Ct)> = squared.iter().map(|ct| (ct, ct)).collect();
        let squares = ops.mul_sum(&squared)?;
        let mut variance = self.first_slots(ops, &squares, &self.means[1])?;
        if self.variance == Variance::Moments {
            let square = ops.square(&mean)?;
            variance = ops.sub(&variance, &square)?;
        }
        let back: Vec<i64> = doublings(1, self.width).iter().map(|step| -step).collect();
        Ok((centred, fold(ops, &variance, &back)?))
    }

    /// The normalized features: centred, times `inverse` of the variance (`1 / sqrt(x + epsilon)`);
    /// one level below what `inverse` gives.
    ///
    /// # Errors
    /// As [`LayerNorm::centre`]; what `inverse` refuses.
    pub fn apply<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        blocks: &[O::Ct],
        inverse: impl FnOnce(&mut O, &O::Ct) -> Result<O::Ct, CircuitError>,
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let (centred, variance) = self.centre(ops, blocks)?;
        let inverse = inverse(ops, &variance)?;
        let normalized = centred.iter().map(|block| {
            let (block, inverse) = meet(ops, block, &inverse)?;
            Ok(ops.mul(&block, &inverse)?)
        });
        normalized.collect()
    }

    /// The sum over the slots of a token times `mask`, in its first slot; zero in the others.
    fn first_slots<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        ct: &O::Ct,
        mask: &Pl,
    ) -> Result<O::Ct, OpsError> {
        let total = fold(ops, ct, &doublings(1, self.width))?;
        times(ops, &total, mask)
    }

    /// Per block what stands in the first slot of a token, in the slots of all features of that
    /// block and in no other.
    fn spread<O: Ops>(&self, ops: &mut O, first: &O::Ct) -> Result<Vec<O::Ct>, OpsError> {
        let rest = self.hidden % self.width;
        // In 1, 2, 4 .. slots.
        let mut runs = vec![first.clone()];
        let longest = if self.hidden < self.width {
            rest
        } else {
            self.width
        };
        for bit in 0..longest.max(1).ilog2() {
            let run = fold(ops, &runs[bit as usize], &[-(1 << bit)])?;
            runs.push(run);
        }
        // The rest as a sum of such runs, each behind the longer ones: Horner's rule again.
        let mut partial: Option<O::Ct> = None;
        for (bit, run) in runs
            .iter()
            .enumerate()
            .filter(|(bit, _)| rest >> bit & 1 == 1)
        {
            partial = Some(match partial {
                None => run.clone(),
                Some(behind) => {
                    let behind = ops.rotate(&behind, -(1 << bit))?;
                    ops.add(run, &behind)?
                }
            });
        }
        let full = self.hidden / self.width;
        let mut all = vec![runs.pop().unwrap_or_else(|| first.clone()); full];
        all.extend(partial);
        Ok(all)
    }
}
