//! The files of a sentence-transformers folder that say how tokens become one vector.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use veilformer_ir::encoder::Pooling;

use super::config::{Architecture, EncoderConfig, refuse};
use crate::error::{ModelError, Result};
use crate::tokenizer_file::short;

/// Names of the two poolings that are supported, and the fields that old files have for them.
const POOLINGS: [(&str, &str, Pooling); 2] = [
    ("mean", "pooling_mode_mean_tokens", Pooling::Mean),
    ("cls", "pooling_mode_cls_token", Pooling::First),
];

impl EncoderConfig {
    /// Takes the pooling of a sentence-transformers folder: `modules` are the bytes of its
    /// `modules.json`, and `read` gives the bytes of another file of the folder.
    ///
    /// # Errors
    /// When a file is malformed, a module is not supported, or the model is a classifier.
    pub fn set_pooling(
        &mut self,
        modules: &[u8],
        read: impl Fn(&str) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let Architecture::Embedding { pooling, normalize } = &mut self.architecture else {
            return Ok(());
        };
        let modules: Vec<Module> = serde_json::from_slice(modules).map_err(|e| {
            ModelError::Config(format!("beside it, modules.json is malformed: {e}"))
        })?;
        self.says_what_it_gives = true;
        for module in modules {
            match module.kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" if module.path.is_empty() => {}
                "Normalize" => *normalize = true,
                "Pooling" => {
                    let bytes = read(&format!("{}/config.json", plain_name(&module.path)?))?;
                    let file: PoolingFile = serde_json::from_slice(&bytes).map_err(|e| {
                        ModelError::Config(format!("of {}: malformed: {e}", module.path))
                    })?;
                    *pooling = file.pooling(&module.path)?;
                }
                _ => {
                    return refuse(format!(
                        "beside it, modules.json names `{}` in `{}`; supported are a Transformer \
                         in the folder itself, Pooling and Normalize",
                        short(&module.kind),
                        short(&module.path)
                    ));
                }
            }
        }
        Ok(())
    }
}

/// A module's folder becomes a part of a path.
fn plain_name(path: &str) -> Result<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !path.is_empty() && path.chars().all(plain) {
        return Ok(path);
    }
    refuse(format!(
        "beside it, modules.json names the folder `{}`, expected letters, digits, _ and -",
        short(path)
    ))
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// Newer files name the pooling in `pooling_mode`, older ones have a field for each.
#[derive(Deserialize)]
struct PoolingFile {
    #[serde(default)]
    pooling_mode: Option<Modes>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Modes {
    One(String),
    Many(Vec<String>),
}

impl PoolingFile {
    fn pooling(self, folder: &str) -> Result<Pooling> {
        let fields: Vec<&str> = self
            .others
            .iter()
            .filter(|(name, on)| name.starts_with("pooling_mode_") && **on == Value::Bool(true))
            .map(|(name, _)| name.as_str())
            .collect();
        let field = |name: &str| {
            let known = POOLINGS.iter().find(|(_, field, _)| *field == name);
            known.map_or(name, |(mode, ..)| *mode).to_owned()
        };
        let fields: Vec<String> = fields.into_iter().map(field).collect();
        let names = match self.pooling_mode {
            None => fields,
            Some(modes) => {
                let names = match modes {
                    Modes::One(name) => vec![name],
                    Modes::Many(names) => names,
                };
                if !fields.is_empty() && fields != names {
                    return refuse(format!(
                        "beside it, {folder}/config.json has a pooling_mode and fields \
                         pooling_mode_.. that say something else; leave one of the two out"
                    ));
                }
                names
            }
        };
        let found = match names.as_slice() {
            [name] => POOLINGS.iter().find(|(mode, ..)| mode == name),
            _ => None,
        };
        match found {
            Some((.., pooling)) => Ok(*pooling),
            None => refuse(format!(
                "beside it, {folder}/config.json has the pooling `{}`, expected the mean of all \
                 tokens alone (`mean`) or the first token alone (`cls`); no other is supported",
                short(&names.join(", "))
            )),
        }
    }
}
