//! Times of the operations that products consist of, by differences of small transforms.
//!
//! Both sides of a difference run one right after the other and the difference is the sample: times of
//! half a second that differ by a tenth say nothing of each other once minutes of a shared machine lie
//! between them. It is small beside what disturbs either side, so a round has several, and their median.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use veilformer_circuits::matrix::{ProductCosts, UnitCosts};
use veilformer_ckks::{Complex, Giant, KeyList, KeyPurpose, Params, SlotVector, Term, Transform};

use super::setting::{Ct, Plain, Setting, value};
use crate::error::Result;
use crate::interleave::Case;
use crate::stats::Summary;

/// Baby rotations 1 to 31, giant ones in multiples of 32.
const BABIES: i64 = 32;
/// Giant steps of the larger transforms; the last is by nothing.
const EIGHT: [i64; 8] = [32, 64, 96, 128, 160, 192, 224, 0];
/// Of the smaller ones, likewise: what is between both is four rotated giant steps.
const FOUR: [i64; 4] = [32, 64, 96, 0];
/// Outputs of rotated inputs without giant steps.
const OUTPUTS: usize = 16;
/// Half of their terms.
const HALF: f64 = 248.0;
/// Inputs of transforms without rotated inputs.
const INPUTS: usize = 16;
/// Slots after which periodic plaintexts repeat.
const PERIOD: usize = 256;
/// Different plaintexts that are full: more than the caches hold.
const FULL: usize = 48;

/// Notes the keys of all cases.
pub(super) fn need(list: &mut KeyList, level: usize, params: &Params) {
    for by in (1..BABIES).chain(EIGHT) {
        list.need(KeyPurpose::Rotation(by), level, params);
    }
}

/// What plaintexts store.
#[derive(Clone, Copy)]
enum Stored {
    Dense,
    Periodic,
    Scalar,
}

impl Stored {
    fn slots(self, slots: usize, k: usize) -> SlotVector {
        let values = |count| (0..count).map(|j| Complex::new(value(j, k), 0.0)).collect();
        match self {
            Self::Dense => SlotVector::Dense(values(slots)),
            Self::Periodic => SlotVector::Periodic(values(PERIOD.min(slots))),
            Self::Scalar => SlotVector::real_constant(value(0, k)),
        }
    }

    fn different(self) -> usize {
        match self {
            Self::Dense => FULL,
            Self::Periodic => 248,
            Self::Scalar => 8,
        }
    }
}

/// Giant steps over the baby steps `babies.0..babies.1` of each input; one of `every` terms.
fn transform<P: Clone>(
    pool: &[P],
    giants: &[i64],
    inputs: usize,
    babies: (i64, i64),
    every: usize,
) -> Transform<P> {
    transform_from(0, pool, giants, (inputs, babies), every)
}

/// The same, of which so many giant steps are before its own.
fn transform_from<P: Clone>(
    before: usize,
    pool: &[P],
    giants: &[i64],
    (inputs, babies): (usize, (i64, i64)),
    every: usize,
) -> Transform<P> {
    let each = inputs * (babies.1 - babies.0) as usize;
    let mut next = pool.iter().cycle().skip(before * each);
    let giants = (before..).zip(giants).map(|(g, &rotation)| {
        let terms = (0..inputs).flat_map(|input| (babies.0..babies.1).map(move |b| (input, b)));
        // Four giant steps in a row multiply the same: they are made at once.
        let kept = (g / 4..).zip(terms).filter(|(i, _)| i % every == 0);
        let terms = kept.zip(&mut next).map(|((_, (input, baby)), plain)| Term {
            input,
            baby,
            plain: plain.clone(),
        });
        Giant {
            rotation,
            terms: terms.collect(),
        }
    });
    Transform {
        giants: giants.collect(),
    }
}

/// What `more` takes above `less`, the median of so many differences: `less` runs right before and right after each
/// `more`. As a case of its own, whose repetitions are not counted by the difference, which says little of how long
/// it takes.
fn difference<'a>(
    (name, differences): (&str, usize),
    mut more: impl FnMut() -> Result<()> + Send + 'a,
    mut less: impl FnMut() -> Result<()> + Send + 'a,
) -> Case<'a> {
    Case {
        name: name.to_owned(),
        run: Box::new(move |_| {
            let mut seen = Vec::with_capacity(differences);
            let mut before = ms(&mut less)?;
            for _ in 0..differences {
                let taken = ms(&mut more)?;
                let after = ms(&mut less)?;
                seen.push(taken - (before + after) / 2.0);
                before = after;
            }
            Ok(Summary::of(&seen).map_or(f64::NAN, |s| s.median))
        }),
    }
}

fn ms(run: &mut impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// The cases that [`of`] takes the medians of; so many differences a round.
pub(super) fn cases(
    setting: &Setting,
    products: bool,
    differences: usize,
) -> Result<Vec<Case<'_>>> {
    let level = setting.level;
    let scale = setting.params.scale_at(level);
    let ops = Arc::new(setting.evaluator()?);
    let slots = setting.params.slots();
    let inputs: Vec<SlotVector> = (0..INPUTS).map(|k| Stored::Dense.slots(slots, k)).collect();
    let inputs: Arc<Vec<Ct>> = Arc::new(setting.encrypt(&inputs)?);
    let plains = |stored: Stored, count: usize, extended: bool| -> Result<Vec<Plain>> {
        let count = count.min(stored.different());
        let plain = |k: usize| {
            let values = stored.slots(slots, k);
            Ok(if extended {
                ops.encode_extended(&values, level, scale)?
            } else {
                ops.encode(&values, level, scale)?
            })
        };
        (0..count).map(plain).collect()
    };
    let apply = |transforms: Vec<Transform<Plain>>| {
        let (ops, inputs) = (Arc::clone(&ops), Arc::clone(&inputs));
        move || {
            let inputs: Vec<&Ct> = inputs.iter().collect();
            let transforms: Vec<_> = transforms.iter().collect();
            black_box(ops.linear_transforms(&inputs, &transforms)?);
            Ok(())
        }
    };
    let one = |transform: Transform<Plain>| apply(vec![transform]);
    // Constants multiply inputs that come from memory, for as many outputs as a call has.
    let scalars = plains(Stored::Scalar, INPUTS, false)?;
    let scalar = |every| {
        apply(vec![
            transform(&scalars, &[0], INPUTS, (0, 1), every);
            INPUTS
        ])
    };
    let mut cases = vec![difference(("scalar", differences), scalar(1), scalar(2))];
    for (name, stored) in [("dense", Stored::Dense), ("periodic", Stored::Periodic)] {
        let pool = plains(stored, 248, true)?;
        let rotated =
            |giants: &[i64], babies, every| one(transform(&pool, giants, 1, (1, babies), every));
        let all = || rotated(&EIGHT, BABIES, 1);
        // Without giant steps, so that products are much of it.
        let outputs = |every| {
            let of = |o| transform_from(o, &pool, &[0], (1, (1, BABIES)), every);
            apply((0..OUTPUTS).map(of).collect())
        };
        let rotated_name = format!("{name} rotated");
        cases.push(difference(
            (&rotated_name, differences),
            outputs(1),
            outputs(2),
        ));
        if matches!(stored, Stored::Periodic) {
            cases.push(difference(
                ("babies", differences),
                all(),
                rotated(&EIGHT, 17, 1),
            ));
            cases.push(difference(
                ("giants", differences),
                all(),
                rotated(&FOUR, BABIES, 1),
            ));
        }
    }
    for (name, stored) in [("dense", Stored::Dense), ("periodic", Stored::Periodic)] {
        let pool = plains(stored, 8 * INPUTS, false)?;
        let still =
            |giants: &[i64], inputs, every| one(transform(&pool, giants, inputs, (0, 1), every));
        cases.push(difference(
            (name, differences),
            still(&EIGHT, INPUTS, 1),
            still(&EIGHT, INPUTS, 2),
        ));
        if matches!(stored, Stored::Periodic) {
            cases.push(Case::timed("giant 0", still(&[0], 1, 1)));
            cases.push(Case::timed("giant 32", still(&[32], 1, 1)));
            cases.push(difference(
                ("giants of inputs", differences),
                still(&[32, 64, 96, 128], 1, 1),
                still(&[32], 1, 1),
            ));
        }
    }
    let rotate = |count: i64| {
        let (ops, inputs) = (Arc::clone(&ops), Arc::clone(&inputs));
        let steps: Vec<i64> = (1..=count).collect();
        move || {
            black_box(ops.rotate_many(&inputs[0], &steps)?);
            Ok(())
        }
    };
    cases.push(Case::timed("rotate 2", rotate(2)));
    cases.push(difference(("hoisted", differences), rotate(8), rotate(2)));
    let below = ops.drop_to(&inputs[0], level.saturating_sub(1))?;
    let e = Arc::clone(&ops);
    cases.push(Case::timed("rotate below", move || {
        black_box(e.rotate_many(&below, &[1])?);
        Ok(())
    }));
    let (e, cts) = (Arc::clone(&ops), Arc::clone(&inputs));
    cases.push(Case::timed("add", move || {
        black_box(e.add(&cts[0], &cts[1])?);
        Ok(())
    }));
    if products {
        let multiply = |pairs: usize| {
            let (ops, inputs) = (Arc::clone(&ops), Arc::clone(&inputs));
            move || {
                let pairs: Vec<(&Ct, &Ct)> =
                    (0..pairs).map(|i| (&inputs[i], &inputs[i + 3])).collect();
                black_box(ops.mul_sum(&pairs)?);
                Ok(())
            }
        };
        cases.push(Case::timed("product", multiply(1)));
        cases.push(difference(
            ("products", differences),
            multiply(3),
            multiply(1),
        ));
    }
    for case in &mut cases {
        case.name = format!("unit: {}", case.name);
    }
    Ok(cases)
}

/// Costs from the cases' medians. What was not measured costs nothing.
pub(super) fn of(medians: &BTreeMap<String, f64>) -> UnitCosts {
    let ms = |name: &str| {
        medians
            .get(&format!("unit: {name}"))
            .copied()
            .unwrap_or(0.0)
    };
    let each = |name: &str, count: f64| ms(name).max(0.0) / count;
    let plains = ProductCosts {
        dense: each("dense", 64.0),
        periodic: each("periodic", 64.0),
        scalar: each("scalar", 128.0),
    };
    let product = each("periodic rotated", HALF);
    let hoisted = each("hoisted", 6.0);
    let plain_giant = each("giants of inputs", 3.0) - plains.periodic;
    let pair = each("products", 2.0);
    UnitCosts {
        decomposition: ms("rotate 2") - 2.0 * hoisted,
        hoisted,
        baby: each("babies", 15.0) - 8.0 * product,
        giant: each("giants", 4.0) - 31.0 * product,
        plain_giant,
        rotation: ms("rotate below"),
        relinearization: ms("product") - pair,
        product: pair,
        plain: plains,
        extended: ProductCosts {
            dense: each("dense rotated", HALF),
            periodic: product,
            // No method has constants for rotated inputs.
            scalar: product,
        },
        addition: ms("add"),
        rescale: ms("giant 0") - plains.periodic,
        division: ms("giant 32") - plain_giant - plains.periodic,
    }
}

/// The costs for people.
pub(super) fn text(u: &UnitCosts, limbs: usize) -> String {
    let products =
        |p: &ProductCosts| format!("{:.2} / {:.2} / {:.3}", p.dense, p.periodic, p.scalar);
    format!(
        "operations on {limbs} limbs, ms: decomposition {:.1}, hoisted rotation {:.1}, baby step {:.1}, \
         giant step {:.1} (of inputs not rotated {:.1}), rotation one level below {:.1}, relinearization \
         {:.1}, product of ciphertexts {:.2}, products with full / periodic / scalar plaintexts {}, modulo \
         the special primes too {}, sum {:.2}, rescale {:.1}, division {:.1}",
        u.decomposition,
        u.hoisted,
        u.baby,
        u.giant,
        u.plain_giant,
        u.rotation,
        u.relinearization,
        u.product,
        products(&u.plain),
        products(&u.extended),
        u.addition,
        u.rescale,
        u.division
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half of the terms are as many as is said, of all babies, and four outputs in a row have the same.
    #[test]
    fn halves_of_outputs_are_halves() {
        let outputs = |every| -> Vec<Vec<i64>> {
            let of = |o| transform_from(o, &[()], &[0], (1, (1, BABIES)), every);
            let babies = |t: Transform<()>| t.giants[0].terms.iter().map(|t| t.baby).collect();
            (0..OUTPUTS).map(of).map(babies).collect()
        };
        let (all, half) = (outputs(1), outputs(2));
        let terms = |outputs: &[Vec<i64>]| outputs.iter().map(Vec::len).sum::<usize>() as f64;
        assert_eq!((terms(&all), terms(&half)), (2.0 * HALF, HALF));
        assert!(
            half.chunks(4)
                .all(|four| four.iter().all(|o| *o == four[0]))
        );
        let mut babies = half.concat();
        babies.sort_unstable();
        babies.dedup();
        assert_eq!(babies, all[0]);
    }

    /// The samples of a difference, of work that counts.
    #[test]
    fn differences_are_of_more_and_less() {
        let wait = |ms| {
            move || -> Result<()> {
                std::thread::sleep(std::time::Duration::from_millis(ms));
                Ok(())
            }
        };
        // Sleeps last longer than they should, by less than that on any machine that makes progress.
        let mut least = f64::INFINITY;
        for _ in 0..20 {
            let mut case = difference(("more", 1), wait(24), wait(4));
            least = least.min(((case.run)(1).unwrap() - 20.0).abs());
        }
        assert!(least < 10.0, "{least}");
        let refused = || Err(crate::error::BenchError::Usage("no".into()));
        assert!((difference(("none", 1), refused, wait(0)).run)(1).is_err());
        assert!((difference(("none", 1), wait(0), refused).run)(1).is_err());
        // One of three that is disturbed is not the one in the middle.
        for bad in 1..=3 {
            let mut calls = 0;
            let disturbed = move || {
                calls += 1;
                wait(if calls == bad { 400 } else { 24 })()
            };
            let taken = (difference(("more", 3), disturbed, wait(4)).run)(1).unwrap();
            assert!(taken < 100.0, "{taken}");
        }
    }

    /// The times of cases, of operations that take 1, 2, .. ms.
    #[test]
    fn costs_are_found_again() {
        let u = UnitCosts {
            decomposition: 20.0,
            hoisted: 12.0,
            baby: 9.0,
            giant: 26.0,
            plain_giant: 25.0,
            rotation: 30.0,
            relinearization: 28.0,
            product: 3.0,
            plain: ProductCosts {
                dense: 0.75,
                periodic: 0.25,
                scalar: 0.125,
            },
            extended: ProductCosts {
                dense: 1.5,
                periodic: 0.5,
                scalar: 0.5,
            },
            addition: 2.0,
            rescale: 5.0,
            division: 11.0,
        };
        let (x, p) = (u.extended, u.plain);
        let medians = [
            ("dense rotated", HALF * x.dense),
            ("periodic rotated", HALF * x.periodic),
            ("babies", 15.0 * u.baby + 120.0 * x.periodic),
            ("giants", 4.0 * u.giant + 124.0 * x.periodic),
            ("dense", 64.0 * p.dense),
            ("periodic", 64.0 * p.periodic),
            ("scalar", 128.0 * p.scalar),
            ("giant 0", p.periodic + u.rescale),
            ("giant 32", u.plain_giant + p.periodic + u.division),
            ("giants of inputs", 3.0 * (u.plain_giant + p.periodic)),
            ("rotate 2", u.decomposition + 2.0 * u.hoisted),
            ("hoisted", 6.0 * u.hoisted),
            ("rotate below", u.rotation),
            ("add", u.addition),
            ("product", u.relinearization + u.product),
            ("products", 2.0 * u.product),
        ];
        let medians = medians.map(|(name, ms)| (format!("unit: {name}"), ms));
        assert_eq!(of(&medians.into_iter().collect()), u);
    }
}
