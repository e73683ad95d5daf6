//! Vectors of slots, before they are encoded.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::CkksError;

/// A complex number: the content of one slot.
pub type Complex = num_complex::Complex64;

/// The content of all slots of one plaintext, in the form that says most about it: constants and
/// periodic vectors encode to far fewer words than dense ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SlotVector {
    /// The same number in every slot.
    Constant(Complex),
    /// Slot j holds entry `j mod period`; the length is the period, a power of two that is at
    /// most the number of slots.
    Periodic(Vec<Complex>),
    /// One entry per slot.
    Dense(Vec<Complex>),
}

impl SlotVector {
    /// The same real number in every slot.
    #[must_use]
    pub fn real_constant(value: f64) -> Self {
        Self::Constant(Complex::new(value, 0.0))
    }

    /// A dense vector of real numbers.
    #[must_use]
    pub fn real(values: &[f64]) -> Self {
        Self::Dense(values.iter().map(|&v| Complex::new(v, 0.0)).collect())
    }

    /// A periodic vector of real numbers.
    #[must_use]
    pub fn real_periodic(values: &[f64]) -> Self {
        Self::Periodic(values.iter().map(|&v| Complex::new(v, 0.0)).collect())
    }

    /// The distinct entries: one, a period, or all.
    #[must_use]
    pub fn entries(&self) -> &[Complex] {
        match self {
            Self::Constant(value) => std::slice::from_ref(value),
            Self::Periodic(values) | Self::Dense(values) => values,
        }
    }

    /// The same, to be changed; their number stays.
    #[must_use]
    pub fn entries_mut(&mut self) -> &mut [Complex] {
        match self {
            Self::Constant(value) => std::slice::from_mut(value),
            Self::Periodic(values) | Self::Dense(values) => values,
        }
    }

    /// The entry of slot `j`; zero for an empty vector.
    #[must_use]
    pub fn at(&self, j: usize) -> Complex {
        let entries = self.entries();
        entries
            .get(j % entries.len().max(1))
            .copied()
            .unwrap_or_default()
    }

    /// Largest absolute value of an entry.
    #[must_use]
    pub fn max_abs(&self) -> f64 {
        self.entries().iter().map(|z| z.norm()).fold(0.0, f64::max)
    }

    /// Whether every imaginary part is exactly zero.
    #[must_use]
    pub fn is_real(&self) -> bool {
        self.entries().iter().all(|z| z.im == 0.0)
    }

    /// Whether every entry is exactly zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.entries().iter().all(|z| z.re == 0.0 && z.im == 0.0)
    }

    /// The vector with entry j taken from entry j + `by` (as [`crate::Ops::rotate`] does).
    #[must_use]
    pub fn rotated(&self, by: i64) -> Self {
        let turn = |values: &[Complex]| {
            let mut out = values.to_vec();
            if !out.is_empty() {
                out.rotate_left(by.rem_euclid(values.len() as i64) as usize);
            }
            out
        };
        match self {
            Self::Constant(value) => Self::Constant(*value),
            Self::Periodic(values) => Self::Periodic(turn(values)),
            Self::Dense(values) => Self::Dense(turn(values)),
        }
    }

    /// The same slots in the smallest form: the shortest power-of-two period, a constant if all
    /// entries are equal (compared bit for bit up to the sign of zero).
    #[must_use]
    pub fn simplified(self) -> Self {
        let mut length = self.entries().len();
        if length == 0 || !length.is_power_of_two() {
            return self;
        }
        let entries = self.entries();
        while length > 1 && entries[..length / 2] == entries[length / 2..length] {
            length /= 2;
        }
        match self {
            Self::Periodic(values) | Self::Dense(values) if length == 1 => {
                Self::Constant(values[0])
            }
            Self::Dense(values) if length == values.len() => Self::Dense(values),
            Self::Dense(mut values) | Self::Periodic(mut values) => {
                values.truncate(length);
                Self::Periodic(values)
            }
            constant => constant,
        }
    }

    /// Every slot, `slots` of them.
    ///
    /// # Errors
    /// As [`SlotVector::check`].
    pub fn to_dense(&self, slots: usize) -> Result<Cow<'_, [Complex]>, CkksError> {
        self.check(slots)?;
        Ok(match self {
            Self::Dense(values) => Cow::Borrowed(values),
            _ => Cow::Owned((0..slots).map(|j| self.at(j)).collect()),
        })
    }

    /// `Ok` if the vector fits `slots` slots and every number is finite.
    ///
    /// # Errors
    /// [`CkksError::Slots`] with what was expected.
    pub fn check(&self, slots: usize) -> Result<(), CkksError> {
        let len = self.entries().len();
        match self {
            Self::Constant(_) => {}
            Self::Periodic(_) => {
                if !len.is_power_of_two() || len > slots {
                    return Err(CkksError::Slots(format!(
                        "the period is {len}, expected a power of two up to {slots}"
                    )));
                }
            }
            Self::Dense(_) => {
                if len != slots {
                    return Err(CkksError::Slots(format!(
                        "a dense vector has {len} entries, expected {slots}; pad it with zeros"
                    )));
                }
            }
        }
        if let Some(j) = self.entries().iter().position(|z| !z.is_finite()) {
            return Err(CkksError::Slots(format!(
                "entry {j} is not a finite number"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_agree() {
        let period = SlotVector::real_periodic(&[1.0, 2.0, 3.0, 4.0]);
        let dense = SlotVector::Dense(period.to_dense(16).unwrap().into_owned());
        assert_eq!(dense.clone().simplified(), period);
        for by in [-9, -1, 0, 1, 3, 16, 21] {
            let rotated = dense.rotated(by);
            assert_eq!(rotated.simplified(), period.rotated(by));
            assert_eq!(
                dense.rotated(by).at(0),
                dense.at(by.rem_euclid(16) as usize)
            );
        }
        let equal = SlotVector::real(&[0.5; 8]).simplified();
        assert_eq!(equal, SlotVector::real_constant(0.5));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert!(SlotVector::real(&[1.0; 7]).check(8).is_err());
        assert!(SlotVector::real_periodic(&[1.0; 3]).check(8).is_err());
        assert!(SlotVector::real_periodic(&[1.0; 16]).check(8).is_err());
        assert!(SlotVector::real_periodic(&[]).check(8).is_err());
        assert!(SlotVector::real_constant(f64::NAN).check(8).is_err());
        assert_eq!(SlotVector::Dense(vec![]).at(3), Complex::default());
    }
}
