//! What figures are held to.

use std::fmt;

/// A statement about figures, and whether it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    met: bool,
    text: String,
}

impl Gate {
    /// A statement that holds or does not.
    #[must_use]
    pub fn new(met: bool, text: String) -> Self {
        Self { met, text }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.met { "met" } else { "MISSED" };
        write!(f, "{word:<6} {}", self.text)
    }
}
