//! How a command fails: a sentence and an exit code.

use std::fmt;
use std::path::Path;

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

    /// A file that could not be written.
    pub fn write(path: &Path, error: &std::io::Error) -> Self {
        let todo = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "make room or write elsewhere; no file was changed"
            }
            _ => "check the folder and its permissions; no file was changed",
        };
        Self::system(format!("cannot write {}: {error}; {todo}", path.display()))
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

/// A failure of the system shows as an I/O error somewhere below; everything else that a library
/// refuses is the input's fault.
macro_rules! from_library {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                if is_system(&error) {
                    Self::system(error)
                } else {
                    Self::input(error)
                }
            }
        }
    )*};
}

from_library!(
    BuildError,
    CkksError,
    ContainerError,
    ClientError,
    ModelError,
    RuntimeError,
    SecretError
);

fn is_system(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if matches!(
            error.downcast_ref::<SecretError>(),
            Some(SecretError::NoEntropy { .. })
        ) || matches!(
            error.downcast_ref::<ContainerError>(),
            Some(ContainerError::Io(_))
        ) {
            return true;
        }
        next = error.source();
    }
    false
}
