//! A made task that needs word order: which of two marked words comes first.

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use veilformer_models::data::below;

use crate::error::{Result, at};
use crate::export::write_atomically;

/// The word whose coming first is class 0.
pub const FIRST: &str = "red";
/// The word whose coming first is class 1.
pub const SECOND: &str = "blue";
/// Fewest and most words of a sentence, both marked words counted.
pub const LENGTHS: [usize; 2] = [4, 32];
/// The other words.
pub const FILLERS: [&str; 40] = [
    "the", "a", "an", "and", "or", "of", "in", "on", "to", "with", "house", "tree", "river",
    "road", "horse", "stone", "window", "table", "garden", "bridge", "winter", "summer", "morning",
    "night", "old", "new", "small", "large", "quiet", "early", "walks", "stands", "runs", "falls",
    "opens", "near", "under", "over", "behind", "between",
];

/// Writes `order.train`, `order.dev` and `order.test` of the given sizes into `out`, as
/// `label text` lines. All sentences differ; half of each file has either label.
///
/// # Errors
/// When a file cannot be written.
pub fn write(out: &Path, seed: u64, sizes: [usize; 3]) -> Result<()> {
    std::fs::create_dir_all(out).map_err(at(out))?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut seen = std::collections::HashSet::new();
    for (name, size) in ["train", "dev", "test"].iter().zip(sizes) {
        let mut text = String::new();
        let mut made = 0;
        while made < size {
            let sentence = sentence(made % 2, &mut rng);
            if seen.insert(sentence.clone()) {
                text.push_str(&format!("{} {sentence}\n", made % 2));
                made += 1;
            }
        }
        write_atomically(&out.join(format!("order.{name}")), text.as_bytes())?;
    }
    Ok(())
}

/// A sentence of class `label`. Length and both places are uniform and do not depend on the label,
/// so that nothing but the order tells it.
fn sentence(label: usize, rng: &mut ChaCha8Rng) -> String {
    let [low, high] = LENGTHS;
    let length = low + below((high - low + 1) as u64, rng) as usize;
    let one = below(length as u64, rng) as usize;
    let mut two = below(length as u64 - 1, rng) as usize;
    if two >= one {
        two += 1;
    }
    let (early, late) = (one.min(two), one.max(two));
    let (head, tail) = if label == 0 {
        (FIRST, SECOND)
    } else {
        (SECOND, FIRST)
    };
    let words: Vec<&str> = (0..length)
        .map(|t| {
            let filler = FILLERS.get(below(FILLERS.len() as u64, rng) as usize);
            match t {
                t if t == early => head,
                t if t == late => tail,
                _ => filler.copied().unwrap_or("the"),
            }
        })
        .collect();
    words.join(" ")
}
