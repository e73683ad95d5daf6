//! Encoding of slots into polynomials and back.

use std::sync::Arc;

use veilformer_ring::{Backend, Basis, Cpu, CpuConfig, Form, Isa, Modulus, PlainPoly, RnsPoly};

use crate::centred::{Centred, MixedRadix};
use crate::coefficients::{Coefficients, too_large};
use crate::fft::Embedding;
use crate::{CkksError, Complex, Params, Scale, SlotVector};

/// Encodes and decodes for one parameter set; cheap to clone, usable from several threads.
///
/// Slot j is the value of the polynomial at psi^(5^j) (the canonical embedding): m = round(scale *
/// embedding^-1(slots)), one rounding to the nearest integer (ties to even) per coefficient.
/// Integers of up to 120 bits are exact: at a scale of 2^60 what remains is the double-precision
/// error of the transform, a relative 2^-48 or less of the largest slot.
///
/// ```
/// use veilformer_ckks::{Complex, Encoder, SlotVector, testing};
///
/// let params = testing::toy_params();
/// let encoder = Encoder::new(&params)?;
/// let slots = SlotVector::real_periodic(&[0.5, -1.0]);
/// let scale = params.scale_at(2);
/// let poly = encoder.encode(&slots, params.basis_at(2), scale)?;
/// let back = encoder.decode(&poly, scale)?;
/// assert!((back[1] - Complex::new(-1.0, 0.0)).norm() < 1e-6);
/// # Ok::<(), veilformer_ckks::CkksError>(())
/// ```
#[derive(Clone)]
pub struct Encoder(Arc<Inner>);

struct Inner {
    params: Params,
    backend: Cpu,
    embedding: Embedding,
    /// Per prime the root psi that NTT index 0 evaluates at.
    psi: Vec<u64>,
}

impl Encoder {
    /// Prepares the tables: O(N) for each prime.
    ///
    /// # Errors
    /// The ring's.
    pub fn new(params: &Params) -> Result<Self, CkksError> {
        let chain = params.chain();
        let backend = Cpu::new(chain.clone(), CpuConfig { isa: Isa::detect() })?;
        // By the NTT order contract, index 0 of the transform of X is psi itself.
        let mut monomial = vec![0i64; params.n()];
        if let Some(x) = monomial.get_mut(1) {
            *x = 1;
        }
        let mut psi = Vec::with_capacity(chain.len());
        for prime in 0..chain.len() {
            let mut poly = RnsPoly::from_signed(chain, Basis::single(prime), &monomial)?;
            backend.forward_ntt(&mut poly)?;
            psi.extend(poly.limb(0).first());
        }
        Ok(Self(Arc::new(Inner {
            params: params.clone(),
            embedding: Embedding::new(params.n()),
            backend,
            psi,
        })))
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.0.params
    }

    /// The coefficients round(scale * embedding^-1(slots)) of a slot vector: 2m of them for a
    /// vector of m distinct entries; coefficient k belongs to X^(k N/2m).
    ///
    /// # Errors
    /// [`CkksError::Slots`], or [`CkksError::TooLarge`] above 120 bits.
    pub fn coefficients(
        &self,
        slots: &SlotVector,
        scale: Scale,
    ) -> Result<Coefficients, CkksError> {
        slots.check(self.0.params.slots())?;
        Coefficients::round(self.0.embedding.inverse(slots.entries()), scale)
    }

    /// The coefficients of a slot vector as [`Encoder::coefficients`] gives them, if they fit the
    /// primes of `basis` that are not special.
    ///
    /// # Errors
    /// [`CkksError::Slots`], [`CkksError::TooLarge`].
    pub fn coefficients_for(
        &self,
        slots: &SlotVector,
        basis: Basis,
        scale: Scale,
    ) -> Result<Coefficients, CkksError> {
        let made = self.coefficients(slots, scale)?;
        let params = &self.0.params;
        let available = params.chain().product_log2(basis.minus(params.special()));
        let largest = made.largest() as f64;
        if largest > 0.0 && largest.log2() + 1.0 > available {
            return Err(too_large(largest, available));
        }
        Ok(made)
    }

    /// Encodes into a polynomial in NTT form on `basis`.
    ///
    /// # Errors
    /// [`CkksError::Slots`], [`CkksError::TooLarge`], or the ring's for a basis outside the chain.
    pub fn encode(
        &self,
        slots: &SlotVector,
        basis: Basis,
        scale: Scale,
    ) -> Result<RnsPoly, CkksError> {
        let made = self.coefficients_for(slots, basis, scale)?;
        let chain = self.0.params.chain();
        let mut poly = RnsPoly::unwritten(chain, basis, Form::Ntt)?;
        for (position, prime) in basis.iter().enumerate() {
            let limb = poly.limb_mut(position);
            if made.len() < limb.len() {
                limb.fill(0);
            }
            made.reduce_below_2q(chain.modulus(prime), limb);
            self.0.backend.forward_ntt_limb(prime, limb)?;
        }
        Ok(poly)
    }

    /// Encodes into the smallest plaintext that says the same: one word per prime for a real
    /// constant, 2m words for a vector of period m (a complex constant has period 1), all N words
    /// otherwise. Special primes in the basis are for products before they are divided away: the
    /// coefficients must fit the other primes.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn encode_plain(
        &self,
        slots: &SlotVector,
        basis: Basis,
        scale: Scale,
    ) -> Result<PlainPoly, CkksError> {
        let dense = slots.entries().len() >= self.0.params.slots();
        match slots {
            SlotVector::Constant(value) if value.im == 0.0 => {
                self.encode_scalar(slots, basis, scale)
            }
            _ if dense => Ok(PlainPoly::Dense(self.encode(slots, basis, scale)?)),
            _ => self.encode_periodic(slots, basis, scale),
        }
    }

    fn encode_scalar(
        &self,
        slots: &SlotVector,
        basis: Basis,
        scale: Scale,
    ) -> Result<PlainPoly, CkksError> {
        let coefficients = self.coefficients_for(slots, basis, scale)?.to_i128();
        let value = coefficients.first().copied().unwrap_or_default();
        let chain = self.0.params.chain();
        let residues = basis
            .iter()
            .map(|prime| chain.modulus(prime).from_i128(value))
            .collect();
        Ok(PlainPoly::Scalar { basis, residues })
    }

    fn encode_periodic(
        &self,
        slots: &SlotVector,
        basis: Basis,
        scale: Scale,
    ) -> Result<PlainPoly, CkksError> {
        let coefficients = self.coefficients_for(slots, basis, scale)?;
        let period = coefficients.len();
        let chain = self.0.params.chain();
        let mut values = vec![0; period * basis.len()];
        for (prime, limb) in basis.iter().zip(values.chunks_exact_mut(period)) {
            let Some(&psi) = self.0.psi.get(prime) else {
                break;
            };
            let modulus = chain.modulus(prime);
            coefficients.reduce(modulus, limb);
            let root = modulus.pow(psi, (self.0.params.n() / period) as u64);
            small_ntt(modulus, root, limb);
        }
        Ok(PlainPoly::Periodic {
            period,
            basis,
            values,
        })
    }

    /// Decodes a polynomial in either form: its centred coefficients, divided by the scale. Only as
    /// many limbs are looked at as the message fills, and one more; see [`Centred`].
    ///
    /// # Errors
    /// [`CkksError::Malformed`] for an empty basis or another ring, or the ring's.
    pub fn decode(&self, poly: &RnsPoly, scale: Scale) -> Result<Vec<Complex>, CkksError> {
        self.decode_centred(&self.centred(poly)?, scale)
    }

    /// The slots of a polynomial whose coefficients are known.
    ///
    /// # Errors
    /// [`CkksError::Malformed`] unless there are N of them.
    pub fn decode_centred(
        &self,
        centred: &Centred,
        scale: Scale,
    ) -> Result<Vec<Complex>, CkksError> {
        let mut scaled = centred.scaled(1.0 / scale.value());
        if scaled.len() != self.0.params.n() {
            return Err(CkksError::malformed(
                "coefficients to decode",
                format!("{} of them, expected {}", scaled.len(), self.0.params.n()),
            ));
        }
        Ok(self.0.embedding.forward(&mut scaled))
    }

    /// The centred coefficients of a polynomial in either form.
    ///
    /// # Errors
    /// As [`Encoder::decode`].
    pub fn centred(&self, poly: &RnsPoly) -> Result<Centred, CkksError> {
        let chain = self.0.params.chain();
        let basis = poly.basis();
        if poly.chain() != chain || basis.is_empty() {
            return Err(CkksError::malformed(
                "polynomial to decode",
                format!(
                    "dimension {} on {basis}, expected {} and at least one of the parameters' primes",
                    poly.n(),
                    self.0.params.n()
                ),
            ));
        }
        self.centred_by(basis, |prime, out| {
            let limb = poly.limb_of(prime).unwrap_or_default();
            match poly.form() {
                Form::Ntt => self.0.backend.inverse_ntt_limb(prime, out, limb)?,
                Form::Coefficient => out.copy_from_slice(limb),
            }
            Ok(())
        })
    }

    /// As [`Encoder::centred`], of a polynomial on `basis` whose limbs come from a function: it
    /// writes the coefficients modulo a prime of that index, and is asked for no more limbs than
    /// are needed. What it is given to write to is wiped in the end.
    ///
    /// # Errors
    /// The function's.
    pub fn centred_by<E>(
        &self,
        basis: Basis,
        mut limb: impl FnMut(usize, &mut [u64]) -> Result<(), E>,
    ) -> Result<Centred, E> {
        let chain = self.0.params.chain();
        let mut radix = MixedRadix::default();
        let mut words = vec![0; self.0.params.n()];
        for prime in basis.intersect(chain.all()).iter() {
            limb(prime, &mut words)?;
            if radix.push(chain.modulus(prime), &words) {
                break;
            }
        }
        words.fill(0);
        std::hint::black_box(&words);
        Ok(radix.finish())
    }
}

/// In-place negacyclic NTT of size m = `values.len()`, in the ring's order: index r holds the
/// value at root^(2 rev(r) + 1), where `root` has order 2m. A polynomial in X^(N/m) takes exactly
/// these values, each N/m times in a row.
fn small_ntt(modulus: &Modulus, root: u64, values: &mut [u64]) {
    let m = values.len();
    let bits = m.trailing_zeros();
    let mut powers = vec![1u64; m];
    let mut power = 1;
    for k in 0..m {
        let reversed = if bits == 0 {
            0
        } else {
            k.reverse_bits() >> (usize::BITS - bits)
        };
        powers[reversed] = power;
        power = modulus.mul(power, root);
    }
    let mut half = m / 2;
    let mut blocks = 1;
    while half > 0 {
        for (block, chunk) in values.chunks_exact_mut(2 * half).enumerate() {
            let twiddle = modulus.shoup(powers[blocks + block]);
            let (low, high) = chunk.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                let turned = modulus.mul_shoup(*b, twiddle);
                *b = modulus.sub(*a, turned);
                *a = modulus.add(*a, turned);
            }
        }
        half /= 2;
        blocks *= 2;
    }
}
