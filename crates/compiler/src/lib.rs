//! From a tensor program to a ciphertext program.
//!
//! One file per pass, each a function from a program to a program:
//! 1. [`atoms::fold`]: everything affine folds into the matrices between products;
//! 2. [`length::absorb`]: the sentence's length disappears into the inputs;
//! 3. [`select::select`]: the smallest secure ring;
//! 4. [`lower::lower`]: layouts, levels, and the program itself, recorded from the circuits.
//!
//! [`compile`] runs them all. No pass knows a particular model.
#![forbid(unsafe_code)]

pub mod atoms;
mod error;
pub mod length;
pub mod lower;
pub mod select;
mod signature;

pub use error::CompileError;
pub use signature::{InputKind, InputSpec, Signature};

use veilformer_ckks::{KeyList, Params, SecurityLevel};
use veilformer_ir::ciphertext::CiphertextProgram;
use veilformer_ir::tensor::TensorProgram;

/// What the caller decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Security of every key.
    pub security: SecurityLevel,
    /// Per operation of the tensor program the largest absolute value seen in calibration.
    pub ranges: Vec<f64>,
    /// Factor by which an input may exceed those ranges.
    pub margin: f64,
}

/// Default of [`Options::margin`].
pub const DEFAULT_MARGIN: f64 = 16.0;

/// A compiled model.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The parameters, with their security report.
    pub params: Params,
    /// What the server runs.
    pub program: CiphertextProgram,
    /// What the client encodes and decodes.
    pub signature: Signature,
    /// The evaluation keys that the program uses.
    pub keys: KeyList,
}

/// Compiles a model for its own maximum length.
///
/// # Errors
/// What the passes refuse; see [`CompileError`].
pub fn compile(program: &TensorProgram, options: &Options) -> Result<Compiled, CompileError> {
    let ranges: Vec<f64> = options.ranges.iter().map(|r| r * options.margin).collect();
    let answer_bound = ranges.last().copied().unwrap_or(f64::INFINITY);
    let folded = atoms::fold(program, &ranges)?;
    // The number of features that one ciphertext holds depends on the ring, which depends on the
    // depth alone: a first absorption without stacking gives it.
    let free = length::absorb(&folded, 0)?;
    let params = select::select(&free, answer_bound.min(1e6), options.security)?;
    let chunks = params.slots() / lower::run_length(program.max_tokens);
    let free = length::absorb(&folded, chunks)?;
    let lowered = lower::lower(&free, &program.labels, answer_bound, &params)?;
    let keys = lowered.program.key_list();
    Ok(Compiled {
        params,
        program: lowered.program,
        signature: lowered.signature,
        keys,
    })
}
