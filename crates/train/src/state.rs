//! The state of a training run on disk, from which it can go on as if never stopped.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, Var};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::de::DeserializeOwned;
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

/// Parts of a trained tensor's optimizer state.
const PARTS: [&str; 3] = ["first", "second", "average"];

/// Writes parameters, progress and the best epoch's weights into `dir`.
///
/// # Errors
/// When the file cannot be written.
pub fn save(dir: &Path, run: &Parameters, progress: &Progress, best: &Weights) -> Result<()> {
    let mut state = NewState::default();
    for p in &run.list {
        state.put_trained(&p.name, &p.var, PARTS.into_iter().zip(&p.state))?;
    }
    for s in &run.statistics {
        for (i, values) in s.values.iter().enumerate() {
            let name = format!("statistics.{i}.{}", s.name);
            state.put(name, &[values.len()], values);
        }
    }
    for (name, tensor) in best {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        state.put(format!("best.{name}"), tensor.dims(), &values);
    }
    state.write(dir, progress)
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
    let state = SavedState::read(dir)?;
    let of = |p: &Progress| (p.recipe == *recipe, p.train_size);
    let progress = state.progress(train_size, of)?;
    let tensors = state.tensors()?;
    for p in &mut run.list {
        tensors.take_trained(&p.name, &p.var, PARTS.into_iter().zip(&mut p.state))?;
    }
    for s in &mut run.statistics {
        for (i, values) in s.values.iter_mut().enumerate() {
            *values = tensors.values(&format!("statistics.{i}.{}", s.name), values.len())?;
        }
    }
    run.step = progress.step;
    let mut best = Weights::new();
    for (name, view) in tensors.file.iter() {
        if let Some(name) = name.strip_prefix("best.") {
            let tensor = Tensor::from_vec(floats(&view), view.shape(), &Device::Cpu)?;
            best.insert(name.to_owned(), tensor);
        }
    }
    Ok((progress, best))
}

/// A state file to be.
#[derive(Default)]
pub(crate) struct NewState {
    /// Name, shape and bytes of each tensor.
    tensors: Vec<(String, Vec<usize>, Vec<u8>)>,
}

impl NewState {
    fn put(&mut self, name: String, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensors.push((name, shape.to_vec(), bytes));
    }

    /// A trained tensor and the parts of its optimizer state.
    ///
    /// # Errors
    /// When the tensor cannot be read.
    pub(crate) fn put_trained<'p>(
        &mut self,
        name: &str,
        var: &Var,
        parts: impl Iterator<Item = (&'static str, &'p Vec<f32>)>,
    ) -> Result<()> {
        let values = var.flatten_all()?.to_vec1::<f32>()?;
        self.put(format!("value.{name}"), &[values.len()], &values);
        for (part, values) in parts {
            self.put(format!("{part}.{name}"), &[values.len()], values);
        }
        Ok(())
    }

    /// Writes the file into `dir`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(self, dir: &Path, progress: &impl Serialize) -> Result<()> {
        let path = dir.join(STATE_FILE);
        let fail = |what| fail(&path, what);
        let mut views = Vec::with_capacity(self.tensors.len());
        for (name, shape, bytes) in &self.tensors {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            views.push((name.as_str(), view.map_err(|e| fail(e.to_string()))?));
        }
        views.sort_by_key(|(name, _)| *name);
        let text = serde_json::to_string(progress).map_err(|e| fail(e.to_string()))?;
        let info = HashMap::from([("progress".to_owned(), text)]);
        let bytes = safetensors::serialize(views, Some(info)).map_err(|e| fail(e.to_string()))?;
        write_atomically(&path, &bytes)
    }
}

/// A state file's bytes.
pub(crate) struct SavedState {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl SavedState {
    /// Reads that of `dir`.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(STATE_FILE);
        let bytes = std::fs::read(&path).map_err(at(&path))?;
        Ok(Self { path, bytes })
    }

    /// How far the run was; `of` says whether it had the same recipe, and how many sentences.
    ///
    /// # Errors
    /// When the file is malformed, or of another recipe or other data.
    pub(crate) fn progress<P: DeserializeOwned>(
        &self,
        train_size: usize,
        of: impl Fn(&P) -> (bool, usize),
    ) -> Result<P> {
        let fail = |what| fail(&self.path, what);
        let (_, metadata) = SafeTensors::read_metadata(&self.bytes)
            .map_err(|e| fail(format!("malformed ({e})")))?;
        let text = metadata
            .metadata()
            .as_ref()
            .and_then(|m| m.get("progress"))
            .ok_or_else(|| fail("it has no progress entry".into()))?;
        let progress: P =
            serde_json::from_str(text).map_err(|e| fail(format!("malformed progress ({e})")))?;
        match of(&progress) {
            (false, _) => Err(fail("it was made by another recipe".into())),
            (true, size) if size != train_size => Err(fail(format!(
                "it was made with {size} training sentences and there are {train_size} now"
            ))),
            _ => Ok(progress),
        }
    }

    /// Its tensors.
    ///
    /// # Errors
    /// When the file is malformed.
    pub(crate) fn tensors(&self) -> Result<SavedTensors<'_>> {
        let path = &self.path;
        let file = SafeTensors::deserialize(&self.bytes);
        let file = file.map_err(|e| fail(path, format!("malformed ({e})")))?;
        Ok(SavedTensors { path, file })
    }
}

/// The tensors of a state file.
pub(crate) struct SavedTensors<'s> {
    path: &'s Path,
    file: SafeTensors<'s>,
}

impl SavedTensors<'_> {
    fn values(&self, name: &str, n: usize) -> Result<Vec<f32>> {
        let fail = |what| fail(self.path, what);
        let view = self.file.tensor(name).map_err(|e| fail(e.to_string()))?;
        if view.dtype() != Dtype::F32 || view.shape() != [n] {
            return Err(fail(format!(
                "`{name}` has shape {:?}, expected [{n}]: it is of another model",
                view.shape()
            )));
        }
        Ok(floats(&view))
    }

    /// Puts a trained tensor and the parts of its optimizer state in their places.
    ///
    /// # Errors
    /// When one is not there or of another size.
    pub(crate) fn take_trained<'p>(
        &self,
        name: &str,
        var: &Var,
        parts: impl Iterator<Item = (&'static str, &'p mut Vec<f32>)>,
    ) -> Result<()> {
        let n = var.elem_count();
        let values = self.values(&format!("value.{name}"), n)?;
        var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu)?)?;
        for (part, values) in parts {
            *values = self.values(&format!("{part}.{name}"), n)?;
        }
        Ok(())
    }
}

fn fail(path: &Path, what: String) -> TrainError {
    TrainError::Checkpoint {
        path: path.to_owned(),
        what,
    }
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
