//! Files: modes, force, interruption.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::setup::{conversation, copy, snapshot, succeed};

#[test]
fn secrets_are_for_their_owner_alone() {
    let mode = |name: &str| {
        let data = std::fs::metadata(conversation().join(name)).unwrap();
        data.permissions().mode() & 0o777
    };
    assert_eq!(mode("secret.veil"), 0o600);
    // Others follow the umask, which takes away at most the rights of others here.
    assert_eq!(mode("keys.veil") & 0o600, 0o600);
    assert_eq!(mode("client.veil"), mode("answer.veil"));
}

#[test]
fn force_overwrites() {
    let folder = copy();
    let at = folder.path();
    let before = snapshot(at);
    succeed(at, &["encrypt", "red blue", "--force"]);
    succeed(at, &["compile", "order", "-o", ".", "--force"]);
    let after = snapshot(at);
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>()
    );
    assert_ne!(before, after);
}

#[test]
fn a_device_takes_output_as_it_comes() {
    let out = succeed(
        conversation(),
        &["--quiet", "encrypt", "red", "-o", "/dev/null"],
    );
    assert_eq!(out, "");
}

#[test]
fn the_same_model_gives_the_same_bundles() {
    let folder = TempDir::new().unwrap();
    succeed(
        folder.path(),
        &["--threads", "1", "compile", "order", "-o", "again"],
    );
    for name in ["client.veil", "server.veil"] {
        let first = std::fs::read(conversation().join(name)).unwrap();
        let second = std::fs::read(folder.path().join("again").join(name)).unwrap();
        assert_eq!(first, second);
    }
}

/// Starts `keygen` in a folder and comes back once it is at work on its files.
fn start_keygen(folder: &Path) -> Child {
    let client = conversation().join("client.veil");
    let child = Command::new(env!("CARGO_BIN_EXE_veilformer"))
        .args(["--threads", "1", "keygen", "--client"])
        .arg(client)
        .current_dir(folder)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while snapshot(folder).is_empty() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "no file appeared"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

#[test]
fn a_file_that_appears_meanwhile_is_not_overwritten() {
    let folder = TempDir::new().unwrap();
    let mut child = start_keygen(folder.path());
    let target = folder.path().join("secret.veil");
    assert!(!target.exists());
    std::fs::write(&target, "another's").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert_eq!(std::fs::read(&target).unwrap(), b"another's");
    assert_eq!(snapshot(folder.path()).len(), 1);
}

#[test]
fn an_interrupt_leaves_no_file() {
    let folder = TempDir::new().unwrap();
    let mut child = start_keygen(folder.path());
    let process = child.id().to_string();
    let kill = Command::new("kill").args(["-INT", &process]).status();
    assert!(kill.unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    assert!(snapshot(folder.path()).is_empty());
}
