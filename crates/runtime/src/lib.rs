//! Runs compiled programs and predicts what a run takes.
//!
//! | to ... | open |
//! |---|---|
//! | store the server's half of a compiled model | [`ServerBundle`] |
//! | answer encrypted inputs from files | [`Server`] |
//! | run a program on ciphertexts | [`run`] |
//! | simulate it with noise and range monitors | [`Simulator`] |
//! | see what a run did | [`RunStats`] |
//! | measure this machine | [`measure`], [`CostTable`] |
//! | predict a run | [`plan`](plan()) |
//! | hold a plan against a run | [`report`] |
//!
//! No type of this crate, nor of any crate below it, can hold a secret key.
#![forbid(unsafe_code)]

mod bundle;
mod cost;
mod error;
mod executor;
mod measure;
mod memory;
mod plan;
mod server;
mod shape;
mod simulate;
mod stats;
mod walk;
mod weights;

pub use bundle::ServerBundle;
pub use cost::{COST_VERSION, Cost, CostTable, machine_name};
pub use error::RuntimeError;
pub use executor::{Inputs, Prepared, Progress, Stream, run};
pub use measure::{measure, measure_deadline};
pub use plan::{Plan, Report, ReportRow, key_file_bytes, plan, plan_scheduled, report};
pub use server::{Server, ServerRun};
pub use shape::Shape;
pub use simulate::{BootstrapRange, Simulation, Simulator, Violation};
pub use stats::{
    KindStats, OpKind, RunStats, SectionStats, ciphertext_memory, key_switches, multiplications,
};
pub use veilformer_ir::signature::PROGRAM_DIGEST;
