//! The client's half of a compiled model.
//!
//! A [`ClientBundle`] holds all that a client needs beside its secret key: parameters, tokenizer,
//! token and position tables, how inputs and outputs are encoded, and the list of evaluation
//! keys. It turns sentences into a file of ciphertexts ([`ClientBundle::encrypt`]) and the
//! server's answer into labels ([`ClientBundle::decrypt`]).
//!
//! | to ... | open |
//! |---|---|
//! | make a bundle of a compiled model | [`ClientBundle::new`], [`BundleParts`] |
//! | read and write it | [`ClientBundle::from_bytes`], [`ClientBundle::to_bytes`] |
//! | make the evaluation keys it lists | [`ClientBundle::write_evaluation_keys`] |
//! | encrypt and decrypt | [`ClientBundle::encrypt`], [`ClientBundle::decrypt`] |
#![forbid(unsafe_code)]

mod bundle;
mod error;
mod session;
mod vectors;

pub use bundle::{BundleParts, ClientBundle};
pub use error::ClientError;
pub use session::{Answer, MAX_SENTENCES};
pub use vectors::{EncoderVectors, TokenVectors};
