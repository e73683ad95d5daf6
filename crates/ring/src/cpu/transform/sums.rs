//! Where the sums of giant steps go.

use super::work::{Place, Sum, Target, Work};
use crate::backend::Pair;
use crate::basis::Basis;
use crate::cpu::Cpu;
use crate::error::Result;
use crate::kernels::ProductSum;
use crate::poly::{Form, RnsPoly};

/// What the sums are written to.
pub(super) struct Sums {
    /// Per output: what goes into the last division without a key switch, on the basis with P; on the
    /// inputs' basis where the work is `plain`.
    pub(super) outputs: Vec<Pair<RnsPoly>>,
    /// Per giant step the halves of its sum that have polynomials of their own.
    pub(super) giants: Vec<[Option<RnsPoly>; 2]>,
}

/// The limbs of two halves at one prime, where they are.
type Halves<'s> = [Option<&'s mut [u64]>; 2];

/// What the sums are written to at one prime.
pub(super) struct Column<'s> {
    pub(super) prime: usize,
    /// Per output its two limbs.
    pub(super) outputs: Vec<[&'s mut [u64]; 2]>,
    /// Per giant step those of its own.
    pub(super) giants: Vec<Halves<'s>>,
}

impl Sums {
    /// The sums taken apart by primes; every output has a limb at each of them.
    pub(super) fn columns(&mut self, primes: Basis) -> Vec<Column<'_>> {
        let mut columns: Vec<Column<'_>> = primes
            .iter()
            .map(|prime| Column {
                prime,
                outputs: Vec::with_capacity(self.outputs.len()),
                giants: Vec::with_capacity(self.giants.len()),
            })
            .collect();
        for (out0, out1) in &mut self.outputs {
            let both = out0.limbs_mut().zip(out1.limbs_mut());
            let both = both.filter(|((i, _), _)| primes.contains(*i));
            for (column, ((_, limb0), (_, limb1))) in columns.iter_mut().zip(both) {
                column.outputs.push([limb0, limb1]);
            }
        }
        for pair in &mut self.giants {
            for (column, halves) in columns.iter_mut().zip(halves(pair, primes)) {
                column.giants.push(halves);
            }
        }
        columns
    }
}

/// Per prime the limbs of two polynomials that are there.
fn halves(pair: &mut [Option<RnsPoly>; 2], primes: Basis) -> impl Iterator<Item = Halves<'_>> {
    let limbs = |poly: Option<_>| {
        let limbs = poly.into_iter().flat_map(RnsPoly::limbs_mut);
        limbs.filter(move |(i, _)| primes.contains(*i)).peekable()
    };
    let [half0, half1] = pair;
    let (mut limbs0, mut limbs1) = (limbs(half0.as_mut()), limbs(half1.as_mut()));
    primes.iter().map(move |prime| {
        let here = |limb: &(usize, &mut [u64])| limb.0 == prime;
        let halves = [limbs0.next_if(here), limbs1.next_if(here)];
        halves.map(|limb| limb.map(|(_, words)| words))
    })
}

impl Column<'_> {
    /// Where the products of some sums with a batch of babies go in a block, all of one kind and in their
    /// order, still without factors; a first half that is to be turned goes to `temp` first.
    pub(super) fn results<'s>(
        &'s mut self,
        (work, batch): (&Work<'_>, usize),
        sums: &[&Sum<'_>],
        place: Place,
        (numbers, temp): (&[usize], &'s mut [u64]),
    ) -> Vec<ProductSum<'s>> {
        let range = place.words(work.block);
        let begun = |sum: &Sum<'_>| sum.terms[..batch].iter().any(|t| !t.is_empty());
        let own = self.giants.iter_mut().enumerate();
        let own = own.filter(|(sum, _)| numbers.contains(sum));
        let own = own.map(|(_, halves)| halves);
        let outputs = &mut self.outputs;
        let result = |out, fresh, next| ProductSum {
            out,
            fresh,
            factors: &[],
            next,
        };
        match sums.first().map(|sum| sum.target) {
            None => Vec::new(),
            Some(Target::Own) => own
                .zip(sums)
                .filter_map(|(halves, sum)| {
                    let [Some(out0), Some(out1)] = halves else {
                        return None;
                    };
                    let out = [&mut out0[range.clone()], &mut out1[range.clone()]];
                    Some(result(out, [!begun(sum); 2], None))
                })
                .collect(),
            Some(Target::Turned) => own
                .zip(sums)
                .zip(temp.chunks_exact_mut(work.block))
                .filter_map(|((halves, sum), temp)| {
                    let out = [temp, &mut halves[1].as_mut()?[range.clone()]];
                    let target = sum.targets.get(place.number)? * work.block;
                    let [output0, _] = &outputs[sum.output];
                    let next = &output0[target..target + work.block];
                    Some(result(out, [true, !begun(sum)], Some(next)))
                })
                .collect(),
            Some(Target::Output) => {
                let wanted = |o: &usize| sums.iter().any(|sum| sum.output == *o);
                let outputs = outputs.iter_mut().enumerate();
                outputs
                    .filter(|(o, _)| wanted(o))
                    .map(|(_, halves)| {
                        let out = halves.each_mut().map(|out| &mut out[range.clone()]);
                        result(out, [false; 2], None)
                    })
                    .collect()
            }
        }
    }
}

impl Work<'_> {
    /// Room for the sums: zeros for those of outputs.
    pub(super) fn room(&self, cpu: &Cpu, outputs: usize) -> Result<Sums> {
        let all = self.basis.union(self.special);
        let outputs_on = if self.plain { self.basis } else { all };
        let zero = |on| RnsPoly::zero(&cpu.chain, on, Form::Ntt);
        let giants = self.sums.iter().map(|sum| {
            let on = if sum.turned { all } else { self.basis };
            let own = || Some(RnsPoly::dirty(&cpu.chain, on, Form::Ntt));
            Ok(match sum.target {
                Target::Output => [None, None],
                Target::Turned => [None, own()],
                Target::Own if sum.is_empty() => [None, None],
                // A key switch goes on from it modulo P, where nothing may be written to it.
                Target::Own if sum.continued && !sum.turned => [Some(zero(all)?), Some(zero(all)?)],
                Target::Own => [own(), own()],
            })
        });
        Ok(Sums {
            outputs: (0..outputs)
                .map(|_| Ok((zero(outputs_on)?, zero(outputs_on)?)))
                .collect::<Result<_>>()?,
            giants: giants.collect::<Result<_>>()?,
        })
    }
}
