//! A bootstrap in a process of its own.

use std::process::{Command, Stdio};

use super::{Plan, Preset, Report, Whose};
use crate::args::IsaName;
use crate::error::{BenchError, Result};
use crate::peers;

/// Installs what a preset needs, runs it and reads its report.
pub(super) fn run(preset: &Preset, plan: &Plan) -> Result<Report> {
    let (rounds, threads) = (plan.rounds.to_string(), plan.threads.to_string());
    let mut command = match (&preset.whose, &plan.place) {
        (Whose::Ours(_), _) => {
            let program = std::env::current_exe().map_err(BenchError::io("this program"))?;
            let mut command = Command::new(program);
            command.args(["bootstrap-run", "--only", preset.name]);
            command.args(["--rounds", &rounds, "--threads", &threads]);
            command.args(["--isa", IsaName::from(plan.isa).name()]);
            if !plan.batch {
                command.arg("--quick");
            }
            command
        }
        (Whose::Theirs(peer, argument), Some(place)) => {
            let mut command = peers::bootstrap(*peer, place, plan.threads)?;
            command.args([argument, rounds.as_str(), threads.as_str()]);
            command
        }
        (Whose::Theirs(peer, _), None) => {
            let what = format!("nobody says where {} is installed", peer.name());
            return Err(BenchError::Usage(what));
        }
    };
    enough_memory(preset, available_gib())?;
    eprintln!(
        "{}: up to {} GiB, some minutes ..",
        preset.name, preset.needs
    );
    report(preset.name, &mut command)
}

/// What a process says on standard output that is a report; the rest of it is a library's.
fn report(name: &str, command: &mut Command) -> Result<Report> {
    let failed = |what: String| BenchError::Peer {
        peer: name.to_owned(),
        what,
    };
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .map_err(BenchError::io(name))?;
    if !output.status.success() {
        return Err(failed(format!("its process ended: {}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut refused = failed("it printed no report".to_owned());
    for line in text.lines().filter(|line| line.starts_with('{')) {
        match serde_json::from_str::<Report>(line) {
            Ok(report) => return report.checked().map_err(failed),
            Err(e) => refused = BenchError::json(name)(e),
        }
    }
    Err(refused)
}

/// Refuses what would push other processes out of memory.
fn enough_memory(preset: &Preset, available: Option<f64>) -> Result<()> {
    match available {
        Some(gib) if gib < preset.needs => Err(BenchError::Usage(format!(
            "it needs {} GiB of memory and {gib:.1} are free",
            preset.needs
        ))),
        _ => Ok(()),
    }
}

/// Memory that can be had without swapping, GiB; `None` where the system does not say.
fn available_gib() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0 / 1024.0)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::super::{PRESETS, row::tests::REPORT};
    use super::*;

    fn shell(script: &str) -> Result<Report> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        report("fake", &mut command)
    }

    #[test]
    fn reports_are_found_among_what_libraries_print() {
        let report = shell(&format!("echo loading; echo '{REPORT}'")).unwrap();
        assert_eq!((report.parameters.levels, report.times.len()), (9, 4));
    }

    #[test]
    fn failures_are_said() {
        let error = |script: &str| shell(script).unwrap_err().to_string();
        assert!(error("exit 3").contains("exit status: 3"));
        assert!(error("echo loading").contains("no report"));
        assert!(error("echo '{\"preset\":1}'").starts_with("fake: missing field"));
        let none = REPORT.replace("\"levels\":9", "\"levels\":0");
        let error = error(&format!("echo '{none}'"));
        assert!(error.contains("no level"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let [preset, ..] = &PRESETS;
        assert!(enough_memory(preset, None).is_ok());
        assert!(enough_memory(preset, Some(preset.needs)).is_ok());
        let error = enough_memory(preset, Some(preset.needs - 1.0)).unwrap_err();
        assert!(error.to_string().contains("are free"));
    }
}
