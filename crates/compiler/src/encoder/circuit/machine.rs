//! What runs the stages: operations, bootstraps, plaintexts that are encoded once, and a record of
//! what each stage took.
//!
//! Stages come in blocks: one for each layer and one for the answer. Within a block values are
//! numbered as in [`crate::placement`], whose decisions are followed here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use veilformer_circuits::CircuitError;
use veilformer_circuits::encoder::{KeySum, Scores, Spread, Weighted, fold};
use veilformer_circuits::matrix::MatrixProduct;
use veilformer_circuits::polynomial::{EvaluationPlan, evaluate};
use veilformer_ckks::{Ops, SlotVector};

use super::maps::Map;
use super::norm::one;
use crate::placement::{BlockPlacement, Packing, Placement, Read};

const NAME: &str = "a stage of an encoder";

/// Which bootstraps stages use: entries of the table of [`Ops::bootstraps`], and their levels, which
/// are the same for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bootstraps {
    /// The lowest level that an input may have.
    pub input_level: usize,
    /// The level of the results.
    pub output_level: usize,
    /// The entry for complex values and pairs of real ones.
    pub complex: usize,
    /// The entry for one real value.
    pub real: usize,
}

/// A stage's run.
#[derive(Clone, Debug, PartialEq)]
pub struct StageReport {
    /// Layer and stage.
    pub name: String,
    /// The number of its block.
    pub block: usize,
    /// The values of the block that it reads.
    pub reads: Vec<Read>,
    /// Levels that it takes away from those above the input of a bootstrap.
    pub depth: usize,
    /// What its outputs hold.
    pub packing: Packing,
    /// Level at which it starts, after bootstraps.
    pub level_in: usize,
    /// Lowest level of its outputs.
    pub level_out: usize,
    /// Ciphertexts that come and go on.
    pub ciphertexts: (usize, usize),
    /// Bootstraps of one real ciphertext.
    pub real_bootstraps: usize,
    /// Bootstraps of two.
    pub bootstraps: usize,
    /// Time of the bootstraps.
    pub bootstrap_time: Duration,
    /// Time of everything but bootstraps and encoding.
    pub time: Duration,
    /// Time of encoding plaintexts: nothing in a second run.
    pub encode_time: Duration,
}

/// A stage, besides what it computes.
pub(super) struct Stage<'a> {
    /// Its name within the block.
    pub name: &'a str,
    /// The values that it reads.
    pub reads: &'a [Read],
    /// Levels that it takes.
    pub depth: usize,
    /// How many of them may lie below what a bootstrap takes: after it there is none.
    pub spare: usize,
    /// What its outputs hold.
    pub packing: Packing,
    /// A bound of all their slots; only what stays within 1 may be bootstrapped.
    pub bound: f64,
}

impl<'a> Stage<'a> {
    /// A stage with real outputs within 1.
    pub fn new(name: &'a str, reads: &'a [Read], depth: usize) -> Self {
        Self {
            name,
            reads,
            depth,
            spare: 0,
            packing: Packing::Real,
            bound: 1.0,
        }
    }
}

impl Stage<'_> {
    /// What its outputs hold, as far as bootstraps are concerned.
    fn kept(&self) -> Packing {
        if self.bound <= 1.0 {
            self.packing
        } else {
            Packing::Unbounded
        }
    }
}

/// A value of a block.
struct Held<Ct> {
    cts: Vec<Ct>,
    packing: Packing,
    /// How far below the input of a bootstrap it may be.
    spare: usize,
}

/// Layer, name and number of a plaintext.
pub(super) type Site = (usize, &'static str, usize);

/// The plaintexts of a circuit, encoded when they are met first, at the level where they are.
#[derive(Debug)]
pub struct Plains<Pl> {
    products: BTreeMap<(Site, usize), Arc<MatrixProduct<Pl>>>,
    vectors: BTreeMap<(Site, usize), Pl>,
    pub(super) spreads: BTreeMap<usize, Arc<Spread<Pl>>>,
    pub(super) scores: BTreeMap<(usize, usize), Arc<Scores<Pl>>>,
    pub(super) sums: BTreeMap<(usize, usize), Arc<KeySum<Pl>>>,
    pub(super) weighted: BTreeMap<usize, Arc<Weighted<Pl>>>,
    /// Whether weights stay for another run.
    kept: bool,
}

impl<Pl> Default for Plains<Pl> {
    fn default() -> Self {
        Self {
            products: BTreeMap::new(),
            vectors: BTreeMap::new(),
            spreads: BTreeMap::new(),
            scores: BTreeMap::new(),
            sums: BTreeMap::new(),
            weighted: BTreeMap::new(),
            kept: true,
        }
    }
}

impl<Pl> Plains<Pl> {
    /// Plaintexts for one run: the weights of a layer go when the layer ends. They are most of the
    /// memory of a large model, and encoding them again takes a few percent of a run.
    #[must_use]
    pub fn for_one_run() -> Self {
        Self {
            kept: false,
            ..Self::default()
        }
    }
}

/// What [`Watch`] sees of a run.
#[derive(Clone, Copy, Debug)]
pub enum Event<'e, Ct> {
    /// A stage begins: its layer and name.
    Stage(&'e str),
    /// In this stage these values, which go into a polynomial or are what it ends with: all of their
    /// slots, junk and padding included, are promised to keep this bound.
    Bound(&'e str, &'e [Ct], f64),
    /// The stage ends.
    End(&'e str),
}

/// What sees how a run goes on.
pub type Watch<'a, O> = &'a mut dyn FnMut(&mut O, Event<'_, <O as Ops>::Ct>);

/// Runs stages.
pub(super) struct Machine<'a, O: Ops> {
    pub ops: &'a mut O,
    bootstraps: Bootstraps,
    /// Without one, each stage begins at the top: only to see what stages there are.
    placement: Option<Vec<&'a BlockPlacement>>,
    pub plains: &'a mut Plains<O::Plain>,
    pub watch: Watch<'a, O>,
    pub stages: Vec<StageReport>,
    start: Instant,
    /// Name of the block, how many there were before it, and its values so far.
    name: String,
    block: usize,
    values: Vec<Held<O::Ct>>,
}

impl<'a, O: Ops> Machine<'a, O> {
    pub fn new(
        ops: &'a mut O,
        (bootstraps, placement): (&Bootstraps, Option<&'a Placement>),
        plains: &'a mut Plains<O::Plain>,
        watch: Watch<'a, O>,
    ) -> Self {
        let blocks = |placement: &'a Placement| {
            let runs = placement.blocks.iter().flatten();
            let runs = runs.flat_map(|(times, run)| std::iter::repeat_n(run, *times));
            runs.collect()
        };
        Self {
            ops,
            bootstraps: *bootstraps,
            placement: placement.map(blocks),
            plains,
            watch,
            stages: Vec::new(),
            start: Instant::now(),
            name: String::new(),
            block: 0,
            values: Vec::new(),
        }
    }

    /// Begins a block with its only input, value 0.
    pub fn begin(&mut self, name: String, input: Vec<O::Ct>) {
        self.name = name;
        if !self.plains.kept {
            self.plains.products.clear();
        }
        self.block += usize::from(!self.values.is_empty());
        self.values = vec![Held {
            cts: input,
            packing: Packing::Real,
            spare: 0,
        }];
    }

    /// Takes a value away: nothing reads it any more.
    pub fn take(&mut self, value: usize) -> Vec<O::Ct> {
        let held = self.values.get_mut(value);
        held.map_or(Vec::new(), |held| std::mem::take(&mut held.cts))
    }

    /// Runs a stage: bootstraps first, then `body` on what it reads, all at the level of its start (or
    /// as many lower as a [`Read`] says, if it is not lower already). Its value's number.
    pub fn stage(
        &mut self,
        stage: &Stage<'_>,
        body: impl FnOnce(&mut Self, &[Vec<O::Ct>]) -> Result<Vec<O::Ct>, CircuitError>,
    ) -> Result<usize, CircuitError> {
        self.start = Instant::now();
        let reads = stage.reads.iter().filter_map(|r| self.values.get(r.value));
        let before = reads.map(|held| held.spare).max().unwrap_or(0);
        self.stages.push(StageReport {
            name: format!("{}, {}", self.name, stage.name),
            block: self.block,
            reads: stage.reads.to_vec(),
            depth: (stage.depth + before).saturating_sub(stage.spare),
            packing: stage.kept(),
            level_in: 0,
            level_out: 0,
            ciphertexts: (0, 0),
            real_bootstraps: 0,
            bootstraps: 0,
            bootstrap_time: Duration::ZERO,
            time: Duration::ZERO,
            encode_time: Duration::ZERO,
        });
        let name = self.stages.last().map_or("", |report| report.name.as_str());
        (self.watch)(self.ops, Event::Stage(name));
        // The lowest level that will do.
        let needed = (self.bootstraps.input_level + stage.depth).saturating_sub(stage.spare);
        let index = self.values.len() - 1;
        let highest = match &self.placement {
            Some(blocks) => {
                let steps = blocks.get(self.block).map(|block| &block.steps);
                let step = steps.and_then(|steps| steps.get(index));
                let (set, level) = step.cloned().ok_or_else(|| {
                    CircuitError::shape(NAME, format!("no placement of {}", stage.name))
                })?;
                self.bootstrap(&set)?;
                level + self.bootstraps.input_level
            }
            None => {
                for read in stage.reads {
                    self.lift(read.value)?;
                }
                self.bootstraps.output_level
            }
        };
        let starts = stage.reads.iter().map(|r| self.start_of(r));
        let level = starts.fold(highest.max(needed), usize::min);
        let level = level.min(self.bootstraps.output_level);
        if level < needed {
            let circuit = NAME;
            return Err(CircuitError::Levels {
                circuit,
                level,
                needed,
            });
        }
        let mut inputs = Vec::with_capacity(stage.reads.len());
        for read in stage.reads {
            let held = self.values.get(read.value);
            let cts = held.map_or(Vec::new(), |held| held.cts.clone());
            let highest = level.saturating_sub(read.late);
            let lower = cts.iter().map(|ct| match self.ops.level(ct) {
                at if at > highest => self.ops.adjust(ct, highest),
                _ => Ok(ct.clone()),
            });
            inputs.push(lower.collect::<Result<Vec<_>, _>>()?);
        }
        let count = inputs.iter().map(Vec::len).sum();
        let cts = body(self, &inputs)?;
        drop(inputs);
        let (low, all) = (self.lowest(&cts), self.start.elapsed());
        self.report(|report| {
            report.level_in = level;
            report.level_out = low.unwrap_or(0);
            report.ciphertexts = (count, cts.len());
            report.time = all.saturating_sub(report.bootstrap_time + report.encode_time);
        });
        let name = self.stages.last().map_or("", |report| report.name.as_str());
        (self.watch)(self.ops, Event::Bound(name, &cts, stage.bound));
        (self.watch)(self.ops, Event::End(name));
        self.values.push(Held {
            cts,
            packing: stage.kept(),
            spare: stage.spare,
        });
        Ok(self.values.len() - 1)
    }

    fn lowest(&self, cts: &[O::Ct]) -> Option<usize> {
        cts.iter().map(|ct| self.ops.level(ct)).min()
    }

    /// Says that no slot of `x` exceeds `bound`.
    pub fn promise(&mut self, x: &O::Ct, bound: f64) {
        let name = self.stages.last().map_or("", |stage| stage.name.as_str());
        (self.watch)(self.ops, Event::Bound(name, std::slice::from_ref(x), bound));
    }

    /// The value of a polynomial, whose input comes mapped to [-1, 1].
    pub fn evaluate(&mut self, x: &O::Ct, plan: &EvaluationPlan) -> Result<O::Ct, CircuitError> {
        self.promise(x, 1.0);
        one(evaluate(self.ops, x, plan)?)
    }

    /// The highest level that a stage may start from, as far as this value goes.
    fn start_of(&self, read: &Read) -> usize {
        let held = self.values.get(read.value);
        let level = held.and_then(|held| self.lowest(&held.cts));
        level.unwrap_or(0) + read.late
    }

    /// Bootstraps a value, whatever it holds.
    fn lift(&mut self, value: usize) -> Result<(), CircuitError> {
        let cts = self.values.get_mut(value).map(|held| &mut held.cts);
        for ct in cts.into_iter().flatten() {
            *ct = self.ops.bootstrap(ct, self.bootstraps.complex)?;
        }
        Ok(())
    }

    /// Bootstraps these values, real ciphertexts two at a time.
    fn bootstrap(&mut self, set: &[usize]) -> Result<(), CircuitError> {
        let start = Instant::now();
        let mut real = Vec::new();
        for &value in set {
            let Some(held) = self.values.get_mut(value) else {
                continue;
            };
            match held.packing {
                Packing::Complex => {
                    for ct in &mut held.cts {
                        *ct = self.ops.bootstrap(ct, self.bootstraps.complex)?;
                    }
                    let count = held.cts.len();
                    self.report(|report| report.bootstraps += count);
                }
                Packing::Unbounded => {
                    let what = format!("value {value} has no bound for a bootstrap");
                    return Err(CircuitError::shape(NAME, what));
                }
                Packing::Real | Packing::Sparse => {
                    real.extend((0..held.cts.len()).map(|at| (value, at)));
                }
            }
        }
        for two in real.chunks(2) {
            let find = |(value, at): &(usize, usize)| self.values.get(*value)?.cts.get(*at);
            let cts: Vec<&O::Ct> = two.iter().filter_map(find).collect();
            let both = match cts.as_slice() {
                [one] => vec![self.ops.bootstrap(one, self.bootstraps.real)?],
                both => self.ops.bootstraps(both, self.bootstraps.complex)?,
            };
            for ((value, at), ct) in two.iter().zip(both) {
                let held = self.values.get_mut(*value);
                if let Some(place) = held.and_then(|held| held.cts.get_mut(*at)) {
                    *place = ct;
                }
            }
            let pair = two.len() == 2;
            self.report(|report| match pair {
                true => report.bootstraps += 1,
                false => report.real_bootstraps += 1,
            });
        }
        let took = start.elapsed();
        self.report(|report| report.bootstrap_time += took);
        Ok(())
    }

    fn report(&mut self, change: impl FnOnce(&mut StageReport)) {
        if let Some(report) = self.stages.last_mut() {
            change(report);
        }
    }

    fn encoded<T>(
        &mut self,
        make: impl FnOnce(&mut O) -> Result<T, CircuitError>,
    ) -> Result<T, CircuitError> {
        let start = Instant::now();
        let made = make(self.ops);
        let took = start.elapsed();
        self.report(|report| report.encode_time += took);
        made
    }

    /// A prepared part from where `cache` keeps them, made if it is not there.
    pub fn cached<K: Ord, T>(
        &mut self,
        cache: impl Fn(&mut Plains<O::Plain>) -> &mut BTreeMap<K, Arc<T>>,
        key: K,
        make: impl FnOnce(&mut O) -> Result<T, CircuitError>,
    ) -> Result<Arc<T>, CircuitError> {
        if let Some(found) = cache(self.plains).get(&key) {
            return Ok(found.clone());
        }
        let made = Arc::new(self.encoded(make)?);
        cache(self.plains).insert(key, made.clone());
        Ok(made)
    }

    /// The value of a map of inputs that are brought to one level first.
    pub fn product(
        &mut self,
        site: Site,
        map: &Map,
        inputs: &[O::Ct],
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let mut inputs = self.level_out(inputs)?;
        for (input, steps) in inputs.iter_mut().zip(&map.copies) {
            *input = fold(self.ops, input, steps)?;
        }
        let level = inputs.first().map_or(0, |ct| self.ops.level(ct));
        let (product, bias) = (&map.product, &map.bias);
        let key = (site, level);
        let encoded = self.cached(|p| &mut p.products, key, |ops| product.encode(ops, level))?;
        let inputs: Vec<&O::Ct> = inputs.iter().collect();
        let mut outputs = encoded.apply(self.ops, &inputs)?;
        for (block, (out, bias)) in outputs.iter_mut().zip(bias).enumerate() {
            *out = self.plus((site.0, site.1, block), out, bias)?;
        }
        Ok(outputs)
    }

    /// All at the lowest one's level.
    pub fn level_out(&mut self, cts: &[O::Ct]) -> Result<Vec<O::Ct>, CircuitError> {
        let level = cts.iter().map(|ct| self.ops.level(ct)).min().unwrap_or(0);
        let down = cts.iter().map(|ct| self.ops.adjust(ct, level));
        Ok(down.collect::<Result<_, _>>()?)
    }

    /// `ct` plus these slots.
    pub fn plus(
        &mut self,
        site: Site,
        ct: &O::Ct,
        slots: &SlotVector,
    ) -> Result<O::Ct, CircuitError> {
        if slots.is_zero() {
            return Ok(ct.clone());
        }
        let (level, scale) = (self.ops.level(ct), self.ops.scale(ct));
        let plain = self.vector(site, level, |ops| Ok(ops.plain(slots, level, scale)?))?;
        Ok(self.ops.add_plain(ct, &plain)?)
    }

    /// `ct` times these slots, one level down.
    pub fn times(
        &mut self,
        site: Site,
        ct: &O::Ct,
        slots: &SlotVector,
    ) -> Result<O::Ct, CircuitError> {
        let level = self.ops.level(ct);
        let scale = self.ops.params().scale_at(level);
        let plain = self.vector(site, level, |ops| Ok(ops.plain(slots, level, scale)?))?;
        let product = self.ops.mul_plain(ct, &plain)?;
        Ok(self.ops.rescale(&product)?)
    }

    fn vector(
        &mut self,
        site: Site,
        level: usize,
        make: impl FnOnce(&mut O) -> Result<O::Plain, CircuitError>,
    ) -> Result<O::Plain, CircuitError> {
        if let Some(found) = self.plains.vectors.get(&(site, level)) {
            return Ok(found.clone());
        }
        let made = self.encoded(make)?;
        self.plains.vectors.insert((site, level), made.clone());
        Ok(made)
    }

    /// The product of two ciphertexts, at the lower one's level first.
    pub fn mul(&mut self, a: &O::Ct, b: &O::Ct) -> Result<O::Ct, CircuitError> {
        let level = self.ops.level(a).min(self.ops.level(b));
        let (a, b) = (self.ops.adjust(a, level)?, self.ops.adjust(b, level)?);
        Ok(self.ops.mul(&a, &b)?)
    }
}
