//! Support for tests of this and other crates: toy parameters, a small generator, and mutation of
//! files. Nothing here is secure and nothing outside of tests may use it.

use std::sync::OnceLock;

use crate::container::MAGIC;
use crate::{Params, ParamsSpec, SecurityLevel};

/// Splitmix64: a small deterministic generator for tests (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct TestRng(u64);

impl TestRng {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// A number in [-1, 1).
    pub fn symmetric(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// A number of the standard normal distribution (Box-Muller).
    pub fn normal(&mut self) -> f64 {
        let u = ((self.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let v = (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

/// A specification for tests: three levels at scale 2^30, digits of two primes. Insecure.
#[must_use]
pub fn toy_spec(log_n: u32) -> ParamsSpec {
    ParamsSpec {
        log_n,
        first_bits: 40,
        scale_bits: 30,
        levels: 3,
        special_bits: 40,
        special_count: 2,
        digit_limbs: 2,
        security: SecurityLevel::Bits128,
    }
}

/// Insecure toy parameters with N = 2^10, shared.
///
/// # Panics
/// Never in practice: the specification is constant.
#[must_use]
pub fn toy_params() -> Params {
    static PARAMS: OnceLock<Params> = OnceLock::new();
    PARAMS.get_or_init(|| params(10)).clone()
}

/// Insecure parameters with N = 2^3, for files so small that very many can be tried, shared.
///
/// # Panics
/// Never in practice: the specification is constant.
#[must_use]
pub fn tiny_params() -> Params {
    static PARAMS: OnceLock<Params> = OnceLock::new();
    PARAMS.get_or_init(|| params(3)).clone()
}

fn params(log_n: u32) -> Params {
    match toy_spec(log_n).validate_insecure_for_tests() {
        Ok(params) => params,
        Err(error) => panic!("toy parameters: {error}"),
    }
}

/// A file with one to three random faults: flipped bits, overwritten bytes and length fields, a
/// cut, removed, repeated or foreign pieces. Three times of four the digest and the total length
/// are then made right again ([`reseal`]), so that the parser behind them is reached.
#[must_use]
pub fn mutate(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut rng = TestRng::new(seed);
    let mut out = bytes.to_vec();
    for _ in 0..1 + rng.below(3) {
        mutate_once(&mut out, &mut rng);
    }
    if rng.below(4) != 0 {
        reseal(&mut out);
    }
    out
}

fn mutate_once(out: &mut Vec<u8>, rng: &mut TestRng) {
    const INTERESTING: [u64; 10] = [
        0,
        1,
        0x7f,
        0x80,
        0xff,
        0xffff,
        1 << 31,
        u32::MAX as u64,
        1 << 63,
        u64::MAX,
    ];
    let len = out.len();
    if len == 0 {
        return;
    }
    let at = rng.below(len);
    let span = 1 + rng.below(24.min(len - at));
    match rng.below(8) {
        0 | 1 => out[at] ^= 1 << rng.below(8),
        2 => out[at] = rng.next_u64() as u8,
        3 => out.truncate(at),
        4 => {
            out.drain(at..at + span);
        }
        5 => {
            let piece = out[at..at + span].to_vec();
            let to = rng.below(len);
            out.splice(to..to, piece);
        }
        6 => {
            // Any aligned field of 2, 4 or 8 bytes: a length, a count, a version.
            let width = [2, 4, 8][rng.below(3)];
            let at = at / width * width;
            let value = if rng.below(2) == 0 {
                INTERESTING[rng.below(INTERESTING.len())]
            } else {
                rng.below(2 * len) as u64
            };
            for (to, from) in out[at..].iter_mut().zip(value.to_le_bytes()).take(width) {
                *to = from;
            }
        }
        _ => {
            let from = rng.below(len);
            let piece = out[from..(from + span).min(len)].to_vec();
            for (to, from) in out[at..].iter_mut().zip(piece) {
                *to = from;
            }
        }
    }
}

/// Makes the total length and the digest of a container right again (if it still begins like
/// one).
pub fn reseal(bytes: &mut [u8]) {
    let total = bytes.len() as u64;
    if total < 96 || !bytes.starts_with(&MAGIC) {
        return;
    }
    bytes[56..64].copy_from_slice(&total.to_le_bytes());
    let end = bytes.len() - 32;
    let digest = blake3::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(digest.as_bytes());
}
