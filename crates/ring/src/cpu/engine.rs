//! The engine behind every coarse operation: prime-outer, digit-inner, limb by limb from
//! decomposition to ModDown.
//!
//! A few primes at a time: every digit is converted to them (a tile of source limbs is read once
//! for all) together with the first stages of the NTT; then, block by block of 4096 words, the
//! digits finish their NTT in L1 and meet the key rows while they are in L2. An automorphism
//! permutes NTT values block-wise, so it too is applied to the block at hand, and so is the end of
//! ModDown: what it subtracts was converted to where the result goes just before, and finishes its
//! NTT there.
//!
//! First come the primes that are divided away, then the others. Groups of primes are what threads
//! share; each has its own scratch.

use super::convert::{Left, Limb, Scaled, Unfilled, Unscaled, goes_past};
use super::grouping::{digit_stride, group_count, group_size, scratch_words};
use super::parallel::{even_runs, share, threads_for};
use super::{Cpu, CpuKey};
use crate::backend::{FactorsRef, Pair};
use crate::basis::Basis;
use crate::buffer::Buffer;
use crate::kernels::{Extra, KeyRows, LOW_LOG, Layout, Minuend, PACKED_PAD, Tensor, packed_words};
use crate::modulus::ShoupConst;
use crate::ntt::InverseScale;
use crate::poly::{Form, RnsPoly};

/// What a job adds, times P unless said otherwise.
#[derive(Clone, Copy)]
pub(super) enum Added<'a> {
    /// Two polynomials, as far as they are not zero.
    Pair([Option<&'a RnsPoly>; 2]),
    /// One polynomial for the first half, on the basis with P, as it is: not times P.
    Whole(&'a RnsPoly),
    /// The first two of the three polynomials of a sum of tensor products.
    Products(&'a [FactorsRef<'a, RnsPoly>]),
}

/// What key switches are added to.
#[derive(Clone, Copy)]
pub(super) enum Onto<'a> {
    /// The sums as they are, with this added under the automorphism of the first one.
    Sums(Added<'a>),
    /// These, times P; the sums hold anything.
    Times([&'a RnsPoly; 2]),
}

/// One output pair: what is added and which products are summed.
pub(super) struct Job<'a> {
    /// Added, times P, under the automorphism of the first term, or of each one.
    pub(super) add_inside: Added<'a>,
    /// Whether that is of each one.
    pub(super) every: bool,
    /// Added, times P, as it is.
    pub(super) add_before: [Option<&'a RnsPoly>; 2],
    /// Whether the outputs hold sums already, which the products are added to.
    pub(super) onto: bool,
    /// `(index of the decomposed polynomial, key)`, the indices ascending.
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

/// Scratch of one thread.
struct Scratch {
    /// Per prime of a group the converted digits of one polynomial.
    digits: Buffer,
    /// Two blocks.
    temp: Buffer,
}

/// One prime of a group, and where the two halves of its sums go.
struct Column<'o> {
    prime: usize,
    /// Per job two limbs.
    outs: Vec<[&'o mut [u64]; 2]>,
    /// Per job, instead of limbs: what the halves are brought to as soon as they are whole. They have
    /// one term then.
    scaled: Vec<[Unfilled<'o>; 2]>,
}

/// A call: what all its groups read.
struct Call<'c> {
    sources: &'c [Decomposed<'c>],
    jobs: &'c [Job<'c>],
    shape: Shape,
    /// Most digits of a polynomial.
    most: usize,
    /// Per job what ModDown converts; none at the primes that are divided away.
    divided: Option<&'c [Scaled]>,
    /// Whether what is converted goes past the caches.
    past: bool,
}

/// One term of a job at one prime.
#[derive(Clone, Copy)]
struct Place<'c> {
    prime: usize,
    /// P modulo the prime.
    p: u64,
    source: &'c Decomposed<'c>,
    job: &'c Job<'c>,
    key: &'c CpuKey,
    /// Whether the digits still lack the last stages of their NTT.
    raw: bool,
    /// Whether this is the job's first term.
    first: bool,
    /// If ModDown is due, what it multiplies by.
    divides: Option<ShoupConst>,
    /// Where the sums, each of one term, go through their inverse NTT: what it is multiplied by.
    inverts: Option<&'c InverseScale>,
    /// Whether this is the job's last term.
    last: bool,
}

/// The next item of each iterator, in pairs.
fn pairs<T>(parts: &mut [impl Iterator<Item = T>]) -> Vec<[T; 2]> {
    let pair = |pair: &mut [_]| match pair {
        [p0, p1] => Some([Iterator::next(p0)?, Iterator::next(p1)?]),
        _ => None,
    };
    parts.chunks_mut(2).filter_map(pair).collect()
}

impl Cpu {
    /// Cuts polynomials into the digits of keys, whose residues go past the caches if `past`.
    pub(super) fn decompose<'a>(
        &self,
        polys: impl Iterator<Item = (&'a RnsPoly, &'a [Basis])>,
        past: bool,
    ) -> Vec<Decomposed<'a>> {
        let mut cut = Vec::new();
        let mut sources = Vec::new();
        for (poly, digits) in polys {
            let mut rows = Vec::new();
            for (d, digit) in digits.iter().enumerate() {
                let own = digit.intersect(poly.basis());
                if !own.is_empty() {
                    rows.push(2 * d);
                    sources.push(Unscaled {
                        basis: own,
                        form: Form::Ntt,
                        limbs: own.iter().map(|i| Limb::new(poly.limb_of(i))).collect(),
                        times: Basis::empty(),
                    });
                }
            }
            cut.push((poly, rows));
        }
        let mut scaled = sources
            .iter()
            .map(|s| s.basis)
            .collect::<Vec<_>>()
            .into_iter()
            .zip(self.scale_sources(sources, past));
        cut.into_iter()
            .map(|(poly, rows)| Decomposed {
                poly,
                digits: scaled.by_ref().take(rows.len()).collect(),
                rows,
            })
            .collect()
    }

    /// The sum of products `a1 b1` of tensor products, made while it is cut: into `d2` and digits.
    pub(super) fn decompose_products<'a>(
        &self,
        d2: &'a mut RnsPoly,
        pairs: &[FactorsRef<'_, RnsPoly>],
        digits: &[Basis],
        past: bool,
    ) -> Decomposed<'a> {
        let (basis, mut rows, mut own) = (d2.basis(), Vec::new(), Vec::new());
        for (d, digit) in digits.iter().enumerate() {
            let digit = digit.intersect(basis);
            if !digit.is_empty() {
                rows.push(2 * d);
                own.push(digit);
            }
        }
        let mut limbs: Vec<(usize, &mut [u64])> = d2.limbs_mut().collect();
        let sources = own.iter().map(|&digit| {
            let mine = limbs.extract_if(.., |(i, _)| digit.contains(*i));
            let products = mine.map(|(i, out)| Limb::Products {
                out,
                factors: pairs
                    .iter()
                    .filter_map(|((_, a1), (_, b1))| Some([a1.limb_of(i)?, b1.limb_of(i)?]))
                    .collect(),
            });
            Unscaled {
                basis: digit,
                form: Form::Ntt,
                limbs: products.collect(),
                times: Basis::empty(),
            }
        });
        let scaled = self.scale_sources(sources.collect(), past);
        Decomposed {
            poly: d2,
            digits: own.into_iter().zip(scaled).collect(),
            rows,
        }
    }

    /// Runs all jobs: first the primes that are divided away, then the others.
    pub(super) fn run(
        &self,
        polys: &[(&RnsPoly, &CpuKey)],
        jobs: &[Job<'_>],
        shape: Shape,
    ) -> Vec<Pair<RnsPoly>> {
        let polys = polys.iter().map(|(p, k)| (*p, &k.digits[..]));
        let digits = polys.clone().map(|(_, digits)| digits);
        let past = self.floods(digits, jobs.len(), shape);
        let sources = self.decompose(polys, past);
        self.run_on(&sources, jobs, (shape, past))
    }

    /// Whether what so many key switches by keys with these digits make is more than caches keep.
    pub(super) fn floods<'a>(
        &self,
        digits: impl Iterator<Item = &'a [Basis]>,
        jobs: usize,
        shape: Shape,
    ) -> bool {
        let cut = digits.map(|digits| {
            let own = |digit: &&Basis| !digit.intersect(shape.basis).is_empty();
            digits.iter().filter(own).count()
        });
        let primes = shape.basis.len() + shape.special.len();
        goes_past((cut.sum::<usize>() + 2 * jobs) * primes * self.chain.n())
    }

    /// The same with digits at hand; what is converted goes past the caches if `past`.
    pub(super) fn run_on(
        &self,
        sources: &[Decomposed<'_>],
        jobs: &[Job<'_>],
        (shape, past): (Shape, bool),
    ) -> Vec<Pair<RnsPoly>> {
        let divisor = shape.special.union(shape.drop);
        let keep = shape.basis.minus(shape.drop);
        let most = sources.iter().map(|s| s.digits.len()).max();
        let mut call = Call {
            sources,
            jobs,
            shape,
            most: most.unwrap_or(0).max(1),
            divided: None,
            past,
        };
        let divided = if jobs.iter().all(|job| job.terms.len() == 1) {
            self.scaled_sums(&call, divisor)
        } else {
            self.sums(&call, divisor)
        };
        call.divided = Some(&divided);
        let new = || RnsPoly::dirty(&self.chain, keep, Form::Ntt);
        let mut results: Vec<Pair<RnsPoly>> = jobs.iter().map(|_| (new(), new())).collect();
        let parts = results.iter_mut().flat_map(|(r0, r1)| [r0, r1]);
        self.columns(
            &call,
            keep,
            parts.map(|r| r.limbs_mut().map(|(_, limb)| limb)),
        );
        results
    }

    /// What ModDown converts, of any jobs: their sums at the primes that are divided away.
    fn sums(&self, call: &Call<'_>, divisor: Basis) -> Vec<Scaled> {
        let n = self.chain.n();
        // Per job and part the limbs of the divisor.
        let mut limbs = Buffer::dirty(2 * call.jobs.len() * divisor.len() * n);
        let parts = limbs.chunks_exact_mut(divisor.len().max(1) * n);
        let parts = parts.map(|limbs| limbs.chunks_exact_mut(n));
        self.columns(call, divisor, parts);
        let sums: Vec<Unscaled<'_>> = limbs
            .chunks_exact(divisor.len().max(1) * n)
            .map(|limbs| Unscaled {
                basis: divisor,
                form: Form::Ntt,
                limbs: limbs.chunks_exact(n).map(Limb::Words).collect(),
                times: Basis::empty(),
            })
            .collect();
        self.scale_sources(sums, call.past && divisor.len() > 1)
    }

    /// The same of jobs with one term each: a limb goes through its inverse NTT block by block as the
    /// inner product gives them, and is whole while it is in the cache.
    fn scaled_sums(&self, call: &Call<'_>, divisor: Basis) -> Vec<Scaled> {
        let halves = 0..2 * call.jobs.len();
        let past = call.past && divisor.len() > 1;
        let mut scaled: Vec<Scaled> = halves.map(|_| self.unscaled(divisor, past)).collect();
        let mut parts: Vec<_> = scaled
            .iter_mut()
            .map(|s| self.unfilled(s).into_iter())
            .collect();
        let columns = divisor
            .iter()
            .map(|prime| Column {
                prime,
                outs: Vec::new(),
                scaled: pairs(&mut parts),
            })
            .collect();
        self.share_columns(call, columns);
        scaled
    }

    /// Makes sums of key switches on the basis with P, without any division.
    pub(super) fn accumulate(
        &self,
        polys: &[(&RnsPoly, &CpuKey)],
        onto: Onto<'_>,
        sums: &mut Pair<RnsPoly>,
        shape: Shape,
    ) {
        let (add_inside, add_before, onto) = match onto {
            Onto::Sums(inside) => (inside, [None, None], true),
            Onto::Times(left) => (Added::Pair([None, None]), left.map(Some), false),
        };
        let polys_digits = polys.iter().map(|(p, k)| (*p, &k.digits[..]));
        let past = self.floods(polys_digits.clone().map(|p| p.1), 1, shape);
        let sources = self.decompose(polys_digits, past);
        let most = sources.iter().map(|s| s.digits.len()).max();
        let job = Job {
            add_inside,
            add_before,
            onto,
            every: false,
            terms: polys.iter().enumerate().map(|(i, p)| (i, p.1)).collect(),
        };
        let call = Call {
            sources: &sources,
            jobs: &[job],
            shape,
            most: most.unwrap_or(0).max(1),
            divided: None,
            past,
        };
        let primes = shape.basis.union(shape.special);
        let parts = [&mut sums.0, &mut sums.1].into_iter();
        self.columns(
            &call,
            primes,
            parts.map(|sum| sum.limbs_mut().map(|(_, limb)| limb)),
        );
    }

    /// All jobs at some primes; `parts` are per job its first, then its second part: the limbs.
    fn columns<'o, P: Iterator<Item = &'o mut [u64]>>(
        &self,
        call: &Call<'_>,
        primes: Basis,
        parts: impl Iterator<Item = P>,
    ) {
        let mut parts: Vec<P> = parts.collect();
        let columns = primes
            .iter()
            .map(|prime| Column {
                prime,
                outs: pairs(&mut parts),
                scaled: Vec::new(),
            })
            .collect();
        self.share_columns(call, columns);
    }

    fn share_columns(&self, call: &Call<'_>, columns: Vec<Column<'_>>) {
        let n = self.chain.n();
        let down = 2 * usize::from(call.divided.is_some());
        // Of what a job takes at a prime, about the time of two NTTs is not for its digits.
        let digits: usize = call.sources.iter().map(|s| s.digits.len()).sum();
        let ntts = digits + (down + 2) * call.jobs.len();
        let threads = threads_for(columns.len() * ntts * n).min(columns.len().max(1));
        let size = group_size(n, call.most, down, threads);
        let count = group_count(columns.len(), size, threads);
        let whole =
            2 * scratch_words(n) * usize::from(columns.iter().any(|c| !c.scaled.is_empty()));
        let groups = even_runs(columns, count);
        let longest = groups.iter().map(Vec::len).max().unwrap_or(0);
        let scratch = || {
            let scratch = Scratch {
                digits: Buffer::dirty(longest * call.most * digit_stride(n)),
                temp: Buffer::dirty(2 * n.min(1 << LOW_LOG)),
            };
            (scratch, Buffer::dirty(whole))
        };
        share(threads, groups, scratch, |(scratch, limbs), mut columns| {
            self.group(call, &mut columns, (scratch, limbs));
        });
    }

    /// All jobs at a group of primes: `P add + sum sigma(sum_d digit_d key_d)`, and the end of
    /// ModDown where it is due. Two limbs of scratch if sums go on to scaled residues.
    fn group(
        &self,
        call: &Call<'_>,
        columns: &mut [Column<'_>],
        (scratch, limbs): (&mut Scratch, &mut [u64]),
    ) {
        if call.divided.is_none() {
            for column in &mut *columns {
                self.begin(call, column);
            }
        }
        let n = self.chain.n();
        let (stride, words) = (digit_stride(n), scratch_words(n));
        for (index, source) in call.sources.iter().enumerate() {
            for (d, (own, scaled)) in source.digits.iter().enumerate() {
                let mut outs: Vec<(usize, &mut [u64])> = columns
                    .iter()
                    .zip(scratch.digits.chunks_exact_mut(call.most * stride))
                    .filter(|(column, _)| !own.contains(column.prime))
                    .map(|(column, space)| (column.prime, &mut space[d * stride..][..words]))
                    .collect();
                self.convert(scaled, &mut outs, Left::Begun { past: call.past });
            }
            let mut raw = true;
            for (number, job) in call.jobs.iter().enumerate() {
                let last = job.terms.len().saturating_sub(1);
                for (t, (_, key)) in job.terms.iter().enumerate().filter(|(_, t)| t.0 == index) {
                    let (first, last) = (t == 0, t == last);
                    if let (Some(divided), true) = (call.divided, first) {
                        self.convert_down((divided, call.past), columns, number);
                    }
                    for (g, column) in columns.iter_mut().enumerate() {
                        let halves = column.scaled.get_mut(number);
                        // The halves are divided by the same primes.
                        let scale = halves
                            .as_ref()
                            .map(|[half, _]| self.chain.table(column.prime).scaled(half.factor));
                        let special = call.shape.special;
                        let place = Place {
                            prime: column.prime,
                            p: self.chain.product_mod(special, column.prime),
                            source,
                            job,
                            key,
                            raw,
                            first,
                            divides: call.divided.map(|_| self.inverse(call, column.prime)),
                            inverts: scale.as_ref(),
                            last,
                        };
                        let (Some(halves), Some(scale)) = (halves, &scale) else {
                            self.term((call, g), place, &mut column.outs[number], scratch);
                            continue;
                        };
                        let (limb0, limb1) = limbs.split_at_mut(words);
                        self.term((call, g), place, &mut [&mut *limb0, &mut *limb1], scratch);
                        for (half, limb) in halves.iter_mut().zip([limb0, limb1]) {
                            self.finish_inverse(limb, half, scale);
                        }
                    }
                    raw = false;
                }
            }
        }
    }

    /// What a job's sums begin with before their first term.
    fn begin(&self, call: &Call<'_>, column: &mut Column<'_>) {
        let j = column.prime;
        let m = self.chain.modulus(j);
        for (job, outs) in call.jobs.iter().zip(&mut column.outs) {
            let p = self.chain.product_mod(call.shape.special, j);
            for (out, add) in outs.iter_mut().zip(job.add_before) {
                match add.map(|a| a.limb_of(j)) {
                    Some(Some(x)) => self.kernels.mul_const(m, out, x, m.shoup(p)),
                    Some(None) => out.fill(0),
                    None => {}
                }
            }
        }
    }

    /// What ModDown subtracts from both parts of a job at a group of primes, but for the last stages
    /// of its NTT: to where the results go.
    fn convert_down(
        &self,
        (divided, past): (&[Scaled], bool),
        columns: &mut [Column<'_>],
        job: usize,
    ) {
        for (part, source) in divided[2 * job..2 * job + 2].iter().enumerate() {
            let mut outs: Vec<(usize, &mut [u64])> = columns
                .iter_mut()
                .map(|c| (c.prime, &mut *c.outs[job][part]))
                .collect();
            self.convert(source, &mut outs, Left::Begun { past });
        }
    }

    /// One term of one job at one prime, block by block.
    fn term(
        &self,
        (call, g): (&Call<'_>, usize),
        place: Place<'_>,
        outs: &mut [&mut [u64]; 2],
        scratch: &mut Scratch,
    ) {
        let n = self.chain.n();
        let block = n.min(1 << LOW_LOG);
        let (stride, layout) = (digit_stride(n), Layout::apart(n));
        let table = self.chain.table(place.prime);
        let own_limb = place.source.poly.limb_of(place.prime);
        let rows = place.key.stored();
        let Some(key) = place.key.row_of(place.prime) else {
            return;
        };
        let words = packed_words(&table.modulus, rows, block);
        let key_block = |b: usize| key.get(b * words..(b + 1) * words + PACKED_PAD);
        let space = &mut scratch.digits[g * call.most * stride..(g + 1) * call.most * stride];
        for b in 0..n / block {
            let range = b * block..(b + 1) * block;
            let words = key_block(b).unwrap_or(&[]);
            if place.raw {
                // While one digit is transformed, the next one's block (after the last one the first
                // one's next) comes nearer. The key does not: it would wait for memory here.
                let mut first_next: &[u64] = &[];
                let mut blocks: Vec<&mut [u64]> = Vec::with_capacity(place.source.digits.len());
                let limbs = space.chunks_exact_mut(stride);
                for ((own, _), limb) in place.source.digits.iter().zip(limbs) {
                    if !own.contains(place.prime) {
                        let (now, later) = limb[layout.at(range.start)..].split_at_mut(block);
                        if blocks.is_empty() && range.end < n {
                            first_next = &later[layout.pitch - block..][..block];
                        }
                        blocks.push(now);
                    }
                }
                let mut left = &mut blocks[..];
                while let Some((now, rest)) = left.split_first_mut() {
                    let ahead: &[u64] = rest.first().map_or(first_next, |x| x);
                    self.kernels.forward_digits(table, now, b, ahead);
                    left = rest;
                }
            }
            let digits: Vec<&[u64]> = place
                .source
                .digits
                .iter()
                .zip(space.chunks_exact(stride))
                .map(|((own, _), limb)| match own_limb {
                    Some(x) if own.contains(place.prime) => &x[range.clone()],
                    _ => &limb[layout.at(range.start)..][..block],
                })
                .collect();
            let order = place.key.permutation.piece_from(b, block);
            let rows = KeyRows {
                words,
                rows,
                first: &place.source.rows,
                uniform: place.key.uniform(place.prime, &range, Some(&order)),
                digits: &digits,
                order: None,
                loose: place.divides.is_some() && place.first,
                ahead: &[],
            };
            self.multiply((place, b), &rows, (outs, &mut scratch.temp));
        }
    }

    /// One block of one term.
    fn multiply(
        &self,
        (place, b): (Place<'_>, usize),
        rows: &KeyRows<'_>,
        (outs, temp): (&mut [&mut [u64]; 2], &mut [u64]),
    ) {
        let block = self.chain.n().min(1 << LOW_LOG);
        let range = b * block..(b + 1) * block;
        let m = self.chain.modulus(place.prime);
        let mut extra = Extra {
            x: [None, None],
            tensors: &[],
            factor: m.to_mont(place.p),
        };
        let mut tensors = Vec::new();
        match place.job.add_inside {
            _ if !place.first && !place.job.every => {}
            Added::Pair(pair) => {
                extra.x = pair.map(|a| Some(&a?.limb_of(place.prime)?[range.clone()]));
            }
            Added::Whole(x) => {
                extra.x = [x.limb_of(place.prime).map(|x| &x[range.clone()]), None];
                extra.factor = m.to_mont(1);
            }
            Added::Products(pairs) => {
                tensors.extend(pairs.iter().filter_map(|((a0, a1), (b0, b1))| {
                    let [a0, a1, b0, b1] =
                        [a0, a1, b0, b1].map(|p| Some(&p.limb_of(place.prime)?[range.clone()]));
                    let (a, b) = ([a0?, a1?], [b0?, b1?]);
                    Some(Tensor { a, b })
                }));
                extra.tensors = &tensors;
            }
        }
        let [out0, out1] = outs;
        let begun = place.job.add_before[0].is_some() || place.job.onto;
        let fresh = place.first && !begun;
        let same = place.key.galois.is_identity();
        if fresh && same && place.divides.is_none() && place.inverts.is_none() {
            let (out0, out1) = (&mut out0[range.clone()], &mut out1[range]);
            self.kernels.inner_product(m, out0, out1, rows, &extra);
            return;
        }
        let (temp0, temp1) = temp.split_at_mut(block);
        if let Some(scale) = place.inverts {
            let layout = Layout::apart(self.chain.n());
            let target = place.key.permutation.of_piece(b).0;
            let order = place.key.permutation.piece_from(b, block);
            let rows = KeyRows {
                order: (!same).then_some(&order),
                ..*rows
            };
            self.kernels.inner_product(m, temp0, temp1, &rows, &extra);
            let table = self.chain.table(place.prime);
            for (out, temp) in [(out0, temp0), (out1, temp1)] {
                let out = &mut out[layout.at(target * block)..][..block];
                self.kernels.inverse_low(table, out, temp, target, scale);
            }
            return;
        }
        self.kernels.inner_product(m, temp0, temp1, rows, &extra);
        if let (Some(inverse), true) = (place.divides, place.first) {
            return self.end_division((place, b), inverse, outs, [temp0, temp1]);
        }
        let (target, piece) = place.key.permutation.of_piece(b);
        let range = target * block..(target + 1) * block;
        for (out, temp) in [(out0, temp0), (out1, temp1)] {
            let out = &mut out[range.clone()];
            if fresh {
                self.kernels.permute(out, temp, &piece, &[], false);
            } else if same {
                self.kernels.add(m, out, temp);
            } else {
                self.kernels.permute_acc(m, out, temp, &piece);
            }
            if let (Some(inverse), true) = (place.divides, place.last) {
                self.kernels.scale(m, out, inverse);
            }
        }
    }

    /// What ModDown multiplies by at a prime.
    fn inverse(&self, call: &Call<'_>, prime: usize) -> ShoupConst {
        let divisor = call.shape.special.union(call.shape.drop);
        let m = self.chain.modulus(prime);
        m.shoup(self.chain.product_inverse_mod(divisor, prime))
    }

    /// The block of the result to which the first term of a job brings block `b`: that term's part
    /// `x` and what is added before it, less what ModDown subtracts, which is there already. If more
    /// terms follow, the last one's caller divides.
    fn end_division(
        &self,
        (place, b): (Place<'_>, usize),
        inverse: ShoupConst,
        outs: &mut [&mut [u64]; 2],
        x: [&mut [u64]; 2],
    ) {
        let (j, job) = (place.prime, place.job);
        let (m, table) = (self.chain.modulus(j), self.chain.table(j));
        let permutation = &place.key.permutation;
        let (target, piece) = permutation.of_piece(b);
        let factor = match place.last {
            true => inverse,
            false => m.shoup(m.reduce(1)),
        };
        let block = x[0].len();
        let range = target * block..(target + 1) * block;
        let next = match (b + 1) * block < self.chain.n() {
            true => permutation.of_piece(b + 1).0,
            false => target,
        };
        let next = next * block..(next + 1) * block;
        for (part, x) in x.into_iter().enumerate() {
            let (out, other) = match &mut *outs {
                [out, other] if part == 0 => (out, &other[range.clone()]),
                [other, out] => (out, &other[next.clone()]),
            };
            let out = &mut out[range.clone()];
            let minuend = Minuend {
                x,
                order: (!place.key.galois.is_identity()).then_some(&piece),
                factor,
            };
            self.kernels.divide_low(table, out, target, other, &minuend);
            // Sums that products are added onto are never divided here.
            if let Some(x) = job.add_before[part].and_then(|x| x.limb_of(j)) {
                let c = m.shoup(m.mul(place.p, factor.w));
                self.kernels.mul_const_acc(m, out, &x[range.clone()], c);
            }
        }
    }
}
