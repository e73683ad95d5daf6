//! `config.json` of a BERT.

use std::collections::BTreeMap;

use serde::Deserialize;
use veilformer_ir::encoder::{Activation, AttentionFunction, Pooling};

use crate::error::{ModelError, Result};
use crate::tokenizer_file::short;

/// What a folder's model gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Architecture {
    /// `BertModel`: an embedding.
    Embedding {
        /// Which tokens it comes from.
        pooling: Pooling,
        /// Whether it is divided by its length.
        normalize: bool,
    },
    /// `BertForSequenceClassification`: a logit per label.
    Classifier {
        /// Name of each label.
        labels: Vec<String>,
    },
}

/// The configuration of an encoder of the BERT family, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// What it gives.
    pub architecture: Architecture,
    /// Features of a token.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads per layer; they divide the features.
    pub num_attention_heads: usize,
    /// Features between the two maps of the feed-forward part.
    pub intermediate_size: usize,
    /// Rows of the position table.
    pub max_position_embeddings: usize,
    /// Rows of the table of token types.
    pub type_vocab_size: usize,
    /// Rows of the token table.
    pub vocab_size: usize,
    /// From scores to attention weights.
    pub attention: AttentionFunction,
    /// Between the two maps of the feed-forward part.
    pub activation: Activation,
    /// Added to every variance.
    pub layer_norm_eps: f64,
}

/// The fields that decide what is computed; others (dropout, versions) are for training.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    model_type: Option<String>,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    vocab_size: usize,
    hidden_act: String,
    #[serde(default)]
    attention_function: Option<String>,
    #[serde(default)]
    power_softmax_power: Option<u32>,
    #[serde(default)]
    power_softmax_epsilon: Option<f64>,
    #[serde(default = "default_eps")]
    layer_norm_eps: f64,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: Option<bool>,
    #[serde(default)]
    add_cross_attention: Option<bool>,
    #[serde(default)]
    pruned_heads: Option<BTreeMap<String, serde_json::Value>>,
    #[serde(default)]
    id2label: Option<BTreeMap<String, String>>,
    #[serde(default)]
    num_labels: Option<usize>,
}

// What the transformers library takes where a field is absent.
fn two() -> usize {
    2
}

fn default_eps() -> f64 {
    1e-12
}

pub(super) fn refuse<T>(what: String) -> Result<T> {
    Err(ModelError::Config(what))
}

impl EncoderConfig {
    /// Reads the bytes of a `config.json`. An embedding's pooling is the mean of all tokens, not
    /// normalized, until [`EncoderConfig::set_pooling`] says otherwise.
    ///
    /// # Errors
    /// When it is malformed or of an architecture, activation, position table or size that is not
    /// supported.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let file: File = serde_json::from_slice(bytes).map_err(|e| {
            ModelError::Config(format!(
                "not the configuration of a BERT ({e}); copy the model folder again"
            ))
        })?;
        if let Some(kind) = file.model_type.as_deref()
            && kind != "bert"
        {
            return refuse(format!(
                "model_type is `{}`, only `bert` is supported",
                short(kind)
            ));
        }
        let absolute = file.position_embedding_type.as_deref();
        if let Some(kind) = absolute.filter(|kind| *kind != "absolute") {
            return refuse(format!(
                "position_embedding_type is `{}`, only `absolute` is supported",
                short(kind)
            ));
        }
        if file.is_decoder == Some(true) || file.add_cross_attention == Some(true) {
            return refuse("the model is a decoder, only encoders are supported".into());
        }
        if file
            .pruned_heads
            .as_ref()
            .is_some_and(|heads| !heads.is_empty())
        {
            return refuse("pruned_heads is not empty; export the model with all heads".into());
        }
        let activation = match file.hidden_act.as_str() {
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_accurate" => {
                Activation::GeluTanh
            }
            "relu" => Activation::Relu,
            "quadratic" => Activation::Quadratic,
            other => {
                return refuse(format!(
                    "hidden_act is `{}`; supported are gelu, gelu_new, gelu_pytorch_tanh, relu and \
                     quadratic (x^2/8 + x/4 + 1/2)",
                    short(other)
                ));
            }
        };
        let attention = attention(&file)?;
        let named = file.architectures.as_deref().unwrap_or_default();
        let architecture = match named {
            [one] if one == "BertForSequenceClassification" => Architecture::Classifier {
                labels: labels(file.id2label, file.num_labels)?,
            },
            [one] if one == "BertModel" => mean(),
            [] => mean(),
            [other, ..] => {
                return refuse(format!(
                    "architectures names `{}`; supported are one of BertModel and \
                     BertForSequenceClassification",
                    short(other)
                ));
            }
        };
        let config = Self {
            architecture,
            hidden_size: file.hidden_size,
            num_hidden_layers: file.num_hidden_layers,
            num_attention_heads: file.num_attention_heads,
            intermediate_size: file.intermediate_size,
            max_position_embeddings: file.max_position_embeddings,
            type_vocab_size: file.type_vocab_size,
            vocab_size: file.vocab_size,
            attention,
            activation,
            layer_norm_eps: file.layer_norm_eps,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        for (name, value, max) in [
            ("hidden_size", self.hidden_size, 8192),
            ("num_hidden_layers", self.num_hidden_layers, 256),
            ("num_attention_heads", self.num_attention_heads, 256),
            ("intermediate_size", self.intermediate_size, 65536),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                65536,
            ),
            ("type_vocab_size", self.type_vocab_size, 4096),
            ("vocab_size", self.vocab_size, 1 << 24),
        ] {
            if value == 0 || value > max {
                return refuse(format!("{name} is {value}, expected 1 to {max}"));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return refuse(format!(
                "num_attention_heads is {}, which does not divide hidden_size, {}",
                self.num_attention_heads, self.hidden_size
            ));
        }
        if !(self.layer_norm_eps >= 0.0 && self.layer_norm_eps <= 1.0) {
            return refuse(format!(
                "layer_norm_eps is {}, expected 0 to 1",
                self.layer_norm_eps
            ));
        }
        Ok(())
    }
}

/// Softmax unless `attention_function` says otherwise.
fn attention(file: &File) -> Result<AttentionFunction> {
    let parameters = (file.power_softmax_power, file.power_softmax_epsilon);
    match (file.attention_function.as_deref(), parameters) {
        (None | Some("softmax"), (None, None)) => Ok(AttentionFunction::Softmax),
        (None | Some("softmax"), _) => refuse(
            "power_softmax_power or power_softmax_epsilon is there, but attention_function is not \
             `power_softmax`"
                .into(),
        ),
        (Some("power_softmax"), (Some(power), Some(epsilon))) => {
            let function = AttentionFunction::PowerSoftmax { power, epsilon };
            if function.is_valid() {
                return Ok(function);
            }
            refuse(format!(
                "power_softmax_power is {power} and power_softmax_epsilon {epsilon}; an even power \
                 from 2 to 8 and a number above 0 are expected"
            ))
        }
        (Some("power_softmax"), _) => refuse(
            "attention_function is `power_softmax`, which needs power_softmax_power (even, 2 to 8) \
             and power_softmax_epsilon (above 0)"
                .into(),
        ),
        (Some(other), _) => refuse(format!(
            "attention_function is `{}`; supported are softmax and power_softmax",
            short(other)
        )),
    }
}

fn mean() -> Architecture {
    Architecture::Embedding {
        pooling: Pooling::Mean,
        normalize: false,
    }
}

/// Names of the labels: of `id2label`, else `LABEL_0`, .. as the transformers library has them.
fn labels(names: Option<BTreeMap<String, String>>, count: Option<usize>) -> Result<Vec<String>> {
    let count = names.as_ref().map_or(count.unwrap_or(2), BTreeMap::len);
    if count == 0 || count > 4096 {
        return refuse(format!("there are {count} labels, expected 1 to 4096"));
    }
    (0..count)
        .map(|id| match &names {
            None => Ok(format!("LABEL_{id}")),
            Some(names) => names.get(&id.to_string()).cloned().ok_or_else(|| {
                ModelError::Config(format!(
                    "id2label has no entry \"{id}\" though it names {count} labels; \
                     number them from 0 without gaps"
                ))
            }),
        })
        .collect()
}
