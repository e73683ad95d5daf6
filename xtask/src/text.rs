//! Checks on the text of tracked files: links between pages lead somewhere, every page of the
//! book is in its summary, accuracies are quoted as the models' cards have them, every JSON field is
//! documented, and no file names a path of somebody's machine or a registry's host.

use crate::Outcome;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// First folders of absolute paths that belong to one machine. Bare names: this file is checked
/// too.
const FOLDERS: [&str; 5] = ["home", "root", "tmp", "Users", "work"];

/// Hosts of package registries, in two halves for the same reason. Their names (crates.io, PyPI)
/// are fine.
const HOSTS: [(&str, &str); 4] = [
    ("index.crates", ".io"),
    ("static.crates", ".io"),
    ("pypi", ".org"),
    ("pythonhosted", ".org"),
];

/// Pages that quote the cards of shipped models.
const QUOTING: [&str; 2] = ["README.md", "book/src/guide/models.md"];

/// Where the objects of `--json` are defined, and the page that documents them.
const JSON: [&str; 2] = [
    "crates/veilformer/src/cli/json.rs",
    "book/src/guide/json.md",
];

/// Checks all tracked files under `root`.
pub fn check(root: &Path) -> Outcome {
    let files = tracked(root)?;
    let mut wrong = Vec::new();
    let (mut read, mut links) = (0, 0);
    let mut summary = String::new();
    for file in &files {
        let Ok(text) = std::fs::read_to_string(root.join(file)) else {
            continue; // not text, or deleted in the working tree
        };
        read += 1;
        let name = file.to_string_lossy();
        if name == "book/src/SUMMARY.md" {
            summary.clone_from(&text);
        }
        if name != "Cargo.lock" && !name.ends_with("/Cargo.lock") {
            for (number, line) in text.lines().enumerate() {
                if let Some(what) = forbidden(line) {
                    wrong.push(format!("{name}:{}: {what}", number + 1));
                }
            }
        }
        if name.ends_with(".md") {
            for target in targets(&text) {
                links += 1;
                if !root.join(resolve(file, target)).exists() {
                    wrong.push(format!("{name}: the link to {target} leads nowhere"));
                }
            }
        }
    }
    for file in &files {
        let page = file
            .strip_prefix("book/src")
            .ok()
            .filter(|p| p.extension().is_some_and(|e| e == "md"));
        if let Some(page) = page.filter(|p| *p != Path::new("SUMMARY.md")) {
            let page = page.to_string_lossy();
            if !summary.contains(&format!("({page})")) {
                wrong.push(format!("book/src/SUMMARY.md does not list {page}"));
            }
        }
    }
    for page in QUOTING {
        let text = std::fs::read_to_string(root.join(page)).unwrap_or_default();
        for card in files
            .iter()
            .filter(|f| f.starts_with("models") && f.ends_with("README.md"))
        {
            let card_text = std::fs::read_to_string(root.join(card)).unwrap_or_default();
            for figure in test_figures(&card_text).filter(|f| !text.contains(*f)) {
                wrong.push(format!(
                    "{page} does not have {figure}, as {} does",
                    card.display()
                ));
            }
        }
    }
    let [source, page] = JSON.map(|f| std::fs::read_to_string(root.join(f)).unwrap_or_default());
    let (names, said) = (fields(&source), code_words(&page));
    if names.is_empty() {
        wrong.push(format!("{} defines no field", JSON[0]));
    }
    for name in names.iter().filter(|n| !said.contains(*n)) {
        wrong.push(format!("{} does not document `{name}`", JSON[1]));
    }
    if wrong.is_empty() {
        return Ok(format!("text: {read} files, {links} links between them"));
    }
    Err(wrong.join("\n"))
}

fn tracked(root: &Path) -> Result<Vec<PathBuf>, String> {
    let listed = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z"])
        .output();
    let listed = listed.map_err(|e| format!("git ls-files: {e}"))?;
    if !listed.status.success() {
        return Err("git ls-files failed: run this in a checkout".into());
    }
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    Ok(names
        .split('\0')
        .filter(|n| !n.is_empty())
        .map(PathBuf::from)
        .collect())
}

/// What a line must not have.
fn forbidden(line: &str) -> Option<String> {
    for folder in FOLDERS {
        let path = format!("/{folder}/");
        // After a name, a dot or a star it is the middle of some other path.
        let starts = line.match_indices(&path).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && !"_-.*)}>".contains(c))
        });
        if starts {
            return Some(format!("a path of one machine ({path}..)"));
        }
    }
    let host = HOSTS
        .iter()
        .map(|(a, b)| format!("{a}{b}"))
        .find(|host| line.contains(host));
    host.map(|host| format!("a registry's host ({host})"))
}

/// Test accuracies on a card: of the model and of the bag of words.
fn test_figures(card: &str) -> impl Iterator<Item = &str> {
    let rows = ["| this model |", "| bag of words of the same features |"];
    let quoted = card
        .lines()
        .filter(move |l| rows.iter().any(|r| l.starts_with(r)));
    quoted.filter_map(|l| {
        l.trim_end_matches([' ', '|'])
            .rsplit('|')
            .next()
            .map(str::trim)
    })
}

/// Names of the public fields in Rust code, but for those that serde flattens away.
fn fields(code: &str) -> BTreeSet<&str> {
    let mut before = "";
    let mut out = BTreeSet::new();
    for line in code.lines().map(str::trim) {
        let name = line
            .strip_prefix("pub ")
            .and_then(|l| l.split_once(':'))
            .map(|l| l.0);
        if let Some(name) = name.filter(|n| !n.contains([' ', '(']) && !before.contains("flatten"))
        {
            out.insert(name);
        }
        before = line;
    }
    out
}

/// What stands in backquotes on a page, without the brackets of lists.
fn code_words(page: &str) -> BTreeSet<&str> {
    page.split('`')
        .skip(1)
        .step_by(2)
        .map(|w| w.trim_end_matches("[]"))
        .collect()
}

/// Targets of Markdown links that are files of this repository, without their anchors.
fn targets(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for part in line.split("](").skip(1) {
            let target = part.split([')', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains(':') {
                out.push(target);
            }
        }
    }
    out
}

/// `target` as seen from the folder of `file`.
fn resolve(file: &Path, target: &str) -> PathBuf {
    let mut out = file.parent().map(Path::to_path_buf).unwrap_or_default();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::Normal(name) => out.push(name),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_paths_and_hosts_are_found() {
        let folder = FOLDERS[4];
        assert!(forbidden(&format!("see /{folder}/main/x")).is_some());
        assert!(forbidden(&format!("\"/{folder}/main\"")).is_some());
        assert!(forbidden(&format!("a/{folder}/b and target/{folder}/")).is_none());
        assert!(forbidden(&format!("{}{}", HOSTS[2].0, HOSTS[2].1)).is_some());
        assert!(forbidden("from crates.io and PyPI").is_none());
    }

    #[test]
    fn figures_are_those_of_the_test_split() {
        let card = "| | dev | test |\n| this model | 1.00 % | 2.00 % |\n| other | 3 | 4 |\n";
        assert_eq!(test_figures(card).collect::<Vec<_>>(), ["2.00 %"]);
    }

    #[test]
    fn fields_and_their_documentation_are_found() {
        let code =
            "pub struct A {\n/// x\npub a: u8,\n#[serde(flatten)]\npub b: B,\n}\npub fn f(x: u8)";
        assert_eq!(fields(code), BTreeSet::from(["a"]));
        assert!(code_words("| `a[]` | of `b` |").is_superset(&BTreeSet::from(["a", "b"])));
    }

    #[test]
    fn links_are_found_and_resolved() {
        let text = "[a](b/c.md#top) [d](https://example.org) [e](#here)\n```\n[x](y)\n```\n";
        assert_eq!(targets(text), ["b/c.md"]);
        assert_eq!(
            resolve(Path::new("book/src/a.md"), "../../README.md"),
            Path::new("README.md")
        );
    }
}
