//! Packed rows: the module's documentation says what they are.

use veilformer_ckks::{Complex, Giant, Ops, OpsError, Term, Transform};

use super::diagonals::Diagonal;
use super::{Packing, Weights};

/// Levels of a product: one for the weights, one for the masks.
pub(crate) const LEVELS: usize = 2;

/// One output feature.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row<Pl> {
    /// Products of all inputs with the row of weights, summed.
    pub(crate) transform: Transform<Pl>,
    /// Rotations that bring the sum over a token's slots to the output's slot.
    pub(crate) steps: Vec<i64>,
    /// One in the output's slot of every token, zero elsewhere.
    pub(crate) mask: Pl,
}

/// The rows of every output ciphertext, those of zeros left out.
pub(crate) fn rows(weights: &Weights, packing: Packing) -> Vec<Vec<Row<Diagonal>>> {
    let width = packing.width();
    let row = |feature: usize| {
        let terms: Vec<Term<Diagonal>> = (0..packing.ciphertexts(weights.cols()))
            .filter_map(|input| {
                let values: Vec<f64> = (0..width)
                    .map(|f| weights.at(feature, input * width + f))
                    .collect();
                values.iter().any(|v| *v != 0.0).then(|| Term {
                    input,
                    baby: 0,
                    plain: plain(packing, &values),
                })
            })
            .collect();
        let place = feature % width;
        let one_hot: Vec<f64> = (0..width)
            .map(|f| f64::from(u8::from(f == place)))
            .collect();
        (!terms.is_empty()).then(|| Row {
            transform: Transform {
                giants: vec![Giant { rotation: 0, terms }],
            },
            steps: steps(packing, place),
            mask: plain(packing, &one_hot),
        })
    };
    (0..packing.ciphertexts(weights.rows()))
        .map(|output| {
            (output * width..(output + 1) * width)
                .filter_map(row)
                .collect()
        })
        .collect()
}

fn plain(packing: Packing, values: &[f64]) -> Diagonal {
    Diagonal {
        values: values.iter().map(|v| Complex::new(*v, 0.0)).collect(),
        run: packing.unit(),
    }
}

/// Powers of two of features whose partial sums cover a token's slots. Cyclic packings take any;
/// in the feature-fast one a sum must not leave the token, so it goes forward where the place has a
/// zero bit and backward where it has a one: offsets from `-place` to `width - 1 - place`.
fn steps(packing: Packing, place: usize) -> Vec<i64> {
    let width = packing.width();
    let bits = (0..width.trailing_zeros()).map(|k| 1usize << k);
    bits.map(|bit| match packing {
        Packing::TokenFast { run, .. } => (bit * run) as i64,
        _ if place & bit != 0 => -(bit as i64),
        _ => bit as i64,
    })
    .collect()
}

/// One output ciphertext.
pub(crate) fn apply<O: Ops>(
    ops: &mut O,
    inputs: &[&O::Ct],
    rows: &[Row<O::Plain>],
) -> Result<O::Ct, OpsError> {
    let mut total: Option<O::Ct> = None;
    for row in rows {
        let mut sum = ops.linear_transform(inputs, &row.transform)?;
        for step in &row.steps {
            let turned = ops.rotate(&sum, *step)?;
            sum = ops.add(&sum, &turned)?;
        }
        let masked = ops.mul_plain(&sum, &row.mask)?;
        total = Some(match total {
            None => masked,
            Some(total) => ops.add(&total, &masked)?,
        });
    }
    let total = total.ok_or(OpsError::Invalid {
        op: "packed rows",
        what: "an output without any row".to_owned(),
    })?;
    ops.rescale(&total)
}
