//! Tails of the two distributions that bootstrapping meets: sums of uniforms and Gaussians.

/// `P(|S| >= t)` for the centred sum `S` of `n` independent uniforms on `[-1/2, 1/2]`.
///
/// The Irwin-Hall distribution function is a sum of B-splines, `F_n(y) = sum_(j>=0)
/// f_(n+1)(y - j)`, and these follow the Cox-de Boor recurrence: all terms are positive, so the
/// far tail keeps its relative accuracy where the alternating textbook sum cancels.
#[must_use]
pub fn uniform_sum_tail(n: u32, t: f64) -> f64 {
    if t <= 0.0 {
        return 1.0;
    }
    // By symmetry both tails are the lower one: P(S' <= n/2 - t), with uniforms on [0, 1].
    let y = f64::from(n) / 2.0 - t;
    if y <= 0.0 {
        return 0.0;
    }
    let cells = y.floor() as usize;
    // f_1 at y, y-1, .., the fraction being the only one inside [0, 1).
    let points: Vec<f64> = (0..=cells).map(|j| y - j as f64).collect();
    let mut density: Vec<f64> = points
        .iter()
        .map(|p| if *p < 1.0 { 1.0 } else { 0.0 })
        .collect();
    for m in 2..=n + 1 {
        // f_m(p) = (p f_(m-1)(p) + (m - p) f_(m-1)(p - 1)) / (m - 1)
        let m = f64::from(m);
        let next = (0..density.len())
            .map(|j| {
                let at = |i: usize| density.get(i).copied().unwrap_or(0.0);
                let p = y - j as f64;
                ((p * at(j) + (m - p) * at(j + 1)) / (m - 1.0)).max(0.0)
            })
            .collect();
        density = next;
    }
    (2.0 * density.iter().sum::<f64>()).min(1.0)
}

/// `P(|X| >= t)` for a standard Gaussian: `erfc(t / sqrt 2)`.
///
/// Taylor series below 2, above it the continued fraction
/// `Q(t) = phi(t) / (t + 1/(t + 2/(t + 3/(t + ..))))`.
#[must_use]
pub fn gaussian_tail(t: f64) -> f64 {
    if t <= 0.0 {
        return 1.0;
    }
    let density = (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if t < 2.0 {
        // P(|X| < t) = 2 phi(t) (t + t^3/3 + t^5/15 + ..)
        let (mut term, mut sum, mut k) = (t, t, 1.0);
        while term > 1e-17 * sum {
            k += 2.0;
            term *= t * t / k;
            sum += term;
        }
        return 1.0 - 2.0 * density * sum;
    }
    let fraction = (1..=60).rev().fold(t, |f, k| t + f64::from(k) / f);
    2.0 * density / fraction
}

/// `P(|X| >= t)` for a Laplace distribution of variance 1, `exp(-sqrt(2) t)`: that of the real part
/// of a product of two complex Gaussians.
#[must_use]
pub fn laplace_tail(t: f64) -> f64 {
    (-std::f64::consts::SQRT_2 * t.max(0.0)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_sums_have_closed_forms() {
        for t in [0.1, 0.25, 0.4, 0.5] {
            assert!((uniform_sum_tail(1, t) - (1.0 - 2.0 * t)).abs() < 1e-15);
        }
        for t in [0.1, 0.5, 0.9, 1.0] {
            assert!((uniform_sum_tail(2, t) - (1.0 - t) * (1.0 - t)).abs() < 1e-15);
        }
        assert_eq!(uniform_sum_tail(3, 0.0), 1.0);
        assert_eq!(uniform_sum_tail(3, 1.6), 0.0);
    }

    #[test]
    fn far_tail_agrees_with_exact_fractions() {
        // log2 of 2/n! sum_k (-1)^k C(n,k) (n/2 - t - k)^n, computed in exact fractions.
        for (n, t, log2) in [
            (32, 9.5, -30.481_549_509_837),
            (32, 12.0, -52.667_908_465_740),
            (32, 12.484_375, -58.623_296_077_233),
            (32, 15.5, -148.663_263_652_360),
            (33, 11.5, -45.114_489_290_322),
            (33, 12.5, -55.711_248_973_858),
        ] {
            let tail = uniform_sum_tail(n, t).log2();
            assert!((tail - log2).abs() < 1e-9, "{n}, {t}: {tail}");
        }
    }

    #[test]
    fn gaussian_tail_is_continuous_and_known() {
        assert!((gaussian_tail(1.0) - 0.317_310_507_862_914).abs() < 1e-14);
        assert!((gaussian_tail(1.96) - 0.049_995_790_296_440).abs() < 1e-14);
        assert!((gaussian_tail(6.0) / 1.973_175_290_075_396e-9 - 1.0).abs() < 1e-10);
        assert!((gaussian_tail(2.0 - 1e-12) - gaussian_tail(2.0)).abs() < 1e-10);
    }
}
