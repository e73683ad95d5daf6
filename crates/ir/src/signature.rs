//! How a client's data becomes the program's inputs, and its outputs an answer.

use serde::{Deserialize, Serialize};

/// What one input ciphertext holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum InputKind {
    /// Token features: chunk `c` of `run` slots holds feature `chunks[c]`, one token per slot.
    Tokens {
        /// Per chunk the feature, or none: zero.
        chunks: Vec<Option<u32>>,
    },
    /// One at real tokens, zero at padding, in every chunk.
    Mask,
}

/// One input ciphertext.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// What it holds.
    pub kind: InputKind,
    /// Every value is multiplied by `n^-power`, where `n` is the number of real tokens.
    pub power: f64,
    /// The level at which it is encrypted.
    pub level: usize,
}

/// Inputs and outputs of a compiled program: all that a client must know of it besides its keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signature {
    /// Longest sentence in tokens.
    pub max_tokens: usize,
    /// Slots per chunk.
    pub run: usize,
    /// Features per token.
    pub features: usize,
    /// Input ciphertexts, in order.
    pub inputs: Vec<InputSpec>,
    /// No logit exceeds this in absolute value, by calibration and its margin; the modulus holds
    /// twice as much. A larger one means that the sentence was outside the range of the program.
    pub answer_bound: f64,
    /// Label names; logit `2 k` is the real and `2 k + 1` the imaginary part of every slot of
    /// output `k`.
    pub labels: Vec<String>,
}

impl Signature {
    /// Number of output ciphertexts.
    pub fn outputs(&self) -> usize {
        self.labels.len().div_ceil(2)
    }

    /// Slots per ciphertext that the input chunks make up, where there is a token input.
    pub fn chunk_count(&self) -> Option<usize> {
        self.inputs.iter().find_map(|i| match &i.kind {
            InputKind::Tokens { chunks } => Some(chunks.len()),
            InputKind::Mask => None,
        })
    }

    /// The real slots of input `spec` for `n = tokens.len()` rows of features.
    ///
    /// The result is always all slots, whatever `n` is: nothing that leaves the client tells it.
    pub fn pack(&self, spec: &InputSpec, tokens: &[Vec<f64>], slots: usize) -> Vec<f64> {
        let factor = (tokens.len().max(1) as f64).powf(-spec.power);
        let mut out = vec![0.0; slots];
        for (c, chunk) in out.chunks_mut(self.run.max(1)).enumerate() {
            let feature = match &spec.kind {
                InputKind::Mask => None,
                InputKind::Tokens { chunks } => match chunks.get(c).copied().flatten() {
                    Some(f) => Some(f as usize),
                    None => continue,
                },
            };
            for (slot, row) in chunk.iter_mut().zip(tokens) {
                let value = feature.map_or(1.0, |f| row.get(f).copied().unwrap_or(0.0));
                *slot = value * factor;
            }
        }
        out
    }
}
