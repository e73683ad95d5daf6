//! A task small enough to be trained in a second: sentences of eight words, the label is whether
//! `good` or `bad` is in it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use veilformer_models::encoder::{RandomEncoder, write_random_folder};
use veilformer_train::corpus::Corpus;
use veilformer_train::features::Features;
use veilformer_train::noise::Noise;
use veilformer_train::recipe::Recipe;
use veilformer_train::run::Observer;

/// Fine-tuning on the same task, of a folder of [`write_encoder`].
pub const ENCODER_RECIPE: &str = r#"
name = "toy"
task = "Tells good from bad."
seed = 3
origin = "random numbers"
[data]
train = ["train"]
dev = "dev"
test = "test"
terms = "Made by a test."
labels = ["negative", "positive"]
max_tokens = 24
[optimizer]
epochs = 3
batch_size = 16
learning_rate = 2e-3
warmup = 0.1
weight_decay = 0.01
clip_norm = 1.0
dropout = 0.05
train_tokens = true
save_steps = 2
"#;

pub const RECIPE: &str = r#"
name = "tiny"
task = "Tells good from bad."
seed = 5
golden = ["a good film", "bad"]
notes = ["Nothing was chosen."]
[data]
train = ["train"]
dev = "dev"
test = "test"
terms = "Made by a test."
vocabulary = "full"
[features]
source = "random"
license = "none"
unit_rows = true
[model]
hidden_size = 8
num_hidden_layers = 1
max_position_embeddings = 6
labels = ["negative", "positive"]
[family.transformer]
num_attention_heads = 2
head_dim = 3
intermediate_size = 10
[family.transformer.init]
position = 0.05
sinusoid = 0.0
score = 0.5
attention_output = 0.5
ffn_output = 0.2
[family.transformer.limits]
scores = 3.0
scores_middle = 1.0
projections = 3.0
attention = 3.0
activation = 3.0
[init]
embedding = 1.0
[optimizer]
epochs = 4
batch_size = 16
bucket_batches = 2
learning_rate = 0.01
warmup = 0.1
weight_decay = 0.01
clip_norm = 1.0
average_decay = 0.9
norm_decay = 0.9
[regularization]
feature_dropout = 0.1
word_dropout = 0.05
dropout = 0.1
label_smoothing = 0.1
[ranges]
weight = 0.1
logits = 4.0
"#;

/// The part of a recipe that makes it a state-space classifier's.
pub const STATE_SPACE: &str = r#"[family.state-space]
state_size = 5
pooling = "last"
[family.state-space.init]
gate = 0.5
output = 0.5
shortest = 1.0
longest = 8.0
[family.state-space.limits]
factors = 3.0
state = 3.0
"#;

/// [`RECIPE`] for a state-space classifier.
pub fn state_space_text() -> String {
    let start = RECIPE.find("[family.").expect("a family");
    let end = RECIPE.find("[init]").expect("initial values");
    format!("{}{STATE_SPACE}{}", &RECIPE[..start], &RECIPE[end..])
}

/// The recipe of [`state_space_text`].
pub fn state_space_recipe() -> Recipe {
    let recipe: Recipe = toml::from_str(&state_space_text()).expect("a recipe");
    recipe.validate().expect("in range");
    recipe
}

pub const WORDS: [&str; 9] = [
    "[UNK]", "good", "bad", "a", "film", "the", "and", "story", "actor",
];

pub fn recipe() -> Recipe {
    let recipe: Recipe = toml::from_str(RECIPE).expect("a recipe");
    recipe.validate().expect("in range");
    recipe
}

/// Random features of the nine words.
pub fn features() -> Features {
    let width = 12;
    Features {
        tokens: WORDS.iter().map(|w| (*w).to_owned()).collect(),
        width,
        data: Noise::new(1, 1).normal(WORDS.len() * width, 1.0),
        shared: None,
    }
}

/// Writes the files `train`, `dev` and `test` into `dir`.
pub fn write_data(dir: &Path) {
    let mut number = 0usize;
    for (name, size) in [("train", 160), ("dev", 40), ("test", 40)] {
        let mut text = String::new();
        for i in 0..size {
            number += 1;
            let label = i % 2;
            // A running number in base 6 spells the neutral words: all sentences differ.
            let mut words = vec![WORDS[2 - label]];
            let mut rest = number;
            while rest > 0 {
                words.push(WORDS[3 + rest % 6]);
                rest /= 6;
            }
            let place = number % words.len().min(2);
            words.swap(0, place);
            text.push_str(&format!("{label} {}\n", words.join(" ")));
        }
        std::fs::write(dir.join(name), text).expect("written");
    }
}

pub fn corpus(recipe: &Recipe) -> Corpus {
    let dir = tempfile::tempdir().expect("a folder");
    write_data(dir.path());
    Corpus::load(recipe, dir.path(), features()).expect("a corpus")
}

/// A Hugging Face folder with the features as the word embeddings of a model.
pub fn write_features(dir: &Path) {
    use safetensors::tensor::{Dtype, TensorView};
    let f = features();
    let bytes: Vec<u8> = f.data.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![f.tokens.len(), f.width], &bytes).expect("a view");
    let file = safetensors::serialize([("embeddings.word_embeddings.weight", view)], None)
        .expect("a file");
    std::fs::write(dir.join("model.safetensors"), file).expect("written");
    let vocab: serde_json::Map<String, serde_json::Value> = f
        .tokens
        .iter()
        .enumerate()
        .map(|(i, t)| (t.clone(), i.into()))
        .collect();
    let text = serde_json::json!({"model": {"type": "WordPiece", "vocab": vocab}}).to_string();
    std::fs::write(dir.join("tokenizer.json"), text).expect("written");
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A data file beside the repository, or `None` (and a line that says so) where there is none;
/// a failure in CI.
pub fn shared(path: &str) -> Option<PathBuf> {
    let full = root().join("../shared/data").join(path);
    if full.exists() {
        return Some(full);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{path} is needed in CI and missing"
    );
    eprintln!("skipped: {path} is not here");
    None
}

/// An observer that keeps the lines.
#[derive(Default)]
pub struct Lines(pub Vec<String>);

impl Observer for Lines {
    fn stage(&mut self, _: &str, _: usize) {}
    fn step(&mut self, _: f64) {}
    fn line(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

/// A Hugging Face folder of a random encoder of two layers, for at most 24 tokens; with no labels an
/// embedding model.
pub fn write_encoder(dir: &Path, labels: usize, activation: &str) {
    let shape = RandomEncoder {
        layers: 2,
        hidden: 24,
        heads: 3,
        intermediate: 40,
        activation: activation.into(),
        positions: 24,
        vocabulary: 128,
        labels,
        ranges: vec![(3.0, 3.0)],
        ..RandomEncoder::bert_base()
    };
    write_random_folder(dir, &shape, 5).expect("written");
}
