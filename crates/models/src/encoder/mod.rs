//! Encoders of the BERT family from Hugging Face folders, and their executions in the clear.
//!
//! [`EncoderFolder`] reads a folder; [`Execution`] runs its model, with the functions that it was
//! trained with ([`Exact`]) or with others; [`calibrate`] runs it on sample sentences and gives the
//! ranges of all intermediate values; [`center_keys`] makes some of these ranges narrower without
//! changing what the model computes; [`write_random_folder`] makes folders to test with.

mod calibrate;
mod case;
mod center;
mod clear;
mod config;
mod fields;
mod folder;
mod pooling;
mod progress;
mod random;
mod tokens;
mod trace;
mod weights;

pub use calibrate::{calibrate, calibrate_observed, lengthened};
pub use center::{center_keys, center_keys_observed};
pub use clear::{Exact, Execution, embed};
pub use config::{Architecture, EncoderConfig};
pub use folder::EncoderFolder;
pub use progress::{Pass, Progress, Reached};
pub use random::{RandomEncoder, write_random_folder};
pub use tokens::EncoderTokenizer;
pub use trace::Trace;
pub use weights::encoder_from_bytes;
