//! Installing other libraries, outside the repository.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Peer, Place};
use crate::error::{BenchError, Result};

/// Versions that the drivers are written for.
const OPENFHE: &str = "openfhe==1.6.1.0.22.4";
const ORION: &str = "orion-fhe==1.0.2";

/// Lattigo in the unpacked wheel.
const LATTIGO: &str = "orion/backend/lattigo/lattigo-linux.so";

/// The user's folder for files that can be made again: `.cache` in the home folder.
#[must_use]
pub fn default_dir() -> Option<PathBuf> {
    Some(std::env::home_dir()?.join(".cache/veilformer/peers"))
}

/// What a driver measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drives {
    /// Operations, on the line protocol.
    Operations,
    /// One bootstrap, as a report.
    Bootstrap,
}

impl Drives {
    /// The file of a driver in Python.
    fn script(self) -> &'static str {
        match self {
            Self::Operations => "driver.py",
            Self::Bootstrap => "bootstrap.py",
        }
    }

    /// The end of the name of a driver in Rust.
    fn binary(self) -> &'static str {
        match self {
            Self::Operations => "driver",
            Self::Bootstrap => "bootstrap",
        }
    }
}

/// Installs a library if that was not done before; the command that starts a driver of it.
pub(super) fn install(peer: Peer, place: &Place, drives: Drives) -> Result<Command> {
    let dir = &place.dir;
    std::fs::create_dir_all(dir).map_err(BenchError::io(dir.display().to_string()))?;
    match peer {
        Peer::Openfhe => {
            let python = python(peer, place)?;
            let venv = dir.join("openfhe");
            let inside = venv.join("bin/python");
            let found =
                inside.exists() && quiet(Command::new(&inside).args(["-c", "import openfhe"]));
            if !found {
                say(peer, "installing");
                must(peer, Command::new(python).args(["-m", "venv"]).arg(&venv))?;
                must(peer, pip(&inside).args(["install", OPENFHE]))?;
            }
            Ok(script(&inside, "openfhe", drives))
        }
        Peer::Lattigo => {
            let python = python(peer, place)?;
            let wheel = dir.join("lattigo");
            if !wheel.join(LATTIGO).exists() {
                say(peer, "installing");
                std::fs::create_dir_all(&wheel).map_err(BenchError::io("lattigo"))?;
                let download = ["download", "--no-deps", ORION, "--dest", "."];
                must(peer, pip(&python).args(download).current_dir(&wheel))?;
                let unpack = "import glob, zipfile; zipfile.ZipFile(glob.glob('orion_fhe-*.whl')[0]).extractall()";
                must(
                    peer,
                    Command::new(&python)
                        .args(["-c", unpack])
                        .current_dir(&wheel),
                )?;
            }
            let mut command = script(&python, "lattigo", drives);
            command.arg(wheel.join(LATTIGO));
            Ok(command)
        }
        Peer::Poulpy => {
            let nightly = ["run", "nightly", "cargo"];
            if !quiet(Command::new("rustup").args(nightly).arg("--version")) {
                return Err(missing(
                    peer,
                    "it needs nightly Rust: rustup toolchain install nightly",
                ));
            }
            let mut cargo = Command::new("rustup");
            cargo.args(nightly);
            build(peer, cargo, dir, drives)
        }
        Peer::TfheNtt | Peer::ConcreteNtt => {
            let mut command = build(peer, Command::new("cargo"), dir, drives)?;
            command.arg(peer.name());
            Ok(command)
        }
    }
}

/// Where the drivers are: beside this crate's sources.
fn drivers() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/peers"))
}

fn script(python: &Path, library: &str, drives: Drives) -> Command {
    let mut command = Command::new(python);
    // No files of Python's beside its scripts.
    command.arg("-B");
    command.arg(drivers().join(library).join(drives.script()));
    command
}

/// Builds a driver in Rust for this processor.
fn build(peer: Peer, mut cargo: Command, dir: &Path, drives: Drives) -> Result<Command> {
    let name = if peer.transforms_only() {
        "ntt"
    } else {
        peer.name()
    };
    let target = dir.join(name).join("target");
    say(peer, "building");
    let manifest = drivers().join(name).join("Cargo.toml");
    cargo
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--manifest-path",
        ])
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", "-Ctarget-cpu=native")
        // What cargo told this process about its own package is not for the other one.
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("RUSTUP_TOOLCHAIN");
    must(peer, &mut cargo)?;
    Ok(Command::new(
        target
            .join("release")
            .join(format!("{name}-{}", drives.binary())),
    ))
}

/// CPython 3.10: what was named, `python3.10` of the search path, or one of pyenv's.
fn python(peer: Peer, place: &Place) -> Result<PathBuf> {
    let mut candidates: Vec<PathBuf> = place.python.iter().cloned().collect();
    if candidates.is_empty() {
        candidates.push("python3.10".into());
        let versions = std::env::home_dir().map(|home| home.join(".pyenv/versions"));
        let entries = versions.and_then(|v| std::fs::read_dir(v).ok());
        let folders = entries.into_iter().flatten().flatten().map(|e| e.path());
        candidates.extend(folders.map(|f| f.join("bin/python3.10")));
    }
    let check = "import sys, venv; sys.exit(sys.version_info[:2] != (3, 10))";
    candidates
        .into_iter()
        .find(|python| quiet(Command::new(python).args(["-c", check])))
        .ok_or_else(|| {
            missing(
                peer,
                "it needs CPython 3.10 with venv, as python3.10 or named by --python",
            )
        })
}

fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
    command
}

/// Whether a command can be started and succeeds; it says nothing.
fn quiet(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|s| s.success())
}

fn must(peer: Peer, command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdout(Stdio::null())
        .status()
        .map_err(BenchError::io(format!("{}: {name}", peer.name())))?;
    if status.success() {
        return Ok(());
    }
    Err(missing(peer, &format!("{name} failed: {status}")))
}

fn missing(peer: Peer, what: &str) -> BenchError {
    BenchError::Peer {
        peer: peer.name().to_owned(),
        what: what.to_owned(),
    }
}

fn say(peer: Peer, what: &str) {
    eprintln!("{}: {what} ..", peer.name());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let place = Place {
            dir: std::env::temp_dir().join(format!("bench-peers-{}", std::process::id())),
            python: Some("no-such-python".into()),
        };
        for peer in [Peer::Openfhe, Peer::Lattigo] {
            let error = install(peer, &place, Drives::Operations)
                .unwrap_err()
                .to_string();
            assert!(error.contains("--python"), "{error}");
        }
        std::fs::remove_dir(&place.dir).unwrap();
    }

    #[test]
    fn every_driver_is_there() {
        for file in [
            "openfhe/driver.py",
            "openfhe/bootstrap.py",
            "lattigo/driver.py",
            "lattigo/bootstrap.py",
            "poulpy/src/main.rs",
            "poulpy/src/bootstrap.rs",
            "ntt/src/main.rs",
        ] {
            assert!(drivers().join(file).exists(), "{file}");
        }
    }
}
