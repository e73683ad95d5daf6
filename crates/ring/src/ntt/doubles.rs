//! Twiddle factors as doubles, for kernels that multiply in floating point.

use super::bit_reversed_powers;
use crate::modulus::Modulus;

/// The twiddles of the last four stages for 16 words of data: two lines of cache, so that a
/// transform reads one stream.
#[repr(align(64))]
pub(crate) struct Sixteen {
    /// The stage with half block 8, then the two blocks of the stage with half block 4.
    pub(crate) outer: [f64; 4],
    /// The stage with half block 2.
    pub(crate) pairs: [f64; 4],
    /// The stage with half block 1, even blocks.
    pub(crate) even: [f64; 4],
    /// The stage with half block 1, odd blocks.
    pub(crate) odd: [f64; 4],
}

/// Twiddles of one direction, each as the residue of least absolute value: at most `q / 2`.
pub(crate) struct DoubleTwiddles {
    /// `root^rev(i)` at `i`, for all stages but the last four.
    pub(crate) front: Vec<f64>,
    /// The last four stages.
    pub(crate) tail: Vec<Sixteen>,
}

impl DoubleTwiddles {
    /// For `N >= 16`.
    pub(super) fn new(m: &Modulus, log_n: u32, root: u64) -> Self {
        let n = 1usize << log_n;
        let powers = bit_reversed_powers(m, log_n, root);
        let at = |blocks: usize, i: usize| m.center(powers[blocks + i]) as f64;
        let mut front = vec![0.0];
        for log_blocks in 0..log_n.saturating_sub(4) {
            let blocks = 1 << log_blocks;
            front.extend((0..blocks).map(|i| at(blocks, i)));
        }
        let tail = (0..n / 16)
            .map(|i| Sixteen {
                outer: [at(n / 16, i), at(n / 8, 2 * i), at(n / 8, 2 * i + 1), 0.0],
                pairs: std::array::from_fn(|lane| at(n / 4, 4 * i + lane)),
                even: std::array::from_fn(|lane| at(n / 2, 8 * i + 2 * lane)),
                odd: std::array::from_fn(|lane| at(n / 2, 8 * i + 2 * lane + 1)),
            })
            .collect();
        Self { front, tail }
    }
}
