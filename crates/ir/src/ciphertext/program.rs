//! The entities of a ciphertext program.

use super::BootstrapInfo;
use serde::{Deserialize, Serialize};
use veilformer_ckks::{
    CkksError, Complex, Giant, KeyPurpose, Scale, SlotVector, Transform, mod_raise_keys, moves,
};

/// A ciphertext of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ValueId(pub u32);

/// A plaintext of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlainId(pub u32);

/// The slots of a plaintext, stored no larger than what is distinct in them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PlainPattern {
    /// One value in every slot.
    Constant(Complex),
    /// Slot `j` holds `values[j / run]`: constant over the tokens of one feature.
    Runs {
        /// Length of each run, in slots.
        run: usize,
        /// One value per run.
        values: Vec<Complex>,
    },
    /// Anything else.
    Slots(SlotVector),
}

impl PlainPattern {
    /// The pattern of a slot vector, in its smallest form.
    pub fn of(slots: &SlotVector) -> Self {
        let dense = match slots {
            SlotVector::Constant(c) => return Self::Constant(*c),
            SlotVector::Periodic(_) => return Self::Slots(slots.clone()),
            SlotVector::Dense(v) => v,
        };
        let mut run = dense.len().max(1);
        while run > 1 && !dense.chunks(run).all(|c| c.iter().all(|x| *x == c[0])) {
            run /= 2;
        }
        match dense.first() {
            Some(c) if run == dense.len() => Self::Constant(*c),
            _ if run > 1 => Self::Runs {
                run,
                values: dense.iter().step_by(run).copied().collect(),
            },
            _ => Self::Slots(slots.clone()),
        }
    }

    /// The slots themselves.
    pub fn expand(&self) -> SlotVector {
        match self {
            Self::Constant(c) => SlotVector::Constant(*c),
            Self::Runs { run, values } => SlotVector::Dense(
                values
                    .iter()
                    .flat_map(|v| std::iter::repeat_n(*v, *run))
                    .collect(),
            ),
            Self::Slots(s) => s.clone(),
        }
    }

    /// Checks that the pattern fills exactly `slots` slots, without expanding it.
    ///
    /// # Errors
    /// What does not fit, or is not finite.
    pub fn check(&self, slots: usize) -> Result<(), CkksError> {
        match self {
            Self::Constant(c) => SlotVector::Constant(*c).check(slots),
            Self::Slots(s) => s.check(slots),
            Self::Runs { run, values } => {
                // The runs alone, as a vector of their own, have the same finiteness.
                SlotVector::Dense(values.clone()).check(values.len())?;
                if values.len().checked_mul(*run) == Some(slots) {
                    return Ok(());
                }
                Err(CkksError::Slots(format!(
                    "{} runs of {run} do not make {slots} slots",
                    values.len()
                )))
            }
        }
    }

    /// Mean absolute value of the slots.
    pub fn mean_abs(&self) -> f64 {
        let mean = |v: &[Complex]| v.iter().map(|c| c.norm()).sum::<f64>() / v.len().max(1) as f64;
        match self {
            Self::Constant(c) => c.norm(),
            Self::Runs { values, .. } => mean(values),
            Self::Slots(s) => mean(s.entries()),
        }
    }

    /// Largest absolute value in any slot.
    pub fn max_abs(&self) -> f64 {
        match self {
            Self::Constant(c) => c.norm(),
            Self::Runs { values, .. } => values.iter().fold(0.0, |m, v| m.max(v.norm())),
            Self::Slots(s) => s.max_abs(),
        }
    }
}

/// A plaintext operand: its slots, and the level and scale at which it is encoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlainSpec {
    /// The slots.
    pub pattern: PlainPattern,
    /// Level of the ciphertexts that it meets.
    pub level: usize,
    /// Encoding scale.
    pub scale: Scale,
}

/// What is known of a value before anything runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueInfo {
    /// Level of the ciphertext.
    pub level: usize,
    /// Its exact scale.
    pub scale: Scale,
    /// No slot, junk and padding included, exceeds this in absolute value.
    pub bound: f64,
    /// The mean over the slots of their absolute values does not exceed this. A coefficient of the
    /// encoded polynomial is at most this mean times the scale (the inverse embedding averages).
    pub mean: f64,
}

/// One operation. All of them give one value, but for [`Operation::RotateMany`],
/// [`Operation::LinearTransform`] and [`Operation::Bootstrap`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Operation {
    /// Ciphertext number `index` of the client.
    Input {
        /// Position in the client's upload.
        index: usize,
    },
    /// Sum.
    Add(ValueId, ValueId),
    /// Difference.
    Sub(ValueId, ValueId),
    /// Negation.
    Negate(ValueId),
    /// Sum with a plaintext.
    AddPlain(ValueId, PlainId),
    /// Product with a plaintext, not rescaled.
    MulPlain(ValueId, PlainId),
    /// Rescale by one level.
    Rescale(ValueId),
    /// Sum of products, relinearized once and rescaled.
    MulSum(Vec<(ValueId, ValueId)>),
    /// Rotations of one value by each of the steps, from one decomposition.
    RotateMany {
        /// What is rotated.
        source: ValueId,
        /// `out[j] = in[j + step]`, one result per step.
        steps: Vec<i64>,
    },
    /// Complex conjugate of every slot.
    Conjugate(ValueId),
    /// Forgets limbs; the scale stays.
    DropTo {
        /// The operand.
        source: ValueId,
        /// The lower level.
        level: usize,
    },
    /// To the canonical scale of a lower level.
    Adjust {
        /// The operand.
        source: ValueId,
        /// The lower level.
        level: usize,
    },
    /// Linear maps on slots by baby-step giant-step, rescaled: one result per map.
    LinearTransform {
        /// The operands, all of one level and scale.
        inputs: Vec<ValueId>,
        /// The maps, which share the rotated operands.
        transforms: Vec<Transform<PlainId>>,
    },
    /// A linear map on slots with nested giant steps, rescaled.
    NestedTransform {
        /// The operands, all of one level and scale.
        inputs: Vec<ValueId>,
        /// The map.
        transform: Transform<PlainId>,
    },
    /// From level 0 to the highest one, under an ephemeral secret.
    ModRaise(ValueId),
    /// The same values at a higher level: one result per input.
    Bootstrap {
        /// One value, or a pair of real ones.
        inputs: Vec<ValueId>,
        /// Entry of the program's table.
        which: u32,
    },
    /// One value plus its rotations by each of the steps, from one decomposition and with one ModDown.
    RotateSum {
        /// What is rotated.
        source: ValueId,
        /// `out[j] = in[j] + in[j + step] + ..`
        steps: Vec<i64>,
    },
}

impl Operation {
    /// The values that the operation reads, repeats included.
    pub fn operands(&self) -> Vec<ValueId> {
        match self {
            Self::Input { .. } => vec![],
            Self::Add(a, b) | Self::Sub(a, b) => vec![*a, *b],
            Self::Negate(a)
            | Self::AddPlain(a, _)
            | Self::MulPlain(a, _)
            | Self::Rescale(a)
            | Self::Conjugate(a)
            | Self::ModRaise(a) => vec![*a],
            Self::MulSum(pairs) => pairs.iter().flat_map(|(a, b)| [*a, *b]).collect(),
            Self::RotateMany { source, .. }
            | Self::RotateSum { source, .. }
            | Self::DropTo { source, .. }
            | Self::Adjust { source, .. } => vec![*source],
            Self::LinearTransform { inputs, .. }
            | Self::NestedTransform { inputs, .. }
            | Self::Bootstrap { inputs, .. } => inputs.clone(),
        }
    }

    /// The linear maps of a transform of either kind.
    pub fn transforms(&self) -> &[Transform<PlainId>] {
        match self {
            Self::LinearTransform { transforms, .. } => transforms,
            Self::NestedTransform { transform, .. } => std::slice::from_ref(transform),
            _ => &[],
        }
    }

    /// The plaintexts that the operation reads, repeats included.
    pub fn plains(&self) -> Vec<PlainId> {
        match self {
            Self::AddPlain(_, p) | Self::MulPlain(_, p) => vec![*p],
            _ => {
                let giants = self.transforms().iter().flat_map(|t| &t.giants);
                let terms = giants.flat_map(|g| &g.terms);
                terms.map(|t| t.plain).collect()
            }
        }
    }

    /// What is done, without values, plaintexts and steps.
    pub fn name(&self) -> String {
        match self {
            Self::Input { .. } => "input".into(),
            Self::Add(..) => "add".into(),
            Self::Sub(..) => "sub".into(),
            Self::Negate(_) => "negate".into(),
            Self::AddPlain(..) => "add_plain".into(),
            Self::MulPlain(..) => "mul_plain".into(),
            Self::Rescale(_) => "rescale".into(),
            Self::MulSum(pairs) => format!("mul_sum of {}", pairs.len()),
            Self::RotateMany { steps, .. } => match steps.len() {
                1 => "rotate".into(),
                n => format!("rotate by {n} steps"),
            },
            Self::RotateSum { steps, .. } => format!("rotate_sum over {} steps", steps.len()),
            Self::Conjugate(_) => "conjugate".into(),
            Self::DropTo { level, .. } => format!("drop to level {level}"),
            Self::Adjust { level, .. } => format!("adjust to level {level}"),
            Self::LinearTransform { .. } | Self::NestedTransform { .. } => {
                let giants = || self.transforms().iter().flat_map(|t| &t.giants);
                let products: usize = giants().map(|g| g.terms.len()).sum();
                let (kind, steps) = match self {
                    Self::NestedTransform { .. } => ("nested_transform", "nested giant steps"),
                    _ => ("linear_transform", "giant steps"),
                };
                format!(
                    "{kind} of {products} diagonals, {} {steps},",
                    giants().count()
                )
            }
            Self::ModRaise(_) => "mod_raise".into(),
            Self::Bootstrap { inputs, which } => match inputs.len() {
                2 => format!("bootstrap {which} of a pair"),
                _ => format!("bootstrap {which}"),
            },
        }
    }
}

/// An operation and the values that it makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instruction {
    /// What is done.
    pub operation: Operation,
    /// What comes out.
    pub results: Vec<ValueId>,
    /// Which part of the model this belongs to (an index into `CiphertextProgram::sections`).
    pub section: u32,
}

/// A program on ciphertexts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CiphertextProgram {
    /// Digest of the parameters that it was compiled for.
    pub params_digest: [u8; 32],
    /// Slots per ciphertext.
    pub slots: usize,
    /// Sentences that one run answers.
    pub batch: usize,
    /// Names of the model's parts, for people: "layer 0 attention scores".
    pub sections: Vec<String>,
    /// Per input ciphertext: level, scale and slot bound that the client must keep.
    pub inputs: Vec<ValueInfo>,
    /// The plaintext operands.
    pub plains: Vec<PlainSpec>,
    /// The instructions, operands before their uses.
    pub instructions: Vec<Instruction>,
    /// Per value.
    pub values: Vec<ValueInfo>,
    /// What goes back to the client.
    pub outputs: Vec<ValueId>,
    /// The bootstraps that instructions name. Not part of the program's serialized form, which is
    /// older: what stores a program stores their specifications beside it
    /// ([`CiphertextProgram::set_bootstraps`]).
    #[serde(skip)]
    pub bootstraps: Vec<BootstrapInfo>,
}

impl CiphertextProgram {
    /// Per plaintext whether it has to be encoded modulo the special primes as well
    /// ([`veilformer_ckks::Ops::extended_plain`]): some transform multiplies a rotated input with
    /// it. This follows from the instructions, and is not stored.
    pub fn extended_plains(&self) -> Vec<bool> {
        let mut extended = vec![false; self.plains.len()];
        for instruction in &self.instructions {
            let giants = instruction
                .operation
                .transforms()
                .iter()
                .flat_map(|t| &t.giants);
            let terms = giants.flat_map(|g| &g.terms);
            for term in terms.filter(|t| moves(t.baby, self.slots)) {
                if let Some(extended) = extended.get_mut(term.plain.0 as usize) {
                    *extended = true;
                }
            }
        }
        extended
    }

    /// The keys that an operation switches with, repeats included; rotations by their step in
    /// `1..slots`.
    pub fn key_uses(&self, operation: &Operation) -> Vec<KeyPurpose> {
        let slots = self.slots;
        let turns = |step: &i64| {
            let step = step.rem_euclid(slots.max(1) as i64);
            moves(step, slots).then_some(KeyPurpose::Rotation(step))
        };
        match operation {
            Operation::MulSum(_) => vec![KeyPurpose::Relinearization],
            Operation::Conjugate(_) => vec![KeyPurpose::Conjugation],
            Operation::RotateMany { steps, .. } | Operation::RotateSum { steps, .. } => {
                steps.iter().filter_map(turns).collect()
            }
            // The levels do not matter here.
            Operation::ModRaise(_) => mod_raise_keys(0).into_iter().map(|key| key.0).collect(),
            Operation::Bootstrap { which, .. } => {
                let entry = self.bootstraps.get(*which as usize);
                entry.map_or_else(Vec::new, |b| b.order.clone())
            }
            _ => {
                let giants = operation.transforms().iter().flat_map(|t| &t.giants);
                let of = |g: &Giant<PlainId>| {
                    let steps = g.terms.iter().map(|t| t.baby).chain([g.rotation]);
                    steps.collect::<Vec<_>>()
                };
                giants
                    .flat_map(of)
                    .collect::<Vec<_>>()
                    .iter()
                    .filter_map(turns)
                    .collect()
            }
        }
    }

    /// What is known of `id`, where it exists.
    pub fn info(&self, id: ValueId) -> Option<&ValueInfo> {
        self.values.get(id.0 as usize)
    }
}
