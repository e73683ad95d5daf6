//! Products of an encoder's weights with blocks of features, by baby steps and hoisting: counted and
//! measured, at the levels and primes of a bootstrap's preset, on one thread.
//!
//! `cargo run --release -p veilformer-circuits --example encoder_maps -- OUTPUTS INPUTS LEVEL RUNS`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::ops::ControlFlow;
use std::time::Instant;

use veilformer_circuits::bootstrap::Preset;
use veilformer_circuits::matrix::{Hoisting, MatrixProduct, Method, Packing, Weights, Wrap};
use veilformer_circuits::testing::{Counting, LevelOps};
use veilformer_ckks::{EvaluationKeys, Evaluator, KeyList, SlotVector};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_secret::{Encryptor, KeyGenerator, SecureRng};

const WIDTH: usize = 256;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let arguments = std::env::args().skip(1).map(|a| a.parse());
    let arguments: Vec<usize> = arguments.collect::<std::result::Result<_, _>>()?;
    let [outputs, inputs, level, runs] = arguments.as_slice() else {
        return Err("OUTPUTS INPUTS LEVEL RUNS".into());
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(|| run((*outputs, *inputs), *level, *runs))
}

fn run((outputs, inputs): (usize, usize), level: usize, runs: usize) -> Result<()> {
    let params = Preset::named("11-levels")?.validate()?;
    let weight = |r: usize, c: usize| ((r * 31 + c * 17) % 101) as f64 / 1e5 - 5e-4;
    let weights = Weights::from_fn(outputs * WIDTH, inputs * WIDTH, weight)?;
    let packing = Packing::FeatureFast { width: WIDTH };
    let mut ways = Vec::new();
    for hoisting in [Hoisting::Twice, Hoisting::Once] {
        for baby_steps in [8, 16, 32, 64] {
            let wrap = Wrap::Paired;
            let method = Method::Diagonals {
                baby_steps,
                hoisting,
                wrap,
            };
            let product = MatrixProduct::new(&weights, packing, method)?;
            ways.push((baby_steps, hoisting, product));
        }
    }
    let mut list = KeyList::default();
    let mut counts = Vec::new();
    for (_, _, product) in &ways {
        let levels = LevelOps::new(&params, &[]);
        let x = levels.value(level)?;
        let mut ops = Counting::new(levels);
        let encoded = product.encode(&mut ops, level)?;
        encoded.apply(&mut ops, &vec![&x; inputs])?;
        for (purpose, level) in ops.keys().iter() {
            list.need(purpose, level, &params);
        }
        counts.push(ops.counts());
    }
    let backend = Cpu::new(params.chain().clone(), CpuConfig { isa: Isa::detect() })?;
    let mut generator = KeyGenerator::new(&params, SecureRng::from_os()?);
    let secret = generator.secret_key()?;
    let mut keys = EvaluationKeys::empty(&params, secret.id());
    let go = &mut |_: usize, _: usize| ControlFlow::Continue(());
    generator.each_evaluation_key(&secret, &list, go, &mut |key| {
        Ok(keys.insert(&params, &backend, &key)?)
    })?;
    let mut ops = Evaluator::new(&params, &backend, &keys)?;
    let mut encryptor = Encryptor::new(&secret, SecureRng::from_os()?)?;
    let slots = SlotVector::real_constant(0.5);
    let mut blocks = Vec::new();
    for _ in 0..inputs {
        let ct = encryptor.encrypt_at(&slots, level, params.scale_at(level))?;
        blocks.push(ops.import(ct.expand(&params)?)?);
    }
    let blocks: Vec<_> = blocks.iter().collect();
    let mut all = Vec::new();
    for (_, _, product) in &ways {
        let start = Instant::now();
        let encoded = product.encode(&mut ops, level)?;
        all.push((encoded, start.elapsed().as_secs_f64(), f64::INFINITY));
    }
    for _ in 0..runs {
        for (encoded, _, best) in &mut all {
            let start = Instant::now();
            encoded.apply(&mut ops, &blocks)?;
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    for (((baby_steps, hoisting, _), c), (_, encode, best)) in ways.iter().zip(&counts).zip(&all) {
        println!(
            "{:<16} {baby_steps:>2} baby steps: {:>6.0} ms, encoded in {:>6.0}; {} hoisted, {} babies, \
             {} giants, {} plain giants, {} + {} products, {} keys",
            format!("hoisted {hoisting:?}"),
            best * 1e3,
            encode * 1e3,
            c.hoisted,
            c.babies,
            c.giants,
            c.plain_giants,
            c.plain.periodic,
            c.extended.periodic,
            c.keys,
        );
    }
    Ok(())
}
