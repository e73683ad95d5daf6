//! Nothing of the user's is lost: costs that would go over another file, inputs without an end.

use std::path::Path;
use std::process::Output;

use veilformer::ckks::Params;
use veilformer::client::ClientBundle;
use veilformer::runtime::CostTable;

use crate::setup::{conversation, copy, snapshot, veilformer};

/// What a command that must be refused says; no file may have changed.
fn refused(at: &Path, line: &str) -> String {
    let before = snapshot(at);
    let args: Vec<&str> = line.split(' ').collect();
    let output = veilformer(at, &args);
    let said = told(&output);
    assert_eq!(output.status.code(), Some(2), "{line}: {said}");
    assert_eq!(snapshot(at), before, "{line}: {said}");
    said
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn params() -> Params {
    let bundle = std::fs::read(conversation().join("client.veil")).unwrap();
    ClientBundle::from_bytes(&bundle).unwrap().params().clone()
}

#[test]
fn costs_never_go_over_another_file() {
    let folder = copy();
    let at = folder.path();
    std::fs::write(at.join("notes.txt"), "a text").unwrap();
    for (file, what) in [
        ("secret.veil", "a secret key"),
        ("server.veil", "a server bundle"),
        ("notes.txt", "no file of Veilformer"),
        ("/dev/full", "a device"),
        ("/dev/zero", "a device"),
        ("..", "a folder"),
    ] {
        // Nor if it is forced.
        for force in ["", " --force"] {
            let said = refused(at, &format!("plan server.veil --costs {file}{force}"));
            assert!(said.contains(file) && said.contains(what), "{said}");
            assert!(said.contains("name another file"), "{said}");
        }
    }
    std::fs::write(at.join("dev.tsv"), "sentence\tlabel\nblue red\t1\n").unwrap();
    let line = "report dev.tsv --model order --limit 1 --costs secret.veil";
    let said = refused(at, line);
    assert!(said.contains("a secret key"), "{said}");
    assert!(!at.join("report").exists());
    let said = refused(at, "plan server.veil --costs none/costs.veil");
    assert!(said.contains("make it first"), "{said}");
}

#[test]
fn costs_of_other_parameters_are_replaced_if_asked_to() {
    let folder = copy();
    let at = folder.path();
    let path = at.join("costs.veil");
    let mut other = CostTable::empty(&params(), "a machine");
    let replace = |table: &CostTable, what: &str| {
        table.save(&path).unwrap();
        let said = refused(at, "plan server.veil --costs costs.veil");
        assert!(said.contains(what) && said.contains("--force"), "{said}");
    };
    replace(&other, "of another machine");
    other.params_digest = [7; 32];
    replace(&other, "of other parameters");
    let mut cut = std::fs::read(&path).unwrap();
    *cut.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &cut).unwrap();
    let said = refused(at, "plan server.veil --costs costs.veil");
    assert!(said.contains("cannot be read"), "{said}");
    let args = ["plan", "server.veil", "--costs", "costs.veil"];
    let forced = veilformer(at, &[&args[..], &["--force"]].concat());
    assert!(forced.status.success(), "{}", told(&forced));
    let measured = std::fs::read(&path).unwrap();
    let table = CostTable::from_bytes(&measured).unwrap();
    assert_eq!(table.params_digest, params().digest());
    // What covers the program is taken as it is.
    let planned = veilformer(at, &args);
    assert!(planned.status.success(), "{}", told(&planned));
    assert!(std::fs::read(&path).unwrap() == measured);
}

#[test]
fn inputs_without_an_end_are_refused() {
    let folder = copy();
    let at = folder.path();
    for line in [
        "inspect /dev/zero",
        "decrypt /dev/zero",
        "decrypt --client /dev/zero",
        "decrypt --secret /dev/zero",
        "run /dev/zero -o new.veil",
        "run --server /dev/zero -o new.veil",
        "encrypt red --client /dev/zero -o new.veil",
    ] {
        let said = refused(at, line);
        assert!(said.contains("/dev/zero: this is no Veilformer"), "{said}");
    }
    let said = refused(at, "encrypt --file /dev/zero -o new.veil");
    assert!(said.contains("longer than 1.0 GiB"), "{said}");
}

#[test]
fn memory_that_is_no_number_of_gib_is_said_of_no_file() {
    let folder = copy();
    let at = folder.path();
    for line in ["run --memory 0 -o new.veil", "plan order --memory 0"] {
        let said = refused(at, line);
        assert!(said.contains("error: --memory is a number"), "{said}");
    }
    let said = refused(at, "run --memory 1e-300 -o new.veil");
    assert!(said.contains("error: --memory 1e-300: with"), "{said}");
}
