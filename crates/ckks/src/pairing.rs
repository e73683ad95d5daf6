//! Two real vectors in one ciphertext, as the real and imaginary parts of its slots.
//!
//! What acts on both parts alike (sums, products with real numbers, rotations, a bootstrap) is then
//! paid once for two vectors. The parts are had back by conjugation: x + conj(x) = 2 Re(x) and
//! x - conj(x) = 2i Im(x). i is the monomial X^(N/2), whose value at every root psi^(5^j) is
//! i^(5^j) = i: a product with it is exact, keeps the scale and takes no level. The halves are
//! taken when the vectors are encoded, where they cost nothing.

use crate::{CkksError, Complex, Ops, OpsError, Scale, SlotVector};

/// The slots (re + i im) / 2, from which [`split`] gives `re` and `im`.
///
/// # Errors
/// [`CkksError::Slots`] if the lengths differ.
pub fn halves(re: &[f64], im: &[f64]) -> Result<SlotVector, CkksError> {
    if re.len() != im.len() {
        return Err(CkksError::Slots(format!(
            "a real part of {} slots and an imaginary part of {}; they must be equally long",
            re.len(),
            im.len()
        )));
    }
    let half = |(&re, &im): (&f64, &f64)| Complex::new(re / 2.0, im / 2.0);
    Ok(SlotVector::Dense(re.iter().zip(im).map(half).collect()))
}

/// Twice the real and twice the imaginary part of every slot, at the level and scale of `ct`. One
/// key switch for both. The variance of the noise is twice that of `ct`, and once that of the
/// key switch.
///
/// # Errors
/// [`OpsError::MissingKey`] without a conjugation key.
pub fn split<O: Ops>(ops: &mut O, ct: &O::Ct) -> Result<(O::Ct, O::Ct), OpsError> {
    let conjugate = ops.conjugate(ct)?;
    let re = ops.add(ct, &conjugate)?;
    let difference = ops.sub(ct, &conjugate)?;
    let im = turn(ops, &difference, Complex::new(0.0, -1.0))?;
    Ok((re, im))
}

/// re + i im for two ciphertexts of one level and scale: no key switch and no level.
///
/// # Errors
/// [`OpsError::LevelMismatch`], [`OpsError::ScaleMismatch`].
pub fn join<O: Ops>(ops: &mut O, re: &O::Ct, im: &O::Ct) -> Result<O::Ct, OpsError> {
    let im = turn(ops, im, Complex::new(0.0, 1.0))?;
    ops.add(re, &im)
}

/// The product with a power of i, encoded at scale 1: exact.
fn turn<O: Ops>(ops: &mut O, ct: &O::Ct, unit: Complex) -> Result<O::Ct, OpsError> {
    let level = ops.level(ct);
    let unit = ops.plain(&SlotVector::Constant(unit), level, Scale::power_of_two(0))?;
    ops.mul_plain(ct, &unit)
}
