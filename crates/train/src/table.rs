//! Shared token tables: frozen token features, cut down to their principal components.
//!
//! Nothing labelled is used, so that one table can serve models whose corpora overlap.

use std::path::Path;

use nalgebra::{DMatrix, SymmetricEigen};
use veilformer_models::folder::{TABLE_FILE, TOKENIZER_FILE};
use veilformer_models::tokenizer::wordpiece_json;
use veilformer_models::{EmbeddingTable, Matrix};

use crate::error::{Result, TrainError, at};
use crate::export::write_atomically;
use crate::features::Features;

/// A token table and what it keeps of the features.
pub struct TokenTable {
    /// Components of all tokens, rounded to bytes.
    pub table: EmbeddingTable,
    /// Part of the features' squared norm that the components have.
    pub kept: f64,
    /// Squared norm of what rounding changed, over that of the components.
    pub rounding: f64,
}

/// What goes on the card of a token table.
pub struct Origin {
    /// Where the features come from.
    pub source: String,
    /// Their licence.
    pub license: String,
}

/// The first `width` principal components (uncentered: the eigenvectors of the features' second
/// moments) of the tokens' features.
///
/// # Errors
/// When `width` is 0 or above the features' width.
pub fn components(features: &Features, width: usize) -> Result<TokenTable> {
    if width == 0 || width > features.width {
        return Err(TrainError::Width {
            found: width,
            limit: features.width,
        });
    }
    let n = features.width;
    let mut moments = DMatrix::<f64>::zeros(n, n);
    for row in features.data.chunks_exact(n) {
        let row: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
        for (mut column, &factor) in moments.column_iter_mut().zip(&row) {
            for (m, v) in column.iter_mut().zip(&row) {
                *m += factor * v;
            }
        }
    }
    let total = moments.trace();
    let eigen = SymmetricEigen::new(moments);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    order.truncate(width);
    let kept = order.iter().map(|&k| eigen.eigenvalues[k]).sum::<f64>() / total;
    let directions: Vec<Vec<f64>> = order
        .iter()
        .map(|&k| upright(eigen.eigenvectors.column(k).iter().copied().collect()))
        .collect();
    let mut data = Vec::with_capacity(features.tokens.len() * width);
    for row in features.data.chunks_exact(n) {
        data.extend(directions.iter().map(|direction| -> f64 {
            let pairs = row.iter().zip(direction);
            pairs.map(|(&v, d)| f64::from(v) * d).sum()
        }));
    }
    let exact = veilformer_models::matrix(features.tokens.len(), width, data)?;
    let table = EmbeddingTable::quantize(&exact)?;
    Ok(TokenTable {
        kept,
        rounding: rounding(&exact, &table),
        table,
    })
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

fn rounding(exact: &Matrix, table: &EmbeddingTable) -> f64 {
    let (mut error, mut square) = (0.0, 0.0);
    for (exact, rounded) in exact.iter_rows().zip(table.rows()) {
        for (e, r) in exact.iter().zip(&rounded) {
            error += (e - r).powi(2);
            square += e * e;
        }
    }
    error / f64::max(square, f64::MIN_POSITIVE)
}

/// Makes the token table of the features at `path` and writes its folder: table, tokenizer, card.
///
/// # Errors
/// When the features are not usable, the folder holds a table already, or a file cannot be
/// written.
pub fn write(path: &Path, width: usize, origin: &Origin, out: &Path) -> Result<TokenTable> {
    if out.join(TABLE_FILE).exists() {
        return Err(TrainError::TableExists(out.to_owned()));
    }
    let mut features = Features::load(path)?;
    features.unit_rows();
    let made = components(&features, width)?;
    let bytes = made.table.to_bytes()?;
    let tokenizer = wordpiece_json(&features.tokens)?;
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let card = card(&name, &made, origin, features.width);
    std::fs::create_dir_all(out).map_err(at(out))?;
    write_atomically(&out.join(TABLE_FILE), &bytes)?;
    write_atomically(&out.join(TOKENIZER_FILE), tokenizer.as_bytes())?;
    write_atomically(&out.join("README.md"), card.as_bytes())?;
    Ok(made)
}

fn card(name: &str, made: &TokenTable, origin: &Origin, full: usize) -> String {
    let table = &made.table;
    let (source, license) = (&origin.source, &origin.license);
    format!(
        "# {name}\n\nA token table that several models share: {rows} tokens, {width} components \
         each.\n\nIt holds the first {width} principal components of the token features of \
         {source} ({license}): the features were shifted to mean 0 over the tokens, every token's \
         {full} features scaled to the same size, and the eigenvectors of their second moments \
         taken. The components have {kept:.1} % of the features' squared norm. Every value is \
         rounded to a signed byte with one scale per component, which changes {rounding:.2} % of \
         the squared norm that is left.\n\n**No labelled data was used.** Models trained on \
         corpora that overlap can share it, and nothing of one corpus reaches a model of the \
         other.\n\n`{TABLE_FILE}` holds `embedding.weight` (tokens x components, signed bytes) \
         and `embedding.scale` (a number per component); `{TOKENIZER_FILE}` is the tokenizer. A \
         model names this folder and the BLAKE3 digests of both files in its `config.json`, and \
         has a linear map of its own from the components to its token vectors. The table is made \
         by\n\n```\ncargo run --release -p veilformer-train -- token-table --features FEATURES \
         --width {width} --out {name} --source \"{source}\" --license \"{license}\"\n```\n",
        rows = table.vocab_size,
        width = table.width,
        kept = 100.0 * made.kept,
        rounding = 100.0 * made.rounding,
    )
}
