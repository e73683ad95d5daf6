//! `plan`: what answering one sentence will take, without running it.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use veilformer::ckks::Params;
use veilformer::ckks::container::{ContainerError, KeyFile, Kind};
use veilformer::runtime::{
    COST_VERSION, CostTable, Plan, RuntimeError, ServerBundle, machine_name, measure,
    measure_deadline, plan,
};

use crate::cli::error::{Failure, Result};
use crate::cli::files::{self, Access, NewFile, commit};
use crate::cli::output::{bytes, counted, table};
use crate::cli::{Context, args, json, load};

pub fn run(context: &Context, args: &args::Plan) -> Result<()> {
    // What takes no compiling to refuse is refused before it.
    load::memory_limit(&args.memory)?;
    if let Some(path) = &args.costs {
        named_table(path)?;
    }
    let what = args.model.as_deref().unwrap_or(&args.server);
    let (bundle, _) = load::named_server_bundle(context, what, &args.target)?;
    let threads = rayon::current_num_threads();
    let costs = costs(context, &bundle, args.costs.as_deref(), threads)?;
    let params = bundle.params();
    let plan = plan(bundle.program(), params, bundle.keys(), &costs, threads)?;
    let (plan, kept) = load::within(&plan, &args.memory)?;
    let report = json::Plan {
        batch: plan.batch,
        seconds: plan.seconds,
        cpu_seconds: plan.cpu_seconds,
        load_seconds: plan.load_seconds,
        peak_memory_bytes: plan.peak_memory_bytes,
        weight_bytes: plan.weight_bytes,
        full_weight_bytes: plan.full_weight_bytes,
        key_bytes: plan.key_bytes,
        ciphertext_bytes_up: plan.ciphertext_bytes_up,
        ciphertext_bytes_down: plan.ciphertext_bytes_down,
        key_switches: plan.key_switches,
        multiplications: plan.multiplications,
        bootstraps: plan.bootstraps,
        bootstrap_seconds: plan.bootstrap_seconds,
        levels: plan.levels,
        security: {
            let rows = bundle.keys().security(params)?.rows;
            rows.iter().map(json::Security::from).collect()
        },
    };
    context.output.answer(&report, || {
        text((&plan, kept), &report, bundle.model_name())
    })
}

/// Costs of this machine: from a file where they cover the program, else measured and kept there. The
/// file is `named` by the user, or a cache of our own.
pub fn costs(
    context: &Context,
    bundle: &ServerBundle,
    named: Option<&Path>,
    threads: usize,
) -> Result<CostTable> {
    let params = bundle.params();
    let machine = machine_name(&format!("{:?}", context.isa));
    let cache = if named.is_some() { None } else { cache(params) };
    let found = match (named, &cache) {
        (Some(path), _) => known(context, path, &machine, params)?,
        (None, Some(path)) => CostTable::load(path, &machine, params),
        (None, None) => None,
    };
    let mut known = found.unwrap_or_else(|| CostTable::empty(params, &machine));
    if known.covers(bundle.program(), params, threads) {
        return Ok(known);
    }
    // Whether a named file can be written is said before minutes are spent on what goes there.
    let file = named.map(|path| NewFile::create(path, Access::Public, true));
    let file = file.transpose()?;
    let stage = context
        .progress
        .stage("measuring this machine for the model (once)");
    let backend = context.backend(params)?;
    let how = (threads, measure_deadline(bundle.program()));
    let told = |done: usize, total: usize| {
        stage.update(done, total);
        ControlFlow::Continue(())
    };
    let measured = measure(bundle.program(), params, &backend, &mut known, how, &told);
    stage.finish();
    if let Some(path) = cache {
        // Without a cache the next plan measures again; this one is not worse for it.
        let _ = path.parent().map(std::fs::create_dir_all);
        let _ = known.save(&path);
    }
    if let Some(mut file) = file {
        file.put(&known.to_bytes()?)?;
        commit(vec![file])?;
    }
    measured?;
    Ok(known)
}

/// The table of a file that the user names; nothing where there is none, or where it was measured by
/// another version of this program. One that is of no use here is replaced only if the user says so: it
/// may be of use elsewhere.
fn known(
    context: &Context,
    path: &Path,
    machine: &str,
    params: &Params,
) -> Result<Option<CostTable>> {
    let force = "pass --force to replace it, name another file, or leave --costs out";
    let refuse = |why: &str| match context.force {
        true => Ok(None),
        false => Err(Failure::input(format!("{why}; {force}")).of(path)),
    };
    match named_table(path)? {
        None => Ok(None),
        Some(Err(error)) => refuse(&format!("this cost table cannot be read ({error})")),
        Some(Ok(table)) if table.params_digest != params.digest() => {
            refuse("this cost table is of other parameters")
        }
        Some(Ok(table)) if table.machine != machine => refuse(&format!(
            "this cost table is of another machine ({})",
            table.machine
        )),
        // Of an older version, whose costs mean something else: it is measured anew.
        Some(Ok(table)) if table.version != COST_VERSION => Ok(None),
        Some(Ok(table)) => Ok(Some(table)),
    }
}

/// What stands in a file that the user names as a cost table, or what is wrong with it as such; nothing
/// where there is no file or an empty one. Whatever is no cost table is refused: costs will be written
/// there, and nothing else of the user's may go for that.
fn named_table(path: &Path) -> Result<Option<std::result::Result<CostTable, RuntimeError>>> {
    const ELSE: &str = "a cost table is kept in a file of its own; name another file";
    match std::fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(data) if data.is_file() && data.len() == 0 => return Ok(None),
        Ok(data) if !data.is_file() => {
            let refused = format!("this is a device or a folder, and {ELSE}");
            return Err(Failure::input(refused).of(path));
        }
        // Reading says what is wrong.
        Ok(_) | Err(_) => {}
    }
    let mut file = files::open(path)?;
    let other = |is: String| Failure::input(format!("{is}, and {ELSE}")).of(path);
    match KeyFile::kind_of(&mut file) {
        Ok(Kind::CostTable) => {}
        Ok(kind) => return Err(other(format!("the file is {kind}"))),
        Err(ContainerError::NotOurs) => return Err(other("this is no file of Veilformer".into())),
        Err(error) => return Err(other(format!("this may be something else ({error})"))),
    }
    Ok(Some(CostTable::from_bytes(&files::read(path)?)))
}

/// What is said beside the memory.
fn weights(plan: &Plan, kept: u64) -> String {
    if kept >= plan.weight_bytes {
        return "of the server".to_owned();
    }
    format!(
        "of the server; {} of {} of weights are kept, the others encoded for every sentence",
        bytes(kept),
        bytes(plan.weight_bytes)
    )
}

/// Where costs are kept: one file per parameters.
fn cache(params: &Params) -> Option<PathBuf> {
    let digest: String = params
        .digest()
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect();
    let folder = std::env::home_dir()?.join(".cache").join("veilformer");
    Some(folder.join(format!("costs-{digest}.veil")))
}

fn text((plan, kept): (&Plan, u64), report: &json::Plan, model: &str) -> String {
    let row = |name: &str, value: String, note: &str| vec![name.to_owned(), value, note.into()];
    let all: f64 = plan.per_section.iter().map(|s| s.seconds).sum();
    let share = match plan.bootstraps {
        0 => String::new(),
        _ => format!(
            "{:.0}% of the time",
            100.0 * plan.bootstrap_seconds / all.max(1e-9)
        ),
    };
    let threads = format!("once, {}", counted(plan.threads, "thread"));
    let mut out = match plan.batch {
        1 => format!("model {model}, one sentence\n"),
        n => format!("model {model}, one run of {n} sentences\n"),
    };
    out.push_str(&table(&[
        row(
            "run",
            format!("{:.2} s", plan.seconds),
            &format!("{:.2} s of processor time", plan.cpu_seconds),
        ),
        row("load", format!("{:.2} s", plan.load_seconds), &threads),
        row(
            "peak memory",
            bytes(plan.peak_memory_bytes),
            &weights(plan, kept),
        ),
        row(
            "encoded weights",
            bytes(plan.weight_bytes),
            &format!(
                "{} if nothing in them repeated",
                bytes(plan.full_weight_bytes)
            ),
        ),
        row(
            "evaluation keys",
            bytes(plan.key_bytes),
            "client to server, once",
        ),
        row(
            "ciphertexts up",
            bytes(plan.ciphertext_bytes_up),
            "client to server",
        ),
        row(
            "ciphertexts down",
            bytes(plan.ciphertext_bytes_down),
            "server to client",
        ),
        row("key switches", plan.key_switches.to_string(), ""),
        row(
            "multiplications",
            plan.multiplications.to_string(),
            "of two ciphertexts",
        ),
        row("bootstraps", plan.bootstraps.to_string(), &share),
        row("levels", plan.levels.to_string(), ""),
    ]));
    let least = report.security.iter().map(|s| s.bits).min().unwrap_or(0);
    out.push_str(&format!(
        "\n{} evaluation keys, all of at least {least} bits\n\nby section\n",
        report.security.len()
    ));
    let mut rows = vec![
        ["section", "key switches", "ms of all threads"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for section in &plan.per_section {
        rows.push(vec![
            section.name.clone(),
            section.key_switches.to_string(),
            format!("{:.0}", 1e3 * section.seconds),
        ]);
    }
    out + &table(&rows)
}
