//! Bands of levels: which digits and which primes P the keys of a level have.
//!
//! What a hybrid key switch takes (Han and Ki, ePrint 2019/688) depends on how its modulus is cut into
//! digits and on the primes whose product P covers the largest of them. The digits and special primes
//! of a specification suit its highest level. Further down there is less to cover, and the primes that
//! ciphertexts have left behind can stand in P beside the special ones: the modulus of such a key divides
//! that of the highest level's, so that it is at least as secure.

use std::ops::RangeInclusive;

use veilformer_ring::Basis;

use crate::security::log2_product;
use crate::{KeyPurpose, Params};

/// What keeping the digits and primes of the level above may cost a level, as a share of what its own
/// would take: below it, the level joins the band, so that keys are fewer. Of rotations a program has
/// very many, at most levels each, and their keys are most of what a client uploads and a server holds;
/// of the others there is one key in a band.
const JOINING: f64 = 0.08;
const JOINING_ROTATIONS: f64 = 0.3;

/// Bits by which P exceeds every digit in bands below the highest: the error of a key, of variance
/// N/12 sigma^2 (D/P)^2 for a digit D, is then below a tenth of the rounding of its ModDown.
const MARGIN_BITS: f64 = 4.0;

/// What an inner product of one limb of a digit with both halves of a key takes, against an NTT of
/// N = 2^16, and what it takes to carry one limb to one other prime. Estimates: the first lies between keys
/// in a cache and keys in memory, the second counts a multiplication per word against those of an NTT's
/// sixteen stages. Constants, since every machine must come to the same bands.
const INNER_PRODUCT: f64 = 0.6;
const CONVERSION: f64 = 0.08;

/// Levels whose keys have the same digits and the same P. Rotations have other bands than the other
/// purposes.
///
/// Keys are for one band: an operation at a level of it uses a key of that level or of a higher one of
/// the same band. Parameters without a [`crate::Ladder`] have one band.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// The levels, never empty.
    pub levels: RangeInclusive<usize>,
    /// A partition of the primes of its highest level; lower levels lack some of them.
    pub digits: Vec<Basis>,
    /// The primes whose product P is divided away: none of those that its levels have.
    pub special: Basis,
}

impl Band {
    /// The digits on fewer primes, without empty ones.
    fn digits_on(&self, basis: Basis) -> impl Iterator<Item = Basis> + '_ {
        let digits = self.digits.iter().map(move |digit| digit.intersect(basis));
        digits.filter(|digit| !digit.is_empty())
    }

    /// What a key switch on these primes takes, in NTTs.
    fn cost(&self, basis: Basis) -> f64 {
        let work = self.work(basis);
        let halves = [work.division; 2];
        let all = [work.decomposition, work.product].into_iter().chain(halves);
        all.fold(Work::default(), Work::and).ntts()
    }

    /// Its parts: with d digits on n primes and k in P, n inverse NTTs and d (n + k) - n of the digits;
    /// d (n + k) inner products; n + k NTTs of the ModDown of each half; and the conversions of each digit
    /// to all other primes and of each half from P.
    fn work(&self, basis: Basis) -> SwitchWork {
        let (own, special) = (basis.len(), self.special.len());
        let mut work = SwitchWork {
            division: Work {
                limbs: own + special,
                conversions: own * special,
                ..Work::default()
            },
            ..SwitchWork::default()
        };
        for digit in self.digits_on(basis) {
            work.decomposition.limbs += own + special;
            work.product.products += own + special;
            work.decomposition.conversions += digit.len() * (own + special - digit.len());
        }
        work
    }
}

/// What is computed on limbs of N words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// NTTs, forward or inverse.
    pub limbs: usize,
    /// Inner products of a digit's limb with both halves of a key.
    pub products: usize,
    /// Limbs carried to another prime.
    pub conversions: usize,
}

impl Work {
    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            limbs: self.limbs + other.limbs,
            products: self.products + other.products,
            conversions: self.conversions + other.conversions,
        }
    }

    /// As so many NTTs of one limb: an estimate, the same on every machine.
    #[must_use]
    pub fn ntts(self) -> f64 {
        self.limbs as f64
            + INNER_PRODUCT * self.products as f64
            + CONVERSION * self.conversions as f64
    }
}

/// The parts of a key switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwitchWork {
    /// A polynomial cut into digits.
    pub decomposition: Work,
    /// The inner product of the digits with a key.
    pub product: Work,
    /// The ModDown of one polynomial.
    pub division: Work,
}

/// The digits of consecutive primes, from the first on: each takes as many as keep its product within
/// 2^`room`, at least one and at most `most`.
pub(crate) fn runs(primes: &[u64], room: f64, most: usize) -> Vec<Basis> {
    let mut digits = Vec::new();
    let (mut start, mut bits) = (0, 0.0);
    for (i, &q) in primes.iter().enumerate() {
        let own = (q as f64).log2();
        if i > start && (bits + own > room || i - start == most) {
            digits.push(Basis::range(start, i));
            (start, bits) = (i, 0.0);
        }
        bits += own;
    }
    digits.push(Basis::range(start, primes.len()));
    digits
}

/// The bands of a chain, each kind from the lowest levels up.
#[derive(Clone)]
pub(crate) struct Bands {
    rotations: Vec<Band>,
    others: Vec<Band>,
}

impl Bands {
    /// `covering` are the primes of each level, consecutive from the first on; `whole` is the band of the
    /// highest level; `most` limits the primes of a digit.
    pub(crate) fn new(primes: &[u64], covering: &[Basis], whole: &Band, most: usize) -> Self {
        let of = |joining| bands(primes, covering, (whole.clone(), joining), most);
        Self {
            rotations: of(JOINING_ROTATIONS),
            others: of(JOINING),
        }
    }

    /// One for all levels.
    pub(crate) fn single(band: Band) -> Self {
        Self {
            rotations: vec![band.clone()],
            others: vec![band],
        }
    }

    pub(crate) fn of(&self, purpose: KeyPurpose) -> &[Band] {
        match purpose {
            KeyPurpose::Rotation(_) => &self.rotations,
            _ => &self.others,
        }
    }

    /// The digits of the highest level.
    pub(crate) fn digits(&self) -> &[Basis] {
        self.others.last().map_or(&[], |band| &band.digits)
    }

    /// What they are below the highest band, whose P is that of the specification, for files and digests:
    /// of those of rotations, and after them of the others, from the highest down, the P, the levels and
    /// the digits of each.
    pub(crate) fn lower(&self) -> Vec<Basis> {
        let both = [&self.rotations, &self.others].into_iter();
        let lower = both.flat_map(|bands| bands.iter().rev().skip(1));
        let as_bases = lower.flat_map(|band| {
            let levels = Basis::range(*band.levels.start(), band.levels.end() + 1);
            [band.special, levels]
                .into_iter()
                .chain(band.digits.iter().copied())
        });
        as_bases.collect()
    }
}

fn bands(
    primes: &[u64],
    covering: &[Basis],
    (whole, joining): (Band, f64),
    most: usize,
) -> Vec<Band> {
    let special = whole.special;
    let mut bands = Vec::new();
    let mut band = whole;
    for (level, &basis) in covering.iter().enumerate().rev().skip(1) {
        let own = cheapest(primes, (level, basis), special, most);
        match own {
            Some(own) if own.cost(basis) * (1.0 + joining) < band.cost(basis) => {
                bands.push(std::mem::replace(&mut band, own));
            }
            _ => band.levels = level..=*band.levels.end(),
        }
    }
    bands.push(band);
    bands.reverse();
    bands
}

/// What suits one level best: the special primes, and after them the ciphertext primes above the level
/// from the highest down, are taken into P one by one, and the digits made as large as P allows.
fn cheapest(
    primes: &[u64],
    (level, basis): (usize, Basis),
    special: Basis,
    most: usize,
) -> Option<Band> {
    let own = primes.get(..basis.len())?;
    let above = Basis::first(primes.len()).minus(basis).minus(special);
    let mut taken = Basis::empty();
    let mut best: Option<Band> = None;
    for prime in special.iter().chain(above.iter().rev()) {
        taken = taken.union(Basis::single(prime));
        let in_p: Vec<u64> = taken
            .iter()
            .filter_map(|i| primes.get(i).copied())
            .collect();
        let room = log2_product(&in_p) - MARGIN_BITS;
        let digits = runs(own, room, most);
        // A digit of one prime may be larger than a P of one.
        if own.iter().any(|&q| (q as f64).log2() > room) {
            continue;
        }
        let band = Band {
            levels: level..=level,
            digits,
            special: taken,
        };
        if best
            .as_ref()
            .is_none_or(|b| band.cost(basis) < b.cost(basis))
        {
            best = Some(band);
        }
    }
    best
}

impl Params {
    /// The number of the band of `level` among [`Params::bands`]. Levels above the highest count as it.
    #[must_use]
    pub fn band_at(&self, purpose: KeyPurpose, level: usize) -> usize {
        let bands = self.bands(purpose);
        let above = bands.partition_point(|band| *band.levels.end() < level);
        above.min(bands.len() - 1)
    }

    /// The digits of a key that covers the primes of `level`: those of its band restricted to it,
    /// without empty ones.
    #[must_use]
    pub fn digits_at(&self, purpose: KeyPurpose, level: usize) -> Vec<Basis> {
        let band = self.band(purpose, level);
        band.digits_on(self.covering(level)).collect()
    }

    /// The primes whose product P a key switch at `level` divides by: all special primes at the highest
    /// level.
    #[must_use]
    pub fn special_at(&self, purpose: KeyPurpose, level: usize) -> Basis {
        self.band(purpose, level).special
    }

    /// The primes of a key for rotations up to `level`: those of the level and of all lower ones, and
    /// those of P. Plaintexts that are multiplied with what was rotated and not yet divided have them.
    #[must_use]
    pub fn rotation_basis(&self, level: usize) -> Basis {
        let special = self.special_at(KeyPurpose::Rotation(1), level);
        self.covering(level).union(special)
    }

    /// What a key switch at `level` takes.
    #[must_use]
    pub fn switch_work(&self, purpose: KeyPurpose, level: usize) -> SwitchWork {
        self.band(purpose, level).work(self.covering(level))
    }

    fn band(&self, purpose: KeyPurpose, level: usize) -> &Band {
        // There is at least one band, and the number is below their count.
        &self.bands(purpose)[self.band_at(purpose, level)]
    }
}
