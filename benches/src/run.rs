//! From arguments to measurements.

use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use veilformer_ring::Isa;

use crate::args::{Args, What};
use crate::error::{BenchError, Result};
use crate::interleave::Effort;
use crate::machine::{self, Machine, Set};
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

/// The operations of the scheme at the sizes of the arguments.
fn operations(args: &Args, ops: &[Op], session: &mut Session<'_>) -> Result<()> {
    let params = Sizes::params(args.log_n, args.limbs, args.dnum, args.scale)?;
    let sizes = Sizes::of(&params);
    eprintln!(
        "N=2^{}, {} + {} limbs, {} digits, log QP {:.0}, {} bits of security; making keys ..",
        sizes.log_n, sizes.limbs, sizes.special, sizes.dnum, sizes.log_qp, sizes.security_bits
    );
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
            peers: Vec::new(),
        });
    }
    session.measure("ops", items)
}
