//! `config.json` of a BERT.

use serde_json::Value;
use veilformer_ir::encoder::{Activation, AttentionFunction, Pooling};

use super::fields::Fields;
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
    /// Whether a file says so: `architectures`, or the pooling of a sentence-transformers folder.
    /// Where none does, weights with a classifier are refused.
    pub says_what_it_gives: bool,
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

/// The kind of model that a file names.
enum Kind {
    Classifier,
    Embedding,
    Unnamed,
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
        let file = Fields::parse(bytes)?;
        // What the model is comes first: its message matters more than any field's.
        if let Some(kind) = file.text("model_type")?
            && kind != "bert"
        {
            return refuse(format!(
                "model_type is `{}`, only `bert` is supported",
                short(kind)
            ));
        }
        let kind = kind(&file)?;
        let absolute = file.text("position_embedding_type")?;
        if let Some(kind) = absolute.filter(|kind| *kind != "absolute") {
            return refuse(format!(
                "position_embedding_type is `{}`, only `absolute` is supported",
                short(kind)
            ));
        }
        if file.is_on("is_decoder")? || file.is_on("add_cross_attention")? {
            return refuse("the model is a decoder, only encoders are supported".into());
        }
        let none = |heads: &Value| match heads {
            Value::Object(heads) => heads.is_empty(),
            Value::Array(heads) => heads.is_empty(),
            _ => false,
        };
        if file.get("pruned_heads").is_some_and(|heads| !none(heads)) {
            return refuse("pruned_heads is not empty; export the model with all heads".into());
        }
        let activation = match file.text("hidden_act")? {
            None => return Err(file.wrong("hidden_act", "the name of an activation")),
            Some("gelu" | "gelu_python") => Activation::Gelu,
            Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_accurate") => {
                Activation::GeluTanh
            }
            Some("relu") => Activation::Relu,
            Some("quadratic") => Activation::Quadratic,
            Some(other) => {
                return refuse(format!(
                    "hidden_act is `{}`; supported are gelu, gelu_new, gelu_pytorch_tanh, relu and \
                     quadratic (x^2/8 + x/4 + 1/2)",
                    short(other)
                ));
            }
        };
        let attention = attention(&file)?;
        let architecture = match kind {
            Kind::Classifier => Architecture::Classifier {
                labels: labels(&file)?,
            },
            Kind::Embedding | Kind::Unnamed => Architecture::Embedding {
                pooling: Pooling::Mean,
                normalize: false,
            },
        };
        let config = Self {
            architecture,
            says_what_it_gives: !matches!(kind, Kind::Unnamed),
            hidden_size: file.size("hidden_size")?,
            num_hidden_layers: file.size("num_hidden_layers")?,
            num_attention_heads: file.size("num_attention_heads")?,
            intermediate_size: file.size("intermediate_size")?,
            max_position_embeddings: file.size("max_position_embeddings")?,
            // What the transformers library takes where a field is absent.
            type_vocab_size: match file.has("type_vocab_size") {
                true => file.size("type_vocab_size")?,
                false => 2,
            },
            vocab_size: file.size("vocab_size")?,
            attention,
            activation,
            layer_norm_eps: match file.has("layer_norm_eps") {
                true => file
                    .number("layer_norm_eps")?
                    .ok_or_else(|| file.wrong("layer_norm_eps", "a number"))?,
                false => 1e-12,
            },
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

/// The one architecture that `architectures` names.
fn kind(file: &Fields) -> Result<Kind> {
    let Some(value) = file.get("architectures") else {
        return Ok(Kind::Unnamed);
    };
    let names: Option<Vec<&str>> = value
        .as_array()
        .and_then(|names| names.iter().map(Value::as_str).collect());
    match names.as_deref() {
        Some([]) => Ok(Kind::Unnamed),
        Some(["BertForSequenceClassification"]) => Ok(Kind::Classifier),
        Some(["BertModel"]) => Ok(Kind::Embedding),
        Some([other, ..]) => refuse(format!(
            "architectures names `{}`; supported are one of BertModel and \
             BertForSequenceClassification",
            short(other)
        )),
        None => Err(file.wrong("architectures", "a list of one name")),
    }
}

/// Softmax unless `attention_function` says otherwise.
fn attention(file: &Fields) -> Result<AttentionFunction> {
    let named = file.text("attention_function")?;
    let parameters = (
        file.count("power_softmax_power")?,
        file.number("power_softmax_epsilon")?,
    );
    match (named, parameters) {
        (None | Some("softmax"), (None, None)) => Ok(AttentionFunction::Softmax),
        (None | Some("softmax"), _) => refuse(
            "power_softmax_power or power_softmax_epsilon is there, but attention_function is not \
             `power_softmax`"
                .into(),
        ),
        (Some("power_softmax"), (Some(power), Some(epsilon))) => {
            if let Ok(power) = u32::try_from(power) {
                let function = AttentionFunction::PowerSoftmax { power, epsilon };
                if function.is_valid() {
                    return Ok(function);
                }
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

/// Names of the labels: of `id2label`, else `LABEL_0`, .. as the transformers library has them.
fn labels(file: &Fields) -> Result<Vec<String>> {
    let names = file.get("id2label");
    let unlike = "names of labels under \"0\", \"1\", ..";
    let names = match names.map(|names| names.as_object()) {
        None => None,
        Some(Some(names)) => Some(names),
        Some(None) => return Err(file.wrong("id2label", unlike)),
    };
    let stated = file.count("num_labels")?.unwrap_or(2);
    let count = names.map_or(stated, |names| names.len());
    if count == 0 || count > 4096 {
        return refuse(format!("there are {count} labels, expected 1 to 4096"));
    }
    check_problem(file, count)?;
    (0..count)
        .map(|id| match names {
            None => Ok(format!("LABEL_{id}")),
            Some(names) => match names.get(&id.to_string()) {
                Some(Value::String(name)) => Ok(name.clone()),
                Some(_) => Err(file.wrong("id2label", unlike)),
                None => refuse(format!(
                    "id2label has no entry \"{id}\" though it names {count} labels; \
                     number them from 0 without gaps"
                )),
            },
        })
        .collect()
}

/// What the answers of a classifier mean: probabilities of its labels are a softmax of them.
fn check_problem(file: &Fields, labels: usize) -> Result<()> {
    match file.text("problem_type")? {
        None | Some("single_label_classification") => Ok(()),
        Some("regression") if labels == 1 => Ok(()),
        Some("regression") => refuse(format!(
            "problem_type is `regression` of {labels} values; supported are regression of one \
             value, and classifiers of which one label holds"
        )),
        Some("multi_label_classification") => refuse(
            "problem_type is `multi_label_classification`, where several labels of a sentence may \
             hold; supported are classifiers of which one label holds"
                .into(),
        ),
        Some(other) => refuse(format!(
            "problem_type is `{}`; supported are single_label_classification and regression of \
             one value",
            short(other)
        )),
    }
}
