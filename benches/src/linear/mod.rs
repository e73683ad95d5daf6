//! Matrix products by every method, beside what their counted operations take.
//!
//! A matrix of weights multiplies the features of [`TOKENS`] encrypted tokens
//! ([`veilformer_circuits::matrix`] has the methods and what packed rows are). Counted time is the sum
//! of the operations that a product consists of, each with its own time, which is measured in the
//! same interleaved run ([`units`]). Encoding and encryption are in no time. Products that are too
//! long to be repeated are measured on a share of their outputs, all of which cost the same; the time
//! is that of all outputs, and the share stands beside it.

mod floor;
mod gates;
mod setting;
pub mod units;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use veilformer_circuits::matrix::{
    Counts, Diagonal, Hoisting, MatrixProduct, Method, Packing, PruneUnit, TileProduct, TileShape,
    Weights, Wrap, plan,
};
use veilformer_ckks::{KeyList, KeyPurpose, Params};

use crate::error::Result;
use crate::gate::Gate;
use crate::interleave::{Case, Terminal};
use crate::meter;
use crate::row::{Counted, Row};
use crate::scheme::{Sizes, shape};
use crate::session::Session;
use crate::stats::Summary;
use crate::threads::{pool, within};
use setting::Setting;

/// Tokens of all products.
pub const TOKENS: usize = 128;

/// Slots of a token where features are the fast axis, at most.
const WIDTH: usize = 256;

/// Primes of the inputs of products of two encrypted matrices, whose keys would not fit the memory
/// of most machines at all levels.
const TILE_LIMBS: usize = 5;

/// How a product is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One output feature after the other, each with its own rotations: the baseline.
    Rows,
    /// Diagonals with full encodings; rotations share their decomposition.
    Once,
    /// Diagonals with full encodings; rotations share decomposition and division.
    Twice,
    /// Diagonals with the period of a token, in pairs, hoisted twice.
    Periodic,
    /// One feature per ciphertext: products with constants.
    Columns,
    /// Two encrypted matrices.
    Tiles,
    /// As periodic, without so many percent of the diagonals.
    PrunedDiagonals(u8),
    /// As periodic, without so many percent of the blocks.
    PrunedBlocks(u8),
}

/// A product that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The method.
    pub way: Way,
    /// Features in.
    pub from: usize,
    /// Features out.
    pub to: usize,
}

impl Spec {
    /// All of the group.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let square = |way| Self {
            way,
            from: 768,
            to: 768,
        };
        let mut all = Vec::new();
        for (from, to) in [(128, 128), (768, 768), (768, 3072)] {
            let ways = [
                Way::Rows,
                Way::Once,
                Way::Twice,
                Way::Periodic,
                Way::Columns,
            ];
            all.extend(ways.map(|way| Self { way, from, to }));
        }
        all.push(Self {
            way: Way::Tiles,
            from: 128,
            to: 128,
        });
        all.extend([50, 75, 90].map(|share| square(Way::PrunedDiagonals(share))));
        all.extend([50, 75, 90].map(|share| square(Way::PrunedBlocks(share))));
        all
    }

    /// Whether it takes seconds.
    fn is_quick(self) -> bool {
        match self.way {
            Way::Rows => self.to != 768,
            Way::Periodic => self.to <= 768,
            _ => self.to <= 128,
        }
    }

    /// The name in commands and results.
    #[must_use]
    pub fn name(self) -> String {
        let way = match self.way {
            Way::Rows => "packed_rows".to_owned(),
            Way::Once => "bsgs_once".to_owned(),
            Way::Twice => "bsgs_twice".to_owned(),
            Way::Periodic => "periodic".to_owned(),
            Way::Columns => "columns".to_owned(),
            Way::Tiles => "tiles".to_owned(),
            Way::PrunedDiagonals(share) => format!("diagonals_less_{share}"),
            Way::PrunedBlocks(share) => format!("blocks_less_{share}"),
        };
        format!("{way}_{}x{}", self.from, self.to)
    }

    /// What exactly is measured.
    #[must_use]
    pub fn text(self) -> String {
        let what = match self.way {
            Way::Rows => "packed rows: log2(width) rotations per output feature".to_owned(),
            Way::Once => "diagonals, full encodings, hoisted once".to_owned(),
            Way::Twice => "diagonals, full encodings, hoisted twice".to_owned(),
            Way::Periodic => "diagonals, periodic encodings in pairs, hoisted twice".to_owned(),
            Way::Columns => "a ciphertext per feature, products with constants".to_owned(),
            Way::Tiles => "two encrypted matrices, inputs of few primes".to_owned(),
            Way::PrunedDiagonals(share) => format!("periodic, {share}% of diagonals pruned"),
            Way::PrunedBlocks(share) => format!("periodic, {share}% of blocks pruned"),
        };
        format!(
            "{} to {} features, {TOKENS} tokens: {what}",
            self.from, self.to
        )
    }

    /// What needs memory of its own is measured apart.
    fn part(self) -> usize {
        match self.way {
            Way::Tiles => 2,
            Way::Once | Way::Twice if self.to > 128 => 1,
            _ => 0,
        }
    }

    /// How it lies in slots, and the method; for products with a plaintext matrix.
    fn method(self, slots: usize) -> (Packing, Method) {
        let features = self.from.max(self.to).next_power_of_two();
        let width = WIDTH.min(slots / TOKENS).min(features).max(1);
        let feature_fast = Packing::FeatureFast { width };
        let diagonals = |baby_steps: usize, hoisting, wrap| Method::Diagonals {
            baby_steps: baby_steps.min(width),
            hoisting,
            wrap,
        };
        let babies = if width > 128 { 32 } else { 16 };
        let full = Packing::TokenFast {
            width,
            run: slots / width,
        };
        match self.way {
            Way::Rows => (feature_fast, Method::PackedRows),
            Way::Once => (full, diagonals(16, Hoisting::Once, Wrap::Signed)),
            Way::Twice => (full, diagonals(babies, Hoisting::Twice, Wrap::Signed)),
            Way::Columns => (Packing::Column, diagonals(1, Hoisting::Twice, Wrap::Signed)),
            _ => (
                feature_fast,
                diagonals(babies, Hoisting::Twice, Wrap::Paired),
            ),
        }
    }

    /// The matrix.
    fn weights(self) -> Result<Weights> {
        let full = Weights::from_fn(self.to, self.from, |r, c| setting::value(r, c) / 16.0)?;
        let share = |percent: u8| f64::from(percent) / 100.0;
        Ok(match self.way {
            Way::PrunedDiagonals(p) => full.pruned(PruneUnit::Diagonal(WIDTH), share(p)),
            Way::PrunedBlocks(p) => full.pruned(PruneUnit::Block(WIDTH), share(p)),
            _ => full,
        })
    }

    /// Output features that are measured, if not all.
    fn measured(self, quick: bool) -> usize {
        match self.way {
            Way::Rows => self.to.min(if quick { 2 } else { 24 }),
            Way::Columns => self.to.min(16),
            _ => self.to,
        }
    }
}

/// A product before it runs.
pub(crate) struct Product {
    spec: Spec,
    kind: Kind,
    counts: Counts,
    weights: usize,
}

/// One or two encrypted sides.
enum Kind {
    /// The outputs that are measured.
    Plain(MatrixProduct<Diagonal>),
    Tiles(TileShape, TileProduct<Diagonal>),
}

impl Product {
    fn new(spec: Spec, slots: usize, quick: bool) -> Result<Self> {
        if spec.way == Way::Tiles {
            let shape = TileShape {
                dim: spec.to,
                batch: (slots / (spec.to * spec.to)).max(1),
            };
            let product = TileProduct::new(shape, 8.min(spec.to / 2))?;
            return Ok(Self {
                spec,
                counts: product.counts(slots),
                kind: Kind::Tiles(shape, product),
                weights: 0,
            });
        }
        let weights = spec.weights()?;
        let (packing, method) = spec.method(slots);
        let whole = MatrixProduct::new(&weights, packing, method)?;
        let counts = whole.counts(slots);
        let measured = spec.measured(quick);
        let product = if measured < spec.to {
            let part = Weights::from_fn(measured, spec.from, |r, c| weights.at(r, c))?;
            MatrixProduct::new(&part, packing, method)?
        } else {
            whole
        };
        Ok(Self {
            spec,
            kind: Kind::Plain(product),
            counts,
            weights: weights.nonzero(),
        })
    }

    fn need(&self, list: &mut KeyList, level: usize, params: &Params) {
        let (steps, conjugation) = match &self.kind {
            Kind::Plain(product) => product.rotations(),
            Kind::Tiles(_, product) => {
                list.need(KeyPurpose::Relinearization, level, params);
                (product.rotations(), true)
            }
        };
        for by in steps {
            list.need(KeyPurpose::Rotation(by), level, params);
        }
        if conjugation {
            list.need(KeyPurpose::Conjugation, level, params);
        }
    }
}

/// Measures these products in as few interleaved runs as their memory allows, prints rows, a table
/// and what the products are held to, and keeps the rows.
///
/// # Errors
/// The scheme's and the circuits'.
pub fn measure(
    specs: &[Spec],
    (params, quick): (&Params, bool),
    session: &mut Session<'_>,
) -> Result<()> {
    // Sums of many giant steps are larger than what the pool keeps by default.
    veilformer_ring::set_pool_limit(4 << 30);
    let first = session.rows.len();
    for number in 0..=2 {
        let part: Vec<Spec> = specs
            .iter()
            .copied()
            .filter(|s| s.part() == number)
            .collect();
        if !part.is_empty() {
            measure_part(&part, (params, quick), session)?;
        }
    }
    let rows = session.rows.get(first..).unwrap_or_default();
    let mut lines = vec![Counted::table(rows)];
    lines.extend(gates::gates(rows).iter().map(ToString::to_string));
    session.say(&lines.join("\n"))
}

/// What of the group is measured if nothing is named.
#[must_use]
pub fn default_specs(quick: bool) -> Vec<Spec> {
    let all = Spec::all().into_iter();
    all.filter(|spec| !quick || spec.is_quick()).collect()
}

fn measure_part(
    specs: &[Spec],
    (params, quick): (&Params, bool),
    session: &mut Session<'_>,
) -> Result<()> {
    let slots = params.slots();
    let tiles = specs.iter().any(|s| s.way == Way::Tiles);
    let limbs = if tiles { TILE_LIMBS } else { usize::MAX };
    let level = params.max_level().min(limbs - 1);
    let products: Result<Vec<Product>> = specs
        .iter()
        .map(|spec| Product::new(*spec, slots, quick))
        .collect();
    let products = products?;
    let mut list = KeyList::default();
    units::need(&mut list, level, params);
    products
        .iter()
        .for_each(|p| p.need(&mut list, level, params));
    let of = crate::scheme::floors::Shape {
        limbs: level + 1,
        ..shape(params, session.set.isa())
    };
    eprintln!(
        "inputs of {} limbs; making {} keys, {:.1} GiB ..",
        level + 1,
        list.len(),
        list.len() as f64 * floor::key_bytes(&of) / 2f64.powi(30)
    );
    let setting = Setting::new(params, session.set.isa(), &list, level)?;
    let pool = pool(1)?;
    let differences = if quick { 1 } else { DIFFERENCES };
    let mut cases = units::cases(&setting, tiles, differences)?;
    let names: Vec<String> = cases.iter().map(|c| c.name.clone()).collect();
    let (made, gains) = product_cases(&setting, &products)?;
    cases.extend(made);
    let cases = cases.into_iter().map(|c| within(&pool, c)).collect();
    let mut watch = Terminal::new(session.stop);
    let before = (&session.machine, session.set);
    let (machine, samples) = meter::interleave(before, cases, session.effort, &mut watch)?;
    if session.stopped() {
        // Without all units there is nothing to compare with.
        return Ok(());
    }
    let median = |s: &Vec<Option<f64>>| {
        Summary::of(&s.iter().flatten().copied().collect::<Vec<_>>()).map(|s| s.median)
    };
    let medians = names.iter().cloned().zip(samples.iter().map(median));
    let medians: BTreeMap<String, f64> = medians.filter_map(|(n, m)| Some((n, m?))).collect();
    let unit_costs = units::of(&medians);
    session.say(&units::text(&unit_costs, level + 1))?;
    for (product, samples) in products.iter().zip(samples.iter().skip(names.len())) {
        let spec = product.spec;
        let floor = floor::of(&of, &product.counts).on(&machine, 1);
        let sizes = Sizes {
            limbs: level + 1,
            ..Sizes::of(params)
        };
        let key = ("linear", spec.name());
        let row = Row::new((key.0, &key.1, 1), &sizes, floor, samples, &BTreeMap::new());
        if let Some(mut row) = row {
            let share = spec.measured(quick) as f64 / spec.to as f64;
            let counted = unit_costs.of(&product.counts);
            row.counted = Some(counted_of(product, (counted, row.ms), (share, &of)));
            if let Some((unpruned, gain)) = gains.get(&spec.name()).and_then(gained) {
                row.peers.insert(UNPRUNED.to_owned(), unpruned);
                row.ratios.insert(UNPRUNED.to_owned(), gain);
            }
            session.keep(row)?;
        }
    }
    if specs.iter().any(|s| s.way == Way::Periodic && s.to == 768) {
        let spec = Spec {
            way: Way::Periodic,
            from: 768,
            to: 768,
        };
        let weights = spec.weights()?;
        let choice = plan(&weights, TOKENS, slots, &unit_costs)?;
        let words = choice.counts.plain_words as f64 / weights.nonzero() as f64;
        let gate = Gate::new(
            words <= 8.0,
            format!(
                "768x768: plan chooses {:?} {:?}, counted {:.0} ms: {words:.2} words per weight per limb, at most 8",
                choice.packing, choice.method, choice.milliseconds
            ),
        );
        session.say(&gate.to_string())?;
    }
    Ok(())
}

/// What a pruned product's time is compared with, by its name among other libraries.
const UNPRUNED: &str = "unpruned";

/// Differences of which a unit's sample is the median.
const DIFFERENCES: usize = 3;

/// Milliseconds of a pruned product, and of the unpruned one right before it.
type Gains = Arc<Mutex<Vec<(f64, f64)>>>;

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A case for each product, and by the names of pruned ones what they gain, where the unpruned one of their size is
/// among the products: it runs right before each of them, since a share of its time that they save is less than what a shared
/// machine varies by in half a minute.
fn product_cases<'a>(
    setting: &'a Setting,
    products: &[Product],
) -> Result<(Vec<Case<'a>>, BTreeMap<String, Gains>)> {
    let pruned = |p: &Product| matches!(p.spec.way, Way::PrunedDiagonals(_) | Way::PrunedBlocks(_));
    let size = |p: &Product| (p.spec.from, p.spec.to);
    let mut unpruned = BTreeMap::new();
    for product in products.iter().filter(|p| p.spec.way == Way::Periodic) {
        let case = Arc::new(Mutex::new(setting.case(product)?));
        unpruned.insert(size(product), case);
    }
    let mut gains = BTreeMap::new();
    let mut cases = Vec::with_capacity(products.len());
    for product in products {
        let name = product.spec.name();
        let full = unpruned.get(&size(product)).map(Arc::clone);
        let run: Box<dyn FnMut(usize) -> Result<f64> + Send + 'a> = match full {
            Some(full) if product.spec.way == Way::Periodic => {
                Box::new(move |repeats| (locked(&full).run)(repeats))
            }
            Some(full) if pruned(product) => {
                let mut case = setting.case(product)?;
                let seen = Gains::default();
                gains.insert(name.clone(), Arc::clone(&seen));
                Box::new(move |repeats| {
                    let before = (locked(&full).run)(repeats)?;
                    let taken = (case.run)(repeats)?;
                    locked(&seen).push((taken, before));
                    Ok(taken)
                })
            }
            _ => setting.case(product)?.run,
        };
        cases.push(Case { name, run });
    }
    Ok((cases, gains))
}

/// The median of the unpruned product's times, and how much faster the pruned one was; the first run, which learns
/// how long both take, left out.
fn gained(gains: &Gains) -> Option<(f64, Summary)> {
    let seen = locked(gains);
    let seen = seen.get(1..)?;
    let before: Vec<f64> = seen.iter().map(|(_, before)| *before).collect();
    let ratios: Vec<f64> = seen.iter().map(|(taken, before)| before / taken).collect();
    Some((Summary::of(&before)?.median, Summary::of(&ratios)?))
}

fn counted_of(
    product: &Product,
    (ms, measured): (f64, f64),
    (share, shape): (f64, &crate::scheme::floors::Shape),
) -> Counted {
    let c = &product.counts;
    let words = c.plain_words as f64 / product.weights.max(1) as f64;
    Counted {
        ms,
        over: measured / ms,
        rotations: c.key_switches() - c.relinearizations,
        key_switches: c.key_switches(),
        decompositions: c.decompositions,
        products_full: c.plain.dense + c.extended.dense,
        products_periodic: c.plain.periodic + c.extended.periodic,
        products_scalar: c.plain.scalar + c.extended.scalar,
        products_encrypted: c.products,
        words_per_weight: (product.weights > 0).then_some(words),
        plain_bytes: floor::plain_bytes(shape, c),
        key_bytes: c.keys as f64 * floor::key_bytes(shape),
        share,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilformer_ring::Isa;

    #[test]
    fn names_are_different_and_quick_ones_are_among_them() {
        let all: Vec<String> = Spec::all().iter().map(|s| s.name()).collect();
        let mut names = all.clone();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        let quick = default_specs(true);
        assert!(quick.iter().all(|s| all.contains(&s.name())));
        let wanted = ["periodic_768x768", "tiles_128x128", "packed_rows_768x3072"];
        for name in wanted {
            assert!(quick.iter().any(|s| s.name() == name), "{name}");
        }
        assert!(quick.len() < default_specs(false).len());
    }

    #[test]
    fn every_way_runs_and_is_counted() {
        // 1024 slots: eight features of 128 tokens in one.
        let params = Sizes::params(11, 6, 2, 40).unwrap();
        let slots = params.slots();
        let ways = [
            Way::Rows,
            Way::Once,
            Way::Twice,
            Way::Periodic,
            Way::Columns,
            Way::PrunedBlocks(0),
            Way::Tiles,
        ];
        let specs = ways.map(|way| Spec {
            way,
            from: 16,
            to: 32 >> u32::from(way == Way::Tiles),
        });
        let products = specs.map(|spec| Product::new(spec, slots, true).unwrap());
        let level = params.max_level();
        let mut list = KeyList::default();
        units::need(&mut list, level, &params);
        products
            .iter()
            .for_each(|p| p.need(&mut list, level, &params));
        let setting = Setting::new(&params, Isa::Scalar, &list, level).unwrap();
        let (mut cases, gains) = product_cases(&setting, &products).unwrap();
        for (product, case) in products.iter().zip(&mut cases) {
            assert_eq!(case.name, product.spec.name());
            assert!((case.run)(1).unwrap() > 0.0);
            let gain = gains.get(&case.name);
            let pruned = product.spec.way == Way::PrunedBlocks(0);
            assert_eq!(gain.is_some(), pruned);
            if let Some(gain) = gain {
                // The first run is not counted.
                assert_eq!(gained(gain), None);
                let taken = (case.run)(1).unwrap();
                let (unpruned, ratio) = gained(gain).unwrap();
                assert_eq!((ratio.median, ratio.n), (unpruned / taken, 1));
            }
            let counted = counted_of(product, (1.0, 2.0), (1.0, &shape(&params, Isa::Scalar)));
            assert_eq!(counted.over, 2.0);
            let rotates = product.spec.way != Way::Columns;
            assert_eq!(counted.key_switches > 0, rotates, "{}", case.name);
        }
        // All weights of columns are products; the 2 x 4 blocks have eight cyclic diagonals each.
        let counted = |i: usize| {
            counted_of(
                &products[i],
                (1.0, 1.0),
                (1.0, &shape(&params, Isa::Scalar)),
            )
        };
        assert_eq!(counted(4).products_scalar, 512);
        assert_eq!(counted(4).words_per_weight, Some(1.0));
        assert_eq!(counted(3).products_periodic, 64 + 4);
        assert_eq!(counted(2).products_full, 64);
        assert_eq!(counted(0).rotations, 32 * 3);
        let names = units::cases(&setting, true, 1).unwrap();
        let mut medians = BTreeMap::new();
        for mut case in names {
            let ms = (case.run)(1).unwrap();
            // A difference of times that were taken once: its sign is left to chance.
            let timed = [
                "rotate 2",
                "rotate below",
                "giant 0",
                "giant 32",
                "add",
                "product",
            ];
            let timed = timed.iter().any(|t| case.name == format!("unit: {t}"));
            assert!(ms.is_finite() && (ms > 0.0 || !timed), "{}", case.name);
            medians.insert(case.name.clone(), ms);
        }
        assert!(units::of(&medians).relinearization.is_finite());
    }
}
