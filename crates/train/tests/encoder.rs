//! Encoders: the trainer's forward pass against the clear executor, training, resuming, folders.
// Helpers of tests stand outside the test functions that clippy lets unwrap.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{ENCODER_RECIPE as RECIPE, write_data, write_encoder};
use veilformer_models::encoder::{EncoderFolder, Execution};
use veilformer_train::encoder::corpus::EncoderCorpus;
use veilformer_train::encoder::folder::Pretrained;
use veilformer_train::encoder::network::{Batch, Network, Purpose};
use veilformer_train::encoder::recipe::EncoderRecipe;
use veilformer_train::encoder::run::fit;
use veilformer_train::encoder::trainer::{EncoderTrainer, answers};
use veilformer_train::encoder::{EncoderPaths, Metrics, train_encoder};
use veilformer_train::error::{Result, TrainError};
use veilformer_train::network::Weights;
use veilformer_train::run::Observer;

const STUDENT: &str = r#"
[student]
power = 4
epsilon = 0.25
layer_norm_eps = 1e-6
temperature = 2.0
hidden = 1.0
lengthened = 12
[student.ranges]
sums = 0.1
sum = 2.0
variances = 0.1
variance_ratio = 1.5
activations = 0.01
activation = 1.0
"#;

/// Nobody looks.
struct Silent;

impl Observer for Silent {
    fn stage(&mut self, _: &str, _: usize) {}
    fn step(&mut self, _: f64) {}
    fn line(&mut self, _: &str) {}
}

struct Place(tempfile::TempDir);

impl Place {
    fn new(labels: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_data(dir.path());
        std::fs::create_dir(dir.path().join("model")).unwrap();
        write_encoder(&dir.path().join("model"), labels, "gelu");
        Self(dir)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, recipe: &str, [model, out]: [&str; 2], resume: bool) -> Result<Metrics> {
        std::fs::write(self.path("recipe.toml"), recipe).unwrap();
        let paths = EncoderPaths {
            recipe: self.path("recipe.toml"),
            data: self.path("."),
            model: self.path(model),
            out: self.path(out),
        };
        train_encoder(&paths, resume, &mut Silent)
    }
}

fn recipe(text: &str) -> EncoderRecipe {
    let recipe: EncoderRecipe = toml::from_str(text).unwrap();
    recipe.validate().unwrap();
    recipe
}

fn edit_config(dir: &Path, fields: &[(&str, serde_json::Value)]) {
    let path = dir.join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (name, value) in fields {
        config[name] = value.clone();
    }
    std::fs::write(path, config.to_string()).unwrap();
}

/// The largest distance between the answers of the trainer's network and the clear executor, on the
/// toy task's dev split.
fn distance(place: &Place, model: &str) -> f64 {
    let recipe = recipe(RECIPE);
    let source = Pretrained::load(&place.path(model), &recipe).unwrap();
    let corpus = EncoderCorpus::load(&recipe, &place.path("."), &source.tokenizer).unwrap();
    let weights: Weights = source.weights.iter().cloned().collect();
    let ours = answers(&Network::new(source.shape, &weights), &corpus.dev, None).unwrap();
    let folder = EncoderFolder::load(&place.path(model), 24).unwrap();
    let sentences: Vec<Vec<u32>> = corpus.dev.iter().map(|i| i.ids.clone()).collect();
    let execution = Execution::new(&folder.encoder).unwrap();
    let theirs = execution.answers(&sentences).unwrap();
    assert_eq!(ours.len(), theirs.len());
    let all = ours.iter().flatten().zip(theirs.iter().flatten());
    all.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn the_shipped_recipes_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let files = std::fs::read_dir(folder).unwrap();
    let loaded = files.map(|file| EncoderRecipe::load(&file.unwrap().path()).unwrap());
    assert_eq!(loaded.filter(|r| r.student.is_some()).count(), 1);
}

#[test]
fn the_forward_pass_is_the_clear_executors() {
    let place = Place::new(2);
    for activation in ["gelu", "gelu_new", "relu", "quadratic"] {
        write_encoder(&place.path("model"), 2, activation);
        let softmax = distance(&place, "model");
        let power = [
            ("attention_function", "power_softmax".into()),
            ("power_softmax_power", 4.into()),
            ("power_softmax_epsilon", 0.25.into()),
            ("layer_norm_eps", 0.01.into()),
        ];
        edit_config(&place.path("model"), &power);
        let power = distance(&place, "model");
        assert!(
            softmax < 1e-4 && power < 1e-4,
            "{activation}: {softmax} {power}"
        );
    }
}

#[test]
fn training_lowers_the_loss_and_writes_folders_that_load() {
    let place = Place::new(0);
    let text = RECIPE
        .replace("learning_rate = 2e-3", "learning_rate = 5e-3")
        .replace("epochs = 3", "epochs = 6");
    let tuned = place.run(&text, ["model", "tuned"], false).unwrap();
    let (first, last) = (&tuned.history[0], &tuned.history[5]);
    assert!(last.loss < 0.5 * first.loss, "{:?}", tuned.history);
    assert!(tuned.dev_accuracy > 0.95 && tuned.test_accuracy > 0.95);
    assert!(distance(&place, "tuned") < 1e-4);

    let text = format!("{text}{STUDENT}");
    let student = place.run(&text, ["tuned", "student"], false).unwrap();
    let (first, last) = (&student.history[0], &student.history[5]);
    assert!(last.loss < 0.5 * first.loss, "{:?}", student.history);
    assert!(last.range_loss < first.range_loss, "{:?}", student.history);
    assert_eq!(
        student.teacher,
        Some([tuned.dev_accuracy, tuned.test_accuracy])
    );
    assert!(student.test_accuracy > 0.9, "{student:?}");
    assert!(distance(&place, "student") < 1e-4);

    // What the folder's own loader and executor make of it is what the metrics say.
    let folder = EncoderFolder::load(&place.path("student"), 24).unwrap();
    let execution = Execution::new(&folder.encoder).unwrap();
    let recipe = recipe(&text);
    let source = Pretrained::load(&place.path("tuned"), &recipe).unwrap();
    let corpus = EncoderCorpus::load(&recipe, &place.path("."), &source.tokenizer).unwrap();
    let right = corpus.test.iter().filter(|item| {
        let answer = execution.answers(std::slice::from_ref(&item.ids)).unwrap();
        usize::from(answer[0][1] > answer[0][0]) == item.label
    });
    let accuracy = right.count() as f64 / corpus.test.len() as f64;
    assert_eq!(accuracy, student.test_accuracy);
    let card = std::fs::read_to_string(place.path("student/README.md")).unwrap();
    assert!(card.contains("its teacher") && card.contains("Made by a test."));
}

#[test]
fn limits_make_ranges_narrower() {
    let place = Place::new(2);
    let free = STUDENT
        .replace("sums = 0.1", "sums = 0.0")
        .replace("variances = 0.1", "variances = 0.0")
        .replace("activations = 0.01", "activations = 0.0");
    let [free, limited] = [("a", free), ("b", STUDENT.to_owned())].map(|(out, student)| {
        let text = format!("{RECIPE}{student}");
        place.run(&text, ["model", out], false).unwrap().ranges
    });
    let widest = |layers: &[veilformer_train::encoder::ranges::LayerWidths]| {
        let sum = layers.iter().map(|l| l.sum_ratio).fold(0.0, f64::max);
        let variance = layers
            .iter()
            .flat_map(|l| l.variance_ratios)
            .fold(0.0, f64::max);
        let activation = layers
            .iter()
            .flat_map(|l| l.activation)
            .fold(0.0, |a, b| b.abs().max(a));
        [sum, variance, activation]
    };
    let (free, limited) = (widest(&free), widest(&limited));
    for (free, limited) in free.iter().zip(limited) {
        assert!(limited < 0.9 * free, "{free} {limited}");
    }
}

#[test]
fn a_students_sums_have_the_geometric_mean_1_at_the_beginning() {
    let place = Place::new(2);
    let recipe = recipe(&format!(
        "{RECIPE}{}",
        STUDENT.replace("epsilon = 0.25", "epsilon = 1e-6")
    ));
    let source = Pretrained::load(&place.path("model"), &recipe).unwrap();
    let corpus = EncoderCorpus::load(&recipe, &place.path("."), &source.tokenizer).unwrap();
    let trainer = EncoderTrainer::new(&recipe, &corpus, &source).unwrap();
    let first: Vec<&[u32]> = corpus
        .train
        .iter()
        .take(128)
        .map(|i| i.ids.as_slice())
        .collect();
    let batch = Batch::new(&first);
    let teacher: Weights = source.weights.iter().cloned().collect();
    let student = trainer.parameters.weights();
    let hidden = Network::new(source.shape, &teacher)
        .forward(&batch, Purpose::Answer)
        .unwrap()
        .hidden;
    for (layer, x) in hidden.iter().take(2).enumerate() {
        let sums = Network::new(trainer.shape, &student)
            .log_sums(layer, x, &batch)
            .unwrap();
        let means: Vec<f32> = sums.mean(0).unwrap().to_vec1().unwrap();
        assert!(means.iter().all(|m| m.abs() < 1e-3), "{means:?}");
    }
}

#[test]
fn a_students_loss_is_the_divergence_and_the_distances() {
    let place = Place::new(2);
    let text = format!("{RECIPE}{STUDENT}")
        .replace("dropout = 0.05", "dropout = 0.0")
        .replace("hidden = 1.0", "hidden = 3.0")
        .replace("lengthened = 12", "lengthened = 0");
    let recipe = recipe(&text);
    let source = Pretrained::load(&place.path("model"), &recipe).unwrap();
    let corpus = EncoderCorpus::load(&recipe, &place.path("."), &source.tokenizer).unwrap();
    let mut trainer = EncoderTrainer::new(&recipe, &corpus, &source).unwrap();
    let indices = trainer.batches(0)[0].clone();
    let sentences: Vec<&[u32]> = indices
        .iter()
        .map(|i| corpus.train[*i].ids.as_slice())
        .collect();
    let batch = Batch::new(&sentences);
    let teacher: Weights = source.weights.iter().cloned().collect();
    let student = trainer.parameters.weights();
    let [theirs, ours] = [(source.shape, &teacher), (trainer.shape, &student)]
        .map(|(s, w)| Network::new(s, w).forward(&batch, Purpose::Answer).unwrap());
    let softmax = |row: &[f32]| {
        let e: Vec<f64> = row.iter().map(|x| (f64::from(*x) / 2.0).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.into_iter().map(|x| x / sum).collect::<Vec<f64>>()
    };
    let rows = |x: &candle_core::Tensor| x.to_vec2::<f32>().unwrap();
    let mut expected = 0.0;
    for (t, s) in rows(&theirs.logits).iter().zip(rows(&ours.logits)) {
        let pairs = softmax(t).into_iter().zip(softmax(&s));
        let divergence: f64 = pairs.map(|(t, s)| t * (t / s).ln()).sum();
        expected += 4.0 * divergence / sentences.len() as f64;
    }
    assert_eq!(ours.hidden.len(), 3);
    for (t, s) in theirs.hidden.iter().zip(&ours.hidden) {
        let (t, s) = (rows(t).concat(), rows(s).concat());
        let squares = t.iter().zip(&s).map(|(t, s)| f64::from(t - s).powi(2));
        expected += 3.0 * squares.sum::<f64>() / t.len() as f64;
    }
    let [loss, _] = trainer.step(&indices).unwrap();
    assert!((loss / expected - 1.0).abs() < 1e-4, "{loss} {expected}");
}

#[test]
fn a_run_that_was_stopped_ends_where_it_would_have_ended() {
    let place = Place::new(2);
    let text = format!("{RECIPE}{STUDENT}");
    place.run(&text, ["model", "straight"], false).unwrap();

    let recipe = recipe(&text);
    let source = Pretrained::load(&place.path("model"), &recipe).unwrap();
    let corpus = EncoderCorpus::load(&recipe, &place.path("."), &source.tokenizer).unwrap();
    let mut trainer = EncoderTrainer::new(&recipe, &corpus, &source).unwrap();
    std::fs::create_dir(place.path("stopped")).unwrap();
    // Within the second epoch.
    let steps = trainer.steps_per_epoch();
    let mut stop = StopAfter(steps + 3);
    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fit(
            &mut trainer,
            &corpus,
            None,
            Some(&place.path("stopped")),
            &mut stop,
        )
    }));
    assert!(stopped.is_err());
    let refused = place.run(&text, ["model", "stopped"], false);
    assert!(matches!(refused, Err(TrainError::Exists(_))));
    let other = text.replace("seed = 3", "seed = 4");
    let refused = place.run(&other, ["model", "stopped"], true);
    assert!(matches!(refused, Err(TrainError::Checkpoint { .. })));
    let resumed = place.run(&text, ["model", "stopped"], true).unwrap();
    let read = |name: &str, file: &str| std::fs::read(place.path(name).join(file)).unwrap();
    for file in [
        "model.safetensors",
        "metrics.json",
        "README.md",
        "config.json",
    ] {
        assert_eq!(read("straight", file), read("stopped", file), "{file}");
    }
    assert_eq!(resumed.history.len(), 3);
}

/// Panics at a step: what a power cut does to the run.
struct StopAfter(usize);

impl Observer for StopAfter {
    fn stage(&mut self, _: &str, _: usize) {}
    fn step(&mut self, _: f64) {
        assert!(self.0 > 0, "stopped");
        self.0 -= 1;
    }
    fn line(&mut self, _: &str) {}
}

#[test]
fn folders_and_recipes_that_do_not_fit_are_refused() {
    let place = Place::new(0);
    let student = format!("{RECIPE}{STUDENT}");
    let says = |recipe: &str, expected: &str| {
        let text = match place.run(recipe, ["model", "out"], false) {
            Ok(_) => panic!("trained"),
            Err(error) => error.to_string(),
        };
        assert!(text.contains(expected), "{text}");
        assert!(!place.path("out").exists());
    };
    says(&student, "needs one as its teacher");
    says(
        &RECIPE.replace("max_tokens = 24", "max_tokens = 25"),
        "takes 24 tokens",
    );
    says(&RECIPE.replace("\"train\"]", "\"absent\"]"), "absent");
    says(
        &RECIPE.replace("max_tokens = 24", "max_tokens = 3"),
        "limit is 3",
    );
    for (from, to, expected) in [
        ("power = 4", "power = 3", "student.power is 3"),
        ("epsilon = 0.25", "epsilon = 0.0", "student.epsilon 0"),
        ("sum = 2.0", "sum = 0.2", "no range"),
        (
            "lengthened = 12",
            "lengthened = 25",
            "above data.max_tokens",
        ),
        ("dropout = 0.05", "dropout = 1.0", "below 1"),
        ("save_steps = 2", "save_steps = 0", "save_steps is 0"),
        ("name = \"toy\"", "nam = \"toy\"", "nam"),
    ] {
        says(&student.replace(from, to), expected);
    }
    write_encoder(&place.path("model"), 3, "gelu");
    says(RECIPE, "3 labels and the recipe 2");
    write_encoder(&place.path("model"), 2, "gelu");
    edit_config(&place.path("model"), &[("hidden_act", "swish".into())]);
    says(RECIPE, "swish");
    std::fs::remove_file(place.path("model/tokenizer.json")).unwrap();
    edit_config(&place.path("model"), &[("hidden_act", "gelu".into())]);
    says(RECIPE, "tokenizer.json");
    std::fs::remove_file(place.path("model/config.json")).unwrap();
    says(RECIPE, "config.json");
}
