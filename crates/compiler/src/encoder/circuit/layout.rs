//! Where features, heads and tokens stand, and what the client sends.

use veilformer_circuits::CircuitError;
use veilformer_circuits::bootstrap::Content;
use veilformer_circuits::encoder::Heads;
use veilformer_ckks::{Complex, SlotVector};
use veilformer_ir::encoder::{Encoder, EncoderInput};

const NAME: &str = "layout of an encoder";

/// Features are the fast axis: slot `token * width + feature mod width` of block `feature / width`.
/// Queries, keys and values lie as [`Heads`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Queries, keys, values and scores; its tokens and width are those of everything.
    pub heads: Heads,
    /// Features of a token.
    pub hidden: usize,
}

/// What one run works on, in slots: see [`Layout::inputs`].
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs<T> {
    /// Blocks of features.
    pub features: Vec<T>,
    /// The blocks of each token's predecessor, then those of its successor, where the first layer
    /// centres by them; zero where there is none.
    pub neighbours: Vec<T>,
    /// Which tokens there are, per row of the scores ([`Heads::of_keys`]).
    pub keys: Vec<T>,
    /// One over the number of tokens, in all slots of each that there is, where the answer is their
    /// mean.
    pub mean: Option<T>,
}

impl<T> Inputs<T> {
    /// Each part by `f`, in order.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn map<U, E>(&self, mut f: impl FnMut(&T) -> Result<U, E>) -> Result<Inputs<U>, E> {
        Ok(Inputs {
            features: self.features.iter().map(&mut f).collect::<Result<_, E>>()?,
            neighbours: self
                .neighbours
                .iter()
                .map(&mut f)
                .collect::<Result<_, E>>()?,
            keys: self.keys.iter().map(&mut f).collect::<Result<_, E>>()?,
            mean: self.mean.as_ref().map(f).transpose()?,
        })
    }
}

impl Layout {
    /// The shape of least cost (of attention, by counted operations) for sentences of up to `tokens` tokens.
    ///
    /// # Errors
    /// When one block of all tokens does not fit the slots.
    pub fn choose(model: &Encoder, tokens: usize, slots: usize) -> Result<Self, CircuitError> {
        let padded = tokens.max(1).next_power_of_two();
        let widest = model.hidden().max(model.intermediate()).next_power_of_two();
        let width = widest.min(slots / padded);
        let candidates = Heads::candidates(padded, width, model.heads, model.head_dim());
        let cheapest = candidates
            .into_iter()
            .min_by(|a, b| cost(a, model.hidden()).total_cmp(&cost(b, model.hidden())));
        let heads = cheapest.ok_or_else(|| {
            let what = format!(
                "{tokens} tokens of {} heads in {slots} slots: no layout fits; compile for fewer \
                 tokens or a larger ring",
                model.heads
            );
            CircuitError::shape(NAME, what)
        })?;
        Ok(Self {
            heads,
            hidden: model.hidden(),
        })
    }

    /// Ciphertexts of `features` features.
    #[must_use]
    pub fn blocks(&self, features: usize) -> usize {
        features.div_ceil(self.heads.width.max(1))
    }

    /// What one complex and one real ciphertext hold, as far as their bootstraps are concerned. Short
    /// sentences are repeated until they fill the slots: then all coefficients of a complex value go
    /// through EvalMod together, and real ones take the same bootstrap, since one of their own would
    /// be hardly faster and want keys and plaintexts of its own.
    #[must_use]
    pub fn contents(&self, slots: usize) -> [Content; 2] {
        match self.heads.period() {
            period if period <= slots / 2 => [Content::PeriodicComplex(period); 2],
            _ => [Content::Complex, Content::Real],
        }
    }

    /// Places of each block of `features` features that may hold something else than zero, rounded up to
    /// a power of two: all but the last block are full.
    #[must_use]
    pub fn periods(&self, features: usize) -> Vec<usize> {
        let width = self.heads.width.max(1);
        let left = (0..self.blocks(features)).map(|block| features - block * width);
        left.map(|left| left.min(width).next_power_of_two().min(width))
            .collect()
    }

    /// Places of a token, from its first, that features stand in: a power of two.
    #[must_use]
    pub fn places(&self) -> usize {
        let most = self.periods(self.hidden).into_iter().max();
        most.unwrap_or(self.heads.width)
    }

    /// Whether a copy of the features fits behind them, and as many zeros behind that: then sums of as many
    /// neighbouring slots as features have places never have two tokens in them.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.blocks(self.hidden) == 1 && 4 * self.places() <= self.heads.width
    }

    /// What the inputs of a run hold: `neighbours` says whether those of each token are wanted,
    /// `mean` whether the answer is a mean of the tokens.
    #[must_use]
    pub fn inputs(&self, neighbours: bool, mean: bool) -> Inputs<EncoderInput> {
        let blocks = 0..self.blocks(self.hidden) as u32;
        let features = |step: i32| {
            let blocks = blocks.clone();
            blocks.map(move |block| EncoderInput::Features { block, step })
        };
        let steps: &[i32] = if neighbours { &[-1, 1] } else { &[] };
        let rows = 0..self.heads.rows() as u32;
        Inputs {
            features: features(0).collect(),
            neighbours: steps.iter().flat_map(|step| features(*step)).collect(),
            keys: rows.map(|row| EncoderInput::Keys { row }).collect(),
            mean: mean.then_some(EncoderInput::Mean),
        }
    }

    /// The vector of `value(token, place within the token)`.
    #[must_use]
    pub fn per_slot(&self, value: impl Fn(usize, usize) -> f64) -> SlotVector {
        let width = self.heads.width;
        let slots = 0..self.heads.period();
        let slots = slots.map(|slot| Complex::new(value(slot / width, slot % width), 0.0));
        SlotVector::Periodic(slots.collect())
    }

    /// The vectors, one per block, of `value(index)`, the same for all tokens; `index` counts over
    /// the places of all blocks.
    #[must_use]
    pub fn per_feature(&self, blocks: usize, value: impl Fn(usize) -> f64) -> Vec<SlotVector> {
        let width = self.heads.width;
        let block = |block: usize| {
            let slots = (0..width).map(|at| Complex::new(value(block * width + at), 0.0));
            SlotVector::Periodic(slots.collect())
        };
        (0..blocks).map(block).collect()
    }

    /// The head whose lane a place within a token is in.
    #[must_use]
    pub fn lane(&self, at: usize) -> Option<usize> {
        let h = &self.heads;
        let head = at % (h.width / h.copies.max(1)).max(1) / h.places();
        (head < h.heads).then_some(head)
    }

    /// Head and dimension of a place within a token of one of the blocks of queries, and which copy
    /// it is; none where there is no head.
    #[must_use]
    pub fn dimension(&self, index: usize) -> Option<(usize, usize, usize)> {
        let h = &self.heads;
        let (block, at) = (index / h.width, index % h.width);
        let stride = h.width / h.copies.max(1);
        let (copy, at) = (at / stride, at % stride);
        let (head, dim) = (at / h.places(), block * h.places() + at % h.places());
        (head < h.heads && dim < h.dim).then_some((head, dim, copy))
    }
}

/// Milliseconds of a layer's attention with these heads, and of the maps before and behind it, roughly:
/// only to compare shapes. Units are of N = 2^16 with 8 limbs: products with relinearization 9, tensor
/// products 2, rotations 8, two doublings at once 13, hoisted rotations 4, terms of a map 0.45, its giant steps 7, a pair of
/// bootstraps 1700, a level of everything 170.
fn cost(h: &Heads, hidden: usize) -> f64 {
    let [pairs, babies, blocks, giants] =
        [h.pairs(), h.babies, h.blocks(), h.giants()].map(|n| n as f64);
    let (scores, places) = (h.score_ciphertexts() as f64, h.used_places() as f64);
    let products = 2.0 * pairs * babies * (9.0 + 2.0 * blocks);
    let rotations = blocks * 4.0 * (giants + 2.0 * babies);
    // To places of their own and back: steps of maps, and rotations for the rest of a lane.
    let reaches = [h.gathered_places(), h.spread_places()].map(|reach| {
        let doublings = (h.places() / reach.max(1)).max(1).ilog2();
        let doublings = f64::from(13 * (doublings / 2) + 8 * (doublings % 2));
        7.0 * (places + reach as f64 - 2.0) + places * doublings
    });
    let moves = scores * (reaches.iter().sum::<f64>() + 10.0 * places);
    let copies = if h.copies > 1 {
        170.0 + 2.0 * blocks * 4.0 * h.copies as f64
    } else {
        0.0
    };
    let functions = scores * (1700.0 + 2.0 * 10.0 * 10.0);
    // Queries, keys, values, and the output map, whose giant steps are those of the features.
    let width = h.width as f64;
    let features = hidden.div_ceil(h.width.max(1)) as f64;
    let maps = blocks * (4.0 * features * width * 0.45 + 3.0 * 7.0 * (width / 32.0).ceil());
    products + rotations + moves + copies + functions + maps
}
