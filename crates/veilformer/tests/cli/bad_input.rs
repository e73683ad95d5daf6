//! Every kind of bad input: a sentence, an exit code, and nothing changed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use veilformer::ckks::Params;
use veilformer::ckks::container::{Kind, Reader, Tag, Writer, read_params};
use veilformer::client::ClientBundle;
use veilformer::runtime::ServerBundle;

use crate::setup::{copy, say, snapshot, veilformer};

/// Exit code of wrong use and bad input.
const BAD: i32 = 2;
/// Exit code of a system that failed.
const SYSTEM: i32 = 1;

struct Row {
    /// What is wrong.
    name: &'static str,
    args: Vec<OsString>,
    /// What the message must say: what was wrong, and what was expected or is to be done.
    phrases: &'static [&'static str],
    code: i32,
}

fn row(name: &'static str, args: &str, phrases: &'static [&'static str]) -> Row {
    let args = args.split(' ').map(|a| OsString::from(a.replace('_', " ")));
    Row {
        name,
        args: args.collect(),
        phrases,
        code: BAD,
    }
}

fn system(name: &'static str, args: &str, phrases: &'static [&'static str]) -> Row {
    Row {
        code: SYSTEM,
        ..row(name, args, phrases)
    }
}

/// Files that are wrong, beside the right ones.
fn prepare(at: &Path) {
    let read = |name: &str| std::fs::read(at.join(name)).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(at.join(name), bytes).unwrap();
    for name in ["client", "server", "secret", "keys", "input", "answer"] {
        let bytes = read(&format!("{name}.veil"));
        write(&format!("{name}-cut.veil"), &bytes[..bytes.len() / 2]);
        let mut bent = bytes.clone();
        bent[bytes.len() / 2] ^= 4;
        write(&format!("{name}-bent.veil"), &bent);
        let mut newer = bytes;
        newer[8] = 2;
        write(&format!("{name}-newer.veil"), &newer);
    }
    write("empty.veil", b"");
    write("text.veil", b"this is a text, and no file of ours");
    write("latin.txt", b"caf\xe9\n");
    write("empty.txt", b"");
    write("gap.txt", b"red blue\n\nblue red\n");
    write("data.txt", b"1 red blue\n7 blue red\n");
    write("words.txt", b"one two three\n");
    std::fs::create_dir(at.join("folder")).unwrap();
    // Other keys for the same program.
    say(at, "keygen --secret secret2.veil --keys keys2.veil");
    say(at, "encrypt red_blue --secret secret2.veil -o input2.veil");
    // Another program under other parameters.
    let its = "--client sst2/client.veil --secret sst2/secret.veil";
    say(at, "compile sst2-poly -o sst2");
    say(at, &format!("keygen --keys sst2/keys.veil {its}"));
    say(at, &format!("encrypt fine -o sst2/input.veil {its}"));
    // Another program under the same parameters: what it is called is all that differs.
    let bundle = ClientBundle::from_bytes(&read("client.veil")).unwrap();
    let renamed = bundle.with_server_content([1; 32]).to_bytes().unwrap();
    write("client3.veil", &renamed);
    write("client-insecure.veil", &insecure(&read("client.veil")));
    // A program names its parameters, and they say whether anybody checked them.
    let bundle = ServerBundle::from_bytes(&read("server.veil")).unwrap();
    let params = unchecked(bundle.params());
    let mut program = bundle.program().clone();
    program.params_digest = params.digest();
    let name = bundle.model_name().to_owned();
    let bundle = ServerBundle::new(params, program, name, bundle.client_content()).unwrap();
    write("server-insecure.veil", &bundle.to_bytes().unwrap());
    say(
        at,
        "keygen --client client3.veil --secret secret3.veil --keys keys3.veil",
    );
    say(at, "encrypt red_blue --client client3.veil -o input3.veil");
}

/// The same bundle with parameters that nobody checked.
fn insecure(bundle: &[u8]) -> Vec<u8> {
    let reader = Reader::open(bundle).unwrap();
    let params = unchecked(&read_params(&reader).unwrap());
    let mut writer = Writer::new(Kind::ClientBundle, Some(&params)).unwrap();
    for (tag, section) in reader.sections().filter(|s| s.0 != Tag::PARAMS) {
        writer.section(tag, section.to_vec());
    }
    writer.to_bytes().unwrap()
}

fn unchecked(params: &Params) -> Params {
    let spec = params.spec().clone();
    Params::from_primes_insecure_for_tests(spec, params.primes()).unwrap()
}

fn rows() -> Vec<Row> {
    let long = vec!["stone"; 33].join("_");
    let mut rows = vec![
        row(
            "no memory",
            "run --memory 0 --output new.veil",
            &["--memory is a number of GiB", "above 0 is expected"],
        ),
        row(
            "too little memory",
            "run --memory 0.01 --output new.veil",
            &["--memory 0.01", "the server still takes", "allow that much"],
        ),
        row(
            "a batch that is no power of two",
            "compile order --batch 3 -o new",
            &["3", "power of two"],
        ),
        row(
            "a batch that no ring holds",
            "compile order --batch 4096 -o new",
            &["slots", "without bootstrapping"],
        ),
        row(
            "more tokens than the model has",
            "compile order --tokens 1000 -o new",
            &["1000 tokens", "the model takes 1 to"],
        ),
        row(
            "flags for a model beside a bundle",
            "plan server.veil --tokens 8",
            &["server.veil", "compiled already"],
        ),
        row(
            "a sentence beyond the compiled length",
            "demo red_blue_red --model order --tokens 2",
            &["3 tokens", "limit is 2"],
        ),
        row(
            "no sentence",
            "encrypt -o new.veil",
            &["no sentence", "at least one"],
        ),
        row(
            "empty sentence",
            "demo --model order ",
            &["empty", "at least one word"],
        ),
        row(
            "blank sentence",
            "encrypt __ -o new.veil",
            &["sentence 1", "empty"],
        ),
        row(
            "empty file",
            "encrypt --file empty.txt -o new.veil",
            &["no sentence"],
        ),
        row(
            "empty line",
            "encrypt --file gap.txt -o new.veil",
            &["sentence 2", "empty"],
        ),
        row(
            "long",
            &format!("encrypt {long} -o new.veil"),
            &["33 tokens", "limit is 32"],
        ),
        row(
            "long",
            &format!("demo --model order {long}"),
            &["33 tokens", "limit is 32"],
        ),
        row(
            "not UTF-8",
            "encrypt --file latin.txt -o new.veil",
            &["not UTF-8", "convert"],
        ),
        row(
            "unknown model",
            "compile bert -o new",
            &["unknown model", "sst2-poly, sst2-ssm"],
        ),
        row(
            "unknown model",
            "demo --model bert",
            &["unknown model", "sst2-poly, sst2-ssm"],
        ),
        row(
            "no model",
            "compile folder -o new",
            &["config.json", "cannot read"],
        ),
        row(
            "exists",
            "compile order -o .",
            &["client.veil exists", "--force"],
        ),
        row("exists", "keygen", &["secret.veil exists", "--force"]),
        row(
            "exists",
            "keygen --secret new.veil",
            &["keys.veil exists", "--force"],
        ),
        row(
            "exists",
            "encrypt red_blue",
            &["input.veil exists", "--force"],
        ),
        row("exists", "run", &["answer.veil exists", "--force"]),
        row(
            "folder",
            "encrypt red_blue -o folder",
            &["is a folder", "name a file"],
        ),
        row(
            "one file for both",
            "keygen --secret n.veil --keys n.veil",
            &["name two files"],
        ),
        row(
            "secret to a device",
            "keygen --secret /dev/null --keys n.veil",
            &["device"],
        ),
        row(
            "no folder",
            "encrypt red_blue -o none/n.veil",
            &["cannot write", "make it first"],
        ),
        row(
            "missing",
            "keygen --client none.veil --secret n --keys m",
            &["cannot read none.veil"],
        ),
        row(
            "missing",
            "run none.veil -o new.veil",
            &["cannot read none.veil", "check"],
        ),
        row("missing", "decrypt none.veil", &["cannot read none.veil"]),
        row(
            "insecure parameters",
            "keygen --client client-insecure.veil --secret n --keys m",
            &["insecure test parameters", "compile"],
        ),
        row(
            "insecure parameters",
            "run --server server-insecure.veil -o new.veil",
            &["insecure test parameters", "compile"],
        ),
        row(
            "insecure parameters of a plan",
            "plan server-insecure.veil",
            &["insecure test parameters", "compile"],
        ),
        row(
            "insecure parameters explained",
            "explain server-insecure.veil",
            &["insecure test parameters", "compile"],
        ),
        row(
            "other keys",
            "run input2.veil -o new.veil",
            &["secret key", "evaluation keys"],
        ),
        row(
            "other keys",
            "run --keys keys2.veil -o new.veil",
            &["secret key", "that were made"],
        ),
        row(
            "other secret",
            "decrypt --secret secret2.veil",
            &["secret key", "encrypted"],
        ),
        row(
            "other parameters or program",
            "run sst2/input.veil -o new.veil",
            &["other", "client bundle|bundle that"],
        ),
        row(
            "keys of another program",
            "run --keys sst2/keys.veil -o new.veil",
            &["other", "bundle"],
        ),
        row(
            "keys of another program",
            "run --keys keys3.veil -o new.veil",
            &["evaluation keys belong to another program", "client bundle"],
        ),
        row(
            "input of another program",
            "run input3.veil -o new.veil",
            &["inputs belong to another program", "client bundle"],
        ),
        row(
            "answer of another program",
            "decrypt --client client3.veil",
            &["belongs to program", "client bundle"],
        ),
        row(
            "answer of other parameters",
            "decrypt --client sst2/client.veil --secret sst2/secret.veil",
            &["bundle"],
        ),
        row(
            "secret as keys",
            "run --keys secret.veil -o new.veil",
            &["a secret key", "keep"],
        ),
        row(
            "secret as input",
            "run secret.veil -o new.veil",
            &["a secret key"],
        ),
        row(
            "server as client",
            "keygen --client server.veil --secret n --keys m",
            &["a server bundle", "expected a client bundle"],
        ),
        row(
            "client as server",
            "run --server client.veil -o new.veil",
            &["a client bundle", "expected a server bundle"],
        ),
        row(
            "keys as secret",
            "decrypt --secret keys.veil",
            &["evaluation keys", "expected a secret key"],
        ),
        row(
            "input as answer",
            "decrypt input.veil",
            &["encrypted inputs", "expected an encrypted answer"],
        ),
        row(
            "not ours",
            "inspect text.veil",
            &["no Veilformer file", "expected"],
        ),
        row(
            "no bytes",
            "inspect empty.veil",
            &["no Veilformer file", "expected"],
        ),
        row(
            "unknown label",
            "eval --model order data.txt",
            &["label is 7", "2 classes"],
        ),
        row(
            "lines beyond the end",
            "eval --model order data.txt --lines 1..3",
            &["has 2 lines", "1..3"],
        ),
        row(
            "no range of lines",
            "eval --model order data.txt --lines 3..1",
            &["3..1", "FIRST..END"],
        ),
        row(
            "no data set",
            "eval --model order words.txt",
            &["line 1", "label"],
        ),
        row(
            "no data",
            "eval --model order none.txt",
            &["cannot read", "none.txt"],
        ),
        row(
            "no such mode",
            "eval --mode fast data.txt",
            &["possible values"],
        ),
        row("no such flag", "run --secret secret.veil", &["--secret"]),
        row("no threads", "--threads 0 models", &["0"]),
        row("no command", "fly", &["fly"]),
        row("nothing", "", &["Usage|unrecognized"]),
        system(
            "full disk",
            "encrypt red_blue -o /dev/full",
            &["No space left", "make room"],
        ),
        system(
            "full disk",
            "run -o /dev/full",
            &["No space left", "make room"],
        ),
        system(
            "full disk",
            "keygen --secret n.veil --keys /dev/full",
            &["No space left"],
        ),
    ];
    let damaged = [
        ("keygen --secret n --keys m --client client", "client"),
        ("encrypt red_blue -o n --client client", "client"),
        ("encrypt red_blue -o n --secret secret", "secret"),
        ("run -o n --server server", "server"),
        ("run -o n --keys keys", "keys"),
        ("run -o n input", "input"),
        ("decrypt answer", "answer"),
        ("plan server", "server"),
    ];
    for (args, file) in damaged {
        let with = |suffix: &str| format!("{args}{suffix}.veil");
        let newer: &[&str] = &["version 2.0", "use the version"];
        let cut: &[&str] = &["truncated", "get it again"];
        rows.push(row(file, &with("-cut"), cut));
        rows.push(row(file, &with("-bent"), &["corrupted", "get it again"]));
        rows.push(row(file, &with("-newer"), newer));
    }
    rows.push(Row {
        name: "argument not UTF-8",
        args: vec!["demo".into(), OsStr::from_bytes(b"caf\xe9").to_owned()],
        phrases: &["UTF-8"],
        code: BAD,
    });
    rows
}

#[test]
fn bad_input_is_refused_in_a_sentence() {
    let folder = copy();
    let at = folder.path();
    prepare(at);
    let before = snapshot(at);
    let mut wrong = Vec::new();
    for row in rows() {
        let output = veilformer(at, &row.args);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("{} ({:?}): {}", row.name, row.args, message.trim());
        let said = |p: &&str| p.split('|').any(|p| message.contains(p));
        if output.status.code() != Some(row.code)
            || !row.phrases.iter().all(said)
            || !output.stdout.is_empty()
            || snapshot(at) != before
        {
            wrong.push(format!(
                "{} {:?}: {:?}, expected {} and {:?}: {message}",
                row.name, row.args, output.status, row.code, row.phrases
            ));
            for path in snapshot(at).keys().filter(|p| !before.contains_key(*p)) {
                wrong.push(format!("  left behind: {}", path.display()));
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a sentence would do to a terminal is not done.
#[test]
fn control_characters_are_not_shown() {
    let folder = tempfile::TempDir::new().unwrap();
    let sentence = "red \u{1b}[31mblue\u{7}\nred";
    let output = veilformer(folder.path(), &["demo", "--model", "order", sentence]);
    let shown = [output.stdout, output.stderr].map(|b| String::from_utf8(b).unwrap());
    for text in &shown {
        let others = text.chars().filter(|c| c.is_control() && *c != '\n');
        assert_eq!(others.count(), 0, "{text}");
    }
    assert!(shown.concat().contains("red  [31mblue  red"), "{shown:?}");
}
