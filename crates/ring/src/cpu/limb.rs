//! One limb at a time: for callers that finish a limb before they begin the next, so that it stays
//! in the cache from its first step to its last. An encryption is such a caller.

use super::Cpu;
use crate::basis::Basis;
use crate::chain::Chain;
use crate::error::{Result, RingError};
use crate::expander::{Expander, ExpanderId, Stream};
use crate::kernels::ROUND_KEYS;
use crate::keystream::limb_key;
use crate::modulus::Modulus;

impl Cpu {
    /// The forward NTT of one limb modulo prime number `prime` of the chain: from words below 4q to
    /// canonical ones.
    ///
    /// # Errors
    /// [`RingError::BadBasis`] for a prime outside the chain, [`RingError::BadLength`] unless the
    /// limb has N words.
    pub fn forward_ntt_limb(&self, prime: usize, limb: &mut [u64]) -> Result<()> {
        check(&self.chain, "forward_ntt_limb", prime, &[limb])?;
        self.kernels.forward(self.chain.table(prime), limb, &[]);
        Ok(())
    }

    /// The inverse NTT of the limb `x`, written to `out`.
    ///
    /// # Errors
    /// As [`Cpu::forward_ntt_limb`].
    pub fn inverse_ntt_limb(&self, prime: usize, out: &mut [u64], x: &[u64]) -> Result<()> {
        check(&self.chain, "inverse_ntt_limb", prime, &[out, x])?;
        let table = self.chain.table(prime);
        let scale = table.scaled(1);
        self.kernels.inverse(table, out, Some(x), &scale, &[]);
        Ok(())
    }

    /// One limb of a uniform polynomial, as [`Expander::fill`] makes it.
    ///
    /// # Errors
    /// As [`Cpu::forward_ntt_limb`].
    pub fn uniform_limb(
        &self,
        prime: usize,
        (expander, stream): (&Expander, Stream),
        out: &mut [u64],
    ) -> Result<()> {
        let m = check(&self.chain, "uniform_limb", prime, &[out])?;
        self.expand(expander, stream, m, out);
        Ok(())
    }

    pub(super) fn expand(&self, from: &Expander, stream: Stream, m: &Modulus, out: &mut [u64]) {
        match from.id() {
            ExpanderId::Blake3 => from.fill(stream, m, out),
            ExpanderId::Aes128 => {
                let mut round_keys = [0; ROUND_KEYS];
                let key = limb_key(from.seed(), stream, m);
                self.kernels.round_keys(&key, &mut round_keys);
                self.kernels.uniform(m, &round_keys, out);
            }
        }
    }

    /// `acc += a * b` on one limb of N words, in NTT form.
    ///
    /// # Errors
    /// As [`Cpu::forward_ntt_limb`].
    pub fn mul_acc_limb(&self, prime: usize, acc: &mut [u64], a: &[u64], b: &[u64]) -> Result<()> {
        let m = check(&self.chain, "mul_acc_limb", prime, &[acc, a, b])?;
        self.kernels.mul_acc(m, acc, a, b);
        Ok(())
    }

    /// `x = -x` on one limb of N words.
    ///
    /// # Errors
    /// As [`Cpu::forward_ntt_limb`].
    pub fn neg_limb(&self, prime: usize, x: &mut [u64]) -> Result<()> {
        let m = check(&self.chain, "neg_limb", prime, &[x])?;
        self.kernels.neg(m, x);
        Ok(())
    }
}

fn check<'c>(
    chain: &'c Chain,
    op: &'static str,
    prime: usize,
    limbs: &[&[u64]],
) -> Result<&'c Modulus> {
    if prime >= chain.len() {
        return Err(RingError::BadBasis {
            op,
            basis: Basis::single(prime),
            reason: "it names primes outside the chain",
        });
    }
    match limbs.iter().find(|limb| limb.len() != chain.n()) {
        None => Ok(chain.modulus(prime)),
        Some(limb) => Err(RingError::BadLength {
            op,
            expected: chain.n(),
            found: limb.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use crate::conformance::{Samples, test_chain};
    use crate::expander::{Expander, ExpanderId, Stream};
    use crate::{Backend, Cpu, CpuConfig, Form, RingError};

    #[test]
    fn limbs_one_by_one_are_the_polynomial() -> crate::Result<()> {
        // A transform in one block, and one in several.
        let sizes = [8, 13].into_iter();
        for (log_n, isa) in
            sizes.flat_map(|n| crate::Isa::available().into_iter().map(move |i| (n, i)))
        {
            let cpu = Cpu::new(test_chain(log_n, 3, 1)?, CpuConfig { isa })?;
            let chain = cpu.chain().clone();
            let mut samples = Samples::new(&chain, 5);
            let a = samples.poly(chain.all(), Form::Coefficient)?;
            let b = samples.poly(chain.all(), Form::Ntt)?;
            let mut whole = a.clone();
            cpu.forward_ntt(&mut whole)?;
            let transformed = whole.clone();
            cpu.mul_acc(&mut whole, &b, &transformed)?;
            cpu.neg_assign(&mut whole)?;
            let product = whole.clone();
            cpu.inverse_ntt(&mut whole)?;
            for i in 0..chain.len() {
                let mut limb = a.limb(i).to_vec();
                // Any representative below 4q will do.
                limb[0] += 3 * chain.modulus(i).value();
                cpu.forward_ntt_limb(i, &mut limb)?;
                assert_eq!(limb, transformed.limb(i), "{isa:?}");
                cpu.mul_acc_limb(i, &mut limb, b.limb(i), transformed.limb(i))?;
                cpu.neg_limb(i, &mut limb)?;
                assert_eq!(limb, product.limb(i), "{isa:?}");
                let mut back = vec![1; limb.len()];
                cpu.inverse_ntt_limb(i, &mut back, &limb)?;
                assert_eq!(back, whole.limb(i), "{isa:?}");
            }
            let stream = Stream { digit: 2, part: 1 };
            for id in [ExpanderId::Blake3, ExpanderId::Aes128] {
                let expander = Expander::new(id, [6; 32]);
                let whole = expander.poly(&chain, chain.all(), stream)?;
                for i in 0..chain.len() {
                    let mut limb = a.limb(i).to_vec();
                    cpu.uniform_limb(i, (&expander, stream), &mut limb)?;
                    assert_eq!(limb, whole.limb(i), "{isa:?}");
                }
            }
            let mut limb = a.limb(0).to_vec();
            for outside in [chain.len(), 128, usize::MAX] {
                let refused = cpu.forward_ntt_limb(outside, &mut limb);
                assert!(matches!(refused, Err(RingError::BadBasis { .. })));
            }
            let refused = cpu.mul_acc_limb(0, &mut limb, a.limb(0), &a.limb(0)[1..]);
            assert!(matches!(refused, Err(RingError::BadLength { .. })));
        }
        Ok(())
    }
}
