//! A state with a public decay, over all tokens at once.
//!
//! `s_t = a . s_(t-1) + x_t` unrolls to `s_t = sum_k a^k x_(t-k)`: with `a` public this is one
//! linear map over tokens, a lower triangular Toeplitz matrix per feature, whose diagonal `k` is a
//! rotation by `k` tokens times a plaintext of `a^k` (public-decay state-space models, arXiv
//! 2605.16647). One level, whatever the number of tokens.

use crate::transform::{Chunk, Diagonals, Layout, bsgs};
use veilformer_ckks::{Ops, OpsError, Transform};

/// The map from what is written into the states to the states, both in `layout`, where each token
/// of a chunk takes `batch` slots. `decay` and `scale` give per feature what a token leaves of the
/// state and the factor on what is written. Tokens before the chunk's first do not exist: a state
/// never reaches into its neighbour's slots. Junk chunks get zero.
///
/// Diagonals whose factors all lie below `2^-60` are left out.
///
/// # Errors
/// A batch that does not divide the chunks; what `ops` refuses to encode.
pub fn recurrence<O: Ops>(
    ops: &mut O,
    layout: &Layout,
    batch: usize,
    [decay, scale]: [&[f64]; 2],
    level: usize,
) -> Result<Transform<O::Plain>, OpsError> {
    if batch == 0 || !layout.run.is_multiple_of(batch) {
        let what = format!("{batch} sentences in chunks of {} slots", layout.run);
        return Err(OpsError::Invalid {
            op: "recurrence",
            what,
        });
    }
    let tokens = layout.run / batch;
    let count = tokens * layout.chunks.len();
    let mut diagonals = Diagonals::new();
    for k in 0..tokens {
        let mut diagonal = vec![0.0; count];
        for (chunk, units) in layout.chunks.iter().zip(diagonal.chunks_mut(tokens)) {
            let Chunk::Feature(f) = chunk else { continue };
            let (a, s) = (decay.get(*f), scale.get(*f));
            let factor = a.map_or(0.0, |a| a.powi(k as i32)) * s.copied().unwrap_or(0.0);
            units.iter_mut().skip(k).for_each(|u| *u = factor);
        }
        if diagonal.iter().any(|v| v.abs() > NEGLIGIBLE) {
            diagonals.insert((0, (count - k) % count), diagonal);
        }
    }
    bsgs(ops, &diagonals, (batch, count), level)
}

/// Far below the rounding of any plaintext.
const NEGLIGIBLE: f64 = 8.7e-19;
