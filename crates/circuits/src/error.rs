//! The crate's error: what was wrong, what was expected, what to do.

use thiserror::Error;
use veilformer_ckks::OpsError;

use crate::polynomial::PolynomialError;

/// Everything that building or running a circuit can refuse.
#[derive(Debug, Error)]
pub enum CircuitError {
    /// A ciphertext operation refused.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// A polynomial cannot be made or planned.
    #[error(transparent)]
    Polynomial(#[from] PolynomialError),
    /// The input has fewer levels left than the circuit consumes.
    #[error(
        "{circuit}: the input is at level {level}, but {needed} levels are consumed; start at a higher level"
    )]
    Levels {
        /// Which circuit.
        circuit: &'static str,
        /// Level of the input.
        level: usize,
        /// Levels that the circuit consumes.
        needed: usize,
    },
    /// Whoever was told of the progress stopped it.
    #[error("{circuit}: stopped")]
    Stopped {
        /// Which circuit.
        circuit: &'static str,
    },
    /// Arguments that do not fit each other or the parameters.
    #[error("{circuit}: {what}")]
    Shape {
        /// Which circuit.
        circuit: &'static str,
        /// What was wrong, and what was expected.
        what: String,
    },
}

impl CircuitError {
    /// A [`CircuitError::Shape`].
    #[must_use]
    pub fn shape(circuit: &'static str, what: impl Into<String>) -> Self {
        Self::Shape {
            circuit,
            what: what.into(),
        }
    }
}
