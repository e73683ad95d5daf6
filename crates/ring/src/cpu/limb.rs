//! One limb at a time: for callers that finish a limb before they begin the next, so that it stays
//! in the cache from its first step to its last. An encryption is such a caller.

use super::Cpu;
use super::convert::goes_past;
use crate::basis::Basis;
use crate::chain::Chain;
use crate::error::{Result, RingError};
use crate::expander::{Expander, ExpanderId, Stream};
use crate::kernels::{ROUND_KEYS, order_past};
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

    /// `out = x - a * b` on one limb of N words, in NTT form, of a polynomial of so many limbs: one that the caches
    /// do not hold is written past them. What stands in `out` is not read. `product` is room for a piece of the
    /// product; with a thousand words it stays in the first cache.
    ///
    /// # Errors
    /// As [`Cpu::forward_ntt_limb`], or [`RingError::BadLength`] without room.
    pub fn sub_product_limb(
        &self,
        (prime, limbs): (usize, usize),
        out: &mut [u64],
        x: &[u64],
        (a, b): (&[u64], &[u64]),
        product: &mut [u64],
    ) -> Result<()> {
        let m = check(&self.chain, "sub_product_limb", prime, &[out, x, a, b])?;
        let piece = product.len();
        if piece == 0 {
            return Err(RingError::BadLength {
                op: "sub_product_limb",
                expected: 1,
                found: 0,
            });
        }
        let past = goes_past(limbs.saturating_mul(out.len()));
        let pieces = out.chunks_mut(piece).zip(x.chunks(piece));
        let factors = a.chunks(piece).zip(b.chunks(piece));
        for ((out, x), (a, b)) in pieces.zip(factors) {
            let product = &mut product[..out.len()];
            self.kernels.mul(m, product, a, b, false);
            self.kernels.difference(m, out, x, product, past);
        }
        if past {
            order_past();
        }
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
            let sum = whole.clone();
            cpu.inverse_ntt(&mut whole)?;
            let difference = cpu.sub(&transformed, &cpu.mul(&b, &sum)?)?;
            for i in 0..chain.len() {
                let mut limb = a.limb(i).to_vec();
                // Any representative below 4q will do.
                limb[0] += 3 * chain.modulus(i).value();
                cpu.forward_ntt_limb(i, &mut limb)?;
                assert_eq!(limb, transformed.limb(i), "{isa:?}");
                cpu.mul_acc_limb(i, &mut limb, b.limb(i), transformed.limb(i))?;
                assert_eq!(limb, sum.limb(i), "{isa:?}");
                let mut back = vec![1; limb.len()];
                cpu.inverse_ntt_limb(i, &mut back, &limb)?;
                assert_eq!(back, whole.limb(i), "{isa:?}");
                // Of a polynomial that stays in the caches, and of one that does not.
                let factors = (b.limb(i), &limb[..]);
                for (limbs, piece) in [(1, 1), (3, 24), (1 << 20, 1024), (usize::MAX, 64)] {
                    let (mut out, mut room) = (a.clone(), vec![7; piece]);
                    let x = transformed.limb(i);
                    cpu.sub_product_limb((i, limbs), out.limb_mut(i), x, factors, &mut room)?;
                    assert_eq!(out.limb(i), difference.limb(i), "{isa:?}");
                }
                let refused = cpu.sub_product_limb((i, 1), &mut back, &limb, factors, &mut []);
                assert!(matches!(refused, Err(RingError::BadLength { .. })));
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
            let (x, short, mut room) = (a.limb(0), &a.limb(0)[1..], [0; 64]);
            for factors in [(short, x), (x, short), (x, &[][..])] {
                let refused = cpu.sub_product_limb((0, 1), &mut limb, x, factors, &mut room);
                assert!(matches!(refused, Err(RingError::BadLength { .. })));
            }
            let from = (&Expander::new(ExpanderId::Aes128, [6; 32]), stream);
            let refused = cpu.uniform_limb(chain.len(), from, &mut limb);
            assert!(matches!(refused, Err(RingError::BadBasis { .. })));
            let refused = cpu.uniform_limb(0, from, &mut limb[1..]);
            assert!(matches!(refused, Err(RingError::BadLength { .. })));
        }
        Ok(())
    }
}
