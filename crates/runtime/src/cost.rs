//! What the coarse operations cost on this machine: measured once, kept in a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use veilformer_ckks::container::{ContainerError, Kind, META_LIMIT, Reader, Tag, Writer};
use veilformer_ckks::{Params, moves};
use veilformer_ir::ciphertext::{CiphertextProgram, Operation, PlainPattern, ValueId};
use veilformer_ring::Isa;

use crate::RuntimeError;
use crate::bundle::container;
use crate::shape::{Shape, heaviest};
use crate::stats::{TransformCounts, plain_values};

const COSTS: Tag = Tag(*b"COST");

/// Version of the entries: of their meaning, and of kernels that take other times; a table of another version is
/// measured anew.
pub const COST_VERSION: u32 = 26;

/// Longest file of costs that is read, bytes: its one section is metadata of limited size.
const LONGEST: u64 = 2 * META_LIMIT as u64;

/// A cost that is measured, in seconds of one thread. Those named per piece are added up: a
/// rotation of one ciphertext by three steps costs `Rotate + 3 RotateStep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Cost {
    /// Rotations of one ciphertext, whatever their number: the shared decomposition.
    Rotate,
    /// Each rotation of a ciphertext.
    RotateStep,
    /// A sum of products, whatever their number: relinearization and rescale.
    MulSum,
    /// Each product of such a sum.
    MulSumPair,
    /// A linear transform, whatever its size, when nothing is rotated: the rescale.
    Transform,
    /// What the first rotation of a transform adds, of whatever kind: the division by the special
    /// primes.
    TransformSwitch,
    /// Each input of a transform that is rotated: its decomposition.
    TransformInput,
    /// Each baby step: the inner product with its key.
    TransformBaby,
    /// Each giant step: decomposition of its sum and the inner product with its key.
    TransformGiant,
    /// Each giant step over a rotated input: the ModDown of its sum.
    TransformDown,
    /// Each product with a plaintext of an input that is not rotated, beside the plaintext's words.
    TransformProduct,
    /// What the words of such plaintexts take to arrive: of each without a period, and of as many
    /// with one as have its words.
    TransformWords,
    /// Each product with a plaintext of a rotated input, modulo the special primes as well, beside the
    /// plaintext's words.
    TransformTurnedProduct,
    /// What the words of these take to arrive.
    TransformTurnedWords,
    /// Rescale of one ciphertext.
    Rescale,
    /// Adjust *to* the level.
    Adjust,
    /// Sum, difference, negation.
    Add,
    /// Sum with a plaintext.
    AddPlain,
    /// Product with a plaintext.
    MulPlain,
    /// Copy of the primes of the level.
    Drop,
    /// A seeded input expanded and handed to the backend, or an answer copied back.
    Import,
    /// A plaintext encoded and prepared for the level, however short its period.
    EncodePlain,
    /// What is added where it has no period.
    Encode,
    /// The same with the special primes, for rotated inputs.
    EncodeExtended,
    /// A MiB of memory fresh from the system, written once; at level 0.
    Memory,
    /// An evaluation key of the level read, expanded and prepared, in memory that is there.
    PrepareKey,
}

/// Costs of one machine under one set of parameters, and how several threads slow one another
/// down or help one another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostTable {
    /// Version of the entries' meaning: [`COST_VERSION`].
    pub version: u32,
    /// The machine: processor model and instruction set, see [`machine_name`].
    pub machine: String,
    /// Digest of the parameters.
    pub params_digest: [u8; 32],
    /// Seconds of one thread by cost and level.
    pub seconds: BTreeMap<(Cost, u32), f64>,
    /// Seconds of one thread by the shape of a linear map that was measured whole.
    pub maps: BTreeMap<Shape, f64>,
    /// By number of threads: how much longer an operation takes when all of them compute.
    pub slowdown: BTreeMap<u32, f64>,
    /// By number of threads: how much faster an operation is that has all of them for itself.
    pub helped: BTreeMap<u32, f64>,
}

impl CostTable {
    /// A table without entries.
    #[must_use]
    pub fn empty(params: &Params, machine: impl Into<String>) -> Self {
        Self {
            version: COST_VERSION,
            machine: machine.into(),
            params_digest: params.digest(),
            seconds: BTreeMap::new(),
            maps: BTreeMap::new(),
            slowdown: BTreeMap::new(),
            helped: BTreeMap::new(),
        }
    }

    /// The instruction set that the machine's name ends with; of another name, that of this processor. What
    /// keys take in memory depends on it.
    #[must_use]
    pub fn isa(&self) -> Isa {
        let named = |isa: &Isa| self.machine.ends_with(&format!(", {isa:?}"));
        Isa::available()
            .into_iter()
            .find(named)
            .unwrap_or_else(Isa::detect)
    }

    /// Seconds of a cost at a level: as measured there, else between the nearest levels that
    /// were, else in proportion to the limbs. Zero if the cost was never measured.
    #[must_use]
    pub fn at(&self, cost: Cost, level: usize) -> f64 {
        let level = u32::try_from(level).unwrap_or(u32::MAX);
        let below = self.seconds.range((cost, 0)..=(cost, level)).next_back();
        let above = self.seconds.range((cost, level)..=(cost, u32::MAX)).next();
        match (below, above) {
            (Some((&(_, l0), &s0)), Some((&(_, l1), &s1))) if l1 > l0 => {
                s0 + (s1 - s0) * f64::from(level - l0) / f64::from(l1 - l0)
            }
            (Some((&(_, l), &s)), _) | (None, Some((&(_, l), &s))) => {
                s * (f64::from(level) + 1.0) / (f64::from(l) + 1.0)
            }
            (None, None) => 0.0,
        }
    }

    /// Seconds that an operation of `program` takes alone on one thread, `inside` as of [`inside()`]: a linear
    /// map that was measured whole by that, all else by what it is made of.
    pub(crate) fn operation(
        &self,
        program: &CiphertextProgram,
        inside: &[CiphertextProgram],
        operation: &Operation,
    ) -> f64 {
        let measured = || self.maps.get(&Shape::of(program, operation)?);
        if let Some(seconds) = measured() {
            return *seconds;
        }
        let parts = pieces(program, operation);
        let parts = parts
            .iter()
            .map(|&(cost, level, count)| self.at(cost, level) * count as f64);
        let circuit = circuit(inside, operation);
        let within = circuit.into_iter().flat_map(|circuit| {
            let operations = operations(circuit);
            operations.map(|operation| self.operation(circuit, &[], operation))
        });
        parts.chain(within).sum()
    }

    /// How much longer operations take when `threads` compute at once; at least 1.
    #[must_use]
    pub fn slowdown(&self, threads: usize) -> f64 {
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        if threads <= 1 {
            return 1.0;
        }
        let known = self.slowdown.range(..=threads).next_back();
        known.map_or(1.0, |(_, s)| s.max(1.0))
    }

    /// How fast each of `running` operations is on so many threads, against one that runs alone on
    /// one thread. Threads without an operation of their own help the others: between one
    /// operation for each and one for all of them, speed is taken to grow evenly.
    #[must_use]
    pub fn speed(&self, running: usize, threads: usize) -> f64 {
        let (running, threads) = (running.max(1), threads.max(1));
        if running >= threads {
            return 1.0 / self.slowdown(running);
        }
        let most = u32::try_from(threads).unwrap_or(u32::MAX);
        let helped = self.helped.range(..=most).next_back();
        let helped = helped.map_or(1.0, |(_, s)| s.clamp(1.0, threads as f64));
        let unhelped = 1.0 / self.slowdown(threads);
        let share = (threads as f64 / running as f64 - 1.0) / (threads as f64 - 1.0);
        unhelped + (helped - unhelped) * share
    }

    /// Whether everything that the program needs was measured here, pieces of operations at some level each.
    #[must_use]
    pub fn covers(&self, program: &CiphertextProgram, params: &Params, threads: usize) -> bool {
        self.fits(params)
            && self.has_threads(threads)
            && inside(program, params).is_ok_and(|inside| {
                let needs = needs((program, params), &inside);
                let maps = heaviest((program, params), &inside);
                needs.iter().all(|(cost, _)| self.has(*cost))
                    && maps.iter().all(|map| self.maps.contains_key(&map.shape))
            })
    }

    /// Whether the entries mean what they mean here, and are of these parameters.
    pub(crate) fn fits(&self, params: &Params) -> bool {
        self.version == COST_VERSION && self.params_digest == params.digest()
    }

    /// Whether a cost was measured at any level.
    pub(crate) fn has(&self, cost: Cost) -> bool {
        let mut measured = self.seconds.range((cost, 0)..=(cost, u32::MAX));
        measured.next().is_some()
    }

    /// Whether so many threads were measured.
    pub(crate) fn has_threads(&self, threads: usize) -> bool {
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        threads <= 1 || self.slowdown.contains_key(&threads) && self.helped.contains_key(&threads)
    }

    /// The file.
    ///
    /// # Errors
    /// None in practice; serialization's.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RuntimeError> {
        let mut writer = Writer::new(Kind::CostTable, None).map_err(container)?;
        writer.meta(COSTS, self).map_err(container)?;
        writer.to_bytes().map_err(container)
    }

    /// A table from its file.
    ///
    /// # Errors
    /// What is wrong with the file; a number in it that is no time.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RuntimeError> {
        let reader = Reader::open_kind(bytes, Kind::CostTable).map_err(container)?;
        let table: Self = reader.meta(COSTS).map_err(container)?;
        let factors = table.slowdown.values().chain(table.helped.values());
        let numbers = table.seconds.values().chain(table.maps.values());
        let numbers = numbers.chain(factors);
        if numbers.into_iter().any(|s| !s.is_finite() || *s < 0.0) {
            return Err(RuntimeError::Bundle(
                "the cost table has a time that is no number; remove it, and it is measured anew"
                    .into(),
            ));
        }
        Ok(table)
    }

    /// The table of a file, if there is one, it can be read, and it is of this machine and these
    /// parameters: a cache that does not fit is no error.
    #[must_use]
    pub fn load(path: &Path, machine: &str, params: &Params) -> Option<Self> {
        let mut bytes = Vec::new();
        let file = File::open(path).ok()?;
        file.take(LONGEST).read_to_end(&mut bytes).ok()?;
        let table = Self::from_bytes(&bytes).ok()?;
        (table.fits(params) && table.machine == machine).then_some(table)
    }

    /// Writes the file: first beside its place, then into it, so that a reader never sees half.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, path: &Path) -> Result<(), RuntimeError> {
        let bytes = self.to_bytes()?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}.new", std::process::id()));
        let io = |error: std::io::Error| container(ContainerError::Io(error));
        std::fs::write(&beside, bytes).map_err(io)?;
        std::fs::rename(&beside, path).map_err(|error| {
            // What cannot be put in place is not left beside it; its removal may fail as well.
            let _ = std::fs::remove_file(&beside);
            io(error)
        })
    }
}

/// The name under which costs of this machine are kept: processor model, architecture and the
/// instruction set `isa` of the backend.
#[must_use]
pub fn machine_name(isa: &str) -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split(':').nth(1));
        value.unwrap_or("unknown").trim().to_owned()
    };
    format!(
        "{}, family {} model {}, {}, {isa}",
        field("model name"),
        field("cpu family"),
        field("model\t"),
        std::env::consts::ARCH
    )
}

/// Per bootstrap of a program's table what happens inside: a bootstrap costs what its operations do.
///
/// # Errors
/// None of a verified program.
pub(crate) fn inside(
    program: &CiphertextProgram,
    params: &Params,
) -> Result<Vec<CiphertextProgram>, RuntimeError> {
    let table = program.bootstraps.iter();
    Ok(table.map(|b| b.inside(params)).collect::<Result<_, _>>()?)
}

/// The programs whose plaintexts are encoded: those inside of bootstraps that do not share an earlier
/// one's, and `program` itself.
pub(crate) fn encoded<'a>(
    program: &'a CiphertextProgram,
    inside: &'a [CiphertextProgram],
) -> impl Iterator<Item = &'a CiphertextProgram> {
    let table = &program.bootstraps;
    let own = inside.iter().zip(table).enumerate();
    let own = own.filter(|(index, (_, entry))| {
        let mut earlier = table.iter().take(*index);
        !earlier.any(|e| e.spec == entry.spec && e.content.shares_plaintexts(entry.content))
    });
    own.map(|(_, (circuit, _))| circuit).chain([program])
}

/// The costs that a program needs, with the levels at which it needs them.
pub(crate) fn needs(
    (program, params): (&CiphertextProgram, &Params),
    inside: &[CiphertextProgram],
) -> BTreeSet<(Cost, usize)> {
    let mut all = BTreeSet::new();
    for instruction in &program.instructions {
        let own = pieces(program, &instruction.operation);
        let circuit = circuit(inside, &instruction.operation);
        let within = circuit.into_iter().flat_map(|circuit| {
            let operations = operations(circuit);
            operations.flat_map(|operation| pieces(circuit, operation))
        });
        all.extend(
            own.into_iter()
                .chain(within)
                .map(|(cost, level, _)| (cost, level)),
        );
    }
    let programs = inside.iter().chain([program]);
    for (cost, level, _) in programs.flat_map(encodings) {
        all.insert((cost, level));
        all.insert((Cost::Memory, 0));
    }
    for (_, level) in program.key_list(params).iter() {
        all.insert((Cost::PrepareKey, level));
    }
    for id in &program.outputs {
        all.insert((Cost::Import, program.info(*id).map_or(0, |v| v.level)));
    }
    all
}

/// What encoding each plaintext of a program is made of: (cost, level, share of it). Constants are left
/// out: they are a residue per prime; a short period is transformed at its own length.
pub(crate) fn encodings(program: &CiphertextProgram) -> impl Iterator<Item = (Cost, usize, f64)> {
    let plains = program.plains.iter().zip(program.extended_plains());
    let vectors = plains.filter(|(p, _)| !matches!(p.pattern, PlainPattern::Constant(_)));
    vectors.flat_map(|(plain, extended)| {
        let cost = if extended {
            Cost::EncodeExtended
        } else {
            Cost::Encode
        };
        let values = plain_values(&plain.pattern, program.slots);
        let share = values as f64 / (2 * program.slots.max(1)) as f64;
        [
            (Cost::EncodePlain, plain.level, 1.0),
            (cost, plain.level, share),
        ]
    })
}

/// What happens inside of an operation that is a bootstrap; `inside` as of [`inside()`].
fn circuit<'a>(
    inside: &'a [CiphertextProgram],
    operation: &Operation,
) -> Option<&'a CiphertextProgram> {
    match operation {
        Operation::Bootstrap { which, .. } => inside.get(*which as usize),
        _ => None,
    }
}

/// The operations of a bootstrap, whose inputs are there.
fn operations(circuit: &CiphertextProgram) -> impl Iterator<Item = &Operation> {
    let operations = circuit.instructions.iter().map(|i| &i.operation);
    operations.filter(|o| !matches!(o, Operation::Input { .. }))
}

/// What an operation is made of: (cost, level, how many); of a bootstrap what comes before it.
fn pieces(program: &CiphertextProgram, operation: &Operation) -> Vec<(Cost, usize, usize)> {
    let level = |id: &ValueId| program.info(*id).map_or(0, |v| v.level);
    let turns = |step: i64| moves(step, program.slots);
    match operation {
        Operation::Input { index } => {
            let level = program.inputs.get(*index).map_or(0, |i| i.level);
            vec![(Cost::Import, level, 1)]
        }
        Operation::Add(a, _) | Operation::Sub(a, _) | Operation::Negate(a) => {
            vec![(Cost::Add, level(a), 1)]
        }
        Operation::AddPlain(a, _) => vec![(Cost::AddPlain, level(a), 1)],
        Operation::MulPlain(a, _) => vec![(Cost::MulPlain, level(a), 1)],
        Operation::Rescale(a) => vec![(Cost::Rescale, level(a), 1)],
        Operation::MulSum(pairs) => {
            let at = pairs.first().map_or(0, |p| level(&p.0));
            vec![(Cost::MulSum, at, 1), (Cost::MulSumPair, at, pairs.len())]
        }
        Operation::RotateMany { source, steps } => {
            let at = level(source);
            let count = steps.iter().filter(|s| turns(**s)).count();
            vec![
                (Cost::Rotate, at, count.min(1)),
                (Cost::RotateStep, at, count),
            ]
        }
        // Inner products of which all but one have no ModDown of their own.
        Operation::RotateSum { source, steps } => {
            let at = level(source);
            let count = steps.iter().filter(|s| turns(**s)).count();
            vec![
                (Cost::Rotate, at, count.min(1)),
                (Cost::RotateStep, at, count.min(1)),
                (Cost::TransformBaby, at, count.saturating_sub(1)),
            ]
        }
        Operation::Conjugate(a) => {
            vec![(Cost::Rotate, level(a), 1), (Cost::RotateStep, level(a), 1)]
        }
        Operation::DropTo { level, .. } => vec![(Cost::Drop, *level, 1)],
        Operation::Adjust { level, .. } => vec![(Cost::Adjust, *level, 1)],
        // The key switch back weighs most: a rotation at the highest level.
        Operation::ModRaise(_) => {
            let top = program.values.iter().map(|v| v.level).max().unwrap_or(0);
            vec![(Cost::Rotate, top, 1), (Cost::RotateStep, top, 1)]
        }
        Operation::Bootstrap { inputs, which } => {
            let entry = program.bootstraps.get(*which as usize);
            let low = entry.map_or(0, |entry| entry.input_level);
            // What goes in is lowered, what is inside begins there.
            let high = inputs.iter().filter(|id| level(id) > low);
            vec![(Cost::Adjust, low, high.count())]
        }
        Operation::LinearTransform { inputs, .. } | Operation::NestedTransform { inputs, .. } => {
            let at = inputs.first().map_or(0, level);
            let counts = TransformCounts::of(program, operation);
            let switched = counts.babies + counts.giants;
            let n = 2 * program.slots.max(1);
            vec![
                (Cost::Transform, at, counts.outputs),
                (Cost::TransformSwitch, at, switched.min(counts.outputs)),
                (Cost::TransformInput, at, counts.inputs),
                (Cost::TransformBaby, at, counts.babies),
                (Cost::TransformGiant, at, counts.giants),
                (Cost::TransformDown, at, counts.divided),
                (Cost::TransformProduct, at, counts.products),
                (Cost::TransformWords, at, counts.words.div_ceil(n)),
                (Cost::TransformTurnedProduct, at, counts.turned_products),
                (
                    Cost::TransformTurnedWords,
                    at,
                    counts.turned_words.div_ceil(n),
                ),
            ]
        }
    }
}
