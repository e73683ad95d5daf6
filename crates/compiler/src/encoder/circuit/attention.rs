//! A layer's attention: queries, keys and values, scores, weights, weighted values.

use std::f64::consts::SQRT_2;
use std::sync::Arc;

use veilformer_circuits::CircuitError;
use veilformer_circuits::encoder::{Heads, KeySum, Parts, Scores, Spread, Weighted, fold};
use veilformer_ckks::{Complex, Ops, SlotVector};
use veilformer_ir::encoder::{EncoderLayer, LayerRanges, Range};

use super::inverse::Inverses;
use super::machine::{Machine, Stage};
use super::maps::{Affine, Map, bias_of};
use super::norm::doublings;
use super::weights::{ScoreMap, Weighing};
use super::{Inputs, Layout};
use crate::encoder::LayerSubstitution;
use crate::placement::{Packing, Read};

/// The attention of one layer up to the heads' results.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    layer: usize,
    heads: Heads,
    /// To the blocks of queries, keys and values, one after the other; keys without their bias.
    maps: Map,
    /// The keys' bias less what the centring takes from it.
    key_bias: Vec<SlotVector>,
    pub centring: Centring,
    /// The factor of scores, in the first slot of each head's lane.
    factor: SlotVector,
    /// Of all scores, the factor.
    scale: f64,
    /// Added to scores.
    offset: SlotVector,
    weighing: Weighing,
    /// Levels of the weights.
    depth: usize,
    /// Added to the sums of weights.
    epsilon: SlotVector,
    inverses: Inverses,
    /// What the results of each head have to be multiplied with.
    pub gains: Vec<f64>,
}

/// What is taken from all scores of a query, besides what is a part of the keys' bias.
#[derive(Clone, Debug)]
pub(super) enum Centring {
    None,
    /// The product with the token's own key: factors, in the first slot of each head's lane.
    Own(SlotVector),
    /// The product with a sum of keys, whose map this is: from the token, the one before and the
    /// one after.
    Neighbours(Map),
}

impl Attention {
    pub(super) fn new(
        layout: &Layout,
        (layer, model): (usize, &EncoderLayer),
        (substitution, ranges): (&LayerSubstitution, &LayerRanges),
        input: &Affine,
    ) -> Result<Self, CircuitError> {
        let heads = layout.heads;
        let (blocks, width, dim) = (heads.blocks(), heads.width, heads.dim);
        let largest = |all: &[Range]| {
            let all = all.iter().map(|range| range.widened(0.1).magnitude());
            all.fold(1e-6, f64::max)
        };
        let inverses = Inverses::new(&substitution.inverses, layout);
        // A head's result is that of the values times the gain that its inverse lacks.
        let gains = inverses.gains.iter().map(|g| g * inverses.start);
        let least = gains.fold(1.0, f64::min);
        let dense = [&model.query, &model.key, &model.value];
        let biases = dense.map(|map| bias_of(map, input));
        // Keys come without their bias first.
        let keys = ranges.key.iter().zip(&biases[1]);
        let keys = keys.map(|(range, bias)| Range {
            low: range.low - bias,
            high: range.high - bias,
        });
        let keys = largest(&keys.collect::<Vec<_>>());
        let values = largest(&ranges.value) / least;
        let factor = (dim as f64).sqrt().recip();
        let queries = ranges.query.chunks(dim).map(largest);
        let queries: Vec<f64> = queries.collect();
        let weights = &substitution.weights;
        let map = ScoreMap::new(weights, (&queries, keys), factor);
        let bound = |group: usize, feature: usize| match group {
            0 => map.queries.get(feature / dim).copied().unwrap_or(1.0),
            1 => keys,
            _ => values,
        };
        let place = |index: usize| {
            let (group, at) = (index / (blocks * width), index % (blocks * width));
            let (head, i, _) = layout.dimension(at)?;
            Some((group, head * dim + i))
        };
        let periods = layout.periods(layout.hidden);
        let maps = Map::new(
            layout,
            (3 * blocks, &periods),
            |r, c| {
                if c >= layout.hidden {
                    return 0.0;
                }
                let gain = input.gain.get(c).copied().unwrap_or(0.0);
                place(r).map_or(0.0, |(group, feature)| {
                    dense[group].weight.get(feature, c) * gain / bound(group, feature)
                })
            },
            |r| match place(r) {
                Some((group @ (0 | 2), feature)) => biases[group][feature] / bound(group, feature),
                _ => 0.0,
            },
        )?;
        let centring = |head: usize| model.centering.as_ref().and_then(|all| all.get(head));
        let key_bias = layout.per_feature(blocks, |index| {
            let Some((head, i, _)) = layout.dimension(index) else {
                return 0.0;
            };
            let bias = biases[1][head * dim + i];
            let left = centring(head).map_or(bias, |c| {
                let key = c.key.get(i).unwrap_or(&0.0);
                bias * (1.0 - c.own - c.previous - c.next) - key / factor
            });
            left / keys
        });
        let scale = map.scale;
        // Scores come as halves where two of them ride in one ciphertext.
        let part = if heads.is_paired() { 0.5 } else { 1.0 };
        let offset = |head: usize| part * map.offsets.get(head).unwrap_or(&0.0);
        let imaginary = if heads.is_paired() { 1.0 } else { 0.0 };
        let slots = layout.per_feature(1, |at| match layout.lane(at) {
            Some(head) if at % heads.places() < heads.used_places() => offset(head),
            _ => 0.0,
        });
        let slots = slots.iter().flat_map(SlotVector::entries);
        let offset = slots.map(|z| z * Complex::new(1.0, imaginary)).collect();
        let firsts = |of: &dyn Fn(usize) -> f64| {
            let mut slots = layout.per_feature(1, |at| match layout.lane(at) {
                Some(head) if at % heads.places() == 0 => part * scale * of(head),
                _ => 0.0,
            });
            slots.pop().unwrap_or(SlotVector::real_constant(0.0))
        };
        let own = firsts(&|head| centring(head).map_or(0.0, |c| c.own));
        let mut all = model.centering.iter().flatten();
        let centring = if all.any(|c| c.previous != 0.0 || c.next != 0.0) {
            let blocks_in = periods.len();
            Centring::Neighbours(Map::new(
                layout,
                (blocks, &periods.repeat(3)),
                |r, c| {
                    let (which, c) = (c / (blocks_in * width), c % (blocks_in * width));
                    let Some((head, i, _)) = layout.dimension(r).filter(|_| c < layout.hidden)
                    else {
                        return 0.0;
                    };
                    let multiple = centring(head).map_or(0.0, |c| match which {
                        0 => c.own,
                        1 => c.previous,
                        _ => c.next,
                    });
                    let gain = input.gain.get(c).copied().unwrap_or(0.0);
                    multiple * model.key.weight.get(head * dim + i, c) * gain / keys
                },
                |_| 0.0,
            )?)
        } else if own.is_zero() {
            Centring::None
        } else {
            Centring::Own(own)
        };
        let epsilon = layout.per_feature(1, |at| {
            let head = layout.lane(at);
            head.map_or(0.0, |head| {
                weights.epsilon(head) * inverses.scales.get(head).unwrap_or(&0.0)
            })
        });
        let epsilon = epsilon.into_iter().next();
        let epsilon = epsilon.unwrap_or(SlotVector::real_constant(0.0));
        Ok(Self {
            layer,
            heads,
            maps,
            key_bias,
            centring,
            factor: firsts(&|_| 1.0),
            scale,
            offset: SlotVector::Periodic(offset),
            weighing: Weighing::new(weights)?,
            depth: weights.depth(),
            epsilon: epsilon.simplified(),
            gains: inverses.gains.iter().map(|g| g * values).collect(),
            inverses,
        })
    }

    /// Weighted values and the inverses of the weights' sums: value numbers. Their products, in the
    /// blocks of queries, are the heads' results, each to be multiplied with its head's gain; beside
    /// the first copy of heads stands junk in them that no bound holds for.
    pub(super) fn run<O: Ops>(
        &self,
        m: &mut Machine<'_, O>,
        x: usize,
        masks: &Inputs<O::Ct>,
    ) -> Result<[usize; 2], CircuitError> {
        let spreads = usize::from(self.heads.copies > 1);
        let read = [Read::first(x)];
        let mut stage = Stage::new("queries, keys, values", &read, 1);
        if matches!(self.centring, Centring::Neighbours(_)) {
            // Of sums of keys nothing is promised.
            stage.bound = f64::INFINITY;
        }
        let all = m.stage(&stage, |m, inputs| {
            self.projections(m, &inputs.concat(), masks)
        })?;
        let read = [Read::first(all)];
        let values = m.stage(&Stage::new("values", &read, spreads), |m, inputs| {
            self.values(m, &inputs.concat())
        })?;
        let stage = Stage {
            packing: self.packing(),
            ..Stage::new("scores", &read, 2 + spreads)
        };
        let scores = m.stage(&stage, |m, inputs| self.scores(m, &inputs.concat()))?;
        m.take(all);
        // With the mask.
        let depth = self.depth + 1;
        let read = [Read::first(scores)];
        let stage = Stage {
            packing: self.packing(),
            // Either part of a complex number is at most 1: its absolute value may be more.
            bound: if self.heads.is_paired() { SQRT_2 } else { 1.0 },
            ..Stage::new(self.weighing.name(), &read, depth)
        };
        let weights = m.stage(&stage, |m, inputs| self.weights(m, &inputs.concat(), masks))?;
        m.take(scores);
        let read = [Read::first(weights)];
        let sum = m.stage(&Stage::new("sums over keys", &read, 1), |m, inputs| {
            let sum = self.sum(m, &inputs.concat())?;
            Ok(vec![m.plus(
                (self.layer, "epsilon", 0),
                &sum,
                &self.epsilon,
            )?])
        })?;
        let late = Read {
            value: values,
            late: 1,
        };
        let read = [Read::first(weights), late];
        let weighted = m.stage(
            &Stage::new("weighted values", &read, 2),
            |m, inputs| match inputs {
                [weights, values] => self.weighted(m, weights, values),
                _ => Ok(Vec::new()),
            },
        )?;
        m.take(weights);
        m.take(values);
        let inverse = self.inverse(m, sum)?;
        Ok([weighted, inverse])
    }

    fn packing(&self) -> Packing {
        match self.heads.is_paired() {
            true => Packing::Complex,
            false => Packing::Real,
        }
    }

    /// Blocks of queries, keys without bias, values; where scores are centred by them, sums of keys.
    fn projections<O: Ops>(
        &self,
        m: &mut Machine<'_, O>,
        x: &[O::Ct],
        masks: &Inputs<O::Ct>,
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let site = (self.layer, "queries, keys, values", 0);
        let mut all = m.product(site, &self.maps, x)?;
        if let Centring::Neighbours(map) = &self.centring {
            let inputs = [x, &masks.neighbours].concat();
            let site = (self.layer, "keys of neighbours", 0);
            all.extend(m.product(site, map, &inputs)?);
        }
        Ok(all)
    }

    /// Of what [`Self::projections`] gives, the blocks of queries (0), keys (1), values (2), sums (3).
    fn part<'c, Ct>(&self, all: &'c [Ct], which: usize) -> &'c [Ct] {
        let blocks = self.heads.blocks();
        all.get(which * blocks..(which + 1) * blocks).unwrap_or(&[])
    }

    fn values<O: Ops>(
        &self,
        m: &mut Machine<'_, O>,
        all: &[O::Ct],
    ) -> Result<Vec<O::Ct>, CircuitError> {
        self.spread(m, self.part(all, 2))
    }

    /// Copies of heads side by side, where there are any.
    fn spread<O: Ops>(
        &self,
        m: &mut Machine<'_, O>,
        blocks: &[O::Ct],
    ) -> Result<Vec<O::Ct>, CircuitError> {
        if self.heads.copies <= 1 {
            return Ok(blocks.to_vec());
        }
        let level = blocks.first().map_or(0, |ct| m.ops.level(ct));
        let make = |ops: &mut O| Spread::new(ops, self.heads, level);
        let spread: Arc<Spread<_>> = m.cached(|p| &mut p.spreads, level, make)?;
        let spread = blocks.iter().map(|block| spread.apply(m.ops, block));
        spread.collect()
    }

    /// Scores as their weights want them.
    fn scores<O: Ops>(
        &self,
        m: &mut Machine<'_, O>,
        all: &[O::Ct],
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let (heads, layer) = (self.heads, self.layer);
        let [queries, plain_keys, sums] = [0, 1, 3].map(|part| self.part(all, part));
        let mut keys = Vec::with_capacity(plain_keys.len());
        for (block, (key, bias)) in plain_keys.iter().zip(&self.key_bias).enumerate() {
            keys.push(m.plus((layer, "key bias", block), key, bias)?);
        }
        let sums = if sums.is_empty() { plain_keys } else { sums };
        let taken = self.centre(m, queries, sums)?;
        let keys = self.spread(m, &keys)?;
        let both = m.level_out(&[queries, &keys].concat())?;
        let (queries, keys) = both.split_at(queries.len());
        let level = queries.first().map_or(0, |ct| m.ops.level(ct));
        let make = |ops: &mut O| Scores::new(ops, heads, level, self.scale);
        let circuit = m.cached(|p| &mut p.scores, (layer, level), make)?;
        let mut scores = circuit.apply(m.ops, queries, keys)?;
        for (at, score) in scores.iter_mut().enumerate() {
            if let Some(taken) = taken.get(at / heads.rows()) {
                let level = m.ops.level(score).min(m.ops.level(taken));
                let taken = m.ops.adjust(taken, level)?;
                *score = m.ops.adjust(score, level)?;
                *score = m.ops.sub(score, &taken)?;
            }
            *score = m.plus((layer, "score offset", 0), score, &self.offset)?;
        }
        Ok(scores)
    }

    /// What the scores of each pair of giant steps are centred by.
    fn centre<O: Ops>(
        &self,
        m: &mut Machine<'_, O>,
        queries: &[O::Ct],
        keys: &[O::Ct],
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let heads = &self.heads;
        let factors = match &self.centring {
            Centring::None => return Ok(Vec::new()),
            Centring::Own(factors) => factors,
            Centring::Neighbours(_) => &self.factor,
        };
        let all = m.level_out(&[queries, keys].concat())?;
        let (queries, keys) = all.split_at(queries.len());
        let pairs: Vec<(&O::Ct, &O::Ct)> = queries.iter().zip(keys).collect();
        let products = m.ops.mul_sum(&pairs)?;
        let sum = fold(m.ops, &products, &doublings(heads.places()))?;
        let total = m.times((self.layer, "centring", 0), &sum, factors)?;
        let back: Vec<i64> = doublings(heads.used_places()).iter().map(|s| -s).collect();
        let total = fold(m.ops, &total, &back)?;
        let steps: Vec<i64> = (0..heads.giants())
            .map(|giant| -((giant * heads.babies * heads.width) as i64))
            .collect();
        let turned = m.ops.rotate_many(&total, &steps)?;
        if !heads.is_paired() {
            return Ok(turned);
        }
        let parts = Parts::new(m.ops, m.ops.level(&total))?;
        let (re, im) = turned.split_at(heads.pairs().min(turned.len()));
        let joined = re.iter().zip(im).map(|(re, im)| parts.join(m.ops, re, im));
        Ok(joined.collect::<Result<_, _>>()?)
    }

    /// Weights of scores, zero where no token is.
    fn weights<O: Ops>(
        &self,
        m: &mut Machine<'_, O>,
        scores: &[O::Ct],
        masks: &Inputs<O::Ct>,
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let top = scores.iter().map(|ct| m.ops.level(ct)).max().unwrap_or(0);
        let parts = Parts::new(m.ops, top)?;
        let mut weights = Vec::with_capacity(scores.len());
        for (at, score) in scores.iter().enumerate() {
            let mut weighed = if self.heads.is_paired() {
                let [re, im] = parts.split(m.ops, score)?;
                let (re, im) = (self.weighing.apply(m, &re)?, self.weighing.apply(m, &im)?);
                parts.join(m.ops, &re, &im)?
            } else {
                self.weighing.apply(m, score)?
            };
            if let Some(mask) = masks.keys.get(at % self.heads.rows().max(1)) {
                weighed = m.mul(&weighed, mask)?;
            }
            weights.push(weighed);
        }
        Ok(weights)
    }

    /// The weights' sums, as their inverse wants them.
    fn sum<O: Ops>(
        &self,
        m: &mut Machine<'_, O>,
        weights: &[O::Ct],
    ) -> Result<O::Ct, CircuitError> {
        let (heads, scales) = (self.heads, &self.inverses.scales);
        let level = weights.first().map_or(0, |ct| m.ops.level(ct));
        let make = |ops: &mut O| {
            let scale = |head: usize| scales.get(head).copied().unwrap_or(0.0);
            KeySum::with_scales(ops, heads, level, (scale, 0.5))
        };
        let sum = m.cached(|p| &mut p.sums, (self.layer, level), make)?;
        sum.apply(m.ops, weights)
    }

    fn weighted<O: Ops>(
        &self,
        m: &mut Machine<'_, O>,
        weights: &[O::Ct],
        values: &[O::Ct],
    ) -> Result<Vec<O::Ct>, CircuitError> {
        let level = weights.first().map_or(0, |ct| m.ops.level(ct));
        let make = |ops: &mut O| Weighted::new(ops, self.heads, level);
        let weighted: Arc<Weighted<_>> = m.cached(|p| &mut p.weighted, level, make)?;
        weighted.apply(m.ops, weights, values)
    }

    /// A stage for each step of the iteration: the product so far, and what is left to invert.
    fn inverse<O: Ops>(&self, m: &mut Machine<'_, O>, sum: usize) -> Result<usize, CircuitError> {
        let steps = self.inverses.terms.len();
        if steps == 0 {
            let what = "no step; at least one is expected";
            return Err(CircuitError::shape("inverse of sums", what));
        }
        let mut value = sum;
        for (step, term) in self.inverses.terms.iter().enumerate() {
            let last = step + 1 == steps;
            let name = format!("inverse, step {}", step + 1);
            let read = [Read::first(value)];
            // The product's first step is no product.
            let depth = usize::from(step > 0 || !last);
            let stage = Stage {
                bound: self
                    .inverses
                    .bounds
                    .get(step)
                    .copied()
                    .unwrap_or(f64::INFINITY),
                ..Stage::new(&name, &read, depth)
            };
            let next = m.stage(&stage, |m, inputs| {
                let mut inputs = inputs.concat();
                let part = inputs.pop().ok_or_else(none)?;
                let mut a = part.clone();
                for _ in 0..self.inverses.doublings {
                    a = m.ops.add(&a, &a)?;
                }
                let negative = m.ops.negate(&a)?;
                let factor = m.plus((self.layer, "inverse", step), &negative, term)?;
                let mut outputs = vec![match inputs.pop() {
                    None if self.inverses.start < 1.0 => {
                        let start = SlotVector::real_constant(self.inverses.start);
                        m.times((self.layer, "inverse start", 0), &factor, &start)?
                    }
                    None => factor.clone(),
                    Some(p) => m.mul(&p, &factor)?,
                }];
                if !last {
                    outputs.push(m.mul(&part, &factor)?);
                }
                Ok(outputs)
            })?;
            m.take(value);
            value = next;
        }
        Ok(value)
    }
}

fn none() -> CircuitError {
    CircuitError::shape("attention of an encoder", "a stage without inputs")
}
