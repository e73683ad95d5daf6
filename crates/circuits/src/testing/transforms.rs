//! Linear maps of [`ClearOps`], with giant steps side by side or nested.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use veilformer_ckks::noise::NoiseModel;
use veilformer_ckks::{Complex, Giant, KeyPurpose, OpsError, Scale, Transform, moves};

use super::{ClearCiphertext, ClearOps, ClearPlain, Result, empty, turned};

const OP: &str = "linear_transform";

/// Rotated inputs by input and step: made once for all that read them, their noise with them.
type Babies = BTreeMap<(usize, i64), Vec<Complex>>;

/// A call: what all its sums read.
struct Call<'a> {
    inputs: &'a [&'a ClearCiphertext],
    level: usize,
    /// Scale of all plaintexts.
    plain_scale: Scale,
    babies: Babies,
}

impl<'a> Call<'a> {
    /// Checks inputs and levels.
    fn new(
        inputs: &'a [&'a ClearCiphertext],
        transforms: &[&Transform<ClearPlain>],
    ) -> Result<Self> {
        let first = *inputs.first().ok_or_else(|| empty(OP))?;
        for input in inputs {
            OpsError::expect_level(OP, input.level, first.level)?;
            OpsError::expect_scale(OP, input.scale, first.scale)?;
        }
        if first.level == 0 {
            return Err(OpsError::OutOfLevels {
                op: OP,
                level: 0,
                needed: 1,
            });
        }
        for transform in transforms {
            if transform.giants.iter().all(|g| g.terms.is_empty()) {
                return Err(empty(OP));
            }
        }
        let giants = transforms.iter().flat_map(|t| &t.giants);
        let plain = giants.flat_map(|g| &g.terms).next();
        Ok(Self {
            inputs,
            level: first.level,
            plain_scale: plain.ok_or_else(|| empty(OP))?.plain.scale,
            babies: Babies::new(),
        })
    }
}

impl ClearOps {
    /// [`veilformer_ckks::Ops::linear_transforms`].
    pub(super) fn transforms(
        &mut self,
        inputs: &[&ClearCiphertext],
        transforms: &[&Transform<ClearPlain>],
    ) -> Result<Vec<ClearCiphertext>> {
        let mut call = Call::new(inputs, transforms)?;
        let slots = self.params.slots();
        let mut results = Vec::with_capacity(transforms.len());
        for transform in transforms {
            let mut total = vec![Complex::new(0.0, 0.0); slots];
            for giant in transform.giants.iter().filter(|g| !g.terms.is_empty()) {
                let mut sum = self.products(&mut call, giant)?;
                if moves(giant.rotation, slots) {
                    let rotated = has_turned(giant, slots);
                    self.disturb(&mut sum, |model| model.key_switch_error(call.level));
                    if rotated {
                        self.disturb_by_rounding(&mut sum, NoiseModel::rounding_of_c1);
                    }
                }
                add(&mut total, &turned(&sum, giant.rotation));
            }
            results.push(self.transformed(&call, total)?);
        }
        let giants = transforms.iter().flat_map(|t| &t.giants);
        let giants = giants.filter(|g| !g.terms.is_empty()).map(|g| g.rotation);
        self.note_steps(&call, giants);
        Ok(results)
    }

    /// [`veilformer_ckks::Ops::nested_transform`].
    pub(super) fn nested(
        &mut self,
        inputs: &[&ClearCiphertext],
        transform: &Transform<ClearPlain>,
    ) -> Result<ClearCiphertext> {
        let mut call = Call::new(inputs, &[transform])?;
        let innermost = transform.giants.iter().rposition(|g| !g.terms.is_empty());
        let giants = &transform.giants[..innermost.map_or(0, |last| last + 1)];
        let sum = self.nested_sum(&mut call, giants)?;
        let result = self.transformed(&call, sum)?;
        self.note_steps(&call, giants.iter().map(|g| g.rotation));
        Ok(result)
    }

    /// A nested transform before its rescale.
    fn nested_sum(
        &mut self,
        call: &mut Call<'_>,
        giants: &[Giant<ClearPlain>],
    ) -> Result<Vec<Complex>> {
        let (level, slots) = (call.level, self.params.slots());
        let mut sum = vec![Complex::new(0.0, 0.0); slots];
        // Whether the sum is a multiple of P, so that the ModDown before a giant step is exact.
        let mut exact = true;
        for giant in giants.iter().rev() {
            add(&mut sum, &self.products(call, giant)?);
            exact &= !has_turned(giant, slots);
            if !moves(giant.rotation, slots) {
                continue;
            }
            if !exact {
                self.disturb_by_rounding(&mut sum, NoiseModel::division);
            }
            self.disturb(&mut sum, |model| model.key_switch_error(level));
            exact = false;
            sum = turned(&sum, giant.rotation);
        }
        Ok(sum)
    }

    /// The sum of one giant step's products, before its rotation.
    fn products(&mut self, call: &mut Call<'_>, giant: &Giant<ClearPlain>) -> Result<Vec<Complex>> {
        let slots = self.params.slots();
        let mut sum = vec![Complex::new(0.0, 0.0); slots];
        for term in &giant.terms {
            let input = call
                .inputs
                .get(term.input)
                .ok_or_else(|| OpsError::Invalid {
                    op: OP,
                    what: format!("input {} of {}", term.input, call.inputs.len()),
                })?;
            OpsError::expect_plain_level(OP, term.plain.level, call.level)?;
            OpsError::expect_scale(OP, term.plain.scale, call.plain_scale)?;
            OpsError::expect_extended(OP, term.plain.extended, (term.baby, slots))?;
            let baby = term.baby.rem_euclid(slots as i64);
            let rotated = match call.babies.entry((term.input, baby)) {
                Entry::Occupied(made) => made.into_mut(),
                Entry::Vacant(place) => {
                    let mut rotated = turned(&input.raw, baby);
                    if baby != 0 {
                        // Rotated inputs stay on Q + P: no ModDown, no rounding of one.
                        self.disturb(&mut rotated, |model| model.baby_step(call.level));
                    }
                    place.insert(rotated)
                }
            };
            let period = term.plain.raw.len().max(1);
            for (sums, xs) in sum.chunks_mut(period).zip(rotated.chunks(period)) {
                for ((s, x), p) in sums.iter_mut().zip(xs).zip(term.plain.raw.iter()) {
                    *s += x * p;
                }
            }
        }
        self.counts.plain_products += giant.terms.len();
        Ok(sum)
    }

    /// The result of a transform, rescaled, from the sum of its products.
    fn transformed(&mut self, call: &Call<'_>, sum: Vec<Complex>) -> Result<ClearCiphertext> {
        let first = *call.inputs.first().ok_or_else(|| empty(OP))?;
        let scale = first.scale.product(call.plain_scale);
        let sum = self.fitting(OP, sum, call.level, scale)?;
        let out = self.divided(OP, &sum)?;
        self.counts.transforms += 1;
        Ok(self.disturbed(out, NoiseModel::division))
    }

    /// Keys and counts of a transform that was not refused.
    fn note_steps(&mut self, call: &Call<'_>, giants: impl Iterator<Item = i64>) {
        let slots = self.params.slots();
        for step in call.babies.keys().map(|b| b.1).chain(giants) {
            self.need(KeyPurpose::Rotation(step), call.level);
            self.counts.rotations += usize::from(moves(step, slots));
        }
    }
}

/// Whether any product of a giant step has a rotated input.
fn has_turned(giant: &Giant<ClearPlain>, slots: usize) -> bool {
    giant.terms.iter().any(|t| moves(t.baby, slots))
}

fn add(sum: &mut [Complex], more: &[Complex]) {
    sum.iter_mut().zip(more).for_each(|(s, x)| *s += x);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::toy_params;
    use veilformer_ckks::{Ops, SecretKind, SlotVector, Term};

    fn value(j: usize, seed: usize) -> Complex {
        let x = |a: usize| ((j * a + 31 * seed) % 101) as f64 / 101.0 - 0.5;
        Complex::new(x(17), x(29))
    }

    fn slots(n: usize, seed: usize) -> SlotVector {
        SlotVector::Dense((0..n).map(|j| value(j, seed)).collect())
    }

    /// Giant steps `(rotation, baby steps)` with plaintexts of a scale of their own.
    fn map(ops: &mut ClearOps, steps: &[(i64, &[i64])], scale: Scale) -> Transform<ClearPlain> {
        let n = ops.params.slots();
        let mut seed = 1;
        let mut term = |baby: i64| {
            seed += 1;
            let plain = ops.term_plain(&slots(n, seed), 2, scale, baby).unwrap();
            Term {
                input: 0,
                baby,
                plain,
            }
        };
        let mut giants = Vec::new();
        for (rotation, babies) in steps {
            giants.push(Giant {
                rotation: *rotation,
                terms: babies.iter().map(|b| term(*b)).collect(),
            });
        }
        Transform { giants }
    }

    const STEPS: [(i64, &[i64]); 4] = [(0, &[0, 1]), (5, &[0, 2]), (7, &[]), (5, &[1, 3])];

    #[test]
    fn nested_giant_steps_are_sums_of_rotations() {
        let params = toy_params(2);
        let n = params.slots();
        let mut ops = ClearOps::new(&params);
        let x = ops.encrypt(&slots(n, 1), 2).unwrap();
        let scale = params.scale_at(2).multiply(0.375);
        let nested = map(&mut ops, &STEPS, scale);
        // Every giant step is rotated by all rotations up to its own.
        let mut beside = nested.clone();
        let mut sum = 0;
        for giant in &mut beside.giants {
            sum += giant.rotation;
            giant.rotation = sum;
        }
        let expected = ops.linear_transform(&[&x], &beside).unwrap();
        let before = ops.counts();
        let found = ops.nested_transform(&[&x], &nested).unwrap();
        assert_eq!(ops.counts().rotations - before.rotations, 3 + 3);
        let scale = x.scale.product(scale).value() / params.product(params.step_at(2).drop);
        for y in [&found, &expected] {
            assert!((y.scale.value() / scale - 1.0).abs() < 1e-12 && y.level == 1);
        }
        let pairs = ops.decrypt(&found).into_iter().zip(ops.decrypt(&expected));
        assert!(pairs.map(|(a, b)| (a - b).norm()).all(|e| e < 1e-10));

        // Keys are those of the steps themselves.
        let mut ops = ClearOps::new(&params);
        ops.nested_transform(&[&x], &nested).unwrap();
        let keys: Vec<i64> = ops.keys().rotations.iter().map(|k| k.0).collect();
        assert_eq!(keys, [1, 2, 3, 5, 7]);
    }

    #[test]
    fn what_a_transform_refuses() {
        let params = toy_params(2);
        let mut ops = ClearOps::new(&params);
        let x = ops.encrypt(&slots(params.slots(), 1), 2).unwrap();
        let empty: [(i64, &[i64]); 1] = [(1, &[])];
        let empty = map(&mut ops, &empty, params.scale_at(2));
        assert!(ops.nested_transform(&[&x], &empty).is_err());
        let mut mixed = map(&mut ops, &STEPS, params.scale_at(2));
        let other = map(&mut ops, &STEPS, params.scale_at(2).multiply(0.5));
        mixed.giants[3] = other.giants[3].clone();
        for result in [
            ops.nested_transform(&[&x], &mixed),
            ops.linear_transform(&[&x], &mixed),
        ] {
            assert!(matches!(result, Err(OpsError::ScaleMismatch { .. })));
        }
    }

    /// Each step rounds the half that it switches, the innermost only if an input was rotated.
    #[test]
    fn nested_noise_has_the_variance_of_the_model() {
        let params = toy_params(2);
        let n = params.slots();
        let model = NoiseModel::new(&params, SecretKind::DenseTernary);
        let (division, key) = (model.division(), model.key_switch_error(2));
        // Plaintexts with one value in each slot, exact and of variance gain one: 1 at scale 1.
        let one = SlotVector::real_constant(1.0);
        let scale = Scale::new(1.0).unwrap();
        let table: [(&[(i64, i64)], f64); 4] = [
            (&[(0, 0), (3, 0)], key),
            (&[(0, 0), (3, 1)], 2.0 * key + division),
            (&[(0, 0), (3, 0), (3, 0)], 2.0 * key + division),
            (&[(2, 0), (3, 1)], 3.0 * key + 2.0 * division),
        ];
        for (steps, predicted) in table {
            let mut square = 0.0;
            for seed in 0..64 {
                let mut noisy = ClearOps::with_noise(&params, SecretKind::DenseTernary, seed);
                let mut clean = ClearOps::new(&params);
                let x = clean.encrypt(&slots(n, 1), 2).unwrap();
                let mut giants = Vec::new();
                for &(rotation, baby) in steps {
                    let plain = clean.term_plain(&one, 2, scale, baby).unwrap();
                    let terms = vec![Term {
                        input: 0,
                        baby,
                        plain,
                    }];
                    giants.push(Giant { rotation, terms });
                }
                let transform = Transform { giants };
                let inputs = [&x];
                let sum = |ops: &mut ClearOps| {
                    let mut call = Call::new(&inputs, &[&transform]).unwrap();
                    ops.nested_sum(&mut call, &transform.giants).unwrap()
                };
                let (with, without) = (sum(&mut noisy), sum(&mut clean));
                let pairs = with.iter().zip(&without);
                square += pairs.map(|(a, b)| (a - b).norm_sqr()).sum::<f64>();
            }
            let variance = square / (64.0 * n as f64 * params.n() as f64);
            let ratio = variance / predicted;
            assert!((0.92..1.09).contains(&ratio), "{steps:?}: {ratio}");
        }
    }
}
