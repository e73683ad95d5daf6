//! Training on a tiny task: it learns, repeats itself exactly, and goes on after a stop.
// Helpers of tests stand outside the test functions that clippy lets unwrap.
#![allow(clippy::unwrap_used)]

mod common;

use common::{
    Lines, RECIPE, corpus, features, recipe, state_space_recipe, state_space_text, write_data,
    write_features,
};
use veilformer_models::ModelFolder;
use veilformer_models::interpreter::interpret;
use veilformer_train::corpus::Corpus;
use veilformer_train::network::Weights;
use veilformer_train::recipe::{LongSentences, Recipe, ScratchRecipe};
use veilformer_train::run::{RunPaths, fit, train};
use veilformer_train::state::{self, Progress};
use veilformer_train::table::{self, Origin};
use veilformer_train::trainer::{Trainer, accuracy};

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

/// Trains and returns the best dev accuracy and its weights; the loss has to fall.
fn learn(recipe: &Recipe, corpus: &Corpus) -> (f64, Weights) {
    let mut trainer = Trainer::new(recipe, corpus).unwrap();
    let (progress, best) = fit(&mut trainer, None, None, &mut Lines::default()).unwrap();
    let (first, last) = (&progress.history[0], progress.history.last().unwrap());
    assert!(
        last.loss < 0.7 * first.loss,
        "{} then {}",
        first.loss,
        last.loss
    );
    (progress.history[progress.best_epoch].dev_accuracy, best)
}

#[test]
fn the_loss_falls_and_the_task_is_learned() {
    let transformer = recipe();
    let (accuracy, best) = learn(&transformer, &corpus(&transformer));
    assert!(accuracy >= 0.95, "{accuracy}");
    assert!(best.contains_key("layers.0.norm1.running_mean"));

    let mut recipe = state_space_recipe();
    recipe.optimizer.epochs = 8;
    let corpus = corpus(&recipe);
    let (accuracy, best) = learn(&recipe, &corpus);
    assert!(accuracy >= 0.95, "{accuracy}");
    assert!(best.contains_key("layers.0.decay_logit"));

    recipe.optimizer.epochs = 16;
    let scratch = ScratchRecipe {
        min_sentences: 2,
        embedding: 0.3,
    };
    let corpus = corpus.from_scratch(&scratch).unwrap();
    let (accuracy, best) = learn(&recipe, &corpus);
    assert!(accuracy >= 0.95, "{accuracy}");
    assert!(best.contains_key("embedding") && !best.contains_key("projection"));
}

#[test]
fn the_decay_is_learned_and_starts_spread_out() {
    let recipe = state_space_recipe();
    let corpus = corpus(&recipe);
    let mut trainer = Trainer::new(&recipe, &corpus).unwrap();
    let logits = |t: &Trainer<'_>| -> Vec<f32> {
        let weights = t.parameters.trained();
        weights["layers.0.decay_logit"].to_vec1().unwrap()
    };
    let before = logits(&trainer);
    let times: Vec<f32> = before
        .iter()
        .map(|l| 1.0 / (1.0 + (-l).exp()).ln())
        .collect();
    // From 1 to 8 tokens, each the fourth root of 8 times the one before.
    for (time, place) in times.iter().zip(0..5) {
        let expected = 8f32.powf(place as f32 / 4.0);
        assert!((time / expected - 1.0).abs() < 1e-4, "{time}, {expected}");
    }
    trainer.epoch(0, |_| ()).unwrap();
    let after = logits(&trainer);
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(b, a)| a != b && a.is_finite())
    );
}

#[test]
fn a_resumed_run_has_the_weights_of_an_uninterrupted_one() {
    for recipe in [recipe(), state_space_recipe()] {
        resumed_is_uninterrupted(&recipe);
    }
}

fn resumed_is_uninterrupted(recipe: &Recipe) {
    let corpus = corpus(recipe);
    let mut whole = Trainer::new(recipe, &corpus).unwrap();
    let (progress, best) = fit(&mut whole, None, None, &mut Lines::default()).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let mut stopped = Trainer::new(recipe, &corpus).unwrap();
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

    let mut resumed = Trainer::new(recipe, &corpus).unwrap();
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
        "loss.svg",
        "ranges.svg",
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
fn a_run_on_a_shared_table_keeps_the_projection_and_tells_of_the_model_from_scratch() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("features")).unwrap();
    write_features(&at("features"));
    write_data(dir.path());
    let origin = Origin {
        source: "noise".into(),
        license: "none".into(),
    };
    let made = table::write(&at("features"), 6, &origin, &at("tiny-tokens")).unwrap();
    assert_eq!((made.table.vocab_size(), made.table.row_bytes()), (9, 6));
    let card = std::fs::read_to_string(at("tiny-tokens").join("README.md")).unwrap();
    assert!(card.contains("--bytes 6 --out tiny-tokens"), "{card}");
    let again = table::write(&at("features"), 6, &origin, &at("tiny-tokens"));
    assert!(again.err().unwrap().to_string().contains("already holds"));

    let recipe = state_space_text()
        .replace(
            "unit_rows = true",
            "table = { name = \"tiny-tokens\", whitening = 0.5 }",
        )
        .replace(
            "[model]",
            "[from_scratch]\nmin_sentences = 2\nembedding = 0.3\n[model]",
        );
    std::fs::write(at("recipe"), recipe).unwrap();
    let paths = |features: &str| RunPaths {
        recipe: at("recipe"),
        data: dir.path().to_owned(),
        features: at(features),
        out: at("model"),
    };
    let refused = train(&paths("features"), false, &mut Lines::default()).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("the token table `tiny-tokens`")
    );
    train(&paths("tiny-tokens"), false, &mut Lines::default()).unwrap();
    // The table is found beside the model.
    let folder = ModelFolder::load(&at("model")).unwrap();
    assert!(!at("model").join("tokenizer.json").exists());
    let embedding = &folder.checkpoint.embedding;
    assert!(embedding.table == made.table && embedding.position.is_none());
    let projection = embedding.projection.as_ref().unwrap();
    assert_eq!(
        (projection.rows(), projection.cols()),
        (8, made.table.width())
    );
    let card = std::fs::read_to_string(at("model").join("README.md")).unwrap();
    for part in [
        "token vectors learned from scratch",
        "[tiny-tokens](../tiny-tokens/README.md)",
        "state-space classifier",
        "what is read from the state set to zero",
    ] {
        assert!(card.contains(part), "the card lacks `{part}`:\n{card}");
    }
    let golden = std::fs::read(at("model").join("golden.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    let program = folder.checkpoint.tensor_program("tiny");
    for case in golden["sentences"].as_array().unwrap() {
        let ids = folder.encode(case["text"].as_str().unwrap()).unwrap();
        let run = interpret(&program, &folder.checkpoint.rows(&ids).unwrap()).unwrap();
        for (found, told) in run.logits.iter().zip(case["logits"].as_array().unwrap()) {
            assert!((found - told.as_f64().unwrap()).abs() < 1e-9);
        }
    }
}

#[test]
fn sentences_that_are_too_long_are_refused_or_count_as_wrong() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path());
    let append = |name: &str, text: &str| {
        let old = std::fs::read_to_string(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name), old + text).unwrap();
    };
    append("train", "1 good a a a a a a\n");
    append("dev", "1 good a a a a a a\n0 bad a a a a a a\n");
    let mut recipe = recipe();
    let refused = Corpus::load(&recipe, dir.path(), features()).err().unwrap();
    assert!(refused.to_string().contains("7 tokens"), "{refused}");
    recipe.data.long = LongSentences::Wrong;
    let corpus = Corpus::load(&recipe, dir.path(), features()).unwrap();
    assert_eq!(corpus.too_long, [1, 2, 0]);
    assert_eq!((corpus.train.len(), corpus.dev.len()), (160, 40));
    assert_eq!((corpus.dev_size(), corpus.test_size()), (42, 40));
    let right = vec![vec![0.0, 1.0]; 40];
    let ones = corpus.dev.iter().filter(|i| i.label == 1).count() as f64;
    assert_eq!(
        accuracy(&right, &corpus.dev, corpus.dev_size()),
        ones / 42.0
    );
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
