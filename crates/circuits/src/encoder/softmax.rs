//! Softmax over the keys of every query, with functions that the caller brings.

use veilformer_ckks::Ops;

use super::heads::{Heads, doublings};
use super::slots::{Mask, Parts, factor, fold, meet, need_levels, sum, times};
use super::weighted::{Gather, Weighted};
use crate::CircuitError;

const SUM: &str = "sum over keys";
const SOFTMAX: &str = "softmax";

/// The sum over all keys of a query, per head: one level.
#[derive(Clone, Debug, PartialEq)]
pub struct KeySum<Pl> {
    heads: Heads,
    gather: Gather<Pl>,
    mask: Pl,
    fill: Option<Pl>,
}

impl<Pl: Clone> KeySum<Pl> {
    /// For weights of `level`: their sum times `scale` where there is a head, and `fill` in the
    /// lanes without one, so that a function with a pole at zero stays bounded there.
    ///
    /// # Errors
    /// A shape that does not fit; no level; what `ops` refuses to encode.
    pub fn new<O: Ops<Plain = Pl>>(
        ops: &mut O,
        heads: Heads,
        level: usize,
        (scale, fill): (f64, f64),
    ) -> Result<Self, CircuitError> {
        Self::with_scales(ops, heads, level, (|_| scale, fill))
    }

    /// As [`KeySum::new`], with a `scale` for each head.
    ///
    /// # Errors
    /// As [`KeySum::new`].
    pub fn with_scales<O: Ops<Plain = Pl>>(
        ops: &mut O,
        heads: Heads,
        level: usize,
        (scale, fill): (impl Fn(usize) -> f64, f64),
    ) -> Result<Self, CircuitError> {
        heads.check(ops.params().slots())?;
        need_levels(SUM, level, 1)?;
        let part = if heads.is_paired() { 0.5 } else { 1.0 };
        let stride = heads.copy_stride();
        let mask = factor(ops, level, heads.width, |at| {
            let first =
                at < stride && at % heads.places() == 0 && at / heads.places() < heads.heads;
            if first {
                part * scale(at / heads.places())
            } else {
                0.0
            }
        })?;
        let empty = |at: usize| at % stride / heads.places() >= heads.heads;
        let any = fill != 0.0 && (0..heads.width).any(empty);
        let fill = any.then(|| {
            let value = |at| if empty(at) { fill } else { 0.0 };
            factor(ops, level - 1, heads.width, value)
        });
        Ok(Self {
            heads,
            gather: Gather::new(ops, heads, level)?,
            mask,
            fill: fill.transpose()?,
        })
    }

    /// The sums, one level below the weights, in one ciphertext: that of query `t` and head `h` in
    /// all places of lane `h` of token `t`, of all copies, which is where the outputs of that query
    /// and head stand in every block. The weights lie as scores do (real and imaginary parts
    /// joined) and are zero where no score is.
    ///
    /// # Errors
    /// Another number of ciphertexts; what `ops` refuses.
    pub fn apply<O: Ops<Plain = Pl>>(
        &self,
        ops: &mut O,
        weights: &[O::Ct],
    ) -> Result<O::Ct, CircuitError> {
        let heads = &self.heads;
        let expected = heads.score_ciphertexts();
        if weights.len() != expected {
            let what = format!(
                "{} ciphertexts of weights, expected {expected}",
                weights.len()
            );
            return Err(CircuitError::shape(SUM, what));
        }
        let rows = weights.chunks(heads.rows());
        let pairs = rows.map(|rows| sum(ops, SUM, rows));
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        let total = self.gather.apply(ops, &pairs)?;
        let places = doublings(1, heads.used_places());
        let total = fold(ops, &total, &[places, heads.copy_steps()].concat())?;
        let total = times(ops, &total, &self.mask)?;
        let mut back = doublings(1, heads.places());
        back.extend(heads.copy_steps());
        back.iter_mut().for_each(|step| *step = -*step);
        let total = fold(ops, &total, &back)?;
        Ok(match &self.fill {
            None => total,
            Some(fill) => ops.add_plain(&total, fill)?,
        })
    }
}

/// What softmax is of, and how. With `f` the weight of a score and `z` the sum of a query's weights
/// (as [`KeySum`] scales it), the result is `sum_u f(s_u) v_u * inverse(z)`: with `exp` and `1/z`
/// it is softmax, with [`power`] power-softmax (arXiv 2410.09457). A public shift
/// of the scores changes nothing but the scale of both.
pub struct Softmax<'a, Ct, F, I> {
    /// Ciphertexts of scores, as [`super::Scores`] leaves them.
    pub scores: &'a [Ct],
    /// The weight of a score; every slot, those without a score (zero) included.
    pub weight: F,
    /// The inverse of a sum. Where queries are zero at padded tokens and the weight of zero is
    /// zero, sums are zero there: it has to bring them into its range first.
    pub inverse: I,
}

/// Attention: the values weighted by softmax. `masks` say per row ([`Heads::of_keys`]) which keys
/// there are, and are needed unless the weight of zero is zero and keys are zero at padded tokens;
/// they take a level. `values` are at most one level below the (masked) weights. The result is
/// one level below what is lower, the weighted values or the inverse.
///
/// # Errors
/// Other numbers of ciphertexts or masks; what the functions or `ops` refuse.
pub fn attend<O, F, I>(
    ops: &mut O,
    heads: Heads,
    softmax: Softmax<'_, O::Ct, F, I>,
    masks: Option<&[Mask<O::Ct, O::Plain>]>,
    (values, sums): (&[O::Ct], (f64, f64)),
) -> Result<Vec<O::Ct>, CircuitError>
where
    O: Ops,
    F: FnMut(&mut O, &O::Ct) -> Result<O::Ct, CircuitError>,
    I: FnOnce(&mut O, &O::Ct) -> Result<O::Ct, CircuitError>,
{
    let Softmax {
        scores,
        mut weight,
        inverse,
    } = softmax;
    let rows = heads.rows();
    if masks.is_some_and(|masks| masks.len() != rows) {
        let what = format!("another number of masks than rows; {rows} are expected");
        return Err(CircuitError::shape(SOFTMAX, what));
    }
    let top = scores.iter().map(|ct| ops.level(ct)).max().unwrap_or(0);
    let parts = Parts::new(ops, top)?;
    let mut weights = Vec::with_capacity(scores.len());
    for (at, score) in scores.iter().enumerate() {
        let mut weighed = if heads.is_paired() {
            let [re, im] = parts.split(ops, score)?;
            let (re, im) = (weight(ops, &re)?, weight(ops, &im)?);
            parts.join(ops, &re, &im)?
        } else {
            weight(ops, score)?
        };
        if let Some(mask) = masks.and_then(|masks| masks.get(at % rows)) {
            weighed = mask.apply(ops, &weighed)?;
        }
        weights.push(weighed);
    }
    let level = weights.first().map_or(0, |ct| ops.level(ct));
    let total = KeySum::new(ops, heads, level, sums)?.apply(ops, &weights)?;
    let total = inverse(ops, &total)?;
    let weighted = Weighted::new(ops, heads, level)?.apply(ops, &weights, values)?;
    let normalized = weighted.iter().map(|block| {
        let (block, total) = meet(ops, block, &total)?;
        Ok(ops.mul(&block, &total)?)
    });
    normalized.collect()
}

/// `x^exponent` for an exponent of at least 1, the weight of power-softmax: as many levels as the
/// logarithm of the exponent to base 2, rounded up.
///
/// # Errors
/// What `ops` refuses.
pub fn power<O: Ops>(ops: &mut O, x: &O::Ct, exponent: u32) -> Result<O::Ct, CircuitError> {
    let half = exponent / 2;
    if half == 0 {
        return Ok(x.clone());
    }
    let low = power(ops, x, half)?;
    if exponent == 2 * half {
        return Ok(ops.square(&low)?);
    }
    let high = power(ops, x, exponent - half)?;
    let (low, high) = meet(ops, &low, &high)?;
    Ok(ops.mul(&low, &high)?)
}
