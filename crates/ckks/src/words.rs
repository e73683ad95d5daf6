//! Levels that are made of several primes ("words"), for machines whose multipliers are narrower
//! than a scale.
//!
//! A rescale then multiplies by some words and divides by others (rational rescaling; Kim, Kim,
//! Cheon et al., "Cheddar", arXiv 2407.13055, section on the prime system). Here the modulus of
//! level l is `k_l` *main* words and `t_l` *side* words, with
//! `main_bits k_l + side_bits t_l` as near to `first_bits + scale_bits l` as can be.

use serde::{Deserialize, Serialize};
use veilformer_ring::{Basis, ntt_primes_near};

use crate::primes::{PRIME_LIMIT, special};
use crate::{CkksError, MAX_PRIMES, ParamsSpec};

/// Sizes of the words that levels are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WordSpec {
    /// Bits of a main word.
    pub main_bits: u32,
    /// Bits of a side word.
    pub side_bits: u32,
    /// Most side words of a level; 0 makes levels of main words alone.
    pub most_side: usize,
}

/// A chain of words: the primes (main words, side words, special primes), and which of them each
/// level is made of, from level 0.
pub(crate) struct Words {
    pub(crate) primes: Vec<u64>,
    pub(crate) levels: Vec<Basis>,
}

/// Largest distance in bits of a level's nominal size from the one that is asked for.
const TOLERANCE_BITS: u32 = 1;

/// Numbers of (main, side) words.
type Counts = (usize, usize);

/// Chooses the words of all levels.
///
/// # Errors
/// [`CkksError::Params`] if no numbers of words come near a level's size, or if there are too few
/// primes.
pub(crate) fn choose(spec: &ParamsSpec, words: WordSpec) -> Result<Words, CkksError> {
    check(spec, words)?;
    let counts: Vec<Counts> = (0..=spec.levels)
        .map(|level| nearest(spec, words, level))
        .collect::<Result<_, _>>()?;
    let mains = counts.iter().map(|c| c.0).max().unwrap_or(0);
    let sides = counts.iter().map(|c| c.1).max().unwrap_or(0);
    if mains + sides + spec.special_count > MAX_PRIMES {
        return Err(CkksError::params(
            format!(
                "{} words, at most {MAX_PRIMES} primes are possible",
                mains + sides + spec.special_count
            ),
            "use larger words or fewer levels",
        ));
    }
    let levels: Vec<Basis> = counts
        .iter()
        .map(|&(main, side)| Basis::first(main).union(Basis::range(mains, mains + side)))
        .collect();
    let mut chooser = Chooser {
        log_n: spec.log_n,
        used: Vec::new(),
        found: vec![None; mains + sides],
    };
    for i in mains..mains + sides {
        chooser.fill(i, f64::from(words.side_bits).exp2())?;
    }
    let typical = f64::from(words.main_bits).exp2();
    let top = f64::from(spec.scale_bits).exp2();
    let mut scale = top;
    for pair in levels.windows(2).rev() {
        let (drop, add) = (pair[1].minus(pair[0]), pair[0].minus(pair[1]));
        // One word that is still free makes the step exact: the scale below comes out as at the
        // top. Where none is left (words that come back), the next step makes up for it.
        let mut free: Vec<usize> = add.union(drop).iter().collect();
        free.retain(|&i| chooser.found[i].is_none());
        free.sort_by_key(|&i| drop.contains(i));
        let wanted = scale * scale / top;
        if let Some((&last, others)) = free.split_last() {
            for &i in others {
                chooser.fill(i, typical)?;
            }
            let without = |basis: Basis| chooser.product(basis.minus(Basis::single(last)));
            let ratio = without(drop) / without(add);
            let target = if drop.contains(last) {
                wanted / ratio
            } else {
                ratio / wanted
            };
            chooser.fill(last, target)?;
        }
        scale *= scale * chooser.product(add) / chooser.product(drop);
    }
    for i in 0..mains {
        if chooser.found[i].is_none() {
            chooser.fill(i, typical)?;
        }
    }
    let mut primes: Vec<u64> = chooser.found.iter().flatten().copied().collect();
    primes.extend(special(spec, &primes)?);
    Ok(Words { primes, levels })
}

fn check(spec: &ParamsSpec, words: WordSpec) -> Result<(), CkksError> {
    if words.most_side > MAX_PRIMES {
        return Err(CkksError::params(
            format!(
                "most_side is {}, at most {MAX_PRIMES} primes are possible",
                words.most_side
            ),
            "allow fewer side words",
        ));
    }
    let least = spec.log_n + 5;
    for (name, bits) in [
        ("main_bits", words.main_bits),
        ("side_bits", words.side_bits),
    ] {
        if !(least..=49).contains(&bits) {
            return Err(CkksError::params(
                format!("{name} is {bits}, expected {least} to 49"),
                "change the word sizes",
            ));
        }
    }
    Ok(())
}

/// The numbers of words that come nearest to the size of a level; of equally near ones the fewest.
fn nearest(spec: &ParamsSpec, words: WordSpec, level: usize) -> Result<Counts, CkksError> {
    let wanted = u64::from(spec.first_bits) + u64::from(spec.scale_bits) * level as u64;
    let (main, side) = (u64::from(words.main_bits), u64::from(words.side_bits));
    let candidates = (0..=words.most_side as u64).map(|t| {
        let rest = wanted.saturating_sub(side * t);
        let k = (rest + main / 2) / main;
        ((main * k + side * t).abs_diff(wanted), k + t, (k, t))
    });
    match candidates.filter(|c| c.1 > 0).min() {
        Some((off, _, (k, t))) if off <= u64::from(TOLERANCE_BITS) => Ok((k as usize, t as usize)),
        _ => Err(CkksError::params(
            format!(
                "no {}-bit and at most {} {}-bit words make the {wanted} bits of level {level}",
                words.main_bits, words.most_side, words.side_bits
            ),
            "allow more side words, or choose sizes of which sums are multiples of the scale",
        )),
    }
}

/// Distinct primes for the places of a chain.
struct Chooser {
    log_n: u32,
    used: Vec<u64>,
    found: Vec<Option<u64>>,
}

impl Chooser {
    fn take(&mut self, target: f64) -> Result<u64, CkksError> {
        let target = target.min((PRIME_LIMIT - 1) as f64);
        let found = ntt_primes_near(target, self.log_n, &self.used, 1)?;
        match found.first() {
            Some(&prime) => {
                self.used.push(prime);
                Ok(prime)
            }
            None => Err(CkksError::params(
                format!("there are too few NTT primes near {target:e}"),
                "use larger words or a smaller ring",
            )),
        }
    }

    fn fill(&mut self, place: usize, target: f64) -> Result<(), CkksError> {
        let prime = self.take(target)?;
        if let Some(found) = self.found.get_mut(place) {
            *found = Some(prime);
        }
        Ok(())
    }

    /// Of the words that are chosen.
    fn product(&self, of: Basis) -> f64 {
        of.iter()
            .filter_map(|i| self.found.get(i).copied().flatten())
            .map(|q| q as f64)
            .product()
    }
}
