//! How a table of features by tokens lies in ciphertexts.

use veilformer_ckks::{Complex, SlotVector};

use crate::CircuitError;

/// Where feature `f` of token `t` stands. Features beyond the last one, and tokens beyond it, are
/// zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Ciphertext `f / width`, slot `t * width + f mod width`; `width` is a power of two, and
    /// `tokens * width` at most the number of slots. What is the same for all tokens has period
    /// `width`.
    FeatureFast {
        /// Features of a token in one ciphertext.
        width: usize,
    },
    /// Ciphertext `f / width`, slot `(f mod width) * run + t`, repeated with period
    /// `width * run`; both are powers of two, `run` at least the number of tokens.
    TokenFast {
        /// Features in one ciphertext.
        width: usize,
        /// Slots of a feature.
        run: usize,
    },
    /// Ciphertext `f`, slot `t`.
    Column,
}

impl Packing {
    /// Features in one ciphertext.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            Self::FeatureFast { width } | Self::TokenFast { width, .. } => width,
            Self::Column => 1,
        }
    }

    /// Slots from a feature to the next.
    pub(crate) fn unit(self) -> usize {
        match self {
            Self::TokenFast { run, .. } => run,
            _ => 1,
        }
    }

    /// Ciphertexts that hold so many features.
    #[must_use]
    pub fn ciphertexts(self, features: usize) -> usize {
        features.div_ceil(self.width().max(1))
    }

    /// `Ok` if a table of so many tokens can lie so in `slots` slots.
    ///
    /// # Errors
    /// [`CircuitError::Shape`] that says what was expected.
    pub fn check(self, tokens: usize, slots: usize) -> Result<(), CircuitError> {
        let (needed, powers) = match self {
            Self::FeatureFast { width } => (tokens.checked_mul(width), width.is_power_of_two()),
            Self::TokenFast { width, run } => (
                run.checked_mul(width),
                width.is_power_of_two() && run.is_power_of_two() && run >= tokens,
            ),
            Self::Column => (Some(tokens), true),
        };
        if tokens > 0 && powers && needed.is_some_and(|n| n <= slots) {
            return Ok(());
        }
        let what = format!(
            "{tokens} tokens as {self:?} in {slots} slots; at least one token, powers of two, and \
             no more than that many slots are expected"
        );
        Err(CircuitError::shape("packing", what))
    }

    /// The slot of feature `f` in its ciphertext, of token `t`.
    fn slot(self, f: usize, t: usize) -> usize {
        match self {
            Self::FeatureFast { width } => t * width + f % width,
            Self::TokenFast { width, run } => f % width * run + t,
            Self::Column => t,
        }
    }

    /// The ciphertexts' slots for a table `table[f][t]`.
    ///
    /// # Errors
    /// As [`Packing::check`]; an empty table.
    pub fn pack(self, table: &[Vec<f64>], slots: usize) -> Result<Vec<SlotVector>, CircuitError> {
        let tokens = table.iter().map(Vec::len).max().unwrap_or(0);
        self.check(tokens, slots)?;
        let period = match self {
            Self::TokenFast { width, run } => width * run,
            _ => slots,
        };
        let mut out = vec![vec![Complex::default(); slots]; self.ciphertexts(table.len())];
        for (f, feature) in table.iter().enumerate() {
            let ct = &mut out[f / self.width()];
            for (t, value) in feature.iter().enumerate() {
                let at = self.slot(f, t);
                for copy in (at..slots).step_by(period) {
                    ct[copy] = Complex::new(*value, 0.0);
                }
            }
        }
        Ok(out.into_iter().map(SlotVector::Dense).collect())
    }

    /// The real parts of the table of so many features and tokens in these slots; what is not
    /// there is zero.
    #[must_use]
    pub fn unpack(self, cts: &[Vec<Complex>], features: usize, tokens: usize) -> Vec<Vec<f64>> {
        let value = |f: usize, t: usize| {
            let slot = cts
                .get(f / self.width().max(1))
                .and_then(|ct| ct.get(self.slot(f, t)));
            slot.map_or(0.0, |z| z.re)
        };
        (0..features)
            .map(|f| (0..tokens).map(|t| value(f, t)).collect())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_packed_is_found_again() {
        let table: Vec<Vec<f64>> = (0..5)
            .map(|f| (0..3).map(|t| (10 * f + t + 1) as f64).collect())
            .collect();
        for packing in [
            Packing::FeatureFast { width: 2 },
            Packing::TokenFast { width: 2, run: 4 },
            Packing::Column,
        ] {
            let cts = packing.pack(&table, 16).unwrap();
            assert_eq!(cts.len(), packing.ciphertexts(5));
            let slots: Vec<Vec<Complex>> = cts.iter().map(|ct| ct.entries().to_vec()).collect();
            assert_eq!(packing.unpack(&slots, 5, 3), table);
        }
        let cts = Packing::TokenFast { width: 2, run: 4 }
            .pack(&table, 16)
            .unwrap();
        assert_eq!(cts[0].rotated(8), cts[0]);
        assert!(Packing::FeatureFast { width: 3 }.check(1, 16).is_err());
        assert!(Packing::FeatureFast { width: 8 }.check(3, 16).is_err());
        assert!(
            Packing::TokenFast { width: 2, run: 2 }
                .check(3, 16)
                .is_err()
        );
        assert!(Packing::Column.pack(&[], 16).is_err());
    }
}
