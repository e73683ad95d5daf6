//! What several commands read, with the file's name in every complaint.

use std::io::{Read, Seek};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use veilformer::any::AnyModel;
use veilformer::build::Batch;
use veilformer::ckks::Params;
use veilformer::client::ClientBundle;
use veilformer::compiler::encoder::Budget;
use veilformer::encoder::{DEFAULT_PRESET, EncoderModel, EncoderTarget, sentences_of};
use veilformer::model::{Model, ModelFiles, shipped};
use veilformer::models::ModelError;
use veilformer::models::encoder::EncoderConfig;
use veilformer::ring::Cpu;
use veilformer::runtime::{CostTable, Plan, Server, ServerBundle, plan};
use veilformer::secret::SecretKey;

use super::Context;
use super::args;
use super::error::{Failure, Result};
use super::files;
use super::output::{bytes, counted, memory_bytes};
use super::progress::Stage;

pub fn client_bundle(path: &Path) -> Result<ClientBundle> {
    let bytes = files::read(path)?;
    let bundle = ClientBundle::from_bytes(&bytes).map_err(|e| Failure::from(e).of(path))?;
    refuse_insecure(bundle.params(), path)?;
    Ok(bundle)
}

pub fn server_bundle(path: &Path) -> Result<ServerBundle> {
    let bytes = files::read(path)?;
    let bundle = ServerBundle::from_bytes(&bytes).map_err(|e| Failure::from(e).of(path))?;
    refuse_insecure(bundle.params(), path)?;
    Ok(bundle)
}

/// Refuses test parameters: keys and ciphertexts of every command are made under a bundle's.
fn refuse_insecure(params: &Params, path: &Path) -> Result<()> {
    if params.is_insecure() {
        let refused = "it was made with insecure test parameters, which protect nothing; \
                       compile the model again and take that bundle";
        return Err(Failure::input(refused).of(path));
    }
    Ok(())
}

/// A server bundle from what a user names: the file, a folder that `compile` wrote, a shipped
/// model or a model folder. The model comes along where it was compiled here.
///
/// The flags of `target` are for what is compiled here: beside a bundle they are refused.
pub fn named_server_bundle(
    context: &Context,
    what: &str,
    target: &args::Target,
) -> Result<(ServerBundle, Option<AnyModel>)> {
    let path = Path::new(what);
    let folder = path.join("server.veil");
    let compiled = [path, &folder].into_iter().find(|p| p.is_file());
    if let Some(compiled) = compiled {
        if target.is_given() {
            let refused = "it is compiled already; --tokens, --batch, --security and what is for \
                           encoders are for models: name the model, or leave them out";
            return Err(Failure::input(refused).of(compiled));
        }
        return Ok((server_bundle(compiled)?, None));
    }
    if path.extension().is_some_and(|e| e == "veil") {
        // A missing bundle is not a misspelt model.
        files::read(path)?;
    }
    let model = model(context, what, target)?;
    let stage = context.progress.stage("compiling the model");
    let bundles = model.build(target.resolve(), &mut |part| stage.part(part))?;
    stage.finish();
    Ok((bundles.server, Some(model)))
}

/// Whether what a user names is an encoder's folder, and no shipped model.
pub fn is_encoder(what: &str) -> Result<bool> {
    let is_shipped = shipped()?.iter().any(|m| m.name == what);
    Ok(!is_shipped && EncoderModel::is_one(Path::new(what)))
}

/// A model of our own kinds.
pub fn own_model(what: &str) -> Result<Model> {
    Ok(ModelFiles::find(what)?.load()?)
}

/// A model of either kind by what a user names; an encoder is calibrated as `target` says.
pub fn model(context: &Context, what: &str, target: &args::Target) -> Result<AnyModel> {
    let folder = Path::new(what);
    if !is_encoder(what)? {
        // A misspelt name is said before a flag that would have been right for what was meant.
        let files = ModelFiles::find(what)?;
        if target.is_given_for_encoders() {
            return Err(Failure::input(
                "--calibrate, --preset and --budget are for encoders from Hugging Face folders; \
                 leave them out",
            ));
        }
        return Ok(AnyModel::Own(Box::new(files.load()?)));
    }
    // What a folder of another kind lacks is no flag.
    let path = folder.join("config.json");
    let config = std::fs::read(&path).map_err(|source| ModelError::Read { path, source })?;
    EncoderConfig::from_json(&config).map_err(|e| Failure::from(e).of(folder))?;
    let target = encoder_target(target)?;
    let stage = Mutex::new(Some(context.progress.stage("loading the encoder")));
    let now = || stage.lock().unwrap_or_else(PoisonError::into_inner);
    let model = EncoderModel::load(folder, &target, &|reached| {
        let mut now = now();
        if reached.done == 0 {
            now.take().map(Stage::finish);
        }
        now.get_or_insert_with(|| context.progress.stage(reached.step))
            .share(
                (reached.done, reached.total),
                "",
                reached.share.unwrap_or_default(),
            );
        ControlFlow::Continue(())
    });
    let model = model.map_err(|e| Failure::from(e).of(folder))?;
    now().take().map(Stage::finish);
    if model.left_out > 0 {
        context.progress.note(&format!(
            "{} of {} to calibrate with left out: most are too long for --tokens",
            model.left_out,
            counted(target.calibration.len(), "sentence")
        ));
    }
    Ok(AnyModel::Encoder(Box::new(model)))
}

fn encoder_target(target: &args::Target) -> Result<EncoderTarget> {
    let refuse = |what: &str| Err(Failure::input(what));
    if !matches!(target.size.batch, None | Some(Batch::Of(1))) {
        return refuse("an encoder answers one sentence a run; leave --batch out");
    }
    if !matches!(target.size.security.as_deref(), None | Some("128")) {
        return refuse("the presets of bootstraps are of 128 bits; leave --security out");
    }
    let Some(path) = &target.calibrate else {
        return refuse(
            "an encoder is compiled for the ranges that its values have; name sentences like \
             those that it will see with --calibrate",
        );
    };
    let budget = match target.budget {
        Some(factor) if !(factor > 0.0 && factor.is_finite()) => {
            return refuse("--budget is a factor of errors; a number above 0 is expected");
        }
        factor => factor.map(|factor| Budget::default().scaled(factor)),
    };
    Ok(EncoderTarget {
        tokens: target.size.tokens,
        preset: target
            .preset
            .clone()
            .unwrap_or_else(|| DEFAULT_PRESET.to_owned()),
        budget,
        calibration: sentences_of(path)?,
    })
}

pub fn secret_key(path: &Path, params: &Params) -> Result<SecretKey> {
    let bytes = files::read_secret(path)?;
    SecretKey::from_bytes_for(&bytes, params).map_err(|e| Failure::from(e).of(path))
}

/// A server with a client's evaluation keys, which takes no more memory than it may.
pub fn server(
    context: &Context,
    bundle: ServerBundle,
    keys: impl Read + Seek + Send,
    memory: &args::Memory,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<Server<Cpu>> {
    let kept = kept(&bundle, memory)?;
    server_keeping(context, (bundle, kept), keys, progress)
}

/// Bytes of weights that a server keeps which takes no more memory than it may.
pub fn kept(bundle: &ServerBundle, memory: &args::Memory) -> Result<u64> {
    let (program, params, keys_needed) = (bundle.program(), bundle.params(), bundle.keys());
    // Memory does not depend on times.
    let costs = CostTable::empty(params, "");
    let planned = plan(
        program,
        params,
        keys_needed,
        &costs,
        rayon::current_num_threads(),
    )?;
    Ok(within(&planned, memory)?.1)
}

/// A server with a client's evaluation keys, which keeps so many bytes of weights.
pub fn server_keeping(
    context: &Context,
    (bundle, kept): (ServerBundle, u64),
    keys: impl Read + Seek + Send,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<Server<Cpu>> {
    let backend = context.backend(bundle.params())?;
    let mut server = Server::open_keeping(bundle, backend, kept)?;
    server.load_keys(keys, &|done, total| {
        progress(done, total);
        ControlFlow::Continue(())
    })?;
    Ok(server)
}

/// The plan of a server that takes no more memory than is allowed, and bytes of weights that it keeps.
pub fn within(plan: &Plan, memory: &args::Memory) -> Result<(Plan, u64)> {
    let Some(most) = memory_limit(memory)? else {
        let most = memory_bytes().map_or(u64::MAX, |all| all / 4 * 3);
        return Ok(plan.within(most));
    };
    let (within, kept) = plan.within(most);
    if within.peak_memory_bytes > most {
        return Err(Failure::input(format!(
            "--memory {:?}: with no weights kept the server still takes {}; allow that much",
            memory.memory.unwrap_or_default(),
            bytes(within.peak_memory_bytes)
        )));
    }
    Ok((within, kept))
}

/// Bytes that a server may take, where the user says.
pub fn memory_limit(memory: &args::Memory) -> Result<Option<u64>> {
    match memory.memory {
        Some(gib) if !(gib > 0.0 && gib.is_finite()) => Err(Failure::input(
            "--memory is a number of GiB; a number above 0 is expected",
        )),
        gib => Ok(gib.map(|gib| (gib * f64::from(1 << 30)) as u64)),
    }
}
