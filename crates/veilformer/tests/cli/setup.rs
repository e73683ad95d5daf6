//! The binary, and files that most tests start from.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::SystemTime;

use tempfile::TempDir;

/// A sentence of the shipped model `order`, and its label.
pub const SENTENCE: (&str, &str) = ("blue stone red", "blue first");

/// The binary, run in a folder.
pub fn veilformer<S: AsRef<OsStr>>(folder: &Path, args: &[S]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veilformer"));
    command.args(args).current_dir(folder);
    command.output().unwrap()
}

/// As [`veilformer`]; it must succeed. What it wrote to standard output.
pub fn succeed<S: AsRef<OsStr>>(folder: &Path, args: &[S]) -> String {
    let output = veilformer(folder, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// As [`succeed`], the arguments in one line (`_` stands for a space in one of them).
pub fn say(folder: &Path, line: &str) -> String {
    let args: Vec<String> = line.split(' ').map(|a| a.replace('_', " ")).collect();
    succeed(folder, &args)
}

/// A folder with all files of one conversation about the model `order`.
pub fn conversation() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let at = folder.path();
        succeed(at, &["compile", "order", "-o", "."]);
        succeed(at, &["keygen"]);
        succeed(at, &["encrypt", SENTENCE.0]);
        succeed(at, &["run"]);
        folder
    });
    folder.path()
}

/// A copy of the files of [`conversation`]; large ones as links.
pub fn copy() -> TempDir {
    let copy = TempDir::new().unwrap();
    for entry in std::fs::read_dir(conversation()).unwrap() {
        let from = entry.unwrap().path();
        let to = copy.path().join(from.file_name().unwrap());
        if from.file_name() == Some(OsStr::new("keys.veil")) {
            std::fs::hard_link(from, to).unwrap();
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
    copy
}

/// Name, length and time of change of every file below a folder.
pub fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let data = entry.metadata().unwrap();
        if data.is_dir() {
            files.extend(snapshot(&entry.path()));
        } else {
            files.insert(entry.path(), (data.len(), data.modified().unwrap()));
        }
    }
    files
}
