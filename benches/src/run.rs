//! From arguments to measurements.

use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use veilformer_ckks::Params;
use veilformer_ring::Isa;

use crate::args::{Args, What};
use crate::error::{BenchError, Result};
use crate::interleave::Effort;
use crate::machine::{self, Machine, Set};
use crate::peers::{Peer, Place, Running, Setup, default_dir};
use crate::scheme::{Op, Setting, Sizes, shape};
use crate::session::{Item, Session};

/// Does what the arguments ask for.
///
/// # Errors
/// Arguments that make no sense, or what the libraries say.
pub fn run(args: &Args, stop: &AtomicBool) -> Result<()> {
    let ops = chosen(args)?;
    if args.list {
        return list(&ops);
    }
    let isa = args.isa.map_or_else(best, Isa::from);
    let set = Set::of(isa).ok_or_else(|| {
        BenchError::Usage(format!(
            "this processor has no {isa:?}; choose another --isa"
        ))
    })?;
    eprintln!("measuring what the machine does at most ..");
    let machine = Machine::measure(set);
    eprint!("{machine}");
    pin(args)?;
    let effort = Effort {
        rounds: args
            .rounds
            .unwrap_or(if args.quick { 7 } else { 15 })
            .max(1),
        batch: Duration::from_millis(if args.quick { 10 } else { 40 }),
    };
    let mut session = Session {
        machine,
        isa,
        effort,
        stop,
        json: args.json,
        rows: Vec::new(),
    };
    match args.what {
        What::Ops => operations(args, &ops, &mut session),
        What::Ntt => transforms(args, &mut session),
    }
}

fn best() -> Isa {
    Isa::available().into_iter().max().unwrap_or(Isa::Scalar)
}

/// The operations that are to be measured.
fn chosen(args: &Args) -> Result<Vec<Op>> {
    if args.only.is_empty() {
        return Ok(Op::ALL.to_vec());
    }
    args.only.iter().map(|name| Op::parse(name)).collect()
}

fn list(ops: &[Op]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for op in ops {
        writeln!(out, "{:<30} {}", op.name(), op.text())
            .map_err(BenchError::io("standard output"))?;
    }
    Ok(())
}

/// One thread stays on one core, two on two; so do the drivers of other libraries, which inherit
/// it.
fn pin(args: &Args) -> Result<()> {
    let allowed = machine::allowed();
    let threads = usize::from(args.threads);
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
    let dir = args.peers_dir.clone().or_else(default_dir).ok_or_else(|| {
        BenchError::Usage("there is no home folder; name one with --peers-dir".into())
    })?;
    let python = args.python.clone();
    Ok(Running::start_all(&fit, &Place { dir, python }, setup))
}

/// The operations of the scheme at the sizes of the arguments.
fn operations(args: &Args, ops: &[Op], session: &mut Session<'_>) -> Result<()> {
    let params = Sizes::params(args.log_n, args.limbs, args.dnum, args.scale)?;
    let sizes = Sizes::of(&params);
    eprintln!(
        "N=2^{}, {} + {} limbs, {} digits, log QP {:.0}, {} bits of security; making keys ..",
        sizes.log_n, sizes.limbs, sizes.special, sizes.dnum, sizes.log_qp, sizes.security_bits
    );
    let running = peers(args, false, &setup(args, &params, ops))?;
    let setting = Setting::new(&params, session.isa, ops)?;
    let operands = setting.operands(ops)?;
    let mut items = Vec::new();
    for &op in ops {
        items.push(Item {
            op: op.name().to_owned(),
            params: sizes.clone(),
            floor: op.floor(&shape(&params)),
            threads: usize::from(args.threads),
            ours: operands.case(op)?,
            peers: running.iter().filter_map(|r| r.case(op)).collect(),
        });
    }
    session.measure("ops", items)
}

/// Transforms of all sizes, on primes of the scale's bits; one interleaved run per size.
fn transforms(args: &Args, session: &mut Session<'_>) -> Result<()> {
    let ops: Vec<Op> = Op::ALL.into_iter().filter(|op| op.is_transform()).collect();
    for log_n in 13..=17 {
        let params = Sizes::params(log_n, args.limbs, args.dnum, args.scale)?;
        let running = peers(args, true, &setup(args, &params, &ops))?;
        let setting = Setting::new(&params, session.isa, &ops)?;
        let operands = setting.operands(&ops)?;
        let mut items = Vec::new();
        for &op in &ops {
            items.push(Item {
                op: format!("{}_2_{log_n}", op.name()),
                params: Sizes::of(&params),
                floor: op.floor(&shape(&params)),
                threads: 1,
                ours: operands.case(op)?,
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
