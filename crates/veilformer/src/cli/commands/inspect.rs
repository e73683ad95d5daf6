//! `inspect`: what a file is. Nothing secret is shown.

use std::path::Path;

use veilformer::ckks::CkksError;
use veilformer::ckks::container::{ContainerError, Kind, inspect};
use veilformer::client::ClientBundle;
use veilformer::runtime::ServerBundle;

use crate::cli::error::{Failure, Result};
use crate::cli::files;
use crate::cli::{Context, args, json};

pub fn run(context: &Context, args: &args::Inspect) -> Result<()> {
    let bytes = files::read_secret(&args.file)?;
    let look = || {
        let file = inspect(&bytes).map_err(|error| match error {
            // Before its first key is whole, only its name tells it from keys that were cut.
            CkksError::Container(ContainerError::Truncated { .. }) if is_unfinished(&args.file) => {
                ContainerError::Unfinished.into()
            }
            error => error,
        })?;
        let bundle = bundle(file.kind, &bytes)?;
        Ok(json::Inspect { file, bundle })
    };
    let report = look().map_err(|e: Failure| e.of(&args.file))?;
    context.output.answer(&report, || {
        let mut text = report.file.to_string();
        if let Some(b) = &report.bundle {
            text.push_str(&format!(
                "model {}, {} ciphertexts per sentence, {} evaluation keys\n\
                 content {}\nother bundle {}\n",
                b.model, b.inputs, b.keys, b.content, b.other
            ));
        }
        text
    })
}

/// Whether a name is one that `keygen --resume` gives to what is not finished.
fn is_unfinished(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "unfinished")
}

fn bundle(kind: Kind, bytes: &[u8]) -> Result<Option<json::Bundle>> {
    Ok(match kind {
        Kind::ClientBundle => {
            let bundle = ClientBundle::from_bytes(bytes)?;
            Some(json::Bundle {
                model: bundle.model_name().to_owned(),
                content: hex(&bundle.content_digest()?),
                other: hex(&bundle.server_content()),
                keys: bundle.keys().len(),
                inputs: bundle.signature().inputs.len(),
            })
        }
        Kind::ServerBundle => {
            let bundle = ServerBundle::from_bytes(bytes)?;
            Some(json::Bundle {
                model: bundle.model_name().to_owned(),
                content: hex(&bundle.content_digest()),
                other: hex(&bundle.client_content()),
                keys: bundle.keys().len(),
                inputs: bundle.program().inputs.len(),
            })
        }
        _ => None,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
