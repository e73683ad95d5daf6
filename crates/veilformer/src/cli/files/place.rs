//! Where a file goes: links followed, two names of one file told, and renames that can be undone.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::cli::error::{Failure, Result};

/// Links that are followed one after the other, as many as Linux follows.
const MOST_LINKS: usize = 40;

/// The folder of a file.
pub(super) fn folder_of(target: &Path) -> &Path {
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// What a name stands for if it is a link, also to what is not there yet: a file that is written there
/// belongs where the link leads, maybe into a folder that protects it.
pub(super) fn followed(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(to) = fs::read_link(&path) else { break };
        path = folder_of(&path).join(to);
    }
    path
}

/// Whether two names stand for one file, or would if it were there.
fn same(a: &Path, b: &Path) -> bool {
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.is_file() && (a.dev(), a.ino()) == (b.dev(), b.ino()),
        (Err(_), Err(_)) => whole(a) == whole(b),
        _ => false,
    }
}

/// The one name of what may not be there.
fn whole(path: &Path) -> PathBuf {
    let path = followed(path);
    match (folder_of(&path).canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path,
    }
}

/// Refuses to write one file twice, or to one that the command reads: forced or not, something that
/// is still wanted would be lost.
pub fn apart(outputs: &[&Path], inputs: &[&Path]) -> Result<()> {
    for (at, output) in outputs.iter().enumerate() {
        if let Some(input) = inputs.iter().find(|input| same(output, input)) {
            let named = match output == input {
                true => String::new(),
                false => format!(" as {}", input.display()),
            };
            return Err(Failure::input(format!(
                "{} would be overwritten, and this command reads it{named}; name another file",
                output.display()
            )));
        }
        if let Some(other) = outputs.iter().take(at).find(|other| same(output, other)) {
            return Err(Failure::input(format!(
                "{} and {} would be one file; name two files",
                other.display(),
                output.display()
            )));
        }
    }
    Ok(())
}

/// A file that is complete and has no name of its own yet.
pub(super) enum Complete {
    Temporary(TempPath),
    Unfinished(PathBuf),
}

/// A file that has its name, and what is needed to take it back.
pub(super) struct Placed {
    place: PathBuf,
    /// Another name of what was there.
    old: Option<PathBuf>,
    /// The name that it had before, if it goes back to that.
    before: Option<PathBuf>,
}

impl Placed {
    /// Gives a file its name. What is there is replaced if it is `forced` to, and under another name
    /// until it is certain that this stays (`undoable`). If it fails, also what is otherwise than before, if
    /// anything is.
    pub(super) fn put(
        file: Complete,
        place: &Path,
        forced: bool,
        undoable: bool,
    ) -> std::result::Result<Self, (io::Error, Option<String>)> {
        let mut placed = Self {
            place: place.to_owned(),
            old: None,
            before: None,
        };
        if forced && undoable {
            placed.old = set_aside(place).map_err(|e| (e, None))?;
        }
        let done = match file {
            Complete::Temporary(path) if forced => path.persist(place).map_err(|e| e.error),
            // Fails where there is a file, whoever made it in the meantime.
            Complete::Temporary(path) => path.persist_noclobber(place).map_err(|e| e.error),
            // Looked at again, since its making took a while.
            Complete::Unfinished(_) if !forced && place.exists() => {
                Err(ErrorKind::AlreadyExists.into())
            }
            Complete::Unfinished(path) => {
                let done = fs::rename(&path, place);
                placed.before = Some(path);
                done
            }
        };
        if let Err(error) = done {
            let back = placed.old.map(|old| put_back(&old, place));
            return Err((error, back.and_then(std::result::Result::err)));
        }
        // A rename itself reaches the disk with its folder; not every file system can do it.
        let _ = File::open(folder_of(place)).and_then(|f| f.sync_all());
        Ok(placed)
    }

    /// Takes the file's name back, and gives it to what had it before. If that fails, says what is where.
    pub(super) fn undo(self) -> std::result::Result<(), String> {
        let place = self.place.display();
        if let Some(before) = &self.before {
            fs::rename(&self.place, before).map_err(|e| format!("{place} is new: {e}"))?;
        }
        match (&self.old, &self.before) {
            (Some(old), _) => put_back(old, &self.place),
            (None, None) => {
                fs::remove_file(&self.place).map_err(|e| format!("{place} was written: {e}"))
            }
            (None, Some(_)) => Ok(()),
        }
    }

    /// Lets go of what was there before.
    pub(super) fn keep(self) -> Result<()> {
        let Some(old) = self.old else { return Ok(()) };
        fs::remove_file(&old).map_err(|error| {
            Failure::system(format!(
                "{} was written, but what it was before cannot be removed: {error}; remove {}",
                self.place.display(),
                old.display()
            ))
        })
    }
}

/// Gives what is at a place another name beside it: a second one where the file system can, so that the
/// place is never empty. Owner and mode stay what they are, those of a secret key too.
fn set_aside(place: &Path) -> io::Result<Option<PathBuf>> {
    match fs::symlink_metadata(place) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let process = std::process::id();
    let mut names = (0..).map(|n| folder_of(place).join(format!(".veilformer-{process}-{n}.old")));
    let free = |name: &PathBuf| fs::symlink_metadata(name).is_err();
    let Some(aside) = names.find(free) else {
        return Err(ErrorKind::AlreadyExists.into());
    };
    fs::hard_link(place, &aside).or_else(|_| fs::rename(place, &aside))?;
    Ok(Some(aside))
}

/// Gives what was at a place its name again. If that fails, says what is where.
fn put_back(old: &Path, place: &Path) -> std::result::Result<(), String> {
    let told = |e: io::Error| {
        let (old, place) = (old.display(), place.display());
        format!("what {place} was before is {old} and cannot be put back: {e}")
    };
    fs::rename(old, place).map_err(told)?;
    // Where both are names of one file still, a rename leaves both.
    match fs::remove_file(old) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(told(error)),
        _ => Ok(()),
    }
}
