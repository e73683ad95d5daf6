//! How far what takes minutes is, and where to stop it.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use crate::error::{ModelError, Result};

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reached {
    /// What is being done, in a few words.
    pub step: &'static str,
    /// Sentences (or heads) that are done.
    pub done: usize,
    /// All of them.
    pub total: usize,
    /// The share of the step's work that this is, if that is known: sentences count by their tokens.
    pub share: Option<f64>,
}

/// Hears at a step's beginning (nothing is done) and after every sentence how far it is; breaks to
/// stop it. Never called by two threads at a time.
pub type Progress<'a> = dyn Fn(Reached) -> ControlFlow<()> + Sync + 'a;

/// Nobody listens, nobody stops.
pub(super) const UNHEARD: &Progress<'static> = &|_| ControlFlow::Continue(());

/// One step, counted by all threads that work on it.
pub struct Pass<'p> {
    step: &'static str,
    total: usize,
    /// All work, in any unit; 0 if it is not known.
    work: usize,
    /// Sentences and work done.
    done: Mutex<(usize, usize)>,
    progress: &'p Progress<'p>,
}

impl<'p> Pass<'p> {
    /// Begins a step of so much, with the work of it in any unit (0 if that is not known).
    ///
    /// # Errors
    /// [`ModelError::Stopped`] if the caller breaks.
    pub fn begin(
        step: &'static str,
        (total, work): (usize, usize),
        progress: &'p Progress<'p>,
    ) -> Result<Self> {
        let pass = Self {
            step,
            total,
            work,
            done: Mutex::new((0, 0)),
            progress,
        };
        pass.tell((0, 0))?;
        Ok(pass)
    }

    /// Begins a step that goes through sentences once; the work of one are its tokens.
    ///
    /// # Errors
    /// As [`Pass::begin`].
    pub fn through(
        step: &'static str,
        sentences: &[Vec<u32>],
        progress: &'p Progress<'p>,
    ) -> Result<Self> {
        let tokens = sentences.iter().map(Vec::len).sum();
        Self::begin(step, (sentences.len(), tokens), progress)
    }

    /// Counts one more, which was so much work.
    ///
    /// # Errors
    /// As [`Pass::begin`].
    pub fn advance(&self, work: usize) -> Result<()> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.0 += 1;
        done.1 += work;
        self.tell(*done)
    }

    fn tell(&self, (done, work): (usize, usize)) -> Result<()> {
        let reached = Reached {
            step: self.step,
            done,
            total: self.total,
            share: (self.work > 0).then(|| work as f64 / self.work as f64),
        };
        match (self.progress)(reached) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ModelError::Stopped {
                step: self.step,
                done,
                total: self.total,
            }),
        }
    }
}
