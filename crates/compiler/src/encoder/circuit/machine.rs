//! What runs the stages: operations, bootstraps, plaintexts that are encoded once, and a record of
//! what each stage took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use veilformer_circuits::CircuitError;
use veilformer_circuits::encoder::{KeySum, Scores, Spread, Weighted};
use veilformer_circuits::matrix::{Diagonal, MatrixProduct};
use veilformer_circuits::polynomial::{EvaluationPlan, evaluate};
use veilformer_ckks::{Ops, SlotVector};

use super::norm::one;

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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageReport {
    /// Layer and stage.
    pub name: String,
    /// Lowest level of its inputs, after their bootstraps.
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
}

/// What sees how a run goes on.
pub type Watch<'a, O> = &'a mut dyn FnMut(&mut O, Event<'_, <O as Ops>::Ct>);

/// Runs stages.
pub(super) struct Machine<'a, O: Ops> {
    pub ops: &'a mut O,
    bootstraps: Bootstraps,
    pub plains: &'a mut Plains<O::Plain>,
    pub watch: Watch<'a, O>,
    pub stages: Vec<StageReport>,
    start: Instant,
    /// Levels below this one are not for stages, but for the next bootstrap.
    pub floor: usize,
}

impl<'a, O: Ops> Machine<'a, O> {
    pub fn new(
        ops: &'a mut O,
        bootstraps: &Bootstraps,
        plains: &'a mut Plains<O::Plain>,
        watch: Watch<'a, O>,
    ) -> Self {
        Self {
            ops,
            bootstraps: *bootstraps,
            plains,
            watch,
            stages: Vec::new(),
            start: Instant::now(),
            floor: bootstraps.input_level,
        }
    }

    /// Begins a stage.
    pub fn begin(&mut self, name: String) {
        self.start = Instant::now();
        (self.watch)(self.ops, Event::Stage(&name));
        self.stages.push(StageReport {
            name,
            ..StageReport::default()
        });
    }

    fn stage(&mut self, change: impl FnOnce(&mut StageReport)) {
        if let Some(stage) = self.stages.last_mut() {
            change(stage);
        }
    }

    /// Notes the inputs of a stage.
    pub fn enter(&mut self, inputs: &[O::Ct]) {
        let level = inputs.iter().map(|ct| self.ops.level(ct)).min();
        self.stage(|stage| {
            stage.level_in = level.unwrap_or(0);
            stage.ciphertexts.0 = inputs.len();
        });
    }

    /// Ends a stage with these outputs, within this bound.
    pub fn end(&mut self, outputs: &[O::Ct], bound: f64) {
        let level = outputs.iter().map(|ct| self.ops.level(ct)).min();
        let all = self.start.elapsed();
        self.stage(|stage| {
            stage.level_out = level.unwrap_or(0);
            stage.ciphertexts.1 = outputs.len();
            stage.time = all.saturating_sub(stage.bootstrap_time + stage.encode_time);
        });
        let name = self.stages.last().map_or("", |stage| stage.name.as_str());
        (self.watch)(self.ops, Event::Bound(name, outputs, bound));
    }

    /// The value of a polynomial, whose input comes mapped to [-1, 1].
    pub fn evaluate(&mut self, x: &O::Ct, plan: &EvaluationPlan) -> Result<O::Ct, CircuitError> {
        let name = self.stages.last().map_or("", |stage| stage.name.as_str());
        (self.watch)(self.ops, Event::Bound(name, std::slice::from_ref(x), 1.0));
        one(evaluate(self.ops, x, plan)?)
    }

    fn encoded<T>(
        &mut self,
        make: impl FnOnce(&mut O) -> Result<T, CircuitError>,
    ) -> Result<T, CircuitError> {
        let start = Instant::now();
        let made = make(self.ops);
        let took = start.elapsed();
        self.stage(|stage| stage.encode_time += took);
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

    /// The product with a matrix, of inputs that are brought to one level first, and a bias.
    pub fn product(
        &mut self,
        site: Site,
        (product, bias): (&MatrixProduct<Diagonal>, &[SlotVector]),
        inputs: &[O::Ct],
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let inputs = self.level_out(inputs)?;
        let level = inputs.first().map_or(0, |ct| self.ops.level(ct));
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

    /// `ct`, and what each rotation of the sum so far adds.
    pub fn fold(&mut self, ct: &O::Ct, steps: &[i64]) -> Result<O::Ct, CircuitError> {
        let mut sum = ct.clone();
        for step in steps {
            let turned = self.ops.rotate(&sum, *step)?;
            sum = self.ops.add(&sum, &turned)?;
        }
        Ok(sum)
    }

    /// The product of two ciphertexts, at the lower one's level first.
    pub fn mul(&mut self, a: &O::Ct, b: &O::Ct) -> Result<O::Ct, CircuitError> {
        let level = self.ops.level(a).min(self.ops.level(b));
        let (a, b) = (self.ops.adjust(a, level)?, self.ops.adjust(b, level)?);
        Ok(self.ops.mul(&a, &b)?)
    }

    /// Bootstraps of these real ciphertexts those that have fewer than `levels` levels left, two at
    /// a time.
    pub fn refreshed(&mut self, cts: &mut [&mut O::Ct], levels: usize) -> Result<(), CircuitError> {
        let needed = self.floor + levels;
        let low: Vec<usize> = (0..cts.len())
            .filter(|at| cts.get(*at).is_some_and(|ct| self.ops.level(ct) < needed))
            .collect();
        self.check(levels)?;
        for two in low.chunks(2) {
            let start = Instant::now();
            match *two {
                [a, b] => {
                    let pair = [&*cts[a], &*cts[b]];
                    let both = self.ops.bootstraps(&pair, self.bootstraps.complex)?;
                    for (at, ct) in [a, b].into_iter().zip(both) {
                        *cts[at] = ct;
                    }
                    self.stage(|stage| stage.bootstraps += 1);
                }
                [a] => {
                    *cts[a] = self.ops.bootstrap(cts[a], self.bootstraps.real)?;
                    self.stage(|stage| stage.real_bootstraps += 1);
                }
                _ => {}
            }
            let took = start.elapsed();
            self.stage(|stage| stage.bootstrap_time += took);
        }
        Ok(())
    }

    /// The same for complex ciphertexts.
    pub fn refreshed_complex(
        &mut self,
        cts: &mut [O::Ct],
        levels: usize,
    ) -> Result<(), CircuitError> {
        self.check(levels)?;
        for ct in cts {
            if self.ops.level(ct) < self.floor + levels {
                let start = Instant::now();
                *ct = self.ops.bootstrap(ct, self.bootstraps.complex)?;
                let took = start.elapsed();
                self.stage(|stage| {
                    stage.bootstraps += 1;
                    stage.bootstrap_time += took;
                });
            }
        }
        Ok(())
    }

    fn check(&self, levels: usize) -> Result<(), CircuitError> {
        let top = self.bootstraps.output_level;
        if self.floor + levels <= top {
            return Ok(());
        }
        Err(CircuitError::Levels {
            circuit: "a stage of an encoder",
            level: top,
            needed: self.floor + levels,
        })
    }
}
