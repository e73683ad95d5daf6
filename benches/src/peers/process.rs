//! A driver of another library: a process that answers lines (benches/peers/README.md).

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::error::{BenchError, Result};

/// What a driver is asked to set up.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Setup {
    /// log2 of the ring dimension.
    pub log_n: u32,
    /// Primes of Q.
    pub limbs: usize,
    /// Key-switching digits.
    pub dnum: usize,
    /// Bits of the scale.
    pub scale: u32,
    /// Threads.
    pub threads: usize,
    /// The primes of Q, for libraries that take them.
    pub primes: Vec<u64>,
    /// Operations that will be asked for.
    pub ops: Vec<String>,
}

/// Any answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    ms: Option<f64>,
    ops: Option<Vec<String>>,
    note: String,
    error: Option<String>,
}

/// A running driver.
#[derive(Debug)]
pub struct Driver {
    peer: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    log: String,
}

impl Driver {
    /// Starts a driver; what it says on standard error goes to the file `log`.
    ///
    /// # Errors
    /// The system's.
    pub fn start(peer: &str, mut command: Command, log: &Path) -> Result<Self> {
        let what = || format!("starting {peer}");
        let errors = File::create(log).map_err(BenchError::io(log.display().to_string()))?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors);
        // A signal at the terminal is for us: the driver ends when we say so.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(BenchError::io(what()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(BenchError::Peer {
                peer: peer.to_owned(),
                what: "its driver has no input or output".to_owned(),
            });
        };
        Ok(Self {
            peer: peer.to_owned(),
            child,
            input,
            output: BufReader::new(output),
            log: log.display().to_string(),
        })
    }

    /// Sets up; gives the operations that the library has, and what is to be known about it.
    ///
    /// # Errors
    /// [`BenchError::Peer`] if it refuses or ends.
    pub fn setup(&mut self, setup: &Setup) -> Result<(Vec<String>, String)> {
        let parameters = serde_json::to_string(setup).map_err(BenchError::json("a setup"))?;
        let answer = self.ask(&format!("setup {parameters}"))?;
        match answer.ops {
            Some(ops) => Ok((ops, answer.note)),
            None => Err(self.failure("it answered a setup without operations")),
        }
    }

    /// Milliseconds of an operation.
    ///
    /// # Errors
    /// [`BenchError::Peer`] if it fails or ends.
    pub fn run(&mut self, op: &str, repeats: usize) -> Result<f64> {
        match self.ask(&format!("run {op} {repeats}"))?.ms {
            Some(ms) if ms.is_finite() && ms >= 0.0 => Ok(ms),
            _ => Err(self.failure("it answered a run without a time")),
        }
    }

    fn ask(&mut self, line: &str) -> Result<Answer> {
        let sent = writeln!(self.input, "{line}").and_then(|()| self.input.flush());
        if sent.is_err() {
            return Err(self.failure("its driver has ended"));
        }
        loop {
            let mut answer = String::new();
            if !matches!(self.output.read_line(&mut answer), Ok(length) if length > 0) {
                return Err(self.failure("its driver ended without an answer"));
            }
            // Libraries print, too.
            let Ok(answer) = serde_json::from_str::<Answer>(&answer) else {
                continue;
            };
            return match answer.error {
                Some(error) => Err(self.failure(&error)),
                None => Ok(answer),
            };
        }
    }

    fn failure(&self, what: &str) -> BenchError {
        BenchError::Peer {
            peer: self.peer.clone(),
            what: format!("{what} (its messages: {})", self.log),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It has nothing to save; whatever it does now, it ends.
        let _ = writeln!(self.input, "quit");
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    /// A library in a shell: knows one operation, fails at another, ends at a third.
    const FAKE: &str = r#"
        while read -r command rest; do
            case "$command $rest" in
                setup*) echo 'loading tables'; echo '{"ops":["rotate"],"note":"fake"}' ;;
                "run rotate 3") echo '{"ms":1.5}' ;;
                "run add"*) echo '{"error":"no add"}' ;;
                "run odd"*) echo '{"ms":null}' ;;
                "run crash"*) exit 3 ;;
            esac
        done"#;

    fn fake() -> (Driver, std::path::PathBuf) {
        let id = std::thread::current().id();
        let log = std::env::temp_dir().join(format!("bench-{}-{id:?}.log", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", FAKE]);
        (Driver::start("fake", command, &log).unwrap(), log)
    }

    #[test]
    fn answers_are_read_and_failures_said() {
        let (mut driver, log) = fake();
        let (ops, note) = driver.setup(&Setup::default()).unwrap();
        assert_eq!((ops, note.as_str()), (vec!["rotate".to_owned()], "fake"));
        assert_eq!(driver.run("rotate", 3).unwrap(), 1.5);
        let error = driver.run("add", 1).unwrap_err().to_string();
        assert!(error.starts_with("fake: no add (its messages: "), "{error}");
        let error = driver.run("odd", 1).unwrap_err().to_string();
        assert!(error.contains("without a time"), "{error}");
        // An error is not the end; an end is one.
        assert_eq!(driver.run("rotate", 3).unwrap(), 1.5);
        let error = driver.run("crash", 1).unwrap_err().to_string();
        assert!(error.contains("ended without an answer"), "{error}");
        assert!(driver.run("rotate", 3).is_err());
        drop(driver);
        std::fs::remove_file(log).unwrap();
    }

    #[test]
    fn setups_are_one_line() {
        let setup = Setup {
            log_n: 16,
            ops: vec!["rotate".into()],
            ..Setup::default()
        };
        let line = serde_json::to_string(&setup).unwrap();
        assert!(line.contains("\"log_n\":16") && !line.contains('\n'));
    }
}
