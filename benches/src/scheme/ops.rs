//! The measured operations: what each is, and how ours is run.

use std::hint::black_box;
use std::time::Instant;

use veilformer_ckks::KeyPurpose;
use veilformer_ring::conformance::Samples;
use veilformer_ring::{Backend, Basis, Cpu, Form};
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator, PublicEncryptor, SecureRng};

use super::floors::Shape;
use super::{BABIES_GIANTS, HOISTED, Operands};
use crate::error::{BenchError, Result};
use crate::floor::Floor;
use crate::interleave::{Case, median_ms};
use crate::machine::Unit;

/// An operation of the scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// One limb, over and over.
    NttForward,
    /// One limb, over and over.
    NttInverse,
    /// All limbs of a polynomial, per limb.
    NttForwardSwept,
    /// All limbs of a polynomial, per limb.
    NttInverseSwept,
    /// Sum of two ciphertexts.
    Add,
    /// Product of a ciphertext and an encoded plaintext.
    PlaintextMultiply,
    /// Product of ciphertexts, back to two polynomials, divided by a prime.
    MultiplyRelinearizeRescale,
    /// The same without the division.
    MultiplyRelinearize,
    /// A rotation.
    Rotate,
    /// One of [`HOISTED`] rotations of a ciphertext.
    RotateHoisted,
    /// Division of a ciphertext by its last prime.
    Rescale,
    /// 128 diagonals.
    LinearTransform128,
    /// Slots to a plaintext that products take.
    Encode,
    /// A polynomial to slots.
    Decode,
    /// Slots to a ciphertext under the secret key.
    Encrypt,
    /// Slots to a ciphertext under a public key.
    EncryptPublic,
    /// A ciphertext to a polynomial.
    Decrypt,
    /// A ciphertext to slots.
    DecryptDecode,
    /// The key for products.
    KeygenRelinearization,
    /// A key for rotations.
    KeygenRotation,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::NttForward,
        Self::NttInverse,
        Self::NttForwardSwept,
        Self::NttInverseSwept,
        Self::Add,
        Self::PlaintextMultiply,
        Self::MultiplyRelinearizeRescale,
        Self::MultiplyRelinearize,
        Self::Rotate,
        Self::RotateHoisted,
        Self::Rescale,
        Self::LinearTransform128,
        Self::Encode,
        Self::Decode,
        Self::Encrypt,
        Self::EncryptPublic,
        Self::Decrypt,
        Self::DecryptDecode,
        Self::KeygenRelinearization,
        Self::KeygenRotation,
    ];

    /// The name in commands, results and drivers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NttForward => "ntt_forward",
            Self::NttInverse => "ntt_inverse",
            Self::NttForwardSwept => "ntt_forward_swept",
            Self::NttInverseSwept => "ntt_inverse_swept",
            Self::Add => "add",
            Self::PlaintextMultiply => "plaintext_multiply",
            Self::MultiplyRelinearizeRescale => "multiply_relinearize_rescale",
            Self::MultiplyRelinearize => "multiply_relinearize",
            Self::Rotate => "rotate",
            Self::RotateHoisted => "rotate_hoisted",
            Self::Rescale => "rescale",
            Self::LinearTransform128 => "linear_transform_128",
            Self::Encode => "encode",
            Self::Decode => "decode",
            Self::Encrypt => "encrypt",
            Self::EncryptPublic => "encrypt_public",
            Self::Decrypt => "decrypt",
            Self::DecryptDecode => "decrypt_decode",
            Self::KeygenRelinearization => "keygen_relinearization",
            Self::KeygenRotation => "keygen_rotation",
        }
    }

    /// What exactly is measured.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NttForward => "NTT of one limb, in the same memory each time",
            Self::NttInverse => "inverse NTT of one limb, in the same memory each time",
            Self::NttForwardSwept => "NTT of all limbs of a polynomial, per limb",
            Self::NttInverseSwept => "inverse NTT of all limbs of a polynomial, per limb",
            Self::Add => "sum of two ciphertexts, into a new one",
            Self::PlaintextMultiply => "product with an encoded plaintext, into a new ciphertext",
            Self::MultiplyRelinearizeRescale => {
                "product of two ciphertexts, relinearized, rescaled"
            }
            Self::MultiplyRelinearize => "product of two ciphertexts, relinearized",
            Self::Rotate => "rotation by one slot",
            Self::RotateHoisted => "one of eight rotations of a ciphertext",
            Self::Rescale => "division of a ciphertext by its last prime",
            Self::LinearTransform128 => "128 dense diagonals, 16 baby and 8 giant steps, rescaled",
            Self::Encode => "N/2 real slots to a plaintext that products take",
            Self::Decode => "a polynomial of two limbs to N/2 slots",
            Self::Encrypt => "N/2 slots, encoded and encrypted under the secret key",
            Self::EncryptPublic => "N/2 slots, encoded and encrypted under a public key",
            Self::Decrypt => "a ciphertext of all limbs to a polynomial",
            Self::DecryptDecode => "a ciphertext of all limbs to N/2 slots",
            Self::KeygenRelinearization => "the key for products, its uniform half as a seed",
            Self::KeygenRotation => "a key for rotations, its uniform half as a seed",
        }
    }

    /// The evaluation keys that it needs.
    pub(super) fn keys(self) -> Vec<KeyPurpose> {
        let (babies, giants) = BABIES_GIANTS;
        match self {
            Self::MultiplyRelinearizeRescale | Self::MultiplyRelinearize => {
                vec![KeyPurpose::Relinearization]
            }
            Self::Rotate => vec![KeyPurpose::Rotation(1)],
            Self::RotateHoisted => (1..=HOISTED).map(KeyPurpose::Rotation).collect(),
            Self::LinearTransform128 => (1..babies)
                .chain((1..giants).map(|g| g * babies))
                .map(KeyPurpose::Rotation)
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Its floor.
    #[must_use]
    pub fn floor(self, s: &Shape) -> Floor {
        let (babies, giants) = BABIES_GIANTS;
        match self {
            Self::NttForward => s.transforms(1.0, false),
            Self::NttInverse => s.transforms(1.0, true),
            Self::NttForwardSwept => s.transforms(s.l(), false).shared_by(s.l()),
            Self::NttInverseSwept => s.transforms(s.l(), true).shared_by(s.l()),
            Self::Add => s.pointwise((4.0, 2.0), &[(Unit::Add, 2.0)]),
            Self::PlaintextMultiply => {
                s.pointwise((2.0 + s.packed(), 2.0), &[(Unit::Multiply, 2.0)])
            }
            Self::MultiplyRelinearizeRescale => s.multiply(1.0),
            Self::MultiplyRelinearize => s.multiply(0.0),
            Self::Rotate => s.rotate(1.0),
            Self::RotateHoisted => s.rotate(HOISTED as f64),
            Self::Rescale => s.rescale(2.0),
            Self::LinearTransform128 => s.linear_transform(babies as f64, giants as f64),
            Self::Encode => s.encode(),
            Self::Decode => s.decode(),
            Self::Encrypt => s.encrypt_secret(),
            Self::EncryptPublic => s.encrypt_public(),
            Self::Decrypt => s.decrypt(),
            Self::DecryptDecode => s.decrypt().then(s.decode()),
            Self::KeygenRelinearization | Self::KeygenRotation => s.keygen(),
        }
    }

    /// Whether it is a transform alone, without a scheme.
    #[must_use]
    pub fn is_transform(self) -> bool {
        matches!(
            self,
            Self::NttForward | Self::NttInverse | Self::NttForwardSwept | Self::NttInverseSwept
        )
    }

    /// Results of one run of a driver's operation: figures are per result.
    #[must_use]
    pub fn results_of_driver(self) -> f64 {
        match self {
            Self::RotateHoisted => HOISTED as f64,
            _ => 1.0,
        }
    }
}

/// A transform there and back: the case needs its input in the other form again, and only one of
/// the two directions is timed.
pub(crate) fn transform_case(cpu: &Cpu, basis: Basis, inverse: bool) -> Result<Case<'_>> {
    let form = if inverse {
        Form::Ntt
    } else {
        Form::Coefficient
    };
    let mut poly = Samples::new(cpu.chain(), 11).poly(basis, form)?;
    let limbs = basis.len() as f64;
    Ok(Case {
        name: String::new(),
        run: Box::new(move |repeats| {
            let ms = median_ms(repeats, || {
                let start = Instant::now();
                let spent;
                if inverse {
                    cpu.inverse_ntt(&mut poly)?;
                    spent = start.elapsed();
                    cpu.forward_ntt(&mut poly)?;
                } else {
                    cpu.forward_ntt(&mut poly)?;
                    spent = start.elapsed();
                    cpu.inverse_ntt(&mut poly)?;
                }
                Ok(spent)
            })?;
            Ok(ms / limbs)
        }),
    })
}

impl<'s> Operands<'s> {
    /// The operation, ready to run.
    ///
    /// # Errors
    /// The scheme's, from making the operands.
    pub fn case<'a>(&'a self, op: Op) -> Result<Case<'a>> {
        let setting = self.setting;
        let params = &setting.params;
        let e = &self.evaluator;
        let (a, b) = (&self.a, &self.b);
        let level = params.max_level();
        let scale = params.scale_at(level);
        let name = op.name();
        let all = params.basis_at(level);
        let mut case = match op {
            Op::NttForward => transform_case(&setting.cpu, Basis::single(1), false)?,
            Op::NttInverse => transform_case(&setting.cpu, Basis::single(1), true)?,
            Op::NttForwardSwept => transform_case(&setting.cpu, all, false)?,
            Op::NttInverseSwept => transform_case(&setting.cpu, all, true)?,
            Op::Add => Case::timed(name, move || kept(e.add(a, b)?)),
            Op::PlaintextMultiply => Case::timed(name, move || kept(e.mul_plain(a, &self.plain)?)),
            Op::MultiplyRelinearizeRescale => {
                Case::timed(name, move || kept(e.mul_sum(&[(a, b)])?))
            }
            Op::MultiplyRelinearize => {
                let wanted = (KeyPurpose::Relinearization, level);
                let key = e.keys().get(params, &setting.cpu, wanted)?;
                let key = key.ok_or_else(|| BenchError::Usage("no key for products".into()))?;
                Case::timed(name, move || {
                    let pairs = [(a.parts(), b.parts())];
                    kept(
                        setting
                            .cpu
                            .mul_sum_relin(&pairs, key.key(), Basis::empty())?,
                    )
                })
            }
            Op::Rotate => Case::timed(name, move || kept(e.rotate_many(a, &[1])?)),
            Op::RotateHoisted => {
                let steps: Vec<i64> = (1..=HOISTED).collect();
                let mut all = Case::timed(name, move || kept(e.rotate_many(a, &steps)?));
                Case {
                    name: String::new(),
                    run: Box::new(move |repeats| Ok((all.run)(repeats)? / HOISTED as f64)),
                }
            }
            Op::Rescale => Case::timed(name, move || kept(e.rescale(a)?)),
            Op::LinearTransform128 => {
                let transform = self.transform.as_ref();
                let transform =
                    transform.ok_or_else(|| BenchError::Usage("no transform was made".into()))?;
                Case::timed(name, move || kept(e.linear_transforms(&[a], &[transform])?))
            }
            Op::Encode => Case::timed(name, move || kept(e.encode(&self.slots, level, scale)?)),
            Op::Decode => {
                let poly = e.encoder().encode(&self.slots, params.basis_at(1), scale)?;
                Case::timed(name, move || kept(e.encoder().decode(&poly, scale)?))
            }
            Op::Encrypt => {
                let mut encryptor = Encryptor::new(&setting.secret, SecureRng::from_os()?)?;
                Case::timed(name, move || kept(encryptor.encrypt(&self.slots, level)?))
            }
            Op::EncryptPublic => {
                let mut generator = KeyGenerator::new(params, SecureRng::from_os()?);
                let key = generator.public_key(&setting.secret, level)?;
                let mut encryptor = PublicEncryptor::new(params, &key, SecureRng::from_os()?)?;
                Case::timed(name, move || kept(encryptor.encrypt(&self.slots, level)?))
            }
            Op::Decrypt => {
                let decryptor = Decryptor::new(&setting.secret)?;
                Case::timed(name, move || kept(decryptor.decrypt(a)?))
            }
            Op::DecryptDecode => {
                let decryptor = Decryptor::new(&setting.secret)?;
                Case::timed(name, move || kept(decryptor.decrypt(a)?.reveal_to_owner()?))
            }
            Op::KeygenRelinearization => {
                let mut generator = KeyGenerator::new(params, SecureRng::from_os()?);
                let secret = &setting.secret;
                Case::timed(name, move || {
                    kept(generator.relinearization(secret, level)?)
                })
            }
            Op::KeygenRotation => {
                let mut generator = KeyGenerator::new(params, SecureRng::from_os()?);
                let secret = &setting.secret;
                Case::timed(name, move || kept(generator.rotation(secret, 5, level)?))
            }
        };
        name.clone_into(&mut case.name);
        Ok(case)
    }
}

/// Holds a result until its time is taken, and drops it.
fn kept<T>(result: T) -> Result<()> {
    black_box(result);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::{Setting, Sizes, shape};
    use veilformer_ring::Isa;

    #[test]
    fn every_operation_runs_and_has_a_floor() {
        let params = Sizes::params(11, 4, 2, 40).unwrap();
        assert_eq!(Sizes::of(&params).security_bits, 0);
        let setting = Setting::new(&params, Isa::Scalar, &Op::ALL).unwrap();
        let operands = setting.operands(&Op::ALL).unwrap();
        let machine = crate::machine::tests::round();
        for op in Op::ALL {
            let mut case = operands.case(op).unwrap();
            assert_eq!(case.name, op.name());
            assert!((case.run)(1).unwrap() > 0.0);
            assert!(op.floor(&shape(&params, Isa::Scalar)).ms(&machine, 1) > 0.0);
            assert!(!op.text().is_empty());
        }
    }
}
