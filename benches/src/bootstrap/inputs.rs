//! What the slots hold: the same kinds as in the drivers of other libraries.

use veilformer_circuits::bootstrap::Content;
use veilformer_ckks::Complex;

/// A kind of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Uniform in [-1, 1].
    Random,
    /// 1 everywhere.
    Constant,
    /// Random signs.
    Signs,
    /// 128 random values, repeated.
    Replicated,
}

impl Kind {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Random, Self::Constant, Self::Signs, Self::Replicated];

    /// The name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Constant => "constant",
            Self::Signs => "signs",
            Self::Replicated => "replicated",
        }
    }

    /// Numbers for `slots` slots of this content; imaginary parts likewise where slots are complex.
    pub(super) fn slots(self, content: Content, slots: usize, seed: u64) -> Vec<Complex> {
        let mut values = Values(seed);
        let period = content.period().unwrap_or(slots);
        let period = match self {
            Self::Replicated => period.min(128),
            _ => period,
        };
        let complex = content.is_complex();
        let block: Vec<Complex> = (0..period)
            .map(|_| {
                let re = self.number(&mut values);
                let im = self.number(&mut values);
                Complex::new(re, if complex { im } else { 0.0 })
            })
            .collect();
        block.into_iter().cycle().take(slots).collect()
    }

    fn number(self, values: &mut Values) -> f64 {
        match self {
            Self::Random | Self::Replicated => values.uniform(),
            Self::Constant => 1.0,
            Self::Signs => values.uniform().signum(),
        }
    }
}

/// Numbers from splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// 2014): of no use for secrets.
struct Values(u64);

impl Values {
    /// Uniform in [-1, 1).
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_what_the_content_says() {
        let random = Kind::Random.slots(Content::Complex, 1024, 1);
        assert!(random.iter().all(|z| z.re.abs() <= 1.0 && z.im != 0.0));
        let mean = random.iter().map(|z| z.re.abs()).sum::<f64>() / 1024.0;
        assert!((mean - 0.5).abs() < 0.05, "{mean}");
        let signs = Kind::Signs.slots(Content::Real, 1024, 1);
        assert!(signs.iter().all(|z| z.re.abs() == 1.0 && z.im == 0.0));
        let again = Kind::Replicated.slots(Content::Complex, 1024, 1);
        assert!(again[0] == again[128] && again[0] != again[64]);
        let periodic = Kind::Random.slots(Content::Periodic(64), 1024, 1);
        assert!(periodic[3] == periodic[67] && periodic[3] != periodic[4]);
        let one = Kind::Replicated.slots(Content::Periodic(1), 8, 1);
        assert!(one.iter().all(|z| *z == one[0]));
    }
}
