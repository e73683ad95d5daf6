//! A model of the memory of a server on the CPU backend.
//!
//! Buffers that are let go wait in a pool for the next of their size: what a process holds in the end
//! is, for each size, the most that was in use at once, or what is in use and the most that waits.
//! (That the pool also gives a buffer to what is somewhat smaller only makes it less.)

use veilformer_ckks::{KeyList, KeyPurpose, Params};
use veilformer_ir::ciphertext::{CiphertextProgram, Operation, PlainPattern, ValueId};
use veilformer_ring::{CpuKey, Isa};

use crate::cost::encoded;
use crate::stats::{TransformCounts, ciphertext_memory, plain_words};

/// What a process has before it opens a bundle: code, stacks, allocator.
const PROCESS: u64 = 12 << 20;
/// As in the engine: words of buffers that primes may take together, words of the digits of two
/// primes up to which it takes two at a time, and otherwise at most.
const GROUP_WORDS: usize = 1 << 22;
const SMALL_WORDS: usize = 1 << 17;
const MAX_GROUP: usize = 8;
/// Rotations of one ciphertext that the engine does at a time.
const JOBS: usize = 8;
/// Largest amount that waits in the pool.
const POOL: u64 = 2 << 30;

/// The smallest buffer of the pool.
const SMALLEST_BUFFER: u64 = 512;
/// What an encoded plaintext has beside its residues.
const PLAIN: u64 = 160;

/// Scratch of one operation: ciphertexts by level, and everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scratch {
    /// Levels with the most bytes of ciphertexts at once.
    pub(crate) ciphertexts: Vec<(usize, u64)>,
    /// The most other bytes at once.
    pub(crate) other: u64,
    /// The most bytes of all together at once.
    pub(crate) most: u64,
}

impl Scratch {
    fn of(level: usize, ciphertexts: u64, other: u64) -> Self {
        Self {
            ciphertexts: vec![(level, ciphertexts)],
            other,
            most: ciphertexts + other,
        }
    }

    /// What the inside of a bootstrap needs, which runs one operation after the other: all its
    /// values, from where each is made to where it is read last.
    pub(crate) fn inside(circuit: &CiphertextProgram, params: &Params) -> Self {
        let mut last = vec![0; circuit.values.len()];
        for (index, instruction) in circuit.instructions.iter().enumerate() {
            for id in instruction.operation.operands() {
                if let Some(place) = last.get_mut(id.0 as usize) {
                    *place = index;
                }
            }
        }
        let mut levels = vec![(0u64, 0u64); params.max_level() + 1];
        let (mut other, mut live, mut most) = (0, 0, 0);
        for (index, instruction) in circuit.instructions.iter().enumerate() {
            let own = scratch(circuit, params, &instruction.operation);
            other = other.max(own.other);
            most = most.max(live + own.most);
            for (level, bytes) in own.ciphertexts {
                if let Some((now, top)) = levels.get_mut(level) {
                    *top = (*top).max(*now + bytes);
                }
            }
            let size = |id: &ValueId| {
                let level = circuit.info(*id).map_or(0, |v| v.level);
                (level, ciphertext_memory(params, level))
            };
            for (level, bytes) in instruction.results.iter().map(size) {
                live += bytes;
                if let Some((now, top)) = levels.get_mut(level) {
                    *now += bytes;
                    *top = (*top).max(*now);
                }
            }
            most = most.max(live);
            let mut done = instruction.operation.operands();
            done.sort_unstable();
            done.dedup();
            done.retain(|id| last.get(id.0 as usize) == Some(&index));
            for (level, bytes) in done.iter().map(size) {
                live = live.saturating_sub(bytes);
                if let Some((now, _)) = levels.get_mut(level) {
                    *now = now.saturating_sub(bytes);
                }
            }
        }
        let levels = levels.into_iter().enumerate();
        Self {
            ciphertexts: levels
                .map(|(level, l)| (level, l.1))
                .filter(|l| l.1 > 0)
                .collect(),
            other,
            most,
        }
    }
}

/// Any rotation: all have the same bands.
const ROTATION: KeyPurpose = KeyPurpose::Rotation(1);

/// Bytes of `limbs` limbs.
fn limbs_bytes(params: &Params, limbs: usize) -> u64 {
    8 * (params.n() * limbs) as u64
}

/// What an operation needs beside its operands and until its results are in place, results
/// included; for a bootstrap see [`Scratch::inside`].
pub(crate) fn scratch(
    program: &CiphertextProgram,
    params: &Params,
    operation: &Operation,
) -> Scratch {
    let level_of = |id: &ValueId| program.info(*id).map_or(0, |v| v.level);
    let level = operation.operands().first().map_or(0, level_of);
    let ct = ciphertext_memory(params, level);
    let slots = program.slots.max(1) as i64;
    let (ciphertexts, other) = match operation {
        Operation::Input { .. } => (0, 0),
        Operation::RotateMany { steps, .. } => {
            let count = steps.iter().filter(|s| s.rem_euclid(slots) != 0).count();
            (
                count as u64 * ct,
                switching(params, (ROTATION, level), count, 1),
            )
        }
        Operation::Conjugate(_) => (
            ct,
            switching(params, (KeyPurpose::Conjugation, level), 1, 1),
        ),
        // Three components of the product, and the result.
        Operation::MulSum(_) => (
            5 * ct / 2,
            switching(params, (KeyPurpose::Relinearization, level), 1, 1),
        ),
        Operation::LinearTransform { .. } | Operation::NestedTransform { .. } => {
            let counts = TransformCounts::of(program, operation);
            if counts.babies + counts.giants == 0 {
                // The sums, of the operands' level.
                return Scratch::of(level, counts.outputs as u64 * ct, 0);
            }
            // Of each giant step one polynomial; the results.
            let held = counts.giants as u64 * ct / 2 + counts.outputs as u64 * ct;
            (held, transforming(params, level, counts))
        }
        Operation::Adjust { .. } | Operation::Rescale(_) => (2 * ct, 0),
        // The key switch back, at the highest level.
        Operation::ModRaise(_) => {
            let top = params.max_level();
            let raised = 2 * ciphertext_memory(params, top);
            (
                raised,
                switching(params, (KeyPurpose::FromEphemeral, top), 1, 1),
            )
        }
        _ => (ct, 0),
    };
    Scratch::of(level, ciphertexts, other)
}

/// Scratch of a linear transform beside ciphertexts.
fn transforming(params: &Params, level: usize, counts: TransformCounts) -> u64 {
    let limbs = params.basis_at(level).len();
    let all = params.rotation_basis(level).len();
    let digits = counts.inputs * params.digits_at(ROTATION, level).len();
    // With the special primes: what all steps add to, and of each giant step one polynomial, of a
    // nested one two.
    let sums = (2 * counts.outputs + counts.divided + counts.nested) * all;
    let converted = group(params.n(), digits, 2) * digits;
    let switched = switching(params, (ROTATION, level), 1, counts.giants);
    // The inputs' scaled digits have the sizes of those of the giant steps.
    let scaled = counts.inputs.saturating_sub(counts.giants) * limbs;
    limbs_bytes(params, sums + converted + scaled) + switched
}

/// Primes that the engine works on at a time.
fn group(n: usize, digits: usize, others: usize) -> usize {
    let most = if 2 * n * digits <= SMALL_WORDS {
        2
    } else {
        MAX_GROUP
    };
    (GROUP_WORDS / (n * (digits + others)).max(1)).clamp(1, most)
}

/// Scratch of a key switch: `outputs` of it at once from `sources` decomposed polynomials.
fn switching(
    params: &Params,
    (purpose, level): (KeyPurpose, usize),
    outputs: usize,
    sources: usize,
) -> u64 {
    if outputs == 0 || sources == 0 {
        return 0;
    }
    let jobs = outputs.min(JOBS);
    let digits = params.digits_at(purpose, level).len().max(1);
    let group = group(params.n(), digits, 2 * jobs);
    let divisor = params.special_at(purpose, level).len() + 1;
    let limbs = group * digits + group * jobs * 2 + 2 * 2 * jobs * divisor;
    limbs_bytes(params, limbs + sources * params.basis_at(level).len())
}

/// Bytes of each encoded plaintext of a program.
pub(crate) fn plains_bytes(program: &CiphertextProgram, params: &Params) -> Vec<u64> {
    let plains = program.plains.iter().zip(program.extended_plains());
    let bytes = plains.map(|(plain, extended)| {
        let level = plain.level.min(params.max_level());
        let basis = if extended {
            params.rotation_basis(level)
        } else {
            params.basis_at(level)
        };
        let words = plain_words(&plain.pattern, params.slots());
        (8 * (basis.len() * words) as u64).max(SMALLEST_BUFFER) + PLAIN
    });
    bytes.collect()
}

/// What a server holds.
pub(crate) struct Estimate<'a> {
    pub(crate) program: &'a CiphertextProgram,
    /// What happens inside of its bootstraps.
    pub(crate) inside: &'a [CiphertextProgram],
    pub(crate) params: &'a Params,
    pub(crate) keys: &'a KeyList,
    pub(crate) threads: usize,
    /// Of the server's backend.
    pub(crate) isa: Isa,
}

impl Estimate<'_> {
    /// Those whose plaintexts there are.
    fn programs(&self) -> impl Iterator<Item = &CiphertextProgram> {
        encoded(self.program, self.inside)
    }

    /// Bytes of the prepared keys.
    pub(crate) fn keys(&self) -> u64 {
        self.keys.iter().map(|key| self.key(key)).sum()
    }

    /// The halves of each digit that are kept, and the permutation of the automorphism.
    fn key(&self, (purpose, level): (KeyPurpose, usize)) -> u64 {
        // A program whose keys have no shape is refused before it is planned.
        let Ok(shape) = purpose.shape(self.params, level) else {
            return 0;
        };
        let (chain, digits) = (self.params.chain(), shape.digits.len());
        let bytes = CpuKey::bytes_of(chain, self.isa, shape.basis, digits).unwrap_or(0);
        bytes as u64 + self.params.n() as u64 / 2
    }

    /// Bytes of the encoded plaintexts.
    pub(crate) fn plains(&self) -> u64 {
        let all = self.programs();
        all.map(|program| plains_bytes(program, self.params).iter().sum::<u64>())
            .sum()
    }

    /// Of these the program's own, and the most that one instruction reads.
    pub(crate) fn weights(&self) -> (u64, u64) {
        let bytes = plains_bytes(self.program, self.params);
        let read = self.program.instructions.iter().map(|instruction| {
            let mut plains = instruction.operation.plains();
            plains.sort_unstable();
            plains.dedup();
            let each = plains.iter().filter_map(|id| bytes.get(id.0 as usize));
            each.sum::<u64>()
        });
        (bytes.iter().sum(), read.max().unwrap_or(0))
    }

    /// Tables of the transforms and of the encoder, and the program's own patterns.
    fn tables(&self) -> u64 {
        let primes = self.params.primes().len();
        // Both directions, two words for each twiddle; 16 limbs of tables to encode with.
        let transforms = limbs_bytes(self.params, 4 * primes + 16);
        let patterns =
            self.programs()
                .flat_map(|program| &program.plains)
                .map(|plain| match &plain.pattern {
                    PlainPattern::Constant(_) => 64,
                    PlainPattern::Runs { values, .. } => 64 + 16 * values.len() as u64,
                    PlainPattern::Slots(slots) => 64 + 16 * slots.entries().len() as u64,
                });
        transforms + patterns.sum::<u64>()
    }

    /// Keys and weights as they are computed with.
    pub(crate) fn resident(&self) -> u64 {
        self.keys() + self.plains()
    }

    /// While keys are loaded: per thread one as it is in the file, stored, and expanded; it then
    /// waits in the pool.
    fn loading(&self) -> u64 {
        let largest = self.keys.iter().map(|key| self.key(key)).max();
        self.threads as u64 * largest.unwrap_or(0) * 2
    }

    /// The inputs of one run as their file and as stored ciphertexts, of which one half is a seed.
    fn inputs(&self, file: u64) -> u64 {
        let levels = self.program.inputs.iter().map(|i| i.level);
        let halves = levels.map(|level| ciphertext_memory(self.params, level) / 2);
        file + halves.sum::<u64>()
    }

    /// The largest resident set. `run`: what runs add at most, pool included; `most_live` of it is
    /// in use at once. `input_file`: bytes of the inputs of one run.
    pub(crate) fn peak(&self, input_file: u64, run: u64, most_live: u64) -> u64 {
        let always = PROCESS + self.tables() + self.resident();
        let loading = self.loading();
        let running = (loading + run).min(most_live + POOL) + self.inputs(input_file);
        always + loading.max(running)
    }
}
