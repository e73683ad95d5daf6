//! What `plan` says exactly is exact, and its fold is the executor's.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::io::Cursor;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use support::{Client, GO_ON, program};
use veilformer_ckks::testing::toy_params;
use veilformer_ckks::{EvaluationKeys, Ops};
use veilformer_compiler::schedule::schedule;
use veilformer_ir::ciphertext::{PlainPattern, Recorder};
use veilformer_ring::{
    Backend, Basis, Chain, Cpu, CpuConfig, CpuKey, CpuPlain, Form, GaloisElement, Isa, Pair,
    PairRef, PlainPoly, Result, RnsPoly, SwitchingKey, TransformPlan,
};
use veilformer_runtime::{
    Cost, CostTable, RunStats, RuntimeError, Server, ServerBundle, Stream, machine_name, measure,
    plan, report,
};

/// The CPU backend, counting the key switches that it is asked for.
struct Counting {
    cpu: Cpu,
    switches: AtomicU64,
}

impl Counting {
    fn count(&self, switches: usize) {
        self.switches.fetch_add(switches as u64, Ordering::Relaxed);
    }
}

#[allow(clippy::type_complexity)]
impl Backend for Counting {
    type Poly = RnsPoly;
    type Key = CpuKey;
    type Plain = CpuPlain;

    fn chain(&self) -> &Arc<Chain> {
        self.cpu.chain()
    }
    fn import(&self, poly: RnsPoly) -> Result<RnsPoly> {
        self.cpu.import(poly)
    }
    fn export(&self, poly: &RnsPoly) -> Result<RnsPoly> {
        self.cpu.export(poly)
    }
    fn duplicate(&self, poly: &RnsPoly) -> RnsPoly {
        self.cpu.duplicate(poly)
    }
    fn basis(&self, poly: &RnsPoly) -> Basis {
        self.cpu.basis(poly)
    }
    fn form(&self, poly: &RnsPoly) -> Form {
        self.cpu.form(poly)
    }
    fn prepare_key(&self, key: &SwitchingKey) -> Result<CpuKey> {
        self.cpu.prepare_key(key)
    }
    fn key_galois(&self, key: &CpuKey) -> GaloisElement {
        self.cpu.key_galois(key)
    }
    fn prepare_plain(&self, plain: &PlainPoly) -> Result<CpuPlain> {
        self.cpu.prepare_plain(plain)
    }
    fn forward_ntt(&self, poly: &mut RnsPoly) -> Result<()> {
        self.cpu.forward_ntt(poly)
    }
    fn inverse_ntt(&self, poly: &mut RnsPoly) -> Result<()> {
        self.cpu.inverse_ntt(poly)
    }
    fn add(&self, a: &RnsPoly, b: &RnsPoly) -> Result<RnsPoly> {
        self.cpu.add(a, b)
    }
    fn sub(&self, a: &RnsPoly, b: &RnsPoly) -> Result<RnsPoly> {
        self.cpu.sub(a, b)
    }
    fn add_assign(&self, a: &mut RnsPoly, b: &RnsPoly) -> Result<()> {
        self.cpu.add_assign(a, b)
    }
    fn sub_assign(&self, a: &mut RnsPoly, b: &RnsPoly) -> Result<()> {
        self.cpu.sub_assign(a, b)
    }
    fn neg_assign(&self, a: &mut RnsPoly) -> Result<()> {
        self.cpu.neg_assign(a)
    }
    fn mul(&self, a: &RnsPoly, b: &RnsPoly) -> Result<RnsPoly> {
        self.cpu.mul(a, b)
    }
    fn mul_acc(&self, acc: &mut RnsPoly, a: &RnsPoly, b: &RnsPoly) -> Result<()> {
        self.cpu.mul_acc(acc, a, b)
    }
    fn mul_plain_sum(&self, terms: &[(&RnsPoly, &CpuPlain)]) -> Result<RnsPoly> {
        self.cpu.mul_plain_sum(terms)
    }
    fn add_plain(&self, a: &RnsPoly, plain: &CpuPlain) -> Result<RnsPoly> {
        self.cpu.add_plain(a, plain)
    }
    fn mul_scalar_assign(&self, a: &mut RnsPoly, residues: &[u64]) -> Result<()> {
        self.cpu.mul_scalar_assign(a, residues)
    }
    fn automorphism(&self, poly: &RnsPoly, g: GaloisElement) -> Result<RnsPoly> {
        self.cpu.automorphism(poly, g)
    }
    fn restrict(&self, poly: &RnsPoly, to: Basis) -> Result<RnsPoly> {
        self.cpu.restrict(poly, to)
    }
    fn extend(&self, poly: &RnsPoly, to: Basis) -> Result<RnsPoly> {
        self.cpu.extend(poly, to)
    }
    fn div_round(&self, poly: &RnsPoly, drop: Basis) -> Result<RnsPoly> {
        self.cpu.div_round(poly, drop)
    }
    fn rescale_rational(&self, poly: &RnsPoly, drop: Basis, add: Basis) -> Result<RnsPoly> {
        self.cpu.rescale_rational(poly, drop, add)
    }
    // The coarse operations of the trait that are not here end in these.
    fn key_switch_sum(
        &self,
        add: Option<PairRef<'_, RnsPoly>>,
        terms: &[(&RnsPoly, &CpuKey)],
        drop: Basis,
    ) -> Result<Pair<RnsPoly>> {
        self.count(terms.len());
        self.cpu.key_switch_sum(add, terms, drop)
    }
    fn rotate_many(&self, c: PairRef<'_, RnsPoly>, keys: &[&CpuKey]) -> Result<Vec<Pair<RnsPoly>>> {
        self.count(keys.len());
        self.cpu.rotate_many(c, keys)
    }
    fn linear_transform(
        &self,
        inputs: &[PairRef<'_, RnsPoly>],
        plan: &TransformPlan<'_, Self>,
        drop: Basis,
    ) -> Result<Vec<Pair<RnsPoly>>> {
        let giants = || plan.outputs.iter().flat_map(|o| &o.giants);
        let terms = giants().flat_map(|g| &g.terms);
        let babies: BTreeSet<_> = terms.filter_map(|t| Some((t.input, t.baby?))).collect();
        self.count(babies.len() + giants().filter(|g| g.key.is_some()).count());
        let plan = TransformPlan {
            keys: plan.keys.clone(),
            plains: plan.plains.clone(),
            outputs: plan.outputs.clone(),
        };
        self.cpu.linear_transform(inputs, &plan, drop)
    }
}

fn toy() -> (ServerBundle, Client) {
    let params = toy_params();
    let bundle = ServerBundle::new(params.clone(), program(&params), "toy", [0; 32]).unwrap();
    (bundle, Client::new(&params, 7))
}

fn counting(bundle: &ServerBundle) -> Counting {
    let config = CpuConfig { isa: Isa::detect() };
    Counting {
        cpu: Cpu::new(bundle.params().chain().clone(), config).unwrap(),
        switches: AtomicU64::new(0),
    }
}

#[test]
fn bytes_and_counts_are_exact() {
    let (bundle, mut client) = toy();
    let keys = client.keys(&bundle);
    let file = client.file(&client.encrypt(2, 3), bundle.program_digest());
    let (program, params) = (bundle.program().clone(), bundle.params().clone());
    let costs = CostTable::empty(&params, "none");
    let planned = plan(&program, &params, bundle.keys(), &costs, 1).unwrap();

    let backend = counting(&bundle);
    let mut server = Server::open(bundle.clone(), backend).unwrap();
    server.load_keys(Cursor::new(&keys), GO_ON).unwrap();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    let run = pool.install(|| server.run(&file, GO_ON).unwrap());
    assert_eq!(planned.key_bytes, keys.len() as u64);
    assert_eq!(planned.ciphertext_bytes_up, file.len() as u64);
    assert_eq!(planned.ciphertext_bytes_down, run.answer.len() as u64);
    assert_eq!(planned.key_switches, run.stats.key_switches);
    assert_eq!(planned.multiplications, run.stats.multiplications);
    assert_eq!(planned.multiplications, 2);
    assert_eq!(planned.levels, 3);
    assert_eq!(planned.bootstraps, 0);
    assert_eq!(
        planned.peak_ciphertext_bytes,
        run.stats.peak_ciphertext_bytes
    );
    // 3 rotations, 1 relinearization, 2 baby steps, 1 giant step, 1 conjugation.
    assert_eq!(planned.key_switches, 8);
    let sections = planned.per_section.iter().map(|s| s.key_switches);
    assert_eq!(sections.collect::<Vec<_>>(), [4, 4]);
    let shown = report(&planned, &run.stats).to_string();
    assert!(
        shown.contains("first") && shown.contains("in all"),
        "{shown}"
    );
}

#[test]
fn a_plan_within_less_memory_keeps_fewer_weights() {
    let (bundle, _) = toy();
    let (program, params) = (bundle.program(), bundle.params());
    let backend = counting(&bundle);
    let mut costs = CostTable::empty(params, "test");
    let how = (2, Duration::from_secs(5));
    measure(program, params, &backend, &mut costs, how, GO_ON).unwrap();
    let all = plan(program, params, bundle.keys(), &costs, 2).unwrap();
    assert!(all.weight_bytes > 2000 && all.weight_seconds > 0.0);
    assert!(all.most_weight_bytes <= all.weight_bytes);
    // Some plaintexts here have a period. Beside its words each takes a few hundred bytes. What has no period is
    // packed: to whole bytes, or to seven for more than 48 bits.
    let packed = |i: usize| match 64 - params.primes()[i].leading_zeros() {
        ..=40 => 5 * params.n(),
        41..=48 => 6 * params.n(),
        _ => 7 * params.n(),
    };
    let full = program.plains.iter().zip(program.extended_plains());
    let full = full.map(|(plain, extended)| {
        let basis = match extended {
            true => params.rotation_basis(plain.level),
            false => params.basis_at(plain.level),
        };
        let is_constant = matches!(plain.pattern, PlainPattern::Constant(_));
        match is_constant {
            true => 8 * basis.len() as u64,
            false => basis.iter().map(packed).sum::<usize>() as u64,
        }
    });
    let (full, small) = (full.sum::<u64>(), 1024 * program.plains.len() as u64);
    assert!((full..full + small).contains(&all.full_weight_bytes));
    assert!(all.weight_bytes < all.full_weight_bytes);
    let (same, kept) = all.within(all.peak_memory_bytes);
    assert_eq!((same, kept), (all.clone(), u64::MAX));
    let beside = 2 * all.most_weight_bytes;
    let (none, kept) = all.within(1000);
    assert_eq!(kept, 0);
    let left_out = all.peak_memory_bytes - all.weight_bytes;
    assert_eq!(none.peak_memory_bytes, left_out + beside);
    assert!((none.seconds - all.seconds - all.weight_seconds).abs() < 1e-9);
    // A byte too little leaves out what one instruction reads as well.
    let (some, kept) = all.within(all.peak_memory_bytes - 1);
    assert_eq!(kept, all.weight_bytes.saturating_sub(1 + beside));
    assert!(some.seconds > all.seconds && some.resident_bytes < all.resident_bytes);
}

#[test]
fn the_backend_does_as_many_key_switches_as_are_counted() {
    let (bundle, mut client) = toy();
    let (program, params) = (bundle.program(), bundle.params());
    let backend = counting(&bundle);
    let stored = client.keys(&bundle);
    let reader = veilformer_ckks::container::Reader::open(&stored).unwrap();
    let stored = veilformer_ckks::container::read_evaluation_keys(&reader, params).unwrap();
    let keys = EvaluationKeys::prepare(params, &backend, &stored).unwrap();
    let evaluator = veilformer_ckks::Evaluator::new(params, &backend, &keys).unwrap();
    let prepared = veilformer_runtime::Prepared::new(program, &evaluator).unwrap();
    let inputs = client.encrypt(2, 3);
    let device = schedule(program, params, 2);
    let stream = Stream::new(program, &device).unwrap();
    let input = |i: usize| Ok(evaluator.import(inputs[i].expand(params)?)?);
    let (_, stats): (_, RunStats) =
        veilformer_runtime::run((program, &stream), &prepared, &evaluator, &input, GO_ON).unwrap();
    assert_eq!(stats.key_switches, backend.switches.load(Ordering::Relaxed));
    let instructions: u64 = stats.kinds.iter().map(|k| k.instructions).sum();
    assert_eq!(instructions, program.instructions.len() as u64);
}

#[test]
fn measured_costs_cover_the_program_and_survive_a_file() {
    let (bundle, _) = toy();
    let (program, params) = (bundle.program(), bundle.params());
    let backend = counting(&bundle);
    let machine = machine_name("test");
    let nothing = || CostTable::empty(params, machine.as_str());
    let measured = |mut table: CostTable, threads, seconds| {
        let how = (threads, Duration::from_secs(seconds));
        measure(program, params, &backend, &mut table, how, GO_ON).unwrap();
        table
    };
    let table = measured(nothing(), 2, 5);
    assert!(table.covers(program, params, 2) && !table.covers(program, params, 3));
    // However little time there is.
    let hasty = measured(nothing(), 2, 0);
    assert!(hasty.covers(program, params, 2));
    // What is known is not measured again; what is missing is.
    let mut odd = table.clone();
    odd.maps.values_mut().for_each(|seconds| *seconds = 1000.0);
    odd.slowdown.insert(2, 1.25);
    let more = measured(odd.clone(), 3, 0);
    assert!(more.covers(program, params, 2) && more.covers(program, params, 3));
    assert_eq!((&more.maps, &more.seconds), (&odd.maps, &odd.seconds));
    assert_eq!(more.slowdown[&2], 1.25);
    let mut less = table.clone();
    less.maps.clear();
    assert!(!less.covers(program, params, 2));
    let again = measured(less, 2, 0);
    assert!(again.covers(program, params, 2) && again.seconds == table.seconds);
    // A plan takes maps as they were measured.
    let seconds = |costs: &CostTable| -> f64 {
        let planned = plan(program, params, bundle.keys(), costs, 1);
        planned.unwrap().seconds
    };
    assert!(seconds(&odd) > 1000.0 && seconds(&table) < 1000.0);
    // Nothing is known of other parameters, or of another version.
    let (mut old, mut other) = (odd.clone(), odd);
    (old.version, other.params_digest) = (0, [0; 32]);
    for foreign in [old, other] {
        let anew = measured(foreign, 2, 0);
        assert!(anew.covers(program, params, 2) && seconds(&anew) < 1000.0);
    }
    // It can be stopped, and what was measured stays.
    let (mut cut, how) = (nothing(), (2, Duration::from_secs(5)));
    let stop = &|done, _| match done {
        2 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let stopped = measure(program, params, &backend, &mut cut, how, stop);
    assert!(matches!(
        stopped,
        Err(RuntimeError::MeasureStopped { done: 2, .. })
    ));
    assert!(cut.maps.len() == table.maps.len() && cut.slowdown.len() == 1);
    assert!(table.at(Cost::RotateStep, 3) > 0.0);
    let planned = plan(program, params, bundle.keys(), &table, 2).unwrap();
    assert!(planned.seconds > 0.0 && planned.load_seconds > 0.0);
    assert!(planned.per_section.iter().all(|s| s.seconds > 0.0));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("costs");
    table.save(&path).unwrap();
    assert_eq!(
        CostTable::load(&path, &machine, params).as_ref(),
        Some(&table)
    );
    assert!(CostTable::load(&path, "another machine", params).is_none());
    std::fs::write(&path, b"nonsense").unwrap();
    assert!(CostTable::load(&path, &machine, params).is_none());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn sums_of_rotations_without_a_map_are_measured() {
    let params = toy_params();
    let mut r = Recorder::new(&params);
    let x = r.input(2, 1.0).unwrap();
    let sum = r.rotate_sum(&x, &[1, 2, 3]).unwrap();
    let bundle = ServerBundle::new(params.clone(), r.finish(vec![sum]), "sum", [1; 32]).unwrap();
    let backend = counting(&bundle);
    let mut table = CostTable::empty(&params, "test");
    let how = (1, Duration::ZERO);
    measure(bundle.program(), &params, &backend, &mut table, how, GO_ON).unwrap();
    assert!(table.covers(bundle.program(), &params, 1));
}

#[test]
fn levels_between_measured_ones_are_interpolated() {
    let params = toy_params();
    let mut table = CostTable::empty(&params, "m");
    assert_eq!(table.at(Cost::Add, 2), 0.0);
    table.seconds.insert((Cost::Add, 1), 2.0);
    assert_eq!(table.at(Cost::Add, 1), 2.0);
    assert_eq!(table.at(Cost::Add, 3), 4.0);
    table.seconds.insert((Cost::Add, 3), 8.0);
    assert_eq!(table.at(Cost::Add, 2), 5.0);
    assert_eq!(table.at(Cost::Add, 0), 1.0);
    assert_eq!(table.at(Cost::AddPlain, 2), 0.0);
    table.slowdown.insert(2, 1.5);
    assert_eq!(
        (table.slowdown(1), table.slowdown(2), table.slowdown(4)),
        (1.0, 1.5, 1.5)
    );
    // One operation has four threads, two have two each, four have one each; unknown help is none.
    assert_eq!(table.speed(1, 4), 1.0);
    table.helped.insert(4, 3.0);
    let each = 1.0 / 1.5;
    assert_eq!((table.speed(1, 4), table.speed(4, 4)), (3.0, each));
    assert!((table.speed(2, 4) - (each + (3.0 - each) / 3.0)).abs() < 1e-12);
    assert_eq!(table.speed(1, 1), 1.0);
}
