//! Model folders, and the token tables that several of them share.

use std::borrow::Cow;
use std::path::Path;

use crate::checkpoint::Checkpoint;
use crate::config::{ModelConfig, TokenTableRef};
use crate::digest::Digest;
use crate::embedding::EmbeddingTable;
use crate::error::{ModelError, Result};
use crate::tokenizer::Tokenizer;

/// File of a shared token table.
pub const TABLE_FILE: &str = "token_table.safetensors";
/// File of a tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// A shared token table and the tokenizer that goes with it, in memory and not yet checked.
#[derive(Clone, Debug)]
pub struct TokenTableFiles {
    /// What models call it.
    pub name: Cow<'static, str>,
    /// The bytes of [`TABLE_FILE`].
    pub table: Cow<'static, [u8]>,
    /// The bytes of [`TOKENIZER_FILE`].
    pub tokenizer: Cow<'static, [u8]>,
}

impl TokenTableFiles {
    /// The files of the folder `dir`, under the name `name`.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn read(dir: &Path, name: &str) -> Result<Self> {
        Ok(Self {
            name: name.to_owned().into(),
            table: read(dir, TABLE_FILE)?,
            tokenizer: read(dir, TOKENIZER_FILE)?,
        })
    }

    /// The table among `known` that `config` names.
    ///
    /// # Errors
    /// When it names none, or one that is not among them.
    pub fn named(config: &ModelConfig, known: &[Self]) -> Result<Self> {
        let name = config.token_table.as_ref().map_or("", |t| &t.name);
        let found = known.iter().find(|files| files.name == name);
        found
            .cloned()
            .ok_or_else(|| ModelError::missing_table(name))
    }

    /// The table that `config`, of the folder `dir`, names: from the folder itself, else from the
    /// folder of the table's name beside it, else from `known`.
    ///
    /// # Errors
    /// When a file cannot be read, or the table is nowhere.
    pub fn find(dir: &Path, config: &ModelConfig, known: &[Self]) -> Result<Self> {
        let name = config.token_table.as_ref().map_or("", |t| &t.name);
        let beside = dir.join("..").join(name);
        let holds = |place: &&Path| place.join(TABLE_FILE).is_file();
        match [dir, &beside].into_iter().find(holds) {
            Some(place) => Self::read(place, name),
            None => Self::named(config, known),
        }
    }

    /// What a model's configuration says of this table.
    pub fn reference(&self) -> TokenTableRef {
        TokenTableRef {
            name: self.name.clone().into_owned(),
            blake3: Digest::of(&self.table),
            tokenizer_blake3: Digest::of(&self.tokenizer),
        }
    }

    /// The table.
    ///
    /// # Errors
    /// When the file is malformed.
    pub fn table(&self) -> Result<EmbeddingTable> {
        EmbeddingTable::from_bytes(&self.table).map_err(|what| ModelError::TokenTable {
            name: self.name.clone().into_owned(),
            what,
        })
    }

    /// The table, if its files are those that a model was trained with.
    ///
    /// # Errors
    /// When they are not, or malformed.
    pub fn checked(&self, named: &TokenTableRef) -> Result<EmbeddingTable> {
        let found = self.reference();
        for (file, found, expected) in [
            (TABLE_FILE, found.blake3, named.blake3),
            (
                TOKENIZER_FILE,
                found.tokenizer_blake3,
                named.tokenizer_blake3,
            ),
        ] {
            if found != expected {
                return Err(ModelError::TokenTable {
                    name: named.name.clone(),
                    what: format!(
                        "the digest of {file} begins with {}, config.json expects {}; \
                         copy the table that the model was trained with",
                        found.short(),
                        expected.short()
                    ),
                });
            }
        }
        self.table()
    }
}

/// Where a model's tokenizer comes from, and its token table unless the weights hold it.
#[derive(Clone, Debug)]
pub enum TokenFiles {
    /// The bytes of the folder's own `tokenizer.json`; the table is part of the weights.
    Own(Cow<'static, [u8]>),
    /// A shared table with its tokenizer.
    Shared(TokenTableFiles),
}

/// The files that a model is made of, in memory and not yet checked.
#[derive(Clone, Debug)]
pub struct FolderFiles {
    /// The bytes of `config.json`.
    pub config: Cow<'static, [u8]>,
    /// The bytes of `model.safetensors`.
    pub weights: Cow<'static, [u8]>,
    /// Tokenizer and shared table.
    pub tokens: TokenFiles,
}

impl FolderFiles {
    /// The files of the folder `dir`. A shared token table that its configuration names is taken
    /// from the folder itself, else from the folder of the table's name beside it, else from
    /// `known`.
    ///
    /// # Errors
    /// When a file cannot be read, `config.json` is malformed, or the table is nowhere.
    pub fn read(dir: &Path, known: &[TokenTableFiles]) -> Result<Self> {
        let config = read(dir, "config.json")?;
        let weights = read(dir, "model.safetensors")?;
        let parsed = ModelConfig::from_json(&config).map_err(|error| ModelError::Folder {
            path: dir.to_owned(),
            source: Box::new(error),
        })?;
        let tokens = match parsed.token_table {
            None => TokenFiles::Own(read(dir, TOKENIZER_FILE)?),
            Some(_) => TokenFiles::Shared(TokenTableFiles::find(dir, &parsed, known)?),
        };
        Ok(Self {
            config,
            weights,
            tokens,
        })
    }

    /// The bytes of `tokenizer.json`.
    pub fn tokenizer(&self) -> &Cow<'static, [u8]> {
        match &self.tokens {
            TokenFiles::Own(tokenizer) => tokenizer,
            TokenFiles::Shared(files) => &files.tokenizer,
        }
    }

    /// Bytes of all files, a shared table's included.
    pub fn size(&self) -> usize {
        let table = match &self.tokens {
            TokenFiles::Own(_) => 0,
            TokenFiles::Shared(files) => files.table.len(),
        };
        self.config.len() + self.weights.len() + self.tokenizer().len() + table
    }

    /// Parses and checks everything.
    ///
    /// # Errors
    /// When a file is malformed, a shared table is not the one that the model was trained with, or
    /// the files do not belong together.
    pub fn load(&self) -> Result<ModelFolder> {
        let config = ModelConfig::from_json(&self.config)?;
        let shared = match (&self.tokens, &config.token_table) {
            (TokenFiles::Own(_), None) => None,
            (TokenFiles::Shared(files), Some(named)) => Some(files.checked(named)?),
            (TokenFiles::Own(_), Some(named)) => {
                return Err(ModelError::missing_table(&named.name));
            }
            (TokenFiles::Shared(files), None) => {
                return Err(ModelError::TokenTable {
                    name: files.name.clone().into_owned(),
                    what: "the model does not name it; give the model's own tokenizer".into(),
                });
            }
        };
        let checkpoint = Checkpoint::from_bytes(config, &self.weights, shared)?;
        let tokenizer = Tokenizer::from_bytes(self.tokenizer())?;
        let (found, expected) = (tokenizer.vocab_size(), checkpoint.config.vocab_size);
        if found != expected {
            return Err(ModelError::Tokenizer(format!(
                "it knows {found} tokens and config.json says {expected}; \
                 the folder's files do not belong together"
            )));
        }
        Ok(ModelFolder {
            checkpoint,
            tokenizer,
        })
    }
}

/// A model: configuration, weights and tokenizer that belong together.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    /// Configuration and weights.
    pub checkpoint: Checkpoint,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
}

impl ModelFolder {
    /// Reads and checks the folder `dir`; a shared token table has to be in it or beside it.
    ///
    /// # Errors
    /// As [`FolderFiles::read`] and [`FolderFiles::load`].
    pub fn load(dir: &Path) -> Result<Self> {
        FolderFiles::read(dir, &[])?.load()
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

fn read(dir: &Path, file: &str) -> Result<Cow<'static, [u8]>> {
    let path = dir.join(file);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(bytes.into()),
        Err(source) => Err(ModelError::Read { path, source }),
    }
}
