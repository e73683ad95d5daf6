//! One file per command.

pub mod compile;
pub mod decrypt;
pub mod demo;
pub mod encrypt;
pub mod eval;
pub mod explain;
pub mod inspect;
pub mod keygen;
pub mod models;
pub mod plan;
pub mod report;
pub mod run;
