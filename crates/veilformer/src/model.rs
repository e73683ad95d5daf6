//! Models: those that ship inside this program, and folders.

use std::borrow::Cow;
use std::path::Path;

use veilformer_ir::tensor::TensorProgram;
use veilformer_models::{Checkpoint, ModelConfig, ModelError, ModelFolder, Tokenizer};

/// The files of a model, in memory.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// What it is called: the shipped name, or the folder's.
    pub name: String,
    /// `config.json`.
    pub config: Cow<'static, [u8]>,
    /// `model.safetensors`.
    pub weights: Cow<'static, [u8]>,
    /// `tokenizer.json`.
    pub tokenizer: Cow<'static, [u8]>,
    /// The card, `README.md`; empty without one.
    pub card: Cow<'static, [u8]>,
    /// `golden.json`: sentences with the logits that the trainer computed; empty without one.
    pub golden: Cow<'static, [u8]>,
}

/// A model, loaded.
#[derive(Clone, Debug)]
pub struct Model {
    /// What it is called.
    pub name: String,
    /// Weights and tokenizer.
    pub folder: ModelFolder,
    /// What it computes.
    pub program: TensorProgram,
    /// The bytes of `tokenizer.json`.
    pub tokenizer_json: Cow<'static, [u8]>,
    /// Sentences that ship with it: their ranges count when it is compiled.
    pub sentences: Vec<String>,
}

macro_rules! shipped {
    ($name:literal) => {
        (
            $name,
            [
                include_bytes!(concat!("../../../models/", $name, "/config.json")) as &[u8],
                include_bytes!(concat!("../../../models/", $name, "/model.safetensors")),
                include_bytes!(concat!("../../../models/", $name, "/tokenizer.json")),
                include_bytes!(concat!("../../../models/", $name, "/README.md")),
                include_bytes!(concat!("../../../models/", $name, "/golden.json")),
            ],
        )
    };
}

/// Name and files of every model that ships, in the order of [`ModelFiles`]' fields.
const SHIPPED: [(&str, [&[u8]; 5]); 2] = [shipped!("sst2-poly"), shipped!("order")];

/// The model that `demo` takes.
pub const DEMO_MODEL: &str = "sst2-poly";

/// All models that ship inside this program.
#[must_use]
pub fn shipped() -> Vec<ModelFiles> {
    let files = |(name, [config, weights, tokenizer, card, golden]): (&str, [&'static [u8]; 5])| {
        ModelFiles {
            name: name.to_owned(),
            config: config.into(),
            weights: weights.into(),
            tokenizer: tokenizer.into(),
            card: card.into(),
            golden: golden.into(),
        }
    };
    SHIPPED.into_iter().map(files).collect()
}

impl ModelFiles {
    /// A shipped model by its name, or else the folder of that path.
    ///
    /// # Errors
    /// When there is neither; the message lists the names that there are.
    pub fn find(name: &str) -> Result<Self, ModelError> {
        if let Some(files) = shipped().into_iter().find(|m| m.name == name) {
            return Ok(files);
        }
        let folder = Path::new(name);
        if folder.is_dir() {
            return Self::read(folder);
        }
        let known: Vec<String> = shipped().into_iter().map(|m| m.name).collect();
        Err(ModelError::DataSet {
            path: folder.to_owned(),
            what: format!(
                "unknown model; name one that ships ({}) or a folder with config.json, \
                 model.safetensors and tokenizer.json",
                known.join(", ")
            ),
        })
    }

    /// The files of a folder; card and golden file may be absent.
    ///
    /// # Errors
    /// When one of the others cannot be read.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let read = |file: &str| {
            let path = folder.join(file);
            std::fs::read(&path).map_err(|source| ModelError::Read { path, source })
        };
        let name = folder
            .canonicalize()
            .ok()
            .and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
        Ok(Self {
            name: name.unwrap_or_else(|| "model".to_owned()),
            config: read("config.json")?.into(),
            weights: read("model.safetensors")?.into(),
            tokenizer: read("tokenizer.json")?.into(),
            card: read("README.md").unwrap_or_default().into(),
            golden: read("golden.json").unwrap_or_default().into(),
        })
    }

    /// The configuration.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn config(&self) -> Result<ModelConfig, ModelError> {
        ModelConfig::from_json(&self.config)
    }

    /// Parses and checks everything.
    ///
    /// # Errors
    /// When a file is malformed or they do not belong together.
    pub fn load(self) -> Result<Model, ModelError> {
        let checkpoint = Checkpoint::from_bytes(self.config()?, &self.weights)?;
        let tokenizer = Tokenizer::from_bytes(&self.tokenizer)?;
        let (found, expected) = (tokenizer.vocab_size(), checkpoint.config.vocab_size);
        if found != expected {
            return Err(ModelError::Tokenizer(format!(
                "it knows {found} tokens and config.json says {expected}; \
                 the folder's files do not belong together"
            )));
        }
        Ok(Model {
            program: checkpoint.tensor_program(&self.name),
            sentences: golden_sentences(&self.golden),
            folder: ModelFolder {
                checkpoint,
                tokenizer,
            },
            tokenizer_json: self.tokenizer,
            name: self.name,
        })
    }
}

impl Model {
    /// The features of every token of `ids`: what a client encrypts.
    ///
    /// # Errors
    /// No token, too many, or one outside the table.
    pub fn rows(&self, ids: &[u32]) -> Result<Vec<Vec<f64>>, ModelError> {
        let checkpoint = &self.folder.checkpoint;
        let rows = checkpoint.embedding.lookup(ids, &checkpoint.position)?;
        Ok(rows.iter_rows().map(<[f64]>::to_vec).collect())
    }

    /// The logits of a sentence in floating point: mode `poly`.
    ///
    /// # Errors
    /// A sentence without tokens or with too many.
    pub fn poly(&self, sentence: &str) -> Result<Vec<f64>, ModelError> {
        let rows = self.rows(&self.folder.encode(sentence)?)?;
        Ok(veilformer_models::interpreter::interpret(&self.program, &rows)?.logits)
    }
}

/// The sentences of a golden file; a file that cannot be read has none.
fn golden_sentences(golden: &[u8]) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Golden {
        sentences: Vec<Sentence>,
    }
    #[derive(serde::Deserialize)]
    struct Sentence {
        text: String,
    }
    let golden: Option<Golden> = serde_json::from_slice(golden).ok();
    let sentences = golden.map(|g| g.sentences.into_iter().map(|s| s.text));
    sentences.into_iter().flatten().collect()
}
