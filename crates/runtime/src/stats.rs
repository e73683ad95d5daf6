//! What a run did: counted and timed by the executor, instruction by instruction.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use veilformer_ckks::{Giant, Params, SlotVector, Transform, moves};
use veilformer_ir::ciphertext::{CiphertextProgram, Instruction, Operation, PlainId, PlainPattern};

/// The kind of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OpKind {
    /// An input taken over.
    Input,
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Negation.
    Negate,
    /// Sum with a plaintext.
    AddPlain,
    /// Product with a plaintext.
    MulPlain,
    /// Rescale.
    Rescale,
    /// Sum of products, relinearized and rescaled.
    MulSum,
    /// Rotations of one value.
    RotateMany,
    /// A value and rotations of it, added up.
    RotateSum,
    /// Conjugation.
    Conjugate,
    /// Limbs forgotten.
    DropTo,
    /// To the canonical scale of a lower level.
    Adjust,
    /// Linear map by baby and giant steps.
    LinearTransform,
    /// Linear map by baby and nested giant steps.
    NestedTransform,
    /// Modulus raised.
    ModRaise,
    /// Bootstrap of a value or a pair.
    Bootstrap,
}

impl OpKind {
    /// All kinds.
    pub const ALL: [Self; 17] = [
        Self::Input,
        Self::Add,
        Self::Sub,
        Self::Negate,
        Self::AddPlain,
        Self::MulPlain,
        Self::Rescale,
        Self::MulSum,
        Self::RotateMany,
        Self::RotateSum,
        Self::Conjugate,
        Self::DropTo,
        Self::Adjust,
        Self::LinearTransform,
        Self::NestedTransform,
        Self::ModRaise,
        Self::Bootstrap,
    ];

    /// The kind of an operation.
    #[must_use]
    pub fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Input { .. } => Self::Input,
            Operation::Add(..) => Self::Add,
            Operation::Sub(..) => Self::Sub,
            Operation::Negate(_) => Self::Negate,
            Operation::AddPlain(..) => Self::AddPlain,
            Operation::MulPlain(..) => Self::MulPlain,
            Operation::Rescale(_) => Self::Rescale,
            Operation::MulSum(_) => Self::MulSum,
            Operation::RotateMany { .. } => Self::RotateMany,
            Operation::RotateSum { .. } => Self::RotateSum,
            Operation::Conjugate(_) => Self::Conjugate,
            Operation::DropTo { .. } => Self::DropTo,
            Operation::Adjust { .. } => Self::Adjust,
            Operation::LinearTransform { .. } => Self::LinearTransform,
            Operation::NestedTransform { .. } => Self::NestedTransform,
            Operation::ModRaise(_) => Self::ModRaise,
            Operation::Bootstrap { .. } => Self::Bootstrap,
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Input => "input",
            Self::Add => "add",
            Self::Sub => "sub",
            Self::Negate => "negate",
            Self::AddPlain => "add plain",
            Self::MulPlain => "mul plain",
            Self::Rescale => "rescale",
            Self::MulSum => "mul sum",
            Self::RotateMany => "rotate",
            Self::RotateSum => "rotate sum",
            Self::Conjugate => "conjugate",
            Self::DropTo => "drop",
            Self::Adjust => "adjust",
            Self::LinearTransform => "linear transform",
            Self::NestedTransform => "nested transform",
            Self::ModRaise => "mod raise",
            Self::Bootstrap => "bootstrap",
        })
    }
}

/// Key switches of one operation: one for each rotation by a step that is not 0 modulo the slots,
/// for each conjugation, for each relinearization (a sum of products has one), and, in a linear
/// transform, for each distinct pair of an input and a baby step that is not 0 and for each giant
/// step that is not 0; two for a raised modulus, to the ephemeral secret and back; all those inside
/// of a bootstrap. A switch is one inner product of digits with a key, whether or not it
/// shares its decomposition or its ModDown with others: double hoisting does not change the count,
/// but what each costs (see [`crate::Cost`]).
#[must_use]
pub fn key_switches(program: &CiphertextProgram, operation: &Operation) -> u64 {
    let slots = program.slots;
    let count = match operation {
        Operation::MulSum(_) | Operation::Conjugate(_) => 1,
        Operation::RotateMany { steps, .. } | Operation::RotateSum { steps, .. } => {
            steps.iter().filter(|s| moves(**s, slots)).count()
        }
        Operation::ModRaise(_) => 2,
        Operation::Bootstrap { which, .. } => {
            let entry = program.bootstraps.get(*which as usize);
            entry.map_or(0, |b| b.key_switches)
        }
        _ => {
            let counts = TransformCounts::of(program, operation);
            counts.giants + counts.babies
        }
    };
    count as u64
}

/// What a linear transform is made of. Steps count only if they move anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TransformCounts {
    /// Results.
    pub(crate) outputs: usize,
    /// Inputs that are rotated.
    pub(crate) inputs: usize,
    /// Distinct pairs of an input and a baby step.
    pub(crate) babies: usize,
    /// Giant steps.
    pub(crate) giants: usize,
    /// Sums of nested giant steps, of two polynomials each.
    pub(crate) nested: usize,
    /// Giant steps whose sum has a rotated input.
    pub(crate) divided: usize,
    /// Products of inputs as they are.
    pub(crate) products: usize,
    /// Products of rotated inputs.
    pub(crate) turned_products: usize,
    /// Words per prime of the plaintexts of inputs as they are.
    pub(crate) words: usize,
    /// Of those of rotated inputs.
    pub(crate) turned_words: usize,
}

impl TransformCounts {
    /// Of an operation of `program`: zeros if it is not a transform.
    pub(crate) fn of(program: &CiphertextProgram, operation: &Operation) -> Self {
        let slots = program.slots;
        let counts = Self::beside(program, operation.transforms());
        let Operation::NestedTransform { transform, .. } = operation else {
            return counts;
        };
        // Of the steps from the innermost on, that one alone may be exact.
        let giants = transform.giants.iter().rev();
        let steps = giants.skip_while(|g| g.terms.is_empty());
        let moving = steps.clone().filter(|g| moves(g.rotation, slots)).count();
        let turned = |g: &&Giant<PlainId>| g.terms.iter().any(|t| moves(t.baby, slots));
        let exact = steps.take_while(|g| !turned(g));
        let exact = exact.filter(|g| moves(g.rotation, slots)).count().min(1);
        Self {
            giants: moving,
            divided: moving - exact,
            nested: moving,
            ..counts
        }
    }

    /// Of transforms of the same inputs, which share the rotated ones.
    fn beside(program: &CiphertextProgram, transforms: &[Transform<PlainId>]) -> Self {
        let slots = program.slots;
        let words = |plain: &PlainId| {
            let plain = program.plains.get(plain.0 as usize);
            plain.map_or(0, |plain| plain_values(&plain.pattern, slots))
        };
        let mut babies = BTreeSet::new();
        let mut counts = Self {
            outputs: transforms.len(),
            ..Self::default()
        };
        for giant in transforms.iter().flat_map(|t| &t.giants) {
            let mut turned = 0;
            for term in &giant.terms {
                let words = words(&term.plain);
                if moves(term.baby, slots) {
                    babies.insert((term.input, term.baby.rem_euclid(slots as i64)));
                    turned += 1;
                    counts.turned_words += words;
                } else {
                    counts.products += 1;
                    counts.words += words;
                }
            }
            counts.turned_products += turned;
            if !giant.terms.is_empty() && moves(giant.rotation, slots) {
                counts.giants += 1;
                counts.divided += usize::from(turned > 0);
            }
        }
        counts.babies = babies.len();
        counts.inputs = babies.iter().map(|b| b.0).collect::<BTreeSet<_>>().len();
        counts
    }
}

/// Values modulo each prime of an encoded plaintext: twice its period, for the conjugates.
pub(crate) fn plain_values(pattern: &PlainPattern, slots: usize) -> usize {
    match pattern {
        PlainPattern::Constant(_) => 1,
        PlainPattern::Slots(SlotVector::Periodic(period)) => 2 * period.len().min(slots),
        _ => 2 * slots,
    }
}

/// Products of two ciphertexts in one operation, squares and those inside of a bootstrap included.
#[must_use]
pub fn multiplications(program: &CiphertextProgram, operation: &Operation) -> u64 {
    let count = match operation {
        Operation::MulSum(pairs) => pairs.len(),
        Operation::Bootstrap { which, .. } => {
            let entry = program.bootstraps.get(*which as usize);
            entry.map_or(0, |b| b.multiplications)
        }
        _ => 0,
    };
    count as u64
}

/// Bytes that a ciphertext of a level takes in memory: two polynomials of eight-byte residues.
#[must_use]
pub fn ciphertext_memory(params: &Params, level: usize) -> u64 {
    params.ciphertext_bytes(level)
}

/// One section's part of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SectionStats {
    /// The section's name.
    pub name: String,
    /// Instructions run.
    pub instructions: u64,
    /// Key switches done.
    pub key_switches: u64,
    /// Seconds of all threads together.
    pub seconds: f64,
}

/// One kind of instruction's part of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KindStats {
    /// The kind.
    pub kind: OpKind,
    /// Instructions run.
    pub instructions: u64,
    /// Key switches done.
    pub key_switches: u64,
    /// Seconds of all threads together.
    pub seconds: f64,
}

/// What a run took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunStats {
    /// Seconds by the clock.
    pub seconds: f64,
    /// Seconds of all threads together, inside of operations.
    pub busy_seconds: f64,
    /// Processor time of the whole process meanwhile, where the system tells: user and system together.
    pub cpu_seconds: Option<f64>,
    /// Key switches executed (see [`key_switches`]).
    pub key_switches: u64,
    /// Products of two ciphertexts executed, squares included.
    pub multiplications: u64,
    /// Most bytes of ciphertexts that were alive at once, inputs and results included, scratch of
    /// the operations not.
    pub peak_ciphertext_bytes: u64,
    /// By section of the program, in its order.
    pub sections: Vec<SectionStats>,
    /// By kind of instruction; kinds that did not occur are left out.
    pub kinds: Vec<KindStats>,
}

impl RunStats {
    /// Adds another run of the same program: sums, and the larger of the peaks.
    pub fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.busy_seconds += other.busy_seconds;
        self.cpu_seconds = match self.sections.is_empty() {
            true => other.cpu_seconds,
            false => {
                let both = self.cpu_seconds.zip(other.cpu_seconds);
                both.map(|(mine, theirs)| mine + theirs)
            }
        };
        self.key_switches += other.key_switches;
        self.multiplications += other.multiplications;
        self.peak_ciphertext_bytes = self.peak_ciphertext_bytes.max(other.peak_ciphertext_bytes);
        if self.sections.is_empty() {
            self.sections.clone_from(&other.sections);
        } else {
            for (mine, theirs) in self.sections.iter_mut().zip(&other.sections) {
                mine.instructions += theirs.instructions;
                mine.key_switches += theirs.key_switches;
                mine.seconds += theirs.seconds;
            }
        }
        for theirs in &other.kinds {
            match self.kinds.iter_mut().find(|k| k.kind == theirs.kind) {
                None => self.kinds.push(theirs.clone()),
                Some(mine) => {
                    mine.instructions += theirs.instructions;
                    mine.key_switches += theirs.key_switches;
                    mine.seconds += theirs.seconds;
                }
            }
        }
    }
}

/// The processor time that this process has taken, where the system tells.
pub(crate) fn processor_time() -> Option<Duration> {
    #[cfg(unix)]
    {
        use rustix::time::{ClockId, clock_gettime};
        Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).ok()
    }
    #[cfg(not(unix))]
    None
}

/// Collects statistics while a program runs.
pub(crate) struct Tally {
    sections: Vec<SectionStats>,
    kinds: Vec<KindStats>,
    multiplications: u64,
}

impl Tally {
    pub(crate) fn new(program: &CiphertextProgram) -> Self {
        let names = program.sections.iter();
        Self {
            sections: names
                .map(|name| SectionStats {
                    name: name.clone(),
                    ..SectionStats::default()
                })
                .collect(),
            kinds: OpKind::ALL
                .map(|kind| KindStats {
                    kind,
                    instructions: 0,
                    key_switches: 0,
                    seconds: 0.0,
                })
                .to_vec(),
            multiplications: 0,
        }
    }

    pub(crate) fn note(
        &mut self,
        program: &CiphertextProgram,
        instruction: &Instruction,
        took: Duration,
    ) {
        let operation = &instruction.operation;
        let seconds = took.as_secs_f64();
        let switches = key_switches(program, operation);
        self.multiplications += multiplications(program, operation);
        if let Some(s) = self.sections.get_mut(instruction.section as usize) {
            s.instructions += 1;
            s.key_switches += switches;
            s.seconds += seconds;
        }
        if let Some(k) = self.kinds.get_mut(OpKind::of(operation).index()) {
            k.instructions += 1;
            k.key_switches += switches;
            k.seconds += seconds;
        }
    }

    pub(crate) fn finish(
        mut self,
        (wall, cpu): (Duration, Option<Duration>),
        peak_ciphertext_bytes: u64,
    ) -> RunStats {
        self.kinds.retain(|k| k.instructions > 0);
        RunStats {
            seconds: wall.as_secs_f64(),
            busy_seconds: self.kinds.iter().map(|k| k.seconds).sum(),
            cpu_seconds: cpu.map(|cpu| cpu.as_secs_f64()),
            key_switches: self.kinds.iter().map(|k| k.key_switches).sum(),
            multiplications: self.multiplications,
            peak_ciphertext_bytes,
            sections: self.sections,
            kinds: self.kinds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilformer_ckks::Complex;

    #[test]
    fn plaintexts_have_as_many_values_as_they_are_kept_with() {
        let half = Complex::new(0.5, 0.0);
        let periodic =
            |period: usize| PlainPattern::Slots(SlotVector::Periodic(vec![half; period]));
        let dense = PlainPattern::Slots(SlotVector::Dense(vec![half; 64]));
        assert_eq!(plain_values(&PlainPattern::Constant(half), 64), 1);
        assert_eq!(plain_values(&periodic(8), 64), 16);
        assert_eq!(plain_values(&periodic(64), 64), 128);
        assert_eq!(plain_values(&dense, 64), 128);
    }
}
