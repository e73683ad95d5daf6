//! Measurements of the whole stack, from kernels to operations of the scheme: beside floors that
//! are computed from counts and from what the machine does at most, and beside other libraries in
//! the same interleaved run.
//!
//! | to ... | open |
//! |---|---|
//! | see what is measured | [`scheme::Op`] |
//! | see which kernels are measured, and how | [`kernels`] |
//! | see which matrix products are measured, and how | [`linear`] |
//! | see which bootstraps are measured, and how | [`bootstrap`] |
//! | see how a floor is computed | [`floor`], [`scheme::floors`] |
//! | see what the machine does at most, before and in the rounds | [`machine`], [`meter`] |
//! | see how runs interleave | [`interleave`] |
//! | see how results are stored and shown | [`results`], [`roofline`] |
//! | see how other libraries take part | [`peers`], and the drivers in benches/peers |
//!
//! It is on the client's side (it makes keys) and nothing depends on it.
#![deny(unsafe_code)]

pub mod args;
pub mod bootstrap;
pub mod error;
pub mod floor;
pub mod gate;
pub mod interleave;
pub mod kernels;
pub mod linear;
#[allow(unsafe_code)] // vector instructions and cores; see there
pub mod machine;
pub mod meter;
pub mod peers;
pub mod results;
pub mod roofline;
pub mod row;
pub mod run;
pub mod scheme;
pub mod session;
pub mod stats;
pub mod threads;
