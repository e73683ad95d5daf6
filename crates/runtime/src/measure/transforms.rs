//! Pieces of linear maps, each from maps that differ in the number of one kind of piece.

use veilformer_ckks::{
    Evaluator, Giant, OpsError, SharedCiphertext, SharedPlain, SlotVector, Term, Transform,
};
use veilformer_ring::Backend;

use super::clock::{Clock, once};
use super::{Bench, MANY};
use crate::RuntimeError;
use crate::cost::Cost;

/// Inputs and outputs of transforms whose products are measured; two inputs for each of `MANY` pairs.
pub(super) const INPUTS: usize = 16;
const OUTPUTS: usize = 8;
/// As many outputs where each product has a plaintext of its own, without a period: a gigabyte of them.
const LONG_OUTPUTS: usize = 3;
/// Period of plaintexts whose words are no part of a product's time, a power of two.
const SHORT: usize = 64;

impl<B: Backend> Bench<'_, B> {
    /// So many plaintexts as a transform takes them.
    fn plains(
        &self,
        level: usize,
        count: usize,
        slots: impl Fn(usize) -> SlotVector,
    ) -> Result<Vec<SharedPlain<B>>, OpsError> {
        let scale = self.params.scale_at(level);
        let plain = |number| {
            let slots = slots(number);
            self.evaluator.encode_extended(&slots, level, scale)
        };
        (0..count).map(plain).collect()
    }

    /// Products in transforms, beside the words of plaintexts: of inputs as they are and rotated.
    pub(super) fn products(
        &self,
        level: usize,
        bench: &TransformBench<B>,
        put: &mut dyn FnMut(Cost, f64),
    ) -> Result<[f64; 2], RuntimeError> {
        // One for each product: what is read twice in a run comes from memory once.
        let at_hand = |outputs: usize| INPUTS * outputs;
        let short = at_hand(OUTPUTS);
        let short = self.plains(level, short, |number| self.periodic(number, SHORT))?;
        let product = bench.product(&short, PLAINLY, OUTPUTS)?;
        let turned = bench.product(&short, TURNED, OUTPUTS)?;
        let long = at_hand(LONG_OUTPUTS);
        let long = self.plains(level, long, |number| self.slots(number))?;
        let long_product = bench.product(&long, PLAINLY, LONG_OUTPUTS)?;
        let long_turned = bench.product(&long, TURNED, LONG_OUTPUTS)?;
        put(Cost::TransformProduct, product);
        put(Cost::TransformTurnedProduct, turned);
        put(Cost::TransformWords, long_product - product);
        put(Cost::TransformTurnedWords, long_turned - turned);
        Ok([product, turned])
    }

    /// Transforms that differ in the number of one kind of piece; of `products` each has one for a
    /// piece.
    pub(super) fn transform(
        &self,
        level: usize,
        bench: &TransformBench<B>,
        [product, turned]: [f64; 2],
        put: &mut dyn FnMut(Cost, f64),
    ) -> Result<(), RuntimeError> {
        let short = self.plains(level, MANY, |number| self.periodic(number, SHORT))?;
        let run = |giants| bench.run(&short, &[giants]);
        let steps = |count: usize| 1..=count as i64;
        let base = self.clock.repeated(|| run(vec![(0, vec![(0, 0)])]))?;
        let base = (base - product).max(0.0);
        let (switched, giant) = self.clock.two_points(MANY, |count| {
            run(steps(count).map(|giant| (giant, vec![(0, 0)])).collect())
        })?;
        let (hoisted, baby) = self.clock.two_points(MANY, |count| {
            run(vec![(0, steps(count).map(|baby| (0, baby)).collect())])
        })?;
        let (_, divided) = self.clock.two_points(MANY, |count| {
            run(steps(count).map(|giant| (giant, vec![(0, 1)])).collect())
        })?;
        put(Cost::Transform, base);
        put(Cost::TransformSwitch, switched - base);
        put(Cost::TransformGiant, giant - product);
        put(Cost::TransformInput, hoisted - switched);
        put(Cost::TransformBaby, baby - turned);
        put(Cost::TransformDown, (divided - turned) - (giant - product));
        Ok(())
    }
}

/// Per giant step its rotation and its terms, each an input and its baby step.
type Giants = Vec<(i64, Vec<(usize, i64)>)>;

/// Inputs and baby steps of each in transforms whose products are measured: what is multiplied does not
/// fit the first level of cache, as in a program's.
const PLAINLY: (usize, &[i64]) = (INPUTS, &[0]);
const TURNED: (usize, &[i64]) = (INPUTS / 4, &[1, 2, 3, 4]);

/// Transforms of the same inputs.
pub(super) struct TransformBench<'a, B: Backend> {
    pub(super) evaluator: &'a Evaluator<'a, B>,
    pub(super) clock: &'a Clock,
    pub(super) inputs: Vec<&'a SharedCiphertext<B>>,
}

impl<B: Backend> TransformBench<'_, B> {
    /// Seconds of one run of transforms with these giant steps, one for each output, whose products take
    /// one plaintext after the other.
    fn run(&self, plains: &[SharedPlain<B>], outputs: &[Giants]) -> Result<f64, OpsError> {
        let mut plains = plains.iter().cycle();
        let transforms: Vec<_> = outputs
            .iter()
            .map(|giants| {
                let giants = giants.iter().map(|(rotation, terms)| {
                    let terms = terms.iter().zip(&mut plains);
                    let terms = terms.map(|(&(input, baby), plain)| Term {
                        input,
                        baby,
                        plain: plain.clone(),
                    });
                    Giant {
                        rotation: *rotation,
                        terms: terms.collect(),
                    }
                });
                Transform {
                    giants: giants.collect(),
                }
            })
            .collect();
        let transforms: Vec<_> = transforms.iter().collect();
        once(|| self.evaluator.linear_transforms(&self.inputs, &transforms))
    }

    /// Seconds of each product with these baby steps of so many inputs: by how much the time grows where
    /// all of so many outputs but the first take all products and not only a quarter.
    fn product(
        &self,
        plains: &[SharedPlain<B>],
        (inputs, babies): (usize, &[i64]),
        outputs: usize,
    ) -> Result<f64, OpsError> {
        let terms = (0..inputs).flat_map(|input| babies.iter().map(move |baby| (input, *baby)));
        let terms: Vec<_> = terms.collect();
        let few = terms.len() / 4;
        let run = |count: usize| {
            let others = vec![vec![(0, terms[..count].to_vec())]; outputs - 1];
            let outputs = [vec![vec![(0, terms.clone())]], others].concat();
            self.run(plains, &outputs)
        };
        let (_, more) = self.clock.growth([few, terms.len()], run)?;
        Ok(more / ((outputs - 1) * (terms.len() - few)) as f64)
    }
}
