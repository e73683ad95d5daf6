//! Linear transforms with nested giant steps at the size of a bootstrap: N=2^16, 31 + 6 limbs of 50
//! bits, digits of six.
//!
//! `cargo run --release -p veilformer-ring --example nested_speed [-- threads=N] [split=BxG]
//! [kind=dense|periodic] [form=nested|beside] [runs=N]` prints the best and the median of some runs
//! of transforms of 64 diagonals, and of the rotations that they are made of. Keys and plaintexts are
//! random: nothing here is decrypted.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use veilformer_ring::conformance::Samples;
use veilformer_ring::{
    Backend, Basis, Chain, Cpu, CpuConfig, CpuKey, CpuPlain, DiagonalTerm, Form, GaloisElement,
    GiantStep, Isa, OutputPlan, PlainPoly, RnsPoly, TransformPlan, ntt_primes_near,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const LOG_N: u32 = 16;
const LIMBS: usize = 31;
const SPECIAL: usize = 6;
/// Distinct plaintexts; dense ones are more than the caches hold.
const PLAINS: usize = 16;
/// Words of a periodic plaintext: two for each of 1024 values.
const PERIOD: usize = 2048;

struct Options {
    threads: usize,
    splits: Vec<(usize, usize)>,
    kinds: Vec<String>,
    forms: Vec<String>,
    runs: usize,
}

fn options() -> Outcome<Options> {
    let mut options = Options {
        threads: 1,
        splits: vec![(8, 8), (16, 4)],
        kinds: vec!["periodic".into(), "dense".into()],
        forms: vec!["nested".into(), "beside".into()],
        runs: 5,
    };
    for argument in std::env::args().skip(1) {
        let (name, value) = argument.split_once('=').ok_or("expected name=value")?;
        match name {
            "threads" => options.threads = value.parse()?,
            "runs" => options.runs = value.parse()?,
            "kind" => options.kinds = vec![value.into()],
            "form" => options.forms = vec![value.into()],
            "split" => {
                let (babies, giants) = value.split_once('x').ok_or("expected split=BxG")?;
                options.splits = vec![(babies.parse()?, giants.parse()?)];
            }
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    Ok(options)
}

/// Milliseconds of the best and the median run, after one that is not counted.
fn row<T>(
    name: &str,
    runs: usize,
    mut f: impl FnMut() -> veilformer_ring::Result<T>,
) -> Outcome<()> {
    let mut times = Vec::new();
    for run in 0..=runs {
        let start = Instant::now();
        std::hint::black_box(f()?);
        if run > 0 {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    println!(
        "  {name:<44} {:>9.1} ms  (median {:>9.1})",
        times[0],
        times[times.len() / 2]
    );
    Ok(())
}

fn main() -> Outcome<()> {
    let options = options()?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()?;
    pool.install(|| measure(&options))
}

fn measure(options: &Options) -> Outcome<()> {
    let primes = ntt_primes_near(2f64.powi(50) - 2f64.powi(40), LOG_N, &[], LIMBS + SPECIAL)?;
    let chain = Chain::new(LOG_N, &primes)?;
    let cpu = Cpu::new(chain.clone(), CpuConfig { isa: Isa::detect() })?;
    let (q, special) = (Basis::first(LIMBS), Basis::range(LIMBS, chain.len()));
    let digits: Vec<Basis> = (0..LIMBS)
        .step_by(SPECIAL)
        .map(|a| Basis::range(a, (a + SPECIAL).min(LIMBS)))
        .collect();
    let mut samples = Samples::new(&chain, 7);
    let most = options.splits.iter().map(|s| s.0).max().unwrap_or(1);
    let mut keys: Vec<CpuKey> = Vec::new();
    for by in 1..=most as i64 {
        let key = samples.key(GaloisElement::rotation(by, LOG_N), &digits, special)?;
        keys.push(cpu.prepare_key(&key)?);
    }
    let a: RnsPoly = samples.poly(q, Form::Ntt)?;
    let b: RnsPoly = samples.poly(q, Form::Ntt)?;
    let pair = (&a, &b);
    let drop = Basis::single(LIMBS - 1);
    println!("{} threads, {:?}", options.threads, Isa::detect());
    row("rotate", options.runs, || {
        cpu.rotate_many(pair, &[&keys[0]])
    })?;
    for kind in &options.kinds {
        let mut plains: Vec<CpuPlain> = Vec::new();
        for _ in 0..PLAINS {
            let plain = match &kind[..] {
                "dense" => PlainPoly::Dense(samples.poly(chain.all(), Form::Ntt)?),
                _ => PlainPoly::Periodic {
                    period: PERIOD,
                    basis: chain.all(),
                    values: samples.residues(chain.all(), PERIOD),
                },
            };
            plains.push(cpu.prepare_plain(&plain)?);
        }
        for &(babies, giants) in &options.splits {
            for form in &options.forms {
                let term = |giant: usize, baby: usize| DiagonalTerm {
                    input: 0,
                    baby: baby.checked_sub(1),
                    plain: (giant * babies + baby) % PLAINS,
                };
                let giants: Vec<GiantStep> = (0..giants)
                    .map(|giant| GiantStep {
                        // One key stands in for those of steps side by side.
                        key: (giant > 0).then_some(babies - 1),
                        terms: (0..babies).map(|baby| term(giant, baby)).collect(),
                    })
                    .collect();
                let name = format!(
                    "{} diagonals, {babies} x {}, {kind}, {form}",
                    babies * giants.len(),
                    giants.len()
                );
                let nested = form == "nested";
                let plan: TransformPlan<'_, Cpu> = TransformPlan {
                    keys: keys.iter().collect(),
                    plains: plains.iter().collect(),
                    outputs: vec![OutputPlan { giants, nested }],
                };
                row(&name, options.runs, || {
                    cpu.linear_transform(&[pair], &plan, drop)
                })?;
            }
        }
    }
    Ok(())
}
