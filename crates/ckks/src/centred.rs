//! From residues to centred integers, with no more limbs than the integers fill.
//!
//! An integer x with |x| < q_0 .. q_(k-1) / 2 has exactly one expansion
//! x = d_0 + q_0 (d_1 + q_1 (d_2 + ..)) with balanced digits |d_i| <= (q_i - 1) / 2 (mixed radix
//! of odd radices; Garner 1959 for the way from residues to digits). Digit i depends on the first
//! i + 1 residues only, so limbs can be taken one after the other; and the digits of a small
//! integer vanish from some digit on.

use veilformer_ring::{Modulus, ShoupConst};

/// The centred coefficients of a polynomial: each in (-D/2, D/2) for the product D of its primes.
///
/// # How many limbs are looked at
/// Limbs are taken in order until one gives the digit zero for every coefficient: those before it
/// hold the polynomial, and it has verified that. With D' the product of the limbs before it and q
/// its prime, a polynomial that is below D'/2 in every coefficient is always found so, and exactly;
/// one that exceeds D'/2 somewhere and stays below q D'/2 is never taken for another. Beyond that a
/// coefficient is mistaken if it happens to be within D'/2 of a multiple of q D': 2^-45 of all
/// integers for a prime of 45 bits, and it takes all large coefficients at once. Noise never does
/// that; a ciphertext made by hand can, and then decodes to something else than with all its
/// limbs, as it may do anyway.
pub struct Centred(Values);

enum Values {
    /// One digit: exact.
    Word(Vec<i64>),
    /// Two digits, or more of at most 126 bits together: exact.
    Wide(Vec<i128>),
    /// More: nearest doubles, up to a relative 2^-50.
    Rounded(Vec<f64>),
}

impl Centred {
    /// The integers, if they are short enough to have been kept exactly: if they fill at most two
    /// limbs, or several of 126 bits together.
    #[must_use]
    pub fn exact(&self) -> Option<Vec<i128>> {
        match &self.0 {
            Values::Word(values) => Some(values.iter().map(|&c| i128::from(c)).collect()),
            Values::Wide(values) => Some(values.clone()),
            Values::Rounded(_) => None,
        }
    }

    /// Every coefficient times `factor`.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Vec<f64> {
        // A product of two doubles, rounded once, in each case.
        match &self.0 {
            Values::Word(values) => values.iter().map(|&c| c as f64 * factor).collect(),
            Values::Wide(values) => values.iter().map(|&c| c as f64 * factor).collect(),
            Values::Rounded(values) => values.iter().map(|&c| c * factor).collect(),
        }
    }

    /// Overwrites everything with zero.
    pub fn wipe(&mut self) {
        match &mut self.0 {
            Values::Word(values) => values.fill(0),
            Values::Wide(values) => values.fill(0),
            Values::Rounded(values) => values.fill(0.0),
        }
        // Whoever looks at the values now must see zeros: the stores are not dead.
        std::hint::black_box(&self.0);
    }
}

impl From<Vec<i128>> for Centred {
    fn from(integers: Vec<i128>) -> Self {
        Self(Values::Wide(integers))
    }
}

/// The expansion while it is found, limb by limb.
#[derive(Default)]
pub(crate) struct MixedRadix {
    moduli: Vec<Modulus>,
    /// Per modulus one digit for each coefficient.
    digits: Vec<Vec<i64>>,
}

impl MixedRadix {
    /// Takes the residues modulo the next prime. True if the limbs before have them already, that
    /// is, if all their digits are zero: then they are not kept.
    pub(crate) fn push(&mut self, modulus: &Modulus, residues: &[u64]) -> bool {
        let known = Known::new(&self.moduli, modulus);
        let verified = match (&self.digits[..], known.is_below(&self.moduli)) {
            ([], _) => false,
            // One digit decides nearly every decryption.
            ([only], true) => {
                let q = modulus.value() as i64;
                let mut pairs = residues.iter().zip(only);
                pairs.all(|(&x, &d)| x as i64 == d + (q & (d >> 63)))
            }
            _ => {
                let mut places = residues.iter().enumerate();
                places.all(|(j, &x)| x == known.at(&self.digits, j))
            }
        };
        if !verified {
            let digit = |(j, &x): (usize, &u64)| {
                let rest = modulus.sub(x, known.at(&self.digits, j));
                modulus.center(modulus.mul_shoup(rest, known.inverse))
            };
            let digits = match self.digits[..] {
                // Nothing is known: a loop that the compiler vectorizes.
                [] => residues.iter().map(|&x| modulus.center(x)).collect(),
                _ => residues.iter().enumerate().map(digit).collect(),
            };
            self.digits.push(digits);
            self.moduli.push(modulus.clone());
        }
        verified
    }

    /// The integers.
    pub(crate) fn finish(mut self) -> Centred {
        if let [only] = &mut self.digits[..] {
            return Centred(Values::Word(std::mem::take(only)));
        }
        Centred(match (&self.moduli[..], &self.digits[..]) {
            (_, []) => Values::Word(Vec::new()),
            ([q0, _], [d0, d1]) => {
                let q0 = i128::from(q0.value());
                let value = |(&d0, &d1): (&i64, &i64)| i128::from(d0) + q0 * i128::from(d1);
                Values::Wide(d0.iter().zip(d1).map(value).collect())
            }
            // Levels made of words: several short limbs.
            (moduli, [rest @ .., last]) if bits(moduli) < I128_BITS => {
                let mut values: Vec<i128> = last.iter().map(|&d| i128::from(d)).collect();
                for (q, digits) in moduli.iter().zip(rest).rev() {
                    let q = i128::from(q.value());
                    for (x, &d) in values.iter_mut().zip(digits) {
                        *x = *x * q + i128::from(d);
                    }
                }
                Values::Wide(values)
            }
            (moduli, [rest @ .., last]) => {
                let mut values: Vec<f64> = last.iter().map(|&d| d as f64).collect();
                for (q, digits) in moduli.iter().zip(rest).rev() {
                    let q = q.value() as f64;
                    for (x, &d) in values.iter_mut().zip(digits) {
                        *x = *x * q + d as f64;
                    }
                }
                Values::Rounded(values)
            }
        })
    }
}

/// What an i128 holds beside its sign, and a margin for the rounding of logarithms.
const I128_BITS: f64 = 126.0;

fn bits(moduli: &[Modulus]) -> f64 {
    moduli.iter().map(|q| (q.value() as f64).log2()).sum()
}

/// What the digits so far say modulo the next prime.
struct Known<'m> {
    modulus: &'m Modulus,
    /// q_0, q_1, .. modulo it.
    factors: Vec<ShoupConst>,
    /// (q_0 q_1 ..)^-1 modulo it.
    inverse: ShoupConst,
}

impl<'m> Known<'m> {
    fn new(moduli: &[Modulus], modulus: &'m Modulus) -> Self {
        let factors = moduli.iter().map(|q| modulus.reduce(q.value()));
        let product = factors
            .clone()
            .fold(1, |product, q| modulus.mul(product, q));
        Self {
            modulus,
            factors: factors.map(|q| modulus.shoup(q)).collect(),
            inverse: modulus.shoup(modulus.inv(product).unwrap_or_default()),
        }
    }

    /// Whether the first digits are residues modulo the next prime up to their sign.
    fn is_below(&self, moduli: &[Modulus]) -> bool {
        moduli
            .first()
            .is_some_and(|q| q.value() / 2 < self.modulus.value())
    }

    /// d_0 + q_0 (d_1 + q_1 ..) of coefficient j.
    fn at(&self, digits: &[Vec<i64>], j: usize) -> u64 {
        let pairs = self.factors.iter().zip(digits).rev();
        pairs.fold(0, |sum, (&q, digits)| {
            let digit = digits.get(j).copied().unwrap_or_default();
            let shifted = self.modulus.mul_shoup(sum, q);
            self.modulus.add(shifted, self.modulus.from_i64(digit))
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{TestRng, toy_params, toy_spec};
    use crate::{Encoder, Params, ParamsSpec};
    use veilformer_ring::{Backend, Cpu, CpuConfig, Form, RnsPoly};

    /// A polynomial with these words as residues of its first coefficient, the others small.
    fn poly(params: &Params, residues: &[u64]) -> RnsPoly {
        let basis = params.basis_at(params.max_level());
        let small: Vec<i64> = (0..params.n() as i64).map(|k| k % 7 - 3).collect();
        let mut poly = RnsPoly::from_signed(params.chain(), basis, &small).unwrap();
        for (position, &residue) in residues.iter().enumerate() {
            poly.limb_mut(position)[0] = residue;
        }
        poly
    }

    /// Against the big integers of all limbs; returns how many limbs were asked for.
    fn check(params: &Params, poly: &RnsPoly) -> usize {
        let encoder = Encoder::new(params).unwrap();
        let mut asked = 0;
        let copy = |prime, out: &mut [u64]| {
            asked += 1;
            out.copy_from_slice(poly.limb_of(prime).unwrap());
            Ok::<_, ()>(())
        };
        let found = encoder.centred_by(poly.basis(), copy).unwrap();
        let expected = poly.to_centered_bigint().unwrap();
        match found.exact() {
            Some(exact) => {
                for (c, big) in exact.iter().zip(&expected) {
                    assert_eq!(c.to_string(), big.to_string());
                }
            }
            None => {
                for (c, big) in found.scaled(1.0).iter().zip(&expected) {
                    let big: f64 = big.to_string().parse().unwrap();
                    assert!((c - big).abs() <= big.abs() * 2f64.powi(-50), "{c} {big}");
                }
            }
        }
        // In NTT form as well, and the same doubles.
        let mut ntt = poly.clone();
        let backend = Cpu::new(params.chain().clone(), CpuConfig::default()).unwrap();
        backend.forward_ntt(&mut ntt).unwrap();
        assert_eq!(ntt.form(), Form::Ntt);
        let again = encoder.centred(&ntt).unwrap();
        assert_eq!(again.scaled(0.5), found.scaled(0.5));
        asked
    }

    /// The last integer that k limbs hold, and the first that they do not, on both sides of zero:
    /// found exactly, from no more limbs than they and one that verifies.
    #[test]
    fn as_many_limbs_as_the_largest_coefficient_fills() {
        edges(&toy_params());
        // The first prime not much larger than the second.
        let spec = ParamsSpec {
            first_bits: 30,
            ..toy_spec(8)
        };
        edges(&spec.validate_insecure_for_tests().unwrap());
    }

    fn edges(params: &Params) {
        let primes: Vec<u64> = (0..params.chain().len())
            .map(|i| params.chain().modulus(i).value())
            .collect();
        let count = params.max_level() + 1;
        // x mod q of the integer (q_0 .. q_(k-1) + offset) / 2, offset odd.
        let edge = |k: usize, offset: i64| -> Vec<u64> {
            let residue = |i: usize| {
                let m = params.chain().modulus(i);
                let product = primes[..k].iter().fold(1, |p, &q| m.mul(p, m.reduce(q)));
                let half = m.inv(2).unwrap();
                m.mul(m.add(product, m.from_i64(offset)), half)
            };
            (0..count).map(residue).collect()
        };
        for k in 1..=count {
            for (offset, needed) in [(-1, k), (1, k + 1)] {
                if needed > count {
                    continue;
                }
                let residues = edge(k, offset);
                let negated: Vec<u64> = (0..count)
                    .map(|i| params.chain().modulus(i).neg(residues[i]))
                    .collect();
                for residues in [residues, negated] {
                    let asked = check(params, &poly(params, &residues));
                    assert_eq!(asked, (needed + 1).min(count), "{k} limbs, {offset}");
                }
            }
        }
    }

    /// What a wrong key gives.
    #[test]
    fn random_coefficients_take_all_limbs() {
        let params = toy_params();
        let mut rng = TestRng::new(3);
        let mut random = poly(&params, &[]);
        for (position, prime) in random.basis().iter().enumerate() {
            let modulus = params.chain().modulus(prime);
            for word in random.limb_mut(position) {
                *word = modulus.reduce(rng.next_u64());
            }
        }
        assert_eq!(check(&params, &random), params.max_level() + 1);
        // One coefficient alone does that too.
        let one = poly(&params, &[1, 2, 3, 4][..params.max_level() + 1]);
        assert_eq!(check(&params, &one), params.max_level() + 1);
    }

    /// Words of two sizes, the shorter ones last: messages of every length.
    #[test]
    fn words_hold_messages_of_every_length() {
        let spec = ParamsSpec {
            first_bits: 50,
            scale_bits: 40,
            special_bits: 31,
            special_count: 4,
            digit_limbs: 4,
            ..toy_spec(8)
        };
        let words = crate::WordSpec {
            main_bits: 30,
            side_bits: 25,
            most_side: 4,
        };
        let params = spec.validate_words_insecure_for_tests(words).unwrap();
        let mut rng = TestRng::new(5);
        for level in 0..=params.max_level() {
            let basis = params.basis_at(level);
            for bits in 1..90u32.min(params.log_q(level) as u32 - 2) {
                let integers: Vec<i128> = (0..params.n())
                    .map(|_| {
                        let wide = i128::from(rng.next_u64()) << 64 | i128::from(rng.next_u64());
                        wide >> (127 - bits)
                    })
                    .collect();
                let poly = RnsPoly::from_i128(params.chain(), basis, &integers).unwrap();
                check(&params, &poly);
            }
        }
    }

    #[test]
    fn zero_and_a_single_limb() {
        let params = toy_params();
        let zero = RnsPoly::zero(params.chain(), params.basis_at(3), Form::Coefficient).unwrap();
        assert_eq!(check(&params, &zero), 2);
        let single = RnsPoly::zero(params.chain(), params.basis_at(0), Form::Coefficient).unwrap();
        assert_eq!(check(&params, &single), 1);
    }
}
