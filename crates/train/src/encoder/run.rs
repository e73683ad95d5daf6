//! A whole run: from the recipe and a folder to a folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::card;
use super::corpus::EncoderCorpus;
use super::folder::Pretrained;
use super::network::{Network, Shape};
use super::ranges::{LayerWidths, Seen};
use super::recipe::EncoderRecipe;
use super::state::{self, EncoderEpoch, EncoderProgress};
use super::trainer::{EncoderTrainer, answers};
use crate::error::{Result, TrainError, at};
use crate::export::write_atomically;
use crate::network::Weights;
use crate::run::Observer;
use crate::state::STATE_FILE;
use crate::trainer::accuracy;

/// Where a run takes its input and puts its output.
#[derive(Debug, Clone)]
pub struct EncoderPaths {
    /// The recipe file.
    pub recipe: PathBuf,
    /// The folder with the data files that the recipe names.
    pub data: PathBuf,
    /// The Hugging Face folder to begin with: a pre-trained encoder, or a student's teacher.
    pub model: PathBuf,
    /// The folder for the model.
    pub out: PathBuf,
}

/// What is measured when a run is done, as `metrics.json` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Part of the dev split that is answered right, after the last epoch.
    pub dev_accuracy: f64,
    /// Part of the test split that is answered right.
    pub test_accuracy: f64,
    /// A student's teacher: the same two.
    pub teacher: Option<[f64; 2]>,
    /// Sentences of the training, dev and test split.
    pub sizes: [usize; 3],
    /// Training sentences left out because their tokens are those of a dev or test sentence.
    pub excluded: usize,
    /// The epochs.
    pub history: Vec<EncoderEpoch>,
    /// Widths of each layer's ranges over dev and test.
    pub ranges: Vec<LayerWidths>,
    /// A student's before its first step.
    pub ranges_before: Option<Vec<LayerWidths>>,
}

/// Trains as the recipe says and writes a Hugging Face folder of `BertForSequenceClassification`:
/// `config.json`, `model.safetensors` and the tokenizer's files; beside them `recipe.toml`,
/// `metrics.json`, `README.md`, and the state of the run, which is not needed any more when the run
/// is done.
///
/// # Errors
/// When an input is not usable, the output folder holds a run and `resume` is not given, or the
/// loss leaves the numbers.
pub fn train_encoder(
    paths: &EncoderPaths,
    resume: bool,
    observer: &mut dyn Observer,
) -> Result<Metrics> {
    let recipe = EncoderRecipe::load(&paths.recipe)?;
    let has_state = paths.out.join(STATE_FILE).is_file();
    if !resume && (has_state || paths.out.join("model.safetensors").exists()) {
        return Err(TrainError::Exists(paths.out.clone()));
    }
    let source = Pretrained::load(&paths.model, &recipe)?;
    let corpus = EncoderCorpus::load(&recipe, &paths.data, &source.tokenizer)?;
    observer.line(&format!(
        "{} training sentences ({} left out: their tokens are those of a dev or test sentence), \
         {} dev, {} test",
        corpus.train.len(),
        corpus.excluded,
        corpus.dev.len(),
        corpus.test.len(),
    ));
    std::fs::create_dir_all(&paths.out).map_err(at(&paths.out))?;
    let mut trainer = EncoderTrainer::new(&recipe, &corpus, &source)?;
    let judge = |shape: Shape, weights: &Weights| -> Result<([f64; 2], Vec<LayerWidths>)> {
        let network = Network::new(shape, weights);
        let mut seen = Seen::default();
        let dev = answers(&network, &corpus.dev, Some(&mut seen))?;
        let test = answers(&network, &corpus.test, Some(&mut seen))?;
        let figures = [
            accuracy(&dev, &corpus.dev, corpus.dev.len()),
            accuracy(&test, &corpus.test, corpus.test.len()),
        ];
        Ok((figures, seen.summary()))
    };
    let (teacher, ranges_before) = match &recipe.student {
        Some(_) => {
            let weights: Weights = source.weights.iter().cloned().collect();
            let (teacher, _) = judge(source.shape, &weights)?;
            let (_, ranges) = judge(trainer.shape, &trainer.parameters.weights())?;
            observer.line(&format!(
                "teacher: dev {:.4}, test {:.4}",
                teacher[0], teacher[1]
            ));
            (Some(teacher), Some(ranges))
        }
        None => (None, None),
    };
    let from = has_state.then_some(&*paths.out);
    let history = fit(&mut trainer, &corpus, from, Some(&paths.out), observer)?;
    let weights = trainer.parameters.weights();
    source.export(&weights, &recipe, &paths.out)?;
    let ([dev_accuracy, test_accuracy], ranges) = judge(trainer.shape, &weights)?;
    let metrics = Metrics {
        dev_accuracy,
        test_accuracy,
        teacher,
        sizes: [&corpus.train, &corpus.dev, &corpus.test].map(Vec::len),
        excluded: corpus.excluded,
        history,
        ranges,
        ranges_before,
    };
    let text = serde_json::to_string_pretty(&metrics)
        .map_err(|e| candle_core::Error::Msg(e.to_string()))?;
    let bytes = std::fs::read(&paths.recipe).map_err(at(&paths.recipe))?;
    write_atomically(&paths.out.join("recipe.toml"), &bytes)?;
    write_atomically(&paths.out.join("metrics.json"), (text + "\n").as_bytes())?;
    let text = card::text(&recipe, &metrics);
    write_atomically(&paths.out.join("README.md"), text.as_bytes())?;
    observer.line(&format!(
        "done: dev {dev_accuracy:.4}, test {test_accuracy:.4}; model in {}",
        paths.out.display()
    ));
    Ok(metrics)
}

/// Runs all steps; `from` is a folder to resume from, `to` one where the state is kept.
///
/// # Errors
/// As [`train_encoder`].
pub fn fit(
    trainer: &mut EncoderTrainer<'_>,
    corpus: &EncoderCorpus,
    from: Option<&Path>,
    to: Option<&Path>,
    observer: &mut dyn Observer,
) -> Result<Vec<EncoderEpoch>> {
    let (recipe, train_size) = (trainer.recipe, corpus.train.len());
    let o = &recipe.optimizer;
    let mut progress = match from {
        Some(dir) => state::load(dir, &mut trainer.parameters, recipe, train_size)?,
        None => EncoderProgress {
            recipe: recipe.clone(),
            train_size,
            step: 0,
            sums: [0.0; 2],
            history: Vec::new(),
        },
    };
    let steps = trainer.steps_per_epoch();
    let total = steps * o.epochs;
    for epoch in progress.history.len()..o.epochs {
        let batches = trainer.batches(epoch);
        observer.stage(&format!("epoch {}/{}", epoch + 1, o.epochs), steps);
        let done = progress.step - (epoch * steps).min(progress.step);
        let mut since = [0.0; 3];
        for batch in batches.iter().skip(done) {
            let losses = trainer.step(batch)?;
            observer.step(losses[0]);
            for (sum, loss) in progress.sums.iter_mut().zip(losses) {
                *sum += loss;
            }
            since = [since[0] + losses[0], since[1] + losses[1], since[2] + 1.0];
            progress.step = trainer.parameters.step;
            if progress.step.is_multiple_of(o.save_steps) && progress.step < (epoch + 1) * steps {
                let [loss, range, n] = since;
                observer.line(&format!(
                    "step {}/{total}: loss {:.4}, range term {:.4}",
                    progress.step,
                    loss / n,
                    range / n
                ));
                since = [0.0; 3];
                if let Some(dir) = to {
                    state::save(dir, &trainer.parameters, &progress)?;
                }
            }
        }
        let weights = trainer.parameters.weights();
        let dev = answers(&Network::new(trainer.shape, &weights), &corpus.dev, None)?;
        let [loss, range_loss] = progress.sums.map(|sum| sum / steps as f64);
        let report = EncoderEpoch {
            loss,
            range_loss,
            dev_accuracy: accuracy(&dev, &corpus.dev, corpus.dev.len()),
        };
        observer.line(&format!(
            "epoch {}/{}: loss {loss:.4}, range term {range_loss:.4}, dev accuracy {:.4}",
            epoch + 1,
            o.epochs,
            report.dev_accuracy
        ));
        progress.history.push(report);
        progress.sums = [0.0; 2];
        if let Some(dir) = to {
            state::save(dir, &trainer.parameters, &progress)?;
        }
    }
    Ok(progress.history)
}
