//! Runs the binary as a user does.

mod bad_input;
mod files;
mod json;
mod roles;
mod setup;
