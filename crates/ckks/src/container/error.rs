//! Kinds of files and what can be wrong with one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a file holds. The numbers are the wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u16)]
pub enum Kind {
    /// A secret key.
    SecretKey = 1,
    /// Evaluation keys.
    EvaluationKeys = 2,
    /// A public key.
    PublicKey = 3,
    /// Encrypted inputs.
    Ciphertexts = 4,
    /// Encrypted answers.
    Answer = 5,
    /// The client's half of a compiled model.
    ClientBundle = 6,
    /// The server's half of a compiled model.
    ServerBundle = 7,
    /// Measured costs of a machine.
    CostTable = 8,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::SecretKey,
        Self::EvaluationKeys,
        Self::PublicKey,
        Self::Ciphertexts,
        Self::Answer,
        Self::ClientBundle,
        Self::ServerBundle,
        Self::CostTable,
    ];

    /// The number in the file.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The kind of a number, if it is known.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// What such a file is and what it is for, in a few words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::SecretKey => "a secret key (decrypts; stays with the client)",
            Self::EvaluationKeys => "evaluation keys (the server computes with them)",
            Self::PublicKey => "a public key (encrypts)",
            Self::Ciphertexts => "encrypted inputs (the client sends them to the server)",
            Self::Answer => "an encrypted answer (the server sends it to the client)",
            Self::ClientBundle => "a client bundle (for keygen, encrypt and decrypt)",
            Self::ServerBundle => "a server bundle (for run and plan)",
            Self::CostTable => "a cost table (measured on one machine, for plan)",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe())
    }
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// Not one of our files.
    #[error("this is no Veilformer file; expected one that keygen, encrypt, compile or run wrote")]
    NotOurs,
    /// The file ends too early.
    #[error("the file is truncated: it has {found} bytes, {expected} are expected; get it again")]
    Truncated {
        /// Bytes found.
        found: u64,
        /// Bytes expected (at least).
        expected: u64,
    },
    /// The file goes on after its end.
    #[error("the file has {extra} bytes after its end; get it again")]
    Trailing {
        /// How many.
        extra: u64,
    },
    /// Evaluation keys that are still being made.
    #[error(
        "these are unfinished evaluation keys, some of which are still to be made; \
         `keygen --resume` goes on from there, with the secret key that they were begun with"
    )]
    Unfinished,
    /// The digest at the end does not belong to the bytes before it.
    #[error("the file is corrupted (its digest does not match); get it again")]
    Corrupted,
    /// A format that this program does not know yet.
    #[error(
        "the file has format version {major}.{minor}, this program reads up to {known}.x; \
         use the version of Veilformer that wrote it, or a newer one"
    )]
    NewerVersion {
        /// Major version of the file.
        major: u16,
        /// Minor version of the file.
        minor: u16,
        /// Newest major version that can be read.
        known: u16,
    },
    /// Another kind of file than the one needed.
    #[error("the file is {found}; expected {expected}")]
    WrongKind {
        /// What it is.
        found: String,
        /// What is needed.
        expected: String,
    },
    /// The file was made under other parameters.
    #[error(
        "the file was made under other parameters (digest {found}, expected {expected}); \
         use the bundle that it was made with"
    )]
    WrongParams {
        /// Start of the digest found.
        found: String,
        /// Start of the digest expected.
        expected: String,
    },
    /// A section that must be there is not.
    #[error("the file has no section {section}; it is damaged or was written by a faulty program")]
    MissingSection {
        /// Name of the section.
        section: String,
    },
    /// A section says something that cannot be.
    #[error("section {section}: {what}")]
    BadSection {
        /// Name of the section.
        section: String,
        /// What is wrong and what was expected.
        what: String,
    },
    /// Reading or writing failed.
    #[error("the file could not be written: {0}")]
    Io(#[from] std::io::Error),
    /// Writing was stopped by the caller.
    #[error("stopped before the file was complete")]
    Stopped,
}
