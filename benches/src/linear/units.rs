//! Times of the operations that products consist of, by differences of small transforms.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use veilformer_circuits::matrix::{ProductCosts, UnitCosts};
use veilformer_ckks::{Complex, Giant, KeyList, KeyPurpose, Params, SlotVector, Term, Transform};

use super::setting::{Ct, Plain, Setting, value};
use crate::error::Result;
use crate::interleave::Case;

/// Baby rotations 1 to 31, giant ones in multiples of 32.
const BABIES: i64 = 32;
/// Giant steps of the larger transforms; the last is by nothing.
const EIGHT: [i64; 8] = [32, 64, 96, 128, 160, 192, 224, 0];
/// Of the smaller ones, likewise: what is between both is four rotated giant steps.
const FOUR: [i64; 4] = [32, 64, 96, 0];
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
fn transform(
    pool: &[Plain],
    giants: &[i64],
    inputs: usize,
    babies: (i64, i64),
    every: usize,
) -> Transform<Plain> {
    let mut next = pool.iter().cycle();
    let giants = giants.iter().enumerate().map(|(g, &rotation)| {
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

/// The cases that [`of`] takes the medians of.
pub(super) fn cases(setting: &Setting, products: bool) -> Result<Vec<Case<'_>>> {
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
    let mut cases = Vec::new();
    let mut add_all = |name: &str, transforms: Vec<Transform<Plain>>| {
        let (ops, inputs) = (Arc::clone(&ops), Arc::clone(&inputs));
        cases.push(Case::timed(name, move || {
            let inputs: Vec<&Ct> = inputs.iter().collect();
            let transforms: Vec<_> = transforms.iter().collect();
            black_box(ops.linear_transforms(&inputs, &transforms)?);
            Ok(())
        }));
    };
    // Constants multiply inputs that come from memory, for as many outputs as a call has.
    let scalars = plains(Stored::Scalar, INPUTS, false)?;
    for (name, every) in [("scalar 16 of 16", 1), ("scalar 16 of 16/2", 2)] {
        let one = transform(&scalars, &[0], INPUTS, (0, 1), every);
        add_all(name, vec![one; INPUTS]);
    }
    let mut add = |name: &str, transform: Transform<Plain>| add_all(name, vec![transform]);
    for (name, stored) in [("dense", Stored::Dense), ("periodic", Stored::Periodic)] {
        let pool = plains(stored, 248, true)?;
        add(
            &format!("{name} 8x31"),
            transform(&pool, &EIGHT, 1, (1, BABIES), 1),
        );
        add(
            &format!("{name} 8x31/2"),
            transform(&pool, &EIGHT, 1, (1, BABIES), 2),
        );
        if matches!(stored, Stored::Periodic) {
            add("periodic 8x16", transform(&pool, &EIGHT, 1, (1, 17), 1));
            add("periodic 4x31", transform(&pool, &FOUR, 1, (1, BABIES), 1));
        }
    }
    for (name, stored) in [("dense", Stored::Dense), ("periodic", Stored::Periodic)] {
        let pool = plains(stored, 8 * INPUTS, false)?;
        add(
            &format!("{name} 8 of 16"),
            transform(&pool, &EIGHT, INPUTS, (0, 1), 1),
        );
        add(
            &format!("{name} 8 of 16/2"),
            transform(&pool, &EIGHT, INPUTS, (0, 1), 2),
        );
        if matches!(stored, Stored::Periodic) {
            add("giant 0", transform(&pool, &[0], 1, (0, 1), 1));
            add("giant 32", transform(&pool, &[32], 1, (0, 1), 1));
            add(
                "giants 4",
                transform(&pool, &[32, 64, 96, 128], 1, (0, 1), 1),
            );
        }
    }
    for count in [2, 8] {
        let (ops, inputs) = (Arc::clone(&ops), Arc::clone(&inputs));
        let steps: Vec<i64> = (1..=count).collect();
        cases.push(Case::timed(&format!("rotate {count}"), move || {
            black_box(ops.rotate_many(&inputs[0], &steps)?);
            Ok(())
        }));
    }
    let below = ops.drop_to(&inputs[0], level.saturating_sub(1))?;
    let (e, cts) = (Arc::clone(&ops), Arc::clone(&inputs));
    cases.push(Case::timed("rotate below", move || {
        black_box(e.rotate_many(&below, &[1])?);
        Ok(())
    }));
    let e = Arc::clone(&ops);
    cases.push(Case::timed("add", move || {
        black_box(e.add(&cts[0], &cts[1])?);
        Ok(())
    }));
    for pairs in [1, 3].into_iter().filter(|_| products) {
        let (ops, inputs) = (Arc::clone(&ops), Arc::clone(&inputs));
        cases.push(Case::timed(&format!("products {pairs}"), move || {
            let pairs: Vec<(&Ct, &Ct)> = (0..pairs).map(|i| (&inputs[i], &inputs[i + 3])).collect();
            black_box(ops.mul_sum(&pairs)?);
            Ok(())
        }));
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
    let difference =
        |name: &str, products: f64| (ms(name) - ms(&format!("{name}/2"))).max(0.0) / products;
    let plain = |name: &str| difference(&format!("{name} 8 of 16"), 64.0);
    let extended = |name: &str| difference(&format!("{name} 8x31"), 124.0);
    let plains = ProductCosts {
        dense: plain("dense"),
        periodic: plain("periodic"),
        scalar: difference("scalar 16 of 16", 128.0),
    };
    let product = extended("periodic");
    let all = ms("periodic 8x31");
    let hoisted = (ms("rotate 8") - ms("rotate 2")) / 6.0;
    let plain_giant = (ms("giants 4") - ms("giant 32")) / 3.0 - plains.periodic;
    let pair = (ms("products 3") - ms("products 1")) / 2.0;
    UnitCosts {
        decomposition: ms("rotate 2") - 2.0 * hoisted,
        hoisted,
        baby: (all - ms("periodic 8x16")) / 15.0 - 8.0 * product,
        giant: (all - ms("periodic 4x31")) / 4.0 - 31.0 * product,
        plain_giant,
        rotation: ms("rotate below"),
        relinearization: ms("products 1") - pair,
        product: pair,
        plain: plains,
        extended: ProductCosts {
            dense: extended("dense"),
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
        let rotated = |babies: f64, giants: f64, products: f64, each: f64| {
            u.decomposition + babies * u.baby + giants * u.giant + products * each + u.division
        };
        let still = |giants: f64, products: f64, each: f64| {
            giants * u.plain_giant + products * each + u.division
        };
        let (x, p) = (u.extended, u.plain);
        let medians = [
            ("dense 8x31", rotated(31.0, 7.0, 248.0, x.dense)),
            ("dense 8x31/2", rotated(31.0, 7.0, 124.0, x.dense)),
            ("periodic 8x31", rotated(31.0, 7.0, 248.0, x.periodic)),
            ("periodic 8x31/2", rotated(31.0, 7.0, 124.0, x.periodic)),
            ("periodic 8x16", rotated(16.0, 7.0, 128.0, x.periodic)),
            ("periodic 4x31", rotated(31.0, 3.0, 124.0, x.periodic)),
            ("dense 8 of 16", still(7.0, 128.0, p.dense)),
            ("dense 8 of 16/2", still(7.0, 64.0, p.dense)),
            ("periodic 8 of 16", still(7.0, 128.0, p.periodic)),
            ("periodic 8 of 16/2", still(7.0, 64.0, p.periodic)),
            ("scalar 16 of 16", 16.0 * u.rescale + 256.0 * p.scalar),
            ("scalar 16 of 16/2", 16.0 * u.rescale + 128.0 * p.scalar),
            ("giant 0", p.periodic + u.rescale),
            ("giant 32", still(1.0, 1.0, p.periodic)),
            ("giants 4", still(4.0, 4.0, p.periodic)),
            ("rotate 2", u.decomposition + 2.0 * u.hoisted),
            ("rotate 8", u.decomposition + 8.0 * u.hoisted),
            ("rotate below", u.rotation),
            ("add", u.addition),
            ("products 1", u.relinearization + u.product),
            ("products 3", u.relinearization + 3.0 * u.product),
        ];
        let medians = medians.map(|(name, ms)| (format!("unit: {name}"), ms));
        assert_eq!(of(&medians.into_iter().collect()), u);
    }
}
