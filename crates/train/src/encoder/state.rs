//! The state of a run on disk, from which it goes on as if never stopped.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::optimizer::Parameters;
use super::recipe::EncoderRecipe;
use crate::error::Result;
use crate::state::{NewState, SavedState};

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
    let mut state = NewState::default();
    for p in &run.list {
        state.put_trained(&p.name, &p.var, MOMENTS.into_iter().zip(&p.moments))?;
    }
    state.write(dir, progress)
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
    let state = SavedState::read(dir)?;
    let of = |p: &EncoderProgress| (p.recipe == *recipe, p.train_size);
    let progress = state.progress(train_size, of)?;
    let tensors = state.tensors()?;
    for p in &mut run.list {
        let parts = MOMENTS.into_iter().zip(&mut p.moments);
        tensors.take_trained(&p.name, &p.var, parts)?;
    }
    run.step = progress.step;
    Ok(progress)
}
