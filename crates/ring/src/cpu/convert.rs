//! Base conversion, rescaling and ModDown, limb by limb.

use std::ops::Range;
use std::sync::OnceLock;

use super::Cpu;
use super::grouping::scratch_words;
use super::parallel::{even_runs, share, threads_for};
use crate::backend::{Pair, PairRef};
use crate::basis::Basis;
use crate::buffer::Buffer;
use crate::chain::Chain;
use crate::error::{Result, RingError};
use crate::kernels::{
    Columns, ConvRow, ConvSource, Converted, Fraction, Isa, LOW_LOG, Layout, Minuend, Rest,
    TILE_WORDS, Tile, order_past, tile_columns,
};
use crate::modulus::{Modulus, ShoupConst};
use crate::ntt::InverseScale;
use crate::poly::{Form, RnsPoly};

/// The source side of a base conversion: scaled residues `y_i = x_i (D/q_i)^-1 mod q_i` and the
/// quotients `v` with `x = sum_i y_i D/q_i - v D` centred.
///
/// Both lie tile by tile (see [`tiles`]), so that what one step of a conversion reads is one run of
/// memory.
pub(super) struct Scaled {
    basis: Basis,
    y: Buffer,
    /// Whether the residues go past the caches.
    past: bool,
    fractions: Vec<Fraction>,
    /// Per tile; made when the first conversion has the tile at hand, by whoever that is: in a pass of
    /// their own they would wait for all residues once more.
    v: Vec<OnceLock<Vec<u8>>>,
}

impl Scaled {
    /// The residues of tile number `i`; none behind the last one.
    fn residues(&self, i: usize, words: usize) -> &[u64] {
        let size = self.basis.len() * words;
        self.y.get(i * size..(i + 1) * size).unwrap_or(&[])
    }
}

/// Of one prime the fraction that its scaled residues are multiplied by.
fn fraction(m: &Modulus) -> Fraction {
    Fraction {
        shift: 52 - m.bits(),
        inverse: ((1u128 << (m.bits() + 51)) / u128::from(m.value())) as u64,
        half: m.value() / 2,
    }
}

/// Constants towards target prime `j`, which is not in `basis`.
fn target_row(chain: &Chain, basis: Basis, j: usize) -> ConvRow {
    let m = chain.modulus(j);
    let d = chain.product_mod(basis, j);
    let weight = |i| m.mul(d, chain.product_inverse_mod(Basis::single(i), j));
    let weights = basis.iter().map(|i| m.to_mont(weight(i)));
    ConvRow::new(m, weights.collect(), d)
}

/// What all residues of a basis are below.
fn bound(chain: &Chain, basis: Basis) -> u64 {
    let values = basis.iter().map(|i| chain.modulus(i).value());
    values.max().unwrap_or(0)
}

/// The column ranges in which conversions work. A limb of `N` words is seen as rows of `2^LOW_LOG`
/// words (one row if it is shorter); a tile is the same columns of all rows.
fn tiles(n: usize) -> Vec<Range<usize>> {
    let width = n.min(1 << LOW_LOG);
    let tile = tile_columns(n);
    (0..width).step_by(tile).map(|a| a..a + tile).collect()
}

/// What is to be brought to scaled residues.
pub(super) struct Unscaled<'a> {
    pub(super) basis: Basis,
    pub(super) form: Form,
    /// Per prime of the basis its limb.
    pub(super) limbs: Vec<Limb<'a>>,
    /// The value is multiplied by the product of these primes first.
    pub(super) times: Basis,
}

/// One limb of an [`Unscaled`].
pub(super) enum Limb<'a> {
    Zero,
    Words(&'a [u64]),
    /// The sum of products that is made here and written to `out`: in NTT form.
    Products {
        out: &'a mut [u64],
        factors: Vec<[&'a [u64]; 2]>,
    },
}

impl<'a> Limb<'a> {
    /// That limb, or zero.
    pub(super) fn new(words: Option<&'a [u64]>) -> Self {
        words.map_or(Self::Zero, Self::Words)
    }
}

/// One limb of an [`Unscaled`] and what it fills.
struct ScaledLimb<'a, 'y> {
    form: Form,
    limb: Limb<'a>,
    to: Unfilled<'y>,
}

/// One limb of a rescale.
struct Quotient<'a, 'o> {
    /// What is divided.
    x: &'a RnsPoly,
    /// Its rest.
    r: &'a Scaled,
    out: &'o mut [u64],
}

/// A polynomial in coefficient form on its way to more primes.
struct Extension<'a> {
    /// Per source prime: it, its limb, and what makes that a scaled residue.
    limbs: Vec<(&'a Modulus, &'a [u64], ShoupConst)>,
    fractions: Vec<Fraction>,
    bound: u64,
    /// Per limb of the result where it comes from.
    origins: Vec<Origin<'a>>,
}

/// Where a limb of an extended polynomial comes from.
enum Origin<'a> {
    /// The polynomial has it.
    Own(&'a [u64]),
    /// A conversion with these constants.
    Others(ConvRow),
}

impl<'a> Extension<'a> {
    fn new(cpu: &'a Cpu, poly: &'a RnsPoly, to: Basis) -> Self {
        let (chain, basis) = (&cpu.chain, poly.basis());
        let limb = |(i, x)| {
            let m = chain.modulus(i);
            let others = basis.minus(Basis::single(i));
            (m, x, m.shoup(chain.product_inverse_mod(others, i)))
        };
        let origin = |j| match poly.limb_of(j) {
            Some(x) => Origin::Own(x),
            None => Origin::Others(target_row(chain, basis, j)),
        };
        Self {
            limbs: poly.limbs().map(limb).collect(),
            fractions: basis.iter().map(|i| fraction(chain.modulus(i))).collect(),
            bound: bound(chain, basis),
            origins: to.iter().map(origin).collect(),
        }
    }
}

/// Some columns of an extension's result.
struct Run<'o> {
    first: usize,
    /// Per prime its words.
    limbs: Vec<(usize, &'o mut [u64])>,
}

/// From so many words on what an operation makes goes past the caches: 8 MiB, of which the last one would not
/// keep what comes first until it is read.
const PAST: usize = if cfg!(test) { 1 << 14 } else { 1 << 20 };

/// Whether so many words that an operation writes and does not read at once had better go past the caches.
/// Through them each line is fetched first, to be overwritten; a thread has too few fetches under
/// way at once for that and for what it reads.
pub(super) fn goes_past(words: usize) -> bool {
    words >= PAST
}

/// How a conversion leaves its results.
#[derive(Clone, Copy)]
pub(super) enum Left {
    /// As coefficients.
    Coefficients,
    /// In NTT form but for the last stages (`Kernels::forward_low`).
    Begun {
        /// Whether they go past the caches.
        past: bool,
    },
}

/// Primes to which a rest is converted at a time.
const GROUP: usize = 8;

/// One limb of a value on its way to scaled residues.
pub(super) struct Unfilled<'y> {
    pub(super) prime: usize,
    /// What it is multiplied by.
    pub(super) factor: u64,
    /// Its words in each tile.
    pub(super) tiles: Vec<&'y mut [u64]>,
    /// Whether they go past the caches.
    pub(super) past: bool,
}

impl Cpu {
    /// Room for scaled residues, which may go past the caches, and quotients.
    pub(super) fn unscaled(&self, basis: Basis, past: bool) -> Scaled {
        let n = self.chain.n();
        let fractions = basis.iter().map(|i| fraction(self.chain.modulus(i)));
        Scaled {
            basis,
            y: Buffer::dirty(basis.len() * n),
            past,
            fractions: fractions.collect(),
            v: tiles(n).iter().map(|_| OnceLock::new()).collect(),
        }
    }

    /// Per limb what has to be filled.
    pub(super) fn unfilled<'y>(&self, scaled: &'y mut Scaled) -> Vec<Unfilled<'y>> {
        let count = tiles(self.chain.n()).len();
        let words = self.chain.n() / count;
        let basis = scaled.basis;
        let limb = |prime| Unfilled {
            prime,
            factor: self
                .chain
                .product_inverse_mod(basis.minus(Basis::single(prime)), prime),
            tiles: Vec::with_capacity(count),
            past: scaled.past,
        };
        let mut limbs: Vec<Unfilled<'_>> = basis.iter().map(limb).collect();
        for tile in scaled.y.chunks_exact_mut(limbs.len().max(1) * words) {
            for (limb, words) in limbs.iter_mut().zip(tile.chunks_exact_mut(words)) {
                limb.tiles.push(words);
            }
        }
        limbs
    }

    /// Scaled residues of several values; past the caches if `past`.
    pub(super) fn scale_sources(&self, sources: Vec<Unscaled<'_>>, past: bool) -> Vec<Scaled> {
        let n = self.chain.n();
        let bases = sources.iter().map(|s| s.basis);
        let mut scaled: Vec<Scaled> = bases.map(|basis| self.unscaled(basis, past)).collect();
        let mut parts = Vec::new();
        for (source, scaled) in sources.into_iter().zip(&mut scaled) {
            for (to, limb) in self.unfilled(scaled).into_iter().zip(source.limbs) {
                let times = self.chain.product_mod(source.times, to.prime);
                parts.push(ScaledLimb {
                    form: source.form,
                    limb,
                    to: Unfilled {
                        factor: self.chain.modulus(to.prime).mul(to.factor, times),
                        ..to
                    },
                });
            }
        }
        // Limbs of one prime follow each other: they share its tables.
        parts.sort_by_key(|part| part.to.prime);
        let threads = threads_for(parts.len() * n);
        let temp = || Buffer::dirty(scratch_words(n));
        share(threads, parts, temp, |temp, part| {
            self.scale_limb(part, temp)
        });
        scaled
    }

    /// One limb in scaled residues, tile by tile.
    fn scale_limb(&self, mut part: ScaledLimb<'_, '_>, temp: &mut [u64]) {
        let n = self.chain.n();
        let (tiles, width) = (tiles(n), n.min(1 << LOW_LOG));
        let m = self.chain.modulus(part.to.prime);
        let table = self.chain.table(part.to.prime);
        let scale = table.scaled(part.to.factor);
        match (&mut part.limb, part.form) {
            (Limb::Zero, _) => temp.fill(0),
            (Limb::Words(x), Form::Coefficient) => {
                self.kernels
                    .mul_const(m, &mut temp[..n], x, m.shoup(part.to.factor));
            }
            (limb, _) => {
                for (b, temp) in temp.chunks_exact_mut(Layout::apart(n).pitch).enumerate() {
                    let temp = &mut temp[..width];
                    let range = b * width..(b + 1) * width;
                    let x = match limb {
                        Limb::Products { out, factors } => {
                            let out = &mut out[range.clone()];
                            for (number, f) in factors.iter().enumerate() {
                                let [x, y] = f.map(|f| &f[range.clone()]);
                                match number {
                                    0 => self.kernels.mul(m, out, x, y, false),
                                    _ => self.kernels.mul_acc(m, out, x, y),
                                }
                            }
                            out
                        }
                        Limb::Words(x) => &x[range],
                        Limb::Zero => &[],
                    };
                    self.kernels.inverse_low(table, temp, x, b, &scale);
                }
                return self.finish_inverse(temp, &mut part.to, &scale);
            }
        }
        for (tile, out) in tiles.iter().zip(part.to.tiles) {
            let rows = temp.chunks_exact(width);
            for (out, row) in out.chunks_exact_mut(tile.len()).zip(rows) {
                out.copy_from_slice(&row[tile.clone()]);
            }
        }
    }

    /// The last stages of the inverse NTT of a limb that went through `inverse_low`, tile by tile. The limb
    /// may have either [`Layout`].
    pub(super) fn finish_inverse(&self, limb: &[u64], to: &mut Unfilled<'_>, scale: &InverseScale) {
        let table = self.chain.table(to.prime);
        let mut left = &mut to.tiles[..];
        for tile in tiles(self.chain.n()) {
            let Some((out, rest)) = left.split_first_mut() else {
                break;
            };
            let from = Columns {
                x: limb,
                range: tile,
                soon: rest.first().map_or(&[], |next| &**next),
                past: to.past,
            };
            self.kernels.inverse_top(table, out, &from, scale);
            left = rest;
        }
        if to.past {
            order_past();
        }
    }

    /// The centred value modulo several primes, so that a tile of the source is read once for all.
    pub(super) fn convert(&self, source: &Scaled, outs: &mut [(usize, &mut [u64])], left: Left) {
        let n = self.chain.n();
        let (top, past) = match left {
            Left::Coefficients => (false, false),
            Left::Begun { past } => (true, past),
        };
        let rows: Vec<ConvRow> = outs
            .iter()
            .map(|(j, _)| target_row(&self.chain, source.basis, *j))
            .collect();
        let targets = outs.iter_mut().zip(&rows);
        let mut targets: Vec<Converted<'_>> = targets
            .map(|((j, out), row)| Converted {
                table: self.chain.table(*j),
                row,
                out,
                ahead: &[],
                past,
            })
            .collect();
        let bound = bound(&self.chain, source.basis);
        let tiles = tiles(n);
        let words = n / tiles.len();
        for (i, tile) in tiles.iter().enumerate() {
            let ys = source.residues(i, words);
            let v = source.v[i].get_or_init(|| {
                let mut v = vec![0; words];
                self.kernels.quotient(&mut v, ys, &source.fractions);
                v
            });
            let place = Tile {
                columns: tile.clone(),
                top,
            };
            // Each target fetches its share of the next tile.
            let next = source.residues(i + 1, words);
            let mut shares = next.chunks(next.len().div_ceil(rows.len().max(1)).max(1));
            for target in &mut targets {
                target.ahead = shares.next().unwrap_or(&[]);
            }
            let from = ConvSource { ys, v, bound };
            self.kernels.convert_tile(&mut targets, &from, &place);
        }
        if past {
            order_past();
        }
    }

    /// The centred value of a polynomial in coefficient form on other primes; its own limbs stay. A
    /// few columns at a time: what is made of them to be converted stays in the cache.
    pub(super) fn extend_poly(&self, poly: &RnsPoly, to: Basis) -> RnsPoly {
        let n = self.chain.n();
        let source = Extension::new(self, poly, to);
        let mut out = RnsPoly::dirty(&self.chain, to, Form::Coefficient);
        let columns = n.min(TILE_WORDS / 2);
        let mut runs: Vec<Run<'_>> = (0..n)
            .step_by(columns)
            .map(|first| Run {
                first,
                limbs: Vec::with_capacity(to.len()),
            })
            .collect();
        for (j, limb) in out.limbs_mut() {
            for (run, words) in runs.iter_mut().zip(limb.chunks_exact_mut(columns)) {
                run.limbs.push((j, words));
            }
        }
        let temp = || {
            (
                Buffer::dirty(poly.basis().len() * columns),
                vec![0; columns],
            )
        };
        share(threads_for(to.len() * n), runs, temp, |(ys, v), run| {
            self.extend_run(&source, run, (ys, v));
        });
        out
    }

    /// Some columns of an extension.
    fn extend_run(&self, source: &Extension<'_>, run: Run<'_>, (ys, v): (&mut [u64], &mut [u8])) {
        let columns = v.len();
        let range = run.first..run.first + columns;
        for ((m, x, c), y) in source.limbs.iter().zip(ys.chunks_exact_mut(columns)) {
            self.kernels.mul_const(m, y, &x[range.clone()], *c);
        }
        self.kernels.quotient(v, ys, &source.fractions);
        let mut targets = Vec::with_capacity(run.limbs.len());
        for ((j, out), origin) in run.limbs.into_iter().zip(&source.origins) {
            match origin {
                Origin::Own(x) => out.copy_from_slice(&x[range.clone()]),
                Origin::Others(row) => targets.push(Converted {
                    table: self.chain.table(j),
                    row,
                    out,
                    ahead: &[],
                    past: false,
                }),
            }
        }
        // What the next columns are made of comes nearer, limb by limb.
        let every = targets.len() / source.limbs.len().max(1);
        let next = range.end..(range.end + columns).min(self.chain.n());
        for (target, (_, x, _)) in targets.iter_mut().step_by(every.max(1)).zip(&source.limbs) {
            target.ahead = &x[next.clone()];
        }
        let from = ConvSource {
            ys,
            v,
            bound: source.bound,
        };
        self.kernels.convert(&mut targets, &from);
    }

    /// `round(x / q)` of several polynomials alike in NTT form for one of their primes.
    fn divide_by_one(&self, polys: &[&RnsPoly], prime: usize) -> Vec<RnsPoly> {
        let n = self.chain.n();
        let sources = polys.iter().map(|x| Unscaled {
            basis: Basis::single(prime),
            form: Form::Ntt,
            limbs: vec![Limb::new(x.limb_of(prime))],
            times: Basis::empty(),
        });
        // A single rest is read soon.
        let mut rests = self.scale_sources(sources.collect(), false);
        let dropped = self.chain.modulus(prime);
        for rest in &mut rests {
            self.kernels
                .add_const(dropped, &mut rest.y, dropped.value() / 2);
        }
        let to = |x: &&RnsPoly| x.basis().minus(Basis::single(prime));
        let mut outs: Vec<RnsPoly> = polys
            .iter()
            .map(|x| RnsPoly::dirty(&self.chain, to(x), Form::Ntt))
            .collect();
        // One rest after the other: each stays in the second cache meanwhile.
        let mut limbs = Vec::new();
        for ((x, rest), out) in polys.iter().zip(&rests).zip(&mut outs) {
            limbs.extend(out.limbs_mut().map(|(j, out)| (j, x, &rest.y[..], out)));
        }
        let threads = threads_for(limbs.len() * n);
        let count = if threads == 1 { 1 } else { 4 * threads };
        let past = goes_past(limbs.len() * n);
        let divide = |work: &mut Buffer, run: Vec<(usize, &&RnsPoly, &[u64], &mut [u64])>| {
            for (j, x, rest, out) in run {
                let Some(x) = x.limb_of(j) else { continue };
                let inverse = self.chain.product_inverse_mod(Basis::single(prime), j);
                let from = Minuend {
                    x,
                    order: None,
                    factor: self.chain.modulus(j).shoup(inverse),
                };
                let rest = Rest {
                    words: rest,
                    prime: dropped.value(),
                    past,
                };
                self.kernels
                    .divide_rest(self.chain.table(j), out, work, &rest, &from);
            }
        };
        share(
            threads,
            even_runs(limbs, count),
            || Buffer::dirty(n),
            divide,
        );
        outs
    }

    /// `round(x prod(add) / prod(drop))` of several polynomials alike; the bases are checked.
    pub(super) fn rescale(&self, polys: &[&RnsPoly], drop: Basis, add: Basis) -> Vec<RnsPoly> {
        if let (1, Some(prime), true) = (drop.len(), drop.iter().next(), add.is_empty())
            && polys.iter().all(|x| x.form() == Form::Ntt)
        {
            return self.divide_by_one(polys, prime);
        }
        let sources = polys.iter().map(|poly| Unscaled {
            basis: drop,
            form: poly.form(),
            limbs: drop.iter().map(|i| Limb::new(poly.limb_of(i))).collect(),
            times: add,
        });
        let limbs: usize = polys.iter().map(|p| p.basis().len()).sum();
        let past = drop.len() > 1 && goes_past(limbs * self.chain.n());
        let scaled = self.scale_sources(sources.collect(), past);
        let mut outs: Vec<RnsPoly> = polys
            .iter()
            .map(|poly| {
                let to = poly.basis().minus(drop).union(add);
                RnsPoly::dirty(&self.chain, to, poly.form())
            })
            .collect();
        let mut limbs: Vec<(usize, Quotient<'_, '_>)> = Vec::new();
        for ((x, r), out) in polys.iter().zip(&scaled).zip(&mut outs) {
            limbs.extend(out.limbs_mut().map(|(j, out)| (j, Quotient { x, r, out })));
        }
        // Limbs of one prime follow each other: they share its tables.
        limbs.sort_by_key(|(j, _)| *j);
        let threads = threads_for(limbs.len() * self.chain.n());
        // Of several primes that go a tile is read once for a group; one prime's stays in L2.
        let size = if drop.len() > 1 {
            GROUP * polys.len()
        } else {
            polys.len()
        };
        let groups = limbs.len().div_ceil(size.max(1)).next_multiple_of(threads);
        let past = add.is_empty() && goes_past(limbs.len() * self.chain.n());
        let groups = even_runs(limbs, groups);
        let longest = groups.iter().map(Vec::len).max().unwrap_or(0);
        let ntt = polys.iter().all(|p| p.form() == Form::Ntt);
        let left = match ntt {
            true => Left::Begun { past: false },
            false => Left::Coefficients,
        };
        // Results that go past the caches come from words that stay in them.
        let apart = ntt && past && self.kernels.isa() == Isa::Avx512Ifma;
        let n = self.chain.n();
        share(
            threads,
            groups,
            || Buffer::dirty(if apart { longest * n } else { 0 }),
            |work, mut limbs| {
                if apart {
                    return self.divide_apart(&mut limbs, &scaled, work, drop);
                }
                for r in &scaled {
                    let same = limbs.iter_mut().filter(|(_, q)| std::ptr::eq(q.r, r));
                    let mut outs: Vec<(usize, &mut [u64])> =
                        same.map(|(j, q)| (*j, &mut *q.out)).collect();
                    self.convert(r, &mut outs, left);
                }
                for limbs in limbs.chunk_by_mut(|a, b| a.0 == b.0) {
                    self.divide(limbs, (drop, add), ntt);
                }
            },
        );
        outs
    }

    /// Limbs of a rescale, converted to `work` and divided from there to where they belong.
    fn divide_apart(
        &self,
        limbs: &mut [(usize, Quotient<'_, '_>)],
        scaled: &[Scaled],
        work: &mut [u64],
        drop: Basis,
    ) {
        let n = self.chain.n();
        for r in scaled {
            let same = limbs.iter().zip(work.chunks_exact_mut(n));
            let same = same.filter(|((_, q), _)| std::ptr::eq(q.r, r));
            let mut outs: Vec<_> = same.map(|((j, _), work)| (*j, work)).collect();
            self.convert(r, &mut outs, Left::Begun { past: false });
        }
        for ((j, limb), work) in limbs.iter_mut().zip(work.chunks_exact_mut(n)) {
            let Some(x) = limb.x.limb_of(*j) else {
                continue;
            };
            let inverse = self.chain.product_inverse_mod(drop, *j);
            let from = Minuend {
                x,
                order: None,
                factor: self.chain.modulus(*j).shoup(inverse),
            };
            self.kernels
                .divide_converted(self.chain.table(*j), limb.out, work, &from);
        }
    }

    /// Both polynomials of a ciphertext over `prod(drop)`; the bases are checked.
    pub(super) fn rescale_pair(
        &self,
        (c0, c1): PairRef<'_, RnsPoly>,
        drop: Basis,
    ) -> Result<Pair<RnsPoly>> {
        let mut parts = self.rescale(&[c0, c1], drop, Basis::empty());
        match (parts.pop(), parts.pop()) {
            (Some(part1), Some(part0)) => Ok((part0, part1)),
            _ => Err(RingError::Empty { op: "div_round" }),
        }
    }

    /// Limbs of a rescale at one prime, after the conversion: block by block, so that they share the
    /// table's words.
    fn divide(
        &self,
        limbs: &mut [(usize, Quotient<'_, '_>)],
        (drop, add): (Basis, Basis),
        ntt: bool,
    ) {
        let Some(&(j, _)) = limbs.first() else {
            return;
        };
        let m = self.chain.modulus(j);
        let inverse = self.chain.product_inverse_mod(drop, j);
        let minus = m.shoup(m.neg(inverse));
        let factor = m.mul(self.chain.product_mod(add, j), inverse);
        let (inverse, factor) = (m.shoup(inverse), m.shoup(factor));
        let (n, block) = (self.chain.n(), 1 << LOW_LOG.min(self.chain.log_n()));
        for b in 0..n / block {
            let range = b * block..(b + 1) * block;
            for (_, limb) in limbs.iter_mut() {
                let x = limb.x.limb_of(j).map(|x| &x[range.clone()]);
                let (out, later) = limb.out[range.start..].split_at_mut(block);
                // AVX-512 kernels fetch the next block of what is divided themselves.
                let next = range.end..range.end + block;
                let ahead: &[u64] = match self.kernels.isa() {
                    Isa::Avx512Ifma => later.get(..block).unwrap_or(&[]),
                    _ => limb.x.limb_of(j).and_then(|x| x.get(next)).unwrap_or(&[]),
                };
                let table = self.chain.table(j);
                if let (true, true, Some(x)) = (ntt, add.is_empty(), x) {
                    let from = Minuend {
                        x,
                        order: None,
                        factor: inverse,
                    };
                    self.kernels.divide_low(table, out, b, ahead, &from);
                    continue;
                }
                if ntt {
                    self.kernels.forward_low(table, out, b, ahead);
                }
                match x {
                    // (x A - r) / D = (x - r / A) A / D; one product more, but only for rational
                    // steps.
                    Some(x) if add.is_empty() => self.kernels.sub_from_scaled(m, out, x, inverse),
                    Some(x) => {
                        self.kernels.scale(m, out, minus);
                        self.kernels.mul_const_acc(m, out, x, factor);
                    }
                    None => self.kernels.scale(m, out, minus),
                }
            }
        }
    }
}
