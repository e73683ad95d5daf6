//! A program with bootstraps, from its bundle's file to decrypted answers, planned and simulated.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Cursor;
use std::time::Duration;

use support::{Client, GO_ON};
use veilformer_circuits::bootstrap::Content;
use veilformer_circuits::testing::toy_bootstrap;
use veilformer_ckks::container::{Kind, Reader, Tag, read_ciphertexts};
use veilformer_ckks::testing::toy_params;
use veilformer_ckks::{KeyPurpose, Ops, Params, SecretKind};
use veilformer_ir::ciphertext::{CiphertextProgram, Recorder};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_runtime::{
    CostTable, OpKind, RuntimeError, Server, ServerBundle, Simulator, measure, plan,
};
use veilformer_secret::Decryptor;

/// Two inputs as a pair, their product a second time; both results and it go back.
fn program(params: &Params) -> CiphertextProgram {
    program_of(params, [Content::Complex, Content::Real])
}

fn program_of(params: &Params, [complex, real]: [Content; 2]) -> CiphertextProgram {
    let (_, spec) = toy_bootstrap(params.log_n());
    let mut r = Recorder::new(params);
    let complex = r.bootstrap_entry(&spec, complex).unwrap();
    let real = r.bootstrap_entry(&spec, real).unwrap();
    r.section("first");
    let a = r.input(4, 1.0).unwrap();
    let b = r.input(4, 1.0).unwrap();
    let pair = r.bootstraps(&[&a, &b], complex).unwrap();
    r.section("second");
    let product = r.mul(&pair[0], &pair[1]).unwrap();
    r.tighten(product, 1.0);
    let again = r.bootstrap(&product, real).unwrap();
    let program = r.finish(vec![again, pair[1]]);
    program.verify(params).unwrap();
    program
}

fn backend(params: &Params) -> Cpu {
    Cpu::new(params.chain().clone(), CpuConfig { isa: Isa::detect() }).unwrap()
}

#[test]
fn from_a_file_to_answers() {
    answers_of([Content::Complex, Content::Real]);
}

/// Both kinds of values by one entry of the table; keys are those that it says, and no others.
#[test]
fn from_a_file_to_answers_that_repeat() {
    answers_of([Content::PeriodicComplex(64); 2]);
}

fn answers_of(contents: [Content; 2]) {
    let (params, _) = toy_bootstrap(10);
    let program = program_of(&params, contents);
    let bundle = ServerBundle::new(params.clone(), program, "toy", [3; 32]).unwrap();
    let again = ServerBundle::from_bytes(&bundle.to_bytes().unwrap()).unwrap();
    assert_eq!(again.program(), bundle.program());
    assert_eq!(again.content_digest(), bundle.content_digest());
    let (bundle, mut client) = (again, Client::new(&params, 5));
    let keys = client.keys(&bundle);
    let period = contents[0].period().unwrap_or(params.slots());
    let inputs = client.encrypt_periodic(2, 4, period);
    let file = client.file(&inputs, bundle.program_digest());
    let costs = CostTable::empty(&params, "none");
    let planned = plan(bundle.program(), &params, bundle.keys(), &costs, 2).unwrap();

    let mut server = Server::open(bundle.clone(), backend(&params)).unwrap();
    server.load_keys(Cursor::new(&keys), GO_ON).unwrap();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .build()
        .unwrap();
    let run = pool.install(|| server.run(&file, GO_ON).unwrap());
    assert_eq!(planned.key_bytes, keys.len() as u64);
    assert_eq!(planned.key_switches, run.stats.key_switches);
    assert_eq!(planned.multiplications, run.stats.multiplications);
    assert_eq!(planned.bootstraps, 2);
    // Two threads can take twice the time that passes, and a clock of the system counts in steps.
    let cpu = run.stats.cpu_seconds;
    assert_eq!(cpu.is_some(), cfg!(unix));
    assert!(cpu.is_none_or(|cpu| cpu > 0.0));
    let kinds = run.stats.kinds.iter();
    let kind = kinds.clone().find(|k| k.kind == OpKind::Bootstrap).unwrap();
    assert_eq!(kind.instructions, 2);

    // Answers are those of a simulation, up to noise of its size.
    let decryptor = Decryptor::new(&client.secret).unwrap();
    let open = |ct: &veilformer_ckks::StoredCiphertext| {
        let ct = ct.expand(&params).unwrap();
        decryptor.decrypt(&ct).unwrap().reveal_to_owner().unwrap()
    };
    let slots = |ct| open(ct).iter().map(|z| z.re).collect::<Vec<f64>>();
    let inputs: Vec<Vec<f64>> = inputs.iter().map(slots).collect();
    let mut simulator =
        Simulator::new(bundle.program(), &params, SecretKind::DenseTernary).unwrap();
    let simulated = simulator.run(&inputs, 1).unwrap();
    assert!(simulated.violations.is_empty());
    let reader = Reader::open_for(&run.answer, Kind::Answer, &params).unwrap();
    let answers = read_ciphertexts(&reader, &params).unwrap();
    for (answer, simulated) in answers.iter().zip(&simulated.outputs) {
        let error = open(answer)
            .iter()
            .zip(simulated)
            .fold(0.0f64, |m, (a, b)| m.max((a - b).re.abs()));
        assert!((1e-9..1e-5).contains(&error), "{error:e}");
    }
    // Three values went through bootstraps.
    let seen = &simulated.bootstraps;
    let sections: Vec<&str> = seen.iter().map(|b| b.section.as_str()).collect();
    assert_eq!(sections, ["first", "first", "second"]);
    for b in seen {
        assert!((0.1..=1.0).contains(&b.found) && b.bound == 1.0, "{b:?}");
        // A toy ring has few slots, of which the worst is less bad than of many.
        assert!((0.1..4.0).contains(&(b.error / b.predicted)), "{b:?}");
    }
}

#[test]
fn plans_know_what_is_inside() {
    let (params, _) = toy_bootstrap(10);
    let bundle = ServerBundle::new(params.clone(), program(&params), "toy", [3; 32]).unwrap();
    let program = bundle.program();
    let mut table = CostTable::empty(&params, "test");
    let how = (1, Duration::from_secs(2));
    measure(program, &params, &backend(&params), &mut table, how, GO_ON).unwrap();
    assert!(table.covers(program, &params, 1));
    let planned = plan(program, &params, bundle.keys(), &table, 1).unwrap();
    let all: f64 = planned.per_section.iter().map(|s| s.seconds).sum();
    assert!(planned.bootstrap_seconds > 0.9 * all && planned.bootstrap_seconds < all);
    // Maps are taken as they were measured, those inside as well.
    assert!(!table.maps.is_empty());
    let mut slow = table.clone();
    slow.maps.values_mut().for_each(|seconds| *seconds = 1000.0);
    let slow = plan(program, &params, bundle.keys(), &slow, 1).unwrap();
    assert!(planned.seconds < 1000.0 && slow.bootstrap_seconds > 1000.0);
    // One thread does one thing after the other.
    let (cpu, clock) = (planned.cpu_seconds, planned.seconds);
    assert!((cpu / clock - 1.0).abs() < 1e-9, "{cpu} {clock}");
    assert_eq!((planned.key_switches, planned.multiplications), {
        let [complex, real] = &program.bootstraps[..] else {
            panic!("two entries")
        };
        (
            (complex.key_switches + real.key_switches + 1) as u64,
            (complex.multiplications + real.multiplications + 1) as u64,
        )
    });
    // The same keys with tables that nothing uses: what is inside of one has plaintexts, and complex
    // and real values have the same.
    let (_, spec) = toy_bootstrap(params.log_n());
    let resident = |contents: &[Content]| {
        let mut r = Recorder::new(&params);
        for content in contents {
            r.bootstrap_entry(&spec, *content).unwrap();
        }
        let a = r.input(4, 1.0).unwrap();
        let unused = r.finish(vec![a]);
        let planned = plan(&unused, &params, bundle.keys(), &table, 1).unwrap();
        planned.resident_bytes
    };
    let one = resident(&[Content::Complex]);
    let plains = program.bootstraps[0].inside(&params).unwrap().plains.len();
    // A plaintext has a buffer of at least 512 bytes.
    assert!(plains > 50 && one - resident(&[]) > 512 * plains as u64);
    assert_eq!(resident(&[Content::Complex, Content::Real]), one);
    assert!(resident(&[Content::Complex, Content::Periodic(8)]) > one);
    assert_eq!(planned.resident_bytes, one);
    let raised = veilformer_runtime::ciphertext_memory(&params, params.max_level());
    assert!(planned.peak_ciphertext_bytes < 3 * raised);
}

#[test]
fn a_slot_out_of_range_is_named_by_a_simulation() {
    let (params, _) = toy_bootstrap(9);
    let program = program(&params);
    let mut simulator = Simulator::new(&program, &params, SecretKind::DenseTernary).unwrap();
    let mut a = vec![0.5; params.slots()];
    a[7] = -1.75;
    let message = match simulator.run(&[a, vec![0.5; params.slots()]], 1) {
        Err(error @ RuntimeError::Range(_)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    for part in [
        "first: bootstrap",
        "slot 7 holds -1.75",
        "at most 1",
        "value c0",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

/// Bundles of older versions have no table of bootstraps, and such without bootstraps have none now.
#[test]
fn bundles_without_bootstraps_are_what_they_were() {
    // Written before there were bootstraps, and with the primes that were chosen then.
    let old = include_bytes!("corpus/server-bundle-1.veil");
    let params = ServerBundle::from_bytes(old).unwrap().params().clone();
    assert_eq!(params.spec(), toy_params().spec());
    let bundle = ServerBundle::new(params.clone(), support::program(&params), "toy", [3; 32]);
    let bytes = bundle.unwrap().to_bytes().unwrap();
    let reader = Reader::open(&bytes).unwrap();
    assert!(reader.sections().all(|(tag, _)| tag != Tag(*b"BOOT")));
    assert!(bytes[..] == old[..], "writing is reproducible");
    // The first with them.
    let stored = include_bytes!("corpus/server-bundle-2.veil");
    let stored = ServerBundle::from_bytes(stored).unwrap();
    // It is older than bands of levels.
    let params = stored.params().clone();
    assert_eq!(params.bands(KeyPurpose::Rotation(1)).len(), 1);
    assert_eq!(params.primes(), toy_bootstrap(9).0.primes());
    let bundle = ServerBundle::new(params.clone(), program(&params), "toy", [3; 32]).unwrap();
    // Bounds of values are those of the noise model of its time.
    let (old, new) = (stored.program(), bundle.program());
    assert_eq!(old.instructions, new.instructions);
    assert_eq!(old.plains, new.plains);
    assert_eq!(old.bootstraps, new.bootstraps);
}

#[test]
#[ignore = "writes the corpus"]
fn write_corpus() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let (params, _) = toy_bootstrap(9);
    let bundle = ServerBundle::new(params.clone(), program(&params), "toy", [3; 32]).unwrap();
    std::fs::write(
        format!("{folder}/server-bundle-2.veil"),
        bundle.to_bytes().unwrap(),
    )
    .unwrap();
}
