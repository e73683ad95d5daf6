//! ModRaise of [`ClearOps`].

use veilformer_ckks::noise::{NoiseModel, ROUNDING};
use veilformer_ckks::{Complex, OpsError, mod_raise_keys};

use super::{ClearCiphertext, ClearOps, Result};
use crate::bootstrap::{to_coefficients, to_slots};

/// Hamming weight of the ephemeral secret.
const WEIGHT: u32 = 32;

impl ClearOps {
    /// [`veilformer_ckks::Ops::mod_raise`]. Under a secret of weight h a coefficient of
    /// c1's product with it is, in units of q0, a sum of h values that are uniform on
    /// `[-1/2, 1/2)`. What is added to the message is q0 times the integer nearest to that.
    pub(super) fn raise(&mut self, a: &ClearCiphertext) -> Result<ClearCiphertext> {
        const OP: &str = "mod_raise";
        OpsError::expect_level(OP, a.level, 0)?;
        let q0 = self.params.product(self.params.basis_at(0));
        let mut coefficients: Vec<Complex> = to_coefficients(&a.raw)
            .into_iter()
            .map(|m| Complex::from(m + q0 * self.overflows.rounded_uniform_sum(WEIGHT)))
            .collect();
        let upper = coefficients.split_off(a.raw.len());
        let top = self.params.max_level();
        let raised = self.fitting(OP, to_slots(&coefficients, &upper), top, a.scale)?;
        for (purpose, level) in mod_raise_keys(top) {
            self.need(purpose, level);
        }
        self.counts.raises += 1;
        // The ModDown into the ephemeral secret, and that of the way back.
        let into = ROUNDING * f64::from(WEIGHT + 1);
        Ok(self.disturbed(raised, |model: &NoiseModel| into + model.division()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::toy_params;
    use veilformer_ckks::{Ops, SecretKind, SlotVector};

    #[test]
    fn multiples_of_q0_are_added() {
        let params = toy_params(3);
        let n = params.slots();
        let slots: Vec<Complex> = (0..n)
            .map(|j| Complex::new(j as f64 / n as f64, (j % 7) as f64 / 7.0))
            .collect();
        let q0 = params.product(params.basis_at(0));
        let mut ops = ClearOps::new(&params);
        let x = ops.encrypt(&SlotVector::Dense(slots), 0).unwrap();
        let y = ops.mod_raise(&x).unwrap();
        assert_eq!((y.level, y.scale), (params.max_level(), x.scale));
        assert_eq!(ops.counts().raises, 1);
        let difference: Vec<Complex> = y.raw.iter().zip(&x.raw[..]).map(|(a, b)| a - b).collect();
        let mut square = 0.0;
        for c in to_coefficients(&difference) {
            let multiple = c / q0;
            assert!((multiple - multiple.round()).abs() < 1e-9, "{multiple}");
            square += multiple.round().powi(2);
        }
        // Variance 32/12, and 1/12 for the rounding.
        let variance = square / (2 * n) as f64;
        assert!((variance - 33.0 / 12.0).abs() < 1.0, "{variance}");
        // Only from the lowest level.
        assert!(matches!(
            ops.mod_raise(&y),
            Err(OpsError::LevelMismatch { .. })
        ));
    }

    #[test]
    fn noise_of_two_roundings() {
        let params = toy_params(3);
        let mut square = 0.0;
        for seed in 0..64 {
            let mut noisy = ClearOps::with_noise(&params, SecretKind::DenseTernary, seed);
            let zero = vec![Complex::new(0.0, 0.0); params.slots()].into();
            let x = ClearCiphertext {
                raw: zero,
                level: 0,
                scale: params.scale_at(0),
            };
            let y = noisy.mod_raise(&x).unwrap();
            let q0 = params.product(params.basis_at(0));
            for c in to_coefficients(&y.raw) {
                square += (c - q0 * (c / q0).round()).powi(2);
            }
        }
        let variance = square / (64 * params.n()) as f64;
        let model = NoiseModel::new(&params, SecretKind::DenseTernary);
        let ratio = variance / (33.0 / 12.0 + model.division());
        assert!((0.94..1.06).contains(&ratio), "{ratio}");
    }
}
