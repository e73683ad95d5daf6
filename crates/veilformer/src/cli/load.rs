//! What several commands read, with the file's name in every complaint.

use std::ops::ControlFlow;
use std::path::Path;

use veilformer::build::build;
use veilformer::ckks::Params;
use veilformer::client::ClientBundle;
use veilformer::model::{Model, ModelFiles};
use veilformer::ring::Cpu;
use veilformer::runtime::{Server, ServerBundle};
use veilformer::secret::SecretKey;

use super::Context;
use super::args;
use super::error::{Failure, Result};
use super::files;

/// Refuses test parameters: keys and ciphertexts of every command are made under a bundle's.
pub fn client_bundle(path: &Path) -> Result<ClientBundle> {
    let bytes = files::read(path)?;
    let bundle = ClientBundle::from_bytes(&bytes).map_err(|e| Failure::from(e).of(path))?;
    if bundle.params().is_insecure() {
        let refused = "it was made with insecure test parameters, which protect nothing; \
                       compile the model again and take that bundle";
        return Err(Failure::input(refused).of(path));
    }
    Ok(bundle)
}

pub fn server_bundle(path: &Path) -> Result<ServerBundle> {
    let bytes = files::read(path)?;
    ServerBundle::from_bytes(&bytes).map_err(|e| Failure::from(e).of(path))
}

/// A server bundle from what a user names: the file, a folder that `compile` wrote, a shipped
/// model or a model folder. The model comes along where it was compiled here.
///
/// The flags of `target` are for what is compiled here: beside a bundle they are refused.
pub fn named_server_bundle(
    context: &Context,
    what: &str,
    target: &args::Target,
) -> Result<(ServerBundle, Option<Model>)> {
    let path = Path::new(what);
    let folder = path.join("server.veil");
    let compiled = [path, &folder].into_iter().find(|p| p.is_file());
    if let Some(compiled) = compiled {
        if target.is_given() {
            let refused = "it is compiled already; --tokens, --batch and --security are for \
                           models: name the model, or leave them out";
            return Err(Failure::input(refused).of(compiled));
        }
        return Ok((server_bundle(compiled)?, None));
    }
    if path.extension().is_some_and(|e| e == "veil") {
        // A missing bundle is not a misspelt model.
        files::read(path)?;
    }
    let files = ModelFiles::find(what)?;
    let stage = context.progress.stage("compiling the model");
    let model = files.load()?;
    let bundles = build(&model, target.resolve())?;
    stage.finish();
    Ok((bundles.server, Some(model)))
}

pub fn secret_key(path: &Path, params: &Params) -> Result<SecretKey> {
    let bytes = files::read_secret(path)?;
    SecretKey::from_bytes_for(&bytes, params).map_err(|e| Failure::from(e).of(path))
}

/// A server with a client's evaluation keys.
pub fn server(
    context: &Context,
    bundle: ServerBundle,
    keys: &[u8],
    progress: impl Fn(usize, usize) + Sync,
) -> Result<Server<Cpu>> {
    let backend = context.backend(bundle.params())?;
    let mut server = Server::open(bundle, backend)?;
    server.load_keys(keys, &|done, total| {
        progress(done, total);
        ControlFlow::Continue(())
    })?;
    Ok(server)
}
