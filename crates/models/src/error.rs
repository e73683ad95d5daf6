//! What can go wrong with a model folder, a tokenizer or a data set.

use std::path::PathBuf;

/// Error of this crate. Every message says what was wrong, what was expected and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The model's tensor program.
    #[error(transparent)]
    Program(#[from] veilformer_ir::IrError),
    /// A file could not be read.
    #[error("cannot read {path}: {source}; check that the file exists and is readable")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is there in another format only.
    #[error(
        "{path} is not there, but {found} is; make it with the Python library transformers: {how}"
    )]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What makes the one of the other.
        how: &'static str,
    },
    /// A folder whose files are not usable.
    #[error("{path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with its files.
        source: Box<ModelError>,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {source}; check the folder's permissions and free space")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The configuration is not usable.
    #[error("config.json: {0}")]
    Config(String),
    /// The weights file is not a well-formed safetensors file.
    #[error("model.safetensors is malformed ({0}); copy the model folder again")]
    Safetensors(String),
    /// A tensor that the configuration calls for is absent.
    #[error(
        "model.safetensors has no tensor `{name}`, which config.json calls for; \
         the folder's files do not belong together or the file is incomplete"
    )]
    MissingTensor {
        /// Name of the tensor.
        name: String,
    },
    /// A tensor that the configuration does not know.
    #[error(
        "model.safetensors holds a tensor `{name}` that config.json does not call for; \
         the folder's files do not belong together, or the model has parts (an adapter) that are \
         not supported"
    )]
    UnexpectedTensor {
        /// Name of the tensor.
        name: String,
    },
    /// A tensor has another shape than the configuration calls for.
    #[error(
        "tensor `{name}` has shape {found:?}, expected {expected:?} from config.json; \
         the folder's files do not belong together"
    )]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that the configuration calls for.
        expected: Vec<usize>,
    },
    /// A tensor has another element type than the format calls for.
    #[error("tensor `{name}` has element type {found}, expected {expected}; export it again")]
    Dtype {
        /// Name of the tensor.
        name: String,
        /// Type in the file.
        found: String,
        /// Type that the format calls for.
        expected: &'static str,
    },
    /// A weight is infinite or not a number, or outside its meaning (a negative variance).
    #[error("tensor `{name}` holds {value} at index {index}, expected {expected}; train it again")]
    BadValue {
        /// Name of the tensor.
        name: String,
        /// Flat index of the value.
        index: usize,
        /// The value.
        value: f64,
        /// What a value has to be.
        expected: &'static str,
    },
    /// A matrix was given with dimensions that do not fit.
    #[error("{what}: found {found}, expected {expected}")]
    Dimension {
        /// What was given.
        what: &'static str,
        /// Size found.
        found: usize,
        /// Size expected.
        expected: usize,
    },
    /// A shared token table is not usable.
    #[error("token table `{name}`: {what}")]
    TokenTable {
        /// The name by which the model calls it.
        name: String,
        /// What was wrong and what to do.
        what: String,
    },
    /// The tokenizer file is not usable.
    #[error("tokenizer.json: {0}")]
    Tokenizer(String),
    /// A sentence gives no token.
    #[error("the sentence is empty (no token is left of it); give at least one word")]
    EmptySentence,
    /// A sentence gives more tokens than the model has positions.
    #[error(
        "the sentence has {count} tokens and the model's limit is {limit}; shorten it \
         (it is never cut silently)"
    )]
    TooLong {
        /// Tokens of the sentence.
        count: usize,
        /// The model's limit.
        limit: usize,
    },
    /// A token or position lies outside its table.
    #[error(
        "{what} {found} lies outside the table of {limit} rows; \
         use the tokenizer that came with the model"
    )]
    OutOfTable {
        /// `token` or `position`.
        what: &'static str,
        /// The index asked for.
        found: usize,
        /// Rows of the table.
        limit: usize,
    },
    /// There is nothing to calibrate with.
    #[error("no sentence to calibrate with; give some that are like those the model will see")]
    Calibration,
    /// The caller stopped a step.
    #[error("{step}: stopped after {done} of {total}")]
    Stopped {
        /// What was being done.
        step: &'static str,
        /// Sentences (or heads) done.
        done: usize,
        /// All of them.
        total: usize,
    },
    /// A line of a data set is not in the expected form.
    #[error("{path}, line {line}: {what}")]
    Data {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What was wrong and what was expected.
        what: String,
    },
    /// A data set as a whole is not usable.
    #[error("{path}: {what}")]
    DataSet {
        /// The file or folder.
        path: PathBuf,
        /// What was wrong and what was expected.
        what: String,
    },
}

impl ModelError {
    /// A shared token table that is nowhere.
    pub(crate) fn missing_table(name: &str) -> Self {
        Self::TokenTable {
            name: name.to_owned(),
            what: format!(
                "it is neither in the model's folder nor in `../{name}` and does not ship with \
                 this program; copy the folder {name} beside the model's"
            ),
        }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, ModelError>;
