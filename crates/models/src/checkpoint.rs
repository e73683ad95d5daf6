//! Configuration and weights of a model: `model.safetensors` in plain f64 matrices.

use std::collections::HashMap;
use std::path::Path;

use safetensors::Dtype;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::config::{Family, ModelConfig};
use crate::embedding::{Embedding, EmbeddingTable};
use crate::error::{ModelError, Result};
use crate::folder::TokenTableFiles;
use crate::layers::{Layers, Linear};
use crate::tensors::{Reader, Writer};

/// Configuration and weights of a model of either family.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The configuration that gives all shapes.
    pub config: ModelConfig,
    /// From tokens to token vectors. Transformers have a position table of
    /// `max_position_embeddings` rows; state-space classifiers have none, their decay tells order.
    pub embedding: Embedding,
    /// The layers.
    pub layers: Layers,
    /// classes x d.
    pub classifier: Linear,
}

impl Checkpoint {
    /// Reads `config.json` and `model.safetensors` of the folder `dir`, and the shared token table
    /// if one is named; it has to be in the folder or beside it.
    ///
    /// # Errors
    /// When a file is absent, malformed, or does not fit the others.
    pub fn load(dir: &Path) -> Result<Self> {
        let config = ModelConfig::load(dir)?;
        let path = dir.join("model.safetensors");
        let bytes = std::fs::read(&path).map_err(|source| ModelError::Read {
            path: path.clone(),
            source,
        })?;
        let shared = match &config.token_table {
            None => None,
            Some(named) => Some(TokenTableFiles::find(dir, &config, &[])?.checked(named)?),
        };
        Self::from_bytes(config, &bytes, shared)
    }

    /// Reads the bytes of a `model.safetensors` under `config`; `shared` is the token table that
    /// the configuration names, if it names one.
    ///
    /// # Errors
    /// When the bytes are malformed or do not fit the configuration, or a table is named and none
    /// given or the other way round.
    pub fn from_bytes(
        config: ModelConfig,
        bytes: &[u8],
        shared: Option<EmbeddingTable>,
    ) -> Result<Self> {
        config.validate()?;
        let file =
            SafeTensors::deserialize(bytes).map_err(|e| ModelError::Safetensors(e.to_string()))?;
        let mut reader = Reader::new(file);
        let d = config.hidden_size;
        let (table, projection) = match (&config.token_table, shared) {
            (None, None) => {
                let rows = config.vocab_size;
                let values = reader.bytes("embedding.weight", &[rows, d])?.to_vec();
                let scale = reader.floats("embedding.scale", &[d])?;
                let table = EmbeddingTable::new(rows, vec![8; d], scale, values);
                (table.map_err(ModelError::Safetensors)?, None)
            }
            (Some(_), Some(table)) => {
                if table.vocab_size() != config.vocab_size {
                    return Err(ModelError::Dimension {
                        what: "tokens of the shared token table",
                        found: table.vocab_size(),
                        expected: config.vocab_size,
                    });
                }
                let projection = reader.matrix("embedding.projection", d, table.width())?;
                (table, Some(projection))
            }
            (Some(named), None) => return Err(ModelError::missing_table(&named.name)),
            (None, Some(_)) => {
                return Err(ModelError::Config(
                    "a shared token table was given and `token_table` does not name one".into(),
                ));
            }
        };
        let position = match config.family {
            Family::Transformer(_) => {
                Some(reader.matrix("position.weight", config.max_position_embeddings, d)?)
            }
            Family::StateSpace(_) => None,
        };
        let layers = Layers::read(&mut reader, &config.family, config.num_hidden_layers, d)?;
        let classifier = reader.linear("classifier", config.num_classes(), d)?;
        reader.finish()?;
        Ok(Self {
            config,
            embedding: Embedding {
                table,
                projection,
                position,
            },
            layers,
            classifier,
        })
    }

    /// The bytes of `model.safetensors`; values are rounded to f32. A shared token table is not
    /// part of them.
    ///
    /// # Errors
    /// When a matrix has another shape than the configuration says.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.config.validate()?;
        let mut w = Writer::default();
        let c = &self.config;
        let d = c.hidden_size;
        let table = &self.embedding.table;
        match (&c.token_table, &self.embedding.projection) {
            (None, None) => {
                if table.bits().iter().any(|b| *b != 8) {
                    return Err(ModelError::Config(
                        "a token table of the model's own has 8 bits a value".into(),
                    ));
                }
                let bytes = table.packed().to_vec();
                w.push("embedding.weight", &[c.vocab_size, d], Dtype::I8, bytes)?;
                w.floats("embedding.scale", &[d], table.scale())?;
            }
            (Some(_), Some(p)) => {
                w.floats("embedding.projection", &[d, table.width()], p.data())?;
            }
            _ => {
                return Err(ModelError::Config(
                    "a model has both a shared token table and a projection, or neither".into(),
                ));
            }
        }
        match (&c.family, &self.embedding.position) {
            (Family::Transformer(_), Some(p)) => {
                w.floats("position.weight", &[c.max_position_embeddings, d], p.data())?;
            }
            (Family::StateSpace(_), None) => {}
            _ => {
                return Err(ModelError::Config(
                    "a transformer has a position table, a state-space classifier has none".into(),
                ));
            }
        }
        if self.layers.len() != c.num_hidden_layers {
            return Err(ModelError::Dimension {
                what: "number of layers",
                found: self.layers.len(),
                expected: c.num_hidden_layers,
            });
        }
        self.layers.write(&mut w, &c.family, d)?;
        w.linear("classifier", c.num_classes(), d, &self.classifier)?;
        let views: Vec<(&str, TensorView<'_>)> = w
            .sorted()
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

    /// The model's input for the tokens `ids`: a row of d features per token, which is what a
    /// client encrypts.
    ///
    /// # Errors
    /// When there is no token, there are more than `max_position_embeddings`, or one lies outside
    /// the table.
    pub fn rows(&self, ids: &[u32]) -> Result<Vec<Vec<f64>>> {
        let limit = self.config.max_position_embeddings;
        if ids.len() > limit {
            return Err(ModelError::TooLong {
                count: ids.len(),
                limit,
            });
        }
        let rows = self.embedding.lookup(ids)?;
        Ok(rows.iter_rows().map(<[f64]>::to_vec).collect())
    }
}
