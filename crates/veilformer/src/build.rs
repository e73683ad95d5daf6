//! From a model to its two bundles.

use thiserror::Error;
use veilformer_ckks::SecurityLevel;
use veilformer_client::{BundleParts, ClientBundle, ClientError};
use veilformer_compiler::{CompileError, Compiled, DEFAULT_MARGIN, Options, compile};
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
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
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

/// Compiles a model for its own maximum length. The same model gives the same bundles.
///
/// # Errors
/// What the compiler refuses.
pub fn build(model: &Model, security: SecurityLevel) -> Result<Bundles, BuildError> {
    let options = Options {
        security,
        calibration: calibration(model)?,
        margin: DEFAULT_MARGIN,
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
        embedding: checkpoint.embedding.clone(),
        server_content: [0; 32],
    };
    let client = ClientBundle::new(&params, parts)?;
    let server = ServerBundle::new(params, program, &model.name, client.content_digest()?)?;
    let client = client.with_server_content(server.content_digest());
    Ok(Bundles { client, server })
}

/// Sentences that occur: those that ship with the model, random tokens at every length, and one
/// token repeated to the full length.
fn calibration(model: &Model) -> Result<Vec<Vec<Vec<f64>>>, ModelError> {
    let longest = model.program.max_tokens;
    let vocabulary = model.folder.tokenizer.vocab_size().max(1) as u64;
    let mut samples = Vec::new();
    for sentence in &model.sentences {
        samples.push(model.rows(&model.folder.encode(sentence)?)?);
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
