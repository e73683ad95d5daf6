//! The scale of an encoded value.

use serde::{Deserialize, Serialize};

use crate::CkksError;

/// Largest relative difference at which two scales count as equal.
///
/// The per-level table of [`crate::Params`] makes scales of equal history bitwise equal; the
/// tolerance only absorbs the rounding of products taken in another order. 2^-40 is below every
/// noise that a ciphertext carries.
pub const SCALE_TOLERANCE: f64 = 1.0 / (1u64 << 40) as f64;

/// The factor between a slot's value and the encoded number: `coefficients = embedding(value *
/// scale)`. Finite and positive.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Scale(f64);

impl Scale {
    /// A scale from its value.
    ///
    /// # Errors
    /// If `value` is not finite and positive.
    pub fn new(value: f64) -> Result<Self, CkksError> {
        if value.is_finite() && value > 0.0 {
            Ok(Self(value))
        } else {
            Err(CkksError::BadScale(value))
        }
    }

    /// 2^bits.
    #[must_use]
    pub fn power_of_two(bits: u32) -> Self {
        Self(2f64.powi(bits.min(1000) as i32))
    }

    /// The value.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0
    }

    /// log2 of the value.
    #[must_use]
    pub fn log2(self) -> f64 {
        self.0.log2()
    }

    /// The scale of a product of two values.
    #[must_use]
    pub fn product(self, other: Self) -> Self {
        Self::clamped(self.0 * other.0)
    }

    /// The scale after dividing the encoded number by `divisor` (a positive finite number).
    #[must_use]
    pub fn divide(self, divisor: f64) -> Self {
        Self::clamped(self.0 / divisor)
    }

    /// The scale after multiplying the encoded number by `factor` (a positive finite number).
    #[must_use]
    pub fn multiply(self, factor: f64) -> Self {
        Self::clamped(self.0 * factor)
    }

    /// Whether both scales are equal up to [`SCALE_TOLERANCE`].
    #[must_use]
    pub fn matches(self, other: Self) -> bool {
        (self.0 - other.0).abs() <= SCALE_TOLERANCE * self.0.max(other.0)
    }

    /// `Ok` if the scales match.
    ///
    /// # Errors
    /// [`CkksError::Scale`] if they do not.
    pub fn expect(self, expected: Self) -> Result<(), CkksError> {
        if self.matches(expected) {
            Ok(())
        } else {
            Err(CkksError::Scale {
                found: self.0,
                expected: expected.0,
            })
        }
    }

    /// Keeps the invariant where a product leaves the range of f64: such a scale no longer
    /// matches anything in use and fails the next check, instead of being infinite or zero.
    fn clamped(value: f64) -> Self {
        Self(value.clamp(f64::MIN_POSITIVE, f64::MAX))
    }
}

impl TryFrom<f64> for Scale {
    type Error = CkksError;
    fn try_from(value: f64) -> Result<Self, CkksError> {
        Self::new(value)
    }
}

impl From<Scale> for f64 {
    fn from(scale: Scale) -> f64 {
        scale.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_what_is_not_a_scale() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Scale::new(bad).is_err());
        }
    }

    #[test]
    fn tolerance_is_relative() {
        let s = Scale::power_of_two(36);
        assert!(s.matches(s.multiply(1.0 + 0.5 * SCALE_TOLERANCE)));
        assert!(!s.matches(s.multiply(1.0 + 3.0 * SCALE_TOLERANCE)));
        assert!(s.product(s).divide(2f64.powi(36)).matches(s));
    }
}
