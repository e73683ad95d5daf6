//! The entities of a device program.

use veilformer_ckks::KeyPurpose;

use crate::ciphertext::PlainId;

/// A buffer slot of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub u32);

/// What a buffer slot can hold: a ciphertext of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Level of the ciphertexts; all that the slot ever holds are of it.
    pub level: usize,
    /// Bytes.
    pub bytes: u64,
}

/// A number that may differ from one iteration of a loop to the next: of an instruction, or of a
/// buffer. Iterations of nested loops count as one run, the innermost loop's fastest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// The same in every iteration.
    Fixed(u32),
    /// `first + stride * iteration`.
    Strided {
        /// In iteration 0.
        first: u32,
        /// From one iteration to the next.
        stride: i64,
    },
    /// One by one.
    Table(Vec<u32>),
}

impl Column {
    /// The column of these numbers, one per iteration, in its shortest form.
    pub fn of(numbers: &[u32]) -> Self {
        let first = numbers.first().copied().unwrap_or(0);
        let second = numbers.get(1).copied().unwrap_or(first);
        let stride = i64::from(second) - i64::from(first);
        let on_line = |(i, n): (usize, &u32)| i64::from(*n) == i64::from(first) + stride * i as i64;
        if !numbers.iter().enumerate().all(on_line) {
            Self::Table(numbers.to_vec())
        } else if stride == 0 {
            Self::Fixed(first)
        } else {
            Self::Strided { first, stride }
        }
    }

    /// The number of an iteration, if there is one.
    pub fn at(&self, iteration: usize) -> Option<u32> {
        match self {
            Self::Fixed(n) => Some(*n),
            Self::Strided { first, stride } => {
                let offset = stride.checked_mul(i64::try_from(iteration).ok()?)?;
                u32::try_from(i64::from(*first).checked_add(offset)?).ok()
            }
            Self::Table(numbers) => numbers.get(iteration).copied(),
        }
    }
}

/// One instruction of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which instruction of the ciphertext program.
    pub instruction: Column,
    /// Per operand of the instruction, in the order of its operands and with their repeats, the
    /// buffer that holds it.
    pub reads: Vec<Column>,
    /// Per result the buffer that takes it.
    pub writes: Vec<Column>,
    /// Per distinct operand, and then per result, its buffer if it is free after this step, or
    /// [`NONE`].
    pub releases: Vec<Column>,
}

/// In the place of a buffer that is not free after a step.
pub const NONE: u32 = u32::MAX;

/// A part of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// One instruction.
    Step(Step),
    /// A block that repeats.
    Loop {
        /// How often.
        count: usize,
        /// The block.
        body: Vec<Node>,
    },
}

/// A step with the numbers of one iteration filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Index of the instruction in the ciphertext program.
    pub instruction: usize,
    /// As in [`Step`].
    pub reads: Vec<BufferId>,
    /// As in [`Step`].
    pub writes: Vec<BufferId>,
    /// Buffers that are free after this step.
    pub releases: Vec<BufferId>,
}

/// The program of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceProgram {
    /// Steps that may run at once.
    pub threads: usize,
    /// The buffers.
    pub buffers: Vec<Buffer>,
    /// The stream.
    pub nodes: Vec<Node>,
    /// Where the answers lie at the end.
    pub outputs: Vec<BufferId>,
    /// Keys in the order of their first use.
    pub keys: Vec<KeyPurpose>,
    /// Plaintexts in the order of their first use.
    pub plains: Vec<PlainId>,
}

impl DeviceProgram {
    /// Bytes of all buffers: what ciphertexts take during a run, scratch of the operations not
    /// included.
    pub fn buffer_bytes(&self) -> u64 {
        self.buffers.iter().map(|b| b.bytes).sum()
    }

    /// The stream without loops, in its order. A number that a column does not have ends it with
    /// `None`.
    pub fn steps(&self) -> Option<Vec<Resolved>> {
        let mut out = Vec::new();
        unroll(&self.nodes, 0, &mut out)?;
        Some(out)
    }

    /// Steps and loops as they are written down, bodies counted once.
    pub fn written_steps(&self) -> usize {
        fn count(nodes: &[Node]) -> usize {
            let one = |n: &Node| match n {
                Node::Step(_) => 1,
                Node::Loop { body, .. } => count(body),
            };
            nodes.iter().map(one).sum()
        }
        count(&self.nodes)
    }
}

fn unroll(nodes: &[Node], iteration: usize, out: &mut Vec<Resolved>) -> Option<()> {
    for node in nodes {
        match node {
            Node::Step(step) => {
                let all = |columns: &[Column]| -> Option<Vec<BufferId>> {
                    columns
                        .iter()
                        .map(|c| c.at(iteration).map(BufferId))
                        .collect()
                };
                out.push(Resolved {
                    instruction: step.instruction.at(iteration)? as usize,
                    reads: all(&step.reads)?,
                    writes: all(&step.writes)?,
                    releases: {
                        let mut freed = all(&step.releases)?;
                        freed.retain(|b| b.0 != NONE);
                        freed
                    },
                });
            }
            Node::Loop { count, body } => {
                for i in 0..*count {
                    unroll(body, iteration.checked_mul(*count)?.checked_add(i)?, out)?;
                }
            }
        }
    }
    Some(())
}
