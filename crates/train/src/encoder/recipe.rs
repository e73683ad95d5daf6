//! The recipe of an encoder's training: every hyperparameter and seed.

use std::path::Path;

use serde::{Deserialize, Serialize};
use veilformer_ir::encoder::AttentionFunction;

use super::ranges::RangeLimits;
use crate::error::Result;
use crate::recipe::{check_counts, check_parts, check_sizes, read};
use crate::source::DataSource;

/// A training run as its recipe file says it: fine-tuning of a pre-trained encoder to a classifier,
/// or, with a table `student`, distillation of a classifier into one whose attention and activation
/// are cheap on ciphertexts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderRecipe {
    /// Name of the model on its card.
    pub name: String,
    /// One or two sentences for the card: what the model tells.
    pub task: String,
    /// Seed of everything random: new weights, order of the data, dropout.
    pub seed: u64,
    /// Notes for the card; which values were chosen on the dev split, among what.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The pre-trained model that this one comes from, and its licence, for the card.
    pub origin: String,
    /// Files of the data folder.
    pub data: EncoderData,
    /// Steps and their sizes.
    pub optimizer: EncoderOptimizer,
    /// What is learned from a teacher, and what the student computes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub student: Option<StudentRecipe>,
}

/// Files of the data folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderData {
    /// Training files.
    pub train: Vec<DataSource>,
    /// The file that is looked at after each epoch.
    pub dev: DataSource,
    /// The file that is looked at once, at the end.
    pub test: DataSource,
    /// Origin and terms of the data, for the card.
    pub terms: String,
    /// Names of the classes, class 0 first.
    pub labels: Vec<String>,
    /// Most tokens of a sentence, special ones included; a longer one is an error.
    pub max_tokens: usize,
}

/// Steps and their sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderOptimizer {
    /// Passes over the training data.
    pub epochs: usize,
    /// Sentences of a step.
    pub batch_size: usize,
    /// Step size of AdamW (Loshchilov & Hutter 2019), falling linearly to 0.
    pub learning_rate: f64,
    /// Part of all steps over which the step size rises from 0.
    pub warmup: f64,
    /// Decoupled weight decay, on dense maps only.
    pub weight_decay: f64,
    /// Largest norm of the gradient.
    pub clip_norm: f64,
    /// Part of values set to zero in training.
    pub dropout: f64,
    /// Whether the token vectors are trained too.
    pub train_tokens: bool,
    /// The state is written every so many steps, and after each epoch.
    pub save_steps: usize,
}

/// A student, and how it learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentRecipe {
    /// Power of the scores in attention (arXiv 2410.09457): even, at least 2.
    pub power: u32,
    /// Added to the sum of these powers. Queries are scaled at the beginning so that the geometric
    /// mean of the sums is 1 in every head.
    pub epsilon: f64,
    /// Added to every variance.
    pub layer_norm_eps: f64,
    /// Temperature of the logits (Hinton et al., arXiv 1503.02531).
    pub temperature: f64,
    /// Weight of the mean squared distance of token vectors, summed over layers.
    pub hidden: f64,
    /// Sentences up to this number of tokens are made of the training sentences and learned from
    /// too, so that ranges are kept at lengths that the data does not have; 0 for none.
    #[serde(default)]
    pub lengthened: usize,
    /// What keeps ranges narrow.
    pub ranges: RangeLimits,
}

impl StudentRecipe {
    /// The attention with the given epsilon.
    pub fn attention(&self, epsilon: f64) -> AttentionFunction {
        AttentionFunction::PowerSoftmax {
            power: self.power,
            epsilon,
        }
    }
}

impl EncoderRecipe {
    /// Reads and checks a recipe file.
    ///
    /// # Errors
    /// When it cannot be read, has unknown or missing fields, or a field is out of its range.
    pub fn load(path: &Path) -> Result<Self> {
        read(path, Self::validate)
    }

    /// Checks every field's range; the error is a sentence.
    ///
    /// # Errors
    /// Names the first field out of its range.
    pub fn validate(&self) -> std::result::Result<(), String> {
        let o = &self.optimizer;
        check_parts(&[
            ("optimizer.warmup", o.warmup),
            ("optimizer.dropout", o.dropout),
        ])?;
        let mut sizes = vec![
            ("optimizer.learning_rate", o.learning_rate),
            ("optimizer.weight_decay", o.weight_decay),
            ("optimizer.clip_norm", o.clip_norm),
        ];
        let counts = [
            ("optimizer.epochs", o.epochs, 10_000),
            ("optimizer.batch_size", o.batch_size, 65_536),
            ("optimizer.save_steps", o.save_steps, usize::MAX),
            ("data.train: number of files", self.data.train.len(), 1000),
            (
                "data.labels: number of classes",
                self.data.labels.len(),
                4096,
            ),
            ("data.max_tokens", self.data.max_tokens, 65_536),
        ];
        if let Some(s) = &self.student {
            sizes.extend(s.ranges.sizes());
            sizes.extend([
                ("student.epsilon", s.epsilon),
                ("student.temperature", s.temperature),
                ("student.hidden", s.hidden),
            ]);
            if !s.attention(s.epsilon).is_valid() {
                return Err(format!(
                    "student.power is {} and student.epsilon {}, expected 2, 4, 6 or 8 and a number \
                     above 0",
                    s.power, s.epsilon
                ));
            }
            if !(0.0..=1.0).contains(&s.layer_norm_eps) {
                return Err(format!(
                    "student.layer_norm_eps is {}, expected 0 to 1",
                    s.layer_norm_eps
                ));
            }
            for (name, value) in [
                ("student.epsilon", s.epsilon),
                ("student.temperature", s.temperature),
            ] {
                if value < 1e-6 {
                    return Err(format!("{name} is {value}, expected at least 1e-6"));
                }
            }
            for (name, value) in [
                ("student.ranges.sum", s.ranges.sum / s.epsilon.max(1e-6)),
                ("student.ranges.variance_ratio", s.ranges.variance_ratio),
            ] {
                if value < 1.0 {
                    return Err(format!(
                        "{name} leaves no range: expected a ratio of at least 1, and a sum above \
                         epsilon"
                    ));
                }
            }
            if s.lengthened > self.data.max_tokens {
                return Err(format!(
                    "student.lengthened is {}, above data.max_tokens, {}",
                    s.lengthened, self.data.max_tokens
                ));
            }
        }
        check_sizes(&sizes)?;
        check_counts(&counts)?;
        Ok(())
    }
}
