//! How a client's rows become the slots of an encoder's inputs, and slots an answer.

use serde::{Deserialize, Serialize};
use veilformer_circuits::encoder::Heads;

use crate::signature::SentenceLogits;
use veilformer_ckks::Complex;

/// What one input ciphertext of an encoder holds: in the slots of token `t` something of that token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EncoderInput {
    /// A block of features of the token `step` further on, divided by the bound; zero where there is
    /// no such token. A token that is not there has the last one's: what is computed in its slots
    /// stays in the ranges of that one, and no other token sees it.
    Features {
        /// Features `block * width` and on.
        block: u32,
        /// -1, 0 or 1.
        step: i32,
    },
    /// Which tokens there are, in the slots of the scores with them ([`Heads::of_keys`]).
    Keys {
        /// Which of the [`Heads::rows`].
        row: u32,
    },
    /// In all slots of each token that there is, one over their number: the weights of a mean.
    Mean,
}

/// Where the values of an encoder stand in the slots of its inputs and of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncoderSlots {
    /// Slot `t * width + i` of block `b` is feature `b * width + i` of token `t`; everything repeats
    /// after `tokens * width` slots.
    pub heads: Heads,
    /// Features of a token.
    pub hidden: usize,
    /// What the client divides its rows by.
    pub bound: f64,
    /// Values of the answer: value `b * width + i` is slot `i` of output `b`.
    pub answers: usize,
    /// What the answer's slots were divided by: none of them exceeds 1.
    pub answer_bound: f64,
    /// Whether the client divides an answer by its length.
    pub normalize: bool,
}

impl EncoderSlots {
    /// Ciphertexts of so many features.
    pub fn blocks(&self, features: usize) -> usize {
        features.div_ceil(self.heads.width.max(1))
    }

    /// One period of the slots of an input, for the rows of the tokens that there are. `features`
    /// beyond a row's end are zero, tokens beyond the padded number are left out.
    pub fn input<R: AsRef<[f64]>>(&self, input: EncoderInput, rows: &[R]) -> Vec<f64> {
        let (n, heads) = (rows.len().min(self.heads.tokens), &self.heads);
        let width = heads.width.max(1);
        let there = |t: usize| if t < n { 1.0 } else { 0.0 };
        let per_slot = |value: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
            let slots = 0..heads.period();
            slots
                .map(|slot| value(slot / width, slot % width))
                .collect()
        };
        match input {
            EncoderInput::Features { block, step } => {
                let first = block as usize * width;
                per_slot(&|t, at| {
                    let last = n.saturating_sub(1);
                    let token = t.min(last) as i64 + i64::from(step);
                    let token = usize::try_from(token).ok().filter(|t| *t < n);
                    let row = token.and_then(|t| rows.get(t)).map(AsRef::as_ref);
                    let value = row.and_then(|row| row.get(first + at));
                    value.map_or(0.0, |value| value / self.bound)
                })
            }
            EncoderInput::Keys { row } => {
                let masks = heads.of_keys(there);
                let mask = masks.get(row as usize).map_or(&[][..], |m| m.entries());
                mask.iter().map(|z| z.re).collect()
            }
            EncoderInput::Mean => per_slot(&|t, _| there(t) / n.max(1) as f64),
        }
    }

    /// The answer in the slots of all outputs. Its spread is how far a slot is from what any answer
    /// can be: by how much a real part exceeds 2, twice what was promised, or the size of an imaginary
    /// part.
    pub fn answer(&self, outputs: &[Vec<Complex>]) -> SentenceLogits {
        let width = self.heads.width.max(1);
        let value = |index: usize| {
            let slots = outputs.get(index / width);
            let slot = slots.and_then(|slots| slots.get(index % width));
            slot.map_or(f64::NAN, |z| z.re * self.answer_bound)
        };
        let mut logits: Vec<f64> = (0..self.answers).map(value).collect();
        let largest = logits.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let mut spread = 0.0f64;
        for z in outputs.iter().flatten() {
            let far = z.im.abs().max(z.re.abs() - 2.0);
            // A maximum would pass over what is not a number.
            spread = if far.is_nan() {
                f64::INFINITY
            } else {
                spread.max(far)
            };
        }
        if self.normalize {
            let length = logits.iter().map(|v| v * v).sum::<f64>().sqrt();
            logits.iter_mut().for_each(|v| *v /= length.max(1e-12));
        }
        SentenceLogits {
            logits,
            largest,
            spread,
        }
    }

    /// `Ok` if it fits so many slots: what a file says is a stranger's.
    ///
    /// # Errors
    /// What does not fit, as half a sentence.
    pub fn check(&self, slots: usize) -> Result<(), String> {
        self.heads.check(slots).map_err(|e| e.to_string())?;
        let positive = |x: f64| x.is_finite() && x > 0.0;
        if self.hidden == 0 || self.answers == 0 || self.hidden.max(self.answers) > MAX_FEATURES {
            return Err(format!(
                "{} features and {} answers; 1 to {MAX_FEATURES} of each are expected",
                self.hidden, self.answers
            ));
        }
        if !positive(self.bound) || !positive(self.answer_bound) {
            return Err(format!(
                "rows are divided by {} and answers by {}; positive numbers are expected",
                self.bound, self.answer_bound
            ));
        }
        Ok(())
    }

    /// `Ok` if there is such an input.
    ///
    /// # Errors
    /// What it lacks, as half a sentence.
    pub fn check_input(&self, input: EncoderInput) -> Result<(), String> {
        let fits = match input {
            EncoderInput::Features { block, step } => {
                (block as usize) < self.blocks(self.hidden) && (-1..=1).contains(&step)
            }
            EncoderInput::Keys { row } => (row as usize) < self.heads.rows(),
            EncoderInput::Mean => true,
        };
        if fits {
            return Ok(());
        }
        Err(format!("{input:?} is no input of such an encoder"))
    }
}

/// Most features of a token, and most values of an answer.
const MAX_FEATURES: usize = 1 << 16;
