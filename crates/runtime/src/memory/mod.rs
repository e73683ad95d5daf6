//! A model of the memory of a server on the CPU backend.
//!
//! Buffers of polynomials, keys and plaintexts come from a pool: what it holds is simulated, from the
//! loading of weights and keys through some runs, by what each operation takes and gives back
//! ([`script`]). All else is counted.

mod bootstraps;
mod operations;
mod pool;
mod script;
mod transforms;

use veilformer_ckks::{KeyList, KeyPurpose, Params};
use veilformer_ir::ciphertext::{CiphertextProgram, PlainPattern};
use veilformer_ring::{CpuKey, CpuPlain, Isa};

pub(crate) use bootstraps::operands;
use pool::PoolModel;
pub(crate) use script::{Event, Ledger, Performance, Script, Value, Writer};

use crate::cost::encoded;
use crate::stats::plain_values;

/// What a process has before it opens a bundle: code, stacks, allocator.
const PROCESS: u64 = 12 << 20;

/// The smallest buffer of the pool.
const SMALLEST_BUFFER: u64 = 512;
/// What an encoded plaintext has beside its residues.
const PLAIN: u64 = 160;

/// Runs until the pool no longer grows, at most: a server answers many, and each finds in the pool what
/// the one before left.
const RUNS: usize = 4;

/// Any rotation: all have the same bands.
const ROTATION: KeyPurpose = KeyPurpose::Rotation(1);

/// Bytes of `limbs` limbs.
fn limbs_bytes(params: &Params, limbs: usize) -> u64 {
    8 * (params.n() * limbs) as u64
}

/// Words of each encoded plaintext of a program, where a pattern has so many values modulo a prime.
fn words_of(
    program: &CiphertextProgram,
    params: &Params,
    values: impl Fn(&PlainPattern) -> usize,
) -> Vec<usize> {
    let plains = program.plains.iter().zip(program.extended_plains());
    let words = plains.map(|(plain, extended)| {
        let level = plain.level.min(params.max_level());
        let basis = if extended {
            params.rotation_basis(level)
        } else {
            params.basis_at(level)
        };
        // A basis of the parameters has no other primes.
        CpuPlain::words_of(params.chain(), basis, values(&plain.pattern)).unwrap_or(0)
    });
    words.collect()
}

/// Words of each encoded plaintext of a program.
fn plains_words(program: &CiphertextProgram, params: &Params) -> Vec<usize> {
    words_of(program, params, |pattern| {
        plain_values(pattern, params.slots())
    })
}

/// Bytes of encoded plaintexts of so many words each.
fn bytes_of(words: Vec<usize>) -> impl Iterator<Item = u64> {
    let bytes = |words: usize| (8 * words as u64).max(SMALLEST_BUFFER) + PLAIN;
    words.into_iter().map(bytes)
}

/// Bytes of each encoded plaintext of a program.
pub(crate) fn plains_bytes(program: &CiphertextProgram, params: &Params) -> Vec<u64> {
    bytes_of(plains_words(program, params)).collect()
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

    /// The halves of each digit that are kept, what lists their refused words, and the permutation of the
    /// automorphism.
    fn key(&self, key: (KeyPurpose, usize)) -> u64 {
        let [halves, listed] = self.halves(key);
        (halves + listed + self.params.n() / 2) as u64
    }

    /// Bytes of the halves that a prepared key keeps, and of its list of refused words.
    fn halves(&self, (purpose, level): (KeyPurpose, usize)) -> [usize; 2] {
        // A program whose keys have no shape is refused before it is planned.
        let Ok(shape) = purpose.shape(self.params, level) else {
            return [0; 2];
        };
        let (chain, digits) = (self.params.chain(), shape.digits.len());
        let halves = CpuKey::bytes_of(chain, self.isa, shape.basis, digits).unwrap_or(0);
        [
            halves,
            CpuKey::listed_bytes(chain, self.isa, shape.basis, digits),
        ]
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

    /// What the program's own plaintexts would take if each but the constants had a value modulo every prime for
    /// every coefficient, whatever its period.
    pub(crate) fn full_weights(&self) -> u64 {
        let words = words_of(self.program, self.params, |pattern| match pattern {
            PlainPattern::Constant(_) => plain_values(pattern, self.params.slots()),
            _ => self.params.n(),
        });
        bytes_of(words).sum()
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

    /// The largest resident set. `input_file`: bytes of the inputs of one run; `first_use`: the order in
    /// which keys are loaded; `run`: what happens to the pool in each run.
    pub(crate) fn peak(&self, input_file: u64, first_use: &[KeyPurpose], run: &[Event]) -> u64 {
        let mut pool = PoolModel::default();
        self.load(&mut pool, first_use);
        for _ in 0..RUNS {
            let before = pool.peak();
            pool.play(run);
            if pool.peak() == before {
                break;
            }
        }
        self.beside(input_file) + pool.peak()
    }

    /// What the process has beside the pool; `input_file`: bytes of the inputs of one run.
    fn beside(&self, input_file: u64) -> u64 {
        let plains: usize = self.programs().map(|program| program.plains.len()).sum();
        let permutations = self.keys.iter().count() * self.params.n() / 2;
        let lists: usize = self.keys.iter().map(|key| self.halves(key)[1]).sum();
        let small = plains as u64 * PLAIN + (permutations + lists) as u64;
        PROCESS + self.tables() + small + input_file
    }

    /// Loads weights and keys, the keys in the order of `first_use`: what stays of them is never given
    /// back.
    fn load(&self, pool: &mut PoolModel, first_use: &[KeyPurpose]) {
        let n = self.params.n();
        for program in self.programs() {
            for words in plains_words(program, self.params) {
                pool.keep(words);
            }
        }
        let mut keys: Vec<(KeyPurpose, usize)> = self.keys.iter().collect();
        keys.sort_by_key(|(purpose, _)| first_use.iter().position(|k| k == purpose));
        for chunk in keys.chunks(self.threads.max(1)) {
            let mut stored = Vec::new();
            for (purpose, level) in chunk {
                let Ok(shape) = purpose.shape(self.params, *level) else {
                    continue;
                };
                let digits = shape.digits.len();
                let part = shape.basis.len() * n;
                stored.extend((0..digits).map(|_| pool.take(part)));
                let chain = self.params.chain();
                let words = CpuKey::words_of(chain, self.isa, shape.basis, digits);
                let [round_keys, rows] = words.unwrap_or_default();
                if round_keys > 0 {
                    pool.keep(round_keys);
                }
                pool.keep(rows);
                let permuted = pool.take(2 * n);
                pool.give(permuted);
            }
            stored.into_iter().for_each(|part| pool.give(part));
        }
    }
}
