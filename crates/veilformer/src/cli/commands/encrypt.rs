//! `encrypt`: sentences become ciphertexts.

use crate::cli::error::{Failure, Result};
use crate::cli::files::{self, Access, NewFile, apart, commit};
use crate::cli::output::{bytes, counted};
use crate::cli::{Context, args, json, load};

pub fn run(context: &Context, args: &args::Encrypt) -> Result<()> {
    let mut inputs = vec![&*args.client, &*args.secret];
    inputs.extend(args.file.as_deref());
    apart(&[&args.output], &inputs)?;
    let sentences = match &args.file {
        Some(path) => files::read_text(path)?.lines().map(str::to_owned).collect(),
        None => args.sentences.clone(),
    };
    if sentences.is_empty() {
        return Err(Failure::input(
            "no sentence to encrypt; give at least one, or a file with --file",
        ));
    }
    let bundle = load::client_bundle(&args.client)?;
    let secret = load::secret_key(&args.secret, bundle.params())?;
    let mut file = NewFile::create(&args.output, Access::Public, context.force)?;
    let stage = context.progress.stage("encrypting");
    let ciphertexts = bundle.encrypt(&secret, &sentences)?;
    let seconds = stage.finish();
    file.put(&ciphertexts)?;
    commit(vec![file])?;
    let report = json::Encrypt {
        sentences: sentences.len(),
        output: args.output.display().to_string(),
        ciphertext_bytes_up: ciphertexts.len() as u64,
        seconds,
    };
    context.output.report(&report, || {
        format!(
            "{}: {} encrypted, {} (for the server)",
            report.output,
            counted(report.sentences, "sentence"),
            bytes(report.ciphertext_bytes_up)
        )
    })
}
