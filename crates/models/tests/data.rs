//! Data sets: formats found by content, and errors with line numbers.
// Helpers of tests stand outside the test functions that clippy lets unwrap.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Xorshift, shared};
use veilformer_models::{DataSet, Example, LineRange};

fn parse(text: &str) -> Result<DataSet, String> {
    DataSet::parse(Path::new("data"), text).map_err(|e| e.to_string())
}

fn example(label: usize, text: &str) -> Example {
    Example {
        text: text.to_owned(),
        label,
    }
}

#[test]
fn the_formats_give_the_same_sentences() {
    let expected = vec![example(1, "a good film"), example(0, "it 's bad")];
    assert_eq!(
        parse("1 a good film\n0 it 's bad\n").unwrap().examples,
        expected
    );
    assert_eq!(
        parse("sentence\tlabel\na good film\t1\nit 's bad \t0")
            .unwrap()
            .examples,
        expected
    );
    assert_eq!(
        parse("label\tidx\ttext\r\n1\t7\ta good film\r\n0\t8\tit 's bad\r\n")
            .unwrap()
            .examples,
        expected
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x.pos"), "a good film \n").unwrap();
    std::fs::write(dir.path().join("x.neg"), "it 's bad \n\n").unwrap();
    for path in [
        dir.path().join("x.pos"),
        dir.path().join("x.neg"),
        dir.path().to_owned(),
    ] {
        assert_eq!(DataSet::load(&path).unwrap().examples, expected);
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_text() {
    let dir = tempfile::tempdir().unwrap();
    for (text, label) in [("1 a good film\n", 1), ("text\tlabel\na good film\t1\n", 1)] {
        let text = format!("\u{feff}{text}");
        let expected = vec![example(label, "a good film")];
        assert_eq!(parse(&text).unwrap().examples, expected);
        std::fs::write(dir.path().join("x.txt"), &text).unwrap();
        let loaded = DataSet::load(&dir.path().join("x.txt")).unwrap();
        assert_eq!(loaded.examples, expected);
    }
    std::fs::write(dir.path().join("x.pos"), "\u{feff}good\n").unwrap();
    std::fs::write(dir.path().join("x.neg"), "\u{feff}bad\n").unwrap();
    let pair = DataSet::load(dir.path()).unwrap();
    assert_eq!(pair.examples, [example(1, "good"), example(0, "bad")]);
}

#[test]
fn a_file_beyond_the_limit_is_refused_unread() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len((1 << 30) + 1).unwrap();
    let message = DataSet::load(file.path()).unwrap_err().to_string();
    assert!(message.contains("more than 1073741824 bytes"), "{message}");
}

#[test]
fn a_wrong_line_is_named() {
    for (text, expected) in [
        ("1 good\ntwo bad\n", "line 2: the label is `two`"),
        ("1 good\n0\n", "line 2: no sentence beside the label"),
        ("1 good\n\n12345 bad\n", "line 3: the label is `12345`"),
        (
            "sentence\tlabel\ngood\t1\nbad\n",
            "line 3: 1 columns, expected the header's 2",
        ),
        ("good\t1\nbad\t0\n", "line 1: the header names the columns"),
        ("sentence\tlabel\ngood\t\n", "line 2: the label is ``"),
    ] {
        let message = parse(text).unwrap_err();
        assert!(message.contains(expected), "{message}\nlacks: {expected}");
    }
}

#[test]
fn a_wrong_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let load = |name: &str| {
        DataSet::load(&dir.path().join(name))
            .unwrap_err()
            .to_string()
    };
    assert!(load("absent").contains("cannot read"));
    assert!(load("").contains("0 pairs of a .pos and a .neg file"));
    std::fs::write(dir.path().join("latin"), b"1 good\n1 caf\xe9\n").unwrap();
    assert!(load("latin").contains("line 2: not UTF-8"));
    std::fs::write(dir.path().join("empty"), "").unwrap();
    assert!(load("empty").contains("no sentence in it"));
    std::fs::write(dir.path().join("half.pos"), "good\n").unwrap();
    assert!(load("half.pos").contains("half.neg"));
}

fn lines(text: &str) -> LineRange {
    text.parse().unwrap()
}

#[test]
fn lines_are_taken_of_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let texts = |path: &Path, range: &str| -> Vec<String> {
        let set = DataSet::load_lines(path, Some(lines(range))).unwrap();
        set.examples.into_iter().map(|e| e.text).collect()
    };
    let plain = file("plain", "1 a\n0 b\n\n1 d\n");
    assert_eq!(texts(&plain, "1..4"), ["b", "d"]);
    assert_eq!(texts(&plain, "0..1"), ["a"]);
    let table = file("table", "sentence\tlabel\na\t1\nb\t0\nc\t1\n");
    assert_eq!(texts(&table, "1..3"), ["b", "c"]);
    let pair = file("x.pos", "a\nb\nc\n");
    file("x.neg", "d\ne\nf\ng\n");
    assert_eq!(texts(&pair, "1..3"), ["b", "c", "e", "f"]);
    for (path, range, expected) in [
        (&plain, "2..5", "it has 4 lines and 2..5 were asked for"),
        (&table, "0..4", "it has 3 lines and 0..4 were asked for"),
        (
            &pair,
            "0..4",
            "x.pos: it has 3 lines and 0..4 were asked for",
        ),
        (&plain, "2..3", "no sentence in it"),
    ] {
        let message = DataSet::load_lines(path, Some(lines(range)))
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}\nlacks: {expected}");
    }
    assert_eq!(lines("3..5"), LineRange::new(3, 5).unwrap());
    assert_eq!(
        (lines("3..5").to_string(), lines("3..5").count()),
        ("3..5".into(), 2)
    );
    for wrong in [
        "",
        "3",
        "5..3",
        "3..3",
        "a..b",
        "-1..3",
        "1...3",
        "1..99999999999999999999",
    ] {
        assert!(wrong.parse::<LineRange>().is_err(), "{wrong}");
    }
}

#[test]
fn rotten_tomatoes_splits_by_lines() {
    let Some(path) = shared("rotten_tomatoes") else {
        return;
    };
    let splits = ["0..4265", "4265..4798", "4798..5331"].map(|range| {
        let set = DataSet::load_lines(&path, Some(lines(range))).unwrap();
        let ones = set.examples.iter().filter(|e| e.label == 1).count();
        assert_eq!(2 * ones, set.len());
        set.examples
    });
    assert_eq!(splits.each_ref().map(Vec::len), [8530, 1066, 1066]);
    // Together they are the corpus, so that no line is in two of them.
    let mut all = splits.concat();
    let mut corpus = DataSet::load(&path).unwrap().examples;
    for list in [&mut all, &mut corpus] {
        list.sort_by(|a, b| (a.label, &a.text).cmp(&(b.label, &b.text)));
    }
    assert!(all == corpus);
    let message = DataSet::load_lines(&path, Some(lines("0..5332")))
        .unwrap_err()
        .to_string();
    assert!(message.contains("it has 5331 lines"), "{message}");
}

#[test]
fn a_sample_is_a_function_of_its_seed() {
    let text: String = (0..100)
        .map(|i| format!("{} sentence {i}\n", i % 2))
        .collect();
    let set = parse(&text).unwrap();
    let sample = set.sample(10, 7);
    assert_eq!(sample.len(), 10);
    assert_eq!(sample, set.sample(10, 7));
    assert_ne!(sample, set.sample(10, 8));
    let mut texts: Vec<String> = set
        .sample(1000, 1)
        .examples
        .into_iter()
        .map(|e| e.text)
        .collect();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 100);
    // The draw must stay the same in later versions: reported runs name their seed.
    let first: Vec<&str> = sample
        .examples
        .iter()
        .take(3)
        .map(|e| e.text.as_str())
        .collect();
    assert_eq!(first, PINNED);
}

const PINNED: [&str; 3] = ["sentence 80", "sentence 94", "sentence 93"];

#[test]
fn the_corpora_have_their_published_sizes() {
    for (path, size, positive) in [
        ("sst2/stsa.binary.train", 6920, 3610),
        ("sst2/stsa.binary.dev", 872, 444),
        ("sst2/stsa.binary.test", 1821, 909),
        ("sst2/glue_dev.tsv", 872, 444),
        ("sst2/glue_train.tsv", 67349, 37569),
        ("rotten_tomatoes", 10662, 5331),
        ("rotten_tomatoes/rt-polarity.neg", 10662, 5331),
    ] {
        let Some(path) = shared(path) else { return };
        let set = DataSet::load(&path).unwrap();
        let ones = set.examples.iter().filter(|e| e.label == 1).count();
        assert_eq!((set.len(), ones), (size, positive), "{}", path.display());
    }
}

#[test]
fn a_hundred_thousand_mutations_never_panic() {
    let mut rng = Xorshift(9);
    for text in [
        "1 a good film\n0 it 's bad\n",
        "sentence\tlabel\na good film\t1\nbad\t0\n",
    ] {
        for _ in 0..50_000 {
            let mut bytes = text.as_bytes().to_vec();
            rng.mutate(&mut bytes);
            let _ = parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
