//! Polynomials in the Chebyshev basis of an interval: fit, conversion, clear evaluation.

use super::PolynomialError;
use serde::{Deserialize, Serialize};

/// Highest degree that is accepted anywhere: depth 10, far above what a circuit uses.
pub const MAX_DEGREE: usize = 1023;

/// Coefficients below this multiple of the sum of all magnitudes are fit residue, not signal:
/// keeping them would cost plaintext products and hide the parity of odd and even functions.
const RESIDUE: f64 = 16.0 * f64::EPSILON;

/// Which coefficients of a polynomial are non-zero, with respect to the middle of its interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parity {
    /// Only even-indexed coefficients: `p(-t) = p(t)` on the normalized interval.
    Even,
    /// Only odd-indexed coefficients: `p(-t) = -p(t)` on the normalized interval.
    Odd,
    /// Coefficients of both kinds.
    Mixed,
}

/// `p(x) = sum_k c_k T_k(t)` with `t = (2x - a - b)/(b - a)`, for `x` in `[a, b]`.
///
/// `T_k` is the Chebyshev polynomial of the first kind, `T_k(cos u) = cos(k u)`. There is at
/// least one coefficient, and the last one is non-zero unless the polynomial is a constant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Chebyshev {
    coefficients: Vec<f64>,
    interval: (f64, f64),
}

/// The serialized form; it becomes a [`Chebyshev`] only through the checks of [`Chebyshev::new`].
#[derive(Serialize, Deserialize)]
struct Parts {
    coefficients: Vec<f64>,
    interval: (f64, f64),
}

impl TryFrom<Parts> for Chebyshev {
    type Error = PolynomialError;
    fn try_from(parts: Parts) -> Result<Self, PolynomialError> {
        Self::new(parts.coefficients, parts.interval)
    }
}

impl From<Chebyshev> for Parts {
    fn from(p: Chebyshev) -> Self {
        Self {
            coefficients: p.coefficients,
            interval: p.interval,
        }
    }
}

fn check_interval((a, b): (f64, f64)) -> Result<(), PolynomialError> {
    let width = b - a;
    if a.is_finite() && b.is_finite() && width.is_finite() && width > 0.0 {
        Ok(())
    } else {
        Err(PolynomialError::Interval { low: a, high: b })
    }
}

fn check_degree(degree: usize) -> Result<(), PolynomialError> {
    if degree <= MAX_DEGREE {
        Ok(())
    } else {
        Err(PolynomialError::Degree {
            degree,
            limit: MAX_DEGREE,
        })
    }
}

impl Chebyshev {
    /// From coefficients of `T_0, T_1, ..` on `interval = (a, b)`; trailing zeros are removed.
    ///
    /// # Errors
    /// No coefficient, one that is not finite, a degree above [`MAX_DEGREE`], or an interval
    /// that is empty or not finite.
    pub fn new(mut coefficients: Vec<f64>, interval: (f64, f64)) -> Result<Self, PolynomialError> {
        check_interval(interval)?;
        while coefficients.len() > 1 && coefficients.last() == Some(&0.0) {
            coefficients.pop();
        }
        if coefficients.is_empty() {
            return Err(PolynomialError::Empty);
        }
        check_degree(coefficients.len() - 1)?;
        if let Some(index) = coefficients.iter().position(|c| !c.is_finite()) {
            return Err(PolynomialError::Coefficient { index });
        }
        Ok(Self {
            coefficients,
            interval,
        })
    }

    /// The interpolant of `f` of the given degree at the Chebyshev nodes of `interval`
    /// (`c_k = 2/M sum_j f(cos u_j) cos(k u_j)`, `u_j = (j + 1/2) pi/M`, `M = degree + 1`),
    /// which is within a factor `2 + (2/pi) ln M` of the best approximation.
    ///
    /// # Errors
    /// As [`Chebyshev::new`]; also when `f` is not finite at a node.
    pub fn fit(
        f: impl Fn(f64) -> f64,
        degree: usize,
        interval: (f64, f64),
    ) -> Result<Self, PolynomialError> {
        check_interval(interval)?;
        check_degree(degree)?;
        let (mid, half) = mid_half(interval);
        let m = degree + 1;
        // cos(i pi/(2M)) with i reduced to the first quarter: exactly antisymmetric nodes, so that
        // odd and even functions get exactly zero coefficients up to summation error.
        let cosine = |i: usize| {
            let i = i % (4 * m);
            let i = i.min(4 * m - i);
            let first = |i: usize| match i {
                i if i == m => 0.0,
                i => (i as f64 * std::f64::consts::FRAC_PI_2 / m as f64).cos(),
            };
            if i <= m { first(i) } else { -first(2 * m - i) }
        };
        let samples: Vec<f64> = (0..m).map(|j| f(mid + half * cosine(2 * j + 1))).collect();
        let coefficients = (0..m)
            .map(|k| {
                let sum: f64 = samples
                    .iter()
                    .enumerate()
                    .map(|(j, s)| s * cosine(k * (2 * j + 1)))
                    .sum();
                sum * if k == 0 { 1.0 } else { 2.0 } / m as f64
            })
            .collect();
        Ok(Self::new(coefficients, interval)?.without_residue())
    }

    /// The fit of lowest degree up to `max_degree` whose error against `f`, on a grid eight
    /// times as dense as the nodes, is at most `max_error` (absolute).
    ///
    /// # Errors
    /// As [`Chebyshev::fit`]; also when no degree up to `max_degree` reaches the error.
    pub fn fit_to_error(
        f: impl Fn(f64) -> f64,
        max_error: f64,
        max_degree: usize,
        interval: (f64, f64),
    ) -> Result<Self, PolynomialError> {
        let mut reached = f64::INFINITY;
        for degree in 0..=max_degree {
            let candidate = Self::fit(&f, degree, interval)?;
            let error = candidate.max_error(&f, 8 * (degree + 2));
            if error <= max_error {
                return Ok(candidate);
            }
            reached = reached.min(error);
        }
        Err(PolynomialError::Accuracy {
            wanted: max_error,
            reached,
            max_degree,
        })
    }

    /// The polynomial of lowest degree through the points `(nodes[i], values[i])`, by Gaussian
    /// elimination with pivoting in the Chebyshev basis. Unlike [`Chebyshev::fit`] the caller
    /// chooses the nodes: exactness where it matters (the integers, for EvalMod).
    ///
    /// # Errors
    /// As [`Chebyshev::new`]; also for unequal lengths or nodes that coincide.
    pub fn interpolate(
        nodes: &[f64],
        values: &[f64],
        interval: (f64, f64),
    ) -> Result<Self, PolynomialError> {
        check_interval(interval)?;
        let n = nodes.len();
        if n == 0 || values.len() != n {
            return Err(PolynomialError::Nodes {
                nodes: n,
                values: values.len(),
            });
        }
        check_degree(n - 1)?;
        let (mid, half) = mid_half(interval);
        let mut rows: Vec<Vec<f64>> = nodes
            .iter()
            .zip(values)
            .map(|(&x, &y)| {
                let mut row = chebyshev_values((x - mid) / half, n);
                row.push(y);
                row
            })
            .collect();
        let coefficients = solve(&mut rows).ok_or(PolynomialError::Nodes {
            nodes: n,
            values: values.len(),
        })?;
        Self::new(coefficients, interval)
    }

    /// From coefficients of `1, x, x^2, ..` (in `x` itself, not the normalized variable).
    ///
    /// # Errors
    /// As [`Chebyshev::new`].
    pub fn from_monomial(
        coefficients: &[f64],
        interval: (f64, f64),
    ) -> Result<Self, PolynomialError> {
        check_interval(interval)?;
        check_degree(coefficients.len().saturating_sub(1))?;
        let (mid, half) = mid_half(interval);
        // Horner in the Chebyshev basis: acc <- acc * (mid + half t) + c.
        let mut acc: Vec<f64> = vec![0.0; coefficients.len()];
        for &c in coefficients.iter().rev() {
            let mut next: Vec<f64> = acc.iter().map(|v| v * mid).collect();
            for (k, v) in acc.iter().enumerate() {
                // t T_k = (T_(k+1) + T_|k-1|)/2
                for to in [k + 1, k.abs_diff(1)] {
                    if let Some(slot) = next.get_mut(to) {
                        *slot += 0.5 * half * v;
                    }
                }
            }
            if let Some(first) = next.first_mut() {
                *first += c;
            }
            acc = next;
        }
        Ok(Self::new(acc, interval)?.without_residue())
    }

    fn without_residue(self) -> Self {
        let floor = RESIDUE * self.magnitude_bound();
        let mut coefficients = self.coefficients;
        for c in &mut coefficients {
            if c.abs() <= floor {
                *c = 0.0;
            }
        }
        while coefficients.len() > 1 && coefficients.last() == Some(&0.0) {
            coefficients.pop();
        }
        Self {
            coefficients,
            interval: self.interval,
        }
    }

    /// Coefficients of `T_0 ..= T_degree`.
    #[must_use]
    pub fn coefficients(&self) -> &[f64] {
        &self.coefficients
    }

    /// The interval `(a, b)` on which `p` was made; outside it the values grow without bound.
    #[must_use]
    pub fn interval(&self) -> (f64, f64) {
        self.interval
    }

    /// Degree; 0 for constants.
    #[must_use]
    pub fn degree(&self) -> usize {
        self.coefficients.len() - 1
    }

    /// Parity with respect to the middle of the interval. A constant is even.
    #[must_use]
    pub fn parity(&self) -> Parity {
        let any = |first: usize| {
            self.coefficients
                .iter()
                .skip(first)
                .step_by(2)
                .any(|c| *c != 0.0)
        };
        match (any(0), any(1)) {
            (_, false) => Parity::Even,
            (false, true) => Parity::Odd,
            (true, true) => Parity::Mixed,
        }
    }

    /// `p(x)` by Clenshaw's recurrence: `b_k = c_k + 2 t b_(k+1) - b_(k+2)`.
    #[must_use]
    pub fn evaluate(&self, x: f64) -> f64 {
        let (mid, half) = mid_half(self.interval);
        let t = (x - mid) / half;
        let (mut b1, mut b2) = (0.0, 0.0);
        for &c in self.coefficients.iter().skip(1).rev() {
            (b1, b2) = (c + 2.0 * t * b1 - b2, b1);
        }
        self.coefficients.first().copied().unwrap_or(0.0) + t * b1 - b2
    }

    /// Largest `|p - f|` on `samples + 1` equidistant points of the interval, ends included.
    /// A value of `f` that is not a number counts as an infinite error.
    #[must_use]
    pub fn max_error(&self, f: impl Fn(f64) -> f64, samples: usize) -> f64 {
        let (a, b) = self.interval;
        let samples = samples.max(1);
        (0..=samples)
            .map(|i| {
                let x = a + (b - a) * (i as f64 / samples as f64);
                let e = (self.evaluate(x) - f(x)).abs();
                if e.is_nan() { f64::INFINITY } else { e }
            })
            .fold(0.0, f64::max)
    }

    /// `sum |c_k|`: no value on the interval exceeds it, since `|T_k| <= 1` there.
    #[must_use]
    pub fn magnitude_bound(&self) -> f64 {
        self.coefficients.iter().map(|c| c.abs()).sum()
    }
}

/// Middle and half width of an interval.
fn mid_half((a, b): (f64, f64)) -> (f64, f64) {
    (a + (b - a) / 2.0, (b - a) / 2.0)
}

/// `T_0(t) ..= T_(n-1)(t)`.
fn chebyshev_values(t: f64, n: usize) -> Vec<f64> {
    let (mut now, mut next) = (1.0, t);
    (0..n)
        .map(|_| {
            let value = now;
            (now, next) = (next, 2.0 * t * next - now);
            value
        })
        .collect()
}

/// Solves an augmented square system in place; `None` if it is singular.
fn solve(rows: &mut [Vec<f64>]) -> Option<Vec<f64>> {
    let n = rows.len();
    for col in 0..n {
        let pivot = (col..n).max_by(|&i, &j| rows[i][col].abs().total_cmp(&rows[j][col].abs()))?;
        rows.swap(col, pivot);
        let (upper, lower) = rows.split_at_mut(col + 1);
        let lead = &upper[col];
        if lead[col].abs() < 1e-14 || !lead[col].is_finite() {
            return None;
        }
        for row in lower {
            let factor = row[col] / lead[col];
            for (r, l) in row.iter_mut().zip(lead).skip(col) {
                *r -= factor * l;
            }
        }
    }
    let mut x = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| rows[i][j] * x[j]).sum();
        x[i] = (rows[i][n] - known) / rows[i][i];
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fit_reaches_a_wanted_error_with_little_degree() {
        let p = Chebyshev::fit_to_error(f64::exp, 1e-6, 31, (-1.0, 3.0)).unwrap();
        assert!(p.degree() <= 11, "{}", p.degree());
        assert!(p.max_error(f64::exp, 1000) <= 1.1e-6);
        let e = Chebyshev::fit_to_error(f64::abs, 1e-9, 15, (-1.0, 1.0));
        assert!(matches!(e, Err(PolynomialError::Accuracy { .. })));
    }

    #[test]
    fn parity_is_exact_for_odd_and_even_functions() {
        let odd = Chebyshev::fit(|x| (2.0 * x).tanh(), 15, (-4.0, 4.0)).unwrap();
        assert_eq!(odd.parity(), Parity::Odd);
        let even = Chebyshev::fit(|x| (x * x).cos(), 12, (-2.0, 2.0)).unwrap();
        assert_eq!(even.parity(), Parity::Even);
        let mixed = Chebyshev::fit(f64::exp, 3, (0.0, 1.0)).unwrap();
        assert_eq!(mixed.parity(), Parity::Mixed);
    }

    #[test]
    fn bad_input_is_refused() {
        let ok = (-1.0, 1.0);
        assert_eq!(Chebyshev::new(vec![], ok), Err(PolynomialError::Empty));
        assert!(Chebyshev::new(vec![1.0, f64::NAN], ok).is_err());
        assert!(Chebyshev::new(vec![1.0], (1.0, 1.0)).is_err());
        assert!(Chebyshev::new(vec![1.0], (f64::MIN, f64::MAX)).is_err());
        assert!(Chebyshev::new(vec![1.0; MAX_DEGREE + 2], ok).is_err());
        assert!(Chebyshev::interpolate(&[0.0, 0.0], &[1.0, 1.0], ok).is_err());
        assert!(Chebyshev::interpolate(&[0.0], &[], ok).is_err());
        assert!(Chebyshev::fit(|_| f64::NAN, 3, ok).is_err());
        let constant = Chebyshev::new(vec![0.0, 0.0], ok).unwrap();
        assert_eq!(constant.degree(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn monomials_convert(c in prop::collection::vec(-1.0..1.0f64, 1..9), a in -2.0..0.0f64, w in 0.5..3.0f64, u in 0.0..1.0f64) {
            let p = Chebyshev::from_monomial(&c, (a, a + w)).unwrap();
            let x = a + w * u;
            let direct = c.iter().rev().fold(0.0, |acc, c| acc * x + c);
            prop_assert!((p.evaluate(x) - direct).abs() < 1e-10, "{} {}", p.evaluate(x), direct);
        }

        #[test]
        fn interpolation_passes_through_its_points(values in prop::collection::vec(-1.0..1.0f64, 1..16)) {
            let n = values.len();
            let nodes: Vec<f64> = (0..n).map(|i| i as f64 * 0.3 - 1.0).collect();
            let p = Chebyshev::interpolate(&nodes, &values, (-1.0, 4.0)).unwrap();
            for (x, y) in nodes.iter().zip(&values) {
                prop_assert!((p.evaluate(*x) - y).abs() < 1e-6);
            }
        }
    }
}
