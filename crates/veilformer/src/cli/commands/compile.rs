//! `compile`: a model becomes two bundles.

use veilformer::any::AnyModel;
use veilformer::ir::ciphertext::Operation;
use veilformer::runtime::ServerBundle;

use crate::cli::error::Result;
use crate::cli::files::{Access, NewFile, commit, make_folder};
use crate::cli::output::{bytes, counted};
use crate::cli::{Context, args, json, load};

pub fn run(context: &Context, args: &args::Compile) -> Result<()> {
    let model = args.named.as_deref().or(args.model.as_deref());
    let model = load::model(context, model.unwrap_or_default(), &args.target)?;
    make_folder(&args.output)?;
    let client_path = args.output.join("client.veil");
    let server_path = args.output.join("server.veil");
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

/// Bootstraps of one run, each of one value or of a pair.
fn bootstraps(bundle: &ServerBundle) -> usize {
    let all = bundle.program().instructions.iter();
    all.filter(|i| matches!(i.operation, Operation::Bootstrap { .. }))
        .count()
}
