//! Power attention between all pairs of tokens, on ciphertexts.
//!
//! Queries, keys and values lie in rows of two equal chunks ([`crate::transform::Layout::doubled`]):
//! row `i * heads + h` holds dimension `i` of head `h`, and a rotation by `s < tokens` slots
//! brings token `t + s` to token `t` in the first chunk of every row. The scores of all token
//! pairs at one distance `s` are one product, summed over the dimensions by rotations along the
//! rows. Distances are taken as `s = g B + b`: keys and values are rotated by the baby steps
//! `b`, queries backwards by the giant steps `g B`, and the sums of a giant step are rotated
//! once (mission system 3's BSGS, applied to the token axis). With several sentences each token
//! has a slot per sentence, side by side, and every rotation is that many slots longer.
//!
//! Two distances ride in one ciphertext: with keys `k_b + i k_b'` a product is `z = s + i s'`.
//! For real `v, v'`, with `w = (v - v') z + (v + v') conj(z)`,
//!
//! `Re(z w) = 2 s^2 v + 2 s'^2 v'`,
//!
//! so one product of `z` with `w` weighs two values by two squared scores, and the real part is
//! taken once, at the end. That is 3 + log2(dim) key switches for two distances.

use veilformer_ckks::{Complex, Ops, OpsError, Scale, SlotVector};

/// What [`power_attention`] multiplies its result by; the caller folds the inverse into the
/// values' weights.
pub const POWER_ATTENTION_FACTOR: f64 = 4.0;

/// Levels that [`power_attention`] takes.
pub const POWER_ATTENTION_LEVELS: usize = 3;

/// The shape of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Padded number of tokens: a power of two, at least 2, and the length of a chunk.
    pub tokens: usize,
    /// Heads per ciphertext, padded to a power of two.
    pub heads: usize,
    /// Dimensions per head, padded to a power of two.
    pub dim: usize,
    /// Sentences side by side: the slots of one token of one row, a power of two.
    pub batch: usize,
}

impl AttentionShape {
    /// Slots after which the layout repeats.
    pub fn period(&self) -> usize {
        2 * self.tokens * self.heads * self.dim * self.batch
    }

    /// Baby steps: the power of two next to the square root of the tokens, at least 2.
    fn baby_steps(&self) -> usize {
        (1 << self.tokens.trailing_zeros().div_ceil(2)).clamp(2, self.tokens.max(2))
    }
}

/// `4 sum_u (q_t . k_u)^2 v_u` per head, for all tokens; three levels below its operands.
///
/// All three operands are of one level, real, and zero at padded tokens. In the result the first
/// chunk of every row holds the answer, the second bounded junk.
///
/// # Errors
/// A shape that is not of powers of two or does not divide the slots; what `ops` refuses.
pub fn power_attention<O: Ops>(
    ops: &mut O,
    query: &O::Ct,
    key: &O::Ct,
    value: &O::Ct,
    shape: AttentionShape,
) -> Result<O::Ct, OpsError> {
    check(ops, shape)?;
    let level = ops.level(query);
    if level < POWER_ATTENTION_LEVELS {
        return Err(OpsError::OutOfLevels {
            op: "power attention",
            level,
            needed: POWER_ATTENTION_LEVELS,
        });
    }
    let babies = shape.baby_steps();
    let half = babies / 2;
    let steps: Vec<i64> = (0..babies).map(|b| (b * shape.batch) as i64).collect();

    let keys = ops.rotate_many(key, &steps)?;
    let unit = SlotVector::Constant(Complex::new(0.0, 1.0));
    // Encoded at scale one, the imaginary unit is the monomial X^(N/2): exact, and no level.
    let unit = ops.plain(&unit, level, Scale::power_of_two(0))?;
    let mut paired_keys = Vec::with_capacity(half);
    for b in 0..half {
        let turned = ops.mul_plain(&keys[b + half], &unit)?;
        paired_keys.push(ops.add(&keys[b], &turned)?);
    }
    drop(keys);

    let value = ops.adjust(value, level - 1)?;
    let values = ops.rotate_many(&value, &steps)?;
    let mut differences = Vec::with_capacity(half);
    let mut sums = Vec::with_capacity(half);
    for b in 0..half {
        differences.push(ops.sub(&values[b], &values[b + half])?);
        sums.push(ops.add(&values[b], &values[b + half])?);
    }
    drop(values);

    let giants: Vec<i64> = (0..(shape.tokens / babies) as i64)
        .map(|g| -g * (babies * shape.batch) as i64)
        .collect();
    let queries = ops.rotate_many(query, &giants)?;
    let mut answer: Option<O::Ct> = None;
    for (giant, query) in giants.iter().zip(&queries) {
        let mut products = Vec::with_capacity(half);
        for b in 0..half {
            let scores = score(ops, query, &paired_keys[b], shape)?;
            let mirrored = ops.conjugate(&scores)?;
            let weighed = ops.mul_sum(&[(&scores, &differences[b]), (&mirrored, &sums[b])])?;
            products.push((ops.adjust(&scores, level - 2)?, weighed));
        }
        let pairs: Vec<(&O::Ct, &O::Ct)> = products.iter().map(|(a, b)| (a, b)).collect();
        let sum = ops.mul_sum(&pairs)?;
        let sum = ops.rotate(&sum, -giant)?;
        answer = Some(match answer {
            None => sum,
            Some(a) => ops.add(&a, &sum)?,
        });
    }
    let answer = answer.ok_or(OpsError::Invalid {
        op: "power attention",
        what: "no tokens".into(),
    })?;
    let mirrored = ops.conjugate(&answer)?;
    ops.add(&answer, &mirrored)
}

/// The scores of one product: summed over the dimensions, the same in all of them.
fn score<O: Ops>(
    ops: &mut O,
    query: &O::Ct,
    key: &O::Ct,
    shape: AttentionShape,
) -> Result<O::Ct, OpsError> {
    let mut sum = ops.mul(query, key)?;
    let row = (2 * shape.tokens * shape.heads * shape.batch) as i64;
    let mut step = 1;
    while step < shape.dim as i64 {
        let turned = ops.rotate(&sum, row * step)?;
        sum = ops.add(&sum, &turned)?;
        step *= 2;
    }
    Ok(sum)
}

fn check<O: Ops>(ops: &O, shape: AttentionShape) -> Result<(), OpsError> {
    let powers = [shape.tokens, shape.heads, shape.dim, shape.batch]
        .iter()
        .all(|n| n.is_power_of_two());
    let slots = ops.params().slots();
    if powers && shape.tokens >= 2 && shape.period() <= slots {
        return Ok(());
    }
    let what = format!(
        "{} tokens, {} heads of {} dimensions, {} sentences: powers of two and at least 2 tokens \
         are expected, and twice their product within {slots} slots",
        shape.tokens, shape.heads, shape.dim, shape.batch
    );
    Err(OpsError::Invalid {
        op: "power attention",
        what,
    })
}
