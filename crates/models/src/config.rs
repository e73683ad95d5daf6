//! The configuration of a model (`config.json`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{ModelError, Result};

/// `model_type` of a polynomial transformer.
pub const TRANSFORMER_TYPE: &str = "veilformer-poly";
/// `model_type` of a public-decay state-space classifier.
pub const STATE_SPACE_TYPE: &str = "veilformer-ssm";
/// The format version that this library reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// How token vectors become one sentence vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean over the real tokens.
    Mean,
    /// The last real token.
    Last,
}

/// A token table that several models share, by its name and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenTableRef {
    /// Name of the table and of the folder that holds it: 1 to 64 of `a-z 0-9 . _ -`, the first
    /// one a letter or a digit.
    pub name: String,
    /// BLAKE3 of the table's file.
    pub blake3: Digest,
    /// BLAKE3 of the `tokenizer.json` beside it.
    pub tokenizer_blake3: Digest,
}

/// What only polynomial transformers have. Attention is `S^2 / n`, the activation a polynomial of
/// degree 2 with its own coefficients per channel, pooling the mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransformerConfig {
    /// Attention heads, 1..=256.
    pub num_attention_heads: usize,
    /// Width of a head, 1..=1024; heads times width need not equal `hidden_size`.
    pub head_dim: usize,
    /// Channels of the feed-forward block, 1..=65536.
    pub intermediate_size: usize,
}

impl TransformerConfig {
    /// Width of all heads together: heads times head width.
    pub fn attention_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }
}

/// What only state-space classifiers have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateSpaceConfig {
    /// Channels of the state, 1..=65536.
    pub state_size: usize,
    /// How token vectors become one sentence vector.
    pub pooling: Pooling,
}

/// A family of models and what only its members have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Family {
    /// Polynomial transformers.
    Transformer(TransformerConfig),
    /// Public-decay state-space classifiers (after arXiv 2605.16647).
    StateSpace(StateSpaceConfig),
}

impl Family {
    /// The `model_type` of `config.json`.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Transformer(_) => TRANSFORMER_TYPE,
            Self::StateSpace(_) => STATE_SPACE_TYPE,
        }
    }
}

/// Configuration of a model, with all fields in their valid ranges when it came from
/// [`ModelConfig::from_json`] or passed [`ModelConfig::validate`].
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Width `d` of a token vector, 1..=4096.
    pub hidden_size: usize,
    /// Number of layers, 1..=64.
    pub num_hidden_layers: usize,
    /// Most tokens of a sentence, 1..=65536.
    pub max_position_embeddings: usize,
    /// Rows of the token table, 1..=2^24.
    pub vocab_size: usize,
    /// Added to a variance before the root; above 0 and at most 1.
    pub norm_eps: f64,
    /// The token table, if it is a shared one and not part of `model.safetensors`.
    pub token_table: Option<TokenTableRef>,
    /// Names of the classes `0..C`, at least one.
    pub id2label: BTreeMap<String, String>,
    /// The family, and what only its members have.
    pub family: Family,
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
        let read: fn(serde_json::Value) -> serde_json::Result<FileOf> = match found {
            TRANSFORMER_TYPE => |v| serde_json::from_value(v).map(FileOf::Transformer),
            STATE_SPACE_TYPE => |v| serde_json::from_value(v).map(FileOf::StateSpace),
            _ => {
                return Err(ModelError::Config(format!(
                    "model_type is `{}`, expected `{TRANSFORMER_TYPE}` or `{STATE_SPACE_TYPE}`, \
                     which veilformer-train makes; of other folders `compile` takes encoders of the BERT family",
                    found.chars().take(40).collect::<String>()
                )));
            }
        };
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
        let file = read(value).map_err(|e| {
            ModelError::Config(format!(
                "{e}; correct this field (see the model format's page)"
            ))
        })?;
        let config = file.into_config()?;
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
    /// When a field is out of its range.
    pub fn to_json(&self) -> Result<String> {
        self.validate()?;
        let text = match FileOf::of(self) {
            FileOf::Transformer(file) => serde_json::to_string_pretty(&file),
            FileOf::StateSpace(file) => serde_json::to_string_pretty(&file),
        };
        text.map(|s| s + "\n")
            .map_err(|e| ModelError::Config(e.to_string()))
    }

    /// Checks every field's range.
    ///
    /// # Errors
    /// Names the first field that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let mut ranges = vec![
            ("hidden_size", self.hidden_size, 4096),
            ("num_hidden_layers", self.num_hidden_layers, 64),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                65536,
            ),
            ("vocab_size", self.vocab_size, 1 << 24),
        ];
        match &self.family {
            Family::Transformer(t) => ranges.extend([
                ("num_attention_heads", t.num_attention_heads, 256),
                ("head_dim", t.head_dim, 1024),
                ("intermediate_size", t.intermediate_size, 65536),
            ]),
            Family::StateSpace(s) => ranges.push(("state_size", s.state_size, 65536)),
        }
        for (name, value, max) in ranges {
            if value == 0 || value > max {
                return Err(ModelError::Config(format!(
                    "{name} is {value}, expected 1 to {max}; correct this field"
                )));
            }
        }
        if !(self.norm_eps > 0.0 && self.norm_eps <= 1.0) {
            return Err(ModelError::Config(format!(
                "norm_eps is {}, expected a number above 0 and at most 1",
                self.norm_eps
            )));
        }
        if let Some(table) = &self.token_table {
            check_table_name(&table.name).map_err(ModelError::Config)?;
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

    /// How token vectors become one sentence vector.
    pub fn pooling(&self) -> Pooling {
        match &self.family {
            Family::Transformer(_) => Pooling::Mean,
            Family::StateSpace(s) => s.pooling,
        }
    }

    /// The name of class `id`, if there is such a class.
    pub fn label(&self, id: usize) -> Option<&str> {
        self.id2label.get(&id.to_string()).map(String::as_str)
    }
}

/// Whether `name` may be a token table's: it becomes a part of paths.
///
/// # Errors
/// A sentence that says what a name is.
pub fn check_table_name(name: &str) -> std::result::Result<(), String> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = (1..=64).contains(&name.len())
        && name.starts_with(letter)
        && name.chars().all(|c| letter(c) || "._-".contains(c));
    if fits {
        return Ok(());
    }
    Err(format!(
        "token_table.name is `{}`, expected 1 to 64 lower-case letters, digits, dots, dashes and \
         underscores, the first one a letter or a digit",
        name.chars().take(40).collect::<String>()
    ))
}

/// How attention weights come from scores.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AttentionKind {
    /// `A = S^power / n`, the division-free polynomial attention.
    Power,
}

/// How attention weights depend on the number of tokens `n`.
#[derive(Debug, Serialize, Deserialize)]
enum LengthScaling {
    /// Divide by the number of real tokens.
    #[serde(rename = "1/n")]
    Inverse,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AttentionFile {
    kind: AttentionKind,
    power: u32,
    length_scaling: LengthScaling,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ActivationKind {
    Polynomial,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActivationFile {
    kind: ActivationKind,
    degree: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Normalization {
    /// Batch normalization with stored statistics: an affine map at inference.
    Batch,
}

/// The fields of a transformer's `config.json`, in their order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TransformerFile {
    model_type: String,
    format_version: u32,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    head_dim: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    vocab_size: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_table: Option<TokenTableRef>,
    attention: AttentionFile,
    activation: ActivationFile,
    normalization: Normalization,
    norm_eps: f64,
    pooling: Pooling,
    id2label: BTreeMap<String, String>,
}

/// The fields of a state-space classifier's `config.json`, in their order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateSpaceFile {
    model_type: String,
    format_version: u32,
    hidden_size: usize,
    state_size: usize,
    num_hidden_layers: usize,
    max_position_embeddings: usize,
    vocab_size: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_table: Option<TokenTableRef>,
    pooling: Pooling,
    norm_eps: f64,
    id2label: BTreeMap<String, String>,
}

/// What a `config.json` of either family holds.
enum FileOf {
    Transformer(TransformerFile),
    StateSpace(StateSpaceFile),
}

impl FileOf {
    fn of(config: &ModelConfig) -> Self {
        let (model_type, format_version) = (config.family.model_type().to_owned(), FORMAT_VERSION);
        let (token_table, id2label) = (config.token_table.clone(), config.id2label.clone());
        match &config.family {
            Family::Transformer(t) => Self::Transformer(TransformerFile {
                model_type,
                format_version,
                hidden_size: config.hidden_size,
                num_hidden_layers: config.num_hidden_layers,
                num_attention_heads: t.num_attention_heads,
                head_dim: t.head_dim,
                intermediate_size: t.intermediate_size,
                max_position_embeddings: config.max_position_embeddings,
                vocab_size: config.vocab_size,
                token_table,
                attention: AttentionFile {
                    kind: AttentionKind::Power,
                    power: 2,
                    length_scaling: LengthScaling::Inverse,
                },
                activation: ActivationFile {
                    kind: ActivationKind::Polynomial,
                    degree: 2,
                },
                normalization: Normalization::Batch,
                norm_eps: config.norm_eps,
                pooling: Pooling::Mean,
                id2label,
            }),
            Family::StateSpace(s) => Self::StateSpace(StateSpaceFile {
                model_type,
                format_version,
                hidden_size: config.hidden_size,
                state_size: s.state_size,
                num_hidden_layers: config.num_hidden_layers,
                max_position_embeddings: config.max_position_embeddings,
                vocab_size: config.vocab_size,
                token_table,
                pooling: s.pooling,
                norm_eps: config.norm_eps,
                id2label,
            }),
        }
    }

    /// The configuration, after checks of what it does not keep.
    fn into_config(self) -> Result<ModelConfig> {
        match self {
            Self::Transformer(file) => {
                for (name, value) in [
                    ("attention.power", file.attention.power),
                    ("activation.degree", file.activation.degree),
                ] {
                    if value != 2 {
                        return Err(ModelError::Config(format!(
                            "{name} is {value}, only 2 is supported; train the model with 2"
                        )));
                    }
                }
                if file.pooling != Pooling::Mean {
                    return Err(ModelError::Config(
                        "pooling is `last`, a transformer's is `mean`; train the model with it"
                            .into(),
                    ));
                }
                Ok(ModelConfig {
                    hidden_size: file.hidden_size,
                    num_hidden_layers: file.num_hidden_layers,
                    max_position_embeddings: file.max_position_embeddings,
                    vocab_size: file.vocab_size,
                    norm_eps: file.norm_eps,
                    token_table: file.token_table,
                    id2label: file.id2label,
                    family: Family::Transformer(TransformerConfig {
                        num_attention_heads: file.num_attention_heads,
                        head_dim: file.head_dim,
                        intermediate_size: file.intermediate_size,
                    }),
                })
            }
            Self::StateSpace(file) => Ok(ModelConfig {
                hidden_size: file.hidden_size,
                num_hidden_layers: file.num_hidden_layers,
                max_position_embeddings: file.max_position_embeddings,
                vocab_size: file.vocab_size,
                norm_eps: file.norm_eps,
                token_table: file.token_table,
                id2label: file.id2label,
                family: Family::StateSpace(StateSpaceConfig {
                    state_size: file.state_size,
                    pooling: file.pooling,
                }),
            }),
        }
    }
}
