//! Seeded randomness of training: dropout masks and initial weights, the same on every machine
//! and for every number of threads.

use candle_core::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::error::Result;

/// A stream of random values that is a function of `(seed, stream)` only.
pub struct Noise {
    rng: ChaCha8Rng,
}

impl Noise {
    /// Stream number `stream` of `seed`. Training takes one stream per epoch, so that a resumed
    /// run draws what the uninterrupted one would have drawn.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self { rng }
    }

    /// The generator itself.
    pub fn rng(&mut self) -> &mut ChaCha8Rng {
        &mut self.rng
    }

    /// `n` values that are 0 with probability `rate` (in steps of 2^-16) and else `1 / (1 - rate)`.
    pub fn keep(&mut self, n: usize, rate: f64) -> Vec<f32> {
        let threshold = (rate * 65536.0).round() as u32;
        let kept = (1.0 / (1.0 - f64::from(threshold) / 65536.0)) as f32;
        let mut bytes = vec![0u8; 2 * n];
        self.rng.fill_bytes(&mut bytes);
        let (words, _) = bytes.as_chunks::<2>();
        words
            .iter()
            .map(|w| {
                if u32::from(u16::from_le_bytes(*w)) < threshold {
                    0.0
                } else {
                    kept
                }
            })
            .collect()
    }

    /// Inverted dropout of every element of `x` (Srivastava et al. 2014).
    ///
    /// # Errors
    /// When the tensor operation fails.
    pub fn drop(&mut self, x: &Tensor, rate: f64) -> Result<Tensor> {
        if rate == 0.0 {
            return Ok(x.clone());
        }
        let mask = self.keep(x.elem_count(), rate);
        Ok((x * Tensor::from_vec(mask, x.shape(), &Device::Cpu)?)?)
    }

    /// `n` normal values of standard deviation `sd` (Box & Muller 1958).
    pub fn normal(&mut self, n: usize, sd: f64) -> Vec<f32> {
        let mut unit = || (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (0..n)
            .map(|_| {
                let radius = (-2.0 * (1.0 - unit()).ln()).sqrt();
                (sd * radius * (std::f64::consts::TAU * unit()).cos()) as f32
            })
            .collect()
    }

    /// One sign, each with probability one half.
    pub fn sign(&mut self) -> f32 {
        if self.rng.next_u32() & 1 == 0 {
            1.0
        } else {
            -1.0
        }
    }
}
