//! Doubly hoisted linear transforms: `Backend::linear_transform` prime by prime.
//!
//! Each input is cut into digits once. At one prime of Q + P all its digits are converted; then,
//! for a few hundred words at a time, every rotated input is made (inner product with its key, and
//! the permutation) and at once multiplied with all plaintexts that it meets, for several sums in one
//! pass over the inputs, as in a product of matrices. What is written to memory are the sums of the
//! giant steps alone. Where no input is rotated all this is done modulo the inputs' primes, without
//! P. The giant steps' key switches go on from there in the engine, with one ModDown and the rescale in
//! it.

mod babies;
mod sums;
mod work;

#[cfg(test)]
mod tests;

use std::iter::repeat;

use babies::{Turning, key_block};
use sums::{Column, Sums};
use work::{Block, Blocking, Group, Limb, Place, SPARSE_ABREAST, Scratch, Sum, Target, Work};

use super::convert::Left;
use super::engine::{Added, Onto, Shape};
use super::grouping::{digit_stride, group_count, group_size, scratch_words};
use super::parallel::{even_runs, share, threads_for};
use super::{Cpu, CpuKey};
use crate::backend::{Pair, PairRef, TransformPlan, check_plan, used_keys};
use crate::basis::Basis;
use crate::buffer::Buffer;
use crate::error::{Result, RingError};
use crate::kernels::{Factor, Layout, MOST_PRODUCTS};
use crate::poly::{Form, RnsPoly};
use crate::reference::check_drop;

const OP: &str = "linear_transform";

/// A giant step and those halves of its sum that have polynomials of their own.
type Giant<'a> = (Sum<'a>, [Option<RnsPoly>; 2]);

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
        let plain = work.plain;
        let mut sums = work.room(self, plan.outputs.len())?;
        self.all_sums(&work, &mut sums);
        let shape = Shape {
            basis,
            special,
            drop,
        };
        let Work { sums: giants, .. } = work;
        let mut giants = giants.into_iter().zip(sums.giants).peekable();
        let divisor = special.union(drop);
        let mut results = Vec::with_capacity(plan.outputs.len());
        for (o, (output, mut sum)) in plan.outputs.iter().zip(sums.outputs).enumerate() {
            let mut mine = Vec::with_capacity(output.giants.len());
            while let Some(giant) = giants.next_if(|(giant, _)| giant.output == o) {
                mine.push(giant);
            }
            let mut divisor = divisor;
            match output.nested {
                true => self.nested(mine, &mut sum, shape)?,
                false if plain => divisor = self.behind(mine, &mut sum, shape),
                false => self.beside(mine, &mut sum, shape),
            }
            results.push(match divisor.is_empty() {
                true => sum,
                false => self.rescale_pair((&sum.0, &sum.1), divisor)?,
            });
        }
        Ok(results)
    }

    /// Adds the key switches of giant steps to what their sums left to the output.
    fn beside(&self, giants: Vec<Giant<'_>>, sum: &mut Pair<RnsPoly>, shape: Shape) {
        let switched: Vec<(RnsPoly, &CpuKey)> = giants
            .into_iter()
            .filter_map(|(giant, [_, half])| {
                let y = self.switched_half(half?, giant.exact(), shape.special)?;
                Some((y, giant.key?))
            })
            .collect();
        if !switched.is_empty() {
            let polys: Vec<(&RnsPoly, &CpuKey)> = switched.iter().map(|s| (&s.0, s.1)).collect();
            self.accumulate(&polys, Onto::Sums(Added::Pair([None, None])), sum, shape);
        }
    }

    /// The same where what the sums left lacks the factor P; what is to be divided by.
    fn behind(&self, giants: Vec<Giant<'_>>, sum: &mut Pair<RnsPoly>, shape: Shape) -> Basis {
        let polys: Vec<(&RnsPoly, &CpuKey)> = giants
            .iter()
            .filter_map(|(giant, [_, half])| Some((half.as_ref()?, giant.key?)))
            .collect();
        if polys.is_empty() {
            return shape.drop;
        }
        let all = shape.basis.union(shape.special);
        let whole = || RnsPoly::dirty(&self.chain, all, Form::Ntt);
        let left = std::mem::replace(sum, (whole(), whole()));
        self.accumulate(&polys, Onto::Times([&left.0, &left.1]), sum, shape);
        shape.special.union(shape.drop)
    }

    /// Adds nested giant steps to what the first sum left to the output if it has no key: from the
    /// last to the first, each on top of the sum of the one around it.
    fn nested(&self, giants: Vec<Giant<'_>>, sum: &mut Pair<RnsPoly>, shape: Shape) -> Result<()> {
        let mut steps = giants.into_iter().rev().peekable();
        let mut inner: Option<Pair<RnsPoly>> = None;
        while let Some((giant, [half0, half1])) = steps.next() {
            let Some(key) = giant.key else {
                break;
            };
            let (half0, half1) = match (inner.take(), half0, half1) {
                (Some(sum), ..) => sum,
                (None, Some(half0), Some(half1)) => (half0, half1),
                _ => return Err(RingError::Empty { op: OP }),
            };
            let y = self.switched_half(half1, giant.exact(), shape.special);
            let y = y.ok_or(RingError::Empty { op: OP })?;
            let polys = [(&y, key)];
            match steps.peek_mut() {
                Some((around, halves)) if around.key.is_some() => {
                    let all = shape.basis.union(shape.special);
                    let zero = || RnsPoly::zero(&self.chain, all, Form::Ntt);
                    let mut around = match std::mem::take(halves) {
                        [Some(around0), Some(around1)] => (around0, around1),
                        _ => (zero()?, zero()?),
                    };
                    let onto = Onto::Sums(Added::Whole(&half0));
                    self.accumulate(&polys, onto, &mut around, shape);
                    inner = Some(around);
                }
                _ => self.accumulate(&polys, Onto::Sums(Added::Whole(&half0)), sum, shape),
            }
        }
        Ok(())
    }

    /// The second half of a sum as a key switch takes it: without the factor P.
    fn switched_half(&self, half: RnsPoly, exact: bool, special: Basis) -> Option<RnsPoly> {
        if exact || special.is_empty() {
            return Some(half);
        }
        self.rescale(&[&half], special, Basis::empty()).pop()
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
        for term in plan
            .outputs
            .iter()
            .flat_map(|o| &o.giants)
            .flat_map(|g| &g.terms)
        {
            let needed = match term.baby {
                Some(_) => basis.union(special),
                None => basis,
            };
            let found = plan.plains[term.plain].basis();
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
        // Nothing stands modulo P where nothing is rotated.
        let primes = if work.sources.is_empty() {
            work.basis
        } else {
            work.basis.union(work.special)
        };
        let columns = sums.columns(primes);
        // Eight products take about the time of an NTT.
        let products: usize = work.sums.iter().flat_map(|s| &s.terms).map(Vec::len).sum();
        let threads = threads_for(columns.len() * n * (digits + work.babies.len() + products / 8));
        let threads = threads.min(columns.len().max(1));
        let size = group_size(n, digits, 2, threads);
        let groups = even_runs(columns, group_count(primes.len(), size, threads));
        let longest = groups.iter().map(Vec::len).max().unwrap_or(0);
        let scratch = || Scratch {
            digits: Buffer::dirty(longest * digits * stride),
            babies: Buffer::dirty(work.batch * work.pair()),
            temp: Buffer::dirty(SPARSE_ABREAST * work.block),
        };
        share(threads, groups, scratch, |scratch, mut columns| {
            self.group_sums(work, &mut columns, scratch);
        });
    }

    /// The sums of all giant steps at a group of primes.
    fn group_sums(&self, work: &Work<'_>, columns: &mut [Column<'_>], scratch: &mut Scratch) {
        let n = self.chain.n();
        let (digits, stride) = (work.digits(), digit_stride(n));
        let mut first = 0;
        for source in &work.sources {
            for (d, (own, scaled)) in source.digits.iter().enumerate() {
                let at = (first + d) * stride;
                let mut outs: Vec<(usize, &mut [u64])> = columns
                    .iter()
                    .zip(scratch.digits.chunks_exact_mut(digits * stride))
                    .filter(|(column, _)| !own.contains(column.prime))
                    .map(|(column, space)| (column.prime, &mut space[at..][..scratch_words(n)]))
                    .collect();
                self.convert(scaled, &mut outs, Left::Begun { past: work.past });
            }
            first += source.digits.len();
        }
        for (g, column) in columns.iter_mut().enumerate() {
            let digits = g * digits * stride;
            self.finish_digits(work, column.prime, &mut scratch.digits[digits..]);
            let limbs = work.limbs(column.prime);
            for number in 0..n / work.block {
                let place = Place {
                    prime: column.prime,
                    digits,
                    number,
                };
                self.block_sums((work, &limbs), place, scratch, column);
            }
        }
    }

    /// The last stages of the NTT of all digits at one prime.
    fn finish_digits(&self, work: &Work<'_>, prime: usize, space: &mut [u64]) {
        let n = self.chain.n();
        let layout = Layout::apart(n);
        let table = self.chain.table(prime);
        let digits = work.sources.iter().flat_map(|s| &s.digits);
        for ((own, _), limb) in digits.zip(space.chunks_mut(digit_stride(n))) {
            if own.contains(prime) {
                continue;
            }
            let mut left = &mut limb[..layout.words()];
            let mut b = 0;
            while !left.is_empty() {
                let (now, rest) = left.split_at_mut(layout.pitch);
                let ahead = rest.get(..layout.width).unwrap_or(&[]);
                let now = &mut now[..layout.width];
                self.kernels.forward_digits(table, now, b, ahead);
                left = rest;
                b += 1;
            }
        }
    }

    /// All products of one block.
    fn block_sums(
        &self,
        (work, limbs): (&Work<'_>, &[Vec<Vec<Limb<'_>>>]),
        place: Place,
        scratch: &mut Scratch,
        sums: &mut Column<'_>,
    ) {
        let (n, blocks) = (self.chain.n(), work.pair());
        let m = self.chain.modulus(place.prime);
        for (batch, babies) in work.babies.chunks(work.batch).enumerate() {
            for (slot, baby) in babies.iter().enumerate() {
                let out = &mut scratch.babies[slot * blocks..(slot + 1) * blocks];
                match baby.turn {
                    None if work.plain => {
                        let next = work.baby_at(batch * work.batch + slot + 1, place, n);
                        self.copy_block(work, (baby, place), next, out);
                    }
                    None => self.lift_block(work, baby, place, out),
                    Some((key, source)) => {
                        let next = babies.get(slot + 1).and_then(|b| b.turn);
                        let next = next.map_or(&[][..], |(key, _)| {
                            key_block(m, work, key, place).map_or(&[], |b| b.1)
                        });
                        let digits = &scratch.digits[place.digits..];
                        let turn = Turning {
                            c0: baby.c.0,
                            key,
                            source,
                            digits,
                            ahead: next,
                        };
                        self.turn_block(work, &turn, place, out);
                    }
                }
            }
            let limbs = &limbs[batch];
            let mut factors = Vec::new();
            for (g, group) in work.groups[batch].iter().enumerate() {
                if g == 0 {
                    factors = work.factors(self, &limbs[0], place);
                }
                // Those of the next group, or of the first one's next block.
                let next = match limbs.get(g + 1) {
                    Some(next) => work.factors(self, next, place),
                    None if place.words(work.block).end < n => {
                        work.factors(self, &limbs[0], place.next())
                    }
                    None => Vec::new(),
                };
                let ahead = next.iter().map(Block::words).chain(repeat(&[][..]));
                let both = factors.iter().map(Block::values).zip(ahead);
                let factors_now: Vec<Factor<'_>> =
                    both.map(|(y, ahead)| Factor { y, ahead }).collect();
                self.add_products(work, (batch, group), place, &factors_now, (scratch, sums));
                factors = next;
            }
        }
    }

    /// Adds the products of a group of sums with one batch of babies, in one block.
    fn add_products(
        &self,
        work: &Work<'_>,
        (batch, group): (usize, &Group<'_>),
        place: Place,
        factors: &[Factor<'_>],
        (scratch, columns): (&mut Scratch, &mut Column<'_>),
    ) {
        let m = self.chain.modulus(place.prime);
        let range = place.words(work.block);
        let sums: Vec<&Sum<'_>> = group.sums.iter().map(|sum| &work.sums[*sum]).collect();
        let Some(first) = sums.first() else {
            return;
        };
        let babies = &work.babies[batch * work.batch..];
        let x: Vec<[&[u64]; 2]> = work
            .slots((batch, group), place.prime)
            .map(|slot| {
                let (x0, x1) = work.halves(&scratch.babies[slot * work.pair()..]);
                match babies[slot].c.1.limb_of(place.prime) {
                    Some(plainly) if first.exact() && !work.plain => [x0, &plainly[range.clone()]],
                    _ => [x0, x1],
                }
            })
            .collect();
        let temps = &mut scratch.temp;
        let mut made = columns.results((work, batch), &sums, place, (&group.sums, temps));
        if made.len() != sums.len() {
            return;
        }
        if x.is_empty() {
            let halves = made
                .into_iter()
                .flat_map(|sum| sum.out.into_iter().zip(sum.fresh));
            halves
                .filter(|(_, fresh)| *fresh)
                .for_each(|(out, _)| out.fill(0));
            return;
        }
        for (sum, factors) in made.iter_mut().zip(factors.chunks_exact(x.len())) {
            sum.factors = factors;
        }
        for x in x.chunks(MOST_PRODUCTS) {
            let rest: Vec<&[Factor<'_>]> = made
                .iter_mut()
                .map(|sum| {
                    let (now, rest) = sum.factors.split_at(x.len().min(sum.factors.len()));
                    sum.factors = now;
                    rest
                })
                .collect();
            self.kernels.sum_products(m, &mut made, x);
            for (sum, rest) in made.iter_mut().zip(rest) {
                sum.factors = rest;
                sum.fresh = [false; 2];
            }
        }
        if first.target == Target::Turned {
            for (sum, temp) in sums.iter().zip(scratch.temp.chunks_exact(work.block)) {
                let (Some(key), &target) = (sum.key, &sum.targets[place.number]) else {
                    continue;
                };
                let piece = key.permutation.piece_for(target, work.block).1;
                let [output0, _] = &mut columns.outputs[sum.output];
                let out0 = &mut output0[target * work.block..(target + 1) * work.block];
                self.kernels.permute_acc(m, out0, temp, &piece);
            }
        }
    }
}
