//! The engine behind every coarse operation: prime-outer, digit-inner, limb by limb from
//! decomposition to ModDown.
//!
//! A few primes at a time: every digit is converted to them (a tile of source limbs is read once
//! for all) together with the first stages of the NTT; then, block by block of 4096 words, the
//! digits finish their NTT in L1 and meet the key rows while they are in L2. An automorphism
//! permutes NTT values block-wise, so it too is applied to the block at hand.

use super::convert::Scaled;
use super::{Cpu, CpuKey};
use crate::backend::Pair;
use crate::basis::Basis;
use crate::buffer::Buffer;
use crate::kernels::{Extra, KeyRows, LOW_LOG};
use crate::poly::{Form, RnsPoly};

/// Words of digit and product buffers that a group of primes may take: a share of the last level of cache.
const GROUP_WORDS: usize = 1 << 22;
/// Two primes' digits of at most this many words stay in the second level of cache.
const SMALL_WORDS: usize = 1 << 17;
/// The largest group of primes.
const MAX_GROUP: usize = 8;

/// One output pair: what is added and which products are summed.
pub(super) struct Job<'a> {
    /// Added, times P, under the automorphism of the first term.
    pub(super) add_inside: [Option<&'a RnsPoly>; 2],
    /// Added, times P, as it is.
    pub(super) add_before: [Option<&'a RnsPoly>; 2],
    /// Added as it is, on the basis with P: the sums that the products go on from. The second
    /// counts only beside a first.
    pub(super) start: [Option<&'a RnsPoly>; 2],
    /// `(index of the decomposed polynomial, key)`.
    pub(super) terms: Vec<(usize, &'a CpuKey)>,
}

/// The primes of one key switch.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) basis: Basis,
    pub(super) special: Basis,
    pub(super) drop: Basis,
}

/// A polynomial cut into digits, ready to be converted to any prime.
pub(super) struct Decomposed<'a> {
    pub(super) poly: &'a RnsPoly,
    /// Primes and scaled residues of the digits that the basis meets.
    pub(super) digits: Vec<(Basis, Scaled)>,
    /// The first of the two key rows of each digit.
    pub(super) rows: Vec<usize>,
}

/// Scratch of one call.
struct Work {
    /// Per prime of a group the converted digits.
    digits: Buffer,
    /// Digits per prime.
    most: usize,
    /// Per prime of a group and job two limbs: sums of products.
    products: Buffer,
    /// Two blocks.
    temp: Buffer,
}

/// What the block loop needs to know about its place.
#[derive(Clone, Copy)]
struct Place {
    prime: usize,
    /// Position of the prime in its group.
    group: usize,
    /// Index of the decomposed polynomial.
    source: usize,
    /// `P mod q` in Montgomery form.
    p: u64,
}

/// Words from one digit's limb to the next: half a period of the second-level cache's sets more
/// than N, so that equal blocks of all digits do not fall into the same sets.
pub(super) fn digit_stride(n: usize) -> usize {
    n + n.min(1 << LOW_LOG)
}

pub(super) fn groups(primes: Basis, size: usize) -> Vec<Vec<usize>> {
    primes
        .iter()
        .collect::<Vec<_>>()
        .chunks(size)
        .map(<[usize]>::to_vec)
        .collect()
}

/// Primes that are worked on at a time when each has `digits` converted digits and `others` more
/// limbs.
pub(super) fn group_size(n: usize, digits: usize, others: usize) -> usize {
    let max = if 2 * n * digits <= SMALL_WORDS {
        2
    } else {
        MAX_GROUP
    };
    (GROUP_WORDS / (n * (digits + others)).max(1)).clamp(1, max)
}

impl Cpu {
    pub(super) fn decompose<'a>(&self, poly: &'a RnsPoly, key: &CpuKey) -> Decomposed<'a> {
        let mut digits = Vec::new();
        let mut rows = Vec::new();
        for (d, digit) in key.digits.iter().enumerate() {
            let own = digit.intersect(poly.basis());
            if !own.is_empty() {
                digits.push((
                    own,
                    self.scale_source(own, Form::Ntt, |i| poly.limb_of(i), |_| 1),
                ));
                rows.push(2 * d);
            }
        }
        Decomposed { poly, digits, rows }
    }

    /// Runs all jobs: first the primes that are divided away, then the others.
    pub(super) fn run(
        &self,
        polys: &[(&RnsPoly, &CpuKey)],
        jobs: &[Job<'_>],
        shape: Shape,
    ) -> Vec<Pair<RnsPoly>> {
        let n = self.chain.n();
        let divisor = shape.special.union(shape.drop);
        let keep = shape.basis.minus(shape.drop);
        let sources: Vec<Decomposed<'_>> =
            polys.iter().map(|(p, k)| self.decompose(p, k)).collect();
        let most = sources
            .iter()
            .map(|s| s.digits.len())
            .max()
            .unwrap_or(0)
            .max(1);
        let group = group_size(n, most, 2 * jobs.len());
        let mut work = Work {
            digits: Buffer::dirty(group * most * digit_stride(n)),
            most,
            products: Buffer::dirty(group * jobs.len() * 2 * n),
            temp: Buffer::dirty(2 * n.min(1 << LOW_LOG)),
        };
        let divided = self.divisor_products(&sources, jobs, shape, &mut work);

        let mut results: Vec<Pair<RnsPoly>> = jobs
            .iter()
            .map(|_| {
                let new = || RnsPoly::dirty(&self.chain, keep, Form::Ntt);
                (new(), new())
            })
            .collect();
        for primes in groups(keep, group) {
            self.products(&sources, jobs, (shape, &primes), &mut work);
            for (job, ((r0, r1), divided)) in results.iter_mut().zip(&divided).enumerate() {
                for (part, (r, source)) in [r0, r1].into_iter().zip(divided).enumerate() {
                    let mut outs: Vec<(usize, &mut [u64])> =
                        r.limbs_mut().filter(|(j, _)| primes.contains(j)).collect();
                    self.convert(source, &mut outs, true);
                    for (g, (j, out)) in outs.into_iter().enumerate() {
                        let at = (2 * (g * jobs.len() + job) + part) * n;
                        self.subtract(out, &work.products[at..at + n], (j, divisor));
                    }
                }
            }
        }
        results
    }

    /// The products at the primes of P and `drop`, as sources of the ModDown's base conversion.
    fn divisor_products(
        &self,
        sources: &[Decomposed<'_>],
        jobs: &[Job<'_>],
        shape: Shape,
        work: &mut Work,
    ) -> Vec<[Scaled; 2]> {
        let n = self.chain.n();
        let divisor = shape.special.union(shape.drop);
        let group = work.digits.len() / (work.most * digit_stride(n));
        let stride = divisor.len() * n;
        // Per job and part the limbs of the divisor.
        let mut limbs = Buffer::dirty(2 * jobs.len() * stride);
        for primes in groups(divisor, group) {
            self.products(sources, jobs, (shape, &primes), work);
            for (g, &j) in primes.iter().enumerate() {
                let pos = divisor.position_of(j).unwrap_or(0);
                let products = work.products[2 * n * jobs.len() * g..].chunks_exact(n);
                for (out, x) in limbs.chunks_exact_mut(stride).zip(products) {
                    out[pos * n..(pos + 1) * n].copy_from_slice(x);
                }
            }
        }
        let scaled = |x: &[u64]| {
            let limb = |i| {
                divisor
                    .position_of(i)
                    .and_then(|pos| x.get(pos * n..(pos + 1) * n))
            };
            self.scale_source(divisor, Form::Ntt, limb, |_| 1)
        };
        limbs
            .chunks_exact(2 * stride)
            .map(|pair| {
                let (x0, x1) = pair.split_at(stride);
                [scaled(x0), scaled(x1)]
            })
            .collect()
    }

    /// The end of ModDown at one prime: `out = (x - out) / prod(divisor)`, where `out` still lacks
    /// the last stages of its NTT.
    fn subtract(&self, out: &mut [u64], x: &[u64], (j, divisor): (usize, Basis)) {
        let m = self.chain.modulus(j);
        let inverse = m.shoup(self.chain.product_inverse_mod(divisor, j));
        let block = self.chain.n().min(1 << LOW_LOG);
        for (b, (out, x)) in out
            .chunks_exact_mut(block)
            .zip(x.chunks_exact(block))
            .enumerate()
        {
            self.kernels.forward_low(self.chain.table(j), out, b, &[]);
            self.kernels.sub_from_scaled(m, out, x, inverse);
        }
    }

    /// For a few primes `P add + sum sigma(sum_d digit_d key_d)` of every job.
    fn products(
        &self,
        sources: &[Decomposed<'_>],
        jobs: &[Job<'_>],
        (shape, primes): (Shape, &[usize]),
        work: &mut Work,
    ) {
        let n = self.chain.n();
        let factors: Vec<u64> = primes
            .iter()
            .map(|&j| self.chain.product_mod(shape.special, j))
            .collect();
        for (g, (&j, &p)) in primes.iter().zip(&factors).enumerate() {
            let m = self.chain.modulus(j);
            for (i, job) in jobs.iter().enumerate() {
                let at = 2 * n * (g * jobs.len() + i);
                let outs = work.products[at..at + 2 * n].chunks_exact_mut(n);
                if job.start[0].is_some() {
                    for (out, start) in outs.zip(job.start) {
                        match start.and_then(|x| x.limb_of(j)) {
                            Some(x) => out.copy_from_slice(x),
                            None => out.fill(0),
                        }
                    }
                    continue;
                }
                for (out, add) in outs.zip(job.add_before) {
                    match add.map(|a| a.limb_of(j)) {
                        Some(Some(x)) => self.kernels.mul_const(m, out, x, m.shoup(p)),
                        Some(None) => out.fill(0),
                        None => {}
                    }
                }
            }
        }
        let stride = digit_stride(n);
        let per_prime = work.most * stride;
        for (index, source) in sources.iter().enumerate() {
            for (d, (own, scaled)) in source.digits.iter().enumerate() {
                let mut outs: Vec<(usize, &mut [u64])> = primes
                    .iter()
                    .zip(work.digits.chunks_exact_mut(per_prime))
                    .filter(|(j, _)| !own.contains(**j))
                    .map(|(&j, space)| (j, &mut space[d * stride..d * stride + n]))
                    .collect();
                self.convert(scaled, &mut outs, true);
            }
            for (g, (&j, &p)) in primes.iter().zip(&factors).enumerate() {
                let p = self.chain.modulus(j).to_mont(p);
                let place = Place {
                    prime: j,
                    group: g,
                    source: index,
                    p,
                };
                self.multiply_blocks(source, jobs, place, work);
            }
        }
    }

    /// Finishes the digits at one prime block by block and multiplies them with every job's key.
    fn multiply_blocks(
        &self,
        source: &Decomposed<'_>,
        jobs: &[Job<'_>],
        place: Place,
        work: &mut Work,
    ) {
        let n = self.chain.n();
        let block = n.min(1 << LOW_LOG);
        let own_limb = source.poly.limb_of(place.prime);
        let table = self.chain.table(place.prime);
        let stride = digit_stride(n);
        let first = place.group * work.most * stride;
        let key = jobs
            .iter()
            .flat_map(|j| &j.terms)
            .find(|t| t.0 == place.source);
        let ahead = key.and_then(|(_, k)| Some((k.row_of(place.prime)?, 2 * k.digits.len())));
        for b in 0..n / block {
            let range = b * block..(b + 1) * block;
            let space = &mut work.digits[first..first + work.most * stride];
            // While one digit is transformed, the next one's block and a share of the key come
            // nearer.
            let mut blocks: Vec<&mut [u64]> = source
                .digits
                .iter()
                .zip(space.chunks_exact_mut(stride))
                .filter(|((own, _), _)| !own.contains(place.prime))
                .map(|(_, limb)| &mut limb[range.clone()])
                .collect();
            let key =
                ahead.and_then(|(words, rows)| words.get(range.start * rows..range.end * rows));
            let key = key.unwrap_or(&[]);
            let mut shares = key.chunks(key.len().div_ceil(blocks.len().max(1)).max(1));
            let mut left = &mut blocks[..];
            while let Some((now, rest)) = left.split_first_mut() {
                let ahead: &[u64] = rest.first().map_or(&[], |x| x);
                self.kernels
                    .forward_low(table, now, b, &[ahead, shares.next().unwrap_or(&[])]);
                left = rest;
            }
            let digits: Vec<&[u64]> = source
                .digits
                .iter()
                .zip(space.chunks_exact(stride))
                .map(|((own, _), limb)| match own_limb {
                    Some(x) if own.contains(place.prime) => &x[range.clone()],
                    _ => &limb[range.clone()],
                })
                .collect();
            for (i, job) in jobs.iter().enumerate() {
                let at = 2 * n * (place.group * jobs.len() + i);
                let out = &mut work.products[at..at + 2 * n];
                let terms = job
                    .terms
                    .iter()
                    .enumerate()
                    .filter(|(_, t)| t.0 == place.source);
                for (number, (_, key)) in terms {
                    let block_of = |key: &'_ CpuKey| {
                        let rows = 2 * key.digits.len();
                        (rows, range.start * rows..range.end * rows)
                    };
                    let (rows, at) = block_of(key);
                    let Some(words) = key.row_of(place.prime).and_then(|w| w.get(at)) else {
                        continue;
                    };
                    // Of the next job's key the same block is wanted next.
                    let next = jobs
                        .get(i + 1)
                        .and_then(|j| j.terms.first())
                        .and_then(|(_, k)| {
                            k.row_of(place.prime).and_then(|w| w.get(block_of(k).1))
                        });
                    let rows = KeyRows {
                        words,
                        rows,
                        first: &source.rows,
                        digits: &digits,
                        ahead: next.unwrap_or(&[]),
                    };
                    let temp = &mut work.temp;
                    self.multiply((job, number, key), rows, (place, b), (out, temp));
                }
            }
        }
    }

    /// One block of one term.
    fn multiply(
        &self,
        (job, number, key): (&Job<'_>, usize, &CpuKey),
        rows: KeyRows<'_>,
        (place, b): (Place, usize),
        (out, temp): (&mut [u64], &mut Buffer),
    ) {
        let n = self.chain.n();
        let block = n.min(1 << LOW_LOG);
        let range = b * block..(b + 1) * block;
        let m = self.chain.modulus(place.prime);
        let added = |part: usize| {
            let add = job.add_inside[part].filter(|_| number == 0);
            add.and_then(|a| a.limb_of(place.prime))
                .and_then(|x| x.get(range.clone()))
        };
        let extra = Extra {
            x: [added(0), added(1)],
            factor: place.p,
        };
        let (out0, out1) = out.split_at_mut(n);
        let begun = job.add_before[0].is_some() || job.start[0].is_some();
        let fresh = number == 0 && !begun;
        if fresh && key.galois.is_identity() {
            let (out0, out1) = (&mut out0[range.clone()], &mut out1[range.clone()]);
            self.kernels.inner_product(m, out0, out1, &rows, &extra);
            return;
        }
        let (temp0, temp1) = temp.split_at_mut(block);
        self.kernels.inner_product(m, temp0, temp1, &rows, &extra);
        let (target, piece) = key.permutation.of_piece(b);
        let range = target * block..(target + 1) * block;
        for (out, temp) in [(out0, temp0), (out1, temp1)] {
            let out = &mut out[range.clone()];
            if fresh {
                self.kernels.permute(out, temp, &piece);
            } else if key.galois.is_identity() {
                self.kernels.add(m, out, temp);
            } else {
                self.kernels.permute_acc(m, out, temp, &piece);
            }
        }
    }
}
