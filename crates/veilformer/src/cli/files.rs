//! Files that appear whole or not at all.
//!
//! Output goes to a temporary file in the target's folder, which is synchronized and then renamed.
//! Ctrl-C removes the temporary files that exist and ends the process; the table of them is
//! locked around every rename, so that no rename is cut in two, nor several that belong together: if
//! one of them fails, the others are undone, and what was there before is there again. A file that takes long to make may
//! instead grow under a name of its own ([`NewFile::go_on`]), which then stays for the next attempt.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempPath;

use place::{Complete, Placed, folder_of, followed};

use super::error::{Failure, INTERRUPTED, NO_CHANGE, Result};

mod place;
mod read;

pub use place::apart;
pub use read::{open, read, read_secret, read_text};

/// Temporary files that exist now, and what becomes of each at an interrupt.
static TEMPORARY: Mutex<BTreeMap<PathBuf, Interrupted>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interrupted {
    Removed,
    /// Another attempt goes on with it, if there is anything in it.
    Stays,
    /// A folder: removed if nothing is in it by then.
    Emptied,
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its owner alone, from its creation on.
    Secret,
    /// As the user's umask has it.
    Public,
}

/// A file to be. Dropped before [`commit`], it leaves nothing behind.
pub struct NewFile {
    /// As the user names it.
    target: PathBuf,
    /// Where that leads if it is a link.
    place: PathBuf,
    force: bool,
    sink: Sink,
}

enum Sink {
    Temporary(BufWriter<File>, TempPath, Listed),
    /// A device or a pipe, which cannot be renamed over.
    Device(BufWriter<File>),
    /// What several attempts may write, beside the target.
    Unfinished(Begun),
}

/// A file that several attempts may write; nobody else has it open.
struct Begun {
    file: File,
    listed: Listed,
}

impl Drop for Begun {
    fn drop(&mut self) {
        // There is nothing to go on with.
        if self.file.metadata().is_ok_and(|m| m.len() == 0) {
            let _ = std::fs::remove_file(&self.listed.0);
        }
    }
}

/// An entry of [`TEMPORARY`], taken out when dropped.
struct Listed(PathBuf);

impl Drop for Listed {
    fn drop(&mut self) {
        table().remove(&self.0);
    }
}

impl NewFile {
    /// Refuses a target that exists, unless forced; makes the temporary file beside it.
    pub fn create(target: &Path, access: Access, force: bool) -> Result<Self> {
        let place = followed(target);
        let kind = std::fs::metadata(target).map(|m| m.file_type());
        let sink = match kind {
            Ok(kind) if kind.is_char_device() || kind.is_fifo() => {
                if access == Access::Secret {
                    return Err(Failure::input(format!(
                        "{} is a device, a secret key goes into a file; name a file",
                        target.display()
                    )));
                }
                let file = File::options().write(true).open(target);
                Sink::Device(BufWriter::new(
                    file.map_err(|e| Failure::write(target, &e))?,
                ))
            }
            Ok(kind) if kind.is_dir() => {
                return Err(Failure::input(format!(
                    "{} is a folder, a file is expected; name a file",
                    target.display()
                )));
            }
            Ok(_) if !force => return Err(exists(target)),
            _ if !folder_of(&place).is_dir() => {
                return Err(Failure::input(format!(
                    "cannot write {}: there is no folder {}; make it first",
                    target.display(),
                    folder_of(&place).display()
                )));
            }
            _ => {
                let (file, path, listed) =
                    temporary(&place, access).map_err(|e| Failure::write(target, &e))?;
                // A secret goes through no buffer: nobody would wipe it.
                let buffer = match access {
                    Access::Secret => 0,
                    Access::Public => 1 << 16,
                };
                Sink::Temporary(BufWriter::with_capacity(buffer, file), path, listed)
            }
        };
        Ok(Self {
            target: target.to_owned(),
            place,
            force,
            sink,
        })
    }

    /// Goes on with what an earlier attempt left of a file, or begins it, under the target's name with
    /// `.unfinished` behind it. Dropped before [`commit`], and at an interrupt, it stays unless it is empty.
    pub fn go_on(target: &Path, force: bool) -> Result<Self> {
        match std::fs::metadata(target).map(|m| m.file_type()) {
            Ok(kind) if !kind.is_file() => {
                return Err(Failure::input(format!(
                    "{} is a device or a folder, and what can be gone on with is a file; name a file",
                    target.display()
                )));
            }
            Ok(_) if !force => return Err(exists(target)),
            _ => {}
        }
        let place = followed(target);
        let path = unfinished(target);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Failure::write(&path, &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::input(format!(
                    "another process is writing {}; wait until it has ended",
                    path.display()
                )));
            }
            // Not every file system can lock.
            Err(TryLockError::Error(_)) => {}
        }
        table().insert(path.clone(), Interrupted::Stays);
        Ok(Self {
            target: target.to_owned(),
            place,
            force,
            sink: Sink::Unfinished(Begun {
                file,
                listed: Listed(path),
            }),
        })
    }

    /// Cuts what several attempts wrote to a length in bytes.
    pub fn cut(&mut self, length: u64) -> Result<()> {
        match &self.sink {
            Sink::Unfinished(begun) => begun.file.set_len(length).map_err(|e| self.error(&e)),
            _ => Ok(()),
        }
    }

    /// Turns a write error into a sentence about this file.
    pub fn error(&self, error: &io::Error) -> Failure {
        match &self.sink {
            Sink::Unfinished(begun) => {
                let left = format!(
                    "{} keeps what was made, and the same command goes on from there",
                    begun.listed.0.display()
                );
                Failure::write_leaving(&self.target, error, &left)
            }
            _ => Failure::write(&self.target, error),
        }
    }

    /// Writes all of `bytes`.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).map_err(|e| self.error(&e))
    }

    fn complete(&mut self) -> io::Result<()> {
        self.flush()?;
        match &self.sink {
            Sink::Temporary(file, ..) => file.get_ref().sync_all(),
            Sink::Device(_) => Ok(()),
            Sink::Unfinished(begun) => begun.file.sync_all(),
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.sink {
            Sink::Temporary(file, ..) => file.write(bytes),
            Sink::Device(file) => file.write(bytes),
            Sink::Unfinished(begun) => begun.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Temporary(file, ..) => file.flush(),
            Sink::Device(file) => file.flush(),
            Sink::Unfinished(begun) => begun.file.flush(),
        }
    }
}

/// Of what several attempts write alone.
impl Read for NewFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.sink {
            Sink::Unfinished(begun) => begun.file.read(bytes),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Of what several attempts write alone.
impl Seek for NewFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.sink {
            Sink::Unfinished(begun) => begun.file.seek(to),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Gives all files their names, once all of them are complete on disk; if that fails for one of them,
/// none has it, and what was there before is there.
pub fn commit(mut files: Vec<NewFile>) -> Result<()> {
    for file in &mut files {
        file.complete().map_err(|e| file.error(&e))?;
    }
    // The last one needs no way back: with it all is done.
    let last = files.len().saturating_sub(1);
    // Released after the lock, which their removal from the table takes.
    let (mut listed, mut begun) = (Vec::new(), Vec::new());
    let lock = table();
    let mut placed: Vec<Placed> = Vec::new();
    let mut done = Ok(());
    for (at, file) in files.into_iter().enumerate() {
        let kept = match &file.sink {
            Sink::Unfinished(begun) => {
                let path = begun.listed.0.display();
                format!("{path} is complete, and the same command gives it its name")
            }
            _ => NO_CHANGE.to_owned(),
        };
        let complete = match file.sink {
            Sink::Temporary(_, path, entry) => {
                listed.push(entry);
                Complete::Temporary(path)
            }
            Sink::Unfinished(file) => {
                let path = file.listed.0.clone();
                begun.push(file);
                Complete::Unfinished(path)
            }
            Sink::Device(_) => continue,
        };
        if done.is_ok() {
            match Placed::put(complete, &file.place, file.force, at < last) {
                Ok(it) => placed.push(it),
                Err((error, left)) => done = Err((file.target, error, left.unwrap_or(kept))),
            }
        }
    }
    let done = match done {
        Ok(()) => {
            // All of them are let go of, whatever comes of the first one.
            let kept: Vec<Result<()>> = placed.into_iter().map(Placed::keep).collect();
            kept.into_iter().collect()
        }
        Err((target, error, mut left)) => {
            for it in placed.into_iter().rev() {
                if let Err(otherwise) = it.undo() {
                    left = otherwise;
                }
            }
            Err(match error.kind() {
                io::ErrorKind::AlreadyExists => exists(&target),
                _ => Failure::write_leaving(&target, &error, &left),
            })
        }
    };
    drop(lock);
    done
}

/// A file without a name in the folder for temporary files, which is also returned. It goes with this
/// process, however that ends.
pub fn unnamed() -> Result<(File, PathBuf)> {
    let folder = std::env::temp_dir();
    let file = tempfile::tempfile_in(&folder).map_err(|e| Failure::write(&folder, &e))?;
    Ok((file, folder))
}

/// A temporary file beside a place.
fn temporary(place: &Path, access: Access) -> io::Result<(File, TempPath, Listed)> {
    let mode = match access {
        Access::Secret => 0o600,
        Access::Public => 0o666,
    };
    let mut table = table();
    // The system's own error: the one that comes out of the builder has the temporary name in it.
    let mut reason = None;
    let made = tempfile::Builder::new()
        .prefix(".veilformer-")
        .suffix(".part")
        .make_in(folder_of(place), |path| {
            let mut new = File::options();
            let new = new.write(true).create_new(true).mode(mode);
            new.open(path).inspect_err(|e| reason = e.raw_os_error())
        });
    let made = made.map_err(|e| reason.map_or(e, io::Error::from_raw_os_error))?;
    let (file, path) = made.into_parts();
    let name = path.to_path_buf();
    table.insert(name.clone(), Interrupted::Removed);
    Ok((file, path, Listed(name)))
}

/// What several attempts write of a target.
pub fn unfinished(target: &Path) -> PathBuf {
    let mut path = followed(target).into_os_string();
    path.push(".unfinished");
    PathBuf::from(path)
}

fn exists(target: &Path) -> Failure {
    Failure::input(format!(
        "{} exists and was not changed; name another file or pass --force",
        target.display()
    ))
}

fn table() -> MutexGuard<'static, BTreeMap<PathBuf, Interrupted>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// On Ctrl-C (and termination): removes temporary files and ends the process.
pub fn clean_up_on_interrupt() {
    let handler = || {
        // Never unlocked again: no file can appear or be renamed any more.
        let table = table();
        let mut said = "no partial file was left".to_owned();
        for (path, then) in table.iter() {
            match then {
                Interrupted::Removed => drop(std::fs::remove_file(path)),
                Interrupted::Stays => {
                    if std::fs::metadata(path).is_ok_and(|m| m.len() == 0) {
                        let _ = std::fs::remove_file(path);
                    } else {
                        said = format!("{} has what was made; run it again", path.display());
                    }
                }
                Interrupted::Emptied => {}
            }
        }
        // Once no file is left in them; those that are inside of others first.
        let folders = table.iter().rev().filter(|e| *e.1 == Interrupted::Emptied);
        for (folder, _) in folders {
            let _ = std::fs::remove_dir(folder);
        }
        let _ = writeln!(io::stderr(), "\ninterrupted; {said}");
        std::process::exit(i32::from(INTERRUPTED));
    };
    // Without a handler Ctrl-C still ends the process; only temporary files may stay.
    let _ = ctrlc::set_handler(handler);
}

/// Folders that were made for files to come. Dropped, those go again in which there is nothing.
#[must_use]
pub struct NewFolders(Vec<Listed>);

impl Drop for NewFolders {
    fn drop(&mut self) {
        for Listed(folder) in self.0.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Makes a folder and those above it.
pub fn make_folder(folder: &Path) -> Result<NewFolders> {
    let mut missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|f| !f.as_os_str().is_empty() && !f.exists())
        .collect();
    missing.reverse();
    let mut made = NewFolders(Vec::new());
    for one in missing {
        let mut table = table();
        match std::fs::create_dir(one) {
            Ok(()) => {
                table.insert(one.to_owned(), Interrupted::Emptied);
                made.0.push(Listed(one.to_owned()));
            }
            // Another process was faster.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && one.is_dir() => {}
            Err(e) => {
                // Before those above are released, which takes the lock.
                drop(table);
                return Err(Failure::write(folder, &e));
            }
        }
    }
    if folder.is_dir() || folder.as_os_str().is_empty() {
        return Ok(made);
    }
    Err(Failure::input(format!(
        "{} is a file, a folder is expected; name a folder",
        folder.display()
    )))
}
