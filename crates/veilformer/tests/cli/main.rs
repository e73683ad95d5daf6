//! Runs the binary as a user does.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod bad_input;
mod encoder;
mod files;
mod json;
mod kept;
mod models;
mod replaced;
mod roles;
mod setup;
