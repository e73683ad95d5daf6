//! Whether an embedding model ranks passages as before, with polynomials in place of its functions.
//!
//! ```text
//! cargo run --release -p veilformer-compiler --example encoder_rank -- \
//!     FOLDER PARAGRAPHS CALIBRATION [--sets N] [--sim N]
//! ```
//!
//! Both are text files with a paragraph in a line, as in WikiText. A set is a paragraph's first
//! sentence, the query, and five passages: its second and third sentence and the first ones of three
//! other paragraphs. The first `--sim` sets also go through the circuit with the scheme's noise.
#![allow(clippy::print_stdout)]

mod support;

use support::{Clear, Compiled, Prepared, Result, cosine, fitted, texts};

const PRESET: &str = "11-levels";
const TOKENS: usize = 128;
/// Paragraphs to calibrate on.
const CALIBRATED: usize = 200;
/// Words of the shortest sentence.
const WORDS: usize = 6;
/// Paragraphs from one set to the next.
const STRIDE: usize = 7;

/// The query, then the passages.
type Set = Vec<Vec<u32>>;

fn sets(model: &Prepared, path: &str, count: usize) -> Result<Vec<Set>> {
    let paragraphs = texts(path)?;
    let sentences = |text: &String| -> Vec<Vec<u32>> {
        let long = |s: &&str| s.split_whitespace().count() >= WORDS;
        let all = text.split(" . ").filter(long);
        all.filter_map(|s| fitted(&model.tokenizer, s)).collect()
    };
    let all = paragraphs.iter().map(sentences);
    let all: Vec<Vec<Vec<u32>>> = all.filter(|s| s.len() >= 3).collect();
    let one = |group: &[Vec<Vec<u32>>]| -> Option<Set> {
        let [of, others @ ..] = group else {
            return None;
        };
        let own = of.iter().take(3).cloned();
        let others = others.iter().take(3).filter_map(|s| s.first().cloned());
        Some(own.chain(others).collect())
    };
    let groups = all.chunks_exact(STRIDE).take(count);
    Ok(groups.filter_map(one).collect())
}

/// How near each passage is to the query.
fn similarities(embeddings: &[Vec<f64>]) -> Vec<f64> {
    let Some((query, passages)) = embeddings.split_first() else {
        return Vec::new();
    };
    passages.iter().map(|p| cosine(query, p)).collect()
}

/// Passages from the nearest to the farthest.
fn ranking(similarities: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..similarities.len()).collect();
    let at = |i: &usize| similarities.get(*i).copied().unwrap_or(f64::NAN);
    order.sort_by(|a, b| at(b).total_cmp(&at(a)));
    order
}

/// The smallest difference of two neighbours in the ranking.
fn gap(similarities: &[f64]) -> f64 {
    let mut sorted = similarities.to_vec();
    sorted.sort_by(f64::total_cmp);
    let pairs = sorted.iter().zip(sorted.iter().skip(1));
    pairs.fold(f64::INFINITY, |m, (a, b)| m.min(b - a))
}

/// One line; whether the rankings are the same.
fn compare(name: &str, original: &[f64], other: &[f64]) -> bool {
    let same = ranking(original) == ranking(other);
    let pairs = original.iter().zip(other);
    let error = pairs.fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
    let show = |s: &[f64]| s.iter().map(|s| format!(" {s:.3}")).collect::<String>();
    println!(
        "{name}: {}; smallest gap {:.4}, similarities off by {error:.4}:{} |{}",
        if same { "identical" } else { "DIFFERENT" },
        gap(original),
        show(original),
        show(other)
    );
    same
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, paragraphs, calibration, options @ ..] = arguments.as_slice() else {
        return Err("FOLDER PARAGRAPHS CALIBRATION [--sets N] [--sim N]".into());
    };
    let (mut count, mut noisy) = (10, 0);
    for option in options.chunks(2) {
        match option {
            [name, value] if name == "--sets" => count = value.parse()?,
            [name, value] if name == "--sim" => noisy = value.parse()?,
            _ => return Err(format!("unknown option {option:?}").into()),
        }
    }
    let with = ((&folder[..], TOKENS), (&calibration[..], CALIBRATED));
    let model = Prepared::load(with.0, with.1, (None, true))?;
    let sets = sets(&model, paragraphs, count)?;
    let mut same = 0;
    let mut originals = Vec::new();
    for (at, set) in sets.iter().enumerate() {
        let original = set.iter().map(|ids| model.original(ids));
        let original = similarities(&original.collect::<Result<Vec<_>>>()?);
        let poly = set.iter().map(|ids| Ok(model.poly(ids)?.0));
        let poly = similarities(&poly.collect::<Result<Vec<_>>>()?);
        same += usize::from(compare(&format!("set {at}, poly"), &original, &poly));
        originals.push(original);
    }
    println!("{same} of {} rankings identical in poly", sets.len());
    if noisy == 0 {
        return Ok(());
    }
    let compiled = Compiled::new(&model, (TOKENS, PRESET), false)?;
    let execution = model.execution()?;
    let mut clear = Clear::noisy(&compiled)?;
    let mut same = 0;
    for (at, (set, original)) in sets.iter().zip(&originals).take(noisy).enumerate() {
        let answers = set.iter().map(|ids| Ok(clear.run(&execution, ids)?.answer));
        let found = similarities(&answers.collect::<Result<Vec<_>>>()?);
        same += usize::from(compare(&format!("set {at}, noise"), original, &found));
    }
    println!(
        "{same} of {} rankings identical with noise",
        noisy.min(sets.len())
    );
    Ok(())
}
