//! The container: every file that the system writes.

mod error;

pub use error::{ContainerError, Kind};
