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
//!
//! ```
//! use veilformer_ckks::{ParamsSpec, SecurityLevel, SlotVector};
//! use veilformer_secret::{Decryptor, Encryptor, KeyGenerator, SecureRng};
//!
//! let params = ParamsSpec {
//!     log_n: 13,
//!     first_bits: 45,
//!     scale_bits: 36,
//!     levels: 2,
//!     special_bits: 46,
//!     special_count: 1,
//!     digit_limbs: 1,
//!     security: SecurityLevel::Bits128,
//! }
//! .validate()?;
//! let secret = KeyGenerator::new(&params, SecureRng::from_os()?).secret_key()?;
//! let values = SlotVector::real_periodic(&[0.25, -1.0]);
//! let ciphertext = Encryptor::new(&secret, SecureRng::from_os()?)?.encrypt(&values, 2)?;
//! let decrypted = Decryptor::new(&secret)?.decrypt_stored(&ciphertext)?;
//! let slots = decrypted.reveal_to_owner()?;
//! assert!((slots[7].re + 1.0).abs() < 1e-6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is and what is not promised about side channels
//! The samplers, and what turns their output into polynomials, branch on no secret and address
//! no memory by one. Transforms and products of secret polynomials are the ring's, whose modular
//! arithmetic is built from additions, products and minima. Encoding, decoding and everything
//! after a decryption is ordinary floating-point code on the owner's machine: its time depends on
//! the message, in particular on how many primes the largest coefficient of a message fills, both
//! when it is reduced and when it is decrypted. Secret polynomials,
//! coefficients and generator states are wiped when they are dropped; scratch memory of the
//! encoder and of the transforms is not.
#![forbid(unsafe_code)]

mod decrypt;
mod encapsulation;
mod encrypt;
mod error;
mod file;
mod keygen;
mod poly;
mod resume;
mod rng;
pub mod samplers;
mod secret_key;
#[cfg(test)]
mod tests;

pub use decrypt::{Decrypted, Decryptor, Disclosure, FLOODING_BITS, Private, Shared};
pub use encrypt::{Encryptor, PublicEncryptor};
pub use error::SecretError;
pub use keygen::{KeyGenerator, Progress};
pub use resume::Resumed;
pub use rng::{SecretRng, SecureRng};
pub use secret_key::SecretKey;
