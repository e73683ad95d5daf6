//! `bench`: builds the benches and runs them. They need the whole stack, this crate does not.

use std::process::Command;

use crate::Outcome;

/// Forwards the arguments to `veilformer-bench`. Where the system can, this process becomes the
/// other one, so that there is one to interrupt and its exit code is seen.
pub fn forward(arguments: &[&str]) -> Outcome {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let mut command = Command::new(cargo);
    command
        .args([
            "run",
            "--release",
            "--quiet",
            "--package",
            "veilformer-bench",
            "--",
        ])
        .args(arguments);
    become_or_wait(command).map_err(|e| format!("{cargo} run: {e}"))
}

#[cfg(unix)]
fn become_or_wait(mut command: Command) -> std::io::Result<String> {
    Err(std::os::unix::process::CommandExt::exec(&mut command))
}

#[cfg(not(unix))]
fn become_or_wait(mut command: Command) -> std::io::Result<String> {
    let status = command.status()?;
    if status.success() {
        return Ok("bench: done".to_owned());
    }
    Err(std::io::Error::other(status.to_string()))
}
