//! `1/x` at the least depth: Goldschmidt's iteration with relaxation.

use serde::{Deserialize, Serialize};

/// An approximation of `1/x` on `[low, high]`, `0 < low < high`.
///
/// Among polynomials of degree `m - 1`, the one of least relative error has the residual
/// `r_m(x) = 1 - x p(x) = T_m(t) / T_m(t_0)`, where `t` maps `[low, high]` onto `[-1, 1]` and
/// `t_0` is the image of 0 (the residual polynomial of Chebyshev's semi-iteration; Flanders &
/// Shortley 1950). With `T_2m = 2 T_m^2 - 1` it doubles its degree by
/// `r_2m = 1 - alpha (1 - r_m^2)`, `alpha = 2 T_m(t_0)^2 / T_2m(t_0)`, and in `a = x p`:
///
/// `p <- alpha p (2 - a)`, `a <- alpha a (2 - a)`, from `p = 2 / (low + high)`.
///
/// That is Goldschmidt's iteration with a factor. The two products of a step are independent of
/// each other, so `j` steps take `j` levels and reach degree `2^j - 1`, which no other way exceeds
/// at this depth, with the least error of this degree: there is no better one at this depth.
///
/// Below `low` the result falls short of `1/x` and never exceeds it by more than it does
/// within; above `high` it grows without bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inverse {
    low: f64,
    high: f64,
    /// The factor of each step.
    factors: Vec<f64>,
}

impl Inverse {
    /// With `steps` steps; `None` unless `0 < low < high` are finite.
    pub fn new(low: f64, high: f64, steps: usize) -> Option<Self> {
        if !(low > 0.0 && low < high && high.is_finite()) {
            return None;
        }
        let mut t = (high + low) / (high - low);
        let mut factors = Vec::with_capacity(steps);
        for _ in 0..steps {
            // 2 t^2 / (2 t^2 - 1), which stays finite where t^2 is not.
            factors.push(2.0 / (2.0 - 1.0 / (t * t)));
            t = 2.0 * t * t - 1.0;
        }
        Some(Self { low, high, factors })
    }

    /// The interval.
    pub fn interval(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// The factor of each step.
    pub fn factors(&self) -> &[f64] {
        &self.factors
    }

    /// Levels from `x` to `p`, if `x` comes multiplied by [`Inverse::seed`].
    pub fn depth(&self) -> usize {
        self.factors.len()
    }

    /// The first `p`.
    pub fn seed(&self) -> f64 {
        2.0 / (self.low + self.high)
    }

    /// Largest `|1 - x p(x)|` on the interval: `1 / T_(2^j)(t_0)`.
    pub fn error(&self) -> f64 {
        let mut t = (self.high + self.low) / (self.high - self.low);
        for _ in &self.factors {
            t = 2.0 * t * t - 1.0;
        }
        1.0 / t
    }

    /// `p(x)`.
    pub fn evaluate(&self, x: f64) -> f64 {
        let mut p = self.seed();
        let mut a = x * p;
        for factor in &self.factors {
            let step = factor * (2.0 - a);
            (p, a) = (p * step, a * step);
        }
        p
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn error_is_the_least_possible(
            low in 1e-3..0.9f64, width in 0.1..100.0f64, steps in 1..8usize, u in 0.0..1.0f64,
        ) {
            let inverse = Inverse::new(low, low + width, steps).unwrap();
            let residual = |x: f64| 1.0 - x * inverse.evaluate(x);
            let bound = inverse.error() + 1e-12;
            prop_assert!(residual(low + u * width).abs() <= bound);
            // Both ends are extrema, and no value below the interval is too large.
            prop_assert!((residual(low) - inverse.error()).abs() < 1e-9);
            prop_assert!(residual(low * u) >= -bound);
            prop_assert!(residual(low * u) <= 1.0 + 1e-12);
        }
    }

    #[test]
    fn intervals_that_are_none_are_refused() {
        for (low, high) in [
            (0.0, 1.0),
            (-1.0, 1.0),
            (1.0, 1.0),
            (f64::NAN, 1.0),
            (1.0, f64::INFINITY),
        ] {
            assert!(Inverse::new(low, high, 3).is_none());
        }
    }
}
