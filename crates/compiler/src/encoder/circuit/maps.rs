//! The affine maps between functions, with everything folded in that is affine: gains and biases of
//! normalizations, centring, bounds, the places of heads.

use veilformer_circuits::CircuitError;
use veilformer_circuits::matrix::{
    Diagonal, Hoisting, MatrixProduct, Method, Packing, Weights, Wrap,
};
use veilformer_ckks::SlotVector;
use veilformer_ir::encoder::{Dense, LayerNorm};

use super::Layout;

/// What a block of features stands for: `x = gain * slot + bias`, per feature.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Affine {
    pub gain: Vec<f64>,
    pub bias: Vec<f64>,
}

impl Affine {
    /// Values that were divided by `bound`.
    pub(super) fn bounded(features: usize, bound: f64) -> Self {
        Self {
            gain: vec![bound; features],
            bias: vec![0.0; features],
        }
    }

    /// Normalized values, divided by `bound`, before their gain and bias.
    pub(super) fn normalized(norm: &LayerNorm, bound: f64) -> Self {
        Self {
            gain: norm.weight.iter().map(|w| w * bound).collect(),
            bias: norm.bias.clone(),
        }
    }

    /// What a feature's slot stands for.
    pub(super) fn value(&self, feature: usize, slot: f64) -> f64 {
        self.gain(feature) * slot + self.bias(feature)
    }

    fn gain(&self, feature: usize) -> f64 {
        self.gain.get(feature).copied().unwrap_or(0.0)
    }

    fn bias(&self, feature: usize) -> f64 {
        self.bias.get(feature).copied().unwrap_or(0.0)
    }
}

/// A map of blocks, and its bias.
#[derive(Clone, Debug)]
pub(super) struct Map {
    pub product: MatrixProduct<Diagonal>,
    pub bias: Vec<SlotVector>,
    /// For each input block the rotations that fill a token with copies of its features.
    pub copies: Vec<Vec<i64>>,
}

impl Map {
    /// The map with these weights between the places of `rows` blocks and of the input blocks whose
    /// periods `inputs` are.
    ///
    /// A block with a shorter period than a token's width has its features in the first places and zeros
    /// behind them. It is filled with copies first, by a few rotations. Every output then finds each
    /// feature within one period onwards, and there are only as many diagonals.
    ///
    /// # Errors
    /// Weights that are not finite.
    pub(super) fn new(
        layout: &Layout,
        (rows, inputs): (usize, &[usize]),
        weight: impl Fn(usize, usize) -> f64,
        bias: impl Fn(usize) -> f64,
    ) -> Result<Self, CircuitError> {
        let width = layout.heads.width;
        let weights = Weights::from_fn(rows * width, inputs.len() * width, |r, c| {
            let (block, at) = (c / width, c % width);
            let period = inputs.get(block).copied().unwrap_or(width);
            match (at + width - r % width) % width < period {
                true => weight(r, block * width + at % period),
                false => 0.0,
            }
        })?;
        let packing = Packing::FeatureFast { width };
        let longest = inputs.iter().copied().max().unwrap_or(width);
        let (baby_steps, hoisting) = steps(longest, (rows, inputs.len()));
        let copies = |period: usize| {
            let doubled = std::iter::successors(Some(period), |by| by.checked_mul(2));
            doubled.take_while(|by| *by < width).map(|by| -(by as i64))
        };
        let method = Method::Diagonals {
            baby_steps,
            hoisting,
            wrap: Wrap::Paired,
        };
        let bias = layout.per_feature(rows, bias);
        Ok(Self {
            product: MatrixProduct::new(&weights, packing, method)?,
            bias: bias.into_iter().map(SlotVector::simplified).collect(),
            copies: inputs.iter().map(|p| copies(*p).collect()).collect(),
        })
    }

    /// `(W x + b) * scale + offset` between features in their own order; `inputs` are the periods of the
    /// input blocks.
    ///
    /// # Errors
    /// As [`Map::new`].
    pub(super) fn dense(
        layout: &Layout,
        (map, inputs): (&Dense, &[usize]),
        input: &Affine,
        (scale, offset): (f64, f64),
    ) -> Result<Self, CircuitError> {
        let (rows, cols) = (map.weight.rows(), map.weight.cols());
        let biases = bias_of(map, input);
        Self::new(
            layout,
            (layout.blocks(rows), inputs),
            |r, c| {
                if r < rows && c < cols {
                    scale * map.weight.get(r, c) * input.gain(c)
                } else {
                    0.0
                }
            },
            |r| biases.get(r).map_or(0.0, |b| scale * b + offset),
        )
    }

    /// The sum of a map's result and the residual, centred over the features and divided by
    /// `bound`. The blocks of the residual stand behind those of the map's inputs, whose places
    /// `column` gives: feature and gain, or nothing.
    ///
    /// # Errors
    /// As [`Map::new`].
    pub(super) fn centred_sum(
        layout: &Layout,
        (map, map_bias): (&Dense, &[f64]),
        residual: &Affine,
        (blocks, bound): (usize, f64),
        column: impl Fn(usize) -> Option<(usize, f64)>,
    ) -> Result<Self, CircuitError> {
        let (d, width) = (layout.hidden, layout.heads.width);
        let weight = &map.weight;
        let means: Vec<f64> = (0..weight.cols())
            .map(|c| (0..d).map(|r| weight.get(r, c)).sum::<f64>() / d as f64)
            .collect();
        let sums: Vec<f64> = (0..d)
            .map(|r| map_bias.get(r).unwrap_or(&0.0) + residual.bias(r))
            .collect();
        let mean = sums.iter().sum::<f64>() / d as f64;
        let first = blocks * width;
        Self::new(
            layout,
            (layout.blocks(d), &vec![width; blocks + layout.blocks(d)]),
            |r, c| {
                if r >= d {
                    0.0
                } else if c >= first {
                    let c = c - first;
                    let own = f64::from(u8::from(r == c));
                    if c < d {
                        (own - 1.0 / d as f64) * residual.gain(c) / bound
                    } else {
                        0.0
                    }
                } else {
                    let entry = |(feature, gain): (usize, f64)| {
                        let mean = means.get(feature).unwrap_or(&0.0);
                        (weight.get(r, feature) - mean) * gain / bound
                    };
                    column(c).map_or(0.0, entry)
                }
            },
            |r| sums.get(r).map_or(0.0, |sum| (sum - mean) / bound),
        )
    }
}

/// Baby steps of least cost, a power of two and a quarter of the width at most, since each step has a key;
/// and whether they share a ModDown.
///
/// Costs are in ModDowns of both halves, about as measured at the levels where maps are: a rotated input
/// takes an inner product and, where its ModDown is its own, that and writing it down; a giant step of
/// an output a decomposition and an inner product. Where ModDowns are shared there is one for each giant
/// step, and products are modulo the special primes too, of which there are as many as ciphertexts have
/// primes. Half of what is counted for each is the memory of its plaintext's words for them.
fn steps(diagonals: usize, (outputs, inputs): (usize, usize)) -> (usize, Hoisting) {
    const INNER_PRODUCT: f64 = 0.75;
    const OWN_DIVISION: f64 = 1.55;
    const GIANT: f64 = 2.0;
    const PRODUCT: f64 = 0.03;
    let powers = (0..diagonals.max(1).ilog2().saturating_sub(1)).map(|bit| 1usize << bit);
    let ways = powers.flat_map(|babies| {
        let giants = outputs * diagonals / babies;
        let rotated = ((babies - 1) * inputs) as f64;
        let switched = GIANT * giants.saturating_sub(outputs) as f64;
        let products = PRODUCT * (outputs * inputs * diagonals) as f64;
        let once = (INNER_PRODUCT + OWN_DIVISION) * rotated + switched;
        let twice = INNER_PRODUCT * rotated + switched + giants as f64 + products;
        [
            (once, babies, Hoisting::Once),
            (twice, babies, Hoisting::Twice),
        ]
    });
    let least = ways.min_by(|a, b| a.0.total_cmp(&b.0));
    least.map_or((1, Hoisting::Once), |(_, babies, hoisting)| {
        (babies, hoisting)
    })
}

/// `W bias + b` of a map, per output.
pub(super) fn bias_of(map: &Dense, input: &Affine) -> Vec<f64> {
    let mut biases = map.weight.apply(&input.bias);
    biases.iter_mut().zip(&map.bias).for_each(|(y, b)| *y += b);
    biases
}
