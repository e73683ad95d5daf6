//! Ranges of all intermediate values, from sample sentences.

use rayon::prelude::*;
use veilformer_ir::encoder::{
    Encoder, Functions, Head, HeadSite, Histogram, LayerRanges, NormRanges, NormSite, Range,
    Ranges, SublayerNorm, TokenClass, ValueSite,
};

use super::clear::{Exact, Execution};
use super::progress::{Pass, Progress, UNHEARD};
use crate::error::{ModelError, Result};

/// Runs the model on `sentences` and gives the ranges that occurred, without margin. The result
/// does not depend on the number of threads.
///
/// # Errors
/// When there is no sentence, or as [`Execution::embed`].
pub fn calibrate(execution: &Execution<'_>, sentences: &[Vec<u32>]) -> Result<Ranges> {
    calibrate_observed(execution, sentences, UNHEARD)
}

/// [`calibrate`], which says after every sentence how far it is.
///
/// # Errors
/// As there, or [`ModelError::Stopped`].
pub fn calibrate_observed(
    execution: &Execution<'_>,
    sentences: &[Vec<u32>],
    progress: &Progress<'_>,
) -> Result<Ranges> {
    let model = execution.model();
    let pass = Pass::through("calibrating", sentences, progress)?;
    let one = |ids: &Vec<u32>| -> Result<Ranges> {
        let mut recorder = Recorder {
            exact: execution.exact(),
            ranges: empty(model),
        };
        execution.answer(&execution.embed(ids)?, &mut recorder)?;
        let mut ranges = recorder.ranges;
        (ranges.sentences, ranges.tokens) = (1, ids.len());
        ranges.lengths = (ids.len(), ids.len());
        Ok(ranges)
    };
    // A recorder is a hundred thousand ranges, so sentences of one chunk share one at a time.
    let chunk = |part: &[Vec<u32>]| -> Result<Ranges> {
        part.iter().try_fold(empty(model), |mut all, ids| {
            all.merge(&one(ids)?);
            pass.advance(ids.len())?;
            Ok(all)
        })
    };
    let all = sentences.par_chunks(16).map(chunk).try_reduce(
        || empty(model),
        |mut a, b| {
            a.merge(&b);
            Ok(a)
        },
    )?;
    if all.sentences == 0 {
        return Err(ModelError::Calibration);
    }
    Ok(all)
}

/// Every how many sentences one is made longer, and as many shorter.
const LENGTHENED: usize = 5;

/// `sentences` and some made of them, of other lengths: from three tokens to `tokens`. Ranges depend
/// on the length, above all those of the sums in softmax, and what people have at hand rarely has
/// every length that the compiled model takes. First and last tokens stay where they are.
#[must_use]
pub fn lengthened(sentences: &[Vec<u32>], tokens: usize) -> Vec<Vec<u32>> {
    let mut all = sentences.to_vec();
    let count = sentences.len().div_ceil(LENGTHENED);
    let inner = |ids: &[u32]| ids.get(1..ids.len().max(2) - 1).unwrap_or(&[]).to_vec();
    for (at, ids) in sentences.iter().step_by(LENGTHENED).enumerate() {
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else {
            continue;
        };
        // The sentence and those after it, over and over, up to each of `count` lengths.
        let behind = sentences.iter().cycle().skip(at * LENGTHENED);
        let mut words = behind.take(tokens).flat_map(|ids| inner(ids));
        let long = (tokens * (at + 1)).div_ceil(count);
        let length = long.max(3).min(tokens);
        let inside: Vec<u32> = words.by_ref().take(length.saturating_sub(2)).collect();
        let short = inside.get(..(at % 8 + 1).min(inside.len())).unwrap_or(&[]);
        let made = |inside: &[u32]| [&[*first], inside, &[*last]].concat();
        all.extend([made(&inside), made(short)]);
    }
    all
}

fn empty(model: &Encoder) -> Ranges {
    let (d, f) = (model.hidden(), model.intermediate());
    let ranges = |count| vec![Range::EMPTY; count];
    let norm = || NormRanges {
        variance: [Range::EMPTY; 2],
        sum: ranges(d),
        output: ranges(d),
    };
    let layer = || LayerRanges {
        query: ranges(d),
        key: ranges(d),
        value: ranges(d),
        scores: ranges(model.heads),
        log_sums: ranges(model.heads),
        log_sum_counts: vec![Histogram::default(); model.heads],
        context: ranges(d),
        attention_norm: norm(),
        activation: ranges(f),
        activation_counts: Histogram::default(),
        output_norm: norm(),
    };
    let tanh = match model.head {
        Head::Embedding { .. } => 0,
        Head::Classifier { .. } => d,
    };
    Ranges {
        sentences: 0,
        tokens: 0,
        lengths: (usize::MAX, 0),
        input: ranges(d),
        layers: model.layers.iter().map(|_| layer()).collect(),
        tanh: ranges(tanh),
        answer: ranges(model.outputs()),
    }
}

/// Exact functions that write down what they are given. Sites beyond the model are not there to
/// be written to: ranges are made for the model that runs.
struct Recorder {
    exact: Exact,
    ranges: Ranges,
}

fn include(ranges: &mut [Range], values: &[f64]) {
    ranges
        .iter_mut()
        .zip(values)
        .for_each(|(r, v)| r.include(*v));
}

impl Functions for Recorder {
    fn softmax(&mut self, at: HeadSite, scores: &mut [f64]) {
        if let Some(layer) = self.ranges.layers.get_mut(at.layer)
            && let (Some(range), Some(sums), Some(counts)) = (
                layer.scores.get_mut(at.head),
                layer.log_sums.get_mut(at.head),
                layer.log_sum_counts.get_mut(at.head),
            )
        {
            scores.iter().for_each(|s| range.include(*s));
            let sum = self.exact.attention.log_sum(scores);
            sums.include(sum);
            counts.include(sum);
        }
        self.exact.softmax(at, scores);
    }

    fn inverse_root(&mut self, at: NormSite, x: f64) -> f64 {
        if let Some(layer) = self.ranges.layers.get_mut(at.layer) {
            let norm = match at.norm {
                SublayerNorm::Attention => &mut layer.attention_norm,
                SublayerNorm::Output => &mut layer.output_norm,
            };
            norm.variance[at.token as usize].include(x);
        }
        self.exact.inverse_root(at, x)
    }

    fn activation(&mut self, layer: usize, token: TokenClass, features: &mut [f64]) {
        if let Some(layer) = self.ranges.layers.get_mut(layer) {
            include(&mut layer.activation, features);
            features
                .iter()
                .for_each(|x| layer.activation_counts.include(*x));
        }
        self.exact.activation(layer, token, features);
    }

    fn tanh(&mut self, features: &mut [f64]) {
        include(&mut self.ranges.tanh, features);
        self.exact.tanh(features);
    }

    fn observe(&mut self, site: ValueSite, _: TokenClass, features: &[f64]) {
        let layers = &mut self.ranges.layers;
        let mut at = |layer: usize, part: fn(&mut LayerRanges) -> &mut Vec<Range>| {
            if let Some(layer) = layers.get_mut(layer) {
                include(part(layer), features);
            }
        };
        match site {
            ValueSite::Input => include(&mut self.ranges.input, features),
            ValueSite::Query(l) => at(l, |r| &mut r.query),
            ValueSite::Key(l) => at(l, |r| &mut r.key),
            ValueSite::Value(l) => at(l, |r| &mut r.value),
            ValueSite::Context(l) => at(l, |r| &mut r.context),
            ValueSite::AttentionSum(l) => at(l, |r| &mut r.attention_norm.sum),
            ValueSite::AttentionOutput(l) => at(l, |r| &mut r.attention_norm.output),
            ValueSite::FeedForwardSum(l) => at(l, |r| &mut r.output_norm.sum),
            ValueSite::Output(l) => at(l, |r| &mut r.output_norm.output),
            ValueSite::Answer => include(&mut self.ranges.answer, features),
        }
    }
}
