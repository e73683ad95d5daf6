//! Where the heads of an attention stand.

use veilformer_ckks::{Complex, SlotVector};

use crate::CircuitError;

const CIRCUIT: &str = "attention";

/// How queries, keys and values lie in slots, and in which steps they meet.
///
/// Slot `t * width + lane * places + i` of block `g` holds dimension `g * places + i` of token `t`,
/// with `places = width / lanes`. Lanes `h` below `heads` hold the heads, the others zero. With
/// `copies` above one the lanes are that many equal groups, each with all heads: a copy of the
/// keys is as many tokens further on as it has shifts to serve ([`super::Spread`]), so that each
/// product covers that many distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Heads {
    /// Padded number of tokens: a power of two.
    pub tokens: usize,
    /// Slots of a token: a power of two, with `tokens * width` at most the slots.
    pub width: usize,
    /// Heads.
    pub heads: usize,
    /// Dimensions of a head.
    pub dim: usize,
    /// Lanes of a token: a power of two, at least `heads * copies`.
    pub lanes: usize,
    /// Copies of the heads: a power of two.
    pub copies: usize,
    /// Rotations of the keys, 0 to `babies - 1` tokens: a power of two, at most `tokens / copies`.
    pub babies: usize,
}

/// Where a score stands; see [`Heads::score`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScorePlace {
    /// Which ciphertext.
    pub ciphertext: usize,
    /// Whether it is the imaginary part.
    pub imaginary: bool,
    /// The slot.
    pub slot: usize,
}

impl Heads {
    /// One copy, as many lanes as hold the heads, and as many babies as a lane has places, so that
    /// no place of the scores is empty; or more, up to the root of the tokens.
    ///
    /// # Errors
    /// As [`Heads::check`].
    pub fn new(
        tokens: usize,
        width: usize,
        heads: usize,
        dim: usize,
    ) -> Result<Self, CircuitError> {
        let lanes = heads.checked_next_power_of_two().unwrap_or(0);
        let places = width.checked_div(lanes).unwrap_or(0);
        let root = 1usize << (tokens.max(1).ilog2().div_ceil(2));
        let new = Self {
            tokens,
            width,
            heads,
            dim,
            lanes,
            copies: 1,
            babies: places.max(root).min(tokens),
        };
        new.check(usize::MAX)?;
        Ok(new)
    }

    /// Every shape of these tokens, slots of a token, heads and dimensions that leaves no more than half
    /// of a lane's places without a dimension: what a choice by cost is to be made from. Fewer lanes or
    /// more babies are fewer blocks and more keys; more copies are fewer products and one level, for
    /// [`super::Spread`].
    #[must_use]
    pub fn candidates(tokens: usize, width: usize, heads: usize, dim: usize) -> Vec<Self> {
        let powers = |most: usize| (0..usize::BITS - most.leading_zeros()).map(|bit| 1usize << bit);
        let mut all = Vec::new();
        for lanes in powers(width) {
            for copies in powers(lanes.min(tokens)) {
                for babies in powers(tokens / copies) {
                    let heads = Self {
                        tokens,
                        width,
                        heads,
                        dim,
                        lanes,
                        copies,
                        babies,
                    };
                    let full = heads.blocks() > 1 || heads.places() < 2 * dim.max(1);
                    if full && heads.check(usize::MAX).is_ok() {
                        all.push(heads);
                    }
                }
            }
        }
        all
    }

    /// `Ok` if the shape fits so many slots.
    ///
    /// # Errors
    /// [`CircuitError::Shape`] that says what was expected.
    pub fn check(&self, slots: usize) -> Result<(), CircuitError> {
        let powers = [
            self.tokens,
            self.width,
            self.lanes,
            self.copies,
            self.babies,
        ];
        let some = self.heads > 0 && self.dim > 0;
        let fits = some
            && powers.iter().all(|n| n.is_power_of_two())
            && self.lanes <= self.width
            && (self.copies.checked_mul(self.babies)).is_some_and(|n| n <= self.tokens)
            && (self.copies.checked_mul(self.heads)).is_some_and(|n| n <= self.lanes)
            && (self.tokens.checked_mul(self.width)).is_some_and(|n| n <= slots);
        if fits {
            return Ok(());
        }
        let what = format!(
            "{self:?} in {slots} slots; powers of two (but heads and dim, at least 1), at least \
             heads * copies lanes within the width, babies * copies within the tokens, and tokens \
             * width within the slots are expected"
        );
        Err(CircuitError::shape(CIRCUIT, what))
    }

    /// Slots of a lane.
    #[must_use]
    pub fn places(&self) -> usize {
        self.width.checked_div(self.lanes).unwrap_or(0).max(1)
    }

    /// Ciphertexts of queries, of keys, of values.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.dim.div_ceil(self.places())
    }

    /// Distances that products have to cover.
    #[must_use]
    pub fn shifts(&self) -> usize {
        self.tokens.checked_div(self.copies).unwrap_or(0).max(1)
    }

    /// Rotations of the queries, 0 included.
    #[must_use]
    pub fn giants(&self) -> usize {
        self.shifts().checked_div(self.babies).unwrap_or(0).max(1)
    }

    /// Pairs of giant steps that ride in one ciphertext, the second one half of all further on; one
    /// if there is but one giant step, which then is alone.
    #[must_use]
    pub fn pairs(&self) -> usize {
        (self.giants() / 2).max(1)
    }

    /// Whether imaginary parts are in use.
    #[must_use]
    pub fn is_paired(&self) -> bool {
        self.giants() > 1
    }

    /// Places of a lane that scores are in.
    #[must_use]
    pub fn used_places(&self) -> usize {
        self.places().min(self.babies)
    }

    /// Places of a lane, from its first, that scores are gathered in from their products: what the
    /// others hold is added to these by doublings first. A power of two of least cost.
    #[must_use]
    pub fn gathered_places(&self) -> usize {
        // A giant step's decomposition and inner product.
        self.reach(2.0)
    }

    /// Places of a lane, from its first, that one map brings a weight to; from there doublings fill
    /// the others. A power of two of least cost.
    #[must_use]
    pub fn spread_places(&self) -> usize {
        // An inner product, and further products with plaintexts.
        self.reach(1.0)
    }

    /// How many of a lane's places a map with one step per place, each of this cost, should serve, where
    /// a doubling of each score in a lane serves twice as many. Costs are in ModDowns of both halves: a
    /// rotation has a decomposition, an inner product and one of these, two doublings in one three inner
    /// products ([`super::fold`]).
    fn reach(&self, step: f64) -> usize {
        const ROTATION: f64 = 3.3;
        const TWO: f64 = 5.3;
        let (used, places) = (self.used_places().max(1), self.places());
        let reaches = (0..=(places / used).max(1).ilog2()).map(|bit| used << bit);
        let cost = |reach: usize| {
            let doublings = doublings(reach, places / reach).len();
            let each = TWO * (doublings / 2) as f64 + ROTATION * (doublings % 2) as f64;
            each * used as f64 + step * (used + reach) as f64
        };
        let least = reaches.min_by(|a, b| cost(*a).total_cmp(&cost(*b)));
        least.unwrap_or(places)
    }

    /// Ciphertexts that hold the baby steps of one giant step.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.babies / self.used_places().max(1)
    }

    /// Ciphertexts of scores: number `p * rows + r` has the giant steps `p` and `p + pairs`, and the
    /// baby steps from `r * used_places` on.
    #[must_use]
    pub fn score_ciphertexts(&self) -> usize {
        self.pairs() * self.rows()
    }

    /// Slots after which everything repeats.
    #[must_use]
    pub fn period(&self) -> usize {
        self.tokens * self.width
    }

    /// The rotation by so many tokens.
    pub(super) fn by(&self, tokens: usize) -> i64 {
        (tokens * self.width) as i64
    }

    /// Slots from a copy to the next.
    pub(super) fn copy_stride(&self) -> usize {
        self.width / self.copies.max(1)
    }

    /// Rotations that add up all copies in the first.
    pub(super) fn copy_steps(&self) -> Vec<i64> {
        doublings(self.copy_stride(), self.copies)
    }

    /// Block and slot within a token of a dimension of a head, in the first copy.
    #[must_use]
    pub fn place(&self, head: usize, dim: usize) -> (usize, usize) {
        let places = self.places();
        (dim / places, head * places + dim % places)
    }

    /// The blocks' slots for `value(head, dim, token)`, the same in all copies.
    #[must_use]
    pub fn pack(&self, value: impl Fn(usize, usize, usize) -> f64) -> Vec<SlotVector> {
        let mut out = vec![vec![Complex::default(); self.period()]; self.blocks()];
        for head in 0..self.heads {
            for dim in 0..self.dim {
                let (block, place) = self.place(head, dim);
                for at in (0..self.copies)
                    .flat_map(|copy| (0..self.tokens).map(move |t| (t, copy * self.copy_stride())))
                {
                    let slot = at.0 * self.width + at.1 + place;
                    if let Some(z) = out.get_mut(block).and_then(|ct| ct.get_mut(slot)) {
                        z.re = value(head, dim, at.0);
                    }
                }
            }
        }
        out.into_iter().map(SlotVector::Periodic).collect()
    }

    /// Where the score of a query and a key stands.
    #[must_use]
    pub fn score(&self, head: usize, query: usize, key: usize) -> ScorePlace {
        let distance = (key + self.tokens - query % self.tokens) % self.tokens;
        let (copy, shift) = (distance / self.shifts(), distance % self.shifts());
        let (giant, baby) = (shift / self.babies, shift % self.babies);
        let (row, place) = (baby / self.used_places(), baby % self.used_places());
        let token = (query + giant * self.babies) % self.tokens;
        ScorePlace {
            ciphertext: giant % self.pairs() * self.rows() + row,
            imaginary: giant >= self.pairs(),
            slot: token * self.width + copy * self.copy_stride() + head * self.places() + place,
        }
    }

    /// What `token(key)` says about each key, in the slots of the scores with it, one vector for each
    /// of the [`Heads::rows`]: it serves the real and imaginary part of every pair of giant steps.
    /// Zero where no score is. For padded tokens let `token` be zero.
    #[must_use]
    pub fn of_keys(&self, token: impl Fn(usize) -> f64) -> Vec<SlotVector> {
        let (places, stride) = (self.used_places(), self.copy_stride());
        let value = |row: usize, slot: usize| {
            let (t, at) = (slot / self.width, slot % self.width);
            let (copy, at) = (at / stride, at % stride);
            let (head, place) = (at / self.places(), at % self.places());
            if head >= self.heads || place >= places {
                return Complex::default();
            }
            let key = t + copy * self.shifts() + row * places + place;
            Complex::new(token(key % self.tokens), 0.0)
        };
        let row = |row| (0..self.period()).map(|slot| value(row, slot)).collect();
        (0..self.rows())
            .map(row)
            .map(SlotVector::Periodic)
            .collect()
    }
}

/// `stride`, `2 stride`, ..: the rotations that add up `count` values, a power of two.
pub(super) fn doublings(stride: usize, count: usize) -> Vec<i64> {
    let steps = 0..count.max(1).ilog2();
    steps.map(|bit| (stride << bit) as i64).collect()
}
