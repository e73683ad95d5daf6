//! Training on a tiny task: it learns, repeats itself exactly, and goes on after a stop.
// Helpers of tests stand outside the test functions that clippy lets unwrap.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Lines, RECIPE, corpus, recipe, write_data, write_features};
use veilformer_models::ModelFolder;
use veilformer_train::network::Weights;
use veilformer_train::run::{RunPaths, fit, train};
use veilformer_train::state::{self, Progress};
use veilformer_train::trainer::Trainer;

fn values(weights: &Weights) -> Vec<(String, Vec<u32>)> {
    let mut all: Vec<(String, Vec<u32>)> = weights
        .iter()
        .map(|(name, tensor)| {
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (name.clone(), values.into_iter().map(f32::to_bits).collect())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn the_loss_falls_and_the_task_is_learned() {
    let recipe = recipe();
    let corpus = corpus(&recipe);
    let mut trainer = Trainer::new(&recipe, &corpus).unwrap();
    let (progress, best) = fit(&mut trainer, None, None, &mut Lines::default()).unwrap();
    let (first, last) = (&progress.history[0], &progress.history[3]);
    assert!(
        last.loss < 0.7 * first.loss,
        "{} then {}",
        first.loss,
        last.loss
    );
    assert!(progress.history[progress.best_epoch].dev_accuracy >= 0.95);
    assert!(best.contains_key("layers.0.norm1.running_mean"));
}

#[test]
fn a_resumed_run_has_the_weights_of_an_uninterrupted_one() {
    let recipe = recipe();
    let corpus = corpus(&recipe);
    let mut whole = Trainer::new(&recipe, &corpus).unwrap();
    let (progress, best) = fit(&mut whole, None, None, &mut Lines::default()).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let mut stopped = Trainer::new(&recipe, &corpus).unwrap();
    let history = vec![stopped.epoch(0, |_| ()).unwrap()];
    let half = Progress {
        recipe: recipe.clone(),
        train_size: corpus.train.len(),
        step: stopped.parameters.step,
        history,
        best_epoch: 0,
    };
    let best_so_far = stopped.parameters.averaged().unwrap();
    state::save(dir.path(), &stopped.parameters, &half, &best_so_far).unwrap();

    let mut resumed = Trainer::new(&recipe, &corpus).unwrap();
    let (again, best_again) =
        fit(&mut resumed, Some(dir.path()), None, &mut Lines::default()).unwrap();
    assert_eq!(again, progress);
    assert!(values(&best_again) == values(&best));
    assert!(values(&resumed.parameters.trained()) == values(&whole.parameters.trained()));
    let averaged = |t: &Trainer<'_>| values(&t.parameters.averaged().unwrap());
    assert!(averaged(&resumed) == averaged(&whole));
}

#[test]
fn a_state_of_another_run_is_refused() {
    let recipe = recipe();
    let corpus = corpus(&recipe);
    let dir = tempfile::tempdir().unwrap();
    let mut trainer = Trainer::new(&recipe, &corpus).unwrap();
    fit(&mut trainer, None, Some(dir.path()), &mut Lines::default()).unwrap();
    let mut other = recipe.clone();
    other.seed += 1;
    let parameters = &mut trainer.parameters;
    let message = state::load(dir.path(), parameters, &other, 160)
        .unwrap_err()
        .to_string();
    assert!(message.contains("another recipe"), "{message}");
    let message = state::load(dir.path(), parameters, &recipe, 7)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("160 training sentences and there are 7"),
        "{message}"
    );
    let path = dir.path().join(state::STATE_FILE);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let message = state::load(dir.path(), parameters, &recipe, 160)
        .unwrap_err()
        .to_string();
    assert!(message.contains("malformed"), "{message}");
}

#[test]
fn a_whole_run_writes_a_model_folder_twice_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("features")).unwrap();
    write_features(&at("features"));
    write_data(dir.path());
    std::fs::write(at("recipe"), RECIPE).unwrap();
    let paths = |out: &str| RunPaths {
        recipe: at("recipe"),
        data: dir.path().to_owned(),
        features: at("features"),
        out: at(out),
    };
    let mut lines = Lines::default();
    train(&paths("one"), false, &mut lines).unwrap();
    train(&paths("two"), false, &mut Lines::default()).unwrap();
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "golden.json",
        "README.md",
        "recipe.toml",
    ] {
        let read = |out: &str| std::fs::read(at(out).join(file)).unwrap();
        assert!(read("one") == read("two"), "{file} differs");
    }
    let folder = ModelFolder::load(&at("one")).unwrap();
    assert_eq!(folder.encode("a good film").unwrap(), [3, 1, 4]);
    let card = std::fs::read_to_string(at("one").join("README.md")).unwrap();
    for part in [
        "client looks the embedding up",
        "bag of words",
        "Made by a test.",
        "| S |",
    ] {
        assert!(card.contains(part), "the card lacks `{part}`");
    }
    assert!(
        lines
            .0
            .iter()
            .any(|l| l.contains("160 training sentences (0 left out"))
    );

    let message = train(&paths("one"), false, &mut Lines::default())
        .unwrap_err()
        .to_string();
    assert!(message.contains("--resume"), "{message}");
    // Resuming a finished run has nothing to train and writes the same files.
    let before = std::fs::read(at("one").join("model.safetensors")).unwrap();
    train(&paths("one"), true, &mut Lines::default()).unwrap();
    assert!(std::fs::read(at("one").join("model.safetensors")).unwrap() == before);
}

#[test]
fn a_loss_that_leaves_the_numbers_is_an_error() {
    let mut recipe = recipe();
    recipe.optimizer.learning_rate = 1e6;
    recipe.optimizer.clip_norm = 1e6;
    let corpus = corpus(&recipe);
    let mut trainer = Trainer::new(&recipe, &corpus).unwrap();
    let message = fit(&mut trainer, None, None, &mut Lines::default())
        .unwrap_err()
        .to_string();
    assert!(message.contains("not finite at step"), "{message}");
}
