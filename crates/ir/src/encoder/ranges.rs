//! What calibration sentences showed of every intermediate value.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The smallest and the largest value that occurred.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Smallest.
    pub low: f64,
    /// Largest.
    pub high: f64,
}

impl Range {
    /// No value yet: `low > high`.
    pub const EMPTY: Self = Self {
        low: f64::MAX,
        high: f64::MIN,
    };

    /// Whether a value has been seen.
    pub fn is_empty(self) -> bool {
        self.low > self.high
    }

    /// With `x` in it; what is not a number widens it to everything.
    pub fn include(&mut self, x: f64) {
        if x.is_nan() {
            *self = Self {
                low: f64::MIN,
                high: f64::MAX,
            };
        }
        self.low = self.low.min(x);
        self.high = self.high.max(x);
    }

    /// Both together.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
        }
    }

    /// Widened at both ends by `margin` times its width, plus as much of its larger magnitude's
    /// 2^-20, so that it has a width at all.
    #[must_use]
    pub fn widened(self, margin: f64) -> Self {
        if self.is_empty() {
            return self;
        }
        let by = margin * (self.high - self.low) + self.magnitude().max(1e-9) * 2f64.powi(-20);
        Self {
            low: self.low - by,
            high: self.high + by,
        }
    }

    /// The largest absolute value; 0 if empty.
    pub fn magnitude(self) -> f64 {
        if self.is_empty() {
            0.0
        } else {
            self.low.abs().max(self.high.abs())
        }
    }

    /// How far `x` lies outside, 0 inside.
    pub fn excess(self, x: f64) -> f64 {
        (self.low - x).max(x - self.high).max(0.0)
    }
}

/// How often values fell into steps of one width: where a fit has to be good.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// Counts by the number of the step, `floor(x * STEPS)`.
    counts: BTreeMap<i32, u64>,
}

impl Histogram {
    /// Steps per unit.
    const STEPS: f64 = 16.0;

    /// One more value; those beyond 2^24 count as if they were there.
    pub fn include(&mut self, x: f64) {
        let limit = f64::from(1 << 28);
        let step = (x * Self::STEPS).floor().clamp(-limit, limit) as i32;
        let count = self.counts.entry(step).or_insert(0);
        *count = count.saturating_add(1);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (step, n) in &other.counts {
            let count = self.counts.entry(*step).or_insert(0);
            *count = count.saturating_add(*n);
        }
    }

    /// `(middle of a step, share of all values)`, in order.
    pub fn shares(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let all: f64 = self.counts.values().map(|n| *n as f64).sum();
        self.counts
            .iter()
            .map(move |(step, n)| ((f64::from(*step) + 0.5) / Self::STEPS, *n as f64 / all))
    }
}

/// What is known of one normalization.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NormRanges {
    /// Variance (with eps) of first tokens and of all others.
    pub variance: [Range; 2],
    /// Each feature of the sum that is normalized, first and other tokens together.
    pub sum: Vec<Range>,
    /// Each feature of the result.
    pub output: Vec<Range>,
}

impl NormRanges {
    fn merge(&mut self, other: &Self) {
        merge(&mut self.variance, &other.variance);
        merge(&mut self.sum, &other.sum);
        merge(&mut self.output, &other.output);
    }
}

/// What is known of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerRanges {
    /// Each feature.
    pub query: Vec<Range>,
    /// Each feature.
    pub key: Vec<Range>,
    /// Each feature.
    pub value: Vec<Range>,
    /// Scores of each head, with their factor.
    pub scores: Vec<Range>,
    /// Logarithm of each head's sums, of what its attention function divides by.
    pub log_sums: Vec<Range>,
    /// How often which of these, per head.
    pub log_sum_counts: Vec<Histogram>,
    /// Each feature of the heads' results.
    pub context: Vec<Range>,
    /// Normalization after attention.
    pub attention_norm: NormRanges,
    /// Each channel of the activation's input.
    pub activation: Vec<Range>,
    /// How often which of these, over all channels.
    pub activation_counts: Histogram,
    /// Normalization after the feed-forward part.
    pub output_norm: NormRanges,
}

/// Ranges of every intermediate value of an encoder, as calibration saw them (no margin).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ranges {
    /// Sentences seen.
    pub sentences: usize,
    /// Tokens seen.
    pub tokens: usize,
    /// The fewest and the most tokens of one sentence.
    pub lengths: (usize, usize),
    /// Each feature of the first layer's input.
    pub input: Vec<Range>,
    /// The layers.
    pub layers: Vec<LayerRanges>,
    /// Each input of the pooler's tanh; empty for embeddings.
    pub tanh: Vec<Range>,
    /// Logits, or features of the embedding before it is normalized.
    pub answer: Vec<Range>,
}

fn merge(to: &mut [Range], from: &[Range]) {
    to.iter_mut().zip(from).for_each(|(a, b)| *a = a.union(*b));
}

impl LayerRanges {
    fn merge(&mut self, other: &Self) {
        for (to, from) in [
            (&mut self.query, &other.query),
            (&mut self.key, &other.key),
            (&mut self.value, &other.value),
            (&mut self.scores, &other.scores),
            (&mut self.log_sums, &other.log_sums),
            (&mut self.context, &other.context),
            (&mut self.activation, &other.activation),
        ] {
            merge(to, from);
        }
        let counts = self.log_sum_counts.iter_mut().zip(&other.log_sum_counts);
        counts.for_each(|(a, b)| a.merge(b));
        self.activation_counts.merge(&other.activation_counts);
        self.attention_norm.merge(&other.attention_norm);
        self.output_norm.merge(&other.output_norm);
    }
}

impl Ranges {
    /// Adds what other sentences showed of the same model.
    pub fn merge(&mut self, other: &Self) {
        self.sentences += other.sentences;
        self.tokens += other.tokens;
        self.lengths.0 = self.lengths.0.min(other.lengths.0);
        self.lengths.1 = self.lengths.1.max(other.lengths.1);
        merge(&mut self.input, &other.input);
        merge(&mut self.tanh, &other.tanh);
        merge(&mut self.answer, &other.answer);
        let layers = self.layers.iter_mut().zip(&other.layers);
        layers.for_each(|(a, b)| a.merge(b));
    }
}
