//! Matrices as sums of generalized diagonals, in baby and giant steps.
//!
//! Halevi and Shoup, "Algorithms in HElib" (CRYPTO 2014): a linear map on slots is
//! `out = sum over offsets d of diagonal_d * rot_d(in)`, where rotation by `d` moves slot `j + d`
//! to slot `j` and `diagonal_d[j]` is the weight of slot `j + d` for slot `j`. With `d = g + b`,
//! `out = sum_g rot_g( sum_b rot_-g(diagonal_(g+b)) * rot_b(in) )`: the baby rotations `b` are
//! shared by all giant steps `g`, and by all outputs.

use std::collections::BTreeMap;

use veilformer_ckks::{Complex, Giant, SlotVector, Term, Transform};

use super::{Packing, Weights};

/// A plaintext before it is encoded: entry `j / run` in slot `j`, repeated.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagonal {
    /// The entries; a power of two of them.
    pub values: Vec<Complex>,
    /// Slots that each entry fills; a power of two.
    pub run: usize,
}

impl Diagonal {
    /// The same number in every slot.
    pub(crate) fn constant(value: f64) -> Self {
        Self {
            values: vec![Complex::new(value, 0.0)],
            run: 1,
        }
    }

    /// The slots.
    #[must_use]
    pub fn slots(&self) -> SlotVector {
        match self.values.as_slice() {
            [value] => SlotVector::Constant(*value),
            values => SlotVector::Periodic(
                values
                    .iter()
                    .flat_map(|v| std::iter::repeat_n(*v, self.run))
                    .collect(),
            ),
        }
    }

    /// Words per prime that its encoding takes: one for a real constant, two per slot of its
    /// period otherwise.
    #[must_use]
    pub fn words(&self) -> usize {
        match self.values.as_slice() {
            [value] if value.im == 0.0 => 1,
            [_] => 2,
            values => 2 * values.len() * self.run,
        }
    }
}

/// How diagonals that leave a token are brought back in the feature-fast packing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrap {
    /// Offsets from `-(width-1)` to `width-1`, each with zeros where it would leave the token:
    /// `4 - 2/width` words per weight and prime.
    Signed,
    /// Offsets from 0 to `width-1`; what stays within the token is a real weight, what comes from
    /// the token after it an imaginary one. Of the complex sum `C` the result is
    /// `Re(C) + rot_-width(Im(C))`: half of the products, half of the giant steps and 2 words per
    /// weight and prime, for a conjugation and a rotation per output. Inputs have to be real.
    Paired,
}

/// A diagonal of the map from an input to an output ciphertext.
pub(crate) struct Entry<V> {
    output: usize,
    input: usize,
    /// In features.
    offset: i64,
    value: V,
}

/// All diagonals that are not zero, as what is made of the factors of an output's features.
pub(crate) fn entries<V>(
    weights: &Weights,
    packing: Packing,
    wrap: Wrap,
    made: impl Fn(Vec<Complex>) -> V,
) -> Vec<Entry<V>> {
    let mut entries = Vec::new();
    for output in 0..packing.ciphertexts(weights.rows()) {
        for input in 0..packing.ciphertexts(weights.cols()) {
            for offset in offsets(packing, wrap) {
                let values = diagonal(weights, packing, (output, input), offset, wrap);
                if values.iter().any(|v| v.re != 0.0 || v.im != 0.0) {
                    entries.push(Entry {
                        output,
                        input,
                        offset,
                        value: made(values),
                    });
                }
            }
        }
    }
    entries
}

/// The maps to so many output ciphertexts, with baby steps of fewer than `baby_steps` features.
/// `plain` makes a plaintext of a value that is to stand so many features further on. An output
/// without any diagonal has no giant step.
pub(crate) fn transforms<V, Pl>(
    entries: &[Entry<V>],
    packing: Packing,
    (outputs, baby_steps): (usize, usize),
    plain: impl Fn(&V, i64) -> Pl,
) -> Vec<Transform<Pl>> {
    let baby_steps = baby_steps.clamp(1, packing.width().max(1)) as i64;
    let unit = packing.unit() as i64;
    let mut giants: Vec<BTreeMap<i64, Vec<Term<Pl>>>> = Vec::new();
    giants.resize_with(outputs, BTreeMap::new);
    for entry in entries {
        let baby = entry.offset.rem_euclid(baby_steps);
        let giant = entry.offset - baby;
        if let Some(giants) = giants.get_mut(entry.output) {
            giants.entry(giant * unit).or_default().push(Term {
                input: entry.input,
                baby: baby * unit,
                plain: plain(&entry.value, giant),
            });
        }
    }
    let transform = |giants: BTreeMap<i64, Vec<Term<Pl>>>| Transform {
        giants: giants
            .into_iter()
            .map(|(rotation, terms)| Giant { rotation, terms })
            .collect(),
    };
    giants.into_iter().map(transform).collect()
}

/// The plaintext of a diagonal that stands `giant` features further on, before that rotation.
pub(crate) fn shifted(values: &[Complex], packing: Packing, giant: i64) -> Diagonal {
    let mut values = values.to_vec();
    let by = giant.rem_euclid(values.len().max(1) as i64);
    values.rotate_right(by as usize);
    Diagonal {
        values,
        run: packing.unit(),
    }
}

/// The offsets, in features, that diagonals of one pair of ciphertexts can have.
fn offsets(packing: Packing, wrap: Wrap) -> std::ops::Range<i64> {
    let width = packing.width() as i64;
    match (packing, wrap) {
        (Packing::FeatureFast { .. }, Wrap::Signed) => 1 - width..width,
        _ => 0..width,
    }
}

/// The factor of each feature of an output ciphertext at one offset.
fn diagonal(
    weights: &Weights,
    packing: Packing,
    (output, input): (usize, usize),
    offset: i64,
    wrap: Wrap,
) -> Vec<Complex> {
    let width = packing.width();
    let size = width as i64;
    let value = |f: usize| {
        let from = f as i64 + offset;
        let source = from.rem_euclid(size) as usize;
        let weight = weights.at(output * width + f, input * width + source);
        match (packing, wrap) {
            (Packing::FeatureFast { .. }, Wrap::Signed) if source as i64 != from => {
                Complex::default()
            }
            // The fold adds the sum and its conjugate: twice the real part, and likewise of the
            // imaginary one.
            (Packing::FeatureFast { .. }, Wrap::Paired) if source as i64 != from => {
                Complex::new(0.0, weight / 2.0)
            }
            (Packing::FeatureFast { .. }, Wrap::Paired) => Complex::new(weight / 2.0, 0.0),
            _ => Complex::new(weight, 0.0),
        }
    };
    (0..width).map(value).collect()
}

/// The same transform with every factor made anew, from it and its baby step.
pub(crate) fn mapped<P, Q, E>(
    transform: &Transform<P>,
    mut made: impl FnMut(&P, i64) -> Result<Q, E>,
) -> Result<Transform<Q>, E> {
    let giants = transform.giants.iter().map(|giant| {
        let terms = giant.terms.iter().map(|term| {
            Ok(Term {
                input: term.input,
                baby: term.baby,
                plain: made(&term.plain, term.baby)?,
            })
        });
        Ok(Giant {
            rotation: giant.rotation,
            terms: terms.collect::<Result<_, E>>()?,
        })
    });
    Ok(Transform {
        giants: giants.collect::<Result<_, E>>()?,
    })
}
