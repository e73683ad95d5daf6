//! `keygen`: the client's secret key, and the evaluation keys for the server.

use std::ops::ControlFlow;

use veilformer::secret::{KeyGenerator, SecureRng};

use crate::cli::error::{Failure, Result};
use crate::cli::files::{Access, NewFile, commit};
use crate::cli::output::bytes;
use crate::cli::{Context, args, json, load};

pub fn run(context: &Context, args: &args::Keygen) -> Result<()> {
    if args.secret == args.keys {
        return Err(Failure::input(format!(
            "the secret key and the evaluation keys would both be {}; name two files",
            args.keys.display()
        )));
    }
    let bundle = load::client_bundle(&args.client)?;
    let mut secret_file = NewFile::create(&args.secret, Access::Secret, context.force)?;
    let mut key_file = NewFile::create(&args.keys, Access::Public, context.force)?;

    let stage = context.progress.stage("making keys");
    let mut generator = KeyGenerator::new(bundle.params(), SecureRng::from_os()?);
    let secret = generator.secret_key()?;
    let key_bytes = bundle
        .write_evaluation_keys(
            &mut generator,
            &secret,
            &mut key_file,
            &mut |done, total| {
                stage.update(done, total);
                ControlFlow::Continue(())
            },
        )
        .map_err(|e| Failure::writing(&args.keys, e))?;
    let seconds = stage.finish();
    secret_file.put(&secret.to_bytes()?)?;
    commit(vec![secret_file, key_file])?;

    let report = json::Keygen {
        key_id: secret.id().to_string(),
        secret: args.secret.display().to_string(),
        keys: args.keys.display().to_string(),
        key_count: bundle.keys().len(),
        key_bytes,
        seconds,
    };
    context.output.report(&report, || {
        format!(
            "{}: secret key {} (stays with the client; whoever has it reads everything)\n\
             {}: {} evaluation keys, {} (for the server)",
            report.secret,
            report.key_id,
            report.keys,
            report.key_count,
            bytes(report.key_bytes)
        )
    })
}
