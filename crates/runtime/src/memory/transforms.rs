//! The scripts of linear transforms: `cpu::transform` of the ring.

use std::collections::BTreeSet;

use veilformer_ckks::{Giant, Transform, moves};
use veilformer_ir::ciphertext::PlainId;
use veilformer_ring::Basis;
use veilformer_ring::grouping::{digit_stride, group_count, group_size};

use super::ROTATION;
use super::operations::Shape;
use super::script::{Poly, Value, Writer};

/// As in the ring: most inputs of which blocks are held at a time, words that these may take together,
/// and of one block.
const BATCH: usize = 32;
const BATCH_WORDS: usize = 3 << 15;
const BLOCK: (usize, usize) = (64, 1 << 12);

/// A giant step and the halves of its sum that have polynomials of their own.
struct Step {
    /// Whether its sum is rotated.
    keyed: bool,
    /// Whether any of its inputs is.
    turned: bool,
    empty: bool,
    /// Whether the key switch of a nested one goes on from it.
    continued: bool,
    halves: [Option<Poly>; 2],
}

impl Step {
    fn new(giant: &Giant<PlainId>, slots: usize) -> Self {
        Self {
            keyed: moves(giant.rotation, slots),
            turned: giant.terms.iter().any(|t| moves(t.baby, slots)),
            empty: giant.terms.is_empty(),
            continued: false,
            halves: [None; 2],
        }
    }

    /// Those of a map, as the evaluator puts them together.
    fn all(giants: &[Giant<PlainId>], nested: bool, slots: usize) -> Vec<Self> {
        let mut steps: Vec<Self> = Vec::with_capacity(giants.len());
        for step in giants.iter().map(|giant| Self::new(giant, slots)) {
            match steps.last_mut() {
                _ if step.empty && !nested => {}
                Some(around) if nested && !step.keyed => {
                    around.turned |= step.turned;
                    around.empty &= step.empty;
                }
                _ => steps.push(step),
            }
        }
        if nested {
            let innermost = steps.iter().rposition(|step| !step.empty);
            steps.truncate(innermost.map_or(0, |last| last + 1));
            let around = steps.len().saturating_sub(1);
            let around = steps.iter_mut().take(around);
            around.for_each(|step| step.continued = true);
        }
        steps
    }
}

/// What all steps of an operation share.
struct Frame {
    shape: Shape,
    /// The primes of the level and of P.
    all: Basis,
    /// Whether nothing is rotated before it is multiplied.
    plain: bool,
}

impl Writer<'_> {
    pub(super) fn transforms(
        &mut self,
        inputs: &[Value],
        (transforms, nested): (&[Transform<PlainId>], bool),
        slots: usize,
    ) -> Vec<Value> {
        let level = inputs.first().map_or(0, |input| input.level);
        self.fused(level, |writer, drop| {
            let shape = writer.shape(ROTATION, level, drop);
            writer.all_transforms(shape, (transforms, nested), slots)
        })
    }

    fn all_transforms(
        &mut self,
        shape: Shape,
        (transforms, nested): (&[Transform<PlainId>], bool),
        slots: usize,
    ) -> Vec<[Poly; 2]> {
        let giants = || transforms.iter().flat_map(|t| &t.giants);
        let turn = |step: i64| moves(step, slots).then(|| step.rem_euclid(slots.max(1) as i64));
        let terms = giants().flat_map(|giant| &giant.terms);
        let babies: BTreeSet<_> = terms.clone().map(|t| (t.input, turn(t.baby))).collect();
        let cut = babies.iter().filter(|baby| baby.1.is_some());
        let cut = cut.map(|baby| baby.0).collect::<BTreeSet<_>>().len();
        let keyed = cut > 0 || giants().any(|giant| turn(giant.rotation).is_some());
        let special = if keyed { shape.special } else { Basis::empty() };
        let frame = Frame {
            all: shape.basis.union(special),
            plain: cut == 0 && !nested,
            shape: Shape { special, ..shape },
        };
        let sources = self.scaled(&frame.shape.digits.repeat(cut));
        let outputs_on = if frame.plain {
            frame.shape.basis
        } else {
            frame.all
        };
        let sums = transforms.iter().map(|_| self.take_pair(outputs_on.len()));
        let sums: Vec<[Poly; 2]> = sums.collect();
        let steps = transforms.iter().map(|transform| {
            let mut steps = Step::all(&transform.giants, nested, slots);
            for step in &mut steps {
                self.room(step, &frame, nested);
            }
            steps
        });
        let steps: Vec<Vec<Step>> = steps.collect();
        let digits = cut * frame.shape.digits.len();
        let primes = if cut > 0 {
            frame.all
        } else {
            frame.shape.basis
        };
        let work = digits + babies.len() + terms.count() / 8;
        self.sums((primes.len(), digits, work), babies.len());
        let results = sums.into_iter().zip(steps).map(|(sum, steps)| {
            let (sum, divisor) = match nested {
                true => self.nested(steps, sum, &frame),
                false if frame.plain => self.behind(steps, sum, &frame),
                false => self.beside(steps, sum, &frame),
            };
            if divisor.is_empty() {
                return sum;
            }
            let from = frame.shape.basis.union(divisor);
            let divided = self.rescaled(2, from, (divisor, Basis::empty()));
            self.give(sum);
            match divided[..] {
                [first, second] => [first, second],
                _ => sum,
            }
        });
        let results = results.collect();
        self.give(sources);
        results
    }

    /// Room for the sum of a step.
    fn room(&mut self, step: &mut Step, frame: &Frame, nested: bool) {
        if !step.keyed || nested && step.empty {
            return;
        }
        let all = step.turned || step.continued;
        let on = if all { frame.all } else { frame.shape.basis };
        step.halves = match nested {
            true => [Some(self.take(on.len())), Some(self.take(on.len()))],
            false => [None, Some(self.take(on.len()))],
        };
    }

    /// Scratch while the sums of all steps are made, at so many primes with so many digits; `work` is
    /// what a prime takes, in NTTs.
    fn sums(&mut self, (primes, digits, work): (usize, usize, usize), babies: usize) {
        let n = self.n();
        let threads = self.threads_for(primes * work).min(primes.max(1));
        let size = group_size(n, digits, 2, threads);
        let longest = primes.div_ceil(group_count(primes, size, threads).max(1));
        let batch = babies.clamp(1, BATCH);
        // Those of plaintexts without a period are shorter.
        let block = (BATCH_WORDS / (2 * batch)).clamp(BLOCK.0, BLOCK.1);
        let block = (1 << block.ilog2()).min(n);
        let words = [
            longest * digits * digit_stride(n),
            2 * batch * block,
            4 * block,
        ];
        self.scratch(threads, &words);
    }

    /// The second half of a sum without the factor P.
    fn without_p(&mut self, half: Poly, exact: bool, frame: &Frame) -> Poly {
        if exact || frame.shape.special.is_empty() {
            return half;
        }
        let divisor = (frame.shape.special, Basis::empty());
        let divided = self.rescaled(1, frame.all, divisor);
        self.give([half]);
        divided.first().copied().unwrap_or(half)
    }

    /// Key switches of so many polynomials, added to sums.
    fn accumulated(&mut self, polys: usize, frame: &Frame) {
        let digits = &frame.shape.digits;
        let cut = self.scaled(&digits.repeat(polys));
        let counts = (polys * digits.len(), digits.len());
        self.columns(frame.all.len(), counts, (1, false, false));
        self.give(cut);
    }

    fn beside(&mut self, steps: Vec<Step>, sum: [Poly; 2], frame: &Frame) -> ([Poly; 2], Basis) {
        let halves = steps.into_iter().filter_map(|step| {
            let half = step.halves[1]?;
            Some(self.without_p(half, !step.turned, frame))
        });
        let switched: Vec<Poly> = halves.collect();
        if !switched.is_empty() {
            self.accumulated(switched.len(), frame);
        }
        self.give(switched);
        (sum, frame.shape.special.union(frame.shape.drop))
    }

    fn behind(&mut self, steps: Vec<Step>, sum: [Poly; 2], frame: &Frame) -> ([Poly; 2], Basis) {
        let halves: Vec<Poly> = steps.iter().filter_map(|step| step.halves[1]).collect();
        if halves.is_empty() {
            return (sum, frame.shape.drop);
        }
        let whole = self.take_pair(frame.all.len());
        self.accumulated(halves.len(), frame);
        self.give(sum.into_iter().chain(halves));
        (whole, frame.shape.special.union(frame.shape.drop))
    }

    fn nested(&mut self, steps: Vec<Step>, sum: [Poly; 2], frame: &Frame) -> ([Poly; 2], Basis) {
        let mut steps = steps.into_iter().rev().peekable();
        let mut inner: Option<[Poly; 2]> = None;
        while let Some(step) = steps.next() {
            let own = match step.halves {
                [Some(first), Some(second)] => Some([first, second]),
                _ => None,
            };
            let Some([half0, half1]) = inner.take().or(own).filter(|_| step.keyed) else {
                break;
            };
            let half1 = self.without_p(half1, !step.turned && !step.continued, frame);
            if let Some(around) = steps.peek_mut().filter(|around| around.keyed) {
                inner = Some(match around.halves {
                    [Some(first), Some(second)] => [first, second],
                    _ => self.take_pair(frame.all.len()),
                });
                around.halves = [None; 2];
            }
            self.accumulated(1, frame);
            self.give([half1, half0]);
        }
        (sum, frame.shape.special.union(frame.shape.drop))
    }
}
