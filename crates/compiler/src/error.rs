//! Why a program could not be compiled.

use thiserror::Error;
use veilformer_circuits::CircuitError;
use veilformer_circuits::polynomial::PolynomialError;
use veilformer_ckks::{CkksError, OpsError};
use veilformer_ir::IrError;

/// A program that does not compile.
#[derive(Debug, Error)]
pub enum CompileError {
    /// The tensor program has no input or no answer.
    #[error(
        "the tensor program has no input or no answer; a model starts with its tokens and ends with its logits"
    )]
    Empty,
    /// A margin that shrinks the ranges that occur, or is no number.
    #[error("a margin of {0} on the calibrated ranges; it has to be a number of at least 1")]
    Margin(f64),
    /// A calibration input that the program cannot read: its ranges would say nothing.
    #[error(
        "calibration input {index} is not 1 to {max_tokens} rows of {features} finite features; \
         take inputs from the model's own embedding"
    )]
    Calibration {
        /// Index of the input.
        index: usize,
        /// Longest sentence in tokens.
        max_tokens: usize,
        /// Features per token.
        features: usize,
    },
    /// A number of sentences that is no power of two, or too large.
    #[error("a batch of {found} sentences; give a power of two of at most {limit}")]
    Batch {
        /// What was asked for.
        found: usize,
        /// The largest.
        limit: usize,
    },
    /// A length that the model does not have.
    #[error("{found} tokens; the model takes 1 to {limit}")]
    Tokens {
        /// What was asked for.
        found: usize,
        /// The model's own limit.
        limit: usize,
    },
    /// An activation channel that is nearly linear.
    #[error(
        "operation %{operation}: channel {channel} of the quadratic activation is flat (its x^2 \
         coefficient is below 1/1000 of its slope); fold it into the linear layer or retrain"
    )]
    FlatActivation {
        /// Operation of the tensor program.
        operation: usize,
        /// Channel.
        channel: usize,
    },
    /// Not enough slots.
    #[error(
        "the program needs {needed} slots and the parameters have {slots}; compile for fewer tokens or a larger ring"
    )]
    DoesNotFit {
        /// Slots of the parameters.
        slots: usize,
        /// Slots that one head takes.
        needed: usize,
    },
    /// No secure parameters.
    #[error(
        "the model needs {levels} levels and {slots} slots, more than any ring up to 2^16 carries \
         at this security without bootstrapping; use fewer layers or tokens"
    )]
    TooDeep {
        /// Levels.
        levels: usize,
        /// Slots.
        slots: usize,
    },
    /// Ranges that nothing can be fitted on.
    #[error("the calibrated ranges are {0}; calibrate on sentences like those the model will see")]
    Ranges(String),
    /// A function for which no polynomial will do.
    #[error("{site}: {source}")]
    Substitution {
        /// Layer and function.
        site: String,
        /// What was wrong.
        source: PolynomialError,
    },
    /// Answers that stay too far from the model's own, however small the errors of its functions.
    #[error(
        "answers to calibration sentences are off by {reached:.1e} at best, and {wanted:.1e} is \
         wanted; calibrate on more sentences, or give a budget to take what it gives"
    )]
    Tolerance {
        /// The largest error that was wanted.
        wanted: f64,
        /// The least that was found.
        reached: f64,
        /// Why errors could not be made smaller; nothing where that does not help.
        source: Option<Box<CompileError>>,
    },
    /// A stage of an encoder that does not fit the parameters.
    #[error(
        "{stage}: {source}; compile for fewer tokens, larger errors or another preset of bootstraps"
    )]
    Stage {
        /// Layer and stage.
        stage: String,
        /// What was wrong.
        source: CircuitError,
    },
    /// Stages between which no bootstraps can be placed.
    #[error("placing bootstraps: {0}")]
    Placement(String),
    /// A program that does not hold together.
    #[error(transparent)]
    Ir(#[from] IrError),
    /// What a circuit was refused.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// Parameters.
    #[error(transparent)]
    Ckks(#[from] CkksError),
}
