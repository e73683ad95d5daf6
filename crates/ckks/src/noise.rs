//! Predicted noise: the variance of one coefficient of the error after each operation.
//!
//! For a ciphertext with c0 + c1 s = m + e, where m is the exact encoded message (coefficients at
//! the ciphertext's scale), the functions give Var(e_k), which is the same for every coefficient
//! k in the usual average-case model: coefficients independent with mean zero, a product of
//! polynomials a b having variance N Var(a) Var(b) per coefficient (Costache, Curtis, Hales,
//! Murphy, Ogilvie, Player, "On the precision loss in approximate homomorphic encryption",
//! ePrint 2022/162). A slot sums N coefficients with weights of absolute value one, so that its
//! mean squared error is N Var(e) / scale^2.

use veilformer_ring::Basis;

use crate::{CkksError, KeyPurpose, Params, Scale, SecretKind};

/// Standard deviation of fresh errors, that of the security table.
pub const SIGMA: f64 = 3.2;

/// Variance of the rounding error of a number rounded to the nearest integer.
pub const ROUNDING: f64 = 1.0 / 12.0;

/// The noise of operations under one parameter set and one kind of secret. Arguments and results
/// named "variance" are per coefficient, in units of the encoded integers.
#[derive(Clone, Debug)]
pub struct NoiseModel {
    params: Params,
    secret: SecretKind,
    sigma: f64,
}

impl NoiseModel {
    /// The model for a secret of the given kind and errors of deviation [`SIGMA`].
    #[must_use]
    pub fn new(params: &Params, secret: SecretKind) -> Self {
        Self {
            params: params.clone(),
            secret,
            sigma: SIGMA,
        }
    }

    /// Ring dimension as a number.
    fn n(&self) -> f64 {
        self.params.n() as f64
    }

    /// Expected squared norm of the secret: N Var(s).
    fn secret_norm(&self) -> f64 {
        self.n() * self.secret.variance(self.params.n())
    }

    /// Rounding both halves of a ciphertext to integers: 1/12 for c0 and N Var(s)/12 for c1 times
    /// the secret. N/18 for a dense ternary secret: what a rescale or ModDown leaves.
    #[must_use]
    pub fn division(&self) -> f64 {
        ROUNDING * (1.0 + self.secret_norm())
    }

    /// The part of [`NoiseModel::division`] that comes from c1. In slot j it is a random number
    /// times the secret's slot s(zeta_j), and |s(zeta_j)|^2 differs between slots like an
    /// exponential variable: over the slots the error is a product of two Gaussians, whose real part
    /// has a Laplace distribution, and the slots in which it is large are the same in every
    /// operation under one secret.
    #[must_use]
    pub fn rounding_of_c1(&self) -> f64 {
        ROUNDING * self.secret_norm()
    }

    /// Encryption under the secret key: sigma^2. The message counts as what was encoded.
    #[must_use]
    pub fn fresh_secret_key(&self) -> f64 {
        self.sigma * self.sigma
    }

    /// Encryption under a public key b = -a s + e with a ternary v and errors e0, e1:
    /// v e + e0 + e1 s, that is sigma^2 (1 + N 2/3 + N Var(s)).
    #[must_use]
    pub fn fresh_public_key(&self) -> f64 {
        self.sigma * self.sigma * (1.0 + self.n() * 2.0 / 3.0 + self.secret_norm())
    }

    /// Rounding of a plaintext's coefficients, the variance averaged over all N of them:
    /// `rounded_coefficients` are not exact zeros (N of a dense vector, 2m of one of period m, one
    /// of a real constant).
    #[must_use]
    pub fn encoding(&self, rounded_coefficients: usize) -> f64 {
        ROUNDING * rounded_coefficients as f64 / self.n()
    }

    /// Sum or difference of independent ciphertexts.
    #[must_use]
    pub fn sum(&self, a: f64, b: f64) -> f64 {
        a + b
    }

    /// Product with a plaintext whose coefficients have the squared norm
    /// `plain_norm` (see [`NoiseModel::message_norm`]); the plaintext's own rounding counts as
    /// part of it. The scale is then the product of both.
    #[must_use]
    pub fn plain_product(&self, variance: f64, plain_norm: f64) -> f64 {
        variance * plain_norm
    }

    /// Product of two ciphertexts with independent noise and messages of the given squared
    /// coefficient norms: m1 e2 + m2 e1 + e1 e2, before relinearization.
    #[must_use]
    pub fn product(&self, a: f64, a_norm: f64, b: f64, b_norm: f64) -> f64 {
        a * b_norm + b * a_norm + self.n() * a * b
    }

    /// Square of a ciphertext: 2 m e + e^2.
    #[must_use]
    pub fn square(&self, variance: f64, norm: f64) -> f64 {
        4.0 * variance * norm + 2.0 * self.n() * variance * variance
    }

    /// The error of key-switching a polynomial with a rotation's key at `level`, before the division by P,
    /// in units of P^2: sum over digits of N |D|^2/12 sigma^2 / P^2, where D is the product of the
    /// digit's primes at this level.
    #[must_use]
    pub fn key_switch_error(&self, level: usize) -> f64 {
        self.error_of_key(KeyPurpose::Rotation(1), level)
    }

    fn error_of_key(&self, purpose: KeyPurpose, level: usize) -> f64 {
        let chain = self.params.chain();
        let log_p = chain.product_log2(self.params.special_at(purpose, level));
        let digits = self.params.digits_at(purpose, level).into_iter();
        let errors = digits.map(|digit| {
            let log_d = chain.product_log2(digit);
            self.n() * ROUNDING * self.sigma * self.sigma * (2.0 * (log_d - log_p)).exp2()
        });
        errors.sum()
    }

    /// What a rotation at `level` adds: its error and the rounding of ModDown. A conjugation adds no
    /// more.
    #[must_use]
    pub fn key_switch(&self, level: usize) -> f64 {
        self.key_switch_error(level) + self.division()
    }

    /// What a relinearization at `level` adds where nothing is rescaled with it.
    #[must_use]
    pub fn relinearization(&self, level: usize) -> f64 {
        self.error_of_key(KeyPurpose::Relinearization, level) + self.division()
    }

    /// What [`crate::Ops::mod_raise`] adds, beside the multiples of q0 that belong to it. Under the
    /// ephemeral secret of weight h the error of the key to it and the rounding of its ModDown,
    /// (1 + h)/12; under the client's secret the same of the key from it. What both switch is smaller
    /// than the modulus Q0 of level 0, so that either error is N Q0^2/12 sigma^2 / P^2, with P that
    /// of the keys' shape.
    ///
    /// # Errors
    /// As [`KeyPurpose::shape`].
    pub fn mod_raise(&self) -> Result<f64, CkksError> {
        let to = KeyPurpose::ToEphemeral;
        let shape = to.shape(&self.params, 0)?;
        let log = |basis: Basis| self.params.chain().product_log2(basis);
        let ratio = (2.0 * (log(self.params.covering(0)) - log(shape.special))).exp2();
        let key = self.n() * ROUNDING * self.sigma * self.sigma * ratio;
        let ephemeral = Self {
            secret: to.secret(&self.params, self.secret),
            ..self.clone()
        };
        Ok(key + ephemeral.division() + key + self.division())
    }

    /// What a rotation at `level` adds that is composed of so many keys
    /// ([`crate::Evaluator::composing_rotations`]): each key switch is on top of the others, and a
    /// rotation moves noise without changing its variance.
    #[must_use]
    pub fn rotation(&self, level: usize, keys: usize) -> f64 {
        keys as f64 * self.key_switch(level)
    }

    /// What [`crate::Ops::rotate_sum`] adds at `level` for so many rotations: the error of each key, and one
    /// rounding. The variance of what is summed is that of as many terms, and one more.
    #[must_use]
    pub fn rotation_sum(&self, level: usize, rotations: usize) -> f64 {
        rotations as f64 * self.key_switch_error(level) + self.division()
    }

    /// What a baby step of [`crate::Ops::linear_transform`] at `level` adds to its input: the error
    /// of the key alone. It stays modulo the special primes, so nothing is rounded before the
    /// product with the plaintext.
    #[must_use]
    pub fn baby_step(&self, level: usize) -> f64 {
        self.key_switch_error(level)
    }

    /// What a giant step of [`crate::Ops::linear_transform`] at `level` adds to its sum of
    /// products, before the rescale: the error of its key, and, if any of its inputs was
    /// `rotated`, the rounding of the half that meets the secret (N Var(s)/12): the other half is
    /// not divided by the special primes until the end.
    #[must_use]
    pub fn giant_step(&self, level: usize, rotated: bool) -> f64 {
        let rounding = if rotated {
            ROUNDING * self.secret_norm()
        } else {
            0.0
        };
        self.key_switch_error(level) + rounding
    }

    /// What is left of a variance after the rescale of `level`, rounding included. The last step
    /// of a linear transform is of this kind as well, its division by the special primes included.
    #[must_use]
    pub fn rescale(&self, variance: f64, level: usize) -> f64 {
        variance * self.step_factor(level) + self.division()
    }

    /// Relinearization and rescale in one division, as [`crate::Ops::mul_sum`] does: `variance` is
    /// that of the sum of products.
    #[must_use]
    pub fn relinearize_rescale(&self, variance: f64, level: usize) -> f64 {
        let key = self.error_of_key(KeyPurpose::Relinearization, level);
        (variance + key) * self.step_factor(level) + self.division()
    }

    /// (prod(add) / prod(drop))^2 of the step of `level`.
    fn step_factor(&self, level: usize) -> f64 {
        let step = self.params.step_at(level);
        let log = |basis: Basis| self.params.chain().product_log2(basis);
        (2.0 * (log(step.add) - log(step.drop))).exp2()
    }

    /// Expected squared norm of the coefficients of a message whose slots have the mean squared
    /// absolute value `mean_square`: the embedding is sqrt(N) times an isometry (on the
    /// N/2 slots and their conjugates), so the coefficients' squared norm is
    /// `mean_square * scale^2`.
    #[must_use]
    pub fn message_norm(mean_square: f64, scale: Scale) -> f64 {
        mean_square * scale.value() * scale.value()
    }

    /// Root mean square of a slot's (complex) error: sqrt(N Var(e)) / scale.
    #[must_use]
    pub fn slot_deviation(&self, variance: f64, scale: Scale) -> f64 {
        (self.n() * variance).sqrt() / scale.value()
    }

    /// Root mean square of the real part of a slot's error.
    #[must_use]
    pub fn slot_deviation_real(&self, variance: f64, scale: Scale) -> f64 {
        self.slot_deviation(variance, scale) / 2f64.sqrt()
    }

    /// Bits of precision of a slot: -log2 of [`NoiseModel::slot_deviation_real`].
    #[must_use]
    pub fn precision_bits(&self, variance: f64, scale: Scale) -> f64 {
        -self.slot_deviation_real(variance, scale).log2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn rescale_noise_of_the_design_note() {
        // "a rescale under a dense secret leaves about 2^-26 per slot at scale 2^40":
        // sqrt(N) sqrt(N/18) / 2^40 at N = 2^16.
        let n = 65536f64;
        let expected = (n * (n / 18.0)).sqrt() / 2f64.powi(40);
        assert!((expected.log2() + 26.0).abs() < 0.2);
        let params = testing::toy_params();
        let model = NoiseModel::new(&params, SecretKind::DenseTernary);
        let n = params.n() as f64;
        assert!((model.division() - (n / 18.0 + 1.0 / 12.0)).abs() < 1e-12);
    }

    #[test]
    fn key_switch_is_dominated_by_rounding() {
        let params = testing::toy_params();
        let model = NoiseModel::new(&params, SecretKind::DenseTernary);
        for level in 0..=params.max_level() {
            assert!(model.key_switch_error(level) < 4.0 * model.division());
        }
    }
}
