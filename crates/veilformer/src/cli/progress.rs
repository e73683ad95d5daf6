//! What is shown meanwhile: bars on a terminal, plain lines elsewhere, nothing when quiet.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two plain lines of one stage.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// How progress is shown; all of it on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Quiet,
    Lines,
    Bars,
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Bars,
            (false, false) => Self::Lines,
        }
    }

    /// Begins a stage.
    pub fn stage(self, name: &'static str) -> Stage {
        let bar = (self == Self::Bars).then(|| {
            let bar = ProgressBar::new_spinner().with_message(name);
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Stage {
            name,
            bar,
            lines: self == Self::Lines,
            started: Instant::now(),
            last: Mutex::new(Instant::now()),
        }
    }
}

/// A step that takes time.
pub struct Stage {
    name: &'static str,
    bar: Option<ProgressBar>,
    lines: bool,
    started: Instant,
    last: Mutex<Instant>,
}

impl Stage {
    /// Tells how far it is.
    pub fn update(&self, done: usize, total: usize) {
        if let Some(bar) = &self.bar {
            if bar.length() != Some(total as u64) {
                bar.set_length(total as u64);
                let template = "{msg} [{bar:30}] {pos}/{len} {elapsed}, {eta} left";
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style.progress_chars("=> "));
                }
            }
            bar.set_position(done as u64);
        }
        if self.lines {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= LINE_EVERY {
                *last = Instant::now();
                line(&format!("{}: {done} of {total}", self.name));
            }
        }
    }

    /// Ends it; returns its seconds.
    pub fn finish(self) -> f64 {
        let seconds = self.started.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.lines {
            line(&format!("{}: {seconds:.2} s", self.name));
        }
        seconds
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line on standard error, whose loss harms nobody.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
