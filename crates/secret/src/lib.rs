//! The private half of the scheme: secret keys, key generation, encryption under them and
//! decryption.
//!
//! No server-side crate depends on this one: what a server is built from cannot hold a secret
//! key.
//!
//! | to ... | open |
//! |---|---|
//! | draw secrets | [`samplers`], [`SecureRng`] |
//! | make keys | [`KeyGenerator`], [`SecretKey`] |
//! | encrypt | [`Encryptor`] (secret key), [`PublicEncryptor`] |
//! | decrypt and disclose | [`Decryptor`], [`Decrypted`], [`Disclosure`] |
#![forbid(unsafe_code)]

mod decrypt;
mod encrypt;
mod error;
mod file;
mod keygen;
mod poly;
mod rng;
pub mod samplers;
mod secret_key;
#[cfg(test)]
mod tests;

pub use decrypt::{Decrypted, Decryptor, Disclosure, FLOODING_BITS, Private, Shared};
pub use encrypt::{Encryptor, PublicEncryptor};
pub use error::SecretError;
pub use keygen::{KeyGenerator, Progress};
pub use rng::{SecretRng, SecureRng};
pub use secret_key::SecretKey;
