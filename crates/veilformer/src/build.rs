//! From a model to its two bundles.

use thiserror::Error;
use veilformer_circuits::CircuitError;
use veilformer_ckks::SecurityLevel;
use veilformer_client::{BundleParts, ClientBundle, ClientError};
use veilformer_compiler::{CompileError, Compiled, DEFAULT_MARGIN, Options, compile, full_batch};
use veilformer_models::ModelError;
use veilformer_runtime::{RuntimeError, ServerBundle};

use crate::model::Model;

/// Random sentences whose ranges a compiled program must hold, beside those that ship with the
/// model and the constant ones.
pub const CALIBRATION_SENTENCES: usize = 256;

/// A model that does not compile.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The compiler.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Bootstraps.
    #[error(transparent)]
    Circuit(#[from] CircuitError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Sentences to calibrate with, of which none can be taken.
    #[error(
        "none of {given} sentences to calibrate with can be taken for up to {tokens} tokens; of the first one: {first}"
    )]
    Calibration {
        /// How many there are.
        given: usize,
        /// The longest sentence in tokens.
        tokens: usize,
        /// What is wrong with the first one.
        first: ModelError,
    },
    /// The client bundle.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server bundle.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Both halves of a compiled model; each carries the other's content digest.
pub struct Bundles {
    /// For keygen, encrypt and decrypt.
    pub client: ClientBundle,
    /// For run and plan.
    pub server: ServerBundle,
}

/// What a program is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Security of every key.
    pub security: SecurityLevel,
    /// Longest sentence in tokens; the model's own limit where none is given.
    pub tokens: Option<usize>,
    /// Sentences that one run answers.
    pub batch: Batch,
}

/// Sentences that one run answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// This many, a power of two.
    Of(usize),
    /// As many as fill the slots of the ring that one sentence needs, with every feature in a
    /// ciphertext of its own where the model allows that.
    Full,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            security: SecurityLevel::Bits128,
            tokens: None,
            batch: Batch::Of(1),
        }
    }
}

/// Compiles a model. The same model and target give the same bundles.
///
/// # Errors
/// What the compiler refuses.
pub fn build(model: &Model, target: Target) -> Result<Bundles, BuildError> {
    let mut options = Options {
        security: target.security,
        calibration: calibration(model, target.tokens)?,
        margin: DEFAULT_MARGIN,
        tokens: target.tokens,
        batch: 1,
    };
    options.batch = match target.batch {
        Batch::Of(n) => n,
        Batch::Full => full_batch(&model.program, &options)?,
    };
    let Compiled {
        params,
        program,
        signature,
        keys,
    } = compile(&model.program, &options)?;
    let checkpoint = &model.folder.checkpoint;
    let parts = BundleParts {
        model_name: model.name.clone(),
        signature,
        keys,
        tokenizer: model.tokenizer_json.to_vec(),
        embedding: checkpoint.embedding.clone().into(),
        server_content: [0; 32],
    };
    let client = ClientBundle::new(&params, parts)?;
    let server = ServerBundle::new(params, program, &model.name, client.content_digest()?)?;
    let client = client.with_server_content(server.content_digest());
    Ok(Bundles { client, server })
}

/// Sentences that occur: those that ship with the model, random tokens at every length, and
/// single tokens, alone and repeated to the full length.
fn calibration(model: &Model, tokens: Option<usize>) -> Result<Vec<Vec<Vec<f64>>>, ModelError> {
    let limit = model.program.max_tokens;
    let longest = tokens.unwrap_or(limit).clamp(1, limit);
    let vocabulary = model.folder.tokenizer.vocab_size().max(1) as u64;
    let mut samples = Vec::new();
    for sentence in &model.sentences {
        let ids = model.folder.encode(sentence)?;
        if ids.len() <= longest {
            samples.push(model.rows(&ids)?);
        }
    }
    let mut random = SplitMix(0x5eed);
    for index in 0..CALIBRATION_SENTENCES {
        let length = 1 + index % longest;
        let ids: Vec<u32> = (0..length)
            .map(|_| (random.next() % vocabulary) as u32)
            .collect();
        samples.push(model.rows(&ids)?);
    }
    for index in 0..4 {
        let token = (random.next() % vocabulary) as u32;
        let length = if index % 2 == 0 { longest } else { 1 };
        samples.push(model.rows(&vec![token; length])?);
    }
    Ok(samples)
}

/// The SplitMix64 generator (Steele, Lea, Flood 2014): nothing here is secret, and two machines
/// must make the same bundles.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
