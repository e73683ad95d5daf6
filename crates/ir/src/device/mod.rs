//! The device program: a ciphertext program as the instruction stream of one device.
//!
//! Instructions have an order, ciphertexts have places: numbered buffer slots that are given out in
//! advance from the lifetimes of values, so that the memory of a run is known before it starts.
//! Keys and plaintexts are listed in the order of their first use, which is the order in which to
//! prepare or fetch them. Blocks that repeat are loops over the places that they read and write.
//!
//! The stream names the instructions of its ciphertext program and does not repeat what they do.

mod dependencies;
mod print;
mod program;
mod verify;

pub use dependencies::Dependencies;
pub use program::{Buffer, BufferId, Column, DeviceProgram, NONE, Node, Resolved, Step};
pub use verify::resources;
