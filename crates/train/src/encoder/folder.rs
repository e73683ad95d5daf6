//! Hugging Face folders: a pre-trained encoder becomes trained weights, and these a folder.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use veilformer_ir::encoder::{Dense, Encoder, Head, LayerNorm};
use veilformer_models::encoder::{
    Architecture, EncoderConfig, EncoderTokenizer, encoder_from_bytes,
};

use super::network::Shape;
use super::recipe::{EncoderRecipe, StudentRecipe};
use crate::error::{Result, TrainError, at};
use crate::export::write_atomically;
use crate::network::Weights;
use crate::noise::Noise;

/// Files that are taken over as they are: all that a tokenizer may need.
const TOKENIZER_FILES: [&str; 4] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
];
/// Deviation of new weights, as in the original (Devlin et al. 2019, their code).
const NEW_WEIGHTS: f64 = 0.02;
/// The stream of [`Noise`] that new weights come from; steps have the others.
const NEW_WEIGHTS_STREAM: u64 = u64::MAX;

/// A pre-trained encoder.
pub struct Pretrained {
    /// Weights in a fixed order, with a classifier; names and layouts as in
    /// [`super::network::Network`].
    pub weights: Vec<(String, Tensor)>,
    /// What the weights do not say.
    pub shape: Shape,
    /// Its tokenizer, for sentences of at most the recipe's length.
    pub tokenizer: EncoderTokenizer,
    config: serde_json::Map<String, serde_json::Value>,
    token_types: usize,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Pretrained {
    /// Reads the folder `dir`: to be fine-tuned, an encoder of any architecture that the loader
    /// knows; as a teacher, a classifier with the recipe's labels. A classifier that is not there is
    /// new: normal values of deviation 0.02.
    ///
    /// # Errors
    /// When a file is absent or malformed, they do not belong together, or the model is not what the
    /// recipe calls for.
    pub fn load(dir: &Path, recipe: &EncoderRecipe) -> Result<Self> {
        let fail = |what: String| TrainError::Pretrained {
            path: dir.to_owned(),
            what,
        };
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(at(&path))
        };
        let bytes = read("config.json")?;
        let config = EncoderConfig::from_json(&bytes)?;
        let labels = &recipe.data.labels;
        match &config.architecture {
            Architecture::Classifier { labels: found } if found.len() != labels.len() => {
                return Err(fail(format!(
                    "it has {} labels and the recipe {}; give a model of the same task",
                    found.len(),
                    labels.len()
                )));
            }
            Architecture::Embedding { .. } if recipe.student.is_some() => {
                return Err(fail(
                    "it is no classifier, and a student needs one as its teacher; fine-tune it first"
                        .into(),
                ));
            }
            _ => {}
        }
        let limit = config.max_position_embeddings;
        if recipe.data.max_tokens > limit {
            return Err(fail(format!(
                "it takes {limit} tokens and data.max_tokens is {}; lower that",
                recipe.data.max_tokens
            )));
        }
        let tokenizer = EncoderTokenizer::from_bytes(
            &read("tokenizer.json")?,
            config.vocab_size,
            recipe.data.max_tokens,
        )?;
        let tensors = read("model.safetensors")?;
        let encoder = encoder_from_bytes(&config, &tensors, limit)?;
        let shape = Shape {
            layers: encoder.layers.len(),
            heads: encoder.heads,
            layer_norm_eps: encoder.layer_norm_eps,
            activation: encoder.activation,
            attention: encoder.attention,
        };
        let d = encoder.hidden();
        let mut collector = Collector {
            list: Vec::new(),
            noise: Noise::new(recipe.seed, NEW_WEIGHTS_STREAM),
        };
        collector.encoder(&encoder)?;
        match &encoder.head {
            Head::Classifier {
                pooler, classifier, ..
            } => {
                collector.dense("bert.pooler.dense", pooler)?;
                collector.dense("classifier", classifier)?;
            }
            Head::Embedding { .. } => {
                match stored_pooler(&tensors, d) {
                    Some(pooler) => collector.dense("bert.pooler.dense", &pooler)?,
                    None => collector.new_dense("bert.pooler.dense", d, d)?,
                }
                collector.new_dense("classifier", labels.len(), d)?;
            }
        }
        let config_map = serde_json::from_slice(&bytes)
            .map_err(|e| fail(format!("config.json is malformed ({e})")))?;
        let mut files = Vec::new();
        for name in TOKENIZER_FILES {
            if dir.join(name).is_file() {
                files.push((name, read(name)?));
            }
        }
        Ok(Self {
            weights: collector.list,
            shape,
            tokenizer,
            config: config_map,
            token_types: config.type_vocab_size,
            files,
        })
    }

    /// Writes a folder of `BertForSequenceClassification` with `weights` into `dir`, which exists.
    /// For a student `config.json` says `"hidden_act": "quadratic"` and `"attention_function":
    /// "power_softmax"` with its `power_softmax_power` and `power_softmax_epsilon`.
    ///
    /// # Errors
    /// When a weight is absent or a file cannot be written.
    pub fn export(&self, weights: &Weights, recipe: &EncoderRecipe, dir: &Path) -> Result<()> {
        let write = |name: &str, bytes: &[u8]| write_atomically(&dir.join(name), bytes);
        write("model.safetensors", &self.tensors(weights)?)?;
        let text = serde_json::to_string_pretty(&self.config_of(recipe))
            .map_err(|e| candle_core::Error::Msg(e.to_string()))?;
        write("config.json", (text + "\n").as_bytes())?;
        for (name, bytes) in &self.files {
            write(name, bytes)?;
        }
        Ok(())
    }

    fn config_of(&self, recipe: &EncoderRecipe) -> serde_json::Map<String, serde_json::Value> {
        let labels = &recipe.data.labels;
        let mut config = self.config.clone();
        config.remove("_name_or_path");
        let names: serde_json::Map<_, _> = labels
            .iter()
            .enumerate()
            .map(|(i, name)| (i.to_string(), name.as_str().into()))
            .collect();
        let ids: serde_json::Map<_, _> = labels
            .iter()
            .enumerate()
            .map(|(i, name)| (name.clone(), i.into()))
            .collect();
        let mut put = |name: &str, value: serde_json::Value| config.insert(name.into(), value);
        put(
            "architectures",
            vec!["BertForSequenceClassification"].into(),
        );
        put("id2label", names.into());
        put("label2id", ids.into());
        if let Some(StudentRecipe {
            power,
            epsilon,
            layer_norm_eps,
            ..
        }) = recipe.student
        {
            put("hidden_act", "quadratic".into());
            put("attention_function", "power_softmax".into());
            put("power_softmax_power", power.into());
            put("power_softmax_epsilon", epsilon.into());
            put("layer_norm_eps", layer_norm_eps.into());
        }
        config
    }

    fn tensors(&self, weights: &Weights) -> Result<Vec<u8>> {
        let mut all: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        let mut width = 0;
        for (name, _) in &self.weights {
            let found = weights
                .get(name)
                .ok_or_else(|| candle_core::Error::Msg(format!("no weight `{name}`")))?;
            let tensor = if is_dense(name) {
                found.t()?.contiguous()?
            } else {
                found.clone()
            };
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            if name == "bert.embeddings.LayerNorm.bias" {
                width = values.len();
            }
            all.push((name.clone(), tensor.dims().to_vec(), bytes));
        }
        // The first type's vectors are part of the positions'; a classifier sees no other type.
        all.push((
            "bert.embeddings.token_type_embeddings.weight".into(),
            vec![self.token_types, width],
            vec![0; 4 * self.token_types * width],
        ));
        let failed = |e: safetensors::SafeTensorError| candle_core::Error::Msg(e.to_string());
        let mut views = Vec::with_capacity(all.len());
        for (name, shape, bytes) in &all {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(failed)?;
            views.push((name.as_str(), view));
        }
        let info = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        Ok(safetensors::serialize(views, Some(info)).map_err(failed)?)
    }
}

/// Whether a weight is a dense map's: those are inputs x outputs here, and decay.
pub(super) fn is_dense(name: &str) -> bool {
    name.ends_with(".weight") && !name.contains("LayerNorm") && !name.contains("_embeddings")
}

/// The pooler that an embedding model's file has though the model does not use it.
fn stored_pooler(bytes: &[u8], d: usize) -> Option<Dense> {
    let file = SafeTensors::deserialize(bytes).ok()?;
    let floats = |part: &str, shape: &[usize]| -> Option<Vec<f64>> {
        let name = format!("pooler.dense.{part}");
        let view = file
            .tensor(&format!("bert.{name}"))
            .or_else(|_| file.tensor(&name))
            .ok()?;
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            return None;
        }
        let (words, _) = view.data().as_chunks::<4>();
        let values = words.iter().map(|w| f64::from(f32::from_le_bytes(*w)));
        let values: Vec<f64> = values.collect();
        values.iter().all(|v| v.is_finite()).then_some(values)
    };
    Some(Dense {
        weight: veilformer_models::matrix(d, d, floats("weight", &[d, d])?).ok()?,
        bias: floats("bias", &[d])?,
    })
}

struct Collector {
    list: Vec<(String, Tensor)>,
    noise: Noise,
}

impl Collector {
    fn put(&mut self, name: String, values: Vec<f32>, shape: &[usize]) -> Result<()> {
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
        self.list.push((name, tensor));
        Ok(())
    }

    fn vector(&mut self, name: String, values: &[f64]) -> Result<()> {
        let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
        let n = values.len();
        self.put(name, values, &[n])
    }

    fn norm(&mut self, name: &str, norm: &LayerNorm) -> Result<()> {
        self.vector(format!("{name}.LayerNorm.weight"), &norm.weight)?;
        self.vector(format!("{name}.LayerNorm.bias"), &norm.bias)
    }

    fn dense(&mut self, name: &str, map: &Dense) -> Result<()> {
        let (rows, cols) = (map.weight.rows(), map.weight.cols());
        let mut transposed = vec![0.0f32; rows * cols];
        for (r, row) in map.weight.iter_rows().enumerate() {
            for (c, value) in row.iter().enumerate() {
                transposed[c * rows + r] = *value as f32;
            }
        }
        self.put(format!("{name}.weight"), transposed, &[cols, rows])?;
        self.vector(format!("{name}.bias"), &map.bias)
    }

    fn new_dense(&mut self, name: &str, rows: usize, cols: usize) -> Result<()> {
        let values = self.noise.normal(rows * cols, NEW_WEIGHTS);
        self.put(format!("{name}.weight"), values, &[cols, rows])?;
        self.put(format!("{name}.bias"), vec![0.0; rows], &[rows])
    }

    fn encoder(&mut self, encoder: &Encoder) -> Result<()> {
        let e = &encoder.embeddings;
        let d = encoder.hidden();
        let prefix = "bert.embeddings";
        self.put(
            format!("{prefix}.word_embeddings.weight"),
            e.tokens.clone(),
            &[e.vocab_size, d],
        )?;
        let positions = e.positions.data().iter().map(|v| *v as f32).collect();
        self.put(
            format!("{prefix}.position_embeddings.weight"),
            positions,
            &[e.positions.rows(), d],
        )?;
        self.norm(prefix, &e.norm)?;
        for (index, layer) in encoder.layers.iter().enumerate() {
            let name = |part: &str| format!("bert.encoder.layer.{index}.{part}");
            self.dense(&name("attention.self.query"), &layer.query)?;
            self.dense(&name("attention.self.key"), &layer.key)?;
            self.dense(&name("attention.self.value"), &layer.value)?;
            self.dense(&name("attention.output.dense"), &layer.output)?;
            self.norm(&name("attention.output"), &layer.attention_norm)?;
            self.dense(&name("intermediate.dense"), &layer.up)?;
            self.dense(&name("output.dense"), &layer.down)?;
            self.norm(&name("output"), &layer.output_norm)?;
        }
        Ok(())
    }
}
