//! Weights of a polynomial transformer: `model.safetensors` in plain f64 matrices.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::config::ModelConfig;
use crate::error::{ModelError, Result};
use crate::tokenizer::Tokenizer;
use veilformer_ir::Matrix;

/// The token table as it ships: one signed byte per value, one scale per feature.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingTable {
    /// Rows (tokens).
    pub vocab_size: usize,
    /// Columns (features).
    pub hidden_size: usize,
    /// `vocab_size * hidden_size` bytes, row after row.
    pub values: Vec<i8>,
    /// One scale per feature: the value is `byte * scale`.
    pub scale: Vec<f64>,
}

impl EmbeddingTable {
    /// Rounds `table` (tokens x features) to bytes. The scale of a feature is its largest absolute
    /// value over 127, stored as f32, so that the error is at most half a scale.
    ///
    /// # Errors
    /// When a value is not finite.
    pub fn quantize(table: &Matrix) -> Result<Self> {
        let mut largest = vec![0.0f64; table.cols()];
        for (index, &value) in table.data().iter().enumerate() {
            if !value.is_finite() {
                return Err(bad_value(
                    "embedding.weight",
                    index,
                    value,
                    "a finite number",
                ));
            }
            if let Some(m) = largest.get_mut(index % table.cols().max(1)) {
                *m = m.max(value.abs());
            }
        }
        let scale: Vec<f64> = largest
            .iter()
            .map(|&m| {
                if m > 0.0 {
                    f64::from((m / 127.0) as f32)
                } else {
                    1.0
                }
            })
            .collect();
        let mut values = Vec::with_capacity(table.data().len());
        for row in table.iter_rows() {
            values.extend(
                row.iter()
                    .zip(&scale)
                    .map(|(v, s)| (v / s).round().clamp(-127.0, 127.0) as i8),
            );
        }
        Ok(Self {
            vocab_size: table.rows(),
            hidden_size: table.cols(),
            values,
            scale,
        })
    }

    /// The vector of token `id`, `hidden_size` values.
    ///
    /// # Errors
    /// When `id` lies outside the table.
    pub fn row(&self, id: u32) -> Result<Vec<f64>> {
        let start = (id as usize).checked_mul(self.hidden_size);
        let bytes = start
            .and_then(|s| self.values.get(s..s.checked_add(self.hidden_size)?))
            .ok_or(ModelError::OutOfTable {
                what: "token",
                found: id as usize,
                limit: self.vocab_size,
            })?;
        Ok(bytes
            .iter()
            .zip(&self.scale)
            .map(|(&b, s)| f64::from(b) * s)
            .collect())
    }

    /// The model's input for the tokens `ids`: row `t` is `E[ids[t]] + P[t]`, an n x d matrix.
    ///
    /// # Errors
    /// When there is no token, a token lies outside the table, there are more tokens than
    /// positions, or the two tables have different widths.
    pub fn lookup(&self, ids: &[u32], position: &Matrix) -> Result<Matrix> {
        if ids.is_empty() {
            return Err(ModelError::EmptySentence);
        }
        if ids.len() > position.rows() {
            return Err(ModelError::TooLong {
                count: ids.len(),
                limit: position.rows(),
            });
        }
        if position.cols() != self.hidden_size {
            return Err(ModelError::Dimension {
                what: "features of the position table",
                found: position.cols(),
                expected: self.hidden_size,
            });
        }
        let mut data = Vec::with_capacity(ids.len() * self.hidden_size);
        for (&id, place) in ids.iter().zip(position.iter_rows()) {
            data.extend(self.row(id)?.iter().zip(place).map(|(e, p)| e + p));
        }
        matrix(ids.len(), self.hidden_size, data)
    }
}

/// An affine map `y = W x + b`.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// outputs x inputs.
    pub weight: Matrix,
    /// One value per output.
    pub bias: Vec<f64>,
}

/// Batch normalization with stored statistics, one value per feature each:
/// `y = (x - running_mean) / sqrt(running_var + eps) * weight + bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// Gain.
    pub weight: Vec<f64>,
    /// Offset.
    pub bias: Vec<f64>,
    /// Mean over the training tokens.
    pub running_mean: Vec<f64>,
    /// Variance over the training tokens, not negative.
    pub running_var: Vec<f64>,
}

impl Norm {
    /// The same map as `y = gain x + offset`, one pair of values per feature.
    pub fn affine(&self, eps: f64) -> (Vec<f64>, Vec<f64>) {
        let gain: Vec<f64> = self
            .weight
            .iter()
            .zip(&self.running_var)
            .map(|(w, v)| w / (v + eps).sqrt())
            .collect();
        let offset = self
            .bias
            .iter()
            .zip(&self.running_mean)
            .zip(&gain)
            .map(|((b, m), g)| b - m * g)
            .collect();
        (gain, offset)
    }
}

/// Weights of one layer; `a` is the attention width (heads times head width), a head's features
/// stand together (feature = head * head_dim + i).
#[derive(Debug, Clone, PartialEq)]
pub struct LayerWeights {
    /// Before attention.
    pub norm1: Norm,
    /// a x d.
    pub query: Linear,
    /// a x d.
    pub key: Linear,
    /// a x d.
    pub value: Linear,
    /// d x a.
    pub output: Linear,
    /// Before the feed-forward block.
    pub norm2: Norm,
    /// intermediate x d.
    pub up: Linear,
    /// `(alpha, beta)` per channel: the activation is `alpha u^2 + beta u`.
    pub activation: Vec<[f64; 2]>,
    /// d x intermediate.
    pub down: Linear,
}

/// Configuration and weights of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The configuration that gives all shapes.
    pub config: ModelConfig,
    /// Token table.
    pub embedding: EmbeddingTable,
    /// Position table, `max_position_embeddings` x d.
    pub position: Matrix,
    /// The layers, first to last.
    pub layers: Vec<LayerWeights>,
    /// classes x d.
    pub classifier: Linear,
}

impl Checkpoint {
    /// Reads `config.json` and `model.safetensors` of the folder `dir`.
    ///
    /// # Errors
    /// When a file is absent, malformed, or does not fit the other one.
    pub fn load(dir: &Path) -> Result<Self> {
        let config = ModelConfig::load(dir)?;
        let path = dir.join("model.safetensors");
        let bytes = std::fs::read(&path).map_err(|source| ModelError::Read {
            path: path.clone(),
            source,
        })?;
        Self::from_bytes(config, &bytes)
    }

    /// Reads the bytes of a `model.safetensors` under `config`.
    ///
    /// # Errors
    /// When the bytes are malformed or do not fit the configuration.
    pub fn from_bytes(config: ModelConfig, bytes: &[u8]) -> Result<Self> {
        config.validate()?;
        let file =
            SafeTensors::deserialize(bytes).map_err(|e| ModelError::Safetensors(e.to_string()))?;
        let mut reader = Reader {
            file,
            taken: Vec::new(),
        };
        let (d, a, f) = (
            config.hidden_size,
            config.attention_width(),
            config.intermediate_size,
        );
        let embedding = EmbeddingTable {
            vocab_size: config.vocab_size,
            hidden_size: d,
            values: reader.bytes("embedding.weight", &[config.vocab_size, d])?,
            scale: reader.floats("embedding.scale", &[d])?,
        };
        let position = reader.matrix("position.weight", config.max_position_embeddings, d)?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for l in 0..config.num_hidden_layers {
            let p = |name: &str| format!("layers.{l}.{name}");
            layers.push(LayerWeights {
                norm1: reader.norm(&p("norm1"), d)?,
                query: reader.linear(&p("attention.query"), a, d)?,
                key: reader.linear(&p("attention.key"), a, d)?,
                value: reader.linear(&p("attention.value"), a, d)?,
                output: reader.linear(&p("attention.output"), d, a)?,
                norm2: reader.norm(&p("norm2"), d)?,
                up: reader.linear(&p("ffn.up"), f, d)?,
                activation: reader
                    .floats(&p("ffn.activation"), &[f, 2])?
                    .chunks_exact(2)
                    .map(|c| {
                        [
                            c.first().copied().unwrap_or(0.0),
                            c.last().copied().unwrap_or(0.0),
                        ]
                    })
                    .collect(),
                down: reader.linear(&p("ffn.down"), d, f)?,
            });
        }
        let classifier = reader.linear("classifier", config.num_classes(), d)?;
        reader.finish()?;
        Ok(Self {
            config,
            embedding,
            position,
            layers,
            classifier,
        })
    }

    /// The bytes of `model.safetensors`; values are rounded to f32.
    ///
    /// # Errors
    /// When a matrix has another shape than the configuration says.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.config.validate()?;
        let mut w = Writer {
            tensors: Vec::new(),
        };
        let c = &self.config;
        let (d, a, f) = (c.hidden_size, c.attention_width(), c.intermediate_size);
        let table: Vec<u8> = self
            .embedding
            .values
            .iter()
            .map(|&v| v.cast_unsigned())
            .collect();
        w.push("embedding.weight", &[c.vocab_size, d], Dtype::I8, table)?;
        w.floats("embedding.scale", &[d], &self.embedding.scale)?;
        w.floats(
            "position.weight",
            &[c.max_position_embeddings, d],
            self.position.data(),
        )?;
        if self.layers.len() != c.num_hidden_layers {
            return Err(ModelError::Dimension {
                what: "number of layers",
                found: self.layers.len(),
                expected: c.num_hidden_layers,
            });
        }
        for (l, layer) in self.layers.iter().enumerate() {
            let p = |name: &str| format!("layers.{l}.{name}");
            w.norm(&p("norm1"), d, &layer.norm1)?;
            w.linear(&p("attention.query"), a, d, &layer.query)?;
            w.linear(&p("attention.key"), a, d, &layer.key)?;
            w.linear(&p("attention.value"), a, d, &layer.value)?;
            w.linear(&p("attention.output"), d, a, &layer.output)?;
            w.norm(&p("norm2"), d, &layer.norm2)?;
            w.linear(&p("ffn.up"), f, d, &layer.up)?;
            let act: Vec<f64> = layer.activation.iter().flatten().copied().collect();
            w.floats(&p("ffn.activation"), &[f, 2], &act)?;
            w.linear(&p("ffn.down"), d, f, &layer.down)?;
        }
        w.linear("classifier", c.num_classes(), d, &self.classifier)?;
        w.tensors.sort_by(|x, y| x.0.cmp(&y.0));
        let views: Vec<(&str, TensorView<'_>)> = w
            .tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| {
                TensorView::new(*dtype, shape.clone(), bytes)
                    .map(|v| (name.as_str(), v))
                    .map_err(|e| ModelError::Safetensors(e.to_string()))
            })
            .collect::<Result<_>>()?;
        // The transformers library of Python wants this entry to load the file as torch tensors.
        let info = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize(views, Some(info))
            .map_err(|e| ModelError::Safetensors(e.to_string()))
    }

    /// Writes `config.json` and `model.safetensors` into the folder `dir`, which is made if absent.
    ///
    /// # Errors
    /// When a matrix does not fit the configuration or a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let put = |path: &Path, bytes: &[u8]| {
            std::fs::write(path, bytes).map_err(|source| ModelError::Write {
                path: path.to_owned(),
                source,
            })
        };
        let (config, bytes) = (self.config.to_json()?, self.to_bytes()?);
        std::fs::create_dir_all(dir).map_err(|source| ModelError::Write {
            path: dir.to_owned(),
            source,
        })?;
        put(&dir.join("config.json"), config.as_bytes())?;
        put(&dir.join("model.safetensors"), &bytes)
    }
}

/// A model folder: configuration, weights and tokenizer that belong together.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    /// Configuration and weights.
    pub checkpoint: Checkpoint,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
}

impl ModelFolder {
    /// Reads `config.json`, `model.safetensors` and `tokenizer.json` of the folder `dir`.
    ///
    /// # Errors
    /// When a file is absent or malformed, or the tokenizer knows another number of tokens than
    /// the embedding table.
    pub fn load(dir: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::load(dir)?;
        let tokenizer = Tokenizer::load(&dir.join("tokenizer.json"))?;
        let (found, expected) = (tokenizer.vocab_size(), checkpoint.config.vocab_size);
        if found != expected {
            return Err(ModelError::Tokenizer(format!(
                "it knows {found} tokens and config.json says {expected}; \
                 the folder's files do not belong together"
            )));
        }
        Ok(Self {
            checkpoint,
            tokenizer,
        })
    }

    /// The tokens of `text`, at most as many as the model has positions.
    ///
    /// # Errors
    /// When no token is left of the text, or more than the limit.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer
            .encode_within(text, self.checkpoint.config.max_position_embeddings)
    }
}

fn bad_value(name: &str, index: usize, value: f64, expected: &'static str) -> ModelError {
    ModelError::BadValue {
        name: name.to_owned(),
        index,
        value,
        expected,
    }
}

struct Reader<'a> {
    file: SafeTensors<'a>,
    taken: Vec<String>,
}

impl Reader<'_> {
    fn raw(&mut self, name: &str, shape: &[usize], dtype: Dtype) -> Result<&[u8]> {
        let Ok(view) = self.file.tensor(name) else {
            return Err(ModelError::MissingTensor {
                name: name.to_owned(),
            });
        };
        if view.dtype() != dtype {
            return Err(ModelError::Dtype {
                name: name.to_owned(),
                found: format!("{:?}", view.dtype()),
                expected: if dtype == Dtype::I8 { "I8" } else { "F32" },
            });
        }
        if view.shape() != shape {
            return Err(ModelError::Shape {
                name: name.to_owned(),
                found: view.shape().to_vec(),
                expected: shape.to_vec(),
            });
        }
        self.taken.push(name.to_owned());
        Ok(view.data())
    }

    fn bytes(&mut self, name: &str, shape: &[usize]) -> Result<Vec<i8>> {
        Ok(self
            .raw(name, shape, Dtype::I8)?
            .iter()
            .map(|b| b.cast_signed())
            .collect())
    }

    fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f64>> {
        let bytes = self.raw(name, shape, Dtype::F32)?;
        let (words, _) = bytes.as_chunks::<4>();
        let mut out = Vec::with_capacity(words.len());
        for (index, word) in words.iter().enumerate() {
            let value = f32::from_le_bytes(*word);
            if !value.is_finite() {
                return Err(bad_value(name, index, f64::from(value), "a finite number"));
            }
            out.push(f64::from(value));
        }
        Ok(out)
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        matrix(rows, cols, self.floats(name, &[rows, cols])?)
    }

    fn linear(&mut self, name: &str, rows: usize, cols: usize) -> Result<Linear> {
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"), rows, cols)?,
            bias: self.floats(&format!("{name}.bias"), &[rows])?,
        })
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Norm> {
        let mut get = |part: &str| self.floats(&format!("{name}.{part}"), &[width]);
        let norm = Norm {
            weight: get("weight")?,
            bias: get("bias")?,
            running_mean: get("running_mean")?,
            running_var: get("running_var")?,
        };
        for (index, &value) in norm.running_var.iter().enumerate() {
            if value < 0.0 {
                let name = format!("{name}.running_var");
                return Err(bad_value(&name, index, value, "a variance of at least 0"));
            }
        }
        Ok(norm)
    }

    /// A tensor left over would be a part of another architecture, silently ignored.
    fn finish(self) -> Result<()> {
        let mut names = self.file.names();
        names.sort_unstable();
        match names
            .into_iter()
            .find(|n| !self.taken.iter().any(|t| t == n))
        {
            Some(name) => Err(ModelError::UnexpectedTensor {
                name: name.to_owned(),
            }),
            None => Ok(()),
        }
    }
}

struct Writer {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl Writer {
    fn push(&mut self, name: &str, shape: &[usize], dtype: Dtype, bytes: Vec<u8>) -> Result<()> {
        let width = if dtype == Dtype::I8 { 1 } else { 4 };
        let expected = shape.iter().product::<usize>();
        if bytes.len() != expected * width {
            return Err(ModelError::Shape {
                name: name.to_owned(),
                found: vec![bytes.len() / width],
                expected: shape.to_vec(),
            });
        }
        self.tensors
            .push((name.to_owned(), dtype, shape.to_vec(), bytes));
        Ok(())
    }

    fn floats(&mut self, name: &str, shape: &[usize], values: &[f64]) -> Result<()> {
        let mut bytes = Vec::with_capacity(values.len() * 4);
        for (index, &value) in values.iter().enumerate() {
            if !(value as f32).is_finite() {
                return Err(bad_value(name, index, value, "a finite 32-bit number"));
            }
            bytes.extend_from_slice(&(value as f32).to_le_bytes());
        }
        self.push(name, shape, Dtype::F32, bytes)
    }

    fn linear(&mut self, name: &str, rows: usize, cols: usize, map: &Linear) -> Result<()> {
        self.floats(&format!("{name}.weight"), &[rows, cols], map.weight.data())?;
        self.floats(&format!("{name}.bias"), &[rows], &map.bias)
    }

    fn norm(&mut self, name: &str, width: usize, norm: &Norm) -> Result<()> {
        self.floats(&format!("{name}.weight"), &[width], &norm.weight)?;
        self.floats(&format!("{name}.bias"), &[width], &norm.bias)?;
        self.floats(
            &format!("{name}.running_mean"),
            &[width],
            &norm.running_mean,
        )?;
        self.floats(&format!("{name}.running_var"), &[width], &norm.running_var)
    }
}

/// A matrix of `rows * cols` row-major values.
///
/// # Errors
/// [`ModelError::Dimension`] when the number of values is another one.
pub fn matrix(rows: usize, cols: usize, data: Vec<f64>) -> Result<Matrix> {
    let found = data.len();
    Matrix::from_rows(rows, cols, data).ok_or(ModelError::Dimension {
        what: "number of values of a matrix",
        found,
        expected: rows.saturating_mul(cols),
    })
}
