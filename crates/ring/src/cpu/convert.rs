//! Base conversion, rescaling and ModDown, limb by limb.

use std::ops::Range;

use super::Cpu;
use crate::basis::Basis;
use crate::buffer::Buffer;
use crate::chain::Chain;
use crate::kernels::{ConvRow, ConvSource, Fraction, LOW_LOG, Tile, tile_columns};
use crate::poly::{Form, RnsPoly};

/// The source side of a base conversion: scaled residues `y_i = x_i (D/q_i)^-1 mod q_i` and the
/// quotients `v` with `x = sum_i y_i D/q_i - v D` centred.
///
/// Both lie tile by tile (see [`tiles`]), so that what one step of a conversion reads is one run of
/// memory.
pub(super) struct Scaled {
    basis: Basis,
    y: Buffer,
    v: Vec<u8>,
}

impl Scaled {
    /// The words of tile number `i`.
    fn tile(&self, i: usize, words: usize) -> ConvSource<'_> {
        let limbs = self.basis.len();
        ConvSource {
            ys: &self.y[i * limbs * words..(i + 1) * limbs * words],
            v: &self.v[i * words..(i + 1) * words],
            ahead: &[],
        }
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

/// The column ranges in which conversions work. A limb of `N` words is seen as rows of `2^LOW_LOG`
/// words (one row if it is shorter); a tile is the same columns of all rows.
fn tiles(n: usize) -> Vec<Range<usize>> {
    let width = n.min(1 << LOW_LOG);
    let tile = tile_columns(n);
    (0..width).step_by(tile).map(|a| a..a + tile).collect()
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
        let limbs = basis.len();
        let mut y = Buffer::dirty(limbs * n);
        let mut temp = Buffer::dirty(n);
        let (tiles, width) = (tiles(n), n.min(1 << LOW_LOG));
        let words = n / tiles.len();
        let (scales, fractions) = source_constants(&self.chain, basis);
        for (pos, (i, c)) in basis.iter().zip(scales).enumerate() {
            let m = self.chain.modulus(i);
            let table = self.chain.table(i);
            let c = m.mul(c, factor(i));
            let scale = table.scaled(c);
            match (limb_of(i), form) {
                (Some(x), Form::Ntt) => self.kernels.inverse_low(table, &mut temp, x, &scale),
                (Some(x), Form::Coefficient) => {
                    self.kernels.mul_const(m, &mut temp, x, m.shoup(c));
                }
                (None, _) => temp.fill(0),
            }
            for (t, tile) in tiles.iter().enumerate() {
                let at = (t * limbs + pos) * words;
                let out = &mut y[at..at + words];
                for (out, row) in out
                    .chunks_exact_mut(tile.len())
                    .zip(temp.chunks_exact(width))
                {
                    out.copy_from_slice(&row[tile.clone()]);
                }
                if form == Form::Ntt {
                    self.kernels.inverse_top(table, out, &scale);
                }
            }
        }
        let mut v = vec![0; n];
        for (v, y) in v.chunks_exact_mut(words).zip(y.chunks_exact(limbs * words)) {
            self.kernels.quotient(v, y, &fractions);
        }
        Scaled { basis, y, v }
    }

    /// The centred value modulo several primes, so that a tile of the source is read once for all:
    /// with `top` in NTT form but for the last stages (`Kernels::forward_low`), otherwise in
    /// coefficient form.
    pub(super) fn convert(&self, source: &Scaled, outs: &mut [(usize, &mut [u64])], top: bool) {
        let n = self.chain.n();
        let rows: Vec<ConvRow> = outs
            .iter()
            .map(|(j, _)| target_row(&self.chain, source.basis, *j))
            .collect();
        let tiles = tiles(n);
        let words = n / tiles.len();
        for (i, tile) in tiles.iter().enumerate() {
            let mut from = source.tile(i, words);
            let place = Tile {
                columns: tile.clone(),
                top,
            };
            // Each target fetches its share of the next tile.
            let next = if i + 1 < tiles.len() {
                source.tile(i + 1, words).ys
            } else {
                &[]
            };
            let mut shares = next.chunks(next.len().div_ceil(rows.len().max(1)).max(1));
            for ((j, out), row) in outs.iter_mut().zip(&rows) {
                from.ahead = shares.next().unwrap_or(&[]);
                self.kernels
                    .convert_tile(self.chain.table(*j), out, from, row, &place);
            }
        }
    }

    pub(super) fn extend_poly(&self, poly: &RnsPoly, to: Basis) -> RnsPoly {
        let basis = poly.basis();
        let scaled = self.scale_source(basis, poly.form(), |i| poly.limb_of(i), |_| 1);
        let mut out = RnsPoly::dirty(&self.chain, to, Form::Coefficient);
        let mut missing = Vec::new();
        for (j, out) in out.limbs_mut() {
            match poly.limb_of(j) {
                Some(x) => out.copy_from_slice(x),
                None => missing.push((j, out)),
            }
        }
        self.convert(&scaled, &mut missing, false);
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
                self.convert(&scaled, &mut [(j, &mut *out)], true);
                let block = 1 << LOW_LOG.min(self.chain.log_n());
                for (b, words) in out.chunks_exact_mut(block).enumerate() {
                    self.kernels.forward_low(self.chain.table(j), words, b, &[]);
                }
            } else {
                self.convert(&scaled, &mut [(j, &mut *out)], false);
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
