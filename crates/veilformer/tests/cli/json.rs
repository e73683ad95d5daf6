//! The shape of every `--json` object: names and kinds of all fields. A change here is a change
//! of an interface.

use std::path::Path;

use serde_json::Value;

use tempfile::TempDir;

use crate::setup::{conversation, copy, succeed, veilformer};

/// The object as one line of names and kinds; of lists the first element.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(n) if n.is_f64() => "float".into(),
        Value::Number(_) => "int".into(),
        Value::String(_) => "text".into(),
        Value::Array(list) => format!("[{}]", list.first().map_or(String::new(), shape)),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{name}: {}", shape(value));
            let fields: Vec<String> = fields.iter().map(field).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

fn run(at: &Path, args: &[&str]) -> Value {
    let out = succeed(at, &[args, &["--json"]].concat());
    assert_eq!(out.lines().count(), 1, "one object on one line: {out}");
    serde_json::from_str(&out).unwrap()
}

#[track_caller]
fn check(at: &Path, args: &[&str], expected: &str) -> Value {
    let value = run(at, args);
    let expected: Vec<&str> = expected.split_whitespace().collect();
    assert_eq!(shape(&value), expected.join(" "), "{args:?}");
    value
}

const SECURITY: &str = "[{bits: int, key: text, log_n: int, log_qp: float, secret: text}]";
const ANSWER: &str = "{label: text, logits: [float], probability: float}";

#[test]
fn demo() {
    let sentence =
        format!("{{encrypted: {ANSWER}, max_logit_error: float, plaintext: {ANSWER}, text: text}}");
    let seconds = "{decrypt: float, encrypt: float, keygen: float, run: float, total: float}";
    let expected = format!(
        "{{ciphertext_bytes_down: int, ciphertext_bytes_up: int, key_bytes: int, \
         peak_rss_bytes: int, seconds: {seconds}, security: {SECURITY}, sentences: [{sentence}]}}"
    );
    let value = check(
        conversation(),
        &["demo", "--model", "order", "blue red"],
        &expected,
    );
    let rows = value["security"].as_array().unwrap();
    assert!(rows.iter().all(|r| r["bits"].as_u64().unwrap() >= 128));
    assert!(rows.iter().any(|r| r["key"] == "relinearization"));
    assert!(rows.iter().any(|r| r["key"] == "ciphertexts"));
    assert_eq!(value["sentences"][0]["encrypted"]["label"], "blue first");
}

#[test]
fn the_other_commands() {
    let folder = copy();
    let at = folder.path();
    let compiled = format!(
        "{{batch: int, bootstraps: int, client: text, client_bytes: int, inputs: int, levels: int, log_n: int, \
         max_tokens: int, model: text, polynomial_depth: null, seconds: float, security: {SECURITY}, server: text, \
         server_bytes: int}}"
    );
    check(at, &["compile", "order", "-o", "out"], &compiled);
    check(
        at,
        &["keygen", "--secret", "s", "--keys", "k"],
        "{key_bytes: int, key_count: int, key_id: text, keys: text, keys_kept: int, \
         seconds: float, secret: text}",
    );
    check(
        at,
        &["encrypt", "red", "-o", "i"],
        "{ciphertext_bytes_up: int, output: text, seconds: float, sentences: int}",
    );
    check(
        at,
        &["run", "-o", "a"],
        "{ciphertext_bytes_down: int, cpu_seconds: float, key_switches: int, load_seconds: float, \
         multiplications: int, output: text, peak_rss_bytes: int, seconds: float, \
         sentences: int}",
    );
    check(at, &["decrypt"], &format!("{{answers: [{ANSWER}]}}"));
    check(
        at,
        &["explain", "server.veil"],
        "{ciphertext_program: text, device_program: null, substitutions: null, tensor_program: null}",
    );
    check(
        at,
        &["explain", "server.veil", "--device"],
        "{ciphertext_program: text, device_program: text, substitutions: null, tensor_program: null}",
    );
    let file = "bytes: int, contents: [], digest: text, insecure: bool, kind: text, params: text, \
                params_digest: text, sections: [[text]], security: [], version: [int]";
    check(
        at,
        &["inspect", "client.veil"],
        &format!(
            "{{bundle: {{content: text, inputs: int, keys: int, model: text, other: text}}, {file}}}"
        ),
    );
    check(
        at,
        &["inspect", "secret.veil"],
        &format!("{{bundle: null, {file}}}"),
    );
    check(
        at,
        &["models"],
        "{models: [{bytes: int, card: text, labels: [text], max_tokens: int, name: text, \
         summary: text}]}",
    );
    std::fs::write(
        at.join("data"),
        "0 red blue\n1 blue red\n0 blue stone red\n",
    )
    .unwrap();
    let eval = |batch: &str, ranges: &str, run: &str| {
        format!(
            "{{accuracy: float, agree: int, batch: {batch}, items: int, max_logit_error: float, \
             original: null, range_violations: {ranges}, run_seconds: {run}, seconds: float, too_long: int}}"
        )
    };
    for (mode, eval) in [
        ("poly", eval("null", "null", "null")),
        ("sim", eval("int", "[]", "null")),
        ("encrypted", eval("int", "null", "float")),
    ] {
        let value = check(
            at,
            &["eval", "data", "--model", "order", "--mode", mode],
            &eval,
        );
        assert_eq!((&value["items"], &value["agree"]), (&3.into(), &3.into()));
        assert!((value["accuracy"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-9);
        let error = value["max_logit_error"].as_f64().unwrap();
        assert_eq!(error == 0.0, mode == "poly", "noise is there or is not");
    }
}

/// What is simulated is of the size of what is measured, and what is planned happens.
#[test]
fn report() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    std::fs::write(
        at.join("data"),
        "1 A fine film.\n0 A dull film.\n".repeat(8) + "1 A film of very many words.\n",
    )
    .unwrap();
    let errors = "{agree: int, max_logit_error: float, rms_logit_error: float}";
    let pair = "{measured: float, planned: float}";
    let expected = format!(
        "{{accuracy: float, batch: int, charts: [text], cpu_seconds: {pair}, encrypted: {errors}, error_ratio: float, \
         items: int, key_switches: {pair}, model: text, peak_ciphertext_bytes: {pair}, \
         range_violations: [], runs: int, seconds: {pair}, simulated: {errors}, too_long: int}}"
    );
    let args = [
        "report",
        "data",
        "--model",
        "sst2-ssm",
        "--batch",
        "4",
        "--costs",
        "costs",
        "--tokens",
        "5",
        "--long-as-wrong",
    ];
    let value = check(at, &args, &expected);
    let counts = ["items", "too_long", "runs"].map(|name| value[name].as_u64().unwrap());
    assert_eq!(counts, [17, 1, 4]);
    // What is too long is answered wrongly, here as in `eval`.
    let args = ["eval", "data", "--model", "sst2-ssm", "--tokens", "5"];
    let eval = run(at, &[&args[..], &["--long-as-wrong"]].concat());
    assert_eq!(value["accuracy"], eval["accuracy"]);
    assert_eq!(value["encrypted"]["agree"], 16);
    // Both of all runs.
    let time = |name: &str, of: &str| value[name][of].as_f64().unwrap();
    let planned = time("cpu_seconds", "planned") / time("seconds", "planned");
    assert!(planned > 0.9, "{planned}");
    let ratio = value["error_ratio"].as_f64().unwrap();
    assert!((0.5..2.0).contains(&ratio), "{ratio}");
    let switches = &value["key_switches"];
    assert_eq!(switches["planned"], switches["measured"]);
    for chart in value["charts"].as_array().unwrap() {
        let text = std::fs::read_to_string(at.join(chart.as_str().unwrap())).unwrap();
        assert!(text.starts_with("<svg"));
    }
}

#[test]
fn plan_is_exact_where_it_can_be() {
    let folder = copy();
    let at = folder.path();
    let expected = format!(
        "{{batch: int, bootstrap_seconds: float, bootstraps: int, ciphertext_bytes_down: int, ciphertext_bytes_up: int, \
         cpu_seconds: float, full_weight_bytes: int, key_bytes: int, key_switches: int, levels: int, load_seconds: float, \
         multiplications: int, peak_memory_bytes: int, seconds: float, security: {SECURITY}, weight_bytes: int}}"
    );
    let plan = check(at, &["plan", "--costs", "costs"], &expected);
    let size = |name: &str| std::fs::metadata(at.join(name)).unwrap().len();
    assert_eq!(plan["key_bytes"], size("keys.veil"));
    assert_eq!(plan["ciphertext_bytes_up"], size("input.veil"));
    assert_eq!(plan["ciphertext_bytes_down"], size("answer.veil"));
    let done = run(at, &["run", "--force"]);
    assert_eq!(plan["key_switches"], done["key_switches"]);
    assert_eq!(plan["multiplications"], done["multiplications"]);
    // From the cache now.
    let changed = |at: &Path| {
        std::fs::metadata(at.join("costs"))
            .unwrap()
            .modified()
            .unwrap()
    };
    let before = changed(at);
    assert_eq!(
        run(at, &["plan", "--costs", "costs"])["seconds"],
        plan["seconds"]
    );
    assert_eq!(changed(at), before);
}

#[test]
fn each_bundle_names_the_other() {
    let look = |name: &str| run(conversation(), &["inspect", name])["bundle"].clone();
    let (client, server) = (look("client.veil"), look("server.veil"));
    assert_eq!(client["content"], server["other"]);
    assert_eq!(client["other"], server["content"]);
}

#[test]
fn quiet_says_nothing_but_what_was_asked() {
    let output = veilformer(conversation(), &["--quiet", "decrypt"]);
    assert!(output.status.success() && output.stderr.is_empty());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .starts_with("blue first")
    );
    let output = veilformer(
        conversation(),
        &["--quiet", "encrypt", "red", "-o", "/dev/null"],
    );
    assert!(output.status.success() && output.stderr.is_empty() && output.stdout.is_empty());
    // The demo's answers are what it was asked for.
    let output = veilformer(
        conversation(),
        &["--quiet", "demo", "--model", "order", "red blue"],
    );
    assert!(output.status.success() && output.stderr.is_empty());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("red blue")
    );
}
