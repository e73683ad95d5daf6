//! How many tests each crate has, from what `cargo test --workspace` printed.

use crate::Outcome;
use std::collections::BTreeMap;
use std::fmt::Write;

#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
    ignored: usize,
    seconds: f64,
}

/// A table of tests per crate. An error where a crate has none, or a test failed.
pub fn of(log: &str) -> Outcome {
    let mut crates: BTreeMap<String, Count> = BTreeMap::new();
    let mut current = String::new();
    for line in log.lines() {
        let line = line.trim_start();
        // Cargo runs a package's unit tests before its integration tests, and names the package
        // only there (and above documentation tests).
        if let Some(rest) = line.strip_prefix("Running unittests ") {
            current = crate_of(rest).unwrap_or_default();
            crates.entry(current.clone()).or_default();
        } else if let Some(name) = line.strip_prefix("Doc-tests ") {
            current = name.trim().replace('_', "-");
        } else if let Some(rest) = line.strip_prefix("test result: ") {
            let count = crates.entry(current.clone()).or_default();
            count.passed += field(rest, "passed");
            count.failed += field(rest, "failed");
            count.ignored += field(rest, "ignored");
            count.seconds += seconds(rest);
        }
    }
    if crates.is_empty() {
        return Err("no tests were run".into());
    }
    let mut table = format!(
        "{:<22}{:>7}{:>9}{:>10}\n",
        "crate", "tests", "ignored", "seconds"
    );
    let mut total = Count::default();
    for (name, count) in &crates {
        row(&mut table, name, count);
        total.passed += count.passed;
        total.failed += count.failed;
        total.ignored += count.ignored;
        total.seconds += count.seconds;
    }
    row(&mut table, "all", &total);
    let without: Vec<&str> = crates
        .iter()
        .filter(|(_, c)| c.passed == 0)
        .map(|(n, _)| n.as_str())
        .collect();
    if total.failed > 0 {
        return Err(format!("{table}{} tests failed", total.failed));
    }
    if !without.is_empty() {
        return Err(format!("{table}no tests in {}", without.join(", ")));
    }
    Ok(table.trim_end().to_owned())
}

fn row(table: &mut String, name: &str, count: &Count) {
    // Writing to a string cannot fail.
    let _ = writeln!(
        table,
        "{name:<22}{:>7}{:>9}{:>10.1}",
        count.passed, count.ignored, count.seconds
    );
}

/// The crate in `src/lib.rs (target/release/deps/veilformer_ring-0123abc)`.
fn crate_of(rest: &str) -> Option<String> {
    let file = rest.split(['/', '\\']).next_back()?.trim_end_matches(')');
    let name = file.rsplit_once('-').map_or(file, |(name, _)| name);
    Some(name.replace('_', "-"))
}

/// The number before `name`, in `ok. 3 passed; 0 failed; ...`.
fn field(result: &str, name: &str) -> usize {
    let words: Vec<&str> = result.split([' ', ';']).filter(|w| !w.is_empty()).collect();
    let at = words
        .iter()
        .position(|w| *w == name)
        .and_then(|i| words.get(i.checked_sub(1)?));
    at.and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn seconds(result: &str) -> f64 {
    let text = result.split("finished in ").nth(1).unwrap_or_default();
    text.trim().trim_end_matches('s').parse().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
     Running unittests src/lib.rs (target/release/deps/veilformer_ring-0123456789abcdef)
running 2 tests
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.25s
     Running tests/isa.rs (target/release/deps/isa-0123456789abcdef)
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s
     Running unittests src/main.rs (target/release/deps/xtask-0123456789abcdef)
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
   Doc-tests veilformer_ring
test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
";

    #[test]
    fn integration_and_documentation_tests_count_for_their_crate() {
        let table = of(LOG).unwrap();
        let ring = table
            .lines()
            .find(|l| l.starts_with("veilformer-ring"))
            .unwrap();
        let words: Vec<&str> = ring.split_whitespace().collect();
        assert_eq!(words[1..3], ["9", "1"], "{table}");
        assert!(table.lines().last().unwrap().starts_with("all"));
    }

    #[test]
    fn a_crate_without_tests_and_a_failure_are_said() {
        let empty = LOG.replace("1 passed", "0 passed");
        assert!(of(&empty).unwrap_err().contains("no tests in xtask"));
        let failed = LOG.replacen("0 failed", "1 failed", 1);
        assert!(of(&failed).unwrap_err().contains("1 tests failed"));
        assert!(of("").is_err());
    }
}
