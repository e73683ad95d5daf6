//! Measures the costs that a program needs, with random polynomials and random keys: the time of
//! an operation does not depend on them, so no secret is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::io::Cursor;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use veilformer_ckks::container::{KeyFile, evaluation_keys_to_bytes};
use veilformer_ckks::uniform::{EXPANDER, KEY_EXPANDER, Stream, expand};
use veilformer_ckks::{
    Ciphertext, CiphertextInfo, Complex, EvaluationKeys, Evaluator, KeyId, KeyList, KeyPurpose,
    OpsError, Params, SecretKind, SharedCiphertext, SharedPlain, SlotVector, StoredCiphertext,
    StoredEvaluationKeys, StoredSwitchingKey, Uniform, UniformParts,
};
use veilformer_ir::ciphertext::CiphertextProgram;
use veilformer_ring::{Backend, Basis, RnsPoly};

mod clock;
mod threads;
mod transforms;
mod whole;

use clock::{Clock, median, once, time};
use threads::Threads;
use transforms::{INPUTS, TransformBench};

use crate::RuntimeError;
use crate::cost::{Cost, CostTable, inside, needs};
use crate::executor::Progress;
use crate::memory::plains_bytes;
use crate::shape::{Shaped, heaviest};

/// How long [`measure`] may take for pieces of operations unless told otherwise: where there are bootstraps,
/// operations take a hundred times longer than without, at three times as many levels.
#[must_use]
pub fn measure_deadline(program: &CiphertextProgram) -> Duration {
    let seconds = if program.bootstraps.is_empty() {
        10
    } else {
        90
    };
    Duration::from_secs(seconds)
}

/// Passes over everything, as the deadline lets them, of which the median counts.
const PASSES: usize = 3;
/// Rotation keys at hand: so many different ones that they do not stay in a cache.
const ROTATIONS: usize = 8;
/// Pieces in the larger of two measurements whose difference gives the cost of one piece.
const MANY: usize = 8;
/// Pieces of fresh memory, of which the median counts, and MiB of each.
const PIECES: usize = 5;
const PIECE: usize = 64;
/// Plaintexts with a short period that are encoded one after the other.
const SHORT_PLAINS: usize = 256;
/// Period of plaintexts whose encoding is taken for the least: a token's width of an encoder.
const ENCODED: usize = 256;

/// Measures what `table` lacks for a plan of `program` on so many threads, and puts it there, piece by piece: what
/// an error or a stop cuts short is kept. Of a table of other parameters or of another version nothing is kept.
///
/// * Threads: how much so many slow one another down, and how much they help one operation. All else runs in a
///   pool of one thread.
/// * Linear maps, whole, those that make up most of the program's; each has keys and plaintexts of its own, which take no
///   more memory than the program's.
/// * Pieces of all operations, if any of them is known at no level: at each of the program's levels while the
///   deadline lets it, first where there are transforms, from the highest level (in any case) and the lowest to
///   those in between. Levels that are left out are interpolated by [`CostTable::at`].
///
/// Keys and plaintexts come from memory where those of the program do not fit a cache. `progress` hears of
/// measurements; when the deadline is over the rest counts as done.
///
/// # Errors
/// What the backend refuses; [`RuntimeError::Threads`] if the system gives no thread;
/// [`RuntimeError::MeasureStopped`] if `progress` said so.
pub fn measure<B: Backend>(
    program: &CiphertextProgram,
    params: &Params,
    backend: &B,
    table: &mut CostTable,
    (threads, deadline): (usize, Duration),
    progress: &Progress<'_>,
) -> Result<(), RuntimeError> {
    if !table.fits(params) {
        *table = CostTable::empty(params, std::mem::take(&mut table.machine));
    }
    let inside = inside(program, params)?;
    let missing = Missing::new((program, params), &inside, table, threads);
    pool(1)?.install(|| missing.measure(backend, table, (threads, deadline), progress))
}

/// About as many bytes as a run reads between two uses of the same key or weight: one half of each key, as
/// words, and the program's own weights.
fn between(program: &CiphertextProgram, params: &Params) -> Result<u64, RuntimeError> {
    let keys = program.key_list(params);
    let shapes = keys.iter().map(|(purpose, level)| {
        let shape = purpose.shape(params, level)?;
        Ok(8 * params.n() as u64 * (shape.digits.len() * shape.basis.len()) as u64)
    });
    let keys: u64 = shapes.sum::<Result<_, RuntimeError>>()?;
    Ok(keys + plains_bytes(program, params).iter().sum::<u64>())
}

/// A pool in which a call of the backend has so many threads.
fn pool(threads: usize) -> Result<ThreadPool, RuntimeError> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|error| RuntimeError::Threads(error.to_string()))
}

/// What a table lacks.
struct Missing<'a> {
    program: &'a CiphertextProgram,
    params: &'a Params,
    /// A level at which threads are measured.
    shared: Option<usize>,
    maps: Vec<Shaped<'a>>,
    /// The pieces at each level, as [`order`] has them; none if each is known at some.
    pieces: Vec<(usize, BTreeSet<Cost>)>,
}

impl<'a> Missing<'a> {
    fn new(
        (program, params): (&'a CiphertextProgram, &'a Params),
        inside: &'a [CiphertextProgram],
        known: &CostTable,
        threads: usize,
    ) -> Self {
        let mut by_level: BTreeMap<usize, BTreeSet<Cost>> = BTreeMap::new();
        for (cost, level) in needs((program, params), inside) {
            by_level.entry(level).or_default().insert(cost);
        }
        // The memory that threads share matters less the lower the level is: a typical one.
        let typical = by_level.keys().nth(by_level.len() / 2);
        let typical = typical.map(|level| (*level).max(1));
        let mut maps = heaviest((program, params), inside);
        maps.retain(|map| !known.maps.contains_key(&map.shape));
        let all_known = by_level.values().flatten().all(|cost| known.has(*cost));
        Self {
            program,
            params,
            shared: typical.filter(|_| !known.has_threads(threads)),
            maps,
            pieces: match all_known {
                true => Vec::new(),
                false => order(&by_level, params),
            },
        }
    }

    fn measure<B: Backend>(
        &self,
        backend: &B,
        table: &mut CostTable,
        (threads, deadline): (usize, Duration),
        progress: &Progress<'_>,
    ) -> Result<(), RuntimeError> {
        let shared = usize::from(self.shared.is_some());
        let total = shared + self.maps.len() + PASSES * self.pieces.len();
        let mut done = 0;
        let mut step = || {
            done += 1;
            match progress(done, total) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(RuntimeError::MeasureStopped { done, total }),
            }
        };
        let keys = random_keys(self.params, backend, (&self.pieces, self.shared))?;
        let bench = Bench {
            evaluator: Evaluator::new(self.params, backend, &keys)?,
            params: self.params,
            backend,
            clock: Clock::new(between(self.program, self.params)?),
        };
        if let Some(level) = self.shared {
            let Threads { slowdown, helped } = bench.threads(level, threads)?;
            table.slowdown.insert(as_u32(threads), slowdown);
            table.helped.insert(as_u32(threads), helped);
            step()?;
        }
        for map in &self.maps {
            table.maps.insert(map.shape, bench.whole(map)?);
            step()?;
        }
        let all: BTreeSet<Cost> = self.pieces.iter().flat_map(|p| p.1.clone()).collect();
        let mut samples: BTreeMap<(Cost, u32), Vec<f64>> = BTreeMap::new();
        let end = Instant::now() + deadline;
        // Several passes: what else the machine does comes and goes.
        for pass in 0..PASSES {
            for (number, (level, costs)) in self.pieces.iter().enumerate() {
                // However slow it is, each cost is measured once, at the levels that `order` has first: a table
                // that lacks one would be measured anew with every plan.
                let known = || samples.keys().map(|s| s.0).collect::<BTreeSet<_>>();
                let late = (pass, number) != (0, 0) && Instant::now() >= end;
                if late && (pass > 0 || known().is_superset(&all)) {
                    break;
                }
                let mut put = |cost, seconds: f64| {
                    let at = samples.entry((cost, as_u32(*level))).or_default();
                    at.push(seconds.max(0.0));
                };
                bench.level(*level, costs, table, &mut put)?;
                let medians = samples.iter();
                let medians = medians.map(|(key, times)| (*key, median(times.clone())));
                table.seconds.extend(medians);
                step()?;
            }
        }
        // That it is over: too late to stop it.
        let _ = progress(total, total);
        Ok(())
    }
}

/// The levels in the order in which they are measured, with what is measured there: first those
/// without which a cost would not be known at all, then those with transforms, which weigh most.
/// Products of transforms with plaintexts grow evenly with the primes, and so with the levels of a band: its
/// ends are enough.
fn order(
    by_level: &BTreeMap<usize, BTreeSet<Cost>>,
    params: &Params,
) -> Vec<(usize, BTreeSet<Cost>)> {
    let (mapped, others): (Vec<usize>, Vec<usize>) = by_level
        .keys()
        .partition(|level| by_level[level].contains(&Cost::Transform));
    let band = |level: &usize| params.band_at(KeyPurpose::Rotation(1), *level);
    let is_end = |level: &usize| {
        let beside = |other: &usize| band(other) == band(level);
        let (mut below, mut above) = (mapped.iter().rev(), mapped.iter());
        let below = below.find(|l| *l < level).is_none_or(|l| !beside(l));
        below || above.find(|l| *l > level).is_none_or(|l| !beside(l))
    };
    let (ends, within): (Vec<usize>, Vec<usize>) = mapped.iter().partition(|level| is_end(level));
    let levels = [&ends, &within, &others].into_iter().map(|l| spread(l));
    let mut seen = BTreeSet::new();
    let (first, rest): (Vec<usize>, Vec<usize>) = levels.flatten().partition(|level| {
        let is_new = !by_level[level].is_subset(&seen);
        seen.extend(by_level[level].iter().copied());
        is_new
    });
    let levels = first.into_iter().chain(rest).map(|level| {
        let mut costs = by_level[&level].clone();
        if !ends.contains(&level) {
            costs.remove(&Cost::TransformProduct);
        }
        (level, costs)
    });
    levels.collect()
}

/// The highest, the lowest, then always the middle of the widest gap.
fn spread(levels: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = levels.last().copied().into_iter().collect();
    let mut left: BTreeSet<usize> = levels.iter().copied().collect();
    order.iter().for_each(|l| {
        left.remove(l);
    });
    if let Some(lowest) = left.pop_first() {
        order.push(lowest);
    }
    while let Some(&next) = left.iter().max_by_key(|&&l| {
        let gap = order.iter().map(|&o| o.abs_diff(l)).min().unwrap_or(0);
        (gap, l)
    }) {
        left.remove(&next);
        order.push(next);
    }
    order
}

fn as_u32(x: usize) -> u32 {
    u32::try_from(x).unwrap_or(u32::MAX)
}

const KEY_ID: KeyId = KeyId::from_bytes([0xc0; 16]);

/// Uniformly random keys of a relinearization and of some rotations, in each band of levels where they
/// are measured: for the costs of each level, and for a mixture of all at `mixed`.
fn random_keys<B: Backend>(
    params: &Params,
    backend: &B,
    (pieces, mixed): (&[(usize, BTreeSet<Cost>)], Option<usize>),
) -> Result<EvaluationKeys<B>, RuntimeError> {
    let mut list = KeyList::default();
    let none = BTreeSet::new();
    let levels = pieces.iter().map(|(level, costs)| (*level, costs));
    for (level, costs) in levels.chain(mixed.map(|level| (level, &none))) {
        let has = |cost| costs.contains(&cost) || mixed == Some(level);
        if has(Cost::MulSum) {
            list.need(KeyPurpose::Relinearization, level, params);
        }
        if has(Cost::RotateStep) || has(Cost::Transform) {
            let rotations = (1..=ROTATIONS as i64).map(KeyPurpose::Rotation);
            rotations.for_each(|by| list.need(by, level, params));
        }
    }
    prepared_keys(params, backend, &list)
}

/// Uniformly random keys of a list.
fn prepared_keys<B: Backend>(
    params: &Params,
    backend: &B,
    list: &KeyList,
) -> Result<EvaluationKeys<B>, RuntimeError> {
    let mut keys = EvaluationKeys::empty(params, KEY_ID);
    for (number, (purpose, level)) in list.iter().enumerate() {
        let stored = stored_key(params, level, (number, purpose))?;
        let prepared = EvaluationKeys::prepare_one(params, backend, &stored)?;
        keys.insert_prepared(params, &stored, prepared)?;
    }
    Ok(keys)
}

/// A uniformly random key, half of it a seed.
fn stored_key(
    params: &Params,
    level: usize,
    (number, purpose): (usize, KeyPurpose),
) -> Result<StoredSwitchingKey, RuntimeError> {
    let shape = purpose.shape(params, level)?;
    let b = (0..shape.digits.len()).map(|digit| random_poly(params, shape.basis, (number, digit)));
    Ok(StoredSwitchingKey {
        purpose,
        secret: SecretKind::DenseTernary,
        level,
        key_id: KEY_ID,
        b: b.collect::<Result<_, _>>()?,
        a: UniformParts::Seed([number as u8; 32]),
        expander: KEY_EXPANDER,
    })
}

/// Seconds to read a key of a file, to expand and to prepare it, where memory for it is at hand.
fn prepare_key<B: Backend>(
    params: &Params,
    backend: &B,
    level: usize,
) -> Result<f64, RuntimeError> {
    let set = StoredEvaluationKeys {
        params: params.digest(),
        key_id: KEY_ID,
        program: [0; 32],
        keys: vec![stored_key(params, level, (0, KeyPurpose::Rotation(1)))?],
    };
    let file = evaluation_keys_to_bytes(params, &set)?;
    time(|| {
        let stored = KeyFile::open(Cursor::new(&file), params)?.key(0)?;
        Ok(EvaluationKeys::prepare_one(params, backend, &stored)?)
    })
}

/// A uniform polynomial.
fn random_poly(
    params: &Params,
    basis: Basis,
    (number, digit): (usize, usize),
) -> Result<RnsPoly, RuntimeError> {
    let mut seed = [0x51; 32];
    for (byte, value) in seed.iter_mut().zip((number as u64).to_le_bytes()) {
        *byte = value;
    }
    Ok(expand(
        params,
        EXPANDER,
        &seed,
        Stream::Key { digit },
        basis,
    )?)
}

/// Seconds to write a MiB that the process did not have before: pieces so large that they come from the
/// system.
fn fresh_memory() -> f64 {
    let mut kept = Vec::new();
    let mut times = Vec::new();
    for number in 0..PIECES {
        let started = Instant::now();
        kept.push(black_box(vec![number as u8 | 1; PIECE << 20]));
        times.push(started.elapsed().as_secs_f64() / PIECE as f64);
    }
    median(times)
}

struct Bench<'a, B: Backend> {
    evaluator: Evaluator<'a, B>,
    params: &'a Params,
    backend: &'a B,
    clock: Clock,
}

impl<B: Backend> Bench<'_, B> {
    fn ciphertext(&self, level: usize, number: usize) -> Result<SharedCiphertext<B>, RuntimeError> {
        let part = |digit| random_poly(self.params, self.params.basis_at(level), (number, digit));
        let info = CiphertextInfo {
            level,
            scale: self.params.scale_at(level),
            key_id: KEY_ID,
        };
        let ct = Ciphertext::from_polys(self.params, (part(0)?, part(1)?), info)?;
        Ok(self.evaluator.import(ct)?)
    }

    /// A plaintext without any period.
    fn plain(&self, level: usize, number: usize) -> Result<SharedPlain<B>, RuntimeError> {
        let scale = self.params.scale_at(level);
        Ok(self.evaluator.encode(&self.slots(number), level, scale)?)
    }

    fn slots(&self, number: usize) -> SlotVector {
        let value = |j: usize| Complex::new((((j + number) * 37 % 101) as f64 - 50.0) / 50.0, 0.0);
        SlotVector::Dense((0..self.params.slots()).map(value).collect())
    }

    /// Slots with a period of at most so many.
    fn periodic(&self, number: usize, period: usize) -> SlotVector {
        let slots = self.slots(number);
        let period = period.min(slots.entries().len());
        SlotVector::Periodic(slots.entries()[..period].to_vec())
    }

    /// Seconds to encode one of many plaintexts with a short period, all different and all kept.
    fn encode_short(&self, level: usize) -> Result<f64, RuntimeError> {
        let scale = self.params.scale_at(level);
        let slots: Vec<_> = (0..SHORT_PLAINS)
            .map(|number| self.periodic(number, ENCODED))
            .collect();
        let started = Instant::now();
        let plains = slots
            .iter()
            .map(|slots| self.evaluator.encode(slots, level, scale));
        black_box(plains.collect::<Result<Vec<_>, _>>()?);
        Ok(started.elapsed().as_secs_f64() / SHORT_PLAINS as f64)
    }

    /// Measures the costs of one level; `known` has what other levels took.
    fn level(
        &self,
        level: usize,
        costs: &BTreeSet<Cost>,
        known: &CostTable,
        put: &mut dyn FnMut(Cost, f64),
    ) -> Result<(), RuntimeError> {
        let has = |cost: Cost| costs.contains(&cost);
        let a = self.ciphertext(level, 0)?;
        let b = self.ciphertext(level, 1)?;
        let e = &self.evaluator;
        if has(Cost::RotateStep) {
            let (first, each) = self
                .clock
                .two_points(MANY, |count| self.rotate(&a, count))?;
            put(Cost::Rotate, first);
            put(Cost::RotateStep, each);
        }
        // Of a program that sums rotations and has no transform.
        if has(Cost::TransformBaby) && !has(Cost::Transform) {
            let (_, each) = self.clock.two_points(MANY, |count| {
                let by: Vec<i64> = (1..=count as i64).collect();
                once(|| e.rotate_sum(&a, &by))
            })?;
            put(Cost::TransformBaby, each);
        }
        let others = if has(Cost::MulSum) || has(Cost::Transform) {
            2..INPUTS
        } else {
            0..0
        };
        let others = others.map(|number| self.ciphertext(level, number));
        let others: Vec<_> = others.collect::<Result<_, _>>()?;
        let inputs: Vec<_> = [&a, &b].into_iter().chain(&others).collect();
        if has(Cost::MulSum) {
            let (first, each) = self.clock.two_points(MANY, |count| {
                // Different ones, as in a program: they come from memory.
                let pairs = inputs.as_chunks::<2>().0.iter().map(|[a, b]| (*a, *b));
                let pairs: Vec<_> = pairs.take(count).collect();
                once(|| e.mul_sum(&pairs))
            })?;
            put(Cost::MulSum, first);
            put(Cost::MulSumPair, each);
        }
        if has(Cost::Transform) {
            let bench = TransformBench {
                evaluator: e,
                clock: &self.clock,
                inputs,
            };
            let mut products = [Cost::TransformProduct, Cost::TransformTurnedProduct]
                .map(|cost| known.at(cost, level));
            if has(Cost::TransformProduct) {
                products = self.products(level, &bench, put)?;
            }
            self.transform(level, &bench, products, put)?;
        }
        if has(Cost::Rescale) {
            put(Cost::Rescale, time(|| e.rescale(&a))?);
        }
        if has(Cost::Adjust) && level < self.params.max_level() {
            let above = self.ciphertext(level + 1, 2)?;
            put(Cost::Adjust, time(|| e.adjust(&above, level))?);
        }
        if has(Cost::Drop) && level < self.params.max_level() {
            let above = self.ciphertext(level + 1, 2)?;
            put(Cost::Drop, time(|| e.drop_to(&above, level))?);
        }
        if has(Cost::Add) {
            put(Cost::Add, time(|| e.add(&a, &b))?);
        }
        if has(Cost::AddPlain) || has(Cost::MulPlain) {
            let plain = self.plain(level, 0)?;
            put(Cost::AddPlain, time(|| e.add_plain(&a, &plain))?);
            put(Cost::MulPlain, time(|| e.mul_plain(&a, &plain))?);
        }
        if has(Cost::EncodePlain) {
            let scale = self.params.scale_at(level);
            let long = self.slots(0);
            let plain = self.encode_short(level)?;
            put(Cost::EncodePlain, plain);
            put(
                Cost::Encode,
                time(|| e.encode(&long, level, scale))? - plain,
            );
            if has(Cost::EncodeExtended) {
                let long = time(|| e.encode_extended(&long, level, scale))?;
                put(Cost::EncodeExtended, long - plain);
            }
        }
        if has(Cost::PrepareKey) {
            put(
                Cost::PrepareKey,
                prepare_key(self.params, self.backend, level)?,
            );
        }
        if has(Cost::Memory) {
            put(Cost::Memory, fresh_memory());
        }
        if has(Cost::Import) {
            put(Cost::Import, self.import(&a)?);
        }
        Ok(())
    }

    fn rotate(&self, a: &SharedCiphertext<B>, count: usize) -> Result<f64, OpsError> {
        let by: Vec<i64> = (1..=count as i64).collect();
        once(|| self.evaluator.rotate_many(a, &by))
    }

    /// A stored input with a seed, expanded and imported.
    fn import(&self, a: &SharedCiphertext<B>) -> Result<f64, RuntimeError> {
        let stored = StoredCiphertext {
            body: a.export(self.backend)?.into_parts().0.0,
            uniform: Uniform::Seed([7; 32]),
            info: a.info(),
            expander: EXPANDER,
        };
        time(|| {
            let ct = stored.expand(self.params)?;
            Ok(self.evaluator.import(ct)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use veilformer_ckks::testing::toy_params;

    use super::*;

    #[test]
    fn what_is_not_known_comes_first_then_levels_with_maps() {
        let params = toy_params();
        let maps = [Cost::Transform, Cost::TransformProduct].as_slice();
        let costs = |level: usize| match level {
            3 => &[Cost::Memory],
            _ if level.is_multiple_of(2) => maps,
            _ => &[],
        };
        let by_level = (0..12).map(|level| {
            let costs = costs(level).iter().copied().chain([Cost::Add]);
            (level, costs.collect())
        });
        let order = order(&by_level.collect(), &params);
        let levels: Vec<usize> = order.iter().map(|(level, _)| *level).collect();
        let with = |cost| {
            let with = order.iter().filter(move |(_, costs)| costs.contains(&cost));
            with.map(|(level, _)| *level).collect::<Vec<_>>()
        };
        assert_eq!(params.bands(KeyPurpose::Rotation(1)).len(), 1);
        assert_eq!(levels, [10, 3, 0, 8, 2, 6, 4, 11, 1, 7, 9, 5]);
        assert_eq!(with(Cost::TransformProduct), [10, 0]);
        assert_eq!(with(Cost::Transform), [10, 0, 8, 2, 6, 4]);
    }
}
