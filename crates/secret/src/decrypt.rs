//! Decryption, and what may happen with its result.
//!
//! An approximate decryption carries the ciphertext's noise, and whoever sees enough of them
//! together with the ciphertexts recovers the secret key (Li and Micciancio, ePrint 2020/1533).
//! A decryption is therefore a [`Decrypted<Private>`]: its slots can only be had by consuming it,
//! either for the owner's own eyes or through a [`Disclosure`] that is chosen by name.

use std::marker::PhantomData;

use veilformer_ckks::uniform::{self, Stream};
use veilformer_ckks::{
    Centred, Ciphertext, CiphertextInfo, Complex, Encoder, Params, Scale, StoredCiphertext, Uniform,
};
use veilformer_ring::{Basis, Expander, RnsPoly};
use zeroize::{Zeroize, Zeroizing};

use crate::rng::{SecretRng, SecureRng};
use crate::{SecretError, SecretKey};

/// Statistical security in bits of a flooded disclosure: an adversary without any bound on its
/// time tells two noises apart with probability at most 2^-30.
pub const FLOODING_BITS: u32 = 30;

/// Decrypts with one secret key.
pub struct Decryptor<'k> {
    key: &'k SecretKey,
    encoder: Encoder,
}

impl<'k> Decryptor<'k> {
    /// A decryptor.
    ///
    /// # Errors
    /// The ring's.
    pub fn new(key: &'k SecretKey) -> Result<Self, SecretError> {
        Ok(Self {
            key,
            encoder: Encoder::new(key.params())?,
        })
    }

    /// c0 + c1 s, modulo as many primes as the message fills and one more, which verifies it (see
    /// [`Centred`]).
    ///
    /// # Errors
    /// [`SecretError::WrongKey`] if another key encrypted it, or the ring's for other parameters.
    pub fn decrypt(&self, ciphertext: &Ciphertext<RnsPoly>) -> Result<Decrypted, SecretError> {
        let (c0, c1) = ciphertext.parts();
        self.check_chain(c1)?;
        self.phase(ciphertext.info(), c0, |prime, limb| {
            limb.copy_from_slice(limb_of(c1, prime)?);
            Ok(())
        })
    }

    /// As [`Decryptor::decrypt`], of a ciphertext as it is stored or sent, which is checked first.
    /// Of a seeded one only the limbs that are looked at are expanded.
    ///
    /// # Errors
    /// As [`Decryptor::decrypt`], or [`StoredCiphertext::conform`].
    pub fn decrypt_stored(&self, stored: &StoredCiphertext) -> Result<Decrypted, SecretError> {
        let params = self.key.params();
        stored.conform(params)?;
        match &stored.uniform {
            Uniform::Seed(seed) => {
                let expander = Expander::new(stored.expander, *seed);
                let backend = self.key.backend();
                self.phase(stored.info, &stored.body, |prime, limb| {
                    let from = (&expander, Stream::Ciphertext);
                    Ok(uniform::expand_limb(backend, from, prime, limb)?)
                })
            }
            Uniform::Poly(c1) => {
                self.check_chain(c1)?;
                self.phase(stored.info, &stored.body, |prime, limb| {
                    limb.copy_from_slice(limb_of(c1, prime)?);
                    Ok(())
                })
            }
        }
    }

    /// The decryption of c0 and a c1 whose limbs a function writes.
    fn phase(
        &self,
        info: CiphertextInfo,
        c0: &RnsPoly,
        mut c1: impl FnMut(usize, &mut [u64]) -> Result<(), SecretError>,
    ) -> Result<Decrypted, SecretError> {
        if info.key_id != self.key.id() {
            return Err(SecretError::WrongKey {
                found: info.key_id,
                expected: self.key.id(),
            });
        }
        self.check_chain(c0)?;
        let backend = self.key.backend();
        let mut sum = Zeroizing::new(vec![0; self.key.params().n()]);
        let coefficients = self.encoder.centred_by(c0.basis(), |prime, out| {
            sum.copy_from_slice(limb_of(c0, prime)?);
            c1(prime, out)?;
            backend.mul_acc_limb(prime, &mut sum, out, self.key.limb(prime))?;
            Ok::<_, SecretError>(backend.inverse_ntt_limb(prime, out, &sum)?)
        })?;
        Ok(Decrypted {
            content: PrivateContent {
                coefficients: SecretCentred(coefficients),
                scale: info.scale,
                basis: c0.basis(),
                encoder: self.encoder.clone(),
            },
            state: PhantomData,
        })
    }

    fn check_chain(&self, poly: &RnsPoly) -> Result<(), SecretError> {
        if poly.chain() == self.key.params().chain() {
            return Ok(());
        }
        Err(SecretError::WrongParams {
            object: "the ciphertext",
        })
    }
}

/// A limb of a ciphertext.
fn limb_of(poly: &RnsPoly, prime: usize) -> Result<&[u64], SecretError> {
    poly.limb_of(prime).ok_or(SecretError::WrongParams {
        object: "the ciphertext",
    })
}

mod state {
    /// What a decryption holds in one of its two states.
    pub trait State {
        /// The content.
        type Content;
    }
}

/// State of a decryption that only the owner of the key may see.
pub enum Private {}
/// State of a decryption that may be handed on.
pub enum Shared {}

impl state::State for Private {
    type Content = PrivateContent;
}
impl state::State for Shared {
    type Content = SharedContent;
}

/// A decryption. In the state [`Private`] it has neither `Debug` nor `Clone` nor accessors, and
/// is wiped when dropped; see [`Decrypted::reveal_to_owner`] and [`Decrypted::disclose`].
///
/// ```compile_fail,E0277
/// fn leak(d: veilformer_secret::Decrypted) { println!("{d:?}"); }
/// ```
///
/// ```compile_fail,E0599
/// fn keep(d: &veilformer_secret::Decrypted) -> veilformer_secret::Decrypted { d.clone() }
/// ```
///
/// ```compile_fail,E0599
/// fn share(d: veilformer_secret::Decrypted) { d.into_slots(); }
/// ```
pub struct Decrypted<S: state::State = Private> {
    content: S::Content,
    state: PhantomData<S>,
}

#[doc(hidden)]
pub struct PrivateContent {
    coefficients: SecretCentred,
    scale: Scale,
    /// The primes of the ciphertext.
    basis: Basis,
    encoder: Encoder,
}

/// Wiped when dropped.
struct SecretCentred(Centred);

impl Drop for SecretCentred {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

#[doc(hidden)]
pub struct SharedContent {
    slots: Vec<Complex>,
    disclosure: Disclosure,
}

/// How a decryption is made fit for other eyes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Disclosure {
    /// Real and imaginary parts rounded to multiples of 2^-bits. Hides the noise only where it
    /// is far below 2^-bits: a value within the noise of a rounding boundary still shows it.
    /// For few answers to a party that is not set on attacking; otherwise flood.
    Rounded {
        /// Fractional bits that remain, at most 60.
        bits: u32,
    },
    /// Gaussian noise that drowns the ciphertext's, for so many disclosures under one key (Li,
    /// Micciancio, Schultz, Sorrell, ePrint 2022/816: sigma = sqrt(12 queries) 2^(s/2) t with
    /// s = [`FLOODING_BITS`]). Costs about 16 + log2(N queries)/2 bits of precision.
    Flooded {
        /// Number of decryptions that will be disclosed under this key, at least 1.
        queries: u64,
        /// Worst-case absolute error of any slot, from the compiler's static analysis: measured
        /// noise depends on the message and protects nothing.
        static_noise_bound: f64,
    },
    /// No disclosure.
    Refused,
}

impl Decrypted<Private> {
    /// The slots, for the owner of the key. They must not travel back to whoever computed on the
    /// ciphertext, in any form that depends on more than the intended answer.
    ///
    /// # Errors
    /// The encoder's.
    pub fn reveal_to_owner(self) -> Result<Vec<Complex>, SecretError> {
        let content = &self.content;
        let coefficients = &content.coefficients.0;
        Ok(content
            .encoder
            .decode_centred(coefficients, content.scale)?)
    }

    /// The slots for others, after the chosen treatment.
    ///
    /// # Errors
    /// [`SecretError::Refused`] for [`Disclosure::Refused`]; [`SecretError::Disclosure`] if the
    /// treatment is not possible: arguments out of range, or flooding noise that the ciphertext's
    /// modulus cannot hold.
    pub fn disclose(
        self,
        disclosure: Disclosure,
        rng: &mut SecureRng,
    ) -> Result<Decrypted<Shared>, SecretError> {
        let slots = match disclosure {
            Disclosure::Refused => return Err(SecretError::Refused),
            Disclosure::Rounded { bits } => self.rounded(bits)?,
            Disclosure::Flooded {
                queries,
                static_noise_bound,
            } => {
                let sigma = flooding_sigma(queries, static_noise_bound)?;
                let sigma = sigma * self.content.scale.value();
                self.flooded(sigma, rng)?
            }
        };
        Ok(Decrypted {
            content: SharedContent { slots, disclosure },
            state: PhantomData,
        })
    }

    fn rounded(self, bits: u32) -> Result<Vec<Complex>, SecretError> {
        if bits > 60 {
            return Err(refuse(format!(
                "rounding to {bits} fractional bits, at most 60 are possible"
            )));
        }
        let factor = f64::from(bits).exp2();
        let round = |x: f64| (x * factor).round_ties_even() / factor;
        let exact = self.reveal_to_owner()?;
        let rounded = exact.iter().map(|z| Complex::new(round(z.re), round(z.im)));
        let rounded = rounded.collect();
        wipe(exact);
        Ok(rounded)
    }

    /// Adds rounded Gaussian noise of standard deviation `sigma` to every coefficient.
    fn flooded(self, sigma: f64, rng: &mut SecureRng) -> Result<Vec<Complex>, SecretError> {
        let content = self.content;
        let params: &Params = content.encoder.params();
        let coefficients = &content.coefficients.0;
        // The noise is added to exact integers, which fill two primes at most.
        let low: Vec<usize> = content.basis.iter().take(2).collect();
        let room = params
            .chain()
            .product_log2(Basis::from_indices(&low))
            .exp2()
            / 2.0;
        let exact = coefficients.exact().map(Zeroizing::new);
        let largest = exact.as_ref().map_or(f64::INFINITY, |exact| {
            exact.iter().map(|c| c.unsigned_abs()).max().unwrap_or(0) as f64
        });
        let reach = largest + 10.0 * sigma;
        if reach.is_nan() || reach >= room {
            return Err(refuse(format!(
                "flooding needs {:.1} bits and the ciphertext's modulus holds {:.1}; \
                 disclose at a higher level, rounded, or for fewer queries",
                reach.log2() + 1.0,
                room.log2() + 1.0
            )));
        }
        let mut sum = exact.unwrap_or_default();
        for pair in sum.chunks_mut(2) {
            let (x, y) = normal_pair(rng);
            for (coefficient, sample) in pair.iter_mut().zip([x, y]) {
                *coefficient += (sample * sigma).round_ties_even() as i128;
            }
        }
        let sum = SecretCentred(std::mem::take(&mut *sum).into());
        Ok(content.encoder.decode_centred(&sum.0, content.scale)?)
    }
}

impl Decrypted<Shared> {
    /// The slots.
    #[must_use]
    pub fn into_slots(self) -> Vec<Complex> {
        self.content.slots
    }

    /// The slots.
    #[must_use]
    pub fn slots(&self) -> &[Complex] {
        &self.content.slots
    }

    /// How they were treated.
    #[must_use]
    pub fn disclosure(&self) -> Disclosure {
        self.content.disclosure
    }
}

/// Standard deviation of the flooding noise per coefficient, in units of the scale.
///
/// t is a bound on the Euclidean length of the noise's coefficients. With all N/2 slots wrong by
/// at most E, Parseval's identity for the canonical embedding (sum of |slot|^2 = N/2 times sum of
/// coefficient^2) gives exactly t = E.
fn flooding_sigma(queries: u64, static_noise_bound: f64) -> Result<f64, SecretError> {
    if queries == 0 || !(static_noise_bound > 0.0 && static_noise_bound.is_finite()) {
        return Err(refuse(format!(
            "flooding for {queries} queries over a noise of {static_noise_bound}; \
             both must be positive and finite"
        )));
    }
    let factor = (12.0 * queries as f64).sqrt() * f64::from(FLOODING_BITS / 2).exp2();
    Ok(factor * static_noise_bound)
}

/// Two independent standard normal numbers (Box and Muller); with 64-bit uniforms they reach 9.4.
fn normal_pair<R: SecretRng>(rng: &mut R) -> (f64, f64) {
    let unit = |word: u64| (word as f64 + 0.5) / 2f64.powi(64);
    let radius = (-2.0 * unit(rng.next_u64()).min(1.0).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * unit(rng.next_u64())).sin_cos();
    (radius * cos, radius * sin)
}

fn refuse(what: String) -> SecretError {
    SecretError::Disclosure { what }
}

fn wipe(mut slots: Vec<Complex>) {
    for slot in &mut slots {
        slot.re.zeroize();
        slot.im.zeroize();
    }
}
