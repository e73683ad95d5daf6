//! What every layer gave, to compare two executions of one model.

use veilformer_ir::encoder::{Functions, HeadSite, NormSite, TokenClass, ValueSite};

/// Functions whose execution keeps the outputs of all layers.
#[derive(Clone, Debug)]
pub struct Trace<F> {
    functions: F,
    layers: Vec<Vec<f64>>,
}

impl<F: Functions> Trace<F> {
    /// Around `functions`.
    pub fn new(functions: F) -> Self {
        Self {
            functions,
            layers: Vec::new(),
        }
    }

    /// The functions.
    pub fn functions(&self) -> &F {
        &self.functions
    }

    /// The output of a layer, token after token; empty if it has not run.
    pub fn layer(&self, index: usize) -> &[f64] {
        self.layers.get(index).map_or(&[], Vec::as_slice)
    }

    /// The distance of a layer's outputs from those of `other`, over the length of those: root of
    /// the sums of squares.
    pub fn relative_error<G: Functions>(&self, other: &Trace<G>, layer: usize) -> f64 {
        let (mine, theirs) = (self.layer(layer), other.layer(layer));
        let distance: f64 = mine
            .iter()
            .zip(theirs)
            .map(|(a, b)| (a - b) * (a - b))
            .sum();
        let length: f64 = theirs.iter().map(|b| b * b).sum();
        (distance / length.max(f64::MIN_POSITIVE)).sqrt()
    }
}

impl<F: Functions> Functions for Trace<F> {
    fn softmax(&mut self, at: HeadSite, scores: &mut [f64]) {
        self.functions.softmax(at, scores);
    }

    fn inverse_root(&mut self, at: NormSite, x: f64) -> f64 {
        self.functions.inverse_root(at, x)
    }

    fn activation(&mut self, layer: usize, token: TokenClass, features: &mut [f64]) {
        self.functions.activation(layer, token, features);
    }

    fn tanh(&mut self, features: &mut [f64]) {
        self.functions.tanh(features);
    }

    fn observe(&mut self, site: ValueSite, token: TokenClass, features: &[f64]) {
        if let ValueSite::Output(layer) = site {
            if self.layers.len() <= layer {
                self.layers.resize(layer + 1, Vec::new());
            }
            self.layers[layer].extend(features);
        }
        self.functions.observe(site, token, features);
    }
}
