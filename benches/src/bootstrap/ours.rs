//! Our bootstrap, measured in the process that this code runs in.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use veilformer_circuits::bootstrap::{
    Bootstrap, BootstrapPlan, Content, Preset, Stage, multiples_of_q0,
};
use veilformer_ckks::security::{SecretKind, SecurityReport};
use veilformer_ckks::{
    Complex, EvaluationKeys, Evaluator, Ops, Params, Scale, SharedCiphertext, SlotVector,
};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator, SecretKey, SecureRng};

use super::inputs::Kind;
use super::row::{Bits, KeyBits, Parameters, Report, Time};
use crate::error::{BenchError, Result};
use crate::machine::{most_resident_bytes, processor_seconds};
use crate::stats::Summary;
use crate::threads::pool;

/// Bootstraps of a batch, and those by themselves that are measured beside it.
const BATCH: usize = 8;
/// Batches.
const BATCHES: usize = 3;
/// Ciphertexts that are raised to see their multiples of q0.
const RAISES: usize = 20;

/// Which of our bootstraps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// The preset's name.
    pub(super) preset: &'static str,
    /// What the slots hold.
    pub(super) content: Content,
    /// Keys stay as they were sent, and are prepared when they are used; so many of them at most are
    /// kept afterwards.
    pub(super) seeded: Option<usize>,
}

/// How it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Bootstraps of every kind of input.
    pub rounds: usize,
    /// Threads.
    pub threads: usize,
    /// The instruction set.
    pub isa: Isa,
    /// Whether a batch is measured too.
    pub batch: bool,
}

/// What is measured of our bootstraps alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// Median time of each step in milliseconds: of the processor on one thread, on the wall clock on
    /// more.
    pub steps: BTreeMap<String, f64>,
    /// Likewise of one bootstrap of a batch of eight, each thread with one at a time.
    pub batch_ms: Option<f64>,
    /// What one of a batch takes of one by itself: the median over batches, each compared with the
    /// mean of eight bootstraps by themselves, half of them before it and half after it.
    pub batch_ratio: Option<f64>,
    /// Median time on the wall clock on one thread, if `threads` are more.
    pub one_thread_ms: Option<f64>,
    /// Coefficients of raised ciphertexts by the absolute value of their multiple of q0, from 0 up.
    pub multiples: Vec<u64>,
}

type Run<'a> = Evaluator<'a, Cpu>;
type Ct = SharedCiphertext<Cpu>;
type Boot<'a> = Bootstrap<<Run<'a> as Ops>::Plain>;

/// The clocks.
#[derive(Clone, Copy)]
struct Moment {
    wall: Instant,
    cpu: Option<f64>,
}

impl Moment {
    fn now() -> Self {
        Self {
            wall: Instant::now(),
            cpu: processor_seconds(),
        }
    }

    /// From here to `end`; where nobody tells the processor's time, the clock's stands for it.
    fn to(self, end: Self) -> Time {
        let wall = end.wall.saturating_duration_since(self.wall).as_secs_f64();
        let cpu = self.cpu.zip(end.cpu).map_or(wall, |(a, b)| b - a);
        Time {
            wall_ms: 1e3 * wall,
            cpu_ms: 1e3 * cpu,
        }
    }
}

/// The time that counts: see [`Details::steps`].
fn counted(time: Time, threads: usize) -> f64 {
    if threads == 1 {
        time.cpu_ms
    } else {
        time.wall_ms
    }
}

/// Measures one of our bootstraps.
///
/// # Errors
/// What the libraries say.
pub fn run(setting: &Setting, effort: &Effort) -> Result<Report> {
    pool(effort.threads)?.install(|| measure(setting, effort))
}

fn measure(setting: &Setting, effort: &Effort) -> Result<Report> {
    let begin = Moment::now();
    let preset = Preset::named(setting.preset)?;
    let params = preset.validate()?;
    let plan = preset.plan(&params, setting.content)?;
    let list = plan.keys()?;
    let security = list.security(&params)?;
    let backend = Cpu::new(params.chain().clone(), CpuConfig { isa: effort.isa })?;
    eprintln!("{}: making {} keys ..", preset.name, list.len());
    let mut generator = KeyGenerator::new(&params, SecureRng::from_os()?);
    let secret = generator.secret_key()?;
    let mut keys = EvaluationKeys::empty(&params, secret.id());
    keys.keep_resident(setting.seeded.unwrap_or(0));
    let (start, mut inserting, mut words) = (Moment::now(), 0.0, 0);
    let go = &mut |_: usize, _: usize| ControlFlow::Continue(());
    generator.each_evaluation_key(&secret, &list, go, &mut |key| {
        let start = Moment::now();
        let shape = key.purpose.shape(&params, key.level)?;
        // Of a seeded key one half is kept.
        let halves = if setting.seeded.is_some() { 1 } else { 2 };
        words += halves * params.n() * shape.basis.len() * shape.digits.len();
        match setting.seeded {
            Some(_) => keys.insert_seeded(&params, key)?,
            None => keys.insert(&params, &backend, &key)?,
        }
        inserting += start.to(Moment::now()).cpu_ms / 1e3;
        Ok(())
    })?;
    let keygen_s = start.to(Moment::now()).cpu_ms / 1e3 - inserting;
    eprintln!("{}: encoding matrices ..", preset.name);
    let mut ops = Evaluator::new(&params, &backend, &keys)?;
    let boot = plan.encode(&mut ops)?;
    let setup_s = begin.to(Moment::now()).cpu_ms / 1e3 - keygen_s;
    let mut bench = Bench {
        setting,
        effort,
        secret: &secret,
        boot: &boot,
        ops,
    };
    let measured = bench.times()?;
    let resident_bytes = most_resident_bytes();
    let full = setting.content == Content::Complex && setting.seeded.is_none();
    let batch = match effort.batch && full {
        true => bench.batches()?,
        false => None,
    };
    let multiples = if full {
        bench.multiples(preset.bootstrap.message_ratio_bits)?
    } else {
        Vec::new()
    };
    let mut parameters = Parameters {
        preset: preset.name.clone(),
        log_n: params.log_n(),
        slots: slots(setting.content, &params),
        complex: setting.content.is_complex(),
        levels: plan.useful_levels(),
        scale_bits: params.spec().scale_bits,
        bits: 0.0,
        keys: widest(&security),
        key_bytes: Some(8.0 * words as f64),
        resident_bytes,
        keygen_s,
        setup_s,
        precision: measured.precision,
        note: note(setting),
        details: Some(Details {
            steps: measured.steps,
            batch_ms: batch.map(|b| b.0),
            batch_ratio: batch.map(|b| b.1),
            one_thread_ms: measured.one_thread_ms,
            multiples,
        }),
    };
    parameters.bits = parameters.worst_bits();
    Ok(Report {
        times: measured.times,
        parameters,
    })
}

fn slots(content: Content, params: &Params) -> usize {
    content.period().unwrap_or(params.slots())
}

fn note(setting: &Setting) -> String {
    match setting.seeded {
        None => String::new(),
        Some(kept) => {
            format!("keys are regenerated from their seeds when they are used, {kept} of them kept")
        }
    }
}

/// The widest key under each secret.
fn widest(security: &SecurityReport) -> Vec<KeyBits> {
    let mut widest: Vec<KeyBits> = Vec::new();
    for row in &security.rows {
        let secret_weight = match row.secret {
            SecretKind::SparseTernary { hamming_weight } => Some(hamming_weight),
            _ => None,
        };
        match widest.iter_mut().find(|k| k.secret_weight == secret_weight) {
            Some(key) => key.log_qp = key.log_qp.max(row.log_qp),
            None => widest.push(KeyBits {
                secret_weight,
                log_qp: row.log_qp,
            }),
        }
    }
    widest
}

/// Everything that bootstraps need.
struct Bench<'a> {
    setting: &'a Setting,
    effort: &'a Effort,
    secret: &'a SecretKey,
    boot: &'a Boot<'a>,
    ops: Run<'a>,
}

struct Measured {
    times: Vec<Time>,
    steps: BTreeMap<String, f64>,
    one_thread_ms: Option<f64>,
    precision: BTreeMap<String, Bits>,
}

impl Bench<'_> {
    fn plan(&self) -> &BootstrapPlan {
        self.boot.plan()
    }

    fn encrypt(&self, slots: Vec<Complex>, level: usize, scale: Scale) -> Result<Ct> {
        let slots = SlotVector::Dense(slots);
        let x =
            Encryptor::new(self.secret, SecureRng::from_os()?)?.encrypt_at(&slots, level, scale)?;
        Ok(self.ops.import(x.expand(self.plan().params())?)?)
    }

    fn decrypt(&self, ct: &Ct) -> Result<Vec<Complex>> {
        let ct = ct.export(self.ops.backend())?;
        Ok(Decryptor::new(self.secret)?
            .decrypt(&ct)?
            .reveal_to_owner()?)
    }

    /// Numbers and a ciphertext of them at the lowest level of an input.
    fn input(&self, kind: Kind, seed: u64) -> Result<(Vec<Complex>, Ct)> {
        let params = self.plan().params();
        let slots = kind.slots(self.setting.content, params.slots(), seed);
        let level = self.plan().input_level();
        let ct = self.encrypt(slots.clone(), level, params.scale_at(level))?;
        Ok((slots, ct))
    }

    fn times(&mut self) -> Result<Measured> {
        let one = match self.effort.threads {
            1 => None,
            _ => Some(pool(1)?),
        };
        let (mut times, mut ones) = (Vec::new(), Vec::new());
        let mut steps: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let mut precision = BTreeMap::new();
        for round in 0..self.effort.rounds {
            for kind in Kind::ALL {
                let (slots, x) = self.input(kind, 1 + round as u64)?;
                if let Some(one) = &one {
                    let start = Moment::now();
                    one.install(|| self.boot.run(&mut self.ops.clone(), &x))?;
                    ones.push(start.to(Moment::now()).wall_ms);
                }
                let mut begins = Vec::new();
                let y = self.boot.run_observed(&mut self.ops, &x, &mut |stage| {
                    begins.push((stage, Moment::now()));
                    ControlFlow::Continue(())
                })?;
                let end = Moment::now();
                let Some(start) = begins.first().map(|b| b.1) else {
                    continue;
                };
                times.push(start.to(end));
                for (stage, ms) in self.by_step(&begins, end) {
                    steps.entry(stage).or_default().push(ms);
                }
                if round == 0 {
                    precision.insert(kind.name().to_owned(), self.bits(&slots, &y)?);
                }
            }
        }
        let median = |of: &[f64]| Summary::of(of).map(|s| s.median);
        Ok(Measured {
            times,
            steps: steps
                .into_iter()
                .filter_map(|(stage, ms)| Some((stage, median(&ms)?)))
                .collect(),
            one_thread_ms: median(&ones),
            precision,
        })
    }

    /// Milliseconds by step; what runs twice counts together.
    fn by_step(&self, begins: &[(Stage, Moment)], end: Moment) -> BTreeMap<String, f64> {
        let ends = begins.iter().skip(1).map(|b| b.1).chain([end]);
        let mut sums = BTreeMap::new();
        for ((stage, start), end) in begins.iter().zip(ends) {
            let ms = counted(start.to(end), self.effort.threads);
            *sums.entry(format!("{stage:?}")).or_insert(0.0) += ms;
        }
        sums
    }

    /// Bits of all real numbers that went in and came out.
    fn bits(&self, slots: &[Complex], y: &Ct) -> Result<Bits> {
        let got = self.decrypt(y)?;
        let complex = self.setting.content.is_complex();
        let errors = got.iter().zip(slots).flat_map(|(a, b)| {
            let error = a - b;
            let im = complex.then_some(error.im.abs());
            std::iter::once(error.re.abs()).chain(im)
        });
        let (mut sum, mut worst, mut count) = (0.0, 0f64, 0usize);
        for error in errors {
            (sum, worst, count) = (sum + error, worst.max(error), count + 1);
        }
        Ok(Bits {
            worst: -worst.log2(),
            mean: -(sum / count as f64).log2(),
        })
    }

    /// Milliseconds of one bootstrap of a batch, and what that is of one by itself.
    ///
    /// The clock of a processor and its neighbours' work drift by more in a minute than what is to
    /// be seen, and a mean over a batch is above a median; so both are means, of as many bootstraps,
    /// in turns.
    fn batches(&self) -> Result<Option<(f64, f64)>> {
        let (mut times, mut ratios) = (Vec::new(), Vec::new());
        for batch in 0..BATCHES as u64 {
            let inputs = (0..2 * BATCH as u64)
                .map(|i| Ok(self.input(Kind::Random, 100 * (1 + batch) + i)?.1))
                .collect::<Result<Vec<_>>>()?;
            let (alone, together) = inputs.split_at(BATCH);
            let (before, after) = alone.split_at(BATCH / 2);
            let mut one = self.by_themselves(before)?;
            let start = Moment::now();
            together.par_iter().try_for_each(|x| {
                self.boot.run(&mut self.ops.clone(), x)?;
                Ok::<_, BenchError>(())
            })?;
            let all = counted(start.to(Moment::now()), self.effort.threads);
            one += self.by_themselves(after)?;
            times.push(all / BATCH as f64);
            ratios.push(all / one);
        }
        let median = |of: &[f64]| Summary::of(of).map(|s| s.median);
        Ok(median(&times).zip(median(&ratios)))
    }

    /// Milliseconds of some bootstraps, one after another on all threads.
    fn by_themselves(&self, inputs: &[Ct]) -> Result<f64> {
        let mut sum = 0.0;
        for x in inputs {
            let start = Moment::now();
            self.boot.run(&mut self.ops.clone(), x)?;
            sum += counted(start.to(Moment::now()), self.effort.threads);
        }
        Ok(sum)
    }

    /// See [`Details::multiples`].
    fn multiples(&self, message_ratio_bits: u32) -> Result<Vec<u64>> {
        let params = self.plan().params();
        let q0 = params.product(params.basis_at(0));
        let scale = Scale::new(q0 / f64::from(message_ratio_bits).exp2())?;
        let mut counts = Vec::new();
        for seed in 0..RAISES {
            let slots = Kind::Random.slots(self.setting.content, params.slots(), seed as u64);
            let x = self.encrypt(slots, 0, scale)?;
            let raised = self.decrypt(&self.ops.mod_raise(&x)?)?;
            for multiple in multiples_of_q0(&raised, message_ratio_bits) {
                let at = multiple.unsigned_abs() as usize;
                // None is so large that counting would fill the memory, unless decryption failed.
                if at >= 1 << 16 {
                    let what = format!("a raised coefficient has {at} times q0");
                    return Err(BenchError::Usage(what));
                }
                if counts.len() <= at {
                    counts.resize(at + 1, 0);
                }
                counts[at] += 1;
            }
        }
        Ok(counts)
    }
}
