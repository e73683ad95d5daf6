//! A thread that expands evaluation keys before they are used.
//!
//! A circuit uses its keys in the same order each time. The order is written down while they are used;
//! once it is known, those that come next are expanded meanwhile, into what is left to be prepared by
//! the backend.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use veilformer_ring::SwitchingKey;

use crate::container::{ContainerError, KeyFile};
use crate::{CkksError, Params, StoredSwitchingKey};

/// Most uses that an order remembers.
const LONGEST: usize = 1 << 12;

/// Where a key is while nobody computes with it.
#[derive(Clone)]
pub(crate) enum Source {
    /// As it was sent, in memory.
    Memory(Arc<StoredSwitchingKey>),
    /// The key of a number in a file.
    File(Arc<KeyFile>, usize),
}

impl Source {
    /// The key as the ring takes it, with the limbs of a level, checked.
    pub(crate) fn expand(&self, params: &Params, level: usize) -> Result<SwitchingKey, CkksError> {
        match self {
            Self::Memory(stored) => stored.expand_at(params, level),
            Self::File(file, index) => file.key(*index)?.expand_at(params, level),
        }
    }
}

/// A use of a key: its name and level.
type Use<N> = (N, usize);

struct State<N> {
    /// Uses in the order of their first time.
    order: Vec<Use<N>>,
    /// Where in the order the last use was, plus one.
    at: usize,
    queue: VecDeque<(Use<N>, Source)>,
    making: Option<Use<N>>,
    ready: Vec<(Use<N>, SwitchingKey)>,
    ended: bool,
}

struct Shared<N> {
    state: Mutex<State<N>>,
    changed: Condvar,
}

impl<N> Shared<N> {
    fn state(&self) -> MutexGuard<'_, State<N>> {
        // No change of the state is left half made by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State<N>>) -> MutexGuard<'s, State<N>> {
        let waited = self.changed.wait(state);
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread, which ends when this is dropped.
pub(crate) struct ReadAhead<N> {
    shared: Arc<Shared<N>>,
    count: usize,
    thread: Option<JoinHandle<()>>,
}

impl<N: Copy + Eq + Send + 'static> ReadAhead<N> {
    /// Starts it; at most `count` keys are expanded at a time.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn start(params: &Params, count: usize) -> Result<Self, CkksError> {
        let state = State {
            order: Vec::new(),
            at: 0,
            queue: VecDeque::new(),
            making: None,
            ready: Vec::new(),
            ended: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let (mine, params) = (shared.clone(), params.clone());
        let thread = std::thread::Builder::new()
            .name("read ahead".into())
            .spawn(move || work(&mine, &params))
            .map_err(ContainerError::Io)?;
        Ok(Self {
            shared,
            count,
            thread: Some(thread),
        })
    }

    /// The key if it is expanded for `level` at least, with its level; waits if that is under way.
    pub(crate) fn take(&self, name: N, level: usize) -> Option<(SwitchingKey, usize)> {
        let serves = |other: &Use<N>| other.0 == name && other.1 >= level;
        let mut state = self.shared.state();
        // Not begun yet: the caller does it, while the thread goes on with another.
        state.queue.retain(|(queued, _)| !serves(queued));
        while state.making.as_ref().is_some_and(serves) {
            state = self.shared.wait(state);
        }
        let at = state.ready.iter().position(|(ready, _)| serves(ready))?;
        let ((_, level), key) = state.ready.swap_remove(at);
        Some((key, level))
    }

    /// Notes a use and looks what comes next; `source` says where a key comes from that is to be
    /// expanded for a use.
    pub(crate) fn used(&self, name: N, level: usize, source: impl Fn(N, usize) -> Option<Source>) {
        let mut state = self.shared.state();
        let next = state.note((name, level));
        let mut wanted = Vec::with_capacity(self.count);
        let (before, after) = state.order.split_at(next);
        for &(name, level) in after.iter().chain(before) {
            if wanted.len() == self.count {
                break;
            }
            if wanted.iter().all(|(w, _): &(Use<N>, _)| w.0 != name)
                && let Some(source) = source(name, level)
            {
                wanted.push(((name, level), source));
            }
        }
        let is_wanted = |one: &Use<N>| wanted.iter().any(|(w, _)| w == one);
        state.ready.retain(|(ready, _)| is_wanted(ready));
        let there = |one: &Use<N>| {
            state.making.as_ref() == Some(one) || state.ready.iter().any(|(ready, _)| ready == one)
        };
        let queue = wanted.into_iter().filter(|(one, _)| !there(one)).collect();
        state.queue = queue;
        self.shared.changed.notify_all();
    }
}

impl<N: Copy + Eq> State<N> {
    /// Finds a use behind the one before, or from the beginning, or adds it; where the next one is.
    fn note(&mut self, one: Use<N>) -> usize {
        let (before, after) = self.order.split_at(self.at.min(self.order.len()));
        let place = |uses: &[Use<N>]| uses.iter().position(|other| *other == one);
        self.at = match (place(after), place(before)) {
            (Some(place), _) => before.len() + place + 1,
            (None, Some(place)) => place + 1,
            (None, None) => {
                // After the use that it follows.
                let at = before.len();
                if self.order.len() < LONGEST {
                    self.order.insert(at, one);
                }
                (at + 1).min(self.order.len())
            }
        };
        self.at
    }
}

impl<N> Drop for ReadAhead<N> {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say: what it could not expand is tried again where it is used.
            let _ = thread.join();
        }
    }
}

/// Says when the thread is no more, however it ended: nobody waits for it then.
struct Ending<'s, N>(&'s Shared<N>);

impl<N> Drop for Ending<'_, N> {
    fn drop(&mut self) {
        self.0.state().making = None;
        self.0.changed.notify_all();
    }
}

/// Expands what is asked for until the end.
fn work<N: Copy + Eq>(shared: &Shared<N>, params: &Params) {
    let _ending = Ending(shared);
    let mut state = shared.state();
    loop {
        if state.ended {
            return;
        }
        let Some((one, source)) = state.queue.pop_front() else {
            state = shared.wait(state);
            continue;
        };
        state.making = Some(one);
        drop(state);
        let key = source.expand(params, one.1);
        // The file's or the key's memory is given back before anybody waits for it.
        drop(source);
        state = shared.state();
        state.making = None;
        // An error is found again, and said, where the key is used.
        state.ready.extend(key.ok().map(|key| (one, key)));
        shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State<char> {
        State {
            order: Vec::new(),
            at: 0,
            queue: VecDeque::new(),
            making: None,
            ready: Vec::new(),
            ended: false,
        }
    }

    /// What is known to come after each use.
    fn nexts(state: &mut State<char>, uses: &[Use<char>]) -> Vec<Option<Use<char>>> {
        let next = |one: &Use<char>| {
            let at = state.note(*one);
            state.order.get(at).copied()
        };
        uses.iter().map(next).collect()
    }

    #[test]
    fn the_order_of_uses_is_learnt() {
        let mut state = state();
        // A key at several levels, and one use twice.
        let run = [('a', 3), ('b', 3), ('a', 2), ('c', 2), ('c', 1), ('c', 1)];
        assert_eq!(nexts(&mut state, &run), [None; 6]);
        assert_eq!(state.order, run[..5]);
        let next = |use_| Some(use_);
        let expected = [
            next(('b', 3)),
            next(('a', 2)),
            next(('c', 2)),
            next(('c', 1)),
            None,
            None,
        ];
        assert_eq!(nexts(&mut state, &run), expected);
        // What is new comes after what it followed.
        nexts(&mut state, &[('b', 3), ('d', 3), ('a', 2)]);
        assert_eq!(state.order[1..4], [('b', 3), ('d', 3), ('a', 2)]);
    }

    #[test]
    fn orders_do_not_grow_without_end() {
        let mut state = state();
        for level in 0..2 * LONGEST {
            state.note(('a', level));
        }
        assert_eq!((state.order.len(), state.at), (LONGEST, LONGEST));
    }
}
