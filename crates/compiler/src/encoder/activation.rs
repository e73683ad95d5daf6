//! In place of an activation: a polynomial near it, or what it is.

use serde::{Deserialize, Serialize};
use veilformer_circuits::polynomial::{Chebyshev, optimal_depth};

/// A function of one number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ActivationSubstitution {
    /// Near the activation on its interval.
    Polynomial(Chebyshev),
    /// `gain (x + shift)^2 + offset`, which is the activation: a square, for the rest is affine and
    /// belongs to the maps before and behind.
    Square {
        /// Factor of the square.
        gain: f64,
        /// Added before.
        shift: f64,
        /// Added behind.
        offset: f64,
        /// What `|x + shift|` does not exceed.
        bound: f64,
    },
}

impl ActivationSubstitution {
    /// `a x^2 + b x + c` on an interval, with `a` other than zero.
    pub(super) fn square([a, b, c]: [f64; 3], (low, high): (f64, f64)) -> Self {
        let shift = b / (2.0 * a);
        Self::Square {
            gain: a,
            shift,
            offset: c - a * shift * shift,
            bound: (low + shift).abs().max((high + shift).abs()),
        }
    }

    /// Where it holds.
    pub fn interval(&self) -> (f64, f64) {
        match self {
            Self::Polynomial(polynomial) => polynomial.interval(),
            Self::Square { shift, bound, .. } => (-bound - shift, bound - shift),
        }
    }

    /// The value at `x`.
    pub fn evaluate(&self, x: f64) -> f64 {
        match self {
            Self::Polynomial(polynomial) => polynomial.evaluate(x),
            Self::Square {
                gain,
                shift,
                offset,
                ..
            } => gain * (x + shift) * (x + shift) + offset,
        }
    }

    /// Its degree.
    pub fn degree(&self) -> usize {
        match self {
            Self::Polynomial(polynomial) => polynomial.degree(),
            Self::Square { .. } => 2,
        }
    }

    /// Levels from `x`, mapped to `[-1, 1]` by what came before.
    pub fn depth(&self) -> usize {
        match self {
            Self::Polynomial(polynomial) => optimal_depth(polynomial.degree()),
            Self::Square { .. } => 1,
        }
    }
}
