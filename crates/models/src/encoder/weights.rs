//! `model.safetensors` of a BERT.

use safetensors::{Dtype, SafeTensors};
use veilformer_ir::Matrix;
use veilformer_ir::encoder::{Dense, Embeddings, Encoder, EncoderLayer, Head, LayerNorm};

use super::config::{Architecture, EncoderConfig};
use crate::error::{ModelError, Result};
use crate::tensors::{bad_value, matrix};

/// The encoder of the bytes of a `model.safetensors`, for at most `max_tokens` tokens.
///
/// Names are those of the transformers library, with or without the prefix `bert.`, and with
/// `gamma` and `beta` for a normalization's weight and bias in old files. Values are 32-bit or
/// 16-bit floating-point numbers of either format. What other heads left in the file is ignored;
/// layers beyond the configuration's and what stands unknown inside of one are not.
///
/// # Errors
/// When the file is malformed, a tensor is missing or unknown, of another shape or type, or holds a value that
/// is not finite, and when `max_tokens` is 0 or above the model's own limit.
pub fn encoder_from_bytes(
    config: &EncoderConfig,
    bytes: &[u8],
    max_tokens: usize,
) -> Result<Encoder> {
    if max_tokens == 0 || max_tokens > config.max_position_embeddings {
        return Err(ModelError::Config(format!(
            "max_position_embeddings is {}, and sentences of up to {max_tokens} tokens are asked \
             for; ask for 1 to {} tokens",
            config.max_position_embeddings, config.max_position_embeddings
        )));
    }
    let file =
        SafeTensors::deserialize(bytes).map_err(|e| ModelError::Safetensors(e.to_string()))?;
    let reader = Reader::new(&file);
    reader.check_head(config)?;
    reader.check_names(config.num_hidden_layers)?;
    let d = config.hidden_size;
    let layers = (0..config.num_hidden_layers)
        .map(|index| reader.layer(index, d, config.intermediate_size))
        .collect::<Result<_>>()?;
    let head = match &config.architecture {
        Architecture::Embedding { pooling, normalize } => Head::Embedding {
            pooling: *pooling,
            normalize: *normalize,
        },
        Architecture::Classifier { labels } => Head::Classifier {
            pooler: reader.dense("pooler.dense", d, d)?,
            classifier: reader.dense("classifier", labels.len(), d)?,
            labels: labels.clone(),
        },
    };
    let encoder = Encoder {
        heads: config.num_attention_heads,
        attention: config.attention,
        activation: config.activation,
        layer_norm_eps: config.layer_norm_eps,
        embeddings: reader.embeddings(config, max_tokens)?,
        layers,
        head,
    };
    encoder.verify()?;
    Ok(encoder)
}

/// The tensors of a layer without `.weight` and `.bias`.
const LAYER: [&str; 8] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
];
/// Those of the embeddings.
const EMBEDDINGS: [&str; 4] = [
    "word_embeddings",
    "position_embeddings",
    "token_type_embeddings",
    "LayerNorm",
];
/// Numbers that old files have stored along: 0, 1, 2, .. and 0, 0, 0, ..
const BUFFERS: [&str; 2] = ["position_ids", "token_type_ids"];

fn is_known(part: &str, parts: &[&str]) -> bool {
    part.rsplit_once('.').is_some_and(|(part, kind)| {
        let old = part.ends_with("LayerNorm") && matches!(kind, "gamma" | "beta");
        parts.contains(&part) && (old || matches!(kind, "weight" | "bias"))
    })
}

/// Takes tensors out of a file, under whichever names they have.
struct Reader<'a> {
    file: &'a SafeTensors<'a>,
    prefix: &'static str,
}

impl<'a> Reader<'a> {
    fn new(file: &'a SafeTensors<'a>) -> Self {
        let is_ours = |name: &&str| name.starts_with("bert.");
        let prefix = match file.names().iter().any(is_ours) {
            true => "bert.",
            false => "",
        };
        Self { file, prefix }
    }

    /// Without a name, a classifier would become an embedding, which is another answer.
    fn check_head(&self, config: &EncoderConfig) -> Result<()> {
        let classifies = self.file.tensor("classifier.weight").is_ok();
        if config.says_what_it_gives || !classifies {
            return Ok(());
        }
        Err(ModelError::Config(
            "it has no architectures, and model.safetensors holds a `classifier.weight`; add \
             \"architectures\": [\"BertForSequenceClassification\"] for its labels, or \
             [\"BertModel\"] for an embedding"
                .into(),
        ))
    }

    /// The name of a tensor in files that are written today. A head stands beside the encoder.
    fn full(&self, name: &str) -> String {
        match name.starts_with("classifier.") {
            true => name.to_owned(),
            false => format!("{}{name}", self.prefix),
        }
    }

    /// A layer beyond the last one is a part of another model, and what is unknown inside of a
    /// layer or the embeddings (an adapter) is a part of the answer.
    fn check_names(&self, layers: usize) -> Result<()> {
        let strange = |name: &&str| {
            let name = name.strip_prefix(self.prefix).unwrap_or(name);
            match name.strip_prefix("encoder.layer.") {
                Some(rest) => match rest.split_once('.') {
                    Some((index, part)) => {
                        let index = index.parse::<usize>().ok();
                        !(index.is_some_and(|i| i < layers) && is_known(part, &LAYER))
                    }
                    None => true,
                },
                None => name
                    .strip_prefix("embeddings.")
                    .is_some_and(|part| !is_known(part, &EMBEDDINGS) && !BUFFERS.contains(&part)),
            }
        };
        match self.file.names().into_iter().filter(strange).min() {
            Some(name) => Err(ModelError::UnexpectedTensor {
                name: name.to_owned(),
            }),
            None => Ok(()),
        }
    }

    fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let old = name
            .replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta");
        let names = [self.full(name), self.full(&old), name.to_owned()];
        let found = names
            .iter()
            .find_map(|name| Some((name, self.file.tensor(name).ok()?)));
        let Some((name, view)) = found else {
            let [name, ..] = names;
            return Err(ModelError::MissingTensor { name });
        };
        if view.shape() != shape {
            return Err(ModelError::Shape {
                name: name.clone(),
                found: view.shape().to_vec(),
                expected: shape.to_vec(),
            });
        }
        let (words, _) = view.data().as_chunks::<4>();
        let (halves, _) = view.data().as_chunks::<2>();
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => words.iter().map(|w| f32::from_le_bytes(*w)).collect(),
            Dtype::F16 => halves
                .iter()
                .map(|h| half(u16::from_le_bytes(*h)))
                .collect(),
            Dtype::BF16 => halves
                .iter()
                .map(|h| f32::from_bits(u32::from(u16::from_le_bytes(*h)) << 16))
                .collect(),
            other => {
                return Err(ModelError::Dtype {
                    name: name.clone(),
                    found: format!("{other:?}"),
                    expected: "F32, F16 or BF16",
                });
            }
        };
        match values.iter().position(|v| !v.is_finite()) {
            Some(index) => {
                let value = f64::from(values[index]);
                Err(bad_value(name, index, value, "a finite number"))
            }
            None => Ok(values),
        }
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f64>> {
        Ok(self
            .floats(name, &[len])?
            .into_iter()
            .map(f64::from)
            .collect())
    }

    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let values = self.floats(name, &[rows, cols])?;
        matrix(rows, cols, values.into_iter().map(f64::from).collect())
    }

    fn dense(&self, name: &str, rows: usize, cols: usize) -> Result<Dense> {
        Ok(Dense {
            weight: self.matrix(&format!("{name}.weight"), rows, cols)?,
            bias: self.vector(&format!("{name}.bias"), rows)?,
        })
    }

    fn norm(&self, name: &str, len: usize) -> Result<LayerNorm> {
        Ok(LayerNorm {
            weight: self.vector(&format!("{name}.weight"), len)?,
            bias: self.vector(&format!("{name}.bias"), len)?,
        })
    }

    fn layer(&self, index: usize, d: usize, intermediate: usize) -> Result<EncoderLayer> {
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        Ok(EncoderLayer {
            query: self.dense(&name("attention.self.query"), d, d)?,
            key: self.dense(&name("attention.self.key"), d, d)?,
            value: self.dense(&name("attention.self.value"), d, d)?,
            centering: None,
            output: self.dense(&name("attention.output.dense"), d, d)?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"), d)?,
            up: self.dense(&name("intermediate.dense"), intermediate, d)?,
            down: self.dense(&name("output.dense"), d, intermediate)?,
            output_norm: self.norm(&name("output.LayerNorm"), d)?,
        })
    }

    fn embeddings(&self, config: &EncoderConfig, max_tokens: usize) -> Result<Embeddings> {
        let (d, rows) = (config.hidden_size, config.max_position_embeddings);
        let types = self.matrix(
            "embeddings.token_type_embeddings.weight",
            config.type_vocab_size,
            d,
        )?;
        let all = self.matrix("embeddings.position_embeddings.weight", rows, d)?;
        // One sentence is of one type, the first.
        let mut positions = Vec::with_capacity(max_tokens * d);
        for row in all.iter_rows().take(max_tokens) {
            positions.extend(row.iter().zip(types.row(0)).map(|(p, t)| p + t));
        }
        Ok(Embeddings {
            vocab_size: config.vocab_size,
            tokens: self.floats("embeddings.word_embeddings.weight", &[config.vocab_size, d])?,
            positions: matrix(max_tokens, d, positions)?,
            norm: self.norm("embeddings.LayerNorm", d)?,
        })
    }
}

/// The value of an IEEE 754 binary16 number: sign, 5 bits of exponent (bias 15), 10 of fraction.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff) / 1024.0;
    sign * match exponent {
        0 => fraction * 2f32.powi(-14),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::half;

    #[test]
    fn halves_are_those_of_the_standard() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x0001, 2f32.powi(-24)),
            (0x03ff, 1023.0 * 2f32.powi(-24)),
            (0x0400, 2f32.powi(-14)),
            (0x3555, 0.333_251_95),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(half(bits), value, "{bits:#x}");
        }
        assert!(half(0x7e00).is_nan());
        // Numbers of one sign are in the order of their bits.
        assert!((1..0x7c00).all(|b| half(b - 1) < half(b)));
    }
}
