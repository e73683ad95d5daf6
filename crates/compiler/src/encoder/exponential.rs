//! `e^x` on `[-width, 0]`: a polynomial, squared some times.

use serde::{Deserialize, Serialize};
use veilformer_circuits::polynomial::{
    Chebyshev, EvaluationPlan, InputMap, PolynomialError, optimal_depth,
};

use super::minimax::minimax;

/// Most levels of the polynomial by itself: its degree is 127 then, and another squaring does as
/// much as another doubling of it.
const MAX_LEVELS: usize = 7;

/// `p(x)^(2^k)`, where `p` is near `e^(x / 2^k)`.
///
/// A polynomial of degree `d` alone has an error that is the same everywhere, as large as its
/// value where `e^x` is small; a squared one has a smaller error there and a larger one at 0. The
/// widths of softmax scores (10 to 100) need a degree of about `sqrt(width ln(1/error))` when none
/// is squared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exponential {
    polynomial: Chebyshev,
    squarings: usize,
}

impl Exponential {
    /// The approximation of least depth, and among those of the fewest products, whose absolute
    /// error on `[-width, 0]` is at most `max_error`. At most `max_depth` levels.
    ///
    /// # Errors
    /// When there is none, or `width` is not a positive number.
    pub fn fit(width: f64, max_error: f64, max_depth: usize) -> Result<Self, PolynomialError> {
        let mut reached = f64::INFINITY;
        for depth in 2..=max_depth {
            let mut found: Option<(f64, Self)> = None;
            for squarings in depth.saturating_sub(MAX_LEVELS)..depth - 1 {
                let candidate = Self::of(width, max_error, depth - squarings, squarings)?;
                let error = candidate.max_error();
                reached = reached.min(error);
                let cost = candidate.products()?;
                if error <= max_error && found.as_ref().is_none_or(|(least, _)| cost < *least) {
                    found = Some((cost, candidate));
                }
            }
            if let Some((_, candidate)) = found {
                return Ok(candidate);
            }
        }
        Err(PolynomialError::Accuracy {
            wanted: max_error,
            reached,
            max_degree: (1 << max_depth.min(10)) - 1,
        })
    }

    fn of(
        width: f64,
        max_error: f64,
        levels: usize,
        squarings: usize,
    ) -> Result<Self, PolynomialError> {
        let power = 2f64.powi(squarings as i32);
        // An error of p counts e^(x (power - 1) / power) power times, to first order; where e^x
        // is nothing, p may be anything whose power is below the error.
        let least = max_error / max_error.powf(1.0 / power);
        let weight = |x: f64| (power * (x * (power - 1.0) / power).exp()).max(least);
        let f = |x: f64| (x / power).exp();
        let polynomial = minimax(f, weight, (1 << levels) - 1, (-width, 0.0))?;
        Ok(Self {
            polynomial,
            squarings,
        })
    }

    /// The polynomial near `e^(x / 2^squarings)`.
    pub fn polynomial(&self) -> &Chebyshev {
        &self.polynomial
    }

    /// Times that it is squared.
    pub fn squarings(&self) -> usize {
        self.squarings
    }

    /// Levels from `x`, mapped to `[-1, 1]` by what came before.
    pub fn depth(&self) -> usize {
        optimal_depth(self.polynomial.degree()) + self.squarings
    }

    /// Products of two ciphertexts (with their relinearizations), as [`Counts::cost`] weighs them.
    ///
    /// [`Counts::cost`]: veilformer_circuits::polynomial::Counts::cost
    ///
    /// # Errors
    /// None in practice: the polynomial is one.
    pub fn products(&self) -> Result<f64, PolynomialError> {
        let plan = EvaluationPlan::new(std::slice::from_ref(&self.polynomial), InputMap::Absorbed)?;
        Ok(plan.counts().cost() + self.squarings as f64)
    }

    /// The value at `x`.
    pub fn evaluate(&self, x: f64) -> f64 {
        let p = self.polynomial.evaluate(x);
        (0..self.squarings).fold(p, |v, _| v * v)
    }

    /// Largest `|p - e^x|` on a grid of the interval.
    pub fn max_error(&self) -> f64 {
        let (low, high) = self.polynomial.interval();
        let points = 16 * (self.polynomial.degree() + 2);
        (0..=points).fold(0.0, |m, i| {
            let x = low + (high - low) * i as f64 / points as f64;
            m.max((self.evaluate(x) - x.exp()).abs())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_ranges_take_few_levels() {
        for (width, error, depth) in [(10.0, 1e-3, 4), (40.0, 1e-4, 5), (90.0, 1e-5, 6)] {
            let e = Exponential::fit(width, error, 10).unwrap();
            assert!(e.depth() <= depth, "{width}: {} levels", e.depth());
            assert!((0..=997).all(|i| {
                let x = -width * f64::from(i) / 997.0;
                (e.evaluate(x) - x.exp()).abs() <= 1.05 * error
            }));
        }
        assert!(Exponential::fit(90.0, 1e-9, 3).is_err());
        assert!(Exponential::fit(0.0, 1e-3, 6).is_err());
    }
}
