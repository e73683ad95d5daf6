//! Is the stream its ciphertext program, within its buffers?

use std::collections::BTreeSet;

use super::{BufferId, DeviceProgram, Resolved};
use crate::IrError;
use crate::ciphertext::{CiphertextProgram, ValueId};

impl DeviceProgram {
    /// Checks that every instruction of `program` is done once, after what it depends on; that
    /// every buffer holds what is read from it, is of the level of what it takes, and is not
    /// overwritten while it is needed; that keys and plaintexts are all listed, in the order of
    /// their first use. `program` itself must have been verified.
    ///
    /// # Errors
    /// [`IrError::Device`] with the first step that does not fit and why.
    pub fn verify(&self, program: &CiphertextProgram) -> Result<(), IrError> {
        let fail = |index: usize, why: String| Err(IrError::Device { index, why });
        let Some(steps) = self.steps() else {
            return fail(0, "a loop has more iterations than numbers".into());
        };
        let mut done = vec![false; program.instructions.len()];
        let mut held: Vec<Option<ValueId>> = vec![None; self.buffers.len()];
        for (index, step) in steps.iter().enumerate() {
            self.check(program, step, &mut done, &mut held)
                .map_err(|why| IrError::Device { index, why })?;
        }
        if let Some(missing) = done.iter().position(|d| !d) {
            return fail(steps.len(), format!("instruction {missing} is never done"));
        }
        let held_at = |b: &BufferId| held.get(b.0 as usize).copied().flatten();
        let answers: Vec<_> = self.outputs.iter().map(held_at).collect();
        let wanted: Vec<_> = program.outputs.iter().map(|id| Some(*id)).collect();
        if answers != wanted {
            return fail(steps.len(), "the answers are not in their buffers".into());
        }
        self.check_resources(program, &steps)
            .map_err(|why| IrError::Device { index: 0, why })
    }

    fn check(
        &self,
        program: &CiphertextProgram,
        step: &Resolved,
        done: &mut [bool],
        held: &mut [Option<ValueId>],
    ) -> Result<(), String> {
        let at = step.instruction;
        let (Some(instruction), Some(mark)) = (program.instructions.get(at), done.get_mut(at))
        else {
            return Err(format!("there is no instruction {at}"));
        };
        if std::mem::replace(mark, true) {
            return Err(format!("instruction {at} is done twice"));
        }
        let operands = instruction.operation.operands();
        if operands.len() != step.reads.len() || instruction.results.len() != step.writes.len() {
            return Err(format!("instruction {at} has other operands or results"));
        }
        for (id, buffer) in operands.iter().zip(&step.reads) {
            if held.get(buffer.0 as usize).copied().flatten() != Some(*id) {
                return Err(format!("buffer b{} does not hold c{}", buffer.0, id.0));
            }
        }
        for (id, buffer) in instruction.results.iter().zip(&step.writes) {
            let (Some(place), Some(room)) = (
                held.get_mut(buffer.0 as usize),
                self.buffers.get(buffer.0 as usize),
            ) else {
                return Err(format!("there is no buffer b{}", buffer.0));
            };
            if let Some(other) = place {
                return Err(format!("buffer b{} still holds c{}", buffer.0, other.0));
            }
            let level = program.info(*id).map_or(0, |v| v.level);
            if level != room.level {
                return Err(format!(
                    "buffer b{} is for level {} and c{} is of level {level}",
                    buffer.0, room.level, id.0
                ));
            }
            *place = Some(*id);
        }
        for buffer in &step.releases {
            let freed = held.get_mut(buffer.0 as usize).and_then(Option::take);
            if freed.is_none() {
                return Err(format!("buffer b{} is let go and holds nothing", buffer.0));
            }
        }
        Ok(())
    }

    fn check_resources(
        &self,
        program: &CiphertextProgram,
        steps: &[Resolved],
    ) -> Result<(), String> {
        let (keys, plains) = resources(program, steps.iter().map(|s| s.instruction));
        let unique = self.keys.iter().collect::<BTreeSet<_>>().len() == self.keys.len();
        if !unique || keys != self.keys || plains != self.plains {
            return Err("its keys or plaintexts are not those that the stream uses first".into());
        }
        Ok(())
    }
}

/// Keys and plaintexts of the instructions, in the order of their first use.
pub fn resources(
    program: &CiphertextProgram,
    order: impl Iterator<Item = usize>,
) -> (
    Vec<veilformer_ckks::KeyPurpose>,
    Vec<crate::ciphertext::PlainId>,
) {
    let (mut keys, mut plains) = (Vec::new(), Vec::new());
    let (mut known_keys, mut known_plains) = (BTreeSet::new(), BTreeSet::new());
    for instruction in order.filter_map(|i| program.instructions.get(i)) {
        for key in program.key_uses(&instruction.operation) {
            if known_keys.insert(key) {
                keys.push(key);
            }
        }
        for plain in instruction.operation.plains() {
            if known_plains.insert(plain) {
                plains.push(plain);
            }
        }
    }
    (keys, plains)
}
