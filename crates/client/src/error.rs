//! Errors of the client's half.

use thiserror::Error;
use veilformer_ckks::CkksError;
use veilformer_ckks::container::ContainerError;
use veilformer_models::ModelError;
use veilformer_secret::SecretError;

/// What can go wrong with a client bundle, an encryption or a decryption.
#[derive(Debug, Error)]
pub enum ClientError {
    /// A bundle whose parts do not belong together.
    #[error("client bundle: {0}; compile the model again")]
    Bundle(String),
    /// A sentence that cannot be encrypted.
    #[error("sentence {number}: {source}")]
    Sentence {
        /// Which sentence, counted from 1.
        number: usize,
        /// Why.
        source: ModelError,
    },
    /// No sentence, or too many at once.
    #[error("{found} sentences were given, 1 to {limit} can be encrypted into one file")]
    Count {
        /// Number given.
        found: usize,
        /// Most that fit a file.
        limit: usize,
    },
    /// Token features that the program was not compiled for.
    #[error(
        "the sentence has {found} tokens of features, 1 to {limit} rows of {features} are expected"
    )]
    Rows {
        /// Number of rows.
        found: usize,
        /// Longest sentence in tokens.
        limit: usize,
        /// Features per row.
        features: usize,
    },
    /// An answer of another program.
    #[error(
        "the answer belongs to program {found} and this client bundle to program {expected}; \
         decrypt with the client bundle that the sentences were encrypted with"
    )]
    OtherProgram {
        /// Start of the digest in the file.
        found: String,
        /// Start of the digest in the bundle.
        expected: String,
    },
    /// An answer file with a number of ciphertexts that no number of sentences gives.
    #[error(
        "the answer has {found} ciphertexts, a positive multiple of {per_sentence} is expected; \
         run it again"
    )]
    AnswerCount {
        /// Number in the file.
        found: usize,
        /// Output ciphertexts per sentence.
        per_sentence: usize,
    },
    /// A number of sentences that the ciphertexts do not hold.
    #[error("{0}")]
    Items(String),
    /// A logit that the program cannot vouch for.
    #[error(
        "answer {number} has a logit of {found:.1} and the model was compiled for at most \
         {limit:.1}: the sentence is outside the range of the model, and its answer means nothing; \
         rephrase it, and tell nobody who runs the server what was decrypted"
    )]
    OutOfRange {
        /// Which sentence, from 1.
        number: usize,
        /// Largest absolute logit.
        found: f64,
        /// Bound of the program.
        limit: f64,
    },
    /// An answer whose slots do not agree.
    #[error(
        "answer {number} does not decrypt to an answer (its slots differ by {spread:.1e}, equal \
         ones are expected): it is under another key, or damaged; use the secret key that \
         encrypted the sentences"
    )]
    NoAnswer {
        /// Which answer, counted from 1.
        number: usize,
        /// Largest distance of a slot from the mean of all, in units of the larger of 1 and that
        /// mean.
        spread: f64,
    },
    /// Model, tokenizer, tables.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Secret keys, encryption, decryption.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Parameters, files.
    #[error(transparent)]
    Ckks(#[from] CkksError),
}

impl From<ContainerError> for ClientError {
    fn from(error: ContainerError) -> Self {
        Self::Ckks(error.into())
    }
}
