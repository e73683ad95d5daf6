//! Weighted sums over all slots.

use veilformer_ckks::{Ops, OpsError, SlotVector};

/// `sum over slots j and operands of weights[j] * ct[j]`, one level below its operands. With
/// `batch` sentences side by side, slot `j` belongs to sentence `j mod batch`, and each gets the
/// sum over its own slots, in all of them. Nothing but sums is left in any slot, so an answer made
/// this way carries no junk back to the client.
///
/// `product` hears of the weighted sum before its slots are added up, for whoever knows a bound.
///
/// # Errors
/// An empty list; operands of different levels; a batch that is no power of two; what `ops`
/// refuses.
pub fn weighted_slot_sum<O: Ops>(
    ops: &mut O,
    operands: &[(&O::Ct, SlotVector)],
    batch: usize,
    product: impl FnOnce(&mut O, &O::Ct),
) -> Result<O::Ct, OpsError> {
    if !batch.is_power_of_two() {
        return Err(OpsError::Invalid {
            op: "slot sum",
            what: format!("{batch} sentences side by side; a power of two is expected"),
        });
    }
    let mut sum: Option<O::Ct> = None;
    for (ct, weights) in operands {
        let level = ops.level(ct);
        let scale = ops.params().scale_at(level);
        let plain = ops.plain(weights, level, scale)?;
        let weighted = ops.mul_plain(ct, &plain)?;
        sum = Some(match sum {
            None => weighted,
            Some(s) => ops.add(&s, &weighted)?,
        });
    }
    let sum = sum.ok_or(OpsError::Invalid {
        op: "slot sum",
        what: "no operands".into(),
    })?;
    let mut sum = ops.rescale(&sum)?;
    product(ops, &sum);
    let mut step = ops.params().slots() as i64 / 2;
    while step >= batch.max(1) as i64 {
        let turned = ops.rotate(&sum, step)?;
        sum = ops.add(&sum, &turned)?;
        step /= 2;
    }
    Ok(sum)
}
