//! Encoding of slots into polynomials and back.

use std::sync::Arc;

use veilformer_ring::{Backend, Basis, Cpu, CpuConfig, Form, Isa, Modulus, PlainPoly, RnsPoly};

use crate::fft::Embedding;
use crate::{CkksError, Complex, Params, Scale, SlotVector};

/// Largest coefficient, in bits, that encoding computes with.
const COEFFICIENT_BITS: f64 = 120.0;

/// Encodes and decodes for one parameter set; cheap to clone, usable from several threads.
///
/// Slot j is the value of the polynomial at psi^(5^j) (the canonical embedding): m = round(scale *
/// embedding^-1(slots)), one rounding to the nearest integer (ties to even) per coefficient.
/// Rounding is done on 128-bit integers: at a scale of 2^60 what remains is the double-precision
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

/// Bits of the modulus that decoding looks at: a product before its rescale fits.
const ENOUGH_BITS: f64 = 100.0;
/// What i128 holds with a sign.
const MOST_BITS: f64 = 126.0;

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
    pub fn coefficients(&self, slots: &SlotVector, scale: Scale) -> Result<Vec<i128>, CkksError> {
        slots.check(self.0.params.slots())?;
        let exact = self.0.embedding.inverse(slots.entries());
        let scaled: Vec<f64> = exact.iter().map(|c| c * scale.value()).collect();
        // NaN from an overflow of the transform fails this comparison as well.
        if !scaled.iter().all(|c| c.abs() < COEFFICIENT_BITS.exp2()) {
            let largest = scaled.iter().fold(0.0, |max: f64, c| max.max(c.abs()));
            return Err(too_large(largest, COEFFICIENT_BITS + 1.0));
        }
        Ok(scaled.iter().map(|c| c.round_ties_even() as i128).collect())
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
        let compact = self.coefficients(slots, scale)?;
        let largest = self.check_fits(&compact, basis)?;
        let stride = (self.0.params.n() / compact.len().max(1)).max(1);
        let chain = self.0.params.chain();
        let mut poly = RnsPoly::zero(chain, basis, Form::Coefficient)?;
        for (position, prime) in basis.iter().enumerate() {
            let reduce = Reduce::new(chain.modulus(prime), largest);
            let limb = poly.limb_mut(position).iter_mut().step_by(stride);
            limb.zip(&compact)
                .for_each(|(to, &c)| *to = reduce.apply(c));
        }
        self.0.backend.forward_ntt(&mut poly)?;
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
        let coefficients = self.coefficients(slots, scale)?;
        self.check_fits(&coefficients, basis)?;
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
        let coefficients = self.coefficients(slots, scale)?;
        let largest = self.check_fits(&coefficients, basis)?;
        let period = coefficients.len();
        let chain = self.0.params.chain();
        let mut values = Vec::with_capacity(period * basis.len());
        for prime in basis.iter() {
            let Some(&psi) = self.0.psi.get(prime) else {
                break;
            };
            let modulus = chain.modulus(prime);
            let reduce = Reduce::new(modulus, largest);
            let mut limb: Vec<u64> = coefficients.iter().map(|&c| reduce.apply(c)).collect();
            let root = modulus.pow(psi, (self.0.params.n() / period) as u64);
            small_ntt(modulus, root, &mut limb);
            values.extend(limb);
        }
        Ok(PlainPoly::Periodic {
            period,
            basis,
            values,
        })
    }

    /// Decodes a polynomial in either form: the centred value modulo its first one or two primes,
    /// divided by the scale. The message must be below half of their product in every coefficient
    /// (two primes hold 60 bits and more).
    ///
    /// # Errors
    /// [`CkksError::Malformed`] for an empty basis or another ring, or the ring's.
    pub fn decode(&self, poly: &RnsPoly, scale: Scale) -> Result<Vec<Complex>, CkksError> {
        let coefficients = self.centred(poly)?;
        let factor = 1.0 / scale.value();
        let scaled: Vec<f64> = coefficients.iter().map(|&c| c as f64 * factor).collect();
        Ok(self.0.embedding.forward(&scaled))
    }

    /// The first primes of a basis that hold any value that is decoded: 100 bits of them (a product
    /// before its rescale fits), or as many as there are and as an i128 holds. Decryption needs the others
    /// as little as decoding does.
    #[must_use]
    pub fn readable(&self, basis: Basis) -> Basis {
        let chain = self.0.params.chain();
        let mut found = Basis::empty();
        for prime in basis.intersect(chain.all()).iter() {
            let more = found.union(Basis::single(prime));
            let enough = chain.product_log2(found) >= ENOUGH_BITS;
            if enough || chain.product_log2(more) >= MOST_BITS {
                break;
            }
            found = more;
        }
        found
    }

    /// The centred coefficients of a polynomial modulo its [`Encoder::readable`] primes.
    ///
    /// # Errors
    /// As [`Encoder::decode`].
    pub fn centred(&self, poly: &RnsPoly) -> Result<Vec<i128>, CkksError> {
        let chain = self.0.params.chain();
        if poly.n() != self.0.params.n()
            || poly.basis().is_empty()
            || !chain.all().contains_all(poly.basis())
        {
            return Err(CkksError::malformed(
                "polynomial to decode",
                format!(
                    "dimension {} on {}, expected {} and at least one prime",
                    poly.n(),
                    poly.basis(),
                    self.0.params.n()
                ),
            ));
        }
        let basis = self.readable(poly.basis());
        let mut low = self.0.backend.restrict(poly, basis)?;
        if low.form() == Form::Ntt {
            self.0.backend.inverse_ntt(&mut low)?;
        }
        // Garner, one prime after the other: x += product * ((x_i - x) / product mod q_i).
        let mut values = vec![0i128; poly.n()];
        let mut product = 1i128;
        for (position, prime) in basis.iter().enumerate() {
            let limb = low.limb(position);
            let q = chain.modulus(prime);
            let inverse = q.inv(q.from_i128(product)).unwrap_or_default();
            for (x, &residue) in values.iter_mut().zip(limb) {
                let digit = q.mul(q.sub(residue, q.from_i128(*x)), inverse);
                *x += product * i128::from(digit);
            }
            product *= i128::from(q.value());
        }
        for x in &mut values {
            if *x > product / 2 {
                *x -= product;
            }
        }
        Ok(values)
    }

    /// The largest absolute coefficient, which must be below half of the modulus: the product of
    /// the basis's primes that are not special.
    fn check_fits(&self, coefficients: &[i128], basis: Basis) -> Result<u128, CkksError> {
        let largest = coefficients.iter().map(|c| c.unsigned_abs()).max();
        let largest = largest.unwrap_or_default();
        let params = &self.0.params;
        let available = params.chain().product_log2(basis.minus(params.special()));
        if largest > 0 && (largest as f64).log2() + 1.0 > available {
            return Err(too_large(largest as f64, available));
        }
        Ok(largest)
    }
}

/// Reduction of signed coefficients modulo a prime. Nearly all encodings have small coefficients,
/// for which the 128-bit division (most of the encoder's time otherwise) is not needed.
enum Reduce<'a> {
    /// All absolute values are below the prime.
    Below(&'a Modulus),
    /// All fit a signed word.
    Word(&'a Modulus),
    Wide(&'a Modulus),
}

impl<'a> Reduce<'a> {
    fn new(modulus: &'a Modulus, largest: u128) -> Self {
        if largest < u128::from(modulus.value()) {
            Self::Below(modulus)
        } else if largest <= i64::MAX as u128 {
            Self::Word(modulus)
        } else {
            Self::Wide(modulus)
        }
    }

    #[inline]
    fn apply(&self, c: i128) -> u64 {
        match self {
            Self::Below(modulus) => {
                let c = c as i64;
                (c + (modulus.value() as i64 & (c >> 63))) as u64
            }
            Self::Word(modulus) => modulus.from_i64(c as i64),
            Self::Wide(modulus) => modulus.from_i128(c),
        }
    }
}

fn too_large(largest: f64, available: f64) -> CkksError {
    CkksError::TooLarge {
        needed: largest.log2() + 1.0,
        available,
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
