//! Data sets of labelled sentences, their format found by content.

use std::io::Read;
use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::error::{ModelError, Result};

/// A sentence and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The sentence as it stands in the file, outer spaces removed.
    pub text: String,
    /// The class.
    pub label: usize,
}

/// Lines `start..end` of a file, counted from 0, `end` not among them. In text `4265..4798`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineRange {
    start: usize,
    end: usize,
}

impl LineRange {
    /// The lines `start..end`; `None` where there is none.
    pub fn new(start: usize, end: usize) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// Number of lines, at least 1.
    pub fn count(&self) -> usize {
        self.end - self.start
    }

    fn contains(self, line: usize) -> bool {
        (self.start..self.end).contains(&line)
    }
}

impl std::str::FromStr for LineRange {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parts = text.split_once("..");
        let range =
            parts.and_then(|(a, b)| Self::new(a.trim().parse().ok()?, b.trim().parse().ok()?));
        range.ok_or_else(|| {
            format!(
                "lines are `{}`, expected FIRST..END with FIRST below END, counted from 0 and END \
                 not among them, as in 0..100",
                text.chars().take(40).collect::<String>()
            )
        })
    }
}

impl std::fmt::Display for LineRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// A list of labelled sentences in the file's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DataSet {
    /// The sentences.
    pub examples: Vec<Example>,
}

impl DataSet {
    /// Reads `path`. The formats, told apart by content:
    /// * `label text` lines (the stsa.binary files);
    /// * `text<TAB>label` with a header that names both columns, in any order (GLUE);
    /// * a `.pos` and a `.neg` file with a sentence per line (rt-polarity), given either of them or
    ///   the folder that holds the pair; positive (1) sentences first.
    ///
    /// # Errors
    /// When a file cannot be read, is larger than 1 GiB, is not UTF-8, is of none of the formats, or
    /// a line is not in the file's format. Messages have the line's number.
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_lines(path, None)
    }

    /// As [`DataSet::load`], of some lines only: of either file of a pair these lines, of a table
    /// these lines below its header. Empty lines count.
    ///
    /// # Errors
    /// As [`DataSet::load`], and when a file has fewer lines.
    pub fn load_lines(path: &Path, lines: Option<LineRange>) -> Result<Self> {
        let set = if path.is_dir() {
            Self::load_pair(&find_pair_in(path)?, lines)?
        } else if matches!(
            path.extension().and_then(|e| e.to_str()),
            Some("pos" | "neg")
        ) {
            Self::load_pair(path, lines)?
        } else {
            Self::parse_lines(path, &read_text(path)?, lines)?
        };
        if set.examples.is_empty() {
            return Err(whole(path, "no sentence in it; expected at least one"));
        }
        Ok(set)
    }

    /// Parses the text of a single-file format; `path` is used in messages only.
    ///
    /// # Errors
    /// As [`DataSet::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        Self::parse_lines(path, text.strip_prefix(MARK).unwrap_or(text), None)
    }

    fn parse_lines(path: &Path, text: &str, range: Option<LineRange>) -> Result<Self> {
        let mut lines = text.lines().enumerate();
        let first = text.lines().next().unwrap_or_default();
        let columns: Vec<String> = first
            .split('\t')
            .map(|c| c.trim().to_ascii_lowercase())
            .collect();
        let header = if columns.len() > 1 {
            let find = |names: &[&str]| columns.iter().position(|c| names.contains(&c.as_str()));
            let (text, label) = (find(&["sentence", "text"]), find(&["label"]));
            let (Some(text), Some(label)) = (text, label) else {
                return Err(ModelError::Data {
                    path: path.to_owned(),
                    line: 1,
                    what: format!(
                        "the header names the columns {columns:?}, expected `sentence` (or `text`) \
                         and `label`; add a header line"
                    ),
                });
            };
            lines.next();
            Some((text, label))
        } else {
            None
        };
        let above = usize::from(header.is_some());
        check_range(path, text.lines().count() - above, range)?;
        let mut examples = Vec::new();
        for (index, line) in lines {
            if line.trim().is_empty() || range.is_some_and(|r| !r.contains(index - above)) {
                continue;
            }
            let (label, text) = match header {
                Some((text, label)) => {
                    let cells: Vec<&str> = line.split('\t').collect();
                    if cells.len() != columns.len() {
                        return Err(ModelError::Data {
                            path: path.to_owned(),
                            line: index + 1,
                            what: format!(
                                "{} columns, expected the header's {}; check the line's tabs",
                                cells.len(),
                                columns.len()
                            ),
                        });
                    }
                    let cell = |i: usize| cells.get(i).copied().unwrap_or_default();
                    (cell(label), cell(text))
                }
                None => line.split_once(' ').unwrap_or((line, "")),
            };
            let (label, text) = (label.trim(), text.trim());
            let label = parse_label(label).ok_or_else(|| ModelError::Data {
                path: path.to_owned(),
                line: index + 1,
                what: format!(
                    "the label is `{}`, expected a whole number of at most 4 digits; lines are \
                     `label text`, or `text<TAB>label` under a header, or use a .pos/.neg pair",
                    label.chars().take(40).collect::<String>()
                ),
            })?;
            if text.is_empty() {
                return Err(ModelError::Data {
                    path: path.to_owned(),
                    line: index + 1,
                    what: "no sentence beside the label; add one or remove the line".into(),
                });
            }
            examples.push(Example {
                text: text.to_owned(),
                label,
            });
        }
        Ok(Self { examples })
    }

    /// At most `limit` sentences drawn without repetition by a generator seeded with `seed`; the
    /// same on every machine. With a limit at or above the size: all sentences, shuffled.
    pub fn sample(&self, limit: usize, seed: u64) -> Self {
        let order = permutation(self.examples.len(), &mut ChaCha8Rng::seed_from_u64(seed));
        let examples = order
            .into_iter()
            .take(limit)
            .filter_map(|i| self.examples.get(i).cloned())
            .collect();
        Self { examples }
    }

    /// Number of sentences.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there is no sentence.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    fn load_pair(either: &Path, range: Option<LineRange>) -> Result<Self> {
        let mut examples = Vec::new();
        for (extension, label) in [("pos", 1), ("neg", 0)] {
            let path = either.with_extension(extension);
            let text = read_text(&path)?;
            check_range(&path, text.lines().count(), range)?;
            examples.extend(
                text.lines()
                    .enumerate()
                    .filter(|(index, _)| range.is_none_or(|r| r.contains(*index)))
                    .map(|(_, line)| line.trim())
                    .filter(|line| !line.is_empty())
                    .map(|line| Example {
                        text: line.to_owned(),
                        label,
                    }),
            );
        }
        Ok(Self { examples })
    }
}

/// A uniform permutation of `0..n` (Fisher-Yates), a function of the generator's state only.
pub fn permutation(n: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, below(i as u64 + 1, rng) as usize);
    }
    order
}

/// A uniform number below `bound` (at least 1), by rejection.
pub fn below(bound: u64, rng: &mut impl Rng) -> u64 {
    let bound = bound.max(1);
    let limit = u64::MAX - u64::MAX % bound;
    loop {
        let word = rng.next_u64();
        if word < limit {
            return word % bound;
        }
    }
}

fn check_range(path: &Path, count: usize, range: Option<LineRange>) -> Result<()> {
    match range {
        Some(range) if range.end > count => Err(whole(
            path,
            format!("it has {count} lines and {range} were asked for; ask for lines below {count}"),
        )),
        _ => Ok(()),
    }
}

fn parse_label(label: &str) -> Option<usize> {
    let digits = (1..=4).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| label.parse().ok()).flatten()
}

fn whole(path: &Path, what: impl Into<String>) -> ModelError {
    ModelError::DataSet {
        path: path.to_owned(),
        what: what.into(),
    }
}

/// The byte order mark, which some editors write in front of a text.
const MARK: char = '\u{feff}';

/// The most that is read of a file: a device may give bytes without end.
const LARGEST: u64 = 1 << 30;

/// The text of a file, without a byte order mark in front.
///
/// # Errors
/// When the file cannot be read, is larger than 1 GiB, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let text = text_within(path, LARGEST)?;
    match text.strip_prefix(MARK) {
        Some(rest) => Ok(rest.to_owned()),
        None => Ok(text),
    }
}

fn text_within(path: &Path, limit: u64) -> Result<String> {
    let failed = |source| ModelError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let announced = file.metadata().map_err(failed)?.len();
    if announced <= limit {
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
    }
    if announced.max(bytes.len() as u64) > limit {
        return Err(whole(
            path,
            format!("it has more than {limit} bytes; give a part of it"),
        ));
    }
    String::from_utf8(bytes).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let line = e
            .as_bytes()
            .iter()
            .take(valid)
            .filter(|&&b| b == b'\n')
            .count()
            + 1;
        ModelError::Data {
            path: path.to_owned(),
            line,
            what: "not UTF-8 text; convert the file to UTF-8".into(),
        }
    })
}

fn find_pair_in(dir: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(dir).map_err(|source| ModelError::Read {
        path: dir.to_owned(),
        source,
    })?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "pos"))
        .filter(|p| p.with_extension("neg").is_file())
        .collect();
    found.sort();
    match found.len() {
        1 => Ok(found.remove(0)),
        n => Err(whole(
            dir,
            format!(
                "{n} pairs of a .pos and a .neg file in this folder, expected 1; name the file"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::text_within;

    #[cfg(unix)]
    #[test]
    fn a_device_without_end_ends_with_a_sentence() {
        let message = text_within(Path::new("/dev/zero"), 1000).map_err(|e| e.to_string());
        let expected = "/dev/zero: it has more than 1000 bytes; give a part of it";
        assert_eq!(message, Err(expected.to_owned()));
    }
}
