//! The state of a run on disk, from which it goes on as if never stopped.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use super::optimizer::Parameters;
use super::recipe::EncoderRecipe;
use crate::error::{Result, TrainError, at};
use crate::export::write_atomically;
use crate::state::{STATE_FILE, floats};

/// What an epoch came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EncoderEpoch {
    /// Mean loss without range terms.
    pub loss: f64,
    /// Mean range terms, already weighted.
    pub range_loss: f64,
    /// Accuracy on dev, 0 to 1.
    pub dev_accuracy: f64,
}

/// Progress of a run beside its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EncoderProgress {
    /// The recipe of the run; another one cannot go on with it.
    pub recipe: EncoderRecipe,
    /// Sentences that it trains on; other data cannot go on with it.
    pub train_size: usize,
    /// Steps done.
    pub step: usize,
    /// Sums of the loss and of the range terms over the steps of the epoch that is not done yet.
    pub sums: [f64; 2],
    /// The epochs done.
    pub history: Vec<EncoderEpoch>,
}

const MOMENTS: [&str; 2] = ["first", "second"];

/// Writes parameters and progress into `dir`.
///
/// # Errors
/// When the file cannot be written.
pub fn save(dir: &Path, run: &Parameters, progress: &EncoderProgress) -> Result<()> {
    let path = dir.join(STATE_FILE);
    let fail = |what: String| TrainError::Checkpoint {
        path: path.clone(),
        what,
    };
    let mut tensors: Vec<(String, Vec<u8>)> = Vec::new();
    let mut put = |name: String, values: &[f32]| {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        tensors.push((name, bytes));
    };
    for p in &run.list {
        let values = p.var.flatten_all()?.to_vec1::<f32>()?;
        put(format!("value.{}", p.name), &values);
        for (part, values) in MOMENTS.iter().zip(&p.moments) {
            put(format!("{part}.{}", p.name), values);
        }
    }
    let mut views = Vec::with_capacity(tensors.len());
    for (name, bytes) in &tensors {
        let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes);
        views.push((name.as_str(), view.map_err(|e| fail(e.to_string()))?));
    }
    let text = serde_json::to_string(progress).map_err(|e| fail(e.to_string()))?;
    let info = HashMap::from([("progress".to_owned(), text)]);
    let bytes = safetensors::serialize(views, Some(info)).map_err(|e| fail(e.to_string()))?;
    write_atomically(&path, &bytes)
}

/// Puts the state in `dir` into `run`, which must come from the same recipe, data and folder.
///
/// # Errors
/// When there is no state, it is malformed, or of another recipe, other data or another folder.
pub fn load(
    dir: &Path,
    run: &mut Parameters,
    recipe: &EncoderRecipe,
    train_size: usize,
) -> Result<EncoderProgress> {
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
    let progress: EncoderProgress =
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
        if view.dtype() != Dtype::F32 || view.shape() != [n] {
            return Err(fail(format!(
                "`{name}` has shape {:?}, expected [{n}]: it is of another model",
                view.shape()
            )));
        }
        Ok(floats(&view))
    };
    for p in &mut run.list {
        let n = p.var.elem_count();
        let values = read(&format!("value.{}", p.name), n)?;
        p.var
            .set(&Tensor::from_vec(values, p.var.shape(), &Device::Cpu)?)?;
        for (part, values) in MOMENTS.iter().zip(&mut p.moments) {
            *values = read(&format!("{part}.{}", p.name), n)?;
        }
    }
    run.step = progress.step;
    Ok(progress)
}
