//! One bootstrap of a preset with real keys: times by step, precision on four kinds of input.
//!
//! `cargo run --release -p veilformer-circuits --example bootstrap [PRESET] [complex|real|PERIOD|complex:PERIOD] [RUNS] [THREADS] [KEYS]`
//!
//! KEYS is `prepared`, or `seeds` or `disk` (of a temporary file), of which `:KEPT` stay prepared after
//! their use, while a thread more expands `:AHEAD` before theirs: `disk:1:4`.
#![allow(clippy::print_stdout)]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use veilformer_circuits::bootstrap::{BootstrapPlan, Content, Preset, Stage};
use veilformer_ckks::container::KeyFile;
use veilformer_ckks::{Complex, EvaluationKeys, Evaluator, SlotVector};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator, SecretKey, SecureRng};

type Keys = EvaluationKeys<Cpu>;
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = status
        .lines()
        .filter(|l| l.starts_with("VmRSS") || l.starts_with("VmHWM"));
    lines.collect::<Vec<_>>().join(" ").replace('\t', " ")
}

fn main() -> Result<()> {
    let arg = |i: usize| std::env::args().nth(i);
    let preset = Preset::named(arg(1).as_deref().unwrap_or("11-levels"))?;
    let content = match arg(2).as_deref() {
        None | Some("complex") => Content::Complex,
        Some("real") => Content::Real,
        Some(of) => match of.strip_prefix("complex:") {
            Some(period) => Content::PeriodicComplex(period.parse()?),
            None => Content::Periodic(of.parse()?),
        },
    };
    let runs: usize = arg(3).map_or(Ok(1), |a| a.parse())?;
    let threads: usize = arg(4).map_or(Ok(1), |a| a.parse())?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()?
        .install(|| {
            run(
                preset,
                content,
                runs,
                arg(5).as_deref().unwrap_or("prepared"),
            )
        })
}

/// Makes the keys and puts them where they are to be.
fn keys(plan: &BootstrapPlan, secret: &SecretKey, backend: &Cpu, how: &str) -> Result<Keys> {
    let (params, list) = (plan.params(), plan.keys()?);
    let mut how = how.split(':');
    let place = how.next().unwrap_or_default();
    let kept: usize = how.next().map_or(Ok(1), str::parse)?;
    let ahead: usize = how.next().map_or(Ok(0), str::parse)?;
    let mut generator = KeyGenerator::new(params, SecureRng::from_os()?);
    let mut keys = EvaluationKeys::empty(params, secret.id());
    let go = &mut |_: usize, _: usize| ControlFlow::Continue(());
    if place == "disk" {
        let file = tempfile::tempfile()?;
        generator.write_evaluation_keys(secret, &list, [0; 32], &file, go)?;
        let file = Arc::new(KeyFile::open(file, params)?);
        for index in 0..list.len() {
            keys.insert_from_file(params, &file, index)?;
        }
    } else {
        generator.each_evaluation_key(secret, &list, go, &mut |key| match place {
            "seeds" => Ok(keys.insert_seeded(params, key)?),
            _ => Ok(keys.insert(params, backend, &key)?),
        })?;
    }
    keys.keep_resident(kept);
    keys.read_ahead(params, ahead)?;
    Ok(keys)
}

fn run(preset: &Preset, content: Content, runs: usize, how: &str) -> Result<()> {
    let params = preset.validate()?;
    let plan = preset.plan(&params, content)?;
    let list = plan.keys()?;
    println!(
        "{}: log QP {:.1}, {} keys, {} useful levels",
        preset.name,
        params.log_qp(),
        list.len(),
        plan.useful_levels()
    );
    let backend = Cpu::new(params.chain().clone(), CpuConfig { isa: Isa::detect() })?;
    let start = Instant::now();
    let mut generator = KeyGenerator::new(&params, SecureRng::from_os()?);
    let secret = generator.secret_key()?;
    let keys = keys(&plan, &secret, &backend, how)?;
    println!(
        "keys in {:.1} s; {}",
        start.elapsed().as_secs_f64(),
        resident()
    );
    let mut ops = Evaluator::new(&params, &backend, &keys)?;
    let start = Instant::now();
    let boot = plan.encode(&mut ops)?;
    println!(
        "plaintexts in {:.1} s; {}",
        start.elapsed().as_secs_f64(),
        resident()
    );
    let n = params.slots();
    let mut state = 12345u64;
    let mut uniform = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    let noise: Vec<Complex> = (0..n).map(|_| Complex::new(uniform(), uniform())).collect();
    let shaped = |f: &dyn Fn(usize) -> Complex| -> Vec<Complex> {
        (0..n)
            .map(|j| match content {
                Content::Complex => f(j),
                Content::Real => Complex::new(f(j).re, 0.0),
                Content::Periodic(period) => Complex::new(f(j % period).re, 0.0),
                Content::PeriodicComplex(period) => f(j % period),
            })
            .collect()
    };
    let inputs = [
        ("random", shaped(&|j| noise[j])),
        ("constant", shaped(&|_| Complex::new(1.0, 1.0))),
        (
            "signs",
            shaped(&|j| Complex::new(noise[j].re.signum(), noise[j].im.signum())),
        ),
        ("replicated", shaped(&|j| noise[j % 128])),
    ];
    let level = plan.input_level();
    for (name, slots) in inputs {
        for _ in 0..runs {
            let x = Encryptor::new(&secret, SecureRng::from_os()?)?.encrypt_at(
                &SlotVector::Dense(slots.clone()),
                level,
                params.scale_at(level),
            )?;
            let x = ops.import(x.expand(&params)?)?;
            let start = Instant::now();
            let mut steps: Vec<(Stage, Instant)> = Vec::new();
            let y = boot.run_observed(&mut ops, &x, &mut |stage| {
                steps.push((stage, Instant::now()));
                ControlFlow::Continue(())
            })?;
            let end = Instant::now();
            let ends = steps.iter().skip(1).map(|s| s.1).chain([end]);
            let times: Vec<String> = steps
                .iter()
                .zip(ends)
                .map(|(s, e)| format!("{:?} {:.0}", s.0, (e - s.1).as_secs_f64() * 1e3))
                .collect();
            let got = Decryptor::new(&secret)?
                .decrypt(&y.export(&backend)?)?
                .reveal_to_owner()?;
            let errors: Vec<f64> = got
                .iter()
                .zip(&slots)
                .flat_map(|(a, b)| [(a - b).re.abs(), (a - b).im.abs()])
                .collect();
            let errors = if content.is_complex() {
                errors
            } else {
                errors.into_iter().step_by(2).collect()
            };
            let worst = errors.iter().copied().fold(0.0, f64::max);
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            println!(
                "{name}: {:.0} ms; mean {:.2} worst {:.2} bits; {}; {}",
                (end - start).as_secs_f64() * 1e3,
                -mean.log2(),
                -worst.log2(),
                times.join(", "),
                resident()
            );
        }
    }
    Ok(())
}
