//! An encoder of a Hugging Face folder as a circuit: in the clear, with the scheme's noise, or on
//! ciphertexts under a secret key of its own.
//!
//! ```text
//! cargo run --release -p veilformer-compiler --example encoder -- FOLDER SENTENCES \
//!     [--tokens T] [--count N] [--calibrate DATA] [--preset NAME] [--threads N] \
//!     [--greedy] [--place|--clear|--sim|--encrypted]
//! ```
//!
//! `SENTENCES` and `DATA` are data sets. `--clear` replaces bootstraps by nothing. With `--wait` each
//! encrypted run begins when a line comes on the standard input, so that what is measured can be
//! alone on the machine without its preparation.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use veilformer_circuits::bootstrap::{BootstrapPlan, Bootstrapping, Content, Preset};
use veilformer_circuits::testing::{ClearCiphertext, ClearOps, Counting, IdealBootstrap};
use veilformer_ckks::{Complex, EvaluationKeys, Evaluator, KeyList, Ops, Params, SecretKind};
use veilformer_compiler::encoder::circuit::{
    Bootstraps, EncoderCircuit, Event, Inputs, Layout, Plains, StageReport, Times,
};
use veilformer_compiler::encoder::{Budget, Polynomials, substitute};
use veilformer_compiler::placement::{Flow, Loops, Placement, greedy, per_layer, place};
use veilformer_models::DataSet;
use veilformer_models::encoder::{EncoderFolder, Execution, calibrate, center_keys};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator, SecureRng};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Clone, Debug)]
struct Arguments {
    folder: String,
    sentences: String,
    calibrate: String,
    tokens: usize,
    count: usize,
    preset: String,
    threads: usize,
    mode: String,
    center: bool,
    wait: bool,
    greedy: bool,
    budget: Budget,
}

fn arguments() -> Result<Arguments> {
    let mut positional = Vec::new();
    let mut a = Arguments {
        folder: String::new(),
        sentences: String::new(),
        calibrate: String::new(),
        tokens: 128,
        count: 3,
        preset: "10-levels".into(),
        threads: 1,
        mode: "--clear".into(),
        center: true,
        wait: false,
        greedy: false,
        budget: Budget::default(),
    };
    let mut all = std::env::args().skip(1);
    while let Some(arg) = all.next() {
        let mut next = || all.next().ok_or(format!("{arg}: a value is missing"));
        match arg.as_str() {
            "--tokens" => a.tokens = next()?.parse()?,
            "--count" => a.count = next()?.parse()?,
            "--preset" => a.preset = next()?,
            "--threads" => a.threads = next()?.parse()?,
            "--calibrate" => a.calibrate = next()?,
            "--budget" => {
                let factor: f64 = next()?.parse()?;
                let b = &mut a.budget;
                for value in [
                    &mut b.exponential,
                    &mut b.inverse,
                    &mut b.inverse_root,
                    &mut b.activation,
                    &mut b.tanh,
                ] {
                    *value *= factor;
                }
            }
            "--wait" => a.wait = true,
            "--no-center" => a.center = false,
            "--greedy" => a.greedy = true,
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
    let mut folder = EncoderFolder::load(Path::new(&a.folder), a.tokens)?;
    let tokens = |path: &str, count: usize| -> Result<Vec<Vec<u32>>> {
        let set = DataSet::load(Path::new(path))?.sample(4 * count, 1);
        let ids = set
            .examples
            .iter()
            .filter_map(|e| folder.tokenizer.encode(&e.text).ok());
        Ok(ids.take(count).collect())
    };
    let calibration = tokens(&a.calibrate, 500)?;
    let sentences = tokens(&a.sentences, a.count)?;
    if a.center {
        center_keys(&mut folder.encoder, &calibration)?;
    }
    let execution = Execution::new(&folder.encoder)?;
    let ranges = calibrate(&execution, &calibration)?;
    let model = execution.model();
    let substitution = substitute(&ranges, model.activation, &a.budget)?;
    let preset = Preset::named(&a.preset)?;
    let params = preset.validate()?;
    let plans = [Content::Complex, Content::Real];
    let plans = plans.map(|content| preset.plan(&params, content));
    let plans: Vec<BootstrapPlan> = plans.into_iter().collect::<std::result::Result<_, _>>()?;
    let [first, ..] = plans.as_slice() else {
        return Err("no bootstrap".into());
    };
    let bootstraps = Bootstraps {
        input_level: first.input_level(),
        output_level: first.output_level(),
        complex: 0,
        real: 1,
    };
    let layout = Layout::choose(model, a.tokens, params.slots())?;
    println!("{layout:?}; depth {}", substitution.depth());
    let circuit = EncoderCircuit::new(model, (&substitution, &ranges), layout)?;
    let times = Times::REFERENCE;
    let flow = circuit.flow(&params, &bootstraps, &times)?;
    let machine = times.machine(&bootstraps);
    let best = place(&flow, &machine, Loops::Free)?;
    let describe = |name: &str, p: &Placement| {
        println!(
            "{name:<10}{:>5} bootstraps, {:>7.1} s predicted",
            p.bootstraps, p.seconds
        );
    };
    describe("placed", &best);
    let simple = greedy(&flow, &machine)?;
    describe("greedy", &simple);
    match per_layer(&flow, &machine) {
        Ok(layers) => describe("per layer", &layers),
        Err(error) => println!("per layer: {error}"),
    }
    if a.mode == "--place" {
        return print_placement(&flow, &best);
    }
    let mut job = Job {
        a,
        execution: &execution,
        circuit: &circuit,
        bootstraps,
        placement: if a.greedy { simple } else { best },
        worst: 0.0,
    };
    match a.mode.as_str() {
        "--clear" => {
            let mut ops = ClearOps::new(&params);
            let ideal = plans.iter().map(|plan| IdealBootstrap {
                content: plan.content(),
                input_level: plan.input_level(),
                output_level: plan.output_level(),
            });
            ops.set_ideal_bootstraps(&ideal.collect::<Vec<_>>());
            let mut plains = Plains::default();
            for ids in &sentences {
                let rows = execution.embed(ids)?;
                let mut poly = Polynomials::new(&substitution);
                let expected = execution.finish(execution.answer(&rows, &mut poly)?);
                let got = job.clear(&mut ops, &mut plains, ids)?;
                job.compare("poly", &got, &expected);
            }
        }
        "--sim" => {
            let mut ops = ClearOps::with_noise(&params, SecretKind::DenseTernary, 1);
            ops.set_bootstraps(&plans)?;
            let mut plains = Plains::default();
            for ids in &sentences {
                job.clear(&mut ops, &mut plains, ids)?;
            }
        }
        _ => job.encrypted(&params, &sentences, &plans)?,
    }
    println!("worst difference from the original: {:.4}", job.worst);
    Ok(())
}

struct Job<'a> {
    a: &'a Arguments,
    execution: &'a Execution<'a>,
    circuit: &'a EncoderCircuit,
    bootstraps: Bootstraps,
    placement: Placement,
    worst: f64,
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
    fn with(&self) -> (&Bootstraps, &Placement) {
        (&self.bootstraps, &self.placement)
    }

    fn original(&self, ids: &[u32]) -> Result<Vec<f64>> {
        let rows = self.execution.embed(ids)?;
        let answer = self.execution.answer(&rows, &mut self.execution.exact())?;
        Ok(self.execution.finish(answer))
    }

    fn compare(&mut self, name: &str, got: &[f64], expected: &[f64]) {
        let largest = |m: f64, (a, b): (&f64, &f64)| m.max((a - b).abs());
        let error = got.iter().zip(expected).fold(0.0, largest);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let cosine = dot(got, expected) / (dot(got, got) * dot(expected, expected)).sqrt();
        println!("  against {name}: largest difference {error:.2e}, cosine {cosine:.6}");
        if name == "the original" {
            self.worst = self.worst.max(error);
        }
    }

    fn clear(
        &mut self,
        ops: &mut ClearOps,
        plains: &mut Plains<<ClearOps as Ops>::Plain>,
        ids: &[u32],
    ) -> Result<Vec<f64>> {
        let rows = self.execution.embed(ids)?;
        let top = self.bootstraps.output_level;
        let inputs = self.circuit.encode(&rows)?;
        let inputs = inputs.map(|slots| ops.encrypt(slots, top))?;
        let mut excess = Vec::new();
        #[allow(clippy::type_complexity)]
        let watch: &mut dyn FnMut(&mut ClearOps, Event<'_, ClearCiphertext>) = &mut |ops, event| {
            let Event::Bound(name, cts, bound) = event else {
                return;
            };
            let slots = cts.iter().map(|ct| ops.decrypt(ct));
            let largest = slots
                .flatten()
                .fold(0.0, |m: f64, z| m.max(z.re.abs()).max(z.im.abs()));
            if largest > bound {
                excess.push(format!("{name}: {largest:.3}"));
            }
        };
        let start = Instant::now();
        let (out, stages) = self
            .circuit
            .run(ops, self.with(), (&inputs, plains), watch)?;
        let took = start.elapsed();
        if !excess.is_empty() {
            println!("  beyond bounds: {}", excess.join(", "));
        }
        let slots: Vec<Vec<Complex>> = out.iter().map(|ct| ops.decrypt(ct)).collect();
        let got = self.circuit.read(&slots);
        if self.a.count == 1 {
            print_stages(&stages);
        }
        println!("{} tokens, {took:.1?}", ids.len());
        let original = self.original(ids)?;
        self.compare("the original", &got, &original);
        Ok(got)
    }

    fn keys(&self, params: &Params, plans: &[BootstrapPlan], ids: &[u32]) -> Result<KeyList> {
        let mut ops = Counting::new(ClearOps::new(params));
        let table = BootstrapPlan::encode_table(plans, &mut ops)?;
        let rows = self.execution.embed(ids)?;
        let inputs = self.circuit.encode(&rows)?;
        let top = self.bootstraps.output_level;
        let inputs = inputs.map(|slots| ops.inner().encrypt(slots, top))?;
        let mut plains = Plains::default();
        let mut ops = Bootstrapping::new(ops, &table);
        let with = (&inputs, &mut plains);
        self.circuit
            .run(&mut ops, self.with(), with, &mut |_, _| {})?;
        let c = ops.inner().counts();
        println!("operations: {c:?}");
        Ok(ops.inner().keys().clone())
    }

    fn encrypted(
        &mut self,
        params: &Params,
        sentences: &[Vec<u32>],
        plans: &[BootstrapPlan],
    ) -> Result<()> {
        let Some(first) = sentences.first() else {
            return Ok(());
        };
        let start = Instant::now();
        let list = self.keys(params, plans, first)?;
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
        let table = BootstrapPlan::encode_table(plans, &mut ops)?;
        let mut ops = Bootstrapping::new(ops, &table);
        let mut plains = Plains::default();
        for (at, ids) in sentences.iter().enumerate() {
            let rows = self.execution.embed(ids)?;
            let top = self.bootstraps.output_level;
            let mut encryptor = Encryptor::new(&secret, SecureRng::from_os()?)?;
            let inputs: Inputs<_> = self.circuit.encode(&rows)?.map(|slots| -> Result<_> {
                let ct = encryptor.encrypt_at(slots, top, params.scale_at(top))?;
                Ok(ops.inner().import(ct.expand(params)?)?)
            })?;
            if self.a.wait {
                println!("ready");
                std::io::stdin().read_line(&mut String::new())?;
            }
            let (start, cpu) = (Instant::now(), cpu_seconds());
            let (out, stages) = self.circuit.run(
                &mut ops,
                self.with(),
                (&inputs, &mut plains),
                &mut |_, _| {},
            )?;
            let (took, cpu) = (start.elapsed(), cpu_seconds() - cpu);
            if at < 2 {
                print_stages(&stages);
            }
            let mut slots: Vec<Vec<Complex>> = Vec::new();
            for ct in &out {
                let opened = Decryptor::new(&secret)?.decrypt(&ct.export(&backend)?)?;
                slots.push(opened.reveal_to_owner()?);
            }
            let got = self.circuit.read(&slots);
            println!(
                "{} tokens, {:.1} s, {cpu:.1} s of processor time; {}",
                ids.len(),
                took.as_secs_f64(),
                resident()
            );
            let original = self.original(ids)?;
            self.compare("the original", &got, &original);
            println!("done");
        }
        Ok(())
    }
}
