//! Inference of transformers on fully encrypted data.
//!
//! This crate is the facade: it re-exports the crates of the house, and holds what the command
//! line is made of beside them: the models that ship ([`model`]), encoders from folders ([`encoder`]),
//! and how a model becomes a pair of bundles ([`build`](mod@build)).
//!
//! | to ... | open |
//! |---|---|
//! | compute on encrypted numbers | [`ckks`], [`secret`] and the quick start below |
//! | write a circuit once, run and plan it | [`circuits`], [`ckks::Ops`] |
//! | compile a model | [`build::build`], [`compiler`] |
//! | be the client | [`client::ClientBundle`] |
//! | be the server | [`runtime::Server`] |
//!
//! # Quick start
//! Keys, encryption, a product, a rotation, decryption, at 128-bit security:
//! ```
//! use std::ops::ControlFlow;
//! use veilformer::ckks::{EvaluationKeys, Evaluator, KeyList, Ops, ParamsSpec};
//! use veilformer::ckks::{SecurityLevel, SlotVector};
//! use veilformer::ring::{Cpu, CpuConfig};
//! use veilformer::secret::{Decryptor, Encryptor, KeyGenerator, SecureRng};
//!
//! let security = SecurityLevel::Bits128;
//! let params = ParamsSpec { log_n: 13, first_bits: 45, scale_bits: 36, levels: 2,
//!     special_bits: 46, special_count: 1, digit_limbs: 1, security }.validate()?;
//!
//! // The client makes keys and encrypts.
//! let mut generator = KeyGenerator::new(&params, SecureRng::from_os()?);
//! let secret = generator.secret_key()?;
//! let list = KeyList { relinearization: vec![2], rotations: vec![(1, 1)], ..KeyList::default() };
//! let stored = generator
//!     .evaluation_keys(&secret, &list, [0; 32], &mut |_, _| ControlFlow::Continue(()))?;
//! let values = SlotVector::real_periodic(&[1.0, 2.0, 3.0, 4.0]);
//! let sent = Encryptor::new(&secret, SecureRng::from_os()?)?.encrypt(&values, 2)?;
//!
//! // The server computes with the evaluation keys alone.
//! let backend = Cpu::new(params.chain().clone(), CpuConfig::default())?;
//! let keys = EvaluationKeys::prepare(&params, &backend, &stored)?;
//! let mut ops = Evaluator::new(&params, &backend, &keys)?;
//! let x = ops.import(sent.expand(&params)?)?;
//! let squared = Ops::mul(&mut ops, &x, &x)?;
//! let rotated = Ops::rotate(&mut ops, &squared, 1)?;
//!
//! // The client decrypts.
//! let slots = Decryptor::new(&secret)?.decrypt(&rotated.export(&backend)?)?.reveal_to_owner()?;
//! assert!((slots[0].re - 4.0).abs() < 1e-4 && (slots[1].re - 9.0).abs() < 1e-4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub use veilformer_circuits as circuits;
pub use veilformer_ckks as ckks;
pub use veilformer_client as client;
pub use veilformer_compiler as compiler;
pub use veilformer_ir as ir;
pub use veilformer_models as models;
pub use veilformer_plot as plot;
pub use veilformer_ring as ring;
pub use veilformer_runtime as runtime;
pub use veilformer_secret as secret;

pub mod any;
pub mod build;
pub mod encoder;
pub mod model;
