//! What can be wrong with a polynomial or with the levels it is given.

use thiserror::Error;

/// Errors of making and planning polynomials; all of them are about the caller's input.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum PolynomialError {
    /// There is nothing to evaluate.
    #[error("no polynomial or no coefficient was given; give at least one")]
    Empty,
    /// A coefficient is infinite or not a number.
    #[error(
        "coefficient {index} is not a finite number; check the function that was fitted on its whole interval"
    )]
    Coefficient {
        /// Index of the Chebyshev polynomial that it belongs to.
        index: usize,
    },
    /// The interval cannot be mapped to `[-1, 1]`.
    #[error("interval [{low:e}, {high:e}] is empty or not finite; give low < high")]
    Interval {
        /// Lower end as given.
        low: f64,
        /// Upper end as given.
        high: f64,
    },
    /// Above the highest degree that is accepted.
    #[error("degree {degree} is above the limit of {limit}; split the range or lower the accuracy")]
    Degree {
        /// Degree as given.
        degree: usize,
        /// Highest degree accepted.
        limit: usize,
    },
    /// The fit is not accurate enough at any degree allowed.
    #[error(
        "no degree up to {max_degree} reaches an error of {wanted:.1e} (best {reached:.1e}); allow a larger error, a higher degree or a narrower interval"
    )]
    Accuracy {
        /// Error asked for.
        wanted: f64,
        /// Least error found.
        reached: f64,
        /// Highest degree tried.
        max_degree: usize,
    },
    /// Interpolation points are unusable.
    #[error(
        "{nodes} nodes with {values} values do not determine a polynomial; give as many values as nodes, and distinct nodes"
    )]
    Nodes {
        /// Nodes given.
        nodes: usize,
        /// Values given.
        values: usize,
    },
    /// Polynomials that are to share one power basis live on different intervals.
    #[error(
        "polynomial {index} is on another interval than the first; fit all polynomials of one plan on the same interval"
    )]
    Intervals {
        /// The first polynomial that differs.
        index: usize,
    },
    /// Less depth than the degree needs was asked for.
    #[error("depth {given} was asked for, but this degree needs {needed}; give at least that")]
    Depth {
        /// Depth asked for.
        given: usize,
        /// `ceil(log2(degree + 1))`, plus one for the map to `[-1, 1]` where that is needed.
        needed: usize,
    },
}
