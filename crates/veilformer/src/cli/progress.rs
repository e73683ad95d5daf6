//! What is shown meanwhile: bars on a terminal, plain lines elsewhere, nothing when quiet.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::args::ProgressKind;

/// Time between two plain lines of one stage.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// How progress is shown; all of it on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Quiet,
    Lines,
    Bars,
    Json,
}

impl Progress {
    pub fn new(quiet: bool, kind: ProgressKind) -> Self {
        match (quiet, kind, std::io::stderr().is_terminal()) {
            (true, ..) => Self::Quiet,
            (_, ProgressKind::Json, _) => Self::Json,
            (.., true) => Self::Bars,
            (.., false) => Self::Lines,
        }
    }

    /// Something that the user should know and that stops nothing.
    pub fn note(self, text: &str) {
        match self {
            Self::Quiet => {}
            Self::Json => {
                let object = serde_json::json!({ "note": text });
                line(&object.to_string());
            }
            Self::Lines | Self::Bars => line(&format!("note: {text}")),
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
        let stage = Stage {
            name,
            bar,
            how: self,
            started: Instant::now(),
            last: Mutex::new((Instant::now(), String::new())),
        };
        if self == Self::Json {
            stage.json(&Report::default());
        }
        stage
    }
}

/// A step that takes time.
pub struct Stage {
    name: &'static str,
    bar: Option<ProgressBar>,
    how: Progress,
    started: Instant,
    /// When it was told of last, and the part that it was in.
    last: Mutex<(Instant, String)>,
}

/// What `--progress json` says beside the stage and its seconds.
#[derive(Debug, Default, Serialize)]
struct Report<'a> {
    /// A part of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_left: Option<f64>,
    /// Whether the stage is over.
    finished: bool,
}

impl Stage {
    /// Tells how far it is.
    pub fn update(&self, done: usize, total: usize) {
        self.advance(&Report {
            done: Some(done),
            total: Some(total),
            ..Report::default()
        });
    }

    /// Tells what part of a model it is at.
    pub fn part(&self, part: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {part}", self.name));
        }
        self.advance(&Report {
            part: Some(part),
            ..Report::default()
        });
    }

    /// Tells how far it is, in which part of a model (if it has parts), when the work done is so large
    /// a share of all.
    pub fn share(&self, (done, total): (usize, usize), part: &str, share: f64) {
        let elapsed = self.started.elapsed().as_secs_f64();
        // Before a thousandth is done a guess would be wild.
        let left = (share > 1e-3).then(|| elapsed * (1.0 - share) / share);
        let part = (!part.is_empty()).then_some(part);
        if let (Some(bar), Some(part)) = (&self.bar, part) {
            bar.set_message(format!("{}: {part}", self.name));
        }
        self.advance(&Report {
            part,
            done: Some(done),
            total: Some(total),
            seconds_left: left,
            ..Report::default()
        });
    }

    fn advance(&self, report: &Report<'_>) {
        if let (Some(bar), Some(done), Some(total)) = (&self.bar, report.done, report.total) {
            if bar.length() != Some(total as u64) {
                bar.set_length(total as u64);
                let template = "{msg} [{bar:30}] {pos}/{len} {elapsed}, {eta} left";
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style.progress_chars("=> "));
                }
            }
            bar.set_position(done as u64);
        }
        if !matches!(self.how, Progress::Lines | Progress::Json) {
            return;
        }
        let part = report.part.unwrap_or_default();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let new_part = self.how == Progress::Json && last.1 != part;
        if last.0.elapsed() < LINE_EVERY && !new_part {
            return;
        }
        *last = (Instant::now(), part.to_owned());
        drop(last);
        if self.how == Progress::Json {
            return self.json(report);
        }
        let mut text = self.name.to_owned();
        if !part.is_empty() {
            text.push_str(&format!(", {part}"));
        }
        if let (Some(done), Some(total)) = (report.done, report.total) {
            text.push_str(&format!(": {done} of {total}"));
        }
        if let Some(left) = report.seconds_left {
            text.push_str(&format!(", about {left:.0} s left"));
        }
        line(&text);
    }

    fn json(&self, report: &Report<'_>) {
        #[derive(Serialize)]
        struct Line<'a> {
            stage: &'a str,
            seconds: f64,
            #[serde(flatten)]
            report: &'a Report<'a>,
        }
        let object = Line {
            stage: self.name,
            seconds: self.started.elapsed().as_secs_f64(),
            report,
        };
        if let Ok(text) = serde_json::to_string(&object) {
            line(&text);
        }
    }

    /// Ends it; returns its seconds.
    pub fn finish(self) -> f64 {
        let seconds = self.started.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        match self.how {
            Progress::Lines => line(&format!("{}: {seconds:.2} s", self.name)),
            Progress::Json => self.json(&Report {
                finished: true,
                ..Report::default()
            }),
            _ => {}
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
