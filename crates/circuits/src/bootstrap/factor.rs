//! One sparse matrix as a transform with nested giant steps.

use std::collections::BTreeMap;

use veilformer_ckks::{Complex, Giant, Ops, Scale, SlotVector, Term, Transform};

use super::dft::Diagonals;
use crate::CircuitError;

/// A matrix whose shifts are multiples of `step`, from 0 upwards, cut into baby and giant steps.
#[derive(Clone, Debug)]
pub(super) struct Factor {
    matrix: Diagonals,
    step: usize,
    /// Baby steps of one giant step.
    babies: usize,
}

impl Factor {
    /// With at most so many baby steps; fewer where that saves giant steps no less.
    pub(super) fn new(matrix: Diagonals, most_babies: usize) -> Self {
        let shifts: Vec<usize> = matrix.iter().map(|(shift, _)| shift).collect();
        let step = shifts
            .iter()
            .fold(0, |step, &shift| gcd(step, shift))
            .max(1);
        let places = shifts.last().copied().unwrap_or(0) / step + 1;
        let giants = places.div_ceil(most_babies.max(1));
        Self {
            matrix,
            step,
            babies: places.div_ceil(giants),
        }
    }

    /// Every entry times `factor`, at `level`, encoded at `scale`.
    pub(super) fn encode<O: Ops>(
        &self,
        ops: &mut O,
        factor: f64,
        (level, scale): (usize, Scale),
    ) -> Result<Transform<O::Plain>, CircuitError> {
        let giant_step = self.step * self.babies;
        let mut giants: BTreeMap<usize, Vec<Term<O::Plain>>> = BTreeMap::new();
        for (shift, diagonal) in self.matrix.iter() {
            let baby = shift % giant_step;
            let giant = shift - baby;
            // What meets slot j of the result stands where the giant steps find it.
            let entries: Vec<Complex> = diagonal.iter().map(|z| z * factor).collect();
            let slots = SlotVector::Periodic(entries).simplified();
            let slots = slots.rotated(-(giant as i64));
            let baby = baby as i64;
            let plain = ops.term_plain(&slots, level, scale, baby)?;
            let terms = giants.entry(giant).or_default();
            terms.push(Term {
                input: 0,
                baby,
                plain,
            });
        }
        // Nested: each giant step starts where the one around it ends.
        let mut before = 0;
        let giants = giants.into_iter().map(|(giant, terms)| {
            let rotation = (giant - before) as i64;
            before = giant;
            Giant { rotation, terms }
        });
        Ok(Transform {
            giants: giants.collect(),
        })
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
