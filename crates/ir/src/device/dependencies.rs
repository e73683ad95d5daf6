//! Which steps of a stream wait for which.

use std::collections::BTreeSet;

use super::Resolved;

/// The order that a stream's buffers force on its steps. A step waits for who wrote what it reads,
/// for who read what it overwrites, and for who wrote there before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependencies {
    /// Per step: how many others must be done before it.
    pub waiting: Vec<usize>,
    /// Per step: those that wait for it.
    pub successors: Vec<Vec<usize>>,
}

impl Dependencies {
    /// The dependencies of a stream over so many buffers; numbers beyond them are passed over.
    pub fn of(steps: &[Resolved], buffers: usize) -> Self {
        let mut out = Self {
            waiting: vec![0; steps.len()],
            successors: vec![Vec::new(); steps.len()],
        };
        let mut writer: Vec<Option<usize>> = vec![None; buffers];
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); buffers];
        for (index, step) in steps.iter().enumerate() {
            let mut before = BTreeSet::new();
            for b in step.reads.iter().map(|b| b.0 as usize) {
                before.extend(writer.get(b).copied().flatten());
                if let Some(list) = readers.get_mut(b) {
                    list.push(index);
                }
            }
            for b in step.writes.iter().map(|b| b.0 as usize) {
                before.extend(writer.get(b).copied().flatten());
                if let (Some(list), Some(last)) = (readers.get_mut(b), writer.get_mut(b)) {
                    before.extend(list.drain(..));
                    *last = Some(index);
                }
            }
            before.remove(&index);
            out.waiting[index] = before.len();
            before
                .into_iter()
                .for_each(|b| out.successors[b].push(index));
        }
        out
    }
}
