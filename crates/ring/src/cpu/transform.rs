//! Doubly hoisted linear transforms: `Backend::linear_transform` prime by prime.
//!
//! Each input is cut into digits once. At one prime of Q + P all its digits are converted; then,
//! for a few hundred words at a time, every rotated input is made (inner product with its key, and
//! the permutation) and at once multiplied with all plaintexts that it meets. What is written to
//! memory are the sums of the giant steps alone. The giant steps' key switches go on from there
//! in the engine, with one ModDown and the rescale in it.

use std::ops::Range;

use super::engine::{Decomposed, Job, Shape, digit_stride, group_size, groups};
use super::{Cpu, CpuKey, CpuPlain};
use crate::backend::{Pair, PairRef, TransformPlan, check_plan, used_keys};
use crate::basis::Basis;
use crate::buffer::Buffer;
use crate::error::{Result, RingError};
use crate::kernels::{Extra, KeyRows, LOW_LOG, MOST_PRODUCTS, Product};
use crate::poly::{Form, RnsPoly};
use crate::reference::check_drop;

const OP: &str = "linear_transform";

/// The shortest block.
const MIN_BLOCK: usize = 64;

/// An input as terms multiply it.
struct Baby<'a> {
    c: PairRef<'a, RnsPoly>,
    /// The key of its rotation and the number of its decomposition; none: times P, as it is.
    turn: Option<(&'a CpuKey, usize)>,
}

/// The sum of one giant step of one output.
struct Sum<'a> {
    output: usize,
    key: Option<&'a CpuKey>,
    /// Whether any term is rotated: the sum is then a multiple of P only up to its rounding.
    turned: bool,
    /// Per batch of babies: number of the baby in it, and its factor.
    terms: Vec<Vec<(usize, &'a CpuPlain)>>,
    /// Per block that is read the block that the automorphism brings it to.
    targets: Vec<usize>,
}

impl Sum<'_> {
    /// Whether the second half stays without the factor P until the end: it is then exact on the
    /// inputs' basis alone.
    fn exact(&self) -> bool {
        self.key.is_some() && !self.turned
    }
}

/// A plan in the order in which it is computed.
struct Work<'a> {
    basis: Basis,
    special: Basis,
    babies: Vec<Baby<'a>>,
    /// Babies of a batch.
    batch: usize,
    sums: Vec<Sum<'a>>,
    sources: Vec<Decomposed<'a>>,
    /// Words of a block.
    block: usize,
}

/// How the work is cut; results do not depend on it.
#[derive(Clone, Copy, Debug)]
struct Blocking {
    /// Most inputs, as they are multiplied, of which blocks are held at a time.
    batch: usize,
    /// Words that these blocks may take together.
    words: usize,
    /// The longest block.
    longest: usize,
}

impl Default for Blocking {
    fn default() -> Self {
        Self {
            batch: 32,
            // A quarter of the second level of cache.
            words: 1 << 15,
            longest: 1 << LOW_LOG,
        }
    }
}

impl Blocking {
    /// Babies of a batch and words of a block, a power of two of at least eight, for so many
    /// babies and so many terms of the largest sum. The plaintexts of one sum are fetched while
    /// the sum before is computed: they too have to leave room for one another.
    fn of(self, babies: usize, terms: usize, n: usize) -> (usize, usize) {
        let batch = babies.clamp(1, self.batch);
        let streams = (2 * batch).max(2 * terms.min(self.batch));
        let block = (self.words / streams).clamp(MIN_BLOCK, self.longest);
        (batch, (1 << block.ilog2()).min(n))
    }
}

/// What the sums are written to.
struct Sums {
    /// Per output: what goes into the last division without a key switch, on the basis with P.
    outputs: Vec<Pair<RnsPoly>>,
    /// Per giant step with a key the second half of its sum.
    giants: Vec<Option<RnsPoly>>,
}

/// Scratch of one call.
struct Scratch {
    /// Per prime of a group the converted digits of all inputs.
    digits: Buffer,
    /// Per baby of a batch two blocks.
    babies: Buffer,
    /// Two blocks.
    temp: Buffer,
}

/// A block of one prime.
#[derive(Clone, Copy)]
struct Place {
    prime: usize,
    /// Where the prime's digits begin in the scratch.
    digits: usize,
    /// Number of the block.
    number: usize,
}

impl Place {
    fn words(self, block: usize) -> Range<usize> {
        self.number * block..(self.number + 1) * block
    }
}

impl CpuPlain {
    /// The words for `range` at one prime: that many, or a single one for all. `None` where the
    /// value changes inside the range but the plaintext is not dense.
    fn block(&self, prime: usize, range: Range<usize>, n: usize) -> Option<&[u64]> {
        let limb = self.limb_of(prime)?;
        let run = n / self.period;
        if run == 1 {
            limb.get(range)
        } else if run >= range.len() {
            limb.get(range.start / run..range.start / run + 1)
        } else {
            None
        }
    }

    /// The same with every word written out.
    fn written(&self, prime: usize, range: Range<usize>, n: usize) -> Vec<u64> {
        let run = n / self.period;
        let limb = self.limb_of(prime).unwrap_or(&[]);
        range.filter_map(|j| limb.get(j / run).copied()).collect()
    }
}

impl<'a> Work<'a> {
    /// Sorts a checked plan.
    fn new(
        cpu: &Cpu,
        inputs: &[PairRef<'a, RnsPoly>],
        plan: &TransformPlan<'a, Cpu>,
        (basis, special): (Basis, Basis),
        blocking: Blocking,
    ) -> Self {
        // Per baby its input and key.
        let mut named: Vec<(usize, Option<usize>)> = Vec::new();
        let terms = plan.outputs.iter().flatten().flat_map(|g| &g.terms);
        for baby in terms.map(|t| (t.input, t.baby)) {
            if !named.contains(&baby) {
                named.push(baby);
            }
        }
        named.sort_unstable();
        // Inputs are cut into digits once for each partition that keys have (usually one).
        let mut cut: Vec<(usize, &'a CpuKey)> = Vec::new();
        let mut babies = Vec::with_capacity(named.len());
        for &(input, key) in &named {
            let turn = key.map(|k| {
                let key: &'a CpuKey = plan.keys[k];
                let known = cut
                    .iter()
                    .position(|(i, k)| *i == input && k.digits == key.digits);
                let source = known.unwrap_or(cut.len());
                if known.is_none() {
                    cut.push((input, key));
                }
                (key, source)
            });
            let c = inputs[input];
            babies.push(Baby { c, turn });
        }
        let giants = plan.outputs.iter().flatten();
        let most = giants.map(|g| g.terms.len()).max().unwrap_or(0);
        let (batch, block) = blocking.of(babies.len(), most, cpu.chain.n());
        let mut sums = Vec::new();
        for (output, giants) in plan.outputs.iter().enumerate() {
            for giant in giants {
                let mut terms = vec![Vec::new(); babies.len().div_ceil(batch)];
                for t in &giant.terms {
                    let baby = named.binary_search(&(t.input, t.baby)).unwrap_or(0);
                    let plain: &'a CpuPlain = plan.plains[t.plain];
                    terms[baby / batch].push((baby % batch, plain));
                }
                let key: Option<&'a CpuKey> = giant.key.map(|k| plan.keys[k]);
                sums.push(Sum {
                    output,
                    key,
                    turned: giant.terms.iter().any(|t| t.baby.is_some()),
                    terms,
                    targets: key.map_or(Vec::new(), |k| k.permutation.block_targets(block)),
                });
            }
        }
        Self {
            basis,
            special,
            babies,
            batch,
            sums,
            sources: cut
                .iter()
                .map(|(i, key)| cpu.decompose(inputs[*i].1, key))
                .collect(),
            block,
        }
    }

    /// Converted digits per prime.
    fn digits(&self) -> usize {
        self.sources.iter().map(|s| s.digits.len()).sum()
    }

    /// Zeros for the sums.
    fn zeros(&self, cpu: &Cpu, outputs: usize) -> Result<Sums> {
        let all = self.basis.union(self.special);
        let zero = || RnsPoly::zero(&cpu.chain, all, Form::Ntt);
        let giants = self.sums.iter().map(|sum| {
            let on = if sum.exact() { self.basis } else { all };
            sum.key.map(|_| RnsPoly::dirty(&cpu.chain, on, Form::Ntt))
        });
        Ok(Sums {
            outputs: (0..outputs)
                .map(|_| Ok((zero()?, zero()?)))
                .collect::<Result<_>>()?,
            giants: giants.collect(),
        })
    }
}

impl Cpu {
    pub(super) fn transform(
        &self,
        inputs: &[PairRef<'_, RnsPoly>],
        plan: &TransformPlan<'_, Self>,
        drop: Basis,
    ) -> Result<Vec<Pair<RnsPoly>>> {
        self.transform_in_blocks(inputs, plan, drop, Blocking::default())
    }

    fn transform_in_blocks(
        &self,
        inputs: &[PairRef<'_, RnsPoly>],
        plan: &TransformPlan<'_, Self>,
        drop: Basis,
        blocking: Blocking,
    ) -> Result<Vec<Pair<RnsPoly>>> {
        let (basis, special) = self.check_transform(inputs, plan, drop)?;
        let work = Work::new(self, inputs, plan, (basis, special), blocking);
        let mut sums = work.zeros(self, plan.outputs.len())?;
        self.all_sums(&work, &mut sums);
        let Work { sums: giants, .. } = work;
        // ModDown of the second halves.
        let switched: Vec<Option<(RnsPoly, &CpuKey, usize)>> = giants
            .iter()
            .zip(sums.giants)
            .map(|(giant, sum)| {
                let (key, sum) = (giant.key?, sum?);
                let exact = giant.exact() || special.is_empty();
                let y = if exact {
                    sum
                } else {
                    self.rescale(&sum, special, Basis::empty())
                };
                Some((y, key, giant.output))
            })
            .collect();
        let shape = Shape {
            basis,
            special,
            drop,
        };
        sums.outputs
            .into_iter()
            .enumerate()
            .map(|(o, sum)| {
                let mine = switched.iter().flatten().filter(|s| s.2 == o);
                let polys: Vec<(&RnsPoly, &CpuKey)> = mine.map(|s| (&s.0, s.1)).collect();
                // Without a giant step of rotation 0 the second half of the sum is zero.
                let second = giants.iter().any(|g| g.output == o && g.key.is_none());
                self.finish(sum, second, &polys, shape)
            })
            .collect()
    }

    /// The last division of one output, after the key switches of its giant steps.
    fn finish(
        &self,
        (sum0, sum1): Pair<RnsPoly>,
        second: bool,
        polys: &[(&RnsPoly, &CpuKey)],
        shape: Shape,
    ) -> Result<Pair<RnsPoly>> {
        let divisor = shape.special.union(shape.drop);
        if !polys.is_empty() {
            let job = Job {
                add_inside: [None, None],
                add_before: [None, None],
                start: [Some(&sum0), second.then_some(&sum1)],
                terms: polys.iter().enumerate().map(|(i, p)| (i, p.1)).collect(),
            };
            let mut results = self.run(polys, &[job], shape);
            return results.pop().ok_or(RingError::Empty { op: OP });
        }
        if divisor.is_empty() {
            return Ok((sum0, sum1));
        }
        let divide = |sum: &RnsPoly| self.rescale(sum, divisor, Basis::empty());
        Ok((divide(&sum0), divide(&sum1)))
    }

    /// The rules of the operation; the inputs' basis and P.
    fn check_transform(
        &self,
        inputs: &[PairRef<'_, RnsPoly>],
        plan: &TransformPlan<'_, Self>,
        drop: Basis,
    ) -> Result<(Basis, Basis)> {
        check_plan(inputs.len(), plan)?;
        let Some((first, _)) = inputs.first() else {
            return Err(RingError::Empty { op: OP });
        };
        let basis = first.basis();
        self.chain.check_same(OP, first.chain())?;
        first.require_form(OP, Form::Ntt)?;
        for (c0, c1) in inputs {
            first.require_like(OP, c0)?;
            first.require_like(OP, c1)?;
        }
        let mut keys = used_keys(plan).map(|k| plan.keys[k]).peekable();
        let special = keys.peek().map_or(Basis::empty(), |k| k.special);
        for key in keys {
            key.check_covers(OP, basis, special)?;
        }
        for term in plan.outputs.iter().flatten().flat_map(|g| &g.terms) {
            let needed = match term.baby {
                Some(_) => basis.union(special),
                None => basis,
            };
            let found = plan.plains[term.plain].basis;
            if !found.contains_all(needed) {
                return Err(RingError::BasisMismatch {
                    op: OP,
                    expected: needed,
                    found,
                });
            }
        }
        check_drop(OP, basis, drop)?;
        Ok((basis, special))
    }

    /// The sums of all giant steps, some primes at a time.
    fn all_sums(&self, work: &Work<'_>, sums: &mut Sums) {
        let n = self.chain.n();
        let (digits, stride) = (work.digits(), digit_stride(n));
        let group = group_size(n, digits, 2);
        let mut scratch = Scratch {
            digits: Buffer::dirty(group * digits * stride),
            babies: Buffer::dirty(work.batch * 2 * work.block),
            temp: Buffer::dirty(2 * work.block),
        };
        // Nothing stands modulo P where nothing is rotated.
        let primes = if work.sources.is_empty() {
            work.basis
        } else {
            work.basis.union(work.special)
        };
        for primes in groups(primes, group) {
            let mut first = 0;
            for source in &work.sources {
                for (d, (own, scaled)) in source.digits.iter().enumerate() {
                    let at = (first + d) * stride;
                    let mut outs: Vec<(usize, &mut [u64])> = primes
                        .iter()
                        .zip(scratch.digits.chunks_exact_mut(digits * stride))
                        .filter(|(j, _)| !own.contains(**j))
                        .map(|(&j, space)| (j, &mut space[at..at + n]))
                        .collect();
                    self.convert(scaled, &mut outs, true);
                }
                first += source.digits.len();
            }
            for (g, &prime) in primes.iter().enumerate() {
                let digits = g * digits * stride;
                self.finish_digits(work, prime, &mut scratch.digits[digits..]);
                for number in 0..n / work.block {
                    let place = Place {
                        prime,
                        digits,
                        number,
                    };
                    self.block_sums(work, place, &mut scratch, sums);
                }
            }
        }
    }

    /// The last stages of the NTT of all digits at one prime.
    fn finish_digits(&self, work: &Work<'_>, prime: usize, space: &mut [u64]) {
        let n = self.chain.n();
        let block = n.min(1 << LOW_LOG);
        let table = self.chain.table(prime);
        let digits = work.sources.iter().flat_map(|s| &s.digits);
        for ((own, _), limb) in digits.zip(space.chunks_mut(digit_stride(n))) {
            if own.contains(prime) {
                continue;
            }
            let mut left = &mut limb[..n];
            let mut b = 0;
            while !left.is_empty() {
                let (now, rest) = left.split_at_mut(block);
                let ahead = rest.get(..block).unwrap_or(&[]);
                self.kernels.forward_low(table, now, b, &[ahead]);
                left = rest;
                b += 1;
            }
        }
    }

    /// All products of one block.
    fn block_sums(&self, work: &Work<'_>, place: Place, scratch: &mut Scratch, sums: &mut Sums) {
        let blocks = 2 * work.block;
        for (batch, babies) in work.babies.chunks(work.batch).enumerate() {
            for (slot, baby) in babies.iter().enumerate() {
                let out = &mut scratch.babies[slot * blocks..(slot + 1) * blocks];
                match baby.turn {
                    None => self.lift_block(work, baby, place, out),
                    Some((key, source)) => {
                        let next = babies.get(slot + 1).and_then(|b| b.turn);
                        let next = next.map_or(&[][..], |(key, _)| {
                            key_block(work, key, place).map_or(&[], |b| b.1)
                        });
                        let digits = &scratch.digits[place.digits..];
                        let turn = Turning {
                            c0: baby.c.0,
                            key,
                            source,
                            digits,
                            ahead: next,
                        };
                        self.turn_block(work, &turn, place, (out, &mut scratch.temp));
                    }
                }
            }
            for number in 0..work.sums.len() {
                let from = (batch, number);
                self.add_products(work, from, place, (scratch, sums));
            }
        }
    }

    /// A block of `P c`, as far as it is not zero.
    fn lift_block(&self, work: &Work<'_>, baby: &Baby<'_>, place: Place, out: &mut [u64]) {
        let m = self.chain.modulus(place.prime);
        let p = m.shoup(self.chain.product_mod(work.special, place.prime));
        let (out0, out1) = out.split_at_mut(work.block);
        for (out, c) in [(out0, baby.c.0), (out1, baby.c.1)] {
            if let Some(x) = c.limb_of(place.prime) {
                let x = &x[place.words(work.block)];
                self.kernels.mul_const(m, out, x, p);
            }
        }
    }

    /// A block of a rotated input.
    fn turn_block(
        &self,
        work: &Work<'_>,
        turn: &Turning<'_>,
        place: Place,
        (out, temp): (&mut [u64], &mut [u64]),
    ) {
        let (n, stride) = (self.chain.n(), digit_stride(self.chain.n()));
        let m = self.chain.modulus(place.prime);
        let (from, piece) = turn.key.permutation.piece_for(place.number, work.block);
        let range = from * work.block..(from + 1) * work.block;
        let Some((_, words)) = key_block(work, turn.key, place) else {
            return;
        };
        let source = &work.sources[turn.source];
        let before = work.sources[..turn.source].iter();
        let first: usize = before.map(|s| s.digits.len()).sum();
        let limbs = turn.digits.chunks(stride).skip(first);
        let digits: Vec<&[u64]> = source
            .digits
            .iter()
            .zip(limbs)
            .map(|((own, _), limb)| match source.poly.limb_of(place.prime) {
                Some(x) if own.contains(place.prime) => &x[range.clone()],
                _ => &limb[..n][range.clone()],
            })
            .collect();
        let rows = KeyRows {
            words,
            rows: 2 * turn.key.digits.len(),
            first: &source.rows,
            digits: &digits,
            ahead: turn.ahead,
        };
        let c0 = turn.c0.limb_of(place.prime);
        let extra = Extra {
            x: [c0.and_then(|x| x.get(range)), None],
            factor: m.to_mont(self.chain.product_mod(work.special, place.prime)),
        };
        let (temp0, temp1) = temp.split_at_mut(work.block);
        self.kernels.inner_product(m, temp0, temp1, &rows, &extra);
        let (out0, out1) = out.split_at_mut(work.block);
        self.kernels.permute(out0, temp0, &piece);
        self.kernels.permute(out1, temp1, &piece);
    }

    /// Adds the products of one giant step with one batch of babies, in one block.
    fn add_products(
        &self,
        work: &Work<'_>,
        (batch, number): (usize, usize),
        place: Place,
        (scratch, sums): (&mut Scratch, &mut Sums),
    ) {
        let n = self.chain.n();
        let m = self.chain.modulus(place.prime);
        let sum = &work.sums[number];
        let range = place.words(work.block);
        let terms = &sum.terms[batch];
        // What is not rotated is a multiple of P.
        let inside = work.basis.contains(place.prime);
        let babies = &work.babies[batch * work.batch..];
        let terms: Vec<_> = terms
            .iter()
            .filter(|(slot, _)| inside || babies[*slot].turn.is_some())
            .collect();
        let written: Vec<Vec<u64>> = terms
            .iter()
            .map(
                |(_, plain)| match plain.block(place.prime, range.clone(), n) {
                    Some(_) => Vec::new(),
                    None => plain.written(place.prime, range.clone(), n),
                },
            )
            .collect();
        // The plaintexts of the next sum, or of this one's next block.
        let following = work.sums.get(number + 1).unwrap_or(&work.sums[0]);
        let later = if number + 1 < work.sums.len() {
            range.clone()
        } else {
            range.end..range.end + work.block
        };
        let next = |i: usize| {
            let plain = following.terms[batch].get(i)?.1;
            plain.block(place.prime, later.clone(), n)
        };
        let products: Vec<Product<'_>> = terms
            .iter()
            .zip(&written)
            .enumerate()
            .map(|(i, ((slot, plain), written))| {
                let at = 2 * slot * work.block;
                let (x0, x1) = scratch.babies[at..at + 2 * work.block].split_at(work.block);
                let plainly = babies[*slot].c.1.limb_of(place.prime);
                let x1 = match plainly {
                    Some(x) if sum.exact() => &x[range.clone()],
                    _ => x1,
                };
                Product {
                    x: [x0, x1],
                    y: plain
                        .block(place.prime, range.clone(), n)
                        .unwrap_or(written),
                    ahead: next(i).unwrap_or(&[]),
                }
            })
            .collect();
        let begun = sum.terms[..batch].iter().any(|t| !t.is_empty());
        let (outputs, giant) = (&mut sums.outputs[sum.output], &mut sums.giants[number]);
        let Some(key) = sum.key else {
            let (Some(out0), Some(out1)) = (
                outputs.0.limb_of_mut(place.prime),
                outputs.1.limb_of_mut(place.prime),
            ) else {
                return;
            };
            for products in products.chunks(MOST_PRODUCTS) {
                let (out0, out1) = (&mut out0[range.clone()], &mut out1[range.clone()]);
                self.kernels.sum_products(m, out0, out1, products, false);
            }
            return;
        };
        let (Some(out0), Some(giant)) = (
            outputs.0.limb_of_mut(place.prime),
            giant.as_mut().and_then(|g| g.limb_of_mut(place.prime)),
        ) else {
            return;
        };
        let out1 = &mut giant[range];
        let target = sum.targets[place.number];
        let piece = key.permutation.piece_for(target, work.block).1;
        let out0 = &mut out0[target * work.block..(target + 1) * work.block];
        if products.is_empty() && !begun {
            out1.fill(0);
        }
        for (i, products) in products.chunks(MOST_PRODUCTS).enumerate() {
            let temp = &mut scratch.temp[..2 * work.block];
            let (temp0, temp1) = temp.split_at_mut(work.block);
            if begun || i > 0 {
                self.kernels.sum_products(m, temp0, temp1, products, true);
                self.kernels.add(m, out1, temp1);
            } else {
                self.kernels.sum_products(m, temp0, out1, products, true);
            }
            self.kernels.permute_acc(m, out0, temp0, &piece);
        }
    }
}

/// What makes a block of a rotated input.
struct Turning<'a> {
    c0: &'a RnsPoly,
    key: &'a CpuKey,
    /// Number of the decomposition.
    source: usize,
    /// Digits of all inputs at this prime.
    digits: &'a [u64],
    /// Words to fetch into the cache meanwhile.
    ahead: &'a [u64],
}

/// The block that a rotation reads for a block of its result, and the key's words there.
fn key_block<'k>(work: &Work<'_>, key: &'k CpuKey, place: Place) -> Option<(usize, &'k [u64])> {
    let (from, _) = key.permutation.piece_for(place.number, work.block);
    let words = 2 * key.digits.len() * work.block;
    let row = key.row_of(place.prime)?;
    Some((from, row.get(from * words..(from + 1) * words)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::backend::{Backend, DiagonalTerm, GiantStep};
    use crate::conformance::{Samples, test_chain};
    use crate::{CpuConfig, GaloisElement, Isa, PlainPoly};

    /// The conformance suite looks at rings that are smaller than a block: a limb in one block,
    /// which it has seen, against many blocks.
    #[test]
    fn results_do_not_depend_on_blocks() {
        let log_n = 13;
        let chain = test_chain(log_n, 4, 2).unwrap();
        let digits = [Basis::range(0, 2), Basis::range(2, 4)];
        let (q, special) = (Basis::range(0, 4), Basis::range(4, 6));
        for isa in Isa::available() {
            let cpu = Cpu::new(chain.clone(), CpuConfig { isa }).unwrap();
            let mut samples = Samples::new(&chain, 3);
            let mut keys = Vec::new();
            for by in [1, -5, 700, 2000] {
                let g = GaloisElement::rotation(by, log_n);
                let key = samples.key(g, &digits, special).unwrap();
                keys.push(cpu.prepare_key(&key).unwrap());
            }
            let all = chain.all();
            let mut plains = vec![PlainPoly::Dense(samples.poly(all, Form::Ntt).unwrap())];
            for period in [1 << 4, 1 << 10] {
                plains.push(PlainPoly::Periodic {
                    period,
                    basis: all,
                    values: samples.residues(all, period),
                });
            }
            let plains: Vec<CpuPlain> = plains
                .iter()
                .map(|p| cpu.prepare_plain(p).unwrap())
                .collect();
            let step = |key: Option<usize>, terms: usize| GiantStep {
                key,
                terms: (0..terms)
                    .map(|i| DiagonalTerm {
                        input: i % 2,
                        baby: [None, Some(0), Some(1), Some(2)][(i / 2) % 4],
                        plain: i % 3,
                    })
                    .collect(),
            };
            let plan: TransformPlan<'_, Cpu> = TransformPlan {
                keys: keys.iter().collect(),
                plains: plains.iter().collect(),
                outputs: vec![vec![step(None, 5), step(Some(3), 8), step(Some(1), 2)]],
            };
            let c: Vec<RnsPoly> = (0..4)
                .map(|_| samples.poly(q, Form::Ntt).unwrap())
                .collect();
            let inputs = [(&c[0], &c[1]), (&c[2], &c[3])];
            let run = |batch: usize, block: usize| {
                let blocking = Blocking {
                    batch,
                    words: 2 * batch * block,
                    longest: 1 << log_n,
                };
                cpu.transform_in_blocks(&inputs, &plan, Basis::single(3), blocking)
                    .unwrap()
            };
            let whole = run(8, 1 << log_n);
            for (batch, block) in [(8, 1 << 12), (8, 1 << 7), (3, 1 << 9), (1, 1 << 6)] {
                assert!(run(batch, block) == whole, "{isa:?}, {batch}, {block}");
            }
        }
    }
}
