//! Files that go where others are: all of them or none, links followed, inputs never.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::setup::{conversation, copy, snapshot, succeed, veilformer};

/// Exit code and standard error.
fn run(at: &Path, line: &str) -> (i32, String) {
    let args: Vec<&str> = line.split(' ').collect();
    let output = veilformer(at, &args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), said)
}

fn names(at: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(at).unwrap();
    let name = |e: std::fs::DirEntry| e.file_name().into_string().unwrap();
    let mut names: Vec<String> = entries.map(|e| name(e.unwrap())).collect();
    names.sort();
    names
}

/// Starts `keygen` in a folder with a client bundle and comes back once it writes.
fn start_keygen(at: &Path, flags: &[&str]) -> Child {
    let child = Command::new(env!("CARGO_BIN_EXE_veilformer"))
        .args(["--threads", "1", "keygen"])
        .args(flags)
        .current_dir(at)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let parts = || {
        names(at)
            .iter()
            .filter(|name| name.ends_with(".part"))
            .count()
    };
    while parts() < 2 {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing began");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

fn ended(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), said)
}

fn with_client() -> TempDir {
    let folder = TempDir::new().unwrap();
    let client = conversation().join("client.veil");
    std::fs::copy(client, folder.path().join("client.veil")).unwrap();
    folder
}

#[test]
fn the_old_secret_key_stays_if_the_other_file_fails() {
    let folder = with_client();
    let at = folder.path();
    let (secret, keys) = (at.join("secret.veil"), at.join("keys.veil"));
    std::fs::write(&secret, "the old secret").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o400)).unwrap();
    std::fs::write(&keys, "the old keys").unwrap();
    let before = std::fs::metadata(&secret).unwrap();
    let child = start_keygen(at, &["--force"]);
    // A folder in its place is what no rename of a file goes over.
    std::fs::remove_file(&keys).unwrap();
    std::fs::create_dir_all(keys.join("inside")).unwrap();
    let (code, said) = ended(child);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("cannot write keys.veil"), "{said}");
    assert!(said.contains("no file was changed"), "{said}");
    assert_eq!(std::fs::read(&secret).unwrap(), b"the old secret");
    let after = std::fs::metadata(&secret).unwrap();
    let of = |m: &std::fs::Metadata| (m.ino(), m.mode(), m.uid(), m.nlink());
    assert_eq!(of(&before), of(&after));
    assert_eq!(names(at), ["client.veil", "keys.veil", "secret.veil"]);
    std::fs::remove_dir_all(&keys).unwrap();
    succeed(at, &["keygen", "--force"]);
    assert_eq!(names(at), ["client.veil", "keys.veil", "secret.veil"]);
    assert_ne!(std::fs::read(&secret).unwrap(), b"the old secret");
}

#[test]
fn a_new_secret_key_goes_if_the_other_file_is_there_by_then() {
    let folder = with_client();
    let at = folder.path();
    let child = start_keygen(at, &[]);
    std::fs::write(at.join("keys.veil"), "another's").unwrap();
    let (code, said) = ended(child);
    assert_eq!(code, 2, "{said}");
    assert_eq!(names(at), ["client.veil", "keys.veil"]);
    assert_eq!(std::fs::read(at.join("keys.veil")).unwrap(), b"another's");
}

#[test]
fn inputs_are_never_overwritten() {
    let folder = copy();
    let at = folder.path();
    symlink("secret.veil", at.join("link.veil")).unwrap();
    symlink("nowhere.veil", at.join("loose.veil")).unwrap();
    std::fs::hard_link(at.join("client.veil"), at.join("hard.veil")).unwrap();
    std::fs::create_dir(at.join("folder")).unwrap();
    std::fs::write(at.join("words.txt"), "red\n").unwrap();
    let before = snapshot(at);
    let reads = "this command reads it";
    for (line, what) in [
        ("encrypt red -o secret.veil", reads),
        ("encrypt red -o folder/../client.veil", reads),
        ("encrypt red -o link.veil", reads),
        ("encrypt red -o hard.veil", reads),
        ("encrypt --file words.txt -o ./words.txt", reads),
        ("run -o keys.veil", reads),
        ("run -o server.veil", reads),
        ("run -o ./input.veil", reads),
        ("keygen --secret client.veil", reads),
        ("keygen --keys ./client.veil", reads),
        ("keygen --secret ./keys.veil", "name two files"),
        ("keygen --secret ./k.veil --keys k.veil", "name two files"),
        ("keygen --secret folder/../k --keys k", "name two files"),
        ("keygen --secret loose.veil --keys nowhere.veil", "name two"),
        ("keygen --keys link.veil", "name two files"),
        ("keygen --resume --secret k.unfinished --keys k", "name two"),
        ("compile order -o . --calibrate server.veil", reads),
    ] {
        for line in [line.to_owned(), format!("{line} --force")] {
            let (code, said) = run(at, &line);
            assert_eq!(code, 2, "{line}: {said}");
            assert!(said.contains(what), "{line}: {said}");
            assert_eq!(snapshot(at), before, "{line}: {said}");
        }
    }
    // A bundle that was compiled into the model's own folder may be compiled anew.
    let (code, said) = run(at, "compile order -o . --force");
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_link_is_followed() {
    let folder = with_client();
    let at = folder.path();
    std::fs::create_dir(at.join("vault")).unwrap();
    symlink("vault/secret.veil", at.join("secret.veil")).unwrap();
    symlink(at.join("vault/keys.veil"), at.join("keys.veil")).unwrap();
    let link = || {
        let links = ["secret.veil", "keys.veil"].map(|name| at.join(name));
        assert!(links.iter().all(|l| l.is_symlink() && l.is_file()));
        assert_eq!(
            names(at),
            ["client.veil", "keys.veil", "secret.veil", "vault"]
        );
        assert_eq!(names(&at.join("vault")), ["keys.veil", "secret.veil"]);
        std::fs::read(at.join("vault/secret.veil")).unwrap()
    };
    succeed(at, &["keygen"]);
    let first = link();
    let (code, said) = run(at, "keygen");
    assert!(code == 2 && said.contains("secret.veil exists"), "{said}");
    succeed(at, &["keygen", "--force"]);
    let second = link();
    assert_ne!(first, second);
    succeed(at, &["keygen", "--resume", "--force"]);
    assert_eq!(link(), second);
}

#[test]
fn a_refused_command_leaves_nothing() {
    let folder = copy();
    let at = folder.path();
    let secret = std::fs::read(at.join("secret.veil")).unwrap();
    std::fs::write(at.join("cut.veil"), &secret[..secret.len() - 1]).unwrap();
    let before = names(at);
    for (line, what) in [
        ("compile order -o a/b/c --tokens 999", "999 tokens"),
        (
            "keygen --resume --secret cut.veil --keys k.veil",
            "truncated",
        ),
        (
            "keygen --resume --secret no/s.veil --keys k.veil",
            "make it first",
        ),
    ] {
        let (code, said) = run(at, line);
        assert!(code == 2 && said.contains(what), "{line}: {said}");
        assert_eq!(names(at), before, "{line}: {said}");
    }
    succeed(at, &["compile", "order", "-o", "a/b/c"]);
    assert_eq!(names(&at.join("a/b/c")), ["client.veil", "server.veil"]);
    let (code, said) = run(at, "compile order -o cut.veil");
    assert!(code == 2 && said.contains("cut.veil is a file"), "{said}");
}

#[test]
fn a_temporary_name_is_not_said() {
    // Where nobody can make a file.
    let (code, said) = run(conversation(), "encrypt red -o /proc/new.veil");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("cannot write /proc/new.veil: "), "{said}");
    assert!(!said.contains(".part"), "{said}");
}

#[test]
fn what_a_full_disk_leaves_is_said() {
    let folder = with_client();
    let at = folder.path();
    // No file may become longer than this: a system that says so in place of a disk that is full.
    let full = |line: &str| {
        let limited = format!("trap '' XFSZ; ulimit -f 200; exec \"$0\" {line}");
        let output = Command::new("sh")
            .args(["-c", &limited, env!("CARGO_BIN_EXE_veilformer")])
            .current_dir(at)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("File too large"), "{said}");
        assert!(!said.contains(".part"), "{said}");
        said
    };
    let said = full("keygen");
    assert!(said.contains("no file was changed"), "{said}");
    assert_eq!(names(at), ["client.veil"]);
    let said = full("keygen --resume");
    let left = "secret.veil and keys.veil.unfinished keep what was made";
    assert!(said.contains(left), "{said}");
    let all = ["client.veil", "keys.veil.unfinished", "secret.veil"];
    assert_eq!(names(at), all);
    succeed(at, &["keygen", "--resume"]);
    assert_eq!(names(at), ["client.veil", "keys.veil", "secret.veil"]);
}

#[test]
fn an_interrupted_compilation_leaves_no_folder() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    let mut child = Command::new(env!("CARGO_BIN_EXE_veilformer"))
        .args(["--quiet", "compile", "sst2-ssm", "-o", "a/b"])
        .current_dir(at)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !at.join("a/b").exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "no folder");
        std::thread::sleep(Duration::from_millis(1));
    }
    let process = child.id().to_string();
    let kill = Command::new("kill").args(["-INT", &process]).status();
    assert!(kill.is_ok());
    // It may have been done by then.
    let code = child.wait().unwrap().code();
    assert_eq!(names(at).is_empty(), code == Some(130), "{code:?}");
}

#[test]
fn unfinished_keys_are_called_so() {
    let folder = copy();
    let at = folder.path();
    let keys = std::fs::read(at.join("keys.veil")).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(at.join(name), bytes).unwrap();
    write("k.veil.unfinished", &[&keys[..], &[1; 64]].concat());
    write("early.veil.unfinished", &keys[..keys.len() / 2]);
    for line in [
        "inspect k.veil.unfinished",
        "inspect early.veil.unfinished",
        "run --keys k.veil.unfinished -o new.veil",
    ] {
        let (code, said) = run(at, line);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("unfinished evaluation keys"), "{said}");
        assert!(said.contains("`keygen --resume` goes on"), "{said}");
    }
}

#[test]
fn a_changed_byte_of_a_header_is_damage() {
    let folder = copy();
    let at = folder.path();
    for (file, line) in [
        ("secret.veil", "decrypt"),
        ("input.veil", "run --force"),
        ("answer.veil", "decrypt"),
    ] {
        let path = at.join(file);
        let good = std::fs::read(&path).unwrap();
        for byte in [20, 30] {
            let mut bent = good.clone();
            bent[byte] ^= 1;
            std::fs::write(&path, &bent).unwrap();
            let (code, said) = run(at, line);
            assert!(code == 2 && said.contains("is corrupted"), "{file}: {said}");
        }
        std::fs::write(&path, &good).unwrap();
    }
    let mut bent = std::fs::read(at.join("keys.veil")).unwrap();
    bent[30] ^= 1;
    std::fs::write(at.join("bent.veil"), &bent).unwrap();
    std::fs::write(at.join("k.veil.unfinished"), &bent).unwrap();
    for line in [
        "run --force --keys bent.veil",
        "keygen --resume --keys k.veil",
    ] {
        let (code, said) = run(at, line);
        assert!(code == 2 && said.contains("is corrupted"), "{line}: {said}");
    }
}
