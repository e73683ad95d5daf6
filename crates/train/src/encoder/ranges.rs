//! Ranges that encryption pays for: what they may be in training, and what they were.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Limits of ranges. For each kind of value the loss has the term
/// `weight / sentences * sum(distance to the limits squared)`: range minimization (Zimerman et al.
/// 2023, section 4), by a sum, since polynomials must hold for the one token that is widest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeLimits {
    /// Weight of the logarithms of attention's sums.
    pub sums: f64,
    /// Largest sum, epsilon included; epsilon is the smallest.
    pub sum: f64,
    /// Weight of the logarithms of variances.
    pub variances: f64,
    /// Largest over smallest variance in one normalization, of first tokens and of all others apart:
    /// the logarithm may be half of the ratio's away from the batch's mean.
    pub variance_ratio: f64,
    /// Weight of the activation's arguments.
    pub activations: f64,
    /// Largest magnitude of the activation's arguments.
    pub activation: f64,
}

impl RangeLimits {
    /// Names and values of all fields.
    pub fn sizes(&self) -> [(&'static str, f64); 6] {
        [
            ("student.ranges.sums", self.sums),
            ("student.ranges.sum", self.sum),
            ("student.ranges.variances", self.variances),
            ("student.ranges.variance_ratio", self.variance_ratio),
            ("student.ranges.activations", self.activations),
            ("student.ranges.activation", self.activation),
        ]
    }
}

/// Where values were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// The logarithm of a head's sums.
    LogSum {
        /// Layer, from 0.
        layer: usize,
        /// Head of the layer.
        head: usize,
    },
    /// The logarithm of a variance with the normalization's epsilon.
    LogVariance {
        /// Layer, from 0.
        layer: usize,
        /// 0 after attention, 1 after the feed-forward part.
        norm: usize,
        /// 0 of first tokens, 1 of all others.
        class: usize,
    },
    /// The activation's argument.
    Activation {
        /// Layer, from 0.
        layer: usize,
    },
}

/// Smallest and largest value at every site.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen(BTreeMap<Site, [f32; 2]>);

impl Seen {
    /// Widens the range of `at` by `values`.
    pub fn include(&mut self, at: Site, values: &[f32]) {
        let range = self
            .0
            .entry(at)
            .or_insert([f32::INFINITY, f32::NEG_INFINITY]);
        for v in values {
            *range = [range[0].min(*v), range[1].max(*v)];
        }
    }

    /// The widest ranges of each layer.
    pub fn summary(&self) -> Vec<LayerWidths> {
        let mut layers: Vec<LayerWidths> = Vec::new();
        for (site, [low, high]) in &self.0 {
            let (Site::LogSum { layer, .. }
            | Site::LogVariance { layer, .. }
            | Site::Activation { layer }) = *site;
            if layers.len() <= layer {
                layers.resize(layer + 1, LayerWidths::default());
            }
            let widths = &mut layers[layer];
            let ratio = f64::from(high - low).exp();
            match *site {
                Site::LogSum { .. } => widths.sum_ratio = widths.sum_ratio.max(ratio),
                Site::LogVariance { norm, class, .. } => {
                    widths.variance_ratios[2 * norm + class] = ratio;
                }
                Site::Activation { .. } => {
                    widths.activation = [f64::from(*low), f64::from(*high)];
                }
            }
        }
        layers
    }
}

/// How wide the ranges of a layer are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerWidths {
    /// Largest over smallest sum of attention, in the head where that is largest.
    pub sum_ratio: f64,
    /// Largest over smallest variance: after attention, of first tokens and of all others, and the
    /// same after the feed-forward part.
    pub variance_ratios: [f64; 4],
    /// Smallest and largest argument of the activation.
    pub activation: [f64; 2],
}
