//! Base conversion, rescaling and ModDown, limb by limb.

use super::Cpu;
use crate::basis::Basis;
use crate::buffer::Buffer;
use crate::chain::Chain;
use crate::kernels::{ConvRow, ConvSource, Fraction, LOW_LOG, TILE};
use crate::poly::{Form, RnsPoly};

/// The source side of a base conversion: scaled residues `y_i = x_i (D/q_i)^-1 mod q_i` and the
/// quotients `v` with `x = sum_i y_i D/q_i - v D` centred.
pub(super) struct Scaled {
    basis: Basis,
    n: usize,
    y: Buffer,
    v: Vec<u8>,
}

impl Scaled {
    pub(super) fn limbs(&self) -> Vec<&[u64]> {
        self.y.chunks_exact(self.n).collect()
    }

    pub(super) fn quotients(&self) -> &[u8] {
        &self.v
    }

    /// Constants towards target prime `j`.
    pub(super) fn row(&self, chain: &Chain, j: usize) -> ConvRow {
        target_row(chain, self.basis, j)
    }
}

/// Constants of the source side.
fn source_constants(chain: &Chain, basis: Basis) -> (Vec<u64>, Vec<Fraction>) {
    basis
        .iter()
        .map(|i| {
            let m = chain.modulus(i);
            let inverse = chain.product_inverse_mod(basis.minus(Basis::single(i)), i);
            let fraction = Fraction {
                shift: 52 - m.bits(),
                inverse: ((1u128 << (m.bits() + 51)) / u128::from(m.value())) as u64,
                half: m.value() / 2,
            };
            (inverse, fraction)
        })
        .unzip()
}

/// Constants towards target prime `j`.
fn target_row(chain: &Chain, basis: Basis, j: usize) -> ConvRow {
    let m = chain.modulus(j);
    let weights = basis
        .iter()
        .map(|i| m.to_mont(chain.product_mod(basis.minus(Basis::single(i)), j)))
        .collect();
    ConvRow {
        weights,
        minus_d: m.to_mont(m.neg(chain.product_mod(basis, j))),
    }
}

/// The column ranges in which `convert_top` works.
pub(super) fn tiles(n: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let width = n.min(1 << LOW_LOG);
    (0..width)
        .step_by(TILE)
        .map(move |a| a..(a + TILE).min(width))
}

impl Cpu {
    /// Brings the limbs of `basis` that `limb_of` gives, in a form, to scaled residues and finds
    /// the quotients; `factor(i)` multiplies the value first.
    pub(super) fn scale_source<'a>(
        &self,
        basis: Basis,
        form: Form,
        limb_of: impl Fn(usize) -> Option<&'a [u64]>,
        factor: impl Fn(usize) -> u64,
    ) -> Scaled {
        let n = self.chain.n();
        let mut y = Buffer::dirty(basis.len() * n);
        let (scales, fractions) = source_constants(&self.chain, basis);
        for ((i, out), c) in basis.iter().zip(y.chunks_exact_mut(n)).zip(scales) {
            let m = self.chain.modulus(i);
            let c = m.mul(c, factor(i));
            match (limb_of(i), form) {
                (Some(x), Form::Ntt) => {
                    let table = self.chain.table(i);
                    self.kernels.inverse(table, out, x, &table.scaled(c));
                }
                (Some(x), Form::Coefficient) => self.kernels.mul_const(m, out, x, m.shoup(c)),
                (None, _) => out.fill(0),
            }
        }
        let mut v = vec![0; n];
        let limbs: Vec<&[u64]> = y.chunks_exact(n).collect();
        self.kernels.quotient(&mut v, &limbs, &fractions);
        Scaled { basis, n, y, v }
    }

    /// The centred value modulo prime `j`, in coefficient form.
    pub(super) fn convert_to(&self, source: &Scaled, j: usize, out: &mut [u64]) {
        let row = target_row(&self.chain, source.basis, j);
        let source = ConvSource {
            ys: &source.limbs(),
            v: &source.v,
        };
        self.kernels
            .convert(self.chain.modulus(j), out, &source, &row);
    }

    /// The centred value modulo prime `j`, in NTT form but for the last stages
    /// (`Kernels::forward_low`).
    pub(super) fn convert_top(&self, source: &Scaled, j: usize, out: &mut [u64]) {
        let row = target_row(&self.chain, source.basis, j);
        let source = ConvSource {
            ys: &source.limbs(),
            v: &source.v,
        };
        for tile in tiles(self.chain.n()) {
            self.kernels
                .convert_top(self.chain.table(j), out, &source, &row, &tile);
        }
    }

    pub(super) fn extend_poly(&self, poly: &RnsPoly, to: Basis) -> RnsPoly {
        let basis = poly.basis();
        let scaled = self.scale_source(basis, poly.form(), |i| poly.limb_of(i), |_| 1);
        let mut out = RnsPoly::dirty(&self.chain, to, Form::Coefficient);
        for (j, out) in out.limbs_mut() {
            match poly.limb_of(j) {
                Some(x) => out.copy_from_slice(x),
                None => self.convert_to(&scaled, j, out),
            }
        }
        out
    }

    /// `round(x prod(add) / prod(drop))`; the bases are checked.
    pub(super) fn rescale(&self, poly: &RnsPoly, drop: Basis, add: Basis) -> RnsPoly {
        let factor = |i| self.chain.product_mod(add, i);
        let scaled = self.scale_source(drop, poly.form(), |i| poly.limb_of(i), factor);
        let to = poly.basis().minus(drop).union(add);
        let mut out = RnsPoly::dirty(&self.chain, to, poly.form());
        for (j, out) in out.limbs_mut() {
            let m = self.chain.modulus(j);
            if poly.form() == Form::Ntt {
                self.convert_top(&scaled, j, out);
                let block = 1 << LOW_LOG.min(self.chain.log_n());
                for (b, words) in out.chunks_exact_mut(block).enumerate() {
                    self.kernels.forward_low(self.chain.table(j), words, b);
                }
            } else {
                self.convert_to(&scaled, j, out);
            }
            let inverse = self.chain.product_inverse_mod(drop, j);
            match poly.limb_of(j) {
                // (x A - r) / D = (x - r / A) A / D; one product more, but only for rational steps.
                Some(x) if add.is_empty() => {
                    self.kernels.sub_from_scaled(m, out, x, m.shoup(inverse));
                }
                Some(x) => {
                    let a = self.chain.product_mod(add, j);
                    self.kernels.scale(m, out, m.shoup(m.neg(inverse)));
                    self.kernels
                        .mul_const_acc(m, out, x, m.shoup(m.mul(a, inverse)));
                }
                None => self.kernels.scale(m, out, m.shoup(m.neg(inverse))),
            }
        }
        out
    }
}
