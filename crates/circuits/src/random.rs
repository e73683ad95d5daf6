//! The seeded generator of simulations: reproducible for ever, and of no use for secrets.

/// `xoshiro256**` (Blackman and Vigna, 2018), seeded by `SplitMix64`.
pub(crate) struct Random {
    state: [u64; 4],
    spare: Option<f64>,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut x = seed;
        let state = std::array::from_fn(|_| {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        Self { state, spare: None }
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let (c2, d2) = (c ^ a, d ^ b);
        self.state = [a ^ d2, b ^ c2, c2 ^ (b << 17), d2.rotate_left(45)];
        b.wrapping_mul(5).rotate_left(7).wrapping_mul(9)
    }

    /// Uniform on `[-1/2, 1/2)`.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    }

    /// Standard Gaussian, by Marsaglia's polar method.
    pub(crate) fn gaussian(&mut self) -> f64 {
        if let Some(value) = self.spare.take() {
            return value;
        }
        loop {
            let (u, v) = (2.0 * self.uniform(), 2.0 * self.uniform());
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                let r = (-2.0 * s.ln() / s).sqrt();
                self.spare = Some(r * v);
                return r * u;
            }
        }
    }

    /// The rounded sum of `count` uniforms on `[-1/2, 1/2)`.
    pub(crate) fn rounded_uniform_sum(&mut self, count: u32) -> f64 {
        (0..count).map(|_| self.uniform()).sum::<f64>().round()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let mut rng = Random::new(7);
        let n = 200_000;
        let (mut s1, mut s2, mut s4) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            let g = rng.gaussian();
            s1 += g;
            s2 += g * g;
            s4 += g * g * g * g;
        }
        let n = f64::from(n);
        assert!(
            (s1 / n).abs() < 0.01 && (s2 / n - 1.0).abs() < 0.015 && (s4 / n - 3.0).abs() < 0.1
        );
        let v: f64 = (0..20_000)
            .map(|_| rng.rounded_uniform_sum(32).powi(2))
            .sum::<f64>()
            / 2e4;
        // Variance 32/12, and 1/12 for the rounding.
        assert!((v - 33.0 / 12.0).abs() < 0.12, "{v}");
    }
}
