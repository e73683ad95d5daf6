//! The recipe: every hyperparameter and seed of a training run.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use veilformer_models::ModelConfig;
use veilformer_models::config::check_table_name;

use crate::error::{Result, TrainError, at};
use crate::family::FamilyRecipe;
use crate::source::DataSource;

/// A training run as its recipe file says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the model on its card.
    pub name: String,
    /// One or two sentences for the card: what the model tells.
    pub task: String,
    /// Seed of everything random: initial weights, order of the data, dropout.
    pub seed: u64,
    /// Sentences whose logits are stored beside the model.
    pub golden: Vec<String>,
    /// Notes for the card; which values were chosen on the dev split, among what.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Files of the data folder.
    pub data: DataRecipe,
    /// The frozen token features.
    pub features: FeatureRecipe,
    /// What the same model reaches with token vectors learned from scratch is put on the card; left
    /// out: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_scratch: Option<ScratchRecipe>,
    /// Shape of the model.
    pub model: ModelRecipe,
    /// The family of the model, and all that only its members have.
    pub family: FamilyRecipe,
    /// Initial values.
    pub init: InitRecipe,
    /// Steps and their sizes.
    pub optimizer: OptimizerRecipe,
    /// What keeps the model from learning sentences by heart.
    pub regularization: RegularizationRecipe,
    /// What keeps intermediate values small.
    pub ranges: RangeRecipe,
}

/// Files of the data folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// Training files.
    pub train: Vec<DataSource>,
    /// The file on which the epoch is selected.
    pub dev: DataSource,
    /// The file that is looked at once, at the end.
    pub test: DataSource,
    /// Origin and terms of the data, for the card.
    pub terms: String,
    /// What becomes of a sentence with more tokens than the model takes.
    #[serde(default)]
    pub long: LongSentences,
    /// `full`: the features' whole vocabulary. `data`: only the whole words of the data's three
    /// splits that stand in it, and `[UNK]`.
    pub vocabulary: Vocabulary,
}

/// What becomes of a sentence with more tokens than the model takes; it is never cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LongSentences {
    /// It is an error.
    #[default]
    Refuse,
    /// In training it is left out; in dev and test it counts as answered wrongly.
    Wrong,
}

/// The frozen token features: where they come from, for the card, and how they are scaled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureRecipe {
    /// Name of the package or model.
    pub source: String,
    /// Its licence.
    pub license: String,
    /// Whether every token's features are scaled to mean square 1, which bounds the input for
    /// tokens that training never sees. A token table comes scaled.
    #[serde(default)]
    pub unit_rows: bool,
    /// Take a token table that several models share; the model keeps the projection then and not
    /// the product of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableRecipe>,
}

/// A shared token table as features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRecipe {
    /// Name of the table: of the folder that holds it.
    pub name: String,
    /// Component `k` is divided by its root mean square to this power before it is learned from:
    /// 0 leaves the components as they are, 1 makes all equally large. The divisors go into the
    /// projection.
    pub whitening: f64,
}

/// Token vectors that are learned from the training data alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScratchRecipe {
    /// A word of the vocabulary stands in at least so many training sentences.
    pub min_sentences: usize,
    /// Standard deviation of the initial token vectors.
    pub embedding: f64,
}

/// Which tokens the model knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vocabulary {
    /// The whole vocabulary of the features.
    Full,
    /// Only what the data's splits use.
    Data,
}

/// Shape of the model; the fields of the same names in `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    /// Width of a token vector.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Most tokens of a sentence.
    pub max_position_embeddings: usize,
    /// Names of the classes, class 0 first.
    pub labels: Vec<String>,
}

/// Initial values that both families have; see [`crate::family`] for the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitRecipe {
    /// Standard deviation of a token's projected features.
    pub embedding: f64,
}

/// Steps and their sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerRecipe {
    /// Passes over the training data.
    pub epochs: usize,
    /// Sentences of a step.
    pub batch_size: usize,
    /// Sentences of this many steps are put in order of length before they are cut into batches.
    pub bucket_batches: usize,
    /// Step size of AdamW (Loshchilov & Hutter 2019), falling linearly to 0.
    pub learning_rate: f64,
    /// Part of all steps over which the step size rises from 0.
    pub warmup: f64,
    /// Decoupled weight decay, on matrices only.
    pub weight_decay: f64,
    /// Largest norm of the gradient.
    pub clip_norm: f64,
    /// Decay per step of the running average of the weights, which is what is evaluated and kept.
    pub average_decay: f64,
    /// Part of the old value that a step leaves of the normalization's running statistics.
    pub norm_decay: f64,
}

/// What keeps the model from learning sentences by heart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegularizationRecipe {
    /// Part of a token's features set to zero.
    pub feature_dropout: f64,
    /// Part of the tokens whose features are all set to zero.
    pub word_dropout: f64,
    /// Part of the block outputs and of the sentence vector set to zero.
    pub dropout: f64,
    /// Mass that the target gives to all classes evenly.
    pub label_smoothing: f64,
}

/// What keeps intermediate values small: the loss has, for each kind of value `z`, the term
/// `weight * mean(relu(|z| - limit)^2)` (range minimization, Zimerman et al. 2023, section 4). The
/// limits of values that only one family has are with the family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeRecipe {
    /// Factor of all terms.
    pub weight: f64,
    /// Limit of the logits.
    pub logits: f64,
}

/// Reads and checks a recipe file.
///
/// # Errors
/// When it cannot be read, has unknown or missing fields, or does not pass `validate`.
pub(crate) fn read<R: DeserializeOwned>(
    path: &Path,
    validate: impl Fn(&R) -> std::result::Result<(), String>,
) -> Result<R> {
    let text = std::fs::read_to_string(path).map_err(at(path))?;
    let fail = |what: String| TrainError::Recipe {
        path: path.to_owned(),
        what,
    };
    let recipe = toml::from_str(&text).map_err(|e| fail(e.to_string()))?;
    validate(&recipe).map_err(fail)?;
    Ok(recipe)
}

/// Checks parts of a whole by their names: at least 0 and below 1.
pub(crate) fn check_parts(parts: &[(&str, f64)]) -> std::result::Result<(), String> {
    match parts.iter().find(|(_, value)| !(0.0..1.0).contains(value)) {
        None => Ok(()),
        Some((name, value)) => Err(format!(
            "{name} is {value}, expected at least 0 and below 1"
        )),
    }
}

/// Checks sizes by their names: numbers from 0 to a million.
pub(crate) fn check_sizes(sizes: &[(&str, f64)]) -> std::result::Result<(), String> {
    match sizes.iter().find(|(_, value)| !(0.0..=1e6).contains(value)) {
        None => Ok(()),
        Some((name, value)) => Err(format!(
            "{name} is {value}, expected a number of at least 0"
        )),
    }
}

/// Checks counts by their names: from 1 to each one's limit.
pub(crate) fn check_counts(counts: &[(&str, usize, usize)]) -> std::result::Result<(), String> {
    let wrong = |(_, value, max): &&(&str, usize, usize)| *value == 0 || value > max;
    match counts.iter().find(wrong) {
        None => Ok(()),
        Some((name, value, max)) => Err(format!("{name} is {value}, expected 1 to {max}")),
    }
}

impl Recipe {
    /// Reads and checks a recipe file.
    ///
    /// # Errors
    /// When it cannot be read, has unknown or missing fields, or a field is out of its range.
    pub fn load(path: &Path) -> Result<Self> {
        read(path, Self::validate)
    }

    /// The recipe as the text of a file.
    pub fn to_toml(&self) -> String {
        // All fields have a TOML form; an error is impossible for values that validated.
        toml::to_string_pretty(self).unwrap_or_default()
    }

    /// Checks every field's range; the error is a sentence.
    ///
    /// # Errors
    /// Names the first field out of its range.
    pub fn validate(&self) -> std::result::Result<(), String> {
        let (o, r) = (&self.optimizer, &self.regularization);
        check_parts(&[
            ("regularization.feature_dropout", r.feature_dropout),
            ("regularization.word_dropout", r.word_dropout),
            ("regularization.dropout", r.dropout),
            ("regularization.label_smoothing", r.label_smoothing),
            ("optimizer.warmup", o.warmup),
            ("optimizer.average_decay", o.average_decay),
            ("optimizer.norm_decay", o.norm_decay),
        ])?;
        let mut sizes = vec![
            ("init.embedding", self.init.embedding),
            ("optimizer.learning_rate", o.learning_rate),
            ("optimizer.weight_decay", o.weight_decay),
            ("optimizer.clip_norm", o.clip_norm),
            ("ranges.weight", self.ranges.weight),
            ("ranges.logits", self.ranges.logits),
        ];
        let mut counts = vec![
            ("optimizer.epochs", o.epochs, 10_000),
            ("optimizer.batch_size", o.batch_size, 65_536),
            ("optimizer.bucket_batches", o.bucket_batches, 65_536),
            ("data.train: number of files", self.data.train.len(), 1000),
            (
                "model.labels: number of classes",
                self.model.labels.len(),
                4096,
            ),
        ];
        sizes.extend(self.family.sizes());
        if let Some(scratch) = &self.from_scratch {
            sizes.push(("from_scratch.embedding", scratch.embedding));
            counts.push((
                "from_scratch.min_sentences",
                scratch.min_sentences,
                1_000_000,
            ));
        }
        check_sizes(&sizes)?;
        check_counts(&counts)?;
        if let Some(table) = &self.features.table {
            check_table_name(&table.name)?;
            if !(0.0..=1.0).contains(&table.whitening) {
                return Err(format!(
                    "features.table.whitening is {}, expected 0 to 1",
                    table.whitening
                ));
            }
            if self.features.unit_rows || self.data.vocabulary != Vocabulary::Full {
                return Err(
                    "a token table comes scaled and whole: leave features.unit_rows out and set \
                     data.vocabulary to `full`"
                        .into(),
                );
            }
        }
        self.family.validate()?;
        self.config(1).validate().map_err(|e| e.to_string())
    }

    /// The model's configuration with a vocabulary of `vocab_size` tokens and a token table of its
    /// own.
    pub fn config(&self, vocab_size: usize) -> ModelConfig {
        let m = &self.model;
        let id2label: BTreeMap<String, String> = m
            .labels
            .iter()
            .enumerate()
            .map(|(i, name)| (i.to_string(), name.clone()))
            .collect();
        ModelConfig {
            hidden_size: m.hidden_size,
            num_hidden_layers: m.num_hidden_layers,
            max_position_embeddings: m.max_position_embeddings,
            vocab_size,
            norm_eps: 1e-5,
            token_table: None,
            id2label,
            family: self.family.config(),
        }
    }
}
