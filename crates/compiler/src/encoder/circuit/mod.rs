//! An encoder after substitution as a circuit on ciphertexts: from the rows that a client encrypts
//! to its answer.
//!
//! [`EncoderCircuit::new`] folds everything affine into the maps between functions and decides where
//! values stand ([`Layout`]); [`EncoderCircuit::run`] goes through the stages on any [`Ops`]: in the
//! clear, with simulated noise, or on ciphertexts. Before each stage, what has too few levels left
//! for it is bootstrapped ([`Bootstraps`]), two real ciphertexts at a time where there are two.
//!
//! All values are divided by a bound, so that the slots of what may be bootstrapped lie in [-1, 1],
//! those of padding and of empty places included.
//!
//! | stage | levels |
//! |---|---|
//! | queries, keys, values | 1 |
//! | scores | 2, with copies of heads 3 |
//! | exponential or power, mask | its depth, 1 |
//! | sums over keys; weighted values | 1; 2 |
//! | inverse of sums, product | its depth, 1 |
//! | output map with the residual, centred | 1 |
//! | normalization | 3, where tokens have room and one scale 2, and its root's depth |
//! | up; activation; down with the residual, centred | 1; its depth; 1 |
//! | normalization | the same |
//! | pooler; tanh; classifier | 1; its depth; 1 |
//!
//! The number of tokens is hidden: which tokens there are comes encrypted ([`Inputs`]).
//!
//! [`Ops`]: veilformer_ckks::Ops

mod attention;
mod flow;
mod head;
mod inverse;
mod layout;
mod machine;
mod maps;
mod norm;
mod weights;

pub use flow::Times;
pub use layout::{Inputs, Layout};
pub use machine::{Bootstraps, Event, Plains, StageReport, Watch};

use veilformer_circuits::CircuitError;
use veilformer_circuits::polynomial::{Chebyshev, EvaluationPlan};
use veilformer_ckks::{Complex, Ops, SlotVector};
use veilformer_ir::Matrix;
use veilformer_ir::encoder::{
    Encoder, EncoderInput, EncoderLayer, EncoderSlots, Head, LayerRanges, Pooling, Range, Ranges,
};

use self::attention::{Attention, Centring};
use self::head::Answer;
use self::machine::{Machine, Stage};
use self::maps::{Affine, Map};
use self::norm::{Norm, NormSite, plan};
use super::{ActivationSubstitution, LayerSubstitution, Substitution};
use crate::placement::{Placement, Read};

const NAME: &str = "encoder";

/// An encoder as a circuit. It has no plaintexts yet: those are made at the levels where they are
/// met ([`Plains`]).
#[derive(Clone, Debug)]
pub struct EncoderCircuit {
    layout: Layout,
    slots: EncoderSlots,
    layers: Vec<Layer>,
    /// What the results of each layer stand for.
    outputs: Vec<Affine>,
    /// Whether the last layer's results are those of the first token only.
    first_only: bool,
    answer: Answer,
}

#[derive(Clone, Debug)]
struct Layer {
    attention: Attention,
    output: Map,
    attention_norm: Norm,
    up: Map,
    activation: Activation,
    down: Map,
    output_norm: Norm,
}

#[derive(Clone, Debug)]
enum Activation {
    Polynomial(EvaluationPlan),
    Square,
}

impl EncoderCircuit {
    /// The circuit of `model` with `substitution` in place of its functions; `ranges` bound what no
    /// function bounds.
    ///
    /// # Errors
    /// A model without layers, or parts that do not fit each other.
    pub fn new(
        model: &Encoder,
        (substitution, ranges): (&Substitution, &Ranges),
        layout: Layout,
    ) -> Result<Self, CircuitError> {
        let count = model.layers.len();
        if count == 0 || substitution.layers.len() != count || ranges.layers.len() != count {
            let what = format!(
                "{count} layers, {} substituted, {} with ranges; at least one, and as many of each \
                 are expected",
                substitution.layers.len(),
                ranges.layers.len()
            );
            return Err(CircuitError::shape(NAME, what));
        }
        let bound = largest(&ranges.input);
        let mut input = Affine::bounded(model.hidden(), bound);
        let bound_of_answer = match (&model.head, model.layers.last()) {
            (Head::Embedding { .. }, Some(layer)) => {
                let norm = layer.output_norm.weight.iter().zip(&layer.output_norm.bias);
                let result = Norm::result(model.hidden());
                norm.fold(1e-6, |m, (w, b)| f64::max(m, result * w.abs() + b.abs()))
            }
            // Another sentence may have larger ones; nothing but precision depends on it.
            _ => 1.5 * largest(&ranges.answer),
        };
        let mut layers = Vec::with_capacity(count);
        let mut outputs = Vec::with_capacity(count);
        for (index, layer) in model.layers.iter().enumerate() {
            let last = (index + 1 == count).then_some((&model.head, bound_of_answer));
            let site = Site {
                layout: &layout,
                epsilon: model.layer_norm_eps,
                index,
                substitution: &substitution.layers[index],
                ranges: &ranges.layers[index],
                last,
            };
            let (made, output) = Layer::new(&site, layer, &input)?;
            layers.push(made);
            outputs.push(output.clone());
            input = output;
        }
        let head = (&model.head, substitution);
        let answer = Answer::new(&layout, head, &input, bound_of_answer)?;
        let normalize = matches!(
            model.head,
            Head::Embedding {
                normalize: true,
                ..
            }
        );
        Ok(Self {
            slots: EncoderSlots {
                heads: layout.heads,
                hidden: layout.hidden,
                bound,
                answers: model.outputs(),
                answer_bound: bound_of_answer,
                normalize,
            },
            layout,
            layers,
            outputs,
            first_only: !matches!(&model.head, Head::Embedding { pooling, .. } if *pooling == Pooling::Mean),
            answer,
        })
    }

    /// Where values stand.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What the inputs hold, all of them at the level that bootstraps give.
    #[must_use]
    pub fn inputs(&self) -> Inputs<EncoderInput> {
        let neighbours = self.reads_neighbours();
        self.layout.inputs(neighbours, self.answer.is_mean())
    }

    /// Whether the first layer centres scores by the tokens before and behind.
    fn reads_neighbours(&self) -> bool {
        let first = self.layers.first().map(|layer| &layer.attention.centring);
        matches!(first, Some(Centring::Neighbours(_)))
    }

    /// Where the client's values stand in the slots of the inputs, and the answer in the results'.
    #[must_use]
    pub fn slots(&self) -> &EncoderSlots {
        &self.slots
    }

    /// What the client encrypts for the rows of its tokens.
    ///
    /// # Errors
    /// No row, too many of them, or rows of another width.
    pub fn encode(&self, rows: &Matrix) -> Result<Inputs<SlotVector>, CircuitError> {
        let most = self.layout.heads.tokens;
        if rows.rows() == 0 || rows.rows() > most || rows.cols() != self.layout.hidden {
            let what = format!(
                "{} rows of {} features; 1 to {most} rows of {} are expected",
                rows.rows(),
                rows.cols(),
                self.layout.hidden
            );
            return Err(CircuitError::shape(NAME, what));
        }
        let rows: Vec<&[f64]> = rows.iter_rows().collect();
        self.inputs().map(|input| {
            let slots = self.slots.input(*input, &rows).into_iter();
            let slots = slots.map(|value| Complex::new(value, 0.0));
            Ok(SlotVector::Periodic(slots.collect()))
        })
    }

    /// The answer in the slots of [`EncoderCircuit::run`]'s results: logits, or the embedding, which
    /// is normalized where the model says so.
    #[must_use]
    pub fn read(&self, results: &[Vec<Complex>]) -> Vec<f64> {
        self.slots.answer(results).logits
    }

    /// The outputs of a layer, token after token, in the slots of what its last stage ends with
    /// ([`layer_of`] its name); of the last layer those of the first token, if no other one is
    /// wanted. Empty for a layer that there is not.
    #[must_use]
    pub fn read_layer(&self, layer: usize, slots: &[Vec<Complex>], tokens: usize) -> Vec<f64> {
        let Some(output) = self.outputs.get(layer) else {
            return Vec::new();
        };
        let only_first = self.first_only && layer + 1 == self.outputs.len();
        let width = self.layout.heads.width.max(1);
        let tokens = if only_first { 1 } else { tokens };
        let value = |token: usize, feature: usize| {
            let block = slots.get(feature / width);
            let slot = block.and_then(|block| block.get(token * width + feature % width));
            output.value(feature, slot.map_or(0.0, |z| z.re))
        };
        let features = |token| (0..self.layout.hidden).map(move |f| value(token, f));
        (0..tokens).flat_map(features).collect()
    }

    /// Runs all stages, with bootstraps where `placement` has them (see [`EncoderCircuit::flow`]).
    /// `watch` sees what each stage ends with.
    ///
    /// # Errors
    /// Inputs that do not fit; a placement of another circuit; fewer levels between bootstraps than
    /// a stage takes; what `ops` refuses.
    pub fn run<O: Ops>(
        &self,
        ops: &mut O,
        (bootstraps, placement): (&Bootstraps, &Placement),
        (inputs, plains): (&Inputs<O::Ct>, &mut Plains<O::Plain>),
        watch: Watch<'_, O>,
    ) -> Result<(Vec<O::Ct>, Vec<StageReport>), CircuitError> {
        let m = Machine::new(ops, (bootstraps, Some(placement)), plains, watch);
        self.stages(m, bootstraps, inputs)
    }

    /// Runs all stages on a machine.
    fn stages<O: Ops>(
        &self,
        mut m: Machine<'_, O>,
        bootstraps: &Bootstraps,
        inputs: &Inputs<O::Ct>,
    ) -> Result<(Vec<O::Ct>, Vec<StageReport>), CircuitError> {
        let expected = (
            self.layout.blocks(self.layout.hidden),
            self.layout.heads.rows(),
        );
        if (inputs.features.len(), inputs.keys.len()) != expected {
            let what = format!(
                "{} blocks of features and {} masks; {expected:?} are expected",
                inputs.features.len(),
                inputs.keys.len()
            );
            return Err(CircuitError::shape(NAME, what));
        }
        let mut x = inputs.features.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            m.begin(format!("layer {index}"), x);
            let output = layer.run(&mut m, index, inputs)?;
            x = m.take(output);
        }
        m.begin("answer".to_owned(), x);
        let spare = bootstraps.input_level;
        let results = self
            .answer
            .run(&mut m, (self.layers.len(), spare), inputs)?;
        Ok((m.take(results), m.stages))
    }
}

/// What a layer is made of, besides its weights.
struct Site<'a> {
    layout: &'a Layout,
    epsilon: f64,
    index: usize,
    substitution: &'a LayerSubstitution,
    ranges: &'a LayerRanges,
    /// In the last layer the head, and the bound of its answer.
    last: Option<(&'a Head, f64)>,
}

impl Layer {
    /// The layer, and what its results stand for.
    fn new(
        site: &Site<'_>,
        model: &EncoderLayer,
        input: &Affine,
    ) -> Result<(Self, Affine), CircuitError> {
        let (layout, substitution) = (site.layout, site.substitution);
        let hidden = layout.hidden;
        let of = (substitution, site.ranges);
        let attention = Attention::new(layout, (site.index, model), of, input)?;
        let result = Norm::result(hidden);
        let norm = |substitution, result| NormSite {
            substitution,
            epsilon: site.epsilon,
            bound: Norm::bound(layout, substitution),
            result,
        };
        let dim = layout.heads.dim;
        let first = norm(&substitution.attention_norm, result);
        let output = Map::centred_sum(
            layout,
            (&model.output, &model.output.bias),
            input,
            (layout.heads.blocks(), first.bound),
            |column| match layout.dimension(column) {
                Some((head, i, 0)) => Some((head * dim + i, *attention.gains.get(head)?)),
                _ => None,
            },
        )?;
        let attention_norm = Norm::new(layout, &first, |_, _| 1.0)?;
        let middle = Affine::normalized(&model.attention_norm, result);

        let (low, high) = substitution.activation.interval();
        let map = (2.0 / (high - low), -(low + high) / (high - low));
        let up = Map::dense(layout, (&model.up, &layout.periods(hidden)), &middle, map)?;
        // What the activation's results have to be multiplied with, and what is to be added then.
        let (activation, active, offset) = match &substitution.activation {
            ActivationSubstitution::Polynomial(polynomial) => {
                let active = magnitude(polynomial);
                let plan = plan(&scaled(polynomial, active)?)?;
                (Activation::Polynomial(plan), active, 0.0)
            }
            ActivationSubstitution::Square {
                gain,
                offset,
                bound,
                ..
            } => (Activation::Square, gain * bound * bound, *offset),
        };
        let width = model.up.weight.rows();
        let mut down_bias = model.down.weight.apply(&vec![offset; width]);
        down_bias
            .iter_mut()
            .zip(&model.down.bias)
            .for_each(|(y, b)| *y += b);
        let last = norm(&substitution.output_norm, result);
        let down = Map::centred_sum(
            layout,
            (&model.down, &down_bias),
            &middle,
            (layout.blocks(width), last.bound),
            |column| (column < width).then_some((column, active)),
        )?;
        let mut output_affine = Affine::normalized(&model.output_norm, result);
        let output_norm = match site.last {
            None => Norm::new(layout, &last, |_, _| 1.0)?,
            // Of other tokens than the first one nothing is wanted.
            Some((Head::Classifier { .. }, _)) => {
                Norm::new(layout, &last, |t, _| f64::from(u8::from(t == 0)))?
            }
            // The gain of each feature is a part of the mask.
            Some((Head::Embedding { pooling, .. }, bound)) => {
                let mean = *pooling == Pooling::Mean;
                let gains = output_affine.gain.clone();
                output_affine.gain = vec![bound; hidden];
                Norm::new(layout, &last, |t, feature| {
                    let gain = gains.get(feature).unwrap_or(&0.0) / bound;
                    if mean || t == 0 { gain } else { 0.0 }
                })?
            }
        };
        let layer = Self {
            attention,
            output,
            attention_norm,
            up,
            activation,
            down,
            output_norm,
        };
        Ok((layer, output_affine))
    }

    /// From value 0 of a block to the number of the layer's results.
    fn run<O: Ops>(
        &self,
        m: &mut Machine<'_, O>,
        index: usize,
        masks: &Inputs<O::Ct>,
    ) -> Result<usize, CircuitError> {
        let x = 0;
        let [weighted, inverse] = self.attention.run(m, x, masks)?;
        let late = |value| Read { value, late: 1 };
        let reads = [Read::first(weighted), Read::first(inverse), late(x)];
        let stage = Stage::new("context, output map, residual", &reads, 2);
        let sum = m.stage(&stage, |m, inputs| {
            let [weighted, inverse, x] = inputs else {
                return Ok(Vec::new());
            };
            let mut blocks = Vec::with_capacity(weighted.len() + x.len());
            for block in weighted {
                for inverse in inverse {
                    blocks.push(m.mul(block, inverse)?);
                }
            }
            blocks.extend_from_slice(x);
            m.product((index, "output map", 0), &self.output, &blocks)
        })?;
        for value in [weighted, inverse, x] {
            m.take(value);
        }
        let middle = self
            .attention_norm
            .run(m, (index, "normalization after attention"), sum)?;
        let read = [Read::first(middle)];
        let up = m.stage(&Stage::new("up", &read, 1), |m, inputs| {
            m.product((index, "up", 0), &self.up, &inputs.concat())
        })?;
        let read = [Read::first(up)];
        let depth = match &self.activation {
            Activation::Polynomial(plan) => plan.depth(),
            Activation::Square => 1,
        };
        let active = m.stage(&Stage::new("activation", &read, depth), |m, inputs| {
            let blocks = inputs.iter().flatten();
            let blocks = blocks.map(|block| match &self.activation {
                Activation::Polynomial(plan) => m.evaluate(block, plan),
                Activation::Square => {
                    m.promise(block, 1.0);
                    Ok(m.ops.square(block)?)
                }
            });
            blocks.collect()
        })?;
        m.take(up);
        let reads = [Read::first(active), Read::first(middle)];
        let sum = m.stage(&Stage::new("down, residual", &reads, 1), |m, inputs| {
            m.product((index, "down", 0), &self.down, &inputs.concat())
        })?;
        m.take(active);
        m.take(middle);
        self.output_norm.run(m, (index, LAST), sum)
    }
}

/// The layer whose last stage has this name; none for other stages.
#[must_use]
pub fn layer_of(stage: &str) -> Option<usize> {
    let index = stage.strip_prefix("layer ")?.strip_suffix(LAST)?;
    index.strip_suffix(", ")?.parse().ok()
}

/// The last stage of a layer.
const LAST: &str = "last normalization";

/// The largest magnitude that calibration saw of any feature, and a tenth of the range more.
fn largest(ranges: &[Range]) -> f64 {
    let all = ranges.iter().map(|range| range.widened(0.1).magnitude());
    all.fold(1e-6, f64::max)
}

/// The largest magnitude of a polynomial on its interval.
fn magnitude(polynomial: &Chebyshev) -> f64 {
    let (low, high) = polynomial.interval();
    let points = 16 * (polynomial.degree() + 2);
    let at = |i: usize| low + (high - low) * i as f64 / points as f64;
    let all = (0..=points).map(|i| polynomial.evaluate(at(i)).abs());
    1.001 * all.fold(1e-6, f64::max)
}

/// A polynomial divided by `by`.
fn scaled(polynomial: &Chebyshev, by: f64) -> Result<Chebyshev, CircuitError> {
    let coefficients = polynomial.coefficients().iter().map(|c| c / by);
    Ok(Chebyshev::new(
        coefficients.collect(),
        polynomial.interval(),
    )?)
}
