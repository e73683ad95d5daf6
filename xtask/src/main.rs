//! Everything that is not `cargo build` or `cargo test`. `cargo xtask` lists the commands.
#![forbid(unsafe_code)]

mod bench;
mod demo;
mod picture;
mod summary;
mod text;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  bench WHAT [FLAGS]    measurements beside floors and other libraries; bench --help lists them
  check-demo FILE       what `demo --json` printed: labels, errors, security (FILE may be -)
  check-text            links between pages, no machine's paths or hosts in tracked files
  test-summary FILE     number of tests per crate in what `cargo test` printed; none may be zero
  picture FILE OUT.svg  a picture of a terminal that shows FILE (ANSI colours allowed)";

/// What every command returns: a line to print, or what is wrong.
type Outcome = Result<String, String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["bench", arguments @ ..] => bench::forward(arguments),
        ["check-demo", file] => read(file).and_then(|json| demo::check(&json)),
        ["check-text"] => text::check(Path::new(".")),
        ["test-summary", file] => read(file).and_then(|log| summary::of(&log)),
        ["picture", file, out] => read(file).and_then(|shown| save(out, &picture::svg(&shown))),
        _ => Err(USAGE.to_owned()),
    };
    let (text, code) = match outcome {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(text) => (text, ExitCode::FAILURE),
    };
    eprintln!("{text}");
    code
}

fn read(file: &str) -> Result<String, String> {
    if file == "-" {
        return std::io::read_to_string(std::io::stdin()).map_err(|e| format!("stdin: {e}"));
    }
    std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))
}

fn save(file: &str, content: &str) -> Outcome {
    std::fs::write(file, content).map_err(|e| format!("{file}: {e}"))?;
    Ok(format!("{file}: {} bytes", content.len()))
}
