//! `keygen`: the client's secret key, and the evaluation keys for the server.

use std::io::{Seek, SeekFrom};
use std::ops::ControlFlow;

use veilformer::ckks::KeyId;
use veilformer::client::ClientBundle;
use veilformer::secret::{KeyGenerator, SecureRng};

use crate::cli::error::{Failure, Result};
use crate::cli::files::{Access, NewFile, apart, commit, unfinished};
use crate::cli::output::bytes;
use crate::cli::{Context, args, json, load};

const STAGE: &str = "making keys";

pub fn run(context: &Context, args: &args::Keygen) -> Result<()> {
    let unfinished = unfinished(&args.keys);
    let mut outputs = vec![&*args.secret, &*args.keys];
    if args.resume {
        outputs.push(&unfinished);
    }
    apart(&outputs, &[&args.client])?;
    let bundle = load::client_bundle(&args.client)?;
    let made = match args.resume {
        true => resumed(context, args, &bundle)?,
        false => made(context, args, &bundle)?,
    };

    let report = json::Keygen {
        key_id: made.key_id.to_string(),
        secret: args.secret.display().to_string(),
        keys: args.keys.display().to_string(),
        key_count: bundle.keys().len(),
        keys_kept: made.kept,
        key_bytes: made.bytes,
        seconds: made.seconds,
    };
    context.output.report(&report, || {
        format!(
            "{}: secret key {} (stays with the client; whoever has it reads everything)\n\
             {}: {} evaluation keys, {} (for the server){}",
            report.secret,
            report.key_id,
            report.keys,
            report.key_count,
            bytes(report.key_bytes),
            match report.keys_kept {
                0 => String::new(),
                kept => format!("; {kept} of them were there already"),
            }
        )
    })
}

/// What was made.
struct Made {
    key_id: KeyId,
    bytes: u64,
    /// Evaluation keys that were there already.
    kept: usize,
    seconds: f64,
}

/// Both files at once, or none.
fn made(context: &Context, args: &args::Keygen, bundle: &ClientBundle) -> Result<Made> {
    let mut secret_file = NewFile::create(&args.secret, Access::Secret, context.force)?;
    let mut key_file = NewFile::create(&args.keys, Access::Public, context.force)?;
    let stage = context.progress.stage(STAGE);
    let mut generator = KeyGenerator::new(bundle.params(), SecureRng::from_os()?);
    let secret = generator.secret_key()?;
    let bytes = bundle
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
    Ok(Made {
        key_id: secret.id(),
        bytes,
        kept: 0,
        seconds,
    })
}

/// The secret key first, or the one that is there: what an interrupt leaves of the evaluation keys is
/// of use with it alone.
fn resumed(context: &Context, args: &args::Keygen, bundle: &ClientBundle) -> Result<Made> {
    let unfinished = unfinished(&args.keys);
    // The secret key is looked at first: if it is refused, no file of keys was begun.
    let (there, secret_file) = match args.secret.exists() {
        true => (Some(load::secret_key(&args.secret, bundle.params())?), None),
        false => {
            let file = NewFile::create(&args.secret, Access::Secret, false)?;
            (None, Some(file))
        }
    };
    let mut key_file = NewFile::go_on(&args.keys, context.force)?;
    let begun = key_file.seek(SeekFrom::End(0));
    let begun = begun.map_err(|e| Failure::write(&unfinished, &e))? > 0;
    let mut generator = KeyGenerator::new(bundle.params(), SecureRng::from_os()?);
    if begun && there.is_none() {
        return Err(Failure::input(format!(
            "{} was begun with a secret key, and {} is not there; name that secret key, or remove \
             the file to begin anew",
            unfinished.display(),
            args.secret.display()
        )));
    }
    let secret = match there {
        Some(secret) => secret,
        None => generator.secret_key()?,
    };
    if let Some(mut file) = secret_file {
        file.put(&secret.to_bytes()?)?;
        commit(vec![file])?;
    }
    let stage = context.progress.stage(STAGE);
    let resumed = bundle
        .resume_evaluation_keys(
            &mut generator,
            &secret,
            &mut key_file,
            &mut |done, total| {
                stage.update(done, total);
                ControlFlow::Continue(())
            },
        )
        .map_err(|e| {
            let left = format!(
                "{} and {} keep what was made, and the same command goes on from there",
                args.secret.display(),
                unfinished.display()
            );
            Failure::writing_leaving(&unfinished, e, &left)
        })?;
    let seconds = stage.finish();
    key_file.cut(resumed.bytes)?;
    commit(vec![key_file])?;
    Ok(Made {
        key_id: secret.id(),
        bytes: resumed.bytes,
        kept: resumed.kept,
        seconds,
    })
}
