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

/// A split of offsets into giant and baby steps.
struct Split {
    baby_steps: usize,
    stride: usize,
}

/// A hoisted rotation costs about half of one with its own decomposition (design figures of the
/// ring's benches: 12.5 against 26 ms at N=2^16).
const HOISTED_COST: f64 = 0.5;

impl Split {
    fn of(&self, offset: usize) -> (usize, usize) {
        let baby = offset % (self.baby_steps * self.stride);
        (offset - baby, baby)
    }

    fn cheapest(offsets: impl Iterator<Item = (usize, usize)>, count: usize) -> Self {
        let offsets: Vec<(usize, usize)> = offsets.collect();
        let stride = offsets.iter().fold(count, |g, (_, o)| gcd(g, *o)).max(1);
        let mut best = (
            f64::INFINITY,
            Split {
                baby_steps: 1,
                stride,
            },
        );
        let mut baby_steps = 1;
        while baby_steps * stride <= count.max(1) {
            let split = Split { baby_steps, stride };
            let babies: BTreeSet<(usize, usize)> = offsets
                .iter()
                .map(|(s, o)| (*s, split.of(*o).1))
                .filter(|b| b.1 != 0)
                .collect();
            let giants: BTreeSet<usize> = offsets
                .iter()
                .map(|(_, o)| split.of(*o).0)
                .filter(|g| *g != 0)
                .collect();
            let cost = HOISTED_COST * babies.len() as f64 + giants.len() as f64;
            if cost < best.0 {
                best = (cost, split);
            }
            baby_steps *= 2;
        }
        best.1
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
