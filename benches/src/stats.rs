//! Medians with intervals that assume nothing about the distribution.

use serde::{Deserialize, Serialize};

/// Least confidence of an interval, where the number of samples allows it.
pub const CONFIDENCE: f64 = 0.95;

/// The median of some samples and a confidence interval of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The median.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Number of samples.
    pub n: usize,
}

impl Summary {
    /// The median of `samples` between two of their order statistics: the interval from the r-th
    /// smallest to the r-th largest holds the true median with probability
    /// `1 - 2 P(Binomial(n, 1/2) < r)` whatever the distribution is (David and Nagaraja, "Order
    /// Statistics", section 7.1). r is the largest for which that is at least [`CONFIDENCE`], and 1
    /// for five samples or fewer, where nothing reaches it. `None` without samples.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let rank = rank(n);
        Some(Self {
            median: 0.5 * (sorted.get((n.checked_sub(1)?) / 2)? + sorted.get(n / 2)?),
            low: *sorted.get(rank - 1)?,
            high: *sorted.get(n - rank)?,
            n,
        })
    }

    /// The same in another unit.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self {
            median: self.median * factor,
            low: self.low * factor,
            high: self.high * factor,
            n: self.n,
        }
    }
}

/// The rank r of [`Summary::of`].
fn rank(n: usize) -> usize {
    let mut rank = 1;
    // P(Binomial(n, 1/2) <= k), summed term by term.
    let mut term = 0.5f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let mut below = term;
    for k in 1..=n / 2 {
        term *= (n + 1 - k) as f64 / k as f64;
        below += term;
        // Rank k + 1 leaves out k samples on either side.
        if 2.0 * below > 1.0 - CONFIDENCE {
            break;
        }
        rank = k + 1;
    }
    rank
}

/// `other / ours` of the rounds in which both were measured.
#[must_use]
pub fn paired_ratio(ours: &[Option<f64>], other: &[Option<f64>]) -> Option<Summary> {
    let ratios: Vec<f64> = ours
        .iter()
        .zip(other)
        .filter_map(|(a, b)| Some((*b)? / (*a)?))
        .collect();
    Summary::of(&ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_sign_test() {
        // From tables of the sign test at 5%, two-sided.
        for (n, expected) in [
            (1, 1),
            (5, 1),
            (6, 1),
            (8, 1),
            (9, 2),
            (12, 3),
            (15, 4),
            (20, 6),
            (25, 8),
            (50, 18),
        ] {
            assert_eq!(rank(n), expected, "n = {n}");
        }
    }

    #[test]
    fn medians_of_even_and_odd_counts() {
        assert_eq!(Summary::of(&[]), None);
        let one = Summary::of(&[3.0]).unwrap();
        assert_eq!((one.median, one.low, one.high, one.n), (3.0, 3.0, 3.0, 1));
        let four = Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((four.median, four.low, four.high), (2.5, 1.0, 4.0));
        let nine: Vec<f64> = (1..=9).map(f64::from).collect();
        let nine = Summary::of(&nine).unwrap();
        assert_eq!((nine.median, nine.low, nine.high), (5.0, 2.0, 8.0));
    }

    #[test]
    fn intervals_cover() {
        // A thousand experiments of 15 samples; 96.5% are expected to hold the median 1/2.
        let mut rng = crate::interleave::Shuffler::new(5);
        let mut held = 0;
        for _ in 0..1000 {
            let samples: Vec<f64> = (0..15)
                .map(|_| rng.below(1 << 40) as f64 / f64::from(2).powi(40))
                .collect();
            let s = Summary::of(&samples).unwrap();
            held += usize::from(s.low <= 0.5 && 0.5 <= s.high);
        }
        assert!((945..=985).contains(&held), "{held}");
    }

    #[test]
    fn ratios_pair_rounds() {
        let ours = [Some(1.0), None, Some(2.0), Some(4.0)];
        let other = [Some(3.0), Some(9.0), Some(4.0), None];
        let ratio = paired_ratio(&ours, &other).unwrap();
        assert_eq!((ratio.median, ratio.n), (2.5, 2));
        assert_eq!(paired_ratio(&ours[1..2], &other[..1]), None);
    }
}
