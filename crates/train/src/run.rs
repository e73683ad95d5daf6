//! A whole training run: from the recipe to the model folder.

use std::path::{Path, PathBuf};

use veilformer_models::Tokenizer;

use crate::card;
use crate::corpus::Corpus;
use crate::error::{Result, TrainError, at};
use crate::export::{measure, to_checkpoint, write_atomically};
use crate::features::Features;
use crate::network::Weights;
use crate::plots;
use crate::recipe::Recipe;
use crate::state::{self, Progress, STATE_FILE};
use crate::trainer::{EpochReport, Trainer, accuracy, evaluate};

/// Where a run takes its input and puts its output.
#[derive(Debug, Clone)]
pub struct RunPaths {
    /// The recipe file.
    pub recipe: PathBuf,
    /// The folder with the data files that the recipe names.
    pub data: PathBuf,
    /// The folder or wheel with the frozen features.
    pub features: PathBuf,
    /// The folder for the model.
    pub out: PathBuf,
}

/// Told about the progress of a run.
pub trait Observer {
    /// A stage begins: its name and its number of steps.
    fn stage(&mut self, name: &str, steps: usize);
    /// A step is done, with its loss.
    fn step(&mut self, loss: f64);
    /// A line to be shown.
    fn line(&mut self, text: &str);
}

/// Trains as the recipe says and writes the model folder: `config.json`, `model.safetensors`,
/// `tokenizer.json` (not with a shared token table), `recipe.toml`, `golden.json`, `README.md`,
/// `loss.svg`, `ranges.svg`; and the state of the run, which is not needed any more when the run is
/// done.
///
/// # Errors
/// When an input is not usable, the output folder holds a run and `resume` is not given, or the
/// loss leaves the numbers.
pub fn train(paths: &RunPaths, resume: bool, observer: &mut dyn Observer) -> Result<()> {
    let recipe = Recipe::load(&paths.recipe)?;
    let has_state = paths.out.join(STATE_FILE).is_file();
    if !resume && (has_state || paths.out.join("model.safetensors").exists()) {
        return Err(TrainError::Exists(paths.out.clone()));
    }
    let features = Features::of_recipe(&recipe.features, &paths.features)?;
    let corpus = Corpus::load(&recipe, &paths.data, features)?;
    observer.line(&format!(
        "{} training sentences ({} left out: their tokens are those of a dev or test sentence), \
         {} dev, {} test, {} tokens",
        corpus.train.len(),
        corpus.excluded,
        corpus.dev.len(),
        corpus.test.len(),
        corpus.source.tokens().len()
    ));
    // Before training and not after it: a golden sentence that the model cannot take.
    let tokenizer = Tokenizer::from_bytes(corpus.tokenizer_json.as_bytes())?;
    for sentence in &recipe.golden {
        tokenizer.encode_within(sentence, recipe.model.max_position_embeddings)?;
    }
    std::fs::create_dir_all(&paths.out).map_err(at(&paths.out))?;

    let mut trainer = Trainer::new(&recipe, &corpus)?;
    let (progress, best) = fit(
        &mut trainer,
        has_state.then_some(&*paths.out),
        Some(&paths.out),
        observer,
    )?;
    let model = to_checkpoint(&trainer, &best)?;
    model.save(&paths.out)?;
    if model.config.token_table.is_none() {
        let tokenizer = corpus.tokenizer_json.as_bytes();
        write_atomically(&paths.out.join("tokenizer.json"), tokenizer)?;
    }
    let (golden, ranges) = measure(&paths.out, &corpus, &recipe.golden)?;
    let text = serde_json::to_string_pretty(&golden)
        .map_err(|e| candle_core::Error::Msg(e.to_string()))?;
    write_atomically(&paths.out.join("golden.json"), (text + "\n").as_bytes())?;
    let text = std::fs::read(&paths.recipe).map_err(at(&paths.recipe))?;
    write_atomically(&paths.out.join("recipe.toml"), &text)?;

    let table = trainer.token_table(&best)?;
    let unrounded = evaluate(&trainer.config, &best, &table, &corpus.test)?;
    observer.line("bag of words of the same features:");
    let bag = figures_of(Trainer::bag_of_words(&recipe, &corpus)?, observer)?;
    let from_scratch = match &recipe.from_scratch {
        Some(scratch) => {
            observer.line("token vectors learned from scratch:");
            let corpus = corpus.from_scratch(scratch)?;
            let figures = figures_of(Trainer::new(&recipe, &corpus)?, observer)?;
            Some((figures, corpus.source.tokens().len()))
        }
        None => None,
    };
    let facts = card::Facts {
        recipe: &recipe,
        corpus: &corpus,
        model: &model,
        progress: &progress,
        figures: &golden.figures,
        unrounded_test: accuracy(&unrounded, &corpus.test, corpus.test_size()),
        bag_of_words: bag,
        from_scratch,
    };
    write_atomically(&paths.out.join("README.md"), card::text(&facts).as_bytes())?;
    for (file, figure) in [
        ("loss.svg", plots::training(&progress.history)),
        ("ranges.svg", plots::ranges(&ranges)),
    ] {
        write_atomically(&paths.out.join(file), figure.svg()?.as_bytes())?;
    }
    let scratch = from_scratch.map_or(String::new(), |([dev, test], _)| {
        format!("; from scratch {dev:.4}, {test:.4}")
    });
    observer.line(&format!(
        "done: dev {:.4}, test {:.4} (bag of words {:.4}, {:.4}{scratch}); model in {}",
        golden.figures.dev_accuracy,
        golden.figures.test_accuracy,
        bag[0],
        bag[1],
        paths.out.display()
    ));
    Ok(())
}

/// Runs all epochs and returns the best one's averaged weights; `from` is a folder to resume from,
/// `to` one where the state is kept after each epoch.
///
/// # Errors
/// As [`train`].
pub fn fit(
    trainer: &mut Trainer<'_>,
    from: Option<&Path>,
    to: Option<&Path>,
    observer: &mut dyn Observer,
) -> Result<(Progress, Weights)> {
    let (recipe, train_size) = (trainer.recipe, trainer.corpus.train.len());
    let (mut progress, mut best) = match from {
        Some(dir) => state::load(dir, &mut trainer.parameters, recipe, train_size)?,
        None => (
            Progress {
                recipe: recipe.clone(),
                train_size,
                step: 0,
                history: Vec::new(),
                best_epoch: 0,
            },
            Weights::new(),
        ),
    };
    for epoch in progress.history.len()..recipe.optimizer.epochs {
        let steps = trainer.steps_per_epoch();
        observer.stage(
            &format!("epoch {}/{}", epoch + 1, recipe.optimizer.epochs),
            steps,
        );
        let report = trainer.epoch(epoch, |loss| observer.step(loss))?;
        observer.line(&line(&report, recipe.optimizer.epochs));
        let best_so_far = progress
            .history
            .get(progress.best_epoch)
            .map(|r| r.dev_accuracy);
        if best_so_far.is_none_or(|b| report.dev_accuracy > b) {
            progress.best_epoch = epoch;
            best = trainer.parameters.averaged()?;
        }
        progress.history.push(report);
        progress.step = trainer.parameters.step;
        if let Some(dir) = to {
            state::save(dir, &trainer.parameters, &progress, &best)?;
        }
    }
    Ok((progress, best))
}

/// Dev and test accuracy of a model beside the shipped one, its epoch selected on dev too.
fn figures_of(mut trainer: Trainer<'_>, observer: &mut dyn Observer) -> Result<[f64; 2]> {
    let (progress, best) = fit(&mut trainer, None, None, observer)?;
    let table = trainer.token_table(&best)?;
    let test = evaluate(&trainer.config, &best, &table, &trainer.corpus.test)?;
    let dev = progress
        .history
        .get(progress.best_epoch)
        .map_or(0.0, |r| r.dev_accuracy);
    let corpus = trainer.corpus;
    Ok([dev, accuracy(&test, &corpus.test, corpus.test_size())])
}

fn line(report: &EpochReport, epochs: usize) -> String {
    format!(
        "epoch {:>3}/{epochs}: loss {:.4}, range term {:.5}, dev accuracy {:.4}",
        report.epoch + 1,
        report.loss,
        report.range_loss,
        report.dev_accuracy
    )
}
