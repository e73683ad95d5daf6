//! `compile`: a model becomes two bundles.

use std::path::{Path, PathBuf};

use veilformer::any::AnyModel;
use veilformer::ir::ciphertext::Operation;
use veilformer::runtime::ServerBundle;

use crate::cli::error::Result;
use crate::cli::files::{Access, NewFile, apart, commit, make_folder};
use crate::cli::output::{bytes, counted};
use crate::cli::{Context, args, json, load};

pub fn run(context: &Context, args: &args::Compile) -> Result<()> {
    let client_path = args.output.join("client.veil");
    let server_path = args.output.join("server.veil");
    let model = args.named.as_deref().or(args.model.as_deref());
    let model = model.unwrap_or_default();
    let inputs = inputs(Path::new(model), args);
    let inputs: Vec<&Path> = inputs.iter().map(|path| &**path).collect();
    apart(&[&client_path, &server_path], &inputs)?;
    let model = load::model(context, model, &args.target)?;
    // Gone again if the model is refused.
    let _folders = make_folder(&args.output)?;
    let mut client_file = NewFile::create(&client_path, Access::Public, context.force)?;
    let mut server_file = NewFile::create(&server_path, Access::Public, context.force)?;
    let stage = context.progress.stage("compiling the model");
    let bundles = model.build(args.target.resolve(), &mut |part| stage.part(part))?;
    let client_bytes = bundles.client.to_bytes()?;
    let server_bytes = bundles.server.to_bytes()?;
    let seconds = stage.finish();
    client_file.put(&client_bytes)?;
    server_file.put(&server_bytes)?;
    commit(vec![client_file, server_file])?;

    let params = bundles.client.params();
    let signature = bundles.client.signature();
    let rows = bundles.client.keys().security(params)?.rows;
    let report = json::Compile {
        model: model.name().to_owned(),
        client: client_path.display().to_string(),
        server: server_path.display().to_string(),
        client_bytes: client_bytes.len() as u64,
        server_bytes: server_bytes.len() as u64,
        log_n: params.log_n(),
        levels: params.max_level(),
        max_tokens: signature.max_tokens,
        batch: signature.batch,
        inputs: signature.inputs.len(),
        security: rows.iter().map(json::Security::from).collect(),
        seconds,
        bootstraps: bootstraps(&bundles.server),
        polynomial_depth: match &model {
            AnyModel::Own(_) => None,
            AnyModel::Encoder(model) => Some(model.substitution.depth()),
        },
    };
    let least = rows.iter().map(|r| r.bits).min().unwrap_or(0);
    context.output.report(&report, || {
        format!(
            "{}: {} (stays with the client)\n{}: {} (for the server)\n\
             ring 2^{}, {} levels, {} per {} of up to {}, \
             {} evaluation keys, all of at least {least} bits",
            report.client,
            bytes(report.client_bytes),
            report.server,
            bytes(report.server_bytes),
            report.log_n,
            report.levels,
            counted(report.inputs, "ciphertext"),
            match report.batch {
                1 => "sentence".to_owned(),
                n => format!("{n} sentences"),
            },
            counted(report.max_tokens, "token"),
            rows.len()
        ) + &match report.polynomial_depth {
            None => String::new(),
            Some(depth) => format!(
                "\npolynomials of {depth} levels one after the other, {} bootstraps; \
                 `explain --substitutions` says which",
                report.bootstraps
            ),
        }
    })
}

/// The files that are read: those of the model's folder, and sentences to calibrate on.
fn inputs(model: &Path, args: &args::Compile) -> Vec<PathBuf> {
    let ours = |path: &PathBuf| path.extension().is_some_and(|e| e == "veil");
    // What has no folder is a shipped model, or is refused when it is loaded.
    let folder = std::fs::read_dir(model).into_iter().flatten().flatten();
    let mut inputs: Vec<PathBuf> = folder.map(|e| e.path()).collect();
    // Bundles that were compiled into the model's folder are no part of it.
    inputs.retain(|path| !ours(path));
    inputs.extend(args.target.calibrate.clone());
    inputs
}

/// Bootstraps of one run, each of one value or of a pair.
fn bootstraps(bundle: &ServerBundle) -> usize {
    let all = bundle.program().instructions.iter();
    all.filter(|i| matches!(i.operation, Operation::Bootstrap { .. }))
        .count()
}
