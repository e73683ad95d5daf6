//! Weighted minimax fits in the Chebyshev basis.

use veilformer_circuits::polynomial::{Chebyshev, PolynomialError};

/// Rounds of Lawson's iteration, more where they are cheap. Its error falls slowly, and a fit within
/// some percent of the best one is as good as the best one.
fn rounds(degree: usize) -> usize {
    (4096 / (degree + 1)).clamp(24, 200)
}

/// A polynomial of the given degree whose largest weighted error `weight(x) |p(x) - f(x)|` on the
/// interval is near the least possible.
///
/// Lawson's algorithm: least squares on a grid, where each point's weight is multiplied by its
/// error, again and again (C. L. Lawson, Contributions to the theory of linear least maximum
/// approximation, 1961); the best round is kept. The grid is that of Chebyshev's nodes, eight per
/// coefficient.
///
/// # Errors
/// As [`Chebyshev::new`]; also when `f` or `weight` are not finite on the grid.
pub fn minimax(
    f: impl Fn(f64) -> f64,
    weight: impl Fn(f64) -> f64,
    degree: usize,
    interval: (f64, f64),
) -> Result<Chebyshev, PolynomialError> {
    let (low, high) = interval;
    let (mid, half) = (low + (high - low) / 2.0, (high - low) / 2.0);
    let start = Chebyshev::fit(&f, degree, interval)?;
    // An odd number, so that the middle is one: activations have their bend there.
    let points = 8 * (degree + 1) + 1;
    let grid: Vec<Point> = (0..points)
        .map(|i| {
            let t = ((i as f64 + 0.5) * std::f64::consts::PI / points as f64).cos();
            let x = mid + half * t;
            Point {
                t,
                f: f(x),
                weight: weight(x),
            }
        })
        .collect();
    if let Some(bad) = grid.iter().position(|p| !(p.f * p.weight).is_finite()) {
        return Err(PolynomialError::Coefficient { index: bad });
    }
    let error = |p: &Chebyshev| -> Vec<f64> {
        let at = |g: &Point| g.weight * (p.evaluate(mid + half * g.t) - g.f).abs();
        grid.iter().map(at).collect()
    };
    let largest = |errors: &[f64]| errors.iter().copied().fold(0.0, f64::max);
    let (mut best_error, mut best) = (largest(&error(&start)), start);
    let mut lawson = vec![1.0 / points as f64; points];
    for _ in 0..rounds(degree) {
        let Some(coefficients) = least_squares(&grid, &lawson, degree + 1) else {
            break;
        };
        let Ok(candidate) = Chebyshev::new(coefficients, interval) else {
            break;
        };
        let errors = error(&candidate);
        let top = largest(&errors);
        if top < best_error {
            (best_error, best) = (top, candidate);
        }
        lawson
            .iter_mut()
            .zip(&errors)
            .for_each(|(l, e)| *l *= e / top.max(f64::MIN_POSITIVE));
        let sum: f64 = lawson.iter().sum();
        if sum.is_nan() || sum <= 0.0 {
            break;
        }
        // A point that was fitted exactly once may be needed again.
        lawson
            .iter_mut()
            .for_each(|l| *l = (*l / sum).max(1e-9 / points as f64));
    }
    without_rounding(&best)
}

/// Without what the fit's own rounding has left in coefficients that should be zero, as every second one
/// of an odd function: each would be a product with a constant.
fn without_rounding(fitted: &Chebyshev) -> Result<Chebyshev, PolynomialError> {
    const ROUNDING: f64 = 1e-13;
    let coefficients = fitted.coefficients();
    let largest = coefficients.iter().fold(0.0, |m: f64, c| m.max(c.abs()));
    let kept = coefficients
        .iter()
        .map(|c| match c.abs() > ROUNDING * largest {
            true => *c,
            false => 0.0,
        });
    Chebyshev::new(kept.collect(), fitted.interval())
}

struct Point {
    t: f64,
    f: f64,
    weight: f64,
}

/// Coefficients of least `sum lawson (weight (p - f))^2`, by the normal equations: Chebyshev
/// polynomials are nearly orthogonal on their nodes, so they are well conditioned.
fn least_squares(grid: &[Point], lawson: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut normal = vec![vec![0.0; n + 1]; n];
    let mut row = vec![0.0; n];
    for (point, l) in grid.iter().zip(lawson) {
        let (mut now, mut next) = (1.0, point.t);
        for value in &mut row {
            *value = now;
            (now, next) = (next, 2.0 * point.t * next - now);
        }
        let scale = l * point.weight * point.weight;
        for (i, target) in normal.iter_mut().enumerate() {
            let scaled = scale * row[i];
            target
                .iter_mut()
                .zip(&row)
                .for_each(|(t, v)| *t += scaled * v);
            target[n] += scaled * point.f;
        }
    }
    // Rows of very different weights: equilibrated by the diagonal.
    let diagonal: Vec<f64> = (0..n).map(|i| normal[i][i].sqrt()).collect();
    if diagonal.iter().any(|d| !(*d > 0.0 && d.is_finite())) {
        return None;
    }
    for (i, row) in normal.iter_mut().enumerate() {
        for (j, v) in row.iter_mut().enumerate() {
            *v /= diagonal[i] * diagonal.get(j).copied().unwrap_or(1.0);
        }
        row[i] += 1e-15;
    }
    for col in 0..n {
        let (upper, lower) = normal.split_at_mut(col + 1);
        let lead = &upper[col];
        if lead[col].is_nan() || lead[col] <= 0.0 {
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
        let known: f64 = (i + 1..n).map(|j| normal[i][j] * x[j]).sum();
        x[i] = (normal[i][n] - known) / normal[i][i];
    }
    Some(x.iter().zip(&diagonal).map(|(v, d)| v / d).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_level_and_below_those_of_interpolation() {
        // Relative error of 1/sqrt(x): its weight varies by 10 over the interval.
        let (f, weight) = (|x: f64| x.sqrt().recip(), f64::sqrt);
        let interval = (0.01, 1.0);
        let fitted = minimax(f, weight, 15, interval).unwrap();
        let usual = Chebyshev::fit(f, 15, interval).unwrap();
        let relative = |p: &Chebyshev| {
            (0..=2000).fold(0.0f64, |m, i| {
                let x = 0.01 + 0.99 * f64::from(i) / 2000.0;
                m.max((p.evaluate(x) * x.sqrt() - 1.0).abs())
            })
        };
        let (fitted, usual) = (relative(&fitted), relative(&usual));
        assert!(fitted < 0.65 * usual, "{fitted} {usual}");
        // The degree-3 minimax polynomial of |x| on [-1, 1] is x^2 + 1/8.
        let abs = minimax(f64::abs, |_| 1.0, 3, (-1.0, 1.0)).unwrap();
        let error = abs.max_error(f64::abs, 1000);
        assert!((0.12..0.14).contains(&error), "{error}");
    }

    #[test]
    fn odd_functions_have_odd_polynomials() {
        let odd = minimax(f64::tanh, |_| 1.0, 31, (-4.0, 4.0)).unwrap();
        let (even, odd): (Vec<_>, Vec<_>) = (0..32)
            .map(|i| odd.coefficients()[i])
            .enumerate()
            .partition(|(i, _)| i % 2 == 0);
        assert!(even.iter().all(|(_, c)| *c == 0.0), "{even:?}");
        assert!(odd.iter().all(|(_, c)| *c != 0.0), "{odd:?}");
    }

    #[test]
    fn functions_that_are_not_finite_are_refused() {
        assert!(minimax(f64::ln, |_| 1.0, 3, (-1.0, 1.0)).is_err());
        assert!(minimax(f64::exp, |_| f64::NAN, 3, (-1.0, 1.0)).is_err());
        assert!(minimax(f64::exp, |_| 1.0, 3, (1.0, 1.0)).is_err());
    }
}
