//! How a client's data becomes the program's inputs, and its outputs an answer.

use serde::{Deserialize, Serialize};
use veilformer_ckks::Complex;
use veilformer_ckks::container::{Reader, Tag};

use crate::encoder::{EncoderInput, EncoderSlots};

/// The section of a file of ciphertexts (inputs and answers) that says which program they are
/// for: 32 bytes.
pub const PROGRAM_DIGEST: Tag = Tag(*b"PDIG");

/// The section of a file of ciphertexts that says of how many sentences they are: a
/// little-endian u32. The last run's places may be left empty.
pub const SENTENCES: Tag = Tag(*b"SENT");

/// How many sentences a file of ciphertexts holds, `runs` times what a program of this `batch`
/// takes; without a note of it, every place is taken.
///
/// # Errors
/// A sentence: a note that is not four bytes, or a number that `runs` runs do not hold or that
/// would leave the last of them empty.
pub fn read_sentences(reader: &Reader<'_>, runs: usize, batch: usize) -> Result<usize, String> {
    let most = runs.saturating_mul(batch);
    let Some(bytes) = reader.sections_of(SENTENCES).next() else {
        return Ok(most);
    };
    let bytes = <[u8; 4]>::try_from(bytes);
    let count = bytes.map_or(0, |b| u32::from_le_bytes(b) as usize);
    if count.div_ceil(batch.max(1)) == runs && count > 0 {
        return Ok(count);
    }
    Err(format!(
        "the file says that it holds {count} sentences, and its ciphertexts are of {} to {most}; \
         encrypt the sentences again",
        most.saturating_sub(batch) + 1
    ))
}

/// What one input ciphertext holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum InputKind {
    /// Token features: chunk `c` holds feature `chunks[c]`, one slot per token and sentence.
    Tokens {
        /// Per chunk the feature, or none: zero.
        chunks: Vec<Option<u32>>,
    },
    /// One at real tokens, zero at padding, in every chunk.
    Mask,
    /// An input of an encoder.
    Encoder(EncoderInput),
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
///
/// A chunk has `run * batch` slots: slot `t * batch + b` is token `t` of sentence `b`. Sentences
/// are padded on the left, so that the last token of each stands at `t = run - 1`. An encoder's
/// slots are as [`Signature::encoder`] says instead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signature {
    /// Longest sentence in tokens.
    pub max_tokens: usize,
    /// Tokens per chunk, padding included.
    pub run: usize,
    /// Sentences that one run of the program answers.
    pub batch: usize,
    /// Features per token.
    pub features: usize,
    /// Input ciphertexts, in order.
    pub inputs: Vec<InputSpec>,
    /// No logit exceeds this in absolute value, by calibration and its margin; the modulus holds
    /// twice as much. A larger one means that the sentence was outside the range of the program.
    pub answer_bound: f64,
    /// Label names; logit `2 k` of sentence `b` is the real part, logit `2 k + 1` the imaginary
    /// part of every slot `j` of output `k` with `j mod batch = b`. None for an encoder's embedding.
    pub labels: Vec<String>,
    /// Of an encoder, where everything stands. Not part of the serialized form, which is older: a
    /// client's file has it beside it.
    #[serde(skip)]
    pub encoder: Option<EncoderSlots>,
}

impl Signature {
    /// Number of output ciphertexts.
    pub fn outputs(&self) -> usize {
        if let Some(encoder) = &self.encoder {
            return encoder.blocks(encoder.answers);
        }
        self.labels.len().div_ceil(2)
    }

    /// Slots per ciphertext that the input chunks make up, where there is a token input.
    pub fn chunk_count(&self) -> Option<usize> {
        self.inputs.iter().find_map(|i| match &i.kind {
            InputKind::Tokens { chunks } => Some(chunks.len()),
            InputKind::Mask | InputKind::Encoder(_) => None,
        })
    }

    /// Slots per chunk.
    pub fn chunk_slots(&self) -> usize {
        self.run.saturating_mul(self.batch).max(1)
    }

    /// The real slots of input `spec` for up to `batch` sentences, each a list of tokens with
    /// their features. Tokens beyond `run` are left out; the client has refused them before.
    ///
    /// The result is always all slots, whatever the lengths are: nothing that leaves the client
    /// tells them. A sentence that is missing is all padding.
    pub fn pack<S: AsRef<[Vec<f64>]>>(
        &self,
        spec: &InputSpec,
        sentences: &[S],
        slots: usize,
    ) -> Vec<f64> {
        let mut out = vec![0.0; slots];
        if let (InputKind::Encoder(input), Some(encoder)) = (spec.kind.clone(), &self.encoder) {
            let rows = sentences.first().map_or(&[][..], AsRef::as_ref);
            let period = encoder.input(input, rows);
            let repeated = period.iter().cycle();
            out.iter_mut()
                .zip(repeated)
                .for_each(|(slot, v)| *slot = *v);
            return out;
        }
        for (c, chunk) in out.chunks_mut(self.chunk_slots()).enumerate() {
            let feature = match &spec.kind {
                InputKind::Mask | InputKind::Encoder(_) => None,
                InputKind::Tokens { chunks } => match chunks.get(c).copied().flatten() {
                    Some(f) => Some(f as usize),
                    None => continue,
                },
            };
            for (b, tokens) in sentences.iter().take(self.batch).enumerate() {
                let tokens = tokens.as_ref();
                let factor = (tokens.len().max(1) as f64).powf(-spec.power);
                let first = self.run.saturating_sub(tokens.len());
                for (t, row) in (first..self.run).zip(tokens) {
                    let value = feature.map_or(1.0, |f| row.get(f).copied().unwrap_or(0.0));
                    if let Some(slot) = chunk.get_mut(t * self.batch + b) {
                        *slot = value * factor;
                    }
                }
            }
        }
        out
    }

    /// The logits of each sentence from the slots of all outputs: per sentence the mean over its
    /// slots, and how far any of its slots is from that mean. An encoder's answer is its logits or its
    /// embedding, and how far a slot is from what can be ([`EncoderSlots::answer`]).
    pub fn unpack(&self, outputs: &[Vec<Complex>]) -> Vec<SentenceLogits> {
        if let Some(encoder) = &self.encoder {
            return vec![encoder.answer(outputs)];
        }
        let batch = self.batch.max(1);
        let one = |b: usize| {
            let mut logits = Vec::with_capacity(2 * outputs.len());
            let mut spread = 0.0f64;
            for slots in outputs {
                let own = || slots.iter().skip(b).step_by(batch);
                let mean = own().sum::<Complex>() / own().count().max(1) as f64;
                let unit = mean.re.abs().max(mean.im.abs()).max(1.0);
                let far = own().fold(0.0f64, |worst, s| worst.max((s - mean).norm()));
                // A maximum would pass over a mean that is not a number.
                spread = if mean.is_finite() {
                    spread.max(far / unit)
                } else {
                    f64::INFINITY
                };
                logits.extend([mean.re, mean.im]);
            }
            logits.truncate(self.labels.len());
            let largest = logits.iter().fold(0.0f64, |m, l| m.max(l.abs()));
            SentenceLogits {
                logits,
                spread,
                largest,
            }
        };
        (0..batch).map(one).collect()
    }
}

/// What a sentence's slots say.
#[derive(Clone, Debug, PartialEq)]
pub struct SentenceLogits {
    /// One logit per label, or the values of an embedding.
    pub logits: Vec<f64>,
    /// The largest of them in absolute value, of an embedding before it is normalized: at most
    /// [`Signature::answer_bound`] if the sentence was in the range of the program.
    pub largest: f64,
    /// The largest distance of a slot from the mean of its sentence, relative to the larger of 1
    /// and that mean; of an encoder see [`EncoderSlots::answer`].
    pub spread: f64,
}
