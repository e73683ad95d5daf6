//! Other libraries: what they are, how they are installed, and their operations as cases.

mod install;
mod process;

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use clap::ValueEnum;

use crate::error::Result;
use crate::interleave::Case;
use crate::scheme::Op;
pub use install::default_dir;
use install::{Drives, install};
pub use process::{Driver, Setup};

/// A library that can be measured beside ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Peer {
    /// OpenFHE's wheel
    Openfhe,
    /// Lattigo in the wheel orion-fhe
    Lattigo,
    /// poulpy-ckks
    Poulpy,
    /// tfhe-ntt (transforms)
    TfheNtt,
    /// concrete-ntt (transforms)
    ConcreteNtt,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Openfhe,
        Self::Lattigo,
        Self::Poulpy,
        Self::TfheNtt,
        Self::ConcreteNtt,
    ];

    /// The name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Openfhe => "openfhe",
            Self::Lattigo => "lattigo",
            Self::Poulpy => "poulpy",
            Self::TfheNtt => "tfhe-ntt",
            Self::ConcreteNtt => "concrete-ntt",
        }
    }

    /// Whether it has transforms alone.
    #[must_use]
    pub fn transforms_only(self) -> bool {
        matches!(self, Self::TfheNtt | Self::ConcreteNtt)
    }
}

/// Where peers are installed and with what.
#[derive(Clone, Debug)]
pub struct Place {
    /// The folder.
    pub dir: PathBuf,
    /// CPython 3.10, if it is not where it is looked for.
    pub python: Option<PathBuf>,
}

/// These are the libraries' own ways to be told; where they look at none, the cores to which this
/// process is kept do it.
fn limit_threads(command: &mut Command, threads: usize) {
    for variable in ["OMP_NUM_THREADS", "GOMAXPROCS", "RAYON_NUM_THREADS"] {
        command.env(variable, threads.to_string());
    }
}

/// Installs a library if that was not done before; the command that bootstraps with it on so many
/// threads, which takes the preset, the rounds and the threads as arguments.
///
/// # Errors
/// [`BenchError::Peer`](crate::error::BenchError::Peer) with what is missing.
pub fn bootstrap(peer: Peer, place: &Place, threads: usize) -> Result<Command> {
    let mut command = install(peer, place, Drives::Bootstrap)?;
    limit_threads(&mut command, threads);
    Ok(command)
}

/// A running library.
pub struct Running {
    peer: Peer,
    ops: Vec<String>,
    driver: Arc<Mutex<Driver>>,
}

impl Running {
    /// Installs, starts and sets up the libraries. One that cannot be had is left out, with a line
    /// on standard error that says what is missing.
    #[must_use]
    pub fn start_all(peers: &[Peer], place: &Place, setup: &Setup) -> Vec<Self> {
        let start = |&peer: &Peer| match Self::start(peer, place, setup) {
            Ok(running) => Some(running),
            Err(e) => {
                eprintln!("{}: left out: {e}", peer.name());
                None
            }
        };
        peers.iter().filter_map(start).collect()
    }

    fn start(peer: Peer, place: &Place, setup: &Setup) -> Result<Self> {
        let mut command = install(peer, place, Drives::Operations)?;
        limit_threads(&mut command, setup.threads);
        let log = place.dir.join(format!("{}.log", peer.name()));
        let mut driver = Driver::start(peer.name(), command, &log)?;
        eprintln!("{}: setting up ..", peer.name());
        let (ops, note) = driver.setup(setup)?;
        eprintln!("{}: {note}", peer.name());
        Ok(Self {
            peer,
            ops,
            driver: Arc::new(Mutex::new(driver)),
        })
    }

    /// The operation, if the library has it.
    #[must_use]
    pub fn case(&self, op: Op) -> Option<(String, Case<'static>)> {
        let name = op.name();
        if !self.ops.iter().any(|known| known == name) {
            return None;
        }
        let driver = Arc::clone(&self.driver);
        let run = move |repeats| {
            let mut driver = driver.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(driver.run(name, repeats)? / op.results_of_driver())
        };
        let case = Case {
            name: name.to_owned(),
            run: Box::new(run),
        };
        Some((self.peer.name().to_owned(), case))
    }
}
