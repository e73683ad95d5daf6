//! From a tensor program to a ciphertext program.
//!
//! One file per pass, each a function from a program to a program:
//! 1. [`atoms::fold`]: everything affine folds into the matrices between products;
//! 2. [`pooling::answer_terms`]: the answer becomes weights over tokens, recurrences included;
//! 3. [`length::absorb`]: the sentence's length disappears into the inputs;
//!    [`calibrate::calibrate`]: bounds of every value, from inputs that occur;
//! 4. [`select::select`]: the smallest secure ring;
//! 5. [`lower::lower`]: layouts, levels, and the program itself, recorded from the circuits.
//!
//! [`compile`] runs them all. [`placement::place`] says where a program that is deeper than its
//! parameters bootstraps. [`schedule::schedule`] then makes a device's instruction stream of the
//! ciphertext program, where it is to run. No pass knows a particular model.
#![forbid(unsafe_code)]

pub mod atoms;
pub mod calibrate;
pub mod encoder;
mod error;
pub mod length;
pub mod lower;
pub mod placement;
pub mod pooling;
mod roll;
pub mod schedule;
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
    /// Longest sentence that the compiled program takes, at most the model's own limit, which is
    /// the default.
    pub tokens: Option<usize>,
    /// Sentences that one run answers: a power of two.
    pub batch: usize,
}

/// Most sentences of one run.
pub const MAX_BATCH: usize = 1 << 12;

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

/// Compiles a model for the lengths and the number of sentences that the options say.
///
/// # Errors
/// Options that promise nothing or that the model does not take; what the passes refuse; see
/// [`CompileError`].
pub fn compile(program: &TensorProgram, options: &Options) -> Result<Compiled, CompileError> {
    let program = &shortened(program, options.tokens)?;
    if !options.batch.is_power_of_two() || options.batch > MAX_BATCH {
        return Err(CompileError::Batch {
            found: options.batch,
            limit: MAX_BATCH,
        });
    }
    check(program, options)?;
    let folded = atoms::fold(program)?;
    // The number of features that one ciphertext holds depends on the ring, which depends on the
    // depth alone: a first absorption without stacking gives it.
    let free = length::absorb(&folded, 0)?;
    let bounds = calibrate::calibrate(&free, &options.calibration, options.margin);
    let params = select::select(&free, &bounds, (options.security, options.batch))?;
    let chunks = params.slots() / (lower::run_length(program.max_tokens) * options.batch);
    let free = length::absorb(&folded, chunks)?;
    let bounds = calibrate::calibrate(&free, &options.calibration, options.margin);
    let target = (&params, options.batch);
    let lowered = lower::lower(&free, &program.labels, &bounds, target)?;
    let keys = lowered.program.key_list(&params);
    Ok(Compiled {
        params,
        program: lowered.program,
        signature: lowered.signature,
        keys,
    })
}

/// The largest batch that fits the ring that the model needs for one sentence.
///
/// # Errors
/// As [`compile`].
pub fn full_batch(program: &TensorProgram, options: &Options) -> Result<usize, CompileError> {
    let program = &shortened(program, options.tokens)?;
    check(program, options)?;
    let free = length::absorb(&atoms::fold(program)?, 0)?;
    let bounds = calibrate::calibrate(&free, &options.calibration, options.margin);
    let params = select::select(&free, &bounds, (options.security, 1))?;
    let one = lower::run_length(program.max_tokens) * lower::least_chunks(&free);
    let fit = (params.slots() / one).clamp(1, MAX_BATCH);
    Ok(1 << fit.ilog2())
}

/// The program for sentences of at most `tokens` tokens.
fn shortened(
    program: &TensorProgram,
    tokens: Option<usize>,
) -> Result<TensorProgram, CompileError> {
    let mut program = program.clone();
    if let Some(tokens) = tokens {
        if !(1..=program.max_tokens).contains(&tokens) {
            return Err(CompileError::Tokens {
                found: tokens,
                limit: program.max_tokens,
            });
        }
        program.max_tokens = tokens;
    }
    Ok(program)
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
