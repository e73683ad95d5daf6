//! The scripts of operations: what the evaluator and the CPU backend do with buffers.
//!
//! Sizes and order are those of `cpu::engine` and `cpu::convert` of the ring, by the same rules of how
//! primes are grouped.

use veilformer_ckks::{KeyPurpose, LevelStep, Lowering, lowering, moves};
use veilformer_ir::ciphertext::{CiphertextProgram, Operation};
use veilformer_ring::Basis;
use veilformer_ring::grouping::{digit_stride, group_count, group_size, scratch_words};

use super::script::{Poly, Value, Writer};

/// Rotations of one ciphertext that are switched at a time.
const JOBS: usize = 8;
/// As in the ring's rescale: primes to which a rest is converted at a time, and words of a result from
/// which on it comes by way of scratch.
const GROUP: usize = 8;
const PAST: usize = 1 << 20;
/// Words of two blocks.
const BLOCKS: usize = 2 << 12;

/// The primes of a key switch.
#[derive(Clone)]
pub(super) struct Shape {
    pub(super) basis: Basis,
    pub(super) special: Basis,
    pub(super) drop: Basis,
    /// Primes of the digits that the basis meets.
    pub(super) digits: Vec<usize>,
}

impl Writer<'_> {
    /// What `operation` of `program` does on its operands.
    pub(crate) fn operation(
        &mut self,
        program: &CiphertextProgram,
        operation: &Operation,
        operands: &[Value],
    ) -> Vec<Value> {
        let Some(&first) = operands.first() else {
            return self.input(program, operation);
        };
        let level = first.level;
        match operation {
            // The second half is the operand's.
            Operation::AddPlain(..) => {
                let half = self.take(first.halves[0].limbs);
                let halves = [half, self.share(first.halves[1])];
                vec![Value { level, halves }]
            }
            Operation::Rescale(_) => {
                let halves = self.divided(first.halves, level);
                vec![Value {
                    level: level.saturating_sub(1),
                    halves,
                }]
            }
            Operation::MulSum(_) => vec![self.mul_sum(first)],
            Operation::RotateMany { steps, .. } => self.rotations(first, steps, program.slots),
            Operation::RotateSum { .. } => self.rotated(first, super::ROTATION, 1),
            Operation::Conjugate(_) => self.rotated(first, KeyPurpose::Conjugation, 1),
            Operation::DropTo { level, .. } => vec![self.drop_to(first, *level)],
            Operation::Adjust { level, .. } => vec![self.adjust(first, *level)],
            Operation::LinearTransform { transforms, .. } => {
                self.transforms(operands, (transforms, false), program.slots)
            }
            Operation::NestedTransform { transform, .. } => {
                let transforms = std::slice::from_ref(transform);
                self.transforms(operands, (transforms, true), program.slots)
            }
            Operation::ModRaise(_) => vec![self.mod_raise(first)],
            // Bootstraps are made of others, see `super::bootstraps`.
            Operation::Bootstrap { .. } | Operation::Input { .. } => Vec::new(),
            Operation::Add(..)
            | Operation::Sub(..)
            | Operation::Negate(_)
            | Operation::MulPlain(..) => vec![self.like(first)],
        }
    }

    /// A ciphertext of the file that is taken over.
    fn input(&mut self, program: &CiphertextProgram, operation: &Operation) -> Vec<Value> {
        let Operation::Input { index } = operation else {
            return Vec::new();
        };
        let level = program.inputs.get(*index).map_or(0, |input| input.level);
        let halves = self.take_pair(self.params.basis_at(level).len());
        vec![Value { level, halves }]
    }

    /// Another ciphertext of the same size.
    pub(super) fn like(&mut self, value: Value) -> Value {
        let halves = value.halves.map(|half| self.take(half.limbs));
        Value { halves, ..value }
    }

    /// The same ciphertext once more.
    fn shared(&mut self, value: Value) -> Value {
        let halves = value.halves.map(|half| self.share(half));
        Value { halves, ..value }
    }

    /// The primes of a switch at a level.
    pub(super) fn shape(&self, purpose: KeyPurpose, level: usize, drop: Basis) -> Shape {
        let basis = match purpose {
            KeyPurpose::FromEphemeral => self.params.basis_at(self.params.max_level()),
            _ => self.params.basis_at(level),
        };
        // A program whose keys have no shape is refused before it is planned.
        let (digits, special) = match purpose.shape(self.params, level) {
            Ok(shape) => (shape.digits, shape.special),
            Err(_) => (Vec::new(), Basis::empty()),
        };
        let met = digits.iter().map(|digit| digit.intersect(basis).len());
        Shape {
            basis,
            special,
            drop,
            digits: met.filter(|primes| *primes > 0).collect(),
        }
    }

    /// Scaled residues of polynomials of so many limbs each.
    pub(super) fn scaled(&mut self, limbs: &[usize]) -> Vec<Poly> {
        let scaled = limbs.iter().map(|limbs| self.take(*limbs)).collect();
        let threads = self.threads_for(limbs.iter().sum());
        self.scratch(threads, &[scratch_words(self.n())]);
        scaled
    }

    /// `round(x prod(add) / prod(drop))` of polynomials on `basis`.
    pub(super) fn rescaled(
        &mut self,
        count: usize,
        basis: Basis,
        (drop, add): (Basis, Basis),
    ) -> Vec<Poly> {
        let to = basis.minus(drop).union(add).len();
        let scaled = self.scaled(&vec![drop.len(); count]);
        let outs: Vec<Poly> = (0..count).map(|_| self.take(to)).collect();
        let limbs = count * to;
        let threads = self.threads_for(limbs);
        let words = if drop.len() == 1 && add.is_empty() {
            self.n()
        } else if add.is_empty() && limbs.saturating_mul(self.n()) >= PAST {
            let size = if drop.len() > 1 { GROUP * count } else { count };
            let groups = limbs.div_ceil(size.max(1)).next_multiple_of(threads);
            limbs.div_ceil(groups.max(1)) * self.n()
        } else {
            0
        };
        self.scratch(threads, &[words]);
        self.give(scaled);
        outs
    }

    /// The rescale of a pair of a level, which stays.
    fn divided(&mut self, pair: [Poly; 2], level: usize) -> [Poly; 2] {
        let (basis, LevelStep { drop, add }) =
            (self.params.basis_at(level), self.params.step_at(level));
        if add.is_empty() {
            return two(&self.rescaled(2, basis, (drop, add)), pair);
        }
        let halves = pair.map(|_| self.rescaled(1, basis, (drop, add)));
        two(&halves.concat(), pair)
    }

    /// An operation that ends in a rescale, of ciphertexts of a level: `run` divides by the primes that
    /// it is given as well.
    pub(super) fn fused(
        &mut self,
        level: usize,
        run: impl FnOnce(&mut Self, Basis) -> Vec<[Poly; 2]>,
    ) -> Vec<Value> {
        let step = self.params.step_at(level);
        let lower = level.saturating_sub(1);
        let value = |halves| Value {
            level: lower,
            halves,
        };
        if step.add.is_empty() {
            return run(self, step.drop).into_iter().map(value).collect();
        }
        let undivided = run(self, Basis::empty());
        let divided = undivided.into_iter().map(|pair| {
            let halves = self.divided(pair, level);
            self.give(pair);
            value(halves)
        });
        divided.collect()
    }

    /// Scratch of the engine at so many primes, for sources of `digits` digits and the most of one.
    pub(super) fn columns(
        &mut self,
        primes: usize,
        (digits, most): (usize, usize),
        (jobs, divided, whole): (usize, bool, bool),
    ) {
        let (n, most, down) = (self.n(), most.max(1), 2 * usize::from(divided));
        let ntts = digits + (down + 2) * jobs;
        let threads = self.threads_for(primes * ntts).min(primes.max(1));
        let size = group_size(n, most, down, threads);
        let longest = primes.div_ceil(group_count(primes, size, threads).max(1));
        let whole = 2 * scratch_words(n) * usize::from(whole);
        let words = [longest * most * digit_stride(n), BLOCKS.min(2 * n), whole];
        self.scratch(threads, &words);
    }

    /// Key switches of one polynomial, cut into digits already, by `jobs` keys.
    pub(super) fn switched(&mut self, shape: &Shape, jobs: usize) -> Vec<[Poly; 2]> {
        let divisor = shape.special.union(shape.drop).len();
        let keep = shape.basis.minus(shape.drop).len();
        let digits = (shape.digits.len(), shape.digits.len());
        let sums: Vec<Poly> = (0..2 * jobs).map(|_| self.take(divisor)).collect();
        self.columns(divisor, digits, (jobs, false, true));
        let results: Vec<_> = (0..jobs).map(|_| self.take_pair(keep)).collect();
        self.columns(keep, digits, (jobs, true, false));
        self.give(sums);
        results
    }

    /// Both parts under so many keys of one kind.
    fn rotated(&mut self, value: Value, purpose: KeyPurpose, keys: usize) -> Vec<Value> {
        let level = value.level;
        let shape = self.shape(purpose, level, Basis::empty());
        let mut results = Vec::with_capacity(keys);
        let mut left = keys;
        while left > 0 {
            let jobs = left.min(JOBS);
            let digits = self.scaled(&shape.digits);
            results.extend(self.switched(&shape, jobs));
            self.give(digits);
            left -= jobs;
        }
        let value = |halves| Value { level, halves };
        results.into_iter().map(value).collect()
    }

    fn rotations(&mut self, value: Value, steps: &[i64], slots: usize) -> Vec<Value> {
        let period = slots.max(1) as i64;
        let turn = |step: &i64| moves(*step, slots).then(|| step.rem_euclid(period));
        let mut turns: Vec<i64> = steps.iter().filter_map(turn).collect();
        turns.sort_unstable();
        turns.dedup();
        let rotated = self.rotated(value, super::ROTATION, turns.len());
        let result = |step: &i64| {
            let found = turn(step).and_then(|turn| turns.binary_search(&turn).ok());
            let found = found.and_then(|at| rotated.get(at).copied());
            let found = found.unwrap_or(value);
            self.shared(found)
        };
        let results = steps.iter().map(result).collect();
        self.give(rotated.iter().flat_map(|value| value.halves));
        results
    }

    fn mul_sum(&mut self, first: Value) -> Value {
        let purpose = KeyPurpose::Relinearization;
        let made = self.fused(first.level, |writer, drop| {
            let shape = writer.shape(purpose, first.level, drop);
            let third = writer.take(shape.basis.len());
            let digits = writer.scaled(&shape.digits);
            let results = writer.switched(&shape, 1);
            writer.give(digits.into_iter().chain([third]));
            results
        });
        made.first().copied().unwrap_or(first)
    }

    /// One polynomial on the primes of a lower level, or on the way there.
    fn lowered(&mut self, poly: Poly, from: Basis, way: &Lowering) -> Poly {
        let restricted = self.restricted(poly, (from, way.keep));
        if way.step.add.is_empty() {
            return restricted;
        }
        let restricted = self.written(restricted);
        let out = self.rescaled(1, way.keep, (way.step.drop, way.step.add));
        self.give([restricted]);
        out.first().copied().unwrap_or(poly)
    }

    fn drop_to(&mut self, value: Value, level: usize) -> Value {
        // What refuses is refused before it is planned.
        let way = lowering(self.params, value.level, level.min(value.level));
        let Some(way) = way.ok().filter(|_| level < value.level) else {
            return self.shared(value);
        };
        let from = self.params.basis_at(value.level);
        let halves = value.halves.map(|half| self.lowered(half, from, &way));
        Value { level, halves }
    }

    pub(super) fn adjust(&mut self, value: Value, level: usize) -> Value {
        let way = lowering(self.params, value.level, (level + 1).min(value.level));
        let Some(way) = way.ok().filter(|_| level < value.level) else {
            return self.shared(value);
        };
        let from = self.params.basis_at(value.level);
        let scaled = value.halves.map(|half| {
            let lowered = self.lowered(half, from, &way);
            self.written(lowered)
        });
        let halves = self.divided(scaled, level + 1);
        self.give(scaled);
        Value { level, halves }
    }

    fn mod_raise(&mut self, value: Value) -> Value {
        let to = self.rotated(value, KeyPurpose::ToEphemeral, 1);
        let Some(&low) = to.first() else {
            return value;
        };
        let top = self.params.max_level();
        let shape = self.shape(KeyPurpose::FromEphemeral, top, Basis::empty());
        // The first half in coefficient form, and on all primes; the second is converted where it meets
        // the key, as one digit.
        let limbs = low.halves[0].limbs;
        let coefficients = self.take(limbs);
        let lifted = self.take(shape.basis.len());
        self.give([coefficients]);
        let digits = self.scaled(&[limbs]);
        let one = Shape {
            digits: vec![limbs],
            ..shape
        };
        let results = self.switched(&one, 1);
        self.give(digits.into_iter().chain([lifted]).chain(low.halves));
        Value {
            level: top,
            halves: results.first().copied().unwrap_or(value.halves),
        }
    }
}

/// Two polynomials of a list.
fn two(list: &[Poly], otherwise: [Poly; 2]) -> [Poly; 2] {
    match list {
        [first, second, ..] => [*first, *second],
        _ => otherwise,
    }
}
