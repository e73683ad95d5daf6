//! The configuration of a polynomial transformer (`config.json`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{ModelError, Result};

/// Value of `model_type` of every model of this kind.
pub const MODEL_TYPE: &str = "veilformer-poly";
/// The format version that this library reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// How attention weights come from scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionKind {
    /// `A = S^power / n`, the division-free polynomial attention.
    Power,
}

/// How attention weights depend on the number of tokens `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LengthScaling {
    /// Divide by the number of real tokens.
    #[serde(rename = "1/n")]
    Inverse,
}

/// Attention of every layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionConfig {
    /// How weights come from scores.
    pub kind: AttentionKind,
    /// The power of the score; only 2.
    pub power: u32,
    /// Dependence on the length.
    pub length_scaling: LengthScaling,
}

/// Kind of the feed-forward activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivationKind {
    /// A polynomial with its own coefficients per channel.
    Polynomial,
}

/// Activation of every feed-forward block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationConfig {
    /// Kind of the activation.
    pub kind: ActivationKind,
    /// Degree of the polynomial; only 2 (`alpha u^2 + beta u`).
    pub degree: u32,
}

/// Normalization before attention and before the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalization {
    /// Batch normalization with stored statistics: an affine map at inference.
    Batch,
}

/// How token vectors become one sentence vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean over the real tokens.
    Mean,
}

/// Configuration of a polynomial transformer, with all fields in their valid ranges when it came
/// from [`ModelConfig::from_json`] or passed [`ModelConfig::validate`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Always [`MODEL_TYPE`].
    pub model_type: String,
    /// Always [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Width `d` of a token vector, 1..=4096.
    pub hidden_size: usize,
    /// Number of layers, 1..=64.
    pub num_hidden_layers: usize,
    /// Attention heads, 1..=256.
    pub num_attention_heads: usize,
    /// Width of a head, 1..=1024; heads times width need not equal `hidden_size`.
    pub head_dim: usize,
    /// Channels of the feed-forward block, 1..=65536.
    pub intermediate_size: usize,
    /// Most tokens of a sentence, 1..=65536.
    pub max_position_embeddings: usize,
    /// Rows of the embedding table, 1..=2^24.
    pub vocab_size: usize,
    /// Attention of every layer.
    pub attention: AttentionConfig,
    /// Activation of every feed-forward block.
    pub activation: ActivationConfig,
    /// Normalization before each block.
    pub normalization: Normalization,
    /// Added to a variance before the root; above 0 and at most 1.
    pub norm_eps: f64,
    /// How token vectors become one sentence vector.
    pub pooling: Pooling,
    /// Names of the classes `0..C`, at least one.
    pub id2label: BTreeMap<String, String>,
}

impl ModelConfig {
    /// Parses and validates the text of a `config.json`.
    ///
    /// # Errors
    /// When the text is not JSON, of another model type or version, has unknown or missing fields,
    /// or a field is out of its range.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| {
            ModelError::Config(format!("not valid JSON ({e}); copy the model folder again"))
        })?;
        // Type and version come first: their messages matter more than any field's.
        let found = value
            .get("model_type")
            .and_then(|v| v.as_str())
            .unwrap_or("absent");
        if found != MODEL_TYPE {
            return Err(ModelError::Config(format!(
                "model_type is `{found}`, expected `{MODEL_TYPE}`; \
                 only models trained by veilformer-train can be loaded"
            )));
        }
        let version = value
            .get("format_version")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(0);
        if version != u64::from(FORMAT_VERSION) {
            return Err(ModelError::Config(format!(
                "format_version is {version}, this program reads version {FORMAT_VERSION}; \
                 use a program of the model's version"
            )));
        }
        let config: Self = serde_json::from_value(value).map_err(|e| {
            ModelError::Config(format!(
                "{e}; correct this field (see the model format's page)"
            ))
        })?;
        config.validate()?;
        Ok(config)
    }

    /// Reads `config.json` of the folder `dir`.
    ///
    /// # Errors
    /// As [`ModelConfig::from_json`], or when the file cannot be read.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let bytes = std::fs::read(&path).map_err(|source| ModelError::Read {
            path: path.clone(),
            source,
        })?;
        Self::from_json(&bytes)
    }

    /// The text of `config.json`.
    ///
    /// # Errors
    /// When a value has no JSON form (a `norm_eps` that is not finite).
    pub fn to_json(&self) -> Result<String> {
        self.validate()?;
        serde_json::to_string_pretty(self)
            .map(|s| s + "\n")
            .map_err(|e| ModelError::Config(e.to_string()))
    }

    /// Checks every field's range.
    ///
    /// # Errors
    /// Names the first field that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let ranges = [
            ("hidden_size", self.hidden_size, 4096),
            ("num_hidden_layers", self.num_hidden_layers, 64),
            ("num_attention_heads", self.num_attention_heads, 256),
            ("head_dim", self.head_dim, 1024),
            ("intermediate_size", self.intermediate_size, 65536),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                65536,
            ),
            ("vocab_size", self.vocab_size, 1 << 24),
        ];
        for (name, value, max) in ranges {
            if value == 0 || value > max {
                return Err(ModelError::Config(format!(
                    "{name} is {value}, expected 1 to {max}; correct this field"
                )));
            }
        }
        if self.model_type != MODEL_TYPE || self.format_version != FORMAT_VERSION {
            return Err(ModelError::Config(format!(
                "type `{}` version {}, expected `{MODEL_TYPE}` version {FORMAT_VERSION}",
                self.model_type, self.format_version
            )));
        }
        for (name, value) in [
            ("attention.power", self.attention.power),
            ("activation.degree", self.activation.degree),
        ] {
            if value != 2 {
                return Err(ModelError::Config(format!(
                    "{name} is {value}, only 2 is supported; train the model with 2"
                )));
            }
        }
        if !(self.norm_eps > 0.0 && self.norm_eps <= 1.0) {
            return Err(ModelError::Config(format!(
                "norm_eps is {}, expected a number above 0 and at most 1",
                self.norm_eps
            )));
        }
        let classes = self.id2label.len();
        if classes == 0 || classes > 4096 {
            return Err(ModelError::Config(format!(
                "id2label names {classes} classes, expected 1 to 4096"
            )));
        }
        for class in 0..classes {
            if !self.id2label.contains_key(&class.to_string()) {
                return Err(ModelError::Config(format!(
                    "id2label has no entry \"{class}\" though it names {classes} classes; \
                     number them from 0 without gaps"
                )));
            }
        }
        Ok(())
    }

    /// Number of classes.
    pub fn num_classes(&self) -> usize {
        self.id2label.len()
    }

    /// Width of all heads together: heads times head width.
    pub fn attention_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// The name of class `id`, if there is such a class.
    pub fn label(&self, id: usize) -> Option<&str> {
        self.id2label.get(&id.to_string()).map(String::as_str)
    }
}
