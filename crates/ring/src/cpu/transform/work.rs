//! What a transform has to do, sorted, and how it is cut into blocks.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::backend::{DiagonalTerm, OutputPlan, PairRef, TransformPlan};
use crate::basis::Basis;
use crate::buffer::Buffer;
use crate::cpu::engine::{Decomposed, Shape};
use crate::cpu::key_switch::cut_alike;
use crate::cpu::{Cpu, CpuKey, CpuPlain};
use crate::kernels::{ABREAST, LINE, LOW_LOG, Packed, Values};
use crate::poly::RnsPoly;

/// The shortest block.
const MIN_BLOCK: usize = 64;

/// Most sums of a group whose plaintexts are long, where others have `ABREAST`: while they are read, so
/// many words of the next ones are fetched.
const LONG_ABREAST: usize = 1;

/// Most sums of a group that multiply different babies: blocks of these are then read once for all.
pub(super) const SPARSE_ABREAST: usize = 3 * ABREAST;

/// The shortest run of equal words that kernels multiply by one value: their longest vector.
const SHORTEST_RUN: usize = 8;

/// An input as terms multiply it: what is not rotated times P, unless all goes without.
pub(super) struct Baby<'a> {
    pub(super) c: PairRef<'a, RnsPoly>,
    /// The key of its rotation and the number of its decomposition, if it is rotated.
    pub(super) turn: Option<(&'a CpuKey, usize)>,
}

impl<'a> Baby<'a> {
    /// A block of both halves of the input, as far as they are not zero.
    pub(super) fn blocks(&self, place: Place, block: usize) -> [Option<&'a [u64]>; 2] {
        let words = place.words(block);
        let (c0, c1) = self.c;
        [c0, c1].map(|c| c.limb_of(place.prime)?.get(words.clone()))
    }
}

/// Where the two halves of a sum go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// Both to the output.
    Output,
    /// The first, under the automorphism, to the output; the second to a polynomial of its own.
    Turned,
    /// Both to polynomials of their own: a nested giant step.
    Own,
}

/// The sum of one giant step of one output.
pub(super) struct Sum<'a> {
    pub(super) output: usize,
    pub(super) key: Option<&'a CpuKey>,
    pub(super) target: Target,
    /// Whether any term is rotated: the sum is then a multiple of P only up to its rounding.
    pub(super) turned: bool,
    /// Whether a nested giant step follows: its key switch goes on from this sum.
    pub(super) continued: bool,
    /// Per batch of babies: number of the baby in it, and its factor.
    pub(super) terms: Vec<Vec<(usize, &'a CpuPlain)>>,
    /// Per block that is read the block that the automorphism brings it to.
    pub(super) targets: Vec<usize>,
}

impl Sum<'_> {
    /// Whether the second half stays without the factor P: it is then exact on the inputs' basis
    /// alone, and needs no ModDown before its key switch.
    pub(super) fn exact(&self) -> bool {
        match self.target {
            Target::Output => false,
            Target::Turned => !self.turned,
            Target::Own => !self.turned && !self.continued,
        }
    }

    /// Whether it has no term.
    pub(super) fn is_empty(&self) -> bool {
        self.terms.iter().all(Vec::is_empty)
    }

    /// Whether kernels read plaintexts of it word by word.
    fn is_long(&self, n: usize) -> bool {
        let mut terms = self.terms.iter().flatten();
        terms.any(|(_, plain)| is_long(plain, n))
    }
}

/// Whether kernels read a plaintext word by word.
fn is_long(plain: &CpuPlain, n: usize) -> bool {
    plain.period() * SHORTEST_RUN > n
}

/// A plan in the order in which it is computed.
pub(super) struct Work<'a> {
    pub(super) basis: Basis,
    pub(super) special: Basis,
    pub(super) babies: Vec<Baby<'a>>,
    /// Babies of a batch.
    pub(super) batch: usize,
    pub(super) sums: Vec<Sum<'a>>,
    /// Per batch the sums in groups.
    pub(super) groups: Vec<Vec<Group<'a>>>,
    pub(super) sources: Vec<Decomposed<'a>>,
    /// Whether what is converted of them goes past the caches.
    pub(super) past: bool,
    /// Words of a block.
    pub(super) block: usize,
    /// Whether nothing is rotated before it is multiplied: what sums leave to outputs then comes without
    /// the factor P, modulo the inputs' primes alone, and gets it where the key switches are added.
    pub(super) plain: bool,
}

/// How the work is cut; results do not depend on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocking {
    /// Most inputs, as they are multiplied, of which blocks are held at a time.
    pub(super) batch: usize,
    /// The same if plaintexts are long: more of them are more than the processor reads at once, and make blocks
    /// so short that each is read page by page.
    pub(super) long_batch: usize,
    /// Words that these blocks and those of plaintexts may take together.
    pub(super) words: usize,
    /// The longest block; in any case at most a row, since in scratch rows lie apart.
    pub(super) longest: usize,
}

impl Default for Blocking {
    fn default() -> Self {
        Self {
            batch: 32,
            long_batch: 8,
            // Three quarters of the second level of cache: blocks of 2048 words for 16 babies and periodic
            // plaintexts, and for 8 and long ones.
            words: 3 << 15,
            longest: 1 << LOW_LOG,
        }
    }
}

impl Blocking {
    /// Babies of a batch and words of a block, a power of two of at least eight, for so many
    /// babies and so many terms with long plaintexts in the largest sum. Those of one group of sums are
    /// fetched while the group before is computed: both have to leave room for one another, and for the babies.
    pub(super) fn of(self, babies: usize, terms: usize, n: usize) -> (usize, usize) {
        let most = match terms {
            0 => self.batch,
            _ => self.batch.min(self.long_batch),
        };
        let batch = babies.clamp(1, most.max(1));
        let streams = 2 * batch + 2 * LONG_ABREAST * terms.min(batch);
        let longest = self.longest.clamp(MIN_BLOCK, 1 << LOW_LOG);
        let block = (self.words / streams).clamp(MIN_BLOCK, longest);
        (batch, (1 << block.ilog2()).min(n))
    }
}

/// Scratch of one thread.
pub(super) struct Scratch {
    /// Per prime of a group the converted digits of all inputs.
    pub(super) digits: Buffer,
    /// Per baby of a batch two blocks.
    pub(super) babies: Buffer,
    /// Per sum of a group a block.
    pub(super) temp: Buffer,
}

/// A block of one prime.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) prime: usize,
    /// Where the prime's digits begin in the scratch.
    pub(super) digits: usize,
    /// Number of the block.
    pub(super) number: usize,
}

impl Place {
    /// The block behind it.
    pub(super) fn next(self) -> Self {
        let number = self.number + 1;
        Self { number, ..self }
    }

    pub(super) fn words(self, block: usize) -> Range<usize> {
        self.number * block..(self.number + 1) * block
    }
}

/// A limb of a plaintext.
#[derive(Clone, Copy)]
pub(super) struct Limb<'a>(Values<'a>);

impl<'a> Limb<'a> {
    fn new(plain: Option<&'a CpuPlain>, prime: usize) -> Self {
        Self(plain.map_or(Values::Zero, |plain| plain.values_of(prime)))
    }

    /// What stands for `range` (a power of two of the limb's n words, aligned).
    fn block(&self, cpu: &Cpu, prime: usize, range: &Range<usize>) -> Block<'a> {
        let n = cpu.chain.n();
        match self.0 {
            Values::Zero => Block::Read(Values::Zero),
            Values::Packed(row) => {
                let m = cpu.chain.modulus(prime);
                Block::Read(Values::Packed(row.columns(m, range.clone())))
            }
            Values::Runs(words) => {
                // Both are powers of two.
                let run = n.trailing_zeros() - words.len().trailing_zeros();
                let runs = range.start >> run..((range.end - 1) >> run) + 1;
                let words = words.get(runs).unwrap_or(&[]);
                match 1 << run {
                    2..SHORTEST_RUN => {
                        let mut out = vec![0; range.len()];
                        cpu.kernels.spread(&mut out, words);
                        Block::Made(out)
                    }
                    _ => Block::Read(Values::Runs(words)),
                }
            }
        }
    }
}

/// What sums multiply by in a block.
pub(super) enum Block<'a> {
    /// Values of a plaintext.
    Read(Values<'a>),
    /// Values of a plaintext whose runs are too short for kernels, one for every word.
    Made(Vec<u64>),
}

impl Block<'_> {
    /// The values.
    pub(super) fn values(&self) -> Values<'_> {
        match self {
            Block::Read(values) => *values,
            Block::Made(words) => Values::Runs(words),
        }
    }

    /// The words of memory to fetch.
    pub(super) fn words(&self) -> &[u64] {
        match self {
            Block::Read(Values::Runs(words) | Values::Packed(Packed { words })) => words,
            _ => &[],
        }
    }
}

/// Sums that are made at once.
pub(super) struct Group<'a> {
    /// Their numbers, ascending.
    pub(super) sums: Vec<usize>,
    /// Babies of the batch that any of them multiplies.
    slots: Vec<usize>,
    /// Per sum what it multiplies each of these by.
    factors: Vec<Vec<Option<&'a CpuPlain>>>,
}

impl<'a> Group<'a> {
    fn new(all: &[Sum<'a>], sums: Vec<usize>, batch: usize) -> Self {
        let terms = |sum: &usize| &all[*sum].terms[batch][..];
        let mut left: Vec<&[(usize, &'a CpuPlain)]> = sums.iter().map(terms).collect();
        let (mut slots, mut factors) = (Vec::new(), vec![Vec::new(); sums.len()]);
        // Terms are sorted by their babies.
        while let Some(slot) = left.iter().filter_map(|terms| Some(terms.first()?.0)).min() {
            slots.push(slot);
            for (terms, factors) in left.iter_mut().zip(&mut factors) {
                factors.push(match terms.split_first() {
                    Some((&(baby, plain), rest)) if baby == slot => {
                        *terms = rest;
                        Some(plain)
                    }
                    _ => None,
                });
            }
        }
        Self {
            sums,
            slots,
            factors,
        }
    }

    /// Sums that go to places of the same kind, beside one another those that multiply the same babies.
    fn all(sums: &[Sum<'a>], batch: usize, n: usize) -> Vec<Self> {
        let kind = |sum: &Sum<'_>| (sum.target, sum.exact(), sum.is_empty(), sum.is_long(n));
        let babies = |sum: &Sum<'_>| -> Vec<usize> {
            sum.terms[batch].iter().map(|(slot, _)| *slot).collect()
        };
        let mut order: Vec<_> = (0..sums.len())
            .map(|number| (kind(&sums[number]), babies(&sums[number]), number))
            .collect();
        order.sort();
        let mut groups = Vec::new();
        let mut put = |run: &[&(_, _, usize)], (target, abreast): (Target, usize)| {
            let mut group: Vec<usize> = Vec::new();
            for &&(.., number) in run {
                // A group writes to an output once.
                let same = |other: &usize| {
                    target == Target::Output && sums[*other].output == sums[number].output
                };
                if group.len() == abreast || group.iter().any(same) {
                    groups.push(std::mem::take(&mut group));
                }
                group.push(number);
            }
            if !group.is_empty() {
                groups.push(group);
            }
        };
        for run in order.chunk_by(|a, b| a.0 == b.0) {
            let (target, .., long) = run[0].0;
            let abreast = if long { LONG_ABREAST } else { ABREAST };
            // Those that multiply the same babies are best among themselves.
            let mut rest = Vec::new();
            for alike in run.chunk_by(|a, b| a.1 == b.1) {
                let alike: Vec<_> = alike.iter().collect();
                let (whole, left) = alike.split_at(alike.len() / abreast * abreast);
                put(whole, (target, abreast));
                rest.extend_from_slice(left);
            }
            let abreast = match !long && is_sparse(&rest) {
                true => SPARSE_ABREAST,
                false => abreast,
            };
            put(&rest, (target, abreast));
        }
        groups.iter_mut().for_each(|group| group.sort_unstable());
        let groups = groups.into_iter();
        groups.map(|group| Self::new(sums, group, batch)).collect()
    }
}

/// Whether an eighth of the products of some sums with all babies that any of them multiplies are none of theirs.
fn is_sparse<K>(run: &[&(K, Vec<usize>, usize)]) -> bool {
    let all: BTreeSet<usize> = run.iter().flat_map(|r| &r.1).copied().collect();
    let terms: usize = run.iter().map(|r| r.1.len()).sum();
    8 * terms <= 7 * run.len() * all.len()
}

impl<'a> Work<'a> {
    /// Sorts a checked plan.
    pub(super) fn new(
        cpu: &Cpu,
        inputs: &[PairRef<'a, RnsPoly>],
        plan: &TransformPlan<'a, Cpu>,
        (basis, special): (Basis, Basis),
        blocking: Blocking,
    ) -> Self {
        // Per baby its input and key.
        let mut named: Vec<(usize, Option<usize>)> = Vec::new();
        let giants = || plan.outputs.iter().flat_map(|o| &o.giants);
        let terms = giants().flat_map(|g| &g.terms);
        for baby in terms.map(|t| (t.input, t.baby)) {
            if !named.contains(&baby) {
                named.push(baby);
            }
        }
        named.sort_unstable();
        // Inputs are cut into digits once for each way in which keys cut them (usually one).
        let mut cut: Vec<(usize, &'a CpuKey)> = Vec::new();
        let mut babies = Vec::with_capacity(named.len());
        for &(input, key) in &named {
            let turn = key.map(|k| {
                let key: &'a CpuKey = plan.keys[k];
                let known = cut
                    .iter()
                    .position(|(i, k)| *i == input && cut_alike(&k.digits, &key.digits, basis));
                let source = known.unwrap_or(cut.len());
                if known.is_none() {
                    cut.push((input, key));
                }
                (key, source)
            });
            let c = inputs[input];
            babies.push(Baby { c, turn });
        }
        let n = cpu.chain.n();
        let long = |t: &&DiagonalTerm| is_long(plan.plains[t.plain], n);
        let most = giants().map(|g| g.terms.iter().filter(long).count()).max();
        let (batch, block) = blocking.of(babies.len(), most.unwrap_or(0), n);
        let mut sums = Vec::new();
        for (output, OutputPlan { giants, nested }) in plan.outputs.iter().enumerate() {
            for (number, giant) in giants.iter().enumerate() {
                let mut terms = vec![Vec::new(); babies.len().div_ceil(batch)];
                for t in &giant.terms {
                    let baby = named.binary_search(&(t.input, t.baby)).unwrap_or(0);
                    let plain: &'a CpuPlain = plan.plains[t.plain];
                    terms[baby / batch].push((baby % batch, plain));
                }
                // Groups put the same babies of their sums together.
                terms
                    .iter_mut()
                    .for_each(|t| t.sort_by_key(|(slot, _)| *slot));
                let key: Option<&'a CpuKey> = giant.key.map(|k| plan.keys[k]);
                let target = match key {
                    None => Target::Output,
                    Some(_) if *nested => Target::Own,
                    Some(_) => Target::Turned,
                };
                let turning = key.filter(|_| target == Target::Turned);
                sums.push(Sum {
                    output,
                    key,
                    target,
                    continued: *nested && number + 1 < giants.len(),
                    turned: giant.terms.iter().any(|t| t.baby.is_some()),
                    terms,
                    targets: turning.map_or(Vec::new(), |k| k.permutation.block_targets(block)),
                });
            }
        }
        let nested = plan.outputs.iter().any(|output| output.nested);
        let plain = cut.is_empty() && !nested;
        let cut = cut.iter().map(|(i, key)| (inputs[*i].1, &key.digits[..]));
        let shape = Shape {
            basis,
            special,
            drop: Basis::empty(),
        };
        let past = cpu.floods(cut.clone().map(|c| c.1), plan.outputs.len(), shape);
        let batches = babies.len().div_ceil(batch);
        let groups = (0..batches)
            .map(|batch| Group::all(&sums, batch, n))
            .collect();
        Self {
            plain,
            basis,
            special,
            babies,
            batch,
            sums,
            groups,
            sources: cpu.decompose(cut, past),
            past,
            block,
        }
    }

    /// The baby of that number at a block and, where there is none, the first one at the next block.
    pub(super) fn baby_at(
        &self,
        number: usize,
        place: Place,
        n: usize,
    ) -> Option<(&Baby<'a>, Place)> {
        match self.babies.get(number) {
            Some(baby) => Some((baby, place)),
            None if place.words(self.block).end < n => Some((self.babies.first()?, place.next())),
            None => None,
        }
    }

    /// The babies of a group at one prime, by their places in it: what is not rotated is a multiple of P.
    fn places<'g>(
        &'g self,
        (batch, group): (usize, &'g Group<'a>),
        prime: usize,
    ) -> impl Iterator<Item = (usize, usize)> + 'g {
        let inside = self.basis.contains(prime);
        let babies = &self.babies[batch * self.batch..];
        let slots = group.slots.iter().copied().enumerate();
        slots.filter(move |(_, slot)| inside || babies[*slot].turn.is_some())
    }

    /// The babies of a group at one prime.
    pub(super) fn slots<'g>(
        &'g self,
        group: (usize, &'g Group<'a>),
        prime: usize,
    ) -> impl Iterator<Item = usize> + 'g {
        self.places(group, prime).map(|(_, slot)| slot)
    }

    /// Per batch and group what each sum multiplies each of its babies by at one prime.
    pub(super) fn limbs(&self, prime: usize) -> Vec<Vec<Vec<Limb<'a>>>> {
        let limbs = |batch: usize, group: &Group<'a>| {
            let places = || self.places((batch, group), prime);
            let mut limbs = Vec::with_capacity(group.factors.len() * group.slots.len());
            for factors in &group.factors {
                limbs.extend(places().map(|(at, _)| Limb::new(factors[at], prime)));
            }
            limbs
        };
        let batches = self.groups.iter().enumerate();
        batches
            .map(|(batch, groups)| groups.iter().map(|group| limbs(batch, group)).collect())
            .collect()
    }

    /// The same in a block.
    pub(super) fn factors(&self, cpu: &Cpu, limbs: &[Limb<'a>], place: Place) -> Vec<Block<'a>> {
        let words = place.words(self.block);
        let blocks = limbs
            .iter()
            .map(|limb| limb.block(cpu, place.prime, &words));
        blocks.collect()
    }

    /// Words from one baby's blocks to the next one's: a line more for each of the two, so that equal
    /// places of all do not fall into the same sets of the caches.
    pub(super) fn pair(&self) -> usize {
        2 * (self.block + LINE)
    }

    /// The two blocks of the baby whose words begin here.
    pub(super) fn halves<'s>(&self, words: &'s [u64]) -> (&'s [u64], &'s [u64]) {
        let (first, second) = words.split_at(self.block + LINE);
        (&first[..self.block], &second[..self.block])
    }

    /// The same to be written.
    pub(super) fn halves_mut<'s>(&self, words: &'s mut [u64]) -> (&'s mut [u64], &'s mut [u64]) {
        let (first, second) = words.split_at_mut(self.block + LINE);
        (&mut first[..self.block], &mut second[..self.block])
    }

    /// Converted digits per prime.
    pub(super) fn digits(&self) -> usize {
        self.sources.iter().map(|s| s.digits.len()).sum()
    }
}
