//! Why a program could not be compiled.

use thiserror::Error;
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
