//! Plaintexts in the form that products read.

use super::Cpu;
use super::prepared::begins;
use crate::basis::Basis;
use crate::buffer::Buffer;
use crate::chain::Chain;
use crate::error::Result;
use crate::kernels::{PACKED_PAD, Packed, Values};
use crate::key::PlainPoly;

/// A plaintext prepared for [`Cpu`]: Montgomery form, packed as keys are if it has a value for every word.
pub struct CpuPlain {
    basis: Basis,
    /// Values of a limb: N, a period, or 1.
    period: usize,
    /// The values of each prime.
    words: Buffer,
    /// Where those of each prime begin, and where the last ones end, if they are packed.
    begins: Vec<usize>,
}

impl CpuPlain {
    /// Bytes that the plaintext occupies.
    pub fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    /// Words of the buffer of a plaintext with so many values modulo each prime of `basis`: if these are N, 5, 6 or
    /// 7 words hold 8 values modulo a prime of at most 40, at most 48, more bits; else each value has one.
    ///
    /// # Errors
    /// [`crate::RingError::BadBasis`] if `basis` names primes outside the chain.
    pub fn words_of(chain: &Chain, basis: Basis, period: usize) -> Result<usize> {
        chain.check_basis("words_of", basis)?;
        Ok(match period == chain.n() {
            true => begins(chain, basis, 1).last().copied().unwrap_or(0),
            false => basis.len().saturating_mul(period),
        })
    }

    /// The primes.
    pub(super) fn basis(&self) -> Basis {
        self.basis
    }

    /// Values of a limb.
    pub(super) fn period(&self) -> usize {
        self.period
    }

    /// Whether every word has a value of its own.
    pub(super) fn is_dense(&self) -> bool {
        !self.begins.is_empty()
    }

    /// The values modulo a prime; zero modulo those that it does not have.
    pub(super) fn values_of(&self, prime: usize) -> Values<'_> {
        let Some(pos) = self.basis.position_of(prime) else {
            return Values::Zero;
        };
        if !self.is_dense() {
            return Values::Runs(&self.words[pos * self.period..(pos + 1) * self.period]);
        }
        match self.begins.get(pos..pos + 2) {
            Some(&[begin, end]) => Values::Packed(Packed {
                words: &self.words.and_behind()[begin..end + PACKED_PAD],
            }),
            _ => Values::Zero,
        }
    }
}

impl Cpu {
    /// A plaintext in the form that products read.
    pub(super) fn prepare_values(&self, plain: &PlainPoly) -> Result<CpuPlain> {
        plain.check(&self.chain)?;
        let basis = plain.basis();
        let (period, values) = match plain {
            PlainPoly::Dense(p) => (self.chain.n(), p.words()),
            PlainPoly::Periodic { period, values, .. } => (*period, &values[..]),
            PlainPoly::Scalar { residues, .. } => (1, &residues[..]),
        };
        let limbs = basis.iter().zip(values.chunks_exact(period));
        if period == self.chain.n() {
            let begins = begins(&self.chain, basis, 1);
            let mut words = Buffer::kept(begins.last().copied().unwrap_or(0));
            for ((i, values), run) in limbs.zip(begins.windows(2)) {
                let m = self.chain.modulus(i);
                let row = &mut words[run[0]..run[1]];
                self.kernels.pack_row(m, row, values, m.mont_one(), (0, 1));
            }
            return Ok(CpuPlain {
                basis,
                period,
                words,
                begins,
            });
        }
        let mut words = Buffer::kept(values.len());
        for ((i, values), out) in limbs.zip(words.chunks_exact_mut(period)) {
            let m = self.chain.modulus(i);
            self.kernels.mul_const(m, out, values, m.mont_one());
        }
        Ok(CpuPlain {
            basis,
            period,
            words,
            begins: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Samples, test_chain};
    use crate::{Backend, CpuConfig, Form, Isa};

    #[test]
    fn plaintexts_have_the_words_that_are_said() {
        let chain = test_chain(8, 3, 1).unwrap();
        let mut samples = Samples::new(&chain, 3);
        let basis = chain.all();
        for isa in Isa::available() {
            let cpu = Cpu::new(chain.clone(), CpuConfig { isa }).unwrap();
            for period in [1, 2, 128, 256] {
                let plain = match period {
                    256 => PlainPoly::Dense(samples.poly(basis, Form::Ntt).unwrap()),
                    _ => PlainPoly::Periodic {
                        period,
                        basis,
                        values: samples.residues(basis, period),
                    },
                };
                let plain = cpu.prepare_plain(&plain).unwrap();
                let words = CpuPlain::words_of(&chain, basis, period).unwrap();
                assert_eq!(plain.bytes(), 8 * words);
            }
        }
        assert!(CpuPlain::words_of(&chain, Basis::single(100), 1).is_err());
    }
}
