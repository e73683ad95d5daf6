//! What can go wrong while training.

use std::path::PathBuf;

/// Error of the trainer. Every message says what was wrong, what was expected and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A model folder, tokenizer or data set is not usable.
    #[error(transparent)]
    Model(#[from] veilformer_models::ModelError),
    /// A tensor operation failed; a bug, or the machine is out of memory.
    #[error("tensor operation failed: {0}; please report this with the recipe")]
    Tensor(#[from] candle_core::Error),
    /// A chart cannot be drawn.
    #[error("chart of the training: {0}")]
    Plot(#[from] veilformer_plot::PlotError),
    /// The recipe is not usable.
    #[error("recipe {path}: {what}")]
    Recipe {
        /// The recipe file.
        path: PathBuf,
        /// What was wrong and what was expected.
        what: String,
    },
    /// The folder or wheel with the frozen features is not usable.
    #[error("features {path}: {what}")]
    Features {
        /// The folder or wheel.
        path: PathBuf,
        /// What was wrong and what was expected.
        what: String,
    },
    /// The folder of a pre-trained encoder is not what the recipe calls for.
    #[error("model folder {path}: {what}")]
    Pretrained {
        /// The folder.
        path: PathBuf,
        /// What was wrong and what was expected.
        what: String,
    },
    /// A checkpoint cannot be resumed from.
    #[error("checkpoint {path}: {what}; remove the checkpoint or train without --resume")]
    Checkpoint {
        /// The checkpoint file.
        path: PathBuf,
        /// What was wrong and what was expected.
        what: String,
    },
    /// A file could not be written or read.
    #[error("{path}: {source}; check the path, its permissions and the free space")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The output folder already holds a training run.
    #[error("{0} already holds a training run; give --resume to go on with it or another folder")]
    Exists(PathBuf),
    /// The output folder already holds a token table.
    #[error("{0} already holds a token table; give another folder")]
    TableExists(PathBuf),
    /// A size of a token table that the features do not fill.
    #[error("{found} bytes per token, expected 1 to the number of features, {limit}")]
    TableSize {
        /// The bytes asked for.
        found: usize,
        /// Number of features.
        limit: usize,
    },
    /// Training left the numbers.
    #[error(
        "the loss is not finite at step {step}; lower the learning rate or raise the range penalty"
    )]
    Diverged {
        /// Step, counted from 0.
        step: usize,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, TrainError>;

/// Makes a [`TrainError::File`] out of a system error at `path`.
pub fn at(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> TrainError + '_ {
    move |source| TrainError::File {
        path: path.to_owned(),
        source,
    }
}
