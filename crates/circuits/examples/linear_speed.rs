//! Matrix products at N = 2^16, 24 + 8 limbs, dnum 3, scale 2^45, one thread: what is counted, what
//! that costs by the operations' measured times, and what is measured.
//!
//! `cargo run --release -p veilformer-circuits --example linear_speed -- WHAT [LIMBS]` with WHAT one
//! of `units`, `periodic` and `full` (768 x 768 at 128 tokens, by either encoding), `rows` (packed rows
//! against diagonals, 768 to 3072 features), `sparsity`; inputs have LIMBS limbs, 24 if not said. Encoding is never part of a
//! time.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Instant;

use veilformer_circuits::matrix::{
    Counts, Diagonal, Hoisting, MatrixProduct, Method, Packing, ProductCosts, PruneUnit, Role,
    UnitCosts, Weights, Wrap,
};
use veilformer_ckks::{
    Complex, EvaluationKeys, Evaluator, Giant, KeyList, KeyPurpose, Ops, OpsError, Params,
    ParamsSpec, Scale, SecurityLevel, SharedCiphertext, SharedPlain, SlotVector, Term, Transform,
};
use veilformer_ring::{Cpu, CpuConfig, Isa, set_pool_limit};
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator, SecretKey, SecureRng};

type Plain = SharedPlain<Cpu>;
type Ct = SharedCiphertext<Cpu>;

const TOKENS: usize = 128;
const WIDTH: usize = 256;

fn params() -> Params {
    let spec = ParamsSpec {
        log_n: 16,
        first_bits: 50,
        scale_bits: 45,
        levels: 23,
        special_bits: 48,
        special_count: 8,
        digit_limbs: 8,
        security: SecurityLevel::Bits128,
    };
    spec.validate().unwrap()
}

/// Milliseconds: the median of `runs` calls, of two the faster.
fn time<T>(runs: usize, mut run: impl FnMut() -> T) -> f64 {
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            black_box(run());
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[(runs - 1) / 2]
}

struct Keys {
    params: Params,
    secret: SecretKey,
    backend: Cpu,
    keys: EvaluationKeys<Cpu>,
}

impl Keys {
    /// Keys for these rotations at `level`, with the conjugation.
    fn new(rotations: &BTreeSet<i64>, level: usize) -> Self {
        let params = params();
        let mut list = KeyList::default();
        let slots = params.slots();
        for by in rotations {
            list.need(KeyPurpose::Rotation(*by), level, slots);
        }
        list.need(KeyPurpose::Conjugation, level, slots);
        let mut generator = KeyGenerator::new(&params, SecureRng::from_os().unwrap());
        let secret = generator.secret_key().unwrap();
        let go = &mut |_: usize, _: usize| ControlFlow::Continue(());
        let stored = generator
            .evaluation_keys(&secret, &list, [0; 32], go)
            .unwrap();
        let isa = Isa::detect();
        let backend = Cpu::new(params.chain().clone(), CpuConfig { isa }).unwrap();
        let keys = EvaluationKeys::prepare(&params, &backend, &stored).unwrap();
        println!(
            "N = 2^16, log2(QP) = {:.0}, {} limbs of {}, {} keys, {isa:?}",
            params.log_qp(),
            level + 1,
            params.max_level() + 1,
            list.len()
        );
        Self {
            params,
            secret,
            backend,
            keys,
        }
    }

    fn ops(&self) -> Evaluator<'_, Cpu> {
        Evaluator::new(&self.params, &self.backend, &self.keys).unwrap()
    }

    fn encrypt(&self, slots: &[SlotVector], level: usize) -> Vec<Ct> {
        let mut encryptor = Encryptor::new(&self.secret, SecureRng::from_os().unwrap()).unwrap();
        let ops = self.ops();
        let one = |slots: &SlotVector| {
            let ct = encryptor.encrypt(slots, level).unwrap();
            ops.import(ct.expand(&self.params).unwrap()).unwrap()
        };
        slots.iter().map(one).collect()
    }

    /// The largest error of a product's outputs.
    fn error(&self, packing: Packing, outputs: &[Ct], expected: &[Vec<f64>]) -> f64 {
        let decryptor = Decryptor::new(&self.secret).unwrap();
        let slots: Vec<Vec<Complex>> = outputs
            .iter()
            .map(|ct| {
                let host = ct.export(&self.backend).unwrap();
                decryptor
                    .decrypt(&host)
                    .unwrap()
                    .reveal_to_owner()
                    .unwrap()
                    .to_vec()
            })
            .collect();
        let got = packing.unpack(&slots, expected.len(), TOKENS);
        let pairs = got.iter().flatten().zip(expected.iter().flatten());
        pairs.map(|(g, e)| (g - e).abs()).fold(0.0, f64::max)
    }
}

fn value(a: usize, b: usize, seed: u64) -> f64 {
    let mut x = (a as u64 * 0x9E37 + b as u64 * 0x85EB + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^= x >> 29;
    (x.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f64 / (1u64 << 23) as f64 - 1.0
}

fn weights(rows: usize, cols: usize) -> Weights {
    Weights::from_fn(rows, cols, |r, c| value(r, c, 1) / 16.0).unwrap()
}

fn table(features: usize) -> Vec<Vec<f64>> {
    let feature = |f| (0..TOKENS).map(|t| value(f, t, 2)).collect();
    (0..features).map(feature).collect()
}

/// Times of single operations, by differences of small transforms.
fn units(keys: &Keys, inputs: &[Ct], level: usize) -> UnitCosts {
    let ops = keys.ops();
    let scale = keys.params.scale_at(level);
    let slots = keys.params.slots();
    let plains = |count: usize, period: usize| -> Vec<Plain> {
        let plain = |k: usize| {
            let values = (0..period)
                .map(|j| Complex::new(value(j, k, 3), 0.0))
                .collect();
            let slots = if period == slots {
                SlotVector::Dense(values)
            } else {
                SlotVector::Periodic(values)
            };
            ops.encode_extended(&slots, level, scale).unwrap()
        };
        (0..count).map(plain).collect()
    };
    let periodic = plains(256, WIDTH);
    let dense = plains(48, slots);
    let scalar: Vec<Plain> = (0..8)
        .map(|k| {
            let value = SlotVector::real_constant(value(k, 0, 4));
            ops.encode_extended(&value, level, scale).unwrap()
        })
        .collect();
    // Four or so giant steps over babies from..to of each input; every so many terms of each.
    let transform = |pool: &[Plain], giants: &[i64], inputs: usize, babies: (i64, i64), every| {
        let mut next = (0..).map(|i: usize| pool[i % pool.len()].clone());
        let giants = giants.iter().enumerate().map(|(g, &rotation)| {
            let terms = (0..inputs).flat_map(|input| (babies.0..babies.1).map(move |b| (input, b)));
            Giant {
                rotation,
                terms: (g..)
                    .zip(terms)
                    .filter(|(i, _)| i % every == 0)
                    .zip(&mut next)
                    .map(|((_, (input, baby)), plain)| Term { input, baby, plain })
                    .collect(),
            }
        });
        Transform {
            giants: giants.collect(),
        }
    };
    let turned = ops
        .rotate_many(&inputs[0], &(1..14).collect::<Vec<_>>())
        .unwrap();
    let many: Vec<&Ct> = inputs.iter().chain(&turned).take(16).collect();
    let inputs: Vec<&Ct> = inputs.iter().collect();
    let run = |t: &Transform<Plain>| time(3, || ops.linear_transforms(&many, &[t]).unwrap());
    // Differences between transforms of the size that matters: blocks depend on it.
    let (four, eight) = ([32, 64, 96, 128], [32, 64, 96, 128, 160, 192, 224, 0]);
    let extended = |pool: &[Plain]| {
        let all = run(&transform(pool, &four, 3, (1, 32), 1));
        (
            (all - run(&transform(pool, &four, 3, (1, 32), 2))) / 186.0,
            all,
        )
    };
    let plain = |pool: &[Plain]| {
        let all = run(&transform(pool, &eight, 16, (0, 1), 1));
        (all - run(&transform(pool, &eight, 16, (0, 1), 2))) / 64.0
    };
    let (product, whole) = extended(&periodic);
    let fewer = run(&transform(&periodic, &four, 3, (1, 17), 1));
    let more = run(&transform(&periodic, &eight, 3, (1, 32), 1));
    let plains = ProductCosts {
        dense: plain(&dense),
        periodic: plain(&periodic),
        scalar: plain(&scalar),
    };
    let one = run(&transform(&periodic, &[0], 1, (0, 1), 1));
    let turned = |giants: &[i64]| run(&transform(&periodic, giants, 1, (0, 1), 1));
    let below = ops.drop_to(inputs[0], level - 1).unwrap();
    let rotate = |n: i64| {
        let steps: Vec<i64> = (1..=n).collect();
        time(3, || ops.rotate_many(inputs[0], &steps).unwrap())
    };
    let two = rotate(2);
    let hoisted = (rotate(8) - two) / 6.0;
    let decomposition = two - 2.0 * hoisted;
    let turned_once = turned(&[32]);
    let plain_giant = (turned(&[32, 64, 96, 128]) - turned_once) / 3.0 - plains.periodic;
    let division = turned_once - plain_giant - plains.periodic;
    UnitCosts {
        decomposition,
        hoisted,
        baby: (whole - fewer) / 45.0 - 4.0 * product,
        giant: (more - whole) / 4.0 - 93.0 * product,
        plain_giant,
        rotation: time(5, || ops.rotate_many(&below, &[1]).unwrap()),
        plain: plains,
        extended: ProductCosts {
            dense: extended(&dense).0,
            periodic: product,
            scalar: extended(&scalar).0,
        },
        addition: time(5, || ops.add(inputs[0], inputs[1]).unwrap()),
        rescale: one - plains.periodic,
        division,
        ..UnitCosts::default()
    }
}

fn summary(counts: &Counts, weights: &Weights) -> String {
    format!(
        "{} key switches ({} alone, {} hoisted, {} baby, {} giant), {} products ({} extended), \
         {:.2} words per weight, {} keys",
        counts.key_switches(),
        counts.rotations,
        counts.hoisted,
        counts.babies,
        counts.giants + counts.plain_giants,
        counts.plain.total() + counts.extended.total(),
        counts.extended.total(),
        counts.plain_words as f64 / weights.nonzero().max(1) as f64,
        counts.keys
    )
}

/// One product: counted, encoded, run, compared.
struct Case<'a> {
    keys: &'a Keys,
    units: &'a UnitCosts,
    weights: &'a Weights,
    packing: Packing,
    level: usize,
}

/// What a case gave.
struct Outcome {
    ms: f64,
    counted: f64,
}

impl Case<'_> {
    fn product(&self, method: Method) -> MatrixProduct<Diagonal> {
        MatrixProduct::new(self.weights, self.packing, method).unwrap()
    }

    fn inputs(&self) -> Vec<Ct> {
        let x = table(self.weights.cols());
        let slots = self.packing.pack(&x, self.keys.params.slots()).unwrap();
        self.keys.encrypt(&slots, self.level)
    }

    /// Encodes, runs and checks the product.
    fn run(&self, name: &str, method: Method, runs: usize) -> Outcome {
        let product = self.product(method);
        let start = Instant::now();
        let encoded = product.encode(&mut self.keys.ops(), self.level).unwrap();
        let encoding = start.elapsed().as_secs_f64() * 1e3;
        let (ms, outputs) = self.apply(&encoded, runs);
        let expected = self.weights.apply(&table(self.weights.cols()));
        let error = self.keys.error(self.packing, &outputs, &expected).log2();
        let note = format!("encoding {encoding:.0} ms, error 2^{error:.1}");
        self.outcome(name, &product.counts(self.keys.params.slots()), ms, &note)
    }

    /// Runs the product with so many different plaintexts in turns instead of its own, which would
    /// not fit the memory; they are more than the caches hold.
    fn run_pooled(&self, name: &str, method: Method, (pool, runs): (usize, usize)) -> Outcome {
        let product = self.product(method);
        let mut ops = self.keys.ops();
        let mut pools: BTreeMap<String, Vec<Plain>> = BTreeMap::new();
        let mut next = 0;
        let encoded = product.map(|diagonal, role| {
            let known = pools.entry(format!("{role:?}")).or_default();
            next += 1;
            if known.len() < pool {
                let (level, slots) = (self.level, diagonal.slots());
                let scale = |level| self.keys.params.scale_at(level);
                known.push(match role {
                    Role::Factor { extended: true } => {
                        ops.extended_plain(&slots, level, scale(level))?
                    }
                    Role::Factor { extended: false } => ops.plain(&slots, level, scale(level))?,
                    Role::Below { levels } => {
                        ops.plain(&slots, level - levels, scale(level - levels))?
                    }
                    Role::Unit => ops.plain(&slots, level - 1, Scale::power_of_two(0))?,
                });
            }
            Ok::<Plain, OpsError>(known[next % known.len()].clone())
        });
        let (ms, _) = self.apply(&encoded.unwrap(), runs);
        let note = format!("{pool} different plaintexts");
        self.outcome(name, &product.counts(self.keys.params.slots()), ms, &note)
    }

    fn apply(&self, encoded: &MatrixProduct<Plain>, runs: usize) -> (f64, Vec<Ct>) {
        let inputs = self.inputs();
        let inputs: Vec<&Ct> = inputs.iter().collect();
        let mut ops = self.keys.ops();
        let mut outputs = Vec::new();
        let ms = time(runs, || {
            outputs = encoded.apply(&mut ops, &inputs).unwrap();
        });
        (ms, outputs)
    }

    fn outcome(&self, name: &str, counts: &Counts, ms: f64, note: &str) -> Outcome {
        let counted = self.units.of(counts);
        let ratio = ms / counted;
        println!("{name:<36} {ms:8.0} ms, counted {counted:8.0} ({ratio:.2}), {note}");
        println!("    {}", summary(counts, self.weights));
        Outcome { ms, counted }
    }
}

/// Rotations that `units` takes.
fn unit_rotations() -> BTreeSet<i64> {
    (1..32).chain((1..8).map(|g| 32 * g)).collect()
}

fn diagonals(baby_steps: usize, hoisting: Hoisting, wrap: Wrap) -> Method {
    Method::Diagonals {
        baby_steps,
        hoisting,
        wrap,
    }
}

/// Keys for the methods and the units, and these.
fn prepare(
    weights: &Weights,
    packing: Packing,
    methods: &[Method],
    level: usize,
) -> (Keys, UnitCosts) {
    let mut steps = unit_rotations();
    for method in methods {
        let product = MatrixProduct::new(weights, packing, *method).unwrap();
        steps.extend(product.rotations().0);
    }
    let keys = Keys::new(&steps, level);
    let feature_fast = Packing::FeatureFast { width: WIDTH };
    let slots = feature_fast.pack(&table(768), keys.params.slots()).unwrap();
    let units = units(&keys, &keys.encrypt(&slots, level), level);
    (keys, units)
}

fn periodic(level: usize) {
    let packing = Packing::FeatureFast { width: WIDTH };
    let weights = weights(768, 768);
    let methods = [
        (
            "paired, hoisted twice, 32 babies",
            diagonals(32, Hoisting::Twice, Wrap::Paired),
        ),
        (
            "paired, hoisted twice, 16 babies",
            diagonals(16, Hoisting::Twice, Wrap::Paired),
        ),
        (
            "paired, hoisted once, 16 babies",
            diagonals(16, Hoisting::Once, Wrap::Paired),
        ),
        (
            "signed, hoisted twice, 32 babies",
            diagonals(32, Hoisting::Twice, Wrap::Signed),
        ),
    ];
    let (keys, units) = prepare(&weights, packing, &methods.map(|m| m.1), level);
    let case = Case {
        keys: &keys,
        units: &units,
        weights: &weights,
        packing,
        level,
    };
    for (name, method) in methods {
        case.run(name, method, 3);
    }
}

/// The same product with full encodings: features are the slow axis, rotations are cyclic.
fn full(level: usize) {
    let packing = Packing::TokenFast {
        width: WIDTH,
        run: TOKENS,
    };
    let weights = weights(768, 768);
    let methods = [
        (
            "full, hoisted twice, 32 babies",
            diagonals(32, Hoisting::Twice, Wrap::Signed),
        ),
        (
            "full, hoisted once, 16 babies",
            diagonals(16, Hoisting::Once, Wrap::Signed),
        ),
    ];
    let (keys, units) = prepare(&weights, packing, &methods.map(|m| m.1), level);
    let case = Case {
        keys: &keys,
        units: &units,
        weights: &weights,
        packing,
        level,
    };
    for (name, method) in methods {
        case.run_pooled(name, method, (128, 3));
    }
}

/// From 768 to 3072 features: all of it by diagonals, the first 24 outputs by packed rows.
fn rows(level: usize) {
    const PART: usize = 24;
    let packing = Packing::FeatureFast { width: WIDTH };
    let (weights, part) = (weights(3072, 768), weights(PART, 768));
    let best = diagonals(32, Hoisting::Twice, Wrap::Paired);
    let (mut keys_for, rows) = (vec![best], Method::PackedRows);
    keys_for.push(rows);
    let (keys, units) = prepare(&weights, packing, &keys_for, level);
    let case = Case {
        keys: &keys,
        units: &units,
        weights: &weights,
        packing,
        level,
    };
    let diagonals = case.run("diagonals, hoisted twice, 32 babies", best, 2);
    let case = Case {
        weights: &part,
        ..case
    };
    let some = case.run(&format!("packed rows, {PART} of 3072"), rows, 1);
    let of_all = 3072.0 / PART as f64;
    println!(
        "packed rows over diagonals: measured {:.1}, counted {:.1}",
        some.ms * of_all / diagonals.ms,
        some.counted * of_all / diagonals.counted
    );
}

/// Diagonals and blocks pruned, 768 x 768.
fn sparsity(level: usize) {
    let packing = Packing::FeatureFast { width: WIDTH };
    let full = weights(768, 768);
    let method = diagonals(32, Hoisting::Twice, Wrap::Paired);
    let (keys, units) = prepare(&full, packing, &[method], level);
    for unit in [PruneUnit::Diagonal(WIDTH), PruneUnit::Block(WIDTH)] {
        let mut dense: Option<Outcome> = None;
        for share in [0.0, 0.5, 0.75, 0.9] {
            let weights = full.pruned(unit, share);
            let case = Case {
                keys: &keys,
                units: &units,
                weights: &weights,
                packing,
                level,
            };
            let name = format!("{unit:?}, {:.0}% pruned", 100.0 * share);
            let outcome = case.run(&name, method, 3);
            if let Some(dense) = &dense {
                let (measured, counted) = (dense.ms / outcome.ms, dense.counted / outcome.counted);
                println!(
                    "    faster: measured {measured:.2}, counted {counted:.2}, ratio {:.2}",
                    measured / counted
                );
            }
            dense.get_or_insert(outcome);
        }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let limbs: usize = arguments.next().map_or(24, |l| l.parse().unwrap());
    let level = limbs - 1;
    // Sums of many giant steps are larger than what the pool keeps by default.
    set_pool_limit(4 << 30);
    match what.as_str() {
        "units" => {
            let keys = Keys::new(&unit_rotations(), level);
            let packing = Packing::FeatureFast { width: WIDTH };
            let slots = packing.pack(&table(768), keys.params.slots()).unwrap();
            let inputs = keys.encrypt(&slots, level);
            println!("{:#.2?}", units(&keys, &inputs, level));
        }
        "periodic" => periodic(level),
        "full" => full(level),
        "rows" => rows(level),
        "sparsity" => sparsity(level),
        other => println!("{other:?} is not one of units, periodic, full, rows, sparsity"),
    }
}
