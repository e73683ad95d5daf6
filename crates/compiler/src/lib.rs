//! From a tensor program to a ciphertext program.
//!
//! One file per pass, each a function from a program to a program:
//! 1. [`atoms::fold`]: everything affine folds into the matrices between products;
//! 2. [`length::absorb`]: the sentence's length disappears into the inputs;
//! 3. [`calibrate::calibrate`]: bounds of every value, from inputs that occur;
//! 4. [`select::select`]: the smallest secure ring;
//! 5. [`lower::lower`]: layouts, levels, and the program itself, recorded from the circuits.
//!
//! [`compile`] runs them all. No pass knows a particular model.
#![forbid(unsafe_code)]

pub mod atoms;
pub mod calibrate;
mod error;
pub mod length;
pub mod lower;
pub mod select;

pub use error::CompileError;
pub use veilformer_ir::{InputKind, InputSpec, Signature};

use veilformer_ckks::{KeyList, Params, SecurityLevel};
use veilformer_ir::ciphertext::CiphertextProgram;
use veilformer_ir::tensor::{TensorOp, TensorProgram};

/// What the caller decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Security of every key.
    pub security: SecurityLevel,
    /// Inputs (rows of token features) whose ranges the program must hold.
    pub calibration: Vec<Vec<Vec<f64>>>,
    /// Factor by which values may exceed the ranges of the calibration inputs, at least 1.
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
/// Options that promise nothing; what the passes refuse; see [`CompileError`].
pub fn compile(program: &TensorProgram, options: &Options) -> Result<Compiled, CompileError> {
    check(program, options)?;
    let folded = atoms::fold(program)?;
    // The number of features that one ciphertext holds depends on the ring, which depends on the
    // depth alone: a first absorption without stacking gives it.
    let free = length::absorb(&folded, 0)?;
    let bounds = calibrate::calibrate(&free, &options.calibration, options.margin);
    let params = select::select(&free, &bounds, options.security)?;
    let chunks = params.slots() / lower::run_length(program.max_tokens);
    let free = length::absorb(&folded, chunks)?;
    let bounds = calibrate::calibrate(&free, &options.calibration, options.margin);
    let lowered = lower::lower(&free, &program.labels, &bounds, &params)?;
    let keys = lowered.program.key_list();
    Ok(Compiled {
        params,
        program: lowered.program,
        signature: lowered.signature,
        keys,
    })
}

/// Ranges that are too small lead to answers that overflow without a sign of it: what they are
/// made from is checked first.
fn check(program: &TensorProgram, options: &Options) -> Result<(), CompileError> {
    if !(options.margin >= 1.0 && options.margin.is_finite()) {
        return Err(CompileError::Margin(options.margin));
    }
    let Some(TensorOp::Input { features, .. }) = program.ops.first() else {
        return Err(CompileError::Empty);
    };
    let max_tokens = program.max_tokens;
    let fits = |rows: &Vec<Vec<f64>>| {
        (1..=max_tokens).contains(&rows.len())
            && rows
                .iter()
                .all(|row| row.len() == *features && row.iter().all(|x| x.is_finite()))
    };
    match options.calibration.iter().position(|rows| !fits(rows)) {
        None => Ok(()),
        Some(index) => Err(CompileError::Calibration {
            index,
            max_tokens,
            features: *features,
        }),
    }
}
