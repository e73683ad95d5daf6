//! Linear maps by what decides how long they take: a program has many maps and few shapes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use veilformer_circuits::matrix::{Counts, ProductCosts, UnitCosts};
use veilformer_ckks::{Params, moves};
use veilformer_ir::ciphertext::{CiphertextProgram, Operation};

use crate::stats::{TransformCounts, plain_values};

/// The share of the time of all maps of a program, as it is estimated, that those make up which are measured
/// whole.
const MEASURED: f64 = 0.9;
/// The most that are.
const MOST: usize = 16;

/// Names what decides how long a linear map takes: its level, which sums there are, and for each product
/// its input, whether and with which others it shares a rotation and its plaintext, and how many words that has.
/// What the steps and the values are does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shape([u8; 16]);

impl Shape {
    /// That of an operation of `program`; none if it is no linear map. Kept in files: to name another thing, or in another
    /// order, takes another [`crate::COST_VERSION`].
    pub(crate) fn of(program: &CiphertextProgram, operation: &Operation) -> Option<Self> {
        let transforms = operation.transforms();
        transforms.first()?;
        let slots = program.slots;
        let mut hasher = blake3::Hasher::new();
        let mut put = |numbers: &[usize]| {
            for number in numbers {
                hasher.update(&(*number as u64).to_le_bytes());
            }
        };
        // Steps and plaintexts by the order in which they come.
        let mut steps = BTreeMap::new();
        let mut step = |by: i64| {
            if !moves(by, slots) {
                return 0;
            }
            let next = steps.len() + 1;
            *steps.entry(by.rem_euclid(slots as i64)).or_insert(next)
        };
        let mut plains = BTreeMap::new();
        let nested = matches!(operation, Operation::NestedTransform { .. });
        put(&[
            usize::from(nested),
            level(program, operation),
            slots,
            transforms.len(),
        ]);
        for transform in transforms {
            put(&[transform.giants.len()]);
            for giant in &transform.giants {
                put(&[step(giant.rotation), giant.terms.len()]);
                for term in &giant.terms {
                    let plain = program.plains.get(term.plain.0 as usize);
                    let values = plain.map_or(0, |plain| plain_values(&plain.pattern, slots));
                    let next = plains.len();
                    let which = *plains.entry(term.plain.0).or_insert(next);
                    put(&[term.input, step(term.baby), values, which]);
                }
            }
        }
        let mut name = [0; 16];
        hasher.finalize_xof().fill(&mut name);
        Some(Self(name))
    }
}

/// The level of an operation's first operand.
pub(crate) fn level(program: &CiphertextProgram, operation: &Operation) -> usize {
    let first = operation
        .operands()
        .first()
        .and_then(|id| program.info(*id));
    first.map_or(0, |info| info.level)
}

/// A linear map that stands for all of its shape.
#[derive(Clone, Copy)]
pub(crate) struct Shaped<'a> {
    pub(crate) shape: Shape,
    /// The first of them, and the program that has it.
    pub(crate) program: &'a CiphertextProgram,
    pub(crate) operation: &'a Operation,
    /// What they are estimated to take together.
    weight: f64,
}

/// Those that are worth a measurement of their own: the heaviest, until little is left. They follow from
/// the program alone.
pub(crate) fn heaviest<'a>(
    (program, params): (&'a CiphertextProgram, &Params),
    inside: &'a [CiphertextProgram],
) -> Vec<Shaped<'a>> {
    let mut runs = vec![0; inside.len()];
    for instruction in &program.instructions {
        if let Operation::Bootstrap { which, .. } = &instruction.operation
            && let Some(runs) = runs.get_mut(*which as usize)
        {
            *runs += 1;
        }
    }
    let mut all: BTreeMap<Shape, Shaped<'a>> = BTreeMap::new();
    for (program, runs) in inside.iter().zip(runs).chain([(program, 1)]) {
        for operation in program.instructions.iter().map(|i| &i.operation) {
            let Some(shape) = Shape::of(program, operation) else {
                continue;
            };
            let weight = f64::from(runs) * estimated(program, params, operation);
            let known = all.entry(shape).or_insert(Shaped {
                shape,
                program,
                operation,
                weight: 0.0,
            });
            known.weight += weight;
        }
    }
    let mut all: Vec<_> = all.into_values().filter(|s| s.weight > 0.0).collect();
    all.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.shape.cmp(&b.shape)));
    let whole: f64 = all.iter().map(|s| s.weight).sum();
    let mut left = whole;
    let few = all.into_iter().take_while(|s| {
        let enough = left <= (1.0 - MEASURED) * whole;
        left -= s.weight;
        !enough
    });
    few.take(MOST).collect()
}

/// What a map takes, in NTTs of one limb.
fn estimated(program: &CiphertextProgram, params: &Params, operation: &Operation) -> f64 {
    let costs = UnitCosts::estimated(params, level(program, operation));
    let counts = TransformCounts::of(program, operation);
    let n = (2 * program.slots.max(1)) as f64;
    // Between plaintexts with a short period and those without any by their words.
    let products = |each: &ProductCosts, count: usize, words: usize| {
        count as f64 * each.periodic + words as f64 / n * (each.dense - each.periodic)
    };
    let turned = counts.babies + counts.giants > 0;
    let beside = costs.of(&Counts {
        decompositions: counts.inputs,
        babies: counts.babies,
        giants: counts.divided,
        plain_giants: counts.giants.saturating_sub(counts.divided),
        divisions: if turned { counts.outputs } else { 0 },
        rescales: if turned { 0 } else { counts.outputs },
        ..Counts::default()
    });
    beside
        + products(&costs.plain, counts.products, counts.words)
        + products(&costs.extended, counts.turned_products, counts.turned_words)
}

#[cfg(test)]
mod tests {
    use veilformer_ckks::testing::toy_params;
    use veilformer_ckks::{Complex, Giant, Ops, SlotVector, Term, Transform};
    use veilformer_ir::ciphertext::Recorder;

    use super::*;

    /// Of each term the input, the baby step and the period of its plaintext, of which hundreds tell those of
    /// one period apart.
    type Terms<'a> = &'a [(usize, i64, usize)];
    /// A giant step: its rotation and its terms.
    type Step<'a> = (i64, Terms<'a>);

    /// A program of maps of two inputs.
    fn mapped(level: usize, maps: &[&[Step<'_>]], nested: bool) -> CiphertextProgram {
        let params = toy_params();
        let mut r = Recorder::new(&params);
        let (a, b) = (r.input(level, 1.0).unwrap(), r.input(level, 1.0).unwrap());
        let mut results = Vec::new();
        for giants in maps {
            let mut plain = |baby: i64, period: usize| {
                let (period, first) = (period % 100, 1 + period / 100);
                let entries = (first..first + period).map(|k| Complex::new(k as f64 / 64.0, 0.0));
                let slots = SlotVector::Periodic(entries.collect());
                let scale = params.scale_at(level);
                r.term_plain(&slots, level, scale, baby).unwrap()
            };
            let giants = giants.iter().map(|(rotation, terms)| Giant {
                rotation: *rotation,
                terms: terms
                    .iter()
                    .map(|&(input, baby, period)| Term {
                        input,
                        baby,
                        plain: plain(baby, period),
                    })
                    .collect(),
            });
            let transform = Transform {
                giants: giants.collect(),
            };
            let result = match nested {
                true => r.nested_transform(&[&a, &b], &transform),
                false => r.linear_transform(&[&a, &b], &transform),
            };
            results.push(result.unwrap());
        }
        r.finish(results)
    }

    fn shape(program: &CiphertextProgram) -> Shape {
        let mut shapes = program.instructions.iter();
        let shape = shapes.find_map(|i| Shape::of(program, &i.operation));
        shape.unwrap()
    }

    #[test]
    fn maps_are_alike_if_they_do_the_same_work() {
        let map = |giants: &[Step<'_>]| shape(&mapped(2, &[giants], false));
        let same: &[Step<'_>] = &[(0, &[(0, 0, 4), (1, 1, 4)]), (2, &[(0, 1, 4)])];
        let one = map(same);
        // Other steps, of which as many move anything and are shared.
        assert_eq!(one, map(&[(0, &[(0, 0, 4), (1, 5, 4)]), (7, &[(0, 5, 4)])]));
        let others: [&[Step<'_>]; 8] = [
            &[(0, &[(0, 0, 4), (1, 1, 4)]), (2, &[(0, 3, 4)])],
            &[(0, &[(0, 0, 4), (1, 1, 4)]), (1, &[(0, 1, 4)])],
            &[(0, &[(0, 0, 4), (1, 1, 8)]), (2, &[(0, 1, 4)])],
            &[(0, &[(0, 0, 4), (1, 1, 104)]), (2, &[(0, 1, 4)])],
            &[(0, &[(0, 0, 8), (1, 1, 8)]), (2, &[(0, 1, 8)])],
            &[(0, &[(0, 0, 4), (0, 1, 4)]), (2, &[(0, 1, 4)])],
            &[(0, &[(0, 0, 4), (1, 1, 4)]), (0, &[(0, 1, 4)])],
            &[(0, &[(0, 0, 4), (1, 1, 4), (0, 1, 4)])],
        ];
        for (number, other) in others.into_iter().enumerate() {
            assert_ne!(one, map(other), "{number}");
        }
        assert_ne!(one, shape(&mapped(1, &[same], false)));
        assert_ne!(one, shape(&mapped(2, &[same], true)));
    }

    #[test]
    fn the_heaviest_maps_come_first_and_each_shape_once() {
        let params = toy_params();
        let heavy: &[Step<'_>] = &[
            (1, &[(0, 1, 4), (1, 2, 4), (0, 3, 4)]),
            (2, &[(0, 1, 4), (1, 4, 4), (0, 5, 4)]),
            (3, &[(1, 6, 4), (1, 7, 4), (0, 8, 4)]),
        ];
        let middle: &[Step<'_>] = &[(1, &[(0, 1, 4)])];
        let light: &[Step<'_>] = &[(0, &[(0, 0, 4)])];
        let all = mapped(2, &[light, middle, heavy, heavy, middle], false);
        let [one, two, _] = [heavy, middle, light].map(|map| shape(&mapped(2, &[map], false)));
        let named = |program: &CiphertextProgram, inside: &[CiphertextProgram]| {
            let found = heaviest((program, &params), inside);
            found.iter().map(|map| map.shape).collect::<Vec<_>>()
        };
        assert_eq!(named(&all, &[]), [one, two]);
        // Nothing runs what no bootstrap of the program has inside.
        let few = mapped(2, &[light], false);
        assert_eq!(named(&few, std::slice::from_ref(&all)), [shape(&few)]);
    }

    #[test]
    fn no_more_maps_are_named_than_are_worth_it() {
        let terms: Vec<(usize, i64, usize)> = (1..=32).map(|baby| (0, baby, 4)).collect();
        let maps: Vec<[Step<'_>; 1]> = (13..=32).map(|n| [(0, &terms[..n])]).collect();
        let maps: Vec<&[Step<'_>]> = maps.iter().map(|map| &map[..]).collect();
        let program = mapped(2, &maps, false);
        let found = heaviest((&program, &toy_params()), &[]);
        assert_eq!((maps.len(), found.len()), (MOST + 4, MOST));
        assert!(found.is_sorted_by(|a, b| a.weight >= b.weight));
    }
}
