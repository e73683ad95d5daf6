//! What operations take at a level, from what they compute there.

use veilformer_ckks::{KeyPurpose, Params, Work};

use super::counts::{ProductCosts, UnitCosts};

/// What a limb of these takes, as so many NTTs of it: rounded from what one thread of a Zen 5 took at 12 limbs
/// of N = 2^16 (0.8, 0.5, 0.9, 0.3 and 0.4 ms), with 0.06 ms for an NTT among other operations. They come
/// from memory, where processors differ by more than in NTTs.
const PRODUCT: f64 = 1.2;
const ADDITION: f64 = 0.7;
const PLAIN: ProductCosts = ProductCosts {
    dense: 1.2,
    periodic: 0.4,
    scalar: 0.5,
};

impl UnitCosts {
    /// Operations on ciphertexts of `level`, in NTTs of one limb: an estimate from the digits and primes
    /// that keys have there ([`Params::switch_work`]), the same on every machine. Times the time of an NTT
    /// among others (not of one alone in a cache) it is about what a machine takes.
    #[must_use]
    pub fn estimated(params: &Params, level: usize) -> Self {
        let rotation = params.switch_work(KeyPurpose::Rotation(1), level);
        let other = params.switch_work(KeyPurpose::Relinearization, level);
        let own = params.basis_at(level).len();
        let both = params.rotation_basis(level).len();
        let of = |parts: &[Work]| {
            parts
                .iter()
                .copied()
                .fold(Work::default(), Work::and)
                .ntts()
        };
        let (cut, product, down) = (rotation.decomposition, rotation.product, rotation.division);
        let dropped = params.step_at(level).drop.len();
        let rescaled = Work {
            limbs: own,
            conversions: dropped * own.saturating_sub(dropped),
            ..Work::default()
        };
        let per_limb = |costs: ProductCosts, limbs: usize| ProductCosts {
            dense: costs.dense * limbs as f64,
            periodic: costs.periodic * limbs as f64,
            scalar: costs.scalar * limbs as f64,
        };
        Self {
            decomposition: of(&[cut]),
            hoisted: of(&[product, down, down]),
            baby: of(&[product]),
            giant: of(&[down, cut, product]),
            plain_giant: of(&[cut, product]),
            rotation: of(&[cut, product, down, down]),
            relinearization: of(&[
                other.decomposition,
                other.product,
                other.division,
                other.division,
            ]),
            product: PRODUCT * own as f64,
            plain: per_limb(PLAIN, own),
            extended: per_limb(PLAIN, both),
            addition: ADDITION * own as f64,
            rescale: of(&[rescaled, rescaled]),
            division: of(&[down, down]),
        }
    }
}
