//! `plan`: what answering one sentence will take, without running it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use veilformer::ckks::Params;
use veilformer::runtime::{
    CostTable, Plan, ServerBundle, machine_name, measure, measure_deadline, plan,
};

use crate::cli::error::Result;
use crate::cli::output::{bytes, counted, table};
use crate::cli::{Context, args, json, load};

pub fn run(context: &Context, args: &args::Plan) -> Result<()> {
    let what = args.model.as_deref().unwrap_or(&args.server);
    let (bundle, _) = load::named_server_bundle(context, what, &args.target)?;
    let cache = args.costs.clone().or_else(|| cache(bundle.params()));
    let threads = rayon::current_num_threads();
    let costs = costs(context, &bundle, cache.as_deref(), threads)?;
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

/// Costs of this machine: from the cache where they cover the program, else measured and kept.
pub fn costs(
    context: &Context,
    bundle: &ServerBundle,
    cache: Option<&Path>,
    threads: usize,
) -> Result<CostTable> {
    let params = bundle.params();
    let machine = machine_name(&format!("{:?}", context.isa));
    let mut known = cache
        .and_then(|path| CostTable::load(path, &machine, params))
        .unwrap_or_else(|| CostTable::empty(params, &machine));
    if known.covers(bundle.program(), params, threads) {
        return Ok(known);
    }
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
        let _ = known.save(path);
    }
    measured?;
    Ok(known)
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
pub fn cache(params: &Params) -> Option<PathBuf> {
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
