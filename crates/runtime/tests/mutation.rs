//! At least 10^5 mutated files per parser: none panics, and a bundle that is accepted can be
//! planned, prepared and run without a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use support::{Client, GO_ON, program};
use veilformer_ckks::testing::{mutate, tiny_params};
use veilformer_ring::{Cpu, CpuConfig};
use veilformer_runtime::{Cost, CostTable, Server, ServerBundle, plan};

const RUNS: u64 = 100_000;

fn exercise(bundle: ServerBundle) {
    let params = bundle.params().clone();
    let costs = CostTable::empty(&params, "none");
    plan(bundle.program(), &params, bundle.keys(), &costs, 2).unwrap();
    let mut client = Client::new(&params, 1);
    let keys = client.keys(&bundle);
    let backend = Cpu::new(params.chain().clone(), CpuConfig::default()).unwrap();
    let inputs = &bundle.program().inputs;
    let cts: Vec<_> = inputs
        .iter()
        .flat_map(|i| client.encrypt(1, i.level))
        .collect();
    let file = client.file(&cts, bundle.program_digest());
    // Weights that fit no modulus are refused here, which is an error and no panic.
    if let Ok(mut server) = Server::open(bundle, backend) {
        server.load_keys(Cursor::new(&keys), GO_ON).unwrap();
        let _ = server.run(&file, GO_ON);
    }
}

#[test]
fn server_bundles() {
    let params = tiny_params();
    let bundle = ServerBundle::new(params.clone(), program(&params), "toy", [0; 32]).unwrap();
    let bytes = bundle.to_bytes().unwrap();
    let mut accepted = 0;
    for seed in 0..RUNS {
        let mutated = mutate(&bytes, seed);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let Ok(bundle) = ServerBundle::from_bytes(&mutated) else {
                return 0;
            };
            exercise(bundle);
            1
        }));
        match outcome {
            Ok(n) => accepted += n,
            Err(_) => panic!("mutation {seed} panicked"),
        }
    }
    assert!(accepted > 20 && accepted < RUNS / 2, "{accepted} accepted");
}

#[test]
fn cost_tables() {
    let params = tiny_params();
    let bundle = ServerBundle::new(params.clone(), program(&params), "toy", [0; 32]).unwrap();
    let mut table = CostTable::empty(&params, "a machine");
    for level in 0..4 {
        table.seconds.insert((Cost::RotateStep, level), 1e-3);
        table.seconds.insert((Cost::MulSum, level), 2e-3);
    }
    table.slowdown.insert(2, 1.25);
    table.helped.insert(2, 1.5);
    let bytes = table.to_bytes().unwrap();
    let mut accepted = 0;
    for seed in 0..RUNS {
        if let Ok(table) = CostTable::from_bytes(&mutate(&bytes, seed)) {
            accepted += 1;
            plan(bundle.program(), &params, bundle.keys(), &table, 2).unwrap();
        }
    }
    assert!(accepted > 20 && accepted < RUNS, "{accepted} accepted");
}
