//! RNS-CKKS, the public half: parameters with their security report, encoding, evaluation keys,
//! the evaluator, the noise model and the container format. Secret keys are unknown here.
//!
//! | to ... | open |
//! |---|---|
//! | choose parameters | [`ParamsSpec`], [`Params`] |
//! | see what is secure | [`security`] |
//! | encode slots | [`SlotVector`], [`Encoder`] |
//! | compute on ciphertexts | [`Ops`] (write circuits against it), [`Evaluator`] (runs them) |
//! | store and send | [`container`] |
//! | predict noise | [`noise`] |
#![forbid(unsafe_code)]

mod bands;
mod centred;
mod ciphertext;
mod coefficients;
pub mod container;
mod encoding;
mod error;
mod evaluator;
mod fft;
mod key_list;
mod key_store;
mod keys;
mod ladder;
pub mod noise;
mod ops;
pub mod pairing;
mod params;
mod plain;
mod primes;
mod read_ahead;
mod rotations;
mod scale;
pub mod security;
#[doc(hidden)]
pub mod testing;
pub mod uniform;
mod words;

pub use bands::{Band, SwitchWork, Work};
pub use centred::Centred;
pub use ciphertext::{Ciphertext, CiphertextInfo, KeyId, StoredCiphertext, Uniform};
pub use coefficients::Coefficients;
pub use encoding::Encoder;
pub use error::CkksError;
pub use evaluator::{
    Evaluator, Lowering, PreparedPlain, SharedCiphertext, SharedPlain, adjust_constant, lowered,
    lowering,
};
pub use key_list::KeyList;
pub use key_store::{EvaluationKeys, PreparedKey};
pub use keys::{
    EPHEMERAL_WEIGHT, KeyPurpose, KeyShape, StoredEvaluationKeys, StoredPublicKey,
    StoredSwitchingKey, UniformParts,
};
pub use ladder::Ladder;
pub use ops::{Giant, Ops, OpsError, Term, Transform, mod_raise_keys, moves};
pub use params::{LOG_N_RANGE, LevelStep, MAX_PRIMES, Params, ParamsSpec};
pub use plain::{Complex, SlotVector};
pub use rotations::compose;
pub use scale::{SCALE_TOLERANCE, Scale};
pub use security::{SecretKind, SecurityLevel, SecurityReport, SecurityRow};
pub use words::WordSpec;
