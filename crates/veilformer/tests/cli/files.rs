//! Files: modes, force, interruption.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::setup::{conversation, copy, snapshot, succeed, veilformer};

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
fn keys_of_an_evaluation_are_on_disk_and_gone_afterwards() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    let line = "eval dev.tsv --model order --mode encrypted --limit 1";
    std::fs::write(at.join("dev.tsv"), "sentence\tlabel\nblue red\t1\n").unwrap();
    std::fs::create_dir(at.join("room")).unwrap();
    let with = |temporary: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_veilformer"));
        let command = command.args(line.split(' ')).current_dir(at);
        command.env("TMPDIR", at.join(temporary)).output().unwrap()
    };
    let before = snapshot(at);
    let refused = with("nowhere");
    let error = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{error}");
    assert!(error.contains("nowhere"), "{error}");
    let done = with("room");
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{error}");
    assert!(std::fs::read_dir(at.join("room")).unwrap().next().is_none());
    assert_eq!(snapshot(at), before);
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
fn start_keygen(folder: &Path, resume: &[&str]) -> Child {
    let client = conversation().join("client.veil");
    let child = Command::new(env!("CARGO_BIN_EXE_veilformer"))
        .args(["--threads", "1", "keygen", "--client"])
        .arg(client)
        .args(resume)
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
    let mut child = start_keygen(folder.path(), &[]);
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
    assert_eq!(interrupted(start_keygen(folder.path(), &[])), 130);
    assert!(snapshot(folder.path()).is_empty());
}

/// Interrupts `keygen --resume` in a folder once it has made a key; `false` if it was done by then.
fn interrupted_with_keys(folder: &Path) -> bool {
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    let (begun, all) = (
        folder.join("keys.veil.unfinished"),
        conversation().join("keys.veil"),
    );
    let child = start_keygen(folder, &["--resume"]);
    // The note of the first key makes the file longer than it will be in the end.
    while length(&begun) <= length(&all) && !folder.join("keys.veil").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    interrupted(child) == 130 && begun.exists()
}

/// The exit code and standard error of what must fail.
fn fail(folder: &Path, args: &[&str]) -> (i32, String) {
    let output = veilformer(folder, args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), said)
}

/// The exit code of a process that is interrupted.
fn interrupted(mut child: Child) -> i32 {
    let process = child.id().to_string();
    let kill = Command::new("kill").args(["-INT", &process]).status();
    assert!(kill.is_ok());
    child.wait().unwrap().code().unwrap()
}

#[test]
fn an_interrupted_generation_goes_on_if_asked_to() {
    // It may be done before it is interrupted.
    let folder = (0..10).find_map(|_| {
        let folder = TempDir::new().unwrap();
        interrupted_with_keys(folder.path()).then_some(folder)
    });
    let folder = folder.unwrap();
    let at = folder.path();
    let (whole, begun) = (at.join("keys.veil"), at.join("keys.veil.unfinished"));
    let secret = std::fs::read(at.join("secret.veil")).unwrap();
    let mode = std::fs::metadata(at.join("secret.veil"))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    std::fs::copy(conversation().join("client.veil"), at.join("client.veil")).unwrap();
    let resumed = succeed(at, &["--json", "keygen", "--resume"]);
    let resumed: serde_json::Value = serde_json::from_str(&resumed).unwrap();
    let [kept, count] = ["keys_kept", "key_count"].map(|f| resumed[f].as_u64().unwrap());
    assert!((1..count).contains(&kept), "{resumed}");
    assert!(whole.exists() && !begun.exists());
    assert!(secret == std::fs::read(at.join("secret.veil")).unwrap());
    succeed(at, &["encrypt", "red blue"]);
    let bundle = conversation().join("server.veil");
    succeed(at, &["run", "--server", bundle.to_str().unwrap()]);
    succeed(at, &["decrypt"]);
    let (code, said) = fail(at, &["keygen", "--resume"]);
    assert!(code == 2 && said.contains("keys.veil exists"), "{said}");
    // Another secret key than the one that the keys were begun with.
    std::fs::rename(&whole, &begun).unwrap();
    let before = std::fs::read(&begun).unwrap();
    let refused = |secret: &str, what: &str| {
        let (code, said) = fail(at, &["keygen", "--resume", "--secret", secret]);
        assert!(code == 2 && said.contains(what), "{said}");
        assert!(before == std::fs::read(&begun).unwrap() && !whole.exists());
    };
    refused("none.veil", "is not there");
    assert!(!at.join("none.veil").exists());
    succeed(
        at,
        &["keygen", "--secret", "other.veil", "--keys", "others.veil"],
    );
    refused("other.veil", "belongs to the secret key");
}
