//! From arguments to measurements.

use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use veilformer_ckks::Params;
use veilformer_ring::{Cpu, CpuConfig, Isa};

use crate::args::{Args, What};
use crate::bootstrap::{self, PRESETS};
use crate::error::{BenchError, Result};
use crate::interleave::Effort;
use crate::linear::{self, Spec};
use crate::machine::{self, Machine, Set};
use crate::peers::{Peer, Place, Running, Setup, default_dir};
use crate::results::{self, Header, Results};
use crate::roofline;
use crate::scheme::{Op, Setting, Sizes, shape};
use crate::session::{Item, Session};
use crate::threads::{pool, within};

/// Does what the arguments ask for.
///
/// # Errors
/// Arguments that make no sense, or what the libraries say.
pub fn run(args: &Args, stop: &AtomicBool) -> Result<()> {
    check_names(args)?;
    if args.list {
        return list(args);
    }
    match args.what {
        What::Table => return make_table(),
        What::Cards => return make_cards(),
        What::Plot => return make_plots(),
        _ => {}
    }
    let isa = args.isa.map_or_else(best, Isa::from);
    let set = Set::of(isa).ok_or_else(|| {
        BenchError::Usage(format!(
            "this processor has no {isa:?}; choose another --isa"
        ))
    })?;
    if args.what == What::BootstrapRun {
        pin(args)?;
        return one_bootstrap(args, isa);
    }
    eprintln!("measuring what the machine does at most ..");
    let machine = Machine::measure(set);
    eprint!("{machine}");
    pin(args)?;
    let effort = Effort {
        rounds: rounds(args),
        batch: Duration::from_millis(if args.quick { 10 } else { 40 }),
    };
    let mut session = Session {
        machine,
        set,
        effort,
        stop,
        json: args.json,
        rows: Vec::new(),
        bootstraps: Vec::new(),
    };
    let measured = measure(args, &mut session);
    // What is complete is worth keeping even if something failed after it.
    if args.save && !(session.rows.is_empty() && session.bootstraps.is_empty()) {
        let results = Results {
            header: Header::now(&session.machine)?,
            rows: session.rows,
            bootstraps: session.bootstraps,
        };
        let path = results.save(results::folder())?;
        eprintln!("saved: {}", path.display());
    }
    measured
}

/// Rounds by default; those of all groups together are to take less than two minutes if quick.
fn rounds(args: &Args) -> usize {
    let default = match (args.quick, args.what) {
        (true, What::All) => 3,
        (true, _) => 7,
        (false, _) => 15,
    };
    args.rounds.unwrap_or(default).max(1)
}

fn measure(args: &Args, session: &mut Session<'_>) -> Result<()> {
    match args.what {
        What::Ops => operations(args, session),
        What::Ntt => transforms(args, session),
        What::Kernels => kernels(args, session),
        What::Threads => two_threads(args, session),
        What::Linear => products(args, session),
        What::Bootstrap => bootstraps(args, session),
        What::All => {
            operations(args, session)?;
            transforms(args, session)?;
            kernels(args, session)?;
            two_threads(args, session)?;
            products(args, session)
        }
        What::Table | What::Plot | What::Cards | What::BootstrapRun => Ok(()),
    }
}

/// Writes a file beside the results.
fn write(name: &str, content: &[u8]) -> Result<()> {
    let path = results::folder().join(name);
    let what = path.display().to_string();
    std::fs::write(&path, content).map_err(BenchError::io(&what))?;
    eprintln!("written: {what}");
    Ok(())
}

fn make_table() -> Result<()> {
    let newest = Results::newest(results::folder())?;
    write("README.md", results::page(&newest).as_bytes())
}

fn make_cards() -> Result<()> {
    let newest = Results::newest_bootstraps(results::folder())?;
    let (page, path) = (bootstrap::cards::page(&newest)?, bootstrap::cards::path());
    let what = path.display().to_string();
    std::fs::write(path, page).map_err(BenchError::io(&what))?;
    eprintln!("written: {what}");
    Ok(())
}

fn make_plots() -> Result<()> {
    for results in Results::newest_of_machines(results::folder())? {
        let svg = roofline::svg(&results)?;
        let name = format!("roofline-{}", results.header.machine.slug());
        write(&format!("{name}.svg"), svg.as_bytes())?;
        write(&format!("{name}.png"), &roofline::png(&svg)?)?;
    }
    Ok(())
}

fn best() -> Isa {
    Isa::available().into_iter().max().unwrap_or(Isa::Scalar)
}

/// Operations whose gain on two threads is measured.
const THREADED: [Op; 6] = [
    Op::NttForwardSwept,
    Op::Rescale,
    Op::Rotate,
    Op::RotateHoisted,
    Op::MultiplyRelinearizeRescale,
    Op::LinearTransform128,
];

/// What of the operations is transforms alone.
fn transforms_of(ops: &[Op]) -> Vec<Op> {
    ops.iter().copied().filter(|op| op.is_transform()).collect()
}

/// The names that can be measured, each with what it is.
fn names(what: What) -> Vec<(String, String)> {
    let of = |ops: &[Op]| {
        let name = |op: &Op| (op.name().to_owned(), op.text().to_owned());
        ops.iter().map(name).collect::<Vec<_>>()
    };
    let linear = || {
        let name = |spec: &Spec| (spec.name(), spec.text());
        Spec::all().iter().map(name).collect::<Vec<_>>()
    };
    match what {
        What::Ops => of(&Op::ALL),
        What::Ntt => of(&transforms_of(&Op::ALL)),
        What::Threads => of(&THREADED),
        What::Kernels => crate::kernels::names(),
        What::Linear => linear(),
        What::Bootstrap | What::BootstrapRun => {
            let name = |p: &bootstrap::Preset| (p.name.to_owned(), p.text.to_owned());
            PRESETS.iter().map(name).collect()
        }
        What::All => [of(&Op::ALL), crate::kernels::names(), linear()].concat(),
        What::Table | What::Plot | What::Cards => Vec::new(),
    }
}

/// Whether `--only` leaves a name in.
fn wanted(args: &Args, name: &str) -> bool {
    args.only.is_empty() || args.only.iter().any(|only| only == name)
}

/// Those of the operations that `--only` leaves in.
fn chosen(args: &Args, ops: &[Op]) -> Vec<Op> {
    let ops = ops.iter().copied();
    ops.filter(|op| wanted(args, op.name())).collect()
}

/// Every name of `--only` is one.
fn check_names(args: &Args) -> Result<()> {
    let names = names(args.what);
    for only in &args.only {
        if !names.iter().any(|(name, _)| name == only) {
            let names: Vec<&str> = names.iter().map(|n| n.0.as_str()).collect();
            return Err(BenchError::Usage(format!(
                "--only: there is no {only}; there are {}",
                names.join(", ")
            )));
        }
    }
    Ok(())
}

fn list(args: &Args) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for (name, text) in names(args.what) {
        if wanted(args, &name) {
            writeln!(out, "{name:<30} {text}").map_err(BenchError::io("standard output"))?;
        }
    }
    Ok(())
}

/// One thread stays on one core, two on two; so do the drivers of other libraries, which inherit
/// it.
fn pin(args: &Args) -> Result<()> {
    let allowed = machine::allowed();
    let threads = match args.what {
        What::Threads | What::All => allowed.len().min(2),
        _ => usize::from(args.threads),
    };
    let cores = match args.core {
        Some(core) => vec![core],
        None => allowed[allowed.len().saturating_sub(threads)..].to_vec(),
    };
    if machine::pin(&cores) {
        return Ok(());
    }
    if args.core.is_some() {
        return Err(BenchError::Usage(format!(
            "core {cores:?} cannot be had; this process may use {allowed:?}"
        )));
    }
    eprintln!("this system keeps no thread on a core; figures will be noisier");
    Ok(())
}

/// The other libraries that the arguments name, or of those the ones that have nothing but
/// transforms.
fn peers(args: &Args, transforms_only: bool, setup: &Setup) -> Result<Vec<Running>> {
    let Some(named) = &args.peers else {
        return Ok(Vec::new());
    };
    let named = if named.is_empty() {
        &Peer::ALL[..]
    } else {
        named
    };
    let fit = named
        .iter()
        .filter(|p| p.transforms_only() || !transforms_only);
    let fit: Vec<Peer> = fit.copied().collect();
    Ok(Running::start_all(&fit, &place(args)?, setup))
}

/// Where other libraries are.
fn place(args: &Args) -> Result<Place> {
    let dir = args.peers_dir.clone().or_else(default_dir).ok_or_else(|| {
        BenchError::Usage("there is no home folder; name one with --peers-dir".into())
    })?;
    let python = args.python.clone();
    Ok(Place { dir, python })
}

/// Bootstraps, one after another.
fn bootstraps(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let taken = |p: &&bootstrap::Preset| match (p.peer(), args.peers.as_deref()) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(peer), Some(named)) => named.is_empty() || named.contains(&peer),
    };
    let chosen = PRESETS.iter().filter(|p| wanted(args, p.name));
    let chosen: Vec<_> = chosen.filter(taken).copied().collect();
    if chosen.is_empty() {
        return Err(BenchError::Usage(
            "bootstrap: nothing is chosen; --peers names libraries".into(),
        ));
    }
    let plan = bootstrap::Plan {
        rounds: bootstrap_rounds(args),
        threads: usize::from(args.threads),
        place: args.peers.is_some().then(|| place(args)).transpose()?,
        isa: session.set.isa(),
        batch: !args.quick,
    };
    bootstrap::measure(&chosen, &plan, session)
}

/// Bootstraps of every kind of input.
fn bootstrap_rounds(args: &Args) -> usize {
    args.rounds.unwrap_or(if args.quick { 1 } else { 3 }).max(1)
}

/// One of our bootstraps in this process.
fn one_bootstrap(args: &Args, isa: Isa) -> Result<()> {
    let named = |p: &&bootstrap::Preset| args.only.iter().any(|only| only == p.name);
    let Some(setting) = PRESETS.iter().find(named).and_then(|p| p.setting()) else {
        let what = "bootstrap-run: --only names one of our bootstraps";
        return Err(BenchError::Usage(what.into()));
    };
    let effort = bootstrap::Effort {
        rounds: bootstrap_rounds(args),
        threads: usize::from(args.threads),
        isa,
        batch: !args.quick,
    };
    let report = bootstrap::run(setting, &effort)?;
    let text = serde_json::to_string(&report).map_err(BenchError::json("a report"))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").map_err(BenchError::io("standard output"))
}

/// The operations of the scheme at the sizes of the arguments.
fn operations(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let ops = &chosen(args, &Op::ALL)[..];
    if ops.is_empty() {
        return Ok(());
    }
    let params = Sizes::params(args.log_n, args.limbs, args.dnum, args.scale)?;
    let sizes = Sizes::of(&params);
    eprintln!(
        "N=2^{}, {} + {} limbs, {} digits, log QP {:.0}, {} bits of security; making keys ..",
        sizes.log_n, sizes.limbs, sizes.special, sizes.dnum, sizes.log_qp, sizes.security_bits
    );
    let running = peers(args, false, &setup(args, &params, ops))?;
    let setting = Setting::new(&params, session.set.isa(), ops)?;
    let operands = setting.operands(ops)?;
    let pool = pool(usize::from(args.threads))?;
    let mut items = Vec::new();
    for &op in ops {
        items.push(Item {
            op: op.name().to_owned(),
            params: sizes.clone(),
            floor: op.floor(&shape(&params, session.set.isa())),
            threads: usize::from(args.threads),
            ours: within(&pool, operands.case(op)?),
            peers: running.iter().filter_map(|r| r.case(op)).collect(),
        });
    }
    session.measure("ops", items)
}

/// Every kernel of the ring at the sizes of the arguments.
fn kernels(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let params = Sizes::params(args.log_n, args.limbs, args.dnum, args.scale)?;
    let config = CpuConfig {
        isa: session.set.isa(),
    };
    let cpu = Cpu::new(params.chain().clone(), config)?;
    let pool = pool(1)?;
    let items = crate::kernels::kernels(&params, &cpu)?
        .into_iter()
        .filter(|(name, ..)| wanted(args, name))
        .map(|(op, floor, case)| Item {
            op,
            params: Sizes::of(&params),
            floor,
            threads: 1,
            ours: within(&pool, case),
            peers: Vec::new(),
        });
    session.measure("kernels", items.collect())
}

/// Matrix products by every method: those that are named, or those that fit `--quick`.
fn products(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let mut specs = if args.only.is_empty() {
        linear::default_specs(args.quick)
    } else {
        Spec::all()
    };
    specs.retain(|spec| wanted(args, &spec.name()));
    if args.quick && args.what == What::All && args.only.is_empty() {
        specs.retain(|spec| spec.to <= 128 && spec.way != linear::Way::Tiles);
    }
    if specs.is_empty() {
        return Ok(());
    }
    let params = Sizes::params(args.log_n, args.limbs, args.dnum, args.scale)?;
    // Products take seconds each, where other operations take milliseconds. Fewer than three rounds
    // would not tell differences of times from noise.
    let most = if args.quick { 3 } else { 5 };
    session.effort.rounds = args.rounds.unwrap_or(most).max(3);
    linear::measure(&specs, (&params, args.quick), session)
}

/// What two threads gain: each operation on two, with the same on one as its peer.
fn two_threads(args: &Args, session: &mut Session<'_>) -> Result<()> {
    if session.machine.cores < 2 {
        eprintln!("threads: left out: this process has one core");
        return Ok(());
    }
    let ops = chosen(args, &THREADED);
    if ops.is_empty() {
        return Ok(());
    }
    let params = Sizes::params(args.log_n, args.limbs, args.dnum, args.scale)?;
    let setting = Setting::new(&params, session.set.isa(), &ops)?;
    let operands = setting.operands(&ops)?;
    let (one, two) = (pool(1)?, pool(2)?);
    let mut items = Vec::new();
    for &op in &ops {
        let floor = op.floor(&shape(&params, session.set.isa()));
        let at_most = floor.ms(&session.machine, 1) / floor.ms(&session.machine, 2);
        eprintln!(
            "{}: by the floors of the machine as measured before, two threads gain at most x{at_most:.2}",
            op.name()
        );
        items.push(Item {
            op: op.name().to_owned(),
            params: Sizes::of(&params),
            floor,
            threads: 2,
            ours: within(&two, operands.case(op)?),
            peers: vec![("one thread".to_owned(), within(&one, operands.case(op)?))],
        });
    }
    session.measure("threads", items)
}

/// Transforms of all sizes, on primes of the scale's bits; one interleaved run per size.
fn transforms(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let ops = chosen(args, &transforms_of(&Op::ALL));
    if ops.is_empty() {
        return Ok(());
    }
    let pool = pool(1)?;
    for log_n in 13..=17 {
        let params = Sizes::params(log_n, args.limbs, args.dnum, args.scale)?;
        let running = peers(args, true, &setup(args, &params, &ops))?;
        let setting = Setting::new(&params, session.set.isa(), &ops)?;
        let operands = setting.operands(&ops)?;
        let mut items = Vec::new();
        for &op in &ops {
            items.push(Item {
                op: format!("{}_2_{log_n}", op.name()),
                params: Sizes::of(&params),
                floor: op.floor(&shape(&params, session.set.isa())),
                threads: 1,
                ours: within(&pool, operands.case(op)?),
                peers: running.iter().filter_map(|r| r.case(op)).collect(),
            });
        }
        session.measure("ntt", items)?;
    }
    Ok(())
}

/// What drivers are told.
fn setup(args: &Args, params: &Params, ops: &[Op]) -> Setup {
    Setup {
        log_n: params.log_n(),
        limbs: args.limbs,
        dnum: args.dnum,
        scale: args.scale,
        threads: usize::from(args.threads),
        primes: params.moduli(params.basis_at(params.max_level())),
        ops: ops.iter().map(|op| op.name().to_owned()).collect(),
    }
}
