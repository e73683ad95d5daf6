//! Base conversion, rescaling and ModDown, limb by limb.

use super::Cpu;
use crate::basis::Basis;
use crate::buffer::Buffer;
use crate::chain::Chain;
use crate::kernels::{ConvRow, Fraction};
use crate::modulus::ShoupConst;
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
    fn limbs(&self) -> Vec<&[u64]> {
        self.y.chunks_exact(self.n).collect()
    }
}

/// Constants of the source side.
fn source_constants(chain: &Chain, basis: Basis) -> (Vec<ShoupConst>, Vec<Fraction>) {
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
            (m.shoup(inverse), fraction)
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

impl Cpu {
    /// Scales residues in place (`y`: coefficient-form limbs of `basis`) and finds the quotients.
    pub(super) fn scale_source(&self, basis: Basis, mut y: Buffer) -> Scaled {
        let n = self.chain.n();
        let (scales, fractions) = source_constants(&self.chain, basis);
        for ((i, limb), c) in basis.iter().zip(y.chunks_exact_mut(n)).zip(scales) {
            self.kernels.scale(self.chain.modulus(i), limb, c);
        }
        let mut v = vec![0; n];
        let limbs: Vec<&[u64]> = y.chunks_exact(n).collect();
        self.kernels.quotient(&mut v, &limbs, &fractions);
        Scaled { basis, n, y, v }
    }

    /// The centred value modulo prime `j`, in coefficient form.
    pub(super) fn convert_to(&self, source: &Scaled, j: usize, out: &mut [u64]) {
        let row = target_row(&self.chain, source.basis, j);
        self.kernels
            .convert(self.chain.modulus(j), out, &source.limbs(), &source.v, &row);
    }

    /// Coefficient-form limbs of `which` of a polynomial, in a new buffer.
    pub(super) fn coefficients(&self, poly: &RnsPoly, which: Basis) -> Buffer {
        let n = self.chain.n();
        let mut y = Buffer::dirty(which.len() * n);
        for (i, out) in which.iter().zip(y.chunks_exact_mut(n)) {
            if let Some(x) = poly.limb_of(i) {
                out.copy_from_slice(x);
            }
            if poly.form() == Form::Ntt {
                self.kernels.inverse(self.chain.table(i), out);
            }
        }
        y
    }

    pub(super) fn extend_poly(&self, poly: &RnsPoly, to: Basis) -> RnsPoly {
        let basis = poly.basis();
        let scaled = self.scale_source(basis, self.coefficients(poly, basis));
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
        let mut y = self.coefficients(poly, drop);
        if !add.is_empty() {
            for (i, limb) in drop.iter().zip(y.chunks_exact_mut(self.chain.n())) {
                let m = self.chain.modulus(i);
                self.kernels
                    .scale(m, limb, m.shoup(self.chain.product_mod(add, i)));
            }
        }
        let scaled = self.scale_source(drop, y);
        let to = poly.basis().minus(drop).union(add);
        let mut out = RnsPoly::dirty(&self.chain, to, poly.form());
        for (j, out) in out.limbs_mut() {
            let m = self.chain.modulus(j);
            self.convert_to(&scaled, j, out);
            if poly.form() == Form::Ntt {
                self.kernels.forward(self.chain.table(j), out);
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
