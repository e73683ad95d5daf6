//! An encoder of a Hugging Face folder as a circuit: in the clear, with the scheme's noise, or on
//! ciphertexts under a secret key of its own.
//!
//! ```text
//! cargo run --release -p veilformer-compiler --example encoder -- FOLDER SENTENCES \
//!     [--forget] [--tokens T] [--count N] [--lengths N,N,..] [--calibrate DATA] [--preset NAME] [--threads N] \
//!     [--greedy] [--budget FACTOR] [--place|--clear|--sim|--encrypted]
//! ```
//!
//! `SENTENCES` and `DATA` are data sets, or text files with a paragraph in a line. `--lengths` makes
//! sentences of so many tokens of them. `--clear` has bootstraps without an error. Each run says by how
//! much the outputs of each layer differ from those of the polynomials in floating point. With `--forget`
//! the weights of a layer are encoded when they are needed, and not kept. With `--wait` each
//! encrypted run begins when a line comes on the standard input, so that what is measured can be
//! alone on the machine without its preparation.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod support;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use support::{
    Clear, Compiled, Layers, Prepared, Result, cosine, difference, fitted, of_lengths, short, texts,
};
use veilformer_circuits::bootstrap::{BootstrapPlan, Bootstrapping};
use veilformer_circuits::testing::{Counting, LevelOps};
use veilformer_ckks::{Ciphertext, Complex, EvaluationKeys, Evaluator, KeyList, OpsError};
use veilformer_compiler::encoder::Budget;
use veilformer_compiler::encoder::circuit::{Event, Inputs, Plains, StageReport, layer_of};
use veilformer_compiler::placement::{Flow, Placement};
use veilformer_models::encoder::Execution;
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator, SecureRng};

#[derive(Clone, Debug)]
struct Arguments {
    folder: String,
    sentences: String,
    calibrate: String,
    tokens: usize,
    count: usize,
    forget: bool,
    lengths: Vec<usize>,
    preset: String,
    threads: usize,
    mode: String,
    center: bool,
    wait: bool,
    greedy: bool,
    budget: Option<Budget>,
}

fn arguments() -> Result<Arguments> {
    let mut positional = Vec::new();
    let mut a = Arguments {
        folder: String::new(),
        sentences: String::new(),
        calibrate: String::new(),
        tokens: 128,
        count: 3,
        forget: false,
        lengths: Vec::new(),
        preset: "11-levels".into(),
        threads: 1,
        mode: "--clear".into(),
        center: true,
        wait: false,
        greedy: false,
        budget: None,
    };
    let mut all = std::env::args().skip(1);
    while let Some(arg) = all.next() {
        let mut next = || all.next().ok_or(format!("{arg}: a value is missing"));
        match arg.as_str() {
            "--tokens" => a.tokens = next()?.parse()?,
            "--count" => a.count = next()?.parse()?,
            "--lengths" => {
                let given = next()?;
                let lengths = given.split(',').map(str::parse);
                a.lengths = lengths.collect::<std::result::Result<_, _>>()?;
            }
            "--preset" => a.preset = next()?,
            "--threads" => a.threads = next()?.parse()?,
            "--calibrate" => a.calibrate = next()?,
            "--budget" => {
                a.budget = Some(Budget::default().scaled(next()?.parse()?));
            }
            "--wait" => a.wait = true,
            "--no-center" => a.center = false,
            "--greedy" => a.greedy = true,
            "--forget" => a.forget = true,
            "--clear" | "--sim" | "--encrypted" | "--place" => a.mode = arg,
            _ if arg.starts_with("--") => return Err(format!("unknown option {arg}").into()),
            _ => positional.push(arg),
        }
    }
    let [folder, sentences] = positional.as_slice() else {
        return Err("FOLDER SENTENCES [OPTIONS]".into());
    };
    (a.folder, a.sentences) = (folder.clone(), sentences.clone());
    if a.calibrate.is_empty() {
        a.calibrate.clone_from(sentences);
    }
    Ok(a)
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = status
        .lines()
        .filter(|l| l.starts_with("VmRSS") || l.starts_with("VmHWM"));
    lines.collect::<Vec<_>>().join(" ").replace('\t', " ")
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.split_whitespace().collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|f| f.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(13) + ticks(14)) / 100.0
}

fn print_stages(stages: &[StageReport]) {
    println!(
        "{:<46}{:>8}{:>8}{:>6}{:>8}{:>10}{:>9}{:>9}",
        "stage", "levels", "cts", "boots", "real", "boot ms", "ms", "encode"
    );
    let mut sum = [0.0; 5];
    for s in stages {
        let ms = [s.bootstrap_time, s.time, s.encode_time].map(|t| t.as_secs_f64() * 1e3);
        println!(
            "{:<46}{:>8}{:>8}{:>6}{:>8}{:>10.0}{:>9.0}{:>9.0}",
            s.name,
            format!("{}>{}", s.level_in, s.level_out),
            format!("{}>{}", s.ciphertexts.0, s.ciphertexts.1),
            s.bootstraps,
            s.real_bootstraps,
            ms[0],
            ms[1],
            ms[2]
        );
        let row = [
            s.bootstraps as f64,
            s.real_bootstraps as f64,
            ms[0],
            ms[1],
            ms[2],
        ];
        sum.iter_mut().zip(row).for_each(|(a, b)| *a += b);
    }
    println!(
        "{:<62}{:>6}{:>8}{:>10.0}{:>9.0}{:>9.0}",
        "all", sum[0], sum[1], sum[2], sum[3], sum[4]
    );
}

fn main() -> Result<()> {
    let a = arguments()?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(a.threads)
        .build()?
        .install(|| run(&a))
}

fn run(a: &Arguments) -> Result<()> {
    let model = (&a.folder[..], a.tokens);
    let model = Prepared::load(model, (&a.calibrate, 500), (a.budget.as_ref(), a.center))?;
    let ids = texts(&a.sentences)?;
    let ids = ids.iter().filter_map(|text| fitted(&model.tokenizer, text));
    let mut sentences: Vec<Vec<u32>> = ids.take(a.count.max(40)).collect();
    if !a.lengths.is_empty() {
        sentences = of_lengths(&sentences, &a.lengths);
    }
    sentences.truncate(a.count.max(a.lengths.len()));
    let compiled = Compiled::new(&model, (a.tokens, &a.preset), a.greedy)?;
    if a.mode == "--place" {
        return print_placement(&compiled.flow, &compiled.placement);
    }
    let mut job = Job {
        a,
        model: &model,
        execution: model.execution()?,
        compiled: &compiled,
        worst: (0.0, 1.0),
    };
    match a.mode.as_str() {
        "--clear" => job.clear(Clear::exact(&compiled), &sentences)?,
        "--sim" => job.clear(Clear::noisy(&compiled)?, &sentences)?,
        _ => job.encrypted(&sentences)?,
    }
    let (error, cosine) = job.worst;
    println!("from the original: largest difference {error:.4}, least cosine {cosine:.5}");
    Ok(())
}

struct Job<'a> {
    a: &'a Arguments,
    model: &'a Prepared,
    execution: Execution<'a>,
    compiled: &'a Compiled,
    /// Largest difference from the original, and least cosine.
    worst: (f64, f64),
}

/// Every stage with its bootstraps, level and predicted time.
fn print_placement(flow: &Flow, placement: &Placement) -> Result<()> {
    for (block, runs) in flow.blocks.iter().zip(&placement.blocks) {
        for (_, run) in runs {
            for (node, (set, level)) in block.nodes.iter().zip(&run.steps) {
                println!(
                    "{:<52} {:>2} > {:>2}{:>4} ciphertexts {:>7.0} ms  {}",
                    node.name,
                    level,
                    level.saturating_sub(node.depth),
                    node.value.ciphertexts,
                    node.seconds.get(*level).copied().unwrap_or(0.0) * 1e3,
                    if set.is_empty() {
                        String::new()
                    } else {
                        format!("bootstraps {set:?}")
                    }
                );
            }
        }
    }
    Ok(())
}

impl Job<'_> {
    fn report(&mut self, ids: &[u32], answer: &[f64], layers: &Layers) -> Result<()> {
        let original = self.model.original(ids)?;
        let (poly, trace) = self.model.poly(ids)?;
        for v in trace.functions().violations() {
            println!("  {}: {:.3} outside of {:?}", v.site, v.value, v.range);
        }
        for (name, expected) in [("poly", &poly), ("the original", &original)] {
            let (error, cosine) = (difference(answer, expected), cosine(answer, expected));
            println!("  against {name}: largest difference {error:.2e}, cosine {cosine:.6}");
        }
        println!("  layers against poly: {}", short(&layers.errors(&trace)));
        self.worst.0 = self.worst.0.max(difference(answer, &original));
        self.worst.1 = self.worst.1.min(cosine(answer, &original));
        Ok(())
    }

    fn clear(&mut self, mut clear: Clear<'_>, sentences: &[Vec<u32>]) -> Result<()> {
        for ids in sentences {
            let outcome = clear.run(&self.execution, ids)?;
            if !outcome.excess.is_empty() {
                println!("  beyond bounds: {}", outcome.excess.join(", "));
            }
            if sentences.len() == 1 {
                print_stages(&outcome.stages);
            }
            println!("{} tokens, {:.1?}", ids.len(), outcome.took);
            self.report(ids, &outcome.answer, &outcome.layers)?;
        }
        Ok(())
    }

    fn keys(&self) -> Result<KeyList> {
        let with = self.compiled;
        let mut ops = Counting::new(LevelOps::new(&with.params, &[]));
        let table = BootstrapPlan::encode_table(&with.plans, &mut ops)?;
        let top = with.bootstraps.output_level;
        let value = ops.inner().value(top)?;
        let inputs = with.circuit.inputs().map(|_| Ok::<_, OpsError>(value))?;
        let mut plains = Plains::default();
        let mut ops = Bootstrapping::new(ops, &table);
        let run = (&inputs, &mut plains);
        let placed = (&with.bootstraps, &with.placement);
        with.circuit.run(&mut ops, placed, run, &mut |_, _| {})?;
        let c = ops.inner().counts();
        println!("operations: {c:?}");
        Ok(ops.inner().keys().clone())
    }

    fn encrypted(&mut self, sentences: &[Vec<u32>]) -> Result<()> {
        if sentences.is_empty() {
            return Ok(());
        }
        let with = self.compiled;
        let params = &with.params;
        let start = Instant::now();
        let list = self.keys()?;
        println!("{} keys, listed in {:.1?}", list.len(), start.elapsed());
        let backend = Cpu::new(params.chain().clone(), CpuConfig { isa: Isa::detect() })?;
        let start = Instant::now();
        let mut generator = KeyGenerator::new(params, SecureRng::from_os()?);
        let secret = generator.secret_key()?;
        let mut keys = EvaluationKeys::empty(params, secret.id());
        let go = &mut |_: usize, _: usize| ControlFlow::Continue(());
        generator.each_evaluation_key(&secret, &list, go, &mut |key| {
            Ok(keys.insert(params, &backend, &key)?)
        })?;
        println!("keys in {:.1?}; {}", start.elapsed(), resident());
        let mut ops = Evaluator::new(params, &backend, &keys)?;
        let table = BootstrapPlan::encode_table(&with.plans, &mut ops)?;
        let mut ops = Bootstrapping::new(ops, &table);
        let mut plains = match self.a.forget {
            true => Plains::for_one_run(),
            false => Plains::default(),
        };
        let decryptor = Decryptor::new(&secret)?;
        let open = |ct: &Arc<Ciphertext>| -> Result<Vec<Complex>> {
            let opened = decryptor.decrypt(&ct.export(&backend)?)?;
            Ok(opened.reveal_to_owner()?)
        };
        for (at, ids) in sentences.iter().enumerate() {
            let rows = self.execution.embed(ids)?;
            let top = with.bootstraps.output_level;
            let mut encryptor = Encryptor::new(&secret, SecureRng::from_os()?)?;
            let inputs: Inputs<_> = with.circuit.encode(&rows)?.map(|slots| -> Result<_> {
                let ct = encryptor.encrypt_at(slots, top, params.scale_at(top))?;
                Ok(ops.inner().import(ct.expand(params)?)?)
            })?;
            if self.a.wait {
                println!("ready");
                std::io::stdin().read_line(&mut String::new())?;
            }
            // Opened after the run, whose time is taken.
            let mut seen = Vec::new();
            let (start, cpu) = (Instant::now(), cpu_seconds());
            let (out, stages) = with.circuit.run(
                &mut ops,
                (&with.bootstraps, &with.placement),
                (&inputs, &mut plains),
                &mut |_, event| match event {
                    Event::Bound(stage, cts, _) if layer_of(stage).is_some() => {
                        seen.push((stage.to_owned(), cts.to_vec()));
                    }
                    _ => {}
                },
            )?;
            let (took, cpu) = (start.elapsed(), cpu_seconds() - cpu);
            if at < 2 {
                print_stages(&stages);
            }
            println!(
                "{} tokens, {:.1} s, {cpu:.1} s of processor time; {}",
                ids.len(),
                took.as_secs_f64(),
                resident()
            );
            let mut layers = Layers::default();
            for (stage, cts) in seen {
                let slots = cts.iter().map(&open).collect::<Result<_>>()?;
                layers.push(&with.circuit, &stage, || (slots, ids.len()));
            }
            let slots = out.iter().map(&open).collect::<Result<Vec<_>>>()?;
            let answer = with.circuit.read(&slots);
            self.report(ids, &answer, &layers)?;
            println!("done");
        }
        Ok(())
    }
}
