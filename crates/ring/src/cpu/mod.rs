//! The CPU backend.

mod convert;
mod engine;
pub mod grouping;
mod key_switch;
mod limb;
mod parallel;
mod plain;
mod prepared;
mod transform;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use plain::CpuPlain;
pub use prepared::CpuKey;

use std::sync::Arc;

use crate::backend::{Backend, FactorsRef, Pair, PairRef, TransformPlan};
use crate::basis::Basis;
use crate::chain::Chain;
use crate::error::{Result, RingError};
use crate::galois::{GaloisElement, Permutation, Permutations};
use crate::kernels::{Isa, Keep, Kernels, LOW_LOG, Packed, TERMS, Values, order_past};
use crate::key::{PlainPoly, SwitchingKey};
use crate::modulus::Modulus;
use crate::poly::{Form, RnsPoly};
use crate::reference::{check_extend, check_rescale, check_residues};
use convert::goes_past;
use parallel::{even_runs, share, threads_for, threads_pointwise};

/// Words of a sum of products that are finished before the next: they stay in the first cache while one
/// term after another goes by.
const SUM_PIECE: usize = if cfg!(test) { 64 } else { 1024 };

/// How a [`Cpu`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuConfig {
    /// The instruction set of the kernels.
    pub isa: Isa,
}

impl Default for CpuConfig {
    /// The best instruction set of this processor.
    fn default() -> Self {
        Self { isa: Isa::detect() }
    }
}

/// The CPU backend: kernels for an instruction set chosen at run time, limb-local fused coarse
/// operations.
///
/// A call shares its work with the idle threads of the ambient rayon pool, by primes, as far as
/// there is enough of it (rings of `N = 2^13` and fewer gain little). `ThreadPool::install` so
/// decides how many threads a call has; in a pool of one thread nothing is shared. Results are
/// the same for any number of threads, and memory grows by one scratch for each.
pub struct Cpu {
    chain: Arc<Chain>,
    kernels: Kernels,
    permutations: Permutations,
    /// Whether uniform halves of keys are kept as seeds where they are seeds.
    seeds: bool,
}

impl Cpu {
    /// A backend on a chain.
    ///
    /// # Errors
    /// [`RingError::IsaUnavailable`] if this processor lacks the instruction set.
    pub fn new(chain: Arc<Chain>, config: CpuConfig) -> Result<Self> {
        Ok(Self {
            seeds: prepared::keeps_seeds(&chain, config.isa),
            chain,
            kernels: Kernels::new(config.isa)?,
            permutations: Permutations::default(),
        })
    }

    /// The same backend with all uniform halves of keys in memory: for comparison, and for processors
    /// whose memory is faster than their AES.
    #[must_use]
    pub fn with_stored_halves(mut self) -> Self {
        self.seeds = false;
        self
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.kernels.isa()
    }

    fn check_plain(&self, op: &'static str, a: &RnsPoly, plain: &CpuPlain) -> Result<()> {
        self.chain.check_same(op, a.chain())?;
        a.require_form(op, Form::Ntt)?;
        if plain.basis().contains_all(a.basis()) {
            Ok(())
        } else {
            Err(RingError::BasisMismatch {
                op,
                expected: a.basis(),
                found: plain.basis(),
            })
        }
    }

    /// `out = a * plain`, or that added to `out`, on the words of a limb that begin at `start`: in runs of equal
    /// plaintext, each of which `out` has whole or lies inside of.
    fn mul_runs(
        &self,
        m: &Modulus,
        (out, start): (&mut [u64], usize),
        a: &[u64],
        plain: &[u64],
        acc: bool,
    ) {
        let run = self.chain.n() / plain.len().max(1);
        for ((out, a), &value) in out
            .chunks_mut(run)
            .zip(a.chunks(run))
            .zip(&plain[start / run..])
        {
            let c = m.shoup(m.leave_mont(value));
            if acc {
                self.kernels.mul_const_acc(m, out, a, c);
            } else {
                self.kernels.mul_const(m, out, a, c);
            }
        }
    }

    /// Runs `f(prime, limb of out)` for every limb, on several threads if `threads` of the words
    /// are more than one.
    fn each_limb(
        &self,
        out: &mut RnsPoly,
        threads: fn(usize) -> usize,
        f: impl Fn(usize, &mut [u64]) + Sync,
    ) {
        let limbs: Vec<(usize, &mut [u64])> = out.limbs_mut().collect();
        let threads = threads(limbs.len() * self.chain.n());
        share(threads, limbs, || (), |(), (i, limb)| f(i, limb));
    }

    /// Runs `f(prime, limb, past)` for every limb of a new polynomial: if it is large, what is written to it once had
    /// better go past the caches.
    fn each_fresh_limb(&self, out: &mut RnsPoly, f: impl Fn(usize, &mut [u64], bool) + Sync) {
        let past = goes_past(out.basis().len() * self.chain.n());
        self.each_limb(out, threads_pointwise, |i, limb| {
            f(i, limb, past);
            if past {
                order_past();
            }
        });
    }

    /// Runs `f(prime, limb, next limb)` for every limb where it is, as transforms do; nobody may read
    /// of the next one but to fetch it.
    fn each_limb_and_next(&self, poly: &mut RnsPoly, f: impl Fn(usize, &mut [u64], &[u64]) + Sync) {
        let limbs: Vec<(usize, &mut [u64])> = poly.limbs_mut().collect();
        let threads = threads_for(limbs.len() * self.chain.n());
        // Runs, so that a thread works on the limb next that it fetched; several for each, so that all
        // end together.
        let count = if threads == 1 { 1 } else { 4 * threads };
        let runs = even_runs(limbs, count);
        share(
            threads,
            runs,
            || (),
            |(), mut run| {
                let mut left = &mut run[..];
                while let Some(((i, limb), rest)) = left.split_first_mut() {
                    f(*i, limb, rest.first().map_or(&[], |next| &*next.1));
                    left = rest;
                }
            },
        );
    }

    /// An automorphism of one limb in NTT form, block by block in the order in which they are read: reads
    /// jump inside a block, which no processor foresees, so the next block is fetched meanwhile. Results may go
    /// past the caches ([`order_past`] is up to the caller).
    fn permute_limb(&self, out: &mut [u64], x: &[u64], p: &Permutation, past: bool) {
        let block = x.len().min(1 << LOW_LOG);
        for (i, from) in x.chunks_exact(block).enumerate() {
            let (target, piece) = p.of_piece(i);
            let to = &mut out[target * block..(target + 1) * block];
            let ahead = x.get((i + 1) * block..(i + 2) * block).unwrap_or(&[]);
            self.kernels.permute(to, from, &piece, ahead, past);
        }
    }

    fn require_pair(&self, op: &'static str, a: &RnsPoly, b: &RnsPoly) -> Result<()> {
        self.chain.check_same(op, a.chain())?;
        a.require_like(op, b)
    }
}

impl Backend for Cpu {
    type Poly = RnsPoly;
    type Key = CpuKey;
    type Plain = CpuPlain;

    fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    fn import(&self, poly: RnsPoly) -> Result<RnsPoly> {
        self.chain.check_same("import", poly.chain())?;
        Ok(poly)
    }

    fn export(&self, poly: &RnsPoly) -> Result<RnsPoly> {
        Ok(poly.clone())
    }

    fn duplicate(&self, poly: &RnsPoly) -> RnsPoly {
        let shared = poly.restricted(poly.basis());
        shared.unwrap_or_else(|_| poly.clone())
    }

    fn basis(&self, poly: &RnsPoly) -> Basis {
        poly.basis()
    }

    fn form(&self, poly: &RnsPoly) -> Form {
        poly.form()
    }

    fn prepare_key(&self, key: &SwitchingKey) -> Result<CpuKey> {
        self.prepare(key)
    }

    fn key_galois(&self, key: &CpuKey) -> GaloisElement {
        key.galois
    }

    fn prepare_plain(&self, plain: &PlainPoly) -> Result<CpuPlain> {
        self.prepare_values(plain)
    }

    fn forward_ntt(&self, poly: &mut RnsPoly) -> Result<()> {
        self.chain.check_same("forward_ntt", poly.chain())?;
        poly.require_form("forward_ntt", Form::Coefficient)?;
        self.each_limb_and_next(poly, |i, limb, next| {
            self.kernels.forward(self.chain.table(i), limb, next);
        });
        poly.set_form(Form::Ntt);
        Ok(())
    }

    fn inverse_ntt(&self, poly: &mut RnsPoly) -> Result<()> {
        self.chain.check_same("inverse_ntt", poly.chain())?;
        poly.require_form("inverse_ntt", Form::Ntt)?;
        self.each_limb_and_next(poly, |i, limb, next| {
            let table = self.chain.table(i);
            let scale = table.scaled(1);
            self.kernels.inverse(table, limb, None, &scale, next);
        });
        poly.set_form(Form::Coefficient);
        Ok(())
    }

    fn add(&self, a: &RnsPoly, b: &RnsPoly) -> Result<RnsPoly> {
        self.require_pair("add", a, b)?;
        let mut out = RnsPoly::dirty(&self.chain, a.basis(), a.form());
        self.each_fresh_limb(&mut out, |i, out, past| {
            if let (Some(a), Some(b)) = (a.limb_of(i), b.limb_of(i)) {
                let m = self.chain.modulus(i);
                self.kernels.sum(m, out, a, b, past);
            }
        });
        Ok(out)
    }

    fn sub(&self, a: &RnsPoly, b: &RnsPoly) -> Result<RnsPoly> {
        self.require_pair("sub", a, b)?;
        let mut out = RnsPoly::dirty(&self.chain, a.basis(), a.form());
        self.each_fresh_limb(&mut out, |i, out, past| {
            if let (Some(a), Some(b)) = (a.limb_of(i), b.limb_of(i)) {
                let m = self.chain.modulus(i);
                self.kernels.difference(m, out, a, b, past);
            }
        });
        Ok(out)
    }

    fn add_assign(&self, a: &mut RnsPoly, b: &RnsPoly) -> Result<()> {
        self.require_pair("add_assign", a, b)?;
        self.each_limb(a, threads_pointwise, |i, a| {
            if let Some(b) = b.limb_of(i) {
                self.kernels.add(self.chain.modulus(i), a, b);
            }
        });
        Ok(())
    }

    fn sub_assign(&self, a: &mut RnsPoly, b: &RnsPoly) -> Result<()> {
        self.require_pair("sub_assign", a, b)?;
        self.each_limb(a, threads_pointwise, |i, a| {
            if let Some(b) = b.limb_of(i) {
                self.kernels.sub(self.chain.modulus(i), a, b);
            }
        });
        Ok(())
    }

    fn neg_assign(&self, a: &mut RnsPoly) -> Result<()> {
        self.chain.check_same("neg_assign", a.chain())?;
        self.each_limb(a, threads_pointwise, |i, a| {
            self.kernels.neg(self.chain.modulus(i), a);
        });
        Ok(())
    }

    fn mul(&self, a: &RnsPoly, b: &RnsPoly) -> Result<RnsPoly> {
        self.require_pair("mul", a, b)?;
        a.require_form("mul", Form::Ntt)?;
        let mut out = RnsPoly::dirty(&self.chain, a.basis(), Form::Ntt);
        self.each_fresh_limb(&mut out, |i, out, past| {
            if let (Some(a), Some(b)) = (a.limb_of(i), b.limb_of(i)) {
                let m = self.chain.modulus(i);
                self.kernels.mul(m, out, a, b, past);
            }
        });
        Ok(out)
    }

    fn mul_acc(&self, acc: &mut RnsPoly, a: &RnsPoly, b: &RnsPoly) -> Result<()> {
        self.require_pair("mul_acc", acc, a)?;
        self.require_pair("mul_acc", a, b)?;
        a.require_form("mul_acc", Form::Ntt)?;
        self.each_limb(acc, threads_pointwise, |i, acc| {
            if let (Some(a), Some(b)) = (a.limb_of(i), b.limb_of(i)) {
                self.kernels.mul_acc(self.chain.modulus(i), acc, a, b);
            }
        });
        Ok(())
    }

    fn mul_plain_sum(&self, terms: &[(&RnsPoly, &CpuPlain)]) -> Result<RnsPoly> {
        const OP: &str = "mul_plain_sum";
        let (first, _) = terms.first().ok_or(RingError::Empty { op: OP })?;
        for (a, plain) in terms {
            self.check_plain(OP, a, plain)?;
            first.require_like(OP, a)?;
        }
        let mut out = RnsPoly::dirty(&self.chain, first.basis(), Form::Ntt);
        let dense = terms.iter().filter(|(_, plain)| plain.is_dense()).count();
        // Results that are written once.
        let once = dense == terms.len() && dense <= TERMS;
        self.each_fresh_limb(&mut out, |i, out, past| {
            let m = self.chain.modulus(i);
            let (mut whole, mut runs) = (Vec::new(), Vec::new());
            for (a, plain) in terms {
                match (a.limb_of(i), plain.values_of(i)) {
                    (Some(a), Values::Packed(plain)) => whole.push((a, plain)),
                    (Some(a), Values::Runs(plain)) => runs.push((a, plain)),
                    _ => {}
                }
            }
            for (piece, out) in out.chunks_mut(SUM_PIECE).enumerate() {
                let words = piece * SUM_PIECE..piece * SUM_PIECE + out.len();
                let mut keep = if past && once {
                    Keep::Past
                } else {
                    Keep::Written
                };
                for some in whole.chunks(TERMS) {
                    let mut terms = [(&[][..], Packed { words: &[] }); TERMS];
                    for (term, &(a, plain)) in terms.iter_mut().zip(some) {
                        *term = (&a[words.clone()], plain.columns(m, words.clone()));
                    }
                    self.kernels.mul_mont(m, out, &terms[..some.len()], keep);
                    keep = Keep::Added;
                }
                for &(a, plain) in &runs {
                    let add = keep == Keep::Added;
                    let to = (&mut *out, words.start);
                    self.mul_runs(m, to, &a[words.clone()], plain, add);
                    keep = Keep::Added;
                }
            }
        });
        Ok(out)
    }

    fn add_plain(&self, a: &RnsPoly, plain: &CpuPlain) -> Result<RnsPoly> {
        self.check_plain("add_plain", a, plain)?;
        let mut out = RnsPoly::dirty(&self.chain, a.basis(), Form::Ntt);
        self.each_fresh_limb(&mut out, |i, out, past| {
            let m = self.chain.modulus(i);
            match (plain.values_of(i), a.limb_of(i)) {
                (Values::Packed(values), Some(a)) => {
                    self.kernels.sum_mont(m, out, a, values, past);
                }
                (Values::Runs(values), Some(a)) => {
                    let run = self.chain.n() / values.len().max(1);
                    for ((out, a), &value) in out.chunks_mut(run).zip(a.chunks(run)).zip(values) {
                        self.kernels.sum_const(m, out, a, m.leave_mont(value));
                    }
                }
                _ => {}
            }
        });
        Ok(out)
    }

    fn mul_scalar_assign(&self, a: &mut RnsPoly, residues: &[u64]) -> Result<()> {
        check_residues(&self.chain, a, residues)?;
        let basis = a.basis();
        self.each_limb(a, threads_pointwise, |i, a| {
            let m = self.chain.modulus(i);
            if let Some(r) = basis.position_of(i).and_then(|pos| residues.get(pos)) {
                self.kernels.scale(m, a, m.shoup(*r));
            }
        });
        Ok(())
    }

    fn automorphism(&self, poly: &RnsPoly, g: GaloisElement) -> Result<RnsPoly> {
        self.chain.check_same("automorphism", poly.chain())?;
        g.check(self.chain.log_n())?;
        let mut out = RnsPoly::dirty(&self.chain, poly.basis(), poly.form());
        match poly.form() {
            Form::Ntt => {
                let p = self.permutations.get(g, self.chain.log_n());
                self.each_fresh_limb(&mut out, |i, out, past| {
                    if let Some(x) = poly.limb_of(i) {
                        self.permute_limb(out, x, &p, past);
                    }
                });
            }
            Form::Coefficient => {
                self.each_limb(&mut out, threads_for, |i, out| {
                    if let Some(x) = poly.limb_of(i) {
                        let m = self.chain.modulus(i);
                        self.kernels.permute_coefficients(m, out, x, g.value());
                    }
                });
            }
        }
        Ok(out)
    }

    fn restrict(&self, poly: &RnsPoly, to: Basis) -> Result<RnsPoly> {
        self.chain.check_same("restrict", poly.chain())?;
        poly.restricted(to)
    }

    fn extend(&self, poly: &RnsPoly, to: Basis) -> Result<RnsPoly> {
        check_extend(&self.chain, poly, to)?;
        Ok(self.extend_poly(poly, to))
    }

    fn div_round(&self, poly: &RnsPoly, drop: Basis) -> Result<RnsPoly> {
        check_rescale(&self.chain, "div_round", poly, drop, Basis::empty())?;
        let mut out = self.rescale(&[poly], drop, Basis::empty());
        out.pop().ok_or(RingError::Empty { op: "div_round" })
    }

    fn div_round_pair(&self, c: PairRef<'_, RnsPoly>, drop: Basis) -> Result<Pair<RnsPoly>> {
        const OP: &str = "div_round_pair";
        c.0.require_like(OP, c.1)?;
        check_rescale(&self.chain, OP, c.0, drop, Basis::empty())?;
        self.rescale_pair(c, drop)
    }

    fn rescale_rational(&self, poly: &RnsPoly, drop: Basis, add: Basis) -> Result<RnsPoly> {
        check_rescale(&self.chain, "rescale_rational", poly, drop, add)?;
        let mut out = self.rescale(&[poly], drop, add);
        out.pop().ok_or(RingError::Empty {
            op: "rescale_rational",
        })
    }

    fn key_switch_sum(
        &self,
        add: Option<PairRef<'_, RnsPoly>>,
        terms: &[(&RnsPoly, &CpuKey)],
        drop: Basis,
    ) -> Result<Pair<RnsPoly>> {
        self.switch_sum(add, terms, drop)
    }

    fn rotate_many(&self, c: PairRef<'_, RnsPoly>, keys: &[&CpuKey]) -> Result<Vec<Pair<RnsPoly>>> {
        self.rotate_hoisted(c, keys)
    }

    fn rotate_sum(&self, c: PairRef<'_, RnsPoly>, keys: &[&CpuKey]) -> Result<Pair<RnsPoly>> {
        self.rotate_hoisted_sum(c, keys)
    }

    fn raise(&self, c: PairRef<'_, RnsPoly>, key: &CpuKey, to: Basis) -> Result<Pair<RnsPoly>> {
        self.raise_pair(c, key, to)
    }

    fn mul_sum_relin(
        &self,
        pairs: &[FactorsRef<'_, RnsPoly>],
        key: &CpuKey,
        drop: Basis,
    ) -> Result<Pair<RnsPoly>> {
        self.tensor_relin(pairs, key, drop)
    }

    fn linear_transform(
        &self,
        inputs: &[PairRef<'_, RnsPoly>],
        plan: &TransformPlan<'_, Self>,
        drop: Basis,
    ) -> Result<Vec<Pair<RnsPoly>>> {
        self.transform(inputs, plan, drop)
    }
}
