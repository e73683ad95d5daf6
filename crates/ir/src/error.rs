//! What can be wrong with a program.

use thiserror::Error;

/// A program that does not hold together.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum IrError {
    /// An operation of the tensor program does not fit its operands.
    #[error("tensor program, operation %{index}: {why}")]
    Tensor {
        /// Index of the operation.
        index: usize,
        /// What was found and what was expected.
        why: String,
    },
    /// A part of an encoder does not fit the others.
    #[error("encoder: {0}")]
    Encoder(String),
    /// An instruction of the ciphertext program does not fit its operands.
    #[error("ciphertext program, instruction {index}: {why}")]
    Ciphertext {
        /// Index of the instruction.
        index: usize,
        /// What was found and what was expected.
        why: String,
    },
    /// A step of the device program does not fit its buffers or its ciphertext program.
    #[error("device program, step {index}: {why}")]
    Device {
        /// Index of the step, loops unrolled.
        index: usize,
        /// What was found and what was expected.
        why: String,
    },
    /// The program as a whole.
    #[error("ciphertext program: {0}")]
    Program(String),
}
