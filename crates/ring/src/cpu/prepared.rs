//! Switching keys in the form that inner products read.

use std::ops::Range;

use super::Cpu;
use crate::basis::Basis;
use crate::buffer::Buffer;
use crate::chain::Chain;
use crate::error::Result;
use crate::expander::{Expander, ExpanderId, Stream};
use crate::galois::{GaloisElement, Permutation};
use crate::kernels::{
    Isa, PACKED_PAD, PermutationPiece, ROUND_KEYS, Refused, Uniform, packed_words,
};
use crate::key::{SwitchingKey, UniformHalf};
use crate::keystream::{limb_key, refused_on_average, seldom_refused};

/// A switching key prepared for [`Cpu`]: rotated by the inverse automorphism, in Montgomery form,
/// the rows that one target prime needs side by side.
pub struct CpuKey {
    pub(super) galois: GaloisElement,
    pub(super) permutation: Permutation,
    pub(super) digits: Vec<Basis>,
    pub(super) special: Basis,
    /// Q' + P of the stored limbs.
    pub(super) basis: Basis,
    /// Per prime of `basis` the rows `b_0, a_0, b_1, a_1, ..`, or the rows b alone, interleaved by eight words
    /// and packed: what an inner product reads is one run of memory. All in one buffer, so that it lies
    /// in huge pages.
    rows: Buffer,
    /// Where the rows of each prime begin, and where the last ones end.
    begins: Vec<usize>,
    /// What makes the rows a where they are not stored.
    made: Option<Made>,
}

/// What makes uniform halves.
struct Made {
    /// Per prime and digit the `ROUND_KEYS` words that they are made from.
    round_keys: Buffer,
    /// Per prime the words whose first attempt is refused: at most about one in 32.
    refused: Vec<RefusedWords>,
}

/// Refused words at one prime, by columns.
struct RefusedWords {
    words: Vec<Refused>,
    /// Where those of each `GRID` columns begin, and where the last ones end: a search would wait for memory
    /// again and again.
    begins: Vec<usize>,
}

/// Columns between two entries of a table.
const GRID: usize = 512;

impl RefusedWords {
    fn new(mut words: Vec<Refused>, n: usize) -> Self {
        words.sort_unstable_by_key(|r| (r.column, r.digit));
        let before = |column: usize| words.partition_point(|r| (r.column as usize) < column);
        let begins = (0..=n.div_ceil(GRID)).map(|i| before(i * GRID)).collect();
        words.shrink_to_fit();
        Self { words, begins }
    }

    /// Those at these columns.
    fn at(&self, columns: &Range<usize>) -> &[Refused] {
        let end = self.words.len();
        let begin_of = |i: usize| self.begins.get(i).copied().unwrap_or(end);
        let near = begin_of(columns.start / GRID)..begin_of(columns.end.div_ceil(GRID));
        let near = &self.words[near];
        if columns.start.is_multiple_of(GRID) && columns.end.is_multiple_of(GRID) {
            return near;
        }
        let before = |column: usize| near.partition_point(|r| (r.column as usize) < column);
        &near[before(columns.start)..before(columns.end)]
    }
}

/// Whether uniform halves of keys are made each time from their seeds: where blocks of AES are encrypted by
/// vectors, and hardly any word is refused.
pub(super) fn keeps_seeds(chain: &Chain, isa: Isa) -> bool {
    isa == Isa::Avx512Ifma && chain.all().iter().all(|i| seldom_refused(chain.modulus(i)))
}

impl CpuKey {
    /// How many halves of each digit a prepared key has in memory whose uniform halves are seeds: one where
    /// the other one is made when it is needed.
    #[must_use]
    pub fn stored_halves(chain: &Chain, isa: Isa) -> usize {
        rows_of_a_digit(keeps_seeds(chain, isa))
    }

    /// Bytes that a prepared key of so many digits on `basis` occupies whose uniform halves are seeds: 5, 6 or
    /// 6.5 for each residue of at most 40, at most 48, more bits, of both halves, or of one where the
    /// other one is made when it is needed. As [`CpuKey::bytes`], without the [list of refused words](Self::listed_bytes).
    ///
    /// # Errors
    /// [`crate::RingError::BadBasis`] if `basis` names primes outside the chain.
    pub fn bytes_of(chain: &Chain, isa: Isa, basis: Basis, digits: usize) -> Result<usize> {
        let words = Self::words_of(chain, isa, basis, digits)?;
        Ok(8 * words.iter().sum::<usize>())
    }

    /// Words of the buffers of such a key: its round keys, none where both halves are stored, and its
    /// rows.
    ///
    /// # Errors
    /// [`crate::RingError::BadBasis`] if `basis` names primes outside the chain.
    pub fn words_of(chain: &Chain, isa: Isa, basis: Basis, digits: usize) -> Result<[usize; 2]> {
        chain.check_basis("words_of", basis)?;
        let rows = Self::stored_halves(chain, isa) * digits;
        let round_keys = match keeps_seeds(chain, isa) {
            true => basis.len() * digits * ROUND_KEYS,
            false => 0,
        };
        let end = begins(chain, basis, rows).last().copied();
        Ok([round_keys, end.unwrap_or(0)])
    }

    /// Bytes of the list of refused words that such a key has beside its buffers, on average: of words of a prime
    /// just below a power of two hardly any is refused, just above `2^45` one in 128, and of none more than one in
    /// about 32. Primes outside of the chain have none.
    #[must_use]
    pub fn listed_bytes(chain: &Chain, isa: Isa, basis: Basis, digits: usize) -> usize {
        if !keeps_seeds(chain, isa) {
            return 0;
        }
        let primes = chain.all().intersect(basis);
        let words = primes
            .iter()
            .map(|i| refused_on_average(chain.modulus(i), digits * chain.n()));
        let tables = primes.len() * (chain.n().div_ceil(GRID) + 1) * size_of::<usize>();
        words.sum::<usize>() * size_of::<Refused>() + tables
    }

    /// Bytes that the key occupies, but for its [list of refused words](Self::listed_bytes).
    pub fn bytes(&self) -> usize {
        let made = self.made.as_ref().map_or(0, |made| made.round_keys.len());
        (self.rows.len() + made) * 8
    }

    /// Number of stored rows.
    pub(super) fn stored(&self) -> usize {
        self.digits.len() * rows_of_a_digit(self.made.is_some())
    }

    /// What makes the uniform halves at prime `i` for these columns, from a multiple of eight on, if they are not
    /// stored; `order` is where the automorphism takes them.
    pub(super) fn uniform<'a>(
        &'a self,
        i: usize,
        columns: &Range<usize>,
        order: Option<&'a PermutationPiece<'a>>,
    ) -> Option<Uniform<'a>> {
        let made = self.made.as_ref()?;
        let words = self.digits.len() * ROUND_KEYS;
        // Another prime has no rows either.
        let pos = self.basis.position_of(i)?;
        Some(Uniform {
            round_keys: &made.round_keys[pos * words..(pos + 1) * words],
            order: order.filter(|_| !self.galois.is_identity()),
            first: columns.start / 8,
            refused: made.refused[pos].at(columns),
        })
    }

    /// All rows that prime `i` needs, and `PACKED_PAD` words more.
    pub(super) fn row_of(&self, i: usize) -> Option<&[u64]> {
        let pos = self.basis.position_of(i)?;
        let (begin, end) = (*self.begins.get(pos)?, *self.begins.get(pos + 1)?);
        self.rows.and_behind().get(begin..end + PACKED_PAD)
    }
}

/// Rows that are stored of each digit, and whether a key with seeds keeps these alone.
const fn rows_of_a_digit(seeds: bool) -> usize {
    if seeds { 1 } else { 2 }
}

/// Where the packed rows of each prime begin, of so many for each, and where the last ones end.
pub(super) fn begins(chain: &Chain, basis: Basis, rows: usize) -> Vec<usize> {
    let words = |i| packed_words(chain.modulus(i), rows, chain.n());
    let mut end = 0;
    let ends = basis.iter().map(|i| {
        end += words(i);
        end
    });
    std::iter::once(0).chain(ends).collect()
}

impl Cpu {
    /// Per prime and digit of a key what its uniform halves are made from, if they are not stored.
    fn round_keys(&self, key: &SwitchingKey) -> Option<Buffer> {
        let seeds: Option<Vec<_>> = key
            .parts
            .iter()
            .map(|(_, a)| match a {
                UniformHalf::Seeded { expander, stream } => Some((expander, *stream)),
                UniformHalf::Poly(_) => None,
            })
            .collect();
        let seeds = seeds.filter(|seeds| {
            let made = |(expander, _): &(&Expander, Stream)| expander.id() == ExpanderId::Aes128;
            self.seeds && seeds.iter().all(made)
        })?;
        let mut out = Buffer::kept(key.basis().len() * seeds.len() * ROUND_KEYS);
        let mut outs = out.chunks_exact_mut(ROUND_KEYS);
        for i in key.basis().iter() {
            for (expander, stream) in &seeds {
                let limb = limb_key(expander.seed(), *stream, self.chain.modulus(i));
                self.kernels.round_keys(&limb, outs.next()?);
            }
        }
        Some(out)
    }

    /// Per prime of a key what such round keys do not make at their first attempts.
    fn refused(&self, basis: Basis, round_keys: &[u64], to: &Permutation) -> Vec<RefusedWords> {
        let n = self.chain.n();
        let digits = round_keys.len() / (basis.len() * ROUND_KEYS).max(1);
        let mut keys = round_keys.chunks_exact(ROUND_KEYS);
        let of = |i: usize| {
            let mut refused = Vec::new();
            for digit in 0..digits as u32 {
                let mut words = Vec::new();
                let keys = keys.next().unwrap_or(&[]);
                self.kernels
                    .refused(self.chain.modulus(i), keys, n, &mut words);
                // A column meets the word of the place to which it goes.
                refused.extend(words.into_iter().map(|(word, more)| Refused {
                    column: to.source(word),
                    digit,
                    more,
                }));
            }
            RefusedWords::new(refused, n)
        };
        basis.iter().map(of).collect()
    }

    /// A key in the form that inner products read.
    pub(super) fn prepare(&self, key: &SwitchingKey) -> Result<CpuKey> {
        key.check(&self.chain)?;
        let n = self.chain.n();
        let inverse = Permutation::new(key.galois.inverse(self.chain.log_n()), self.chain.log_n());
        let basis = key.basis();
        let round_keys = self.round_keys(key);
        let each = rows_of_a_digit(round_keys.is_some());
        let count = each * key.parts.len();
        let begins = begins(&self.chain, basis, count);
        let mut rows = Buffer::kept(begins.last().copied().unwrap_or(0));
        let mut temp = Buffer::dirty(2 * n);
        let (temp, expanded) = temp.split_at_mut(n);
        for ((pos, i), run) in basis.iter().enumerate().zip(begins.windows(2)) {
            let m = self.chain.modulus(i);
            let out = &mut rows[run[0]..run[1]];
            let mut pack = |x: &[u64], row: usize| {
                self.kernels.permute(temp, x, &inverse.whole(), &[], false);
                self.kernels
                    .pack_row(m, out, temp, m.mont_one(), (row, count));
            };
            for (d, (b, a)) in key.parts.iter().enumerate() {
                pack(b.limb(pos), each * d);
                match a {
                    _ if round_keys.is_some() => {}
                    UniformHalf::Poly(a) => pack(a.limb(pos), 2 * d + 1),
                    UniformHalf::Seeded { expander, stream } => {
                        self.expand(expander, *stream, m, expanded);
                        pack(expanded, 2 * d + 1);
                    }
                }
            }
        }
        let permutation = Permutation::new(key.galois, self.chain.log_n());
        let made = round_keys.map(|round_keys| Made {
            refused: self.refused(basis, &round_keys, &permutation),
            round_keys,
        });
        Ok(CpuKey {
            galois: key.galois,
            permutation,
            digits: key.digits.clone(),
            special: key.special,
            basis,
            rows,
            begins,
            made,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_words_are_found_by_columns() {
        let n = 4 * GRID;
        let word = |column: usize| Refused {
            column: column as u32,
            digit: 0,
            more: 1,
        };
        let columns = [0, 63, 64, GRID - 1, GRID, 3 * GRID, n - 1];
        let listed = RefusedWords::new(columns.iter().rev().map(|&c| word(c)).collect(), n);
        // Blocks shorter than the grid, of it, longer, and all.
        for size in [64, GRID, 2 * GRID, n] {
            for start in (0..n).step_by(size) {
                let range = start..start + size;
                let expected = columns.iter().filter(|c| range.contains(c));
                let expected: Vec<Refused> = expected.map(|&c| word(c)).collect();
                assert_eq!(listed.at(&range), expected);
            }
        }
        assert!(RefusedWords::new(Vec::new(), 64).at(&(0..64)).is_empty());
    }

    #[test]
    fn lists_are_as_long_as_expected() {
        use crate::conformance::Samples;
        use crate::{Backend, CpuConfig, ntt_primes_near};

        // Above 2^45 one word in 128 is refused.
        let above = ntt_primes_near(2f64.powi(45) + 2f64.powi(30), 12, &[], 3).unwrap();
        let chain = Chain::new(12, &above).unwrap();
        let digits = [Basis::single(0), Basis::single(1)];
        let mut key = Samples::new(&chain, 3)
            .key(GaloisElement::rotation(1, 12), &digits, Basis::single(2))
            .unwrap();
        for (part, digit) in key.parts.iter_mut().zip(0..) {
            part.1 = UniformHalf::Seeded {
                expander: Expander::new(ExpanderId::Aes128, [digit; 32]),
                stream: Stream::default(),
            };
        }
        for isa in Isa::available() {
            let cpu = Cpu::new(chain.clone(), CpuConfig { isa }).unwrap();
            let made = cpu.prepare_key(&key).unwrap().made;
            let lists = made.iter().flat_map(|made| &made.refused);
            let found: usize = lists
                .map(|list| size_of_val(&list.words[..]) + size_of_val(&list.begins[..]))
                .sum();
            let expected = CpuKey::listed_bytes(&chain, isa, key.basis(), digits.len());
            assert_eq!(found == 0, isa != Isa::Avx512Ifma);
            // About 192 words, give or take 14.
            assert!(found.abs_diff(expected) < 16 * 40, "{found} of {expected}");
        }
    }
}
