//! Pass 4: chooses parameters: the smallest ring that carries the program at the wanted security.

use crate::CompileError;
use crate::calibrate::Bounds;
use crate::length::LengthFree;
use crate::lower::{least_chunks, levels, run_length};
use veilformer_ckks::{KeyPurpose, Params, ParamsSpec, SecurityLevel};

/// Largest size that a prime is chosen near to, in bits: kernels take primes below 2^50, and those near a power of
/// two lie on both sides of it.
const MAX_PRIME_BITS: u32 = 49;

/// The parameters for a program whose values stay within `bounds`, with room for `batch` sentences.
///
/// The scale leaves about 22 bits above the rescale noise, which grows with the ring:
/// `N / sqrt(18)` in a slot (design of the scheme, noise of a rescale under a dense secret).
///
/// # Errors
/// [`CompileError::TooDeep`] where no ring carries the depth.
pub fn select(
    program: &LengthFree,
    bounds: &Bounds,
    (security, batch): (SecurityLevel, usize),
) -> Result<Params, CompileError> {
    let levels = levels(program);
    let needed = run_length(program.max_tokens) * batch * least_chunks(program);
    for log_n in 12..=16u32 {
        if needed > 1 << (log_n - 1) {
            continue;
        }
        for scale_bits in [log_n + 22, log_n + 20] {
            // The bottom prime must hold a complex answer with its sign.
            let head = (4.0 * bounds.answer).clamp(1.0, 1e6).log2().ceil() as u32 + 1;
            let first_bits = (scale_bits + head.max(8)).min(MAX_PRIME_BITS);
            let found = candidates(levels, first_bits, scale_bits)
                .into_iter()
                .filter_map(|(special_count, digit_limbs, special_bits)| {
                    let spec = ParamsSpec {
                        log_n,
                        first_bits,
                        scale_bits,
                        levels,
                        special_bits,
                        special_count,
                        digit_limbs,
                        security,
                    };
                    spec.validate().ok()
                })
                .min_by_key(key_switch_transforms);
            if let Some(params) = found {
                return Ok(params);
            }
        }
    }
    Err(CompileError::TooDeep {
        levels,
        slots: needed,
    })
}

/// (special primes, limbs per digit, bits of a special prime) that cover the largest digit.
fn candidates(levels: usize, first_bits: u32, scale_bits: u32) -> Vec<(usize, usize, u32)> {
    let mut out = Vec::new();
    for digit_limbs in 1..=levels + 1 {
        // One bit more than the digit, for primes that lie a little above their target.
        let digit_bits = first_bits + (digit_limbs as u32 - 1) * scale_bits + 1;
        let count = digit_bits.div_ceil(MAX_PRIME_BITS);
        let bits = digit_bits.div_ceil(count) + 1;
        if bits <= MAX_PRIME_BITS {
            out.push((count as usize, digit_limbs, bits));
        }
    }
    out
}

/// Transforms of one limb in the key switches of all levels: what their time goes with.
fn key_switch_transforms(params: &Params) -> usize {
    let special = params.special().len();
    let at = |level: usize| {
        let limbs = params.basis_at(level).len();
        let digits = params.digits_at(KeyPurpose::Relinearization, level).len();
        digits * (limbs + special) + 2 * (limbs + special)
    };
    (0..=params.max_level()).map(at).sum()
}
