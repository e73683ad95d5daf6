//! Linear maps between layouts, as baby-step giant-step transforms.
//!
//! The slots of a ciphertext are cut into *chunks* of equal length, one value of a feature per
//! token in each. A linear map on features, the same for every token, is then a matrix on
//! chunks, and its diagonals are constant along each chunk.

use std::collections::{BTreeMap, BTreeSet};
use veilformer_ckks::{Complex, Giant, Ops, OpsError, SlotVector, Term, Transform};

/// What a chunk of slots holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chunk {
    /// The feature of this number, one token per slot.
    Feature(usize),
    /// Bounded values of no meaning: never read.
    Junk,
}

/// How features lie in one ciphertext.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Slots per chunk: the padded number of tokens, a power of two.
    pub run: usize,
    /// The chunks; `run * chunks.len()` is the number of slots.
    pub chunks: Vec<Chunk>,
}

impl Layout {
    /// Feature `i` in chunk `i`, repeated with the period of the next power of two.
    pub fn plain(features: &[usize], run: usize, chunks: usize) -> Self {
        let period = features.len().next_power_of_two().min(chunks.max(1));
        let at = |c: usize| {
            features
                .get(c % period)
                .map_or(Chunk::Junk, |f| Chunk::Feature(*f))
        };
        Self {
            run,
            chunks: (0..chunks).map(at).collect(),
        }
    }

    /// Rows of two chunks that hold the same feature, so that a rotation by less than `run`
    /// slots sees the tokens cyclically; repeated with the period of the next power of two.
    pub fn doubled(features: &[Option<usize>], run: usize, chunks: usize) -> Self {
        let period = (2 * features.len().next_power_of_two()).min(chunks.max(1));
        let at = |c: usize| match features.get((c % period) / 2) {
            Some(Some(f)) => Chunk::Feature(*f),
            _ => Chunk::Junk,
        };
        Self {
            run,
            chunks: (0..chunks).map(at).collect(),
        }
    }

    /// The same with the second chunk of every row given up as junk.
    pub fn first_halves(&self) -> Self {
        let keep = |(i, c): (usize, &Chunk)| if i % 2 == 0 { *c } else { Chunk::Junk };
        Self {
            run: self.run,
            chunks: self.chunks.iter().enumerate().map(keep).collect(),
        }
    }

    /// Slots that this layout fills.
    pub fn slots(&self) -> usize {
        self.run * self.chunks.len()
    }

    /// The slots of a table of features, `features[f][t]`; junk is left zero.
    pub fn pack(&self, features: &[Vec<f64>]) -> Vec<Complex> {
        let mut slots = vec![Complex::new(0.0, 0.0); self.slots()];
        for (chunk, slots) in self.chunks.iter().zip(slots.chunks_mut(self.run)) {
            if let Chunk::Feature(f) = chunk
                && let Some(values) = features.get(*f)
            {
                slots
                    .iter_mut()
                    .zip(values)
                    .for_each(|(s, v)| *s = Complex::new(*v, 0.0));
            }
        }
        slots
    }
}

/// A linear map from the features of several ciphertexts to those of one:
/// `out_j = sum over sources s, features i of weight_s(j, i) * in_s,i`.
pub struct LayoutMap<'a> {
    /// Per source: its layout and the weight of (output feature, input feature).
    pub sources: Vec<(&'a Layout, Weight<'a>)>,
    /// Where the results go. Junk chunks get zero.
    pub target: &'a Layout,
}

/// Weight of (output feature, input feature).
pub type Weight<'a> = &'a dyn Fn(usize, usize) -> f64;

impl LayoutMap<'_> {
    /// The diagonals by (source, offset in chunks). Where a feature stands in several chunks of
    /// a source, the offsets are chosen greedily so that few diagonals cover all.
    fn diagonals(&self) -> Diagonals {
        let mut out = Diagonals::new();
        for (s, (layout, weight)) in self.sources.iter().enumerate() {
            Cover::new(layout, self.target, weight).run(|offset, diagonal| {
                out.insert((s, offset), diagonal);
            });
        }
        out
    }

    /// Records the map as a transform of the inputs at `level`, with the giant and baby steps
    /// that cost least.
    ///
    /// # Errors
    /// What `ops` refuses to encode; a map without any weight.
    pub fn transform<O: Ops>(
        &self,
        ops: &mut O,
        level: usize,
    ) -> Result<Transform<O::Plain>, OpsError> {
        let run = self.target.run;
        bsgs(
            ops,
            &self.diagonals(),
            (run, self.target.chunks.len()),
            level,
        )
    }
}

/// One diagonal per (source, offset in units): the factor of each target unit.
pub(crate) type Diagonals = BTreeMap<(usize, usize), Vec<f64>>;

/// The transform of diagonals that are constant on `count` units of `unit` slots each, with the
/// giant and baby steps that cost least.
///
/// # Errors
/// What `ops` refuses to encode; no diagonal at all.
pub(crate) fn bsgs<O: Ops>(
    ops: &mut O,
    diagonals: &Diagonals,
    (unit, count): (usize, usize),
    level: usize,
) -> Result<Transform<O::Plain>, OpsError> {
    let split = Split::cheapest(diagonals.keys().map(|(s, o)| (*s, *o)), count);
    let scale = ops.params().scale_at(level);
    let mut giants: BTreeMap<usize, Vec<Term<O::Plain>>> = BTreeMap::new();
    for ((source, offset), diagonal) in diagonals {
        let (giant, baby) = split.of(*offset);
        // The factor of target unit c stands giant units further on before the rotation.
        let slots = (0..count).flat_map(|c| {
            let v = diagonal[(c + count - giant) % count];
            std::iter::repeat_n(Complex::new(v, 0.0), unit)
        });
        let baby = (baby * unit) as i64;
        let slots = SlotVector::Dense(slots.collect());
        let term = Term {
            input: *source,
            baby,
            plain: ops.term_plain(&slots, level, scale, baby)?,
        };
        giants.entry(giant).or_default().push(term);
    }
    if giants.is_empty() {
        let what = "the map has no weight that is not zero".to_string();
        return Err(OpsError::Invalid {
            op: "linear map",
            what,
        });
    }
    let giants = giants.into_iter().map(|(g, terms)| Giant {
        rotation: (g * unit) as i64,
        terms,
    });
    Ok(Transform {
        giants: giants.collect(),
    })
}

/// A split of offsets into giant and baby steps: a baby step is below `baby_steps * stride`, a
/// giant step a multiple of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Split {
    baby_steps: usize,
    stride: usize,
}

// What the pieces of a doubly hoisted transform cost, in units of a giant step over rotated inputs
// (ModDown of one polynomial, decomposition, inner product with the key). Measured by
// `runtime::measure` with AVX-512 at N = 2^14, dnum 3, 3 special primes, and 8 (and 4) limbs:
// a giant step takes 2.2 ms (1.2), a baby step 0.26 (0.33) of it, the decomposition of an input
// 0.4 to 0.8, a giant step over inputs that are not rotated 0.8 (0.7), and a product modulo the
// special primes 0.016 (0.04) more than one without. Ratios move little with N and digits:
// a baby step is one of the three parts of a giant step.

/// Each baby step: an inner product with its key, no ModDown.
const BABY_COST: f64 = 0.3;
/// Each input with any baby step: its decomposition.
const INPUT_COST: f64 = 0.5;
/// Each giant step over inputs none of which is rotated: nothing to bring down.
const PLAIN_GIANT_COST: f64 = 0.8;
/// Each product of a rotated input: the part modulo the special primes.
const TURNED_PRODUCT_COST: f64 = 0.02;
/// Each rotation: its key takes room and time to send and load. Decides between splits that are
/// about as fast.
const KEY_COST: f64 = 0.02;
/// Splits by other numbers than powers of two have to be so much cheaper: maps that are cut alike
/// share their keys.
const ODD_SPLIT: f64 = 1.03;

impl Split {
    fn of(&self, offset: usize) -> (usize, usize) {
        let baby = offset % (self.baby_steps * self.stride);
        (offset - baby, baby)
    }

    /// What a transform with the diagonals `(source, offset)` costs.
    fn cost(&self, offsets: &[(usize, usize)]) -> f64 {
        let mut babies = BTreeSet::new();
        let mut inputs = BTreeSet::new();
        let mut keys = BTreeSet::new();
        // Per giant step whether any of its inputs is rotated.
        let mut giants: BTreeMap<usize, bool> = BTreeMap::new();
        let mut cost = 0.0;
        for &(source, offset) in offsets {
            let (giant, baby) = self.of(offset);
            if giant != 0 {
                keys.insert(giant);
                *giants.entry(giant).or_default() |= baby != 0;
            }
            if baby != 0 {
                keys.insert(baby);
                inputs.insert(source);
                babies.insert((source, baby));
                cost += TURNED_PRODUCT_COST;
            }
        }
        let giants: f64 = giants
            .values()
            .map(|turned| if *turned { 1.0 } else { PLAIN_GIANT_COST })
            .sum();
        cost + giants
            + BABY_COST * babies.len() as f64
            + INPUT_COST * inputs.len() as f64
            + KEY_COST * keys.len() as f64
    }

    /// The cheapest split of the diagonals `(source, offset)`, offsets below `count`.
    fn cheapest(offsets: impl Iterator<Item = (usize, usize)>, count: usize) -> Self {
        let offsets: Vec<(usize, usize)> = offsets.collect();
        let stride = offsets.iter().fold(count, |g, (_, o)| gcd(g, *o)).max(1);
        let splits = (1..=(count / stride).max(1)).map(|baby_steps| Self { baby_steps, stride });
        let cost = |split: &Self| {
            let odd = !split.baby_steps.is_power_of_two();
            split.cost(&offsets) * if odd { ODD_SPLIT } else { 1.0 }
        };
        splits
            .min_by(|a, b| cost(a).total_cmp(&cost(b)))
            .unwrap_or(Self {
                baby_steps: 1,
                stride,
            })
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The weights of one source that are not yet on a diagonal.
struct Cover {
    /// Per weight: its target chunk, its value, and the offsets that could serve it.
    weights: Vec<(usize, f64, Vec<usize>)>,
    /// Per offset: the weights that it could serve.
    serves: Vec<Vec<usize>>,
}

impl Cover {
    fn new(source: &Layout, target: &Layout, weight: Weight<'_>) -> Self {
        let count = target.chunks.len();
        let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (c, chunk) in source.chunks.iter().enumerate() {
            if let Chunk::Feature(f) = chunk {
                places.entry(*f).or_default().push(c);
            }
        }
        let mut cover = Self {
            weights: Vec::new(),
            serves: vec![Vec::new(); count],
        };
        for (c, chunk) in target.chunks.iter().enumerate() {
            let Chunk::Feature(j) = chunk else { continue };
            for (i, at) in &places {
                let w = weight(*j, *i);
                if w != 0.0 {
                    let offsets: Vec<usize> = at.iter().map(|p| (p + count - c) % count).collect();
                    offsets
                        .iter()
                        .for_each(|o| cover.serves[*o].push(cover.weights.len()));
                    cover.weights.push((c, w, offsets));
                }
            }
        }
        cover
    }

    /// Gives diagonals until every weight is on one: always the offset that serves most of what
    /// is left, the smallest among equals.
    fn run(mut self, mut emit: impl FnMut(usize, Vec<f64>)) {
        let count = self.serves.len();
        let mut left: Vec<usize> = self.serves.iter().map(Vec::len).collect();
        while let Some(best) = (0..count).max_by_key(|o| (left[*o], count - *o)) {
            if left[best] == 0 {
                break;
            }
            let mut diagonal = vec![0.0; count];
            for id in std::mem::take(&mut self.serves[best]) {
                let (chunk, value, offsets) = &mut self.weights[id];
                if !offsets.is_empty() {
                    diagonal[*chunk] += *value;
                    std::mem::take(offsets).iter().for_each(|o| left[*o] -= 1);
                }
            }
            emit(best, diagonal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(offsets: &[(usize, usize)], count: usize) -> (usize, usize) {
        let split = Split::cheapest(offsets.iter().copied(), count);
        (split.baby_steps, split.stride)
    }

    #[test]
    fn splits_follow_their_cost() {
        let dense = |n: usize| (0..n).map(|o| (0, o)).collect::<Vec<_>>();
        // Baby steps are cheap: many of them. With one source, several times as many as giants.
        assert_eq!(split(&dense(64), 64), (16, 1));
        assert_eq!(split(&dense(128), 128), (16, 1));
        // The more sources share the giant steps, the fewer baby steps each.
        let four: Vec<_> = (0..4)
            .flat_map(|s| dense(64).into_iter().map(move |d| (s, d.1)))
            .collect();
        assert_eq!(split(&four, 64), (8, 1));
        // Offsets with gaps are divided first.
        let gaps: Vec<_> = (0..16).map(|o| (0, 8 * o)).collect();
        assert_eq!(split(&gaps, 128).1, 8);
        // One diagonal is one giant step without any ModDown, or nothing at all.
        assert_eq!(
            Split {
                baby_steps: 1,
                stride: 5
            }
            .cost(&[(0, 5)]),
            PLAIN_GIANT_COST + KEY_COST
        );
        assert_eq!(split(&[(0, 0)], 64), (1, 64));
        // A number that is no power of two, where it pays.
        assert_eq!(split(&dense(12), 1024), (6, 1));
    }
}
