//! Models: those that ship inside this program, and folders.

use std::borrow::Cow;
use std::path::Path;

use veilformer_ir::tensor::TensorProgram;
use veilformer_models::{
    FolderFiles, ModelConfig, ModelError, ModelFolder, TokenFiles, TokenTableFiles,
};

/// The files of a model, in memory.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// What it is called: the shipped name, or the folder's.
    pub name: String,
    /// What it is made of.
    pub files: FolderFiles,
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

/// A file below `models`.
macro_rules! file {
    ($folder:literal, $file:literal) => {
        include_bytes!(concat!("../../../models/", $folder, "/", $file)) as &[u8]
    };
}

/// A model that ships: its name, configuration, weights, card, golden file, and its tokenizer
/// unless that belongs to a shared token table.
struct Shipped {
    name: &'static str,
    files: [&'static [u8]; 4],
    tokenizer: Option<&'static [u8]>,
}

macro_rules! shipped {
    ($name:literal, $tokenizer:expr) => {
        Shipped {
            name: $name,
            files: [
                file!($name, "config.json"),
                file!($name, "model.safetensors"),
                file!($name, "README.md"),
                file!($name, "golden.json"),
            ],
            tokenizer: $tokenizer,
        }
    };
}

/// Every model that ships.
const SHIPPED: [Shipped; 5] = [
    shipped!("sst2-poly", None),
    shipped!("sst2-ssm", None),
    shipped!("rt-poly", None),
    shipped!("rt-ssm", None),
    shipped!("order", Some(file!("order", "tokenizer.json"))),
];

/// Name, table and tokenizer of every shared token table that ships.
const TABLES: [(&str, &[u8], &[u8]); 1] = [(
    "minilm-tokens",
    file!("minilm-tokens", "token_table.safetensors"),
    file!("minilm-tokens", "tokenizer.json"),
)];

/// The model that `demo` takes.
pub const DEMO_MODEL: &str = "sst2-poly";

/// All shared token tables that ship inside this program.
#[must_use]
pub fn shipped_tables() -> Vec<TokenTableFiles> {
    let files =
        |(name, table, tokenizer): (&'static str, &'static [u8], &'static [u8])| TokenTableFiles {
            name: name.into(),
            table: table.into(),
            tokenizer: tokenizer.into(),
        };
    TABLES.into_iter().map(files).collect()
}

/// All models that ship inside this program.
///
/// # Errors
/// None in practice: a configuration that is malformed, or names a token table that does not ship.
pub fn shipped() -> Result<Vec<ModelFiles>, ModelError> {
    let tables = shipped_tables();
    let files = |model: Shipped| {
        let [config, weights, card, golden] = model.files;
        let tokens = match model.tokenizer {
            Some(tokenizer) => TokenFiles::Own(tokenizer.into()),
            None => {
                let config = ModelConfig::from_json(config)?;
                TokenFiles::Shared(TokenTableFiles::named(&config, &tables)?)
            }
        };
        Ok(ModelFiles {
            name: model.name.to_owned(),
            files: FolderFiles {
                config: config.into(),
                weights: weights.into(),
                tokens,
            },
            card: card.into(),
            golden: golden.into(),
        })
    };
    SHIPPED.into_iter().map(files).collect()
}

impl ModelFiles {
    /// A shipped model by its name, or else the folder of that path.
    ///
    /// # Errors
    /// When there is neither; the message lists the names that there are.
    pub fn find(name: &str) -> Result<Self, ModelError> {
        if let Some(files) = shipped()?.into_iter().find(|m| m.name == name) {
            return Ok(files);
        }
        let folder = Path::new(name);
        if folder.is_dir() {
            return Self::read(folder);
        }
        let known: Vec<&str> = SHIPPED.iter().map(|m| m.name).collect();
        Err(ModelError::DataSet {
            path: folder.to_owned(),
            what: format!(
                "unknown model; name one that ships ({}) or a folder with config.json, \
                 model.safetensors and tokenizer.json",
                known.join(", ")
            ),
        })
    }

    /// The files of a folder; card and golden file may be absent. A shared token table may lie in
    /// the folder, beside it, or ship inside this program.
    ///
    /// # Errors
    /// When one of the others cannot be read.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let name = folder
            .canonicalize()
            .ok()
            .and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
        let optional = |file: &str| std::fs::read(folder.join(file)).unwrap_or_default().into();
        Ok(Self {
            name: name.unwrap_or_else(|| "model".to_owned()),
            files: FolderFiles::read(folder, &shipped_tables())?,
            card: optional("README.md"),
            golden: optional("golden.json"),
        })
    }

    /// The configuration.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn config(&self) -> Result<ModelConfig, ModelError> {
        ModelConfig::from_json(&self.files.config)
    }

    /// Parses and checks everything.
    ///
    /// # Errors
    /// When a file is malformed or they do not belong together.
    pub fn load(self) -> Result<Model, ModelError> {
        let folder = self.files.load()?;
        Ok(Model {
            program: folder.checkpoint.tensor_program(&self.name),
            sentences: golden_sentences(&self.golden),
            tokenizer_json: self.files.tokenizer().clone(),
            folder,
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
        self.folder.checkpoint.rows(ids)
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
