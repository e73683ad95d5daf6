//! Elementary functions in f32 without branches, so that loops over them are vectorized.

/// `e^x`, to a relative error of 2e-7; `x` is cut to [-87, 88].
///
/// `x = n ln 2 + r` with an integer `n` and `|r| <= ln(2) / 2`, where Taylor's polynomial of degree 6
/// has an error of 1.2e-7; `n` goes into the exponent.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the rounded integer in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    // ln 2 in two parts: the product of the first with a small integer is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let p = 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = (p * r + 1.0) * r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    p * power
}

/// The error function, to an absolute error of 5e-7 (Abramowitz & Stegun 1964, formula 7.1.26).
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = 1.061_405_4;
    let p = p * t - 1.453_152_1;
    let p = p * t + 1.421_413_8;
    let p = p * t - 0.284_496_72;
    let p = p * t + 0.254_829_6;
    (1.0 - p * t * exp(-a * a)).copysign(x)
}

/// The sum of the values of `f` at all indices, in eight partial sums.
#[inline(always)]
pub fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut parts = [0.0f32; 8];
    let whole = n / 8 * 8;
    for start in (0..whole).step_by(8) {
        for (lane, part) in parts.iter_mut().enumerate() {
            *part += f(start + lane);
        }
    }
    let rest: f32 = (whole..n).map(f).sum();
    parts.iter().sum::<f32>() + rest
}

/// `y += a x`.
#[inline(always)]
pub fn add_scaled(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

#[cfg(test)]
mod tests {
    use super::{erf, exp};

    #[test]
    fn functions_are_those_of_the_tables() {
        for i in -8700..=8800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!(
                (f64::from(exp(x)) / exact - 1.0).abs() < 3e-7,
                "{x}: {} {exact}",
                exp(x)
            );
        }
        assert_eq!(exp(-1e9), exp(-87.0));
        // Abramowitz & Stegun, table 7.1.
        for (x, y) in [
            (0.0, 0.0),
            (0.1, 0.112_462_92),
            (0.5, 0.520_499_9),
            (1.0, 0.842_700_8),
            (2.0, 0.995_322_3),
            (5.0, 1.0),
        ] {
            assert!((erf(x) - y).abs() < 5e-7, "{x}: {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
    }
}
