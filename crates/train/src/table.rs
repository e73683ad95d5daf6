//! Shared token tables: frozen token features in few bytes per token.
//!
//! The features are turned to their principal components, and the bits are dealt out to the
//! components by what each of them still gains. Nothing labelled is used, so that one table can
//! serve models whose corpora overlap.

use std::path::Path;

use nalgebra::{DMatrix, SymmetricEigen};
use veilformer_models::folder::{TABLE_FILE, TOKENIZER_FILE};
use veilformer_models::tokenizer::wordpiece_json;
use veilformer_models::{EmbeddingTable, Matrix};

use crate::error::{Result, TrainError, at};
use crate::export::write_atomically;
use crate::features::Features;

/// A token table and what it loses of the features.
pub struct TokenTable {
    /// Components of all tokens, rounded.
    pub table: EmbeddingTable,
    /// Part of the features' squared norm in components that the table does not have.
    pub dropped: f64,
    /// Part of the features' squared norm that rounding changed.
    pub rounded: f64,
}

/// What goes on the card of a token table.
pub struct Origin {
    /// Where the features come from.
    pub source: String,
    /// Their licence.
    pub license: String,
}

/// The tokens' features in `bytes` bytes per token: their principal components (uncentered: along
/// the eigenvectors of the features' second moments), the first ones with the most bits.
///
/// # Errors
/// When there is not at least one byte, or there are more than the features have.
pub fn compress(features: &Features, bytes: usize) -> Result<TokenTable> {
    let n = features.width;
    if bytes == 0 || bytes > n {
        return Err(TrainError::TableSize {
            found: bytes,
            limit: n,
        });
    }
    let mut moments = DMatrix::<f64>::zeros(n, n);
    for row in features.data.chunks_exact(n) {
        let row: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
        for (mut column, &factor) in moments.column_iter_mut().zip(&row) {
            for (m, v) in column.iter_mut().zip(&row) {
                *m += factor * v;
            }
        }
    }
    let eigen = SymmetricEigen::new(moments);
    let mut components: Vec<(f64, Vec<f64>)> = eigen
        .eigenvalues
        .iter()
        .zip(eigen.eigenvectors.column_iter())
        .map(|(value, vector)| (value.max(0.0), upright(vector.iter().copied().collect())))
        .collect();
    components.sort_by(|a, b| b.0.total_cmp(&a.0));
    let energies: Vec<f64> = components.iter().map(|c| c.0).collect();
    let bits = deal(&energies, 8 * bytes);
    components.truncate(bits.len());
    let kept: f64 = energies.iter().take(bits.len()).sum();
    let total: f64 = energies.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    let mut data = Vec::with_capacity(features.tokens.len() * bits.len());
    for row in features.data.chunks_exact(n) {
        data.extend(components.iter().map(|(_, direction)| -> f64 {
            let pairs = row.iter().zip(direction);
            pairs.map(|(&v, d)| f64::from(v) * d).sum()
        }));
    }
    let exact = veilformer_models::matrix(features.tokens.len(), bits.len(), data)?;
    let table = EmbeddingTable::quantize_to(&exact, &bits)?;
    Ok(TokenTable {
        dropped: 1.0 - kept / total,
        rounded: squared_distance(&exact, &table) / total,
        table,
    })
}

/// Mean square error of a normal variable of variance 1 that is rounded to so many bits with the
/// best even spacing (Max 1960, table II); 8 bits are as many as a value may have.
const ERROR: [f64; 9] = [
    1.0, 0.363, 0.119, 0.0374, 0.0115, 0.00349, 0.00104, 0.000304, 0.0000876,
];

/// Deals out `total` bits one by one, each to the component that gains most by it. Components are
/// given by falling energy; those without a bit are left out.
fn deal(energies: &[f64], total: usize) -> Vec<u8> {
    let mut bits = vec![0u8; energies.len()];
    let gain = |energy: f64, b: u8| match ERROR.get(usize::from(b)..usize::from(b) + 2) {
        Some(&[now, then]) => energy * (now - then),
        _ => f64::NEG_INFINITY,
    };
    for _ in 0..total {
        let gains = energies.iter().zip(&bits).map(|(e, b)| gain(*e, *b));
        let best = gains.enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some(b) = best.and_then(|(k, _)| bits.get_mut(k)) {
            *b = (*b + 1).min(8);
        }
    }
    bits.retain(|b| *b > 0);
    bits
}

/// An eigenvector's sign means nothing: its largest entry is made positive, so that two machines
/// agree.
fn upright(mut direction: Vec<f64>) -> Vec<f64> {
    let mut largest = 0.0f64;
    for &v in &direction {
        if v.abs() > largest.abs() {
            largest = v;
        }
    }
    if largest < 0.0 {
        direction.iter_mut().for_each(|v| *v = -*v);
    }
    direction
}

fn squared_distance(exact: &Matrix, table: &EmbeddingTable) -> f64 {
    let rows = exact.iter_rows().zip(table.rows());
    rows.map(|(exact, rounded)| {
        let pairs = exact.iter().zip(&rounded);
        pairs.map(|(e, r)| (e - r).powi(2)).sum::<f64>()
    })
    .sum()
}

/// Makes the token table of the features at `path` and writes its folder: table, tokenizer, card.
///
/// # Errors
/// When the features are not usable, the folder holds a table already, or a file cannot be
/// written.
pub fn write(path: &Path, bytes: usize, origin: &Origin, out: &Path) -> Result<TokenTable> {
    if out.join(TABLE_FILE).exists() {
        return Err(TrainError::TableExists(out.to_owned()));
    }
    let mut features = Features::load(path)?;
    features.unit_rows();
    let made = compress(&features, bytes)?;
    let file = made.table.to_bytes()?;
    let tokenizer = wordpiece_json(&features.tokens)?;
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let card = card(&name, &made, origin, features.width);
    std::fs::create_dir_all(out).map_err(at(out))?;
    write_atomically(&out.join(TABLE_FILE), &file)?;
    write_atomically(&out.join(TOKENIZER_FILE), tokenizer.as_bytes())?;
    write_atomically(&out.join("README.md"), card.as_bytes())?;
    Ok(made)
}

fn card(name: &str, made: &TokenTable, origin: &Origin, full: usize) -> String {
    let table = &made.table;
    let (source, license) = (&origin.source, &origin.license);
    let bits = table.bits().iter();
    format!(
        "# {name}\n\nA token table that several models share: {rows} tokens, {bytes} bytes each.\n\n\
         It holds the token features of {source} ({license}). They were shifted to mean 0 over the \
         tokens, every token's {full} features were scaled to the same size, and turned to their \
         principal components (along the eigenvectors of their second moments). The {width} \
         largest components stand in the table, each in {fewest} to {most} bits, the larger the \
         more, with one scale per component. Leaving out the others loses {dropped:.1} % of the \
         features' squared norm, rounding changes {rounded:.1} %.\n\n**No labelled data was \
         used.** Models trained on corpora that overlap can share it, and nothing of one corpus \
         reaches a model of the other.\n\n`{TABLE_FILE}` holds `embedding.weight` (the rows, \
         packed), `embedding.bits` (bits of a value, per component) and `embedding.scale`; \
         `{TOKENIZER_FILE}` is the tokenizer. A model names this folder and the BLAKE3 digests of \
         both files in its `config.json`, and has a linear map of its own from the components to \
         its token vectors. The table is made by\n\n```\ncargo run --release -p veilformer-train \
         -- token-table --features FEATURES --bytes {bytes} --out {name} --source \"{source}\" \
         --license \"{license}\"\n```\n",
        rows = table.vocab_size(),
        bytes = table.row_bytes(),
        width = table.width(),
        fewest = bits.clone().min().copied().unwrap_or(0),
        most = bits.max().copied().unwrap_or(0),
        dropped = 100.0 * made.dropped,
        rounded = 100.0 * made.rounded,
    )
}
