//! How a command fails: a sentence and an exit code.

use std::error::Error;
use std::path::Path;
use std::{fmt, io};

use veilformer::build::BuildError;
use veilformer::ckks::CkksError;
use veilformer::ckks::container::ContainerError;
use veilformer::client::ClientError;
use veilformer::models::ModelError;
use veilformer::runtime::RuntimeError;
use veilformer::secret::SecretError;

/// Exit code of a command that was used wrongly or given bad input.
const BAD_INPUT: u8 = 2;
/// Exit code of every other failure: a full disk, a disagreement.
const FAILED: u8 = 1;
/// What is said where a failure left everything as it was.
pub const NO_CHANGE: &str = "no file was changed";
/// Exit code after Ctrl-C, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// A command that failed.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Wrong use or bad input.
    pub fn input(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            code: BAD_INPUT,
        }
    }

    /// Something that was right and failed all the same.
    pub fn system(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            code: FAILED,
        }
    }

    /// A file that could not be written, when nothing was.
    pub fn write(path: &Path, error: &io::Error) -> Self {
        Self::write_leaving(path, error, NO_CHANGE)
    }

    /// A file that could not be written, and what became of others.
    pub fn write_leaving(path: &Path, error: &io::Error, left: &str) -> Self {
        let todo = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "make room or write elsewhere"
            }
            _ => "check the folder and its permissions",
        };
        // What wraps the system's error has the name of a temporary file in it, which is nothing to the user.
        let plain = match error.kind() {
            io::ErrorKind::Other => None,
            kind => error.get_ref().map(|_| io::Error::from(kind)),
        };
        let error = plain.as_ref().unwrap_or(error);
        let path = path.display();
        Self::system(format!("cannot write {path}: {error}; {todo}; {left}"))
    }

    /// What a library says of writing a file: the system's error, or its own.
    pub fn writing<E: Error + Into<Self> + 'static>(path: &Path, error: E) -> Self {
        Self::writing_leaving(path, error, NO_CHANGE)
    }

    /// The same, and what became of others.
    pub fn writing_leaving<E>(path: &Path, error: E, left: &str) -> Self
    where
        E: Error + Into<Self> + 'static,
    {
        match io_error(&error) {
            Some(io) => Self::write_leaving(path, io, left),
            None => error.into().of(path),
        }
    }

    /// The same failure, said of a file.
    pub fn of(self, path: &Path) -> Self {
        Self {
            message: format!("{}: {}", path.display(), self.message),
            code: self.code,
        }
    }

    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Everything that a library refuses is the input's fault, but for what the system failed to do.
macro_rules! from_library {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                if io_error(&error).is_some() {
                    Self::system(error)
                } else {
                    Self::input(error)
                }
            }
        }
    )*};
}

from_library!(CkksError, ContainerError, ClientError, RuntimeError);

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        // A model or data set that cannot be read is the user's choice of path.
        Self::input(error)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match error {
            // Also of a part of its folder that cannot be read.
            BuildError::Model(error) => Self::from(error),
            other if io_error(&other).is_some() => Self::system(other),
            other => Self::input(other),
        }
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::NoEntropy { .. } => Self::system(error),
            other => Self::from(ClientError::from(other)),
        }
    }
}

/// The system's own error at the root of a library's.
fn io_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
