//! The state of a training run on disk, from which it can go on as if never stopped.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError, at};
use crate::export::write_atomically;
use crate::network::Weights;
use crate::params::Parameters;
use crate::recipe::Recipe;
use crate::trainer::EpochReport;

/// Name of the state file in the output folder.
pub const STATE_FILE: &str = "training-state.safetensors";

/// Progress of a run beside its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The recipe of the run; another one cannot go on with it.
    pub recipe: Recipe,
    /// Sentences that it trains on; other data cannot go on with it.
    pub train_size: usize,
    /// Steps done.
    pub step: usize,
    /// Reports of the epochs done.
    pub history: Vec<EpochReport>,
    /// The epoch with the best dev accuracy so far, the first of equals.
    pub best_epoch: usize,
}

/// Writes parameters, progress and the best epoch's weights into `dir`.
///
/// # Errors
/// When the file cannot be written.
pub fn save(dir: &Path, run: &Parameters, progress: &Progress, best: &Weights) -> Result<()> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut put = |name: String, shape: &[usize], values: &[f32]| {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        tensors.push((name, shape.to_vec(), bytes));
    };
    for p in &run.list {
        let values = p.var.flatten_all()?.to_vec1::<f32>()?;
        put(format!("value.{}", p.name), &[values.len()], &values);
        for (part, values) in ["first", "second", "average"].iter().zip(&p.state) {
            put(format!("{part}.{}", p.name), &[values.len()], values);
        }
    }
    for s in &run.statistics {
        for (i, values) in s.values.iter().enumerate() {
            put(
                format!("statistics.{i}.{}", s.name),
                &[values.len()],
                values,
            );
        }
    }
    for (name, tensor) in best {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        put(format!("best.{name}"), tensor.dims(), &values);
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let path = dir.join(STATE_FILE);
    let fail = |what: String| TrainError::Checkpoint {
        path: path.clone(),
        what,
    };
    let mut views = Vec::with_capacity(tensors.len());
    for (name, shape, bytes) in &tensors {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        views.push((name.as_str(), view.map_err(|e| fail(e.to_string()))?));
    }
    let text = serde_json::to_string(progress).map_err(|e| fail(e.to_string()))?;
    let info = HashMap::from([("progress".to_owned(), text)]);
    let bytes = safetensors::serialize(views, Some(info)).map_err(|e| fail(e.to_string()))?;
    write_atomically(&path, &bytes)
}

/// Puts the state in `dir` into `run`, which must come from the same recipe and data.
///
/// # Errors
/// When there is no state, it is malformed, or of another recipe or other data.
pub fn load(
    dir: &Path,
    run: &mut Parameters,
    recipe: &Recipe,
    train_size: usize,
) -> Result<(Progress, Weights)> {
    let path = dir.join(STATE_FILE);
    let bytes = std::fs::read(&path).map_err(at(&path))?;
    let fail = |what: String| TrainError::Checkpoint {
        path: path.clone(),
        what,
    };
    let malformed = |e: safetensors::SafeTensorError| fail(format!("malformed ({e})"));
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(malformed)?;
    let text = metadata
        .metadata()
        .as_ref()
        .and_then(|m| m.get("progress"))
        .ok_or_else(|| fail("it has no progress entry".into()))?;
    let progress: Progress =
        serde_json::from_str(text).map_err(|e| fail(format!("malformed progress ({e})")))?;
    if progress.recipe != *recipe {
        return Err(fail("it was made by another recipe".into()));
    }
    if progress.train_size != train_size {
        return Err(fail(format!(
            "it was made with {} training sentences and there are {train_size} now",
            progress.train_size
        )));
    }
    let file = SafeTensors::deserialize(&bytes).map_err(malformed)?;
    let read = |name: &str, n: usize| -> Result<Vec<f32>> {
        let view = file.tensor(name).map_err(|e| fail(e.to_string()))?;
        let values = floats(&view);
        if values.len() != n || view.dtype() != Dtype::F32 {
            return Err(fail(format!(
                "`{name}` has {} values, expected {n}",
                values.len()
            )));
        }
        Ok(values)
    };
    for p in &mut run.list {
        let n = p.var.elem_count();
        let values = read(&format!("value.{}", p.name), n)?;
        p.var
            .set(&Tensor::from_vec(values, p.var.shape(), &Device::Cpu)?)?;
        for (part, values) in ["first", "second", "average"].iter().zip(&mut p.state) {
            *values = read(&format!("{part}.{}", p.name), n)?;
        }
    }
    for s in &mut run.statistics {
        for (i, values) in s.values.iter_mut().enumerate() {
            *values = read(&format!("statistics.{i}.{}", s.name), values.len())?;
        }
    }
    run.step = progress.step;
    let mut best = Weights::new();
    for (name, view) in file.iter() {
        if let Some(name) = name.strip_prefix("best.") {
            let tensor = Tensor::from_vec(floats(&view), view.shape(), &Device::Cpu)?;
            best.insert(name.to_owned(), tensor);
        }
    }
    Ok((progress, best))
}

/// The values of a tensor of f32 numbers.
pub(crate) fn floats(view: &TensorView<'_>) -> Vec<f32> {
    view.data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|c| f32::from_le_bytes(*c))
        .collect()
}
