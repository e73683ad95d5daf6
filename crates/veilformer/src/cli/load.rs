//! What several commands read, with the file's name in every complaint.

use std::ops::ControlFlow;
use std::path::Path;

use veilformer::ckks::Params;
use veilformer::client::ClientBundle;
use veilformer::ring::Cpu;
use veilformer::runtime::{Server, ServerBundle};
use veilformer::secret::SecretKey;

use super::Context;
use super::error::{Failure, Result};
use super::files;

pub fn client_bundle(path: &Path) -> Result<ClientBundle> {
    let bytes = files::read(path)?;
    ClientBundle::from_bytes(&bytes).map_err(|e| Failure::from(e).of(path))
}

pub fn server_bundle(path: &Path) -> Result<ServerBundle> {
    let bytes = files::read(path)?;
    ServerBundle::from_bytes(&bytes).map_err(|e| Failure::from(e).of(path))
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
