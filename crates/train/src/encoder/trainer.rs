//! The training loop of an encoder: steps, losses, evaluation.

use candle_core::{D, Device, Tensor};
use veilformer_ir::encoder::{Activation, AttentionFunction};
use veilformer_models::data::permutation;
use veilformer_models::encoder::lengthened;

use super::corpus::EncoderCorpus;
use super::folder::Pretrained;
use super::network::{Batch, Network, Output, Purpose, Shape};
use super::optimizer::Parameters;
use super::ranges::Seen;
use super::recipe::{EncoderRecipe, StudentRecipe};
use crate::corpus::Item;
use crate::error::Result;
use crate::network::Weights;
use crate::noise::Noise;
use crate::trainer::{cross_entropy, finite, learning_rate, log_softmax};

/// Sentences of a batch in evaluation.
const EVAL_BATCH: usize = 32;
/// Training sentences on which a student's queries are scaled.
const SCALE_SENTENCES: usize = 128;
/// Streams of [`Noise`] from here on are those of steps; epochs have those below.
const STEP_STREAMS: u64 = 1 << 32;

/// A run: recipe, data, and everything that training changes.
pub struct EncoderTrainer<'a> {
    /// The recipe.
    pub recipe: &'a EncoderRecipe,
    /// What the trained weights are the weights of.
    pub shape: Shape,
    /// All that training changes.
    pub parameters: Parameters,
    sentences: Vec<&'a Item>,
    made: Vec<Vec<u32>>,
    teacher: Option<(Shape, Weights)>,
}

impl<'a> EncoderTrainer<'a> {
    /// A run at its beginning: the weights are those of `source`; a student's queries are scaled.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn new(
        recipe: &'a EncoderRecipe,
        corpus: &'a EncoderCorpus,
        source: &Pretrained,
    ) -> Result<Self> {
        let sentences: Vec<&Item> = corpus.train.iter().collect();
        let mut this = Self {
            recipe,
            shape: source.shape,
            parameters: Parameters::new(&[], &recipe.optimizer)?,
            sentences,
            made: Vec::new(),
            teacher: None,
        };
        let mut weights = source.weights.clone();
        if let Some(student) = &recipe.student {
            this.shape = Shape {
                layer_norm_eps: student.layer_norm_eps,
                activation: Activation::Quadratic,
                attention: student.attention(student.epsilon),
                ..source.shape
            };
            let teacher: Weights = source.weights.iter().cloned().collect();
            if source.shape.attention == AttentionFunction::Softmax {
                this.scale_queries(student, source.shape, &mut weights)?;
            }
            this.teacher = Some((source.shape, teacher));
            if student.lengthened > 0 {
                let all: Vec<Vec<u32>> = corpus.train.iter().map(|i| i.ids.clone()).collect();
                let made = lengthened(&all, student.lengthened);
                this.made = made.into_iter().skip(all.len()).collect();
            }
        }
        this.parameters = Parameters::new(&weights, &recipe.optimizer)?;
        Ok(this)
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        let all = self.sentences.len() + self.made.len();
        all.div_ceil(self.recipe.optimizer.batch_size)
    }

    /// The batches of an epoch: indices below the number of training sentences are these, the others
    /// those that were made of them.
    pub fn batches(&self, epoch: usize) -> Vec<Vec<usize>> {
        let mut noise = Noise::new(self.recipe.seed, epoch as u64);
        let order = permutation(self.sentences.len() + self.made.len(), noise.rng());
        let size = self.recipe.optimizer.batch_size;
        order.chunks(size).map(<[usize]>::to_vec).collect()
    }

    /// One step on the sentences of the given indices: the loss and the range terms.
    ///
    /// # Errors
    /// When the loss leaves the numbers or a tensor operation fails.
    pub fn step(&mut self, indices: &[usize]) -> Result<[f64; 2]> {
        let o = &self.recipe.optimizer;
        let mut noise = Noise::new(self.recipe.seed, STEP_STREAMS + self.parameters.step as u64);
        let known = self.sentences.len();
        let ids = |&i: &usize| match self.sentences.get(i) {
            Some(item) => Some(item.ids.as_slice()),
            None => self.made.get(i - known).map(Vec::as_slice),
        };
        let sentences: Vec<&[u32]> = indices.iter().filter_map(ids).collect();
        let batch = Batch::new(&sentences);
        let weights = self.parameters.weights();
        let purpose = Purpose::Train {
            noise: &mut noise,
            dropout: o.dropout,
            limits: self.recipe.student.as_ref().map(|s| &s.ranges),
        };
        let output = Network::new(self.shape, &weights).forward(&batch, purpose)?;
        let loss = match (&self.teacher, &self.recipe.student) {
            (Some((shape, weights)), Some(student)) => {
                let teacher = Network::new(*shape, weights).forward(&batch, Purpose::Answer)?;
                distillation(&output, &teacher, student)?
            }
            _ => {
                let items = indices.iter().filter_map(|&i| self.sentences.get(i));
                let items: Vec<&Item> = items.copied().collect();
                cross_entropy(&output.logits, &items, 0.0)?
            }
        };
        let range = match output.ranges {
            Some(term) => term,
            None => loss.zeros_like()?,
        };
        let values = finite([&loss, &range], self.parameters.step)?;
        let grads = (loss + range)?.backward()?;
        let rate = self.learning_rate();
        self.parameters.update(&grads, rate, o)?;
        Ok(values)
    }

    fn learning_rate(&self) -> f64 {
        let o = &self.recipe.optimizer;
        let steps = (self.parameters.step, self.steps_per_epoch() * o.epochs);
        learning_rate((o.learning_rate, o.warmup), steps)
    }

    /// Scores of softmax may lie anywhere; only their ratios count among powers. So every head's
    /// queries get the factor with which, on the teacher's token vectors, the mean logarithm of its
    /// sums of powers is 0, and one epsilon suits all heads.
    fn scale_queries(
        &self,
        student: &StudentRecipe,
        teacher: Shape,
        weights: &mut [(String, Tensor)],
    ) -> Result<()> {
        let sentences = self.sentences.iter().take(SCALE_SENTENCES);
        let sentences: Vec<&[u32]> = sentences.map(|i| i.ids.as_slice()).collect();
        let batch = Batch::new(&sentences);
        let all: Weights = weights.iter().cloned().collect();
        let hidden = Network::new(teacher, &all).forward(&batch, Purpose::Answer)?;
        let powers = Shape {
            attention: student.attention(f64::from(f32::MIN_POSITIVE)),
            ..teacher
        };
        for (layer, x) in hidden.hidden.iter().take(teacher.layers).enumerate() {
            let sums = Network::new(powers, &all).log_sums(layer, x, &batch)?;
            let means = sums.mean(0)?.to_vec1::<f32>()?;
            let name = format!("bert.encoder.layer.{layer}.attention.self.query");
            for (_, tensor) in weights.iter_mut().filter(|(n, _)| n.starts_with(&name)) {
                let dim = tensor.dim(D::Minus1)? / teacher.heads;
                let factor = means
                    .iter()
                    .flat_map(|mean| vec![(-mean / student.power as f32).exp(); dim]);
                let factor: Vec<f32> = factor.collect();
                let n = factor.len();
                *tensor = tensor.broadcast_mul(&Tensor::from_vec(factor, n, &Device::Cpu)?)?;
            }
        }
        Ok(())
    }
}

/// The student's loss (Hinton et al., arXiv 1503.02531; hidden states as MPCFormer, Li et al. 2023):
/// `T^2 KL(teacher || student)` of the logits over the temperature, mean over sentences, and the
/// weighted sum over layers of the mean squared distance of token vectors.
fn distillation(student: &Output, teacher: &Output, recipe: &StudentRecipe) -> Result<Tensor> {
    let t = recipe.temperature;
    let theirs = log_softmax(&(&teacher.logits / t)?)?.detach();
    let ours = log_softmax(&(&student.logits / t)?)?;
    let sentences = student.logits.dim(0)?.max(1) as f64;
    let divergence = (theirs.exp()? * (theirs - ours)?)?.sum_all()?;
    let mut loss = (divergence * (t * t / sentences))?;
    for (ours, theirs) in student.hidden.iter().zip(&teacher.hidden) {
        let distance = (ours - theirs.detach())?.sqr()?.mean_all()?;
        loss = (loss + (distance * recipe.hidden)?)?;
    }
    Ok(loss)
}

/// Logits of all items, in their order; ranges go into `seen`, if it is given.
///
/// # Errors
/// When a tensor operation fails.
pub fn answers(
    network: &Network<'_>,
    items: &[Item],
    mut seen: Option<&mut Seen>,
) -> Result<Vec<Vec<f64>>> {
    let mut logits = Vec::with_capacity(items.len());
    for chunk in items.chunks(EVAL_BATCH) {
        let sentences: Vec<&[u32]> = chunk.iter().map(|i| i.ids.as_slice()).collect();
        let purpose = match &mut seen {
            Some(seen) => Purpose::Observe(seen),
            None => Purpose::Answer,
        };
        let output = network.forward(&Batch::new(&sentences), purpose)?;
        let rows = output.logits.to_vec2::<f32>()?;
        logits.extend(
            rows.into_iter()
                .map(|row| row.into_iter().map(f64::from).collect::<Vec<_>>()),
        );
    }
    Ok(logits)
}
