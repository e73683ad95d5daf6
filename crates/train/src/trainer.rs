//! The training loop.

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use veilformer_models::data::permutation;
use veilformer_models::{Family, ModelConfig, Pooling};

use crate::corpus::{Corpus, Item, TokenSource};
use crate::error::{Result, TrainError};
use crate::network::{Batch, Mode, Network, Weights};
use crate::noise::Noise;
use crate::params::Parameters;
use crate::recipe::Recipe;

/// Sentences of a batch in evaluation.
const EVAL_BATCH: usize = 128;

/// What an epoch came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Number of the epoch, from 0.
    pub epoch: usize,
    /// Mean training loss (with smoothing, without range terms).
    pub loss: f64,
    /// Mean range terms, already weighted.
    pub range_loss: f64,
    /// Accuracy of the averaged weights on dev, 0 to 1.
    pub dev_accuracy: f64,
}

/// A training run: recipe, data and everything that training changes.
pub struct Trainer<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The data.
    pub corpus: &'a Corpus,
    /// Configuration of the model.
    pub config: ModelConfig,
    /// All that training changes.
    pub parameters: Parameters,
    table: Option<Tensor>,
}

impl<'a> Trainer<'a> {
    /// A run at its beginning.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn new(recipe: &'a Recipe, corpus: &'a Corpus) -> Result<Self> {
        Self::with_layers(recipe, corpus, recipe.model.num_hidden_layers)
    }

    /// The bag of words of the same features: a network without layers, whose sentence vector is
    /// the mean of the projected features.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn bag_of_words(recipe: &'a Recipe, corpus: &'a Corpus) -> Result<Self> {
        Self::with_layers(recipe, corpus, 0)
    }

    fn with_layers(recipe: &'a Recipe, corpus: &'a Corpus, layers: usize) -> Result<Self> {
        let mut config = recipe.config(corpus.source.tokens().len());
        config.num_hidden_layers = layers;
        if let Family::StateSpace(shape) = &mut config.family
            && layers == 0
        {
            // A bag of words has no last token.
            shape.pooling = Pooling::Mean;
        }
        let table = match &corpus.source {
            TokenSource::Frozen(features) => {
                let shape = (features.tokens.len(), features.width);
                Some(Tensor::from_slice(&features.data, shape, &Device::Cpu)?)
            }
            TokenSource::Learned { .. } => None,
        };
        let parameters = Parameters::new(recipe, &config, &corpus.source)?;
        Ok(Self {
            recipe,
            corpus,
            config,
            parameters,
            table,
        })
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.corpus
            .train
            .len()
            .div_ceil(self.recipe.optimizer.batch_size)
    }

    /// Token vectors of all tokens under the given weights, V x d.
    ///
    /// # Errors
    /// When a weight is absent or a tensor operation fails.
    pub fn token_table(&self, weights: &Weights) -> Result<Tensor> {
        match &self.table {
            Some(table) => Ok(table.matmul(named(weights, "projection")?)?),
            None => Ok(named(weights, "embedding")?.clone()),
        }
    }

    /// Token vectors of the tokens `ids`, one row each.
    fn token_rows(&self, weights: &Weights, ids: &Tensor) -> Result<Tensor> {
        match &self.table {
            Some(table) => Ok(table
                .index_select(ids, 0)?
                .matmul(named(weights, "projection")?)?),
            None => Ok(named(weights, "embedding")?.index_select(ids, 0)?),
        }
    }

    /// One pass over the training data. `progress` is called after each step.
    ///
    /// # Errors
    /// When the loss leaves the numbers or a tensor operation fails.
    pub fn epoch(&mut self, epoch: usize, mut progress: impl FnMut(f64)) -> Result<EpochReport> {
        let mut noise = Noise::new(self.recipe.seed, epoch as u64);
        let batches = self.batches(&mut noise);
        let (mut loss_sum, mut range_sum) = (0.0, 0.0);
        for indices in &batches {
            let items: Vec<&Item> = indices
                .iter()
                .filter_map(|&i| self.corpus.train.get(i))
                .collect();
            let [loss, range] = self.step(&items, &mut noise)?;
            loss_sum += loss;
            range_sum += range;
            progress(loss);
        }
        let steps = batches.len().max(1) as f64;
        let weights = self.parameters.averaged()?;
        let table = self.token_table(&weights)?;
        let dev = evaluate(&self.config, &weights, &table, &self.corpus.dev)?;
        Ok(EpochReport {
            epoch,
            loss: loss_sum / steps,
            range_loss: range_sum / steps,
            dev_accuracy: accuracy(&dev, &self.corpus.dev, self.corpus.dev_size()),
        })
    }

    /// Batches of sentences of like length: less padding to compute, the order still random.
    fn batches(&self, noise: &mut Noise) -> Vec<Vec<usize>> {
        let o = &self.recipe.optimizer;
        let mut order = permutation(self.corpus.train.len(), noise.rng());
        let length = |i: &usize| self.corpus.train.get(*i).map_or(0, |item| item.ids.len());
        for bucket in order.chunks_mut(o.batch_size.saturating_mul(o.bucket_batches)) {
            bucket.sort_by_key(length);
        }
        let batches: Vec<Vec<usize>> = order.chunks(o.batch_size).map(<[usize]>::to_vec).collect();
        permutation(batches.len(), noise.rng())
            .into_iter()
            .filter_map(|i| batches.get(i).cloned())
            .collect()
    }

    fn step(&mut self, items: &[&Item], noise: &mut Noise) -> Result<[f64; 2]> {
        let (recipe, r) = (self.recipe, &self.recipe.regularization);
        let sentences: Vec<&[u32]> = items.iter().map(|i| i.ids.as_slice()).collect();
        let batch = Batch::new(&sentences);
        let weights = self.parameters.trained();
        let ids = Tensor::from_slice(&batch.ids, batch.ids.len(), &Device::Cpu)?;
        let rows = self.token_rows(&weights, &ids)?;
        let rows = noise.drop(&rows, r.feature_dropout)?;
        let words = noise.keep(batch.ids.len(), r.word_dropout);
        let kept = 1.0 - r.word_dropout as f32;
        // A dropped word is absent, not made up for by the others: no factor 1 / (1 - rate).
        let words: Vec<f32> = words.into_iter().map(|w| w * kept).collect();
        let words = Tensor::from_vec(words, (batch.ids.len(), 1), &Device::Cpu)?;
        let shape = (items.len(), batch.width, self.config.hidden_size);
        let embedded = rows.broadcast_mul(&words)?.reshape(shape)?;
        let g = &recipe.ranges;
        let mut mode = Mode::Train {
            noise,
            dropout: r.dropout,
            family: &recipe.family,
            logits: g.logits,
        };
        let output = Network::new(&self.config, &weights).forward(&embedded, &batch, &mut mode)?;
        let loss = cross_entropy(&output.logits, items, r.label_smoothing)?;
        let range = match output.range_loss {
            Some(term) => (term * g.weight)?,
            None => loss.zeros_like()?,
        };
        let values = finite([&loss, &range], self.parameters.step)?;
        let grads = (loss + range)?.backward()?;
        let rate = self.learning_rate();
        self.parameters.update(&grads, rate, recipe)?;
        let o = &recipe.optimizer;
        self.parameters
            .take_statistics(&output.statistics, o.norm_decay, o.average_decay)?;
        Ok(values)
    }

    fn learning_rate(&self) -> f64 {
        let o = &self.recipe.optimizer;
        let steps = (self.parameters.step, self.steps_per_epoch() * o.epochs);
        learning_rate((o.learning_rate, o.warmup), steps)
    }
}

fn named<'w>(weights: &'w Weights, name: &str) -> Result<&'w Tensor> {
    weights
        .get(name)
        .ok_or_else(|| candle_core::Error::Msg(format!("no weight `{name}`")).into())
}

/// Values of the loss and of the range terms.
///
/// # Errors
/// [`TrainError::Diverged`] if they left the numbers.
pub(crate) fn finite([loss, range]: [&Tensor; 2], step: usize) -> Result<[f64; 2]> {
    let value = |x: &Tensor| x.to_scalar::<f32>().map(f64::from);
    let values = [value(loss)?, value(range)?];
    match values.iter().sum::<f64>().is_finite() {
        true => Ok(values),
        false => Err(TrainError::Diverged { step }),
    }
}

/// The size of the step after `done` of `total` ones: it rises from 0 to `peak` over the first part,
/// `warmup`, of them and falls linearly to 0.
pub(crate) fn learning_rate((peak, warmup): (f64, f64), (done, total): (usize, usize)) -> f64 {
    let done = (done as f64 + 0.5) / total as f64;
    let shape = if done < warmup {
        done / warmup
    } else {
        (1.0 - done) / (1.0 - warmup)
    };
    peak * shape.max(0.0)
}

/// Mean cross entropy with smoothed targets (Szegedy et al. 2016, section 7).
pub(crate) fn cross_entropy(logits: &Tensor, items: &[&Item], smoothing: f64) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    let even = smoothing / classes as f64;
    let mut target = vec![even as f32; rows * classes];
    for (row, item) in target.chunks_exact_mut(classes).zip(items) {
        if let Some(t) = row.get_mut(item.label) {
            *t += (1.0 - smoothing) as f32;
        }
    }
    let target = Tensor::from_vec(target, (rows, classes), &Device::Cpu)?;
    Ok(((log_softmax(logits)? * target)?.sum_all()? / -(rows as f64))?)
}

/// The logarithm of softmax, row by row.
pub(crate) fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let largest = logits.max_keepdim(1)?.detach();
    let shifted = logits.broadcast_sub(&largest)?;
    let log_sum = shifted.exp()?.sum_keepdim(1)?.log()?;
    Ok(shifted.broadcast_sub(&log_sum)?)
}

/// Logits of all items, in their order, one row each. `table` holds the token vectors (V x d); it
/// and the weights are of the same type, in which all is computed.
///
/// # Errors
/// When a tensor operation fails.
pub fn evaluate(
    config: &ModelConfig,
    weights: &Weights,
    table: &Tensor,
    items: &[Item],
) -> Result<Vec<Vec<f64>>> {
    evaluate_with(config, weights, table, items, &mut Mode::Eval)
}

/// As [`evaluate`], and `mode` says how each batch is run.
///
/// # Errors
/// When a tensor operation fails.
pub fn evaluate_with(
    config: &ModelConfig,
    weights: &Weights,
    table: &Tensor,
    items: &[Item],
    mode: &mut Mode<'_>,
) -> Result<Vec<Vec<f64>>> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&i| items.get(i).map_or(0, |item| item.ids.len()));
    let mut logits = vec![Vec::new(); items.len()];
    for chunk in order.chunks(EVAL_BATCH) {
        let sentences: Vec<&[u32]> = chunk
            .iter()
            .filter_map(|&i| items.get(i))
            .map(|item| item.ids.as_slice())
            .collect();
        let batch = Batch::new(&sentences);
        let ids = Tensor::from_slice(&batch.ids, batch.ids.len(), &Device::Cpu)?;
        let shape = (sentences.len(), batch.width, config.hidden_size);
        let embedded = table.index_select(&ids, 0)?.reshape(shape)?;
        let output = Network::new(config, weights).forward(&embedded, &batch, mode)?;
        let rows = output.logits.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        for (&i, row) in chunk.iter().zip(rows) {
            if let Some(slot) = logits.get_mut(i) {
                *slot = row;
            }
        }
    }
    Ok(logits)
}

/// Number of items whose largest logit is their label's, over `size`.
pub fn accuracy(logits: &[Vec<f64>], items: &[Item], size: usize) -> f64 {
    let right = logits
        .iter()
        .zip(items)
        .filter(|(row, item)| argmax(row) == item.label)
        .count();
    right as f64 / size.max(1) as f64
}

/// Index of the largest value, the first of equals.
pub fn argmax(row: &[f64]) -> usize {
    let mut best = 0;
    for (i, v) in row.iter().enumerate() {
        if row.get(best).is_some_and(|b| v > b) {
            best = i;
        }
    }
    best
}
