//! Whole files, of which no more is read than there can be: a device may have no end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use veilformer::ckks::container::{HEADER_BYTES, announced_bytes};
use zeroize::Zeroizing;

use crate::cli::error::{Failure, Result};
use crate::cli::output::{bytes as in_words, memory_bytes};

/// Longest text that is read, bytes.
const TEXT_LIMIT: u64 = 1 << 30;

/// A file to read from.
pub fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| error(path, &e))
}

/// Length in bytes of what is a file and no device; nothing where there is none.
fn length(path: &Path) -> Option<u64> {
    let data = std::fs::metadata(path).ok()?;
    data.is_file().then_some(data.len())
}

/// A whole file of ours.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    Ok(std::mem::take(&mut *read_secret(path)?))
}

/// A whole file of ours that is wiped from memory when dropped.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let mut file = open(path)?;
    let mut first = Zeroizing::new(Vec::with_capacity(HEADER_BYTES));
    let read = (&mut file)
        .take(HEADER_BYTES as u64)
        .read_to_end(&mut first);
    read.map_err(|e| error(path, &e))?;
    // What is no file of ours ends here, however long it is.
    let announced = announced_bytes(&first).map_err(|e| Failure::from(e).of(path))?;
    // Of a pipe or a device no more than its header says, but for a byte that tells that there is more.
    let length = length(path).unwrap_or(announced);
    let most = memory_bytes().unwrap_or(u64::MAX);
    let refuse = || {
        Failure::input(format!(
            "{} has {}, which is more than this machine's memory; check the path",
            path.display(),
            in_words(length)
        ))
    };
    if length > most {
        return Err(refuse());
    }
    // Large enough from the start: a vector that grew would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::new());
    let room = usize::try_from(length.max(HEADER_BYTES as u64).saturating_add(1));
    let room = room.map_err(|_| refuse())?;
    bytes.try_reserve_exact(room).map_err(|_| refuse())?;
    bytes.extend_from_slice(&first);
    let rest = (room - first.len()) as u64;
    let all = file.take(rest).read_to_end(&mut bytes);
    all.map_err(|e| error(path, &e))?;
    Ok(bytes)
}

/// Text from a file, or from standard input for `-`.
pub fn read_text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let all = if path == Path::new("-") {
        let input = io::stdin().lock();
        input.take(TEXT_LIMIT + 1).read_to_end(&mut bytes)
    } else {
        open(path)?.take(TEXT_LIMIT + 1).read_to_end(&mut bytes)
    };
    all.map_err(|e| error(path, &e))?;
    if bytes.len() as u64 > TEXT_LIMIT {
        return Err(Failure::input(format!(
            "{} is longer than {}, the longest text that is read; split it",
            path.display(),
            in_words(TEXT_LIMIT)
        )));
    }
    String::from_utf8(bytes).map_err(|_| {
        Failure::input(format!(
            "{} is not UTF-8 text; convert it to UTF-8",
            path.display()
        ))
    })
}

fn error(path: &Path, error: &io::Error) -> Failure {
    Failure::input(format!(
        "cannot read {}: {error}; check the path",
        path.display()
    ))
}
