//! Files that appear whole or not at all.
//!
//! Output goes to a temporary file in the target's folder, which is synchronized and then renamed.
//! Ctrl-C removes the temporary files that exist and ends the process; the table of them is
//! locked around every rename, so that no rename is cut in two. A file that takes long to make may
//! instead grow under a name of its own ([`NewFile::go_on`]), which then stays for the next attempt.

use std::collections::BTreeMap;
use std::fs::{File, Permissions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::error::{Failure, INTERRUPTED, Result};

/// Temporary files that exist now, and what becomes of each at an interrupt.
static TEMPORARY: Mutex<BTreeMap<PathBuf, Interrupted>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interrupted {
    Removed,
    /// Another attempt goes on with it.
    Stays,
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
    target: PathBuf,
    force: bool,
    sink: Sink,
}

enum Sink {
    Temporary(BufWriter<NamedTempFile>, Listed),
    /// A device or a pipe, which cannot be renamed over.
    Device(BufWriter<File>),
    /// What several attempts may write, beside the target; nobody else has it open.
    Unfinished(File, Listed),
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
            _ if !folder_of(target).is_dir() => {
                return Err(Failure::input(format!(
                    "cannot write {}: there is no folder {}; make it first",
                    target.display(),
                    folder_of(target).display()
                )));
            }
            _ => {
                let (file, listed) = temporary(target, access)?;
                // A secret goes through no buffer: nobody would wipe it.
                let buffer = match access {
                    Access::Secret => 0,
                    Access::Public => 1 << 16,
                };
                Sink::Temporary(BufWriter::with_capacity(buffer, file), listed)
            }
        };
        Ok(Self {
            target: target.to_owned(),
            force,
            sink,
        })
    }

    /// Goes on with what an earlier attempt left of a file, or begins it, under the target's name with
    /// `.unfinished` behind it. Dropped before [`commit`], and at an interrupt, it stays.
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
        let mut path = target.as_os_str().to_owned();
        path.push(".unfinished");
        let path = PathBuf::from(path);
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
            force,
            sink: Sink::Unfinished(file, Listed(path)),
        })
    }

    /// Where what several attempts write is, if it is such a file.
    pub fn unfinished(&self) -> Option<&Path> {
        match &self.sink {
            Sink::Unfinished(_, Listed(path)) => Some(path),
            _ => None,
        }
    }

    /// Cuts what several attempts wrote to a length in bytes.
    pub fn cut(&mut self, length: u64) -> Result<()> {
        match &self.sink {
            Sink::Unfinished(file, _) => file.set_len(length).map_err(|e| self.error(&e)),
            _ => Ok(()),
        }
    }

    /// Turns a write error into a sentence about this file.
    pub fn error(&self, error: &io::Error) -> Failure {
        Failure::write(&self.target, error)
    }

    /// Writes all of `bytes`.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).map_err(|e| self.error(&e))
    }

    fn complete(&mut self) -> io::Result<()> {
        self.flush()?;
        match &self.sink {
            Sink::Temporary(file, _) => file.get_ref().as_file().sync_all(),
            Sink::Device(_) => Ok(()),
            Sink::Unfinished(file, _) => file.sync_all(),
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.sink {
            Sink::Temporary(file, _) => file.write(bytes),
            Sink::Device(file) => file.write(bytes),
            Sink::Unfinished(file, _) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Temporary(file, _) => file.flush(),
            Sink::Device(file) => file.flush(),
            Sink::Unfinished(file, _) => file.flush(),
        }
    }
}

/// Of what several attempts write alone.
impl Read for NewFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.sink {
            Sink::Unfinished(file, _) => file.read(bytes),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Of what several attempts write alone.
impl Seek for NewFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.sink {
            Sink::Unfinished(file, _) => file.seek(to),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Gives all files their names, once all of them are complete on disk.
pub fn commit(mut files: Vec<NewFile>) -> Result<()> {
    for file in &mut files {
        file.complete()
            .map_err(|e| Failure::write(&file.target, &e))?;
    }
    let mut listed = Vec::new();
    let lock = table();
    let mut done = Ok(());
    for file in files {
        let (target, force) = (file.target, file.force);
        // Entries are released with the others, after the lock.
        match file.sink {
            Sink::Temporary(writer, entry) => {
                listed.push(entry);
                if done.is_ok() {
                    done = rename(writer, &target, force);
                }
            }
            Sink::Unfinished(_, entry) => {
                if done.is_ok() {
                    done = give_name(&entry.0, &target, force);
                }
                listed.push(entry);
            }
            Sink::Device(_) => {}
        }
    }
    drop(lock);
    done
}

fn rename(writer: BufWriter<NamedTempFile>, target: &Path, force: bool) -> Result<()> {
    let file = writer
        .into_inner()
        .map_err(|e| Failure::write(target, e.error()))?;
    let done = if force {
        file.persist(target)
    } else {
        // Fails where the target exists, whoever made it in the meantime.
        file.persist_noclobber(target)
    };
    match done.map_err(|e| e.error) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(exists(target)),
        Err(e) => return Err(Failure::write(target, &e)),
        Ok(_) => {}
    }
    sync_folder(target);
    Ok(())
}

fn give_name(unfinished: &Path, target: &Path, force: bool) -> Result<()> {
    // Where it must not be overwritten: looked at again, since its making took a while.
    if !force && target.exists() {
        return Err(exists(target));
    }
    std::fs::rename(unfinished, target).map_err(|e| Failure::write(target, &e))?;
    sync_folder(target);
    Ok(())
}

/// A rename itself reaches the disk with its folder; not every file system can do it.
fn sync_folder(target: &Path) {
    let _ = File::open(folder_of(target)).and_then(|f| f.sync_all());
}

fn folder_of(target: &Path) -> &Path {
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// A file without a name in the folder for temporary files, which is also returned. It goes with this
/// process, however that ends.
pub fn unnamed() -> Result<(File, PathBuf)> {
    let folder = std::env::temp_dir();
    let file = tempfile::tempfile_in(&folder).map_err(|e| Failure::write(&folder, &e))?;
    Ok((file, folder))
}

fn temporary(target: &Path, access: Access) -> Result<(NamedTempFile, Listed)> {
    let mode = match access {
        Access::Secret => 0o600,
        Access::Public => 0o666,
    };
    let mut table = table();
    let file = tempfile::Builder::new()
        .prefix(".veilformer-")
        .suffix(".part")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder_of(target))
        .map_err(|e| Failure::write(target, &e))?;
    let path = file.path().to_owned();
    table.insert(path.clone(), Interrupted::Removed);
    Ok((file, Listed(path)))
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
                    said = format!("{} has what was made; run it again", path.display());
                }
            }
        }
        let _ = writeln!(io::stderr(), "\ninterrupted; {said}");
        std::process::exit(i32::from(INTERRUPTED));
    };
    // Without a handler Ctrl-C still ends the process; only temporary files may stay.
    let _ = ctrlc::set_handler(handler);
}

/// Makes a folder and those above it.
pub fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Failure::write(folder, &e))
}

/// A file to read from.
pub fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| read_error(path, &e))
}

/// A whole file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| read_error(path, &e))
}

/// A whole file that is wiped from memory when dropped.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let mut file = open(path)?;
    let length = file.metadata().map_or(0, |m| m.len());
    // Large enough from the start: a vector that grew would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize + 1));
    let all = file.read_to_end(&mut bytes);
    all.map_err(|e| read_error(path, &e))?;
    Ok(bytes)
}

/// Text from a file, or from standard input for `-`.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        let all = io::stdin().lock().read_to_end(&mut bytes);
        all.map_err(|e| read_error(path, &e))?;
        bytes
    } else {
        read(path)?
    };
    String::from_utf8(bytes).map_err(|_| {
        Failure::input(format!(
            "{} is not UTF-8 text; convert it to UTF-8",
            path.display()
        ))
    })
}

fn read_error(path: &Path, error: &io::Error) -> Failure {
    Failure::input(format!(
        "cannot read {}: {error}; check the path",
        path.display()
    ))
}
