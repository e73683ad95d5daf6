//! Holds `plan` against real runs: `plan_against_run [MODEL FOLDER | unshipped] [THREADS] [BATCH]`, or
//! `plan_against_run bootstrap:PRESET [THREADS]` for a pair of values that is bootstrapped at full size.
//!
//! Each role is a process of its own, so that the server's peak of memory is a server's: this one
//! compiles, makes keys and encrypts; a second measures the machine; a third serves along the
//! schedule; a fourth does so without one, every value in a place of its own. Each can be run alone, on
//! a folder: `client MODEL DIR`, `measure DIR THREADS`, `serve DIR THREADS`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use veilformer_circuits::bootstrap::{Content, Preset};
use veilformer_ckks::container::{Kind, Writer, append_ciphertexts};
use veilformer_ckks::{Ops, Params, SecurityLevel, SlotVector};
use veilformer_compiler::schedule::{schedule, unscheduled};
use veilformer_compiler::{DEFAULT_MARGIN, Options, compile};
use veilformer_ir::ciphertext::{CiphertextProgram, Recorder};
use veilformer_ir::signature::SENTENCES;
use veilformer_models::{Checkpoint, ModelConfig, random_checkpoint};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_runtime::{
    CostTable, PROGRAM_DIGEST, Server, ServerBundle, machine_name, measure, measure_deadline,
    plan_scheduled, report,
};
use veilformer_secret::{Encryptor, KeyGenerator, SecureRng};

const GO_ON: &(dyn Fn(usize, usize) -> ControlFlow<()> + Sync) = &|_, _| ControlFlow::Continue(());

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize| args.get(i).map_or("", String::as_str);
    let threads = |text: &str| text.parse().unwrap_or(1);
    match arg(0) {
        "client" => client(arg(1), Path::new(arg(2)), 1),
        "measure" => measure_machine(Path::new(arg(1)), threads(arg(2))),
        "serve" => serve(Path::new(arg(1)), threads(arg(2)), true),
        "serve-unscheduled" => serve(Path::new(arg(1)), threads(arg(2)), false),
        model => {
            let dir = std::env::temp_dir().join(format!("plan_against_run.{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            client(model, &dir, threads(arg(2)));
            let unscheduled = !model.starts_with("bootstrap:");
            let roles = ["measure", "serve"].into_iter();
            for role in roles.chain(unscheduled.then_some("serve-unscheduled")) {
                println!("--- {role}");
                let me = std::env::current_exe().unwrap();
                let mut child = Command::new(me);
                child.arg(role).arg(&dir).arg(threads(arg(1)).to_string());
                assert!(child.status().unwrap().success());
            }
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
}

fn checkpoint(model: &str) -> Checkpoint {
    if model == "unshipped" {
        let json = r#"{"model_type":"veilformer-poly","format_version":1,"hidden_size":48,
            "num_hidden_layers":1,"num_attention_heads":3,"head_dim":16,"intermediate_size":80,
            "max_position_embeddings":32,"vocab_size":300,
            "attention":{"kind":"power","power":2,"length_scaling":"1/n"},
            "activation":{"kind":"polynomial","degree":2},"normalization":"batch",
            "norm_eps":1e-5,"pooling":"mean","id2label":{"0":"a","1":"b","2":"c"}}"#;
        let config = ModelConfig::from_json(json.as_bytes()).unwrap();
        return random_checkpoint(&config, 5).unwrap();
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/sst2-poly");
    let folder = if model.is_empty() {
        shipped
    } else {
        PathBuf::from(model)
    };
    Checkpoint::load(&folder).unwrap()
}

/// What goes in of a program: the slots of its inputs, each with its level.
type Inputs = Vec<(Vec<f64>, usize)>;

/// A pair of values, bootstrapped and multiplied.
fn bootstrapped(preset: &str) -> (Params, CiphertextProgram, Inputs) {
    let preset = Preset::named(preset).unwrap();
    let params = preset.validate().unwrap();
    let mut r = Recorder::new(&params);
    let which = r.bootstrap_entry(&preset.bootstrap, Content::Complex);
    let which = which.unwrap();
    r.section("bootstrap");
    let level = r.bootstrap_info(which).unwrap().input_level;
    let (a, b) = (r.input(level, 1.0).unwrap(), r.input(level, 1.0).unwrap());
    let pair = r.bootstraps(&[&a, &b], which).unwrap();
    r.section("product");
    let product = r.mul(&pair[0], &pair[1]).unwrap();
    let wave = |k: usize| {
        let value = |j: usize| ((j * k) as f64).sin();
        ((0..params.slots()).map(value).collect(), level)
    };
    let inputs = vec![wave(3), wave(7)];
    let program = r.finish(vec![product]);
    (params, program, inputs)
}

fn client(model: &str, dir: &Path, batch: usize) {
    let (params, program, inputs) = match model.strip_prefix("bootstrap:") {
        Some(preset) => bootstrapped(preset),
        None => compiled(model, batch),
    };
    let params = &params;
    let bundle = ServerBundle::new(params.clone(), program, "model", [0; 32]).unwrap();
    std::fs::write(dir.join("server"), bundle.to_bytes().unwrap()).unwrap();
    let mut generator = KeyGenerator::new(params, SecureRng::from_os().unwrap());
    let secret = generator.secret_key().unwrap();
    let file = std::io::BufWriter::new(std::fs::File::create(dir.join("keys")).unwrap());
    let digest = bundle.program_digest();
    let (keys, go_on) = (bundle.keys(), &mut |_, _| ControlFlow::Continue(()));
    generator
        .write_evaluation_keys(&secret, keys, digest, file, go_on)
        .unwrap();
    let mut encryptor = Encryptor::new(&secret, SecureRng::from_os().unwrap()).unwrap();
    let encrypted = inputs.iter().map(|(slots, level)| {
        let slots = SlotVector::real(slots);
        encryptor.encrypt(&slots, *level).unwrap()
    });
    let inputs: Vec<_> = encrypted.collect();
    let mut writer = Writer::new(Kind::Ciphertexts, Some(params)).unwrap();
    writer.section(PROGRAM_DIGEST, digest.to_vec());
    writer.section(SENTENCES, (batch as u32).to_le_bytes().to_vec());
    append_ciphertexts(&mut writer, params, &inputs).unwrap();
    std::fs::write(dir.join("inputs"), writer.to_bytes().unwrap()).unwrap();
}

fn compiled(model: &str, batch: usize) -> (Params, CiphertextProgram, Inputs) {
    let model = checkpoint(model);
    let program = model.tensor_program("model");
    let vocabulary = model.config.vocab_size as u32;
    let rows = |n: usize, seed: u32| -> Vec<Vec<f64>> {
        let ids: Vec<u32> = (0..n as u32)
            .map(|t| (t * 7 + seed * 13 + t * t * seed) % vocabulary)
            .collect();
        model.rows(&ids).unwrap()
    };
    let options = Options {
        security: SecurityLevel::Bits128,
        calibration: (1..=program.max_tokens)
            .zip(1..)
            .map(|(n, s)| rows(n, s))
            .collect(),
        margin: DEFAULT_MARGIN,
        tokens: None,
        batch,
    };
    let compiled = compile(&program, &options).unwrap();
    let (params, signature) = (&compiled.params, &compiled.signature);
    let tokens = rows(program.max_tokens / 2, 3);
    let packed = signature.inputs.iter().map(|spec| {
        let slots = signature.pack(spec, &vec![&tokens; batch], params.slots());
        (slots, spec.level)
    });
    let inputs = packed.collect();
    (compiled.params, compiled.program, inputs)
}

fn open(dir: &Path) -> (ServerBundle, Cpu, String) {
    let bundle = ServerBundle::from_bytes(&std::fs::read(dir.join("server")).unwrap()).unwrap();
    let config = CpuConfig { isa: Isa::detect() };
    let backend = Cpu::new(bundle.params().chain().clone(), config).unwrap();
    let machine = machine_name(&format!("{:?}", config.isa));
    (bundle, backend, machine)
}

fn measure_machine(dir: &Path, threads: usize) {
    let (bundle, backend, machine) = open(dir);
    let started = Instant::now();
    let (program, params) = (bundle.program(), bundle.params());
    let mut table = CostTable::empty(params, machine.as_str());
    let how = (threads, measure_deadline(program));
    measure(program, params, &backend, &mut table, how, GO_ON).unwrap();
    println!(
        "measured {machine} in {:.1} s:",
        started.elapsed().as_secs_f64()
    );
    for ((cost, level), seconds) in &table.seconds {
        println!(
            "  {:18} level {level:2} {:9.3} ms",
            format!("{cost:?}"),
            seconds * 1e3
        );
    }
    for (number, seconds) in table.maps.values().enumerate() {
        println!("  map {number:2} {:9.3} ms", seconds * 1e3);
    }
    println!("  slowdown {:?}, help {:?}", table.slowdown, table.helped);
    table.save(&dir.join("costs")).unwrap();
}

fn serve(dir: &Path, threads: usize, scheduled: bool) {
    let (bundle, backend, machine) = open(dir);
    let costs = CostTable::load(&dir.join("costs"), &machine, bundle.params()).unwrap();
    let (program, params, keys) = (bundle.program(), bundle.params(), bundle.keys());
    let program_has_bootstraps = !program.bootstraps.is_empty();
    let device = match scheduled {
        true => schedule(program, params, threads),
        false => unscheduled(program, params, threads),
    };
    let planned = plan_scheduled((program, &device), params, keys, &costs).unwrap();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    pool.install(|| {
        let started = Instant::now();
        let mut server = Server::open_scheduled(bundle, backend, device).unwrap();
        let opened = started.elapsed().as_secs_f64();
        let keys = std::fs::File::open(dir.join("keys")).unwrap();
        let key_bytes = keys.metadata().unwrap().len();
        server.load_keys(keys, GO_ON).unwrap();
        let loaded = started.elapsed().as_secs_f64();
        println!("opened {opened:.3} s, keys loaded {loaded:.3} s");
        let inputs = std::fs::read(dir.join("inputs")).unwrap();
        let count = if program_has_bootstraps { 3 } else { 7 };
        let mut runs: Vec<_> = (0..count)
            .map(|_| server.run(&inputs, GO_ON).unwrap())
            .collect();
        runs.sort_by(|a, b| a.stats.seconds.total_cmp(&b.stats.seconds));
        let run = &runs[runs.len() / 2];
        print!("{}", report(&planned, &run.stats));
        let line = |name: &str, planned: u64, measured: u64| {
            let off = (planned as f64 / measured as f64 - 1.0) * 100.0;
            println!("{name:40} {planned:>10} {measured:>10} {off:>+6.0}%");
        };
        line(
            "load, ms",
            (planned.load_seconds * 1e3) as u64,
            (loaded * 1e3) as u64,
        );
        line("bytes of keys", planned.key_bytes, key_bytes);
        line("bytes up", planned.ciphertext_bytes_up, inputs.len() as u64);
        line(
            "bytes down",
            planned.ciphertext_bytes_down,
            run.answer.len() as u64,
        );
        line(
            "multiplications",
            planned.multiplications,
            run.stats.multiplications,
        );
        line("peak memory", planned.peak_memory_bytes, peak_resident());
        println!("{:40} {:>10}", "buffers set aside", planned.buffer_bytes);
        println!("one inference by kind ({} threads):", planned.threads);
        for k in &run.stats.kinds {
            println!(
                "  {:18} {:4} x, {:4} key switches, {:8.1} ms",
                k.kind,
                k.instructions,
                k.key_switches,
                k.seconds * 1e3
            );
        }
    });
}

/// Peak resident set of this process in bytes.
fn peak_resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    let number = line.and_then(|l| l.split_whitespace().nth(1));
    number.and_then(|n| n.parse::<u64>().ok()).unwrap_or(1) * 1024
}
